//! The engine behind every [`Tokens`](crate::Tokens) handle: what is published, and how decisions are carried out.
//!
//! The [`desk`](super::desk) decides under a lock. What it decided is done here, after the lock is
//! given back: flights are started, tokens published, waiters woken, observers told.

use std::sync::{Arc, PoisonError};

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::breaker::{Place, Ruling};
use super::desk::{Admission, Current, Departure, Desk, Outlook, Phase, Refusal, Refused};
use super::fetch;
use super::flight::{Flight, Landed};
use super::kept::Kept;
use crate::challenge::Challenge;
use crate::clock::{Clock, Wall};
use crate::error::{Error, Kind};
use crate::event::{Event, HandedBack, Observers, Skipped};
use crate::lifetime::{Freshness, RefreshPolicy};
use crate::provider::{AnyProvider, Cause};
use crate::stripe::Padded;
use crate::sync::{ArcSwapOption, AtomicBool, AtomicU64, Handle, Mutex, MutexGuard, Ordering};
use crate::token::{Fingerprint, Generation};

pub(crate) struct Engine {
    /// The generation that may go out, or zero. Written under the desk's lock only, after `current`;
    /// read by every call, so it stands on a cache line that nothing else is written to.
    signal: Padded<AtomicU64>,
    /// The newest generation that some server accepted.
    accepted: Padded<AtomicU64>,
    /// Whether any route is suspected to refuse good tokens, so that acceptance has something to prove or to clear.
    /// Written under the desk's lock only.
    suspicion: Padded<AtomicBool>,
    /// Until then (wall nanoseconds) it is useless to ask for a background renewal.
    quiet_until: AtomicU64,
    /// Written under the desk's lock only, after the store; read by every call whose layer has no snapshot of it.
    current: ArcSwapOption<Current>,
    desk: Mutex<Desk>,
    /// The generation published last; its receivers also learn from it that the engine is gone.
    pub(super) published: watch::Sender<u64>,
    /// Told whenever a flight has left the air.
    pub(super) grounded: Notify,
    /// Told of all that may give the keeper something to do; its receiver also learns from it that the
    /// engine is gone.
    pub(super) pulse: watch::Sender<()>,
    /// Whether tokens are renewed without traffic.
    pub(super) keeps_alive: bool,
    /// Whether a task is there that does it. Set by whoever starts it, cleared when that task ends.
    pub(super) keeping: AtomicBool,
    /// The token in place was configured outside of a runtime, or its runtime has ended: no task watches the monotonic
    /// side of its life. Written under the desk's lock only.
    pub(super) untimed: AtomicBool,
    pub(super) provider: Arc<dyn AnyProvider>,
    pub(super) policy: RefreshPolicy,
    pub(super) clock: Clock,
    pub(super) kept: Option<Kept>,
    pub(super) observers: Observers,
    id: u64,
}

