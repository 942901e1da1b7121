//! Where tokens are refused for no fault of theirs, so that refusals there start no storm.
//!
//! A renewal helps if the token was at fault. Two kinds of place are remembered for a minute where it
//! would not: an *origin* that refuses a token which was just fetched and which nobody has accepted yet
//! (a wrong audience), and a *route* that refused one request with two tokens, while the second of them
//! is accepted elsewhere (a broken route). Two refusals alone prove nothing against a route: the token
//! may have been revoked twice.
//!
//! Routes may be many (`/items/1`, `/items/2`), of a request that was not kept the route is not known, and a
//! caller's deadline may end each replay before it is refused. So every refusal that buys a fetch is also a
//! *strike* against its origin, taken back when its route accepts a newer token: that of the replay, or another.
//! An origin with [`STRIKES`] of them within a minute costs one fetch a minute until it has behaved for a minute.

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
/// Real revocations strike seldom: nobody may live to see the replay of the request that was refused.
const STRIKES: usize = 5;

#[derive(Debug)]
pub(super) struct Breaker {
    /// How long a place counts.
    pause: Duration,
    /// Origins of which a refusal was let through to the schedule, and when.
    fetched: Vec<(u64, Instant)>,
    tripped: Vec<Trip>,
    strikes: Vec<Strike>,
    /// Origins where a refusal cost no fetch the last time, and when that was.
    held: Vec<(u64, Instant)>,
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

/// A token was refused, and nobody has seen yet that a newer one is any better there.
#[derive(Debug)]
struct Strike {
    place: Place,
    refused: Generation,
    since: Instant,
}

/// What the breaker says of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It may cost a fetch.
    Fetch {
        /// The last one here did not.
        closed: bool,
    },
    /// It may not.
    Hold {
        /// The last one here did.
        opened: bool,
    },
}

impl Ruling {
    pub(super) fn holds(self) -> bool {
        matches!(self, Self::Hold { .. })
    }
}

