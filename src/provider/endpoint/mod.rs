//! A token endpoint as data: [`Endpoint`].
//!
//! An API that hands out tokens is four decisions: how the request is written, how it is signed, where
//! the answer's fields are, what its errors mean. They are a JSON document here, so that one more API is
//! one more document; the vendors that ship with this crate are such documents. `examples/vendors` has more:
//! `wechat.json`, `feishu.json`, `vault.json` and `github_app.json`.
//!
//! ```json
//! { "type": "endpoint",
//!   "acquire": { "method": "GET", "url": "https://api.example.com/token", "query": { "appid": "{appid}", "secret": "{secret}" } },
//!   "renew":   { "method": "POST", "url": "https://api.example.com/token/{appid}/{access_token}", "form": { "refresh_token": "{refresh_token}" } },
//!   "vars":    { "appid": "a", "secret": { "env": "S" } },
//!   "sign":    "none",
//!   "answer":  { "token": "/access_token", "refresh_token": "/refresh_token", "expires": { "seconds": "/expires_in" }, "keep": { "session": "/session_id" } },
//!   "errors":  { "code": "/errcode", "ok": [0], "classes": { "throttled": [45009, "429"], "terminal": [40013, "InvalidAccessToken"] } },
//!   "renew_before_death": true }
//! ```
//!
//! # Requests
//!
//! `acquire` makes a token from nothing, `renew` from the last one; either may be left out. A request has a
//! `method` (default: POST), a `url`, and optionally `query`, `headers`, and `form` or `json` as its body.
//! In their texts `{name}` stands for a value, percent-encoded for its place; `{{` is a brace. The values are
//!
//! | placeholder | value |
//! |---|---|
//! | `{access_token}`, `{refresh_token}` | of the last answer |
//! | a name in `answer.keep` | that field of the last answer that had it |
//! | a name in `vars` | as configured: a text, `{"env": "NAME"}`, `{"file": "path"}` |
//! | `{nonce}`, `{timestamp}` | 32 hexadecimal digits and the time (`2026-11-21T10:17:45Z`), new on every attempt |
//!
//! Secrets are read once, when the endpoint is made. A parameter that is nothing but a placeholder without a value is
//! left out. `access_token`, `refresh_token` and what the request lists in `needs` never are: without them it cannot be
//! made.
//!
//! # Signatures
//!
//! `"sign": "none"`, or Alibaba Cloud's ACS3-HMAC-SHA256:
//! `"sign": { "acs3": { "access_key_id": "..", "access_key_secret": {"env": ".."}, "security_token": null } }`,
//! or `rpc` in the place of `acs3` for HMAC-SHA1, which its older gateways take.
//!
//! # Answers
//!
//! A 2xx with a token that is not empty; the pointers are RFC 6901's. `expires` is one of
//!
//! | `expires` | the token dies |
//! |---|---|
//! | `{"seconds": p}`, `{"millis": p}` | so long after the request was sent: a number, or one in a text |
//! | `{"at": p}` | then: RFC 3339 with any offset, or seconds since 1970; measured by the answer's `Date` where our clock is off by more than 5 s |
//! | `{"lifetime": "15m"}` | so long after the request was sent, because the answer does not say it |
//! | left out, or nothing and zero in the answer | after [`assumed_life`](crate::RefreshPolicy::assumed_life), 5 minutes |
//!
//! `refresh_token` is what replaces the last one, `keep` what else later requests need; an answer without one
//! of them keeps the last. `refresh_expires`, in the forms of `expires`, says when what renews the token dies:
//! the token is then kept alive without traffic.
//!
//! # Errors
//!
//! `code` is a pointer or a list of them, `ok` the codes that are none; `unfinished` is where an answer of 2xx
//! without a token says what it wants first (`needs_interaction`, unless it is in a list). `classes` sorts codes, and statuses
//! written as one (`"404"`), into `throttled`, `transient`, `terminal`, `needs_interaction`, `config`,
//! `ambiguous` (the request may have been carried out) and `clock` (corrected by `Date`, and sent once more);
//! `Throttling.*` is every code that begins so. What is in no list:
//!
//! | answer | class |
//! |---|---|
//! | 429, 503 with `Retry-After` | throttled; `Retry-After`, or `x-acs-retry-after` in milliseconds |
//! | 408, 425, 503, a redirect (which is not followed), a code in an answer of 200 | transient |
//! | 500, 502, 504, 520, 524; a 2xx that is malformed, without a token, over 1 MiB or cut off | transient, and the request may have been carried out ([`IfLost`]) |
//! | another 4xx in JSON or without a body | terminal |
//! | another 4xx that is neither, such as a gateway's HTML | transient |
//!
//! A server that fails (5xx) gives no verdict: of its codes, those of `throttled`, `ambiguous` and `clock` count.
//!
//! # Renewing
//!
//! With `"renew_before_death": true` a token is kept alive without traffic, and once it is dead or refused,
//! `acquire` is asked instead (where there is none, renewing is tried all the same). `"fallback": "never"` is for an
//! `acquire` that is good for one use. `"replay"` (`once`, `never`, `idempotent`, `{"within": "30s"}`) says
//! what may be done when an answer was lost; the default is `once` where the answer has a `refresh_token`, else
//! `idempotent`.
//!
//! # In a store
//!
//! Whose tokens these are ([`owner`](crate::TokenProvider::owner)) is told by the URLs without their queries, and by those
//! of `vars`, and of the parameters that are written into a request, whose name is that of an account: it ends in `id`, or
//! is one of `account`, `audience`, `domain`, `organization`, `project`, `realm`, `resource`, `scope`, `tenant`, `user` and
//! `username`. Names with `secret`, `token`, `session`, `key`, `code`, `password` or `nonce` in them do not count. Where that
//! says too little or too much, `"owner": "my-app at example"` says it instead: no secret, and the same for all who share a
//! token. What it begins from ([`seed`](crate::TokenProvider::seed)) are those of `vars` that an answer replaces (`access_token`,
//! `refresh_token`, a name in `answer.keep`), and with `"fallback": "never"` what `acquire` needs.

