//! What shows of a token after its response was handed on: [`Report`].

use std::fmt;
use std::sync::{Arc, Weak};

use crate::challenge::Challenge;
use crate::event::{Event, HandedBack};
use crate::token::Generation;
use crate::tokens::{Engine, Place};

/// Says late what came of the token that a request carried.
///
/// Given to [`Classify::inspect`](super::Classify::inspect), for a body that tells in its trailers, say.
/// Dropping it says nothing.
pub struct Report {
    reporter: Arc<Reporter>,
    generation: Generation,
    place: Place,
}

/// The engine, behind a reference count that only the threads of one lane write to. A response that is still
/// being read keeps no engine alive.
pub(crate) struct Reporter {
    pub(crate) engine: Weak<Engine>,
}

impl Report {
    pub(crate) fn new(reporter: Arc<Reporter>, generation: Generation, place: Place) -> Self {
        Self {
            reporter,
            generation,
            place,
        }
    }

    /// One that nobody hears.
    #[cfg(test)]
    pub(super) fn to_nobody() -> Self {
        let nobody = Reporter { engine: Weak::new() };
        let nowhere = Place { origin: 0, route: None };
        Self::new(Arc::new(nobody), Generation::FIRST, nowhere)
    }

    /// The token was good.
    pub fn accepted(&self) {
        if let Some(engine) = self.reporter.engine.upgrade() {
            engine.accept(self.generation, || self.place);
        }
    }

    /// The token was refused. The next request goes out with a newer one; this one is not sent again.
    pub fn refused(&self, challenge: Challenge) {
        let Some(engine) = self.reporter.engine.upgrade() else {
            return;
        };
        // Counted against the origin, as of every request that is not sent again: the head, or a message, was
        // taken for an acceptance, and a server that always says so would start a storm.
        let place = Place {
            route: None,
            ..self.place
        };
        // A flight that this begins belongs to nobody, so that its seat can be left at once.
        let _ = engine.refuse(self.generation, place, challenge);
        engine.tell(&Event::HandedBack {
            generation: self.generation,
            reason: HandedBack::TooLate,
        });
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
