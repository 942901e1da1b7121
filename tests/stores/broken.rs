//! A store in memory that breaks one rule.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::task::yield_now;
use tokio::time::sleep;
use tower_token::testkit::MemoryStore;
use tower_token::{Envelope, Lease, Record, Saved, StoreError, StoreFuture, TokenStore};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    NothingIsAnError,
    LoadsTheLastButOne,
    LosesTheScope,
    SavesWithoutComparing,
    SavesAndSaysOvertaken,
    ZeroIsNothingOnly,
    RefusesNotes,
    GivesALeaseTwice,
    NumbersStay,
    NumbersBeginAgain,
    TermsAreHalved,
    TermsHaveNoEnd,
    RenewsOnlyInWords,
    RenewsForEver,
    RenewsForAnybody,
    ReleasesForAnybody,
    SavesUnderAnyLease,
    SavesOnlyForTheHolder,
    ComparesAndThenReplaces,
    LooksAndThenLeases,
    SavesInTwoParts,
    SavesLater,
    WaitsForTheLease,
    LeasesInTwoSteps,
    TakesTornForNothing,
    ReplacesTorn,
    WatchIsDeaf,
    Hangs,
    Fails,
    /// That is none: a file's lease is like that.
    LeasesLast,
}

use How::*;

/// Each with the rule that it breaks, if with others.
pub(crate) const HOW: [(How, &str); 28] = [
    (NothingIsAnError, "where nothing was saved, load is None"),
    (
        LoadsTheLastButOne,
        "what is saved is what is loaded, whole, by every handle",
    ),
    (LosesTheScope, "what is saved is what is loaded, whole, by every handle"),
    (
        SavesWithoutComparing,
        "a save replaces the generation it expects and no other, and changes nothing if it is overtaken",
    ),
    (
        SavesAndSaysOvertaken,
        "a save replaces the generation it expects and no other, and changes nothing if it is overtaken",
    ),
    (
        ZeroIsNothingOnly,
        "a save that expects 0 replaces nothing, or a record of generation 0",
    ),
    (RefusesNotes, "a save may keep the generation"),
    (GivesALeaseTwice, "a lease is given to one holder at a time"),
    (
        NumbersStay,
        "the number of a lease is greater than that of every lease before it",
    ),
    (
        NumbersBeginAgain,
        "the number of a lease is greater than that of every lease before it",
    ),
    (TermsAreHalved, "a lease lasts for its term, and no longer"),
    (TermsHaveNoEnd, "a lease lasts for its term, and no longer"),
    (RenewsOnlyInWords, "a renewed lease lasts for the new term from then on"),
    (RenewsForEver, "a renewed lease lasts for the new term from then on"),
    (
        RenewsForAnybody,
        "a lease that is not its holder's any more is not renewed",
    ),
    (ReleasesForAnybody, "a lease is released by its holder only"),
    (
        SavesUnderAnyLease,
        "a save under a lease is refused once a later one has saved, though the generation fits",
    ),
    (
        SavesOnlyForTheHolder,
        "a save under a lease that has ended is kept if no later one has saved",
    ),
    (
        ComparesAndThenReplaces,
        "of those who save at a time and expect the same generation, one is kept",
    ),
    (LooksAndThenLeases, "of those who want the lease at a time, one gets it"),
    (
        SavesInTwoParts,
        "a load is whole and never goes back while others save, and a save that has resolved is seen",
    ),
    (
        SavesLater,
        "a load is whole and never goes back while others save, and a save that has resolved is seen",
    ),
    (
        SavesInTwoParts,
        "a save that is dropped is done or not done, and harms nothing",
    ),
    (WatchIsDeaf, "a watch resolves when something else is kept"),
    (WaitsForTheLease, "a lease is given to one holder at a time"),
    (
        LeasesInTwoSteps,
        "a lease whose taker left on the way is given again, after its term at the latest",
    ),
    (
        TakesTornForNothing,
        "what is no record is neither loaded nor taken for nothing",
    ),
    (
        ReplacesTorn,
        "what is no record is neither loaded nor taken for nothing",
    ),
];

pub(crate) struct BrokenStore {
    memory: MemoryStore,
    how: How,
    /// What was kept before the last save of this handle.
    before: Arc<Mutex<Option<Record>>>,
}

impl BrokenStore {
    pub(crate) fn new(memory: MemoryStore, how: How) -> Self {
        match how {
            Hangs => drop(memory.hang()),
            Fails => drop(memory.fail(StoreError::unavailable("connection refused"))),
            _ => {}
        }
        Self {
            memory,
            how,
            before: Arc::default(),
        }
    }

    fn generation(&self) -> u64 {
        self.memory.record().map_or(0, |record| record.generation())
    }

