//! The handle: [`Tokens`] keeps one current token for every client that shares it.
//!
//! Nothing in this folder knows HTTP. Read it in this order: [`desk`] (the decisions), [`flight`]
//! (one fetch and who waits for it), [`fetch`] (its task, and how it lands), [`kept`] (what outlives the
//! process, and is shared), [`intake`] (what comes from elsewhere), [`timer`] (the monotonic end of a token),
//! [`schedule`] and [`breaker`] (when not to fetch), [`keeper`] (fetching without traffic), [`engine`] (how
//! decisions are carried out). What it takes for threads to share all this comes from [`sync`].

mod breaker;
mod desk;
mod engine;
mod fetch;
mod flight;
mod intake;
mod keeper;
#[cfg_attr(not(feature = "store"), allow(dead_code, unused_imports))]
mod kept;
#[cfg(all(test, feature = "shuttle"))]
pub(crate) mod model;
mod schedule;
mod timer;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use serde_json::Value;

use crate::challenge::Challenge;
use crate::clock::{Clock, Wall};
use crate::error::{Class, Error, Faults};
use crate::event::{Event, Observe, Observers};
use crate::lifetime::{Freshness, RefreshPolicy};
use crate::provider::{AnyProvider, TokenProvider};
use crate::store::{StoreError, StorePolicy, TokenStore};
use crate::stripe::{Anchor, Handle};
use crate::token::{Fingerprint, Generation, Token};

pub(crate) use breaker::Place;
pub(crate) use desk::{Admission, Current, Refusal, unmet};
pub(crate) use engine::Engine;
pub(crate) use flight::{Landed, Landing};
use kept::Kept;

/// The one current token, shared by every client that clones this handle.
///
/// Nothing is fetched until a token is needed, unless tokens are
/// [kept alive](RefreshPolicy::keep_alive). However many callers need one, there is one fetch in
/// the air; it runs in a task of its own on the runtime of whoever needed it first, and goes on if all
/// callers leave. That runtime has to be kept running: one that exists but that nobody drives leaves its
/// fetch, and whoever waits for it elsewhere, hanging. When the last handle is dropped its timer and what keeps it alive
/// end; a fetch in the air still lands.
///
/// The guide has a page on [sharing it](crate::guide::share_it).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_token::Error> {
/// use std::time::Duration;
/// use tower_token::{provider_fn, Token, Tokens};
///
/// let tokens = Tokens::new(provider_fn(|_| async {
///     Ok(Token::bearer("test-abc").expires_in(Duration::from_secs(3600)))
/// }))?;
/// assert_eq!(tokens.get().await?.secret(), "test-abc");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tokens {
    engine: Handle<Arc<Engine>>,
}

impl Tokens {
    /// Tokens of this provider under the default policy ([`RefreshPolicy::default`]).
    ///
    /// # Errors
    ///
    /// [`Error::is_config`]: what the provider has to say against its own configuration; every field is named.
    pub fn new(provider: impl TokenProvider) -> Result<Self, Error> {
        Self::builder(provider).build()
    }

    /// The same with a policy, observers, a clock or a credential. What is wrong is named by
    /// [`build`](TokensBuilder::build).
    pub fn builder(provider: impl TokenProvider) -> TokensBuilder {
        let mut faults = Faults::default();
        provider.check(&mut faults);
        TokensBuilder {
            provider: Arc::new(provider),
            policy: RefreshPolicy::default(),
            clock: Clock::system(),
            observers: Vec::new(),
            store: None,
            store_policy: StorePolicy::default(),
            credential: None,
            faults,
        }
    }

    /// A token that may go out now; waits for one if there is none.
    ///
    /// Dropping the future ends the wait, not the fetch.
    ///
    /// # Errors
    ///
    /// The class of what went wrong ([`Error::class`]); [`Error::is_overloaded`] if too many wait
    /// already; [`Error::is_signed_out`], [`Error::is_shut_down`]; an error if it has to start a fetch outside of
    /// a tokio runtime.
    pub fn get(&self) -> Get {
        Get {
            engine: self.engine.here().clone(),
            landing: None,
        }
    }

