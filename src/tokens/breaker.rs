//! Where new tokens were refused too, so that refusals there start no storm.
//!
//! A renewal helps if the token was at fault. If a token that was just fetched, and that nobody has
//! accepted yet, is refused as well, then the place is at fault (a wrong audience, a broken route),
//! and for a minute its refusals cost no fetch. Two kinds of place are kept: an origin, and a route
//! where one and the same request was refused with two tokens.

use std::time::Duration;

use tokio::time::Instant;

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

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Origins whose refusal cost a fetch, and when.
    fetched: Vec<(u64, Instant)>,
    /// Routes that refused two tokens of one request.
    tripped: Vec<(u64, Instant)>,
}

impl Breaker {
    /// Whether a refusal at `place` may cost a fetch. `accepted`: somebody has accepted the refused token before.
    pub(super) fn admits(&mut self, place: Place, accepted: bool, now: Instant) -> bool {
        if place.route.is_some_and(|route| holds(&self.tripped, route, now)) {
            return false;
        }
        if !accepted && holds(&self.fetched, place.origin, now) {
            return false;
        }
        remember(&mut self.fetched, place.origin, now);
        true
    }

    /// One request was refused with two tokens there.
    pub(super) fn trip(&mut self, route: u64, now: Instant) {
        remember(&mut self.tripped, route, now);
    }

    /// A token was accepted there. Returns whether anything is still tripped.
    pub(super) fn clear(&mut self, route: u64) -> bool {
        self.tripped.retain(|(known, _)| *known != route);
        !self.tripped.is_empty()
    }
}

fn holds(places: &[(u64, Instant)], place: u64, now: Instant) -> bool {
    places
        .iter()
        .any(|(known, since)| *known == place && now.saturating_duration_since(*since) < HELD)
}

fn remember(places: &mut Vec<(u64, Instant)>, place: u64, now: Instant) {
    places.retain(|(known, since)| *known != place && now.saturating_duration_since(*since) < HELD);
    if places.len() == PLACES {
        places.remove(0);
    }
    places.push((place, now));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place {
        origin: 1,
        route: Some(7),
    };

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
        assert!((0..5).all(|_| breaker.admits(HERE, true, Instant::now())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tripped_route_is_held_until_it_accepts() {
        let mut breaker = Breaker::default();
        breaker.trip(7, Instant::now());
        assert!(!breaker.admits(HERE, true, Instant::now()));
        let elsewhere = Place {
            origin: 1,
            route: Some(8),
        };
        assert!(breaker.admits(elsewhere, true, Instant::now()));
        assert!(!breaker.clear(7));
        assert!(breaker.admits(HERE, true, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_places_are_kept() {
        let mut breaker = Breaker::default();
        for route in 0..10_000 {
            breaker.trip(route, Instant::now());
        }
        assert_eq!(breaker.tripped.len(), PLACES);
    }
}
