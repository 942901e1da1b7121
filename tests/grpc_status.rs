//! What a gRPC status makes of a token, wherever it stands: poll by poll, in virtual time.
//!
//! `tests/grpc.rs` has the same over sockets, with a server that somebody else wrote.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, sleep};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceExt};
use tower_token::{CloneBody, Grpc, Peeked, Token, TokenLayer, Tokens, Unauthorized, provider_fn};

use support::{SECOND, at_once};

const MOMENT: Duration = Duration::from_millis(1);

/// What a response does after its head.
#[derive(Clone)]
enum Then {
    Message(&'static str),
    Trailers(&'static str),
    Silent(Duration),
    Fail,
}

/// A response body that follows a script.
struct Answer {
    script: VecDeque<Then>,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(silence) = &mut self.silence {
                ready!(silence.as_mut().poll(cx));
                self.silence = None;
            }
            return Poll::Ready(match self.script.pop_front() {
                Some(Then::Silent(long)) => {
                    self.silence = Some(Box::pin(sleep(long)));
                    continue;
                }
                Some(Then::Message(text)) => Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
                Some(Then::Trailers(status)) => Some(Ok(Frame::trailers(said(status)))),
                Some(Then::Fail) => Some(Err("reset".into())),
                None => None,
            });
        }
    }
}

fn said(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(status),
    )])
}

type Client = BoxCloneSyncService<Request<String>, Response<Peeked<Answer>>, BoxError>;

/// A server, the number of requests that reached it, and the number of fetches.
struct Scene {
    client: Client,
    deliveries: Arc<AtomicUsize>,
    fetches: Arc<AtomicUsize>,
    tokens: Tokens,
}

impl Scene {
    fn counts(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.deliveries), count(&self.fetches))
    }
}

