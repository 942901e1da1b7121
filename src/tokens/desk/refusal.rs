//! What a refusal comes to: a replay, a seat in a flight, or the server's own answer.
//!
//! The first refusal of a token marks it, if the [`breaker`](super::super::breaker) lets it cost a fetch. A
//! server that demands more than a newer token of the same grant (RFC 9470, Continuous Access Evaluation) is
//! another matter: its demand goes to the provider, and the token stays good for everybody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Admission, Departure, Desk, Outlook, Phase};
use crate::challenge::Challenge;
use crate::error::{Error, FetchError};
use crate::event::HandedBack;
use crate::provider::Cause;
use crate::token::Generation;
use crate::tokens::breaker::{Place, Ruling};
use crate::tokens::flight::{Flight, Landing};
use crate::tokens::schedule::Clearance;

/// What a refused request may do.
pub(crate) enum Refusal {
    /// A newer token is in place.
    Replay,
    /// One is being fetched.
    Wait(Landing),
    /// The server's answer goes to the caller, and why no fetch was begun if one was wanted.
    HandBack(HandedBack, Option<Error>),
}

/// What a refusal comes to, and what is to be told of it.
pub(in crate::tokens) struct Refused {
    pub(in crate::tokens) refusal: Refusal,
    pub(in crate::tokens) departure: Departure,
    /// It is the one that marks the token.
    pub(in crate::tokens) first: bool,
    /// What the breaker said, if it was asked.
    pub(in crate::tokens) ruling: Option<Ruling>,
}

/// A provider was asked for more than a newer token.
pub(super) struct SteppedUp {
    /// For which token, and when.
    generation: Generation,
    pub(super) since: Instant,
    /// Why it brought none.
    pub(super) answer: Option<Error>,
}

impl SteppedUp {
    /// Whether it is no use yet to ask again. A failure in passing is no answer to what is demanded.
    fn stands(&self, generation: Generation, now: Instant) -> bool {
        let answered = self.answer.as_ref().filter(|answer| !answer.is_transient());
        let pause = self.answer.as_ref().and_then(Error::retry_after);
        let pause = pause.unwrap_or_default().clamp(STEP_UP_AGAIN, LONGEST_PAUSE);
        self.generation == generation && (answered.is_some() || now.saturating_duration_since(self.since) < pause)
    }
}

impl Desk {
    /// A server refused `generation`. `accepted`: somebody has accepted it before.
    pub(in crate::tokens) fn refuse(
        &mut self,
        generation: Generation,
        place: Place,
        challenge: Challenge,
        accepted: bool,
        at: Outlook<'_>,
    ) -> Refused {
        let Some(current) = self.current.as_ref().map(|current| (current.generation, current.begun)) else {
            return Refused::to((Refusal::HandBack(HandedBack::NotRenewed, self.closed()), None));
        };
        if generation < current.0 {
            // Late: the token in place answers, unless its fetch began before the mark.
            let too_old = self
                .mark
                .is_some_and(|(marked, tick)| marked == generation && current.1 < tick);
            if let Some(flight) = self.answering().filter(|_| too_old) {
                return Refused::to((Refusal::Wait(flight.join()), None));
            }
            let (admission, departure) = self.need(at);
            return Refused::to((Refusal::from(admission), departure));
        }
        let accepted = accepted && !self.repeated;
        if wants_step_up(&challenge) {
            return self.step_up(generation, (place, accepted), challenge, at);
        }
        if self.refused.is_some() {
            let (admission, departure) = self.board(at, Cause::Refused, Some(challenge));
            return Refused::to((Refusal::from(admission), departure));
        }
        let ruling = self.breaker.rule(place, generation, accepted, at.mono);
        if ruling.holds() {
            // A fetch that an earlier refusal is paying for answers this one too.
            let refusal = match self.ahead() {
                Some(flight) => Refusal::Wait(flight.join()),
                None => Refusal::HandBack(HandedBack::Breaker, None),
            };
            return Refused {
                ruling: Some(ruling),
                ..Refused::to((refusal, None))
            };
        }
        self.tick += 1;
        self.refused = Some(self.tick);
        self.mark = Some((generation, self.tick));
        let (admission, departure) = self.board(at, Cause::Refused, Some(challenge));
        Refused {
            refusal: Refusal::from(admission),
            departure,
            first: true,
            ruling: Some(ruling),
        }
    }

