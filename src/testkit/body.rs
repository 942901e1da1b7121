//! The body of every answer: whole, cut off, dripping or endless-looking.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::visit::Visit;

/// The body of an answer of the [`Issuer`](super::Issuer) or the [`Api`](super::Api).
///
/// It streams what the fault in force makes of the answer. Reading it to its end is what
/// hands a token out: see [`ApiCounts::stale_seen`](super::ApiCounts::stale_seen).
#[derive(Default)]
pub struct Body {
    inner: Inner,
    /// The token request this body answers; gone with the last byte, so that an answer that
    /// drips counts as in flight for as long as it drips.
    visit: Option<Visit>,
}

impl Body {
    /// A body without a byte.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if a fault cut the body off.
    pub async fn bytes(self) -> io::Result<Bytes> {
        match collect(self, usize::MAX).await {
            Ok(bytes) => Ok(bytes),
            Err(Unread::Failed(error)) => Err(error),
            Err(Unread::TooLong) => Err(io::Error::other("longer than any memory")),
        }
    }

    /// `sent` of `declared` bytes, then an error.
    pub(super) fn truncated(sent: Bytes, declared: usize) -> Self {
        Self::from_inner(Inner::Truncated {
            sent,
            left: declared as u64,
            flushed: false,
        })
    }

    /// One byte each `every`, the first one after `every` too.
    pub(super) fn drip(rest: Bytes, every: Duration) -> Self {
        Self::from_inner(Inner::Drip {
            rest,
            every,
            sleep: None,
        })
    }

    /// `start`, then spaces (which JSON ignores) up to `len` bytes, of unknown length.
    pub(super) fn huge(start: Bytes, len: usize) -> Self {
        let spaces = len.saturating_sub(start.len());
        Self::from_inner(Inner::Huge { start, spaces })
    }

    /// Makes the body the answer to `visit`. An answer without a byte ends the visit at once.
    pub(super) fn answering(mut self, mut visit: Visit) -> Self {
        if self.inner.is_over() {
            visit.handed_out();
        } else {
            self.visit = Some(visit);
        }
        self
    }

    fn from_inner(inner: Inner) -> Self {
        Self { inner, visit: None }
    }

