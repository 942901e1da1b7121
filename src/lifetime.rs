//! When a token is renewed: [`RefreshPolicy`] says it, [`Freshness`] is what follows for one token.
//!
//! Two windows stand at the end of a life (RFC 9111 §4.2 and RFC 5861 give the words). In the
//! *advisory* window the token is [stale](Freshness::Stale): it still goes out while one fetch
//! runs. In the *mandatory* window it counts as [expired](Freshness::Expired): all wait.

use std::time::Duration;

use crate::clock::{A_YEAR, Wall};
use crate::error::Faults;

/// How far a token is into its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// Goes out.
    Fresh,
    /// Goes out, while a newer one is fetched in the background.
    Stale,
    /// Does not go out: so near its death that it might die on the way, or dead.
    Expired,
}

/// When to renew, how long to wait, how hard to try. Every default can be set.
///
/// Nothing is checked until [`TokensBuilder::build`](crate::TokensBuilder::build), which names every wrong value at
/// once.
///
/// ```
/// use std::time::Duration;
/// use tower_token::RefreshPolicy;
///
/// let policy = RefreshPolicy::default()
///     .refresh_before(Duration::from_secs(120))
///     .fetch_timeout(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
pub struct RefreshPolicy {
    pub(crate) refresh_before: Option<Duration>,
    pub(crate) require_before: Duration,
    pub(crate) jitter: f64,
    pub(crate) assumed_life: Duration,
    pub(crate) fetch_timeout: Duration,
    pub(crate) min_interval: Duration,
    pub(crate) max_waiters: usize,
    pub(crate) static_stability: Duration,
    pub(crate) keep_alive: Option<bool>,
    pub(crate) pauses: Pauses,
}

/// How long nothing is fetched after something went wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// After a transient failure, and at most.
    pub(crate) backoff: (Duration, Duration),
    /// A request that would otherwise fail may try so long after the last attempt.
    pub(crate) probe: Duration,
    /// What an issuer may ask for at most.
    pub(crate) patience: Duration,
    /// After a verdict, and at most.
    pub(crate) verdict: (Duration, Duration),
    /// Where new tokens are refused.
    pub(crate) breaker: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            backoff: (Duration::from_secs(1), 2 * MINUTE),
            probe: MINUTE / 2,
            patience: 60 * MINUTE,
            verdict: (10 * MINUTE, 60 * MINUTE),
            breaker: MINUTE,
        }
    }
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            refresh_before: None,
            require_before: Duration::from_secs(60),
            jitter: 0.1,
            assumed_life: Duration::from_secs(5 * 60),
            fetch_timeout: Duration::from_secs(30),
            min_interval: Duration::from_secs(1),
            max_waiters: 65_536,
            static_stability: Duration::ZERO,
            keep_alive: None,
            pauses: Pauses::default(),
        }
    }
}

impl RefreshPolicy {
    /// The advisory window: renews in the background this long before expiry.
    ///
    /// Default: 5 min for lives up to 20 min, 15 min for lives under 90 min, else 60 min.
    /// More than half of the life counts as half of it. The issuer's own hint
    /// ([`Token::refresh_in`](crate::Token::refresh_in)) stands above the default, earlier or later; where this
    /// is set, the earlier of the two counts.
    #[must_use]
    pub fn refresh_before(mut self, before: Duration) -> Self {
        self.refresh_before = Some(before);
        self
    }

    /// The mandatory window: all requests wait for a new token this long before expiry.
    ///
    /// Default: 60 s. More than a quarter of the life counts as a quarter of it.
    #[must_use]
    pub fn require_before(mut self, before: Duration) -> Self {
        self.require_before = before;
        self
    }

    /// Renews up to this share of the life earlier, drawn once per token, so that a fleet spreads.
    ///
    /// Default: 0.1. From 0.0 to 0.5, all else is an error. Half of each life is used whatever is drawn.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// The life of a token whose issuer names none. Default: 5 minutes. Zero is an error.
    #[must_use]
    pub fn assumed_life(mut self, life: Duration) -> Self {
        self.assumed_life = life;
        self
    }

