//! Requests: what is sent twice, when it takes its token, and what a challenge says (T52 to T55).

mod challenges;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::buffer::Buffer;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_token::testkit::{Api, Issuer};
use tower_token::*;

use crate::flows::*;

/// An issuer and an API, and tokens of which one was accepted and then revoked.
async fn revoked() -> (Issuer, Api, Tokens) {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    assert_eq!(status(&call(&client(&tokens, &api), "/api").await), Some(200));
    issuer.revoke_access();
    (issuer, api, tokens)
}

fn post<B>(path: &str, body: B) -> Request<B> {
    Request::post(format!("{API}{path}"))
        .header("x-request-id", path)
        .body(body)
        .unwrap()
}

/// The first 401 reached the user although a good token was there: headlamp#7482, spring-projects/spring-security#9094.
#[tokio::test(start_paused = true)]
async fn t52_a_refused_request_ends_well_with_one_replay() {
    let (issuer, api, tokens) = revoked().await;
    let client = client(&tokens, &api);
    // Its refusal comes when the good token is there already.
    api.latency(10 * SECOND);
    let late = tokio::spawn(client.clone().oneshot(get("/api", "late")));
    settle().await;
    api.latency(SECOND);
    assert_eq!(status(&client.oneshot(get("/api", "first")).await), Some(200));
    assert_eq!(status(&late.await.unwrap()), Some(200));
    assert_eq!((api.deliveries("first"), api.deliveries("late")), (2, 2));
    assert_eq!(issuer.counts().token_requests, 2);
}

/// A body that can be sent once.
#[derive(Default)]
struct Stream(Option<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A body that was used up was sent again, empty: Azure/azure-sdk-for-go#23597, nodejs/undici#4910.
#[tokio::test(start_paused = true)]
async fn t53_what_can_be_sent_once_is_sent_once_and_its_refusal_renews() {
    let (issuer, api, tokens) = revoked().await;
    let client = client(&tokens, &api);
    let stream = || Stream(Some(Bytes::from_static(b"once")));
    let refused = client.clone().oneshot(post("/echo", stream())).await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.into_body().bytes().await.unwrap(), "refused\n");
    let next = client.oneshot(post("/echo", stream())).await.unwrap();
    assert_eq!(
        (next.status().as_u16(), next.into_body().bytes().await.unwrap()),
        (200, "once".into())
    );
    assert_eq!((api.deliveries("/echo"), issuer.counts().token_requests), (2, 2));
}

/// The replay was another request than the first, or had the first one's header: a2aproject/a2a-js#735, bifrost#17.
#[tokio::test(start_paused = true)]
async fn t53_what_can_be_sent_again_is_the_same_to_the_byte_but_for_its_token() {
    let text: String = (0..50_000_u32).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let (issuer, api, tokens) = revoked().await;
    let headers = Arc::new(Mutex::new(Vec::<HeaderMap>::new()));
    let (kept, inner) = (headers.clone(), api.clone());
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(service_fn(
        move |request: Request<Full<Bytes>>| {
            kept.lock().unwrap().push(request.headers().clone());
            inner.service().oneshot(request)
        },
    ));
    let answer = client.oneshot(post("/echo", Full::from(text.clone()))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().bytes().await.unwrap(), text);
    assert_eq!((api.deliveries("/echo"), issuer.counts().token_requests), (2, 2));
    let headers = headers.lock().unwrap();
    let [first, second] = &headers[..] else {
        panic!("{headers:?}")
    };
    assert!(
        headers
            .iter()
            .all(|headers| headers.get_all(AUTHORIZATION).iter().count() == 1)
    );
    assert_ne!(first[AUTHORIZATION], second[AUTHORIZATION]);
    let others = |headers: &HeaderMap| {
        let mut others = headers.clone();
        others.remove(AUTHORIZATION);
        others
    };
    assert_eq!(others(first), others(second));
}

