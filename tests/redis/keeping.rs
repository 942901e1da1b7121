//! What is kept, and who may renew it.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use tower_token::testkit::StoreSuite;
use tower_token::{Lease, Saved, TokenStore};

use super::server::{AGES, PATIENCE, Redis};
use super::specimen::{bytes, record, text};

const A_MOMENT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn what_is_saved_is_what_another_loads() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    assert!(here.load().await.unwrap().is_none());
    let lease = here.lease(AGES).await.unwrap().unwrap();
    assert_eq!(here.save(&record(1, "a"), 0, &lease).await.unwrap(), Saved::Kept);
    assert_eq!(here.save(&record(1, "b"), 0, &lease).await.unwrap(), Saved::Overtaken);
    let loaded = there.load().await.unwrap().unwrap();
    assert_eq!(text(&loaded), text(&record(1, "a")));
    assert!(redis.store("another").load().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_every_rule() {
    let Some(redis) = Redis::start() else { return };
    let redis = Arc::new(redis);
    let (keeping, spoiling) = (redis.clone(), redis.clone());
    let suite = StoreSuite::new(move |place| ready(keeping.store(&place)));
    let suite = suite.spoiled_by(move |place| {
        spoiling.admin::<()>(&["HSET", &format!("{{{place}}}:record"), "body", "{"]);
        ready(())
    });
    suite.run().await.unwrap();
}

#[tokio::test]
async fn a_record_has_no_end_and_a_lease_has_one() {
    let Some(redis) = Redis::start() else { return };
    let store = redis.store("tt");
    let lease = store.lease(AGES).await.unwrap().unwrap();
    store.save(&record(1, "a"), 0, &lease).await.unwrap();
    let mut keys: Vec<String> = redis.admin(&["KEYS", "*"]);
    keys.sort();
    assert_eq!(keys, ["{tt}:fence", "{tt}:lease", "{tt}:record"]);
    let ends = |key: &str| redis.admin::<i64>(&["PTTL", key]) > 0;
    assert_eq!(
        keys.iter().map(|key| ends(key)).collect::<Vec<_>>(),
        [false, true, false]
    );
}

#[tokio::test]
async fn a_lease_ends_with_its_term_and_who_was_not_overtaken_may_still_save() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    let paused = here.lease(A_MOMENT).await.unwrap().unwrap();
    let next = taken(&there).await;
    assert!(next.fence() > paused.fence());
    assert!(!here.renew(&paused, AGES).await.unwrap());
    assert_eq!(here.save(&record(1, "rotated"), 0, &paused).await.unwrap(), Saved::Kept);
}

#[tokio::test]
async fn a_paused_holder_cannot_overwrite_what_the_next_one_saved() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    let paused = here.lease(A_MOMENT).await.unwrap().unwrap();
    let next = taken(&there).await;
    // Only a note: the generation still is what the paused one expects.
    assert_eq!(there.save(&record(0, "next"), 0, &next).await.unwrap(), Saved::Kept);
    assert_eq!(
        here.save(&record(1, "paused"), 0, &paused).await.unwrap(),
        Saved::Overtaken
    );
    assert_eq!(text(&here.load().await.unwrap().unwrap()), text(&record(0, "next")));
}

#[tokio::test]
async fn a_stranger_neither_renews_nor_releases() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    let lease = here.lease(AGES).await.unwrap().unwrap();
    let stranger = Lease::new(lease.fence()).owned_by("somebody else");
    assert!(!there.renew(&stranger, AGES).await.unwrap());
    there.release(&stranger).await.unwrap();
    assert!(there.lease(AGES).await.unwrap().is_none());
    assert!(here.renew(&lease, AGES).await.unwrap());
}

