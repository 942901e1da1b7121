//! One fetch in the air, and whoever waits for it to land.
//!
//! A flight is started once and lands once. Waiters hold a [`Landing`]; leaving costs nothing but a
//! seat, because the fetch itself runs in a task that no waiter owns ([`super::fetch`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::sync::{Mutex, MutexGuard};
use crate::challenge::Challenge;
use crate::error::{Error, Kind};
use crate::event::{Event, Observers, Skipped, Waited};
use crate::provider::{Budget, Cause};

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
    seats: usize,
    state: Mutex<State>,
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
            seats,
            state: Mutex::new(State::InAir(Seats::default())),
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
        let waiting = match &mut *self.lock() {
            State::Landed(_) => return 0,
            state => match std::mem::replace(state, State::Landed(landed)) {
                State::InAir(seats) => seats.into_wakers(),
                State::Landed(_) => return 0,
            },
        };
        let waited = waiting.len();
        // Outside the lock: a waker may poll at once.
        waiting.into_iter().for_each(Waker::wake);
        waited
    }

    pub(super) fn waiting(&self) -> usize {
        match &*self.lock() {
            State::InAir(seats) => seats.taken,
            State::Landed(_) => 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; a poisoned lock would still hold a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when its flight has landed. Dropping it gives the seat back and stops nothing.
#[must_use = "a landing that is not polled waits for nothing"]
pub(crate) struct Landing {
    flight: Arc<Flight>,
    /// Which one, and since when.
    seat: Option<(usize, Instant)>,
}

impl Landing {
    /// The wait of whoever sat there since then is over.
    fn tell(&self, since: Instant, ended: Waited) {
        let took = since.elapsed();
        self.flight.observers.tell(&Event::Waited { took, ended });
    }

    #[cold]
    fn tell_of_overload(&self) {
        self.flight.observers.tell(&Event::Skipped {
            cause: self.flight.cause,
            reason: Skipped::Overloaded,
        });
    }
}

impl Future for Landing {
    type Output = Landed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed> {
        let this = &mut *self;
        let limit = this.flight.seats;
        let waker = cx.waker().clone();
        let replaced;
        let landed = match &mut *this.flight.lock() {
            State::Landed(landed) => {
                replaced = Some(waker);
                Some(landed.clone())
            }
            State::InAir(seats) if this.seat.is_none() && seats.taken >= limit => {
                replaced = Some(waker);
                Some(Landed::Failed(Error::new(Kind::Overloaded { limit })))
            }
            State::InAir(seats) => {
                let since = this.seat.map_or_else(Instant::now, |(_, since)| since);
                let (seat, before) = seats.take(this.seat.map(|(seat, _)| seat), waker);
                this.seat = Some((seat, since));
                replaced = before;
                None
            }
        };
        // Outside the lock, as in `drop`.
        drop(replaced);
        let Some(landed) = landed else {
            return Poll::Pending;
        };
        let ended = match &landed {
            Landed::Published => Waited::Renewed,
            Landed::Superseded => Waited::Superseded,
            Landed::Failed(_) => Waited::Failed,
        };
        match (this.seat.take(), &landed) {
            (Some((_, since)), _) => this.tell(since, ended),
            (None, Landed::Failed(error)) if error.is_overloaded() => this.tell_of_overload(),
            // Without a seat nobody waited.
            _ => {}
        }
        Poll::Ready(landed)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let Some((seat, since)) = self.seat else { return };
        let left = match &mut *self.flight.lock() {
            State::InAir(seats) => seats.leave(seat),
            State::Landed(_) => None,
        };
        // Outside the lock: dropping a waker may drop a task, and that task another landing.
        drop(left);
        self.tell(since, Waited::Left);
    }
}

enum State {
    InAir(Seats),
    Landed(Landed),
}

/// Wakers by seat; a seat that was left is used again.
#[derive(Default)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    taken: usize,
}

impl Seats {
    fn take(&mut self, seat: Option<usize>, waker: Waker) -> (usize, Option<Waker>) {
        if let Some(seat) = seat {
            return (seat, self.wakers[seat].replace(waker));
        }
        self.taken += 1;
        if let Some(seat) = self.free.pop() {
            self.wakers[seat] = Some(waker);
            return (seat, None);
        }
        self.wakers.push(Some(waker));
        (self.wakers.len() - 1, None)
    }

    fn leave(&mut self, seat: usize) -> Option<Waker> {
        self.taken -= 1;
        self.free.push(seat);
        self.wakers[seat].take()
    }

    fn into_wakers(self) -> Vec<Waker> {
        self.wakers.into_iter().flatten().collect()
    }
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
    fn a_waker_that_is_replaced_may_hold_another_seat() {
        struct Holds(std::sync::Mutex<Option<Landing>>);
        impl std::task::Wake for Holds {
            fn wake(self: Arc<Self>) {
                drop(self.0.lock().unwrap().take());
            }
        }
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let flight = flight(8);
            let noop = Waker::noop();
            let mut other = flight.join();
            assert!(Pin::new(&mut other).poll(&mut Context::from_waker(noop)).is_pending());
            let waker = Waker::from(Arc::new(Holds(std::sync::Mutex::new(Some(other)))));
            let mut first = flight.join();
            assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            let _ = Pin::new(&mut first).poll(&mut Context::from_waker(noop));
            done.send(()).unwrap();
        });
        assert!(
            is_done.recv_timeout(std::time::Duration::from_secs(5)).is_ok(),
            "deadlock"
        );
    }
}
