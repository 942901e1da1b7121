//! The decisions, all under one lock: whether a token is needed, who fetches it, which fetch answers whom.
//!
//! Time here is logical as well as real. Every refusal that marks a token takes the next *tick*, and a fetch begins
//! at the last one, so that "a fetch begun at or after the mark" is a comparison of two numbers. Nothing in
//! this file waits, wakes, spawns or calls out: the engine does that after the lock is given back.

mod refusal;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::flight::{Flight, Landing};
use super::schedule::{Clearance, Schedule};
use crate::challenge::Challenge;
use crate::clock::{Skew, Wall, slept};
use crate::error::{Error, FetchError, Kind};
use crate::event::Observers;
use crate::lifetime::{Freshness, Plan, RefreshPolicy};
use crate::provider::{Cause, IfLost};
use crate::token::{Generation, Secret, Token, Warning};

pub(super) use refusal::Refused;
use refusal::SteppedUp;
pub(crate) use refusal::{Refusal, unmet};

/// A token in place. Immutable; everything a request needs of it comes from one of these.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) token: Token,
    pub(crate) generation: Generation,
    pub(crate) plan: Plan,
    /// The tick at which its fetch began.
    begun: u64,
    /// What `plan.keep` is by the monotonic clock, which no step of the wall clock moves.
    keep: Instant,
    /// The same of `plan.required`.
    pub(super) required: Instant,
}

impl Current {
    /// How long it may still go out before all wait, by the monotonic clock.
    pub(super) fn left(&self) -> Duration {
        self.required.saturating_duration_since(Instant::now())
    }
}

/// What a decision is made by: both clocks, read together, the policy, and whether a task can be started.
#[derive(Clone, Copy)]
pub(super) struct Outlook<'a> {
    pub(super) mono: Instant,
    pub(super) wall: Wall,
    pub(super) policy: &'a RefreshPolicy,
    pub(super) observers: &'a Observers,
    pub(super) runtime: bool,
    pub(super) engine: u64,
}

/// A token that may land, with its times known.
pub(super) struct Vetted {
    pub(super) token: Token,
    /// When it was asked for.
    pub(super) sent: Wall,
    pub(super) issued: Wall,
    pub(super) dies: Wall,
    /// How far its issuer's clock is from ours, if that could be told.
    pub(super) skew: Option<Skew>,
    /// The same by the monotonic clock, if the wall clock was not set while it was on its way; else no later.
    pub(super) ends: Instant,
}

/// What a caller who needs a token gets.
pub(crate) enum Admission {
    /// This token.
    Use(Arc<Current>),
    /// A seat in a flight; ask again when it has landed.
    Wait(Landing),
    /// Nothing, and why.
    Deny(Error),
}

/// What keeps a token alive without traffic.
pub(super) enum Upkeep {
    /// Nothing to do before this instant, or before something changes.
    Rest(Option<Instant>),
    /// A fetch.
    Fly(Arc<Flight>),
    /// Nothing to do any more.
    Over,
}

/// A flight that the engine has to start, once the lock is given back.
pub(super) type Departure = Option<Arc<Flight>>;

pub(super) struct Desk {
    pub(super) current: Option<Arc<Current>>,
    pub(super) credential: Option<Arc<Secret<Value>>>,
    pub(super) schedule: Schedule,
    /// Both clocks when it last counted time.
    counted: Option<(Wall, Instant)>,
    pub(super) breaker: Breaker,
    pub(super) phase: Phase,
    pub(super) fetches: u64,
    /// As the issuer's last answer showed it.
    skew: Option<Skew>,
    /// Sent by the flights that have landed.
    exchanges: u64,
    /// The generation that is published next.
    upcoming: Generation,
    /// The issuer handed out the same token again, so a refusal of it is not the token's fault alone.
    repeated: bool,
    tick: u64,
    /// The tick at which the current token was refused.
    refused: Option<u64>,
    /// The monotonic clock says that the current token's time is over.
    elapsed: bool,
    /// The last mark of all: which generation, at which tick.
    mark: Option<(Generation, u64)>,
    /// The last time that a provider was asked for more than a newer token.
    stepped_up: Option<SteppedUp>,
    air: Option<Aloft>,
    /// Begins when the one in the air has landed.
    next: Option<Arc<Flight>>,
    /// Raised by whatever makes an answer in the air worthless.
    fence: u64,
    /// The generation of the store that what is in force here comes from, or was saved as.
    kept: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    SignedOut,
    ShutDown,
}

