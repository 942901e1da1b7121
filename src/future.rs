//! One request on its way: [`ResponseFuture`].
//!
//! ```text
//! Sending ── Accept ─────────────────────────────► response
//!   ▲  ├──── Inspect ─► Inspecting ─ judged again ─► response
//!   │  └──── Refuse ──► Renewing ─┬─ no ──────────► the same refusal, body untouched
//!   │                             ▼
//! Waiting ──────────────────► Readying
//! ```
//!
//! A call with a fresh token begins in `Sending` and allocates nothing here. What waits is boxed, so
//! that the future of a call that does not wait stays small.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, request, response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::challenge::Challenge;
use crate::classify::{Classify, Verdict};
use crate::error::{BoxError, Error, Kind};
use crate::event::{Event, HandedBack};
use crate::inject::Inject;
use crate::origin::route_of;
use crate::presentation::Boarding;
use crate::replay::{Head, Replay};
use crate::service::{Core, Lane};
use crate::token::Generation;
use crate::tokens::{Landed, Landing, Place, Refusal};

pin_project! {
    /// The response, however many attempts it takes. Named, not boxed; drop it to cancel the request.
    pub struct ResponseFuture<S, R, C, I, B, ResBody>
    where
        S: Service<Request<R::Body>>,
        R: Replay<B>,
        C: Classify<ResBody>,
        I: Inject,
    {
        lane: Arc<Lane<S, R, C, I>>,
        // `None`: the request goes out without the token, and its answer is not judged.
        attempt: Option<Attempt<R::Saved>>,
        #[pin]
        state: State<S::Future, C::Inspecting, Box<Paused<S, R::Body, C::Body>>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, N, P> {
        // No usable token: wait for one, without an inner service.
        Waiting { paused: Option<P>, #[pin] landing: Landing },
        // In the hands of the inner service.
        Sending { #[pin] future: F },
        // The head did not say; the body is looked at.
        Inspecting { head: Option<Box<response::Parts>>, #[pin] inspecting: N },
        // Refused: wait for a newer token.
        Renewing { paused: Option<P>, #[pin] landing: Landing },
        // An inner service is polled ready for the request that was held back.
        Readying { paused: Option<P>, resort: bool },
        Failed { error: Option<Error> },
    }
}

/// A request that carries the token, or will.
pub(crate) struct Attempt<Saved> {
    /// The token it went out with; `None` while it waits for its first.
    generation: Option<Generation>,
    origin: u64,
    kept: Option<Kept<Saved>>,
    /// The token that was refused, once this is the replay.
    refused: Option<Generation>,
    /// Where this is the replay: its route, because the head is no longer kept.
    route: Option<u64>,
}

/// What a replay is made of.
pub(crate) struct Kept<Saved> {
    pub(crate) head: Head,
    pub(crate) body: Saved,
}

/// What a request that waits holds on to.
struct Paused<S, B, ResBody> {
    /// To be polled ready. Made only once a token is there, so that waiting holds no permit.
    service: Option<S>,
    /// The request to go out; for a refused one it is made when the new token is there.
    request: Option<(request::Parts, B)>,
    /// The server's own answer, in case the replay does not come about.
    refusal: Option<Response<ResBody>>,
}

impl<Saved> Attempt<Saved> {
    pub(crate) fn first(generation: Generation, origin: u64, kept: Option<Kept<Saved>>) -> Self {
        Self {
            generation: Some(generation),
            origin,
            kept,
            refused: None,
            route: None,
        }
    }

    fn place(&self) -> Place {
        Place {
            origin: self.origin,
            route: self.route.or_else(|| {
                let kept = self.kept.as_ref()?;
                Some(route_of(self.origin, kept.head.uri()))
            }),
        }
    }
}

impl<S, R, C, I, B, ResBody> ResponseFuture<S, R, C, I, B, ResBody>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    #[inline]
    pub(crate) fn sending(lane: Arc<Lane<S, R, C, I>>, future: S::Future, attempt: Option<Attempt<R::Saved>>) -> Self {
        Self {
            lane,
            attempt,
            state: State::Sending { future },
        }
    }

    #[cold]
    pub(crate) fn waiting(
        lane: Arc<Lane<S, R, C, I>>,
        landing: Landing,
        request: (request::Parts, R::Body),
        origin: u64,
        kept: Option<Kept<R::Saved>>,
    ) -> Self {
        let paused = Paused {
            service: None,
            request: Some(request),
            refusal: None,
        };
        Self {
            lane,
            attempt: Some(Attempt {
                generation: None,
                origin,
                kept,
                refused: None,
                route: None,
            }),
            state: State::Waiting {
                paused: Some(Box::new(paused)),
                landing,
            },
        }
    }

    #[cold]
    pub(crate) fn failed(lane: Arc<Lane<S, R, C, I>>, error: Error) -> Self {
        Self {
            lane,
            attempt: None,
            state: State::Failed { error: Some(error) },
        }
    }
}

impl<S, R, C, I, B, ResBody> Future for ResponseFuture<S, R, C, I, B, ResBody>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    type Output = Result<Response<C::Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let core = &*this.lane.core;
        loop {
            let step = match this.state.as_mut().project() {
                StateProj::Sending { future } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    judge(core, this.attempt, response)
                }
                StateProj::Inspecting { head, inspecting } => {
                    let (verdict, body) = ready!(inspecting.poll(cx));
                    // Taken once: the state is left in this very step.
                    let Some(head) = head.take() else {
                        return Poll::Ready(Err(spent()));
                    };
                    inspected(core, this.attempt, verdict, Response::from_parts(*head, body))
                }
                StateProj::Waiting { paused, landing } => {
                    let landed = ready!(landing.poll(cx));
                    woken(core, paused.take(), landed)
                }
                StateProj::Renewing { paused, landing } => {
                    let landed = ready!(landing.poll(cx));
                    renewed(core, this.attempt, paused.take(), landed)
                }
                StateProj::Readying { paused, resort } => {
                    let resort = *resort;
                    if let Some(service) = paused.as_mut().and_then(|paused| paused.service.as_mut()) {
                        let readied = ready!(service.poll_ready(cx)).map_err(Into::into);
                        send(core, this.attempt, paused.take(), readied, resort)
                    } else {
                        Step::Done(Err(spent()))
                    }
                }
                StateProj::Failed { error } => {
                    let error = error.take().map_or_else(spent, |error| error.into());
                    Step::Done(Err(error))
                }
            };
            match step {
                Step::Done(result) => return Poll::Ready(result),
                Step::Next(next) => this.state.set(next),
            }
        }
    }
}

impl<S, R, C, I, B, ResBody> fmt::Debug for ResponseFuture<S, R, C, I, B, ResBody>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "waiting",
            State::Sending { .. } => "sending",
            State::Inspecting { .. } => "inspecting",
            State::Renewing { .. } => "renewing",
            State::Readying { .. } => "readying",
            State::Failed { .. } => "failed",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

/// What a poll comes to: the end, or another state.
enum Step<T, F, N, P> {
    Done(Result<Response<T>, BoxError>),
    Next(State<F, N, P>),
}

type Steps<S, R, C, B, ResBody> = Step<
    <C as Classify<ResBody>>::Body,
    <S as Service<Request<<R as Replay<B>>::Body>>>::Future,
    <C as Classify<ResBody>>::Inspecting,
    Box<Paused<S, <R as Replay<B>>::Body, <C as Classify<ResBody>>::Body>>,
>;

/// An answer is there: the caller's, one to look into, or a refusal.
#[inline]
fn judge<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    attempt: &mut Option<Attempt<R::Saved>>,
    response: Response<ResBody>,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    let (head, body) = response.into_parts();
    let Some(carrying) = attempt else {
        return Step::Done(Ok(Response::from_parts(head, core.classify.pass(body))));
    };
    match core.classify.head(&head) {
        Verdict::Accept => {
            accepted(core, carrying);
            Step::Done(Ok(Response::from_parts(head, core.classify.pass(body))))
        }
        Verdict::Refuse(challenge) => {
            let response = Response::from_parts(head, core.classify.pass(body));
            refused(core, carrying, challenge, response)
        }
        Verdict::Inspect(limit) => Step::Next(State::Inspecting {
            inspecting: core.classify.inspect(&head, body, limit),
            head: Some(Box::new(head)),
        }),
    }
}

