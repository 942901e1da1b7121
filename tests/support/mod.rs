//! What the flows are told with: an issuer that counts, and an API that answers by rule.

// Each test file uses its own part of it.
#![allow(dead_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode, request};
use tokio::time::{sleep, timeout};
use tower::{BoxError, Service, ServiceExt};
use tower_token::{
    Event, FetchContext, FetchError, HandedBack, Observe, Origins, ProviderFn, Token, Tokens, provider_fn,
};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

// ===== The issuer =====

/// Counts what is fetched, and why refusals were handed back.
#[derive(Default)]
pub(crate) struct Issuer {
    fetches: AtomicUsize,
    handed_back: Mutex<Vec<HandedBack>>,
}

/// Mints `test-1`, `test-2`, ... in a second each, every one for an hour.
pub(crate) fn issuer() -> (Tokens, Arc<Issuer>) {
    issuer_that(|_| Ok(()))
}

/// The same, but the `n`th fetch may fail.
pub(crate) fn issuer_that(
    answers: impl Fn(usize) -> Result<(), FetchError> + Send + Sync + 'static,
) -> (Tokens, Arc<Issuer>) {
    let issuer = Arc::new(Issuer::default());
    let (counted, told) = (issuer.clone(), issuer.clone());
    let answers = Arc::new(answers);
    let tokens = observed(
        provider_fn(move |_: FetchContext| {
            let nth = counted.fetches.fetch_add(1, Ordering::SeqCst) + 1;
            let answers = answers.clone();
            async move {
                sleep(SECOND).await;
                answers(nth).map(|()| minted(nth))
            }
        }),
        told,
    );
    (tokens, issuer)
}

/// Mints `test-0`, `test-1`, ... at once, every one for a day, and counts them.
pub(crate) fn at_once() -> (Tokens, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counter = fetches.clone();
    let tokens = Tokens::new(provider_fn(move |_| {
        let nth = counter.fetch_add(1, Ordering::SeqCst);
        async move { Ok(Token::bearer(format!("test-{nth}")).expires_in(24 * HOUR)) }
    }));
    (tokens.unwrap(), fetches)
}

fn observed<F, Fut>(provider: ProviderFn<F>, issuer: Arc<Issuer>) -> Tokens
where
    F: Fn(FetchContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, FetchError>> + Send,
{
    Tokens::builder(provider).observe(Told(issuer)).build().unwrap()
}

/// `test-<nth>`, for an hour.
pub(crate) fn minted(nth: usize) -> Token {
    Token::bearer(format!("test-{nth}")).expires_in(HOUR)
}

struct Told(Arc<Issuer>);

impl Observe for Told {
    fn observe(&self, event: &Event) {
        if let Event::HandedBack { reason, .. } = event {
            self.0.handed_back.lock().unwrap().push(*reason);
        }
    }
}

impl Issuer {
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    pub(crate) fn handed_back(&self) -> Vec<HandedBack> {
        self.handed_back.lock().unwrap().clone()
    }
}

// ===== The API =====

/// A response body that is told from its copies by [`Arc::ptr_eq`].
pub(crate) type Page = Arc<str>;

/// Answers by rule, and keeps every request. It is strict: a clone of it is not ready, being ready
/// takes two polls, and it panics if it is called without.
pub(crate) struct Api<B = String> {
    shared: Arc<Shared<B>>,
    polls: u8,
}

type Rule = dyn Fn(usize, &request::Parts) -> Response<Page> + Send + Sync;

struct Shared<B> {
    seen: Mutex<Vec<Request<B>>>,
    rule: Box<Rule>,
    takes: Duration,
}

impl<B> Api<B> {
    /// Answers the `n`th request, counted from 1, by rule.
    pub(crate) fn answering(rule: impl Fn(usize, &request::Parts) -> Response<Page> + Send + Sync + 'static) -> Self {
        Self::taking(Duration::ZERO, rule)
    }

    /// The same, but every answer takes so long.
    pub(crate) fn taking(
        takes: Duration,
        rule: impl Fn(usize, &request::Parts) -> Response<Page> + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            seen: Mutex::default(),
            rule: Box::new(rule),
            takes,
        };
        Self {
            shared: Arc::new(shared),
            polls: 0,
        }
    }

    /// Refuses these tokens, and accepts every other request.
    pub(crate) fn refusing<const N: usize>(tokens: [&'static str; N]) -> Self {
        Self::answering(move |_, head| match bearer(head) {
            Some(token) if tokens.contains(&token) => refusal(),
            _ => page("welcome"),
        })
    }

    pub(crate) fn deliveries(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The token of each request, `-` for one without.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.each(|request| bearer_of(request.headers()).unwrap_or("-").to_owned())
    }

    pub(crate) fn each<T>(&self, look: impl FnMut(&Request<B>) -> T) -> Vec<T> {
        self.shared.seen.lock().unwrap().iter().map(look).collect()
    }
}

impl<B> Clone for Api<B> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            polls: 0,
        }
    }
}

