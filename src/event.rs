//! What happens, told to whoever wants to know: [`Event`] and [`Observe`].
//!
//! No event holds a secret; a token is named by its [`Fingerprint`]. `tracing` and metrics are two
//! observers among others.

#[cfg(feature = "metrics")]
mod metered;
#[cfg(feature = "tracing")]
mod traced;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::A_YEAR;
use crate::error::{Class, Error, Kind};
use crate::provider::Cause;
use crate::store::StoreError;
use crate::token::{Fingerprint, Generation, Warning};
use crate::words::words;

#[cfg(feature = "metrics")]
pub use metered::Metered;
#[cfg(feature = "tracing")]
pub use traced::Traced;

/// Something that happened to a token. What each means in operation, and what to alert on, the guide
/// [says](crate::guide::watch_it_in_production).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A fetch began.
    #[non_exhaustive]
    FetchBegan {
        /// Why.
        cause: Cause,
    },
    /// A new token is in place, and whoever waited is awake.
    #[non_exhaustive]
    Renewed {
        /// Its number.
        generation: Generation,
        /// Its name in logs.
        token: Fingerprint,
        /// Why it was fetched.
        cause: Cause,
        /// How long the fetch took, a second presentation included.
        took: Duration,
        /// What was left of its life when it landed.
        expires_in: Duration,
        /// How many callers waited for it.
        waited: usize,
    },
    /// A token that somebody else fetched is in place: found in the store.
    #[non_exhaustive]
    Adopted {
        /// Its number.
        generation: Generation,
        /// Its name in logs, which is another one in every process.
        token: Fingerprint,
        /// What was left of its life.
        expires_in: Duration,
    },
    /// What is in force is not in the store yet, and would be lost with this process. It is saved as soon as the store
    /// takes it.
    #[non_exhaustive]
    Undurable {
        /// Why not.
        error: StoreError,
    },
    /// What was [undurable](Self::Undurable) is in the store.
    Durable,
    /// The store did not do what it was asked for; it had before.
    #[non_exhaustive]
    StoreFailed {
        /// Why not.
        error: StoreError,
    },
    /// The store does again what it is asked for.
    StoreRecovered,
    /// The store had less than it had before, and is given back what this process knows.
    #[non_exhaustive]
    StoreRestored {
        /// The generation that it had, zero for nothing at all.
        found: u64,
        /// The one that it had had before.
        known: u64,
    },
    /// A fetch brought no token.
    #[non_exhaustive]
    FetchFailed {
        /// Why it was tried.
        cause: Cause,
        /// What it means; `None` if it ended without an answer, because it panicked or its runtime ended.
        class: Option<Class>,
        /// What callers are told.
        error: Error,
        /// How long it took.
        took: Duration,
        /// How many callers waited for it.
        waited: usize,
    },
    /// The answer of a fetch was thrown away: signed out, another credential installed, or a newer token
    /// [adopted](Self::Adopted), meanwhile.
    #[non_exhaustive]
    Discarded {
        /// Why it was fetched.
        cause: Cause,
    },
    /// An issuer left something out or did otherwise than asked.
    #[non_exhaustive]
    Warned {
        /// The token concerned.
        generation: Generation,
        /// What it was.
        warning: Warning,
    },
    /// A fetch was wanted, and none began; or one was in the air, and too many waited for it.
    #[non_exhaustive]
    Skipped {
        /// What for.
        cause: Cause,
        /// Why not.
        reason: Skipped,
    },
    /// A caller waited for a token, and the wait is over.
    #[non_exhaustive]
    Waited {
        /// How long.
        took: Duration,
        /// What ended it.
        ended: Waited,
    },
    /// A server refused a token for the first time.
    #[non_exhaustive]
    Refused {
        /// The token refused.
        generation: Generation,
        /// Its name in logs.
        token: Fingerprint,
    },
    /// From now on refusals at an origin, or on one route of it, cost no fetch: new tokens are refused there as well.
    #[non_exhaustive]
    BreakerOpened {
        /// The token refused.
        generation: Generation,
    },
    /// A refusal cost no fetch, because the breaker is open where it happened.
    #[non_exhaustive]
    BreakerHeld {
        /// The token refused.
        generation: Generation,
    },
    /// Where the breaker was open a token is accepted, or a refusal costs a fetch again; or nothing was refused there
    /// for a minute, told with the next acceptance anywhere.
    #[non_exhaustive]
    BreakerClosed {
        /// The token accepted or refused.
        generation: Generation,
    },
    /// A refused request was sent again.
    #[non_exhaustive]
    Replayed {
        /// The token refused.
        refused: Generation,
        /// The token it was sent with again.
        generation: Generation,
    },
    /// A refusal was handed to the caller as it came.
    #[non_exhaustive]
    HandedBack {
        /// The token refused.
        generation: Generation,
        /// Why the request was not sent again.
        reason: HandedBack,
    },
    /// A request went out without the token.
    #[non_exhaustive]
    WithoutToken {
        /// Why.
        reason: WithoutToken,
    },
    /// How much longer the token in place lives, told to observers that [want it](Observe::pace).
    #[non_exhaustive]
    Alive {
        /// Its number.
        generation: Generation,
        /// Zero once it is dead, or forgotten with nothing in its place.
        expires_in: Duration,
    },
    /// A credential was [installed](crate::Tokens::install); the token in place, if there was one, is forgotten.
    Installed,
    /// [`Tokens::sign_out`](crate::Tokens::sign_out) was called; the token in place is forgotten.
    SignedOut,
    /// [`Tokens::shutdown`](crate::Tokens::shutdown) was called; no fetch begins from now on.
    ShutDown,
}

