//! The one file that reads clocks.
//!
//! Two clocks bound the life of a token: the wall clock, read coarsely on every call, sees suspend,
//! stalls and steps forward; tokio's monotonic clock, which wakes the engine's timer, sees steps
//! backward. A token is expired if either says so.
//!
//! A third one is seen now and then: the issuer's, in the `Date` of its answers. What follows from it is the
//! [`Skew`], until a step of our own clock makes it void.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

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
                began: Instant::now(),
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

    /// The time of day, a few milliseconds old at most.
    #[inline]
    pub(crate) fn coarse(&self) -> Wall {
        match &self.source {
            Source::System => coarse_system(),
            #[cfg(any(test, feature = "testkit"))]
            Source::Tokio(wall) => wall.now(),
        }
    }

    /// Its [whole seconds](Wall::seconds); the only clock that a call with a fresh token reads. To make nanoseconds of
    /// it would take longer than all else that is done with it.
    #[inline]
    pub(crate) fn coarse_seconds(&self) -> i64 {
        match &self.source {
            Source::System => coarse_system_seconds(),
            #[cfg(any(test, feature = "testkit"))]
            Source::Tokio(wall) => wall.now().seconds(),
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

/// Nanoseconds since the Unix epoch. Ends in the year 2554.
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

    /// Whole seconds since the Unix epoch.
    #[allow(clippy::cast_possible_wrap)] // A u64 of nanoseconds has 34 bits of seconds.
    pub(crate) fn seconds(self) -> i64 {
        (self.0 / 1_000_000_000) as i64
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

/// An instant by both clocks, of which the first that reaches it counts; it can be moved on.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: std::sync::Mutex<(Instant, Wall)>,
    clock: Clock,
}

impl Deadline {
    pub(crate) fn after(clock: &Clock, wait: Duration) -> Self {
        Self {
            at: std::sync::Mutex::new((Instant::now() + wait, clock.coarse().after(wait))),
            clock: clock.clone(),
        }
    }

    /// By the clock that timers wait on.
    pub(crate) fn instant(&self) -> Instant {
        self.both().0
    }

    pub(crate) fn has_passed(&self) -> bool {
        let (mono, wall) = self.both();
        Instant::now() >= mono || self.clock.coarse() >= wall
    }

    /// Never nearer.
    pub(crate) fn extend(&self, later: &Self) {
        let later = later.both();
        let mut at = self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *at = (at.0.max(later.0), at.1.max(later.1));
    }

    fn both(&self) -> (Instant, Wall) {
        *self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How far the issuer's clock is from ours, and when that was learned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skew {
    seconds: i64,
    wall: Wall,
    mono: Instant,
}

impl Skew {
    /// From the `Date` of an answer that was asked for at `sent` and came at `arrived`, each by both clocks.
    ///
    /// `None` where it tells nothing: our clock was stepped, or suspended, in between, or the date is more
    /// than a year off, which is no clock.
    pub(crate) fn learned(date: SystemTime, sent: (Wall, Instant), arrived: (Wall, Instant)) -> Option<Self> {
        let (wall, mono) = arrived;
        let seconds = match skew(date, sent.0.to_system_time(), wall.to_system_time()) {
            // At least: a slow answer is no clock that is off.
            ahead if ahead > 0 => seconds_between(wall.to_system_time(), date),
            behind => behind,
        };
        let told = !stepped(sent, arrived) && seconds.unsigned_abs() <= A_YEAR.as_secs();
        told.then_some(Self { seconds, wall, mono })
    }

    /// Seconds that the issuer's clock is ahead; `None` once ours was stepped.
    pub(crate) fn seconds(self, wall: Wall, mono: Instant) -> Option<i64> {
        (!stepped((self.wall, self.mono), (wall, mono))).then_some(self.seconds)
    }

    /// So far away that whoever runs the program should know.
    pub(crate) fn is_wide(self) -> bool {
        self.seconds.unsigned_abs() >= WIDE
    }
}

/// What only the wall clock saw between two readings of both: a suspend, or a step forward. Zero for what a
/// lazy clock makes.
pub(crate) fn slept(from: (Wall, Instant), to: (Wall, Instant)) -> Duration {
    let by_mono = to.1.saturating_duration_since(from.1);
    let slept = from.0.after(by_mono).until(to.0);
    if slept > AGREE { slept } else { Duration::ZERO }
}

/// Whether the wall clock did something else than the monotonic one between two readings of both.
fn stepped(from: (Wall, Instant), to: (Wall, Instant)) -> bool {
    let back = from.0.after(to.1.saturating_duration_since(from.1)).before(AGREE);
    !slept(from, to).is_zero() || to.0 < back
}

/// Seconds that the clock which wrote `date` is ahead of ours; zero if it lies within the exchange or near it.
///
/// Somewhere in between it was written: taken is what ends a token earlier.
pub(crate) fn skew(date: SystemTime, sent: SystemTime, arrived: SystemTime) -> i64 {
    let agrees = -CLOCKS_AGREE..=seconds_between(sent, arrived) + CLOCKS_AGREE;
    let ahead = seconds_between(sent, date);
    if agrees.contains(&ahead) { 0 } else { ahead }
}

/// Whole seconds from one to the other.
pub(crate) fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(ahead) => whole(ahead),
        Err(behind) => -whole(behind.duration()),
    }
}

/// A `Date` has whole seconds, and clocks of one network differ by less.
const CLOCKS_AGREE: i64 = 5;
const AGREE: Duration = Duration::from_secs(CLOCKS_AGREE.unsigned_abs());
/// Seconds of difference that are worth a warning: less is what networks and lazy clocks make.
const WIDE: u64 = 30;

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

#[cfg(target_os = "linux")]
#[inline]
fn coarse_system_seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec
}

#[cfg(not(target_os = "linux"))]
#[inline]
fn coarse_system() -> Wall {
    Wall::of(SystemTime::now())
}

#[cfg(not(target_os = "linux"))]
#[inline]
fn coarse_system_seconds() -> i64 {
    coarse_system().seconds()
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
    began: Instant,
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

    #[test]
    fn what_is_early_by_whole_seconds_is_early() {
        let [whole, late, next] = [5_000_000_000, 5_999_999_999, 6_000_000_000].map(Wall::from_nanos);
        assert_eq!([whole, late, next].map(Wall::seconds), [5, 5, 6]);
        assert!(late < next && late.seconds() < next.seconds());
        // Of these two the nanoseconds decide.
        assert!(whole < late && whole.seconds() >= late.seconds());
        assert!(Wall::from_nanos(u64::MAX).seconds() > 0);
        let both = (Clock::system().coarse_seconds(), Clock::system().coarse().seconds());
        assert!((0..=60).contains(&(both.1 - both.0)), "{both:?}");
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
