//! The task of a flight: wait for its time and its turn, fetch, and land in this order: persist, publish, wake, tell.
//!
//! The task belongs to nobody. While its fetch is in the air it keeps the engine alive, so that a
//! rotated credential lands even if every handle is gone. Once landed it holds only a `Weak` and goes
//! on as the timer of its token: when the monotonic clock says that the time is over, so does the engine.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::desk::{Current, Departure, Outlook, Phase, Vetted};
use super::engine::Engine;
use super::flight::{Flight, Landed};
use super::kept::{Done, Draft, Held, Kept, Permit};
use crate::clock::{A_YEAR, Skew, Wall};
use crate::error::{Class, Error, FetchError};
use crate::event::Event;
use crate::provider::{FetchContext, IfLost, MOST};
use crate::store::{Record, Standing};
use crate::sync::{Handle, Ordering};
use crate::token::{Expiry, Generation, Token, Warning};

/// Flies `flight`, and whatever was waiting for the air to be free.
///
/// Not an `async fn`: the pilot has to be on board before the task is first polled, because a runtime
/// that is shutting down drops tasks that it never polled.
pub(super) fn fly(engine: Arc<Engine>, flight: Arc<Flight>) -> impl Future<Output = ()> + Send {
    let mut pilot = Pilot { engine, flight };
    async move {
        let timer = loop {
            let (published, next) = pilot.fly_once().await;
            let timer = published.map(|current| Timer::of(&pilot.engine, &current));
            pilot.engine.is_grounded();
            let Some(next) = next else { break timer };
            pilot.flight = next;
            // Its token's time goes by while the next one is in the air.
            timer.map(|timer| tokio::spawn(timer.run()));
        };
        drop(pilot);
        if let Some(timer) = timer {
            timer.run().await;
        }
    }
}

/// Sees to it that a flight lands, come what may.
struct Pilot {
    engine: Arc<Engine>,
    flight: Arc<Flight>,
}

impl Drop for Pilot {
    fn drop(&mut self) {
        // Finds nothing to do if it landed.
        self.engine.abort(&self.flight);
    }
}

impl Pilot {
    async fn fly_once(&self) -> (Option<Arc<Current>>, Departure) {
        let (engine, flight) = (&self.engine, &self.flight);
        if let Some(not_before) = flight.not_before {
            sleep_until(not_before).await;
        }
        let mut permit = match &engine.kept {
            None => None,
            Some(kept) => match kept.claim(engine, flight).await {
                Ok(Some(permit)) => Some(permit),
                Ok(None) => return (None, self.found()),
                Err(error) => return (None, self.crash(error, Duration::ZERO)),
            },
        };
        let (lost_before, sent) = {
            let mut desk = engine.desk();
            desk.begin(Instant::now());
            (desk.schedule.lost(), engine.outlook(true))
        };
        engine.tell(&Event::FetchBegan { cause: flight.cause });
        let fetched = match permit.as_ref().and_then(|permit| permit.initial(engine)) {
            Some(configured) => Ok((configured, sent)),
            None => self.fetch(lost_before, permit.as_mut()).await,
        };
        let fetched = fetched.and_then(|(token, asked)| {
            // Whatever becomes of the token, the credential that came with it has replaced the old one.
            let brought = token.renewal_credential().cloned();
            let mut desk = engine.desk();
            if let Some(credential) = brought.clone().filter(|_| desk.counts(flight)) {
                desk.adopt(credential);
            }
            drop(desk);
            engine.vet(token, asked).map_err(|error| match brought {
                // Nothing is ambiguous any more about a credential that was replaced.
                Some(credential) => error.new_credential(credential),
                None => error,
            })
        });
        let took = sent.mono.elapsed();
        match fetched {
            Ok(vetted) => self.land(vetted, permit, took).await,
            Err(error) => {
                if let Some(permit) = permit {
                    permit.failed(engine, flight, &error).await;
                    if engine.desk().is_overtaken(flight) {
                        return (None, self.found());
                    }
                }
                (None, self.crash(error, took))
            }
        }
    }

    /// What the flight was to bring is there already.
    fn found(&self) -> Departure {
        let next = {
            let mut desk = self.engine.desk();
            desk.discard();
            desk.depart_next()
        };
        self.flight.land(Landed::Published);
        next
    }

