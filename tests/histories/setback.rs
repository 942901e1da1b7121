//! What a failure leaves behind, by the table of defaults: bounds for the next fetch.

use std::time::Duration;

use tower_token::Class;

use super::record::{At, Why};

/// The next fetch begins no earlier than `least` and may be refused until `most` at the latest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setback {
    kind: Kind,
    /// How many of its family failed in a row.
    failures: u32,
    /// When the last attempt ended.
    at: Duration,
    /// Time that only the wall clock sees is counted from here on.
    counted: At,
    least: Duration,
    /// `None`: for ever.
    most: Option<Duration>,
    /// A request that would fail may try in between, once per 30 s.
    probes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Transient,
    Throttled,
    Verdict,
    Ambiguous,
}

/// A fetch, read as one that the backoff had ended for, or as an extra one.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    after: Option<Setback>,
    extra: bool,
}

impl Attempt {
    /// All that a fetch at `now` can be. None: it is too early.
    pub(crate) fn read(setbacks: &[Setback], now: Duration, wished: bool, would_fail: bool) -> Vec<Self> {
        if setbacks.is_empty() {
            return vec![Self {
                after: None,
                extra: false,
            }];
        }
        let read = |setback: &Setback| {
            let due = now >= setback.least;
            let early = setback.most.is_none_or(|most| now < most);
            let probe = setback.probes && would_fail && now >= setback.at + PROBE;
            let as_planned = due.then_some(false);
            let as_extra = (early && (probe || wished)).then_some(true);
            let after = setback.clone();
            [as_planned, as_extra].into_iter().flatten().map(move |extra| Self {
                after: Some(after.clone()),
                extra,
            })
        };
        setbacks.iter().flat_map(read).collect()
    }

    /// The same in a pause that a suspend has shortened meanwhile.
    pub(crate) fn slept(&self, now: At) -> Option<Self> {
        let after = self.after.as_ref()?.slept(now)?;
        Some(Self {
            after: Some(after),
            extra: self.extra,
        })
    }

    /// What it can be now that it has ended: an extra one may have outlived the pause that it was made in.
    pub(crate) fn ended(&self, now: Duration) -> Vec<Self> {
        let Some(before) = self.after.as_ref().filter(|_| self.extra) else {
            return vec![self.clone()];
        };
        let as_extra = before.most.is_none_or(|most| now < most).then_some(true);
        let as_planned = (now >= before.least).then_some(false);
        let read = |extra| Self { extra, ..self.clone() };
        [as_extra, as_planned].into_iter().flatten().map(read).collect()
    }

    /// It failed like this. `brought`: but a new credential came. `doubt`: an answer was lost before, and
    /// no verdict came since.
    pub(crate) fn failed(&self, class: Class, now: At, brought: bool, doubt: bool) -> Setback {
        let kind = match class {
            Class::Transient => Kind::Transient,
            Class::Throttled { .. } => Kind::Throttled,
            _ => Kind::Verdict,
        };
        if let Some(stands) = self.in_passing(class, brought) {
            return Setback {
                counted: now,
                ..stands.clone()
            };
        }
        let failures = self.failures(kind);
        let (least, most) = match class {
            Class::Throttled {
                retry_after: Some(wait),
            } if wait >= SECOND => {
                let wait = wait.min(HOUR).max(least_after(failures));
                (wait, wait)
            }
            Class::Transient | Class::Throttled { .. } => backoff(failures),
            _ => (verdict_pause(failures), verdict_pause(failures)),
        };
        let floor = if doubt { MINUTE } else { Duration::ZERO };
        let mut setback = Setback {
            kind,
            failures,
            at: now.mono,
            counted: now,
            least: now.mono + least.max(floor),
            most: Some(now.mono + most.max(floor)),
            probes: kind == Kind::Transient && !doubt,
        };
        if let (Some(before), Kind::Transient) = (self.interrupted(), kind) {
            // An extra one does not push the end of the backoff away.
            setback.least = before.least;
            setback.most = before.most;
        }
        setback
    }

