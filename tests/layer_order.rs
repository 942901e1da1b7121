//! What stands above the layer and what below it. Each order is composed and counted: what the API got, with
//! which tokens, and how often the issuer was asked.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "flows/printed.rs"]
mod printed;
mod support;

#[path = "layer_order/body.rs"]
mod body;
#[path = "layer_order/permit.rs"]
mod permit;
#[path = "layer_order/redirect.rs"]
mod redirect;
#[path = "layer_order/retry.rs"]
mod retry;
#[path = "layer_order/timeout.rs"]
mod timeout;

use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_http::decompression::DecompressionLayer;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_token::{Auto, Inject, TokenLayer, TokenService, Unauthorized};

use body::{gzipping, text, trace, traced};
use printed::Capture;
use redirect::moved;
use retry::{SERVER_ERRORS, unavailable};
use support::{Api, Page, SECOND, bearer, bearer_of, get, issuer, origins, page, refusal, send};

pub(crate) type Client = BoxCloneSyncService<Request<String>, Response<Page>, BoxError>;

/// A client with `other` above the token layer, or below it.
pub(crate) fn stack<L, S, I>(above: bool, other: L, layer: TokenLayer<Auto, Unauthorized, I>, api: S) -> Client
where
    L: Layer<TokenService<S, Auto, Unauthorized, I>, Service: Composed> + Layer<S, Service: Composed>,
    S: Composed,
    I: Inject,
{
    match above {
        true => Client::new(other.layer(layer.layer(api))),
        false => Client::new(layer.layer(other.layer(api))),
    }
}

/// What every service in such a client is.
pub(crate) trait Composed:
    Service<Request<String>, Response = Response<Page>, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Composed for S
where
    S: Service<Request<String>, Response = Response<Page>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
}

/// As the README has it. A redirect, a refusal of what it leads to, and a 503 to the replay.
#[tokio::test(start_paused = true)]
async fn a_stack_of_everything() {
    let log = Capture::begin();
    let (tokens, issuer) = issuer();
    let api = Api::taking(SECOND / 2, |nth, head| match (head.uri.path(), bearer(head)) {
        ("/me", _) => moved("/you"),
        (_, Some("test-1")) => refusal(),
        _ if nth == 3 => unavailable(),
        _ => page("welcome"),
    });
    let client = ServiceBuilder::new()
        .timeout(10 * SECOND)
        .layer(trace())
        .retry(SERVER_ERRORS)
        .layer(DecompressionLayer::new())
        .layer(FollowRedirectLayer::new())
        .layer(TokenLayer::new(&tokens, origins()))
        .layer(trace())
        .concurrency_limit(1)
        .buffer(1)
        .timeout(SECOND)
        .service(gzipping(&api));
    let began = Instant::now();
    let answer = send(&client, get()).await.unwrap();
    assert_eq!(
        (answer.status(), text(answer.into_body()).await),
        (StatusCode::OK, "welcome".into())
    );
    // Two tokens of a second each, five attempts of half a second, and five seconds before the retry.
    assert_eq!(began.elapsed(), 9 * SECOND + SECOND / 2);
    let sent = api.each(|request| {
        (
            request.uri().path().to_owned(),
            bearer_of(request.headers()).unwrap().to_owned(),
        )
    });
    let sent: Vec<_> = sent
        .iter()
        .map(|(path, token)| (path.as_str(), token.as_str()))
        .collect();
    let (first, retried) = (
        [("/me", "test-1"), ("/you", "test-1"), ("/you", "test-2")],
        [("/me", "test-2"), ("/you", "test-2")],
    );
    assert_eq!(sent, [&first[..], &retried].concat());
    assert_eq!(issuer.fetches(), 2);
    let (requests, _) = traced(&log);
    assert_eq!(requests, 1 + sent.len());
}