    /// One presentation, and a second one if the answer was lost and the provider's policy allows it.
    /// With the token comes the moment at which it was asked for.
    async fn fetch(
        &self,
        lost_before: u32,
        mut permit: Option<&mut Permit>,
    ) -> Result<(Token, Outlook<'_>), FetchError> {
        let engine = &self.engine;
        let before = permit
            .as_ref()
            .map(|permit| permit.presented_before(engine, &self.flight));
        let lost_before = lost_before.max(before.transpose()?.unwrap_or(0));
        let began = engine.outlook(true);
        let first = self.exchange(permit.as_deref_mut()).await.map(|token| (token, began));
        let Err(error) = &first else { return first };
        // By whichever clock saw more of it: one misses a suspend, the other a step back.
        let elapsed = || began.wall.until(engine.now()).max(began.mono.elapsed());
        let again = match engine.provider.if_lost() {
            _ if !error.is_lost() => false,
            IfLost::ReplayOnce => lost_before == 0,
            IfLost::ReplayWithin(limit) => lost_before == 0 && elapsed() < limit,
            IfLost::NeverReplay | IfLost::Idempotent => false,
        };
        if !again {
            return first;
        }
        if let Some(permit) = &permit {
            permit.look_again(engine).await;
        }
        // Asked last, because the store took its time.
        {
            let desk = engine.desk();
            if desk.phase == Phase::ShutDown || desk.is_overtaken(&self.flight) {
                return first;
            }
        }
        let asked_again = engine.outlook(true);
        match self.exchange(permit).await.map(|token| (token, asked_again)) {
            // The first presentation stays lost, whatever kept the second one from the issuer.
            Err(error) if error.says_nothing() && is_no_verdict(error.class()) => Err(error.lost()),
            second => second,
        }
    }

    async fn exchange(&self, permit: Option<&mut Permit>) -> Result<Token, FetchError> {
        let engine = &*self.engine;
        let limit = engine.policy.fetch_timeout;
        let permit = match permit {
            Some(permit) => {
                permit.present(engine, &self.flight).await?;
                Some(&*permit)
            }
            None => None,
        };
        let context = {
            let desk = engine.desk();
            if !desk.counts(&self.flight) {
                // Its answer would be thrown away, and with it what the credential in force was rotated to.
                return Err(FetchError::transient("signed out, or another credential installed"));
            }
            FetchContext {
                previous: desk.current.as_ref().map(|current| current.token.clone()),
                refused: desk.is_refused(),
                credential: desk.credential.clone(),
                cause: self.flight.cause,
                challenge: self.flight.challenge.clone(),
                clock: engine.clock.clone(),
                // A little less than ours, so that a client's own timeout, which knows more, comes first.
                timeout: limit - limit / 100,
                engine: engine.id(),
                budget: self.flight.budget.clone(),
            }
        };
        let limit = limit.saturating_mul(engine.provider.exchanges().clamp(1, MOST));
        let budget = &self.flight.budget;
        let spent_before = budget.spent();
        let asked = timeout(limit, self.asked(context));
        let fetched = match permit {
            Some(permit) => permit.within(asked).await,
            None => Some(asked.await),
        };
        let fetched = match fetched {
            Some(Ok(fetched)) => fetched,
            Some(Err(_)) => Err(FetchError::transient(format!(
                "the provider did not answer within {limit:?}; \
                 if its client goes through the layer that waits for it, give it a client of its own"
            ))
            .lost()),
            None => Err(FetchError::transient(
                "abandoned before its lease ended: the store did not renew it, or the process was stopped",
            )
            .lost()),
        };
        // A client of the provider's own takes none, but something was sent: an answer came or was lost.
        let sent = fetched.as_ref().map_or_else(FetchError::is_lost, |_| true);
        if sent && budget.spent() == spent_before {
            let _ = budget.take();
        }
        fetched
    }

    /// The provider's future, in the span of whoever observes with one.
    fn asked(&self, context: FetchContext) -> impl Future<Output = Result<Token, FetchError>> + Send {
        let fetch = || self.engine.provider.fetch(context);
        #[cfg(feature = "tracing")]
        let fetch = || {
            let span = self.engine.observers.span(self.flight.cause);
            // Also what it does before it returns its future.
            let fetch = span.in_scope(fetch);
            tracing::Instrument::instrument(fetch, span)
        };
        fetch()
    }

