//! When the next fetch may begin: what failures, refusals and repeated tokens leave behind.
//!
//! After a transient failure the gaps are 1 s, 2 s, 4 s ... up to 120 s, each with up to 20 % on top,
//! and at least 60 s from the seventh attempt on; `Retry-After` lengthens a gap, and shortens none of the
//! latter. A request that would otherwise fail may probe once per 30 s in between. A verdict of the issuer is probed after 10 minutes, doubling to 1 hour.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Class, Error, FetchError};
use crate::lifetime::Pauses;
use crate::provider::IfLost;

/// What the past says about the next fetch.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pauses: Pauses,
    setback: Option<Setback>,
    /// The end of a minimum interval: callers inside it wait.
    floor: Option<Instant>,
    /// Presentations in a row whose answer was lost.
    lost: u32,
}

#[derive(Debug)]
struct Setback {
    error: FetchError,
    failures: u32,
    /// When the last attempt ended.
    at: Instant,
    /// When the next may begin; `None`: not without a new credential.
    until: Option<Instant>,
}

/// Whether a fetch may begin.
pub(super) enum Clearance {
    /// Now, or at that instant.
    Go(Option<Instant>),
    /// Not now, and this is why.
    Deny(Error),
}

impl Schedule {
    pub(super) fn new(pauses: Pauses) -> Self {
        Self {
            pauses,
            ..Self::default()
        }
    }

