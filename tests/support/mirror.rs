//! The cheapest inner service there is, so that what a layer adds is all that is seen.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tower::Service;

/// Hands the request back as the body of the response, so that one request serves for any number of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mirror;

impl<B> Service<Request<B>> for Mirror {
    type Response = Response<Request<B>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(Response::new(request)))
    }
}

/// A request with four headers.
pub(crate) fn request<B>(body: B) -> Request<B> {
    Request::get("https://api.example.com/v1/things/17?page=3")
        .header("accept", "application/json")
        .header("user-agent", "tower-token/0.1")
        .header("content-type", "application/json")
        .header("x-request-id", "0190163d-8694-739b-aea5-966c26f8ad91")
        .body(body)
        .unwrap()
}

/// Polled ready, called, polled to its end. `Authorization` is taken off first, as it would be missing on a new request.
#[inline]
pub(crate) fn round<S, B>(service: &mut S, mut request: Request<B>) -> Request<B>
where
    S: Service<Request<B>, Response = Response<Request<B>>>,
{
    request.headers_mut().remove(AUTHORIZATION);
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
        unreachable!("a mirror is always ready")
    };
    match pin!(service.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => response.into_body(),
        _ => unreachable!("a mirror answers at once"),
    }
}
