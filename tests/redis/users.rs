//! A user who may do what the documentation says, and no more.

use std::future::ready;
use std::sync::Arc;

use tokio::time::timeout;
use tower_token::testkit::StoreSuite;
use tower_token::{Lease, StoreError, TokenStore};

use super::server::{AGES, PATIENCE, Redis, store_at};
use super::specimen::record;

#[tokio::test]
async fn the_documented_user_suffices() {
    let Some(redis) = Redis::start() else { return };
    redis.admin::<()>(&words(&documented()));
    everything(&redis, "tt:my-app").await.unwrap();
    // And has nothing else.
    let error = everything(&redis, "tt:other").await.unwrap_err();
    assert!(error.to_string().contains("NOPERM"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_each_key_keeps_every_rule() {
    let Some(redis) = Redis::start() else { return };
    let redis = Arc::new(redis);
    let (of_users, spoiling) = (redis.clone(), redis.clone());
    let suite = StoreSuite::new(move |place| {
        let line = documented()
            .join(" ")
            .replace("tt:my-app", &place)
            .replace("tower-token", &place);
        of_users.admin::<()>(&line.split(' ').collect::<Vec<_>>());
        let url = format!("redis://{place}:password@127.0.0.1:{}", of_users.port());
        ready(store_at(url, &place))
    });
    let suite = suite.spoiled_by(move |place| {
        spoiling.admin::<()>(&["HSET", &format!("{{{place}}}:record"), "body", "{"]);
        ready(())
    });
    suite.run().await.unwrap();
}

#[tokio::test]
async fn another_database_takes_one_right_more() {
    let Some(redis) = Redis::start() else { return };
    redis.admin::<()>(&words(&documented()));
    let url = format!("redis://tower-token:password@127.0.0.1:{}/3", redis.port());
    let error = store_at(url.clone(), "tt:my-app").load().await.unwrap_err();
    assert!(error.to_string().contains("NOPERM"), "{error}");
    redis.admin::<()>(&["ACL", "SETUSER", "tower-token", "+select"]);
    let store = store_at(url.clone(), "tt:my-app");
    store.save(&record(1, "a"), 0, &Lease::new(1)).await.unwrap();
    assert!(
        redis.store("tt:my-app").load().await.unwrap().is_none(),
        "that is the first one"
    );
    assert_eq!(store.load().await.unwrap().unwrap().generation(), 1);
}

#[tokio::test]
async fn without_any_one_of_its_rights_the_acl_is_named() {
    let Some(redis) = Redis::start() else { return };
    let documented = documented();
    let rights: Vec<_> = documented
        .iter()
        .filter(|word| word.starts_with(['+', '~', '&']))
        .collect();
    assert_eq!(rights.len(), 15, "{rights:?}");
    for missing in rights {
        redis.admin::<()>(&["FLUSHALL"]);
        redis.admin::<()>(&["SCRIPT", "FLUSH"]);
        redis.admin::<()>(&["ACL", "DELUSER", "tower-token"]);
        let others: Vec<_> = documented.iter().filter(|word| *word != missing).cloned().collect();
        redis.admin::<()>(&words(&others));
        let error = everything(&redis, "tt:my-app").await.unwrap_err();
        assert!(
            error.to_string().contains("NOPERM, the user may not do this"),
            "{missing}: {error}"
        );
        assert!(!format!("{error:?}").contains("test-canary"));
    }
}

/// Every call, and every way in which a script can go.
async fn everything(redis: &Redis, key: &str) -> Result<(), StoreError> {
    let url = format!("redis://tower-token:password@127.0.0.1:{}", redis.port());
    let store = store_at(url, key);
    store.load().await?;
    let lease = store.lease(AGES).await?.unwrap();
    assert!(store.renew(&lease, AGES).await?);
    store.save(&record(1, "a"), 0, &lease).await?;
    store.save(&record(2, "b"), 1, &lease).await?;
    store.release(&lease).await?;
    store.release(&Lease::new(1).owned_by("a stranger")).await?;
    timeout(PATIENCE, store.watch(0)).await.expect("nothing was heard")
}

/// The line of the documentation, which is on two for the reader.
fn documented() -> Vec<String> {
    let source = include_str!("../../src/store/redis.rs").lines();
    let lines = source.map(|line| line.trim_start_matches("///").trim());
    let line = lines
        .skip_while(|line| !line.starts_with("ACL SETUSER"))
        .take_while(|line| *line != "```");
    line.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}
