//! A token that a server refuses: one exchange, one replay, and no storm where renewing is no help.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod flows;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flows::*;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{Error, Event, Never, Origins, TokenLayer, TokenProvider};

#[tokio::test(start_paused = true)]
async fn a_revocation_under_a_thousand_requests_is_one_exchange_and_one_replay_each() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(HOUR);
    let api = Api::new(&issuer);
    let client = accepted(&issuer, &api).await;
    // The answers come 10 ms to 3 s after all thousand have gone out with the old token.
    api.latency(10 * MILLISECOND).refusal_spread(3 * SECOND);
    issuer.revoke_access();
    let outcomes = at_once(&client, "/api", 1_000).await.join_all().await;
    assert!(all_ok(&outcomes));
    assert_eq!(issuer.counts().token_requests, 1 + 1);
    let counts = api.counts();
    assert_eq!((counts.refused, counts.revoked_seen), (1_000, 1_000));
    assert_eq!(counts.requests, 1 + 2 * 1_000);
    assert_eq!((api.delivered_more_than(2), api.authorized_more_than(1)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_concurrent_401s_of_one_revoked_token_are_one_fetch_and_a_hundred_replays() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(HOUR);
    let api = Api::new(&issuer);
    let replays = Arc::new(AtomicUsize::new(0));
    let counted = replays.clone();
    let tokens = builder(refresh_grant(&issuer)).observe(move |event: &Event| {
        counted.fetch_add(matches!(event, Event::Replayed { .. }).into(), Ordering::Relaxed);
    });
    let client = client(&tokens.build().unwrap(), &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    // All hundred have gone out with the old token when the first refusal comes.
    api.latency(10 * MILLISECOND);
    issuer.revoke_access();
    let outcomes = at_once(&client, "/api", 100).await.join_all().await;
    assert!(all_ok(&outcomes));
    assert_eq!(api.counts().refused, 100);
    assert_eq!(issuer.counts().token_requests, 1 + 1);
    assert_eq!(replays.load(Ordering::Relaxed), 100);
    assert_eq!(api.counts().requests, 1 + 2 * 100);
}

/// Revokes with an early renewal in the air, at the moment when `fault` leaves it there.
async fn with_a_renewal_in_the_air(fault: Option<Fault>, at_most: u64) -> u64 {
    let issuer = Issuer::new();
    issuer.lifetime(60 * SECOND);
    let api = Api::new(&issuer);
    let client = accepted(&issuer, &api).await;
    sleep(31 * SECOND).await;
    match fault {
        Some(fault) => _ = issuer.fault(fault),
        None => _ = issuer.latency(2 * SECOND),
    }
    assert_eq!(status(&call(&client, "/api").await), Some(200), "stale, and good");
    settle().await;
    assert_eq!((issuer.counts().token_requests, issuer.counts().in_flight), (2, 1));
    api.latency(10 * MILLISECOND).refusal_spread(3 * SECOND);
    issuer.revoke_access();
    let outcomes = at_once(&client, "/api", 1_000).await.join_all().await;
    assert!(all_ok(&outcomes));
    assert_eq!(
        (api.delivered_more_than(2), api.authorized_more_than(1)),
        (0, 1),
        "only the warm-up has one id twice"
    );
    assert_eq!(issuer.counts().presented_twice, 0);
    let exchanges = issuer.counts().token_requests - 1;
    assert!(exchanges <= at_most, "{exchanges}");
    exchanges
}

#[tokio::test(start_paused = true)]
async fn a_revocation_with_an_early_renewal_in_the_air_is_two_exchanges_at_most() {
    let exchanges = with_a_renewal_in_the_air(None, 2).await;
    println!("the renewal had not been acted on: {exchanges}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_token_was_revoked_before_it_landed_is_followed_by_one_more() {
    let fault = Fault::DelayAfter(2 * SECOND);
    assert_eq!(with_a_renewal_in_the_air(Some(fault), 2).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_revoked_again_and_again_is_renewed_again_and_again() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let client = accepted(&issuer, &api).await;
    for revocation in 1..=50 {
        issuer.revoke_access();
        assert_eq!(status(&call(&client, "/api").await), Some(200), "{revocation}");
        assert_eq!(issuer.counts().token_requests, 1 + revocation);
    }
    assert_eq!((issuer.counts().presented_twice, issuer.counts().reuse), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_route_that_always_refuses_costs_one_exchange_a_minute() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(HOUR);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let samples = traffic(&client, "/liar", 2 * MILLISECOND, 10 * MINUTE).await;
    assert_eq!(answered(&samples, 401), samples.len(), "the server's own answer");
    println!(
        "/liar: {} token requests, {:?}",
        issuer.counts().token_requests,
        api.counts()
    );
    assert!(issuer.counts().token_requests <= 1 + 10, "{:?}", issuer.counts());
    let minted: Vec<_> = issuer.timeline().iter().map(|issued| issued.at).collect();
    // The first token is not a renewal.
    let minutes = minted[1..].windows(2).all(|pair| pair[1] - pair[0] >= MINUTE);
    assert!(minutes, "{minted:?}");
    assert!(api.counts().max_deliveries <= 2);
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_bearer_challenge_are_told_apart() {
    // Route, status, deliveries of the first request, exchanges it costs.
    let table = [
        ("/liar", 401, 2, 1),
        ("/bare401", 401, 2, 1),
        ("/basic401", 401, 1, 0),
        ("/forbidden", 403, 1, 0),
        ("/nothing-there", 404, 1, 0),
    ];
    for (path, code, deliveries, exchanges) in table {
        let issuer = Issuer::new();
        issuer.lifetime(HOUR);
        let api = Api::new(&issuer);
        let client = accepted(&issuer, &api).await;
        let outcome = client.clone().oneshot(get(path, path)).await;
        assert_eq!(status(&outcome), Some(code), "{path}");
        assert_eq!(api.deliveries(path), deliveries, "{path}");
        assert_eq!(issuer.counts().token_requests, 1 + exchanges, "{path}");
        assert_eq!(
            status(&call(&client, "/api").await),
            Some(200),
            "{path} spoils no other route"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_to_a_refused_request_reaches_the_caller_whole() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let client = accepted(&issuer, &api).await;
    let response = call(&client, "/liar").await.unwrap();
    assert!(response.headers()["www-authenticate"].as_bytes().starts_with(b"Bearer"));
    assert_eq!(response.into_body().bytes().await.unwrap(), "refused\n");
}

/// The bound is for all who wait, those that were refused included.
#[tokio::test(start_paused = true)]
async fn a_refused_request_that_finds_no_seat_gets_the_servers_own_answer_and_why() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let tokens = builder(refresh_grant(&issuer))
        .policy(policy().max_waiters(3))
        .build()
        .unwrap();
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    issuer.latency(SECOND).revoke_access();
    // All of them are on their way before the first is refused.
    api.latency(10 * MILLISECOND);
    let outcomes = at_once(&client, "/api", 10).await.join_all().await;
    let (replayed, refused): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| status(outcome) == Some(200));
    assert_eq!((replayed.len(), refused.len()), (3, 7));
    for outcome in refused {
        let response = outcome.as_ref().unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.extensions().get::<Error>().unwrap().is_overloaded());
    }
    assert_eq!((issuer.counts().token_requests, tokens.status().waiting), (2, 0));
}

/// Not after a normal expiry; and a second refusal comes too soon for another fetch, so that it waits for its time.
#[tokio::test(start_paused = true)]
async fn a_second_refusal_within_a_second_waits_for_the_end_of_it() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let client = accepted(&issuer, &api).await;
    let began = Instant::now();
    // One a quarter of a second after the other, each of which finds its token revoked.
    let mut answered_at = Vec::new();
    for _ in 0..3 {
        issuer.revoke_access();
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        answered_at.push(began.elapsed());
        sleep(250 * MILLISECOND).await;
    }
    assert_eq!(answered_at, [Duration::ZERO, SECOND, 2 * SECOND]);
    assert_eq!(issuer.counts().token_requests, 1 + 3);
}

/// Ten minutes of traffic with a credential that the issuer does not accept.
async fn a_dead_credential(kill: impl FnOnce(&Issuer)) {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    kill(&issuer);
    // Past the end of the token in place.
    sleep(2 * MINUTE).await;
    let (asked, sent) = (issuer.counts().token_requests, api.counts().requests);
    let samples = traffic(&client, "/api", 100 * MILLISECOND, 10 * MINUTE).await;
    for sample in &samples {
        assert!(ours(&sample.outcome).is_reauth_required());
        assert_eq!(sample.took, Duration::ZERO);
    }
    let exchanges = issuer.counts().token_requests - asked;
    assert!(exchanges <= 2, "{exchanges}");
    assert_eq!(api.counts().requests, sent, "nothing is sent without a token");
    issuer.fault_always(None);
    tokens.install(json!({ "refresh_token": issuer.sign_in() })).unwrap();
    let began = Instant::now();
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    assert!(began.elapsed() <= SECOND);
    assert_eq!(issuer.counts().token_requests, asked + exchanges + 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_credential_is_asked_for_twice_in_ten_minutes_and_install_revives_it() {
    a_dead_credential(|issuer| _ = issuer.revoke_all()).await;
}

#[tokio::test(start_paused = true)]
async fn a_bare_400_is_a_dead_credential_too() {
    a_dead_credential(|issuer| _ = issuer.fault_always(Some(Fault::Status(400)))).await;
}

/// Traffic through an outage that nothing ends: requests in the first minute, and in each after it.
async fn asked_by_the_minute(grant: impl FnOnce(&Issuer) -> Client, issuer: &Issuer, minutes: usize) -> Vec<u64> {
    let client = grant(issuer);
    let mut asked = Vec::new();
    let mut before = 0;
    for _ in 0..minutes {
        let samples = traffic(&client, "/api", 10 * MILLISECOND, MINUTE).await;
        assert!(samples.iter().all(|sample| sample.outcome.is_err()));
        let now = issuer.counts().token_requests;
        asked.push(now - before);
        before = now;
    }
    asked
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_asked_about_six_times_in_the_first_minute_and_by_probes_after_it() {
    let issuer = Issuer::new();
    issuer.fault_always(Some(Fault::Status(503)));
    let api = Api::new(&issuer);
    let connect = |issuer: &Issuer| client(&tokens(refresh_grant(issuer)), &api);
    let asked = asked_by_the_minute(connect, &issuer, 10).await;
    println!("503: {asked:?}");
    assert!(asked[0] <= 6, "{asked:?}");
    // At most one by the backoff, and one probe in 30 s because requests fail.
    assert!(asked[1..].iter().all(|asked| *asked <= 1 + 2), "{asked:?}");
}

/// I11. One that says "in 7 s" each time is heard, but not asked every 7 s for ever.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_throttles_on_and_on_is_asked_six_times_in_the_first_minute_and_once_a_minute_after_it() {
    for (status, seconds) in [(429, 7), (503, 7), (429, 1)] {
        let issuer = Issuer::new();
        issuer.fault_always(Some(Fault::RetryAfter { status, seconds }));
        let api = Api::new(&issuer);
        let connect = |issuer: &Issuer| client(&tokens(refresh_grant(issuer)), &api);
        let asked = asked_by_the_minute(connect, &issuer, 10).await;
        println!("{status}, Retry-After: {seconds}: {asked:?}");
        assert!(asked[0] <= 6, "{asked:?}");
        assert!(asked[1..].iter().all(|asked| *asked <= 1), "{asked:?}");
    }
}

async fn nobody_asks_within_retry_after(code: u16) {
    let issuer = Issuer::new();
    issuer.fault_always(Some(Fault::RetryAfter {
        status: code,
        seconds: 7,
    }));
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    for round in 1..=5 {
        let began = Instant::now();
        let error = ours(&call(&client, "/api").await);
        assert!(error.is_throttled() && error.is_transient(), "{error}");
        assert_eq!(error.retry_after(), Some(7 * SECOND), "{error}");
        assert_eq!(issuer.counts().token_requests, round);
        let samples = traffic(&client, "/api", 10 * MILLISECOND, 6990 * MILLISECOND).await;
        assert!(
            samples
                .iter()
                .all(|sample| ours(&sample.outcome).retry_after() <= Some(7 * SECOND))
        );
        assert_eq!(issuer.counts().token_requests, round, "0 within the 7 s");
        sleep(7 * SECOND - began.elapsed()).await;
    }
    issuer.fault_always(None);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_within_the_retry_after_of_a_503() {
    nobody_asks_within_retry_after(503).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_within_the_retry_after_of_a_429() {
    nobody_asks_within_retry_after(429).await;
}

/// Two routes of one origin side by side, one of which always refuses. Exchanges, and the waits of the good one.
async fn beside_a_liar(grant: impl TokenProvider, issuer: &Issuer, minutes: u32) -> (u64, Vec<Sample>) {
    let api = Api::new(issuer);
    api.latency(10 * MILLISECOND);
    let client = client(&tokens(grant), &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    let (refused, good) = tokio::join!(
        traffic(&client, "/liar", 20 * MILLISECOND, minutes * MINUTE),
        traffic(&client, "/api", 20 * MILLISECOND, minutes * MINUTE),
    );
    assert_eq!(answered(&refused, 401), refused.len());
    // The warm-up is not counted, whose id comes once.
    assert!(api.counts().max_deliveries <= 2);
    (issuer.counts().token_requests - 1, good)
}

#[tokio::test(start_paused = true)]
async fn a_route_that_always_refuses_does_not_stop_the_others() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(HOUR);
    let (exchanges, good) = beside_a_liar(refresh_grant(&issuer), &issuer, 10).await;
    assert_eq!(answered(&good, 200), good.len());
    let waited: Vec<_> = good.iter().filter(|sample| sample.took > 10 * MILLISECOND).collect();
    let longest = waited.iter().map(|sample| sample.took).max();
    println!(
        "/api beside /liar: {exchanges} exchanges, {} of {} calls waited, {longest:?} at most",
        waited.len(),
        good.len()
    );
    assert!(exchanges <= 11, "{exchanges}");
    // For one exchange a minute, those who come meanwhile wait.
    assert!(longest <= Some(210 * MILLISECOND));
    assert!(waited.len() <= 11 * 11, "{}", waited.len());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_kept_is_delivered_once_and_its_refusal_renews() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .replay(Never)
        .layer(api.service());
    let ask = |id: &str| client.clone().oneshot(get("/api", id));
    assert_eq!(status(&ask("first").await), Some(200));
    issuer.revoke_access();
    assert_eq!(status(&ask("second").await), Some(401));
    assert_eq!(status(&ask("third").await), Some(200));
    assert_eq!((api.deliveries("second"), api.deliveries("third")), (1, 1));
    assert_eq!(issuer.counts().token_requests, 2);
}
