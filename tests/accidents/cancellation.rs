//! Cancellation: callers that leave, runtimes that end, providers that panic (T12 to T20).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::flows::*;
use http::Request;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_err};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::timeout::{Timeout, error::Elapsed};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{FetchError, IfLost, KeepAlive, Origins, TokenLayer, TokenProvider, provider_fn};

/// A request was cancelled during the refresh, and the rotated refresh token went with it
/// (ktorio/ktor#5193, KTOR-8285).
#[tokio::test(start_paused = true)]
async fn t12_a_caller_that_leaves_when_the_issuer_has_committed_loses_no_refresh_token() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    for renewal in 1..=10 {
        issuer.fault(Fault::DelayAfter(5 * SECOND));
        let mut leader = spawn(client.clone().oneshot(get("/api", "leader")));
        assert_pending!(leader.poll());
        settle().await;
        // The presented one is spent, and the answer with the new one is on its way.
        assert_eq!((issuer.counts().granted, issuer.counts().in_flight), (renewal, 1));
        drop(leader);
        if renewal % 2 == 0 {
            // Nobody is there when it lands.
            sleep(10 * SECOND).await;
        }
        assert_eq!(status(&call(&client, "/api").await), Some(200), "{renewal}");
        assert_eq!(issuer.counts().token_requests, renewal);
        sleep(MINUTE).await;
    }
    let counts = issuer.counts();
    assert_eq!((counts.granted, counts.presented_twice, counts.refused), (10, 0, 0));
}

/// The first caller fetched for all; when it was cancelled, all of them failed (mui/mui-x#22947).
#[tokio::test(start_paused = true)]
async fn t13_when_the_leader_leaves_its_ten_followers_succeed() {
    // Before the fetch has begun, in its middle, and when it has landed but nobody was polled yet.
    for leaves in [0, 100, 200] {
        let issuer = Issuer::new();
        issuer.latency(200 * MILLISECOND);
        let api = Api::new(&issuer);
        let client = client(&tokens(refresh_grant(&issuer)), &api);
        let mut leader = spawn(client.clone().oneshot(get("/api", "leader")));
        assert_pending!(leader.poll());
        let followers: Vec<_> = (0..10)
            .map(|id| {
                let mut follower = spawn(client.clone().oneshot(get("/api", id)));
                assert_pending!(follower.poll());
                follower
            })
            .collect();
        if leaves > 0 {
            sleep(leaves * MILLISECOND).await;
        }
        drop(leader);
        for follower in followers {
            assert_eq!(status(&follower.await), Some(200), "left after {leaves} ms");
        }
        assert_eq!((issuer.counts().token_requests, api.deliveries("leader")), (1, 0));
    }
}

/// The refresh was bound to the context of the start-up, which was over: it worked for an hour and then
/// failed for ever (golang/oauth2#388, databricks/databricks-sdk-go#671).
#[test]
fn t14_a_layer_built_in_a_runtime_that_ended_works_in_the_next() {
    for keep_alive in [false, true] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        issuer.lifetime(HOUR);
        let startup = runtime();
        let (tokens, client) = startup.block_on(async {
            let policy = policy().keep_alive(keep_alive);
            let tokens = builder(refresh_grant(&issuer)).policy(policy).build().unwrap();
            let client = client(&tokens, &api);
            assert_eq!(status(&call(&client, "/api").await), Some(200));
            (tokens, client)
        });
        drop(startup);
        if keep_alive {
            assert_eq!(tokens.status().keep_alive, KeepAlive::NoRuntime);
        }
        runtime().block_on(async {
            for hours in 0..3 {
                assert_eq!(status(&call(&client, "/api").await), Some(200), "after {hours} h");
                sleep(HOUR).await;
            }
            if keep_alive {
                assert_eq!(tokens.status().keep_alive, KeepAlive::Running);
            }
        });
        assert_eq!((api.counts().expired_seen, issuer.counts().presented_twice), (0, 0));
        // Where there is no runtime at all, the error says so.
        let error = assert_ready_err!(spawn(tokens.refresh()).poll());
        assert!(error.to_string().contains("runtime"), "{error}");
    }
}

/// The completion that all waited for was never completed when the fetch ended badly
/// (Azure/azure-sdk-for-net#44901).
#[tokio::test(start_paused = true)]
async fn t15_a_fetch_that_fails_panics_or_hangs_strands_nobody() {
    for ends in ["in an error", "in a panic", "never"] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let fetches = Arc::new(AtomicU64::new(0));
        let provider = {
            let (grant, fetches) = (client_credentials(&issuer), fetches.clone());
            provider_fn(move |context| {
                let (grant, nth) = (grant.clone(), fetches.fetch_add(1, Ordering::SeqCst));
                async move {
                    match ends {
                        _ if nth > 0 => grant.fetch(context).await,
                        "in an error" => Err(FetchError::transient("down")),
                        "in a panic" => panic!("of the provider"),
                        _ => std::future::pending().await,
                    }
                }
            })
        };
        // What a refresh token may be presented for again is the matter of t23.
        let tokens = tokens(provider.if_lost(IfLost::Idempotent));
        let client = client(&tokens, &api);
        let began = Instant::now();
        let waiters = at_once(&client, "/api", 100).await.join_all();
        let waiters = timeout(MINUTE, waiters).await.expect("nobody hangs");
        assert!(waiters.iter().all(|outcome| ours(outcome).is_transient()), "{ends}");
        assert!(began.elapsed() <= 30 * SECOND, "{ends}: {:?}", began.elapsed());
        assert_eq!(
            (fetches.load(Ordering::SeqCst), tokens.status().waiting),
            (1, 0),
            "{ends}"
        );
        assert_eq!(status(&call(&client, "/api").await), Some(200), "{ends}");
        assert_eq!((fetches.load(Ordering::SeqCst), issuer.counts().token_requests), (2, 1));
    }
}

