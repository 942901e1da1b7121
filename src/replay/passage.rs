//! Where a recorded body lies: [`Passage`].
//!
//! The first attempt and whoever may replay it share the body. The first attempt takes it out to poll it,
//! so that no lock is held over foreign code, and puts it back with the frame on the tape. So a replay can take it
//! over at any time, also from an upload that nobody polls because its server stopped reading: the replay plays the
//! tape, and then goes on with the rest.
//!
//! ```text
//! Recording ─┬─ accepted, or beyond the limit ──────────► Released: the first attempt has the body to itself
//!            └─ refused ─► Held ─┬─ no newer token ─────► Released
//!                                └─ the replay is sent ─► TakenOver: the first attempt ends with an error
//! ```

use std::any::Any;
use std::convert;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};

use crate::error::{BoxError, Error, Kind};
use crate::sync::{Mutex, MutexGuard};
use crate::tape::{self, Tape};

/// What the first attempt and the replay share.
pub(super) struct Passage<B> {
    pub(super) phase: Phase,
    pub(super) body: Whereabouts<B>,
    /// `None`: there can be no replay.
    pub(super) tape: Option<Tape>,
    /// What the first attempt polled and may not send any more. Comes after the tape.
    pub(super) next: Option<Box<Polled>>,
    /// The task of the first attempt, where it waits.
    pub(super) first: Option<Waker>,
    /// The task of the replay, where it waits for the first attempt to put the body back.
    pub(super) second: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Recording,
    Held,
    TakenOver,
    Released,
}

pub(super) enum Whereabouts<B> {
    Here(Pin<Box<B>>),
    /// With the first attempt, which polls it.
    Out,
    /// It has ended.
    Ended,
    /// It panicked.
    Lost,
}

/// What a replay sends after the tape.
pub(super) enum Rest<B> {
    /// The first attempt is polling the body at this moment.
    Out(Arc<Mutex<Passage<B>>>),
    Live {
        next: Option<Box<Polled>>,
        body: Whereabouts<B>,
    },
}

pub(super) type Polled = Result<Frame<Bytes>, BoxError>;

/// What the body itself makes of a poll.
pub(super) type PolledAsIs<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

impl<B> Passage<B> {
    /// Of a body of which `expected` bytes at most are likely to be recorded.
    pub(super) fn new(body: Pin<Box<B>>, expected: usize) -> Self {
        Self {
            phase: Phase::Recording,
            body: Whereabouts::Here(body),
            tape: Some(Tape::with_room_for(expected)),
            next: None,
            first: None,
            second: None,
        }
    }

    /// What is left for the replay, unless the first attempt has it at this moment.
    pub(super) fn rest(&mut self, shared: &Arc<Mutex<Self>>) -> Rest<B> {
        let body = match &self.body {
            Whereabouts::Out => return Rest::Out(shared.clone()),
            Whereabouts::Ended => Whereabouts::Ended,
            Whereabouts::Lost => Whereabouts::Lost,
            Whereabouts::Here(_) => mem::replace(&mut self.body, Whereabouts::Out),
        };
        Rest::Live {
            next: self.next.take(),
            body,
        }
    }

    /// There will be no replay. The tape, to be dropped outside the lock.
    pub(super) fn release(&mut self) -> Option<Tape> {
        self.phase = Phase::Released;
        self.tape.take()
    }

    /// Whether the first attempt has sent all there is.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.body, Whereabouts::Ended)
    }

    /// Has the first attempt woken when something becomes of it. The waker that it waited with before, to be
    /// dropped outside the lock: it may be the last that holds the call.
    pub(super) fn await_decision(&mut self, cx: &Context<'_>) -> Option<Waker> {
        match &self.first {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => self.first.replace(cx.waker().clone()),
        }
    }
}

impl<B: Body> Passage<B> {
    /// The body for the first attempt to poll, unless it must not or has something else to send before.
    #[inline]
    pub(super) fn take_out(&mut self) -> Option<Pin<Box<B>>> {
        if matches!(self.phase, Phase::Held | Phase::TakenOver) || self.next.is_some() {
            return None;
        }
        match mem::replace(&mut self.body, Whereabouts::Out) {
            Whereabouts::Here(body) => Some(body),
            gone => {
                self.body = gone;
                None
            }
        }
    }

    /// Puts the body back, if the frame that it brought is on the tape then.
    #[inline]
    pub(super) fn record(&mut self, body: Pin<Box<B>>, frame: &Frame<Bytes>, limit: usize) -> Result<(), Pin<Box<B>>> {
        if self.phase == Phase::Recording
            && let Some(tape) = &mut self.tape
            && tape.record(frame, limit)
        {
            self.body = Whereabouts::Here(body);
            return Ok(());
        }
        Err(body)
    }

