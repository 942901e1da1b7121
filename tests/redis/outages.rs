//! A server that hangs, dies, comes back, or is not there.

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tower_token::{Lease, RedisStore, Saved, StoreError, TokenStore};

use super::server::{AGES, PATIENCE, Redis, free_port, store_at};
use super::specimen::record;

#[tokio::test]
async fn of_a_server_that_was_killed_and_started_again_only_a_call_in_the_air_notices() {
    let Some(mut redis) = Redis::start() else { return };
    let store = redis.store("tt");
    for _ in 0..3 {
        let lease = store.lease(AGES).await.unwrap().unwrap();
        assert_eq!(store.save(&record(1, "a"), 0, &lease).await.unwrap(), Saved::Kept);
        redis.kill();
        redis.start_again();
        // Nothing has looked at the connection meanwhile, so the first call may find out.
        let _ = store.load().await;
        assert!(store.load().await.unwrap().is_none(), "it came back empty");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_named_at_once() {
    let Some(mut redis) = Redis::start() else { return };
    let store = redis.store("tt");
    store.load().await.unwrap();
    redis.kill();
    let _ = store.load().await;
    for error in all_calls(&store).await {
        let said = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(
            said.contains(&format!("127.0.0.1:{} cannot be reached", redis.port())),
            "{said}"
        );
        assert!(said.contains("refused"), "{said}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_costs_each_call_its_timeout_and_no_lease() {
    let Some(redis) = Redis::start() else { return };
    let stores: Vec<_> = (0..3).map(|_| redis.store("tt").timeout(BRIEFLY)).collect();
    for store in &stores {
        // All are connected, and the server knows the script.
        let lease = steady(|| store.lease(AGES)).await.expect("nobody else has it");
        steady(|| store.release(&lease)).await;
    }
    redis.pause();
    for store in &stores {
        // The first thing that it is asked for, and the last that still reaches it.
        let asked = store.lease(AGES).await.unwrap_err();
        let more = all_calls(store).await;
        for error in more.iter().chain([&asked]) {
            assert!(error.to_string().contains("did not answer within 100ms"), "{error}");
        }
    }
    // More often than it remembers names.
    for _ in 0..20 {
        stores[0].lease(AGES).await.unwrap_err();
    }
    redis.go_on();
    // What the server does late leaves a lease that none of them knows of; the one in whose name it is takes it.
    let mut leases = Vec::new();
    for store in &stores {
        leases.extend(steady(|| store.lease(AGES)).await);
    }
    assert_eq!(leases.len(), 1);
}

#[tokio::test]
async fn what_takes_the_connection_and_never_answers_costs_each_call_its_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let store = RedisStore::new(format!("redis://127.0.0.1:{port}"), "tt").timeout(BRIEFLY);
    for error in all_calls(&store).await {
        assert!(error.to_string().contains("did not answer within 100ms"), "{error}");
    }
    let store = RedisStore::new(format!("rediss://127.0.0.1:{port}"), "tt").timeout(BRIEFLY);
    let error = store.load().await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 100ms"), "{error}");
}

#[tokio::test]
async fn sixteen_calls_at_a_time_wait_no_longer_than_one() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let store = Arc::new(RedisStore::new(format!("redis://127.0.0.1:{port}"), "tt").timeout(BRIEFLY));
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.load().await })
        })
        .collect();
    for call in calls {
        let error = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
        assert!(error.to_string().contains("did not answer within 100ms"), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_takes_its_connection_with_it() {
    let (port, connections) = greets_and_falls_silent();
    let store = RedisStore::new(format!("redis://127.0.0.1:{port}"), "tt").timeout(Duration::from_secs(60));
    for dropped in 1..=3 {
        // Whoever is less patient than the store must not be sent back to the same silence for ever.
        timeout(PATIENCE, async {
            tokio::select! {
                _ = store.load() => unreachable!("it answered"),
                () = until(|| connections.load(Ordering::SeqCst) == 2 * dropped) => {}
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_is_no_redis_is_called_so() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in other.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 canary\r\n\r\n");
        }
    });
    let store = store_at(format!("redis://127.0.0.1:{port}"), "tt");
    let error = store.load().await.unwrap_err();
    assert!(
        error.to_string().contains("does not speak the protocol of Redis"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn one_that_nobody_listens_for_is_out_of_reach() {
    let store = store_at(format!("redis://127.0.0.1:{}", free_port()), "tt");
    let error = store.load().await.unwrap_err();
    assert!(
        error.to_string().contains("cannot be reached") && !error.is_unusable(),
        "{error}"
    );
}

/// Each of the calls; none is answered.
async fn all_calls(store: &RedisStore) -> Vec<StoreError> {
    let lease = Lease::new(1).owned_by("somebody");
    let record = record(1, "a");
    let calls = async {
        vec![
            store.load().await.unwrap_err(),
            store.save(&record, 0, &lease).await.unwrap_err(),
            store.lease(AGES).await.unwrap_err(),
            store.renew(&lease, AGES).await.unwrap_err(),
            store.release(&lease).await.unwrap_err(),
        ]
    };
    timeout(PATIENCE, calls).await.expect("a call that hangs")
}

/// A call on a busy machine, where an answer may be late.
async fn steady<T, F>(call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    timeout(PATIENCE, async {
        loop {
            if let Ok(answer) = call().await {
                return answer;
            }
        }
    })
    .await
    .expect("it never answers again")
}

/// Says hello, and nothing after that. Counts what it was told and the connections.
fn greets_and_falls_silent() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            for answer in [HELLO, b""] {
                let read = stream.read(&mut [0; 4096]).unwrap();
                assert!(read > 0);
                counted.fetch_add(1, Ordering::SeqCst);
                stream.write_all(answer).unwrap();
            }
            kept.push(stream);
        }
    });
    (port, told)
}

async fn until(like_this: impl Fn() -> bool) {
    while !like_this() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const HELLO: &[u8] = b"%1\r\n+server\r\n+redis\r\n";
const BRIEFLY: Duration = Duration::from_millis(100);
