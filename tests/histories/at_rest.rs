//! What has to hold when nothing moves: nobody waits for nothing, what was due has begun, and `status()`
//! says what was seen.

use tower_token::{State, Status};

use super::{KIND_WAIT, MILLISECOND, Marked, Model, Verdict, ensure};

impl Model {
    pub(super) fn settled(&mut self, status: &Status) -> Verdict {
        let now = self.now.mono;
        let landed_before = self.landed.is_none_or(|(mono, _)| mono < now);
        if landed_before && self.air.is_none() && !self.waiting.is_empty() {
            // A clock that is set back may revive a token that its waiters have given up already.
            let there = self.surely_usable() && !self.stepped_back;
            ensure(!there, "somebody waits although a token is there")?;
            let soon = self
                .setbacks
                .iter()
                .any(|setback| setback.may_end_within(now, KIND_WAIT));
            let pauses = now <= self.floor.max(self.held_up) + MILLISECOND;
            ensure(pauses || soon, "somebody waits, and nothing is in the air")?;
        }
        if let Some((flights, _)) = self.owed.take_if(|(_, since)| *since < now) {
            let renewed = self.flights > flights || self.air.is_some();
            ensure(renewed, "a stale token went out, and no renewal began")?;
        }
        self.agrees(status)
    }

    fn agrees(&self, status: &Status) -> Verdict {
        let says = |holds: bool, what: &str| ensure(holds, format!("status says {what}: {status:?}"));
        let (state, current) = (status.state, self.current.as_ref());
        let goes_out = matches!(state, State::Fresh | State::Stale);
        says((state == State::SignedOut) == self.signed_out, "who is signed out")?;
        says(goes_out || !self.surely_usable(), "that a living token is over")?;
        let over = current.is_none_or(|current| current.is_over(self.now) || current.refused == Marked::Surely);
        says(!goes_out || !over, "that a dead token goes out")?;
        let fresh = current.is_some_and(|current| current.is_surely_fresh(self.now));
        says(state != State::Stale || !fresh, "that a fresh token is stale")?;
        let number = status.generation.map(|generation| generation.get());
        let known = current.and_then(|current| current.generation);
        says(number.is_some() == current.is_some(), "whether there is a token")?;
        says(known.is_none() || known == number, "another generation")?;
        // One that is fenced off before its first exchange counts too, and no more than one at a time is.
        let flights = self.flights..=self.flights + u64::from(self.fence);
        says(flights.contains(&status.fetches), &format!("not {flights:?} fetches"))?;
        says(
            (status.failures == 0) == self.setbacks.is_empty(),
            "whether anything failed",
        )?;
        says(status.last_error.is_some() == (status.failures > 0), "an error or none")?;
        says(status.fetching || self.air.is_none(), "that nothing is in the air")?;
        says(status.waiting <= self.waiting.len(), "more waiters than there are")
    }

    pub(super) fn over(&self) -> Verdict {
        ensure(
            self.waiting.is_empty(),
            format!("callers wait for ever: {:?}", self.waiting),
        )?;
        ensure(self.surely_usable(), "no token in the end")?;
        ensure(self.last_handed == self.last_asked, "the last caller got no token")
    }
}
