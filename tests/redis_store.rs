//! `RedisStore` on a real `redis-server`, which `tests/run` installs and names. Without it these tests say that they
//! were left out, and pass.

#![cfg(all(feature = "redis", feature = "testkit"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "support/left_out.rs"]
mod left_out;
#[path = "redis/server.rs"]
mod server;
#[path = "redis/specimen.rs"]
mod specimen;

use std::time::Duration;

use tower_token::{Saved, TokenStore};

use self::server::Redis;
use self::specimen::{record, text};

const AGES: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_is_saved_is_what_another_loads() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    assert!(here.load().await.unwrap().is_none());
    let lease = here.lease(AGES).await.unwrap().unwrap();
    assert!(there.lease(AGES).await.unwrap().is_none());
    assert_eq!(here.save(&record(1, "a"), 0, &lease).await.unwrap(), Saved::Kept);
    assert_eq!(here.save(&record(1, "b"), 0, &lease).await.unwrap(), Saved::Overtaken);
    let loaded = there.load().await.unwrap().unwrap();
    assert_eq!(text(&loaded), text(&record(1, "a")));
    here.release(&lease).await.unwrap();
    assert!(there.lease(AGES).await.unwrap().is_some());
}

#[tokio::test]
async fn news_arrive_as_they_are_published() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (redis.store("tt"), redis.store("tt"));
    let lease = here.lease(AGES).await.unwrap().unwrap();
    for generation in 0..20 {
        let waiting = there.watch(generation);
        here.save(&record(generation + 1, "a"), generation, &lease)
            .await
            .unwrap();
        tokio::time::timeout(server::PATIENCE, waiting).await.unwrap().unwrap();
    }
}
