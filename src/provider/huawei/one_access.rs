//! Tokens of a person: [`OneAccess`].

use std::fmt;

use super::errors;
use crate::error::{Faults, FetchError};
use crate::provider::endpoint::{Endpoint, as_endpoint, vendor_methods};
use crate::provider::{FetchContext, IfLost, TokenProvider};
use crate::token::Token;

/// Access tokens for a person who signed in at Huawei `OneAccess` (`POST /api/v1/oauth2/token`).
///
/// Renewed with a refresh token, which the answer may replace; one that does not keeps the last. An
/// application's refresh tokens are switched off by default in `OneAccess`: then the token that the
/// [`code`](Self::code) brought is the only one, and a person has to sign in again when it is over.
///
/// A token lives as long as `expires_in` says (2 hours, unless the instance is set otherwise), a number or one in a text.
///
/// The API takes the token as `Authorization: Bearer` and refuses it with 401, which are the layer's
/// defaults. Another refresh token is installed as `{"refresh_token": "..."}`.
///
/// ```
/// use tower_token::huawei::OneAccess;
///
/// let grant = OneAccess::new("https://acme.huaweioneaccess.com", "test-client")
///     .client_secret("test-secret")
///     .refresh_token("test-refresh-token");
/// # #[cfg(feature = "client")]
/// let tokens = tower_token::Tokens::new(grant)?;
/// # Ok::<(), tower_token::Error>(())
/// ```
///
/// Source: `OneAccess`, `IssueOAuthAccessToken`, `RenewOAuthToken`.
#[derive(Clone)]
pub struct OneAccess {
    endpoint: Endpoint,
    url: String,
    client_id: String,
}

const DOCUMENT: &str = concat!(
    r#"{
    "renew": {
        "url": "/api/v1/oauth2/token",
        "form": {
            "grant_type": "refresh_token",
            "refresh_token": "{refresh_token}",
            "client_id": "{client_id}",
            "client_secret": "{client_secret}"
        }
    },
    "acquire": {
        "url": "/api/v1/oauth2/token",
        "form": {
            "grant_type": "authorization_code",
            "code": "{code}",
            "redirect_uri": "{redirect_uri}",
            "client_id": "{client_id}",
            "client_secret": "{client_secret}"
        },
        "needs": ["code"]
    },
    "fallback": "never",
    "answer": {
        "token": "/access_token",
        "refresh_token": "/refresh_token",
        "expires": { "seconds": "/expires_in" }
    },
    "errors": "#,
    errors!(),
    "}"
);

impl OneAccess {
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

    /// The first refresh token. Default: none, so that a [`code`](Self::code) is exchanged, or one is installed.
    #[must_use]
    pub fn refresh_token(mut self, token: impl Into<String>) -> Self {
        self.endpoint.begin_with("refresh_token", &token.into());
        self
    }

    /// An authorization code, good for one use: exchanged for the first token, if there is no refresh token.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.endpoint.set_secret("code", &code.into());
        self
    }

    /// The redirect URI that the code was asked for with. Default: not sent.
    #[must_use]
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.endpoint.set("redirect_uri", &uri.into());
        self
    }

    vendor_methods!();
}

impl TokenProvider for OneAccess {
    as_endpoint!();

    fn owner(&self) -> String {
        self.endpoint.owner_of("huawei.oneaccess", &self.url, &["client_id"])
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

impl fmt::Debug for OneAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneAccess")
            .field("client_id", &self.client_id)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
