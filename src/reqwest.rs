//! The layer over a [`reqwest::Client`] itself, whose requests and responses are types of its own.
//!
//! ```no_run
//! # #[tokio::main] async fn main() -> Result<(), tower_token::BoxError> {
//! # let tokens = tower_token::Tokens::new(tower_token::Fixed::new("test"))?;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_token::{Origins, TokenLayer};
//!
//! let client = reqwest::Client::new();
//! let mut api = ServiceBuilder::new()
//!     .layer(TokenLayer::new(&tokens, Origins::only("https://api.example.com")?))
//!     .service(client.clone());
//!
//! let request = client.post("https://api.example.com/orders").body(r#"{"item":7}"#).build()?;
//! let response = api.ready().await?.call(request).await?;     // a reqwest::Response
//! println!("{}", response.error_for_status()?.text().await?);
//! # Ok(()) }
//! ```
//!
//! | request body | replayed |
//! |---|---|
//! | none, text, bytes, JSON, a form | by default: reqwest has them in memory, and nothing is copied |
//! | a stream, a file, multipart | with `.replay_via(reqwest::Body::wrap)`, up to 64 KiB; every body is a stream to reqwest then, and it follows no 307 or 308 with one |
//!
//! All else is as with any other client. The response is the client's own, with its URL and its body. An error of the
//! client is a [`reqwest::Error`] within the [`BoxError`]; its URL has lost its query, where the token may be. One that
//! a middleware has wrapped in a type of its own is left as it is, query and all.
//! [`NoToken`](crate::NoToken) goes on an `http::Request`, which `reqwest::Request::try_from` takes with its extensions.
//!
//! | of the client | with the layer |
//! |---|---|
//! | `timeout`, its own or the request's | counts each attempt afresh, and not the wait for a token; a `tower::timeout` above counts everything |
//! | `default_headers` with an `Authorization` | go where the token does not; one on the request itself is left alone |
//!
//! **Redirects** are followed by reqwest, below the layer. It takes `Authorization` and `Cookie` along within scheme, host
//! and port only (before seanmonstar/reqwest#3034 also from https to http), but any other header to everywhere, and
//! tells the next host in `Referer` where it comes from, query and all. So where a token is presented in a header of its own
//! or in the query, build the client with `redirect::Policy::none()`; for the query `referer(false)` will do as well. tower-http's
//! `FollowRedirect` above the layer is safe for requests of `http`. An answer from elsewhere than the origin that was asked,
//! listed or not, says nothing of the token, which did not come there: a 401 of that host is handed on. (A redirect to
//! another host and back comes back without the token, and looks as if it had not left.)
//!
//! **A token in the query** is also in [`Response::url`], and so in the `Debug` of a response and in what `error_for_status`
//! says. Do not print these.
//!
//! **What it costs** beside the layer's usual price: the URL is parsed once on the way in and once on the way out, because
//! reqwest has no other door. That takes six allocations, a small part of the client's own.
//!
//! **Token requests** can go through a reqwest client as well, as [`Http`]:
//!
//! ```
//! # #[cfg(feature = "oauth2")] fn main() -> Result<(), tower_token::BoxError> {
//! use tower_token::{oauth2::ClientCredentialsGrant, reqwest::Http, Tokens};
//!
//! // Token requests carry credentials: no redirects.
//! let login = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
//! let grant = ClientCredentialsGrant::new("https://login.example.com/token", "my-app")
//!     .client_secret("test-secret")
//!     .client(Http::new(login));
//! let tokens = Tokens::new(grant)?;
//! # let _ = tokens; Ok(()) }
//! # #[cfg(not(feature = "oauth2"))] fn main() {}
//! ```

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use ::reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Uri};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::classify::{Classify, Peeked};
use crate::error::BoxError;
use crate::future;
use crate::inject::Inject;
use crate::origin::Origins;
use crate::replay::Replay;
use crate::service::{Adapt, TokenService};