impl Engine {
    pub(super) fn new(
        provider: Arc<dyn AnyProvider>,
        policy: RefreshPolicy,
        clock: Clock,
        kept: Option<Kept>,
        observers: Observers,
    ) -> Self {
        // Zero is nobody's. A name orders nothing: std's own.
        static IDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            signal: Padded::default(),
            accepted: Padded::default(),
            suspicion: Padded::default(),
            quiet_until: AtomicU64::new(0),
            current: ArcSwapOption::empty(),
            desk: Mutex::new(Desk::new(&policy)),
            published: watch::Sender::new(0),
            grounded: Notify::new(),
            pulse: watch::Sender::new(()),
            keeps_alive: policy.keep_alive.unwrap_or_else(|| provider.keeps_alive()),
            keeping: AtomicBool::new(false),
            untimed: AtomicBool::new(false),
            provider,
            policy,
            clock,
            kept,
            observers,
        }
    }

    /// The generation that may go out, or zero.
    #[inline]
    pub(crate) fn signal(&self) -> u64 {
        self.signal.0.load(Ordering::Acquire)
    }

    /// Tells this engine from every other of the process.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    pub(crate) fn now(&self) -> Wall {
        self.clock.coarse()
    }

    #[inline]
    pub(crate) fn seconds(&self) -> i64 {
        self.clock.coarse_seconds()
    }

    /// A token to go out with, a seat to wait in, or why there is none.
    pub(crate) fn admit(self: &Arc<Self>) -> Admission {
        self.keep();
        if self.untimed.load(Ordering::Relaxed) {
            self.time_what_is_in_place();
        }
        let wall = self.now();
        if let Some(current) = self.in_place(wall) {
            if current.plan.freshness(wall) == Freshness::Stale {
                self.renew_in_background(wall);
            }
            return Admission::Use(current);
        }
        // A herd that finds a fetch in the air needs neither the runtime nor another look at the clocks.
        let at_hand = self.desk().at_hand(wall);
        if let Some(admission) = at_hand {
            return admission;
        }
        let runtime = Handle::try_current().ok();
        let (admission, departure, cause) = {
            let mut desk = self.desk();
            let (admission, departure) = desk.need(self.outlook(runtime.is_some()));
            (admission, departure, desk.cause())
        };
        self.depart(departure, runtime);
        match admission {
            Admission::Deny(error) => {
                self.skipped(cause, &error);
                self.last_resort().map_or(Admission::Deny(error), Admission::Use)
            }
            admitted => admitted,
        }
    }

    fn skipped(&self, cause: Cause, error: &Error) {
        let reason = Skipped::of(error);
        self.tell(&Event::Skipped { cause, reason });
    }

    /// The current token if it may go out, without a lock.
    pub(crate) fn in_place(&self, wall: Wall) -> Option<Arc<Current>> {
        let signal = self.signal();
        let current = self.current.load_full()?;
        let good = current.generation.get() == signal && current.plan.freshness(wall) != Freshness::Expired;
        good.then_some(current)
    }

    /// What goes out although a fetch failed: a token that an earlier flight put in place meanwhile, or one
    /// past its expiry because nothing else can be had, if the policy wants that.
    pub(crate) fn last_resort(&self) -> Option<Arc<Current>> {
        let wall = self.now();
        if let Some(current) = self.in_place(wall) {
            return Some(current);
        }
        // Everyone whose fetch failed comes by here at once: no lock, unless there may be something to find.
        let extra = self.policy.beyond_expiry()?;
        self.desk().last_resort(wall, extra)
    }

    /// A fetch that nobody waits for, if one is due.
    pub(crate) fn renew_in_background(self: &Arc<Self>, wall: Wall) {
        if wall < Wall::from_nanos(self.quiet_until.load(Ordering::Relaxed)) {
            return;
        }
        let runtime = Handle::try_current().ok();
        let outlook = self.outlook(runtime.is_some());
        let (departure, held_up) = {
            let mut desk = self.desk();
            let (departure, useless_until) = desk.renew(outlook);
            if let Some(until) = useless_until {
                // Under the lock, so that it does not overwrite what a token that lands now resets.
                let quiet = wall.after(until.saturating_duration_since(outlook.mono));
                self.quiet_until.store(quiet.nanos(), Ordering::Relaxed);
            }
            let held_up = useless_until.is_some() && desk.in_air().is_none();
            (departure, desk.schedule.last_error().filter(|_| held_up))
        };
        if let Some(error) = held_up {
            self.skipped(Cause::Expiring, &error);
        }
        self.depart(departure, runtime);
    }

    /// A fetch now, whatever the schedule says.
    pub(super) fn request(self: &Arc<Self>) -> Admission {
        self.keep();
        let runtime = Handle::try_current().ok();
        let (admission, departure) = self.desk().request(self.outlook(runtime.is_some()));
        self.depart(departure, runtime);
        admission
    }

    /// A server refused `generation`.
    #[cold]
    pub(crate) fn refuse(self: &Arc<Self>, generation: Generation, place: Place, challenge: Challenge) -> Refusal {
        self.keep();
        let runtime = Handle::try_current().ok();
        let accepted = self.accepted.0.load(Ordering::Relaxed) >= generation.get();
        let (refused, token) = {
            let mut desk = self.desk();
            let decided = desk.refuse(generation, place, challenge, accepted, self.outlook(runtime.is_some()));
            if desk.is_refused() {
                self.signal.0.store(0, Ordering::Release);
            }
            self.suspicion.0.store(desk.breaker.suspects(), Ordering::Relaxed);
            let marked = desk.current.as_ref().filter(|_| decided.first);
            let token = marked.map(|current| current.token.fingerprint());
            (decided, token)
        };
        if refused.first {
            self.pulse.send_replace(());
        }
        self.tell_of_refusal(generation, token, &refused);
        self.depart(refused.departure, runtime);
        refused.refusal
    }

    fn tell_of_refusal(&self, generation: Generation, token: Option<Fingerprint>, refused: &Refused) {
        match refused.ruling {
            Some(Ruling::Hold { opened: true }) => self.tell(&Event::BreakerOpened { generation }),
            Some(Ruling::Fetch { closed: true }) => self.tell(&Event::BreakerClosed { generation }),
            _ => {}
        }
        if let Some(token) = token {
            self.tell(&Event::Refused { generation, token });
        }
        match &refused.refusal {
            Refusal::HandBack(HandedBack::Breaker, _) => self.tell(&Event::BreakerHeld { generation }),
            Refusal::HandBack(_, Some(error)) => self.skipped(Cause::Refused, error),
            _ => {}
        }
    }

    /// One request was refused with two tokens.
    #[cold]
    pub(crate) fn refuse_again(&self, tokens: (Generation, Generation), place: Place) {
        let mut desk = self.desk();
        desk.breaker.trip(place, tokens, Instant::now());
        self.suspicion.0.store(desk.breaker.suspects(), Ordering::Relaxed);
    }

    /// A server accepted `generation`.
    #[inline]
    pub(crate) fn accept(&self, generation: Generation, place: impl FnOnce() -> Place) {
        if self.accepted.0.load(Ordering::Relaxed) < generation.get() {
            self.accepted.0.fetch_max(generation.get(), Ordering::Relaxed);
        }
        if self.suspicion.0.load(Ordering::Relaxed) {
            self.accept_in_spite(generation, place());
        }
    }

    #[cold]
    fn accept_in_spite(&self, generation: Generation, place: Place) {
        let closed = {
            let mut desk = self.desk();
            let closed = desk.breaker.accepted(generation, place, Instant::now());
            self.suspicion.0.store(desk.breaker.suspects(), Ordering::Relaxed);
            closed
        };
        if closed {
            self.tell(&Event::BreakerClosed { generation });
        }
    }

    /// Starts a flight that the desk decided on. The lock must have been given back: a runtime that
    /// is shutting down drops the task at once, and that takes the lock.
    pub(super) fn depart(self: &Arc<Self>, departure: Departure, runtime: Option<Handle>) {
        if let (Some(flight), Some(runtime)) = (departure, runtime) {
            runtime.spawn(fetch::fly(self.clone(), flight));
        }
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it is held; a poisoned lock would still hold a whole desk.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outlook(&self, runtime: bool) -> Outlook<'_> {
        Outlook {
            mono: Instant::now(),
            wall: self.now(),
            policy: &self.policy,
            observers: &self.observers,
            runtime,
            engine: self.id,
        }
    }

    /// Lets `current` go out, or nothing. Call it under the desk's lock.
    pub(super) fn show(&self, current: Option<Arc<Current>>) {
        let signal = current.as_ref().map_or(0, |current| current.generation.get());
        self.current.store(current);
        self.signal.0.store(signal, Ordering::Release);
        self.quiet_until.store(0, Ordering::Relaxed);
        // What a flight brings has a timer, and nothing needs none.
        self.untimed.store(false, Ordering::Relaxed);
    }

    /// Forgets token and credential, and fences off what is in the air. Returns whom to tell.
    pub(super) fn leave(&self, desk: &mut Desk, phase: Phase, credential: Option<Value>) -> Vec<Arc<Flight>> {
        // Shut down is for good.
        let phase = match desk.phase {
            Phase::ShutDown => Phase::ShutDown,
            _ => phase,
        };
        let stranded = desk.leave(phase, credential);
        self.show(None);
        stranded
    }

    /// The monotonic clock has reached the end of `generation`.
    pub(super) fn elapse(&self, generation: Generation) {
        let mut desk = self.desk();
        if desk.elapse(generation) {
            self.signal.0.store(0, Ordering::Release);
        }
    }

    /// A flight ended without a word: its task panicked or was aborted, or its runtime ended.
    pub(super) fn abort(&self, flight: &Arc<Flight>) {
        let if_lost = self.provider.if_lost();
        let (aborted, counts) = {
            let mut desk = self.desk();
            let counts = desk.counts(flight);
            (desk.abort(flight, if_lost, self.outlook(false)), counts)
        };
        let error = Error::new(Kind::Aborted);
        let mut waited = flight.land(Landed::Failed(error.clone()));
        let cause = flight.cause;
        if let Some((took, next)) = aborted {
            // Who asked after a fence, or after a step-up, is not answered by this, and looks again.
            let answer = match counts && !flight.step_up {
                true => Landed::Failed(error.clone()),
                false => Landed::Superseded,
            };
            waited += next.map_or(0, |next| next.land(answer));
            self.tell(&match counts {
                false => Event::Discarded { cause },
                true => Event::FetchFailed {
                    cause,
                    class: None,
                    error,
                    took,
                    waited,
                },
            });
        }
        self.is_grounded();
    }

    /// A flight has left the air.
    pub(super) fn is_grounded(&self) {
        self.grounded.notify_waiters();
        self.pulse.send_replace(());
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.observers.tell(event);
    }
}
