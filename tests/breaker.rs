//! When a refusal costs no fetch, and what ends that.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use http::{Response, StatusCode};
use tower::Layer;
use tower_token::TokenLayer;

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
