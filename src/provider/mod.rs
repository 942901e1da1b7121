//! Who mints a token: [`TokenProvider`], and the strategies that ship with this crate.
//!
//! A strategy is a function from the previous token to the next. What it has to remember, it puts
//! into [`Token::credential`](crate::Token::credential) and finds again in
//! [`FetchContext::credential`]; it keeps no state of its own. It never sees
//! [`Tokens`](crate::Tokens): timeouts, deduplication, backoff and waiting are not its concern.

#[cfg(feature = "alibaba")]
pub mod alibaba;
#[cfg(feature = "oauth2")]
mod ask;
mod budget;
#[cfg(feature = "endpoint")]
pub mod endpoint;
#[cfg(feature = "endpoint")]
mod fallback;
mod fixed;
#[cfg(feature = "huawei")]
pub mod huawei;
#[cfg(feature = "endpoint")]
mod if_lost;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "oauth2")]
pub(crate) mod exchange;
#[cfg(feature = "oauth2")]
pub mod oauth2;
#[cfg(feature = "oauth2")]
mod owner;
#[cfg(feature = "oauth2")]
mod reading;
#[cfg(feature = "tencent")]
pub mod tencent;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::challenge::Challenge;
use crate::clock::Clock;
use crate::error::{Faults, FetchError};
use crate::token::{Secret, Token};
use crate::words::words;

pub(crate) use budget::{Budget, MOST};
#[cfg(feature = "endpoint")]
pub use endpoint::Endpoint;
#[cfg(feature = "oauth2")]
pub use exchange::TokenClient;
#[cfg(feature = "endpoint")]
pub use fallback::Fallback;
pub use fixed::Fixed;

/// Mints a token.
///
/// Write it as an `async fn`, or use [`provider_fn`]. The fetch runs in a task of its own, so that
/// no caller who leaves can stop it. The guide has a page on [writing one](crate::guide::write_a_provider).
///
/// ```
/// use std::time::Duration;
/// use tower_token::{FetchContext, FetchError, Token, TokenProvider};
///
/// struct Vault;
///
/// impl TokenProvider for Vault {
///     async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
///         let _why = context.cause();
///         Ok(Token::bearer("test-from-the-vault").expires_in(Duration::from_secs(900)))
///     }
/// }
/// ```
pub trait TokenProvider: Send + Sync + 'static {
    /// Brings the next token, or says in which class of failure it did not.
    ///
    /// A panic ends the fetch with an error; so does the fetch timeout, which counts as a lost answer.
    ///
    /// # Errors
    ///
    /// A [`FetchError`], whose [`Class`](crate::Class) says when the next attempt is made. If it is
    /// [`lost`](FetchError::lost), then [`if_lost`](Self::if_lost) decides what follows.
    fn fetch(&self, context: FetchContext) -> impl Future<Output = Result<Token, FetchError>> + Send;

    /// What may be done when a request was sent and its answer did not come.
    ///
    /// Default: [`IfLost::ReplayOnce`], right for credentials that are good for one use.
    fn if_lost(&self) -> IfLost {
        IfLost::ReplayOnce
    }

    /// How many exchanges one call of [`fetch`](Self::fetch) may make; the
    /// [fetch timeout](crate::RefreshPolicy::fetch_timeout) counts for each. Default: 1.
    ///
    /// Zero counts as one. More than three count as three: that is what one flight makes in all, a
    /// second presentation included, and [`FetchContext::exchanges_left`] says what is left of it.
    fn exchanges(&self) -> u32 {
        1
    }

    /// Whether its tokens are renewed without traffic, because a dead one cannot be renewed.
    ///
    /// Asked once, by [`build`](crate::TokensBuilder::build);
    /// [`RefreshPolicy::keep_alive`](crate::RefreshPolicy::keep_alive) overrides it. Default: no.
    fn keeps_alive(&self) -> bool {
        false
    }

    /// A token that it was configured with: in place from [`build`](crate::TokensBuilder::build) on, as
    /// generation 1 and without a fetch, if it is alive at `now`.
    ///
    /// Asked once, and not at all where [`TokensBuilder::credential`](crate::TokensBuilder::credential) was
    /// given: what was kept is newer. One without an expiry gets the
    /// [assumed life](crate::RefreshPolicy::assumed_life) and the warning event, as a fetched one does; one
    /// without [`Token::issued_at`] counts as issued `now`. A dead one is not sent, but its
    /// [credential](Token::credential) is used all the same. One that cannot be sent at all, because it is
    /// empty or holds other than visible ASCII, fails the build. Default: none.
    fn initial(&self, now: SystemTime) -> Option<Token> {
        let _ = now;
        None
    }

    /// Whose tokens these are, for whatever keeps them: the kind of provider, the issuer, the client, the account. Two
    /// providers that may use each other's tokens say the same, two that may not say something else. No secret.
    ///
    /// Asked once. Default: nothing, which is right only where nobody else writes to the same place.
    fn owner(&self) -> String {
        String::new()
    }

    /// What it was configured with to begin from, where that is good for one use or one session: a refresh token, a
    /// session. Whatever keeps tokens keeps a salted hash of it, by which it knows that the configuration was changed
    /// since, and that what it keeps is over. Nothing that stays as it is while tokens come and go: no client secret.
    ///
    /// Asked once. Default: none.
    fn seed(&self) -> Option<Secret<Value>> {
        None
    }

    /// Says why `credential` is nothing to renew with. Called by [`Tokens::install`](crate::Tokens::install),
    /// which then changes nothing. Must quote nothing of it. Default: everything is taken.
    fn check_credential(&self, credential: &Value, faults: &mut Faults) {
        let _ = (credential, faults);
    }

    /// Names everything that is configured wrongly. Called by [`Tokens::new`](crate::Tokens::new).
    fn check(&self, faults: &mut Faults) {
        let _ = faults;
    }
}