/// What tied a wait to its caller's deadline was gone too early, and callers waited for hours
/// (AzureAD/microsoft-authentication-library-for-dotnet#6053).
#[tokio::test(start_paused = true)]
async fn t16_every_deadline_holds_while_a_fetch_that_hangs_holds_the_flight() {
    const DEADLINES: [Duration; 3] = [Duration::from_millis(20), SECOND, Duration::from_secs(29)];
    for refused in [false, true] {
        let issuer = Issuer::new();
        issuer.lifetime(HOUR);
        let api = Api::new(&issuer);
        let tokens = tokens(refresh_grant(&issuer));
        let client = client(&tokens, &api);
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        match refused {
            true => _ = issuer.revoke_access(),
            false => sleep(HOUR).await,
        }
        issuer.fault_always(Some(Fault::Hang));
        api.latency(10 * MILLISECOND);
        let began = Instant::now();
        let patient = tokio::spawn(client.clone().oneshot(get("/api", "patient")));
        let requests = DEADLINES.map(|deadline| {
            let call = Timeout::new(client.clone(), deadline).oneshot(get("/api", deadline.as_millis()));
            tokio::spawn(async move { (call.await.unwrap_err().is::<Elapsed>(), began.elapsed()) })
        });
        // Those that are refused know it now.
        sleep(15 * MILLISECOND).await;
        let joined = Instant::now();
        let handles = DEADLINES.map(|deadline| {
            let tokens = tokens.clone();
            tokio::spawn(async move {
                let (get, refresh) = (timeout(deadline, tokens.get()), timeout(deadline, tokens.refresh()));
                let (get, refresh) = tokio::join!(get, refresh);
                (get.is_err() && refresh.is_err(), joined.elapsed())
            })
        });
        settle().await;
        assert_eq!(tokens.status().waiting, 1 + 3 + 6);
        for ((request, handle), deadline) in requests.into_iter().zip(handles).zip(DEADLINES) {
            assert_eq!(request.await.unwrap(), (true, deadline));
            assert_eq!(handle.await.unwrap(), (true, deadline));
        }
        assert_eq!((issuer.counts().token_requests, tokens.status().waiting), (2, 1));
        // And who has no deadline waits for two exchanges at most, the second being its other presentation.
        let outcome = patient.await.unwrap();
        assert_eq!(status(&outcome), refused.then_some(401));
        assert!(began.elapsed() <= MINUTE);
        assert_eq!((issuer.counts().token_requests, tokens.status().waiting), (3, 0));
    }
}

/// A waiter that was cancelled gave back a permit that it had never got
/// (AzureAD/microsoft-authentication-library-for-dotnet#4472).
#[tokio::test(start_paused = true)]
async fn t17_random_cancellations_give_back_what_was_acquired_and_no_more() {
    const PERMITS: usize = 3;
    const SEATS: usize = 50;
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(HOUR);
    let api = Api::new(&issuer);
    api.latency(10 * MILLISECOND);
    let tokens = builder(refresh_grant(&issuer))
        .policy(policy().max_waiters(SEATS))
        .build()
        .unwrap();
    let permits = Arc::new(Semaphore::new(PERMITS));
    let mut client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(API).unwrap()))
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()))
        .service(api.service());
    let mut random = fastrand::Rng::with_seed(17);
    for round in 0..300 {
        match random.bool() {
            true => _ = issuer.revoke_access(),
            false => sleep(HOUR).await,
        }
        // Called and never polled: neither a seat nor a permit was taken.
        let ready = ServiceExt::<Request<String>>::ready(&mut client).await.unwrap();
        drop(ready.call(get("/api", "unpolled")));
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let call = client.clone().oneshot(get("/api", "cancelled"));
            let [comes, stays] = [100, 300].map(|most| random.u32(..most) * MILLISECOND);
            callers.spawn(async move {
                sleep(comes).await;
                timeout(stays, call).await.is_ok()
            });
        }
        callers.join_all().await;
        settle().await;
        assert_eq!(
            (permits.available_permits(), tokens.status().waiting),
            (PERMITS, 0),
            "round {round}"
        );
    }
    let counts = issuer.counts();
    assert_eq!((counts.max_in_flight, counts.presented_twice), (1, 0));
    // Every seat is still there, and not one more.
    sleep(HOUR).await;
    let waiters = (0..=SEATS).map(|_| tokio::spawn(tokens.get()));
    let mut turned_away = 0;
    for waiter in waiters.collect::<Vec<_>>() {
        turned_away += usize::from(waiter.await.unwrap().is_err_and(|error| error.is_overloaded()));
    }
    assert_eq!(turned_away, 1);
}