    /// How long one exchange with the issuer may take. Default: 30 s. A flight makes at most three.
    ///
    /// More than a year counts as a year. Zero is an error.
    #[must_use]
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.fetch_timeout = timeout.min(A_YEAR);
        self
    }

    /// The shortest time between a failure, a refusal or a repeated token and the next fetch.
    ///
    /// Default: 1 s. More than a quarter of the life counts as a quarter of it, more than a year as a year.
    #[must_use]
    pub fn min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval.min(A_YEAR);
        self
    }

    /// How many callers may wait for one fetch at once; one more fails with [`Error::is_overloaded`](crate::Error::is_overloaded).
    ///
    /// Default: 65,536. Zero is an error.
    #[must_use]
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.max_waiters = waiters;
        self
    }

    /// Sends a token this long past its expiry when no newer one can be had (static stability).
    ///
    /// Default: zero, which is never: an expired token is not sent.
    #[must_use]
    pub fn static_stability(mut self, extra: Duration) -> Self {
        self.static_stability = extra;
        self
    }

    /// How long past its expiry a token goes out when no other can be had, if it does at all.
    pub(crate) fn beyond_expiry(&self) -> Option<Duration> {
        Some(self.static_stability).filter(|extra| !extra.is_zero())
    }

    /// Whether tokens are renewed without traffic.
    ///
    /// Default: what the provider says ([`TokenProvider::keeps_alive`](crate::TokenProvider::keeps_alive)),
    /// which is no unless its tokens cannot be renewed once they are dead. The token is renewed when its
    /// advisory window begins, and ahead of the deadline of one that has to be
    /// [renewed by](crate::Token::renew_by) an instant after its death; once a minute at most where an
    /// issuer asks for more. Failures are repeated as in the background of traffic. The clocks are looked
    /// at once a minute, so that a suspend is noticed.
    #[must_use]
    pub fn keep_alive(mut self, keep: bool) -> Self {
        self.keep_alive = Some(keep);
        self
    }

    /// The pause after a transient failure, doubled with each in a row up to `longest`; up to a fifth more is drawn.
    ///
    /// Default: 1 s and 120 s. From the seventh attempt on it is a minute at least, or `longest` if that is less.
    /// More than a year counts as a year. A `first` of zero and a `longest` below it are errors.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.pauses.backoff = (first.min(A_YEAR), longest.min(A_YEAR));
        self
    }

    /// How long after the last attempt a request that would otherwise fail may try in the middle of a backoff.
    ///
    /// Default: 30 s. Zero is an error. Not within what an issuer asked for, nor after a verdict, nor while an answer
    /// is lost.
    #[must_use]
    pub fn probe_after(mut self, pause: Duration) -> Self {
        self.pauses.probe = pause.min(A_YEAR);
        self
    }

    /// How long an issuer may keep us away (`Retry-After`, RFC 9110 §10.2.3); more counts as this.
    ///
    /// Default: 1 hour, which is also the most. Zero is an error.
    #[must_use]
    pub fn longest_retry_after(mut self, longest: Duration) -> Self {
        self.pauses.patience = longest.min(60 * MINUTE);
        self
    }

    /// The pause after the issuer's verdict on a credential, doubled with each in a row up to `longest`.
    ///
    /// Default: 10 minutes and 1 hour. [`Tokens::install`](crate::Tokens::install) ends it.
    /// More than a year counts as a year. A `first` of zero and a `longest` below it are errors.
    #[must_use]
    pub fn verdict_pause(mut self, first: Duration, longest: Duration) -> Self {
        self.pauses.verdict = (first.min(A_YEAR), longest.min(A_YEAR));
        self
    }

    /// How long refusals at an origin cost no further fetch, where new tokens were refused as well.
    ///
    /// Default: 1 minute. Zero is an error.
    #[must_use]
    pub fn breaker_pause(mut self, pause: Duration) -> Self {
        self.pauses.breaker = pause.min(A_YEAR);
        self
    }

    pub(crate) fn check(&self, faults: &mut Faults) {
        if !(0.0..=0.5).contains(&self.jitter) {
            faults.add("policy.jitter", "is no share; write one from 0.0 to 0.5");
        }
        let doubled = [
            ("policy.backoff", self.pauses.backoff),
            ("policy.verdict_pause", self.pauses.verdict),
        ];
        for (field, (first, longest)) in doubled {
            if first.is_zero() || longest < first {
                faults.add(
                    field,
                    "is no range; write a first pause above zero, and a longest that is no shorter",
                );
            }
        }
        let positive = [
            ("policy.probe_after", self.pauses.probe),
            ("policy.longest_retry_after", self.pauses.patience),
            ("policy.breaker_pause", self.pauses.breaker),
            ("policy.assumed_life", self.assumed_life),
            ("policy.fetch_timeout", self.fetch_timeout),
        ];
        for (field, duration) in positive {
            if duration.is_zero() {
                faults.add(field, "is zero; write a duration above zero");
            }
        }
        if self.max_waiters == 0 {
            faults.add("policy.max_waiters", "is zero; write at least 1");
        }
    }

    /// The schedule of a token that was asked for at `sent`, lands `now` and dies at `dies`.
    /// `hint` is the issuer's own.
    ///
    /// Windows are shares of what was left when it was asked for: a token that an issuer hands out late
    /// in its life has a short one. One that took so long that its mandatory window has begun is planned
    /// by what is left now, so that nothing is fetched in a loop.
    pub(crate) fn plan(
        &self,
        (sent, now, dies): (Wall, Wall, Wall),
        hint: Option<Wall>,
        renew_by: Option<Wall>,
    ) -> Plan {
        let required_of = |life: Duration| dies.before(self.require_before.min(life / 4));
        let life = Some(sent.until(dies))
            .filter(|life| now < required_of(*life))
            .unwrap_or(now.until(dies));
        let required = required_of(life);
        let advisory = self
            .refresh_before
            .unwrap_or_else(|| default_advisory(life))
            .min(life / 2);
        let jitter = life.mul_f64((self.jitter * fastrand::f64()).clamp(0.0, 0.5));
        // Half of the life is used whatever was drawn, else short tokens would be renewed all the time.
        let planned = dies.before(advisory).before(jitter).max(dies.before(life / 2));
        let min_interval = self.min_interval.min(life / 4);
        // A renewal that begins at its deadline lands after it.
        let ahead = renew_by.filter(|deadline| now < *deadline).map(|deadline| {
            let span = sent.until(deadline);
            // What was set is about the token's own death; a later deadline has a window of its own.
            let window = self.refresh_before.filter(|_| deadline <= dies);
            let ahead = deadline.before(window.unwrap_or_else(|| default_advisory(span)).min(span / 2));
            ahead.max(now.after(min_interval.min(now.until(deadline) / 2)))
        });
        let due = renew_by.map(|deadline| ahead.filter(|_| deadline <= dies).unwrap_or(deadline));
        let hinted = match hint {
            Some(hint) if self.refresh_before.is_none() => {
                // Later than that there would be no time to renew it in the background.
                let hint = hint.min(required.before(MINUTE.min(life / 8)));
                // A fleet was given the same hint.
                hint.before(jitter).max(hint.before(now.until(hint) / 2))
            }
            Some(hint) => hint.min(planned),
            None => planned,
        };
        let stale = due.map_or(hinted, |due| due.min(hinted));
        // A hint of nothing, or a deadline that is over, must not renew all the time.
        let stale = stale.max(now.after(min_interval)).min(required);
        // Still less so where nobody asks for the token.
        let calm = stale.max(now.after(MINUTE.min(life / 4))).min(required);
        let keep = match (ahead, renew_by) {
            (Some(ahead), Some(deadline)) if deadline > dies => ahead,
            (Some(ahead), _) => calm.min(ahead),
            (None, _) => calm,
        };
        Plan {
            stale,
            keep,
            required,
            dies,
            min_interval,
        }
    }
}