/// A body that keeps its connection until it is dropped.
struct OnConnection<B>(B, #[allow(dead_code)] OwnedSemaphorePermit);

impl<B: Body + Unpin> Body for OnConnection<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The refusal's body was never read, and the pool ran out of connections: Azure/azure-sdk-for-java#39981.
#[tokio::test(start_paused = true)]
async fn t53_the_refusals_own_body_does_not_keep_the_connection_that_the_replay_needs() {
    let (issuer, api, tokens) = revoked().await;
    let pool = Arc::new(Semaphore::new(1));
    let inner = {
        let (api, pool) = (api.clone(), pool.clone());
        service_fn(move |request: Request<String>| {
            let (api, pool) = (api.clone(), pool.clone());
            async move {
                let connection = pool.acquire_owned().await?;
                let response = api.service().oneshot(request).await?;
                Ok::<_, BoxError>(response.map(|body| OnConnection(body, connection)))
            }
        })
    };
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(inner);
    for id in 0..16 {
        issuer.revoke_access();
        let answer = timeout(MINUTE, client.clone().oneshot(get("/api", id))).await;
        assert_eq!(answer.expect("no connection").unwrap().status(), 200, "{id}");
        assert_eq!(api.deliveries(&id.to_string()), 2);
    }
    assert_eq!(pool.available_permits(), 1);
}

/// Who may not send twice says so: gascity#5520, Windup#628.
#[tokio::test(start_paused = true)]
async fn t54_only_the_methods_named_are_replayed_and_the_others_renew_all_the_same() {
    let (issuer, api, tokens) = revoked().await;
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .methods([Method::GET])
        .layer(api.service());
    let refused = client.clone().oneshot(post("/api/pay", String::new())).await;
    assert_eq!((status(&refused), api.deliveries("/api/pay")), (Some(401), 1));
    assert_eq!(
        status(&client.clone().oneshot(post("/api/pay", String::new())).await),
        Some(200)
    );
    assert_eq!((issuer.counts().token_requests, api.deliveries("/api/pay")), (2, 2));
    issuer.revoke_access();
    assert_eq!(status(&client.oneshot(get("/api", "read")).await), Some(200));
    assert_eq!((issuer.counts().token_requests, api.deliveries("read")), (3, 2));
}

/// Tokens were put on requests that then waited in a queue for longer than they lived: bazelbuild/bazel#12106,
/// GoogleCloudPlatform/gcsfuse#2766.
#[tokio::test(start_paused = true)]
async fn t54_a_request_takes_its_token_when_it_is_sent_wherever_the_queue_is() {
    /// Twenty at once, of which one a time is sent; each takes a third of a token's life.
    async fn queue<F: Future<Output = Outcome> + Send + 'static>(ask: impl Fn(Request<String>) -> F) {
        let mut queued = JoinSet::new();
        for id in 0..20 {
            queued.spawn(ask(get("/api", id)));
        }
        assert!(
            queued
                .join_all()
                .await
                .iter()
                .all(|outcome| status(outcome) == Some(200))
        );
    }
    for above in [true, false] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        api.latency(20 * SECOND);
        let layer = TokenLayer::new(&tokens(refresh_grant(&issuer)), Origins::only(API).unwrap());
        let one = ServiceBuilder::new().concurrency_limit(1);
        if above {
            let client = Buffer::new(one.layer(layer).service(api.service()), 32);
            queue(|request| client.clone().oneshot(request)).await;
        } else {
            let client = layer.layer(one.service(api.service()));
            queue(|request| client.clone().oneshot(request)).await;
        }
        let counts = api.counts();
        assert_eq!(
            (counts.requests, counts.refused, counts.expired_seen),
            (20, 0, 0),
            "{above}"
        );
        assert!(
            issuer.counts().token_requests >= 400 / 60,
            "the queue outlived many tokens"
        );
    }
}

/// A stream outlived its token, and the call after it began with the dead one: firedart#45.
#[tokio::test(start_paused = true)]
async fn t54_a_refusal_in_mid_stream_reaches_the_caller_as_it_is_and_renews_for_the_next() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let tokens = tokens(refresh_grant(&issuer));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sent = seen.clone();
    let server = service_fn(move |request: Request<String>| {
        let mut sent = sent.lock().unwrap();
        sent.push(request.headers()[AUTHORIZATION].clone());
        let code = if sent.len() == 1 { "16" } else { "0" };
        let ends = async move {
            sleep(90 * SECOND).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            Some(Ok(trailers))
        };
        let body = Full::new(Bytes::from_static(b"message")).with_trailers(ends);
        std::future::ready(Ok::<_, Infallible>(Response::new(Box::pin(body))))
    });
    let client = TokenLayer::grpc(&tokens).replay(CloneBody).layer(server);
    let ask = || {
        client
            .clone()
            .oneshot(Request::post("/test.Chat/Listen").body(String::new()).unwrap())
    };
    let first = ask().await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(first.trailers().unwrap()["grpc-status"], "16");
    assert_eq!(first.to_bytes(), "message");
    let second = ask().await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(second.trailers().unwrap()["grpc-status"], "0");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "what was begun is not begun again");
    assert_ne!(seen[0], seen[1]);
    assert_eq!(issuer.counts().token_requests, 2);
}