/// The word for why a fetch brought no token, the same in logs and metrics.
#[cfg(any(feature = "tracing", feature = "metrics"))]
fn failure(class: Option<Class>) -> &'static str {
    class.map_or("aborted", Class::as_str)
}

words! {
    /// Why a refused request was not sent again.
    HandedBack {
        /// Its body could not be kept, or its method is not one to replay.
        NotKept = "not_kept",
        /// It had been sent twice already.
        RefusedAgain = "refused_again",
        /// No newer token could be had.
        NotRenewed = "not_renewed",
        /// A newer token was there, but it could not be put on the request, or the inner service did not become ready.
        NotReady = "not_ready",
        /// The breaker is open.
        Breaker = "breaker",
        /// It came when the caller had the response already, in its trailers.
        TooLate = "too_late",
        /// Another token of the same grant would be refused as well: the server asks for a person.
        StepUp = "step_up",
    }
}

words! {
    /// Why a request went out without the token.
    WithoutToken {
        /// Its origin is not one of [`Origins`](crate::Origins).
        Origin = "origin",
        /// Its `Host` header names another host than its URL.
        Host = "host",
        /// It carries [`NoToken`](crate::NoToken).
        OptedOut = "opted_out",
        /// The caller put a header of that name there.
        CallersOwn = "callers_own",
    }
}

words! {
    /// Why a fetch that was wanted did not begin.
    Skipped {
        /// The last one failed a short while ago.
        Backoff = "backoff",
        /// The issuer asked for patience.
        Throttled = "throttled",
        /// The issuer's verdict stands: this credential will not work again.
        Verdict = "verdict",
        /// A credential that is good for one use may be spent.
        Ambiguous = "ambiguous",
        /// Too many wait already.
        Overloaded = "overloaded",
        /// It was wanted outside of a tokio runtime.
        NoRuntime = "no_runtime",
        /// Signed out.
        SignedOut = "signed_out",
        /// Shut down.
        ShutDown = "shut_down",
    }
}

impl Skipped {
    /// By what the caller is told.
    pub(crate) fn of(error: &Error) -> Self {
        match (error.kind(), error.class()) {
            (_, Some(Class::Transient)) => Self::Backoff,
            (_, Some(Class::Throttled { .. })) => Self::Throttled,
            (_, Some(Class::Ambiguous)) => Self::Ambiguous,
            (Kind::NoRuntime, _) => Self::NoRuntime,
            (Kind::SignedOut, _) => Self::SignedOut,
            (Kind::ShutDown, _) => Self::ShutDown,
            _ => Self::Verdict,
        }
    }
}

words! {
    /// What ended a caller's wait.
    Waited {
        /// A new token.
        Renewed = "renewed",
        /// The failure of the fetch.
        Failed = "failed",
        /// The answer no longer counts, after a sign-out or an install; the caller looks again.
        Superseded = "superseded",
        /// The caller left: its deadline, or whoever dropped it.
        Left = "left",
    }
}