/// What [`RefreshPolicy`] makes of one token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// From here on it is renewed in the background.
    pub(crate) stale: Wall,
    /// At this instant it is renewed without traffic, where it is kept alive.
    pub(crate) keep: Wall,
    /// From here on all wait.
    pub(crate) required: Wall,
    /// The issuer's own word.
    pub(crate) dies: Wall,
    /// Between a refusal of it and the next fetch.
    pub(crate) min_interval: Duration,
}

impl Plan {
    pub(crate) fn freshness(&self, now: Wall) -> Freshness {
        if now < self.stale {
            Freshness::Fresh
        } else if now < self.required {
            Freshness::Stale
        } else {
            Freshness::Expired
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn default_advisory(life: Duration) -> Duration {
    if life <= 20 * MINUTE {
        5 * MINUTE
    } else if life < 90 * MINUTE {
        15 * MINUTE
    } else {
        60 * MINUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn plan(policy: &RefreshPolicy, life: Duration) -> (Duration, Duration) {
        let now = Wall::of(SystemTime::now());
        let plan = policy.plan((now, now, now.after(life)), None, None);
        (now.until(plan.stale), now.until(plan.required))
    }

    #[test]
    fn at_least_half_of_every_life_is_used() {
        for secs in [1, 10, 60, 300, 1200, 1201, 3600, 5400, 86_400] {
            let life = Duration::from_secs(secs);
            let (stale, required) = plan(&RefreshPolicy::default(), life);
            assert!(stale >= life / 2, "{secs}: stale after {stale:?}");
            assert!(
                required >= life * 3 / 4 && required < life,
                "{secs}: required after {required:?}"
            );
        }
    }

    #[test]
    fn the_advisory_window_is_the_tables() {
        let policy = RefreshPolicy::default().jitter(0.0);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(plan(&policy, minutes(20)), (minutes(15), minutes(19)));
        assert_eq!(plan(&policy, minutes(60)), (minutes(45), minutes(59)));
        assert_eq!(plan(&policy, minutes(90)), (minutes(45), minutes(89)));
        assert_eq!(plan(&policy, minutes(180)), (minutes(120), minutes(179)));
    }

    #[test]
    fn windows_longer_than_the_life_are_clamped_to_their_share() {
        let policy = RefreshPolicy::default()
            .jitter(0.0)
            .refresh_before(Duration::from_secs(3600))
            .require_before(Duration::from_secs(3600));
        let life = Duration::from_secs(8);
        assert_eq!(plan(&policy, life), (life / 2, life * 3 / 4));
    }

    #[test]
    fn the_issuers_hint_wins() {
        let now = Wall::of(SystemTime::now());
        let hint = now.after(Duration::from_secs(10));
        let plan = RefreshPolicy::default().jitter(0.0).plan(
            (now, now, now.after(Duration::from_secs(3600))),
            Some(hint),
            None,
        );
        assert_eq!(plan.stale, hint);
    }

    #[test]
    fn a_hint_that_is_later_than_the_default_wins_too_but_not_over_what_was_set() {
        let now = Wall::of(SystemTime::now());
        let minutes = |minutes: u32| now.after(minutes * MINUTE);
        let stale = |policy: RefreshPolicy, hint| policy.plan((now, now, minutes(60)), Some(hint), None).stale;
        let default = || RefreshPolicy::default().jitter(0.0);
        assert_eq!(stale(default(), minutes(55)), minutes(55), "by default it would be 45");
        assert_eq!(
            stale(default(), minutes(70)),
            minutes(58),
            "so that nobody has to wait for it"
        );
        assert_eq!(stale(default().refresh_before(10 * MINUTE), minutes(55)), minutes(50));
        assert_eq!(stale(default().refresh_before(10 * MINUTE), minutes(20)), minutes(20));
        for _ in 0..200 {
            let spread = stale(RefreshPolicy::default(), minutes(50));
            assert!(
                spread <= minutes(50) && spread >= minutes(44),
                "a tenth of the life earlier at most"
            );
        }
    }

    #[test]
    fn what_has_to_be_renewed_by_an_instant_is_renewed_ahead_of_it() {
        let (now, policy) = (Wall::of(SystemTime::now()), RefreshPolicy::default().jitter(0.0));
        let minutes = |minutes: u64| now.after(minutes as u32 * MINUTE);
        let stale = |renew_by| policy.plan((now, now, minutes(60)), None, Some(renew_by)).stale;
        assert_eq!(stale(minutes(20)), minutes(15));
        assert_eq!(stale(minutes(4)), minutes(2), "half of the time there is");
        assert_eq!(stale(minutes(60)), minutes(45));
        assert_eq!(stale(minutes(600)), minutes(45), "the token dies first");
        assert_eq!(stale(minutes(0)), now.after(Duration::from_secs(1)), "it is over");
        let policy = policy.refresh_before(MINUTE);
        let stale = |renew_by| policy.plan((now, now, minutes(60)), None, Some(renew_by)).stale;
        assert_eq!(stale(minutes(60)), minutes(59), "what was set counts here too");
        let keep = policy.plan((now, now, minutes(60)), None, Some(minutes(24 * 60))).keep;
        assert_eq!(keep, minutes(23 * 60), "and not for a deadline after the death");
    }

    #[test]
    fn an_idle_token_is_kept_by_its_deadline_where_that_is_later_than_its_death() {
        let (now, policy) = (Wall::of(SystemTime::now()), RefreshPolicy::default().jitter(0.0));
        let minutes = |minutes: u32| now.after(minutes * MINUTE);
        let keep = |hint, renew_by| policy.plan((now, now, minutes(60)), hint, renew_by).keep;
        assert_eq!(keep(None, None), minutes(45));
        assert_eq!(keep(None, Some(minutes(24 * 60))), minutes(23 * 60));
        assert_eq!(keep(None, Some(minutes(80))), minutes(65));
        assert_eq!(keep(None, Some(minutes(20))), minutes(15));
        assert_eq!(keep(Some(minutes(30)), None), minutes(30));
        assert_eq!(
            keep(Some(now), None),
            minutes(1),
            "a hint of nothing is followed once a minute"
        );
        assert_eq!(keep(None, Some(now)), minutes(1), "and so is a deadline that is over");
        let near = now.after(Duration::from_secs(40));
        assert_eq!(
            keep(None, Some(near)),
            now.after(Duration::from_secs(20)),
            "which is no storm"
        );
    }

    #[test]
    fn a_slow_exchange_does_not_shorten_the_mandatory_window() {
        let sent = Wall::of(SystemTime::now());
        let (seconds, policy) = (Duration::from_secs_f64, RefreshPolicy::default());
        let dies = sent.after(seconds(4.0));
        let plan = |late| policy.plan((sent, sent.after(seconds(late)), dies), None, None);
        assert_eq!(plan(1.5).required, dies.before(seconds(1.0)));
        assert_eq!(plan(3.6).required, dies.before(seconds(0.1)), "too late for that");
    }

    #[test]
    fn jitter_is_earlier_only_and_bounded() {
        let life = Duration::from_secs(3600);
        for _ in 0..200 {
            let (stale, _) = plan(&RefreshPolicy::default(), life);
            assert!(
                stale <= Duration::from_secs(45 * 60) && stale >= Duration::from_secs(39 * 60),
                "{stale:?}"
            );
        }
    }
}