    /// What stands although this fetch, which somebody insisted on, failed like this: patience that the
    /// issuer asked for, and a verdict on the credential that is still in force.
    pub(crate) fn in_passing(&self, class: Class, brought: bool) -> Option<&Setback> {
        self.interrupted().filter(|before| match before.kind {
            _ if class != Class::Transient => false,
            Kind::Transient => false,
            Kind::Throttled => true,
            Kind::Verdict | Kind::Ambiguous => !brought,
        })
    }

    /// The pause in the middle of which it was made.
    fn interrupted(&self) -> Option<&Setback> {
        self.after.as_ref().filter(|before| self.extra && before.most.is_some())
    }

    /// Its answer was lost, and so was that of the second presentation: one a minute follows.
    pub(crate) fn failed_ambiguously(&self, class: Class, now: At) -> Setback {
        let pause = match class {
            // The second presentation, which says when to come back.
            Class::Throttled {
                retry_after: Some(wait),
            } => MINUTE.max(wait),
            _ => MINUTE,
        };
        Setback {
            kind: Kind::Ambiguous,
            failures: self.failures(Kind::Ambiguous),
            at: now.mono,
            counted: now,
            least: now.mono + pause,
            most: Some(now.mono + pause.mul_f64(JITTER)),
            probes: false,
        }
    }

    /// The same where the policy gives up on a credential that may be spent.
    pub(crate) fn gave_up(&self, now: At) -> Setback {
        Setback {
            least: Duration::MAX,
            most: None,
            ..self.failed_ambiguously(Class::Ambiguous, now)
        }
    }

    fn failures(&self, kind: Kind) -> u32 {
        match &self.after {
            Some(before) if (before.kind == Kind::Verdict) == (kind == Kind::Verdict) => {
                before.failures + u32::from(!self.extra)
            }
            _ => 1,
        }
    }
}

impl Setback {
    /// What becomes of it if somebody looks now: a suspend, which only the wall clock sees, is waited for once.
    pub(crate) fn slept(&self, now: At) -> Option<Self> {
        let seen = self.counted.wall + (now.mono - self.counted.mono);
        let time = now.wall.checked_sub(seen).filter(|time| *time > CLOCKS_AGREE)?;
        Some(Self {
            at: self.at.saturating_sub(time),
            least: self.least.saturating_sub(time),
            most: self.most.map(|most| most.saturating_sub(time)),
            counted: now,
            ..self.clone()
        })
    }

    /// Whether the next fetch is due sooner or later is left open, within a minute and its jitter.
    pub(crate) fn be_patient(&mut self) {
        let most = self.at + MINUTE.mul_f64(JITTER);
        self.most = self.most.map(|before| before.max(most));
        self.probes = false;
    }

    /// Whether a request may fail now without a fetch.
    pub(crate) fn denies(&self, now: Duration) -> bool {
        let pauses = self.most.is_none_or(|most| now < most);
        pauses && !(self.probes && now >= self.at + PROBE)
    }

    /// Whether its end may be so near.
    pub(crate) fn may_end_within(&self, now: Duration, wait: Duration) -> bool {
        self.least <= now + wait && self.most.is_some_and(|most| now <= most + MILLISECOND)
    }

    /// Whether this is what a caller is told.
    pub(crate) fn agrees_with(&self, why: Why) -> bool {
        match self.kind {
            Kind::Transient => why.transient && why.retry_after.is_none(),
            Kind::Throttled => why.transient && why.retry_after.is_some(),
            Kind::Verdict | Kind::Ambiguous => why.reauth,
        }
    }
}

/// 1 s, doubled up to 120 s, up to 20 % on top; at least a minute from the seventh attempt on.
fn backoff(failures: u32) -> (Duration, Duration) {
    let base = (SECOND * (1 << (failures - 1).min(7))).min(2 * MINUTE);
    let least = least_after(failures);
    (base.max(least), base.mul_f64(JITTER).max(least))
}

fn least_after(failures: u32) -> Duration {
    if failures >= 6 { MINUTE } else { Duration::ZERO }
}

/// Ten minutes, doubled up to an hour.
fn verdict_pause(failures: u32) -> Duration {
    (10 * MINUTE * (1 << (failures - 1).min(3))).min(HOUR)
}

/// Clocks that are no further apart were not set.
const CLOCKS_AGREE: Duration = Duration::from_secs(5);
const JITTER: f64 = 1.2;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