struct Aloft {
    flight: Arc<Flight>,
    /// What it is to replace.
    replaces: Option<Generation>,
    /// The tick at which it began, and when; `None` while it is waiting for its time.
    begun: Option<(u64, Instant)>,
    /// Whether its answer has replaced what was presented, so that nothing of that can be lost any more.
    replaced: bool,
}

impl Desk {
    pub(super) fn new(policy: &RefreshPolicy) -> Self {
        Self {
            current: None,
            credential: None,
            schedule: Schedule::new(policy.pauses),
            counted: None,
            breaker: Breaker::new(policy.pauses.breaker),
            phase: Phase::Open,
            fetches: 0,
            skew: None,
            exchanges: 0,
            upcoming: Generation::FIRST,
            repeated: false,
            tick: 0,
            refused: None,
            elapsed: false,
            mark: None,
            stepped_up: None,
            air: None,
            next: None,
            fence: 0,
            kept: 0,
        }
    }

    /// The current token, if it may go out.
    pub(super) fn usable(&self, wall: Wall) -> Option<&Arc<Current>> {
        let current = self.current.as_ref()?;
        let alive = self.refused.is_none() && !self.elapsed;
        (alive && current.plan.freshness(wall) != Freshness::Expired).then_some(current)
    }

    /// The current token, until so long past its expiry. For who has asked the policy whether it goes out then
    /// at all: which clock says that its time is over does not count here.
    pub(super) fn last_resort(&self, wall: Wall, extra: Duration) -> Option<Arc<Current>> {
        let current = self.current.as_ref().filter(|_| self.refused.is_none())?;
        (wall < current.plan.dies.after(extra)).then(|| current.clone())
    }

    /// What the monotonic clock missed of the backoff.
    fn missed(&self, at: Outlook<'_>) -> Duration {
        self.counted
            .map_or(Duration::ZERO, |then| slept(then, (at.wall, at.mono)))
    }

    /// How long no fetch begins yet by itself.
    pub(super) fn pause(&self, at: Outlook<'_>) -> Option<Duration> {
        let until = self.schedule.in_background().flatten()?;
        let pause = until.saturating_duration_since(at.mono).saturating_sub(self.missed(at));
        Some(pause).filter(|pause| !pause.is_zero())
    }

    /// A backoff is over by whichever clock says so first: a suspend is seen by the wall clock alone.
    fn catch_up(&mut self, at: Outlook<'_>) {
        let time = self.missed(at);
        if !time.is_zero() {
            self.schedule.slept(time);
            self.counted = Some((at.wall, at.mono));
        }
    }

    /// A request needs a token.
    pub(super) fn need(&mut self, at: Outlook<'_>) -> (Admission, Departure) {
        match self.at_hand(at.wall) {
            Some(admission) => (admission, None),
            None => self.board(at, self.cause(), None),
        }
    }

    /// What takes no decision: the token in place, or a seat in the flight that brings one.
    pub(super) fn at_hand(&self, wall: Wall) -> Option<Admission> {
        if let Some(current) = self.usable(wall) {
            return Some(Admission::Use(current.clone()));
        }
        let flight = self.answering().filter(|_| self.phase == Phase::Open)?;
        Some(Admission::Wait(flight.join()))
    }

