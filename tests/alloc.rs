//! What a call with a fresh token allocates: nothing.
//!
//! `allocation-counter` replaces the global allocator of this test binary and counts for each thread
//! on its own, so that the other tests do not disturb.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mirror.rs"]
mod mirror;

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{Empty, Full};
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_token::{
    Authorization, Auto, CloneBody, Never, Origins, Replay, ResponseFuture, Token, TokenLayer, Tokens, Unauthorized,
    provider_fn,
};

use mirror::{Mirror, request, round};

/// A layer with a fresh token.
fn layer() -> TokenLayer {
    let tokens = Tokens::new(provider_fn(|_| async {
        Ok(Token::bearer("t".repeat(900)).expires_in(Duration::from_secs(3600)))
    }));
    let tokens = tokens.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(tokens.get()).unwrap();
    TokenLayer::new(&tokens, Origins::only("https://api.example.com").unwrap())
}

/// Allocations, and their bytes, of so many calls with one request after the first call with it.
fn allocated<S, B>(mut service: S, body: B, calls: u64) -> (u64, u64)
where
    S: Service<Request<B>, Response = Response<Request<B>>>,
{
    let mut request = Some(round(&mut service, request(body)));
    let info = allocation_counter::measure(|| {
        for _ in 0..calls {
            request = request.take().map(|request| round(&mut service, request));
        }
    });
    (info.count_total, info.bytes_total)
}

#[test]
fn the_counter_counts() {
    let boxed = tower::service_fn(|request: Request<()>| {
        let response = Box::new(Response::new(request));
        std::future::ready(Ok::<_, Infallible>(*response))
    });
    assert_eq!(allocated(boxed, (), 10).0, 10);
}

#[test]
fn a_fresh_call_allocates_what_the_bare_service_does() {
    let bare = allocated(Mirror, Empty::<Bytes>::new(), 1);
    assert_eq!(
        allocated(layer().replay(Never).layer(Mirror), Empty::<Bytes>::new(), 1),
        bare
    );
    let fixed = AddAuthorizationLayer::bearer("t").layer(Mirror);
    assert_eq!(allocated(fixed, Empty::<Bytes>::new(), 1), bare);
}

#[test]
fn ten_thousand_fresh_calls_allocate_what_the_bare_service_does() {
    let bare = allocated(Mirror, Empty::<Bytes>::new(), 10_000);
    assert_eq!(
        allocated(layer().replay(Never).layer(Mirror), Empty::<Bytes>::new(), 10_000),
        bare
    );
}

#[test]
fn neither_do_two_threads_allocate_that_share_the_service() {
    let bare = allocated(Mirror, Empty::<Bytes>::new(), 10_000);
    let client = layer().replay(Never).layer(Mirror);
    let threads = [client.clone(), client].map(|mut client| {
        std::thread::spawn(move || {
            // It settles on its thread with the second call.
            drop(round(&mut client, request(Empty::<Bytes>::new())));
            allocated(client, Empty::<Bytes>::new(), 10_000)
        })
    });
    for thread in threads {
        assert_eq!(thread.join().unwrap(), bare);
    }
}

/// As `tokio::spawn` does with a clone for each request: called once, and dropped, where it was not cloned.
#[test]
fn a_clone_that_is_called_on_another_thread_allocates_nothing() {
    let client = layer().layer(Mirror);
    drop(round(&mut client.clone(), request(Empty::<Bytes>::new())));
    let (send, sent) = std::sync::mpsc::sync_channel(0);
    let thread = std::thread::spawn(move || {
        let counted = sent.into_iter().map(|(mut clone, request)| {
            let call = || drop((round(&mut clone, request), clone));
            allocation_counter::measure(call).count_total
        });
        counted.collect::<Vec<_>>()
    });
    for _ in 0..10 {
        send.send((client.clone(), request(Empty::<Bytes>::new()))).unwrap();
    }
    drop(send);
    let counted = thread.join().unwrap();
    // What the first makes, its lane keeps: the token's snapshot and value, and a page.
    assert_eq!(counted[1..], [0; 9], "{counted:?}");
}

/// Allocations of calls with requests that are built from strings each time, by the service, and by the requests.
fn allocated_built<S, B>(mut service: S, body: fn() -> B, headers: usize) -> u64
where
    S: Service<Request<B>, Response = Response<Request<B>>>,
{
    let mut call = || drop(round(&mut service, built(headers, body())));
    call();
    allocation_counter::measure(|| (0..1000).for_each(|_| call())).count_total
}