mod account;
mod acs3;
mod answer;
mod errors;
mod reading;
mod request;
mod rpc;
mod sign;
mod template;
#[cfg(any(feature = "alibaba", feature = "tencent", feature = "huawei"))]
mod vendor;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value};

use self::answer::Fields;
use self::errors::Errors;
use self::reading::Reading;
use self::request::Call;
use self::sign::Sign;
use self::template::{ACCESS_TOKEN, ALWAYS_NEEDED, REFRESH_TOKEN, Values};
use super::exchange::{Hidden, IntoTokenClient, Needles, TokenClient};
use super::fallback::{Situation, Way};
use super::{FetchContext, IfLost, TokenProvider};
use crate::document;
use crate::error::{Class, Error, Faults, FetchError};
use crate::token::{Secret, Token};

pub use super::fallback::Fallback;
pub use crate::document::{Source, Span};

#[cfg(any(feature = "alibaba", feature = "tencent", feature = "huawei"))]
pub(crate) use self::acs3::AccessKey;
#[cfg(feature = "config")]
pub(crate) use self::answer::rfc3339;
pub use self::sign::Keys;
pub(super) use self::sign::Signer;
#[cfg(any(feature = "alibaba", feature = "tencent", feature = "huawei"))]
pub(super) use self::vendor::{as_endpoint, vendor_methods};

/// A token endpoint as a document describes it, for documents that hold more than one: [`into_endpoint`](Self::into_endpoint)
/// makes an [`Endpoint`] of it. Its form is on the [module's own page](self).
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// `endpoint`, where the document stands alone.
    #[serde(rename = "type")]
    _kind: Option<OwnKind>,
    acquire: Option<Call>,
    renew: Option<Call>,
    #[serde(default)]
    vars: BTreeMap<String, Source>,
    #[serde(default)]
    sign: Sign,
    answer: Fields,
    #[serde(default)]
    errors: Errors,
    /// Whether it can only be renewed alive. Default: false.
    #[serde(default)]
    renew_before_death: bool,
    #[serde(default)]
    fallback: Fallback,
    replay: Option<IfLost>,
    /// Whose tokens these are, for the store that they are kept in. Default: as the addresses and the names say.
    owner: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum OwnKind {
    Endpoint,
}

