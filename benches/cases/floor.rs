//! The least that we know of a layer whose token can change and be refused.
//!
//! It has what makes ours quick (a snapshot that the service remembers, a value and a handle on cache
//! lines of their own for each thread) and nothing that makes it safe: no origins, no clock, no look at
//! the caller's own header, nothing kept for a replay. It is no layer to use.
//!
//! `GUARDED` it has the first three as well, each in the one form that this bench needs: one origin, written as in
//! requests; whole seconds; a caller without a header of his own.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
#[cfg(not(target_os = "linux"))]
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

const LANES: usize = 8;

#[derive(Clone)]
pub(crate) struct FloorLayer<const GUARDED: bool>(Arc<Core>);

struct Core {
    /// The current token; a snapshot of another one is not used.
    generation: AtomicU64,
    snapshot: ArcSwap<Snapshot>,
    refused: AtomicU64,
    authority: String,
    /// In seconds since 1970.
    fresh_until: i64,
}

struct Snapshot {
    generation: u64,
    lanes: [Padded<HeaderValue>; LANES],
}

#[derive(Clone)]
#[repr(align(128))]
struct Padded<T>(T);

impl<const GUARDED: bool> FloorLayer<GUARDED> {
    pub(crate) fn bearer(secret: &str, authority: &str) -> Self {
        let snapshot = Snapshot {
            generation: 1,
            lanes: std::array::from_fn(|_| Padded(value_of(secret))),
        };
        Self(Arc::new(Core {
            generation: AtomicU64::new(1),
            snapshot: ArcSwap::from_pointee(snapshot),
            refused: AtomicU64::new(0),
            authority: authority.to_owned(),
            fresh_until: coarse_seconds() + 24 * 3600,
        }))
    }
}

impl Core {
    /// Whether the token may go with this request, at this time.
    #[inline]
    fn lets_out<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        uri.scheme() == Some(&Scheme::HTTPS)
            && uri
                .authority()
                .is_some_and(|authority| authority.as_str() == self.authority)
            && !request.headers().keys().any(|name| *name == HOST)
            && coarse_seconds() < self.fresh_until
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

impl<S, const GUARDED: bool> Layer<S> for FloorLayer<GUARDED> {
    type Service = Floor<S, GUARDED>;

    fn layer(&self, inner: S) -> Floor<S, GUARDED> {
        let handle = || Padded(Arc::new(Padded(self.0.clone())));
        let lanes = Arc::new(std::array::from_fn(|_| handle()));
        Floor {
            inner,
            lanes,
            recent: None,
        }
    }
}

/// A count for each lane, and the core behind it.
type Handle = Arc<Padded<Arc<Core>>>;

pub(crate) struct Floor<S, const GUARDED: bool> {
    inner: S,
    lanes: Arc<[Padded<Handle>; LANES]>,
    /// The one used last, in case it is still the one.
    recent: Option<Arc<Snapshot>>,
}

impl<S: Clone, const GUARDED: bool> Clone for Floor<S, GUARDED> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            lanes: self.lanes.clone(),
            recent: None,
        }
    }
}

impl<S, B, ResBody, const GUARDED: bool> Service<Request<B>> for Floor<S, GUARDED>
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
        assert!(!GUARDED || core.lets_out(&request));
        let generation = core.generation.load(Ordering::Acquire);
        self.recent.take_if(|recent| recent.generation != generation);
        let snapshot = self.recent.get_or_insert_with(|| core.snapshot.load_full());
        let value = snapshot.lanes[lane].0.clone();
        if GUARDED {
            let has_one = request.headers_mut().append(AUTHORIZATION, value);
            assert!(!has_one);
        } else {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
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
        match this.future.poll(cx) {
            Poll::Ready(Ok(response)) if response.status() != StatusCode::UNAUTHORIZED => Poll::Ready(Ok(response)),
            polled => refused(&this.handle.0, *this.generation, polled),
        }
    }
}

/// Away from the other answers: where both came together, each would be moved twice.
#[cold]
#[inline(never)]
fn refused<T>(core: &Core, generation: u64, polled: Poll<T>) -> Poll<T> {
    if polled.is_ready() {
        core.refused.fetch_max(generation, Ordering::AcqRel);
    }
    polled
}

/// Since 1970.
#[cfg(target_os = "linux")]
fn coarse_seconds() -> i64 {
    use rustix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}

#[cfg(not(target_os = "linux"))]
fn coarse_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
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
