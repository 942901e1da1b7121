//! Saving what is in force: [`Draft`], and the task that goes on until the store has it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::{Held, Kept, Op};
use crate::event::Event;
use crate::store::{Record, Saved, Standing, StoreError};
use crate::sync::Handle;
use crate::token::{Secret, Token};
use crate::tokens::engine::Engine;

/// What is to be saved as the next generation.
#[derive(Clone)]
pub(in crate::tokens) struct Draft {
    standing: Standing,
    token: Option<Token>,
    credential: Option<Secret<Value>>,
    /// What the store had already, and has lost.
    lost: Option<Box<Record>>,
}

impl Draft {
    pub(in crate::tokens) fn renewed(token: Token, credential: Option<Secret<Value>>) -> Self {
        Self {
            standing: Standing::Renewed,
            token: Some(token),
            credential,
            lost: None,
        }
    }

    /// Only what the next token is fetched with.
    pub(super) fn credential(credential: Value) -> Self {
        Self {
            standing: Standing::Renewed,
            token: None,
            credential: Some(Secret::new(credential)),
            lost: None,
        }
    }

    /// All tokens before it are forgotten: a credential was installed, or somebody signed out.
    pub(in crate::tokens) fn left(credential: Option<Value>) -> Self {
        Self {
            standing: match credential {
                Some(_) => Standing::Installed,
                None => Standing::SignedOut,
            },
            token: None,
            credential: credential.map(Secret::new),
            lost: None,
        }
    }

    /// As the record that replaces `base`.
    fn over(self, kept: &Kept, base: Option<&Record>) -> Record {
        if let Some(lost) = self.lost {
            return *lost;
        }
        let base = base.cloned().unwrap_or_else(|| kept.blank());
        let mut seeds = base.seeds;
        if let Some(own) = kept.own_seed(&base.salt).filter(|own| !seeds.contains(own)) {
            seeds.insert(0, own);
            seeds.truncate(SEEDS);
        }
        Record {
            generation: base.generation.saturating_add(1),
            owner: base.owner,
            salt: base.salt,
            seeds,
            standing: self.standing,
            token: self.token,
            credential: self.credential,
            intent: None,
        }
    }
}

/// What waits to be saved.
pub(super) struct Slot {
    draft: Draft,
    number: u64,
    done: Option<oneshot::Sender<Done>>,
    /// It is in use although it is not saved.
    pub(super) in_force: bool,
    /// And that was told, so its end is as well.
    told: bool,
}

/// What became of a draft.
pub(in crate::tokens) enum Done {
    /// It is durable, and the lease is given back.
    Kept(Option<Held>),
    /// Somebody else has saved something newer, which stands above it.
    Overtaken,
}

impl Kept {
    /// Has `draft` saved, by a task that goes on until it is. The newest stands above what is not saved yet.
    pub(in crate::tokens) fn put(
        &self,
        engine: &Arc<Engine>,
        draft: Draft,
        held: Option<Held>,
    ) -> oneshot::Receiver<Done> {
        let (done, saved) = oneshot::channel();
        let runtime = Handle::try_current();
        let mut book = self.book();
        // What was lost gives way to what was done since.
        if draft.lost.is_some() && book.slot.is_some() {
            return saved;
        }
        book.drafts += 1;
        let number = book.drafts;
        // What it takes the place of is in use and not saved: so it stays, until this is.
        let (in_force, told) = match &book.slot {
            Some(slot) => (slot.in_force, slot.told),
            None => {
                self.busy.send_modify(|busy| *busy += 1);
                (false, false)
            }
        };
        book.slot = Some(Slot {
            draft,
            number,
            done: Some(done),
            in_force,
            told,
        });
        let spare = match held {
            Some(held) => book.held.replace(held),
            None => None,
        };
        let begins = runtime.is_ok() && !std::mem::replace(&mut book.saving, runtime.is_ok());
        drop(book);
        // Outside the lock: it is given back by a task.
        drop(spare);
        if let (true, Ok(runtime)) = (begins, runtime) {
            runtime.spawn(Saver::of(engine).run());
        }
        saved
    }

    /// The same of what the store had, and has no longer.
    pub(super) fn put_back(&self, engine: &Arc<Engine>, lost: Record) {
        let draft = Draft {
            lost: Some(Box::new(lost)),
            ..Draft::left(None)
        };
        drop(self.put(engine, draft, None));
    }