    /// Persist, publish, wake, tell, and give back the lease.
    async fn land(&self, vetted: Vetted, permit: Option<Permit>, took: Duration) -> (Option<Arc<Current>>, Departure) {
        let (engine, flight) = (&self.engine, &self.flight);
        let held = match self.persist(&vetted, permit).await {
            Persisted::Durable(held) => held,
            Persisted::Pending => None,
            Persisted::Overtaken => return (None, self.found()),
        };
        let landed = self.publish(vetted, took);
        // By a task: if this one were to wait and end with its runtime, nobody would fly what goes up next.
        drop(held);
        if let Some(kept) = engine.kept.as_ref().filter(|_| engine.desk().counts(flight)) {
            kept.in_force(engine);
        }
        landed
    }

    /// Waits until the token is durable, but never longer than the one in place may still go out.
    async fn persist(&self, vetted: &Vetted, permit: Option<Permit>) -> Persisted {
        let (engine, flight) = (&self.engine, &self.flight);
        let (Some(kept), Some(permit)) = (&engine.kept, permit) else {
            return Persisted::Durable(None);
        };
        let held = permit.into_held();
        let token = vetted.token.clone().issued_at(vetted.issued.to_system_time());
        let token = token.expires_at(vetted.dies.to_system_time());
        let under_lease = held.is_some();
        let (saved, limit) = {
            let desk = engine.desk();
            if !desk.counts(flight) {
                return Persisted::Durable(held);
            }
            let credential = desk.credential.as_deref().cloned();
            // Under the lock, so that who signs out or installs meanwhile comes after it.
            let saved = kept.put(engine, Draft::renewed(token, credential), held);
            let left = desk.usable(engine.now()).map(|current| current.left());
            (
                saved,
                left.map_or(kept.patience(), |left| kept.patience().min(left.max(AT_LEAST))),
            )
        };
        if !under_lease {
            return Persisted::Pending;
        }
        match kept.durable(saved, limit).await {
            Some(Done::Kept(held)) => Persisted::Durable(held),
            Some(Done::Overtaken) => {
                kept.look(engine).await;
                match engine.desk().is_overtaken(flight) {
                    true => Persisted::Overtaken,
                    false => Persisted::Pending,
                }
            }
            None => Persisted::Pending,
        }
    }

    /// Publish, wake, tell.
    fn publish(&self, vetted: Vetted, took: Duration) -> (Option<Arc<Current>>, Departure) {
        let (engine, flight) = (&*self.engine, &*self.flight);
        let (published, next) = {
            let mut desk = engine.desk();
            let outlook = engine.outlook(true);
            let published = desk.counts(flight).then(|| {
                let current = desk.land(vetted, outlook);
                engine.show(Some(current.clone()));
                current
            });
            if published.is_none() {
                desk.discard();
            }
            (published, desk.depart_next())
        };
        let Some(current) = published else {
            flight.land(Landed::Superseded);
            engine.tell(&Event::Discarded { cause: flight.cause });
            return (None, next);
        };
        let waited = flight.land(Landed::Published);
        engine.announce(&current);
        // A fingerprint is a look at all of a secret.
        if !engine.observers.is_empty() {
            engine.tell(&Event::Renewed {
                generation: current.generation,
                token: current.token.fingerprint(),
                cause: flight.cause,
                took,
                expires_in: engine.now().until(current.plan.dies),
                waited,
            });
        }
        engine.warn_of(&current);
        (Some(current), next)
    }

    /// No token: everyone is told the same at once, also those who wanted to go up next.
    fn crash(&self, error: FetchError, took: Duration) -> Departure {
        let (engine, flight) = (&*self.engine, &*self.flight);
        let if_lost = engine.provider.if_lost();
        let (error, counts, stranded, next) = {
            let mut desk = engine.desk();
            let counts = desk.counts(flight);
            if let Some(credential) = error.brought_credential().filter(|_| counts) {
                desk.adopt(credential.clone());
            }
            let error = match &flight.challenge {
                // So that whoever is told knows what is needed, whichever provider it was.
                Some(challenge) if flight.step_up || error.class() == Class::NeedsInteraction => {
                    error.demanded(challenge.clone())
                }
                _ => error,
            };
            let error = desk.fail(flight, error, if_lost, engine.outlook(true));
            // Who asked after a fence, or after a step-up failed, is not answered by this failure.
            let answers = counts && !flight.step_up;
            let stranded = if answers { desk.cancel_next() } else { None };
            (error, counts, stranded, desk.depart_next())
        };
        let class = Some(error.class());
        let error = Error::from(error);
        if !counts {
            flight.land(Landed::Superseded);
            engine.tell(&Event::Discarded { cause: flight.cause });
            return next;
        }
        let mut waited = flight.land(Landed::Failed(error.clone()));
        if let Some(stranded) = stranded {
            waited += stranded.land(Landed::Failed(error.clone()));
        }
        engine.tell(&Event::FetchFailed {
            cause: flight.cause,
            class,
            error,
            took,
            waited,
        });
        next
    }
}

