//! A timeout for the whole of it, or for each attempt.

use http::StatusCode;
use tokio::time::{Instant, sleep};
use tower::ServiceBuilder;
use tower_token::TokenLayer;

use crate::support::{Api, SECOND, assert_replays_through, bearer, get, issuer, origins, page, refusal, send};

#[tokio::test(start_paused = true)]
async fn with_a_timeout_above_that_counts_everything_and_one_below_that_counts_each_attempt() {
    let (tokens, _) = issuer();
    let api = Api::taking(2 * SECOND, |_, head| match bearer(head) {
        Some("test-1") => refusal(),
        _ => page("welcome"),
    });
    // A token, an attempt, a token, an attempt: 6 s, of which no attempt takes more than 2.
    let client = ServiceBuilder::new()
        .timeout(7 * SECOND)
        .layer(TokenLayer::new(&tokens, origins()))
        .timeout(3 * SECOND)
        .service(api.clone());
    let began = Instant::now();
    assert_replays_through(client, &api).await;
    assert_eq!(began.elapsed(), 6 * SECOND);

    let client = ServiceBuilder::new()
        .timeout(SECOND)
        .layer(TokenLayer::new(&tokens, origins()))
        .service(api.clone());
    let error = send(&client, get()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, origins()))
        .timeout(SECOND)
        .service(api);
    let error = send(&client, get()).await.unwrap_err();
    assert!(
        error.is::<tower::timeout::error::Elapsed>(),
        "the inner service's error came wrapped: {error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_ends_the_call_but_not_the_renewal() {
    let (tokens, issuer) = issuer();
    let api = Api::taking(2 * SECOND, |_, head| match bearer(head) {
        Some("test-1") => refusal(),
        _ => page("welcome"),
    });
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .timeout(3 * SECOND + SECOND / 2)
        .layer(layer)
        .service(api.clone());
    let began = Instant::now();
    let error = send(&client, get()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    assert_eq!((began.elapsed(), api.deliveries()), (3 * SECOND + SECOND / 2, 1));
    sleep(SECOND).await;
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        (api.tokens(), issuer.fetches()),
        (vec!["test-1".into(), "test-2".into()], 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_does_not_count_the_wait_for_a_token() {
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .layer(layer)
        .timeout(SECOND / 2)
        .service(api.clone());
    let began = Instant::now();
    assert_replays_through(client, &api).await;
    assert_eq!(began.elapsed(), 2 * SECOND);
}
