//! One fetch in the air, and whoever waits for it to land.
//!
//! A flight is started once and lands once. Waiters hold a [`Landing`]; leaving costs nothing but a
//! seat, because the fetch itself runs in a task that no waiter owns ([`super::fetch`]).
//!
//! A hundred thousand may wait. Each takes the lock once, to sit down; how it ended is read without it, so that
//! those who are woken do not queue up again.

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::time::Instant;

use crate::challenge::Challenge;
use crate::error::{Error, Kind};
use crate::event::{Event, Observers, Skipped, Waited};
use crate::provider::{Budget, Cause};
use crate::sync::{Mutex, MutexGuard, OnceLock};

/// A fetch that was decided, is in the air, or has landed.
pub(crate) struct Flight {
    pub(super) cause: Cause,
    pub(super) challenge: Option<Challenge>,
    /// Asked for by a server that wants more than a newer token; its failure says nothing about the current one.
    pub(super) step_up: bool,
    /// Not before this: a minimum interval or a backoff stands between.
    pub(super) not_before: Option<Instant>,
    /// Its answer counts only if nobody signed out or installed a credential since.
    pub(super) fence: u64,
    /// What it may send, and has sent.
    pub(super) budget: Arc<Budget>,
    /// Told how long each waited.
    observers: Observers,
    limit: usize,
    seats: Mutex<Seats>,
    /// Written once, under the lock of the seats; read without it.
    ending: OnceLock<Ending>,
}

/// How a flight ended, the same for all who waited.
#[derive(Clone, Debug)]
pub(crate) enum Landed {
    /// A new token is in place.
    Published,
    /// Its answer no longer counts; look again.
    Superseded,
    /// No token.
    Failed(Error),
}

impl Flight {
    pub(super) fn new(cause: Cause, fence: u64, seats: usize, observers: Observers) -> Self {
        Self {
            cause,
            challenge: None,
            step_up: false,
            not_before: None,
            fence,
            budget: Arc::default(),
            observers,
            limit: seats,
            seats: Mutex::new(Seats::default()),
            ending: OnceLock::default(),
        }
    }

    /// Takes a seat. The waiter is registered when it is first polled.
    pub(super) fn join(self: &Arc<Self>) -> Landing {
        Landing {
            flight: self.clone(),
            seat: None,
        }
    }

    /// Ends the wait of everyone, once; returns how many they were. Later calls change nothing.
    pub(super) fn land(&self, landed: Landed) -> usize {
        let wakers = {
            let mut seats = self.lock();
            if self.ending.get().is_some() {
                return 0;
            }
            let Seats { wakers, since, .. } = std::mem::take(&mut *seats);
            let _ = self.ending.set(Ending { landed, since });
            wakers
        };
        // Outside the lock: a waker may poll at once.
        let mut waited = 0;
        for waker in wakers.into_iter().flatten() {
            waited += 1;
            waker.wake();
        }
        waited
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().taken
    }

    /// Gives a seat back, and says since when it was taken, if anybody wants to know.
    fn leave(&self, seat: SeatNumber) -> Option<Instant> {
        if let Some(ending) = self.ending.get() {
            return ending.since(seat);
        }
        let mut seats = self.lock();
        // It may have landed before the lock was had.
        if let Some(ending) = self.ending.get() {
            return ending.since(seat);
        }
        let (waker, since) = seats.leave(seat);
        drop(seats);
        // Outside the lock: dropping a waker may drop a task, and that task another landing.
        drop(waker);
        since
    }

    #[cold]
    fn tell_of_overload(&self) {
        self.observers.tell(&Event::Skipped {
            cause: self.cause,
            reason: Skipped::Overloaded,
        });
    }

