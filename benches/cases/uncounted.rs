//! A static header whose value is not counted: what any header costs, and how it scales at best.

use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use tower::{Layer, Service};

/// Puts `HeaderValue::from_static` on each request.
#[derive(Clone)]
pub(crate) struct UncountedLayer(HeaderValue);

impl UncountedLayer {
    pub(crate) fn bearer(secret: String) -> Self {
        // Leaked, because only what lives for ever needs no count.
        Self(HeaderValue::from_static(format!("Bearer {secret}").leak()))
    }
}

impl<S> Layer<S> for UncountedLayer {
    type Service = Uncounted<S>;

    fn layer(&self, inner: S) -> Uncounted<S> {
        let value = self.0.clone();
        Uncounted { inner, value }
    }
}

#[derive(Clone)]
pub(crate) struct Uncounted<S> {
    inner: S,
    value: HeaderValue,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Uncounted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.headers_mut().insert(AUTHORIZATION, self.value.clone());
        self.inner.call(request)
    }
}
