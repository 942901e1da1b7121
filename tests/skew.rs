//! What is learned of the issuer's clock from its answers.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod flows;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flows::*;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::sleep;
use tower::service_fn;
use tower_token::oauth2::ClientCredentialsGrant;
use tower_token::*;

const DAY: i64 = 24 * 3600;

/// Tokens of an issuer whose clock is so many seconds ahead, and whose answers take so long.
fn tokens_of(ahead: &Arc<AtomicI64>, takes: Duration, clock: &Clock) -> Tokens {
    let (ahead, reference) = (ahead.clone(), clock.clone());
    let issuer = service_fn(move |_: Request<Full<Bytes>>| {
        let (ahead, reference) = (ahead.load(Ordering::SeqCst), reference.clone());
        async move {
            sleep(takes).await;
            let off = Duration::from_secs(ahead.unsigned_abs());
            let date = if ahead < 0 {
                reference.now() - off
            } else {
                reference.now() + off
            };
            let answer = Response::builder()
                .header("date", httpdate::fmt_http_date(date.max(SystemTime::UNIX_EPOCH)))
                .body(Full::<Bytes>::from(
                    r#"{"access_token":"test-a","token_type":"Bearer","expires_in":3600}"#,
                ));
            Ok::<_, BoxError>(answer.unwrap())
        }
    });
    let grant = ClientCredentialsGrant::new(TOKEN_URL, "test-client")
        .client_secret("test-secret")
        .client(TokenClient::new::<_, Full<Bytes>, _>(issuer));
    Tokens::builder(grant)
        .clock(clock.clone())
        .policy(policy())
        .build()
        .unwrap()
}

async fn learned(ahead: i64, takes: Duration) -> Option<i64> {
    let tokens = tokens_of(&Arc::new(AtomicI64::new(ahead)), takes, &Clock::of_tokio());
    tokens.get().await.unwrap();
    tokens.status().skew
}

#[tokio::test(start_paused = true)]
async fn the_skew_is_learned_to_the_second_or_so_and_small_ones_are_none() {
    for (ahead, takes, skew) in [(0, 0, 0), (4, 0, 0), (-4, 0, 0), (0, 20, 0), (4, 20, 0)] {
        assert_eq!(
            learned(ahead, Duration::from_secs(takes)).await,
            Some(skew),
            "{ahead} {takes}"
        );
    }
    for ahead in [50, -50, 3600, -3600, DAY, -DAY] {
        let skew = learned(ahead, Duration::ZERO).await.unwrap();
        assert!((skew - ahead).abs() <= 1, "{skew}, not {ahead}");
    }
    let slowly = learned(9, 25 * SECOND).await.unwrap();
    assert!((slowly - 9).abs() <= 1, "{slowly}, of which 25 are the answer's");
}

#[tokio::test(start_paused = true)]
async fn a_date_of_another_age_is_no_clock() {
    assert_eq!(learned(-40 * 365 * DAY, Duration::ZERO).await, None);
    assert_eq!(learned(2 * 365 * DAY, Duration::ZERO).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_our_own_clock_makes_it_void_until_the_next_answer() {
    let (ahead, clock) = (Arc::new(AtomicI64::new(600)), Clock::of_tokio());
    let tokens = tokens_of(&ahead, Duration::ZERO, &clock);
    tokens.get().await.unwrap();
    sleep(600 * SECOND).await;
    assert!((tokens.status().skew.unwrap() - 600).abs() <= 1);
    clock.step(600);
    assert_eq!(tokens.status().skew, None);
    ahead.store(0, Ordering::SeqCst);
    tokens.refresh().await.unwrap();
    assert_eq!(tokens.status().skew, Some(0));
}

/// The answer is dated by the clock as it was before the step: what it seems to show is the step.
#[tokio::test(start_paused = true)]
async fn a_step_in_the_middle_of_an_exchange_teaches_nothing() {
    let clock = Clock::of_tokio();
    let tokens = tokens_of(&Arc::new(AtomicI64::new(0)), 2 * SECOND, &clock);
    let fetching = tokio::spawn(tokens.get());
    sleep(SECOND).await;
    clock.step(600);
    fetching.await.unwrap().unwrap();
    assert_eq!(tokens.status().skew, None);
}

/// Lives are counted from the sending: whatever the issuer's clock says, a token is used for its whole life.
#[tokio::test(start_paused = true)]
async fn a_skew_changes_no_life() {
    for ahead in [-DAY, -50, 50, DAY] {
        let tokens = tokens_of(&Arc::new(AtomicI64::new(ahead)), Duration::ZERO, &Clock::of_tokio());
        tokens.get().await.unwrap();
        let status = tokens.status();
        assert_eq!(
            (status.state, status.expires_in),
            (State::Fresh, Some(3600 * SECOND)),
            "{ahead}"
        );
    }
}
