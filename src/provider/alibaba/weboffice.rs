//! IMM's online documents: [`Weboffice`].

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::errors;
use crate::error::{Faults, FetchError};
use crate::provider::endpoint::{AccessKey, Endpoint, Signer, as_endpoint, vendor_methods};
use crate::provider::{FetchContext, IfLost, TokenProvider};
use crate::token::{Secret, Token};

/// The pair of tokens behind a document that is open in a browser: Alibaba Cloud IMM, version 2020-09-30.
///
/// The access token lives for 30 minutes, the refresh token for a day. `RefreshWebofficeToken` replaces both;
/// a dead access token can be renewed as long as its refresh token lives, so that an idle pair is renewed once
/// a day. With [`generate`](Self::generate) a dead pair is replaced by `GenerateWebofficeToken`; without, it is
/// [terminal](crate::Class::Terminal) until another is installed: `{"access_token": "...", "refresh_token": "..."}`.
///
/// Requests are signed (ACS3-HMAC-SHA256), with a new nonce, date and signature on each attempt. If our clock
/// is off, it is corrected by the answer's `Date`, and the request is sent once more.
///
/// What a page's script asks for is a [`PageToken`].
///
/// ```
/// use tower_token::alibaba::Weboffice;
///
/// let weboffice = Weboffice::new("https://imm.cn-shanghai.aliyuncs.com", "my-project")
///     .access_key("LTAI-test", "test-secret")
///     .tokens("test-access-token", "test-refresh-token")
///     .generate("oss://bucket/report.docx");
/// # #[cfg(feature = "client")]
/// let tokens = tower_token::Tokens::new(weboffice)?;
/// # Ok::<(), tower_token::Error>(())
/// ```
///
/// Source: IMM `RefreshWebofficeToken`, `GenerateWebofficeToken`. What an old refresh token is worth once it
/// was used is not published; it is taken for dead.
#[derive(Clone)]
pub struct Weboffice {
    endpoint: Endpoint,
    url: String,
    project_name: String,
    expires_at: Option<SystemTime>,
}

const DOCUMENT: &str = concat!(
    r#"{
    "renew": {
        "url": "/",
        "headers": { "x-acs-action": "RefreshWebofficeToken", "x-acs-version": "2020-09-30" },
        "query": {
            "ProjectName": "{project_name}",
            "AccessToken": "{access_token}",
            "RefreshToken": "{refresh_token}",
            "CredentialConfig": "{credential_config}"
        }
    },
    "acquire": {
        "url": "/",
        "headers": { "x-acs-action": "GenerateWebofficeToken", "x-acs-version": "2020-09-30" },
        "query": {
            "ProjectName": "{project_name}",
            "SourceURI": "{source_uri}",
            "CredentialConfig": "{credential_config}"
        },
        "needs": ["source_uri"]
    },
    "answer": {
        "token": "/AccessToken",
        "refresh_token": "/RefreshToken",
        "expires": { "at": "/AccessTokenExpiredTime" },
        "refresh_expires": { "at": "/RefreshTokenExpiredTime" },
        "keep": { "weboffice_url": "/WebofficeURL" }
    },
    "errors": "#,
    errors!(),
    "}"
);

impl Weboffice {
    /// Pairs of the project `project_name`; `endpoint` is `https://imm.{region}.aliyuncs.com`, or
    /// `https://imm-vpc.{region}.aliyuncs.com` from within a VPC.
    ///
    /// What is wrong with these or other fields is said when [`Tokens`](crate::Tokens) are made from it.
    pub fn new(endpoint: impl Into<String>, project_name: impl Into<String>) -> Self {
        let (url, project_name) = (endpoint.into(), project_name.into());
        let mut endpoint = Endpoint::vendor(DOCUMENT, &url);
        endpoint.set("project_name", &project_name);
        Self {
            endpoint,
            url,
            project_name,
            expires_at: None,
        }
    }

    /// The keys that requests are signed with. Default: none, which is an error.
    #[must_use]
    pub fn access_key(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.endpoint.sign = Some(Signer::acs3(AccessKey {
            access_key_id: Secret::new(id.into()),
            access_key_secret: Secret::new(secret.into()),
            ..self.endpoint.key()
        }));
        self
    }

    /// The security token of temporary keys (STS). Default: none, the keys are permanent.
    #[must_use]
    pub fn security_token(mut self, token: impl Into<String>) -> Self {
        self.endpoint.sign = Some(Signer::acs3(AccessKey {
            security_token: Some(Secret::new(token.into())),
            ..self.endpoint.key()
        }));
        self
    }

