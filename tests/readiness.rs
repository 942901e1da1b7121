//! A service is called only when it is ready, a permit is never held while a token is awaited, and
//! the token request may go through the very stack that waits for it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tower::buffer::Buffer;
use tower::limit::{ConcurrencyLimit, GlobalConcurrencyLimitLayer};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_token::{Error, FetchContext, FetchError, IfLost, NoToken, TokenLayer, Tokens, provider_fn};

use support::{
    Api, Page, SECOND, bearer, get, held, issuer, issuer_that, minted, origins, page, refusal, send, settle,
};

type Client = BoxCloneSyncService<Request<String>, Response<Page>, BoxError>;

// ===== Ready on every attempt =====

// `Api` panics when it is called unready, and none of its clones is ready.

#[tokio::test(start_paused = true)]
async fn every_attempt_finds_a_ready_service() {
    let (tokens, _) = issuer();
    let api = Api::answering(|nth, _| if nth % 2 == 0 { refusal() } else { page("welcome") });
    let mut client = TokenLayer::new(&tokens, origins()).layer(api.clone());
    // Waiting, then fresh and replayed, on one service and on clones of it.
    for _ in 0..20 {
        let response = client.ready().await.unwrap().call(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut readied_before_cloned = client.clone();
        let response = readied_before_cloned.ready().await.unwrap().call(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(api.deliveries(), 79);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "without having been polled ready")]
async fn the_api_of_these_tests_would_notice() {
    let mut client = Api::answering(|_, _| page("welcome"));
    client.ready().await.unwrap();
    let _ = client.clone().call(get()).await;
}

/// `runtime.block_on(api.call(request))`: the argument is made before the runtime is entered.
#[test]
fn a_call_made_outside_of_the_runtime_that_it_is_polled_in_is_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (tokens, issuer) = issuer();
    let api = Api::answering(|nth, _| if nth == 1 { refusal() } else { page("welcome") });
    // One permit, which is given back until there is a token.
    let mut client = TokenLayer::new(&tokens, origins()).layer(ConcurrencyLimit::new(api.clone(), 1));
    for _ in 0..2 {
        runtime.block_on(async { client.ready().await.map(|_| ()) }).unwrap();
        let response = runtime.block_on(client.call(get())).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(
        (api.deliveries(), issuer.fetches()),
        (3, 2),
        "the first was refused once"
    );
}

/// Where there is none at all, the error says so.
#[test]
fn a_call_that_is_polled_outside_of_any_runtime_fails_and_says_why() {
    let (tokens, _) = issuer();
    let mut client = TokenLayer::new(&tokens, origins()).layer(Api::answering(|_, _| page("welcome")));
    let mut call = tokio_test::task::spawn(async move { client.ready().await?.call(get()).await });
    let error = loop {
        if let Poll::Ready(answer) = call.poll() {
            break answer.unwrap_err();
        }
    };
    assert!(error.to_string().contains("inside a tokio runtime"), "{error}");
}

// ===== Permits =====

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_leak_no_permit() {
    const PERMITS: usize = 7;
    // Every fifth fetch fails, so that some calls are denied.
    let (tokens, issuer) = issuer_that(|nth| match nth % 5 {
        0 => Err(FetchError::transient("down")),
        _ => Ok(()),
    });
    // Every five hundredth request is refused, with whatever token.
    let api = Api::taking(Duration::from_millis(3), |nth, _| match nth % 500 {
        0 => refusal(),
        _ => page("welcome"),
    });
    let (permits, limit) = limit(PERMITS);
    let client = TokenLayer::new(&tokens, origins()).layer(limit.layer(api.clone()));
    let (mut answered, mut left, mut failed) = (0, 0, 0);
    let mut calls = Vec::new();
    for number in 0..10_000_u64 {
        let client = client.clone();
        // Some callers leave: while they wait, while they are sent, while they are replayed.
        let patience = match number % 3 {
            0 => Duration::from_millis(number % 29),
            _ => 600 * SECOND,
        };
        calls.push(tokio::spawn(
            async move { timeout(patience, held(client, get())).await },
        ));
        if number % 50 == 0 {
            sleep(Duration::from_millis(170)).await;
        }
        if number % 1_000 == 999 {
            let current = tokens.current();
            current.into_iter().for_each(|token| tokens.invalidate(&token));
        }
    }
    for call in calls {
        match call.await.unwrap() {
            Ok(Ok(_)) => answered += 1,
            Ok(Err(error)) => {
                assert!(Error::find(&*error).is_some_and(Error::is_transient), "{error}");
                failed += 1;
            }
            Err(_) => left += 1,
        }
    }
    assert_eq!(permits.available_permits(), PERMITS);
    assert!(
        answered > 5_000 && left > 1_000,
        "{answered} answered, {left} left, {failed} failed"
    );
    assert!(issuer.fetches() > 5, "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_given_back_in_every_state_that_a_caller_may_leave() {
    // The token after 1 s, the refusal after 11 s, the next token after 12 s, the second refusal after 22 s.
    for (patience, free, deliveries) in [(500, 1, 0), (5_000, 0, 1), (11_500, 1, 1), (15_000, 0, 2)] {
        let patience = Duration::from_millis(patience);
        let (tokens, _) = issuer();
        let api = Api::taking(10 * SECOND, |_, _| refusal());
        let (permits, limit) = limit(1);
        let client = TokenLayer::new(&tokens, origins()).layer(limit.layer(api.clone()));
        let call = tokio::spawn(held(client.clone(), get()));
        sleep(patience).await;
        assert_eq!(permits.available_permits(), free, "after {patience:?}");
        assert_eq!(api.deliveries(), deliveries, "after {patience:?}");
        call.abort();
        let _ = call.await;
        assert_eq!(permits.available_permits(), 1, "after {patience:?}");
    }
}

// ===== The token request goes through the same limit (CLIENTS: readiness, rule 2) =====

#[tokio::test(start_paused = true)]
async fn the_slot_is_given_back_while_the_token_is_fetched_through_the_same_limit() {
    let (_, limit) = limit(1);
    let (tokens, _) = tokens_fetched_through(limit.layer(issuer_endpoint()));
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins()).layer(limit.layer(api.clone()));
    let calls: Vec<_> = (0..16).map(|_| tokio::spawn(held(client.clone(), get()))).collect();
    for call in calls {
        let answer = timeout(20 * SECOND, call).await.expect("deadlock").unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_given_back_while_the_token_is_fetched_through_the_same_buffer() {
    let endpoint = issuer_endpoint();
    let api = Api::refusing(["test-1"]);
    let both = tower::service_fn({
        let api = api.clone();
        move |request: Request<String>| match request.uri().path() {
            "/token" => endpoint.clone().oneshot(request),
            _ => api.clone().oneshot(request),
        }
    });
    let buffer = Buffer::new(both, 1);
    let (tokens, _) = tokens_fetched_through(buffer.clone());
    let client = TokenLayer::new(&tokens, origins()).layer(buffer);
    let calls: Vec<_> = (0..16).map(|_| tokio::spawn(held(client.clone(), get()))).collect();
    for call in calls {
        let answer = timeout(20 * SECOND, call).await.expect("deadlock").unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

/// The contrast: what the slot is given back for. The fetch waits for the slot, and who holds the slot waits for the fetch.
#[tokio::test(start_paused = true)]
async fn textbook_mem_replace_deadlocks_here() {
    let (_, limit) = limit(1);
    let (tokens, _) = tokens_fetched_through(limit.layer(issuer_endpoint()));
    let api = Api::answering(|_, _| page("welcome"));
    let inner = limit.layer(api.clone());
    let client = Textbook { inner, tokens };
    assert!(timeout(20 * SECOND, held(client, get())).await.is_err());
    assert_eq!(api.deliveries(), 0);
}

/// As many a guide has it: take the readied service along, and wait for the token with it.
#[derive(Clone)]
struct Textbook<S> {
    inner: S,
    tokens: Tokens,
}

impl<S> Service<Request<String>> for Textbook<S>
where
    S: Service<Request<String>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<String>) -> Self::Future {
        let clone = self.inner.clone();
        let mut readied = std::mem::replace(&mut self.inner, clone);
        let tokens = self.tokens.clone();
        Box::pin(async move {
            let token = tokens.get().await?;
            let value = format!("Bearer {}", token.secret()).parse()?;
            request.headers_mut().insert("authorization", value);
            readied.call(request).await
        })
    }
}

fn limit(permits: usize) -> (Arc<Semaphore>, GlobalConcurrencyLimitLayer) {
    let permits = Arc::new(Semaphore::new(permits));
    (permits.clone(), GlobalConcurrencyLimitLayer::with_semaphore(permits))
}

/// Answers each token request with the next number, after a second.
fn issuer_endpoint() -> Api {
    Api::taking(SECOND, |nth, _| page(&nth.to_string()))
}

/// A provider whose client is `through`.
fn tokens_fetched_through<S>(through: S) -> (Tokens, S)
where
    S: Service<Request<String>, Response = Response<Page>, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let client = through.clone();
    let provider = provider_fn(move |context: FetchContext| {
        let request = client.clone().oneshot(token_request(Some(&context)));
        async move { minted_by(request.await) }
    });
    (Tokens::new(provider).unwrap(), through)
}

fn token_request(marked_by: Option<&FetchContext>) -> Request<String> {
    let mut request = Request::post("https://api.example.com/token")
        .body(String::new())
        .unwrap();
    if let Some(context) = marked_by {
        context.mark(request.extensions_mut());
    }
    request
}

fn minted_by(answer: Result<Response<Page>, BoxError>) -> Result<tower_token::Token, FetchError> {
    match answer {
        Ok(answer) => Ok(minted(answer.body().parse().unwrap())),
        Err(error) => Err(FetchError::terminal("the token request failed").caused_by(error)),
    }
}

// ===== Recursion =====

/// How a token request goes out, and under which policy for lost answers.
#[derive(Clone, Copy)]
struct Recursion {
    marked: bool,
    spawned: bool,
    if_lost: IfLost,
}

const MARKED: Recursion = Recursion {
    marked: true,
    spawned: false,
    if_lost: IfLost::ReplayOnce,
};

/// A provider that sends its token request through the service that waits for it: layered, behind a buffer.
fn recursive(how: Recursion) -> (Tokens, Client, Api) {
    let slot = Arc::new(OnceLock::<Client>::new());
    let client = slot.clone();
    let provider = provider_fn(move |context: FetchContext| {
        let client = client.get().unwrap().clone();
        let request = token_request(how.marked.then_some(&context));
        async move {
            let answer = client.oneshot(request);
            match how.spawned {
                true => minted_by(tokio::spawn(answer).await.unwrap()),
                false => minted_by(answer.await),
            }
        }
    });
    let tokens = Tokens::new(provider.if_lost(how.if_lost)).unwrap();
    let api = Api::answering(|_, _| page("1"));
    let client = ServiceBuilder::new()
        .layer(BoxCloneSyncService::layer())
        .buffer(8)
        .layer(TokenLayer::new(&tokens, origins()))
        .buffer(8)
        .service(api.clone());
    slot.set(client.clone()).unwrap();
    (tokens, client, api)
}

#[tokio::test(start_paused = true)]
async fn a_marked_token_request_is_told_at_once_that_it_waits_for_itself() {
    for spawned in [false, true] {
        let (_, client, api) = recursive(Recursion { spawned, ..MARKED });
        let began = Instant::now();
        let error = send(&client, get()).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::ZERO);
        let error = Error::find(&*error).unwrap();
        assert!(error.is_reauth_required(), "the provider's own error: {error}");
        let cause = std::error::Error::source(error).unwrap();
        assert!(Error::find(cause).unwrap().is_recursion(), "{cause}");
        assert!(cause.to_string().contains("give the provider a client of its own"));
        assert_eq!(api.deliveries(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_marked_token_request_is_refused_with_a_token_in_place_too() {
    let marked = Arc::new(OnceLock::new());
    let mark = marked.clone();
    let tokens = Tokens::new(provider_fn(move |context: FetchContext| {
        let _ = mark.set(token_request(Some(&context)));
        async { Ok(minted(1)) }
    }));
    let api = Api::answering(|_, _| page("welcome"));
    let client = TokenLayer::new(&tokens.unwrap(), origins()).layer(api.clone());
    send(&client, get()).await.unwrap();
    let error = send(&client, marked.get().unwrap().clone()).await.unwrap_err();
    assert!(Error::find(&*error).unwrap().is_recursion());
    assert_eq!(api.deliveries(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_request_marked_for_one_token_may_use_another() {
    // The issuer of `ours` asks for `theirs`.
    let (theirs, _) = issuer();
    let endpoint = Api::refusing([]);
    let (ours, _) = {
        let guarded = TokenLayer::new(&theirs, origins()).layer(endpoint.clone());
        let client = ServiceBuilder::new()
            .map_response(|_: Response<Page>| page("17"))
            .service(guarded);
        tokens_fetched_through(client)
    };
    let api = Api::refusing([]);
    let client = TokenLayer::new(&ours, origins()).layer(api.clone());
    send(&client, get()).await.unwrap();
    assert_eq!(
        (endpoint.tokens(), api.tokens()),
        (vec!["test-1".to_owned()], vec!["test-17".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn an_unmarked_token_request_ends_at_the_fetch_timeout_and_the_error_names_the_likely_cause() {
    // A lost answer is presented once more by default, so the timeout passes twice.
    for (if_lost, passes) in [
        (IfLost::Idempotent, 1),
        (IfLost::ReplayOnce, 2),
        (IfLost::NeverReplay, 1),
    ] {
        for spawned in [false, true] {
            let (_, client, api) = recursive(Recursion {
                marked: false,
                spawned,
                if_lost,
            });
            let began = Instant::now();
            let error = send(&client, get()).await.unwrap_err();
            assert_eq!(began.elapsed(), passes * 30 * SECOND, "{if_lost:?}");
            let error = Error::find(&*error).unwrap();
            assert!(error.to_string().contains("give it a client of its own"), "{error}");
            assert_eq!(api.deliveries(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_request_that_opts_out_does_not_recurse() {
    let slot = Arc::new(OnceLock::<Client>::new());
    let client = slot.clone();
    let tokens = Tokens::new(provider_fn(move |_| {
        let mut request = token_request(None);
        request.extensions_mut().insert(NoToken);
        let answer = client.get().unwrap().clone().oneshot(request);
        async { minted_by(answer.await) }
    }));
    let tokens = tokens.unwrap();
    let api = Api::answering(|nth, _| page(&nth.to_string()));
    let inner = ConcurrencyLimit::new(api.clone(), 1);
    let client = Client::new(Buffer::new(TokenLayer::new(&tokens, origins()).layer(inner), 4));
    slot.set(client.clone()).unwrap_or_else(|_| unreachable!());
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
    settle().await;
    assert_eq!(
        api.each(|request| bearer(&request.clone().into_parts().0).map(str::to_owned)),
        [None, Some("test-1".into())]
    );
}
// ===== A call that never reaches the inner service keeps the readied one, and with it the permit =====

fn one_slot() -> (Arc<Semaphore>, GlobalConcurrencyLimitLayer) {
    let slot = Arc::new(Semaphore::new(1));
    (slot.clone(), GlobalConcurrencyLimitLayer::with_semaphore(slot))
}

/// `Boarding::Denied`: an idle handle blocks every other user of the limit, the token request included.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_denied_a_token_gives_its_slot_back() {
    let (tokens, _) = issuer_that(|_| Err(FetchError::terminal("over")));
    let (slot, limit) = one_slot();
    let mut client = TokenLayer::new(&tokens, origins()).layer(limit.layer(Api::answering(|_, _| page(""))));
    // The first waits for the fetch that fails, the second is denied at once.
    for _ in 0..2 {
        client.ready().await.unwrap().call(get()).await.unwrap_err();
    }
    assert_eq!(slot.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_host_gives_its_slot_back() {
    let (tokens, _) = issuer();
    let (slot, limit) = one_slot();
    let mut client = TokenLayer::new(&tokens, origins()).layer(limit.layer(Api::answering(|_, _| page(""))));
    let request = Request::get("/me").body(String::new()).unwrap();
    client.ready().await.unwrap().call(request).await.unwrap_err();
    assert_eq!(slot.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recursive_call_gives_its_slot_back() {
    let marked = Arc::new(OnceLock::new());
    let mark = marked.clone();
    let tokens = Tokens::new(provider_fn(move |context: FetchContext| {
        let mut request = get();
        context.mark(request.extensions_mut());
        let _ = mark.set(request);
        async { Ok(tower_token::Token::bearer("test-1")) }
    }));
    let tokens = tokens.unwrap();
    tokens.get().await.unwrap();
    let (slot, limit) = one_slot();
    let mut client = TokenLayer::new(&tokens, origins()).layer(limit.layer(Api::answering(|_, _| page(""))));
    client
        .ready()
        .await
        .unwrap()
        .call(marked.get().unwrap().clone())
        .await
        .unwrap_err();
    assert_eq!(slot.available_permits(), 1);
}

// ===== The refusal is given up for the replay =====

/// A service whose slot goes with the response body, as a connection's does: it is ready for the replay
/// once the body of the refusal is gone.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_replayed_where_the_slot_goes_with_the_response_body() {
    let (tokens, _) = issuer();
    let slots = Arc::new(Semaphore::new(1));
    let client = TokenLayer::new(&tokens, origins()).layer(SlotInBody {
        slots,
        waiting: None,
        permit: None,
    });
    let response = timeout(Duration::from_secs(3600), client.oneshot(get()))
        .await
        .expect("deadlock")
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

struct SlotInBody {
    slots: Arc<Semaphore>,
    waiting: Option<Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Clone for SlotInBody {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            waiting: None,
            permit: None,
        }
    }
}

impl Service<Request<String>> for SlotInBody {
    type Response = Response<OwnedSemaphorePermit>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.permit.is_none() {
            let slots = self.slots.clone();
            let waiting = self
                .waiting
                .get_or_insert_with(|| Box::pin(async { slots.acquire_owned().await.unwrap() }));
            self.permit = Some(ready!(waiting.as_mut().poll(cx)));
            self.waiting = None;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let mut response = Response::new(self.permit.take().unwrap());
        if bearer(&request.into_parts().0) == Some("test-1") {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        std::future::ready(Ok(response))
    }
}