    /// Why there is nothing that may go out.
    pub(super) fn cause(&self) -> Cause {
        match &self.current {
            None => Cause::Initial,
            Some(_) if self.refused.is_some() => Cause::Refused,
            Some(_) => Cause::Expiring,
        }
    }

    /// Why there are no fetches at all, if there are none.
    fn closed(&self) -> Option<Error> {
        match self.phase {
            Phase::SignedOut => Some(Error::new(Kind::SignedOut)),
            Phase::ShutDown => Some(Error::new(Kind::ShutDown)),
            Phase::Open => None,
        }
    }

    /// A fetch is wanted whatever the schedule says.
    pub(super) fn request(&mut self, at: Outlook<'_>) -> (Admission, Departure) {
        if let Some(closed) = self.closed() {
            return (Admission::Deny(closed), None);
        }
        if let Some(flight) = self.answering() {
            return (Admission::Wait(flight.join()), None);
        }
        if !at.runtime {
            return (Admission::Deny(Error::new(Kind::NoRuntime)), None);
        }
        self.enqueue(self.flight(Cause::Requested, at))
    }

    /// The current token is stale: a fetch may begin, but nobody waits for it.
    /// The second value says until when it is useless to ask again.
    pub(super) fn renew(&mut self, at: Outlook<'_>) -> (Departure, Option<Instant>) {
        // The caller saw a stale token without the lock, and a newer one may have landed since.
        let stale = |current: &Arc<Current>| current.plan.freshness(at.wall) == Freshness::Stale;
        if self.phase != Phase::Open || !at.runtime || !self.usable(at.wall).is_some_and(stale) {
            return (None, None);
        }
        self.catch_up(at);
        let soon = Some(at.mono + LOOK_AGAIN);
        match self.schedule.in_background() {
            _ if self.air.is_some() => (None, soon),
            None => (None, Some(at.mono + NEVER)),
            Some(Some(until)) if until > at.mono => (None, Some(until)),
            Some(_) => {
                let flight = self.flight(Cause::Expiring, at);
                (self.start(flight).1, soon)
            }
        }
    }

    /// Nobody asks for a token: is a fetch due all the same?
    pub(super) fn keep(&mut self, at: Outlook<'_>) -> Upkeep {
        match self.phase {
            Phase::ShutDown => return Upkeep::Over,
            Phase::SignedOut => return Upkeep::Rest(None),
            // What it brings is seen when it has landed.
            Phase::Open if self.air.is_some() => return Upkeep::Rest(None),
            Phase::Open => self.catch_up(at),
        }
        let cause = match &self.current {
            None => Cause::Initial,
            Some(_) if self.refused.is_some() => Cause::Refused,
            // Whichever clock comes first.
            Some(current) if at.wall < current.plan.keep && at.mono < current.keep => {
                let by_wall = at.mono + at.wall.until(current.plan.keep).min(NEVER);
                return Upkeep::Rest(Some(by_wall.min(current.keep)));
            }
            Some(_) => Cause::KeepAlive,
        };
        match self.schedule.in_background() {
            None => Upkeep::Rest(None),
            Some(Some(until)) if until > at.mono => Upkeep::Rest(Some(until)),
            Some(_) => {
                let flight = self.flight(cause, at);
                self.start(flight).1.map_or(Upkeep::Rest(None), Upkeep::Fly)
            }
        }
    }