    #[cold]
    fn overloaded(&self) -> Landed {
        Landed::Failed(Error::new(Kind::Overloaded { limit: self.limit }))
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        // Nothing panics while it is held; a poisoned lock would still hold whole seats.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when its flight has landed. Dropping it gives the seat back and stops nothing.
///
/// Small, because every request that may come to wait has room for one in its future.
#[must_use = "a landing that is not polled waits for nothing"]
pub(crate) struct Landing {
    flight: Arc<Flight>,
    seat: Option<SeatNumber>,
}

/// Counted from one.
type SeatNumber = NonZeroUsize;

impl Landing {
    /// Waits in a seat, if the flight is still in the air and there is one.
    fn sit(&mut self, waker: Waker) -> Poll<Landed> {
        let flight = &*self.flight;
        // The clock is read for whoever wants to know, and not under the lock.
        let now = (self.seat.is_none() && !flight.observers.is_empty()).then(Instant::now);
        let (seated, unused) = {
            let mut seats = flight.lock();
            match (flight.ending.get(), self.seat) {
                (Some(ending), _) => (Poll::Ready(ending.landed.clone()), Some(waker)),
                (None, Some(seat)) => (Poll::Pending, seats.replace(seat, waker)),
                (None, None) if seats.taken >= flight.limit => (Poll::Ready(flight.overloaded()), Some(waker)),
                (None, None) => {
                    self.seat = Some(seats.take(waker, now));
                    (Poll::Pending, None)
                }
            }
        };
        // Outside the lock, as in `leave`.
        drop(unused);
        seated
    }

    /// The wait is over.
    fn rise(&mut self, ended: Waited) {
        let Some(seat) = self.seat.take() else { return };
        if let Some(since) = self.flight.leave(seat) {
            let took = since.elapsed();
            self.flight.observers.tell(&Event::Waited { took, ended });
        }
    }
}

impl Future for Landing {
    type Output = Landed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed> {
        let landed = match self.flight.ending.get() {
            Some(ending) => ending.landed.clone(),
            None => ready!(self.sit(cx.waker().clone())),
        };
        match &landed {
            Landed::Published => self.rise(Waited::Renewed),
            Landed::Superseded => self.rise(Waited::Superseded),
            Landed::Failed(error) if self.seat.is_none() && error.is_overloaded() => self.flight.tell_of_overload(),
            Landed::Failed(_) => self.rise(Waited::Failed),
        }
        Poll::Ready(landed)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.rise(Waited::Left);
    }
}

struct Ending {
    landed: Landed,
    /// As the seats had it.
    since: Vec<Instant>,
}

impl Ending {
    fn since(&self, seat: SeatNumber) -> Option<Instant> {
        self.since.get(index(seat)).copied()
    }
}

/// Wakers by seat; a seat that was left is used again.
#[derive(Default)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    /// Since when each was taken; empty if nobody wants to know.
    since: Vec<Instant>,
    free: Vec<SeatNumber>,
    taken: usize,
}

impl Seats {
    fn take(&mut self, waker: Waker, now: Option<Instant>) -> SeatNumber {
        self.taken += 1;
        let Some(seat) = self.free.pop() else {
            self.wakers.push(Some(waker));
            self.since.extend(now);
            return SeatNumber::MIN.saturating_add(self.wakers.len() - 1);
        };
        self.wakers[index(seat)] = Some(waker);
        if let (Some(since), Some(now)) = (self.since.get_mut(index(seat)), now) {
            *since = now;
        }
        seat
    }

    fn replace(&mut self, seat: SeatNumber, waker: Waker) -> Option<Waker> {
        self.wakers[index(seat)].replace(waker)
    }