    /// The current token if it may go out now, without waiting.
    ///
    /// `None` if there is none, or it is expired or was refused. Then, or if it is stale, a fetch starts in the
    /// background, if this is called within a tokio runtime.
    pub fn current(&self) -> Option<Token> {
        match self.engine.admit() {
            Admission::Use(current) => Some(current.token.clone()),
            Admission::Wait(_) | Admission::Deny(_) => None,
        }
    }

    /// [`current`](Self::current) as the value of an `Authorization` header, `Bearer <token>`, marked sensitive: for
    /// interceptors that cannot wait. The scheme is the [token's own type](Token::kind).
    ///
    /// Whoever uses it renews [without traffic](RefreshPolicy::keep_alive), and waits for the first token with
    /// [`get`](Self::get). The guide [shows it](crate::guide::share_it#an-sdk-that-takes-no-layer).
    pub fn current_header(&self) -> Option<HeaderValue> {
        let token = self.current()?;
        let mut value = HeaderValue::try_from(format!("{} {}", token.kind(), token.secret())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Fetches a new token now, whatever backoff or breaker say; joins a fetch that is in the air.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn refresh(&self) -> Result<Token, Error> {
        loop {
            let landing = match self.engine.request() {
                Admission::Wait(landing) => landing,
                Admission::Use(current) => return Ok(current.token.clone()),
                Admission::Deny(error) => return Err(error),
            };
            match landing.await {
                Landed::Published => return self.get().await,
                Landed::Superseded => {}
                Landed::Failed(error) => return Err(error),
            }
        }
    }

    /// Says that a server refused `token`, for callers that put it on a request themselves.
    ///
    /// Compares: if a newer token is in place, or this one came from other `Tokens`, nothing happens. Counts as
    /// a refusal: the next token is fetched at once if this is called within a tokio runtime, otherwise when one is
    /// needed; and a new token that nobody has seen [accepted](Self::accepted) can be refused like this once a minute.
    pub fn invalidate(&self, token: &Token) {
        let concerned = token.generation_at(self.engine.id());
        let in_place = self.engine.desk().current.as_ref().map(|current| current.generation);
        // Nobody waits here: a late refusal would fetch where the token in place is over, and the landing is dropped.
        if let Some(generation) = concerned.filter(|_| concerned == in_place) {
            let _ = self.engine.refuse(generation, BY_HAND, Challenge::none());
        }
    }

    /// Says that a server accepted `token`, for callers that put it on a request themselves. Layers do this for theirs.
    ///
    /// Without it, the second refusal within a minute looks like an API that takes no token at all, and is answered by no
    /// fetch until the minute is over. An answer of 2xx or 3xx is an acceptance; a gateway's 502 is none. Costs a comparison;
    /// and a lock for a minute after a refusal.
    pub fn accepted(&self, token: &Token) {
        if let Some(generation) = token.generation_at(self.engine.id()) {
            self.engine.accept(generation, || BY_HAND);
        }
    }

    /// Replaces the credential that tokens are renewed with, and forgets the current token.
    ///
    /// Ends a terminal state and a [sign-out](Self::sign_out). The answer of a fetch in the air is
    /// thrown away. The credential is what the provider keeps: for the OAuth grants
    /// `{"refresh_token": "..."}`.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if the provider cannot renew anything with it; then nothing has changed.
    pub fn install(&self, credential: Value) -> Result<(), Error> {
        let mut faults = Faults::default();
        self.engine.provider.check_credential(&credential, &mut faults);
        faults.into_result()?;
        self.leave(desk::Phase::Open, Some(credential));
        self.engine.tell(&Event::Installed);
        Ok(())
    }

    /// Forgets token and credential. The answer of a fetch in the air is thrown away.
    ///
    /// From now on there is [no token](Error::is_signed_out) until something is [installed](Self::install).
    pub fn sign_out(&self) {
        self.leave(desk::Phase::SignedOut, None);
        self.engine.tell(&Event::SignedOut);
    }

    /// Decides on no more fetches, and waits until the one in the air, or waiting for its time, has landed.
    ///
    /// That one ends with the exchange it is in, or with its first: a lost answer is not asked for
    /// again. Callers that wait get what it brought. The token in place goes out until it expires.
    ///
    /// With a store, waits for up to 5 s more until what is in force is durable and no lease is held: others need not wait
    /// for its end then. A fetch that waits for its turn with a store presents nothing any more, and its callers get an
    /// error.
    pub async fn shutdown(&self) {
        let stranded = self.engine.desk().shut_down();
        self.engine.pulse.send_replace(());
        if let Some(stranded) = stranded {
            stranded.land(Landed::Superseded);
        }
        self.engine.tell(&Event::ShutDown);
        loop {
            let mut grounded = std::pin::pin!(self.engine.grounded.notified());
            // Before looking, so that a landing between the look and the wait is not missed.
            grounded.as_mut().enable();
            if self.engine.desk().in_air().is_none() {
                break;
            }
            grounded.await;
        }
        if let Some(kept) = &self.engine.kept {
            // What was put aside where no task could be started.
            kept.resume_saving(&self.engine);
            kept.idle().await;
        }
    }

    /// Starts the task that keeps tokens alive without traffic, where
    /// [that is wanted](RefreshPolicy::keep_alive), on the tokio runtime that this is called in.
    ///
    /// [`build`](TokensBuilder::build) does it too, and so does every call that finds no fresh token in
    /// place: this is for handles that were built outside of a runtime, or whose runtime has ended, before
    /// there is traffic. If the task is there, or there is no runtime, nothing happens;
    /// [`Status::keep_alive`] says how it stands. It ends with the last handle, and when
    /// [shut down](Self::shutdown).
    pub fn spawn(&self) {
        self.engine.keep();
    }

    /// Waits for the next token to be published after this call, and returns it.
    ///
    /// Starts no fetch.
    pub fn changed(&self) -> impl Future<Output = Token> + Send + use<> {
        let engine = self.engine.clone();
        let mut published = engine.published.subscribe();
        // Whoever waited for this one has it a moment before it is said that it was published.
        let in_place = engine.desk().current.as_ref().map(|current| current.generation);
        async move {
            loop {
                // The sender lives in the engine that is kept alive here.
                let _ = published.changed().await;
                let current = engine.desk().current.clone();
                if let Some(current) = current.filter(|current| Some(current.generation) > in_place) {
                    return current.token.clone();
                }
            }
        }
    }

    /// How things stand, for health endpoints. Starts nothing.
    pub fn status(&self) -> Status {
        let outlook = self.engine.outlook(false);
        let wall = outlook.wall;
        let desk = self.engine.desk();
        let current = desk.current.as_ref();
        let last_error = desk.schedule.last_error();
        let terminal = last_error.as_ref().is_some_and(|error| match error.class() {
            // Presented again in a minute, unless the provider's policy gives up on it.
            Some(Class::Ambiguous) => desk.schedule.in_background().is_none(),
            _ => !error.is_transient(),
        });
        let state = match desk.phase {
            desk::Phase::SignedOut => State::SignedOut,
            desk::Phase::ShutDown => State::ShutDown,
            desk::Phase::Open => match (desk.usable(wall), current) {
                (Some(current), _) => State::of(current.plan.freshness(wall)),
                (None, _) if terminal => State::Terminal,
                (None, Some(_)) => State::Expired,
                (None, None) => State::None,
            },
        };
        Status {
            state,
            generation: current.map(|current| current.generation),
            token: current.map(|current| current.token.fingerprint()),
            expires_at: current.and_then(|current| current.token.expiry_time()),
            // The coarse clock is a little late, and would say more than was issued.
            expires_in: current.map(|current| Wall::of(self.engine.clock.now()).until(current.plan.dies)),
            fetches: desk.fetches,
            exchanges: desk.exchanges(),
            failures: desk.schedule.failures(),
            last_error,
            next_fetch_in: desk.pause(outlook),
            breaker_open: desk.breaker.is_open(outlook.mono),
            skew: desk.skew(outlook),
            fetching: desk.in_air().is_some(),
            waiting: desk.in_air().map_or(0, |flight| flight.waiting()),
            keep_alive: self.engine.keep_alive(desk.phase),
            undurable: self.engine.kept.as_ref().is_some_and(Kept::is_undurable),
            store_error: self.engine.kept.as_ref().and_then(Kept::trouble),
        }
    }

    fn leave(&self, phase: desk::Phase, credential: Option<Value>) {
        let stranded = {
            let mut desk = self.engine.desk();
            if let Some(kept) = &self.engine.kept {
                // Under the lock, so that what is saved last is what was done last.
                drop(kept.put(&self.engine, kept::Draft::left(credential.clone()), None));
            }
            self.engine.leave(&mut desk, phase, credential)
        };
        for flight in stranded {
            flight.land(Landed::Superseded);
        }
        self.engine.pulse.send_replace(());
        if let Some(kept) = &self.engine.kept {
            kept.is_in_force();
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Tokens")
            .field("state", &status.state)
            .field("generation", &status.generation)
            .finish_non_exhaustive()
    }
}

/// What [`Tokens::get`] waits for.
#[must_use = "futures do nothing unless polled"]
pub struct Get {
    engine: Arc<Anchor<Arc<Engine>>>,
    landing: Option<Landing>,
}

impl Future for Get {
    type Output = Result<Token, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if let Some(landing) = &mut this.landing {
                let landed = ready!(Pin::new(landing).poll(cx));
                this.landing = None;
                if let Landed::Failed(error) = landed {
                    let resort = this.engine.last_resort();
                    return Poll::Ready(resort.map_or(Err(error), |current| Ok(current.token.clone())));
                }
            }
            // Also after a landing: by now the token may have been refused, or its time be over.
            match this.engine.admit() {
                Admission::Use(current) => return Poll::Ready(Ok(current.token.clone())),
                Admission::Deny(error) => return Poll::Ready(Err(error)),
                Admission::Wait(landing) => this.landing = Some(landing),
            }
        }
    }
}

/// Where a token went that no layer put on a request.
const BY_HAND: Place = Place {
    origin: u64::MAX,
    route: None,
};

impl fmt::Debug for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("waiting", &self.landing.is_some())
            .finish_non_exhaustive()
    }
}