/// A provider from a closure.
///
/// ```
/// use tower_token::{provider_fn, Token, Tokens};
///
/// let tokens = Tokens::new(provider_fn(|_context| async { Ok(Token::bearer("test-abc")) }))?;
/// # Ok::<(), tower_token::Error>(())
/// ```
pub fn provider_fn<F, Fut>(fetch: F) -> ProviderFn<F>
where
    F: Fn(FetchContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, FetchError>> + Send,
{
    ProviderFn {
        fetch,
        if_lost: IfLost::ReplayOnce,
        owner: String::new(),
        seed: None,
    }
}

/// A [`TokenProvider`] that is a closure. Made by [`provider_fn`].
#[derive(Clone)]
pub struct ProviderFn<F> {
    fetch: F,
    if_lost: IfLost,
    owner: String,
    seed: Option<Secret<Value>>,
}

impl<F> ProviderFn<F> {
    /// What may be done when an answer was lost. Default: [`IfLost::ReplayOnce`].
    #[must_use]
    pub fn if_lost(mut self, policy: IfLost) -> Self {
        self.if_lost = policy;
        self
    }

    /// Whose tokens these are ([`TokenProvider::owner`]). Default: nothing.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// What it was configured to begin from ([`TokenProvider::seed`]). Default: none.
    #[must_use]
    pub fn seed(mut self, seed: Value) -> Self {
        self.seed = Some(Secret::new(seed));
        self
    }
}

impl<F> fmt::Debug for ProviderFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderFn").finish_non_exhaustive()
    }
}

impl<F, Fut> TokenProvider for ProviderFn<F>
where
    F: Fn(FetchContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, FetchError>> + Send,
{
    fn fetch(&self, context: FetchContext) -> impl Future<Output = Result<Token, FetchError>> + Send {
        (self.fetch)(context)
    }

    fn if_lost(&self) -> IfLost {
        self.if_lost
    }

    fn owner(&self) -> String {
        self.owner.clone()
    }

    fn seed(&self) -> Option<Secret<Value>> {
        self.seed.clone()
    }
}

words! {
    /// Why a token is asked for.
    Cause {
        /// There is none yet.
        Initial = "initial",
        /// The current one is stale or expired.
        Expiring = "expiring",
        /// A server refused the current one.
        Refused = "refused",
        /// [`Tokens::refresh`](crate::Tokens::refresh) was called.
        Requested = "requested",
        /// It dies unless it is renewed.
        KeepAlive = "keep_alive",
    }
}

/// What may be done when a token request was sent and its answer was lost: a timeout, a reset, a
/// cut-off or malformed answer, a 500, 502 or 504 (and Cloudflare's 520 and 524).
///
/// The issuer may have spent the credential and minted a token that nobody got. A failure before
/// the first byte left (connect, DNS, TLS) is no presentation and does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IfLost {
    /// Presents it once more within the same flight. If that is lost too the class is
    /// [`Ambiguous`](crate::Class::Ambiguous), and one presentation a minute follows.
    ReplayOnce,
    /// Never presents it again; ends in [`Ambiguous`](crate::Class::Ambiguous) until a new credential is
    /// installed, or somebody calls [`Tokens::refresh`](crate::Tokens::refresh) in spite of it.
    NeverReplay,
    /// Presents it once more if that happens within this time of the first presentation, a suspend
    /// included; after that, as [`NeverReplay`](Self::NeverReplay).
    ReplayWithin(Duration),
    /// Asking again does no harm (client credentials): retried by the backoff table.
    Idempotent,
}

