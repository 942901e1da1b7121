//! Looking for what others have saved, apart from fetches. One task an engine, as the
//! [keeper](crate::tokens::keeper) is one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::Kept;
use crate::sync::{Handle, Ordering};
use crate::tokens::desk::Phase;
use crate::tokens::engine::Engine;

impl Engine {
    /// Starts what looks for news, if there is a store, nobody does it yet, and this is called within a runtime.
    pub(in crate::tokens) fn watch_store(self: &Arc<Self>) {
        if let Some(kept) = self.kept.as_ref().filter(|kept| !kept.watching.load(Ordering::Relaxed)) {
            let Ok(runtime) = Handle::try_current() else { return };
            if self.desk().phase != Phase::ShutDown && !kept.watching.swap(true, Ordering::AcqRel) {
                let watcher = Watcher {
                    gone: self.published.subscribe(),
                    engine: Arc::downgrade(self),
                };
                runtime.spawn(watcher.run());
            }
        }
    }

    /// `false`: nobody needs to look any more.
    async fn look_for_news(self: &Arc<Self>) -> bool {
        let Some(kept) = &self.kept else { return false };
        let busy = {
            let desk = self.desk();
            if desk.phase == Phase::ShutDown {
                return false;
            }
            // A flight looks for itself.
            desk.in_air().is_some()
        };
        kept.resume_saving(self);
        if !busy
            && !kept.has_draft()
            && let Ok(seen) = kept.read(self).await
            && self.desk().in_air().is_none()
        {
            kept.look_at(self, seen);
        }
        true
    }
}

/// Its drop says that it is gone, also when its runtime ends.
struct Watcher {
    engine: Weak<Engine>,
    /// Closed when the engine is gone.
    gone: watch::Receiver<u64>,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            let Some(engine) = self.engine.upgrade() else { return };
            if !engine.look_for_news().await {
                return;
            }
            let Some(kept) = &engine.kept else { return };
            let seen = kept.book().seen;
            let store = kept.store.clone();
            // One that resolves at once is no clock, and what cannot be read is not read the sooner.
            let least = if kept.cannot_be_read() { LOOK_AGAIN } else { LEAST };
            drop(engine);
            let news = async {
                Kept::news(&*store, seen).await;
                sleep_until(began + least).await;
            };
            let gone = async { while self.gone.changed().await.is_ok() {} };
            if timeout(LOOK_AGAIN, first(news, gone)).await == Ok(false) {
                return;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade()
            && let Some(kept) = &engine.kept
        {
            kept.watching.store(false, Ordering::Release);
        }
    }
}

/// Whether the one resolves first, and not the other.
async fn first(one: impl Future<Output = ()>, other: impl Future<Output = ()>) -> bool {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match (other.as_mut().poll(cx), one.as_mut().poll(cx)) {
        (Poll::Ready(()), _) => Poll::Ready(false),
        (_, Poll::Ready(())) => Poll::Ready(true),
        _ => Poll::Pending,
    })
    .await
}

/// It is looked this often whatever the store says.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LEAST: Duration = Duration::from_millis(10);