impl Document {
    /// The endpoint, with its secrets read; relative paths begin at `base`.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`]; the message names every field whose secret cannot be read.
    pub fn into_endpoint(self, base: &Path) -> Result<Endpoint, Error> {
        let mut faults = Faults::default();
        let endpoint = self.resolved(base, &mut faults);
        faults.into_result()?;
        Ok(endpoint)
    }

    pub(crate) fn resolved(self, base: &Path, faults: &mut Faults) -> Endpoint {
        let mut vars = BTreeMap::new();
        for (name, source) in &self.vars {
            match source.secret(base) {
                Ok(value) => {
                    // Written out it may be meant.
                    if value.expose().is_empty() && !matches!(source, Source::Literal(_)) {
                        faults.add(
                            format!("vars.{name}"),
                            "is empty where it was found; set it to something",
                        );
                    }
                    vars.insert(name.clone(), value);
                }
                Err(advice) => {
                    faults.add(format!("vars.{name}"), advice);
                    // It is there, so that nothing else says that it is missing.
                    vars.insert(name.clone(), Secret::from(""));
                }
            }
        }
        let is_found = |source: &Source| !matches!(source, Source::Literal(_));
        let found = self.vars.iter().filter(|(_, source)| is_found(source));
        let secrets = found.map(|(name, _)| name.clone()).collect();
        let sign = Signer::read(&self.sign, base, faults);
        if self.owner.as_ref().is_some_and(|owner| owner.trim().is_empty()) {
            faults.add(
                "owner",
                "is empty; write what tells these tokens from those of others, or leave it out",
            );
        }
        Endpoint {
            acquire: self.acquire,
            renew: self.renew,
            vars,
            secrets,
            sign,
            if_lost: self.replay.unwrap_or(match self.answer.rotates() {
                true => IfLost::ReplayOnce,
                false => IfLost::Idempotent,
            }),
            answer: self.answer,
            errors: self.errors,
            renew_before_death: self.renew_before_death,
            fallback: self.fallback,
            owner: self.owner,
            dead: Class::Terminal,
            token_alias: ACCESS_TOKEN,
            seed: Map::new(),
            skew: Arc::default(),
            client: OnceLock::new(),
        }
    }
}

/// A token provider that a document describes: for an API that nobody has written a strategy for.
///
/// The [module's own page](self) has the document's form.
///
/// ```
/// use tower_token::{Endpoint, Tokens};
///
/// # #[cfg(feature = "client")] {
/// // WeChat: HTTP 200 with an errcode, and a token that is acquired anew each time.
/// let wechat = Endpoint::from_json(r#"{
///     "acquire": { "method": "GET", "url": "https://api.weixin.qq.com/cgi-bin/token",
///                  "query": { "grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}" } },
///     "vars":    { "appid": "wx0000", "secret": "test-secret" },
///     "answer":  { "token": "/access_token", "expires": { "seconds": "/expires_in" } },
///     "errors":  { "code": "/errcode", "ok": [0],
///                  "classes": { "throttled": [45009, 45011], "transient": [-1], "config": [40013, 40125, 40164] } }
/// }"#)?;
/// let tokens = Tokens::new(wechat)?;
/// # let _ = tokens; }
/// # Ok::<(), tower_token::Error>(())
/// ```
#[derive(Clone)]
pub struct Endpoint {
    pub(super) acquire: Option<Call>,
    pub(super) renew: Option<Call>,
    vars: BTreeMap<String, Secret<String>>,
    /// Which of them are secrets, however short.
    secrets: BTreeSet<String>,
    pub(super) sign: Option<Signer>,
    pub(super) answer: Fields,
    errors: Errors,
    renew_before_death: bool,
    fallback: Fallback,
    if_lost: IfLost,
    /// Whose tokens these are, if the document says so.
    owner: Option<String>,
    /// What a terminal verdict is when nothing can be acquired.
    pub(super) dead: Class,
    /// What an installed credential may call its token instead of `access_token`.
    pub(super) token_alias: &'static str,
    /// What to renew before there is a credential.
    seed: Map<String, Value>,
    /// Seconds that the issuer's clock is ahead of ours, as far as it complained.
    skew: Arc<AtomicI64>,
    /// Filled by the first exchange where no client was given and feature `client` has one.
    client: OnceLock<TokenClient>,
}

