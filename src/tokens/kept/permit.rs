//! The right to one flight's exchanges, and what is noted about them: [`Permit`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{Draft, Held, Kept, Op, withheld};
use crate::clock::Wall;
use crate::error::{Class, FetchError};
use crate::provider::{Cause, IfLost};
use crate::store::{Intent, Record, Saved, StoreError};
use crate::token::{Secret, Token};
use crate::tokens::engine::Engine;
use crate::tokens::flight::Flight;

/// What a flight goes up with.
pub(in crate::tokens) struct Permit {
    /// `None`: without the store.
    held: Option<Held>,
    /// What is kept, with what is noted about it.
    base: Record,
    /// Ours is noted in it.
    noted: Option<Unsent>,
}

/// What was noted, or may have been, of a credential that was not presented in the end.
#[derive(Clone)]
pub(super) struct Unsent {
    noted: Intent,
    /// What was noted of it before.
    before: Option<Intent>,
}

impl Unsent {
    /// What is still to be noted after `error`, which is no lost answer.
    fn after(&self, error: &FetchError) -> Option<Intent> {
        match error.class() {
            // Nothing was presented.
            _ if error.is_of_store() => self.before.clone(),
            // Whoever comes next need not hear it again.
            Class::Terminal => Some(Intent {
                refused: true,
                ..self.noted.clone()
            }),
            // What became of the presentation before it is as open as it was.
            _ if error.says_nothing() && !is_verdict(error) => self.before.is_some().then(|| self.noted.clone()),
            _ => None,
        }
    }
}

impl Permit {
    pub(super) fn alone(kept: &Kept) -> Self {
        let known = kept.book().known.clone();
        Self {
            held: None,
            base: known.unwrap_or_else(|| kept.blank()),
            noted: None,
        }
    }

    pub(super) fn under(kept: &Kept, held: Held, stored: Option<Record>) -> Self {
        let mut base = stored.unwrap_or_else(|| kept.blank());
        if let Some(unsent) = kept.book().unsent.take()
            && base.intent.as_ref() == Some(&unsent.noted)
        {
            base.intent = unsent.before;
        }
        Self {
            held: Some(held),
            base,
            noted: None,
        }
    }

    /// How often what would be presented was presented before, without an answer; or why it is not presented again.
    pub(in crate::tokens) fn presented_before(&self, engine: &Engine, flight: &Flight) -> Result<u32, FetchError> {
        let Some(kept) = &engine.kept else { return Ok(0) };
        let of = self.name_of_what_is_presented(kept, engine);
        let Some(intent) = self.base.intent.as_ref().filter(|intent| intent.of == of) else {
            return Ok(0);
        };
        let (now, since) = (engine.now(), Wall::of(intent.since));
        let ago = |pause| Wall::of(intent.last).until(now) >= pause || kept.has_stood(intent, pause);
        if intent.refused {
            // As long as whoever asked for it would wait.
            let (pause, _) = engine.policy.pauses.verdict;
            return match flight.cause == Cause::Requested || ago(pause) {
                true => Ok(intent.times),
                false => Err(FetchError::terminal(REFUSED)),
            };
        }
        let again = match engine.provider.if_lost() {
            // Somebody wants it in spite of that.
            _ if flight.cause == Cause::Requested => true,
            IfLost::NeverReplay => false,
            // By a clock that was set back, nobody knows how long it is ago.
            IfLost::ReplayWithin(_) if now.until(since) > CLOCKS_AGREE => false,
            IfLost::ReplayWithin(limit) => intent.times < 2 && since.until(now) < limit,
            IfLost::ReplayOnce => intent.times < 2 || ago(MINUTE),
            IfLost::Idempotent => true,
        };
        match again {
            true => Ok(intent.times),
            false => Err(FetchError::transient(BEGUN).lost()),
        }
    }

    /// Notes, durably, that the credential is about to be presented. Nothing is presented if that cannot be.
    pub(in crate::tokens) async fn present(&mut self, engine: &Engine, flight: &Flight) -> Result<(), FetchError> {
        let Some(kept) = &engine.kept else { return Ok(()) };
        let Some(held) = &self.held else { return Ok(()) };
        if held.is_over() {
            return Err(withheld(StoreError::unavailable(OVER)));
        }
        if let Some(until) = &held.until {
            flight.budget.until(until.clone());
        }
        if !kept.spends {
            return Ok(());
        }
        let now = whole_millis(engine.clock.now());
        let of = self.name_of_what_is_presented(kept, engine);
        let before = self.base.intent.take().filter(|intent| intent.of == of);
        let noted = Intent {
            since: before.as_ref().map_or(now, |before| before.since),
            last: now,
            times: before.as_ref().map_or(0, |before| before.times).saturating_add(1),
            of,
            refused: false,
        };
        self.base.intent = Some(noted.clone());
        let unsent = Unsent { noted, before };
        let gives_up = Instant::now() + kept.patience;
        match self.note(kept, engine).await {
            Ok(Saved::Kept) => {}
            // Its answer was lost, and it is there: what is not used of it, others would hold against the credential.
            Err(_) if timeout_at(gives_up, self.is_noted(kept, engine)).await == Ok(true) => {}
            Err(_) if kept.alone => return Ok(()),
            Err(error) => {
                // It may be there all the same.
                kept.book().unsent = Some(unsent);
                return Err(withheld(error));
            }
            Ok(Saved::Overtaken) => return Err(withheld(StoreError::unavailable("another process took over"))),
        }
        self.noted = Some(unsent);
        match self.held.as_ref().is_some_and(Held::is_over) {
            // Stopped in the middle of it.
            true => Err(withheld(StoreError::unavailable(OVER))),
            false => Ok(()),
        }
    }