/// An eager refresh was cancelled and kept the lock, for which everybody waited from then on
/// (ZiggyCreatures/FusionCache#218).
#[test]
fn t18_an_eager_refresh_that_is_aborted_frees_the_flight() {
    // The next request finds the token still good, or expired.
    for later in [33 * SECOND, 61 * SECOND] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let first = runtime();
        let (tokens, client) = first.block_on(async {
            let tokens = tokens(refresh_grant(&issuer));
            let client = client(&tokens, &api);
            assert_eq!(status(&call(&client, "/api").await), Some(200));
            sleep(31 * SECOND).await;
            issuer.fault(Fault::Hang);
            assert_eq!(status(&call(&client, "/api").await), Some(200));
            settle().await;
            assert_eq!((issuer.counts().token_requests, issuer.counts().in_flight), (2, 1));
            (tokens, client)
        });
        // Aborts its tasks.
        drop(first);
        assert_eq!((issuer.counts().in_flight, tokens.status().fetching), (0, false));
        runtime().block_on(async {
            sleep(later).await;
            for _ in 0..2 {
                let outcome = timeout(2 * SECOND, call(&client, "/api")).await.expect("nobody waits");
                assert_eq!(status(&outcome), Some(200));
                settle().await;
                assert_eq!((issuer.counts().token_requests, issuer.counts().granted), (3, 2));
            }
        });
        assert_eq!((issuer.counts().presented_twice, api.counts().expired_seen), (0, 0));
    }
}

/// Waiting for the token knew nothing of the call's deadline (grpc/grpc-java#4929).
#[tokio::test(start_paused = true)]
async fn t19_a_timeout_around_the_layer_fires_on_the_tick_while_the_fetch_goes_on_for_others() {
    let issuer = Issuer::new();
    issuer.latency(2 * SECOND).lifetime(HOUR);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let limited = Timeout::new(client.clone(), 500 * MILLISECOND);
    // Without a token, and refused.
    for fetches in 1..=2 {
        let began = Instant::now();
        let mut limited: JoinSet<_> = (0..50).map(|id| limited.clone().oneshot(get("/api", id))).collect();
        let others = at_once(&client, "/api", 50).await;
        while let Some(outcome) = limited.join_next().await {
            assert!(outcome.unwrap().unwrap_err().is::<Elapsed>());
        }
        assert_eq!(began.elapsed(), 500 * MILLISECOND);
        assert!(all_ok(&others.join_all().await));
        assert_eq!(began.elapsed(), 2 * SECOND);
        assert_eq!(issuer.counts().token_requests, fetches);
        issuer.revoke_access();
    }
}

/// Providers that lived for a moment left their refresh threads behind (aws/aws-sdk-java-v2#5796).
#[tokio::test(start_paused = true)]
async fn t20_ten_thousand_handles_and_layers_that_are_dropped_leave_no_task() {
    for keep_alive in [false, true] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        for nth in 0..10_000 {
            let policy = policy().keep_alive(keep_alive);
            let tokens = builder(refresh_grant(&issuer)).policy(policy).build().unwrap();
            let client = client(&tokens, &api);
            match nth % 20 {
                0 => assert_eq!(status(&call(&client, "/api").await), Some(200)),
                // Dropped with a spent refresh token and its answer in the air.
                1 => {
                    issuer.fault(Fault::DelayAfter(SECOND));
                    let granted = issuer.counts().granted;
                    let mut caller = spawn(client.oneshot(get("/api", nth)));
                    assert_pending!(caller.poll());
                    while issuer.counts().granted == granted {
                        yield_now().await;
                    }
                }
                // What keeps it alive has begun.
                2 => yield_now().await,
                _ => {}
            }
        }
        sleep(2 * SECOND).await;
        let counts = issuer.counts();
        assert_eq!(
            (counts.granted, counts.in_flight),
            (counts.token_requests, 0),
            "all of them land"
        );
        let asked = if keep_alive { 1_500 } else { 1_000 };
        assert_eq!(counts.token_requests, asked);
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            0,
            "keep alive: {keep_alive}"
        );
    }
}

/// The same at the end of a program: what is being redeemed lands before it exits.
#[tokio::test(start_paused = true)]
async fn t20_a_redemption_in_the_air_lands_before_the_exit() {
    let issuer = Issuer::new();
    let tokens = tokens(refresh_grant(&issuer));
    issuer.fault(Fault::DelayAfter(5 * SECOND));
    let mut get = spawn(tokens.get());
    assert_pending!(get.poll());
    settle().await;
    assert_eq!(issuer.counts().in_flight, 1);
    drop(get);
    tokens.shutdown().await;
    assert!(issuer.counts().in_flight == 0 && tokens.current().is_some());
    drop(tokens);
    settle().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}