impl Endpoint {
    /// Reads the document. Relative paths of secrets begin at the current directory.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`]; the message names the field's path in the document and what would be right.
    pub fn from_json(document: &str) -> Result<Self, Error> {
        document::read::<Document>(document)?.into_endpoint(Path::new(""))
    }

    /// The value of a placeholder, over one in the document's `vars`. One of eight bytes or more is treated as a secret.
    #[must_use]
    pub fn var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.vars.insert(name.into(), Secret::new(value.into()));
        self
    }

    /// What may be done when a request was sent and its answer was lost. Default: the document's `replay`.
    #[must_use]
    pub fn if_lost(mut self, policy: IfLost) -> Self {
        self.if_lost = policy;
        self
    }

    /// What sends the token request: any `Clone` service of `http::Request`s, or a [`TokenClient`].
    ///
    /// Default: with feature `client` one like `client::https` that keeps no connection open, else none. It
    /// must not go through the layer that waits for this token, nor follow redirects, nor send a request again
    /// on its own.
    #[must_use]
    pub fn client<Via>(mut self, client: impl IntoTokenClient<Via>) -> Self {
        self.client = OnceLock::from(client.into_token_client());
        self
    }

    fn token_client(&self) -> Option<&TokenClient> {
        #[cfg(feature = "client")]
        return Some(self.client.get_or_init(TokenClient::https));
        #[cfg(not(feature = "client"))]
        return self.client.get();
    }

    /// What there is to renew with: what was kept or installed, else the seed.
    fn kept(&self, context: &FetchContext) -> Map<String, Value> {
        match context.credential() {
            None => self.seed.clone(),
            Some(credential) => self.named(credential),
        }
    }

    /// A credential with its token under the name that placeholders have.
    fn named(&self, credential: &Value) -> Map<String, Value> {
        let mut named = credential.as_object().cloned().unwrap_or_default();
        if let Some(token) = named.remove(self.token_alias) {
            named.insert(ACCESS_TOKEN.to_owned(), token);
        }
        named
    }

    /// Sends a request, once more if it was our clock that was wrong.
    async fn exchange(
        &self,
        call: &Call,
        context: &FetchContext,
        kept: &Map<String, Value>,
    ) -> Result<Token, FetchError> {
        let (error, corrected) = match self.attempt(call, context, kept).await {
            Ok(token) => return Ok(token),
            Err(failure) => failure,
        };
        let Some(skew) = corrected else {
            return Err(error);
        };
        self.skew.store(skew, Ordering::Relaxed);
        if context.exchanges_left() == 0 {
            return Err(FetchError::transient(
                "our clock was corrected, and this fetch had no exchange left",
            ));
        }
        self.attempt(call, context, kept).await.map_err(|(error, _)| error)
    }

    /// One exchange. With an error may come by how much our clock turned out to be wrong.
    async fn attempt(
        &self,
        call: &Call,
        context: &FetchContext,
        kept: &Map<String, Value>,
    ) -> Result<Token, (FetchError, Option<i64>)> {
        let plain = |error| (error, None);
        let client = self
            .token_client()
            .ok_or_else(|| plain(FetchError::config(format!("client: {NO_CLIENT}"))))?;
        let nonce = acs3::nonce();
        let timestamp = acs3::timestamp(shifted(context.now(), self.skew.load(Ordering::Relaxed)));
        let values = self.values(call, kept, &nonce, &timestamp);
        let request = call.request(&values, self.sign.as_ref()).map_err(plain)?;
        let hidden = Hidden::of(|needles| self.hide(kept, context, needles));
        let sent_at = context.now();
        let answer = client.send(request, context, &hidden).await.map_err(plain)?;
        let reading = Reading {
            endpoint: self,
            answer: &answer,
            host: &call.host(),
            hidden: &hidden,
            sent_at,
            now: context.now(),
        };
        reading.token(kept)
    }

    fn values<'a>(
        &'a self,
        call: &'a Call,
        kept: &'a Map<String, Value>,
        nonce: &'a str,
        timestamp: &'a str,
    ) -> Values<'a> {
        Values {
            kept,
            vars: &self.vars,
            nonce,
            timestamp,
            needs: &call.needs,
        }
    }

    fn is_possible(&self, call: &Call, kept: &Map<String, Value>) -> bool {
        call.is_possible(&self.values(call, kept, "", ""))
    }

    /// What must not be printed.
    fn hide(&self, kept: &Map<String, Value>, context: &FetchContext, needles: &mut Needles) {
        // Other short ones (`1`, `prod`) are no secrets, and parts of words that any message may hold.
        let is_secret = |name: &str| self.secrets.contains(name) || [ACCESS_TOKEN, REFRESH_TOKEN].contains(&name);
        let vars = self.vars.iter().map(|(name, value)| (name, value.expose().as_str()));
        let kept = kept.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        for (name, value) in vars.chain(kept) {
            let long_enough = if is_secret(name) { 3 } else { 8 };
            if value.len() >= long_enough {
                needles.add(value);
            }
        }
        needles.add(context.previous().map_or("", Token::secret));
        if let Some(sign) = &self.sign {
            sign.hide(needles);
        }
    }

    /// What can be said of a token that can neither be renewed nor acquired.
    fn stuck(&self, had_one: bool) -> FetchError {
        if had_one {
            return FetchError::new(
                self.dead,
                "the token is dead, and nothing is configured to acquire another with",
            );
        }
        FetchError::config("there is nothing to renew, and nothing is configured to acquire a token with; install one")
    }
}

