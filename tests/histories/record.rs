//! What happened in a history, in the order in which it happened: all that the model judges by.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;
use tower_token::{Class, Clock, Error, Status};

/// An instant by both clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct At {
    /// Since long before the history began, so that what a suspend shortens still has a beginning.
    pub(crate) mono: Duration,
    /// Since the Unix epoch.
    pub(crate) wall: Duration,
}

/// Longer than all the steps of a history together.
pub(crate) const LONG_AGO: Duration = Duration::from_secs(1000 * 24 * 3600);

/// Who waits: a `get()`, a `refresh()` or a request through the layer.
pub(crate) type Caller = usize;

#[derive(Clone, Debug)]
pub(crate) enum Happened {
    /// The provider was asked, and was given this credential.
    Began(Option<String>),
    /// The provider's answer, or how it ended without one.
    Ended(Answered),
    /// A caller wants a token.
    Asked(Caller, Wish),
    /// `get()` or `refresh()` brought the token with this secret and number.
    Handed(Caller, String, u64),
    /// The API was sent a token for this caller, and accepted it or did not.
    Delivered(Caller, String, bool),
    /// The request got its answer.
    Served(Caller),
    Failed(Caller, Why),
    /// A caller went away.
    Left(Caller),
    /// `invalidate()` of the token with this number.
    Refused(u64),
    Installed(String),
    SignedOut,
    /// The wall clock was stepped by so many seconds.
    Stepped(i64),
    /// Every task has done what it could do before this instant.
    Settled(Box<Status>),
    /// The whole history is over.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wish {
    Token,
    Refresh,
    Request,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answered {
    /// With the credential that the next one is renewed with.
    Token(Minted, Option<String>),
    Failed(Class),
    Lost,
    /// The engine did not wait any longer.
    CutOff,
    Panicked,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Minted {
    pub(crate) secret: String,
    pub(crate) life: Life,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Life {
    /// From the moment it was asked for.
    For(Duration),
    /// By the wall clock.
    Until(Duration),
    Unsaid,
}

/// What a caller is told who gets no token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    pub(crate) signed_out: bool,
    pub(crate) reauth: bool,
    pub(crate) transient: bool,
    pub(crate) retry_after: Option<Duration>,
}

impl From<&Error> for Why {
    fn from(error: &Error) -> Self {
        Self {
            signed_out: error.is_signed_out(),
            reauth: error.is_reauth_required(),
            transient: error.is_transient(),
            retry_after: error.retry_after(),
        }
    }
}

/// Written by everyone who takes part. Clones share it.
#[derive(Clone)]
pub(crate) struct Record {
    began: Instant,
    clock: Clock,
    happened: Arc<Mutex<Vec<(At, Happened)>>>,
}

impl Record {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            began: Instant::now(),
            clock: clock.clone(),
            happened: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> At {
        At {
            mono: LONG_AGO + self.began.elapsed(),
            wall: self.clock.now().duration_since(UNIX_EPOCH).unwrap(),
        }
    }

    pub(crate) fn write(&self, happened: Happened) {
        self.happened.lock().unwrap().push((self.now(), happened));
    }

    pub(crate) fn read(&self) -> Vec<(At, Happened)> {
        self.happened.lock().unwrap().clone()
    }
}
