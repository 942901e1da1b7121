//! What one layer makes of the current token: a [`Snapshot`] with the token ready to be put on requests.
//!
//! The snapshot is all that a call with a fresh token reads. The token is made ready once per generation, by
//! whichever call comes first. Each lane of threads has a snapshot of its own, and each service remembers the
//! one that it used last ([`Recent`]): so a service of its own thread loads nothing that changes but the signal,
//! and one that was cloned a moment ago writes to no reference count that another core writes to.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use http::{Request, request};

use crate::clock::Wall;
use crate::error::Error;
use crate::inject::Inject;
use crate::origin::Origins;
use crate::stripe::Striped;
use crate::token::Generation;
use crate::tokens::{Admission, Current, Engine, Landing, Tokens};

pub(crate) struct Presentation<I: Inject> {
    pub(crate) tokens: Tokens,
    pub(crate) origins: Origins,
    /// The one of `tokens`, which is many steps away from there.
    pub(crate) engine: Arc<Engine>,
    inject: I,
    /// Read by services that have none; written by the first call of a lane and generation.
    snapshots: Striped<ArcSwapOption<Snapshot<I::Ready>>>,
    /// What the newest of them are copies of.
    made: Mutex<Option<Snapshot<I::Ready>>>,
}

/// Immutable, so that generation, times and value always belong together.
#[repr(align(128))]
pub(crate) struct Snapshot<T> {
    pub(crate) generation: Generation,
    /// Until then a call needs to know nothing else.
    fresh_until: Wall,
    /// The whole ones of these.
    fresh_seconds: i64,
    ready: Arc<T>,
}

/// The snapshot that a service used last, in case it is still the one. It keeps the secret in memory until the
/// service is called again, or dropped.
pub(crate) struct Recent<T>(Option<Arc<Snapshot<T>>>);

/// Whether a request may go out.
pub(crate) enum Boarding {
    /// With this generation on it.
    Aboard(Generation),
    /// Not before a flight has landed.
    Wait(Landing),
    /// Not at all.
    Denied(Error),
}

impl<I: Inject> Presentation<I> {
    pub(crate) fn new(tokens: Tokens, origins: Origins, inject: I) -> Self {
        Self {
            engine: tokens.engine().clone(),
            tokens,
            origins,
            inject,
            snapshots: Striped::new(ArcSwapOption::empty),
            made: Mutex::new(None),
        }
    }

    /// Whether the caller brought a token of his own.
    #[inline]
    pub(crate) fn is_present(&self, head: &request::Parts) -> bool {
        self.inject.is_present(head)
    }

    /// The snapshot of a token that is fresh, without a lock.
    #[inline(always)]
    pub(crate) fn fresh<'a>(&self, recent: &'a mut Recent<I::Ready>) -> Option<&'a Snapshot<I::Ready>> {
        if !recent.0.as_deref().is_some_and(|recent| self.is_fresh(recent)) {
            recent.0 = self.lookup();
        }
        recent.0.as_deref()
    }

    /// By whole seconds: of the last one of its time it does not know.
    #[inline]
    fn is_fresh(&self, snapshot: &Snapshot<I::Ready>) -> bool {
        snapshot.generation.get() == self.engine.signal() && self.engine.seconds() < snapshot.fresh_seconds
    }

    /// The one of this thread's lane, if it is fresh.
    #[inline(never)]
    fn lookup(&self) -> Option<Arc<Snapshot<I::Ready>>> {
        self.snapshots
            .here()
            .load_full()
            .filter(|snapshot| snapshot.generation.get() == self.engine.signal())
            .filter(|snapshot| self.engine.now() < snapshot.fresh_until)
    }

    /// Puts a fresh token on a request, unless the caller brought one of his own; whether it did.
    #[inline]
    pub(crate) fn offer<B>(&self, snapshot: &Snapshot<I::Ready>, request: &mut Request<B>) -> bool {
        let offered = self.inject.offer(&snapshot.ready, request.headers_mut());
        offered.unwrap_or_else(|| {
            with_head(request, |head| {
                let free = !self.inject.is_present(head);
                if free {
                    self.inject.put(&snapshot.ready, head);
                }
                free
            })
        })
    }

    /// Puts the current token on a request, asking the engine for one.
    #[cold]
    pub(crate) fn board(&self, head: &mut request::Parts) -> Boarding {
        match self.engine.admit() {
            Admission::Use(current) => self.put(&current, head).into(),
            Admission::Wait(landing) => Boarding::Wait(landing),
            Admission::Deny(error) => Boarding::Denied(error),
        }
    }

    /// Puts a token on a request that the engine lets go out.
    pub(crate) fn put(&self, current: &Current, head: &mut request::Parts) -> Result<Generation, Error> {
        let snapshot = self.snapshot_of(current)?;
        self.inject.put(&snapshot.ready, head);
        Ok(snapshot.generation)
    }

    fn snapshot_of(&self, current: &Current) -> Result<Arc<Snapshot<I::Ready>>, Error> {
        let lane = self.snapshots.here();
        // A snapshot that is newer than what the engine just said is as good.
        if let Some(snapshot) = lane.load_full().filter(|known| known.generation >= current.generation) {
            return Ok(snapshot);
        }
        // Dropped after the lock: it is other people's `Drop`, which may well send a request.
        let _old;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = match made.take() {
            Some(newest) if newest.generation >= current.generation => newest,
            old => {
                if old.is_some() {
                    // What the other lanes have of it is of no use any more, and a secret.
                    self.snapshots.each(|lane| lane.store(None));
                }
                _old = old;
                self.ready(current)?
            }
        };
        let snapshot = Arc::new(newest.clone());
        *made = Some(newest);
        // Under the lock, so that no older one comes after it.
        lane.store(Some(snapshot.clone()));
        Ok(snapshot)
    }

    fn ready(&self, current: &Current) -> Result<Snapshot<I::Ready>, Error> {
        Ok(Snapshot {
            generation: current.generation,
            fresh_until: current.plan.stale,
            fresh_seconds: current.plan.stale.seconds(),
            ready: Arc::new(self.inject.ready(&current.token)?),
        })
    }
}

impl From<Result<Generation, Error>> for Boarding {
    fn from(put: Result<Generation, Error>) -> Self {
        put.map_or_else(Self::Denied, Self::Aboard)
    }
}

impl<T> Recent<T> {
    pub(crate) fn none() -> Self {
        Self(None)
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self {
            ready: self.ready.clone(),
            ..*self
        }
    }
}

/// Lends the head of a request to who wants more of it than its headers.
#[inline(never)]
fn with_head<B, T>(request: &mut Request<B>, act: impl FnOnce(&mut request::Parts) -> T) -> T {
    let (mut head, ()) = Request::new(()).into_parts();
    let mut swap = |head: &mut request::Parts| {
        mem::swap(&mut head.method, request.method_mut());
        mem::swap(&mut head.uri, request.uri_mut());
        mem::swap(&mut head.version, request.version_mut());
        mem::swap(&mut head.headers, request.headers_mut());
        mem::swap(&mut head.extensions, request.extensions_mut());
    };
    swap(&mut head);
    let done = act(&mut head);
    swap(&mut head);
    done
}
