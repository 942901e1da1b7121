//! Where a recorded body lies: [`Passage`].
//!
//! The first attempt and whoever may replay it share the body. The first attempt takes it out to poll it,
//! so that no lock is held over foreign code, and puts it back with the frame on the tape. So a replay can take it over at any time, also from an upload that nobody polls
//! because its server stopped reading: the replay plays the tape, and then goes on with the rest.
//!
//! ```text
//! Recording ─┬─ accepted, or beyond the limit ──────────► Released: the first attempt has the body to itself
//!            └─ refused ─► Held ─┬─ no newer token ─────► Released
//!                                └─ the replay is sent ─► TakenOver: the first attempt ends with an error
//! ```

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::error::{BoxError, Error, Kind};
use crate::tape::{Tape, in_bytes};

/// What the first attempt and the replay share.
pub(super) struct Passage<B> {
    pub(super) phase: Phase,
    pub(super) body: Whereabouts<B>,
    /// `None`: there can be no replay.
    pub(super) tape: Option<Tape>,
    /// What the first attempt polled and may not send any more. Comes after the tape.
    pub(super) next: Option<Polled>,
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
        next: Option<Polled>,
        body: Whereabouts<B>,
    },
}

pub(super) type Polled = Result<Frame<Bytes>, BoxError>;

impl<B> Passage<B> {
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
    #[inline]
    pub(super) fn put_back(&mut self, body: Pin<Box<B>>, polled: &Poll<Option<Polled>>) -> Option<Pin<Box<B>>> {
        if let Poll::Ready(None) = polled {
            self.body = Whereabouts::Ended;
            return Some(body);
        }
        self.body = Whereabouts::Here(body);
        None
    }

    /// Puts `polled` on the tape. `false`: it cannot be replayed.
    #[inline]
    pub(super) fn record(&mut self, polled: &Poll<Option<Polled>>, limit: usize) -> bool {
        match polled {
            Poll::Ready(Some(Ok(frame))) => self.tape.as_mut().is_some_and(|tape| tape.record(frame, limit)),
            // A body that failed once is not to be trusted with a second attempt.
            Poll::Ready(Some(Err(_))) => false,
            Poll::Ready(None) | Poll::Pending => true,
        }
    }

    /// The request was refused while this was polled, so it is for whoever goes on. What the first attempt
    /// gets instead.
    #[cold]
    pub(super) fn set_aside(&mut self, polled: Poll<Option<Polled>>) -> Poll<Option<Polled>> {
        if let Poll::Ready(Some(polled)) = polled {
            self.next = Some(polled);
        }
        if self.is_sent() {
            Poll::Ready(None)
        } else if self.phase == Phase::TakenOver {
            Poll::Ready(Some(Err(taken_over())))
        } else {
            Poll::Pending
        }
    }
}

impl<B> Rest<B>
where
    B: Body,
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
            return Poll::Ready(Some(next));
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

pub(super) fn poll_body<B>(body: &mut Pin<Box<B>>, cx: &mut Context<'_>) -> Poll<Option<Polled>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let polled = std::task::ready!(body.as_mut().poll_frame(cx));
    Poll::Ready(polled.map(|frame| frame.map(in_bytes).map_err(Into::into)))
}

pub(super) fn taken_over() -> BoxError {
    Error::new(Kind::TakenOver).into()
}

pub(super) fn lock<B>(passage: &Mutex<Passage<B>>) -> MutexGuard<'_, Passage<B>> {
    // What panics is the body's own code, which at most tells its size under the lock: all is whole.
    passage.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
