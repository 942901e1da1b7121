//! The layer over services of `reqwest::Request`s, and over a `reqwest::Client` itself.

#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use reqwest::{Body, Client, Method, Request, ResponseBuilderExt, Url};
use tower::limit::ConcurrencyLimit;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_token::reqwest::Http;
use tower_token::{
    BodyCode, Classify, Error, Never, NoToken, Origins, Query, Replay, Report, StatusIn, TokenLayer, TokenService,
    Tokens, Verdict, classify_fn,
};

use support::{at_once, issuer};

const URL: &str = "https://api.example.com/orders?of=7";

fn origins() -> Origins {
    Origins::only("https://api.example.com").unwrap()
}

fn post(body: impl Into<Body>) -> Request {
    let mut request = Request::new(Method::POST, URL.parse().unwrap());
    *request.body_mut() = Some(body.into());
    request
}

fn stream(chunks: &[&'static str]) -> Body {
    let frames: Vec<_> = chunks
        .iter()
        .map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(*chunk))))
        .collect();
    Body::wrap(StreamBody::new(tokio_stream::iter(frames)))
}

async fn send<S>(client: &S, request: Request) -> Result<reqwest::Response, S::Error>
where
    S: Service<Request, Response = reqwest::Response> + Clone,
{
    client.clone().oneshot(request).await
}

// ===== The API =====

/// What came, and the bytes of its body.
struct Seen {
    token: Option<String>,
    timeout: Option<Duration>,
    body: Bytes,
}

/// A client's stand-in, which has been redirected to `/moved`.
#[derive(Clone)]
struct Api {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// By the token.
    answer: fn(&str) -> Response<&'static str>,
}

fn page(status: StatusCode, text: &'static str) -> Response<&'static str> {
    let url = Url::parse("https://api.example.com/moved").unwrap();
    let response = Response::builder()
        .status(status)
        .url(url)
        .version(Version::HTTP_2)
        .header("x-page", "a");
    response.extension(Mark).body(text).unwrap()
}

/// In the extensions of a response, where a client leaves things of its own.
#[derive(Clone, Debug, PartialEq)]
struct Mark;

fn refuses_the_first(token: &str) -> Response<&'static str> {
    match token {
        "Bearer test-1" => page(StatusCode::UNAUTHORIZED, "no"),
        _ => page(StatusCode::OK, "welcome"),
    }
}

impl Api {
    fn new(answer: fn(&str) -> Response<&'static str>) -> Self {
        let seen = Arc::default();
        Self { seen, answer }
    }

    fn service(
        &self,
    ) -> impl Service<Request, Response = reqwest::Response, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
    {
        let api = self.clone();
        service_fn(move |mut request: Request| {
            let api = api.clone();
            async move {
                let body = request.body_mut().take().unwrap_or_default();
                let body = body.collect().await?.to_bytes();
                let token = request
                    .headers()
                    .get("authorization")
                    .map(|token| token.to_str().unwrap().to_owned());
                let answer = (api.answer)(token.as_deref().unwrap_or("none"));
                let timeout = request.timeout().copied();
                api.seen.lock().unwrap().push(Seen { token, timeout, body });
                // As a client has it: the text in two chunks, which come one after the other.
                let answer = answer.map(|text| {
                    let (begin, end) = text.split_at(text.len() / 2);
                    Body::wrap(StreamBody::new(tokio_stream::iter(
                        [begin, end].map(|part| Ok::<_, BoxError>(Frame::data(Bytes::from(part)))),
                    )))
                });
                Ok(answer.into())
            }
        })
    }

    fn tokens(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|seen| seen.token.clone().unwrap_or_default()).collect()
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.seen.lock().unwrap().iter().map(|seen| seen.body.clone()).collect()
    }
}

/// The response is the client's own but for what was looked at.
async fn assert_is_whole(response: reqwest::Response, status: StatusCode, text: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(response.url().as_str(), "https://api.example.com/moved");
    assert_eq!(
        (response.version(), &response.headers()["x-page"]),
        (Version::HTTP_2, &"a".parse().unwrap())
    );
    assert_eq!(response.extensions().get::<Mark>(), Some(&Mark));
    assert_eq!(response.text().await.unwrap(), text);
}

// ===== Requests =====