/// What a provider is told: the previous token, and why the next one is needed.
#[derive(Clone, Debug)]
pub struct FetchContext {
    pub(crate) previous: Option<Token>,
    /// Whether that one was refused, and not the one before it.
    pub(crate) refused: bool,
    pub(crate) credential: Option<Arc<Secret<Value>>>,
    pub(crate) cause: Cause,
    pub(crate) challenge: Option<Challenge>,
    pub(crate) clock: Clock,
    pub(crate) timeout: Duration,
    pub(crate) engine: u64,
    pub(crate) budget: Arc<Budget>,
}

impl FetchContext {
    /// The token to be replaced, dead or alive.
    pub fn previous(&self) -> Option<&Token> {
        self.previous.as_ref()
    }

    /// Whether a server refused [the previous token](Self::previous) itself.
    ///
    /// With [`Cause::Refused`] it may also be that the one before it was refused, while this one was on its way:
    /// whether this one is any better, nobody knows yet.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// What the last token left behind to be renewed with, or what was
    /// [installed](crate::Tokens::install) since. `None` on the first fetch.
    pub fn credential(&self) -> Option<&Value> {
        self.credential.as_deref().map(Secret::expose)
    }

    /// Why a token is needed.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// What the server said when it refused, if one did.
    pub fn challenge(&self) -> Option<&Challenge> {
        self.challenge.as_ref()
    }

    /// The time of day, by the clock that judges the token's life.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// How long one exchange may take: a hundredth less than
    /// [`RefreshPolicy::fetch_timeout`](crate::RefreshPolicy::fetch_timeout), so that a client's own
    /// timeout comes before the engine's.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How many exchanges may still be made for this token: three at first, for this call and a second
    /// presentation after it together. After [`Tokens::shutdown`](crate::Tokens::shutdown) none, but for
    /// a first one.
    ///
    /// `TokenClient`, through which the strategies of this crate send, takes one for each request and
    /// refuses the fourth. A client of your own is not counted while it runs.
    pub fn exchanges_left(&self) -> u32 {
        self.budget.left()
    }

    /// Marks a token request, so that a layer that waits for this very token refuses it at once
    /// instead of waiting for itself. The clients that ship with this crate do it.
    pub fn mark(&self, extensions: &mut http::Extensions) {
        extensions.insert(TokenRequest { engine: self.engine });
    }
}

/// In the extensions of a token request. Private, so that only [`FetchContext::mark`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenRequest {
    /// Whose token it fetches. Only that engine's layers would wait for themselves; others may help.
    pub(crate) engine: u64,
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The object-safe twin of [`TokenProvider`], so that no handle has a type parameter.
pub(crate) trait AnyProvider: Send + Sync + 'static {
    fn fetch(&self, context: FetchContext) -> BoxFuture<'_, Result<Token, FetchError>>;
    fn if_lost(&self) -> IfLost;
    fn exchanges(&self) -> u32;
    fn check_credential(&self, credential: &Value, faults: &mut Faults);
    fn keeps_alive(&self) -> bool;
    fn initial(&self, now: SystemTime) -> Option<Token>;
    #[cfg_attr(not(feature = "store"), allow(dead_code))]
    fn owner(&self) -> String;
    #[cfg_attr(not(feature = "store"), allow(dead_code))]
    fn seed(&self) -> Option<Secret<Value>>;
}

impl<P: TokenProvider> AnyProvider for P {
    fn fetch(&self, context: FetchContext) -> BoxFuture<'_, Result<Token, FetchError>> {
        Box::pin(TokenProvider::fetch(self, context))
    }

    fn if_lost(&self) -> IfLost {
        TokenProvider::if_lost(self)
    }

    fn exchanges(&self) -> u32 {
        TokenProvider::exchanges(self)
    }

    fn check_credential(&self, credential: &Value, faults: &mut Faults) {
        TokenProvider::check_credential(self, credential, faults);
    }

    fn keeps_alive(&self) -> bool {
        TokenProvider::keeps_alive(self)
    }

    fn initial(&self, now: SystemTime) -> Option<Token> {
        TokenProvider::initial(self, now)
    }

    fn owner(&self) -> String {
        TokenProvider::owner(self)
    }

    fn seed(&self) -> Option<Secret<Value>> {
        TokenProvider::seed(self)
    }
}
