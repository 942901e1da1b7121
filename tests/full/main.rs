//! Soaks in real time. `cargo test` runs each for a few seconds; `TOWER_TOKEN_FULL=<minutes>` makes
//! that so many minutes, and the uploads five thousand of up to 8 MiB in each of three ways.
//! What needs `libfaketime` or `strace` says that it was left out where that is not installed.
//!
//! Counts are asserted here, durations are not: what took how long is printed.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod durable;
#[cfg(target_os = "linux")]
#[path = "../support/kept.rs"]
mod kept;
#[cfg(target_os = "linux")]
#[path = "../support/left_out.rs"]
mod left_out;
#[cfg(target_os = "linux")]
mod moved_clock;
#[path = "../streams/mod.rs"]
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{Error, Origins, TokenClient, TokenLayer, Tokens};

use streams::script::{LONGEST, MIB};
use streams::upload::{Tally, Wire, in_process};
use streams::wire::over_sockets;

/// How long a soak takes.
fn duration() -> Duration {
    match std::env::var("TOWER_TOKEN_FULL").map(|minutes| minutes.parse::<u64>()) {
        Ok(Ok(minutes)) => Duration::from_secs(60 * minutes),
        Ok(Err(_)) => panic!("TOWER_TOKEN_FULL is a number of minutes"),
        Err(_) => Duration::from_secs(8),
    }
}

#[derive(Default)]
struct Callers {
    answered: AtomicU64,
    refused: AtomicU64,
    left: AtomicU64,
    without_token: AtomicU64,
}

/// Over sockets: tokens of one second, a revocation now and then, an issuer that is slow, away or
/// loses requests before it saw them, and callers of whom a third leave in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_presents_no_refresh_token_twice_and_sends_no_expired_token() {
    let issuer = Issuer::new();
    issuer
        .lifetime(Duration::from_secs(1))
        .latency(Duration::from_millis(20));
    let api = Api::new(&issuer);
    let (at_issuer, at_api) = (issuer.serve().await.unwrap(), api.serve().await.unwrap());
    let client = Client::builder(TokioExecutor::new()).build_http::<http_body_util::Full<Bytes>>();
    let grant = RefreshTokenGrant::new(format!("{}/token", at_issuer.url()), issuer.client_id())
        .client_secret(issuer.client_secret())
        .refresh_token(issuer.sign_in())
        .client(TokenClient::new(client));
    let tokens = Tokens::new(grant).unwrap();
    let layer = TokenLayer::new(&tokens, Origins::only(at_api.url()).unwrap());
    let service = ServiceBuilder::new()
        .layer(layer)
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());
    let callers = Arc::new(Callers::default());
    let ends = Instant::now() + duration();

    let adversary = tokio::spawn({
        let issuer = issuer.clone();
        async move {
            let faults = [
                Fault::DelayBefore(Duration::from_millis(150)),
                Fault::Status(503),
                Fault::DelayAfter(Duration::from_millis(150)),
                Fault::DropBefore,
            ];
            for fault in faults.into_iter().cycle() {
                if Instant::now() > ends {
                    break;
                }
                sleep(Duration::from_millis(1300)).await;
                issuer.fault(fault).revoke_access();
            }
        }
    });
    let calling: Vec<_> = (0..32)
        .map(|caller| {
            let (service, callers, url) = (service.clone(), callers.clone(), format!("{}/api", at_api.url()));
            tokio::spawn(async move {
                for nth in 0.. {
                    if Instant::now() > ends {
                        break;
                    }
                    let request = http::Request::get(&url).header("x-request-id", format!("{caller}-{nth}"));
                    let request = request.body(Empty::new()).unwrap();
                    let patience = if caller % 3 == 0 { fastrand::u64(0..30) } else { 60_000 };
                    let count = match timeout(Duration::from_millis(patience), service.clone().oneshot(request)).await {
                        Err(_) => &callers.left,
                        Ok(Ok(response)) if response.status() == 200 => &callers.answered,
                        Ok(Ok(response)) => {
                            assert_eq!(response.status(), 401);
                            &callers.refused
                        }
                        Ok(Err(error)) => {
                            let ours = Error::find(&*error).unwrap_or_else(|| panic!("not ours: {error}"));
                            assert!(!ours.is_config(), "{ours}");
                            &callers.without_token
                        }
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    for caller in calling {
        caller.await.unwrap();
    }
    adversary.await.unwrap();
    issuer.fault_always(None);

    let at_issuer = issuer.counts();
    let at_api = api.counts();
    println!(
        "answered {}, refused {}, without a token {}, left {}; {at_issuer:?}; {at_api:?}",
        callers.answered.load(Ordering::Relaxed),
        callers.refused.load(Ordering::Relaxed),
        callers.without_token.load(Ordering::Relaxed),
        callers.left.load(Ordering::Relaxed),
    );
    assert_eq!(at_issuer.presented_twice, 0);
    assert_eq!(at_issuer.reuse, 0);
    assert_eq!(at_issuer.max_in_flight, 1);
    assert_eq!(at_api.expired_seen, 0);
    assert!((1..=2).contains(&at_api.max_deliveries));
    assert!(callers.answered.load(Ordering::Relaxed) > 0);
}

/// How many uploads, and the longest of them.
fn uploads() -> (u64, u64) {
    match std::env::var("TOWER_TOKEN_FULL") {
        Ok(_) => (5_000, LONGEST),
        Err(_) => (50, MIB),
    }
}

fn assert_all_ended(what: &str, began: std::time::Instant, tally: Tally) {
    println!("{what}: {tally:?} in {:?}", began.elapsed());
    let all = tally.accepted + tally.replayed + tally.handed_back;
    assert_eq!(all as u64, uploads().0);
}

/// Each is judged as it ends: see `tests/streams`.
#[tokio::test(start_paused = true)]
async fn every_replay_of_many_uploads_is_the_original_to_the_byte() {
    let (number, longest) = uploads();
    let began = std::time::Instant::now();
    assert_all_ended("in process", began, in_process(0..number, longest).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_every_replay_over_sockets() {
    let (number, longest) = uploads();
    for wire in [Wire::Http1, Wire::Http2] {
        let began = std::time::Instant::now();
        let tally = over_sockets(wire, 0..number, longest).await;
        assert_all_ended(&format!("{wire:?}"), began, tally);
    }
}
