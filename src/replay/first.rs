//! The first attempt's end of a [`Passage`]: [`First`].

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, SizeHint};

use super::passage::{Lost, Passage, Phase, Polled, Whereabouts, lock, poll_body, taken_over, wake};
use crate::error::{BoxError, Error, Kind};
use crate::sync::{Mutex, MutexGuard};

/// Records a body as it passes.
pub(super) struct First<B> {
    passage: Arc<Mutex<Passage<B>>>,
    limit: usize,
}

impl<B: Body> First<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        let upper = body.size_hint().upper().unwrap_or(u64::MAX);
        let expected = usize::try_from(upper).map_or(limit, |upper| upper.min(limit));
        let passage = Arc::new(Mutex::new(Passage::new(Box::pin(body), expected)));
        Self { passage, limit }
    }

    pub(super) fn passage(&self) -> &Arc<Mutex<Passage<B>>> {
        &self.passage
    }

    pub(super) fn is_end(&self) -> bool {
        let passage = lock(&self.passage);
        passage.next.is_none()
            && match &passage.body {
                Whereabouts::Here(body) => body.is_end_stream(),
                Whereabouts::Ended => true,
                Whereabouts::Out | Whereabouts::Lost => false,
            }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let passage = lock(&self.passage);
        match (&passage.body, &passage.next) {
            (Whereabouts::Here(body), None) => body.size_hint(),
            (Whereabouts::Ended, None) => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

impl<B> First<B>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    /// Two short locks, for a frame that is recorded; all else is done out of line. The body goes into `released`
    /// when the first attempt has it to itself from now on.
    #[inline]
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>, released: &mut Option<Pin<Box<B>>>) -> Poll<Option<Polled>> {
        let mut passage = lock(&self.passage);
        let Some(mut body) = passage.take_out() else {
            return poll_stopped(passage, cx);
        };
        drop(passage);
        let lost = Lost(&self.passage);
        let mut polled = poll_body(&mut body, cx);
        mem::forget(lost);
        let recorded = lock(&self.passage).record(body, &polled, self.limit);
        if let Err(body) = recorded {
            *released = self.settle(body, &mut polled, cx);
        }
        polled
    }

    /// What becomes of a body that brought no frame for the tape, and of what it brought.
    #[cold]
    fn settle(&self, body: Pin<Box<B>>, polled: &mut Poll<Option<Polled>>, cx: &Context<'_>) -> Option<Pin<Box<B>>> {
        // Dropped after the lock.
        let (_before, _tape, _ended);
        let mut passage = lock(&self.passage);
        match (passage.phase, &*polled) {
            (Phase::Released, _) => return Some(body),
            // More than the tape may have; or it failed, and is not to be trusted with a second attempt.
            (Phase::Recording, Poll::Ready(Some(_))) => {
                _tape = passage.release();
                return Some(body);
            }
            (Phase::Recording, Poll::Ready(None) | Poll::Pending) => _ended = passage.put_back(body, polled),
            (Phase::Held | Phase::TakenOver, _) => {
                _ended = passage.put_back(body, polled);
                passage.set_aside(polled);
            }
        }
        if polled.is_pending() {
            _before = passage.await_decision(cx);
        }
        let second = passage.second.take();
        drop(passage);
        wake(second);
        None
    }
}

/// There is no body to be polled, or it must not be. Under the lock that told so: a moment later it may be otherwise.
#[cold]
fn poll_stopped<B>(passage: MutexGuard<'_, Passage<B>>, cx: &Context<'_>) -> Poll<Option<Polled>> {
    // Dropped after the lock.
    let _before;
    let mut passage = passage;
    match passage.phase {
        Phase::Held | Phase::TakenOver if passage.is_sent() => return Poll::Ready(None),
        Phase::TakenOver => return Poll::Ready(Some(Err(taken_over()))),
        Phase::Held => {
            _before = passage.await_decision(cx);
            return Poll::Pending;
        }
        Phase::Recording | Phase::Released => {}
    }
    if let Some(next) = passage.next.take() {
        return Poll::Ready(Some(*next));
    }
    match passage.body {
        Whereabouts::Lost => {
            passage.body = Whereabouts::Ended;
            Poll::Ready(Some(Err(Error::new(Kind::BodyLost).into())))
        }
        _ => Poll::Ready(None),
    }
}
