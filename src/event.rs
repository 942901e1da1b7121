//! What happens, told to whoever wants to know: [`Event`] and [`Observe`].
//!
//! No event holds a secret. `tracing` and metrics are two observers among others.

use std::time::Duration;

use crate::error::{Class, Error};
use crate::provider::Cause;
use crate::token::{Generation, Warning};

/// Something that happened to a token.
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
        /// Why it was fetched.
        cause: Cause,
        /// How long the fetch took, a second presentation included.
        took: Duration,
        /// What was left of its life when it landed.
        expires_in: Duration,
        /// How many callers waited for it.
        waited: usize,
    },
    /// A fetch brought no token.
    #[non_exhaustive]
    FetchFailed {
        /// Why it was tried.
        cause: Cause,
        /// What it means, if a provider said it.
        class: Option<Class>,
        /// What callers are told.
        error: Error,
        /// How long it took.
        took: Duration,
        /// How many callers waited for it.
        waited: usize,
    },
    /// The answer of a fetch was thrown away: signed out, or another credential installed, meanwhile.
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
    /// A server refused a token for the first time.
    #[non_exhaustive]
    Refused {
        /// The token refused.
        generation: Generation,
    },
    /// A refusal costs no fetch, because a new token was refused there as well a short while ago.
    #[non_exhaustive]
    BreakerHeld {
        /// The token refused.
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
}

/// Why a refused request was not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandedBack {
    /// Its body could not be kept, or its method is not one to replay.
    NotKept,
    /// It had been sent twice already.
    RefusedAgain,
    /// No newer token could be had.
    NotRenewed,
    /// A newer token was there, but it could not be put on the request, or the inner service did not become ready.
    NotReady,
    /// The breaker is open.
    Breaker,
    /// It came when the caller had the response already, in its trailers.
    TooLate,
    /// Another token of the same grant would be refused as well: the server asks for a person.
    StepUp,
}

/// Why a request went out without the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WithoutToken {
    /// Its origin is not one of [`Origins`](crate::Origins).
    Origin,
    /// Its `Host` header names another host than its URL.
    Host,
    /// It carries [`NoToken`](crate::NoToken).
    OptedOut,
    /// The caller put a header of that name there.
    CallersOwn,
}

/// Is told of every [`Event`].
///
/// Called in the fetch's task or in the caller's, so it should return at once. A panic in it is caught.
pub trait Observe: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync + 'static> Observe for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}

/// Tells [`tracing`] of every event, at level `INFO`, `WARN` for failures and `DEBUG` for the rest.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Traced;

#[cfg(feature = "tracing")]
impl Observe for Traced {
    fn observe(&self, event: &Event) {
        match event {
            Event::Renewed {
                generation,
                cause,
                took,
                expires_in,
                waited,
            } => tracing::info!(
                generation = generation.get(),
                ?cause,
                ?took,
                ?expires_in,
                waited,
                "renewed"
            ),
            Event::FetchFailed {
                cause,
                error,
                took,
                waited,
                ..
            } => tracing::warn!(?cause, %error, ?took, waited, "fetch failed"),
            Event::Warned { generation, warning } => tracing::warn!(generation = generation.get(), ?warning, "warned"),
            Event::BreakerHeld { generation } => tracing::warn!(generation = generation.get(), "breaker held"),
            other => tracing::debug!(event = ?other),
        }
    }
}