    /// The past is no matter any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.pauses);
    }

    /// Asked by a request that has no token to go out with.
    pub(super) fn needed(&self, now: Instant, min_interval: Duration) -> Clearance {
        let Some(setback) = &self.setback else {
            return Clearance::Go(self.floor.filter(|floor| *floor > now));
        };
        let Some(until) = setback.until else {
            return Clearance::Deny(setback.error.clone().into());
        };
        let wait = until.saturating_duration_since(now);
        if wait.is_zero() {
            return Clearance::Go(self.floor.filter(|floor| *floor > now));
        }
        match setback.error.class() {
            Class::Throttled { .. } => {
                let class = Class::Throttled {
                    retry_after: Some(wait),
                };
                Clearance::Deny(setback.error.clone().reclassified(class).into())
            }
            // Not with a credential that may be spent: that is presented once a minute.
            Class::Transient if self.lost == 0 && now.saturating_duration_since(setback.at) >= self.pauses.probe => {
                Clearance::Go(None)
            }
            // So near that waiting is kinder than failing.
            Class::Transient if wait <= min_interval.mul_f64(1.0 + JITTER) => Clearance::Go(Some(until)),
            _ => Clearance::Deny(setback.error.clone().into()),
        }
    }

    /// So much time has passed that the monotonic clock did not see. Nothing waits for it twice.
    pub(super) fn slept(&mut self, time: Duration) {
        let Some(setback) = &mut self.setback else { return };
        setback.at = setback.at.checked_sub(time).unwrap_or(setback.at);
        setback.until = setback.until.map(|until| until.checked_sub(time).unwrap_or(setback.at));
    }

    /// Asked while the current token still goes out: the instant from which a fetch may begin, `None` for never.
    pub(super) fn in_background(&self) -> Option<Option<Instant>> {
        match &self.setback {
            Some(setback) => setback.until.map(Some),
            None => Some(self.floor),
        }
    }

    /// A token came. `pause`: it was refused or repeated before, so the next fetch keeps this distance.
    pub(super) fn succeeded(&mut self, now: Instant, pause: Option<Duration>) {
        *self = Self {
            floor: pause.map(|pause| now + pause),
            ..Self::new(self.pauses)
        };
    }

    /// No token came. Returns the error as callers see it.
    pub(super) fn failed(&mut self, error: FetchError, if_lost: IfLost, now: Instant) -> FetchError {
        if error.is_of_store() {
            return self.withheld(error, now);
        }
        if error.is_lost() && if_lost != IfLost::Idempotent {
            self.lost = self.lost.saturating_add(1);
        } else if is_verdict(error.class()) || !error.says_nothing() {
            self.lost = 0;
        }
        // However it is judged: an issuer that says when to come back is not asked before.
        let asked_for = match error.class() {
            Class::Throttled {
                retry_after: Some(wait),
            } => wait.min(self.pauses.patience),
            _ => Duration::ZERO,
        };
        let error = self.judged(error, if_lost);
        let probe = self
            .setback
            .as_ref()
            .filter(|setback| setback.until.is_none_or(|until| now < until));
        // An explicit fetch that fails in passing ends no pause that the issuer asked for.
        if probe.is_some_and(|setback| setback.outlasts(&error)) {
            return error;
        }
        let alike = self
            .setback
            .as_ref()
            .filter(|setback| setback.is_verdict() == is_verdict(error.class()));
        let failures = match (alike, probe) {
            (Some(setback), Some(_)) => setback.failures,
            (Some(setback), None) => setback.failures.saturating_add(1),
            (None, _) => 1,
        };
        let planned = self.pause(error.class(), failures, if_lost);
        let planned = planned.map(|pause| pause.max(asked_for));
        // A probe in the middle of a backoff does not push its end away.
        let kept = probe
            .and_then(|setback| setback.until)
            .filter(|_| error.class() == Class::Transient);
        let until = kept.or(planned.map(|wait| now + wait));
        // Whoever asked for patience without saying how much gets ours, and callers are told.
        let error = match error.class() {
            Class::Throttled { .. } => error.reclassified(Class::Throttled {
                retry_after: until.map(|until| until.saturating_duration_since(now)),
            }),
            _ => error,
        };
        self.floor = None;
        self.setback = Some(Setback {
            error: error.clone(),
            failures,
            at: now,
            until,
        });
        error
    }

    /// Nothing was presented, because the store could not be asked: it is asked again soon, since it costs the issuer
    /// nothing, and what the issuer said stands.
    fn withheld(&mut self, error: FetchError, now: Instant) -> FetchError {
        let until = now + STORE_AGAIN.mul_f64(1.0 + JITTER * fastrand::f64());
        let stands =
            |setback: &Setback| !setback.error.is_of_store() && setback.until.is_none_or(|stands| stands > until);
        if !self.setback.as_ref().is_some_and(stands) {
            self.setback = Some(Setback {
                error: error.clone(),
                failures: self.failures(),
                at: now,
                until: Some(until),
            });
        }
        error
    }

    /// How long after such a failure; `None`: not without a new credential.
    fn pause(&self, class: Class, failures: u32, if_lost: IfLost) -> Option<Duration> {
        let pause = match class {
            Class::Ambiguous if gives_up(if_lost) => return None,
            Class::Ambiguous => MINUTE,
            Class::Terminal | Class::NeedsInteraction | Class::Config => doubled(self.pauses.verdict, failures),
            // `Retry-After: 0`, again and again, would be a storm.
            Class::Throttled {
                retry_after: Some(wait),
            } if wait >= LEAST_THROTTLE => wait.min(self.pauses.patience).max(self.least_after(failures)),
            Class::Transient | Class::Throttled { .. } => {
                let jitter = 1.0 + JITTER * fastrand::f64();
                doubled(self.pauses.backoff, failures)
                    .mul_f64(jitter)
                    .max(self.least_after(failures))
            }
        };
        // Until the issuer gives a verdict, what may be spent already is presented once a minute.
        let least = if self.lost > 0 { MINUTE } else { Duration::ZERO };
        Some(pause.max(least))
    }

    /// From the seventh attempt on, also where an issuer says "in a second" each time.
    fn least_after(&self, failures: u32) -> Duration {
        let (_, longest) = self.pauses.backoff;
        if failures >= 6 {
            MINUTE.min(longest)
        } else {
            Duration::ZERO
        }
    }

    /// A lost answer is judged by the provider's policy. So is any later failure but a verdict, where the
    /// policy gives up on what may be spent: it says nothing about that.
    fn judged(&self, error: FetchError, if_lost: IfLost) -> FetchError {
        match (error.is_lost(), if_lost) {
            (true, IfLost::Idempotent) => error.reclassified(Class::Transient),
            (true, _) => error.reclassified(Class::Ambiguous),
            (false, _) if self.lost > 0 && gives_up(if_lost) && !is_verdict(error.class()) => {
                error.reclassified(Class::Ambiguous)
            }
            (false, _) => error,
        }
    }

    /// The fetch ended without a word. If it had begun, its credential may have been presented: that is
    /// a lost answer like any other, but for the first, whose second presentation is still due.
    pub(super) fn aborted(&mut self, begun: bool, if_lost: IfLost, pause: Duration, now: Instant) {
        if !begun {
            self.floor = Some(now + pause);
            return;
        }
        let error = FetchError::transient("the fetch ended without an answer: it panicked, or its runtime ended");
        if self.lost == 0 && if_lost == IfLost::ReplayOnce {
            self.failed(error, if_lost, now);
            self.lost = 1;
        } else {
            self.failed(error.lost(), if_lost, now);
        }
    }

    /// What was presented without an answer has been replaced.
    pub(super) fn nothing_is_lost(&mut self) {
        self.lost = 0;
    }

    /// How often the credential was presented in a row without an answer.
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    pub(super) fn failures(&self) -> u32 {
        self.setback.as_ref().map_or(0, |setback| setback.failures)
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.setback.as_ref().map(|setback| setback.error.clone().into())
    }
}

