//! Refresh tokens that are good for one use: what is presented how often, whatever becomes of the answer.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod flows;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flows::*;
use http::Request;
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::{ServiceExt, service_fn};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{Class, IfLost, TokenClient};

#[tokio::test(start_paused = true)]
async fn fifty_generations_are_each_presented_once() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    for generation in 1..=50 {
        match generation % 3 {
            // In the background, refused, expired.
            0 => {
                sleep(31 * SECOND).await;
                assert_eq!(status(&call(&client, "/api").await), Some(200));
                sleep(SECOND).await;
            }
            1 => _ = issuer.revoke_access(),
            _ => sleep(MINUTE).await,
        }
        assert_eq!(status(&call(&client, "/api").await), Some(200), "{generation}");
        assert_eq!(issuer.counts().token_requests, generation);
    }
    let counts = issuer.counts();
    assert_eq!((counts.granted, counts.presented_twice, counts.reuse), (50, 0, 0));
    assert!(issuer.timeline().iter().all(|issued| issued.rotated));
    assert_eq!(api.counts().expired_seen, 0);
}

// ===== Answers that are lost =====

#[tokio::test(start_paused = true)]
async fn where_the_issuer_grants_grace_a_lost_answer_fails_no_request() {
    let issuer = Issuer::new();
    issuer.grace(10 * SECOND);
    let api = Api::new(&issuer);
    let client = accepted(&issuer, &api).await;
    sleep(MINUTE).await;
    issuer.fault(Fault::DropAfter);
    let samples = traffic(&client, "/api", SECOND, 60 * MINUTE).await;
    assert_eq!(answered(&samples, 200), samples.len());
    let counts = issuer.counts();
    assert_eq!((counts.presented_twice, counts.reuse, counts.refused), (1, 0, 0));
    assert_eq!(api.counts().expired_seen, 0);
}

