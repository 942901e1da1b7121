//! What is sent twice, when, and what the caller gets if that does not help.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, COOKIE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{Empty, Full};
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_token::{
    Authorization, CloneBody, Cookie, Error, FetchError, HandedBack, Header, Never, NoToken, Query, StatusIn,
    TokenLayer,
};

use support::{Api, SECOND, bearer, get, held, issuer, issuer_that, nth, origins, page, post, refusal, send, settle};

// ===== At most twice =====

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_sent_once_more_with_a_newer_token() {
    let (tokens, issuer) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let response = send(&client, get()).await.unwrap();
    assert_eq!((response.status(), nth(&response)), (StatusCode::OK, 2));
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_is_asked_twice_by_one_request() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|_, _| refusal());
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let response = send(&client, get()).await.unwrap();
    assert_eq!((response.status(), nth(&response)), (StatusCode::UNAUTHORIZED, 2));
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
    assert_eq!(issuer.handed_back(), [HandedBack::RefusedAgain]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_to_it_cost_few_fetches_and_two_deliveries_each_at_most() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|_, _| refusal());
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    for _ in 0..1_000 {
        let before = api.deliveries();
        assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert!(api.deliveries() - before <= 2);
    }
    assert!(issuer.fetches() <= 3, "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn every_parallel_refusal_is_replayed_exactly_once() {
    let (tokens, issuer) = issuer();
    let api = Api::taking(SECOND / 10, |_, head| match bearer(head) {
        Some("test-1") => refusal(),
        _ => page("welcome"),
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    tokens.get().await.unwrap();
    let mut requests = Vec::new();
    // Over 2 s, so that some are refused before the renewal began, some during it, and some while
    // the replays of others are out.
    for number in 0..200 {
        let client = client.clone();
        requests.push(tokio::spawn(async move {
            let request = Request::get(format!("https://api.example.com/{number}"));
            send(&client, request.body(String::new()).unwrap()).await
        }));
        sleep(Duration::from_millis(10)).await;
    }
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(issuer.fetches(), 2);
    for number in 0..200 {
        let path = format!("/{number}");
        let of_one = |request: &Request<String>| {
            (request.uri().path() == path).then(|| request.headers()[AUTHORIZATION].clone())
        };
        let sent: Vec<_> = api.each(of_one).into_iter().flatten().collect();
        assert!(
            sent == ["Bearer test-2"] || sent == ["Bearer test-1", "Bearer test-2"],
            "{number}: {sent:?}"
        );
    }
    assert!(api.tokens().iter().filter(|token| *token == "test-1").count() >= 10);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_comes_late_is_replayed_with_the_token_in_place() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|_, head| match (bearer(head), head.uri.path()) {
        (Some("test-1"), _) => refusal(),
        _ => page("welcome"),
    });
    let slow = tower::service_fn({
        let api = api.clone();
        move |request: Request<String>| {
            let api = api.clone();
            async move {
                let slow = request.uri().path() == "/slow" && bearer_is(&request, "test-1");
                let answer = api.oneshot(request).await;
                sleep(if slow { 60 * SECOND } else { Duration::ZERO }).await;
                answer
            }
        }
    });
    let client = TokenLayer::new(&tokens, origins()).layer(slow);
    tokens.get().await.unwrap();
    let slow = Request::get("https://api.example.com/slow")
        .body(String::new())
        .unwrap();
    let slow = tokio::spawn(held(client.clone(), slow));
    settle().await;
    send(&client, get()).await.unwrap();
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(api.deliveries(), 4);
}

fn bearer_is(request: &Request<String>, token: &str) -> bool {
    support::bearer_of(request.headers()) == Some(token)
}

// ===== Whose answer it is =====

#[tokio::test(start_paused = true)]
async fn a_second_refusal_reaches_the_caller_as_the_server_made_it() {
    let (tokens, _) = issuer();
    let bodies: [Arc<str>; 2] = ["first".into(), "second".into()];
    let served = bodies.clone();
    let api = Api::answering(move |nth, _| odd_refusal(nth, served[nth - 1].clone()));
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    assert_untouched(&send(&client, get()).await.unwrap(), 2, &bodies[1]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_renewal_fails_reaches_the_caller_as_the_server_made_it() {
    for error in [
        FetchError::transient("down"),
        FetchError::terminal("over"),
        FetchError::config("wrong"),
    ] {
        let (tokens, issuer) = issuer_that(move |nth| if nth == 1 { Ok(()) } else { Err(error.clone()) });
        let body: Arc<str> = "first".into();
        let served = body.clone();
        let api = Api::answering(move |nth, _| odd_refusal(nth, served.clone()));
        let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
        assert_untouched(&send(&client, get()).await.unwrap(), 1, &body);
        assert_eq!(api.deliveries(), 1);
        assert_eq!(issuer.handed_back(), [HandedBack::NotRenewed]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_replay_finds_no_ready_service_reaches_the_caller_as_the_server_made_it() {
    let (tokens, _) = issuer();
    let body: Arc<str> = "first".into();
    let served = body.clone();
    let api = Api::answering(move |nth, _| odd_refusal(nth, served.clone()));
    let client = TokenLayer::new(&tokens, origins()).layer(ReadyTimes::new(1, api));
    tokens.get().await.unwrap();
    assert_untouched(&send(&client, get()).await.unwrap(), 1, &body);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_replay_is_the_inner_services_own() {
    #[derive(Debug)]
    struct Reset;
    impl std::fmt::Display for Reset {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("connection reset")
        }
    }
    impl std::error::Error for Reset {}

    let (tokens, _) = issuer();
    let client = TokenLayer::new(&tokens, origins()).layer(tower::service_fn(|request: Request<String>| async move {
        if bearer_is(&request, "test-1") {
            Ok(refusal())
        } else {
            Err(Reset)
        }
    }));
    let error = send(&client, get()).await.unwrap_err();
    assert!(error.is::<Reset>());
}

/// 401 with much that could be lost on the way to the caller.
fn odd_refusal(nth: usize, body: Arc<str>) -> Response<Arc<str>> {
    let mut response = Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .version(Version::HTTP_2)
        .header("www-authenticate", "Basic realm=\"x\"")
        .header("set-cookie", "a=1")
        .header("www-authenticate", "Bearer error=\"invalid_token\"")
        .header("set-cookie", "b=2")
        .header("x-nth", nth)
        .extension(body.clone())
        .body(body)
        .unwrap();
    response
        .headers_mut()
        .iter_mut()
        .for_each(|(name, value)| value.set_sensitive(name == "x-nth"));
    response
}

fn assert_untouched(response: &Response<Arc<str>>, nth: usize, body: &Arc<str>) {
    let expected = odd_refusal(nth, body.clone());
    assert!(Arc::ptr_eq(response.body(), body));
    assert!(Arc::ptr_eq(response.extensions().get::<Arc<str>>().unwrap(), body));
    assert_eq!(support::nth(response), nth);
    assert_eq!(
        (response.status(), response.version()),
        (expected.status(), expected.version())
    );
    assert!(response.headers().iter().eq(expected.headers()));
    assert!(response.headers()["x-nth"].is_sensitive());
}

/// Ready so many times, over all of its clones; then broken.
#[derive(Clone)]
struct ReadyTimes<S> {
    left: Arc<AtomicUsize>,
    inner: S,
}

impl<S> ReadyTimes<S> {
    fn new(times: usize, inner: S) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(times)),
            inner,
        }
    }
}

impl<S: Service<Request<String>, Error = tower::BoxError>> Service<Request<String>> for ReadyTimes<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        if self.left.load(Ordering::SeqCst) == 0 {
            return std::task::Poll::Ready(Err("broken".into()));
        }
        std::task::ready!(self.inner.poll_ready(cx))?;
        self.left.fetch_sub(1, Ordering::SeqCst);
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> S::Future {
        self.inner.call(request)
    }
}

// ===== What is kept =====

#[tokio::test(start_paused = true)]
async fn auto_replays_empty_bodies_and_bodies_in_memory() {
    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    send(&client, post(String::from("text"))).await.unwrap();
    assert_eq!(api.each(|request| request.body().clone()), ["text", "text"]);

    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    send(&client, post(Full::new(Bytes::from("full")))).await.unwrap();
    let bodies = api.each(|request| request.body().clone());
    for body in bodies {
        use http_body_util::BodyExt;
        assert_eq!(body.collect().await.unwrap().to_bytes(), "full");
    }
    assert_eq!(api.deliveries(), 2);

    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    send(&client, post(Empty::<Bytes>::new())).await.unwrap();
    assert_eq!(api.deliveries(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_sent_once_and_renews_for_the_next() {
    /// A stream of unknown length.
    #[derive(Default)]
    struct Stream;
    impl http_body::Body for Stream {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(None)
        }
    }

    let (tokens, issuer) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let response = send(&client, post(Stream)).await.unwrap();
    assert_eq!((response.status(), nth(&response)), (StatusCode::UNAUTHORIZED, 1));
    assert_eq!(issuer.handed_back(), [HandedBack::NotKept]);
    let response = send(&client, post(Stream)).await.unwrap();
    assert_eq!((response.status(), nth(&response)), (StatusCode::OK, 2));
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
}

#[tokio::test(start_paused = true)]
async fn never_keeps_nothing_and_renews_for_the_next() {
    struct Foreign;
    let (tokens, issuer) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).replay(Never).layer(api.clone());
    assert_eq!(
        send(&client, post(Foreign)).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    // In the background: nobody waits for it.
    sleep(3 * SECOND).await;
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(send(&client, post(Foreign)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
}

#[tokio::test(start_paused = true)]
async fn clone_body_replays_what_is_no_http_body() {
    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).replay(CloneBody).layer(api.clone());
    send(&client, post(vec![1, 2, 3])).await.unwrap();
    assert_eq!(api.each(|request| request.body().clone()), [[1, 2, 3], [1, 2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn only_the_methods_named_are_replayed() {
    for (method, deliveries) in [
        (Method::GET, 2),
        (Method::HEAD, 2),
        (Method::POST, 1),
        (Method::PATCH, 1),
    ] {
        let (tokens, issuer) = issuer();
        let api = Api::refusing(["test-1"]);
        let layer = TokenLayer::new(&tokens, origins()).methods([Method::GET, Method::HEAD]);
        let client = layer.layer(api.clone());
        let mut request = get();
        *request.method_mut() = method.clone();
        let status = send(&client, request).await.unwrap().status();
        assert_eq!(status == StatusCode::OK, deliveries == 2, "{method}");
        assert_eq!(api.deliveries(), deliveries, "{method}");
        tokens.get().await.unwrap();
        assert_eq!(issuer.fetches(), 2, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_replay_has_the_same_head() {
    let names = ["accept", "x-b", "cookie", "x-a", "content-type", "x-c"].map(HeaderName::from_static);
    let build = || {
        let mut request = Request::builder()
            .method(Method::from_bytes(b"PURGE").unwrap())
            .uri("https://api.example.com/a%20b/../c?x=1&x=2&y")
            .version(Version::HTTP_2)
            .extension(17_u32)
            .extension("a second one");
        for (nth, name) in names.iter().chain(&names).enumerate() {
            request = request.header(name, nth);
        }
        let mut request = request.body(String::from("body")).unwrap();
        for value in request.headers_mut().get_all_mut_of(&COOKIE) {
            value.set_sensitive(true);
        }
        request
    };
    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    send(&client, build()).await.unwrap();
    let look = |request: &Request<String>| {
        let mut headers = Vec::new();
        for (name, value) in request.headers() {
            let value = if name == AUTHORIZATION {
                &HeaderValue::from_static("-")
            } else {
                value
            };
            headers.push((name.clone(), value.clone(), value.is_sensitive()));
        }
        let extensions = request.extensions();
        (
            (request.method().clone(), request.uri().to_string(), request.version()),
            headers,
            (
                extensions.get::<u32>().copied(),
                extensions.get::<&str>().copied(),
                extensions.len(),
            ),
            request.body().clone(),
        )
    };
    let sent = api.each(look);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
    let plain = look(&build());
    assert_eq!((&sent[1].0, &sent[1].2, &sent[1].3), (&plain.0, &plain.2, &plain.3));
    let without_ours: Vec<_> = sent[1]
        .1
        .iter()
        .filter(|(name, ..)| *name != AUTHORIZATION)
        .cloned()
        .collect();
    assert_eq!(without_ours, plain.1);
    assert!(without_ours.iter().any(|(.., sensitive)| *sensitive));
    assert_eq!(
        api.each(|request| request.headers().get_all(AUTHORIZATION).iter().count()),
        [1, 1]
    );
    assert!(
        api.each(|request| request.headers()[AUTHORIZATION].is_sensitive())
            .into_iter()
            .all(|yes| yes)
    );
    assert!(
        api.each(|request| request.headers().get_all(ACCEPT).iter().count())
            .into_iter()
            .all(|two| two == 2)
    );
}

trait GetAllMut {
    fn get_all_mut_of(&mut self, name: &HeaderName) -> impl Iterator<Item = &mut HeaderValue>;
}

impl GetAllMut for http::HeaderMap {
    fn get_all_mut_of(&mut self, name: &HeaderName) -> impl Iterator<Item = &mut HeaderValue> {
        self.iter_mut()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

#[tokio::test(start_paused = true)]
async fn the_replay_holds_one_token_however_it_is_presented() {
    let (tokens, _) = issuer();
    let by_number = |nth: usize, _: &_| if nth == 1 { refusal() } else { page("welcome") };
    let layer = TokenLayer::new(&tokens, origins());

    let api = Api::answering(by_number);
    let client = layer.clone().inject(Query::new("access_token")).layer(api.clone());
    let request = Request::get("https://api.example.com/me?a=1&access_token=stale&b=2");
    send(&client, request.body(String::new()).unwrap()).await.unwrap();
    assert_eq!(
        api.each(|request| request.uri().query().unwrap().to_owned()),
        ["a=1&b=2&access_token=test-1", "a=1&b=2&access_token=test-2"]
    );

    let api = Api::answering(by_number);
    let client = layer.clone().inject(Cookie::new("session")).layer(api.clone());
    let request = Request::get("https://api.example.com/cookie").header(COOKIE, "a=1; session=stale");
    send(&client, request.body(String::new()).unwrap()).await.unwrap();
    assert_eq!(
        api.each(|request| request.headers()[COOKIE].clone()),
        ["a=1; session=test-2", "a=1; session=test-3"]
    );

    let api = Api::answering(by_number);
    let name = HeaderName::from_static("x-api-key");
    let client = layer.inject(Header::new(name.clone())).layer(api.clone());
    let request = Request::get("https://api.example.com/header")
        .body(String::new())
        .unwrap();
    send(&client, request).await.unwrap();
    assert_eq!(
        api.each(|request| request.headers()[&name].clone()),
        ["test-3", "test-4"]
    );
}

// ===== What is no refusal =====

#[tokio::test(start_paused = true)]
async fn every_other_answer_is_delivered_once() {
    let basic = || {
        Response::builder()
            .status(401)
            .header("www-authenticate", "Basic realm=\"x\"")
    };
    let scope = || {
        Response::builder()
            .status(403)
            .header("www-authenticate", "Bearer error=\"insufficient_scope\"")
    };
    let answers = [200, 204, 301, 400, 403, 404, 407, 419, 429, 500, 502, 503, 504]
        .map(|status| Response::builder().status(status))
        .into_iter()
        .chain([basic(), scope()]);
    for answer in answers {
        let answer = answer.body(Arc::<str>::from("")).unwrap();
        let expected = answer.clone();
        let (tokens, issuer) = issuer();
        let api = Api::answering(move |_, _| answer.clone());
        let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
        let response = send(&client, get()).await.unwrap();
        assert_eq!(response.status(), expected.status());
        assert_eq!(response.headers(), expected.headers());
        assert_eq!((api.deliveries(), issuer.fetches()), (1, 1), "{expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_named_a_refusal_is_one() {
    let (tokens, _) = issuer();
    let api = Api::answering(|nth, _| {
        let status = if nth == 1 { 419 } else { 401 };
        Response::builder().status(status).body("".into()).unwrap()
    });
    let refused = StatusIn::new([StatusCode::from_u16(419).unwrap()]);
    let client = TokenLayer::new(&tokens, origins()).classify(refused).layer(api.clone());
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
}

// ===== Whose token it is =====

#[tokio::test(start_paused = true)]
async fn a_request_that_wants_no_token_gets_none_and_its_401_is_its_own() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|_, _| refusal());
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let mut request = get();
    request.extensions_mut().insert(NoToken);
    let began = Instant::now();
    assert_eq!(send(&client, request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!((api.tokens(), issuer.fetches()), (vec!["-".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_header_is_left_alone_and_so_is_its_401() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|_, _| refusal());
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let mut request = get();
    request
        .headers_mut()
        .insert(AUTHORIZATION, "Basic dGVzdA==".parse().unwrap());
    assert_eq!(send(&client, request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((api.deliveries(), issuer.fetches()), (1, 0));
    assert_eq!(
        api.each(|request| request.headers()[AUTHORIZATION].clone()),
        ["Basic dGVzdA=="]
    );
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_header_is_replaced_on_both_attempts_where_that_is_wanted() {
    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let layer = TokenLayer::new(&tokens, origins()).inject(Authorization::new().overwrite());
    let client = layer.layer(api.clone());
    let mut request = get();
    request
        .headers_mut()
        .append(AUTHORIZATION, "Basic dGVzdA==".parse().unwrap());
    request
        .headers_mut()
        .append(AUTHORIZATION, "Basic dGVzdA==".parse().unwrap());
    send(&client, request).await.unwrap();
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
    assert_eq!(
        api.each(|request| request.headers().get_all(AUTHORIZATION).iter().count()),
        [1, 1]
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_to_elsewhere_gets_no_token_and_its_401_is_its_own() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|_, _| refusal());
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let request = Request::get("https://elsewhere.example.com/me")
        .body(String::new())
        .unwrap();
    assert_eq!(send(&client, request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((api.tokens(), issuer.fetches()), (vec!["-".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_names_no_host_is_an_error_and_is_not_sent() {
    let (tokens, _) = issuer();
    let api = Api::answering(|_, _| refusal());
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let request = Request::get("/me").body(String::new()).unwrap();
    let error = send(&client, request).await.unwrap_err();
    assert!(Error::find(&*error).unwrap().to_string().contains("names no host"));
    assert_eq!(api.deliveries(), 0);
}

// ===== When it leaves =====

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_in_a_queue_takes_the_token_of_the_moment_it_is_sent() {
    let (tokens, issuer) = issuer();
    let api = Api::taking(60 * SECOND, |_, _| page("welcome"));
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, origins()))
        .concurrency_limit(1)
        .service(api.clone());
    // Gives its slot back while it waits for the token, and then finds the slot taken for a minute.
    let queued = tokio::spawn(held(client.clone(), get()));
    settle().await;
    let mut long = get();
    long.extensions_mut().insert(NoToken);
    let long = tokio::spawn(held(client.clone(), long));
    sleep(10 * SECOND).await;
    assert_eq!((issuer.fetches(), api.tokens()), (1, vec!["-".to_owned()]));
    tokens.refresh().await.unwrap();
    long.await.unwrap().unwrap();
    queued.await.unwrap().unwrap();
    assert_eq!(api.tokens(), ["-", "test-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_waited_in_a_queue_takes_the_token_of_the_moment_it_is_sent() {
    let (tokens, issuer) = issuer();
    let api = Api::taking(30 * SECOND, |_, head| match bearer(head) {
        Some("test-1") => refusal(),
        _ => page("welcome"),
    });
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, origins()))
        .concurrency_limit(1)
        .service(api.clone());
    let first = tokio::spawn(held(client.clone(), get()));
    sleep(2 * SECOND).await;
    // Next in the queue, so that it has the slot when the first is to be sent again.
    let mut long = get();
    long.extensions_mut().insert(NoToken);
    let long = tokio::spawn(held(client.clone(), long));
    sleep(40 * SECOND).await;
    assert_eq!((issuer.fetches(), api.deliveries()), (2, 2));
    tokens.refresh().await.unwrap();
    long.await.unwrap().unwrap();
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["test-1", "-", "test-3"]);
}

// ===== Callers that leave =====

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_while_the_token_is_renewed_stops_nothing() {
    let (tokens, issuer) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    tokens.get().await.unwrap();
    assert!(timeout(SECOND / 2, send(&client, get())).await.is_err());
    assert_eq!((api.deliveries(), issuer.fetches()), (1, 2));
    sleep(SECOND).await;
    let began = Instant::now();
    send(&client, get()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_during_the_replay_leaves_the_others_alone() {
    let (tokens, issuer) = issuer();
    let api = Api::taking(10 * SECOND, |_, head| match bearer(head) {
        Some("test-1") => refusal(),
        _ => page("welcome"),
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    tokens.get().await.unwrap();
    let stays = tokio::spawn(held(client.clone(), get()));
    let leaves = tokio::spawn(held(client.clone(), get()));
    sleep(15 * SECOND).await;
    assert_eq!(api.deliveries(), 4);
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    assert_eq!(stays.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!((api.deliveries(), issuer.fetches()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_nobody_polls_fetches_but_sends_nothing() {
    let (tokens, issuer) = issuer();
    let api = Api::answering(|_, _| page("welcome"));
    let mut client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let response = client.ready().await.unwrap().call(get());
    sleep(5 * SECOND).await;
    assert_eq!((issuer.fetches(), api.deliveries()), (1, 0));
    drop(response);
    send(&client, get()).await.unwrap();
    assert_eq!((issuer.fetches(), api.deliveries()), (1, 1));
}