#[tokio::test(start_paused = true)]
async fn a_401_is_renewed_and_the_request_sent_again_with_its_bytes() {
    let ((tokens, issuer), api) = (issuer(), Api::new(refuses_the_first));
    let client = TokenLayer::new(&tokens, origins()).layer(api.service());
    let response = send(&client, post(r#"{"item":7}"#)).await.unwrap();
    assert_is_whole(response, StatusCode::OK, "welcome").await;
    assert_eq!(api.tokens(), ["Bearer test-1", "Bearer test-2"]);
    assert_eq!(api.bodies(), [r#"{"item":7}"#; 2]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_is_sent_again_as_well() {
    let ((tokens, _), api) = (issuer(), Api::new(refuses_the_first));
    let client = TokenLayer::new(&tokens, origins()).layer(api.service());
    let get = || Request::new(Method::GET, URL.parse().unwrap());
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["Bearer test-1", "Bearer test-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_sent_once_unless_it_is_recorded() {
    let ((tokens, _), api) = (issuer(), Api::new(refuses_the_first));
    let layer = TokenLayer::new(&tokens, origins());
    let response = send(&layer.layer(api.service()), post(stream(&["a", "b"])))
        .await
        .unwrap();
    assert_is_whole(response, StatusCode::UNAUTHORIZED, "no").await;
    assert_eq!(api.bodies(), ["ab"]);

    let ((tokens, _), api) = (issuer(), Api::new(refuses_the_first));
    let layer = TokenLayer::new(&tokens, origins()).replay_via(Body::wrap);
    let response = send(&layer.layer(api.service()), post(stream(&["a", "b"])))
        .await
        .unwrap();
    assert_is_whole(response, StatusCode::OK, "welcome").await;
    assert_eq!(api.bodies(), ["ab", "ab"]);
}

#[tokio::test(start_paused = true)]
async fn a_requests_own_time_limit_goes_along_with_both_attempts() {
    let ((tokens, _), api) = (issuer(), Api::new(refuses_the_first));
    let client = TokenLayer::new(&tokens, origins()).layer(api.service());
    let mut request = post("a");
    *request.timeout_mut() = Some(Duration::from_secs(7));
    send(&client, request).await.unwrap();
    let limits: Vec<_> = api.seen.lock().unwrap().iter().map(|seen| seen.timeout).collect();
    assert_eq!(limits, [Some(Duration::from_secs(7)); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_request_elsewhere_or_one_that_wants_none_goes_without_the_token() {
    let ((tokens, issuer), api) = (issuer(), Api::new(refuses_the_first));
    let client = TokenLayer::new(&tokens, origins()).layer(api.service());
    for elsewhere in [
        "https://evil.example/",
        "http://api.example.com/",
        "https://api.example.com@evil.example/",
    ] {
        send(&client, Request::new(Method::GET, elsewhere.parse().unwrap()))
            .await
            .unwrap();
    }
    let none = http::Request::get(URL).extension(NoToken).body("").unwrap();
    send(&client, none.try_into().unwrap()).await.unwrap();
    let mut own = post("");
    own.headers_mut()
        .insert("authorization", "Basic dGVzdDp0ZXN0".parse().unwrap());
    send(&client, own).await.unwrap();
    assert_eq!(api.tokens(), ["", "", "", "", "Basic dGVzdDp0ZXN0"]);
    assert_eq!(issuer.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_url_that_http_does_not_know_is_the_clients_error_and_gives_its_permit_back() {
    let ((tokens, _), api) = (issuer(), Api::new(refuses_the_first));
    let mut client = TokenLayer::new(&tokens, origins()).layer(ConcurrencyLimit::new(api.service(), 1));
    let other = client.clone();
    let request = Request::new(Method::GET, "data:text/plain,hi".parse().unwrap());
    let error = Service::<Request>::call(client.ready().await.unwrap(), request)
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_builder());
    // `client` still lives, and holds no permit.
    let sent = tokio::time::timeout(support::HOUR, send(&other, post("a")));
    assert_eq!(sent.await.unwrap().unwrap().status(), StatusCode::OK);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn errors_are_the_clients_own_or_this_crates() {
    let (tokens, _) = issuer();
    let failing = service_fn(|_: Request| async { Err::<reqwest::Response, _>(std::io::Error::other("reset")) });
    let error = send(&TokenLayer::new(&tokens, origins()).layer(failing), post("a"))
        .await
        .unwrap_err();
    assert_eq!(error.downcast_ref::<std::io::Error>().unwrap().to_string(), "reset");

    let (dead, _) = support::issuer_that(|_| Err(tower_token::FetchError::terminal("it is over")));
    let api = Api::new(refuses_the_first);
    let client = TokenLayer::new(&dead, origins()).layer(api.service());
    let error = send(&client, post("a")).await.unwrap_err();
    assert!(Error::find(&*error).unwrap().is_reauth_required());
    assert!(api.tokens().is_empty());
}

// ===== Responses =====

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_handed_on_is_whole_and_says_why() {
    let ((tokens, _), api) = (issuer(), Api::new(|_| page(StatusCode::UNAUTHORIZED, "never")));
    let client = TokenLayer::new(&tokens, origins()).replay(Never).layer(api.service());
    assert_is_whole(
        send(&client, post("a")).await.unwrap(),
        StatusCode::UNAUTHORIZED,
        "never",
    )
    .await;

    let (failing, _) = support::issuer_that(|nth| match nth {
        1 => Ok(()),
        _ => Err(tower_token::FetchError::terminal("it is over")),
    });
    let client = TokenLayer::new(&failing, origins()).layer(api.service());
    let response = send(&client, post("a")).await.unwrap();
    assert!(response.extensions().get::<Error>().unwrap().is_reauth_required());
    assert_is_whole(response, StatusCode::UNAUTHORIZED, "never").await;
}

/// reqwest follows redirects, and takes the token off on the way to another host.
#[tokio::test(start_paused = true)]
async fn a_401_of_another_host_that_a_redirect_has_led_to_is_no_refusal() {
    let strayed = |_: &str| {
        let url = Url::parse("https://storage.example.net/signed").unwrap();
        let response = Response::builder().status(StatusCode::UNAUTHORIZED).url(url);
        response.body("your signature is over").unwrap()
    };
    let ((tokens, issuer), api) = (issuer(), Api::new(strayed));
    let client = TokenLayer::new(&tokens, origins()).layer(api.service());
    let response = send(&client, post("a")).await.unwrap();
    assert_eq!(response.url().as_str(), "https://storage.example.net/signed");
    assert_eq!(response.text().await.unwrap(), "your signature is over");
    assert_eq!((api.tokens().len(), issuer.fetches()), (1, 1));
}

/// That it is listed too does not bring the token there: reqwest takes it off wherever host, port or scheme change.
#[tokio::test(start_paused = true)]
async fn nor_is_a_401_of_another_listed_host_that_a_redirect_has_led_to() {
    let strayed = |_: &str| {
        let url = Url::parse("https://files.example.com/signed").unwrap();
        let response = Response::builder().status(StatusCode::UNAUTHORIZED).url(url);
        response.body("your signature is over").unwrap()
    };
    for origins in [
        origins().and("https://files.example.com").unwrap(),
        Origins::any_https(),
    ] {
        let ((tokens, issuer), api) = (issuer(), Api::new(strayed));
        let client = TokenLayer::new(&tokens, origins).layer(api.service());
        let response = send(&client, post("a")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!((api.tokens().len(), issuer.fetches()), (1, 1));
    }
    // Where it was sent to it is one.
    let ((tokens, issuer), api) = (issuer(), Api::new(|_| page(StatusCode::UNAUTHORIZED, "never")));
    let client = TokenLayer::new(&tokens, Origins::any_https()).layer(api.service());
    send(&client, post("a")).await.unwrap();
    assert_eq!((api.tokens().len(), issuer.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_code_in_the_body_is_a_refusal_and_any_other_is_handed_on_whole() {
    fn answer(token: &str) -> Response<&'static str> {
        match token {
            "Bearer test-1" => page(StatusCode::FORBIDDEN, r#"{"code":"InvalidToken"}"#),
            _ => page(StatusCode::FORBIDDEN, r#"{"code":"NoPermission"}"#),
        }
    }
    let ((tokens, issuer), api) = (issuer(), Api::new(answer));
    let refused = BodyCode::new(StatusCode::FORBIDDEN, "/code", ["InvalidToken"]).unwrap();
    let client = TokenLayer::new(&tokens, origins())
        .classify(refused)
        .layer(api.service());
    let response = send(&client, post("a")).await.unwrap();
    assert_eq!(api.tokens(), ["Bearer test-1", "Bearer test-2"]);
    assert_is_whole(response, StatusCode::FORBIDDEN, r#"{"code":"NoPermission"}"#).await;
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_inspected_passes_a_classifier_of_bodies_as_it_came() {
    let ((tokens, _), api) = (issuer(), Api::new(|_| page(StatusCode::OK, "welcome")));
    let refused = BodyCode::new(StatusCode::FORBIDDEN, "/code", ["InvalidToken"]).unwrap();
    let client = TokenLayer::new(&tokens, origins())
        .classify(refused)
        .layer(api.service());
    assert_is_whole(send(&client, post("a")).await.unwrap(), StatusCode::OK, "welcome").await;
}

/// A gateway's 599 in the words of everybody else.
#[derive(Clone)]
struct Renaming;

impl<B> Classify<B> for Renaming {
    type Body = B;
    type Inspecting = std::future::Ready<(Verdict, B)>;

    fn head(&self, _: &http::response::Parts) -> Verdict {
        Verdict::Undecided
    }

    fn pass(&self, mut response: Response<B>) -> Response<B> {
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }

    fn inspect(&self, _: &http::response::Parts, body: B, _: usize, _: Report) -> Self::Inspecting {
        std::future::ready((Verdict::Undecided, body))
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_status_a_classifier_has_changed_is_whole_but_for_that() {
    let answer = |_: &str| page(StatusCode::from_u16(599).unwrap(), "down");
    let ((tokens, _), api) = (issuer(), Api::new(answer));
    let client = TokenLayer::new(&tokens, origins())
        .classify(Renaming)
        .layer(api.service());
    assert_is_whole(send(&client, post("a")).await.unwrap(), StatusCode::BAD_GATEWAY, "down").await;
}

#[tokio::test(start_paused = true)]
async fn a_status_of_ones_own_and_a_closure_are_refusals() {
    fn answer(token: &str) -> Response<&'static str> {
        match token {
            "Bearer test-1" => page(StatusCode::from_u16(419).unwrap(), "no"),
            _ => page(StatusCode::OK, "welcome"),
        }
    }
    let ((tokens, _), api) = (issuer(), Api::new(answer));
    let status = StatusIn::new([StatusCode::from_u16(419).unwrap()]);
    let client = TokenLayer::new(&tokens, origins())
        .classify(status)
        .layer(api.service());
    assert_is_whole(send(&client, post("a")).await.unwrap(), StatusCode::OK, "welcome").await;

    let ((tokens, _), api) = (support::issuer(), Api::new(answer));
    let closure = classify_fn(|head| match head.status.as_u16() {
        419 => Verdict::Refuse(tower_token::Challenge::none()),
        _ => Verdict::Accept,
    });
    let client = TokenLayer::new(&tokens, origins())
        .classify(closure)
        .layer(api.service());
    assert_is_whole(send(&client, post("a")).await.unwrap(), StatusCode::OK, "welcome").await;
}

/// Whoever hands an answer on by `is_end_stream`, as hyper's server does, would drop them.
#[tokio::test]
async fn an_answer_without_data_is_not_over_before_its_trailers() {
    let api = service_fn(|_: Request| async {
        let trailers = HeaderMap::from_iter([("x-end".parse().unwrap(), HeaderValue::from_static("a"))]);
        let body = Empty::<Bytes>::new().with_trailers(async { Some(Ok(trailers)) });
        Ok::<_, BoxError>(reqwest::Response::from(Response::new(Body::wrap(body))))
    });
    let request = http::Request::get(URL).body(Body::default()).unwrap();
    let answer = Http::new(api).oneshot(request).await.unwrap();
    assert!(!answer.body().is_end_stream());
    assert_eq!(
        answer.into_body().collect().await.unwrap().trailers().unwrap()["x-end"],
        "a"
    );
}

/// The client's error prints the URL that the layer made, with the token in it.
#[tokio::test]
async fn a_clients_error_does_not_print_the_token_that_is_in_the_query() {
    let (tokens, _) = at_once();
    let nobody = "http://127.0.0.1:1";
    let layer = TokenLayer::new(&tokens, Origins::only(nobody).unwrap()).inject(Query::new("access_token"));
    let request = Request::new(Method::GET, format!("{nobody}/path?a=b").parse().unwrap());
    let error = send(&layer.layer(Client::builder().no_proxy().build().unwrap()), request)
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_connect());
    assert!(error.to_string().contains(&format!("{nobody}/path")), "{error}");
    assert!(!format!("{error} {error:?}").contains("test-0"), "{error:?}");

    // Nor through the adapter, with a layer above that knows nothing of reqwest.
    let request = http::Request::get(format!("{nobody}/path?a=b"));
    let service = layer.layer(Http::new(Client::builder().no_proxy().build().unwrap()));
    let error = service
        .oneshot(request.body(Body::default()).unwrap())
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&format!("{nobody}/path")), "{error}");
    assert!(!format!("{error} {error:?}").contains("test-0"), "{error:?}");
}

// ===== Composition =====

#[tokio::test(start_paused = true)]
async fn it_composes_with_towers_own_layers() {
    let ((tokens, issuer), api) = (issuer(), Api::new(refuses_the_first));
    let client = ServiceBuilder::new()
        .buffer(8)
        .concurrency_limit(4)
        .layer(TokenLayer::new(&tokens, origins()))
        .concurrency_limit(1)
        .timeout(Duration::from_secs(5))
        .service(api.service());
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(client.clone().oneshot(post("a"))))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn the_types_can_be_named_cloned_and_sent() {
    struct App {
        _named: TokenService<Client>,
        _boxed: BoxCloneSyncService<Request, reqwest::Response, BoxError>,
    }
    fn is_fit<T: Clone + Send + Sync + 'static>(_: &T) {}
    let tokens = Tokens::new(tower_token::Fixed::new("test")).unwrap();
    let named = TokenLayer::new(&tokens, origins()).layer(Client::new());
    is_fit(&named);
    let app = App {
        _boxed: BoxCloneSyncService::new(named.clone()),
        _named: named,
    };
    let spawned = async move {
        let mut client = app._named;
        let response = client.ready().await?.call(post("a")).await?;
        Ok::<_, BoxError>(response.status())
    };
    fn is_send<F: Future + Send>(_: F) {}
    is_send(spawned);
}

#[test]
fn bytes_are_kept_without_a_copy() {
    let bytes = Bytes::from(vec![7; 1000]);
    let (sent, kept) = tower_token::Auto.prepare(Body::from(bytes.clone()));
    let again = tower_token::Auto.replay(kept.unwrap()).unwrap();
    for body in [sent, again] {
        assert_eq!(body.as_bytes().unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(body.as_bytes().unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_fresh_call_allocates_for_the_url_in_its_two_forms_and_for_nothing_else() {
    let (tokens, _) = at_once();
    tokens.get().await.unwrap();
    let ready = service_fn(|_: Request| {
        let page = Body::wrap(Full::new(Bytes::new()));
        std::future::ready(Ok::<_, BoxError>(reqwest::Response::from(Response::new(page))))
    });
    fn allocations<S>(client: &mut S, request: impl Fn() -> Request) -> u64
    where
        S: Service<Request, Response = reqwest::Response, Error = BoxError>,
    {
        let mut call = || {
            let request = request();
            let call = || drop(client.call(request).now_or_never().unwrap().unwrap());
            measure(call).count_total
        };
        // The first makes the snapshot of this thread's lane, and remembers it.
        (0..4).map(|_| call()).min().unwrap()
    }
    let with_a_header = || {
        let mut request = post("a");
        request.headers_mut().insert("x-own", "a".parse().unwrap());
        request
    };
    let without = allocations(&mut ready.clone(), with_a_header);
    let with = allocations(&mut TokenLayer::new(&tokens, origins()).layer(ready), with_a_header);
    assert!(with - without <= 6, "{}", with - without);
}

// ===== On the wire =====

#[cfg(all(feature = "oauth2", feature = "testkit"))]
#[tokio::test]
async fn a_client_lives_through_an_expiry_and_a_revocation_and_fetches_its_tokens_with_reqwest() {
    use tower_token::oauth2::RefreshTokenGrant;
    use tower_token::testkit;

    let issuer = testkit::Issuer::new();
    let api = testkit::Api::new(&issuer);
    let (login, at) = (issuer.serve().await.unwrap(), api.serve().await.unwrap());
    let grant = RefreshTokenGrant::new(format!("{}/token", login.url()), issuer.client_id())
        .client_secret(issuer.client_secret())
        .refresh_token(issuer.sign_in())
        .client(Http::new(Client::new()));
    let tokens = Tokens::new(grant).unwrap();
    let client = Client::new();
    let layer = TokenLayer::new(&tokens, Origins::only(at.url()).unwrap());
    let service = layer.layer(client.clone());
    for round in 1..=3 {
        for _ in 0..10 {
            let request = client
                .post(format!("{}/api/orders", at.url()))
                .body("an order")
                .build()
                .unwrap();
            let response = send(&service, request).await.unwrap().error_for_status().unwrap();
            assert_eq!(response.url().path(), "/api/orders");
            response.bytes().await.unwrap();
        }
        assert_eq!(issuer.counts().token_requests, round);
        issuer.revoke_access();
    }
    assert_eq!((api.counts().authorized, issuer.counts().presented_twice), (30, 0));
}
