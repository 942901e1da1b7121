//! What bodies do to a token's schedule, and what of a request stays behind: in virtual time, with a server that
//! answers by rule; the takeover also over sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_token::{BodyCode, Buffered, CloneBody, Origins, ReplayBody, Token, TokenLayer, Tokens, provider_fn};

use support::{SECOND, at_once, origins};

/// A request body in frames of 1000 bytes.
struct Frames(
    usize,
    #[allow(dead_code, reason = "counted by whoever holds another")] Option<Arc<()>>,
);

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))))
    }
}

fn put(path: &str, frames: usize) -> Request<Frames> {
    Request::put(format!("https://api.example.com{path}"))
        .body(Frames(frames, None))
        .unwrap()
}

async fn uploads<B: Body + Send + 'static>(request: Request<B>) -> Result<Response<String>, BoxError>
where
    B::Error: std::fmt::Debug,
    B::Data: Send,
{
    let (head, body) = request.into_parts();
    let _ = body.collect().await.unwrap();
    let status = if head.uri.path() == "/upload" { 401 } else { 200 };
    Ok(Response::builder().status(status).body(String::new()).unwrap())
}

/// A route that refuses every upload, on an origin that takes the token elsewhere.
#[tokio::test(start_paused = true)]
async fn uploads_over_the_limit_that_a_route_refuses_cost_a_fetch_a_minute() {
    let (tokens, fetches) = at_once();
    let client = TokenLayer::new(&tokens, origins())
        .replay(Buffered::unboxed().limit(1500))
        .layer(tower::service_fn(uploads::<ReplayBody<Frames>>));
    for _ in 0..300 {
        client.clone().oneshot(put("/good", 1)).await.unwrap();
        let response = client.clone().oneshot(put("/upload", 2)).await.unwrap();
        assert_eq!(response.status(), 401);
        sleep(2 * SECOND).await;
    }
    let fetches = fetches.load(Ordering::SeqCst);
    assert!(fetches <= 16, "{fetches} fetches in ten minutes");
}

fn grpc_call() -> Request<String> {
    Request::post("/test.Service/Method").body("message".into()).unwrap()
}

/// UNAUTHENTICATED with a challenge that is not ours proves nothing of the token.
#[tokio::test(start_paused = true)]
async fn a_grpc_refusal_for_another_scheme_is_no_acceptance() {
    for other in ["Basic realm=\"x\"", "Bearer error=\"insufficient_scope\""] {
        let (tokens, fetches) = at_once();
        let nth = Arc::new(AtomicUsize::new(0));
        let server = tower::service_fn(move |_: Request<String>| {
            let mut response = Response::new(Full::new(Bytes::new()));
            response.headers_mut().insert("grpc-status", "16".parse().unwrap());
            if nth.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                response
                    .headers_mut()
                    .insert("www-authenticate", other.parse().unwrap());
            }
            async { Ok::<_, BoxError>(response) }
        });
        let client = TokenLayer::grpc(&tokens).replay(CloneBody).layer(server);
        for _ in 0..600 {
            let _ = client.clone().oneshot(grpc_call()).await;
            sleep(SECOND).await;
        }
        let fetches = fetches.load(Ordering::SeqCst);
        assert!(fetches <= 16, "{fetches} fetches in ten minutes");
    }
}

struct Script(VecDeque<Result<&'static str, ()>>);

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop_front().map(|step| match step {
            Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
            Err(()) => Err("reset".into()),
        }))
    }
}

