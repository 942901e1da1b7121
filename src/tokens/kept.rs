//! What outlives the process: the protocol between an engine, its store, and all others that share it.
//!
//! Around a fetch: [lease, read again, intent](claim) -> exchange, abandoned before the lease can end ->
//! [save](saver) -> publish -> release. Apart from fetches, somebody [looks](watcher) for what others have saved.
//!
//! What no lease can do: a process that is stopped between its last look at the lease and the first byte of its
//! request, for longer than the lease lasts, presents a credential that another may have presented meanwhile. The store
//! is safe from it (it compares, and it knows the number of the last lease), the issuer is not.

mod claim;
mod held;
mod permit;
mod saver;
mod watcher;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::engine::Engine;
use crate::error::{Class, FetchError};
use crate::event::Event;
use crate::lifetime::RefreshPolicy;
use crate::provider::{AnyProvider, IfLost, MOST};
use crate::store::{Intent, Record, Standing, StoreError, StoreFuture, StorePolicy, TokenStore};
use crate::sync::{AtomicBool, Mutex, MutexGuard};
use crate::token::{Secret, Token};

pub(super) use held::Held;
pub(super) use permit::{Permit, text};
pub(super) use saver::{Done, Draft};

/// A store, and what one engine knows of what is in it.
pub(super) struct Kept {
    store: Arc<dyn TokenStore>,
    patience: Duration,
    term: Duration,
    /// So long a holder may take that does all it may, or the lease of one that died.
    longest: Duration,
    /// Whether what may be spent is renewed without the store.
    alone: bool,
    /// Whether presenting the credential may spend it.
    spends: bool,
    owner: String,
    /// What was configured to begin from.
    seed: Option<Secret<String>>,
    hash: Hash,
    book: Mutex<Book>,
    /// How many leases are held and drafts not saved: whoever ends the process waits for none.
    busy: watch::Sender<usize>,
    /// A task looks for what others have saved.
    watching: AtomicBool,
}

/// A salted hash of a text: the salt, the text.
pub(super) type Hash = fn(&str, &str) -> String;

#[derive(Default)]
struct Book {
    /// The newest that was read or saved.
    known: Option<Record>,
    /// The generation that was there when it was looked last, whosever it is.
    seen: u64,
    /// What is in force here comes from the store, or has been saved to it: whoever changes it from now on is newer.
    settled: bool,
    /// The configured token, for a place where nothing is kept.
    initial: Option<Token>,
    /// What is not saved yet.
    slot: Option<saver::Slot>,
    /// How many drafts there were.
    drafts: u64,
    /// A task saves it.
    saving: bool,
    /// The lease that goes with it.
    held: Option<Held>,
    /// What the store refused last, until it does the hardest of what it refused.
    trouble: Option<(Op, StoreError)>,
    /// It could not be read when it was looked last.
    unreadable: bool,
    /// What may be noted of a credential that was not presented.
    unsent: Option<permit::Unsent>,
    /// The intent that kept us from presenting something, and since when we know it.
    stands: Option<(Intent, Instant)>,
    /// What the store had lost is being put back by all who knew it; until then nobody spends anything.
    settles: Option<Instant>,
}

/// What a store was asked for. Who can do the one can do what stands before it: what can be read may still not be
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    Load,
    Lease,
    Save,
}

