//! A lease in the hand of a flight or of the saver: [`Held`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout, timeout_at};

use super::{Kept, Op};
use crate::clock::{Clock, Deadline};
use crate::store::{Lease, MARGIN, StoreError, TokenStore};
use crate::sync::Handle;
use crate::tokens::engine::Engine;

/// A lease that is renewed as long as this lives. Dropped without a [release](Self::release), it is given back by a task,
/// if there is a runtime; else it ends with its term.
pub(in crate::tokens) struct Held {
    lease: Option<Arc<Lease>>,
    store: Arc<dyn TokenStore>,
    patience: Duration,
    /// What is begun under it has to be over by then; `None` if it does not end by itself.
    pub(super) until: Option<Arc<Deadline>>,
    /// Its drop ends the renewal.
    _renewal: oneshot::Sender<()>,
    busy: Option<Busy>,
}

impl Kept {
    /// The lease, if nobody else has it.
    pub(super) async fn lease(&self, engine: &Engine) -> Result<Option<Held>, StoreError> {
        // Before it is asked for: it began no earlier.
        let asked = Deadline::after(&engine.clock, self.term.saturating_sub(MARGIN));
        let lease = self.ask(engine, Op::Lease, self.store.lease(self.term)).await?;
        Ok(lease.map(|lease| self.hold(&engine.clock, lease, asked)))
    }

    fn hold(&self, clock: &Clock, lease: Lease, until: Deadline) -> Held {
        let until = (!lease.is_lasting()).then(|| Arc::new(until));
        let lease = Arc::new(lease);
        let (renewal, released) = oneshot::channel();
        if let (Some(until), Ok(runtime)) = (&until, Handle::try_current()) {
            let renewing = Renewing {
                store: self.store.clone(),
                lease: lease.clone(),
                until: until.clone(),
                clock: clock.clone(),
                term: self.term,
                patience: self.patience,
            };
            runtime.spawn(renewing.run(released));
        }
        Held {
            lease: Some(lease),
            store: self.store.clone(),
            patience: self.patience,
            until,
            _renewal: renewal,
            busy: Some(Busy::with(&self.busy)),
        }
    }
}

impl Held {
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }

    /// Nothing may be begun under it any more.
    pub(super) fn is_over(&self) -> bool {
        self.until.as_ref().is_some_and(|until| until.has_passed())
    }

    /// What it is worth, unless it ends before that: then nothing.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let Some(until) = &self.until else {
            return Some(work.await);
        };
        let mut work = std::pin::pin!(work);
        loop {
            let end = until.instant();
            match timeout_at(end, work.as_mut()).await {
                Ok(done) => return Some(done),
                // It was renewed meanwhile.
                Err(_) if until.instant() > end => {}
                Err(_) => return None,
            }
        }
    }

    /// Gives it back now. If the store does not take it, a task goes on with that.
    pub(in crate::tokens) async fn release(mut self) {
        if let Some(lease) = &self.lease
            && let Ok(Ok(())) = timeout(self.patience, self.store.release(lease)).await
        {
            self.lease = None;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(lease), Ok(runtime)) = (self.lease.take(), Handle::try_current()) {
            let returning = Returning {
                store: self.store.clone(),
                lease,
                patience: self.patience,
                until: self.until.clone(),
                _busy: self.busy.take(),
            };
            runtime.spawn(returning.run());
        }
    }
}

/// Gives a lease back, as long as others would have to wait for its end.
struct Returning {
    store: Arc<dyn TokenStore>,
    lease: Arc<Lease>,
    patience: Duration,
    until: Option<Arc<Deadline>>,
    _busy: Option<Busy>,
}

impl Returning {
    async fn run(self) {
        while !matches!(
            timeout(self.patience, self.store.release(&self.lease)).await,
            Ok(Ok(()))
        ) {
            // One that has no end of its own ends when it is dropped.
            if self.until.as_ref().is_none_or(|until| until.has_passed()) {
                return;
            }
            sleep(RETURN_AGAIN).await;
        }
    }
}

/// A lease that is held.
struct Busy(watch::Sender<usize>);

impl Busy {
    fn with(leases: &watch::Sender<usize>) -> Self {
        leases.send_modify(|busy| *busy += 1);
        Self(leases.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy -= 1);
    }
}

/// Lets a lease last, a third of its term before each end.
struct Renewing {
    store: Arc<dyn TokenStore>,
    lease: Arc<Lease>,
    until: Arc<Deadline>,
    clock: Clock,
    term: Duration,
    patience: Duration,
}

impl Renewing {
    async fn run(self, mut released: oneshot::Receiver<()>) {
        let mut pause = self.term / 3;
        while timeout(pause, &mut released).await.is_err() {
            let asked = Deadline::after(&self.clock, self.term.saturating_sub(MARGIN));
            pause = match timeout(self.patience, self.store.renew(&self.lease, self.term)).await {
                Ok(Ok(true)) => {
                    self.until.extend(&asked);
                    self.term / 3
                }
                // Somebody else's by now: what is begun goes on until it would have ended, and its save is compared.
                Ok(Ok(false)) => return,
                _ => RENEW_AGAIN,
            };
        }
    }
}

const RETURN_AGAIN: Duration = Duration::from_secs(1);
const RENEW_AGAIN: Duration = Duration::from_secs(1);