#[tokio::test(start_paused = true)]
async fn t24_replay_within_replays_inside_its_window_only() {
    // How long the first presentation takes to be lost, and presentations in all.
    for (delay, presentations) in [(1, 2), (29, 2), (45, 1)] {
        let issuer = Issuer::new();
        issuer.grace(MINUTE);
        let api = Api::new(&issuer);
        let grant = refresh_grant(&issuer).if_lost(IfLost::ReplayWithin(30 * SECOND));
        let tokens = builder(grant)
            .policy(policy().fetch_timeout(Duration::from_secs(delay)))
            .build()
            .unwrap();
        issuer.fault(Fault::DelayAfter(MINUTE));
        let outcome = call(&client(&tokens, &api), "/api").await;
        assert_eq!(issuer.counts().token_requests, presentations, "{delay} s");
        assert_eq!(outcome.is_ok(), presentations == 2, "{delay} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_early_renewal_fails_no_request_while_the_token_is_good() {
    for if_lost in [IfLost::ReplayOnce, IfLost::NeverReplay] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let client = client(&tokens(refresh_grant(&issuer).if_lost(if_lost)), &api);
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        issuer.fault(Fault::DropBefore);
        // Up to the mandatory window; the issuer had not acted, so its family lives on.
        let samples = traffic(&client, "/api", 100 * MILLISECOND, 44 * SECOND).await;
        assert_eq!(answered(&samples, 200), samples.len());
        let presentations = if if_lost == IfLost::ReplayOnce { 2 } else { 1 };
        assert_eq!(issuer.counts().token_requests, 1 + presentations, "{if_lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_answers_are_lost_a_minute_lies_between_presentations() {
    let issuer = Issuer::new();
    issuer.fault_always(Some(Fault::DropBefore));
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let samples = traffic(&client, "/api", 100 * MILLISECOND, 10 * MINUTE).await;
    assert!(
        samples
            .iter()
            .all(|sample| ours(&sample.outcome).class() == Some(Class::Ambiguous))
    );
    assert_eq!(issuer.counts().token_requests, 2 + 9);
    issuer.fault_always(None);
    sleep(MINUTE).await;
    assert_eq!(status(&call(&client, "/api").await), Some(200), "no outage is final");
}

/// Fails the first `failures` calls with `kind`, before the issuer sees them.
fn unreachable_at_first(issuer: &Issuer, failures: u32, kind: io::ErrorKind) -> (TokenClient, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let (issuer, counted) = (issuer.clone(), calls.clone());
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let fails = counted.fetch_add(1, Ordering::SeqCst) < failures;
        let issuer = issuer.clone();
        async move {
            match fails {
                true => Err(io::Error::from(kind)),
                false => issuer.service().oneshot(request).await,
            }
        }
    });
    (TokenClient::new(service), calls)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_never_made_is_no_presentation() {
    for (kind, class, calls) in [
        (io::ErrorKind::ConnectionRefused, Class::Transient, 1),
        (io::ErrorKind::AddrNotAvailable, Class::Transient, 1),
        (io::ErrorKind::ConnectionReset, Class::Ambiguous, 1),
        (io::ErrorKind::TimedOut, Class::Ambiguous, 1),
    ] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let (service, counted) = unreachable_at_first(&issuer, 1, kind);
        let grant = refresh_grant(&issuer).if_lost(IfLost::NeverReplay).client(service);
        let client = client(&tokens(grant), &api);
        let error = ours(&call(&client, "/api").await);
        assert_eq!(error.class(), Some(class), "{kind}: {error}");
        assert_eq!(counted.load(Ordering::SeqCst), calls);
        sleep(2 * SECOND).await;
        let after = status(&call(&client, "/api").await);
        assert_eq!(after, (class == Class::Transient).then_some(200), "{kind}");
    }
}

// ===== What the caller sees, fault by fault =====

/// The first call, and how often the issuer was asked for it.
#[derive(Debug, PartialEq)]
enum Seen {
    /// 200 after this.
    Served(Duration),
    Failed(Class),
}

struct Row {
    fault: Fault,
    if_lost: IfLost,
    seen: Seen,
    asked: u64,
    presented_twice: u64,
}

fn row(fault: Fault, if_lost: IfLost, seen: Seen, asked: u64, presented_twice: u64) -> Row {
    Row {
        fault,
        if_lost,
        seen,
        asked,
        presented_twice,
    }
}

fn table() -> Vec<Row> {
    use IfLost::{NeverReplay, ReplayOnce};
    use Seen::{Failed, Served};
    let now = Duration::ZERO;
    let seven = |status| Fault::RetryAfter { status, seconds: 7 };
    let throttled = Class::Throttled {
        retry_after: Some(7 * SECOND),
    };
    let unspecified = Class::Throttled { retry_after: None };
    let html = |status| Fault::answer(status, "text/html", "<html>blocked</html>");
    let oauth = Fault::oauth_error;
    // What is asked for once more, because the answer may have been lost. In the first half the
    // issuer had not acted, so the second presentation is served; in the second half it had.
    let mut rows = Vec::new();
    for fault in [
        Fault::DropBefore,
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(504),
        html(200),
        html(500),
        oauth(500, "server_error"),
    ] {
        rows.push(row(fault.clone(), ReplayOnce, Served(now), 2, 0));
        rows.push(row(fault, NeverReplay, Failed(Class::Ambiguous), 1, 0));
    }
    rows.push(row(Fault::Hang, ReplayOnce, Served(29_700 * MILLISECOND), 2, 0));
    rows.push(row(Fault::Hang, NeverReplay, Failed(Class::Ambiguous), 1, 0));
    for fault in [
        Fault::DropAfter,
        Fault::StatusAfter(500),
        Fault::StatusAfter(502),
        Fault::StatusAfter(504),
        Fault::Garbage,
        Fault::Truncate,
        Fault::Huge(2 << 20),
        Fault::Drip(SECOND),
        Fault::DelayAfter(MINUTE),
    ] {
        rows.push(row(fault.clone(), ReplayOnce, Failed(Class::Terminal), 2, 1));
        rows.push(row(fault, NeverReplay, Failed(Class::Ambiguous), 1, 0));
    }
    // What is asked for once, whatever the policy.
    for if_lost in [ReplayOnce, NeverReplay] {
        let mut once = |fault, seen| rows.push(row(fault, if_lost, seen, 1, 0));
        once(Fault::Huge(1 << 20), Served(now));
        once(Fault::Drip(10 * MILLISECOND), Served(DRIPPED));
        once(Fault::DelayBefore(5 * SECOND), Served(5 * SECOND));
        once(Fault::DelayAfter(5 * SECOND), Served(5 * SECOND));
        once(
            Fault::rewrite(serde_json::json!({ "token_type": "bEARER" })),
            Served(now),
        );
        once(Fault::without(["token_type", "expires_in"]), Served(now));
        once(Fault::rewrite(serde_json::json!({ "expires_in": "60" })), Served(now));
        // The refresh token in it replaces the one presented, so nothing is presented twice.
        once(Fault::without(["access_token"]), Failed(Class::Transient));
        once(Fault::Status(503), Failed(Class::Transient));
        once(
            Fault::Redirect("https://elsewhere.example/token".into()),
            Failed(Class::Transient),
        );
        once(Fault::Status(404), Failed(Class::Transient));
        once(html(403), Failed(Class::Transient));
        once(html(400), Failed(Class::Transient));
        once(Fault::Status(429), Failed(unspecified));
        once(seven(429), Failed(throttled));
        once(seven(503), Failed(throttled));
        once(oauth(400, "temporarily_unavailable"), Failed(unspecified));
        once(oauth(503, "temporarily_unavailable"), Failed(Class::Transient));
        once(Fault::Status(400), Failed(Class::Terminal));
        once(oauth(400, "invalid_grant"), Failed(Class::Terminal));
        once(oauth(401, "invalid_client"), Failed(Class::Config));
        once(oauth(400, "invalid_scope"), Failed(Class::Config));
        once(oauth(400, "interaction_required"), Failed(Class::NeedsInteraction));
        once(oauth(503, "invalid_grant"), Failed(Class::Transient));
    }
    rows
}

/// As long as the answer of this issuer is, which depends on nothing but the length of its tokens.
const DRIPPED: Duration = Duration::MAX;

#[tokio::test(start_paused = true)]
async fn each_fault_is_asked_about_as_often_as_the_table_says() {
    for Row {
        fault,
        if_lost,
        seen,
        asked,
        presented_twice,
    } in table()
    {
        let issuer = Issuer::new();
        issuer.fault(fault.clone());
        let api = Api::new(&issuer);
        let tokens = tokens(refresh_grant(&issuer).if_lost(if_lost));
        let began = Instant::now();
        let outcome = call(&client(&tokens, &api), "/api").await;
        let took = began.elapsed();
        let name = format!("{fault:?}, {if_lost:?}");
        match seen {
            Seen::Failed(Class::Throttled { retry_after: None }) => {
                // Nobody said how long, so that callers are told our own backoff: 1 s, and up to a fifth more.
                let wait = ours(&outcome).retry_after().unwrap().as_secs_f64();
                assert!(
                    (1.0..=1.2).contains(&wait) && ours(&outcome).is_throttled(),
                    "{name}: {wait}"
                );
            }
            Seen::Failed(class) => assert_eq!(ours(&outcome).class(), Some(class), "{name}"),
            Seen::Served(DRIPPED) => {
                assert_eq!(
                    took,
                    10 * MILLISECOND * u32::try_from(issuer.counts().answer_bytes).unwrap()
                );
                assert_eq!(status(&outcome), Some(200), "{name}");
            }
            Seen::Served(after) => assert_eq!((status(&outcome), took), (Some(200), after), "{name}"),
        }
        let counts = issuer.counts();
        assert_eq!(
            (counts.token_requests, counts.presented_twice),
            (asked, presented_twice),
            "{name}"
        );
        assert!(counts.max_in_flight == 1 && counts.in_flight == 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_accidents_that_lose_nothing_ends_no_family() {
    let issuer = Issuer::new();
    issuer.lifetime(20 * SECOND).latency(100 * MILLISECOND);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let accidents = [
        Fault::Status(503),
        Fault::DelayBefore(7 * SECOND),
        Fault::RetryAfter {
            status: 429,
            seconds: 3,
        },
        Fault::DelayAfter(9 * SECOND),
        Fault::Drip(5 * MILLISECOND),
        Fault::Redirect("/login".into()),
        Fault::Huge(100_000),
        Fault::Status(404),
        Fault::oauth_error(503, "temporarily_unavailable"),
    ];
    let background = async {
        for round in 0..360_usize {
            sleep(10 * SECOND).await;
            issuer.fault(accidents[round % accidents.len()].clone());
            if round % 7 == 0 {
                issuer.revoke_access();
            }
        }
    };
    let (samples, ()) = tokio::join!(traffic(&client, "/api", 50 * MILLISECOND, 60 * MINUTE), background);
    let counts = issuer.counts();
    println!(
        "an hour of accidents: {} of {} served, {counts:?}",
        answered(&samples, 200),
        samples.len()
    );
    assert_eq!((counts.presented_twice, counts.reuse, counts.refused), (0, 0, 0));
    assert!(
        samples
            .iter()
            .all(|sample| sample.outcome.is_ok() || ours(&sample.outcome).is_transient())
    );
    assert_eq!(api.counts().expired_seen, 0);
    assert!(api.counts().max_deliveries <= 2);
}
