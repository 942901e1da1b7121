//! Smart Media Hosting: [`SmhLibrary`].

use std::fmt;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::classify::BodyCode;
use crate::clock::A_YEAR;
use crate::error::{Faults, FetchError};
use crate::inject::Query;
use crate::provider::endpoint::{Endpoint, as_endpoint, vendor_methods};
use crate::provider::{FetchContext, IfLost, TokenProvider};
use crate::token::Token;

/// The access token of a library of Tencent Smart Media Hosting.
///
/// A token is renewed with itself (`POST /api/v1/token/{LibraryId}/{AccessToken}`) and only while it lives, so
/// that it is kept alive without traffic. Once it is dead or refused, another is generated with the library's
/// secret (`GET /api/v1/token`). Its life is what the answer's `expiresIn` says, and begins anew with every
/// use; counted is from the last renewal, which is never too late.
///
/// | an answer | means |
/// |---|---|
/// | 403 `InvalidAccessToken`, `AccessToken*` | the token is dead: another is generated |
/// | 403 `NoPermission`, `SpaceBanned` and the like; 404 `LibraryNotFound`, `WrongLibraryIdOrSecret` | the configuration is wrong, and no token helps ([`Class::Config`](crate::Class::Config)) |
/// | 429 `RateLimitExceeded` | throttled |
/// | 403 `LibraryInitializing`, 408, 5xx | transient |
///
/// Another token is installed as `{"access_token": "..."}`.
///
/// ```
/// use tower_token::tencent::SmhLibrary;
/// use tower_token::{Origins, TokenLayer, Tokens};
///
/// # #[cfg(feature = "client")] {
/// let library = SmhLibrary::new("https://smh0.api.tencentsmh.cn", "smh0").library_secret("test-secret");
/// let tokens = Tokens::new(library)?;
/// // As `Authorization: Bearer`, which keeps it out of logs; `.inject(SmhLibrary::in_query())` is the other way.
/// let layer = TokenLayer::new(&tokens, Origins::only("https://smh0.api.tencentsmh.cn")?)
///     .classify(SmhLibrary::refused());
/// # let _ = layer; }
/// # Ok::<(), tower_token::Error>(())
/// ```
///
/// Source: SMH "Generate Access Token", "Renew Access Token", "Error Codes". Whether a renewal changes the
/// token is not said; what comes back is used.
#[derive(Clone)]
pub struct SmhLibrary {
    endpoint: Endpoint,
    url: String,
    library_id: String,
    period: Option<Duration>,
}

const DOCUMENT: &str = r#"{
    "renew": { "url": "/api/v1/token/{library_id}/{access_token}" },
    "acquire": {
        "method": "GET",
        "url": "/api/v1/token",
        "query": {
            "library_id": "{library_id}",
            "library_secret": "{library_secret}",
            "space_id": "{space_id}",
            "user_id": "{user_id}",
            "period": "{period}",
            "grant": "{grant}"
        },
        "needs": ["library_secret"]
    },
    "answer": { "token": "/accessToken", "expires": { "seconds": "/expiresIn" } },
    "renew_before_death": true,
    "errors": {
        "code": "/code",
        "classes": {
            "throttled": ["RateLimitExceeded"],
            "transient": ["LibraryInitializing"],
            "terminal": ["InvalidAccessToken", "AccessToken*"],
            "config": [
                "Empty*", "WrongLibraryIdOrSecret", "LibraryNotFound", "SpaceNotFound", "RouteNotFound",
                "NoPermission", "ReadForbidden", "WriteForbidden", "LibraryServiceExpired", "SpaceBanned"
            ]
        }
    }
}"#;

impl SmhLibrary {
    /// Tokens of the library `library_id`; `endpoint` is its own domain, `https://{..}.api.tencentsmh.cn`.
    ///
    /// What is wrong with these or other fields is said when [`Tokens`](crate::Tokens) are made from it.
    pub fn new(endpoint: impl Into<String>, library_id: impl Into<String>) -> Self {
        let (url, library_id) = (endpoint.into(), library_id.into());
        let mut endpoint = Endpoint::vendor(DOCUMENT, &url);
        endpoint.set("library_id", &library_id);
        Self {
            endpoint,
            url,
            library_id,
            period: None,
        }
    }

