//! Before an exchange: the lease, and what others have saved meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Found, Kept, Op, Permit, Seen, withheld};
use crate::clock::Wall;
use crate::error::FetchError;
use crate::event::Event;
use crate::provider::Cause;
use crate::store::{Record, StoreError};
use crate::tokens::desk::Phase;
use crate::tokens::engine::Engine;
use crate::tokens::flight::Flight;

impl Kept {
    /// Waits for the lease or for what its holder brings, whichever comes first. `None`: nothing is left to do, because
    /// what the flight was to bring is in place, or nobody wants it any more.
    pub(in crate::tokens) async fn claim(
        &self,
        engine: &Arc<Engine>,
        flight: &Arc<Flight>,
    ) -> Result<Option<Permit>, FetchError> {
        // Where nothing can be spent twice, whoever holds the lease for longer than one is given is not waited for.
        let gives_up = Instant::now() + if self.spends { self.longest } else { self.term };
        loop {
            if engine.desk().is_overtaken(flight) {
                return Ok(None);
            }
            if let Some(over) = self.over(engine, flight) {
                return Err(over);
            }
            match self.try_claim(engine, flight).await {
                Ok(Turn::Ours(permit)) => return Ok(Some(*permit)),
                Ok(Turn::Over) => return Ok(None),
                Ok(Turn::NotYet) if Instant::now() < gives_up => self.pause().await,
                Ok(Turn::NotYet) if !self.spends => return Ok(Some(Permit::alone(self))),
                Ok(Turn::NotYet) => return Err(withheld(StoreError::unavailable(HELD_UP))),
                Err(_) if !self.spends || self.alone => return Ok(Some(Permit::alone(self))),
                Err(error) => return Err(withheld(error)),
            }
        }
    }

    /// Why nobody waits for the flight any more.
    fn over(&self, engine: &Engine, flight: &Flight) -> Option<FetchError> {
        let desk = engine.desk();
        let why = match desk.phase {
            _ if !desk.counts(flight) => "signed out, or another credential installed",
            Phase::ShutDown => "shut down before it was this process's turn to fetch",
            _ => return None,
        };
        Some(FetchError::transient(why).of_store())
    }

    async fn try_claim(&self, engine: &Arc<Engine>, flight: &Arc<Flight>) -> Result<Turn, StoreError> {
        if self.has_draft() {
            // What only we know has to be saved before anything else is begun.
            return self.saved_at_last().await.map(|()| Turn::NotYet);
        }
        if self.settles() {
            // Without the lease: whoever knows something newer needs it.
            let seen = self.read(engine).await?;
            return Ok(match self.look_at(engine, seen).is_news {
                true => Turn::Over,
                false => Turn::NotYet,
            });
        }
        // Asked for first, so that what is read is read under it.
        let gives_up = Instant::now() + self.patience;
        let held = self.lease(engine).await;
        let seen = match &held {
            Ok(_) => self.read(engine).await?,
            // A store that is read-only has a token all the same. One that hangs is waited for once.
            Err(error) => match timeout_at(gives_up.max(Instant::now() + LEAST), self.read(engine)).await {
                Ok(Ok(seen)) => seen,
                Err(_) | Ok(Err(_)) => return Err(error.clone()),
            },
        };
        let begins = !self.book().settled;
        let found = self.look_at(engine, seen);
        // Who starts and asks for a new token does not mean the one that was kept before he did.
        let is_old = begins && flight.cause == Cause::Requested && engine.desk().replaces_what_is_there(flight);
        if found.is_news && !is_old || engine.desk().is_overtaken(flight) {
            if let Ok(Some(held)) = held {
                held.release().await;
            }
            return Ok(Turn::Over);
        }
        match held? {
            Some(held) if self.settles() => {
                held.release().await;
                Ok(Turn::NotYet)
            }
            Some(held) => Ok(Turn::Ours(Box::new(Permit::under(self, held, found.stored)))),
            None => Ok(Turn::NotYet),
        }
    }

    /// Whether something newer than what is there may still be put back.
    fn settles(&self) -> bool {
        self.book().settles.is_some_and(|settles| settles > Instant::now())
    }

    /// Takes in what is newer than what we have, puts back what is missing.
    pub(super) fn look_at(&self, engine: &Arc<Engine>, seen: Seen) -> Found {
        let is_news = if seen.is_loss() {
            self.restore(engine, &seen);
            false
        } else {
            let stored = seen.stored.as_ref();
            stored.is_some_and(|record| self.take_in(engine, record, seen.known))
        };
        Found {
            is_news,
            stored: seen.stored,
        }
    }

    /// Whether there is a new state of things.
    fn take_in(&self, engine: &Arc<Engine>, record: &Record, known: u64) -> bool {
        if !self.accepts(record) {
            return false;
        }
        {
            let mut book = self.book();
            // What is ours and not saved yet stands above it; the saver sees to that.
            if book.slot.is_some() {
                return false;
            }
            book.settled = true;
            book.initial = None;
            if book
                .known
                .as_ref()
                .is_none_or(|known| known.generation <= record.generation)
            {
                book.known = Some(record.clone());
            }
        }
        if (1..record.generation).contains(&known) {
            // Somebody saved it just now, so the store takes what it is given.
            self.note(engine, Op::Save, None);
        }
        engine.take_in(record)
    }

    /// Puts back what we know. What others know that is newer, they put back as well, so that takes a while; and who
    /// was presenting something when it was lost has lost the lease without knowing.
    fn restore(&self, engine: &Arc<Engine>, seen: &Seen) {
        let mut book = self.book();
        let Some(known) = book.known.clone().filter(|_| book.slot.is_none()) else {
            return;
        };
        let began = known
            .intent
            .as_ref()
            .filter(|intent| !intent.refused)
            .map(|intent| Wall::of(intent.last).after(self.term));
        let outlives = began.map_or(Duration::ZERO, |until| engine.now().until(until));
        book.settles = Some(Instant::now() + SETTLE.max(outlives.min(self.term)));
        drop(book);
        engine.tell(&Event::StoreRestored {
            found: seen.generation(),
            known: known.generation(),
        });
        self.put_back(engine, known);
    }

    /// Until it may be worth another look.
    async fn pause(&self) {
        let seen = self.book().seen;
        let began = Instant::now();
        let _ = timeout(LOOK_AGAIN, Self::news(&*self.store, seen)).await;
        // One that resolves at once is no clock.
        sleep_until(began + LEAST).await;
    }
}

/// Whose turn it is.
enum Turn {
    Ours(Box<Permit>),
    /// Somebody else's, or nobody's yet.
    NotYet,
    /// Nobody's any more.
    Over,
}

const HELD_UP: &str = "another process holds the lease, longer than one lasts, and brings nothing";
/// How often a lease is asked for that somebody else has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LEAST: Duration = Duration::from_millis(5);
/// In so long everybody has looked, and put back what it knew.
const SETTLE: Duration = Duration::from_secs(2);
