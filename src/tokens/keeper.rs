//! The task that keeps a token alive without traffic: one an engine, where provider or policy ask for it.
//!
//! It only ever looks and begins: what is due, the [`desk`](super::desk) decides, and the fetch flies in
//! a task of its own like every other. Between two looks it holds a `Weak`, so that the last handle ends
//! it, and it takes no seat in a flight: it learns of a landing from the engine's pulse.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::KeepAlive;
use super::desk::{Phase, Upkeep};
use super::engine::Engine;
use crate::sync::{Handle, Ordering};

impl Engine {
    /// Starts the keeper, if it is wanted, not there, and this is called within a runtime; and what looks for news.
    pub(super) fn keep(self: &Arc<Self>) {
        self.watch_store();
        if self.keeps_alive && !self.keeping.load(Ordering::Relaxed) {
            self.start_keeper();
        }
    }

    #[cold]
    fn start_keeper(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.desk().phase == Phase::ShutDown || self.keeping.swap(true, Ordering::AcqRel) {
            return;
        }
        // Made before the task is first polled: a runtime that is shutting down drops it unpolled.
        let keeper = Keeper {
            pulse: self.pulse.subscribe(),
            engine: Arc::downgrade(self),
        };
        runtime.spawn(keeper.run());
    }

    pub(super) fn keep_alive(&self, phase: Phase) -> KeepAlive {
        if !self.keeps_alive || phase == Phase::ShutDown {
            KeepAlive::Off
        } else if self.keeping.load(Ordering::Relaxed) {
            KeepAlive::Running
        } else {
            KeepAlive::NoRuntime
        }
    }

    /// Begins a fetch if one is due. Says when to look again, or `None` for never.
    fn tend(self: &Arc<Self>) -> Option<Option<Instant>> {
        let upkeep = self.desk().keep(self.outlook(true));
        match upkeep {
            Upkeep::Rest(until) => Some(until),
            Upkeep::Over => None,
            Upkeep::Fly(flight) => {
                self.depart(Some(flight), Some(Handle::current()));
                Some(None)
            }
        }
    }
}

/// Its drop says that it is gone, also when its runtime ends.
struct Keeper {
    engine: Weak<Engine>,
    pulse: watch::Receiver<()>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            // Before looking, so that nothing that changes between the look and the wait is missed.
            self.pulse.mark_unchanged();
            let Some(until) = self.engine.upgrade().and_then(|engine| engine.tend()) else {
                return;
            };
            let look_again = Instant::now() + LOOK_AGAIN;
            let until = until.map_or(look_again, |until| until.min(look_again));
            if let Ok(Err(_)) = timeout_at(until, self.pulse.changed()).await {
                return;
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.keeping.store(false, Ordering::Release);
        }
    }
}

/// It sleeps no longer, because the monotonic clock does not see a suspend: then the wall clock is asked.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
