//! The future of both services.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;

use super::body::Body;

/// The answer of an [`IssuerService`](super::IssuerService) or an
/// [`ApiService`](super::ApiService) under way.
///
/// The request arrives when the future is first polled, and is cancelled when it is dropped.
pub struct ResponseFuture {
    inner: Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>,
}

impl ResponseFuture {
    pub(super) fn new(inner: impl Future<Output = io::Result<Response<Body>>> + Send + 'static) -> Self {
        Self { inner: Box::pin(inner) }
    }
}

impl Future for ResponseFuture {
    type Output = io::Result<Response<Body>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
