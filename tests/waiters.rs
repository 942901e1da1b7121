//! What it costs that many wait for one token: bytes, allocations, polls and tasks. The time is in
//! `benches/waiters.rs`.
//!
//! `allocation-counter` replaces the global allocator of this test binary and counts for each thread
//! on its own, so that the other tests do not disturb.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::{self, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tower::{Layer, Service};
use tower_token::{BoxError, FetchError, Kept, Never, Origins, RefreshPolicy, Token, TokenLayer, Tokens, provider_fn};

const WAITERS: usize = 100_000;

/// An issuer that answers when it is told to.
#[derive(Clone)]
struct Issuer {
    gate: Arc<Semaphore>,
    fetches: Arc<AtomicUsize>,
    fails: bool,
}

impl Issuer {
    fn new(fails: bool) -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            fetches: Arc::default(),
            fails,
        }
    }

    fn tokens(&self) -> Tokens {
        let issuer = self.clone();
        let provider = provider_fn(move |_| issuer.clone().answer());
        let policy = RefreshPolicy::default().max_waiters(2 * WAITERS);
        Tokens::builder(provider).policy(policy).build().unwrap()
    }

    async fn answer(self) -> Result<Token, FetchError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        // It has no permits: this ends when it is closed.
        let _ = self.gate.acquire().await;
        match self.fails {
            true => Err(FetchError::transient("down")),
            false => Ok(Token::bearer("test-a").expires_in(Duration::from_secs(3600))),
        }
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    /// It answers, and the flight lands.
    fn answers(&self, runtime: &Runtime, tokens: &Tokens) {
        self.gate.close();
        runtime.block_on(async {
            while tokens.status().fetching {
                yield_now().await;
            }
        });
    }
}

/// It runs nothing while it is not asked to.
fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

// ===== Tokens::get =====

#[test]
fn a_hundred_thousand_waiters_allocate_nothing_but_their_row_of_seats() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let issuer = Issuer::new(false);
    let tokens = issuer.tokens();
    let mut waiters = Vec::with_capacity(WAITERS);
    let seated = measure(|| {
        for _ in 0..WAITERS {
            let mut waiter = tokens.get();
            assert!(poll(&mut waiter).is_pending());
            waiters.push(waiter);
        }
    });
    assert_eq!(tokens.status().waiting, WAITERS);
    issuer.answers(&runtime, &tokens);
    let released = measure(|| {
        for waiter in &mut waiters {
            assert!(matches!(poll(waiter), Poll::Ready(Ok(_))));
        }
    });
    let gone = measure(|| drop(waiters));
    let bytes = seated.bytes_current / i64::try_from(WAITERS).unwrap();
    println!("{} allocations and {bytes} bytes each to wait", each(&seated));
    // A vector that doubles, and the flight.
    assert!(each(&seated) < 0.01, "{seated:?}");
    assert!(bytes <= 32, "{bytes}");
    assert_eq!((released.count_total, gone.count_total), (0, 0));
    assert_eq!(issuer.fetches(), 1);
}

fn each(all: &AllocationInfo) -> f64 {
    all.count_total as f64 / WAITERS as f64
}

/// Once to sit down, once to hear how it ended: no stampede.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_a_hundred_thousand_waiters_is_three_words_and_polled_twice() {
    for fails in [false, true] {
        let issuer = Issuer::new(fails);
        let tokens = issuer.tokens();
        assert_eq!(size_of_val(&tokens.get()), 3 * size_of::<usize>());
        let waiters: JoinSet<_> = (0..WAITERS).map(|_| counted(tokens.get())).collect();
        while tokens.status().waiting < WAITERS {
            yield_now().await;
        }
        issuer.gate.close();
        let waiters = waiters.join_all().await;
        assert!(waiters.iter().all(|(got, polls)| got.is_err() == fails && *polls == 2));
        assert_eq!(issuer.fetches(), 1);
    }
}

/// With how often it was polled.
async fn counted<F: Future>(future: F) -> (F::Output, usize) {
    let mut future = pin!(future);
    let mut polls = 0;
    let output = poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    });
    (output.await, polls)
}