/// Not one answer of this server shows that the token is good.
#[tokio::test(start_paused = true)]
async fn a_candidate_that_cannot_be_read_is_no_acceptance() {
    for unread in [
        vec![Err(())],
        vec![Ok("{\"code\":\"Inv"), Err(())],
        vec![Ok(
            "{\"data\":\"0123456789012345678901234567890123456789\",\"code\":\"InvalidAccessToken\"}",
        )],
    ] {
        let (tokens, fetches) = at_once();
        let nth = Arc::new(AtomicUsize::new(0));
        let server = tower::service_fn(move |_: Request<String>| {
            let script = match nth.fetch_add(1, Ordering::SeqCst) % 2 {
                0 => unread.clone(),
                _ => vec![Ok("{\"code\":\"InvalidAccessToken\"}")],
            };
            async { Ok::<_, BoxError>(Response::new(Script(script.into()))) }
        });
        let codes = BodyCode::new(StatusCode::OK, "/code", ["InvalidAccessToken"])
            .unwrap()
            .limit(30);
        let client = TokenLayer::new(&tokens, origins())
            .replay(CloneBody)
            .classify(codes)
            .layer(server);
        for _ in 0..600 {
            let request = Request::get("https://api.example.com/").body(String::new()).unwrap();
            let _ = client.clone().oneshot(request).await;
            sleep(SECOND).await;
        }
        let fetches = fetches.load(Ordering::SeqCst);
        assert!(fetches <= 16, "{fetches} fetches in ten minutes");
    }
}

/// The inner service failed, and the caller has the error: nothing of the request may stay.
#[tokio::test]
async fn a_future_that_ended_with_an_error_keeps_nothing() {
    let (tokens, _) = at_once();
    let alive = Arc::new(());
    let server = tower::service_fn(|_: Request<ReplayBody<Frames>>| async {
        Err::<Response<String>, BoxError>("connection reset".into())
    });
    tokens.get().await.unwrap();
    let mut client = TokenLayer::new(&tokens, origins())
        .replay(Buffered::unboxed())
        .layer(server);
    let request = Request::put("https://api.example.com/")
        .body(Frames(1, Some(alive.clone())))
        .unwrap();
    let mut future = std::pin::pin!(client.ready().await.unwrap().call(request));
    future.as_mut().await.unwrap_err();
    assert_eq!(Arc::strong_count(&alive), 1, "the body is still there");
}

struct Open(Option<&'static str>);

impl Body for Open {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.take() {
            Some(text) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))),
            None => Poll::Pending,
        }
    }
}

/// Rule 11: what runs for the tokens ends with the last handle. A response body is no handle.
#[tokio::test]
async fn an_open_response_does_not_keep_the_engine() {
    let provider = Arc::new(());
    let held = provider.clone();
    let tokens = Tokens::new(provider_fn(move |_| {
        let _ = &held;
        async { Ok(Token::bearer("test").expires_in(Duration::from_secs(3600))) }
    }))
    .unwrap();
    let server =
        tower::service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(Open(Some("message")))) });
    let client = TokenLayer::grpc(&tokens).replay(CloneBody).layer(server);
    let response = client.oneshot(grpc_call()).await.unwrap();
    drop(tokens);
    sleep(Duration::from_millis(50)).await;
    let with_response = Arc::strong_count(&provider);
    drop(response);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(
        (with_response, Arc::strong_count(&provider)),
        (1, 1),
        "the response body keeps the engine"
    );
}

/// The wait for the first byte is over; nothing may wake the caller for it.
#[tokio::test(start_paused = true)]
async fn the_patience_ends_with_the_inspection() {
    struct Late(Pin<Box<tokio::time::Sleep>>, bool);
    impl Body for Late {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.1 {
                return Poll::Pending;
            }
            std::task::ready!(self.0.as_mut().poll(cx));
            self.1 = true;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"message")))))
        }
    }
    let (tokens, _) = at_once();
    tokens.get().await.unwrap();
    let server = tower::service_fn(|_: Request<String>| async {
        Ok::<_, BoxError>(Response::new(Late(Box::pin(sleep(Duration::from_millis(10))), false)))
    });
    let mut call = tokio_test::task::spawn(
        TokenLayer::grpc(&tokens)
            .replay(CloneBody)
            .layer(server)
            .oneshot(grpc_call()),
    );
    assert!(call.poll().is_pending());
    sleep(Duration::from_millis(20)).await;
    let Poll::Ready(Ok(_response)) = call.poll() else {
        panic!()
    };
    assert!(!call.is_woken());
    sleep(Duration::from_millis(200)).await;
    assert!(!call.is_woken(), "woken by the timer of an inspection that is over");
}