    /// Notes that the body has ended, if it says so without being polled.
    pub(super) fn settle(&mut self) -> Option<Whereabouts<B>> {
        match &self.body {
            Whereabouts::Here(body) if self.next.is_none() && body.is_end_stream() => {
                Some(mem::replace(&mut self.body, Whereabouts::Ended))
            }
            _ => None,
        }
    }

    /// What has ended, to be dropped outside the lock.
    pub(super) fn put_back(&mut self, body: Pin<Box<B>>, polled: &Poll<Option<Polled>>) -> Option<Pin<Box<B>>> {
        if let Poll::Ready(None) = polled {
            self.body = Whereabouts::Ended;
            return Some(body);
        }
        self.body = Whereabouts::Here(body);
        None
    }

    /// The request was refused while this was polled, so it is for whoever goes on. What the first attempt
    /// gets instead.
    #[cold]
    pub(super) fn set_aside(&mut self, polled: &mut Poll<Option<Polled>>) {
        let instead = if self.is_sent() {
            Poll::Ready(None)
        } else if self.phase == Phase::TakenOver {
            Poll::Ready(Some(Err(taken_over())))
        } else {
            Poll::Pending
        };
        if let Poll::Ready(Some(polled)) = mem::replace(polled, instead) {
            self.next = Some(Box::new(polled));
        }
    }
}

impl<B> Rest<B>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Polled>> {
        let (next, body) = loop {
            match self {
                Rest::Live { next, body } => break (next, body),
                Rest::Out(shared) => {
                    let (shared, waker) = (shared.clone(), cx.waker().clone());
                    // Dropped after the lock.
                    let _before;
                    let mut passage = lock(&shared);
                    if let Whereabouts::Out = passage.body {
                        _before = passage.second.replace(waker);
                        return Poll::Pending;
                    }
                    *self = passage.rest(&shared);
                }
            }
        };
        if let Some(next) = next.take() {
            return Poll::Ready(Some(*next));
        }
        match body {
            Whereabouts::Here(live) => {
                let polled = poll_body(live, cx);
                if let Poll::Ready(None) = polled {
                    *body = Whereabouts::Ended;
                }
                polled
            }
            Whereabouts::Lost => {
                *body = Whereabouts::Ended;
                Poll::Ready(Some(Err(Error::new(Kind::BodyLost).into())))
            }
            Whereabouts::Ended | Whereabouts::Out => Poll::Ready(None),
        }
    }

    pub(super) fn is_end(&self) -> bool {
        match self {
            Rest::Out(_) | Rest::Live { next: Some(_), .. } => false,
            Rest::Live { next: None, body } => match body {
                Whereabouts::Here(body) => body.is_end_stream(),
                Whereabouts::Ended => true,
                Whereabouts::Out | Whereabouts::Lost => false,
            },
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(
            self,
            Rest::Live {
                body: Whereabouts::Here(_),
                ..
            }
        )
    }
}

/// Says that the body is lost, if polling it panics.
pub(super) struct Lost<'a, B>(pub(super) &'a Mutex<Passage<B>>);

impl<B> Drop for Lost<'_, B> {
    fn drop(&mut self) {
        let mut passage = lock(self.0);
        passage.body = Whereabouts::Lost;
        let (_tape, second) = (passage.tape.take(), passage.second.take());
        drop(passage);
        wake(second);
    }
}

#[inline]
pub(super) fn poll_body<B>(body: &mut Pin<Box<B>>, cx: &mut Context<'_>) -> Poll<Option<Polled>>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    boxed::<B>(body.as_mut().poll_frame(cx))
}

/// What the body makes of a poll as what all bodies make of it.
#[inline(always)]
pub(super) fn boxed<B>(polled: PolledAsIs<B>) -> Poll<Option<Polled>>
where
    B: Body,
    B::Data: 'static,
    B::Error: Into<BoxError>,
{
    // Told apart by hand: a frame is large, and this moves it once.
    match polled {
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(in_bytes(frame)))),
        Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
        Poll::Ready(None) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    }
}

/// A frame of `Bytes` as it is.
#[inline]
fn in_bytes<D: Buf + 'static>(frame: Frame<D>) -> Frame<Bytes> {
    match same() {
        Some(same) => same(frame),
        None => tape::in_bytes(frame),
    }
}

/// What makes a `T` the `U` that it is, if it is one. The compiler knows, and leaves nothing of it.
#[inline]
fn same<T: 'static, U: 'static>() -> Option<fn(T) -> U> {
    let same: fn(T) -> T = convert::identity;
    (&same as &dyn Any).downcast_ref().copied()
}

pub(super) fn taken_over() -> BoxError {
    Error::new(Kind::TakenOver).into()
}

#[inline]
pub(super) fn lock<B>(passage: &Mutex<Passage<B>>) -> MutexGuard<'_, Passage<B>> {
    // What panics is the body's own code, which at most tells its size under the lock: all is whole.
    passage.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
