//! What outlives the process: [`TokenStore`] is where a token is kept, and by what one process of many renews it.
//!
//! A store keeps one [`Record`] and hands out one [`Lease`] at a time. It decides nothing: who may renew, what is
//! adopted, and what becomes of a credential whose use was begun by a process that did not survive it, is the
//! protocol's business, which every store shares.
//!
//! Four rules make a store (`testkit::StoreSuite` holds one to them):
//!
//! 1. [`load`](TokenStore::load) returns what was saved last, whole, or an error: never half of it, never a default.
//! 2. [`save`](TokenStore::save) compares and swaps in one step, and is durable when it resolves.
//! 3. [`lease`](TokenStore::lease) is given to one holder at a time, with a number that only grows.
//! 4. [`renew`](TokenStore::renew), [`release`](TokenStore::release) and `save` ask whose lease it is.

#[cfg(feature = "store")]
mod envelope;
mod error;
#[cfg(feature = "store")]
mod file;
mod lease;
mod policy;
mod record;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "encryption")]
mod sealed;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Faults;

#[cfg(feature = "store")]
pub use envelope::Envelope;
pub use error::StoreError;
#[cfg(feature = "store")]
pub use file::FileStore;
pub use lease::Lease;
pub(crate) use policy::MARGIN;
pub use policy::StorePolicy;
pub use record::Record;
pub(crate) use record::{Intent, Standing};
#[cfg(feature = "redis")]
pub use redis::RedisStore;
#[cfg(feature = "encryption")]
pub use sealed::EncryptionKey;

/// What a store answers, boxed, so that a store can be chosen at run time: `Box::pin(async move { .. })`.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Where one token is kept durably, and shared.
///
/// Every call is bounded from outside ([`StorePolicy::patience`]) and may be dropped while it is pending: what it began
/// must then be done or not done, and nothing in between. No call needs to be tried again within a store.
#[cfg_attr(feature = "store", doc = include_str!("database.md"))]
pub trait TokenStore: Send + Sync + 'static {
    /// What is kept now; `None` if nothing ever was.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`] if it cannot be told now; [`StoreError::unusable`] if something is there that is
    /// torn, foreign or of another key, which [`Envelope::read`](crate::Envelope::read) finds out. Such a thing is
    /// never overwritten.
    fn load(&self) -> StoreFuture<'_, Option<Record>>;

    /// Puts `record` in the place of what is kept, if that is of generation `expected` (0: nothing is kept, or a record
    /// of generation 0) and no lease with a greater [number](Lease::fence) has saved since. Compared and replaced in
    /// one step, and durable when this resolves.
    ///
    /// The generation of `record` may be the same: then only what is noted about it changes.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). What was kept before is unharmed.
    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved>;

    /// The right to renew, for `term`; `None` if somebody else has it. Does not wait for it.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`].
    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>>;

    /// Lets `lease` last for `term` from now on; `false` if it is no longer this holder's.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`].
    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool>;

    /// Gives `lease` back, if it is still this holder's. Without it the lease ends with its term.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`].
    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()>;

    /// Resolves when something other than generation `seen` may be kept. Too early does no harm: it is looked then. It is
    /// looked every second whatever this does.
    ///
    /// Default: never.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`] if it cannot be told; it is asked again after a second.
    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        let _ = seen;
        Box::pin(std::future::pending())
    }

    /// Names everything that is configured wrongly. Called by [`TokensBuilder::build`](crate::TokensBuilder::build).
    fn check(&self, faults: &mut Faults) {
        let _ = faults;
    }
}

impl<S: TokenStore + ?Sized> TokenStore for Arc<S> {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        (**self).load()
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        (**self).save(record, expected, lease)
    }

    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>> {
        (**self).lease(term)
    }

    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool> {
        (**self).renew(lease, term)
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        (**self).release(lease)
    }

    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        (**self).watch(seen)
    }

    fn check(&self, faults: &mut Faults) {
        (**self).check(faults);
    }
}

/// The salted hash of a credential: who reads it learns whether two are the same, and nothing else.
#[cfg(feature = "store")]
pub(crate) fn salted(salt: &str, text: &str) -> String {
    use sha2::{Digest, Sha256};

    envelope::hex(
        &Sha256::new()
            .chain_update(salt)
            .chain_update([0])
            .chain_update(text)
            .finalize(),
    )
}

/// What became of a [`save`](TokenStore::save).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Saved {
    /// It is kept, durably.
    Kept,
    /// It is not: another generation is there, or a later lease has saved.
    Overtaken,
}
