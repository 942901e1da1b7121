//! The one file that reads clocks.
//!
//! Two clocks bound the life of a token: the wall clock, read coarsely on every call, sees suspend,
//! stalls and steps forward; tokio's monotonic clock, which wakes the engine's timer, sees steps
//! backward. A token is expired if either says so.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the wall clock is read.
///
/// [`Clock::system`] is the default. With feature `testkit` there is `Clock::of_tokio`, which follows
/// tokio's (pausable) time and which a test can step.
#[derive(Clone, Default)]
pub struct Clock {
    source: Source,
}

impl Clock {
    /// The system's real-time clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A wall clock that advances with tokio's time, so that a paused runtime pauses it too.
    ///
    /// All clones share what [`step`](Self::step) does to it.
    #[cfg(any(test, feature = "testkit"))]
    pub fn of_tokio() -> Self {
        Self {
            source: Source::Tokio(std::sync::Arc::new(TokioWall {
                base: nanos_of(SystemTime::now()),
                began: tokio::time::Instant::now(),
                stepped: std::sync::atomic::AtomicI64::new(0),
            })),
        }
    }

    /// Steps the wall clock (not the monotonic one) by so many seconds, as NTP or a suspend does.
    ///
    /// The system's clock is left alone.
    #[cfg(any(test, feature = "testkit"))]
    pub fn step(&self, seconds: i64) {
        if let Source::Tokio(wall) = &self.source {
            let nanos = seconds.saturating_mul(1_000_000_000);
            wall.stepped.fetch_add(nanos, std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        match &self.source {
            Source::System => SystemTime::now(),
            #[cfg(any(test, feature = "testkit"))]
            Source::Tokio(wall) => wall.now().to_system_time(),
        }
    }

    /// The time of day, a few milliseconds old at most; the only clock that a call with a fresh token reads.
    #[inline]
    pub(crate) fn coarse(&self) -> Wall {
        match &self.source {
            Source::System => coarse_system(),
            #[cfg(any(test, feature = "testkit"))]
            Source::Tokio(wall) => wall.now(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.source {
            Source::System => "Clock::system",
            #[cfg(any(test, feature = "testkit"))]
            Source::Tokio(_) => "Clock::of_tokio",
        })
    }
}

/// As long as anything here is taken to last: lives, timeouts, what a document says.
pub(crate) const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The end of a wait.
pub(crate) type Timer = tokio::time::Sleep;

/// A wait of so long; `None` outside a tokio runtime, which is what keeps time.
pub(crate) fn timer(wait: Duration) -> Option<std::pin::Pin<Box<Timer>>> {
    tokio::runtime::Handle::try_current().ok()?;
    Some(Box::pin(tokio::time::sleep(wait)))
}

/// Nanoseconds since the Unix epoch: what the hot path compares. Ends in the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wall(u64);

impl Wall {
    pub(crate) fn of(time: SystemTime) -> Self {
        Self(nanos_of(time))
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) fn nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }

    /// How long from `self` until `later`; zero if that has passed.
    pub(crate) fn until(self, later: Wall) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }

    pub(crate) fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    pub(crate) fn before(self, lead: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(lead.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

fn nanos_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// `CLOCK_REALTIME_COARSE`: 6.5 ns where the precise clock takes 23 ns, and at most one kernel tick late.
#[cfg(target_os = "linux")]
#[inline]
fn coarse_system() -> Wall {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Wall(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(not(target_os = "linux"))]
#[inline]
fn coarse_system() -> Wall {
    Wall::of(SystemTime::now())
}

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    #[cfg(any(test, feature = "testkit"))]
    Tokio(std::sync::Arc<TokioWall>),
}

#[cfg(any(test, feature = "testkit"))]
struct TokioWall {
    base: u64,
    began: tokio::time::Instant,
    stepped: std::sync::atomic::AtomicI64,
}

#[cfg(any(test, feature = "testkit"))]
impl TokioWall {
    fn now(&self) -> Wall {
        let stepped = self.stepped.load(std::sync::atomic::Ordering::SeqCst);
        let elapsed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Wall(self.base.saturating_add(elapsed).saturating_add_signed(stepped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_agrees_with_the_precise_one() {
        let coarse = Clock::system().coarse().to_system_time();
        let precise = Clock::system().now();
        let apart = precise.duration_since(coarse).unwrap_or_else(|early| early.duration());
        assert!(apart < Duration::from_secs(60), "{apart:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_tokio_moves_with_paused_time_and_with_steps() {
        let clock = Clock::of_tokio();
        let start = clock.coarse();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(start.until(clock.coarse()), Duration::from_secs(5));
        clock.step(-86_400);
        assert!(clock.coarse() < start);
    }
}