    /// A seat in the flight that answers, in the air, after it, or in a new one if the schedule clears it.
    fn board(&mut self, at: Outlook<'_>, cause: Cause, challenge: Option<Challenge>) -> (Admission, Departure) {
        match self.phase {
            Phase::SignedOut => return (Admission::Deny(Error::new(Kind::SignedOut)), None),
            Phase::ShutDown => {
                // What was fenced off has told its waiters already, and they would ask again and again.
                let admission = match self.air.as_ref().filter(|air| air.flight.fence == self.fence) {
                    Some(air) => Admission::Wait(air.flight.join()),
                    None => Admission::Deny(Error::new(Kind::ShutDown)),
                };
                return (admission, None);
            }
            Phase::Open => {}
        }
        if let Some(flight) = self.answering() {
            return (Admission::Wait(flight.join()), None);
        }
        let mut flight = self.flight(cause, at);
        flight.challenge = challenge;
        if self.air.is_some() {
            return self.enqueue(flight);
        }
        self.catch_up(at);
        match self.schedule.needed(at.mono, self.min_interval(at.policy)) {
            Clearance::Deny(error) => (Admission::Deny(error), None),
            Clearance::Go(_) if !at.runtime => (Admission::Deny(Error::new(Kind::NoRuntime)), None),
            Clearance::Go(not_before) => {
                flight.not_before = not_before;
                self.start(flight)
            }
        }
    }

    /// The flight whose token answers what is asked now: the one in the air, or the one after it.
    fn answering(&self) -> Option<&Arc<Flight>> {
        let mark = self.refused.or(self.mark.map(|(_, tick)| tick)).unwrap_or(0);
        let air = self.air.as_ref().filter(|air| {
            // A flight that was begun because of a refusal also answers for the token that an
            // earlier flight published meanwhile: both are older than what it brings.
            let recent = air.begun.is_none_or(|(tick, _)| tick >= mark) || air.flight.cause == Cause::Refused;
            air.flight.fence == self.fence && recent && !air.flight.step_up
        });
        air.map(|air| &air.flight).or(self.next.as_ref())
    }

    /// Goes up at once, or after the one in the air, whose token does not answer: it began before the
    /// mark, so it may be as dead as the one refused, or it was fenced off.
    fn enqueue(&mut self, flight: Flight) -> (Admission, Departure) {
        if self.air.is_none() {
            return self.start(flight);
        }
        let next = self.next.insert(Arc::new(flight));
        (Admission::Wait(next.join()), None)
    }

    fn flight(&self, cause: Cause, at: Outlook<'_>) -> Flight {
        Flight::new(cause, self.fence, at.policy.max_waiters, at.observers.clone())
    }

    fn start(&mut self, flight: Flight) -> (Admission, Departure) {
        let flight = Arc::new(flight);
        let landing = flight.join();
        self.air = Some(self.aloft(flight.clone()));
        (Admission::Wait(landing), Some(flight))
    }

    fn aloft(&self, flight: Arc<Flight>) -> Aloft {
        Aloft {
            flight,
            replaces: self.current.as_ref().map(|current| current.generation),
            begun: None,
            replaced: false,
        }
    }

    /// Whether what `flight` is to replace has been replaced meanwhile.
    pub(super) fn is_overtaken(&self, flight: &Arc<Flight>) -> bool {
        let air = self.air.as_ref().filter(|air| Arc::ptr_eq(&air.flight, flight));
        let current = self.current.as_ref().map(|current| current.generation);
        current.is_some() && air.is_some_and(|air| air.replaces != current)
    }

    /// `flight` is to bring something newer than what was put in place meanwhile. Says whether anything was.
    pub(super) fn replaces_what_is_there(&mut self, flight: &Arc<Flight>) -> bool {
        let current = self.current.as_ref().map(|current| current.generation);
        let air = self.air.as_mut().filter(|air| Arc::ptr_eq(&air.flight, flight));
        air.is_some_and(|air| {
            air.replaces = current;
            current.is_some()
        })
    }

    /// Whether that generation of the store is news; it is none from now on.
    pub(super) fn is_news(&mut self, generation: u64) -> bool {
        let is_news = generation > self.kept;
        self.is_kept(generation);
        is_news
    }

    /// What is in force here is in the store.
    pub(super) fn is_kept(&mut self, generation: u64) {
        self.kept = self.kept.max(generation);
    }

