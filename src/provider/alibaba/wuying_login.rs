//! WUYING cloud desktops: [`WuyingLogin`].

use std::fmt;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::errors;
use crate::classify::BodyCode;
use crate::clock::A_YEAR;
use crate::error::{Class, Faults, FetchError};
use crate::inject::Query;
use crate::provider::endpoint::{AccessKey, Endpoint, Signer, as_endpoint, vendor_methods};
use crate::provider::{FetchContext, IfLost, TokenProvider};
use crate::token::{Secret, Token};

/// The login token of an end user of WUYING Workspace: Alibaba Cloud ECD, version 2020-10-02.
///
/// `RefreshLoginToken` renews it as long as it lives, so that it is kept alive without traffic. The answer
/// names no lifetime. Default: 15 minutes, from the moment of sending, as the operation's first documentation
/// has it; since 2024 the documentation and the vendor's own client say 8 hours. If yours is the newer one,
/// [`lifetime`](Self::lifetime) of 8 hours saves 31 renewals of 32, and if it is not, it costs the session.
///
/// A dead token needs a person ([`Class::NeedsInteraction`]), unless a
/// [`keep_alive_token`](Self::keep_alive_token) lets it sign in again without a password. What was signed in
/// elsewhere is installed: `{"login_token": "...", "session_id": "...", "keep_alive_token": "..."}`.
///
/// Requests are anonymous, as all of the vendor's own clients have it: whoever has the token may renew it.
/// [`sign`](Self::access_key) them if yours have to be.
///
/// ```
/// use tower_token::alibaba::WuyingLogin;
/// use tower_token::{Origins, TokenLayer, Tokens};
///
/// # #[cfg(feature = "client")] {
/// let login = WuyingLogin::new("cn-hangzhou", "test-client-id", "alice")
///     .office_site_id("cn-shanghai+dir-1")
///     .session_id("test-session")
///     .login_token("test-login-token");
/// let tokens = Tokens::new(login)?;
/// let layer = TokenLayer::new(&tokens, Origins::only("https://ecd.cn-hangzhou.aliyuncs.com")?)
///     .inject(WuyingLogin::in_query())
///     .classify(WuyingLogin::refused());
/// # let _ = layer; }
/// # Ok::<(), tower_token::Error>(())
/// ```
///
/// Source: ECD `GetLoginToken`, `RefreshLoginToken`. The code of a dead token is not published: any refusal
/// that is not about throttling, signatures or permissions counts as one.
#[derive(Clone)]
pub struct WuyingLogin {
    endpoint: Endpoint,
    url: String,
    region_id: String,
    lifetime: Duration,
}

const DOCUMENT: &str = concat!(
    r#"{
    "renew": {
        "url": "/",
        "headers": { "x-acs-action": "RefreshLoginToken", "x-acs-version": "2020-10-02" },
        "query": {
            "Action": "RefreshLoginToken",
            "Format": "json",
            "Version": "2020-10-02",
            "Timestamp": "{timestamp}",
            "SignatureNonce": "{nonce}",
            "RegionId": "{region_id}",
            "ClientId": "{client_id}",
            "EndUserId": "{end_user_id}",
            "LoginToken": "{access_token}",
            "OfficeSiteId": "{office_site_id}",
            "SessionId": "{session_id}"
        }
    },
    "acquire": {
        "url": "/",
        "headers": { "x-acs-action": "GetLoginToken", "x-acs-version": "2020-10-02" },
        "query": {
            "Action": "GetLoginToken",
            "Format": "json",
            "Version": "2020-10-02",
            "Timestamp": "{timestamp}",
            "SignatureNonce": "{nonce}",
            "RegionId": "{region_id}",
            "ClientId": "{client_id}",
            "OfficeSiteId": "{office_site_id}",
            "CurrentStage": "KeepAliveVerify",
            "KeepAlive": true,
            "KeepAliveToken": "{keep_alive_token}"
        },
        "needs": ["keep_alive_token"]
    },
    "answer": {
        "token": "/LoginToken",
        "expires": { "lifetime": "15m" },
        "keep": { "session_id": "/SessionId", "keep_alive_token": "/KeepAliveToken" }
    },
    "renew_before_death": true,
    "replay": "once",
    "errors": "#,
    errors!(),
    "}"
);

impl WuyingLogin {
    /// The session of `end_user_id` at the client `client_id`, which has to be the one that signed in.
    ///
    /// Asked is `https://ecd.{region_id}.aliyuncs.com`. What is wrong with these or other fields is said when
    /// [`Tokens`](crate::Tokens) are made from it.
    pub fn new(region_id: impl Into<String>, client_id: impl Into<String>, end_user_id: impl Into<String>) -> Self {
        let (region_id, client_id, end_user_id) = (region_id.into(), client_id.into(), end_user_id.into());
        let url = Self::address(&region_id);
        let mut endpoint = Endpoint::vendor(DOCUMENT, &url);
        endpoint.dead = Class::NeedsInteraction;
        endpoint.token_alias = "login_token";
        endpoint.set("region_id", &region_id);
        endpoint.set("client_id", &client_id);
        endpoint.set("end_user_id", &end_user_id);
        Self {
            endpoint,
            url,
            lifetime: LIFE,
            region_id,
        }
    }

    fn address(region_id: &str) -> String {
        format!("https://ecd.{region_id}.aliyuncs.com")
    }

