//! What one flight may send: [`Budget`].
//!
//! However a provider is composed, and whatever it does on its own, three exchanges bring a token or
//! nothing does: one that renews, its second presentation, one that acquires anew.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::clock::Deadline;
use crate::error::FetchError;

/// The exchanges of one flight, shared by every [`FetchContext`](super::FetchContext) of it.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// How many were taken; with [`CLOSED`] once the handle was shut down. One number, so that nothing
    /// is taken after the closing.
    spent: AtomicU32,
    /// The lease under which they are made.
    lease: OnceLock<Arc<Deadline>>,
}

impl Budget {
    /// None is taken from that time on: the lease may be another's by then.
    pub(crate) fn until(&self, lease: Arc<Deadline>) {
        let _ = self.lease.set(lease);
    }

    /// Takes one, before it is sent.
    pub(crate) fn take(&self) -> Result<(), FetchError> {
        if self.lease.get().is_some_and(|lease| lease.has_passed()) {
            return Err(FetchError::transient(
                "the lease ended before the request was sent: the process was stopped, or something took too long",
            ));
        }
        let taken = self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
            (left(spent) > 0).then(|| spent + 1)
        });
        taken.map(drop).map_err(|spent| {
            // Nothing was sent, so nothing is lost.
            FetchError::transient(if spent & CLOSED != 0 {
                "shut down, signed out, or another credential installed: no further exchange is begun"
            } else {
                "three exchanges were made for this fetch already"
            })
        })
    }

    pub(crate) fn left(&self) -> u32 {
        left(self.spent.load(Ordering::Relaxed))
    }

    pub(crate) fn spent(&self) -> u32 {
        self.spent.load(Ordering::Relaxed) & !CLOSED
    }

    /// The flight ends with the exchange it is in. One that has made none yet makes its first, because
    /// callers wait for it who were promised its outcome.
    pub(crate) fn close(&self) {
        self.spent.fetch_or(CLOSED, Ordering::Relaxed);
    }
}

fn left(spent: u32) -> u32 {
    let limit = if spent & CLOSED != 0 { 1 } else { MOST };
    limit.saturating_sub(spent & !CLOSED)
}

/// Renew, second presentation, acquire.
pub(crate) const MOST: u32 = 3;
const CLOSED: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_are_given_and_the_fourth_says_why_not() {
        let budget = Budget::default();
        for spent in 0..3 {
            assert_eq!((budget.spent(), budget.left()), (spent, 3 - spent));
            budget.take().unwrap();
        }
        let error = budget.take().unwrap_err();
        assert_eq!(
            error.to_string(),
            "transient: three exchanges were made for this fetch already"
        );
        assert!(!error.is_lost());
        assert_eq!((budget.spent(), budget.left()), (3, 0));
    }

    #[test]
    fn once_closed_only_the_first_is_given() {
        let budget = Budget::default();
        budget.close();
        assert_eq!(budget.left(), 1);
        budget.take().unwrap();
        let error = budget.take().unwrap_err();
        assert!(error.to_string().contains("shut down") && !error.is_lost(), "{error}");
        assert_eq!((budget.spent(), budget.left()), (1, 0));
    }
}