    /// The fetch goes out now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.fetches += 1;
        if let Some(air) = &mut self.air {
            air.begun = Some((self.tick, now));
        }
    }

    /// Whether an answer of `flight` still counts.
    pub(super) fn counts(&self, flight: &Flight) -> bool {
        flight.fence == self.fence && self.phase != Phase::SignedOut
    }

    /// Puts the token of the flight in the air in place, and frees the air.
    pub(super) fn land(&mut self, vetted: Vetted, at: Outlook<'_>) -> Arc<Current> {
        let begun = self.ground().and_then(|air| air.begun);
        self.publish(vetted, begun.map_or(self.tick, |(tick, _)| tick), at)
    }

    /// Puts a token in place that came from elsewhere: it answers all refusals so far.
    pub(super) fn place(&mut self, vetted: Vetted, at: Outlook<'_>) -> Arc<Current> {
        self.publish(vetted, self.tick, at)
    }

    fn publish(&mut self, vetted: Vetted, begun: u64, at: Outlook<'_>) -> Arc<Current> {
        let Vetted {
            token,
            sent,
            issued,
            dies,
            skew,
            ends,
        } = vetted;
        self.skew = skew.or(self.skew);
        let hint = token.refresh_hint().map(|after| issued.after(after));
        let renew_by = token.renewal_deadline().map(Wall::of);
        let plan = at.policy.plan((sent, at.wall, dies), hint, renew_by);
        let previous = self.current.as_ref().map(|current| current.token.secret());
        self.repeated = previous == Some(token.secret());
        let token = match self.repeated {
            true => token.warning(Warning::Repeated),
            false => token,
        };
        let pause = (self.repeated || self.refused.is_some()).then_some(plan.min_interval);
        self.schedule.succeeded(at.mono, pause);
        let generation = self.upcoming;
        self.upcoming = generation.next();
        let token = token.landed(at.engine, generation, issued.to_system_time(), dies.to_system_time());
        let by_mono = |wall: Wall| {
            let ahead = ends.checked_sub(wall.until(dies)).unwrap_or(at.mono);
            ahead + dies.until(wall).min(NEVER)
        };
        let current = Arc::new(Current {
            token,
            generation,
            plan,
            begun,
            keep: by_mono(plan.keep),
            required: by_mono(plan.required),
        });
        self.current = Some(current.clone());
        self.refused = None;
        self.elapsed = false;
        current
    }

    /// From now on the token is renewed with this.
    pub(super) fn adopt(&mut self, credential: Value) {
        self.credential = Some(Arc::new(Secret::new(credential)));
    }

    /// The same of what came with the answer to a flight.
    pub(super) fn adopt_from(&mut self, flight: &Arc<Flight>, credential: Value) {
        self.adopt(credential);
        self.schedule.nothing_is_lost();
        if let Some(air) = self.air.as_mut().filter(|air| Arc::ptr_eq(&air.flight, flight)) {
            air.replaced = true;
        }
    }

    /// Takes a flight that brought nothing out of the air; returns the error as callers see it.
    pub(super) fn fail(&mut self, flight: &Flight, error: FetchError, if_lost: IfLost, at: Outlook<'_>) -> FetchError {
        self.ground();
        self.catch_up(at);
        self.counted = Some((at.wall, at.mono));
        if let Some(asked) = self.stepped_up.as_mut().filter(|_| flight.step_up) {
            asked.answer = Some(error.clone().into());
            asked.since = at.mono;
        }
        // A refused step-up says nothing about the credential; a lost one may have spent it.
        if flight.step_up && !error.is_lost() || !self.counts(flight) {
            return error;
        }
        self.schedule.failed(error, if_lost, at.mono)
    }

    /// Takes a flight out of the air that ended without a word. Returns how long it was there, and who
    /// wanted to go up next; `None` if it had landed.
    pub(super) fn abort(
        &mut self,
        flight: &Arc<Flight>,
        if_lost: IfLost,
        at: Outlook<'_>,
    ) -> Option<(Duration, Option<Arc<Flight>>)> {
        let pause = self.min_interval(at.policy);
        self.air.as_ref().filter(|air| Arc::ptr_eq(&air.flight, flight))?;
        let air = self.ground()?;
        self.catch_up(at);
        self.counted = Some((at.wall, at.mono));
        if self.counts(flight) {
            let presented = air.begun.is_some() && !air.replaced;
            self.schedule.aborted(presented, if_lost, pause, at.mono);
        }
        let took = air
            .begun
            .map_or(Duration::ZERO, |(_, since)| at.mono.saturating_duration_since(since));
        Some((took, self.next.take()))
    }

    /// Takes a flight out of the air whose answer no longer counts.
    pub(super) fn discard(&mut self) {
        self.ground();
    }

    /// Frees the air.
    fn ground(&mut self) -> Option<Aloft> {
        let air = self.air.take()?;
        self.exchanges += u64::from(air.flight.budget.spent());
        Some(air)
    }

    /// The flight that was waiting for the air to be free goes up.
    pub(super) fn depart_next(&mut self) -> Departure {
        let next = self.next.take()?;
        self.air = Some(self.aloft(next.clone()));
        Some(next)
    }

    /// Nobody goes up after the one that failed: its failure answers them as well.
    pub(super) fn cancel_next(&mut self) -> Option<Arc<Flight>> {
        self.next.take()
    }

    pub(super) fn is_in_place(&self, generation: Generation) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.generation == generation)
    }

    /// The monotonic clock has reached the end of `generation`.
    pub(super) fn elapse(&mut self, generation: Generation) -> bool {
        let concerned = self.is_in_place(generation);
        self.elapsed |= concerned;
        concerned
    }

    /// Forgets token and credential, and fences off what is in the air. Returns whom to tell.
    pub(super) fn leave(&mut self, phase: Phase, credential: Option<Value>) -> Vec<Arc<Flight>> {
        self.phase = phase;
        self.fence += 1;
        self.current = None;
        self.refused = None;
        self.elapsed = false;
        self.mark = None;
        self.schedule.forget();
        self.breaker.forget();
        self.skew = None;
        self.credential = credential.map(|credential| Arc::new(Secret::new(credential)));
        let aloft = self.air.as_ref().map(|air| air.flight.clone());
        if let Some(flight) = &aloft {
            // What it would still send is for nothing, and may end what was just installed.
            flight.budget.close();
        }
        aloft.into_iter().chain(self.next.take()).collect()
    }

    /// No more fetches for good; what is in the air ends with the exchange it is in. Returns whom to tell.
    pub(super) fn shut_down(&mut self) -> Option<Arc<Flight>> {
        self.phase = Phase::ShutDown;
        if let Some(air) = &self.air {
            air.flight.budget.close();
        }
        self.cancel_next()
    }

    /// How many exchanges were sent so far.
    pub(super) fn exchanges(&self) -> u64 {
        let aloft = self.in_air().map_or(0, |flight| flight.budget.spent());
        self.exchanges + u64::from(aloft)
    }

    pub(super) fn in_air(&self) -> Option<&Arc<Flight>> {
        self.air.as_ref().map(|air| &air.flight)
    }

    /// How far the issuer's clock is ahead of ours, in seconds, if no step of ours has made that void.
    pub(super) fn skew(&self, at: Outlook<'_>) -> Option<i64> {
        self.skew.and_then(|skew| skew.seconds(at.wall, at.mono))
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    pub(super) fn min_interval(&self, policy: &RefreshPolicy) -> Duration {
        let current = self.current.as_ref();
        current.map_or(policy.min_interval, |current| current.plan.min_interval)
    }
}

/// While a fetch is in the air, calls with a stale token take the lock this seldom. A landing ends it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Longer than any process; `Instant` has no end of its own.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