    /// Another address than the region's own, https or on loopback. Default: `https://ecd.{region_id}.aliyuncs.com`.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self.endpoint.rebase(DOCUMENT, &self.url);
        self
    }

    /// The office site or directory of the session: `cn-shanghai+dir-1`. Default: not sent.
    #[must_use]
    pub fn office_site_id(mut self, id: impl Into<String>) -> Self {
        self.endpoint.set("office_site_id", &id.into());
        self
    }

    /// What `GetLoginToken` returned on its first call. Default: not sent.
    #[must_use]
    pub fn session_id(mut self, id: impl Into<String>) -> Self {
        self.endpoint.set_secret("session_id", &id.into());
        self
    }

    /// The token to begin with, taken for just issued. Default: none, so that one is had with the
    /// [`keep_alive_token`](Self::keep_alive_token).
    #[must_use]
    pub fn login_token(mut self, token: impl Into<String>) -> Self {
        self.endpoint.begin_with("access_token", &token.into());
        self
    }

    /// Signs in again without a password when the login token is dead (`CurrentStage=KeepAliveVerify`).
    ///
    /// Default: none, so that a dead token needs a person. An answer that brings another replaces it.
    #[must_use]
    pub fn keep_alive_token(mut self, token: impl Into<String>) -> Self {
        self.endpoint.set_secret("keep_alive_token", &token.into());
        self
    }

    /// How long a login token lives, because no answer says it. Default: 15 minutes. More than a year counts as a year.
    #[must_use]
    pub fn lifetime(mut self, life: Duration) -> Self {
        self.lifetime = life.min(A_YEAR);
        self.endpoint.answer.lives(self.lifetime);
        self
    }

    /// Signs requests with these keys (ACS3-HMAC-SHA256). Default: they are anonymous.
    #[must_use]
    pub fn access_key(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        let key = self.endpoint.key();
        self.signed(AccessKey {
            access_key_id: Secret::new(id.into()),
            access_key_secret: Secret::new(secret.into()),
            ..key
        })
    }

    /// The security token of temporary keys (STS), beside [`access_key`](Self::access_key).
    #[must_use]
    pub fn security_token(self, token: impl Into<String>) -> Self {
        let key = self.endpoint.key();
        self.signed(AccessKey {
            security_token: Some(Secret::new(token.into())),
            ..key
        })
    }

    pub(crate) fn signed(mut self, key: AccessKey) -> Self {
        self.endpoint.sign = Some(Signer::acs3(key));
        // The headers say it, under a signature.
        self.endpoint
            .drop_parameters(&["Action", "Format", "Version", "Timestamp", "SignatureNonce"]);
        self
    }

    vendor_methods!();

    /// How the operations of version 2020-10-02 take the token: the query parameter `LoginToken`.
    pub fn in_query() -> Query {
        Query::new("LoginToken")
    }

    /// How they refuse it: a `Code` that names the login token with a 400, 403 or 404, or a 401.
    #[allow(clippy::expect_used, reason = "constants that a test reads")]
    pub fn refused() -> BodyCode {
        // None is published. These say it in the gateway's usual forms.
        let codes = [
            "InvalidLoginToken*",
            "InvalidParameter.LoginToken*",
            "LoginToken*",
            "ExpiredLoginToken*",
            "InvalidToken*",
            "ExpiredToken*",
            "TokenExpired*",
        ];
        BodyCode::new(StatusCode::BAD_REQUEST, "/Code", codes)
            .and_then(|refused| refused.or(StatusCode::FORBIDDEN, "/Code", codes))
            .and_then(|refused| refused.or(StatusCode::NOT_FOUND, "/Code", codes))
            .expect("a pointer, and codes")
    }
}

impl TokenProvider for WuyingLogin {
    as_endpoint!();

    fn owner(&self) -> String {
        self.endpoint.owner_of(
            "alibaba.login",
            &self.url,
            &["region_id", "client_id", "end_user_id", "office_site_id"],
        )
    }

    fn initial(&self, now: SystemTime) -> Option<Token> {
        let token = self.endpoint.seeded()?.issued_at(now).expires_in(self.lifetime);
        Some(token.renew_by(now + self.lifetime))
    }

    fn check(&self, faults: &mut Faults) {
        for name in ["region_id", "client_id", "end_user_id"] {
            if !self.endpoint.has_var(name) {
                faults.add(name, "is missing; write what GetLoginToken was called with");
            }
        }
        // The address is made of it, unless another was given.
        let own = self.url == Self::address(&self.region_id);
        if own
            && !self
                .region_id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            faults.add("region_id", "is the name of no region; write one, as in cn-hangzhou");
        } else if !(own && self.region_id.is_empty()) {
            self.endpoint.check_vendor(&self.url, faults);
        }
        if self.endpoint.sign.is_some() {
            self.endpoint.check_sign("sign.", faults);
        }
        if !self.endpoint.has_seed("access_token") && !self.endpoint.has_var("keep_alive_token") {
            faults.add(
                "login_token",
                "is missing, and so is keep_alive_token; write one of them, as GetLoginToken returned it",
            );
        }
        if self.lifetime.is_zero() {
            faults.add("lifetime", "is zero; write how long a login token lives");
        }
    }
}

impl fmt::Debug for WuyingLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WuyingLogin")
            .field("endpoint", &self.endpoint)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

const LIFE: Duration = Duration::from_secs(15 * 60);