/// What became of a token before it is published.
enum Persisted {
    /// It is where it should be; the lease under which it got there.
    Durable(Option<Held>),
    /// It is being saved yet.
    Pending,
    /// A newer one is in place.
    Overtaken,
}

/// A healthy store has so long, even if all wait for the token.
const AT_LEAST: Duration = Duration::from_millis(250);

impl Engine {
    /// Takes in what somebody else has saved. Says whether things are different from now on, other than that the next
    /// token is fetched with something else.
    pub(super) fn take_in(self: &Arc<Self>, record: &Record) -> bool {
        let vetted = record.token.clone().map(|token| {
            let token = token.issued_by(self.clock.now());
            self.vet(token, self.outlook(true))
        });
        let mut stranded = Vec::new();
        let taken = {
            let mut desk = self.desk();
            // Who signed out or installed since it was looked comes after it; the saver sees to that.
            if self.kept.as_ref().is_some_and(Kept::has_draft) || !desk.is_news(record.generation) {
                return false;
            }
            let credential = record.credential.as_ref().map(|credential| credential.expose().clone());
            let reopened = desk.phase == Phase::SignedOut && record.standing != Standing::SignedOut;
            if record.standing != Standing::Renewed || reopened {
                let phase = match record.standing {
                    Standing::SignedOut => Phase::SignedOut,
                    Standing::Installed | Standing::Renewed => Phase::Open,
                };
                stranded = self.leave(&mut desk, phase, credential);
            } else if let Some(credential) = credential {
                desk.adopt(credential);
            }
            let vetted = vetted.and_then(Result::ok).map(|vetted| Vetted {
                sent: vetted.issued,
                ..vetted
            });
            let same = |vetted: &Vetted| {
                let current = desk.current.as_ref();
                current.is_some_and(|current| current.token.secret() == vetted.token.secret())
            };
            let current = vetted.filter(|vetted| !same(vetted)).map(|vetted| {
                let current = desk.place(vetted, self.outlook(true));
                self.show(Some(current.clone()));
                current
            });
            current.ok_or(record.standing != Standing::Renewed || reopened)
        };
        for flight in stranded {
            flight.land(Landed::Superseded);
        }
        self.pulse.send_replace(());
        match taken {
            Ok(current) => {
                self.announce(&current);
                self.tell(&Event::Adopted {
                    generation: current.generation,
                    token: current.token.fingerprint(),
                    expires_in: self.now().until(current.plan.dies),
                });
                self.warn_of(&current);
                // Whoever looks does it in a task.
                Handle::current().spawn(Timer::of(self, &current).run());
                true
            }
            Err(left) => {
                if left {
                    self.tell(&match record.standing {
                        Standing::SignedOut => Event::SignedOut,
                        Standing::Installed | Standing::Renewed => Event::Installed,
                    });
                }
                left
            }
        }
    }

    /// Whoever waits for the next token learns of this one.
    fn announce(&self, current: &Current) {
        self.published.send_if_modified(|last| {
            // A waiter that is awake already may have had the next one land before this is said.
            let newer = current.generation.get() > *last;
            *last = (*last).max(current.generation.get());
            newer
        });
    }

    /// Puts a token in place that nobody fetched, if it is alive. Its credential is used in any case.
    pub(super) fn begin_with(self: &Arc<Self>, token: Token) {
        let credential = token.renewal_credential().cloned();
        let vetted = self.vet(token, self.outlook(false));
        let current = {
            let mut desk = self.desk();
            if let Some(credential) = credential {
                desk.adopt(credential);
            }
            let Ok(vetted) = vetted else { return };
            let current = desk.place(vetted, self.outlook(false));
            self.show(Some(current.clone()));
            // Without a runtime only the wall clock sees its end, until the first call within one.
            self.untimed.store(true, Ordering::Relaxed);
            current
        };
        self.published.send_replace(current.generation.get());
        self.warn_of(&current);
        self.time_what_is_in_place();
    }

    /// Starts the timer of a token that was put in place where none could be started.
    #[cold]
    pub(super) fn time_what_is_in_place(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let current = {
            // Under the lock, so that it is not the timer of a token that has one already.
            let desk = self.desk();
            desk.current
                .clone()
                .filter(|_| self.untimed.swap(false, Ordering::Relaxed))
        };
        if let Some(current) = current {
            runtime.spawn(Timer::of(self, &current).run());
        }
    }

