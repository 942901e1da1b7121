//! How far a store is waited for, and what is done without it: [`StorePolicy`].

use std::time::Duration;

use crate::clock::A_YEAR;
use crate::error::Faults;
use crate::lifetime::RefreshPolicy;

/// How far a store is waited for, and what is done without it.
///
#[cfg_attr(
    feature = "store",
    doc = "
```
use std::time::Duration;
use tower_token::StorePolicy;

let policy = StorePolicy::default().lease(Duration::from_secs(60)).patience(Duration::from_secs(1));
```"
)]
#[derive(Clone, Debug)]
pub struct StorePolicy {
    lease: Option<Duration>,
    pub(crate) patience: Duration,
    pub(crate) alone: bool,
}

impl Default for StorePolicy {
    fn default() -> Self {
        Self {
            lease: None,
            patience: Duration::from_secs(2),
            alone: false,
        }
    }
}

impl StorePolicy {
    /// For how long the right to renew is taken; it is renewed while an exchange runs. An exchange is abandoned 5 s
    /// before it can end, so it has to be at least that much longer than
    /// [`RefreshPolicy::fetch_timeout`](crate::RefreshPolicy::fetch_timeout). So long the others wait for a holder that died.
    ///
    /// Default: the fetch timeout and 15 s, so 45 s.
    #[must_use]
    pub fn lease(mut self, term: Duration) -> Self {
        self.lease = Some(term);
        self
    }

    /// How long each call of the store may take, and how long a new token waits to be durable. A token waits less if the
    /// one that it replaces enters its mandatory window meanwhile; then it is used, undurable, and saved as soon as the
    /// store takes it.
    ///
    /// Default: 2 s. At least 10 ms, at most the fetch timeout.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether a credential that is good for one use may be spent while the store cannot be asked: then two processes may
    /// present the same one, and a strict issuer ends the session for all. One that may be presented at any time
    /// ([`IfLost::Idempotent`](crate::IfLost::Idempotent)) is always renewed.
    ///
    /// Default: no.
    #[must_use]
    pub fn alone(mut self, alone: bool) -> Self {
        self.alone = alone;
        self
    }

    pub(crate) fn term(&self, refresh: &RefreshPolicy) -> Duration {
        self.lease.unwrap_or(refresh.fetch_timeout.saturating_add(3 * MARGIN))
    }

    pub(crate) fn check(&self, refresh: &RefreshPolicy, faults: &mut Faults) {
        let least = refresh.fetch_timeout.saturating_add(MARGIN);
        if let Some(term) = self.lease.filter(|term| *term < least || *term > A_YEAR) {
            faults.add(
                "store.lease",
                format!(
                    "{term:?} has to be from {least:?} (the fetch timeout and 5 s, so that no exchange outlives its lease) \
                     to a year"
                ),
            );
        }
        if self.patience < Duration::from_millis(10) || self.patience > refresh.fetch_timeout {
            faults.add(
                "store.patience",
                format!(
                    "{:?} has to be from 10 ms to the fetch timeout, {:?}",
                    self.patience, refresh.fetch_timeout
                ),
            );
        }
    }
}

/// An exchange is abandoned so long before its lease can end.
pub(crate) const MARGIN: Duration = Duration::from_secs(5);