/// The body was looked into.
fn inspected<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    attempt: &mut Option<Attempt<R::Saved>>,
    verdict: Verdict,
    response: Response<C::Body>,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    match (attempt, verdict) {
        (Some(attempt), Verdict::Refuse(challenge)) => refused(core, attempt, challenge, response),
        (Some(attempt), _) => {
            accepted(core, attempt);
            Step::Done(Ok(response))
        }
        (None, _) => Step::Done(Ok(response)),
    }
}

#[inline]
fn accepted<S, R, C, I: Inject, Saved>(core: &Core<S, R, C, I>, attempt: &Attempt<Saved>) {
    let engine = core.presentation.tokens.engine();
    if let Some(generation) = attempt.generation {
        engine.accept(generation);
    }
    if engine.is_tripped()
        && let Some(route) = attempt.place().route
    {
        engine.accept_at(route);
    }
}

/// A server refused the token that this request carried.
#[cold]
fn refused<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    attempt: &mut Attempt<R::Saved>,
    challenge: Challenge,
    response: Response<C::Body>,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    let engine = core.presentation.tokens.engine();
    let Some(generation) = attempt.generation else {
        return Step::Done(Ok(response));
    };
    let hand_back = |reason, response| {
        engine.tell(&Event::HandedBack { generation, reason });
        Step::Done(Ok(response))
    };
    let place = attempt.place();
    if attempt.refused.is_some() {
        engine.refuse_again(place);
        return hand_back(HandedBack::RefusedAgain, response);
    }
    let paused = |response| {
        Box::new(Paused {
            service: None,
            request: None,
            refusal: Some(response),
        })
    };
    match engine.refuse(generation, place, challenge) {
        Refusal::HandBack(reason) => hand_back(reason, response),
        // The next request finds a new token, this one cannot.
        Refusal::Replay | Refusal::Wait(_) if attempt.kept.is_none() => hand_back(HandedBack::NotKept, response),
        Refusal::Replay => again(core, attempt, paused(response)),
        Refusal::Wait(landing) => Step::Next(State::Renewing {
            paused: Some(paused(response)),
            landing,
        }),
    }
}

