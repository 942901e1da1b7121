//! Tokens of an application: [`Tenant`].

use std::fmt;

use super::errors;
use crate::error::{Faults, FetchError};
use crate::provider::endpoint::{Endpoint, as_endpoint, vendor_methods};
use crate::provider::{FetchContext, IfLost, TokenProvider};
use crate::token::Token;

/// Access tokens for an application itself (`POST /api/v2/tenant/token`).
///
/// They live for 30 minutes. A new one does not end the last, so that a lost answer is simply asked for again.
///
/// ```
/// use tower_token::huawei::Tenant;
///
/// let grant = Tenant::new("https://acme.huaweioneaccess.com", "test-client").client_secret("test-secret");
/// # #[cfg(feature = "client")]
/// let tokens = tower_token::Tokens::new(grant)?;
/// # Ok::<(), tower_token::Error>(())
/// ```
///
/// Source: `OneAccess`, `ShowAuthToken`.
#[derive(Clone)]
pub struct Tenant {
    endpoint: Endpoint,
    url: String,
    client_id: String,
}

const DOCUMENT: &str = concat!(
    r#"{
    "acquire": {
        "url": "/api/v2/tenant/token",
        "form": {
            "grant_type": "client_credentials",
            "client_id": "{client_id}",
            "client_secret": "{client_secret}"
        }
    },
    "answer": { "token": "/access_token", "expires": { "seconds": "/expires_in" } },
    "errors": "#,
    errors!(),
    "}"
);

impl Tenant {
    /// Asks the instance's own domain `endpoint` (`https://{..}.huaweioneaccess.com`), as the application `client_id`.
    ///
    /// What is wrong with these or other fields is said when [`Tokens`](crate::Tokens) are made from it.
    pub fn new(endpoint: impl Into<String>, client_id: impl Into<String>) -> Self {
        let (url, client_id) = (endpoint.into(), client_id.into());
        let mut endpoint = Endpoint::vendor(DOCUMENT, &url);
        endpoint.set("client_id", &client_id);
        Self {
            endpoint,
            url,
            client_id,
        }
    }

    /// The application's secret. Default: none, which is an error.
    #[must_use]
    pub fn client_secret(mut self, secret: impl Into<String>) -> Self {
        self.endpoint.set_secret("client_secret", &secret.into());
        self
    }

    vendor_methods!();
}

impl TokenProvider for Tenant {
    as_endpoint!();

    fn owner(&self) -> String {
        self.endpoint.owner_of("huawei.tenant", &self.url, &["client_id"])
    }

    fn check(&self, faults: &mut Faults) {
        self.endpoint.check_vendor(&self.url, faults);
        if self.client_id.is_empty() {
            faults.add("client_id", "is missing; write the id of the application");
        }
        if !self.endpoint.has_var("client_secret") {
            faults.add("client_secret", "is missing; write the secret of the application");
        }
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("client_id", &self.client_id)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
