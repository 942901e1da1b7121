//! What a store in memory holds, and the rules of a [`TokenStore`](crate::TokenStore), with none of the faults.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Envelope, Lease, Record, Saved, StoreError};

/// What a database would hold, so what can be lost and restored.
#[derive(Clone, Default)]
pub(super) struct Contents {
    pub(super) bytes: Option<Vec<u8>>,
    /// Under which lease they were saved.
    saved_under: Option<Holding>,
    /// Who has the lease, if it has not ended.
    holder: Option<Term>,
    /// The number of the last lease.
    last_fence: u64,
}

/// By what a lease is known again. The owner's name tells two of one number apart, should the numbers be lost.
#[derive(Clone, PartialEq)]
struct Holding {
    fence: u64,
    owner: String,
}

#[derive(Clone)]
struct Term {
    holding: Holding,
    /// `None`: later than tokio's clock can say.
    until: Option<Instant>,
}

impl Contents {
    pub(super) fn record(&self) -> Result<Option<Record>, StoreError> {
        let bytes = self.bytes.as_deref();
        bytes.map(|bytes| Envelope::plain().read(bytes)).transpose()
    }

    /// 0 if nothing is kept.
    pub(super) fn generation(&self) -> Result<u64, StoreError> {
        Ok(self.record()?.map_or(0, |record| record.generation()))
    }

    pub(super) fn save(&mut self, record: &Record, expected: u64, lease: &Lease) -> Result<Saved, StoreError> {
        let holding = Holding::of(lease);
        let overtaken = self.saved_under.as_ref().is_some_and(|last| last.overtakes(&holding));
        if overtaken || self.generation()? != expected {
            return Ok(Saved::Overtaken);
        }
        self.bytes = Some(Envelope::plain().write(record)?);
        self.saved_under = Some(holding);
        Ok(Saved::Kept)
    }

    pub(super) fn lease(&mut self, term: Duration) -> Option<Lease> {
        if self.holder().is_some() {
            return None;
        }
        self.last_fence += 1;
        let owner = format!("{:016x}", fastrand::u64(..));
        let lease = Lease::new(self.last_fence).owned_by(owner);
        self.holder = Some(Term::of(Holding::of(&lease), term));
        Some(lease)
    }

    pub(super) fn renew(&mut self, lease: &Lease, term: Duration) -> bool {
        let held = self.is_held_by(lease);
        if held {
            self.holder = Some(Term::of(Holding::of(lease), term));
        }
        held
    }

    pub(super) fn release(&mut self, lease: &Lease) {
        if self.is_held_by(lease) {
            self.holder = None;
        }
    }

    fn is_held_by(&self, lease: &Lease) -> bool {
        self.holder().is_some_and(|holder| *holder == Holding::of(lease))
    }

    pub(super) fn is_leased(&self) -> bool {
        self.holder().is_some()
    }

    pub(super) fn expire_lease(&mut self) {
        self.holder = None;
    }

    fn holder(&self) -> Option<&Holding> {
        let now = Instant::now();
        let in_force = |term: &&Term| term.until.is_none_or(|until| now < until);
        self.holder.as_ref().filter(in_force).map(|term| &term.holding)
    }
}

impl Holding {
    fn of(lease: &Lease) -> Self {
        Self {
            fence: lease.fence(),
            owner: lease.owner().to_owned(),
        }
    }

    fn overtakes(&self, other: &Self) -> bool {
        self.fence > other.fence || (self.fence == other.fence && self.owner != other.owner)
    }
}

impl Term {
    fn of(holding: Holding, term: Duration) -> Self {
        Self {
            holding,
            until: Instant::now().checked_add(term),
        }
    }
}