/// Is told of every [`Event`].
///
/// Called in the fetch's task or in the caller's, so it should return at once. A panic in it is caught.
pub trait Observe: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Event);

    /// How often it wants to be told how long the token in place still lives ([`Event::Alive`]).
    ///
    /// Asked once, when the handle is built. Of several observers the shortest counts for all who want it; less than
    /// 100 ms counts as that, more than a year as a year. Default: not at all.
    fn pace(&self) -> Option<Duration> {
        None
    }

    /// The span in which a fetch is made, so that what a provider and its client log stands in it.
    ///
    /// Default: none.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    fn span(&self, cause: Cause) -> Option<tracing::Span> {
        let _ = cause;
        None
    }
}

impl<F: Fn(&Event) + Send + Sync + 'static> Observe for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}

/// Everyone who is told.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    each: Arc<[Observer]>,
    /// The shortest of what they want.
    pub(crate) pace: Option<Duration>,
}

struct Observer {
    observes: Box<dyn Observe>,
    pace: Option<Duration>,
}

impl Observers {
    pub(crate) fn new(each: Vec<Box<dyn Observe>>) -> Self {
        let observer = |observes: Box<dyn Observe>| Observer {
            pace: observes.pace().map(|pace| pace.clamp(SHORTEST_PACE, A_YEAR)),
            observes,
        };
        let each: Arc<[_]> = each.into_iter().map(observer).collect();
        let pace = each.iter().filter_map(|observer| observer.pace).min();
        Self { each, pace }
    }

    /// Nobody wants to know.
    pub(crate) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    pub(crate) fn tell(&self, event: &Event) {
        let is_paced = matches!(event, Event::Alive { .. });
        for observer in self.each.iter().filter(|each| !is_paced || each.pace.is_some()) {
            // An observer that panics must not take a fetch with it.
            let _ = catch_unwind(AssertUnwindSafe(|| observer.observes.observe(event)));
        }
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn span(&self, cause: Cause) -> tracing::Span {
        let span = |observer: &Observer| {
            catch_unwind(AssertUnwindSafe(|| observer.observes.span(cause)))
                .ok()
                .flatten()
        };
        self.each.iter().find_map(span).unwrap_or_else(tracing::Span::none)
    }
}

/// Nobody needs to know more often, and a pace of zero would never rest.
const SHORTEST_PACE: Duration = Duration::from_millis(100);

/// For whoever has words of its own for each.
#[cfg(all(test, any(feature = "tracing", feature = "metrics")))]
fn one_of_each() -> Vec<Event> {
    let (generation, cause, took) = (Generation::FIRST, Cause::Initial, Duration::from_secs(1));
    let token = crate::token::Token::bearer("test-a").fingerprint();
    vec![
        Event::FetchBegan { cause },
        Event::Renewed {
            generation,
            token,
            cause,
            took,
            expires_in: took,
            waited: 1,
        },
        Event::Adopted {
            generation,
            token,
            expires_in: took,
        },
        Event::Undurable {
            error: StoreError::unavailable("full"),
        },
        Event::Durable,
        Event::StoreFailed {
            error: StoreError::unavailable("full"),
        },
        Event::StoreRecovered,
        Event::StoreRestored { found: 0, known: 1 },
        Event::FetchFailed {
            cause,
            class: None,
            error: Error::new(Kind::Aborted),
            took,
            waited: 1,
        },
        Event::Discarded { cause },
        Event::Warned {
            generation,
            warning: Warning::Repeated,
        },
        Event::Skipped {
            cause,
            reason: Skipped::Backoff,
        },
        Event::Waited {
            took,
            ended: Waited::Renewed,
        },
        Event::Refused { generation, token },
        Event::BreakerOpened { generation },
        Event::BreakerHeld { generation },
        Event::BreakerClosed { generation },
        Event::Replayed {
            refused: generation,
            generation,
        },
        Event::HandedBack {
            generation,
            reason: HandedBack::Breaker,
        },
        Event::WithoutToken {
            reason: WithoutToken::Origin,
        },
        Event::Alive {
            generation,
            expires_in: took,
        },
        Event::Installed,
        Event::SignedOut,
        Event::ShutDown,
    ]
}

/// The cells of each row of the table on a page of rustdoc, with its heading left out.
#[cfg(all(test, any(feature = "tracing", feature = "metrics")))]
fn rows_of(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("/// | `"));
    rows.map(|row| row.split('|').map(str::trim).collect()).collect()
}

/// What stands in backticks there.
#[cfg(all(test, any(feature = "tracing", feature = "metrics")))]
fn quoted(cell: &str) -> Vec<String> {
    let mut names: Vec<_> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    names.sort();
    names
}
