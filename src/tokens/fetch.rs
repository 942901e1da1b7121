//! The task of a flight: wait for its time and its turn, fetch, and land in this order: persist, publish, wake, tell.
//!
//! The task belongs to nobody. While its fetch is in the air it keeps the engine alive, so that a
//! rotated credential lands even if every handle is gone. Once landed it holds only a `Weak` and goes
//! on as the timer of its token: when the monotonic clock says that the time is over, so does the engine.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::desk::{Current, Departure, Outlook, Phase, Vetted};
use super::engine::Engine;
use super::flight::{Flight, Landed};
use super::kept::{Done, Draft, Held, Permit};
use super::timer::Timer;
use crate::error::{Class, Error, FetchError};
use crate::event::Event;
use crate::provider::{FetchContext, IfLost, MOST};
use crate::token::Token;

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
        // What only a store needs is boxed, here and below: most engines have none, and a task is moved when it starts.
        let mut permit = match &engine.kept {
            None => None,
            Some(kept) => match Box::pin(kept.claim(engine, flight)).await {
                Ok(Some(permit)) => Some(Box::new(permit)),
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
            None => self.fetch(lost_before, permit.as_deref_mut()).await,
        };
        let fetched = fetched.and_then(|(token, asked)| {
            // Whatever becomes of the token, the credential that came with it has replaced the old one.
            let brought = token.renewal_credential().cloned();
            let mut desk = engine.desk();
            if let Some(credential) = brought.clone().filter(|_| desk.counts(flight)) {
                desk.adopt_from(flight, credential);
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
                    Box::pin(permit.failed(engine, flight, &error)).await;
                    if engine.desk().is_overtaken(flight) {
                        return (None, self.overtaken());
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

    /// The same, after it was told that its fetch began.
    fn overtaken(&self) -> Departure {
        let next = self.found();
        let cause = self.flight.cause;
        self.engine.tell(&Event::Discarded { cause });
        next
    }

    /// One presentation, and a second one if the answer was lost and the provider's policy allows it.
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
        let first = self.exchange(permit.as_deref_mut()).await;
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
            Box::pin(permit.look_again(engine)).await;
        }
        // Asked last, because the store took its time.
        {
            let desk = engine.desk();
            if desk.phase == Phase::ShutDown || desk.is_overtaken(&self.flight) {
                return first;
            }
        }
        match self.exchange(permit).await {
            // The first presentation stays lost, whatever kept the second one from the issuer.
            Err(error) if error.says_nothing() && is_no_verdict(error.class()) => Err(error.lost()),
            second => second,
        }
    }

    /// With the token comes the moment at which it was asked for.
    async fn exchange(&self, permit: Option<&mut Permit>) -> Result<(Token, Outlook<'_>), FetchError> {
        let engine = &*self.engine;
        let limit = engine.policy.fetch_timeout;
        let permit = match permit {
            Some(permit) => {
                Box::pin(permit.present(engine, &self.flight)).await?;
                Some(&*permit)
            }
            None => None,
        };
        // The store took its time, and a life begins no earlier.
        let asked = engine.outlook(true);
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
        let answer = timeout(limit, self.asked(context));
        let fetched = match permit {
            Some(permit) => Box::pin(permit.within(answer)).await,
            None => Some(answer.await),
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
        fetched.map(|token| (token, asked))
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
    async fn land(
        &self,
        vetted: Vetted,
        permit: Option<Box<Permit>>,
        took: Duration,
    ) -> (Option<Arc<Current>>, Departure) {
        let (engine, flight) = (&self.engine, &self.flight);
        let persisted = match permit {
            None => Persisted::Durable(None),
            Some(permit) => Box::pin(self.persist(&vetted, *permit)).await,
        };
        let held = match persisted {
            Persisted::Durable(held) => held,
            Persisted::Pending => None,
            Persisted::Overtaken => return (None, self.overtaken()),
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
    async fn persist(&self, vetted: &Vetted, permit: Permit) -> Persisted {
        let (engine, flight) = (&self.engine, &self.flight);
        let Some(kept) = &engine.kept else {
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

fn is_no_verdict(class: Class) -> bool {
    matches!(class, Class::Transient | Class::Throttled { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What only a store needs is boxed.
    #[test]
    fn a_flight_is_a_task_of_less_than_a_kilobyte() {
        fn size<F>(_: fn(Arc<Engine>, Arc<Flight>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(fly) <= 1024, "{}", size(fly));
    }
}
