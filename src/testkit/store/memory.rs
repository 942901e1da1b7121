//! A store in memory, shared by its clones: [`MemoryStore`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::contents::Contents;
use super::faults::{Calls, Faults, StoreCall};
use crate::{Lease, Record, Saved, StoreError, StoreFuture, TokenStore};

/// A [`TokenStore`] in memory that fails on demand, for tests.
///
/// Its clones share one place: given to several [`Tokens`](crate::Tokens) they make a fleet in one process. It keeps the
/// bytes that [`Envelope`](crate::Envelope) writes, its leases end by tokio's clock, which a test can pause, and nothing
/// outlives the last clone. All that goes wrong with it is set while it is used, by any clone.
///
/// ```
/// use std::time::Duration;
/// use tower_token::testkit::{MemoryStore, StoreCall};
/// use tower_token::{StoreError, TokenStore};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), StoreError> {
/// let here = MemoryStore::new();
/// let there = here.participant();
/// let term = Duration::from_secs(45);
///
/// // Two processes, one right to renew.
/// let lease = here.lease(term).await?.expect("nobody has it");
/// assert!(there.lease(term).await?.is_none());
///
/// // The holder is cut off. After its term, the other one has a go.
/// here.on_all().hang();
/// tokio::time::advance(term).await;
/// let next = there.lease(term).await?.expect("it has ended");
/// assert!(next.fence() > lease.fence());
///
/// here.on_all().heal();
/// assert!(!here.renew(&lease, term).await?);
///
/// // A disk that is full can still be read.
/// there.full();
/// assert!(there.load().await?.is_none());
/// there.on(StoreCall::Load).fail(StoreError::unavailable("connection refused"));
/// assert!(there.load().await.is_err());
/// assert_eq!((here.loads(), here.leases(), here.saves()), (2, 3, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    place: Arc<Place>,
    /// Those of one participant; another one of the same place has others.
    faults: Arc<Faults>,
}

impl MemoryStore {
    /// Nothing is kept, nobody has the lease, nothing is wrong.
    #[must_use]
    pub fn new() -> Self {
        Self {
            place: Arc::default(),
            faults: Arc::default(),
        }
    }

    /// The same place as another process sees it: what goes wrong with the one does not with the other.
    #[must_use]
    pub fn participant(&self) -> Self {
        Self {
            place: Arc::clone(&self.place),
            faults: Arc::default(),
        }
    }

