//! However many ask, one fetches: cold, expired, failing, hanging, cancelled, short-lived.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod flows;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flows::*;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::{ServiceExt, service_fn};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{Class, IfLost, TokenClient, TokenProvider, Tokens};

const HERD: usize = 10_000;

/// Everybody at once; the outcomes, and how long the last of them took.
async fn herd(client: &Client) -> (Vec<Outcome>, Duration) {
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..HERD {
        let client = client.clone();
        callers.spawn(async move { call(&client, "/api").await });
    }
    let outcomes = callers.join_all().await;
    (outcomes, began.elapsed())
}

async fn a_herd_at_each_expiry_is_one_exchange(issuer: Issuer, tokens: Tokens) {
    issuer.latency(200 * MILLISECOND);
    let api = Api::new(&issuer);
    let client = client(&tokens, &api);
    for expiry in 1..=3_u64 {
        let (outcomes, took) = herd(&client).await;
        assert!(outcomes.iter().all(|outcome| status(outcome) == Some(200)));
        assert_eq!(took, 200 * MILLISECOND, "nobody waits longer than the exchange takes");
        assert_eq!(issuer.counts().token_requests, expiry);
        assert_eq!(api.counts().authorized, expiry * HERD as u64);
        // Past its end, so that the next herd finds an expired token.
        sleep(MINUTE).await;
    }
    assert_eq!(issuer.counts().max_in_flight, 1);
    assert_eq!(issuer.counts().presented_twice, 0);
    assert_eq!((api.counts().expired_seen, api.counts().refused), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_on_a_cold_and_on_expired_refresh_tokens_are_one_exchange_each() {
    let issuer = Issuer::new();
    let tokens = tokens(refresh_grant(&issuer));
    a_herd_at_each_expiry_is_one_exchange(issuer, tokens).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_are_one_exchange_with_client_credentials_too() {
    let issuer = Issuer::new();
    let tokens = tokens(client_credentials(&issuer));
    a_herd_at_each_expiry_is_one_exchange(issuer, tokens).await;
}

/// All fail with the same words and class, within `limit`, for `requests` token requests.
async fn a_herd_fails_as_one(fault: Fault, grant: impl FnOnce(&Issuer) -> RefreshTokenGrant, expected: Failure) {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).fault_always(Some(fault));
    let api = Api::new(&issuer);
    let tokens = builder(grant(&issuer))
        .policy(policy().fetch_timeout(5 * SECOND))
        .build()
        .unwrap();
    let (outcomes, took) = herd(&client(&tokens, &api)).await;
    let first = ours(&outcomes[0]);
    assert_eq!(first.class(), Some(expected.class), "{first}");
    for outcome in &outcomes {
        assert_eq!(ours(outcome).to_string(), first.to_string());
    }
    assert!(took <= expected.within, "{took:?}");
    assert_eq!(issuer.counts().token_requests, expected.requests);
    assert_eq!(api.counts().requests, 0);
    assert_eq!(tokens.status().waiting, 0);
}

struct Failure {
    class: Class,
    within: Duration,
    requests: u64,
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_fails_resolves_ten_thousand_waiters_with_one_error() {
    let expected = Failure {
        class: Class::Transient,
        within: 200 * MILLISECOND,
        requests: 1,
    };
    a_herd_fails_as_one(Fault::Status(503), refresh_grant, expected).await;
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_hangs_resolves_ten_thousand_waiters_within_one_fetch_timeout() {
    let expected = Failure {
        class: Class::Ambiguous,
        within: 5 * SECOND,
        requests: 1,
    };
    let grant = |issuer: &Issuer| refresh_grant(issuer).if_lost(IfLost::NeverReplay);
    a_herd_fails_as_one(Fault::Hang, grant, expected).await;
}

#[tokio::test(start_paused = true)]
async fn the_second_presentation_to_an_issuer_that_hangs_adds_one_fetch_timeout_for_all() {
    let expected = Failure {
        class: Class::Ambiguous,
        within: 10 * SECOND,
        requests: 2,
    };
    a_herd_fails_as_one(Fault::Hang, refresh_grant, expected).await;
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_last_seat_fail_at_once_and_the_rest_are_served() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND);
    let api = Api::new(&issuer);
    let tokens = builder(refresh_grant(&issuer))
        .policy(policy().max_waiters(1_000))
        .build()
        .unwrap();
    let (outcomes, _) = herd(&client(&tokens, &api)).await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(served, 1_000);
    let turned_away = outcomes.iter().filter(|outcome| outcome.is_err());
    assert!(turned_away.map(ours).all(|error| error.is_overloaded()));
    assert_eq!(issuer.counts().token_requests, 1);
}

#[tokio::test(start_paused = true)]
async fn deadlines_of_callers_hold_while_the_issuer_hangs() {
    let issuer = Issuer::new();
    issuer.fault(Fault::Hang);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer).if_lost(IfLost::NeverReplay));
    let client = client(&tokens, &api);
    for patience in [50 * MILLISECOND, SECOND, 10 * SECOND] {
        let began = Instant::now();
        assert!(timeout(patience, call(&client, "/api")).await.is_err());
        assert_eq!(began.elapsed(), patience);
    }
    assert_eq!(issuer.counts().token_requests, 1, "one exchange for all of them");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_rounds_of_cancelled_callers_lose_no_refresh_token() {
    const ROUNDS: u64 = 1_000;
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    for round in 0..ROUNDS {
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let client = client.clone();
            callers.spawn(async move { call(&client, "/api").await });
        }
        // Every millisecond of the exchange, from before its beginning to after its end.
        sleep(Duration::from_millis(round % 202)).await;
        drop(callers);
        assert_eq!(status(&call(&client, "/api").await), Some(200), "round {round}");
        sleep(MINUTE).await;
    }
    let counts = issuer.counts();
    assert_eq!((counts.token_requests, counts.granted), (ROUNDS, ROUNDS));
    assert_eq!((counts.presented_twice, counts.max_in_flight), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn callers_that_are_cancelled_while_their_refusal_is_renewed_lose_nothing() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(60 * MINUTE);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    for round in 0..200 {
        issuer.revoke_access();
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let client = client.clone();
            callers.spawn(async move { call(&client, "/api").await });
        }
        sleep(Duration::from_millis(round)).await;
        drop(callers);
        assert_eq!(status(&call(&client, "/api").await), Some(200), "round {round}");
        // More than the shortest time between two refusals.
        sleep(2 * SECOND).await;
    }
    let counts = issuer.counts();
    assert_eq!((counts.token_requests, counts.presented_twice), (201, 0));
}

#[tokio::test(start_paused = true)]
async fn no_expired_token_and_none_that_was_replaced_is_sent() {
    let issuer = Issuer::new();
    issuer.latency(300 * MILLISECOND).lifetime(5 * SECOND);
    let api = Api::new(&issuer);
    api.latency(20 * MILLISECOND);
    let tokens = tokens(refresh_grant(&issuer));
    let samples = traffic(&client(&tokens, &api), "/api", 2 * MILLISECOND, 120 * SECOND).await;
    assert_eq!((answered(&samples, 200), samples.len()), (60_000, 60_000));
    let counts = api.counts();
    assert_eq!((counts.expired_seen, counts.stale_seen, counts.refused), (0, 0, 0));
    assert_eq!(counts.max_deliveries, 1);
    // Each renewed at half its life, and landed 300 ms later.
    println!("{:?}", issuer.counts());
    assert!(
        (43..=49).contains(&issuer.counts().token_requests),
        "{:?}",
        issuer.counts()
    );
    assert_eq!(issuer.counts().max_in_flight, 1);
}

#[tokio::test(start_paused = true)]
async fn twenty_early_renewals_of_two_seconds_make_no_request_wait() {
    let issuer = Issuer::new();
    issuer.latency(2 * SECOND).lifetime(20 * SECOND);
    let api = Api::new(&issuer);
    api.latency(10 * MILLISECOND);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    // Renewed 10 s into each life, and the next life begins when the answer is sent for.
    let samples = traffic(&client, "/api", 2 * MILLISECOND, 241 * SECOND).await;
    assert!(issuer.counts().token_requests > 20, "{:?}", issuer.counts());
    println!("{:?}", issuer.counts());
    let waited = samples.iter().filter(|sample| sample.took != 10 * MILLISECOND).count();
    assert_eq!(waited, 0);
    assert_eq!(answered(&samples, 200), samples.len());
    assert_eq!(api.counts().expired_seen, 0);
}

/// I8. Windows that are longer than the life count as their share of it.
#[tokio::test(start_paused = true)]
async fn a_life_of_two_seconds_under_windows_of_sixty_is_renewed_once_a_second_at_most() {
    let issuer = Issuer::new();
    issuer.lifetime(2 * SECOND);
    let api = Api::new(&issuer);
    let tokens = builder(refresh_grant(&issuer))
        .policy(policy().refresh_before(MINUTE).require_before(MINUTE))
        .build()
        .unwrap();
    let samples = traffic(&client(&tokens, &api), "/api", 2 * MILLISECOND, MINUTE).await;
    assert_eq!((answered(&samples, 200), samples.len()), (30_000, 30_000));
    assert!(issuer.counts().token_requests <= 60, "{:?}", issuer.counts());
    let minted: Vec<_> = issuer.timeline().iter().map(|issued| issued.at).collect();
    assert!(minted.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{minted:?}");
    assert_eq!((api.counts().expired_seen, api.counts().refused), (0, 0));
}

/// Each layer holds a token made ready of its own, and none of them sends it in the last minute of an hour.
#[tokio::test(start_paused = true)]
async fn in_the_mandatory_window_the_callers_of_every_layer_wait_for_one_fetch() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let layers: Vec<_> = (0..10).map(|_| client(&tokens, &api)).collect();
    let all_call = async || {
        let began = Instant::now();
        let calls: JoinSet<_> = layers
            .iter()
            .flat_map(|layer| [layer.clone(), layer.clone()])
            .map(|layer| async move { (call(&layer, "/api").await, began.elapsed()) })
            .collect();
        let calls = calls.join_all().await;
        assert!(calls.iter().all(|(outcome, _)| status(outcome) == Some(200)));
        calls.into_iter().map(|(_, took)| took).collect::<Vec<_>>()
    };
    all_call().await;
    issuer.latency(2 * SECOND);
    // Nobody asks in the advisory window, so that nothing is renewed ahead of time.
    sleep(59 * MINUTE).await;
    assert_eq!(all_call().await, [2 * SECOND; 20]);
    assert_eq!((issuer.counts().token_requests, issuer.counts().max_in_flight), (2, 1));
    assert_eq!(api.counts().stale_seen, 0);
    // A moment earlier all of them go out at once, with one renewal behind their backs.
    sleep(59 * MINUTE - 3 * SECOND).await;
    assert_eq!(all_call().await, [Duration::ZERO; 20]);
    sleep(2 * SECOND).await;
    assert_eq!(issuer.counts().token_requests, 3);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_does_not_displace_a_token_that_is_still_good() {
    let issuer = Issuer::new();
    issuer.lifetime(10 * MINUTE);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    issuer.fault_always(Some(Fault::Status(503)));
    // The mandatory window is the last minute.
    let samples = traffic(&client, "/api", 100 * MILLISECOND, 9 * MINUTE - SECOND).await;
    assert_eq!(answered(&samples, 200), samples.len());
    let asked = issuer.counts().token_requests;
    println!("asked {asked} times in 4 minutes of failing");
    assert!(asked <= 1 + 6 + 4, "backoff holds while the token is good: {asked}");
    sleep(2 * SECOND).await;
    for sample in traffic(&client, "/api", 100 * MILLISECOND, 50 * SECOND).await {
        let error = ours(&sample.outcome);
        assert!(error.to_string().contains("login.example.com answered 503"), "{error}");
        assert!(error.is_transient() && !error.is_reauth_required());
    }
    assert_eq!(api.counts().expired_seen, 0);
}

/// How long after its end an outage is noticed to be over. It is switched on and off with `out`.
async fn recovery(client: &Client, lasts: Duration, out: &dyn Fn(bool)) -> Duration {
    // Past the end of the token in place, so that requests fail.
    out(true);
    sleep(MINUTE).await;
    let samples = traffic(client, "/api", SECOND, lasts).await;
    assert_eq!(answered(&samples, 200), 0, "the outage is one");
    out(false);
    let healed = Instant::now();
    while status(&call(client, "/api").await) != Some(200) {
        assert!(healed.elapsed() < 10 * MINUTE, "it never ends");
        sleep(GAP).await;
    }
    healed.elapsed()
}

/// Between two calls of those who look whether it is over.
const GAP: Duration = Duration::from_millis(100);

async fn a_hundred_outages_heal(grant: impl FnOnce(&Issuer) -> Tokens, faults: &[Fault], within: Duration) {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = grant(&issuer);
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    let mut longest = Duration::ZERO;
    for round in 0..100 {
        let fault = &faults[round % faults.len()];
        let out = |is_out: bool| _ = issuer.fault_always(is_out.then(|| fault.clone()));
        let took = recovery(&client, 30 * SECOND, &out).await;
        assert!(took <= within, "round {round}, {fault:?}: {took:?}");
        longest = longest.max(took);
    }
    println!("100 outages: the longest recovery took {longest:?}");
    assert_eq!(issuer.counts().reuse, 0);
}

fn impatient(grant: impl TokenProvider) -> Tokens {
    builder(grant)
        .policy(policy().fetch_timeout(5 * SECOND))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_outages_heal_without_a_restart() {
    let faults = [
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Hang,
        Fault::Status(500),
        Fault::Status(503),
        Fault::StatusAfter(502),
        Fault::Garbage,
        Fault::Truncate,
        Fault::Redirect("https://elsewhere.example/token".into()),
        Fault::answer(200, "text/html", "<html>down for maintenance</html>"),
        Fault::answer(403, "text/html", "<html>blocked</html>"),
    ];
    let grant = |issuer: &Issuer| impatient(client_credentials(issuer));
    a_hundred_outages_heal(grant, &faults, 30 * SECOND + GAP).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_outages_heal_with_a_rotating_refresh_token_too() {
    // None of them commits, so the refresh token is good when the issuer is back.
    let faults = [
        Fault::DropBefore,
        Fault::Hang,
        Fault::Status(500),
        Fault::Status(503),
        Fault::Redirect("https://elsewhere.example/token".into()),
        Fault::answer(200, "text/html", "<html>down for maintenance</html>"),
    ];
    let grant = |issuer: &Issuer| impatient(refresh_grant(issuer));
    // A lost answer is followed by one presentation a minute.
    a_hundred_outages_heal(grant, &faults, MINUTE + GAP).await;
}

/// I7. A connection that is refused is no presentation, so that nobody waits for a minute.
#[tokio::test(start_paused = true)]
async fn a_hundred_times_an_issuer_that_is_down_comes_back_for_a_rotating_refresh_token_too() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let down = Arc::new(AtomicBool::new(false));
    let (server, is_down) = (issuer.clone(), down.clone());
    let reached = service_fn(move |request: Request<Full<Bytes>>| {
        let server = (!is_down.load(Ordering::SeqCst)).then(|| server.service());
        async move {
            match server {
                Some(server) => server.oneshot(request).await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        }
    });
    let client = client(&tokens(refresh_grant(&issuer).client(TokenClient::new(reached))), &api);
    let mut longest = Duration::ZERO;
    for round in 0..100 {
        // Up to 12 minutes, when the backoff alone would take two more.
        let lasts = 30 * SECOND + 7 * SECOND * round;
        let took = recovery(&client, lasts, &|is_out| down.store(is_out, Ordering::SeqCst)).await;
        assert!(took <= 30 * SECOND + GAP, "{lasts:?} down, then {took:?}");
        longest = longest.max(took);
    }
    println!("100 times down: the longest recovery took {longest:?}");
    let counts = issuer.counts();
    assert_eq!(
        (counts.token_requests, counts.granted, counts.presented_twice),
        (100, 100, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_answer_serves_callers_of_every_moment() {
    let issuer = Issuer::new();
    issuer.latency(20 * SECOND).lifetime(60 * MINUTE);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    let mut callers = JoinSet::new();
    for at in 0..200_u32 {
        let client = client.clone();
        callers.spawn(async move {
            sleep(100 * MILLISECOND * at).await;
            let outcome = client.oneshot(get("/api", at)).await;
            (outcome, Instant::now())
        });
    }
    let began = Instant::now();
    for (outcome, at) in callers.join_all().await {
        assert_eq!(status(&outcome), Some(200));
        assert_eq!(at - began, 20 * SECOND);
    }
    assert_eq!(issuer.counts().token_requests, 1);
}
