//! Published crates that keep a token current, each behind a provider that costs nothing.
//!
//! [`issuer`] mints the tokens and counts how often it was asked; [`peer`] has one file a crate. What is
//! measured with them stands in `call.rs` and `herd.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A benchmark that cannot be set up has nothing to say.

pub mod issuer;
pub mod key;
#[path = "../../../tests/support/mirror.rs"]
#[allow(dead_code)] // A round of our own waits for locks.
mod mirror;
pub mod peer;

use std::future::Future;
use std::hint::{black_box, spin_loop};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tower::Service;

pub type Body = Full<Bytes>;
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A crate that hands out credentials: it, or with it the few lines every user of it has to write, puts a
/// current token on a request.
pub trait Peer: Clone + Send + Sync + 'static {
    fn authorize(&self, request: &mut Request<Body>) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Makes so many calls.
pub type Lane = Box<dyn FnMut(u64) + Send>;

/// Two handles on one and the same thing, each of which makes calls on a thread of its own.
pub type Lanes = [Lane; 2];

/// The token of [`issuer::Issuer`] as the value of the header, as all peers but the layers build it for every call.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, BoxError> {
    Ok(HeaderValue::try_from(format!("Bearer {token}"))?)
}

/// The request of all cases.
pub fn request() -> Request<Body> {
    mirror::request(Body::default())
}

/// Calls of a service in front of the [`Mirror`].
pub fn service<S>(service: S) -> Lanes
where
    S: Service<Request<Body>, Response = Response<Request<Body>>> + Clone + Send + 'static,
{
    [0, 1].map(|_| {
        let mut service = service.clone();
        let mut travelling = Some(request());
        lane(move |calls| {
            let mut request = travelling.take().unwrap();
            for _ in 0..calls {
                request = black_box(round(&mut service, black_box(request)));
            }
            travelling = Some(request);
        })
    })
}

/// The same of a [`Peer`] that has its token already: authorized, then handed back as the [`Mirror`] does.
///
/// # Panics
///
/// If the token does not arrive on the request.
pub fn peer<P: Peer>(peer: P) -> Lanes {
    let mut request = request();
    spin_on(peer.authorize(&mut request)).unwrap();
    let value = request.headers()[AUTHORIZATION].to_str().unwrap();
    assert!(value.starts_with("Bearer test-") && value.len() == 907, "{value}");
    service(Authorized { peer })
}

/// A peer as a service, without anything that it would not have to pay itself: neither boxed nor cloned.
#[derive(Clone)]
struct Authorized<P> {
    peer: P,
}

impl<P: Peer> Service<Request<Body>> for Authorized<P> {
    type Response = Response<Request<Body>>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        spin_on(self.peer.authorize(&mut request)).unwrap();
        std::future::ready(Ok(Response::new(request)))
    }
}

pub(crate) fn lane(run: impl FnMut(u64) + Send + 'static) -> Lane {
    Box::new(run)
}

/// As [`mirror::round`], but of services that may have to wait, for another thread that holds their lock.
#[inline]
fn round<S>(service: &mut S, mut request: Request<Body>) -> Request<Body>
where
    S: Service<Request<Body>, Response = Response<Request<Body>>>,
{
    request.headers_mut().remove(AUTHORIZATION);
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
        unreachable!("a mirror is always ready")
    };
    match spin_on(service.call(request)) {
        Ok(response) => response.into_body(),
        Err(_) => unreachable!("the token is fresh"),
    }
}

/// Nobody needs to be woken: a lock that is held is asked for until it is free, which is soon unless the
/// machine is busy; then whoever holds it is let go on.
#[inline]
pub(crate) fn spin_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut turns = 0;
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => return output,
            Poll::Pending if turns < 200 => spin_loop(),
            Poll::Pending => std::thread::yield_now(),
        }
        turns += 1;
    }
}

/// A file beside the program, for a peer that reads one.
pub(crate) fn written(name: &str, text: &str) -> PathBuf {
    let path = std::env::current_exe()
        .unwrap()
        .with_file_name(format!("peers-test-{name}"));
    std::fs::write(&path, text).unwrap();
    path
}

/// One call of one of many callers, with all that it waits for.
pub type Call = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send + Sync>;

pub fn call_of<F>(call: impl Fn() -> F + Send + Sync + 'static) -> Call
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    Arc::new(move || Box::pin(call()))
}

/// One call of a [`Peer`].
pub fn call_of_peer<P: Peer>(peer: P) -> Call {
    call_of(move || {
        let peer = peer.clone();
        async move { peer.authorize(&mut request()).await }
    })
}
