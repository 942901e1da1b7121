//! The timer of a token in place: when the monotonic clock says that its time is over, so does the engine.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::desk::Current;
use super::engine::Engine;
use crate::sync::Ordering;

/// The monotonic side of a token's life.
pub(super) struct Timer {
    engine: std::sync::Weak<Engine>,
    published: watch::Receiver<u64>,
    current: Arc<Current>,
    ends: Instant,
    /// Its end was seen.
    over: bool,
}

impl Timer {
    pub(super) fn of(engine: &Arc<Engine>, current: &Arc<Current>) -> Self {
        Self {
            engine: Arc::downgrade(engine),
            published: engine.published.subscribe(),
            current: current.clone(),
            ends: current.required,
            over: false,
        }
    }

    /// Ends with its token, with whatever takes its place, or with the last handle; with an observer that wants to be
    /// told how long the token lives, not with the token's own end.
    pub(super) async fn run(mut self) {
        let pace = self.engine.upgrade().and_then(|engine| engine.observers.pace);
        let replaced = async {
            while *self.published.borrow_and_update() <= self.current.generation.get() {
                if self.published.changed().await.is_err() {
                    return;
                }
            }
        };
        let mut replaced = pin!(replaced);
        loop {
            let next = pace.map(|pace| Instant::now() + pace);
            let wake = [next, (!self.over).then_some(self.ends)].into_iter().flatten().min();
            let Some(wake) = wake else { return };
            if timeout_at(wake, replaced.as_mut()).await.is_ok() {
                return;
            }
            let Some(engine) = self.engine.upgrade() else { return };
            if !engine.desk().is_in_place(self.current.generation) {
                engine.tell_of_absence(self.current.generation);
                return;
            }
            if !self.over && wake == self.ends {
                self.over = true;
                engine.elapse(self.current.generation);
            }
            engine.tell_of_life(&self.current);
        }
    }
}

/// If its runtime ended before it did, the first call within another one starts it again.
impl Drop for Timer {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else { return };
        let is_done = self.over && engine.observers.pace.is_none();
        let desk = engine.desk();
        if !is_done && desk.is_in_place(self.current.generation) {
            engine.untimed.store(true, Ordering::Relaxed);
        }
    }
}
