//! A store that tells what is done with it, around any other store.

use std::time::Duration;

use tower_token::{Faults, Lease, Record, Saved, StoreFuture, TokenStore};

use crate::facts::Fact;

pub(crate) struct Watched<S>(pub(crate) S);

impl<S: TokenStore> TokenStore for Watched<S> {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        self.0.load()
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        Box::pin(async move {
            let saved = self.0.save(record, expected, lease).await;
            match saved {
                Ok(Saved::Kept) => Fact::Saved(record.generation()).tell(),
                _ => Fact::NotSaved.tell(),
            }
            saved
        })
    }

    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>> {
        Box::pin(async move {
            let lease = self.0.lease(term).await;
            if let Ok(Some(lease)) = &lease {
                Fact::Leased(lease.fence()).tell();
            }
            lease
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let renewed = self.0.renew(lease, term).await;
            if let Ok(true) = renewed {
                Fact::Checked.tell();
            }
            renewed
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let released = self.0.release(lease).await;
            if released.is_ok() {
                Fact::Released.tell();
            }
            released
        })
    }

    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        self.0.watch(seen)
    }

    fn check(&self, faults: &mut Faults) {
        self.0.check(faults);
    }
}
