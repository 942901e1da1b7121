//! The layer composes: with boxes and options, with itself, with hyper's clients, and with classifiers and replay
//! strategies that change the body types. What difference the order of layers makes is told in `layer_order.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderName, Request, Response, StatusCode, response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tower::buffer::{Buffer, BufferLayer};
use tower::util::{BoxCloneService, BoxCloneSyncService, BoxCloneSyncServiceLayer, BoxService, option_layer};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_token::{
    Authorization, Auto, Challenge, Classify, CloneBody, Cookie, Error, Event, Get, HandedBack, Header, Inject,
    Methods, Never, NoToken, Observe, Origins, Query, Replay, Report, ResponseFuture, StatusIn, Token, TokenLayer,
    TokenService, Tokens, Unauthorized, Verdict, provider_fn,
};

use support::{
    Api, Page, SECOND, assert_replays_through, bearer, bearer_of, get, issuer, issuer_that, nth, origins, page, post,
    refusal, send,
};

// ===== tower's middleware =====

#[tokio::test(start_paused = true)]
async fn in_a_service_builder() {
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, origins()))
        .service(api.clone());
    assert_replays_through(client, &api).await;
}

#[tokio::test(start_paused = true)]
async fn in_boxes_that_are_clone() {
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let client = BoxCloneSyncService::new(layer.layer(BoxCloneSyncService::new(api.clone())));
    assert_replays_through(client, &api).await;

    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let client = BoxCloneService::new(layer.layer(BoxCloneService::new(api.clone())));
    assert_replays_through(client, &api).await;
}

#[tokio::test(start_paused = true)]
async fn as_a_boxed_layer() {
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = BoxCloneSyncServiceLayer::new(TokenLayer::new(&tokens, origins()));
    assert_replays_through(layer.layer(api.clone()), &api).await;
}

#[tokio::test(start_paused = true)]
async fn over_a_box_that_is_not_clone_with_a_buffer_between() {
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, origins()))
        .layer(BufferLayer::new(4))
        .service(BoxService::new(api.clone()));
    assert_replays_through(client, &api).await;
}

#[tokio::test(start_paused = true)]
async fn optionally() {
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = Some(TokenLayer::new(&tokens, origins()));
    assert_replays_through(option_layer(layer).layer(api.clone()), &api).await;
    let none: Option<TokenLayer> = None;
    send(&option_layer(none).layer(api.clone()), get()).await.unwrap();
    assert_eq!(api.tokens()[2..], ["-"]);
}

// ===== Two layers =====