fn built<B>(headers: usize, body: B) -> Request<B> {
    let mut request = request(body);
    for number in request.headers().len()..headers {
        let name = HeaderName::try_from(format!("x-header-{number}")).unwrap();
        let value = HeaderValue::try_from(format!("value-of-{number}-something")).unwrap();
        request.headers_mut().insert(name, value);
    }
    request
}

/// With 12 headers the one more makes the map of the request grow.
#[test]
fn a_request_that_is_kept_allocates_what_one_with_a_static_header_does() {
    fn assert_as_static<B: http_body::Body + Default + Clone + 'static>(body: fn() -> B) {
        for headers in [4, 12, 40] {
            let fixed = allocated_built(AddAuthorizationLayer::bearer("t").layer(Mirror), body, headers);
            let auto = allocated_built(layer().layer(Mirror), body, headers);
            let cloned = allocated_built(layer().replay(CloneBody).layer(Mirror), body, headers);
            assert_eq!((auto, cloned), (fixed, fixed), "{headers} headers");
        }
        let bare = allocated_built(Mirror, body, 4);
        assert_eq!(allocated_built(layer().layer(Mirror), body, 4), bare);
    }
    assert_as_static(Empty::<Bytes>::new);
    assert_as_static(|| Full::new(Bytes::from_static(b"text")));
}

/// The first clone of `Bytes` that were made of a `Vec` makes the count that the clones share.
#[test]
fn a_body_that_was_a_vec_a_moment_ago_costs_one_allocation_to_keep() {
    let text = || Full::new(Bytes::from(Vec::from(*b"text")));
    let bare = allocated_built(Mirror, text, 4);
    assert_eq!(allocated_built(layer().layer(Mirror), text, 4), bare + 1000);
    let cloned = layer().replay(CloneBody).layer(Mirror);
    assert_eq!(allocated_built(cloned, text, 4), bare + 1000);
}

#[test]
fn a_request_that_is_kept_again_and_again_allocates_nothing() {
    let bare = allocated(Mirror, Empty::<Bytes>::new(), 10_000);
    assert_eq!(allocated(layer().layer(Mirror), Empty::<Bytes>::new(), 10_000), bare);
    let text = Full::new(Bytes::from("text"));
    assert_eq!(allocated(layer().layer(Mirror), text, 10_000), bare);
}

#[test]
fn the_future_is_small() {
    fn size<F, R: Replay<Full<Bytes>, Body = Full<Bytes>>>() -> usize
    where
        Answering<F>: Service<Request<Full<Bytes>>, Future = F>,
    {
        size_of::<ResponseFuture<Answering<F>, R, Unauthorized, Authorization, Full<Bytes>, Incoming>>()
    }
    type Boxed = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Infallible>> + Send>>;
    type Plain = Ready<Result<Response<Incoming>, Infallible>>;
    println!(
        "bytes of the inner future: boxed {}, ready {}",
        size_of::<Boxed>(),
        size_of::<Plain>()
    );
    // So much over the inner future.
    for (what, limit, sizes) in [
        ("Never", 64, [size::<Boxed, Never>(), size::<Plain, Never>()]),
        ("Auto", 88, [size::<Boxed, Auto>(), size::<Plain, Auto>()]),
        (
            "CloneBody",
            88,
            [size::<Boxed, CloneBody>(), size::<Plain, CloneBody>()],
        ),
    ] {
        println!(
            "bytes of the future with {what}: over boxed {}, over ready {}",
            sizes[0], sizes[1]
        );
        assert!(sizes[0] <= size_of::<Boxed>() + limit, "{what}: {sizes:?}");
        assert!(sizes[1] <= size_of::<Plain>() + limit, "{what}: {sizes:?}");
    }
}

/// As large as hyper's.
type Incoming = [u64; 4];

/// A service with this future.
#[derive(Clone)]
struct Answering<F>(std::marker::PhantomData<fn() -> F>);

impl<F: Future<Output = Result<Response<Incoming>, Infallible>>> Service<Request<Full<Bytes>>> for Answering<F> {
    type Response = Response<Incoming>;
    type Error = Infallible;
    type Future = F;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> F {
        unreachable!("only its size is looked at")
    }
}