    fn leave(&mut self, seat: SeatNumber) -> (Option<Waker>, Option<Instant>) {
        self.taken -= 1;
        self.free.push(seat);
        (self.wakers[index(seat)].take(), self.since.get(index(seat)).copied())
    }
}

fn index(seat: SeatNumber) -> usize {
    seat.get() - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_test::{assert_pending, assert_ready, task};

    fn flight(seats: usize) -> Arc<Flight> {
        Arc::new(Flight::new(Cause::Initial, 0, seats, Observers::default()))
    }

    #[test]
    fn a_landing_wakes_everyone_once() {
        let flight = flight(8);
        let mut waiters: Vec<_> = (0..5).map(|_| task::spawn(flight.join())).collect();
        waiters.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
        assert_eq!(flight.land(Landed::Published), 5);
        assert_eq!(flight.land(Landed::Superseded), 0);
        for waiter in &mut waiters {
            assert!(waiter.is_woken());
            assert!(matches!(assert_ready!(waiter.poll()), Landed::Published));
        }
    }

    #[test]
    fn who_joins_after_the_landing_does_not_wait() {
        let flight = flight(8);
        flight.land(Landed::Published);
        assert_ready!(task::spawn(flight.join()).poll());
    }

    #[test]
    fn a_seat_that_was_left_is_given_to_the_next() {
        let flight = flight(2);
        let mut first = task::spawn(flight.join());
        let mut second = task::spawn(flight.join());
        let mut third = task::spawn(flight.join());
        assert_eq!(flight.waiting(), 0);
        assert_pending!(first.poll());
        assert_pending!(second.poll());
        assert_eq!(flight.waiting(), 2);
        assert!(matches!(assert_ready!(third.poll()), Landed::Failed(error) if error.is_overloaded()));
        drop(first);
        assert_pending!(task::spawn(flight.join()).poll());
        assert_eq!(flight.waiting(), 1);
        assert_pending!(second.poll());
        assert_eq!(flight.land(Landed::Published), 1);
        assert_eq!(flight.waiting(), 0);
    }

    #[test]
    fn a_landing_is_two_words() {
        assert_eq!(size_of::<Option<Landing>>(), 2 * size_of::<usize>());
    }

    /// Fails if it is not over soon.
    fn soon(does: impl FnOnce() + Send + 'static) {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            does();
            done.send(()).unwrap();
        });
        let patience = std::time::Duration::from_secs(5);
        assert!(is_done.recv_timeout(patience).is_ok(), "deadlock, or a panic");
    }

    #[test]
    fn whoever_is_woken_hears_of_it_and_leaves_without_the_lock() {
        soon(|| {
            let flight = flight(8);
            let mut waiters: Vec<_> = (0..2).map(|_| task::spawn(flight.join())).collect();
            waiters.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
            flight.land(Landed::Published);
            let _locked = flight.lock();
            assert!(matches!(assert_ready!(waiters[0].poll()), Landed::Published));
            assert_ready!(task::spawn(flight.join()).poll());
            drop(waiters);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_that_is_taken_again_is_timed_anew() {
        use std::time::Duration;
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = told.clone();
        let observer = move |event: &Event| match event {
            Event::Waited { took, ended } => log.lock().unwrap().push((took.as_secs(), *ended)),
            _ => unreachable!("only waits happen here"),
        };
        let flight = Arc::new(Flight::new(
            Cause::Initial,
            0,
            2,
            Observers::new(vec![Box::new(observer)]),
        ));
        let sit = || {
            let mut waiter = task::spawn(flight.join());
            assert_pending!(waiter.poll());
            waiter
        };
        let (first, second) = (sit(), sit());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(first);
        let mut third = sit();
        tokio::time::advance(Duration::from_secs(2)).await;
        flight.land(Landed::Superseded);
        assert_ready!(third.poll());
        drop(second);
        assert_eq!(
            *told.lock().unwrap(),
            [(1, Waited::Left), (2, Waited::Superseded), (3, Waited::Left)]
        );
    }

    #[test]
    fn nobody_is_timed_for_nobody() {
        let flight = flight(8);
        let mut waiter = task::spawn(flight.join());
        assert_pending!(waiter.poll());
        assert!(flight.lock().since.is_empty());
    }

    #[test]
    fn a_waker_that_is_replaced_may_hold_another_seat() {
        struct Holds(std::sync::Mutex<Option<Landing>>);
        impl std::task::Wake for Holds {
            fn wake(self: Arc<Self>) {
                drop(self.0.lock().unwrap().take());
            }
        }
        soon(|| {
            let flight = flight(8);
            let noop = Waker::noop();
            let mut other = flight.join();
            assert!(Pin::new(&mut other).poll(&mut Context::from_waker(noop)).is_pending());
            let waker = Waker::from(Arc::new(Holds(std::sync::Mutex::new(Some(other)))));
            let mut first = flight.join();
            assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            let _ = Pin::new(&mut first).poll(&mut Context::from_waker(noop));
        });
    }
}