impl Kept {
    pub(super) fn new(
        store: Arc<dyn TokenStore>,
        (policy, refresh): (&StorePolicy, &RefreshPolicy),
        provider: &dyn AnyProvider,
        (seed, hash): (Option<Secret<String>>, Hash),
        initial: Option<Token>,
    ) -> Self {
        Self {
            store,
            patience: policy.patience,
            term: policy.term(refresh),
            longest: policy
                .term(refresh)
                .saturating_add(refresh.fetch_timeout.saturating_mul(MOST)),
            alone: policy.alone,
            spends: provider.if_lost() != IfLost::Idempotent,
            owner: provider.owner(),
            seed,
            hash,
            book: Mutex::new(Book {
                initial,
                ..Book::default()
            }),
            busy: watch::Sender::new(0),
            watching: AtomicBool::new(false),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while it is held; a poisoned lock would still hold a whole book.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is in force would be lost with this process.
    pub(super) fn is_undurable(&self) -> bool {
        self.book().slot.as_ref().is_some_and(|slot| slot.in_force)
    }

    /// Why the store did not do what it was asked for last.
    pub(super) fn trouble(&self) -> Option<StoreError> {
        self.book().trouble.as_ref().map(|(_, error)| error.clone())
    }

    /// What somebody else saved while we were busy is taken in.
    pub(super) async fn look(&self, engine: &Arc<Engine>) {
        if let Ok(seen) = self.read(engine).await {
            self.look_at(engine, seen);
        }
    }

    /// What was put aside last is in use at once, and nobody is told of it: it was asked for here.
    pub(super) fn is_in_force(&self) {
        if let Some(slot) = &mut self.book().slot {
            slot.in_force = true;
        }
    }

    fn cannot_be_read(&self) -> bool {
        self.book().unreadable
    }

    /// Waits until nothing is held and nothing is unsaved, but not for long.
    pub(super) async fn idle(&self) {
        let mut busy = self.busy.subscribe();
        let _ = timeout(LAST_CHANCE, busy.wait_for(|busy| *busy == 0)).await;
    }

    /// What the store says, within our patience. What goes wrong is told once, until it goes right again.
    async fn ask<T>(&self, engine: &Engine, op: Op, call: StoreFuture<'_, T>) -> Result<T, StoreError> {
        let answer = timeout(self.patience, call).await;
        let answer = answer.unwrap_or_else(|_| {
            let patience = self.patience;
            Err(StoreError::unavailable(format!(
                "the store did not answer within {patience:?}"
            )))
        });
        self.note(engine, op, answer.as_ref().err());
        answer
    }

    fn note(&self, engine: &Engine, op: Op, error: Option<&StoreError>) {
        let event = {
            let mut book = self.book();
            match (&book.trouble, error) {
                (None, Some(error)) => {
                    book.trouble = Some((op, error.clone()));
                    Some(Event::StoreFailed { error: error.clone() })
                }
                (Some((failed, _)), None) if *failed <= op => {
                    book.trouble = None;
                    Some(Event::StoreRecovered)
                }
                (Some((failed, _)), Some(error)) => {
                    book.trouble = Some((op.max(*failed), error.clone()));
                    None
                }
                _ => None,
            }
        };
        if let Some(event) = event {
            engine.tell(&event);
        }
    }

    /// What is kept, if it is ours.
    async fn read(&self, engine: &Engine) -> Result<Seen, StoreError> {
        let known = self.known();
        let call = async {
            let record = self.store.load().await?;
            self.book().seen = record.as_ref().map_or(0, Record::generation);
            match &record {
                Some(record) if record.owner != self.owner => Err(StoreError::unusable(format!(
                    "what is kept belongs to `{}`, and these tokens are of `{}`",
                    record.owner, self.owner
                ))),
                _ => Ok(record),
            }
        };
        let stored = self.ask(engine, Op::Load, Box::pin(call)).await;
        self.book().unreadable = stored.is_err();
        Ok(Seen { stored: stored?, known })
    }

    /// Until something else may be there than when it was looked last; for ever, if the store cannot tell.
    async fn news(store: &dyn TokenStore, seen: u64) {
        if store.watch(seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The newest generation that was read or saved.
    fn known(&self) -> u64 {
        self.book().known.as_ref().map_or(0, Record::generation)
    }

    /// Whether `record` stands above the configuration: it began from the same, or from something newer.
    fn accepts(&self, record: &Record) -> bool {
        let Some(seed) = &self.seed else { return true };
        self.book().settled
            || record.seeds.is_empty()
            || record.seeds.contains(&(self.hash)(&record.salt, seed.expose()))
    }

    /// The hash of what these tokens began from.
    fn own_seed(&self, salt: &str) -> Option<String> {
        self.seed.as_ref().map(|seed| (self.hash)(salt, seed.expose()))
    }

    /// A record of a place where nothing is kept.
    fn blank(&self) -> Record {
        let salt = format!("{:032x}", fastrand::u128(..));
        Record {
            generation: 0,
            owner: self.owner.clone(),
            seeds: self.own_seed(&salt).into_iter().collect(),
            salt,
            standing: Standing::Renewed,
            token: None,
            credential: None,
            intent: None,
        }
    }
}

/// What was read.
struct Seen {
    stored: Option<Record>,
    /// What was known before it was asked for: what was saved meanwhile may not be in it.
    known: u64,
}

impl Seen {
    fn generation(&self) -> u64 {
        self.stored.as_ref().map_or(0, Record::generation)
    }

    /// Whether the store has less than it had: it was emptied, or put back to what it was.
    fn is_loss(&self) -> bool {
        self.generation() < self.known
    }
}

/// What was found where it was looked.
struct Found {
    /// What there is to do is done: there is a new state of things.
    is_news: bool,
    stored: Option<Record>,
}

/// What a failed call means for a fetch. Nothing was presented.
fn withheld(error: StoreError) -> FetchError {
    let class = match error.is_unusable() {
        true => Class::Config,
        false => Class::Transient,
    };
    let withheld = FetchError::new(class, format!("nothing was presented: {error}")).of_store();
    // What it says is said already; what it comes from is not.
    match error.into_source() {
        Some(source) => withheld.caused_by(source),
        None => withheld,
    }
}

/// How long whoever ends the process waits for the store.
const LAST_CHANCE: Duration = Duration::from_secs(5);