#[tokio::test]
async fn a_counter_that_was_lost_begins_above_whoever_saved_last() {
    let Some(redis) = Redis::start() else { return };
    let store = redis.store("tt");
    for generation in 0..5 {
        let lease = store.lease(AGES).await.unwrap().unwrap();
        store
            .save(&record(generation + 1, "a"), generation, &lease)
            .await
            .unwrap();
        store.release(&lease).await.unwrap();
    }
    redis.admin::<()>(&["DEL", "{tt}:fence"]);
    let lease = store.lease(AGES).await.unwrap().unwrap();
    assert_eq!(lease.fence(), 6);
    assert_eq!(store.save(&record(6, "a"), 5, &lease).await.unwrap(), Saved::Kept);
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_told_again() {
    let Some(redis) = Redis::start() else { return };
    let store = redis.store("tt");
    for generation in 0..3 {
        redis.admin::<()>(&["SCRIPT", "FLUSH"]);
        let lease = store.lease(AGES).await.unwrap().unwrap();
        redis.admin::<()>(&["SCRIPT", "FLUSH"]);
        assert!(store.renew(&lease, AGES).await.unwrap());
        redis.admin::<()>(&["SCRIPT", "FLUSH"]);
        let saved = store.save(&record(generation + 1, "a"), generation, &lease).await;
        assert_eq!(saved.unwrap(), Saved::Kept);
        redis.admin::<()>(&["SCRIPT", "FLUSH"]);
        store.release(&lease).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_ours_is_neither_used_nor_overwritten() {
    let Some(redis) = Redis::start() else { return };
    let store = redis.store("tt");
    let whole = String::from_utf8(bytes(7, "a")).unwrap();
    let changed = whole.replace("canary-a", "canary-b");
    for kept in [
        &["SET", "{tt}:record", "text"][..],
        &["HSET", "{tt}:record", "field", "value"],
        &[
            "HSET",
            "{tt}:record",
            "generation",
            "seven",
            "fence",
            "1",
            "body",
            &whole,
        ],
        &["HSET", "{tt}:record", "generation", "7", "fence", "one", "body", &whole],
        &["HSET", "{tt}:record", "generation", "8", "fence", "1", "body", &whole],
        &["HSET", "{tt}:record", "generation", "7", "fence", "1", "body", &changed],
        &["HSET", "{tt}:record", "generation", "7", "fence", "1"],
        &["HSET", "{tt}:record", "body", &whole],
    ] {
        redis.admin::<()>(&["DEL", "{tt}:record"]);
        redis.admin::<()>(kept);
        let before: redis::Value = redis.admin(&["DUMP", "{tt}:record"]);
        let (loaded, saved) = (store.load().await, store.save(&record(1, "b"), 0, &Lease::new(9)).await);
        // The number of a lease is no business of who only loads.
        if !kept.contains(&"one") {
            let error = loaded.unwrap_err();
            assert!(error.is_unusable(), "{kept:?}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
        assert!(!matches!(saved, Ok(Saved::Kept)), "{kept:?}");
        assert_eq!(
            redis.admin::<redis::Value>(&["DUMP", "{tt}:record"]),
            before,
            "{kept:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_that_save_fifty_times_never_take_the_record_back() {
    let Some(redis) = Redis::start() else { return };
    let reader = Arc::new(redis.store("tt"));
    let reading = tokio::spawn(async move {
        let (mut last, mut looks) = (0, 0);
        while last < 16 * 50 {
            let loaded = reader.load().await.unwrap();
            let generation = loaded.map_or(0, |record| record.generation());
            assert!(generation >= last, "{generation} after {last}");
            (last, looks) = (generation, looks + 1);
        }
        looks
    });
    let savers: Vec<_> = (0..16)
        .map(|_| {
            let store = redis.store("tt");
            tokio::spawn(async move {
                for _ in 0..50 {
                    let lease = taken(&store).await;
                    let seen = store.load().await.unwrap().map_or(0, |record| record.generation());
                    assert_eq!(
                        store.save(&record(seen + 1, "a"), seen, &lease).await.unwrap(),
                        Saved::Kept
                    );
                    // As late as can be: overtaken, or the same once more.
                    let late = store.save(&record(seen + 1, "late"), seen, &lease).await.unwrap();
                    assert_eq!(late, Saved::Overtaken);
                    store.release(&lease).await.unwrap();
                }
            })
        })
        .collect();
    for saver in savers {
        saver.await.unwrap();
    }
    assert!(reading.await.unwrap() > 0);
    assert_eq!(redis.admin::<u64>(&["HGET", "{tt}:record", "generation"]), 800);
    assert_eq!(redis.admin::<u64>(&["GET", "{tt}:fence"]), 800);
}

/// The lease, as soon as nobody else has it.
async fn taken(store: &impl TokenStore) -> Lease {
    let trying = async {
        loop {
            if let Some(lease) = store.lease(AGES).await.unwrap() {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trying)
        .await
        .expect("nobody gives the lease back")
}