    /// Asks the provider, once per token unless it fails in passing, for what the server demands beyond a newer token;
    /// where new tokens do not meet it either, no more often than the breaker lets any refusal cost a fetch.
    fn step_up(
        &mut self,
        generation: Generation,
        (place, accepted): (Place, bool),
        challenge: Challenge,
        at: Outlook<'_>,
    ) -> Refused {
        if let Some(air) = self.air.as_ref().filter(|air| air.flight.step_up) {
            return Refused::to((Refusal::Wait(air.flight.join()), None));
        }
        let before = self
            .stepped_up
            .as_ref()
            .filter(|before| before.stands(generation, at.mono));
        let cleared = matches!(self.schedule.needed(at.mono, Duration::ZERO), Clearance::Go(None));
        if before.is_some() || !cleared || !at.runtime || self.phase != Phase::Open || self.air.is_some() {
            let answer = before.and_then(|before| before.answer.clone());
            let answer = answer.unwrap_or_else(|| not_asked(challenge));
            return Refused::to((Refusal::HandBack(HandedBack::StepUp, Some(answer)), None));
        }
        let ruling = self.breaker.rule(place, generation, accepted, at.mono);
        let (refusal, departure) = if ruling.holds() {
            (Refusal::HandBack(HandedBack::Breaker, unmet(challenge)), None)
        } else {
            self.stepped_up = Some(SteppedUp {
                generation,
                since: at.mono,
                answer: None,
            });
            let mut flight = self.flight(Cause::Refused, at);
            flight.challenge = Some(challenge);
            flight.step_up = true;
            let (admission, departure) = self.start(flight);
            (Refusal::from(admission), departure)
        };
        Refused {
            ruling: Some(ruling),
            ..Refused::to((refusal, departure))
        }
    }

    /// A flight that answers a refusal of the token in place, and that will land whatever becomes of it:
    /// not begun yet, or begun because of an earlier refusal. A fence took that token, so none stands between.
    fn ahead(&self) -> Option<&Arc<Flight>> {
        let air = self.air.as_ref().filter(|air| {
            let recent = air.begun.is_none() || air.flight.cause == Cause::Refused;
            recent && !air.flight.step_up
        });
        air.map(|air| &air.flight).or(self.next.as_ref())
    }
}

impl From<Admission> for Refusal {
    fn from(admission: Admission) -> Self {
        match admission {
            Admission::Use(_) => Self::Replay,
            Admission::Wait(landing) => Self::Wait(landing),
            Admission::Deny(error) => Self::HandBack(HandedBack::NotRenewed, Some(error)),
        }
    }
}

impl Refused {
    /// Of a refusal that marks nothing, and about which the breaker was not asked.
    fn to((refusal, departure): (Refusal, Departure)) -> Self {
        Self {
            refusal,
            departure,
            first: false,
            ruling: None,
        }
    }
}

/// A newer token of the same grant would be refused as well (RFC 9470; Continuous Access Evaluation).
fn wants_step_up(challenge: &Challenge) -> bool {
    matches!(
        challenge.error(),
        Some("insufficient_user_authentication" | "insufficient_claims")
    )
}

/// What is told of a demand that no provider was asked to meet: whoever is told can still meet it.
fn not_asked(challenge: Challenge) -> Error {
    FetchError::transient("the server demands more than a newer token, and it could not be asked for")
        .demanded(challenge)
        .into()
}

/// What is told of a demand that a newer token has not met.
pub(crate) fn unmet(challenge: Challenge) -> Option<Error> {
    let unmet = || FetchError::needs_interaction("the server demands more than a newer token has brought");
    wants_step_up(&challenge).then(|| unmet().demanded(challenge).into())
}

/// What failed in passing is asked for again so much later, or when the issuer said, if that is within an hour.
const STEP_UP_AGAIN: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