impl Breaker {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            fetched: Vec::new(),
            tripped: Vec::new(),
            strikes: Vec::new(),
            held: Vec::new(),
        }
    }

    /// The past is no matter any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.pause);
    }

    /// Whether what happened at an instant still counts.
    fn counts(&self, now: Instant) -> impl Fn(Instant) -> bool + use<> {
        let pause = self.pause;
        move |since| now.saturating_duration_since(since) < pause
    }

    /// Whether the refusal of `generation` at `place` may cost a fetch. `accepted`: somebody has accepted that
    /// token before.
    pub(super) fn rule(&mut self, place: Place, generation: Generation, accepted: bool, now: Instant) -> Ruling {
        let was_held = self.was_held(place.origin);
        if self.admits(place, accepted, now) {
            self.strike(place, generation, now);
            self.held.retain(|(origin, _)| *origin != place.origin);
            return Ruling::Fetch { closed: was_held };
        }
        self.held.retain(|(origin, _)| *origin != place.origin);
        push_bounded(&mut self.held, (place.origin, now));
        Ruling::Hold { opened: !was_held }
    }

    /// Whether refusals cost no fetch somewhere.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        let counts = self.counts(now);
        self.held.iter().any(|(_, since)| counts(*since))
    }

    fn was_held(&self, origin: u64) -> bool {
        self.held.iter().any(|(held, _)| *held == origin)
    }

    fn admits(&mut self, place: Place, accepted: bool, now: Instant) -> bool {
        let counts = self.counts(now);
        let broken = |trip: &Trip| trip.proven && Some(trip.route) == place.route && counts(trip.since);
        if self.tripped.iter().any(broken) {
            return false;
        }
        let here = |(origin, since): &(u64, Instant)| *origin == place.origin && counts(*since);
        let strikes = |strike: &Strike| strike.place.origin == place.origin && counts(strike.since);
        let struck = self.strikes.iter().filter(|strike| strikes(strike)).count() >= STRIKES;
        if (!accepted || struck) && self.fetched.iter().any(here) {
            // It does not behave yet.
            let again = self.strikes.iter_mut().filter(|strike| struck && strikes(strike));
            again.for_each(|strike| strike.since = now);
            return false;
        }
        self.fetched
            .retain(|(origin, since)| *origin != place.origin && counts(*since));
        push_bounded(&mut self.fetched, (place.origin, now));
        true
    }

    fn strike(&mut self, place: Place, refused: Generation, now: Instant) {
        let counts = self.counts(now);
        let same = |strike: &Strike| (strike.place.origin, strike.refused) == (place.origin, refused);
        self.strikes.retain(|strike| counts(strike.since) && !same(strike));
        let strike = Strike {
            place,
            refused,
            since: now,
        };
        push_bounded(&mut self.strikes, strike);
    }

    /// One request was refused with two tokens there, one after the other.
    pub(super) fn trip(&mut self, place: Place, (refused, generation): (Generation, Generation), now: Instant) {
        self.strike(place, refused, now);
        let Some(route) = place.route else { return };
        let counts = self.counts(now);
        self.tripped.retain(|trip| trip.route != route && counts(trip.since));
        let trip = Trip {
            route,
            generation,
            since: now,
            proven: false,
        };
        push_bounded(&mut self.tripped, trip);
    }

    /// A token was accepted, at a route if it is known. Returns whether the breaker was open there, or anywhere where
    /// it was not asked for a minute, and is no longer.
    pub(super) fn accepted(&mut self, generation: Generation, place: Place, now: Instant) -> bool {
        let counts = self.counts(now);
        let proven = |trip: &Trip| Some(trip.route) == place.route && trip.proven && counts(trip.since);
        let heals = self.tripped.iter().any(proven);
        let held_before = self.held.len();
        self.held
            .retain(|(origin, since)| counts(*since) && !(heals && *origin == place.origin));
        let closed = self.held.len() < held_before;
        self.tripped
            .retain(|trip| Some(trip.route) != place.route && counts(trip.since));
        for trip in &mut self.tripped {
            trip.proven |= trip.generation <= generation;
        }
        let helped = |strike: &Strike| strike.place == place && place.route.is_some() && strike.refused < generation;
        self.strikes.retain(|strike| counts(strike.since) && !helped(strike));
        closed
    }

    /// Whether an acceptance could prove, clear or close anything.
    pub(super) fn suspects(&self) -> bool {
        !self.tripped.is_empty()
            || !self.held.is_empty()
            || self.strikes.iter().any(|strike| strike.place.route.is_some())
    }
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

    const HELD: Duration = Duration::from_secs(60);

    const HERE: Place = Place {
        origin: 1,
        route: Some(7),
    };
    const ELSEWHERE: Place = Place {
        origin: 1,
        route: Some(8),
    };
    const ANOTHER_ORIGIN: Place = Place {
        origin: 2,
        route: Some(9),
    };
    const NOT_KEPT: Place = Place { origin: 1, route: None };
    const TOKEN: Generation = Generation::FIRST;

    impl Breaker {
        /// Whether a refusal of the `nth` token here may cost a fetch.
        fn pays(&mut self, nth: u64, accepted: bool) -> bool {
            !self.rule(HERE, Generation::nth(nth), accepted, Instant::now()).holds()
        }

        fn trips(&mut self, route: u64, refused: u64) {
            let place = Place {
                route: Some(route),
                ..HERE
            };
            self.trip(place, (Generation::nth(refused), TOKEN), Instant::now());
        }

        /// The same of a token that was never refused before, anywhere.
        fn lets(&mut self, place: Place, accepted: bool) -> bool {
            let nth = 1 + self
                .strikes
                .iter()
                .map(|strike| strike.refused.get())
                .max()
                .unwrap_or(0);
            !self.rule(place, Generation::nth(nth), accepted, Instant::now()).holds()
        }

        fn accepts(&mut self, nth: u64, place: Place) -> bool {
            self.accepted(Generation::nth(nth), place, Instant::now())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_untried_token_refused_costs_one_fetch_a_minute() {
        let mut breaker = Breaker::new(HELD);
        assert!(breaker.pays(1, false));
        assert!(!breaker.pays(2, false));
        tokio::time::advance(HELD).await;
        assert!(breaker.pays(2, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_token_refused_costs_a_fetch_each_time_that_the_newer_one_helps() {
        let mut breaker = Breaker::new(HELD);
        for nth in 1..=100 {
            assert!(breaker.pays(nth, true));
            assert!(breaker.suspects());
            breaker.accepts(nth + 1, ELSEWHERE);
            assert!(breaker.suspects(), "that proves nothing of this route");
            breaker.accepts(nth + 1, HERE);
            assert!(!breaker.suspects());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_whose_replays_nobody_sees_strike_five_times() {
        let mut breaker = Breaker::new(HELD);
        let paid = (1..=100).filter(|nth| breaker.pays(*nth, true)).count();
        assert_eq!(paid, STRIKES);
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_that_strikes_five_times_is_held_until_it_behaves_for_a_minute() {
        let mut breaker = Breaker::new(HELD);
        for nth in 1..=5 {
            assert!(breaker.pays(nth, true));
            breaker.trips(nth, nth);
        }
        let mut paid = 0;
        for nth in 6..306 {
            paid += usize::from(breaker.pays(nth, true));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(paid, 4);
        tokio::time::advance(HELD).await;
        assert!(breaker.pays(306, true) && breaker.pays(307, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_is_held_once_its_token_is_accepted_elsewhere_and_until_it_accepts() {
        let mut breaker = Breaker::new(HELD);
        breaker.trips(7, 1);
        assert!(breaker.pays(1, true), "revoked twice, for all that is known");
        assert!(!breaker.accepts(1, ELSEWHERE));
        assert!(!breaker.pays(2, true));
        assert!(!breaker.rule(ELSEWHERE, TOKEN, true, Instant::now()).holds());
        assert!(!breaker.pays(2, true));
        assert!(breaker.accepts(1, HERE));
        assert!(breaker.pays(2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_when_it_opens_and_when_it_closes() {
        let mut breaker = Breaker::new(HELD);
        let mut rule = |nth| breaker.rule(HERE, Generation::nth(nth), false, Instant::now());
        assert_eq!(rule(1), Ruling::Fetch { closed: false });
        assert_eq!(rule(2), Ruling::Hold { opened: true });
        assert_eq!(rule(2), Ruling::Hold { opened: false });
        tokio::time::advance(HELD - Duration::from_secs(1)).await;
        assert_eq!(rule(2), Ruling::Hold { opened: false });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(rule(2), Ruling::Fetch { closed: true });
        assert!(!breaker.is_open(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn origins_open_and_close_each_for_itself() {
        let mut breaker = Breaker::new(HELD);
        let rule = |breaker: &mut Breaker, place, nth, accepted| {
            breaker.rule(place, Generation::nth(nth), accepted, Instant::now())
        };
        for place in [HERE, ANOTHER_ORIGIN] {
            assert_eq!(rule(&mut breaker, place, 1, false), Ruling::Fetch { closed: false });
            assert_eq!(rule(&mut breaker, place, 2, false), Ruling::Hold { opened: true });
            assert!(breaker.is_open(Instant::now()));
        }
        assert_eq!(rule(&mut breaker, HERE, 2, false), Ruling::Hold { opened: false });
        breaker.trips(7, 1);
        breaker.accepts(1, ELSEWHERE);
        assert!(breaker.accepts(1, HERE));
        assert_eq!(rule(&mut breaker, HERE, 2, true), Ruling::Fetch { closed: false });
        let other = rule(&mut breaker, ANOTHER_ORIGIN, 2, false);
        assert_eq!(other, Ruling::Hold { opened: false });
    }

    #[tokio::test(start_paused = true)]
    async fn an_acceptance_closes_only_where_a_route_was_proven_broken() {
        let mut breaker = Breaker::new(HELD);
        assert!(breaker.pays(1, false) && !breaker.pays(2, false));
        assert!(!breaker.accepts(2, HERE), "held for untried tokens, not for a route");
        breaker.trips(7, 1);
        assert!(!breaker.accepts(1, HERE), "nothing was proven against it");
        breaker.trips(7, 1);
        assert!(!breaker.accepts(1, ELSEWHERE), "another route; that is the proof");
    }

    #[tokio::test(start_paused = true)]
    async fn routes_are_held_each_for_itself_and_for_a_minute() {
        let mut breaker = Breaker::new(HELD);
        breaker.trips(7, 1);
        breaker.trips(8, 2);
        breaker.accepts(1, NOT_KEPT);
        breaker.accepts(1, NOT_KEPT);
        assert!(!breaker.lets(HERE, true) && !breaker.lets(ELSEWHERE, true));
        tokio::time::advance(HELD).await;
        assert!(breaker.lets(HERE, true) && breaker.lets(ELSEWHERE, true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_token_proves_nothing_and_neither_does_what_was_proven_before() {
        let mut breaker = Breaker::new(HELD);
        let trip = |breaker: &mut Breaker, nth| {
            breaker.trip(HERE, (Generation::nth(nth - 1), Generation::nth(nth)), Instant::now());
        };
        trip(&mut breaker, 2);
        breaker.accepts(1, NOT_KEPT);
        assert!(breaker.lets(HERE, true));
        breaker.accepts(2, NOT_KEPT);
        assert!(!breaker.lets(HERE, true));
        trip(&mut breaker, 3);
        assert!(breaker.lets(HERE, true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_answers_for_itself_alone() {
        let mut breaker = Breaker::new(HELD);
        assert!(breaker.lets(HERE, false) && breaker.lets(ANOTHER_ORIGIN, false));
        assert!(!breaker.lets(HERE, false) && !breaker.lets(ANOTHER_ORIGIN, false));
        // However often one of them is asked about, the other is not forgotten.
        for nth in 0..2 * PLACES as u64 {
            breaker.accepts(1000 + nth, HERE);
            assert!(breaker.lets(HERE, true));
        }
        assert!(!breaker.lets(ANOTHER_ORIGIN, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_strike_of_a_request_that_was_not_kept_is_not_taken_back() {
        let mut breaker = Breaker::new(HELD);
        for _ in 0..STRIKES {
            assert!(breaker.lets(NOT_KEPT, true));
            breaker.accepts(1000, NOT_KEPT);
            assert!(!breaker.suspects());
        }
        assert!(!breaker.lets(NOT_KEPT, true));
        assert!(breaker.lets(ANOTHER_ORIGIN, true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_token_or_another_origin_takes_no_strike_back() {
        let mut breaker = Breaker::new(HELD);
        for nth in 1..=STRIKES as u64 {
            assert!(breaker.pays(nth, true));
            breaker.accepts(1, HERE);
            breaker.accepts(1000, Place { origin: 2, ..HERE });
        }
        assert!(!breaker.pays(6, true));
    }

    #[tokio::test(start_paused = true)]
    async fn strikes_last_longer_only_for_an_origin_that_has_enough_of_them() {
        let mut breaker = Breaker::new(HELD);
        let third = Place { origin: 3, route: None };
        // The first has one too few and is held for its untried token; the third has enough.
        for (place, strikes) in [(HERE, STRIKES - 1), (third, STRIKES)] {
            assert!((0..strikes).all(|_| breaker.lets(place, true)));
        }
        assert!(!breaker.lets(HERE, false) && !breaker.lets(third, true));
        tokio::time::advance(HELD - Duration::from_secs(1)).await;
        assert!(!breaker.lets(HERE, false) && !breaker.lets(third, true));
        tokio::time::advance(Duration::from_secs(1)).await;
        // A minute has passed: each may cost one again, and only the third no more than that.
        assert!(breaker.lets(HERE, true) && breaker.lets(third, true));
        assert!(breaker.lets(HERE, true) && !breaker.lets(third, true));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_places_are_kept_and_not_for_ever() {
        let mut breaker = Breaker::new(HELD);
        for route in 0..10_000 {
            breaker.trips(route, route + 1);
        }
        assert_eq!((breaker.tripped.len(), breaker.strikes.len()), (PLACES, PLACES));
        tokio::time::advance(HELD).await;
        breaker.accepts(1, ELSEWHERE);
        assert!(!breaker.suspects());
    }
}
