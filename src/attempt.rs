//! One attempt to send a request, and what a request holds on to that waits for the next.

use std::mem::ManuallyDrop;

use http::{Response, StatusCode, request};

use crate::origin::route_of;
use crate::replay::{Head, Replay};
use crate::token::Generation;
use crate::tokens::{Engine, Place};

/// A request that carries the token, or will.
pub(crate) struct Attempt<Saved> {
    /// The token it went out with; `None` while it waits for its first.
    pub(crate) generation: Option<Generation>,
    origin: u64,
    turn: Turn<Saved>,
}

/// Which attempt it is. One value, because a future has room for the larger only.
enum Turn<Saved> {
    /// What a second would be made of, if anything was kept.
    First(Slot<Kept<Saved>>),
    /// The replay: the token that was refused, and the route, because the head is no longer kept.
    Second { refused: Generation, route: Option<u64> },
}

/// The end of an attempt whose answer is handed on unseen.
///
/// It comes when this is dropped: then the response is where the caller finds it. What is done with a response at hand
/// makes the compiler move it once more, which is a twentieth of a call.
pub(crate) struct Accepted<'a, Saved> {
    pub(crate) attempt: &'a mut Option<Attempt<Saved>>,
    pub(crate) status: StatusCode,
    pub(crate) engine: &'a Engine,
}

/// What may be there. The compiler calls a function to drop an `Option`; that nothing is there shows without one, on
/// each call whose request is not kept.
struct Slot<T>(ManuallyDrop<Option<T>>);

/// What a replay is made of.
pub(crate) struct Kept<Saved> {
    pub(crate) head: Head,
    pub(crate) body: Saved,
}

/// What a request that waits holds on to. Boxed is what few of them have: thousands may wait for their first token.
pub(crate) struct Paused<B, Saved, ResBody> {
    /// The request to go out; for a refused one there is none until the new token is there.
    pub(crate) request: Option<(request::Parts, Load<B, Saved>)>,
    /// The server's own answer, in case the replay does not come about. Given up once a newer token is
    /// there and the replay has to wait for a service.
    pub(crate) refusal: Option<Box<Response<ResBody>>>,
}

/// The body of a request that waits.
pub(crate) enum Load<B, Saved> {
    /// It was never sent.
    Body(B),
    /// The replay's is made of this at the last moment: it may end an upload that is still running, and
    /// with it a connection that the refusal's own body comes from.
    Saved(Saved),
}

impl<Saved> Attempt<Saved> {
    pub(crate) fn first(generation: Option<Generation>, origin: u64, kept: Option<Kept<Saved>>) -> Self {
        Self {
            generation,
            origin,
            turn: Turn::First(Slot(ManuallyDrop::new(kept))),
        }
    }

    /// A request that waited is about to be sent. Before the token is put on it.
    pub(crate) fn keep(&mut self, head: &request::Parts) {
        if let Turn::First(kept) = &mut self.turn
            && let Some(kept) = kept.0.as_mut()
            && kept.head.is_unsent()
        {
            kept.head = Head::keep(head);
        }
    }

    /// Where it was sent to.
    pub(crate) fn origin(&self) -> u64 {
        self.origin
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            origin: self.origin,
            route: match &self.turn {
                Turn::First(kept) => kept.0.as_ref().map(|kept| route_of(self.origin, kept.head.path())),
                Turn::Second { route, .. } => *route,
            },
        }
    }

    /// Remembers that the token is good. An error says nothing about it: a gateway's 502 did not look.
    #[inline]
    pub(crate) fn accepted(&self, status: StatusCode, engine: &Engine) {
        if (status.is_success() || status.is_redirection())
            && let Some(generation) = self.generation
        {
            engine.accept(generation, || self.place());
        }
    }

    /// Whether it can be replayed. If so, it stays that way.
    pub(crate) fn hold<B>(&self, replay: &impl Replay<B, Saved = Saved>) -> bool {
        matches!(&self.turn, Turn::First(kept) if kept.0.as_ref().is_some_and(|kept| replay.hold(&kept.body)))
    }

    /// This is the replay from now on. What it is made of, if anything was kept.
    pub(crate) fn again(&mut self) -> Option<(request::Parts, Saved)> {
        let route = self.place().route;
        let refused = self.generation?;
        let Turn::First(kept) = &mut self.turn else { return None };
        let Kept { head, body } = kept.0.take()?;
        let head = head.into_parts()?;
        self.turn = Turn::Second { refused, route };
        self.generation = None;
        Some((head, body))
    }

    /// The token that was refused, once this is the replay.
    pub(crate) fn refused(&self) -> Option<Generation> {
        match self.turn {
            Turn::First(_) => None,
            Turn::Second { refused, .. } => Some(refused),
        }
    }
}

impl<Saved> Drop for Accepted<'_, Saved> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(attempt) = &*self.attempt {
            attempt.accepted(self.status, self.engine);
            // A body that is still being sent need not be recorded any longer.
            *self.attempt = None;
        }
    }
}

impl<T> Slot<T> {
    #[inline(never)]
    fn clear(&mut self) {
        *self.0 = None;
    }
}

impl<T> Drop for Slot<T> {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.clear();
        }
    }
}

impl<B, Saved, ResBody> Paused<B, Saved, ResBody> {
    pub(crate) fn new(head: request::Parts, body: B) -> Self {
        Self {
            request: Some((head, Load::Body(body))),
            refusal: None,
        }
    }

    pub(crate) fn refused(response: Response<ResBody>) -> Self {
        Self {
            request: None,
            refusal: Some(Box::new(response)),
        }
    }

    /// Lets go of everything of the first attempt: what the service waits for may be the connection that
    /// the refusal's unread body holds, or the upload. `false`: there is nothing to replay, and the refusal
    /// is still there.
    pub(crate) fn let_go<R: Replay<T, Body = B, Saved = Saved>, T>(&mut self, replay: &R) -> bool {
        if let Some((head, load)) = self.request.take() {
            let Some(body) = load.into_body(replay) else {
                return false;
            };
            self.request = Some((head, Load::Body(body)));
        }
        self.refusal = None;
        true
    }
}

impl<B, Saved> Load<B, Saved> {
    /// `None`: there is nothing to replay.
    pub(crate) fn into_body<R: Replay<T, Body = B, Saved = Saved>, T>(self, replay: &R) -> Option<B> {
        match self {
            Self::Body(body) => Some(body),
            Self::Saved(saved) => replay.replay(saved),
        }
    }
}