    /// What tokens are generated with. Default: none, so that a dead token is terminal.
    #[must_use]
    pub fn library_secret(mut self, secret: impl Into<String>) -> Self {
        self.endpoint.set_secret("library_secret", &secret.into());
        self
    }

    /// The token to begin with, taken for just issued. Default: none, so that the first is generated.
    #[must_use]
    pub fn access_token(mut self, token: impl Into<String>) -> Self {
        self.endpoint.begin_with("access_token", &token.into());
        self
    }

    /// How long tokens shall live, in whole seconds. Default: not said, then the service's 24 hours.
    ///
    /// It gives 20 minutes at least; more than a year counts as a year. What it answers (`expiresIn`) counts.
    #[must_use]
    pub fn period(mut self, period: Duration) -> Self {
        let period = period.min(A_YEAR);
        self.period = Some(period);
        self.endpoint.set("period", &period.as_secs().to_string());
        self
    }

    /// The ids of the spaces that the token is good for. Default: not said.
    #[must_use]
    pub fn space_id<T: Into<String>>(mut self, ids: impl IntoIterator<Item = T>) -> Self {
        self.endpoint.set("space_id", &joined(ids));
        self
    }

    /// The id of the user on whose behalf it is. Default: not said.
    #[must_use]
    pub fn user_id(mut self, id: impl Into<String>) -> Self {
        self.endpoint.set("user_id", &id.into());
        self
    }

    /// What it may do: `admin`, `upload_file`. Default: to read.
    #[must_use]
    pub fn grant<T: Into<String>>(mut self, permissions: impl IntoIterator<Item = T>) -> Self {
        self.endpoint.set("grant", &joined(permissions));
        self
    }

    /// One more parameter of the request that generates a token: `client_id`, `session_id`, `local_sync_id`.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.endpoint.acquire_parameter(name.into(), &value.into().into());
        self
    }

    vendor_methods!();

    /// The token as the query parameter `access_token`, where a header cannot be used. URLs end up in logs.
    pub fn in_query() -> Query {
        Query::new("access_token")
    }

    /// How the API refuses a token: 403 with `InvalidAccessToken` or its kin, never 403 with `NoPermission`.
    #[allow(clippy::expect_used, reason = "constants that a test reads")]
    pub fn refused() -> BodyCode {
        let codes = [
            "InvalidAccessToken",
            "AccessTokenNotMatchLibrary",
            "AccessTokenNotMatchSpace",
            "AccessTokenVersionNotMatch",
            "AccessTokenNotMatchLibraryVersion",
            "InvalidAuthorization",
            "AuthorizationExpired",
            "InvalidAuthCode",
            "InvalidUserToken",
        ];
        BodyCode::new(StatusCode::FORBIDDEN, "/code", codes).expect("a pointer, and codes")
    }
}

fn joined<T: Into<String>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(Into::into).collect();
    items.join(",")
}

impl TokenProvider for SmhLibrary {
    as_endpoint!();

    fn owner(&self) -> String {
        self.endpoint.owner_of(
            "tencent.smh",
            &self.url,
            &["library_id", "space_id", "user_id", "grant", "acquire.client_id"],
        )
    }

    fn initial(&self, now: SystemTime) -> Option<Token> {
        let life = self.period.unwrap_or(PERIOD);
        Some(
            self.endpoint
                .seeded()?
                .issued_at(now)
                .expires_in(life)
                .renew_by(now + life),
        )
    }

    fn check(&self, faults: &mut Faults) {
        self.endpoint.check_vendor(&self.url, faults);
        if self.library_id.is_empty() {
            faults.add("library_id", "is missing; write the id of the library");
        }
        if !self.endpoint.has_seed("access_token") && !self.endpoint.has_var("library_secret") {
            faults.add(
                "library_secret",
                "is missing, and so is access_token; write the secret of the library",
            );
        }
        if self.period.is_some_and(|period| period.as_secs() == 0) {
            faults.add("period", "is below a second; the service gives 20 minutes at least");
        }
    }
}

impl fmt::Debug for SmhLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmhLibrary")
            .field("library_id", &self.library_id)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

const PERIOD: Duration = Duration::from_secs(24 * 3600);