impl<B: Send + 'static> Service<Request<B>> for Api<B> {
    type Response = Response<Page>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Page>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.polls == 0 {
            self.polls = 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.polls = 2;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert_eq!(self.polls, 2, "called without having been polled ready");
        self.polls = 0;
        let shared = self.shared.clone();
        let (head, body) = request.into_parts();
        let (nth, answer) = {
            let mut seen = shared.seen.lock().unwrap();
            let nth = seen.len() + 1;
            let answer = (shared.rule)(nth, &head);
            seen.push(Request::from_parts(head, body));
            (nth, answer)
        };
        Box::pin(async move {
            if !shared.takes.is_zero() {
                sleep(shared.takes).await;
            }
            let mut answer = answer;
            answer.extensions_mut().insert(Nth(nth));
            Ok(answer)
        })
    }
}

/// In a response's extensions: to which request it is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nth(pub(crate) usize);

pub(crate) fn nth<T>(response: &Response<T>) -> usize {
    response.extensions().get::<Nth>().unwrap().0
}

pub(crate) fn page(text: &str) -> Response<Page> {
    Response::new(text.into())
}

/// 401, as RFC 6750 has it.
pub(crate) fn refusal() -> Response<Page> {
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header("www-authenticate", "Bearer error=\"invalid_token\"")
        .body("the token is over".into())
        .unwrap()
}

pub(crate) fn bearer(head: &request::Parts) -> Option<&str> {
    bearer_of(&head.headers)
}

pub(crate) fn bearer_of(headers: &http::HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

// ===== Requests =====

pub(crate) fn origins() -> Origins {
    Origins::only("https://api.example.com").unwrap()
}

/// `GET https://api.example.com/me` without a body.
pub(crate) fn get() -> Request<String> {
    Request::get("https://api.example.com/me").body(String::new()).unwrap()
}

/// A request with this body.
pub(crate) fn post<B>(body: B) -> Request<B> {
    Request::post("https://api.example.com/me").body(body).unwrap()
}

/// Sends through a clone.
pub(crate) async fn send<S, B>(service: &S, request: Request<B>) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>> + Clone,
{
    held(service.clone(), request).await
}

/// Sends through a service that is kept until the answer is there, as programs do: `oneshot` drops its
/// own with the call, and with it whatever the layer forgot to give back.
pub(crate) async fn held<S, B>(mut service: S, request: Request<B>) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>>,
{
    let answer = async { service.ready().await?.call(request).await };
    // With paused time a deadlock would otherwise last for ever, because nothing is left to wait for.
    timeout(24 * HOUR, answer).await.expect("deadlock")
}

/// The first token is refused, the second is not; the caller sees only the end of it.
pub(crate) async fn assert_replays_through<S>(client: S, api: &Api)
where
    S: Service<Request<String>, Response = Response<Page>, Error = BoxError>,
{
    let response = held(client, post("body".into())).await.unwrap();
    assert_eq!((response.status(), nth(&response)), (StatusCode::OK, 2));
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
    assert_eq!(api.each(|request| request.body().clone()), ["body", "body"]);
}

/// Lets every task run until it waits for time.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