impl Setback {
    fn is_verdict(&self) -> bool {
        is_verdict(self.error.class())
    }

    /// Whether it stands although a fetch within it failed with `error`.
    fn outlasts(&self, error: &FetchError) -> bool {
        error.class() == Class::Transient
            && match self.error.class() {
                Class::Transient => false,
                Class::Throttled { .. } => true,
                // It was about the credential that was presented.
                _ => error.says_nothing(),
            }
    }
}

/// Whether the issuer has spoken, so that asking again in a few seconds is no use.
fn is_verdict(class: Class) -> bool {
    matches!(class, Class::Terminal | Class::NeedsInteraction | Class::Config)
}

/// Whether a credential that may be spent is not presented again by itself, once its flight has ended.
fn gives_up(if_lost: IfLost) -> bool {
    matches!(if_lost, IfLost::NeverReplay | IfLost::ReplayWithin(_))
}

const MINUTE: Duration = Duration::from_secs(60);
/// Whoever waits for a store has to be back within two seconds of it.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// On top of each gap, up to this share of it.
const JITTER: f64 = 0.2;
const LEAST_THROTTLE: Duration = Duration::from_secs(1);

/// The first pause, doubled with each failure after it.
fn doubled((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Duration {
        Pauses::default().probe
    }

    fn wait(schedule: &Schedule) -> Option<Duration> {
        let until = schedule.setback.as_ref().unwrap().until?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    #[tokio::test(start_paused = true)]
    async fn gaps_double_and_ten_thousand_failures_stay_in_range() {
        let mut schedule = Schedule::default();
        for failure in 1..=10_000_u32 {
            schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
            let wait = wait(&schedule).unwrap();
            let base = 2_f64.powi((failure as i32 - 1).min(7)).min(120.0);
            let base = if failure >= 6 { base.max(50.0) } else { base };
            assert!(
                wait.as_secs_f64() >= base && wait.as_secs_f64() <= 144.0,
                "{failure}: {wait:?}"
            );
            assert!(failure < 6 || wait >= MINUTE);
            tokio::time::advance(wait).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_is_probed_after_ten_minutes_doubling_to_an_hour() {
        let mut schedule = Schedule::default();
        for minutes in [10, 20, 40, 60, 60] {
            schedule.failed(FetchError::terminal("over"), IfLost::ReplayOnce, Instant::now());
            assert_eq!(wait(&schedule), Some(minutes * MINUTE));
            assert!(matches!(schedule.needed(Instant::now(), MINUTE), Clearance::Deny(_)));
            tokio::time::advance(minutes * MINUTE).await;
            assert!(matches!(schedule.needed(Instant::now(), MINUTE), Clearance::Go(None)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outages_before_a_verdict_do_not_lengthen_it() {
        let mut schedule = Schedule::default();
        for _ in 0..5 {
            schedule.failed(FetchError::transient("down"), IfLost::ReplayOnce, Instant::now());
            tokio::time::advance(MINUTE).await;
        }
        schedule.failed(FetchError::terminal("over"), IfLost::ReplayOnce, Instant::now());
        assert_eq!(wait(&schedule), Some(10 * MINUTE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_would_fail_probes_once_per_thirty_seconds() {
        let mut schedule = Schedule::default();
        for _ in 0..8 {
            schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
            tokio::time::advance(wait(&schedule).unwrap()).await;
        }
        schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
        let end = schedule.setback.as_ref().unwrap().until;
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(matches!(
            schedule.needed(Instant::now(), Duration::ZERO),
            Clearance::Deny(_)
        ));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(
            schedule.needed(Instant::now(), Duration::ZERO),
            Clearance::Go(None)
        ));
        schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
        assert_eq!(
            schedule.setback.as_ref().unwrap().until,
            end,
            "the probe pushed the backoff away"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_obeyed_and_counts_down() {
        let mut schedule = Schedule::default();
        let error = FetchError::throttled(Some(Duration::from_secs(7)), "slow down");
        schedule.failed(error, IfLost::Idempotent, Instant::now());
        tokio::time::advance(Duration::from_secs(5)).await;
        let Clearance::Deny(error) = schedule.needed(Instant::now(), MINUTE) else {
            panic!("a fetch within Retry-After")
        };
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(matches!(schedule.needed(Instant::now(), MINUTE), Clearance::Go(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_judged_by_the_providers_policy() {
        let lost = || FetchError::transient("cut off").lost();
        let mut schedule = Schedule::default();
        let once = schedule.failed(lost(), IfLost::ReplayOnce, Instant::now());
        assert_eq!((once.class(), wait(&schedule)), (Class::Ambiguous, Some(MINUTE)));
        let never = Schedule::default().failed(lost(), IfLost::NeverReplay, Instant::now());
        assert_eq!(never.class(), Class::Ambiguous);
        let mut schedule = Schedule::default();
        assert_eq!(
            schedule.failed(lost(), IfLost::Idempotent, Instant::now()).class(),
            Class::Transient
        );
        assert!(wait(&schedule).unwrap() < Duration::from_secs(2));
        let mut schedule = Schedule::default();
        schedule.failed(lost(), IfLost::NeverReplay, Instant::now());
        assert_eq!(wait(&schedule), None);
    }

    /// How long a request that needs a token waits for the next fetch; `None` if it is denied.
    fn cleared(schedule: &Schedule) -> Option<Duration> {
        match schedule.needed(Instant::now(), Duration::from_secs(1)) {
            Clearance::Go(at) => Some(at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))),
            Clearance::Deny(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_kept_and_ends() {
        let pause = Duration::from_secs(2);
        let mut schedule = Schedule::default();
        schedule.succeeded(Instant::now(), Some(pause));
        assert_eq!(cleared(&schedule), Some(pause));
        assert_eq!(schedule.in_background(), Some(Some(Instant::now() + pause)));
        tokio::time::advance(pause).await;
        assert!(matches!(schedule.needed(Instant::now(), pause), Clearance::Go(None)));

        // After a failure as well, where a fetch that was decided did not begin.
        schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
        tokio::time::advance(2 * pause).await;
        schedule.aborted(false, IfLost::Idempotent, pause, Instant::now());
        assert_eq!((cleared(&schedule), schedule.failures()), (Some(pause), 1));
        tokio::time::advance(pause).await;
        assert!(matches!(schedule.needed(Instant::now(), pause), Clearance::Go(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_gap_is_waited_for_and_longer_ones_are_not() {
        for _ in 0..100 {
            let mut schedule = Schedule::default();
            for failure in 1..=3 {
                schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
                let gap = wait(&schedule).unwrap();
                assert_eq!(cleared(&schedule), (failure == 1).then_some(gap));
                assert_eq!(schedule.in_background(), Some(Some(Instant::now() + gap)));
                assert_eq!(schedule.failures(), failure);
                tokio::time::advance(gap).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn presentations_without_an_answer_are_counted_until_the_issuer_speaks() {
        let lost = || FetchError::transient("cut off").lost();
        let down = || FetchError::transient("down");
        let mut schedule = Schedule::default();
        let mut count = |error, if_lost| {
            schedule.failed(error, if_lost, Instant::now());
            schedule.lost()
        };
        assert_eq!(count(lost(), IfLost::Idempotent), 0);
        assert_eq!(count(down(), IfLost::ReplayOnce), 0);
        assert_eq!(count(lost(), IfLost::ReplayOnce), 1);
        assert_eq!(count(lost(), IfLost::ReplayOnce), 2);
        assert_eq!(count(down(), IfLost::ReplayOnce), 2);
        assert_eq!(count(FetchError::terminal("over"), IfLost::ReplayOnce), 0);
        assert_eq!(count(lost(), IfLost::ReplayOnce), 1);
        let rotated = FetchError::transient("malformed").new_credential(serde_json::json!("test"));
        assert_eq!(count(rotated, IfLost::ReplayOnce), 0);
    }

    /// Whatever goes wrong in between says nothing about it.
    #[tokio::test(start_paused = true)]
    async fn what_may_be_spent_is_presented_once_a_minute_or_not_at_all() {
        let lost = || FetchError::transient("cut off").lost();
        let mut schedule = Schedule::default();
        schedule.failed(lost(), IfLost::ReplayOnce, Instant::now());
        tokio::time::advance(MINUTE).await;
        let next = schedule.failed(FetchError::transient("down"), IfLost::ReplayOnce, Instant::now());
        assert_eq!((next.class(), wait(&schedule)), (Class::Transient, Some(MINUTE)));
        tokio::time::advance(probe()).await;
        assert_eq!(cleared(&schedule), None);
        tokio::time::advance(MINUTE - probe()).await;
        assert_eq!(cleared(&schedule), Some(Duration::ZERO));

        for if_lost in [IfLost::NeverReplay, IfLost::ReplayWithin(probe())] {
            let mut schedule = Schedule::default();
            let untouched = schedule.failed(FetchError::transient("down"), if_lost, Instant::now());
            assert_eq!(untouched.class(), Class::Transient);
            schedule.failed(lost(), if_lost, Instant::now());
            let next = schedule.failed(FetchError::transient("down"), if_lost, Instant::now());
            assert_eq!((next.class(), wait(&schedule)), (Class::Ambiguous, None));
            assert_eq!((cleared(&schedule), schedule.in_background()), (None, None));
            let verdict = schedule.failed(FetchError::terminal("over"), if_lost, Instant::now());
            assert_eq!(verdict.class(), Class::Terminal);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_a_second_at_least_and_an_hour_at_most() {
        let asked = |seconds: Option<u64>| {
            let retry_after = seconds.map(Duration::from_secs);
            let mut schedule = Schedule::default();
            let error = FetchError::throttled(retry_after, "slow down");
            let told = schedule.failed(error, IfLost::Idempotent, Instant::now()).class();
            // Callers are told what is waited for.
            let retry_after = wait(&schedule);
            assert_eq!(told, Class::Throttled { retry_after });
            retry_after.unwrap()
        };
        let ours = Duration::from_secs(1)..=Duration::from_millis(1200);
        assert!(ours.contains(&asked(None)) && ours.contains(&asked(Some(0))));
        for (seconds, waited) in [(1, 1), (7, 7), (3600, 3600), (7200, 3600)] {
            assert_eq!(asked(Some(seconds)), Duration::from_secs(waited));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_asked_for_patience_has_it() {
        let mut schedule = Schedule::default();
        for _ in 0..9 {
            tokio::time::advance(2 * (2 * MINUTE)).await;
            schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
        }
        tokio::time::advance(probe()).await;
        let seventy = Duration::from_secs(70);
        let error = FetchError::throttled(Some(seventy), "slow down");
        schedule.failed(error, IfLost::Idempotent, Instant::now());
        assert_eq!((wait(&schedule), schedule.failures()), (Some(seventy), 9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_ends_without_a_word_is_a_lost_answer() {
        let aborted = |if_lost, times| {
            let mut schedule = Schedule::default();
            (0..times).for_each(|_| schedule.aborted(true, if_lost, MINUTE, Instant::now()));
            (schedule.last_error().and_then(|error| error.class()), schedule.lost())
        };
        // The second presentation is still due.
        assert_eq!(aborted(IfLost::ReplayOnce, 1), (Some(Class::Transient), 1));
        assert_eq!(aborted(IfLost::ReplayOnce, 2), (Some(Class::Ambiguous), 2));
        assert_eq!(aborted(IfLost::NeverReplay, 1), (Some(Class::Ambiguous), 1));
        assert_eq!(aborted(IfLost::Idempotent, 1), (Some(Class::Transient), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn every_pause_is_the_policys() {
        let seconds = Duration::from_secs;
        let pauses = Pauses {
            backoff: (seconds(3), seconds(10)),
            probe: seconds(5),
            patience: seconds(50),
            verdict: (seconds(7), seconds(20)),
            ..Pauses::default()
        };
        let mut schedule = Schedule::new(pauses);
        for least in [3, 6, 10, 10, 10, 10, 10, 10] {
            schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
            let wait = wait(&schedule).unwrap();
            assert!(
                wait >= seconds(least) && wait <= seconds(least).mul_f64(1.2),
                "{wait:?}"
            );
            tokio::time::advance(wait).await;
        }
        schedule.failed(FetchError::transient("down"), IfLost::Idempotent, Instant::now());
        tokio::time::advance(seconds(5)).await;
        assert!(matches!(
            schedule.needed(Instant::now(), Duration::ZERO),
            Clearance::Go(None)
        ));
        schedule.forget();
        let patience = FetchError::throttled(Some(seconds(500)), "patience");
        schedule.failed(patience, IfLost::Idempotent, Instant::now());
        assert_eq!(wait(&schedule), Some(seconds(50)));
        schedule.forget();
        for pause in [7, 14, 20, 20] {
            schedule.failed(FetchError::terminal("over"), IfLost::ReplayOnce, Instant::now());
            assert_eq!(wait(&schedule), Some(seconds(pause)));
            tokio::time::advance(seconds(pause)).await;
        }
    }
}