    fn tell_of_life(&self, current: &Current) {
        self.tell(&Event::Alive {
            generation: current.generation,
            expires_in: self.now().until(current.plan.dies),
        });
    }

    /// A sign-out may have been told before the token that it came after.
    fn tell_of_absence(&self, generation: Generation) {
        let nothing = self.desk().current.is_none();
        if nothing {
            self.tell(&Event::Alive {
                generation,
                expires_in: Duration::ZERO,
            });
        }
    }

    fn warn_of(&self, current: &Current) {
        let generation = current.generation;
        for &warning in current.token.warnings() {
            self.tell(&Event::Warned { generation, warning });
        }
    }

    /// Adopts nothing that is empty, unprintable or dead on arrival; knows when the rest dies.
    fn vet(&self, token: Token, asked: Outlook<'_>) -> Result<Vetted, FetchError> {
        if let Some(flaw) = token.flaw() {
            return Err(FetchError::transient(flaw));
        }
        let now = self.now();
        let issued = token.issue_time().map_or(asked.wall, Wall::of);
        let (dies, token) = match token.expiry() {
            Expiry::In(life) => (issued.after(life), token),
            Expiry::At(at) => (Wall::of(at), token),
            Expiry::Unknown => (
                now.after(self.policy.assumed_life),
                token.warning(Warning::LifetimeAssumed),
            ),
        };
        // The wall clock may have been set back since it was asked for: then only the time that it took tells.
        let left = match token.expiry() {
            Expiry::In(life) if asked.wall <= issued => {
                let before = asked.wall.until(issued);
                life.saturating_sub(asked.mono.elapsed().saturating_sub(before))
            }
            _ => A_YEAR,
        };
        if dies <= now || left.is_zero() {
            return Err(FetchError::transient(
                "the token had expired when it arrived; compare the clocks",
            ));
        }
        let skew = token
            .date()
            .and_then(|date| Skew::learned(date, (asked.wall, asked.mono), (now, Instant::now())));
        let token = match skew {
            Some(skew) if skew.is_wide() => token.warning(Warning::ClockSkewed),
            _ => token,
        };
        let dies = dies.min(now.after(A_YEAR));
        Ok(Vetted {
            token,
            skew,
            sent: asked.wall,
            issued,
            dies,
            ends: Instant::now() + left.min(now.until(dies)),
        })
    }
}

fn is_no_verdict(class: Class) -> bool {
    matches!(class, Class::Transient | Class::Throttled { .. })
}

/// The monotonic side of a token's life.
struct Timer {
    engine: std::sync::Weak<Engine>,
    published: watch::Receiver<u64>,
    current: Arc<Current>,
    ends: Instant,
    /// Its end was seen.
    over: bool,
}

impl Timer {
    fn of(engine: &Arc<Engine>, current: &Arc<Current>) -> Self {
        Self {
            engine: Arc::downgrade(engine),
            published: engine.published.subscribe(),
            current: current.clone(),
            ends: current.required,
            over: false,
        }
    }

    /// Ends with its token, with whatever takes its place, or with the last handle; with an observer that wants to be
    /// told how long the token lives, not with the token's own end.
    async fn run(mut self) {
        let pace = self.engine.upgrade().and_then(|engine| engine.observers.pace);
        let replaced = async {
            while *self.published.borrow_and_update() <= self.current.generation.get() {
                if self.published.changed().await.is_err() {
                    return;
                }
            }
        };
        let mut replaced = pin!(replaced);
        loop {
            let next = pace.map(|pace| Instant::now() + pace);
            let wake = [next, (!self.over).then_some(self.ends)].into_iter().flatten().min();
            let Some(wake) = wake else { return };
            if timeout_at(wake, replaced.as_mut()).await.is_ok() {
                return;
            }
            let Some(engine) = self.engine.upgrade() else { return };
            if !engine.desk().is_in_place(self.current.generation) {
                engine.tell_of_absence(self.current.generation);
                return;
            }
            if !self.over && wake == self.ends {
                self.over = true;
                engine.elapse(self.current.generation);
            }
            engine.tell_of_life(&self.current);
        }
    }
}

/// If its runtime ended before it did, the first call within another one starts it again.
impl Drop for Timer {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else { return };
        let is_done = self.over && engine.observers.pace.is_none();
        let desk = engine.desk();
        if !is_done && desk.is_in_place(self.current.generation) {
            engine.untimed.store(true, Ordering::Relaxed);
        }
    }
}