#[tokio::test(start_paused = true)]
async fn twice_with_two_tokens_each_presented_in_its_own_place() {
    let ((user, users), (app, apps)) = (issuer(), issuer());
    let key = HeaderName::from_static("x-app-key");
    // Both first tokens are over.
    let api = Api::answering(|_, head| match (bearer(head), head.headers.get("x-app-key")) {
        (Some("test-1"), _) => refusal(),
        (_, Some(key)) if key == "test-1" => refusal(),
        _ => page("welcome"),
    });
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&user, origins()))
        .layer(TokenLayer::new(&app, origins()).inject(Header::new(key.clone())))
        .service(api.clone());
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
    let sent = api.each(|request| {
        (
            bearer_of(request.headers()).unwrap().to_owned(),
            request.headers()[&key].clone(),
        )
    });
    let sent: Vec<_> = sent
        .iter()
        .map(|(user, app)| (user.as_str(), app.to_str().unwrap()))
        .collect();
    // The inner layer answers first; that does not help, so the outer one does.
    assert_eq!(sent, [("test-1", "test-1"), ("test-1", "test-2"), ("test-2", "test-2")]);
    assert_eq!((users.fetches(), apps.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn twice_in_the_same_place_the_outer_token_goes_out() {
    let ((outer, outers), (inner, inners)) = (issuer(), issuer());
    let api = Api::refusing(["test-1"]);
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&outer, origins()))
        .layer(TokenLayer::new(&inner, origins()))
        .service(api.clone());
    assert_replays_through(client, &api).await;
    assert_eq!((outers.fetches(), inners.fetches()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn one_handle_behind_two_layers_is_renewed_once() {
    let (tokens, issuer) = issuer();
    let (one, other) = (Api::refusing(["test-1"]), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let (first, second) = (layer.layer(one.clone()), layer.layer(other.clone()));
    let (a, b) = tokio::join!(send(&first, get()), send(&second, get()));
    assert_eq!(
        (a.unwrap().status(), b.unwrap().status()),
        (StatusCode::OK, StatusCode::OK)
    );
    assert_eq!(issuer.fetches(), 2);
}

// ===== Bodies of other types =====

/// Looks into the body of every 200, a second long: `{"error":"expired"}` is a refusal. Hands on [`Judged`] bodies.
#[derive(Clone, Default)]
struct ByBody {
    looked: Arc<AtomicUsize>,
}

/// A response body that says whether it was looked into.
#[derive(Debug, PartialEq)]
struct Judged {
    page: Page,
    limit: Option<usize>,
}

impl Classify<Page> for ByBody {
    type Body = Judged;
    type Inspecting = Looking;

    fn head(&self, head: &response::Parts) -> Verdict {
        match head.status {
            StatusCode::OK => Verdict::Inspect(16),
            StatusCode::UNAUTHORIZED => Verdict::Refuse(Challenge::none()),
            _ => Verdict::Accept,
        }
    }

    fn pass(&self, response: Response<Page>) -> Response<Judged> {
        response.map(|page| Judged { page, limit: None })
    }

    fn inspect(&self, head: &response::Parts, page: Page, limit: usize, _: Report) -> Looking {
        assert_eq!(head.status, StatusCode::OK);
        self.looked.fetch_add(1, Ordering::SeqCst);
        Looking {
            // Not Unpin, as most futures are.
            slowly: sleep(SECOND),
            page: Some(page),
            limit,
        }
    }
}

pin_project_lite::pin_project! {
    struct Looking {
        #[pin]
        slowly: Sleep,
        page: Option<Page>,
        limit: usize,
    }
}

impl Future for Looking {
    type Output = (Verdict, Judged);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        ready!(this.slowly.poll(cx));
        let page = this.page.take().unwrap();
        let verdict = match &*page {
            "expired" => Verdict::Refuse(Challenge::none()),
            // Here it counts as `Accept`.
            _ => Verdict::Inspect(1),
        };
        let judged = Judged {
            page,
            limit: Some(*this.limit),
        };
        Poll::Ready((verdict, judged))
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_stands_in_the_body_is_answered_like_any_other() {
    let (tokens, issuer) = issuer();
    let (api, classify) = (
        Api::answering(|nth, _| page(if nth == 1 { "expired" } else { "welcome" })),
        ByBody::default(),
    );
    let client = TokenLayer::new(&tokens, origins())
        .classify(classify.clone())
        .layer(api.clone());
    let response = send(&client, get()).await.unwrap();
    assert_eq!(
        *response.body(),
        Judged {
            page: "welcome".into(),
            limit: Some(16)
        }
    );
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
    assert_eq!((classify.looked.load(Ordering::SeqCst), issuer.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_second_refusal_in_the_body_is_handed_back_whole() {
    let ((tokens, issuer), classify) = (issuer(), ByBody::default());
    let expired: Page = "expired".into();
    let served = expired.clone();
    let api = Api::answering(move |_, _| Response::builder().header("x-a", "1").body(served.clone()).unwrap());
    let client = TokenLayer::new(&tokens, origins())
        .classify(classify)
        .layer(api.clone());
    let response = send(&client, get()).await.unwrap();
    assert_eq!((response.status(), nth(&response)), (StatusCode::OK, 2));
    assert!(Arc::ptr_eq(&response.body().page, &expired) && response.headers()["x-a"] == "1");
    assert_eq!(issuer.handed_back(), [HandedBack::RefusedAgain]);
    assert_eq!(api.deliveries(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_head_and_one_in_the_body_count_together() {
    let ((tokens, _), classify) = (issuer(), ByBody::default());
    let api = Api::answering(|nth, _| if nth == 1 { refusal() } else { page("expired") });
    let client = TokenLayer::new(&tokens, origins())
        .classify(classify)
        .layer(api.clone());
    let response = send(&client, get()).await.unwrap();
    assert_eq!((response.status(), api.deliveries()), (StatusCode::OK, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_looked_into_has_the_same_body_type() {
    let ((tokens, issuer), classify) = (
        issuer_that(|nth| match nth {
            1 => Ok(()),
            _ => Err(tower_token::FetchError::terminal("over")),
        }),
        ByBody::default(),
    );
    let api = Api::answering(|nth, _| match nth {
        1 => Response::builder().status(500).body("trouble".into()).unwrap(),
        2 => page("expired"),
        _ => refusal(),
    });
    let client = TokenLayer::new(&tokens, origins())
        .classify(classify.clone())
        .layer(api.clone());
    // Accepted by its head; without a token; refused by its head and not renewed.
    let response = send(&client, get()).await.unwrap();
    assert_eq!(
        *response.body(),
        Judged {
            page: "trouble".into(),
            limit: None
        }
    );
    let mut without = get();
    without.extensions_mut().insert(NoToken);
    let response = send(&client, without).await.unwrap();
    assert_eq!(
        *response.body(),
        Judged {
            page: "expired".into(),
            limit: None
        }
    );
    let response = send(&client, get()).await.unwrap();
    assert_eq!(
        *response.body(),
        Judged {
            page: "the token is over".into(),
            limit: None
        }
    );
    assert_eq!((classify.looked.load(Ordering::SeqCst), issuer.fetches()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_leave_while_the_body_is_looked_into() {
    let ((tokens, _), classify) = (issuer(), ByBody::default());
    let api = Api::answering(|_, _| page("welcome"));
    let limit = tower::limit::ConcurrencyLimit::new(api.clone(), 1);
    let client = TokenLayer::new(&tokens, origins()).classify(classify).layer(limit);
    tokens.get().await.unwrap();
    let left = tokio::time::timeout(SECOND / 2, send(&client, get())).await;
    assert!(left.is_err());
    send(&client, get()).await.unwrap();
}

/// Wraps every body, and keeps those of at most four bytes.
#[derive(Clone)]
struct Wrapping;

#[derive(Clone, Debug, PartialEq)]
enum Wrapped<B> {
    Passed(B),
    First(B),
    Second(B),
}

impl Replay<String> for Wrapping {
    type Body = Wrapped<String>;
    type Saved = String;

    fn keeps(&self, request: &Request<String>) -> bool {
        !request.headers().contains_key("x-once")
    }

    fn pass(&self, request: Request<String>) -> Request<Wrapped<String>> {
        request.map(Wrapped::Passed)
    }

    fn prepare(&self, body: String) -> (Wrapped<String>, Option<String>) {
        let saved = (body.len() <= 4).then(|| body.clone());
        (Wrapped::First(body), saved)
    }

    /// `late` is found out only now.
    fn replay(&self, saved: String) -> Option<Wrapped<String>> {
        (saved != "late").then_some(Wrapped::Second(saved))
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_strategy_may_wrap_the_request_body() {
    let refused = |_: usize, head: &_| match bearer(head) {
        Some("test-1") => refusal(),
        _ => page("welcome"),
    };
    for (body, sent, handed_back) in [
        ("kept", vec![Wrapped::First("kept"), Wrapped::Second("kept")], None),
        ("too long", vec![Wrapped::First("too long")], Some(HandedBack::NotKept)),
        ("late", vec![Wrapped::First("late")], Some(HandedBack::NotKept)),
        ("once", vec![Wrapped::Passed("once")], Some(HandedBack::NotKept)),
        ("free", vec![Wrapped::Passed("free")], None),
    ] {
        let (tokens, issuer) = issuer();
        let api = Api::answering(refused);
        let client = TokenLayer::new(&tokens, origins()).replay(Wrapping).layer(api.clone());
        let mut request = post(body.to_owned());
        match body {
            "once" => _ = request.headers_mut().insert("x-once", "1".parse().unwrap()),
            "free" => _ = request.extensions_mut().insert(NoToken),
            _ => {}
        }
        let status = send(&client, request).await.unwrap().status();
        assert_eq!(status == StatusCode::UNAUTHORIZED, handed_back.is_some(), "{body}");
        let owned = |wrapped: &Wrapped<&str>| match *wrapped {
            Wrapped::Passed(body) => Wrapped::Passed(body.to_owned()),
            Wrapped::First(body) => Wrapped::First(body.to_owned()),
            Wrapped::Second(body) => Wrapped::Second(body.to_owned()),
        };
        assert_eq!(
            api.each(|request| request.body().clone()),
            sent.iter().map(owned).collect::<Vec<_>>()
        );
        assert_eq!(
            issuer.handed_back(),
            handed_back.into_iter().collect::<Vec<_>>(),
            "{body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_body_waits_for_its_token_too_and_methods_apply() {
    let (tokens, _) = issuer();
    let api = Api::<Wrapped<String>>::refusing(["test-1"]);
    let layer = TokenLayer::new(&tokens, origins())
        .replay(Wrapping)
        .methods([http::Method::GET]);
    let client = layer.layer(api.clone());
    send(&client, post("post".into())).await.unwrap();
    tokens.refresh().await.unwrap();
    send(&client, get()).await.unwrap();
    assert_eq!(
        api.each(|request| request.body().clone()),
        [Wrapped::Passed("post".into()), Wrapped::First(String::new())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_need_be_no_http_body() {
    struct NotEvenClone;
    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).replay(CloneBody).layer(api.clone());
    send(&client, post(Bytes::from("bytes"))).await.unwrap();
    assert_eq!(api.each(|request| request.body().clone()), ["bytes", "bytes"]);
    let api = Api::refusing([]);
    let client = TokenLayer::new(&tokens, origins()).replay(Never).layer(api.clone());
    send(&client, post(NotEvenClone)).await.unwrap();
    assert_eq!(api.deliveries(), 1);
}

// ===== Clients that are bound to one peer =====

#[tokio::test(start_paused = true)]
async fn a_bare_path_goes_to_the_connected_peer_unless_a_host_is_named() {
    let (tokens, _) = issuer();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, Origins::connected_peer()).layer(api.clone());
    let path = || Request::get("/me").body(String::new()).unwrap();
    assert_eq!(send(&client, path()).await.unwrap().status(), StatusCode::OK);
    let mut named = path();
    named.headers_mut().insert(HOST, "api.example.com".parse().unwrap());
    send(&client, named).await.unwrap();
    send(&client, get()).await.unwrap();
    assert_eq!(api.tokens(), ["test-1", "test-2", "-", "-"]);

    let known = Origins::connected_peer().and("https://api.example.com").unwrap();
    let client = TokenLayer::new(&tokens, known).layer(api.clone());
    for host in [
        "api.example.com",
        "API.example.com:443",
        "evil.example.com",
        "api.example.com.evil",
    ] {
        let mut named = path();
        named.headers_mut().insert(HOST, host.parse().unwrap());
        send(&client, named).await.unwrap();
    }
    let mut both = path();
    both.headers_mut().append(HOST, "api.example.com".parse().unwrap());
    both.headers_mut().append(HOST, "evil.example.com".parse().unwrap());
    send(&client, both).await.unwrap();
    assert_eq!(api.tokens()[4..], ["test-2", "test-2", "-", "-", "-"]);
}

// ===== hyper =====

/// An HTTP/1 server on loopback that refuses `test-1`, and says the token and the body it got.
async fn loopback() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let answer = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let token = bearer_of(request.headers()).unwrap_or("-").to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let said = [token.as_bytes(), b" ", &body].concat();
                let status = if token == "test-1" { 401 } else { 200 };
                let response = Response::builder().status(status);
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from(said))).unwrap())
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
            tokio::spawn(connection);
        }
    });
    address
}

/// Tokens that are minted at once: with a socket, time is real.
fn prompt() -> Tokens {
    let minted = AtomicUsize::new(0);
    let provider = provider_fn(move |_| {
        let nth = minted.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok(support::minted(nth)) }
    });
    Tokens::new(provider).unwrap()
}

async fn said(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn over_hypers_pooling_client() {
    let address = loopback().await;
    let origins = Origins::only(&format!("http://{address}")).unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let client = TokenLayer::new(&prompt(), origins).layer(client);
    let request = || {
        Request::post(format!("http://{address}/me"))
            .body(Full::new(Bytes::from("hello")))
            .unwrap()
    };
    assert_eq!(
        said(send(&client, request()).await.unwrap()).await,
        (200, "test-2 hello".into())
    );
    assert_eq!(
        said(send(&client, request()).await.unwrap()).await,
        (200, "test-2 hello".into())
    );
}

#[tokio::test]
async fn over_one_connection_that_is_not_clone() {
    let socket = TcpStream::connect(loopback().await).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&prompt(), Origins::connected_peer()))
        .layer(BufferLayer::new(4))
        .service(Connection(sender));
    let request = Request::get("/me").body(Empty::new()).unwrap();
    let response = tokio::time::timeout(60 * SECOND, send(&client, request)).await.unwrap();
    assert_eq!(said(response.unwrap()).await, (200, "test-2 ".into()));
}

struct Connection(hyper::client::conn::http1::SendRequest<Empty<Bytes>>);

impl Service<Request<Empty<Bytes>>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Empty<Bytes>>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[tokio::test(start_paused = true)]
async fn as_a_service_of_hyper() {
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    let hyper = TowerToHyperService::new(client);
    let response = hyper::service::Service::call(&hyper, get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
}

// ===== What the types promise =====

/// Named in a struct, defaults and all.
#[derive(Clone)]
struct App {
    api: TokenService<Api>,
    spelled: TokenService<Api<Wrapped<String>>, Methods<Wrapping>, ByBody, Header>,
    layer: TokenLayer<Never, StatusIn, Query>,
    tokens: Tokens,
}

/// What is on its way, named.
struct Calls {
    call: ResponseFuture<Api, Auto, Unauthorized, Authorization, String, Page>,
    wait: Get,
}

#[tokio::test(start_paused = true)]
async fn every_type_can_be_named() {
    let (tokens, _) = issuer();
    let layer = TokenLayer::new(&tokens, origins());
    let spelled = layer.clone().replay(Wrapping).methods([]).classify(ByBody::default());
    let mut app = App {
        api: layer.layer(Api::refusing([])),
        spelled: spelled
            .inject(Header::new(AUTHORIZATION).prefix("Bearer "))
            .layer(Api::refusing([])),
        layer: layer.replay(Never).classify(StatusIn::new([])).inject(Query::new("t")),
        tokens,
    }
    .clone();
    let calls = Calls {
        call: app.api.ready().await.unwrap().call(get()),
        wait: app.tokens.get(),
    };
    assert_eq!(calls.call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(calls.wait.await.unwrap().secret(), "test-1");
    assert_eq!(
        *send(&app.spelled, get()).await.unwrap().body(),
        Judged {
            page: "welcome".into(),
            limit: Some(16)
        }
    );
    send(&app.layer.layer(Api::refusing([])), get()).await.unwrap();
}

#[test]
fn handles_are_clone_send_sync_and_static_and_futures_are_send() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    fn unpin<T: Unpin>() {}

    shared::<TokenLayer>();
    shared::<TokenLayer<Wrapping, ByBody, Query>>();
    shared::<TokenLayer<Methods<CloneBody>, StatusIn, Cookie>>();
    shared::<TokenService<Api>>();
    shared::<TokenService<BoxCloneSyncService<Request<String>, Response<Page>, BoxError>, Never, ByBody, Cookie>>();
    shared::<TokenService<Buffer<Request<String>, <Api as Service<Request<String>>>::Future>>>();
    shared::<TokenService<Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>>>();
    shared::<(Tokens, Error, Token, Origins, Event)>();
    // The inner service need not be Sync, nor the body.
    sent::<TokenService<BoxCloneService<Request<String>, Response<Page>, BoxError>>>();
    sent::<ResponseFuture<Api, Auto, Unauthorized, Authorization, String, Page>>();
    sent::<ResponseFuture<Api<Wrapped<String>>, Wrapping, ByBody, Query, String, Page>>();
    type NotSync = std::cell::Cell<u8>;
    sent::<ResponseFuture<Api<NotSync>, Never, Unauthorized, Cookie, NotSync, Page>>();
    sent::<
        ResponseFuture<
            BoxCloneService<Request<String>, Response<Page>, BoxError>,
            Auto,
            Unauthorized,
            Authorization,
            String,
            Page,
        >,
    >();
    sent::<Get>();
    unpin::<(Get, TokenService<Api>, TokenLayer)>();
}

#[test]
fn traits_of_decisions_are_object_safe() {
    let _: Option<Box<dyn Observe>> = None;
    let _: Option<Box<dyn Inject<Ready = ()>>> = None;
    let _: Option<Box<dyn Replay<String, Body = String, Saved = String>>> = None;
    let _: Option<Box<dyn Classify<Page, Body = Page, Inspecting = Looking>>> = None;
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_can_be_had() {
    let (tokens, _) = issuer();
    let api = Api::refusing([]);
    let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    send(&client, get()).await.unwrap();
    assert_eq!(client.get_ref().deliveries(), 1);
    assert_eq!(client.into_inner().deliveries(), 1);
}