    /// The pair to begin with, taken for just issued. Default: none, so that the first is generated.
    #[must_use]
    pub fn tokens(mut self, access_token: impl Into<String>, refresh_token: impl Into<String>) -> Self {
        self.endpoint.begin_with("access_token", &access_token.into());
        self.endpoint.begin_with("refresh_token", &refresh_token.into());
        self
    }

    /// When the access token of [`tokens`](Self::tokens) dies. Default: 30 minutes from now.
    #[must_use]
    pub fn expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// The document to generate a pair for when there is none, or a dead one: `oss://{bucket}/{object}`.
    ///
    /// A new pair ends the access of whoever uses the last one.
    #[must_use]
    pub fn generate(mut self, source_uri: impl Into<String>) -> Self {
        self.endpoint.set("source_uri", &source_uri.into());
        self
    }

    /// One more parameter of `GenerateWebofficeToken` under the API's own name: `Permission`, `User`,
    /// `Watermark`, `PreviewPages`. An object goes as one JSON text, as the API has it.
    #[must_use]
    pub fn generate_parameter(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.endpoint.acquire_parameter(name.into(), &value.into());
        self
    }

    /// `CredentialConfig` of both operations: an object, or a text that is sent as it stands.
    ///
    /// Default: none, the project's own role. Source: "Assume roles for IMM".
    #[must_use]
    pub fn credential_config(mut self, config: impl Into<Value>) -> Self {
        self.endpoint.set("credential_config", &Endpoint::text(&config.into()));
        self
    }

    vendor_methods!();
}

impl TokenProvider for Weboffice {
    as_endpoint!();

    fn owner(&self) -> String {
        self.endpoint.owner_of(
            "alibaba.weboffice",
            &self.url,
            &[
                "project_name",
                "source_uri",
                "credential_config",
                "acquire.User",
                "acquire.Permission",
            ],
        )
    }

    fn initial(&self, now: SystemTime) -> Option<Token> {
        let token = self.endpoint.seeded()?.issued_at(now).renew_by(now + REFRESH_LIFE);
        Some(match self.expires_at {
            Some(at) => token.expires_at(at),
            None => token.expires_in(LIFE),
        })
    }

    fn check(&self, faults: &mut Faults) {
        self.endpoint.check_vendor(&self.url, faults);
        if self.project_name.is_empty() {
            faults.add("project_name", "is missing; write the name of the IMM project");
        }
        self.endpoint.check_sign("", faults);
        let has = |name: &str| self.endpoint.has_seed(name);
        let generates = self.endpoint.has_var("source_uri");
        match (has("access_token"), has("refresh_token")) {
            (true, true) => {}
            (true, false) => faults.add(
                "refresh_token",
                "is missing; write the one that came with the access token",
            ),
            (false, true) => faults.add(
                "access_token",
                "is missing; write the one that came with the refresh token, dead or alive",
            ),
            // Without anything one has to be installed.
            (false, false) if generates => {}
            (false, false) => faults.add(
                "access_token",
                "is missing, and so is generate; write a pair of tokens, or generate.source_uri to get one with",
            ),
        }
    }
}

impl fmt::Debug for Weboffice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weboffice")
            .field("project_name", &self.project_name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// What the script of a page asks its server for: `{"token": "...", "timeout_ms": 1500000}`.
///
/// ```no_run
/// # async fn page(tokens: tower_token::Tokens) -> Result<(), tower_token::Error> {
/// use tower_token::alibaba::PageToken;
///
/// // aliyun.config({ mount, url, refreshToken: async () => { /* GET this */ } })
/// let answer = PageToken::of(&tokens.get().await?);
/// # let _ = answer; Ok(()) }
/// ```
///
/// Serialized it holds the token: it goes to the page and nowhere else. `Debug` prints none.
#[derive(Clone, Serialize)]
pub struct PageToken {
    /// The access token.
    pub token: String,
    /// How long it lives yet, in milliseconds.
    pub timeout_ms: u64,
}

impl PageToken {
    /// What a page may do with `token` from now on.
    pub fn of(token: &Token) -> Self {
        let left = token
            .expiry_time()
            .and_then(|dies| dies.duration_since(SystemTime::now()).ok());
        Self {
            token: token.secret().to_owned(),
            timeout_ms: left.map_or(0, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl fmt::Debug for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageToken")
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}

const LIFE: Duration = Duration::from_secs(30 * 60);
const REFRESH_LIFE: Duration = Duration::from_secs(24 * 3600);