impl<S, R, C, I> Service<Request> for TokenService<S, R, C, I>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Body, Body = Body>,
    C: Classify<Answer>,
    C::Body: Into<Answer>,
    I: Inject,
{
    type Response = Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, C, I>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let way = match request.try_into() {
            Ok(request) => Way::Called {
                future: self.call_via(request, send),
            },
            Err(error) => {
                self.stand_down();
                Way::Invalid { error: Some(error) }
            }
        };
        ResponseFuture { way }
    }
}

pin_project! {
    /// The response of a reqwest client, however many attempts it takes.
    ///
    /// As [`tower_token::ResponseFuture`](crate::ResponseFuture): drop it to cancel the request.
    pub struct ResponseFuture<S, R, C, I>
    where
        S: Service<Request>,
        R: Replay<Body>,
        C: Classify<Answer>,
        I: Inject,
    {
        #[pin]
        way: Way<future::ResponseFuture<Http<S>, R, C, I, Body, Answer, S, Relay<S::Future>>>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<F> {
        Called { #[pin] future: F },
        // No `http::Uri` can be made of the request's URL.
        Invalid { error: Option<::reqwest::Error> },
    }
}

impl<F, T, E> Future for Way<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = match self.project() {
            WayProj::Called { future } => ready!(future.poll(cx)).map_err(Into::into),
            WayProj::Invalid { error } => Err(error.take().map_or_else(future::spent, BoxError::from)),
        };
        Poll::Ready(answered.map_err(without_query))
    }
}

impl<S, R, C, I> Future for ResponseFuture<S, R, C, I>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Body, Body = Body>,
    C: Classify<Answer>,
    C::Body: Into<Answer>,
    I: Inject,
{
    type Output = Result<Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().way.poll(cx))?;
        Poll::Ready(Ok(Answer::close(answer.map(Into::into))))
    }
}

/// The client's errors print their URL, and a token may be in its query.
fn without_query(mut error: BoxError) -> BoxError {
    if let Some(url) = error.downcast_mut().and_then(::reqwest::Error::url_mut) {
        url.set_query(None);
    }
    error
}

impl<S, R, C, I> fmt::Debug for ResponseFuture<S, R, C, I>
where
    S: Service<Request>,
    R: Replay<Body>,
    C: Classify<Answer>,
    I: Inject,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// ===== A reqwest client in the terms of `http` =====

/// A reqwest client as a service of `http::Request`s: for [token requests](self), and for layers that know no other.
/// The query of an error's URL is left out here too.
///
/// A [`TokenLayer`](crate::TokenLayer) goes over the client itself: over this it does not see where a redirect has led,
/// and takes a 401 of another host for a refusal.
///
/// Any service of [`reqwest::Request`]s will do. The URL has to be an absolute one. Where requests have another body, it is
/// wrapped above: `.map_request(|request: http::Request<B>| request.map(reqwest::Body::wrap))`.
#[derive(Clone, Debug)]
pub struct Http<S = ::reqwest::Client> {
    inner: S,
}

impl<S> Http<S> {
    /// Requests go out through this client.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<http::Request<Body>> for Http<S>
where
    S: Service<Request, Response = Response>,
    S::Error: Into<BoxError>,
{
    type Response = http::Response<Answer>;
    type Error = BoxError;
    type Future = Relay<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        send(&mut self.inner, request)
    }
}

fn send<S: Service<Request>>(inner: &mut S, request: http::Request<Body>) -> Relay<S::Future> {
    let way = match request.try_into() {
        Ok(request) => Way::Called {
            future: inner.call(request),
        },
        Err(error) => Way::Invalid { error: Some(error) },
    };
    Relay { way }
}

pin_project! {
    /// The answer of [`Http`], on its way.
    pub struct Relay<F> {
        #[pin]
        way: Way<F>,
    }
}

impl<F, E> Future for Relay<F>
where
    F: Future<Output = Result<Response, E>>,
    E: Into<BoxError>,
{
    type Output = Result<http::Response<Answer>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().way.poll(cx).map_ok(Answer::open)
    }
}