/// Builds [`Tokens`]. See [`Tokens::builder`].
#[must_use = "build() makes the handle"]
pub struct TokensBuilder {
    provider: Arc<dyn AnyProvider>,
    policy: RefreshPolicy,
    clock: Clock,
    observers: Vec<Box<dyn Observe>>,
    store: Option<Arc<dyn TokenStore>>,
    store_policy: StorePolicy,
    credential: Option<Value>,
    faults: Faults,
}

impl TokensBuilder {
    /// When to renew and how hard to try. Default: [`RefreshPolicy::default`].
    pub fn policy(mut self, policy: RefreshPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Tells `observer` of every [`Event`](crate::Event); may be called more than once.
    pub fn observe(mut self, observer: impl Observe) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Where the time of day is read. Default: [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What tokens are renewed with from the start, as [`Tokens::install`] takes it.
    ///
    /// Default: nothing; the provider uses what it was configured with. Given, it stands above that, also
    /// above a [configured token](TokenProvider::initial).
    pub fn credential(mut self, credential: Value) -> Self {
        self.credential = Some(credential);
        self
    }

    /// Where tokens outlive the process, and are shared with others. Default: nowhere.
    #[cfg(feature = "store")]
    #[cfg_attr(docsrs, doc(cfg(feature = "store")))]
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// How far the store is waited for, and what is done without it. Default: [`StorePolicy::default`].
    #[cfg(feature = "store")]
    #[cfg_attr(docsrs, doc(cfg(feature = "store")))]
    pub fn store_policy(mut self, policy: StorePolicy) -> Self {
        self.store_policy = policy;
        self
    }

    /// Makes the handle. Starts no fetch, unless tokens are [kept alive](RefreshPolicy::keep_alive) and this
    /// is called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`]; the message names every wrong field and what would be right.
    pub fn build(mut self) -> Result<Tokens, Error> {
        self.policy.check(&mut self.faults);
        if let Some(store) = &self.store {
            store.check(&mut self.faults);
            self.store_policy.check(&self.policy, &mut self.faults);
        }
        #[cfg_attr(not(feature = "store"), allow(unused_mut))]
        let mut initial = match self.credential {
            None => self.provider.initial(self.clock.now()),
            Some(_) => None,
        };
        if let Some(flaw) = initial.as_ref().and_then(Token::flaw) {
            self.faults.add("initial", flaw);
        }
        self.faults.into_result()?;
        let observers = Observers::new(self.observers);
        #[cfg(not(feature = "store"))]
        let kept = None;
        #[cfg(feature = "store")]
        let kept = self.store.map(|store| {
            let seed = self.credential.as_ref().map(kept::text);
            let seed = seed.or_else(|| self.provider.seed().map(|seed| kept::text(seed.expose())));
            let policies = (&self.store_policy, &self.policy);
            // What is kept stands above what was configured, and that takes a look.
            let initial = initial.take();
            Kept::new(store, policies, &*self.provider, (seed, crate::store::salted), initial)
        });
        let engine = Engine::new(self.provider, self.policy, self.clock, kept, observers);
        let engine = Arc::new(engine);
        if let Some(credential) = self.credential {
            engine.desk().adopt(credential);
        }
        if let Some(token) = initial {
            engine.begin_with(token);
        }
        engine.keep();
        Ok(Tokens {
            engine: Handle::new(engine),
        })
    }
}

impl fmt::Debug for TokensBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokensBuilder")
            .field("policy", &self.policy)
            .field("clock", &self.clock)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// How things stand with one [`Tokens`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Whether a token may go out, and if not, why not.
    pub state: State,
    /// The number of the current token.
    pub generation: Option<Generation>,
    /// The name of the current token in logs.
    pub token: Option<Fingerprint>,
    /// When the current token dies.
    pub expires_at: Option<SystemTime>,
    /// How long the current token lives yet; zero once dead.
    pub expires_in: Option<Duration>,
    /// How many fetches were begun so far.
    pub fetches: u64,
    /// How many exchanges with the issuer were made for them: every request that went through a
    /// `TokenClient`, and one for each call of a provider with a client of its own that brought a token or
    /// lost its answer.
    pub exchanges: u64,
    /// How many failed in a row.
    pub failures: u32,
    /// Why the last one failed, if no token came since.
    pub last_error: Option<Error>,
    /// How long no fetch begins yet, after a failure, a refusal or a repeated token; a request that would
    /// otherwise fail may begin one earlier. `None`: nothing stands in the way, or nothing but a new credential helps.
    pub next_fetch_in: Option<Duration>,
    /// Whether refusals somewhere cost no fetch, because new tokens were refused there as well.
    pub breaker_open: bool,
    /// How many seconds the issuer's clock is ahead of ours, as its last answer showed; zero up to 5 s. `None` if it
    /// did not show it, or our clock was stepped since.
    pub skew: Option<i64>,
    /// Whether one is in the air or waiting for its time.
    pub fetching: bool,
    /// How many callers wait for it.
    pub waiting: usize,
    /// Whether tokens are renewed without traffic.
    pub keep_alive: KeepAlive,
    /// Whether what is in force is not in the store yet, so that it would be lost with this process. Without a store: no.
    pub undurable: bool,
    /// Why the store did not do what it was asked for, if it has not done it since.
    pub store_error: Option<StoreError>,
}

/// Whether tokens are renewed without traffic. See [`RefreshPolicy::keep_alive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepAlive {
    /// No: neither provider nor policy asks for it, or the handle was shut down.
    Off,
    /// Yes.
    Running,
    /// They should be, but no task does it: there was no tokio runtime to start it in, or its runtime has
    /// ended. [`Tokens::spawn`] starts it, and so does the next call that finds no fresh token in place.
    NoRuntime,
}

/// What [`Status`] says in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Nothing was fetched yet.
    None,
    /// A token goes out.
    Fresh,
    /// A token goes out; a newer one is due.
    Stale,
    /// The token is over, or was refused; the next request waits for a newer one.
    Expired,
    /// The issuer's verdict stands: no token until something changes.
    Terminal,
    /// Signed out.
    SignedOut,
    /// Shut down.
    ShutDown,
}

impl State {
    fn of(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Fresh => Self::Fresh,
            Freshness::Stale => Self::Stale,
            Freshness::Expired => Self::Expired,
        }
    }
}

#[cfg(test)]
mod tests;