impl TokenProvider for Endpoint {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        let kept = self.kept(&context);
        let had_one = [ACCESS_TOKEN, REFRESH_TOKEN]
            .iter()
            .any(|name| kept.contains_key(*name));
        let possible = |call: &Call| self.is_possible(call, &kept);
        let acquirable = self.acquire.as_ref().filter(|call| possible(call));
        let situation = Situation {
            renewable: self.renew.as_ref().map(possible),
            acquirable: self.acquire.as_ref().map(possible),
            had_one,
            too_late: self.renew_before_death && is_dead(&context),
        };
        let acquire = async |call: &Call| {
            let acquired = self.exchange(call, &context, &kept).await;
            acquired.map_err(|error| match (self.fallback, error.class()) {
                (_, Class::Terminal) => error.reclassified(self.dead),
                // Acquiring spends nothing, unless it can be done only once.
                (Fallback::Dead, _) => error.not_lost(),
                (Fallback::Never, _) => error,
            })
        };
        match (self.fallback.way(&situation), &self.renew, acquirable) {
            (Way::Renew, Some(renew), acquirable) => match self.exchange(renew, &context, &kept).await {
                Err(error) if error.class() == Class::Terminal => {
                    match acquirable.filter(|_| self.fallback.may_acquire(had_one)) {
                        Some(call) if context.exchanges_left() > 0 => {
                            acquire(call).await.map_err(FetchError::after_verdict)
                        }
                        // No verdict on what acquires: the next fetch comes to that.
                        Some(_) => Err(FetchError::transient(
                            "the token is dead, and this fetch had no exchange left to acquire another with",
                        )
                        .after_verdict()),
                        None => Err(error.reclassified(self.dead)),
                    }
                }
                renewed => renewed,
            },
            (Way::Acquire, _, Some(call)) => acquire(call).await,
            _ => Err(self.stuck(had_one)),
        }
    }

    fn if_lost(&self) -> IfLost {
        self.if_lost
    }

    fn exchanges(&self) -> u32 {
        // One more is due to a clock that was off.
        1 + u32::from(self.acquire.is_some()) + u32::from(self.renew.is_some())
    }

    fn keeps_alive(&self) -> bool {
        self.renew.is_some() && (self.renew_before_death || self.answer.refresh_expires.is_some())
    }

    fn owner(&self) -> String {
        match &self.owner {
            Some(owner) => account::owner_named(owner),
            None => self.owner_by_names(),
        }
    }

    fn seed(&self) -> Option<Secret<Value>> {
        self.configured_seed()
    }

    /// It has to renew; or it brings what acquires, such as another authorization code.
    fn check_credential(&self, credential: &Value, faults: &mut Faults) {
        let kept = self.named(credential);
        let brings = |call: &Call| call.needs.iter().any(|name| kept.contains_key(name));
        // What a variable began with is spent by now, so that it is no part of what is installed.
        let is_its_own = |call: &Call| {
            let needed = call.needed();
            ALWAYS_NEEDED
                .iter()
                .all(|name| !needed.contains(name) || kept.contains_key(*name))
        };
        let renews = |call: &&Call| is_its_own(call) && self.is_possible(call, &kept);
        let renews = self.renew.as_ref().filter(renews).is_some();
        let acquires = |call: &Call| (self.renew.is_none() || brings(call)) && self.is_possible(call, &kept);
        if credential.is_object() && (renews || self.acquire.as_ref().is_some_and(acquires)) {
            return;
        }
        let needed = self.renew.as_ref().or(self.acquire.as_ref()).map(Call::needed);
        let named = |name: &str| {
            if name == ACCESS_TOKEN {
                self.token_alias.to_owned()
            } else {
                name.to_owned()
            }
        };
        let fields: Vec<_> = needed
            .unwrap_or_default()
            .into_iter()
            .map(|name| format!("\"{}\": \"...\"", named(name)))
            .collect();
        faults.add(
            "credential",
            format!("holds nothing to renew with; write {{{}}}", fields.join(", ")),
        );
    }

    fn check(&self, faults: &mut Faults) {
        let known = |name: &str| self.vars.contains_key(name) || self.answer.keep.contains_key(name);
        if let Some(call) = &self.acquire {
            call.check("acquire", &known, faults);
        }
        if let Some(call) = &self.renew {
            call.check("renew", &known, faults);
        }
        if let Some(sign) = &self.sign {
            sign.check(sign.path(), faults);
        }
        if self.answer.is_dead_on_arrival() {
            faults.add(
                "answer.expires.lifetime",
                "is zero; write how long a token lives, as in 15m",
            );
        }
        if self.acquire.is_none() && self.renew.is_none() {
            faults.add("acquire", "there is neither acquire nor renew; write one of them");
        }
        if self.client.get().is_none() && cfg!(not(feature = "client")) {
            faults.add("client", NO_CLIENT);
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.renew.as_ref().or(self.acquire.as_ref()).map(Call::host);
        f.debug_struct("Endpoint")
            .field("host", &host)
            .field("fallback", &self.fallback)
            .field("if_lost", &self.if_lost)
            .finish_non_exhaustive()
    }
}

/// Whether the token's time is over, or a server refused it.
fn is_dead(context: &FetchContext) -> bool {
    let over = |token: &Token| token.expiry_time().is_some_and(|dies| dies <= context.now());
    context.is_refused() || context.previous().is_some_and(over)
}

fn shifted(at: SystemTime, seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 {
        at.checked_sub(span)
    } else {
        at.checked_add(span)
    };
    shifted.unwrap_or(at)
}

const NO_CLIENT: &str = "none is given; call .client(service) with an HTTPS client, or enable feature `client`";
