//! What a store has to do, as rules that one can be held to: [`StoreSuite`].

mod cuts;
mod leases;
mod races;
mod records;
mod scene;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use self::scene::{Handle, Opener, Scene, Spoiler, Wrong};
use crate::TokenStore;

/// The rules of [`TokenStore`], each as a test of a store.
///
/// It is given a function that opens a store at the place of a name: a file, a key, the id of a row. Two that are opened
/// at one place are what two processes have. Every rule has a place of its own, of a name that was never used before.
///
/// ```
/// use tower_token::testkit::{BrokenRules, MemoryStore, StoreSuite};
/// # use std::collections::HashMap;
/// # use std::sync::{Arc, Mutex};
///
/// # #[derive(Clone, Default)]
/// # struct Database(Arc<Mutex<HashMap<String, MemoryStore>>>);
/// # impl Database {
/// #     async fn open(&self, place: String) -> MemoryStore {
/// #         self.0.lock().expect("nobody panics with it").entry(place).or_default().participant()
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BrokenRules> {
/// let database = Database::default();
/// let suite = StoreSuite::new(move |place| {
///     let database = database.clone();
///     async move { database.open(place).await }
/// });
/// suite.run().await
/// # }
/// ```
///
/// A store with leases that end takes a few of its [terms](Self::term), in real time unless its time is tokio's and
/// paused.
pub struct StoreSuite {
    open: Opener,
    term: Duration,
    deadline: Duration,
    watches: bool,
    spoil: Option<Spoiler>,
}

impl StoreSuite {
    /// The rules for the stores that `open` opens: it is given the name of a place, of letters, digits and `-`.
    #[must_use]
    pub fn new<S, F>(open: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        S: TokenStore,
        F: Future<Output = S> + Send + 'static,
    {
        let open = Arc::new(move |place| {
            let opened = open(place);
            Box::pin(async move { Arc::new(opened.await) as Handle }) as _
        });
        Self {
            open,
            term: Duration::from_millis(200),
            deadline: Duration::from_secs(5),
            watches: true,
            spoil: None,
        }
    }

    /// The term of the leases whose end is waited for. A store whose clock is coarse needs a longer one.
    ///
    /// Default: 200 ms. A lease may end a tenth of it early.
    #[must_use]
    pub fn term(mut self, term: Duration) -> Self {
        self.term = term;
        self
    }

    /// How much later than it should what must happen may happen: a lease ends, a watch resolves.
    ///
    /// Default: 5 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether the store tells of what others save. One whose [`watch`](TokenStore::watch) never resolves is a store as
    /// well.
    ///
    /// Default: yes.
    #[must_use]
    pub fn watches(mut self, watches: bool) -> Self {
        self.watches = watches;
        self
    }

    /// `spoil` puts something that is no record in the place of what is kept: half of it, or something else's. It is given
    /// the name of a place, where a record was saved. One more rule is about that.
    ///
    /// Default: that rule is left out.
    #[must_use]
    pub fn spoiled_by<F>(mut self, spoil: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spoil = Some(Arc::new(move |place| Box::pin(spoil(place))));
        self
    }

    /// Holds the store to every rule. What is about the end of a lease is left out where a lease
    /// [has none](crate::Lease::is_lasting).
    ///
    /// # Errors
    ///
    /// The rules that it breaks, and how each showed.
    pub async fn run(self) -> Result<(), BrokenRules> {
        let mut broken = Vec::new();
        macro_rules! rules {
            ($($sentence:literal: $rule:expr;)*) => {$(
                if let Err(Wrong(seen)) = self.hold($rule).await {
                    broken.push(Broken { rule: $sentence, seen });
                }
            )*};
        }
        rules! {
            "where nothing was saved, load is None": records::nothing_is_none;
            "what is saved is what is loaded, whole, by every handle": records::what_is_saved_is_loaded;
            "a save replaces the generation it expects and no other, and changes nothing if it is overtaken":
                records::only_the_expected_is_replaced;
            "a save that expects 0 replaces nothing, or a record of generation 0": records::zero_is_nothing;
            "a save may keep the generation": records::the_generation_may_stay;
            "a lease is given to one holder at a time": leases::one_at_a_time;
            "the number of a lease is greater than that of every lease before it": leases::numbers_grow;
            "a lease lasts for its term, and no longer": leases::a_term_ends;
            "a renewed lease lasts for the new term from then on": leases::renewed_from_now_on;
            "a lease that is not its holder's any more is not renewed": leases::only_the_holder_renews;
            "a lease is released by its holder only": leases::only_the_holder_releases;
            "a save under a lease is refused once a later one has saved, though the generation fits":
                leases::a_later_save_fences;
            "a save under a lease that has ended is kept if no later one has saved": leases::a_late_save_is_kept;
            "of those who save at a time and expect the same generation, one is kept": races::one_save_is_kept;
            "of those who want the lease at a time, one gets it": races::one_lease_is_given;
            "a load is whole and never goes back while others save, and a save that has resolved is seen":
                races::loads_are_whole;
            "a save that is dropped is done or not done, and harms nothing": cuts::a_dropped_save_is_whole;
            "a lease whose taker left on the way is given again, after its term at the latest":
                cuts::a_dropped_lease_ends;
        }
        if self.watches {
            rules! {
                "a watch resolves when something else is kept": races::a_watch_resolves;
            }
        }
        if let Some(spoil) = self.spoil.clone() {
            let neither = |scene| records::what_is_spoiled_is_neither_used_nor_replaced(scene, spoil);
            rules! {
                "what is no record is neither loaded nor taken for nothing": neither;
            }
        }
        if broken.is_empty() {
            Ok(())
        } else {
            Err(BrokenRules { broken })
        }
    }

    async fn hold<R>(&self, rule: impl FnOnce(Scene) -> R) -> Result<(), Wrong>
    where
        R: Future<Output = Result<(), Wrong>>,
    {
        let scene = Scene::new(Arc::clone(&self.open), self.term, self.deadline);
        let patience = PATIENCE.max(10 * (self.term + self.deadline));
        match timeout(patience, rule(scene)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Wrong(format!("it was not done within {patience:?}"))),
        }
    }
}

impl fmt::Debug for StoreSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSuite")
            .field("term", &self.term)
            .field("deadline", &self.deadline)
            .field("watches", &self.watches)
            .finish_non_exhaustive()
    }
}

/// The rules that a store breaks, from [`StoreSuite::run`]. Printed either way, it has a line for each.
#[derive(Clone)]
pub struct BrokenRules {
    broken: Vec<Broken>,
}

#[derive(Clone)]
struct Broken {
    rule: &'static str,
    seen: String,
}

impl BrokenRules {
    /// Each of them, in a sentence.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.broken.iter().map(|broken| broken.rule)
    }
}

impl fmt::Display for BrokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store breaks rules:")?;
        let mut lines = self.broken.iter();
        lines.try_for_each(|Broken { rule, seen }| write!(f, "\n- {rule}: {seen}"))
    }
}

/// The lines of `Display`, which a test that ends with this error is to show.
impl fmt::Debug for BrokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for BrokenRules {}

/// How long at least a rule may take altogether, so that a store that hangs is named.
const PATIENCE: Duration = Duration::from_secs(60);