    async fn is_noted(&self, kept: &Kept, engine: &Engine) -> bool {
        let seen = kept.read(engine).await;
        let stored = seen.ok().and_then(|seen| seen.stored);
        stored.is_some_and(|stored| stored.generation == self.base.generation && stored.intent == self.base.intent)
    }

    /// What the exchange brings, unless the lease may end before it does.
    pub(in crate::tokens) async fn within<T>(&self, exchange: impl Future<Output = T>) -> Option<T> {
        match &self.held {
            Some(held) => held.within(exchange).await,
            None => Some(exchange.await),
        }
    }

    /// The configured token, where nothing is kept.
    pub(in crate::tokens) fn initial(&self, engine: &Engine) -> Option<Token> {
        let kept = engine.kept.as_ref()?;
        kept.book().initial.take().filter(|_| self.base.generation == 0)
    }

    /// Looks for what others have saved since: between two presentations, and before a verdict is believed.
    pub(in crate::tokens) async fn look_again(&self, engine: &Arc<Engine>) {
        let Some(kept) = &engine.kept else { return };
        kept.look(engine).await;
    }

    /// Its exchange brought a token. What it brought is saved with the lease.
    pub(in crate::tokens) fn into_held(self) -> Option<Held> {
        self.held
    }

    /// Its exchanges brought no token.
    pub(in crate::tokens) async fn failed(mut self, engine: &Arc<Engine>, flight: &Flight, error: &FetchError) {
        let Some(kept) = &engine.kept else { return };
        if is_verdict(error) && !error.is_of_store() {
            // Somebody else may have spent it, and have what came of it.
            self.look_again(engine).await;
        }
        let brought = error.brought_credential().cloned().map(Draft::credential);
        let saving = brought.and_then(|brought| {
            let desk = engine.desk();
            // Under the lock, so that who signs out or installs meanwhile comes after it.
            desk.counts(flight).then(|| kept.put(engine, brought, self.held.take()))
        });
        if let Some(saved) = saving {
            // Whether or not: it goes on being saved.
            let _ = tokio::time::timeout(kept.patience, saved).await;
            return;
        }
        // What became of a lost one is open, for whoever comes next as well.
        if let Some(unsent) = self.noted.take().filter(|_| !error.is_lost()) {
            self.base.intent = unsent.after(error);
            if !matches!(self.note(kept, engine).await, Ok(Saved::Kept)) {
                let before = self.base.intent.take();
                kept.book().unsent = Some(Unsent { before, ..unsent });
            }
        }
        if let Some(held) = self.held.take() {
            held.release().await;
        }
    }

    async fn note(&self, kept: &Kept, engine: &Engine) -> Result<Saved, StoreError> {
        let Some(lease) = self.held.as_ref().and_then(Held::lease) else {
            return Err(StoreError::unavailable("there is no lease"));
        };
        let saving = kept.store.save(&self.base, self.base.generation, lease);
        kept.ask(engine, Op::Save, saving).await
    }

    /// A credential is named by its hash.
    fn name_of_what_is_presented(&self, kept: &Kept, engine: &Engine) -> String {
        let credential = engine.desk().credential.clone();
        let credential = credential.as_ref().map(|credential| text(credential.expose()));
        let configured = kept.seed.as_ref().map(|seed| seed.expose().as_str());
        let presented = credential.as_ref().map(|text| text.expose().as_str()).or(configured);
        (kept.hash)(&self.base.salt, presented.unwrap_or_default())
    }
}

impl Kept {
    /// Whether we have seen this very intent for so long. A clock that was set back does not know that time has passed.
    fn has_stood(&self, intent: &Intent, pause: Duration) -> bool {
        let mut book = self.book();
        match &book.stands {
            Some((seen, since)) if seen == intent => since.elapsed() >= pause,
            _ => {
                book.stands = Some((intent.clone(), Instant::now()));
                false
            }
        }
    }
}

/// A text for each value, to be hashed: with the fields in the order of their names, which `serde_json` keeps or not as
/// other crates of the program want it.
pub(in crate::tokens) fn text(value: &Value) -> Secret<String> {
    let text = match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", text(value).expose()));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        _ => value.to_string(),
    };
    Secret::new(text)
}

fn is_verdict(error: &FetchError) -> bool {
    matches!(error.class(), Class::Terminal | Class::NeedsInteraction | Class::Config)
}

/// As it is written down.
fn whole_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

const OVER: &str = "the lease ended before it was used";
const BEGUN: &str = "the credential was being presented by a process that left no word of what became of it, \
                     and the provider's policy presents none again that may be spent";
const REFUSED: &str = "the issuer has said no to this credential, and it is presented to it again after a pause, \
                       or when somebody asks for that";
const MINUTE: Duration = Duration::from_secs(60);
/// Clocks of machines that share a store differ by less.
const CLOCKS_AGREE: Duration = Duration::from_secs(5);
