//! The first attempt's end of a [`Passage`]: [`First`].

use std::any::Any;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, SizeHint};

use super::passage::{Lost, Passage, Phase, Polled, PolledAsIs, Whereabouts, boxed, lock, taken_over, wake};
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
    /// The body for the first attempt to poll; or, if it must not or has something else to send before, what it gets.
    #[inline]
    pub(super) fn take_out(&self, cx: &mut Context<'_>) -> Result<Pin<Box<B>>, Poll<Option<Polled>>> {
        let mut passage = lock(&self.passage);
        match passage.take_out() {
            Some(body) => Ok(body),
            None => Err(poll_stopped(passage, cx)),
        }
    }

    /// Polls the body while it is out.
    #[inline]
    pub(super) fn poll(&self, body: &mut Pin<Box<B>>, cx: &mut Context<'_>) -> PolledAsIs<B> {
        let lost = Lost(&self.passage);
        let polled = body.as_mut().poll_frame(cx);
        mem::forget(lost);
        polled
    }

    /// Puts the body back, if it brought a frame of `Bytes` that is on the tape then.
    #[inline]
    pub(super) fn record(&self, body: Pin<Box<B>>, polled: &PolledAsIs<B>) -> Result<(), Pin<Box<B>>> {
        let Poll::Ready(Some(Ok(frame))) = polled else {
            return Err(body);
        };
        match (frame as &dyn Any).downcast_ref() {
            Some(frame) => lock(&self.passage).record(body, frame, self.limit),
            None => Err(body),
        }
    }

    /// What becomes of a body that brought no such frame, and of what it brought; data of other types come to the tape
    /// here. The body comes back if the first attempt has it to itself from now on.
    #[cold]
    pub(super) fn settle(
        &self,
        body: Pin<Box<B>>,
        polled: PolledAsIs<B>,
        cx: &Context<'_>,
    ) -> (Poll<Option<Polled>>, Option<Pin<Box<B>>>) {
        let lost = Lost(&self.passage);
        let mut polled = boxed::<B>(polled);
        mem::forget(lost);
        let body = match &polled {
            Poll::Ready(Some(Ok(frame))) => lock(&self.passage).record(body, frame, self.limit),
            _ => Err(body),
        };
        let released = body.err().and_then(|body| self.go_on(body, &mut polled, cx));
        (polled, released)
    }

    /// The same, once it is known that nothing of it goes on the tape.
    fn go_on(&self, body: Pin<Box<B>>, polled: &mut Poll<Option<Polled>>, cx: &Context<'_>) -> Option<Pin<Box<B>>> {
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