    /// What goes wrong with one kind of call, for this participant.
    pub fn on(&self, call: StoreCall) -> Calls<'_> {
        self.faults.on(Some(call))
    }

    /// What goes wrong with every call, for this participant.
    pub fn on_all(&self) -> Calls<'_> {
        self.faults.on(None)
    }

    /// Every call does nothing and answers this.
    pub fn fail(&self, error: StoreError) -> &Self {
        self.on_all().fail(error);
        self
    }

    /// Every call is pending until it is [healed](Self::heal).
    pub fn hang(&self) -> &Self {
        self.on_all().hang();
        self
    }

    /// Every call takes so long.
    pub fn delay(&self, by: Duration) -> &Self {
        self.on_all().delay(by);
        self
    }

    /// Saves fail, the rest works.
    pub fn full(&self) -> &Self {
        let full = StoreError::unavailable("no space is left");
        self.on(StoreCall::Save).fail(full);
        self
    }

    /// Nothing is wrong any more, for this participant. What was [put](Self::put_bytes) there stays.
    pub fn heal(&self) -> &Self {
        self.on_all().heal();
        self
    }

    /// Everything kept is gone, lease and numbers too: a Redis that was restarted empty.
    pub fn lose(&self) -> &Self {
        self.change(|contents| *contents = Contents::default())
    }

    /// Everything kept, to be [put back](Self::restore) later: a backup.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.state().contents.clone())
    }

    /// Puts an older state back, lease and numbers too. A lease in it ends when it would have.
    pub fn restore(&self, snapshot: &Snapshot) -> &Self {
        self.change(|contents| *contents = snapshot.0.clone())
    }

    /// The bytes that are kept. They hold secrets.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.state().contents.bytes.clone()
    }

    /// Puts these bytes in the place of what is kept: torn, foreign, with a bit flipped.
    pub fn put_bytes(&self, bytes: impl Into<Vec<u8>>) -> &Self {
        let bytes = bytes.into();
        self.change(|contents| contents.bytes = Some(bytes))
    }

    /// The record that is kept; `None` if there is none or it cannot be read.
    pub fn record(&self) -> Option<Record> {
        self.state().contents.record().ok().flatten()
    }

    /// The lease in force ends now, and its holder does not know.
    pub fn expire_lease(&self) -> &Self {
        self.change(Contents::expire_lease)
    }

    /// Whether somebody has the lease now.
    pub fn is_leased(&self) -> bool {
        self.state().contents.is_leased()
    }

    /// How often it was asked to load, by all participants and whatever came of it; as are all these counts.
    pub fn loads(&self) -> u64 {
        self.calls(StoreCall::Load)
    }

    /// How often it was asked to save. [`history`](Self::history) has those that were kept.
    pub fn saves(&self) -> u64 {
        self.calls(StoreCall::Save)
    }

    /// How often it was asked for the lease.
    pub fn leases(&self) -> u64 {
        self.calls(StoreCall::Lease)
    }

    /// How often it was asked to let a lease last longer.
    pub fn renewals(&self) -> u64 {
        self.calls(StoreCall::Renew)
    }

    /// How often a lease was given back.
    pub fn releases(&self) -> u64 {
        self.calls(StoreCall::Release)
    }

    /// The generation and the [number of the lease](Lease::fence) of every save that was kept, in their order. It is
    /// not lost with what is kept.
    pub fn history(&self) -> Vec<(u64, u64)> {
        self.state().history.clone()
    }

    fn calls(&self, call: StoreCall) -> u64 {
        self.state().calls[call as usize]
    }

    fn change(&self, change: impl FnOnce(&mut Contents)) -> &Self {
        change(&mut self.state().contents);
        self.place.changes.send_replace(());
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.place.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: it arrives, suffers what is wrong with its kind, and acts in one step.
    fn call<'a, T: Send>(
        &'a self,
        call: StoreCall,
        act: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            self.state().calls[call as usize] += 1;
            let lost = self.faults.pass(call).await?;
            let answer = act(&mut self.state());
            if call == StoreCall::Save {
                self.place.changes.send_replace(());
            }
            lost.map_or(answer, Err)
        })
    }
}

impl TokenStore for MemoryStore {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        self.call(StoreCall::Load, |state| state.contents.record())
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        self.call(StoreCall::Save, move |state| state.save(record, expected, lease))
    }

    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>> {
        self.call(StoreCall::Lease, move |state| Ok(state.contents.lease(term)))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool> {
        self.call(StoreCall::Renew, move |state| Ok(state.contents.renew(lease, term)))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        self.call(StoreCall::Release, move |state| {
            state.contents.release(lease);
            Ok(())
        })
    }

    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let (mut changes, mut faults) = (self.place.changes.subscribe(), self.faults.changes());
            self.state().calls[StoreCall::Watch as usize] += 1;
            loop {
                let lost = self.faults.pass(StoreCall::Watch).await?;
                if self.state().contents.generation()? != seen {
                    return lost.map_or(Ok(()), Err);
                }
                // Neither sender goes away while `self` is here. A fault ends a watch that is pending.
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = faults.changed() => {}
                }
            }
        })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryStore")
            .field("bytes", &state.contents.bytes.as_ref().map(Vec::len))
            .field("leased", &state.contents.is_leased())
            .field("history", &state.history)
            .finish_non_exhaustive()
    }
}

/// What a [`MemoryStore`] kept at one time.
#[derive(Clone)]
pub struct Snapshot(Contents);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.0.generation().ok();
        f.debug_struct("Snapshot")
            .field("generation", &generation)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Place {
    state: Mutex<State>,
    /// Told when something else may be kept.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    contents: Contents,
    calls: [u64; StoreCall::KINDS],
    history: Vec<(u64, u64)>,
}

