//! A body that is recorded as it passes, and its second life: [`ReplayBody`].
//!
//! The two share a [`Passage`], where the body lies.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::first::First;
use super::passage::{Passage, Phase, Polled, PolledAsIs, Rest, Whereabouts, boxed, lock, poll_body, wake};
use crate::error::BoxError;
use crate::sync::Mutex;
use crate::tape::Tape;

/// The body of a request that may be replayed, or of its replay. Made by [`Buffered`](super::Buffered).
///
/// Its data are [`Bytes`], shared with the body's own where those are `Bytes`. It is `Send` if the body
/// is, and `Sync` if the body is both.
///
/// # Errors
///
/// The body's own, boxed; and an [`Error`](crate::Error) for the first attempt once the replay has taken
/// over what was left of the body: the upload of the first attempt has to end, but is not complete.
pub struct ReplayBody<B> {
    role: Role<B>,
}

enum Role<B> {
    /// Recorded as it passes.
    First(First<B>),
    /// Nobody will replay it any more, or ever would.
    Alone(Pin<Box<B>>),
    /// The tape, then the rest.
    Second(Box<Second<B>>),
}

struct Second<B> {
    tape: Tape,
    left: Left,
    rest: Rest<B>,
}

/// How much is still to come, in bytes, as far as the body said before any of it passed.
#[derive(Clone, Copy)]
struct Left {
    lower: u64,
    upper: Option<u64>,
}

/// What [`Buffered`](super::Buffered) keeps of a body. Dropping it ends the recording.
pub struct Recording<B> {
    kept: Option<Arc<Mutex<Passage<B>>>>,
    left: Left,
}

// ===== impl Recording =====

impl<B: Body> Recording<B> {
    /// Of a body that is empty.
    pub(super) fn of_nothing() -> Self {
        Self {
            kept: None,
            left: Left::of(&SizeHint::with_exact(0)),
        }
    }

    /// Whether there can be a replay. If so, the first attempt sends nothing more until it is decided.
    pub(super) fn hold(&self) -> bool {
        let Some(passage) = &self.kept else {
            return true;
        };
        // Dropped after the lock.
        let _ended;
        let mut passage = lock(passage);
        if passage.tape.is_none() {
            return false;
        }
        _ended = passage.settle();
        passage.phase = Phase::Held;
        true
    }

    /// The body of the replay, unless there can be none.
    pub(super) fn into_replay(self) -> Option<ReplayBody<B>> {
        let left = self.left;
        let Some(shared) = &self.kept else {
            let (next, body) = (None, Whereabouts::Ended);
            return Some(ReplayBody::second(Tape::default(), left, Rest::Live { next, body }));
        };
        // Dropped after the lock.
        let _ended;
        let (first, second) = {
            let mut passage = lock(shared);
            if let Some(Err(_)) = passage.next.as_deref() {
                return None;
            }
            let tape = passage.tape.take()?;
            _ended = passage.settle();
            passage.phase = Phase::TakenOver;
            let rest = passage.rest(shared);
            (passage.first.take(), ReplayBody::second(tape, left, rest))
        };
        wake(first);
        Some(second)
    }
}

impl<B> Drop for Recording<B> {
    fn drop(&mut self) {
        let Some(passage) = &self.kept else {
            return;
        };
        let (first, _tape) = {
            let mut passage = lock(passage);
            if passage.phase == Phase::TakenOver {
                return;
            }
            (passage.first.take(), passage.release())
        };
        wake(first);
    }
}

impl<B> fmt::Debug for Recording<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").finish_non_exhaustive()
    }
}

// ===== impl ReplayBody =====

impl<B: Body> ReplayBody<B> {
    pub(super) fn first(body: B, limit: usize) -> (Self, Recording<B>) {
        let left = Left::of(&body.size_hint());
        let first = First::new(body, limit);
        let recording = Recording {
            kept: Some(first.passage().clone()),
            left,
        };
        let role = Role::First(first);
        (Self { role }, recording)
    }

    fn second(tape: Tape, left: Left, rest: Rest<B>) -> Self {
        Self {
            role: Role::Second(Box::new(Second { tape, left, rest })),
        }
    }

    /// A body that is not recorded.
    pub(super) fn alone(body: B) -> Self {
        Self {
            role: Role::Alone(Box::pin(body)),
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Polled>> {
        match &mut self.role {
            Role::Alone(body) => poll_body(body, cx),
            // Two short locks, for a frame that is recorded; all else is done out of line. A frame is large: it stays
            // where the body put it, until it is moved to where it is returned to.
            Role::First(first) => {
                let mut body = match first.take_out(cx) {
                    Ok(body) => body,
                    Err(polled) => return polled,
                };
                let polled = first.poll(&mut body, cx);
                match first.record(body, &polled) {
                    Ok(()) => boxed::<B>(polled),
                    Err(body) => self.role.settle(body, polled, cx),
                }
            }
            Role::Second(second) => second.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.role {
            Role::Alone(body) => body.is_end_stream(),
            Role::First(first) => first.is_end(),
            Role::Second(second) => second.is_end(),
        }
    }

    /// What the body said of itself at first, less what has passed: the replay is framed like the first attempt.
    fn size_hint(&self) -> SizeHint {
        match &self.role {
            Role::Alone(body) => body.size_hint(),
            Role::First(first) => first.size_hint(),
            Role::Second(second) => second.left.hint(),
        }
    }
}

impl<B> Role<B>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    /// The body of the first attempt brought no frame that is on the tape by now.
    #[cold]
    fn settle(&mut self, body: Pin<Box<B>>, polled: PolledAsIs<B>, cx: &Context<'_>) -> Poll<Option<Polled>> {
        let Role::First(first) = self else {
            return boxed::<B>(polled);
        };
        let (polled, released) = first.settle(body, polled, cx);
        if let Some(body) = released {
            *self = Role::Alone(body);
        }
        polled
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match &self.role {
            Role::First(_) => "first",
            Role::Alone(_) => "alone",
            Role::Second(_) => "second",
        };
        f.debug_struct("ReplayBody")
            .field("role", &role)
            .finish_non_exhaustive()
    }
}

impl<B> Second<B>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Polled>> {
        let polled = match self.tape.play() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.rest.poll(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.left.passed(frame),
            Poll::Ready(None) => self.left = Left::of(&SizeHint::with_exact(0)),
            _ => {}
        }
        polled
    }

    /// Only the body itself, or a length that it gave, tells the end in advance: a stream that turned out to be
    /// empty is not to be framed as one that was known to be.
    fn is_end(&self) -> bool {
        let told = self.rest.is_live() || self.left.upper == Some(0);
        told && self.tape.is_empty() && self.rest.is_end()
    }
}

impl Left {
    fn of(hint: &SizeHint) -> Self {
        Self {
            lower: hint.lower(),
            upper: hint.upper(),
        }
    }

    fn passed(&mut self, frame: &Frame<Bytes>) {
        let passed = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.lower = self.lower.saturating_sub(passed);
        self.upper = self.upper.map(|upper| upper.saturating_sub(passed));
    }

    fn hint(self) -> SizeHint {
        let mut hint = SizeHint::new();
        if let Some(upper) = self.upper {
            hint.set_upper(upper);
        }
        hint.set_lower(self.lower);
        hint
    }
}