    fn settle(&mut self, sent: usize) {
        let Some(visit) = &mut self.visit else { return };
        visit.sent(sent);
        if self.inner.is_over() {
            visit.handed_out();
            self.visit = None;
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::from_inner(Inner::Whole(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        match ready!(this.inner.poll_next(cx)) {
            Some(Ok(data)) => {
                this.settle(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                this.visit = None;
                Poll::Ready(Some(Err(error)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Over => SizeHint::with_exact(0),
            Inner::Whole(rest) | Inner::Drip { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            Inner::Truncated { left, .. } => SizeHint::with_exact(*left),
            Inner::Huge { .. } => SizeHint::default(),
        }
    }
}

// By hand: the bytes hold tokens.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.inner {
            Inner::Over => "empty",
            Inner::Whole(_) => "whole",
            Inner::Truncated { .. } => "truncated",
            Inner::Drip { .. } => "drip",
            Inner::Huge { .. } => "huge",
        };
        f.debug_struct("Body").field("kind", &kind).finish_non_exhaustive()
    }
}

// ===== Inner =====

#[derive(Default)]
enum Inner {
    #[default]
    Over,
    Whole(Bytes),
    /// `left` is what the declared length still promises.
    Truncated {
        sent: Bytes,
        left: u64,
        flushed: bool,
    },
    Drip {
        rest: Bytes,
        every: Duration,
        sleep: Option<Pin<Box<Sleep>>>,
    },
    Huge {
        start: Bytes,
        spaces: usize,
    },
}

impl Inner {
    fn is_over(&self) -> bool {
        match self {
            Self::Over => true,
            Self::Whole(rest) | Self::Drip { rest, .. } => rest.is_empty(),
            Self::Truncated { .. } => false,
            Self::Huge { start, spaces } => start.is_empty() && *spaces == 0,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_over() {
            return Poll::Ready(None);
        }
        let next = match self {
            Self::Over => None,
            Self::Whole(rest) => Some(Ok(std::mem::take(rest))),
            Self::Truncated { sent, flushed, .. } if sent.is_empty() && !*flushed => {
                // A server that meets the error with the data still in its buffer sends neither.
                *flushed = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Self::Truncated { sent, left, .. } => Some(cut(sent, left)),
            Self::Drip { rest, every, sleep } => {
                let waiting = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(*every)));
                ready!(waiting.as_mut().poll(cx));
                *sleep = None;
                Some(Ok(rest.split_to(1)))
            }
            Self::Huge { start, spaces } => Some(Ok(pad(start, spaces))),
        };
        // An error is the last thing a body says.
        if matches!(next, Some(Err(_))) {
            *self = Self::Over;
        }
        Poll::Ready(next)
    }
}

fn cut(sent: &mut Bytes, left: &mut u64) -> io::Result<Bytes> {
    if sent.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off"));
    }
    *left = left.saturating_sub(sent.len() as u64);
    Ok(std::mem::take(sent))
}

fn pad(start: &mut Bytes, spaces: &mut usize) -> Bytes {
    static SPACES: [u8; 8192] = [b' '; 8192];
    if !start.is_empty() {
        return std::mem::take(start);
    }
    let len = (*spaces).min(SPACES.len());
    *spaces -= len;
    Bytes::from_static(&SPACES[..len])
}

// ===== Reading =====

/// Why a body was not read.
pub(super) enum Unread<E> {
    Failed(E),
    TooLong,
}

/// Reads at most `limit` bytes of any body, trailers aside.
pub(super) async fn collect<B: http_body::Body>(body: B, limit: usize) -> Result<Bytes, Unread<B::Error>> {
    let mut body = std::pin::pin!(body);
    let mut read = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(mut data) = frame.map_err(Unread::Failed)?.into_data() else {
            continue;
        };
        if data.remaining() > limit - read.len() {
            return Err(Unread::TooLong);
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            read.extend_from_slice(chunk);
            let len = chunk.len();
            data.advance(len);
        }
    }
    Ok(read.freeze())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use http_body::Body as _;
    use tokio::time::Instant;

    use super::*;

    fn assert_body<B: http_body::Body<Data = Bytes, Error = io::Error> + Send + Sync + Unpin + 'static>() {}

    #[test]
    fn the_body_fits_every_client() {
        assert_body::<Body>();
    }

    #[tokio::test]
    async fn a_whole_body_is_read_and_ends() {
        let body = Body::from(Bytes::from_static(b"whole"));
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.bytes().await.unwrap(), "whole");
        assert!(Body::empty().is_end_stream());
        assert_eq!(Body::empty().bytes().await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_truncated_body_promises_more_than_it_sends() {
        let body = Body::truncated(Bytes::from_static(b"half"), 8);
        assert_eq!(body.size_hint().exact(), Some(8));
        let error = body.bytes().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_body_takes_its_time_for_each_byte() {
        let begun = Instant::now();
        let body = Body::drip(Bytes::from_static(b"drops"), Duration::from_secs(2));
        assert_eq!(body.bytes().await.unwrap(), "drops");
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_huge_body_is_padded_with_what_json_ignores() {
        let body = Body::huge(Bytes::from_static(b"{}"), 100_000);
        assert_eq!(body.size_hint().exact(), None);
        let bytes = body.bytes().await.unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap().is_object());
    }

    #[tokio::test]
    async fn reading_stops_at_the_limit() {
        assert!(matches!(collect(String::from("12345"), 4).await, Err(Unread::TooLong)));
        assert_eq!(collect(String::from("12345"), 5).await.ok().unwrap(), "12345");
    }

    #[test]
    fn debug_shows_no_byte_of_the_body() {
        let shown = format!("{:?}", Body::from(Bytes::from_static(b"test-canary")));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
