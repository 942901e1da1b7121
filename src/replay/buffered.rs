//! Keeps the first bytes of a stream: [`Buffered`].

use std::fmt;

use http::Request;
use http_body::Body;

use super::Replay;
use super::body::{Recording, ReplayBody};
use crate::error::BoxError;

/// Records a body as it passes, up to a limit, and gives the inner service the body type that it knows.
///
/// | body | constructor |
/// |---|---|
/// | `tonic::body::Body` | `.replay_via(tonic::body::Body::new)` |
/// | `axum::body::Body` | `.replay_via(axum::body::Body::new)` |
/// | `reqwest::Body` | `.replay_via(reqwest::Body::wrap)` |
/// | `http_body_util::combinators::{BoxBody, UnsyncBoxBody}` with [`BoxError`] | `.replay_via(BoxBody::new)` |
/// | the same with an error `E` of your own | `.replay_via::<Body>(\|body\| BoxBody::new(body.map_err(E::from)))`, where `E` is made of a [`BoxError`]; of `io::Error` it is `io::Error::other` |
/// | any, if the inner service takes any (a hyper client) | `.replay(Buffered::unboxed())` |
///
/// Recording costs a handle on the bytes. Copied are frames below 256 bytes, and data that are not `Bytes`.
/// Where it stands at more than the limit (default: 64 KiB, and exactly the limit is still kept) it stops
/// and gives back its memory; a refusal then goes to the caller, and the token is renewed for the next
/// request. Trailers are kept too (up to 16 KiB). A body that failed is not replayed.
///
/// A refusal may come while the body is still being sent. Sending then pauses until there is a newer
/// token. The replay takes over: it sends what was recorded and goes on with the rest, so that a body of
/// any size is replayed as long as no more than the limit was sent; the first attempt's body ends with
/// an error ([`Error::is_taken_over`](crate::Error::is_taken_over)). Without a newer token sending goes on, and
/// the refusal reaches the caller as it came.
///
/// An upload that is broken off ends its HTTP/1 connection. A pool opens another; over a client that has
/// that one connection and no other, use [`Never`](super::Never).
///
/// If rustc says of a call in a spawned task that an "implementation of `Replay` is not general enough"
/// (rust-lang/rust#102211, for body types that spell out a boxed error), put the body in a type of your own.
///
/// ```
/// # fn layer(tokens: &tower_token::Tokens, origins: tower_token::Origins) {
/// use http_body_util::combinators::UnsyncBoxBody;
/// use tower_token::{BoxError, Buffered, TokenLayer};
///
/// type Body = UnsyncBoxBody<bytes::Bytes, BoxError>;
/// let layer = TokenLayer::new(tokens, origins)
///     .replay(Buffered::<Body>::via(Body::new).limit(1024 * 1024));
/// # let _ = layer; }
/// ```
pub struct Buffered<B> {
    unboxed: Unboxed,
    wrap: fn(ReplayBody<B>) -> B,
}

/// [`Buffered`] for inner services that take any body: theirs is [`ReplayBody<B>`], which saves a box.
#[derive(Clone, Copy, Debug)]
pub struct Unboxed {
    limit: usize,
}

/// What is kept of a body, in bytes, unless something else is said.
const LIMIT: usize = 64 * 1024;

impl<B> Buffered<B> {
    /// Records up to 64 KiB; `wrap` makes a recorded body the inner service's own again.
    ///
    /// `wrap` is a plain function, such as the constructor that the body type already has.
    pub fn via(wrap: fn(ReplayBody<B>) -> B) -> Self {
        let unboxed = Buffered::unboxed();
        Self { unboxed, wrap }
    }

    /// Records so many bytes of data at most. Default: 64 KiB.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.unboxed = self.unboxed.limit(bytes);
        self
    }
}

impl Buffered<()> {
    /// Records up to 64 KiB, and leaves the recorded body as it is: a [`ReplayBody`].
    pub fn unboxed() -> Unboxed {
        Unboxed { limit: LIMIT }
    }
}

impl Unboxed {
    /// Records so many bytes of data at most. Default: 64 KiB.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl<B> Replay<B> for Buffered<B>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    type Body = B;
    type Saved = Recording<B>;

    fn pass(&self, request: Request<B>) -> Request<B> {
        request
    }

    fn prepare(&self, body: B) -> (B, Option<Recording<B>>) {
        if body.is_end_stream() {
            return (body, Some(Recording::of_nothing()));
        }
        let (body, saved) = self.unboxed.prepare(body);
        ((self.wrap)(body), saved)
    }

    fn hold(&self, saved: &Recording<B>) -> bool {
        saved.hold()
    }

    fn replay(&self, saved: Recording<B>) -> Option<B> {
        saved.into_replay().map(self.wrap)
    }
}

impl<B> Replay<B> for Unboxed
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    type Body = ReplayBody<B>;
    type Saved = Recording<B>;

    fn pass(&self, request: Request<B>) -> Request<ReplayBody<B>> {
        request.map(ReplayBody::alone)
    }

    fn prepare(&self, body: B) -> (ReplayBody<B>, Option<Recording<B>>) {
        if body.is_end_stream() {
            return (ReplayBody::alone(body), Some(Recording::of_nothing()));
        }
        let (body, recording) = ReplayBody::first(body, self.limit);
        (body, Some(recording))
    }

    fn hold(&self, saved: &Recording<B>) -> bool {
        saved.hold()
    }

    fn replay(&self, saved: Recording<B>) -> Option<ReplayBody<B>> {
        saved.into_replay()
    }
}

impl<B> Clone for Buffered<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Buffered<B> {}

impl<B> fmt::Debug for Buffered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered")
            .field("limit", &self.unboxed.limit)
            .finish_non_exhaustive()
    }
}
