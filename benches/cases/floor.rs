//! The least that a layer does whose token can change and be refused.
//!
//! It has what makes ours quick (a snapshot that is loaded without a count, a value and a handle on cache
//! lines of their own for each thread) and nothing that makes it safe: no origins, no clock, no look at
//! the caller's own header, nothing kept for a replay. It is no layer to use.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

const LANES: usize = 8;

#[derive(Clone)]
pub(crate) struct FloorLayer(Arc<Core>);

struct Core {
    /// The current token; a snapshot of another one is not used.
    generation: AtomicU64,
    snapshot: ArcSwap<Snapshot>,
    refused: AtomicU64,
}

struct Snapshot {
    generation: u64,
    lanes: [Padded<HeaderValue>; LANES],
}

#[derive(Clone)]
#[repr(align(128))]
struct Padded<T>(T);

impl FloorLayer {
    pub(crate) fn bearer(secret: &str) -> Self {
        let snapshot = Snapshot {
            generation: 1,
            lanes: std::array::from_fn(|_| Padded(value_of(secret))),
        };
        Self(Arc::new(Core {
            generation: AtomicU64::new(1),
            snapshot: ArcSwap::from_pointee(snapshot),
            refused: AtomicU64::new(0),
        }))
    }
}

impl AsRef<[u8]> for Padded<String> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The count of its bytes lies on cache lines of its own.
fn value_of(secret: &str) -> HeaderValue {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(Padded(format!("Bearer {secret}")))).unwrap();
    value.set_sensitive(true);
    value
}

impl<S> Layer<S> for FloorLayer {
    type Service = Floor<S>;

    fn layer(&self, inner: S) -> Floor<S> {
        let handle = || Padded(Arc::new(Padded(self.0.clone())));
        let lanes = Arc::new(std::array::from_fn(|_| handle()));
        Floor { inner, lanes }
    }
}

/// A count for each lane, and the core behind it.
type Handle = Arc<Padded<Arc<Core>>>;

#[derive(Clone)]
pub(crate) struct Floor<S> {
    inner: S,
    lanes: Arc<[Padded<Handle>; LANES]>,
}

impl<S, B, ResBody> Service<Request<B>> for Floor<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = FloorFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let lane = lane();
        let handle = self.lanes[lane].0.clone();
        let core = &handle.0;
        let snapshot = core.snapshot.load();
        assert_eq!(snapshot.generation, core.generation.load(Ordering::Acquire));
        let generation = snapshot.generation;
        request
            .headers_mut()
            .insert(AUTHORIZATION, snapshot.lanes[lane].0.clone());
        drop(snapshot);
        FloorFuture {
            future: self.inner.call(request),
            handle,
            generation,
        }
    }
}

pin_project! {
    pub(crate) struct FloorFuture<F> {
        #[pin]
        future: F,
        handle: Handle,
        generation: u64,
    }
}

impl<F, E, ResBody> Future for FloorFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        if let Ok(response) = &answer
            && response.status() == StatusCode::UNAUTHORIZED
        {
            refused(&this.handle.0, *this.generation);
        }
        Poll::Ready(answer)
    }
}

#[cold]
fn refused(core: &Core, generation: u64) {
    core.refused.fetch_max(generation, Ordering::AcqRel);
}

/// This thread's, always the same.
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LANE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    LANE.with(|lane| {
        lane.get().unwrap_or_else(|| {
            let drawn = NEXT.fetch_add(1, Ordering::Relaxed) % LANES;
            lane.set(Some(drawn));
            drawn
        })
    })
}