    /// A task is started for what was put aside where none could be, or whose task has ended.
    pub(in crate::tokens) fn resume_saving(&self, engine: &Arc<Engine>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut book = self.book();
        if book.slot.is_some() && !std::mem::replace(&mut book.saving, true) {
            drop(book);
            runtime.spawn(Saver::of(engine).run());
        }
    }

    pub(in crate::tokens) fn has_draft(&self) -> bool {
        self.book().slot.is_some()
    }

    /// What is put aside is in use from now on, if it is not saved by now.
    pub(in crate::tokens) fn in_force(&self, engine: &Engine) {
        let error = {
            let mut book = self.book();
            let trouble = book.trouble.as_ref().map(|(_, error)| error.clone());
            let Some(slot) = book.slot.as_mut().filter(|slot| !slot.told) else {
                return;
            };
            (slot.in_force, slot.told) = (true, true);
            trouble.unwrap_or_else(|| StoreError::unavailable("the store has not answered yet"))
        };
        engine.tell(&Event::Undurable { error });
    }

    /// Waits until nothing is unsaved, as long as we wait for any answer.
    pub(super) async fn saved_at_last(&self) -> Result<(), StoreError> {
        let gives_up = Instant::now() + self.patience;
        while self.has_draft() {
            if Instant::now() >= gives_up {
                let trouble = self.trouble();
                return Err(trouble.unwrap_or_else(|| StoreError::unavailable("it has not taken the last token yet")));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// One try.
    async fn save_once(
        &self,
        engine: &Arc<Engine>,
        draft: Draft,
        held: &mut Option<Held>,
    ) -> Result<Verdict, StoreError> {
        // What was read under this very lease is what is there.
        let read = held.as_ref().is_some_and(|held| !held.is_over()) && !self.was_doubtful();
        // One that is over by our clock does as well: the store compares. Given back first, it would let in somebody who
        // presents what is spent.
        if held.is_none() {
            *held = self.lease(engine).await?;
        }
        let Some(lease) = held.as_ref().and_then(Held::lease) else {
            return Ok(Verdict::Busy);
        };
        let stored = match read {
            true => self.book().known.clone(),
            false => self.read(engine).await?.stored,
        };
        if let Some(is_ours) = self.is_answered_by(engine, &draft, stored.as_ref()) {
            return Ok(Verdict::Done(is_ours));
        }
        let known = self.book().known.clone();
        // After a loss the count goes on where it was.
        let base = [stored.as_ref(), known.as_ref()].into_iter().flatten();
        let record = draft.over(self, base.max_by_key(|record| record.generation));
        let expected = stored.as_ref().map_or(0, Record::generation);
        let saving = self.store.save(&record, expected, lease);
        match self.ask(engine, Op::Save, saving).await? {
            Saved::Kept => {
                self.is_kept(engine, record);
                Ok(Verdict::Done(true))
            }
            Saved::Overtaken => Ok(Verdict::Overtaken),
        }
    }

    /// Whether `draft` need not be saved, because of what is `stored`; and if so, whether it is what is kept.
    fn is_answered_by(&self, engine: &Engine, draft: &Draft, stored: Option<&Record>) -> Option<bool> {
        let stored = stored?;
        if let Some(lost) = &draft.lost {
            // Put back by somebody else. What it says is taken in when it is looked at.
            return (stored.generation >= lost.generation).then_some(true);
        }
        if stored.generation <= self.known() {
            return None;
        }
        if draft.is_saved_as(stored) {
            self.is_kept(engine, stored.clone());
            return Some(true);
        }
        let is_overtaken = draft.standing == Standing::Renewed && self.accepts(stored);
        is_overtaken.then_some(false)
    }

    /// Whether what we know may not be what is there.
    fn was_doubtful(&self) -> bool {
        self.book().known.is_none() || self.book().slot.as_ref().is_some_and(|slot| slot.in_force)
    }

    fn is_kept(&self, engine: &Engine, record: Record) {
        engine.desk().is_kept(record.generation);
        let mut book = self.book();
        book.settled = true;
        book.seen = record.generation;
        book.known = Some(record);
    }
}

impl Draft {
    /// A save whose answer was lost may have been done.
    fn is_saved_as(&self, stored: &Record) -> bool {
        stored.standing == self.standing
            && self.token.as_ref().map(Token::secret) == stored.token.as_ref().map(Token::secret)
            && self.credential.as_ref().map(Secret::expose) == stored.credential.as_ref().map(Secret::expose)
    }
}

/// What one try came to.
enum Verdict {
    /// It need not be tried again; whether it is what is kept.
    Done(bool),
    /// Another holds the lease.
    Busy,
    /// The lease was another's.
    Overtaken,
}

/// Saves what is put aside until nothing is.
struct Saver {
    engine: Arc<Engine>,
    /// It found nothing more to save; another may have been started since.
    is_done: bool,
}

impl Saver {
    fn of(engine: &Arc<Engine>) -> Self {
        Self {
            engine: engine.clone(),
            is_done: false,
        }
    }

    async fn run(mut self) {
        let Some(kept) = &self.engine.kept else { return };
        let mut held = None;
        let mut pause = FIRST_PAUSE;
        let mut orphaned = None;
        while let Some((number, draft)) = self.next(kept, &mut held) {
            match kept.save_once(&self.engine, draft, &mut held).await {
                Ok(Verdict::Done(kept_as_it_is)) => {
                    pause = FIRST_PAUSE;
                    self.done(kept, number, kept_as_it_is, &mut held);
                }
                Ok(Verdict::Busy) => sleep(LOOK_AGAIN).await,
                Ok(Verdict::Overtaken) => {
                    if let Some(held) = held.take() {
                        held.release().await;
                    }
                    sleep(LOOK_AGAIN).await;
                }
                Err(_) => {
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
            // Nobody is there any more who could use it: it is tried for another minute.
            let alone = Arc::strong_count(&self.engine) == 1;
            let since = *orphaned.get_or_insert_with(Instant::now);
            if !alone {
                orphaned = None;
            } else if since.elapsed() > FOR_NOBODY {
                return;
            }
        }
        self.is_done = true;
        if let Some(held) = held {
            held.release().await;
        }
    }

    /// What to save now; `None` once there is nothing, and then nobody saves.
    fn next(&self, kept: &Kept, held: &mut Option<Held>) -> Option<(u64, Draft)> {
        let mut book = kept.book();
        let handed = book.held.take();
        let next = book.slot.as_ref().map(|slot| (slot.number, slot.draft.clone()));
        book.saving = next.is_some();
        drop(book);
        // Outside the lock: the one before it is given back by a task.
        *held = handed.or(held.take());
        next
    }

    fn done(&self, kept: &Kept, number: u64, as_it_is: bool, held: &mut Option<Held>) {
        let slot = {
            let mut book = kept.book();
            // Something newer may have been put aside meanwhile.
            if book.slot.as_ref().is_none_or(|slot| slot.number != number) {
                return;
            }
            book.slot.take()
        };
        kept.busy.send_modify(|busy| *busy -= 1);
        let Some(slot) = slot else { return };
        if slot.told {
            self.engine.tell(&Event::Durable);
        }
        let outcome = if as_it_is {
            Done::Kept(held.take())
        } else {
            Done::Overtaken
        };
        if let Some(Err(Done::Kept(returned))) = slot.done.map(|done| done.send(outcome)) {
            // Its flight waits for it no longer.
            *held = returned;
        }
    }
}

impl Drop for Saver {
    /// Its runtime ended: whoever comes next goes on with it.
    fn drop(&mut self) {
        if let Some(kept) = self.engine.kept.as_ref().filter(|_| !self.is_done) {
            kept.book().saving = false;
        }
    }
}

impl Kept {
    /// How a landing waits: until it is durable, or `limit` is over.
    pub(in crate::tokens) async fn durable(&self, saved: oneshot::Receiver<Done>, limit: Duration) -> Option<Done> {
        timeout(limit, saved).await.ok()?.ok()
    }

    pub(in crate::tokens) fn patience(&self) -> Duration {
        self.patience
    }
}

/// So many that began from something older are told that they were overtaken.
const SEEDS: usize = 8;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Whoever waits for a store has to be back within two seconds of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const FOR_NOBODY: Duration = Duration::from_secs(60);