impl<F> fmt::Debug for Relay<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl<S: Clone> Adapt<Http<S>, Answer> for S {
    fn adapt(self) -> Http<S> {
        Http::new(self)
    }

    fn has_strayed(answer: &Answer, origins: &Origins, origin: u64) -> bool {
        let url = answer.response.as_ref().map(|response| response.url().as_str().parse());
        url.is_some_and(|url: Result<Uri, _>| {
            url.is_ok_and(|url| origins.check(&url, &HeaderMap::new()).ok() != Some(origin))
        })
    }

    /// What is read to its end may be dropped before the response is made again, and the URL with it.
    fn before_reading(head: &mut Parts, answer: &Answer) {
        if let Some(response) = &answer.response {
            remember(head, response.url().clone());
        }
    }
}

// ===== Bodies =====

/// The bytes of a request body that is no stream, which keeps them as well. They are not copied: such a body gives them
/// all at once.
pub(crate) fn share(body: &mut Body) -> Option<Bytes> {
    body.as_bytes()?;
    let frame = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Some(Ok(frame))) = frame else {
        return None;
    };
    let bytes = frame.into_data().ok()?;
    *body = Body::from(bytes.clone());
    Some(bytes)
}

// ===== Responses =====

/// The body of a reqwest response, as classifiers see it: the response itself, without its head.
///
/// It is not looked into unless a classifier does so (or it is read as what it is, an [`http_body::Body`]), and goes
/// back to the caller as it came.
pub struct Answer {
    /// Until it is looked into.
    response: Option<Response>,
    /// From then on.
    body: Option<Body>,
}

impl Answer {
    /// The head takes its place in a response of `http`; nothing is copied.
    fn open(mut response: Response) -> http::Response<Self> {
        let mut head = http::Response::new(());
        *head.status_mut() = response.status();
        *head.version_mut() = response.version();
        mem::swap(head.headers_mut(), response.headers_mut());
        mem::swap(head.extensions_mut(), response.extensions_mut());
        head.map(|()| Self {
            response: Some(response),
            body: None,
        })
    }

    /// The reverse.
    fn close(answer: http::Response<Self>) -> Response {
        let (mut head, mut answer) = answer.into_parts();
        match answer.response.take() {
            Some(mut response) if response.status() == head.status => {
                *response.headers_mut() = head.headers;
                *response.extensions_mut() = head.extensions;
                response
            }
            // A classifier has given it another status.
            Some(response) => {
                remember(&mut head, response.url().clone());
                http::Response::from_parts(head, Body::from(response)).into()
            }
            None => http::Response::from_parts(head, answer.body.unwrap_or_default()).into(),
        }
    }

    fn body(&mut self) -> &mut Body {
        let response = &mut self.response;
        self.body
            .get_or_insert_with(|| response.take().map(Body::from).unwrap_or_default())
    }
}

/// Where [`Response`] looks for its URL when it is made of a response of `http`.
fn remember(head: &mut Parts, url: Url) {
    // Nothing in it can be wrong, and no URL is better than no response.
    if let Ok(mut response) = http::Response::builder().url(url).body(()) {
        head.extensions.extend(mem::take(response.extensions_mut()));
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = ::reqwest::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        match (&self.response, &self.body) {
            // Nothing more to read may still be trailers.
            (Some(_), _) => false,
            (None, body) => body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.response, &self.body) {
            (Some(response), _) => match response.content_length() {
                Some(length) => SizeHint::with_exact(length),
                None => SizeHint::default(),
            },
            (None, body) => body.as_ref().map(Body::size_hint).unwrap_or_default(),
        }
    }
}

impl From<Peeked<Answer>> for Answer {
    fn from(peeked: Peeked<Answer>) -> Self {
        peeked.into_whole().unwrap_or_else(|begun| Self {
            response: None,
            body: Some(Body::wrap(begun)),
        })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}
