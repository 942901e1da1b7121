//! What needs no server: a limit that calls and token requests share, and what a caller is told when there
//! is no answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_token::{Error, FetchError, Fixed, Token, TokenLayer, Tokens, provider_fn};

use crate::client::{EchoClient, request};

/// Each call is refused once, and the token request has to pass the limit as well.
#[tokio::test(start_paused = true)]
async fn sixteen_grpc_bodies_and_their_token_request_share_a_limit_of_one() {
    const CALLS: usize = 16;
    let api = Arc::new(Api::default());
    let behind = ServiceBuilder::new().buffer(64).concurrency_limit(1).service_fn({
        let api = api.clone();
        move |request| api.clone().answer(request)
    });
    let issuer = behind.clone();
    let tokens = Tokens::new(provider_fn(move |_| {
        let issuer = issuer.clone();
        async move {
            let request = Request::post("/token").body(Body::default()).unwrap();
            let answer = issuer.oneshot(request).await.unwrap();
            let token = answer.headers()["token"].to_str().unwrap();
            Ok(Token::bearer(token).expires_in(Duration::from_secs(3600)))
        }
    }))
    .unwrap();
    let echo = EchoClient::new(TokenLayer::grpc(&tokens).replay_via(Body::new).layer(behind));

    let mut calls = JoinSet::new();
    for name in 0..CALLS {
        let mut echo = echo.clone();
        calls.spawn(async move {
            let body = vec![Bytes::from(vec![name as u8; 8 << 10]); 4];
            let said = request(tokio_stream::iter(body.clone()), &name.to_string(), "start");
            let answer = echo.bidi(said).await.unwrap().into_inner();
            let heard: Vec<Bytes> = answer.collect::<Result<_, Status>>().await.unwrap();
            assert_eq!(heard, body);
        });
    }
    calls.join_all().await;
    assert_eq!(api.fetches.load(Ordering::SeqCst), 2);
    let deliveries = api.deliveries.lock().unwrap();
    assert_eq!(deliveries.values().copied().collect::<Vec<_>>(), [2; CALLS]);
}

#[tokio::test]
async fn a_channel_that_cannot_connect_says_the_same_through_the_layer() {
    // Bound and dropped: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let channel = Endpoint::from_shared(nowhere).unwrap().connect_lazy();
    let tokens = Tokens::new(Fixed::new("test")).unwrap();
    let layer = TokenLayer::grpc(&tokens).replay_via(Body::new);

    let bare = EchoClient::new(channel.clone()).unary(Bytes::new()).await.unwrap_err();
    let layered = EchoClient::new(layer.layer(channel))
        .unary(Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(bare.code(), Code::Unavailable);
    assert_eq!((layered.code(), layered.message()), (bare.code(), bare.message()));
}

#[tokio::test]
async fn a_status_of_a_call_that_had_no_token_carries_why() {
    let tokens = Tokens::new(provider_fn(|_| async {
        Err(FetchError::terminal("the session is over"))
    }))
    .unwrap();
    let unreached = Endpoint::from_static("http://127.0.0.1:9").connect_lazy();
    let echo = TokenLayer::grpc(&tokens).replay_via(Body::new).layer(unreached);
    let status = EchoClient::new(echo).unary(Bytes::new()).await.unwrap_err();
    let error = Error::find(&status).expect("an error of this crate");
    assert!(error.is_reauth_required(), "{error}");
}

/// Issues `test-1`, `test-2`, ..., and honours all but the first.
#[derive(Default)]
struct Api {
    fetches: AtomicUsize,
    deliveries: Mutex<BTreeMap<String, usize>>,
}

impl Api {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        sleep(Duration::from_millis(10)).await;
        let (head, body) = request.into_parts();
        if head.uri.path() == "/token" {
            let token = format!("test-{}", self.fetches.fetch_add(1, Ordering::SeqCst) + 1);
            return Ok(Response::builder()
                .header("token", token)
                .body(Body::default())
                .unwrap());
        }
        let name = head.headers["x-request-id"].to_str().unwrap().to_owned();
        *self.deliveries.lock().unwrap().entry(name).or_default() += 1;
        if head.headers["authorization"] == "Bearer test-1" {
            return Ok(Status::new(Code::Unauthenticated, "revoked").into_http());
        }
        // The messages as they came, and the permit is held until all of them are here.
        let messages = body.collect().await.unwrap().to_bytes();
        let end = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        let body = Full::new(messages).with_trailers(async { Some(Ok(end)) });
        Ok(Response::builder()
            .header("content-type", "application/grpc")
            .body(Body::new(body))
            .unwrap())
    }
}