    async fn put(&self, record: &Record, expected: u64, lease: &Lease) -> Result<Saved, StoreError> {
        let anybody = || Lease::new(u64::MAX);
        let there = self.memory.record();
        *self.before.lock().unwrap() = there.clone();
        match self.how {
            ReplacesTorn if self.memory.load().await.is_err() => {
                self.memory.put_bytes(Envelope::plain().write(record).unwrap());
                Ok(Saved::Kept)
            }
            SavesWithoutComparing => self.memory.save(record, self.generation(), lease).await,
            SavesAndSaysOvertaken => {
                if self.memory.save(record, expected, lease).await? == Saved::Overtaken {
                    self.memory.put_bytes(Envelope::plain().write(record).unwrap());
                    return Ok(Saved::Overtaken);
                }
                Ok(Saved::Kept)
            }
            ZeroIsNothingOnly if expected == 0 && there.is_some() => Ok(Saved::Overtaken),
            RefusesNotes if there.is_some() && record.generation() == expected => Ok(Saved::Overtaken),
            SavesUnderAnyLease => self.memory.save(record, expected, &anybody()).await,
            SavesOnlyForTheHolder => {
                let held = self.memory.renew(lease, AGES).await?;
                if held {
                    self.memory.save(record, expected, lease).await
                } else {
                    Ok(Saved::Overtaken)
                }
            }
            ComparesAndThenReplaces => {
                if self.generation() != expected {
                    return Ok(Saved::Overtaken);
                }
                yield_now().await;
                self.memory.save(record, self.generation(), &anybody()).await
            }
            SavesInTwoParts => {
                let saved = self.memory.save(record, expected, lease).await?;
                if saved == Saved::Kept {
                    let whole = Envelope::plain().write(record).unwrap();
                    self.memory.put_bytes(&whole[..whole.len() / 2]);
                    yield_now().await;
                    self.memory.put_bytes(whole);
                }
                Ok(saved)
            }
            SavesLater => {
                if self.generation() != expected {
                    return Ok(Saved::Overtaken);
                }
                let (memory, record) = (self.memory.clone(), record.clone());
                tokio::spawn(async move {
                    yield_now().await;
                    memory.save(&record, expected, &Lease::new(u64::MAX)).await
                });
                Ok(Saved::Kept)
            }
            LosesTheScope => {
                let saved = self.memory.save(record, expected, lease).await?;
                if saved == Saved::Kept {
                    self.memory
                        .put_bytes(without_scope(&Envelope::plain().write(record).unwrap()));
                }
                Ok(saved)
            }
            _ => self.memory.save(record, expected, real(lease)).await,
        }
    }

    async fn give(&self, term: Duration) -> Result<Option<Lease>, StoreError> {
        match self.how {
            WaitsForTheLease => {
                while self.memory.is_leased() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            LeasesInTwoSteps => {
                let Some(lease) = self.memory.lease(AGES).await? else {
                    return Ok(None);
                };
                yield_now().await;
                self.memory.renew(&lease, term).await?;
                return Ok(Some(lease));
            }
            GivesALeaseTwice => drop(self.memory.expire_lease()),
            LooksAndThenLeases if !self.memory.is_leased() => {
                yield_now().await;
                self.memory.expire_lease();
            }
            _ => {}
        }
        let term = match self.how {
            TermsAreHalved => term / 2,
            TermsHaveNoEnd | LeasesLast => AGES,
            _ => term,
        };
        let lease = self.memory.lease(term).await?;
        Ok(lease.map(|lease| match self.how {
            NumbersStay => Lease::new(1).guard(lease),
            NumbersBeginAgain => Lease::new(10 - lease.fence() % 10).guard(lease),
            LeasesLast => Lease::new(lease.fence()).lasting().guard(lease),
            _ => lease,
        }))
    }

    async fn prolong(&self, lease: &Lease, term: Duration) -> Result<bool, StoreError> {
        match self.how {
            RenewsOnlyInWords => Ok(self.memory.is_leased()),
            RenewsForAnybody => Ok(true),
            RenewsForEver => self.memory.renew(lease, Duration::MAX).await,
            _ => self.memory.renew(real(lease), term).await,
        }
    }
}

impl TokenStore for BrokenStore {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        Box::pin(async move {
            let loaded = match (self.memory.load().await, self.how) {
                (Err(_), TakesTornForNothing) => None,
                (loaded, _) => loaded?,
            };
            match self.how {
                NothingIsAnError if loaded.is_none() => Err(StoreError::unusable("no such row")),
                LoadsTheLastButOne => Ok(self.before.lock().unwrap().clone().or(loaded)),
                _ => Ok(loaded),
            }
        })
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        Box::pin(self.put(record, expected, lease))
    }

    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>> {
        Box::pin(self.give(term))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool> {
        Box::pin(self.prolong(lease, term))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        if self.how == ReleasesForAnybody {
            self.memory.expire_lease();
        }
        self.memory.release(real(lease))
    }

    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        match self.how {
            WatchIsDeaf => Box::pin(std::future::pending()),
            _ => self.memory.watch(seen),
        }
    }
}

const AGES: Duration = Duration::from_secs(24 * 3600);

/// The one that the store in memory gave.
fn real(lease: &Lease) -> &Lease {
    lease.guarded().unwrap_or(lease)
}

/// The sheet of a store that made a record of its own of it: its sum fits.
fn without_scope(sheet: &[u8]) -> Vec<u8> {
    let mut sheet: Value = serde_json::from_slice(sheet).unwrap();
    if let Some(token) = sheet["record"]["token"].as_object_mut() {
        token.remove("scope");
    }
    let record = RawValue::from_string(sheet["record"].to_string()).unwrap();
    let sum: String = Sha256::digest(record.get())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    sheet["sum"] = sum.into();
    sheet.to_string().into_bytes()
}
