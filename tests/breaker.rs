//! When a refusal costs no fetch, and what ends that.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::time::{sleep, timeout};
use tower::Layer;
use tower_token::{BoxError, TokenLayer};

use support::{Api, get, issuer, origins};

/// A gateway's 5xx says nothing about the token, but counts as its acceptance, so that the breaker (one
/// fetch a minute for tokens that nobody accepted) never holds.
#[tokio::test(start_paused = true)]
async fn a_gateway_error_is_no_acceptance_of_the_token() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|nth, _| match nth % 2 {
        0 => support::refusal(),
        _ => Response::builder().status(502).body("".into()).unwrap(),
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(55) {
        let _ = support::send(&client, get()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(issuer.fetches() <= 3, "{} fetches in a minute", issuer.fetches());
}

/// A new credential is a change, but its tokens are held by what the old one's left in the breaker.
#[tokio::test(start_paused = true)]
async fn a_new_credential_is_not_held_by_the_breaker_of_the_old_one() {
    let (tokens, _) = issuer();
    // Tokens 1 and 2 are of the old credential; 3 is revoked, 4 would do.
    let api = Api::refusing(["test-1", "test-2", "test-3"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    assert_eq!(
        support::send(&client, get()).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    tokens
        .install(serde_json::json!({ "refresh_token": "another" }))
        .unwrap();
    assert_eq!(support::send(&client, get()).await.unwrap().status(), StatusCode::OK);
}

/// Every replay ended with its caller's deadline before it was refused, so nothing was ever refused twice, and
/// each of 120 requests bought a fetch.
#[tokio::test(start_paused = true)]
async fn a_route_that_refuses_slowly_under_a_deadline_does_not_buy_a_fetch_a_request() {
    let (tokens, issuer) = issuer();
    let api = tower::service_fn(|request: Request<String>| async move {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(2)).await;
            return Ok::<_, BoxError>(support::refusal());
        }
        Ok(support::page("welcome"))
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    let slow = || {
        Request::get("https://api.example.com/slow")
            .body(String::new())
            .unwrap()
    };
    for _ in 0..120 {
        let deadline = timeout(Duration::from_millis(3500), support::send(&client, slow()));
        assert!(deadline.await.is_err() || issuer.fetches() > 5);
        assert_eq!(support::send(&client, get()).await.unwrap().status(), StatusCode::OK);
        sleep(Duration::from_millis(1500)).await;
    }
    // Ten minutes: the first token, five strikes, and one a minute.
    assert!(issuer.fetches() <= 1 + 5 + 10, "{} fetches", issuer.fetches());
}

/// A token that is revoked again and again, with renewals that help, is no storm of the client's making.
#[tokio::test(start_paused = true)]
async fn twenty_revocations_a_minute_are_twenty_fetches() {
    let (tokens, issuer) = issuer();
    let revoked = Arc::new(AtomicUsize::new(0));
    let dead = revoked.clone();
    let api = Api::answering(move |_, head| {
        let token: usize = support::bearer(head)
            .and_then(|token| token.strip_prefix("test-")?.parse().ok())
            .unwrap();
        match token <= dead.load(Ordering::SeqCst) {
            true => support::refusal(),
            false => support::page("welcome"),
        }
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    for _ in 0..20 {
        assert_eq!(support::send(&client, get()).await.unwrap().status(), StatusCode::OK);
        revoked.store(issuer.fetches(), Ordering::SeqCst);
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(support::send(&client, get()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(issuer.fetches(), 21);
}

/// Nobody could say that a token taken by hand was accepted: a second revocation within a minute was taken for an API
/// that refuses every token, and the refused one was handed out until its own renewal.
#[tokio::test(start_paused = true)]
async fn tokens_by_hand_survive_two_revocations_within_a_minute_if_they_were_accepted_in_between() {
    let (tokens, issuer) = issuer();
    // Five within a minute are believed.
    for fetched in 1..=5 {
        let token = tokens.get().await.unwrap();
        assert_eq!(token.secret(), format!("test-{fetched}"));
        tokens.accepted(&token);
        tokens.invalidate(&token);
    }
    // The next is refused by somebody who never accepts.
    for _ in 0..10 {
        let token = tokens.get().await.unwrap();
        tokens.invalidate(&token);
    }
    assert_eq!(issuer.fetches(), 6);
    // An acceptance by others, or of a token from elsewhere, changes nothing.
    let (others, _) = support::issuer();
    tokens.accepted(&others.get().await.unwrap());
    tokens.invalidate(&tokens.get().await.unwrap());
    assert_eq!(tokens.get().await.unwrap().secret(), "test-6");
}
