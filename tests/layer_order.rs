//! What stands above the layer and what below it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service, ServiceBuilder};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_token::TokenLayer;

use support::{
    Api, Page, SECOND, assert_replays_through, bearer, bearer_of, get, held, issuer, origins, page, refusal, send,
};

// ===== tower's middleware =====

#[tokio::test(start_paused = true)]
async fn between_buffers_of_one() {
    let ((tokens, issuer), api) = (issuer(), Api::refusing(["test-1"]));
    let client = ServiceBuilder::new()
        .buffer(1)
        .layer(TokenLayer::new(&tokens, origins()))
        .buffer(1)
        .service(api.clone());
    assert_replays_through(client.clone(), &api).await;
    let calls: Vec<_> = (0..100).map(|_| tokio::spawn(held(client.clone(), get()))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn with_limits_above_and_below() {
    let ((tokens, issuer), api) = (issuer(), Api::refusing(["test-1"]));
    let client = ServiceBuilder::new()
        .concurrency_limit(3)
        .layer(TokenLayer::new(&tokens, origins()))
        .concurrency_limit(1)
        .service(api.clone());
    assert_replays_through(client.clone(), &api).await;
    let calls: Vec<_> = (0..100).map(|_| tokio::spawn(held(client.clone(), get()))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(issuer.fetches(), 2);
}

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
async fn with_load_shed_above_and_below() {
    let ((tokens, _), api) = (issuer(), ready_api());
    let client = ServiceBuilder::new()
        .load_shed()
        .layer(TokenLayer::new(&tokens, origins()))
        .load_shed()
        .concurrency_limit(1)
        .service(api.clone());
    let response = send(&client, get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // While one is out, another is shed, and its error is the one that load_shed made.
    let mut slow = get();
    *slow.uri_mut() = "https://api.example.com/slow".parse().unwrap();
    let slow = tokio::spawn(held(client.clone(), slow));
    sleep(SECOND / 2).await;
    let error = send(&client, get()).await.unwrap_err();
    assert!(error.is::<tower::load_shed::error::Overloaded>());
    assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
    send(&client, get()).await.unwrap();
}

/// Always ready, unlike [`Api`]: `load_shed` sheds what is not ready at the first poll.
fn ready_api() -> impl Service<Request<String>, Response = Response<Page>, Error = BoxError, Future: Send> + Clone + Send
{
    tower::service_fn(|request: Request<String>| async move {
        if request.uri().path() == "/slow" {
            sleep(SECOND).await;
        }
        Ok(match bearer_of(request.headers()) {
            Some("test-1") => refusal(),
            _ => page("welcome"),
        })
    })
}

// ===== Redirects =====

#[tokio::test(start_paused = true)]
async fn below_follow_redirect_the_token_stays_with_its_origin() {
    let (tokens, _) = issuer();
    let api = Api::answering(|_, head| match (head.uri.host(), head.uri.path()) {
        (Some("api.example.com"), "/me") => moved("https://api.example.com/you"),
        (Some("api.example.com"), _) => moved("https://evil.example.com/"),
        _ => refusal(),
    });
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(TokenLayer::new(&tokens, origins()))
        .service(api.clone());
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["test-1", "test-1", "-"]);
}

fn moved(to: &str) -> Response<Page> {
    Response::builder()
        .status(307)
        .header("location", to)
        .body("".into())
        .unwrap()
}