/// Refuses the first token as soon as the head is there, over a real connection; the replay is whole.
async fn refused_in_mid_upload(h2: bool) -> (StatusCode, usize, usize) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;

    let (tokens, fetches) = at_once();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let serve = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                    if request.headers()["authorization"] == "Bearer test-0" {
                        return Ok::<_, std::convert::Infallible>(
                            Response::builder()
                                .status(401)
                                .body(Full::new(Bytes::from("no")))
                                .unwrap(),
                        );
                    }
                    let Ok(all) = request.into_body().collect().await else {
                        return Ok(Response::new(Full::new(Bytes::from("torn"))));
                    };
                    let all = all.to_bytes();
                    Ok(Response::new(Full::new(Bytes::from(all.len().to_string()))))
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), serve)
                    .await;
            });
        }
    });
    struct Slow(usize, Pin<Box<tokio::time::Sleep>>);
    impl Body for Slow {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.0 == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.1.as_mut().poll(cx));
            self.1 = Box::pin(sleep(Duration::from_millis(2)));
            self.0 -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))))
        }
    }
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    builder.http2_only(h2);
    let client = builder.build_http::<ReplayBody<Slow>>();
    let client = TokenLayer::new(&tokens, Origins::only(&format!("http://{address}")).unwrap())
        .replay(Buffered::unboxed())
        .layer(client);
    let request = Request::put(format!("http://{address}/"))
        .body(Slow(200, Box::pin(sleep(Duration::from_millis(2)))))
        .unwrap();
    let response = tokio::time::timeout(10 * SECOND, client.oneshot(request))
        .await
        .expect("hangs")
        .unwrap();
    let status = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        String::from_utf8_lossy(&text).parse().unwrap_or(0),
        fetches.load(Ordering::SeqCst),
    )
}

#[tokio::test]
async fn an_upload_that_is_refused_half_way_arrives_whole_over_both_versions_of_http() {
    for h2 in [false, true] {
        assert_eq!(refused_in_mid_upload(h2).await, (StatusCode::OK, 200_000, 2));
    }
}

/// A classifier of a user's own that only adds something to ours can be written.
#[derive(Clone)]
struct Mine(BodyCode);

impl<B: Body> tower_token::Classify<B> for Mine {
    type Body = tower_token::Peeked<B>;
    type Inspecting = <BodyCode as tower_token::Classify<B>>::Inspecting;
    fn head(&self, head: &http::response::Parts) -> tower_token::Verdict {
        tower_token::Classify::<B>::head(&self.0, head)
    }
    fn pass(&self, response: Response<B>) -> Response<Self::Body> {
        self.0.pass(response)
    }
    fn inspect(
        &self,
        head: &http::response::Parts,
        body: B,
        limit: usize,
        report: tower_token::Report,
    ) -> Self::Inspecting {
        self.0.inspect(head, body, limit, report)
    }
}

/// A 401 that is refused by default stays one if 401 is a candidate as well.
#[tokio::test(start_paused = true)]
async fn a_candidate_without_a_listed_code_is_judged_by_its_challenge() {
    let (tokens, fetches) = at_once();
    let server = tower::service_fn(|request: Request<String>| async move {
        let mut response = Response::new(Full::new(Bytes::from("{}")));
        if request.headers()["authorization"] == "Bearer test-0" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
            response.headers_mut().insert("www-authenticate", challenge);
        }
        Ok::<_, BoxError>(response)
    });
    let codes = BodyCode::new(StatusCode::UNAUTHORIZED, "/code", ["TokenExpired"]).unwrap();
    let client = TokenLayer::new(&tokens, origins())
        .replay(CloneBody)
        .classify(Mine(codes))
        .layer(server);
    let request = Request::get("https://api.example.com/").body(String::new()).unwrap();
    let status = client.oneshot(request).await.unwrap().status();
    assert_eq!((status, fetches.load(Ordering::SeqCst)), (StatusCode::OK, 2));
}
