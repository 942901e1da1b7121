//! What one layer makes of the current token: a [`Snapshot`] with the token ready to be put on requests.
//!
//! The snapshot is all that a call with a fresh token reads. It is made once per generation, by
//! whichever call comes first.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use http::request;

use crate::clock::Wall;
use crate::error::Error;
use crate::inject::Inject;
use crate::origin::Origins;
use crate::token::Generation;
use crate::tokens::{Admission, Current, Landing, Tokens};

pub(crate) struct Presentation<I: Inject> {
    pub(crate) tokens: Tokens,
    pub(crate) origins: Origins,
    inject: I,
    /// Read by every call; written by the first call of a generation, under `making`.
    snapshot: ArcSwapOption<Snapshot<I::Ready>>,
    making: Mutex<()>,
}

/// Immutable, so that generation, times and value always belong together.
struct Snapshot<T> {
    generation: Generation,
    /// Until then a call needs to know nothing else.
    fresh_until: Wall,
    ready: T,
}

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
            tokens,
            origins,
            inject,
            snapshot: ArcSwapOption::empty(),
            making: Mutex::new(()),
        }
    }

    /// Whether the caller brought a token of his own.
    #[inline]
    pub(crate) fn is_present(&self, head: &request::Parts) -> bool {
        self.inject.is_present(head)
    }

    /// Puts the current token on a request.
    #[inline]
    pub(crate) fn board(&self, head: &mut request::Parts) -> Boarding {
        let engine = self.tokens.engine();
        let snapshot = self.snapshot.load();
        if let Some(snapshot) = &*snapshot
            && snapshot.generation.get() == engine.signal()
            && engine.now() < snapshot.fresh_until
        {
            self.inject.put(&snapshot.ready, head);
            return Boarding::Aboard(snapshot.generation);
        }
        drop(snapshot);
        self.board_slowly(head)
    }

    #[cold]
    fn board_slowly(&self, head: &mut request::Parts) -> Boarding {
        match self.tokens.engine().admit() {
            Admission::Use(current) => self.put(&current, head),
            Admission::Wait(landing) => Boarding::Wait(landing),
            Admission::Deny(error) => Boarding::Denied(error),
        }
    }

    /// Puts a token on a request that the engine lets go out.
    pub(crate) fn put(&self, current: &Current, head: &mut request::Parts) -> Boarding {
        match self.snapshot_of(current) {
            Ok(snapshot) => {
                self.inject.put(&snapshot.ready, head);
                Boarding::Aboard(snapshot.generation)
            }
            Err(error) => Boarding::Denied(error),
        }
    }

    fn snapshot_of(&self, current: &Current) -> Result<Arc<Snapshot<I::Ready>>, Error> {
        // A snapshot that is newer than what the engine just said is as good.
        let recent = |snapshot: &Arc<Snapshot<_>>| snapshot.generation >= current.generation;
        if let Some(snapshot) = self.snapshot.load_full().filter(recent) {
            return Ok(snapshot);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = self.snapshot.load_full().filter(recent) {
            return Ok(snapshot);
        }
        let snapshot = Arc::new(Snapshot {
            generation: current.generation,
            fresh_until: current.plan.stale,
            ready: self.inject.ready(&current.token)?,
        });
        self.snapshot.store(Some(snapshot.clone()));
        Ok(snapshot)
    }
}
