//! A token in place, as the model sees it: when it is fresh, stale or over by the table of defaults.

use std::time::Duration;

use super::record::{At, Life, Minted};

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) secret: String,
    /// Known once somebody was handed it.
    pub(crate) generation: Option<u64>,
    pub(crate) refused: Marked,
    pub(crate) accepted: bool,
    /// It was in place before it was issued.
    pub(crate) repeated: bool,
    pub(crate) min_interval: Duration,
    /// The bounds of its advisory window, by the wall clock: jitter is drawn once per token.
    stale: (Duration, Duration),
    /// From here on all wait, by either clock.
    over: At,
    /// Until here it surely goes out by the monotonic clock, which may not know that the wall clock was set
    /// while it was on its way: that costs one fetch more.
    sure: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Marked {
    No,
    Maybe,
    Surely,
}

impl Marked {
    /// What may have become of `before`, and need not have.
    pub(crate) fn at_most_maybe(self, before: Self) -> Self {
        if self == before { self } else { Self::Maybe }
    }
}

impl Held {
    /// `None`: empty, or dead on arrival.
    pub(crate) fn landing(minted: &Minted, sent: At, now: At) -> Option<Self> {
        // A life is counted from the moment it was asked for, an end of it is what the wall clock says now.
        let (counted, dies) = match minted.life {
            Life::For(life) => (sent, sent.wall + life),
            Life::Until(until) => (now, until),
            Life::Unsaid => (now, now.wall + ASSUMED_LIFE),
        };
        let ends = counted.mono + dies.saturating_sub(counted.wall);
        if minted.secret.is_empty() || dies <= now.wall || ends <= now.mono {
            return None;
        }
        let window = |life: Duration| (life / 4).min(MINUTE);
        let mut life = dies.saturating_sub(sent.wall);
        if now.wall + window(life) >= dies {
            // It took so long that the window has begun: what is left counts.
            life = dies - now.wall;
        }
        // The same by the monotonic clock, where the wall clock was set back meanwhile.
        let over_by_mono = Some(ends - window(life)).filter(|over| *over > now.mono);
        let over = dies - window(life);
        let advisory = advisory(life).min(life / 2);
        let latest = (dies - advisory).max(now.wall + SECOND).min(over);
        let over_by_mono = over_by_mono.unwrap_or(ends - window(ends - now.mono));
        Some(Self {
            secret: minted.secret.clone(),
            generation: None,
            refused: Marked::No,
            accepted: false,
            repeated: false,
            min_interval: SECOND.min(life / 4),
            stale: (dies - advisory - life / 10, latest),
            over: At {
                mono: over_by_mono,
                wall: over,
            },
            sure: (ends - window(life)).min(now.mono + (over - now.wall)),
        })
    }

    /// By either clock. Timers have steps of a millisecond.
    pub(crate) fn is_over(&self, now: At) -> bool {
        now.wall >= self.over.wall || now.mono > self.over.mono + 2 * MILLISECOND
    }

    pub(crate) fn is_surely_usable(&self, now: At) -> bool {
        let lives = now.wall < self.over.wall && now.mono + 2 * MILLISECOND < self.sure;
        lives && self.refused == Marked::No
    }

    pub(crate) fn is_surely_fresh(&self, now: At) -> bool {
        self.is_surely_usable(now) && now.wall < self.stale.0
    }

    pub(crate) fn is_surely_stale(&self, now: At) -> bool {
        now.wall > self.stale.1
    }
}

/// The advisory window, before half of the life bounds it.
fn advisory(life: Duration) -> Duration {
    match life.as_secs_f64() / 60.0 {
        ..=20.0 => 5 * MINUTE,
        ..90.0 => 15 * MINUTE,
        _ => 60 * MINUTE,
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const ASSUMED_LIFE: Duration = Duration::from_secs(300);
