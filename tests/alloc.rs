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
use http::{Request, Response};
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
    let threads = [client.clone(), client]
        .map(|client| std::thread::spawn(move || allocated(client, Empty::<Bytes>::new(), 10_000)));
    for thread in threads {
        assert_eq!(thread.join().unwrap(), bare);
    }
}

/// The same for the first call with a request: nothing of it is shared yet.
fn allocated_first<S, B>(mut service: S, body: fn() -> B) -> (u64, u64)
where
    S: Service<Request<B>, Response = Response<Request<B>>>,
{
    round(&mut service, request(body()));
    let mut request = Some(request(body()));
    let info = allocation_counter::measure(|| request = request.take().map(|request| round(&mut service, request)));
    (info.count_total, info.bytes_total)
}

/// Kept requests cost a copy of the head, `Parts::clone`: one allocation for the indices of the header map
/// and one for its entries, and the first time one for each value that nobody shares yet. And they cost
/// the box that the copy is kept in, so that the future of a request that is not kept has no room for it.
/// What is asserted is that it is no more than that.
#[test]
fn a_request_that_is_kept_allocates_a_copy_of_its_head() {
    let (head, ()) = request(()).into_parts();
    let first = allocation_counter::measure(|| drop(head.clone())).count_total;
    let again = allocation_counter::measure(|| drop(head.clone())).count_total;
    println!("allocations (bytes) of a fresh call; a copy of the head makes {first} the first time, then {again}");
    for (what, count) in [
        (
            "Auto, empty",
            allocated_first(layer().layer(Mirror), Empty::<Bytes>::new),
        ),
        (
            "CloneBody, empty",
            allocated_first(layer().replay(CloneBody).layer(Mirror), Empty::<Bytes>::new),
        ),
        (
            "Never, empty",
            allocated_first(layer().replay(Never).layer(Mirror), Empty::<Bytes>::new),
        ),
    ] {
        println!("{what}, a new request: {count:?}");
        assert!(count.0 <= first + BOX, "{what}: {} > {first} + {BOX}", count.0);
    }
    let empty = allocated(layer().layer(Mirror), Empty::<Bytes>::new(), 1);
    let text = allocated(layer().layer(Mirror), Full::new(Bytes::from("text")), 1);
    let cloned = allocated(
        layer().replay(CloneBody).layer(Mirror),
        Full::new(Bytes::from("text")),
        1,
    );
    for (what, count) in [
        ("Auto, empty", empty),
        ("Auto, Full<Bytes>", text),
        ("CloneBody, Full<Bytes>", cloned),
    ] {
        println!("{what}, again: {count:?}");
        assert!(count.0 <= again + BOX, "{what}: {} > {again} + {BOX}", count.0);
    }
}

const BOX: u64 = 1;

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
    for (what, limit, sizes) in [
        ("Never", 208, [size::<Boxed, Never>(), size::<Plain, Never>()]),
        ("Auto", 208, [size::<Boxed, Auto>(), size::<Plain, Auto>()]),
        (
            "CloneBody",
            208,
            [size::<Boxed, CloneBody>(), size::<Plain, CloneBody>()],
        ),
    ] {
        println!(
            "bytes of the future with {what}: over boxed {}, over ready {}",
            sizes[0], sizes[1]
        );
        assert!(sizes.into_iter().max() <= Some(limit), "{what}: {sizes:?}");
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