/// A server that answers the n-th request, counted from 1, by script; the first step may be its head's status.
fn scene(rule: impl Fn(usize) -> (Option<&'static str>, Vec<Then>) + Clone + Send + Sync + 'static) -> Scene {
    scene_for(Grpc::new(), rule)
}

fn scene_for(
    classify: Grpc,
    rule: impl Fn(usize) -> (Option<&'static str>, Vec<Then>) + Clone + Send + Sync + 'static,
) -> Scene {
    let (tokens, fetches) = at_once();
    let deliveries = Arc::new(AtomicUsize::new(0));
    let counter = deliveries.clone();
    let server = tower::service_fn(move |_: Request<String>| {
        let (status, script) = rule(counter.fetch_add(1, Ordering::SeqCst) + 1);
        let mut response = Response::new(Answer {
            script: script.into(),
            silence: None,
        });
        if let Some(status) = status {
            *response.headers_mut() = said(status);
        }
        async { Ok::<_, BoxError>(response) }
    });
    let layer = TokenLayer::grpc(&tokens).classify(classify).replay(CloneBody);
    Scene {
        client: Client::new(layer.layer(server)),
        deliveries,
        fetches,
        tokens,
    }
}

fn call() -> Request<String> {
    Request::post("/test.Service/Method").body("message".into()).unwrap()
}

/// Data, and the status in the trailers.
async fn read(response: Response<Peeked<Answer>>) -> (String, Option<String>) {
    let all = response.into_body().collect().await.unwrap();
    let status = all
        .trailers()
        .map(|trailers| trailers["grpc-status"].to_str().unwrap().to_owned());
    (String::from_utf8(all.to_bytes().to_vec()).unwrap(), status)
}

fn good() -> (Option<&'static str>, Vec<Then>) {
    (None, vec![Then::Message("hello"), Then::Trailers("0")])
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_head_is_renewed_and_replayed() {
    let scene = scene(|nth| if nth == 1 { (Some("16"), vec![]) } else { good() });
    let response = scene.client.clone().oneshot(call()).await.unwrap();
    assert_eq!(read(response).await, ("hello".into(), Some("0".into())));
    assert_eq!(scene.counts(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_trailers_before_any_message_is_renewed_and_replayed() {
    for silence in [vec![], vec![Then::Message("")], vec![Then::Silent(99 * MOMENT)]] {
        let scene = scene(move |nth| match nth {
            1 => (None, [silence.clone(), vec![Then::Trailers("16")]].concat()),
            _ => good(),
        });
        let response = scene.client.clone().oneshot(call()).await.unwrap();
        assert_eq!(read(response).await, ("hello".into(), Some("0".into())));
        assert_eq!(scene.counts(), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_message_reaches_the_caller_and_renews_for_the_next_call() {
    let scene = scene(|nth| match nth {
        1 => (
            None,
            vec![Then::Message("half"), Then::Silent(SECOND), Then::Trailers("16")],
        ),
        _ => good(),
    });
    let response = scene.client.clone().oneshot(call()).await.unwrap();
    assert_eq!(scene.counts(), (1, 1));
    assert_eq!(read(response).await, ("half".into(), Some("16".into())));
    let response = scene.client.clone().oneshot(call()).await.unwrap();
    assert_eq!(read(response).await.1.as_deref(), Some("0"));
    assert_eq!(scene.counts(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_handed_on_when_the_patience_is_over_and_its_late_refusal_renews() {
    let scene = scene(|nth| match nth {
        1 => (None, vec![Then::Silent(SECOND), Then::Trailers("16")]),
        _ => good(),
    });
    let began = Instant::now();
    let response = scene.client.clone().oneshot(call()).await.unwrap();
    assert_eq!(began.elapsed(), 100 * MOMENT);
    assert_eq!(read(response).await, (String::new(), Some("16".into())));
    assert_eq!(began.elapsed(), SECOND);
    read(scene.client.clone().oneshot(call()).await.unwrap()).await;
    assert_eq!(scene.counts(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handed_on_when_it_comes() {
    let scene = scene(|_| {
        (
            None,
            vec![Then::Message("first"), Then::Silent(SECOND), Then::Trailers("0")],
        )
    });
    let began = Instant::now();
    let mut response = scene.client.clone().oneshot(call()).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(&first.into_data().unwrap()[..], b"first");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn no_other_status_costs_a_fetch_or_a_second_delivery() {
    for status in ["0", "1", "7", "13", "14", "160", "016", " 16", "x", ""] {
        for answer in [
            (Some(status), vec![]),
            (None, vec![Then::Trailers(status)]),
            (None, vec![Then::Message("some"), Then::Trailers(status)]),
        ] {
            let scene = scene(move |_| answer.clone());
            for _ in 0..3 {
                read(scene.client.clone().oneshot(call()).await.unwrap()).await;
            }
            assert_eq!(scene.counts(), (3, 1), "{status:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_late_costs_a_fetch_a_minute() {
    let scene = scene(|_| (None, vec![Then::Message("half"), Then::Trailers("16")]));
    for _ in 0..600 {
        if let Ok(response) = scene.client.clone().oneshot(call()).await {
            read(response).await;
        }
        sleep(SECOND).await;
    }
    let (_, fetches) = scene.counts();
    assert!(fetches <= 15, "{fetches} fetches in ten minutes");
}

/// None of these calls ends with status 0.
#[tokio::test(start_paused = true)]
async fn a_message_is_an_acceptance_so_that_every_stream_that_dies_renews() {
    let scene = scene(|nth| match nth {
        1..=4 => (None, vec![Then::Message("some"), Then::Trailers("16")]),
        _ => good(),
    });
    for streams in 1..=5 {
        read(scene.client.clone().oneshot(call()).await.unwrap()).await;
        assert_eq!(scene.counts(), (streams, streams));
        sleep(SECOND).await;
    }
}

/// Half of the calls are refused: each costs a fetch where the others prove their token good.
async fn fetches_of_refusals_after(answer: (Option<&'static str>, Vec<Then>)) -> usize {
    let scene = scene(move |nth| match nth % 2 {
        1 => answer.clone(),
        _ => (Some("16"), vec![]),
    });
    for _ in 0..6 {
        read(scene.client.clone().oneshot(call()).await.unwrap()).await;
    }
    scene.counts().1
}

#[tokio::test(start_paused = true)]
async fn a_status_of_0_or_a_message_proves_a_token_good_whenever_it_comes() {
    let late = Then::Silent(SECOND);
    for answer in [
        (Some("0"), vec![]),
        (None, vec![Then::Trailers("0")]),
        (None, vec![late.clone(), Then::Trailers("0")]),
        (None, vec![Then::Message("some"), Then::Trailers("13")]),
        (None, vec![late.clone(), Then::Message("some"), Then::Trailers("13")]),
    ] {
        assert_eq!(fetches_of_refusals_after(answer).await, 6);
    }
}

/// One a minute.
#[tokio::test(start_paused = true)]
async fn another_status_or_an_empty_message_proves_nothing() {
    let late = Then::Silent(SECOND);
    for answer in [
        (Some("13"), vec![]),
        (None, vec![Then::Message(""), Then::Trailers("13")]),
        (None, vec![late.clone(), Then::Message(""), Then::Trailers("13")]),
        (None, vec![late, Then::Trailers("13")]),
    ] {
        assert_eq!(fetches_of_refusals_after(answer).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_patience_can_be_set() {
    for (patience, waited, counts) in [(Duration::ZERO, Duration::ZERO, (1, 1)), (2 * SECOND, SECOND, (2, 2))] {
        let scene = scene_for(Grpc::new().patience(patience), |nth| match nth {
            1 => (None, vec![Then::Silent(SECOND), Then::Trailers("16")]),
            _ => (Some("0"), vec![]),
        });
        let began = Instant::now();
        let _response = scene.client.clone().oneshot(call()).await.unwrap();
        assert_eq!((began.elapsed(), scene.counts()), (waited, counts));
    }
}

/// As proxies answer, which speak no gRPC.
#[tokio::test(start_paused = true)]
async fn a_401_without_a_grpc_status_is_read_as_http_has_it() {
    let by_http = [
        (Grpc::new(), 2),
        (Grpc::new().otherwise(Unauthorized::new().bare(false)), 1),
    ];
    for (classify, fetched) in by_http {
        let (tokens, fetches) = at_once();
        let server = tower::service_fn(|_: Request<String>| async {
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            Ok::<_, BoxError>(response)
        });
        let layer = TokenLayer::grpc(&tokens).classify(classify).replay(CloneBody);
        let response = layer.layer(server).oneshot(call()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(fetches.load(Ordering::SeqCst), fetched);
    }
}

/// What is said of a bare HTTP 401 is not said of a status that leaves no doubt.
#[tokio::test(start_paused = true)]
async fn a_status_16_without_a_challenge_is_a_refusal_where_a_bare_401_is_none() {
    let (tokens, fetches) = at_once();
    let server = tower::service_fn(|_: Request<String>| async {
        let response = Response::builder().header("grpc-status", "16");
        Ok::<_, BoxError>(response.body(String::new()).unwrap())
    });
    let classify = Grpc::new().otherwise(Unauthorized::new().bare(false));
    let layer = TokenLayer::grpc(&tokens).classify(classify).replay(CloneBody);
    layer.layer(server).oneshot(call()).await.unwrap();
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

/// A status of 0 is what proves a token good, not the HTTP status 200 that every gRPC response has.
#[tokio::test(start_paused = true)]
async fn an_error_of_the_method_is_no_acceptance() {
    let scene = scene(|nth| match nth % 2 {
        1 => (Some("13"), vec![]),
        _ => (Some("16"), vec![]),
    });
    for _ in 0..600 {
        let _ = scene.client.clone().oneshot(call()).await;
        sleep(SECOND).await;
    }
    let (_, fetches) = scene.counts();
    assert!(fetches <= 15, "{fetches} fetches in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_second_refusal_is_handed_back_whole() {
    let scene = scene(|_| (None, vec![Then::Trailers("16")]));
    let response = scene.client.clone().oneshot(call()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(read(response).await, (String::new(), Some("16".into())));
    assert_eq!(scene.counts(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_fails_or_just_ends_is_handed_on() {
    for script in [
        vec![Then::Fail],
        vec![Then::Message("half"), Then::Fail],
        vec![Then::Silent(SECOND), Then::Fail],
    ] {
        let scene = scene(move |_| (None, script.clone()));
        let response = scene.client.clone().oneshot(call()).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!((error.to_string().as_str(), scene.counts()), ("reset", (1, 1)));
    }
    let scene = scene(|_| (None, vec![]));
    let response = scene.client.clone().oneshot(call()).await.unwrap();
    assert_eq!(read(response).await, (String::new(), None));
}

#[tokio::test(start_paused = true)]
async fn the_type_of_the_body_can_stay_what_it_was() {
    type Boxed = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
    let scene = scene(|_| good());
    let server = tower::service_fn(|_: Request<String>| async {
        let script = VecDeque::from(good().1);
        let body = Answer { script, silence: None };
        Ok::<_, BoxError>(Response::new(Boxed::new(body)))
    });
    let layer = TokenLayer::grpc(&scene.tokens).classify(Grpc::new().via(Boxed::new));
    let response: Response<Boxed> = layer.layer(server).oneshot(call()).await.unwrap();
    let all = response.into_body().collect().await.unwrap();
    assert_eq!(all.trailers().unwrap()["grpc-status"], "0");
}

/// Outside of a runtime nothing could end a wait, so there is none.
#[test]
fn without_a_runtime_a_silent_stream_is_handed_on_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let tokens = Tokens::new(provider_fn(|_| async { Ok(Token::bearer("test")) })).unwrap();
    runtime.block_on(tokens.get()).unwrap();
    struct Never;
    impl Body for Never {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }
    let server = tower::service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(Never)) });
    let mut call = tokio_test::task::spawn(TokenLayer::grpc(&tokens).layer(server).oneshot(call()));
    assert!(call.poll().is_ready());
}
