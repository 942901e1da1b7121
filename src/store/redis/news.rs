//! What was published last: who waits for another generation waits here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, PushInfo, PushKind, from_redis_value};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::line::Line;
use crate::store::StoreError;

/// What is heard of the record, without looking at it.
pub(super) struct News {
    channel: String,
    heard: watch::Sender<Heard>,
    /// When it was last looked at the record, as [`Heard::times`].
    looked: AtomicU64,
    /// Whether a task keeps the subscription. One that ends with its runtime is followed by another.
    listening: AtomicBool,
    listener: Mutex<Option<AbortHandle>>,
}

#[derive(Clone, Default)]
struct Heard {
    /// How often this has changed.
    times: u64,
    /// `None` while nothing is subscribed.
    generation: Option<u64>,
    /// Why the server lets us hear nothing.
    refused: Option<StoreError>,
}

impl News {
    pub(super) fn of(channel: &str) -> Self {
        Self {
            channel: channel.into(),
            heard: watch::Sender::default(),
            looked: AtomicU64::new(0),
            listening: AtomicBool::new(false),
            listener: Mutex::default(),
        }
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// Whatever the server sends unasked.
    pub(super) fn hear(&self, push: &PushInfo) {
        let [channel, published] = push.data.as_slice() else {
            return;
        };
        let ours = from_redis_value::<String>(channel.clone()).is_ok_and(|channel| channel == self.channel);
        if push.kind != PushKind::Message || !ours {
            return;
        }
        // Something that is no number was not published by us. It is no news.
        if let Ok(generation) = from_redis_value(published.clone()) {
            self.is_now(Some(generation), None);
        }
    }

    /// A look begins: what it finds is not news afterwards. To be told when it has ended.
    pub(super) fn look(&self) -> impl FnOnce() + '_ {
        let times = self.times();
        move || {
            self.looked.fetch_max(times, Ordering::Relaxed);
        }
    }

    /// Resolves when another generation than `seen` is there.
    pub(super) async fn other_than(&self, seen: u64, listen: impl Fn()) -> Result<(), StoreError> {
        let mut heard = self.heard.subscribe();
        loop {
            if !self.listening.swap(true, Ordering::AcqRel) {
                listen();
            }
            let now = heard.borrow_and_update().clone();
            if let Some(refused) = now.refused {
                return Err(refused);
            }
            if now.generation.is_some_and(|generation| generation != seen) {
                if self.looked.load(Ordering::Relaxed) < now.times {
                    return Ok(());
                }
                // Somebody looked, and has not what was published: it is torn, say. They may look again, but not in a
                // loop that never rests.
                if tokio::time::timeout(REST, heard.changed()).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            // Its sender is ours.
            let _ = heard.changed().await;
        }
    }

    pub(super) fn times(&self) -> u64 {
        self.heard.borrow().times
    }

    /// Published, or refused, or neither: then it is not known until there is a subscription again.
    pub(super) fn is_now(&self, generation: Option<u64>, refused: Option<StoreError>) {
        self.heard.send_modify(|heard| heard.now_is(generation, refused));
    }

    /// What was found there, unless something was published since `times`: that is newer.
    pub(super) fn was(&self, generation: u64, times: u64) {
        self.heard.send_if_modified(|heard| {
            let still = heard.times == times;
            if still {
                heard.now_is(Some(generation), None);
            }
            still
        });
    }

    /// For the one that [`other_than`](Self::other_than) asked for a listener.
    pub(super) fn heard_by(&self, listener: AbortHandle) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    pub(super) fn end(&self) {
        if let Some(listener) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
            listener.abort();
        }
    }
}

impl Heard {
    fn now_is(&mut self, generation: Option<u64>, refused: Option<StoreError>) {
        *self = Self {
            times: self.times + 1,
            generation,
            refused,
        };
    }
}

/// Keeps the subscription, until it is aborted or its runtime ends. `generation` asks for that of the record.
pub(super) async fn listen(line: Arc<Line>, generation: Cmd) {
    let news = line.news.clone();
    let _listening = Listening(news.clone());
    let mut pause = SHORTEST_PAUSE;
    loop {
        if let Ok(call) = line.call().await
            && let Ok(link) = call.subscribe(&generation).await
        {
            pause = SHORTEST_PAUSE;
            link.ended().await;
            news.is_now(None, None);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whoever waits has to see to it that somebody else listens, when this one does not any longer.
struct Listening(Arc<News>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listening.store(false, Ordering::Release);
        self.0.is_now(None, None);
    }
}

/// Between two attempts to subscribe.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Before somebody is told once more of what they looked at.
const REST: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use redis::Value;
    use tokio::time::Instant;

    use super::*;

    fn published(news: &News, message: &str) {
        let data = [news.channel(), message].map(|text| Value::BulkString(text.into()));
        let (kind, data) = (PushKind::Message, data.into());
        news.hear(&PushInfo { kind, data });
    }

    async fn is_other(news: &News, seen: u64) -> bool {
        let waiting = tokio::time::timeout(Duration::from_secs(60), news.other_than(seen, || {}));
        waiting.await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_published_meanwhile_stands_above_what_was_found() {
        let news = News::of("news");
        let times = news.times();
        published(&news, "7");
        news.was(6, times);
        assert!(is_other(&news, 6).await && !is_other(&news, 7).await);
        news.was(8, news.times());
        assert!(is_other(&news, 7).await && !is_other(&news, 8).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_looked_is_told_again_but_not_without_rest() {
        let news = News::of("news");
        published(&news, "7");
        let began = Instant::now();
        assert!(is_other(&news, 6).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        // Who began to look before it was published may not have seen it.
        let looked = news.look();
        published(&news, "8");
        looked();
        assert!(is_other(&news, 6).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        news.look()();
        for _ in 0..3 {
            assert!(is_other(&news, 6).await);
        }
        assert_eq!(began.elapsed(), 3 * REST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_number_or_another_channels_is_no_news() {
        let news = News::of("news");
        published(&news, "7");
        published(&news, "a stranger's");
        for (kind, channel) in [(PushKind::Message, "other"), (PushKind::Subscribe, "news")] {
            let data = vec![Value::BulkString(channel.into()), Value::Int(8)];
            news.hear(&PushInfo { kind, data });
        }
        assert!(is_other(&news, 6).await && !is_other(&news, 7).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_sees_to_it_that_somebody_listens() {
        let news = Arc::new(News::of("news"));
        let asked = AtomicU64::new(0);
        let ask = || {
            asked.fetch_add(1, Ordering::Relaxed);
        };
        let _ = tokio::time::timeout(REST, news.other_than(0, ask)).await;
        let _ = tokio::time::timeout(REST, news.other_than(0, ask)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        drop(Listening(news.clone()));
        let _ = tokio::time::timeout(REST, news.other_than(0, ask)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