impl State {
    fn save(&mut self, record: &Record, expected: u64, lease: &Lease) -> Result<Saved, StoreError> {
        let saved = self.contents.save(record, expected, lease)?;
        if saved == Saved::Kept {
            self.history.push((record.generation(), lease.fence()));
        }
        Ok(saved)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::Secret;
    use crate::store::Standing;

    const TERM: Duration = Duration::from_secs(45);

    fn generation(generation: u64) -> Record {
        Record {
            generation,
            owner: "an owner".into(),
            salt: "5a17".into(),
            seeds: Vec::new(),
            standing: Standing::Renewed,
            token: None,
            credential: Some(Secret::new(json!("test-credential"))),
            intent: None,
        }
    }

    async fn saved(store: &MemoryStore, number: u64) -> Lease {
        let lease = store.lease(TERM).await.unwrap().unwrap();
        let saved = store.save(&generation(number), number - 1, &lease).await;
        assert_eq!(saved.unwrap(), Saved::Kept);
        lease
    }

    fn kept(store: &MemoryStore) -> Option<u64> {
        store.record().map(|record| record.generation())
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_does_what_it_says_to_its_own_participant() {
        let here = MemoryStore::new();
        let there = here.participant();
        let lease = saved(&here, 1).await;
        let second = generation(2);
        let save = || here.save(&second, 1, &lease);

        here.full();
        assert!(save().await.is_err() && here.load().await.is_ok());
        assert_eq!(there.save(&generation(1), 1, &lease).await.unwrap(), Saved::Kept);
        here.hang();
        assert!(timeout(TERM, save()).await.is_err());
        assert_eq!(kept(&here), Some(1));
        here.heal().delay(TERM);
        assert!(timeout(TERM - Duration::from_millis(1), save()).await.is_err());
        assert_eq!(kept(&here), Some(1));
        here.heal()
            .on(StoreCall::Save)
            .fail_after(StoreError::unavailable("the answer was lost"));
        assert!(save().await.is_err());
        assert_eq!(kept(&here), Some(2));
        assert_eq!((here.history(), here.saves()), (vec![(1, 1), (1, 1), (2, 1)], 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_goes_on_when_it_is_healed() {
        let store = MemoryStore::new();
        store.hang();
        let healed = async {
            advance(TERM).await;
            store.heal();
        };
        let (lease, ()) = tokio::join!(store.lease(TERM), healed);
        assert!(lease.unwrap().is_some() && store.is_leased());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_with_what_is_saved_lost_or_wrong() {
        let store = MemoryStore::new();
        saved(&store, 1).await;
        store.watch(0).await.unwrap();
        let next = async {
            store.expire_lease();
            saved(&store, 2).await;
        };
        let (watched, _) = tokio::join!(store.watch(1), next);
        watched.unwrap();
        assert!(timeout(TERM, store.watch(2)).await.is_err());
        let (watched, _) = tokio::join!(store.watch(2), async { store.lose() });
        watched.unwrap();
        let (watched, _) = tokio::join!(store.watch(0), async { store.put_bytes("torn") });
        assert!(watched.unwrap_err().is_unusable());
        store.lose();
        let gone = async { store.fail(StoreError::unavailable("gone")) };
        let (watched, _) = tokio::join!(store.watch(0), gone);
        assert!(watched.is_err_and(|error| !error.is_unusable()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_lost_or_restored_is_as_it_was_and_the_history_stays() {
        let store = MemoryStore::new();
        let first = saved(&store, 1).await;
        let backup = store.snapshot();
        assert_eq!(store.save(&generation(2), 1, &first).await.unwrap(), Saved::Kept);
        store.restore(&backup);
        assert_eq!((kept(&store), store.is_leased()), (Some(1), true));
        store.lose();
        assert_eq!((kept(&store), store.is_leased()), (None, false));
        assert!(!store.renew(&first, TERM).await.unwrap());

        // The numbers begin again, and still nobody takes the one lease for the other.
        let other = saved(&store, 1).await;
        assert_eq!(other.fence(), first.fence());
        assert_eq!(store.save(&generation(2), 1, &first).await.unwrap(), Saved::Overtaken);
        store.release(&first).await.unwrap();
        assert!(store.is_leased());
        assert_eq!(store.history(), [(1, 1), (2, 1), (1, 1)]);
    }

    #[tokio::test]
    async fn debug_prints_no_secret() {
        let store = MemoryStore::new();
        let lease = saved(&store, 1).await;
        let printed = format!("{store:?} {:?} {lease:?}", store.snapshot());
        assert!(
            !printed.contains("test-") && !printed.contains(lease.owner()),
            "{printed}"
        );
    }
}
