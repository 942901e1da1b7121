//! Where tokens are refused for no fault of theirs, so that refusals there start no storm.
//!
//! A renewal helps if the token was at fault. Two kinds of place are remembered for a minute where it
//! would not: an *origin* that refuses a token which was just fetched and which nobody has accepted yet
//! (a wrong audience), and a *route* that refused one request with two tokens, while the second of them
//! is accepted elsewhere (a broken route). Two refusals alone prove nothing against a route: the token
//! may have been revoked twice.
//!
//! Routes may be many (`/items/1`, `/items/2`), and of a request that was not kept the route is not known.
//! So each such refusal is also a *strike* against its origin, and an origin with [`STRIKES`] of them
//! within a minute costs one fetch a minute until it has behaved for a minute.

use std::time::Duration;

use tokio::time::Instant;

use crate::token::Generation;

/// Where a token was refused, as the layer names it. The engine only compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) origin: u64,
    /// Known only for requests that were kept.
    pub(crate) route: Option<u64>,
}

/// At most this many places are remembered, the oldest is forgotten.
const PLACES: usize = 64;
/// How long a place counts.
const HELD: Duration = Duration::from_secs(60);
/// Real revocations strike seldom: the second must come between a renewal and its replay.
const STRIKES: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Origins of which a refusal was let through to the schedule, and when.
    fetched: Vec<(u64, Instant)>,
    tripped: Vec<Trip>,
    /// Origins that refused two tokens of one request, or a token of a request that was not kept.
    strikes: Vec<(u64, Instant)>,
}

/// A route that refused two tokens of one request.
#[derive(Debug)]
struct Trip {
    route: u64,
    /// The second of them.
    generation: Generation,
    since: Instant,
    /// That token was accepted elsewhere afterwards.
    proven: bool,
}

impl Breaker {
    /// Whether a refusal at `place` may cost a fetch. `accepted`: somebody has accepted the refused token before.
    pub(super) fn admits(&mut self, place: Place, accepted: bool, now: Instant) -> bool {
        let broken = |trip: &Trip| trip.proven && Some(trip.route) == place.route && holds(trip.since, now);
        if self.tripped.iter().any(broken) {
            return false;
        }
        let here = |(origin, since): &(u64, Instant)| *origin == place.origin && holds(*since, now);
        let struck = self.strikes.iter().filter(|strike| here(strike)).count() >= STRIKES;
        if (!accepted || struck) && self.fetched.iter().any(here) {
            // It does not behave yet.
            let again = self.strikes.iter_mut().filter(|strike| struck && here(strike));
            again.for_each(|(_, since)| *since = now);
            return false;
        }
        self.fetched
            .retain(|(origin, since)| *origin != place.origin && holds(*since, now));
        push_bounded(&mut self.fetched, (place.origin, now));
        if place.route.is_none() {
            self.strike(place.origin, now);
        }
        true
    }

    fn strike(&mut self, origin: u64, now: Instant) {
        self.strikes.retain(|(_, since)| holds(*since, now));
        push_bounded(&mut self.strikes, (origin, now));
    }

    /// One request was refused with two tokens there; the second was `generation`.
    pub(super) fn trip(&mut self, origin: u64, route: u64, generation: Generation, now: Instant) {
        self.strike(origin, now);
        self.tripped
            .retain(|trip| trip.route != route && holds(trip.since, now));
        let trip = Trip {
            route,
            generation,
            since: now,
            proven: false,
        };
        push_bounded(&mut self.tripped, trip);
    }

    /// A token was accepted, at a route if it is known. Returns whether anything is still tripped.
    pub(super) fn accepted(&mut self, generation: Generation, route: Option<u64>, now: Instant) -> bool {
        self.tripped
            .retain(|trip| Some(trip.route) != route && holds(trip.since, now));
        for trip in &mut self.tripped {
            trip.proven |= trip.generation <= generation;
        }
        !self.tripped.is_empty()
    }
}

fn holds(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < HELD
}

fn push_bounded<T>(places: &mut Vec<T>, place: T) {
    if places.len() == PLACES {
        places.remove(0);
    }
    places.push(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place {
        origin: 1,
        route: Some(7),
    };
    const ELSEWHERE: Place = Place {
        origin: 1,
        route: Some(8),
    };
    const TOKEN: Generation = Generation::FIRST;

    #[tokio::test(start_paused = true)]
    async fn an_untried_token_refused_costs_one_fetch_a_minute() {
        let mut breaker = Breaker::default();
        assert!(breaker.admits(HERE, false, Instant::now()));
        assert!(!breaker.admits(HERE, false, Instant::now()));
        tokio::time::advance(HELD).await;
        assert!(breaker.admits(HERE, false, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_token_refused_always_costs_a_fetch() {
        let mut breaker = Breaker::default();
        assert!((0..100).all(|_| breaker.admits(HERE, true, Instant::now())));
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_that_strikes_five_times_is_held_until_it_behaves_for_a_minute() {
        let mut breaker = Breaker::default();
        for route in 0..5 {
            assert!(breaker.admits(HERE, true, Instant::now()));
            breaker.trip(1, route, TOKEN, Instant::now());
        }
        let mut paid = 0;
        for _ in 0..300 {
            paid += usize::from(breaker.admits(HERE, true, Instant::now()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(paid, 4);
        tokio::time::advance(HELD).await;
        assert!((0..100).all(|_| breaker.admits(HERE, true, Instant::now())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_is_held_once_its_token_is_accepted_elsewhere_and_until_it_accepts() {
        let mut breaker = Breaker::default();
        breaker.trip(1, 7, TOKEN, Instant::now());
        assert!(
            breaker.admits(HERE, true, Instant::now()),
            "revoked twice, for all that is known"
        );
        assert!(breaker.accepted(TOKEN, ELSEWHERE.route, Instant::now()));
        assert!(!breaker.admits(HERE, true, Instant::now()));
        assert!(breaker.admits(ELSEWHERE, true, Instant::now()));
        assert!(!breaker.accepted(TOKEN, HERE.route, Instant::now()));
        assert!(breaker.admits(HERE, true, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_places_are_kept_and_not_for_ever() {
        let mut breaker = Breaker::default();
        for route in 0..10_000 {
            breaker.trip(1, route, TOKEN, Instant::now());
        }
        assert_eq!(breaker.tripped.len(), PLACES);
        tokio::time::advance(HELD).await;
        assert!(!breaker.accepted(TOKEN, None, Instant::now()));
    }
}