/// The flight that a refused request waited for has landed.
fn renewed<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    attempt: &mut Option<Attempt<R::Saved>>,
    paused: Option<Box<Paused<S, R::Body, C::Body>>>,
    landed: Landed,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    let (Some(attempt), Some(paused)) = (attempt, paused) else {
        return Step::Done(Err(spent()));
    };
    match landed {
        Landed::Published | Landed::Superseded => again(core, attempt, paused),
        Landed::Failed(error) => give_up(core, attempt.generation, paused, error),
    }
}

/// Makes the refused request again, and an inner service for it.
fn again<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    attempt: &mut Attempt<R::Saved>,
    mut paused: Box<Paused<S, R::Body, C::Body>>,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    let route = attempt.place().route;
    let made = attempt.kept.take().and_then(|Kept { head, body }| {
        let body = core.replay.replay(body)?;
        Some(head.into_request(body).into_parts())
    });
    let Some((head, body)) = made else {
        return give_up(core, attempt.generation, paused, Error::new(Kind::Unreplayable));
    };
    // Checked on every attempt. It passed once, and nothing of it has changed.
    if core.destination(&head).is_err() {
        return give_up(core, attempt.generation, paused, Error::new(Kind::Unreplayable));
    }
    attempt.route = route;
    attempt.refused = attempt.generation.take();
    paused.request = Some((head, body));
    readying(core, paused, false)
}

/// The flight that a request without a token waited for has landed.
fn woken<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    paused: Option<Box<Paused<S, R::Body, C::Body>>>,
    landed: Landed,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    let Some(paused) = paused else {
        return Step::Done(Err(spent()));
    };
    match landed {
        Landed::Published | Landed::Superseded => readying(core, paused, false),
        Landed::Failed(_) if core.presentation.tokens.engine().last_resort().is_some() => readying(core, paused, true),
        Landed::Failed(error) => give_up(core, None, paused, error),
    }
}

fn readying<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    mut paused: Box<Paused<S, R::Body, C::Body>>,
    resort: bool,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    paused.service = Some(core.prototype());
    Step::Next(State::Readying {
        paused: Some(paused),
        resort,
    })
}

/// An inner service is ready: the token is taken now, not when the request was queued.
fn send<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    attempt: &mut Option<Attempt<R::Saved>>,
    paused: Option<Box<Paused<S, R::Body, C::Body>>>,
    readied: Result<(), BoxError>,
    resort: bool,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>> + Clone,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    let (Some(attempt), Some(mut paused)) = (attempt, paused) else {
        return Step::Done(Err(spent()));
    };
    let refused = attempt.refused;
    if let Err(error) = readied {
        return give_up(core, refused, paused, error);
    }
    let engine = core.presentation.tokens.engine();
    let (Some((mut head, body)), Some(mut service)) = (paused.request.take(), paused.service.take()) else {
        return Step::Done(Err(spent()));
    };
    let boarding = match engine.last_resort().filter(|_| resort) {
        Some(current) => core.presentation.put(&current, &mut head),
        None => core.presentation.board(&mut head),
    };
    match boarding {
        Boarding::Aboard(generation) => {
            attempt.generation = Some(generation);
            if let Some(refused) = refused {
                engine.tell(&Event::Replayed { refused, generation });
            }
            Step::Next(State::Sending {
                future: service.call(Request::from_parts(head, body)),
            })
        }
        Boarding::Wait(landing) => {
            // The permit goes back, also here.
            drop(service);
            paused.request = Some((head, body));
            Step::Next(State::Waiting {
                paused: Some(paused),
                landing,
            })
        }
        Boarding::Denied(error) => give_up(core, refused, paused, error),
    }
}

/// No token: a refused request gets the server's own answer, any other the error.
fn give_up<S, R, C, I, B, ResBody>(
    core: &Core<S, R, C, I>,
    refused: Option<Generation>,
    paused: Box<Paused<S, R::Body, C::Body>>,
    error: impl Into<BoxError>,
) -> Steps<S, R, C, B, ResBody>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    let Some(response) = paused.refusal else {
        return Step::Done(Err(error.into()));
    };
    if let Some(generation) = refused {
        let reason = HandedBack::NotRenewed;
        core.presentation
            .tokens
            .engine()
            .tell(&Event::HandedBack { generation, reason });
    }
    Step::Done(Ok(response))
}

/// Polled after it was done; futures may answer that as they like, this one does not panic.
fn spent() -> BoxError {
    Error::new(Kind::Unreplayable).into()
}
