//! One attempt to send a request, and what a request holds on to that waits for the next.

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
    First(Option<Kept<Saved>>),
    /// The replay: the token that was refused, and the route, because the head is no longer kept.
    Second { refused: Generation, route: Option<u64> },
}

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
            turn: Turn::First(kept),
        }
    }

    /// A request that waited is about to be sent. Before the token is put on it.
    pub(crate) fn keep(&mut self, head: &request::Parts) {
        if let Turn::First(Some(kept)) = &mut self.turn
            && kept.head.is_unsent()
        {
            kept.head = Head::keep(head);
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            origin: self.origin,
            route: match &self.turn {
                Turn::First(kept) => kept.as_ref().map(|kept| route_of(self.origin, kept.head.path())),
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
        matches!(&self.turn, Turn::First(Some(kept)) if replay.hold(&kept.body))
    }

    /// This is the replay from now on. What it is made of, if anything was kept.
    pub(crate) fn again(&mut self) -> Option<(request::Parts, Saved)> {
        let route = self.place().route;
        let refused = self.generation?;
        let Turn::First(kept) = &mut self.turn else { return None };
        let Kept { head, body } = kept.take()?;
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

impl<B, Saved, ResBody> Paused<B, Saved, ResBody> {
    pub(crate) fn new(head: request::Parts, body: B) -> Box<Self> {
        Box::new(Self {
            request: Some((head, Load::Body(body))),
            refusal: None,
        })
    }

    pub(crate) fn refused(response: Response<ResBody>) -> Box<Self> {
        Box::new(Self {
            request: None,
            refusal: Some(Box::new(response)),
        })
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
