//! One token as a JSON document describes it: [`TokenConfig`].
//!
//! ```
//! # #[cfg(feature = "client")] {
//! use std::path::Path;
//! use tower_token::config::{self, TokenConfig};
//! use tower_token::{Origins, TokenLayer};
//!
//! let document: TokenConfig = config::read(r#"{
//!     "provider": { "type": "tencent.smh", "endpoint": "https://smh0.api.tencentsmh.cn",
//!                   "library_id": "smh0", "library_secret": "test-secret" },
//!     "policy":   { "fetch_timeout": "10s" }
//! }"#)?;
//! let tokens = document.builder("", Path::new("."))?.build()?;
//! let layer = TokenLayer::new(&tokens, Origins::only("https://smh0.api.tencentsmh.cn")?)
//!     .inject(document.injection("")?)
//!     .classify(document.refusal("")?);
//! # let _ = layer; }
//! # Ok::<(), tower_token::Error>(())
//! ```
//!
//! | field | what |
//! |---|---|
//! | `provider` | who mints it: `type` and that type's own fields, see [`Provider`] |
//! | `inject` | how it is presented, see [`Inject`]; default: as the provider's API has it |
//! | `refuse` | what is a refusal, see [`Refuse`]; default: as the provider's API has it |
//! | `policy` | when it is renewed, see [`Policy`] |
//! | `origins` | where it may go, for programs that ask [`TokenConfig::origins`] |
//! | `store` | where it outlives the process, and is shared with others, see [`Store`]; default: nowhere |
//! | `expose` | whether a program may hand it to others, as the sidecar does |
//!
//! A secret is a text, `{"env": "NAME"}` or `{"file": "path"}`; a duration is `"250ms"`, `"2s"`, `"15m"` or
//! `"24h"`; a `null` is as good as leaving the field out. What is wrong is named with its path in the
//! document and what would be right, and no value is ever quoted.

mod presentation;
mod provider;
mod store;

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Faults};
use crate::lifetime::RefreshPolicy;
use crate::origin::Origins;
use crate::tokens::TokensBuilder;

pub use self::presentation::{Inject, Injection, Refusal, Refuse};
pub use self::provider::{
    ClientAuth, ClientCredentials, Generate, Huawei, HuaweiTenant, List, Provider, RefreshToken, Smh, Weboffice,
    WuyingLogin,
};
pub use self::store::{Store, StoredInFile, StoredInRedis};
pub use crate::document::{Source, Span, read};

/// One token: who mints it, how it is presented, what refuses it, when it is renewed.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TokenConfig {
    /// Who mints it.
    pub provider: Provider,
    /// How it is presented. Default: as the provider's API has it.
    pub inject: Option<Inject>,
    /// What is a refusal. Default: as the provider's API has it.
    pub refuse: Option<Refuse>,
    /// When it is renewed.
    #[serde(default)]
    pub policy: Policy,
    /// Where it may go: `["https://api.example.com"]`.
    #[serde(default)]
    pub origins: Vec<String>,
    /// Where it outlives the process, and is shared with others. Default: nowhere.
    pub store: Option<Store>,
    /// Whether a program may hand it to others. Default: no.
    #[serde(default)]
    pub expose: bool,
}

impl TokenConfig {
    /// The builder of its [`Tokens`](crate::Tokens), to which observers may be added.
    ///
    /// `at` is the path of this part in its document (`tokens.imm`, or nothing), for messages; `base` is where
    /// relative paths of secrets begin. Secrets are read now.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`]; the message names every wrong field with its path.
    pub fn builder(&self, at: &str, base: &Path) -> Result<TokensBuilder, Error> {
        let mut faults = Faults::default();
        let mut builder = self.provider.builder(&below(at, "provider"), base, &mut faults);
        let policy = self.policy.clone().into_policy(&mut faults, &below(at, "policy"));
        for other in [self.injection(at).err(), self.refusal(at).err()].into_iter().flatten() {
            faults.extend(&other);
        }
        if let Some(wrong) = self.origins(at).err().filter(|_| !self.origins.is_empty()) {
            faults.extend(&wrong);
        }
        if let Some(store) = &self.store {
            builder = store.keep(builder, &policy, &below(at, "store"), base, &mut faults);
        }
        faults.into_result()?;
        Ok(builder.policy(policy))
    }

    /// How it is presented: for [`TokenLayer::inject`](crate::TokenLayer::inject).
    ///
    /// # Errors
    ///
    /// [`Error::is_config`], as [`builder`](Self::builder).
    pub fn injection(&self, at: &str) -> Result<Injection, Error> {
        match &self.inject {
            Some(inject) => inject.injection(&below(at, "inject")),
            None => Ok(self.provider.injection()),
        }
    }