#[test]
fn a_flight_costs_the_runtime_one_task_however_many_wait() {
    for (fails, afterwards) in [(false, "the timer of its token"), (true, "")] {
        let runtime = runtime();
        let _inside = runtime.enter();
        let issuer = Issuer::new(fails);
        let tokens = issuer.tokens();
        let mut client = layer(&tokens).layer(Api);
        let tasks = || runtime.metrics().num_alive_tasks();
        assert_eq!(tasks(), 0);
        let mut gets: Vec<_> = (0..1_000).map(|_| tokens.get()).collect();
        let mut calls: Vec<_> = (0..1_000).map(|_| client.call(request())).collect();
        assert!(gets.iter_mut().all(|get| poll(get).is_pending()));
        assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
        // Nothing was run yet, so nothing that was spawned is over.
        assert_eq!(tasks(), 1);
        issuer.answers(&runtime, &tokens);
        runtime.block_on(yield_now());
        assert_eq!(tasks(), usize::from(!fails), "{afterwards}");
        assert!(
            gets.iter_mut()
                .all(|get| matches!(poll(get), Poll::Ready(got) if got.is_err() == fails))
        );
        assert!(
            calls
                .iter_mut()
                .all(|call| matches!(poll(call), Poll::Ready(got) if got.is_err() == fails))
        );
        assert_eq!((tasks(), issuer.fetches()), (usize::from(!fails), 1));
    }
}

// ===== through the layer =====

type Body = Full<Bytes>;

/// As large as a client's: its future is boxed, its body has four words.
#[derive(Clone)]
struct Api;

impl Service<Request<Body>> for Api {
    type Response = Response<[u64; 4]>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<[u64; 4]>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        Box::pin(ready(Ok(Response::new([0; 4]))))
    }
}

fn layer(tokens: &Tokens) -> TokenLayer {
    TokenLayer::new(tokens, Origins::only("https://api.example.com").unwrap())
}

fn request() -> Request<Body> {
    Request::get("https://api.example.com/v1/things/17?page=3")
        .header("accept", "application/json")
        .header("user-agent", "tower-token/0.1")
        .header("x-request-id", "0190163d-8694-739b-aea5-966c26f8ad91")
        .body(Body::default())
        .unwrap()
}

/// In bytes, of one request.
#[derive(Debug)]
struct Waiting {
    /// The request itself, and what it has on the heap.
    request: [usize; 2],
    /// The future that waits, and what it adds to the heap.
    future: [usize; 2],
    allocations: f64,
}

fn waiting<S>(set: impl FnOnce(TokenLayer) -> S) -> Waiting
where
    S: Service<Request<Body>, Error = BoxError, Future: Unpin>,
{
    const REQUESTS: usize = 10_000;
    let runtime = runtime();
    let _inside = runtime.enter();
    let issuer = Issuer::new(false);
    let tokens = issuer.tokens();
    let mut client = set(layer(&tokens));
    let (mut requests, mut calls) = (Vec::with_capacity(REQUESTS), Vec::with_capacity(REQUESTS));
    let own = measure(|| requests.extend((0..REQUESTS).map(|_| request())));
    let more = measure(|| {
        for request in requests.drain(..) {
            let mut call = client.call(request);
            assert!(poll(&mut call).is_pending());
            calls.push(call);
        }
    });
    issuer.answers(&runtime, &tokens);
    assert!(calls.iter_mut().all(|call| matches!(poll(call), Poll::Ready(Ok(_)))));
    let each = |all: &AllocationInfo| usize::try_from(all.bytes_current).unwrap() / REQUESTS;
    Waiting {
        request: [size_of::<Request<Body>>(), each(&own)],
        future: [size_of_val(&calls[0]), each(&more)],
        allocations: more.count_total as f64 / REQUESTS as f64,
    }
}

/// A place in the row of seats, which doubles as it grows.
const SEAT: usize = 32;

/// Allowed are the request itself and 96 bytes, as for the future of `get()`; and for a request that is kept a body
/// more, and no copy of the head, because nothing of it was sent yet.
#[test]
fn a_request_that_waits_holds_itself_and_96_bytes() {
    let never = waiting(|layer| layer.replay(Never).layer(Api));
    let auto = waiting(|layer| layer.layer(Api));
    println!("not kept: {never:?}\nkept:     {auto:?}");
    for (waiting, body) in [(never, 0), (auto, size_of::<Kept>())] {
        let [request, _] = waiting.request;
        assert!(waiting.allocations <= 1.01, "{waiting:?}");
        assert!(
            waiting.future.iter().sum::<usize>() <= request + 96 + body + SEAT,
            "{waiting:?}"
        );
    }
}
