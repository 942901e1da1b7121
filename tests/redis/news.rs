//! What others save is heard.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::runtime::Builder;
use tokio::time::timeout;
use tower_token::{Lease, RedisStore, StoreError, TokenStore};

use super::server::{PATIENCE, Redis};
use super::specimen::record;

#[tokio::test]
async fn a_save_is_heard_as_it_is_published() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    for generation in 0..50 {
        let mut hearing = pin!(there.watch(generation));
        // It waits before it is published.
        assert!(waits(&mut hearing).await);
        save(&here, generation + 1).await;
        timeout(PATIENCE, hearing).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_was_saved_before_is_news_to_who_has_not_seen_it() {
    let Some(redis) = Redis::start() else { return };
    save(&redis.store("tt"), 1).await;
    let store = redis.store("tt");
    heard(&store, 0).await.unwrap();
    // Whoever looked is told again, so that nothing is missed.
    store.load().await.unwrap();
    heard(&store, 0).await.unwrap();
    heard(&store, 2).await.unwrap();
}

#[tokio::test]
async fn what_was_seen_is_no_news_and_nor_is_what_a_stranger_publishes() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    save(&here, 1).await;
    heard(&there, 0).await.unwrap();
    let mut hearing = pin!(there.watch(1));
    redis.until_heard("{tt}:news", "a stranger's").await;
    redis.until_heard("{tt}:news", "1").await;
    // What came over the same connection after the messages is here, so they are.
    there.load().await.unwrap();
    assert!(waits(&mut hearing).await);
    save(&here, 2).await;
    timeout(PATIENCE, hearing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_news() {
    let Some(mut redis) = Redis::start() else { return };
    let store = redis.store("tt");
    save(&store, 1).await;
    let mut hearing = pin!(store.watch(1));
    assert!(
        timeout(std::time::Duration::from_millis(50), &mut hearing)
            .await
            .is_err()
    );
    redis.kill();
    redis.start_again();
    timeout(PATIENCE, hearing).await.unwrap().unwrap();
    save(&store, 1).await;
    heard(&store, 0).await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_was_cut_is_made_anew() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    save(&here, 1).await;
    heard(&there, 0).await.unwrap();
    redis.admin::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let hearing = there.watch(1);
    save(&here, 2).await;
    timeout(PATIENCE, hearing).await.unwrap().unwrap();
}

#[test]
fn it_is_heard_in_the_next_runtime_when_one_has_ended() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    for generation in 0..3 {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            save(&here, generation + 1).await;
            heard(&there, generation).await.unwrap();
            there.load().await.unwrap();
        });
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_leaves_nothing_behind() {
    let Some(redis) = Redis::start() else { return };
    let store = redis.store("tt");
    save(&store, 1).await;
    heard(&store, 0).await.unwrap();
    assert_eq!(redis.clients(), 2, "one connection, and the administrator's");
    drop(store);
    redis.until_alone().await;
}

async fn save(store: &RedisStore, generation: u64) {
    let lease = Lease::new(1);
    store
        .save(&record(generation, "a"), generation - 1, &lease)
        .await
        .unwrap();
}

async fn heard(store: &RedisStore, seen: u64) -> Result<(), StoreError> {
    timeout(PATIENCE, store.watch(seen)).await.expect("nothing was heard")
}

async fn waits(hearing: &mut Pin<&mut impl Future<Output = Result<(), StoreError>>>) -> bool {
    poll_fn(|cx| Poll::Ready(hearing.as_mut().poll(cx).is_pending())).await
}