    /// What refuses it: for [`TokenLayer::classify`](crate::TokenLayer::classify).
    ///
    /// # Errors
    ///
    /// [`Error::is_config`], as [`builder`](Self::builder).
    pub fn refusal(&self, at: &str) -> Result<Refusal, Error> {
        let refusal = match &self.refuse {
            Some(refuse) => refuse.refusal(&below(at, "refuse"))?,
            None => self.provider.refusal(),
        };
        Ok(match self.inject.as_ref().and_then(Inject::scheme) {
            Some(scheme) => refusal.scheme(scheme),
            None => refusal,
        })
    }

    /// Where it may go: for [`TokenLayer::new`](crate::TokenLayer::new).
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] for an origin that is none, and for none at all.
    pub fn origins(&self, at: &str) -> Result<Origins, Error> {
        let mut faults = Faults::default();
        let mut origins: Option<Origins> = None;
        for (index, origin) in self.origins.iter().enumerate() {
            let with = match &origins {
                Some(others) => others.clone().and(origin),
                None => Origins::only(origin),
            };
            match with {
                Ok(with) => origins = Some(with),
                Err(wrong) => faults.rename(&format!("{}[{index}]", below(at, "origins")), &wrong),
            }
        }
        faults.into_result()?;
        origins.ok_or_else(|| {
            Error::config(
                below(at, "origins"),
                "is missing; write the origins that it may go to, as in [\"https://api.example.com\"]",
            )
        })
    }

    /// How long one exchange with the issuer may take.
    pub fn fetch_timeout(&self) -> Duration {
        let own = self.policy.fetch_timeout.map(|Span(timeout)| timeout);
        own.unwrap_or(RefreshPolicy::default().fetch_timeout)
    }
}

/// The path of a field below another.
fn below(at: &str, field: &str) -> String {
    if at.is_empty() {
        field.into()
    } else {
        format!("{at}.{field}")
    }
}

/// When a token is renewed. Every field may be left out; the defaults are [`RefreshPolicy`]'s.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Policy {
    /// The advisory window: renewed in the background this long before expiry.
    ///
    /// See [`RefreshPolicy::refresh_before`].
    pub refresh_before: Option<Span>,
    /// The mandatory window: all requests wait for a new token this long before expiry.
    ///
    /// See [`RefreshPolicy::require_before`].
    pub require_before: Option<Span>,
    /// How long one exchange with the issuer may take. Default: `30s`.
    ///
    /// See [`RefreshPolicy::fetch_timeout`].
    pub fetch_timeout: Option<Span>,
    /// The shortest time between a failure, a refusal or a repeated token and the next fetch. Default: `1s`.
    ///
    /// See [`RefreshPolicy::min_interval`].
    pub min_interval: Option<Span>,
    /// Renewed up to this share of the life earlier, from 0.0 to 0.5. Default: 0.1.
    ///
    /// See [`RefreshPolicy::jitter`].
    pub jitter: Option<f64>,
    /// Whether it is renewed without traffic. Default: what the provider says.
    ///
    /// See [`RefreshPolicy::keep_alive`].
    pub keep_alive: Option<bool>,
    /// The life of a token whose issuer names none. Default: `5m`.
    ///
    /// See [`RefreshPolicy::assumed_life`].
    pub assumed_life: Option<Span>,
    /// How many callers may wait for one fetch at once. Default: 65536.
    ///
    /// See [`RefreshPolicy::max_waiters`].
    pub max_waiters: Option<usize>,
    /// How long past its expiry it is sent when no newer one can be had. Default: never.
    ///
    /// See [`RefreshPolicy::static_stability`].
    pub static_stability: Option<Span>,
}

impl Policy {
    fn into_policy(self, faults: &mut Faults, at: &str) -> RefreshPolicy {
        let mut policy = RefreshPolicy::default();
        type Set = fn(RefreshPolicy, Duration) -> RefreshPolicy;
        let durations: [(Option<Span>, Set); 6] = [
            (self.refresh_before, RefreshPolicy::refresh_before),
            (self.require_before, RefreshPolicy::require_before),
            (self.fetch_timeout, RefreshPolicy::fetch_timeout),
            (self.min_interval, RefreshPolicy::min_interval),
            (self.assumed_life, RefreshPolicy::assumed_life),
            (self.static_stability, RefreshPolicy::static_stability),
        ];
        for (span, set) in durations {
            if let Some(Span(span)) = span {
                policy = set(policy, span);
            }
        }
        if let Some(share) = self.jitter {
            policy = policy.jitter(share);
        }
        if let Some(keep_alive) = self.keep_alive {
            policy = policy.keep_alive(keep_alive);
        }
        if let Some(waiters) = self.max_waiters {
            policy = policy.max_waiters(waiters);
        }
        let mut found = Faults::default();
        policy.check(&mut found);
        // The policy says `policy.` itself.
        faults.absorb(at.strip_suffix(".policy").unwrap_or_default(), found);
        policy
    }
}
