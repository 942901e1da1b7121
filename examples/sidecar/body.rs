//! The one body that everything here has: [`Body`].

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tower_token::BoxError;

use crate::server::Running;

/// What comes from a caller or from upstream, as it comes, with its trailers; or an answer of our own.
///
/// A type of its own because a boxed error must not be spelled out in the type of a request's body
/// (rust-lang/rust#102211, see `tower_token::Buffered`).
pub(crate) struct Body {
    inner: UnsyncBoxBody<Bytes, BoxError>,
    // The request that this is the answer to runs until the answer was handed on to its end.
    running: Option<Running>,
    // The error that it ends with, held back for one turn.
    broken: Option<BoxError>,
}

impl Body {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            inner: body.map_err(Into::into).boxed_unsync(),
            running: None,
            broken: None,
        }
    }

    /// What a caller sends. An error in it is the caller's, and says so.
    pub(crate) fn of_caller(body: Incoming) -> Self {
        Self::new(body.map_err(CallerBroke))
    }

    pub(crate) fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// Lines that are sent as they come, until their sender is dropped.
    pub(crate) fn lines(lines: mpsc::Receiver<Bytes>) -> Self {
        Self::new(Lines(lines))
    }

    /// The request counts as running until this body was handed on, or dropped.
    pub(crate) fn while_running(self, running: Running) -> Self {
        Self {
            running: Some(running),
            ..self
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(Full::new(bytes))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Err(error)) => {
                // An error drops what hyper has not sent yet: the head, and what came before the body broke off.
                // In the turn that passes it is sent.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

/// A caller's body ended before its end.
#[derive(Debug)]
pub(crate) struct CallerBroke(hyper::Error);

impl CallerBroke {
    /// Whether that is why `error` happened.
    pub(crate) fn caused(error: &(dyn StdError + 'static)) -> bool {
        let mut links = std::iter::successors(Some(error), |link| (*link).source());
        links.any(|link| link.is::<Self>())
    }
}

impl fmt::Display for CallerBroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller's body ended before its end")
    }
}

impl StdError for CallerBroke {
    // hyper looks there for the code that an HTTP/2 stream is reset with.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = self.0.poll_recv(cx);
        line.map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
