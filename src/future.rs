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
//! A call with a fresh token begins in `Sending` and allocates nothing here. All else is boxed, so that the future of
//! a call that does not wait stays small, and dropping it takes one look at its state.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, request, response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::attempt::{Accepted, Attempt, Load, Paused};
use crate::challenge::Challenge;
use crate::classify::{Classify, Report, Verdict};
use crate::error::{BoxError, Error, Kind};
use crate::event::{Event, HandedBack};
use crate::inject::Inject;
use crate::presentation::Boarding;
use crate::replay::Replay;
use crate::service::{Adapt, Core, Moored};
use crate::tokens::{Landed, Landing, Place, Refusal, unmet};

pin_project! {
    /// The response, however many attempts it takes. Named, not boxed; drop it to cancel the request.
    ///
    /// A refusal that is handed on because no newer token could be had is the server's own, with an
    /// [`Error`](crate::Error) in its extensions that says why.
    ///
    /// `P` is the inner service as the layer was given it, if requests are sent through an adapter of it, `S`.
    ///
    /// The last five parameters follow from the others. They are parameters, and not looked up in the fields, because
    /// the compiler asks within an `async` block whether this is `Send`, and there it cannot look up a service whose
    /// error is [boxed](crate::BoxError).
    pub struct ResponseFuture<
        S, R, C, I, B, ResBody,
        P = S,
        F = <S as Service<Request<<R as Replay<B>>::Body>>>::Future,
        Body = <R as Replay<B>>::Body,
        Saved = <R as Replay<B>>::Saved,
        Answer = <C as Classify<ResBody>>::Body,
        Inspecting = <C as Classify<ResBody>>::Inspecting,
    >
    where
        I: Inject,
    {
        moored: Moored<P, R, C, I>,
        // `None`: the request goes out without the token, and its answer is not judged.
        attempt: Option<Attempt<Saved>>,
        #[pin]
        state: State<F, Aside<S, Inspecting, Paused<Body, Saved, Answer>>>,
        types: PhantomData<fn(B) -> ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, A> {
        // In the hands of the inner service.
        Sending { #[pin] future: F },
        Aside { aside: Pin<Box<A>> },
    }
}

pin_project! {
    #[project = AsideProj]
    enum Aside<S, N, P> {
        // No usable token: wait for one, without an inner service.
        Waiting { paused: Option<P>, #[pin] landing: Landing },
        // The head did not say; the body is looked at.
        Inspecting { head: Option<response::Parts>, #[pin] inspecting: N },
        // Refused: wait for a newer token.
        Renewing { paused: Option<P>, #[pin] landing: Landing },
        // An inner service is polled ready for the request that was held back.
        // Made only now, so that waiting for a token holds no permit.
        Readying { paused: Option<P>, service: Option<Box<S>>, resort: bool },
        Failed { error: Option<Error> },
    }
}

impl<S, R, C, I, B, ResBody, P> ResponseFuture<S, R, C, I, B, ResBody, P>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    #[inline]
    pub(crate) fn sending(moored: Moored<P, R, C, I>, future: S::Future, attempt: Option<Attempt<R::Saved>>) -> Self {
        Self {
            moored,
            attempt,
            state: State::Sending { future },
            types: PhantomData,
        }
    }

    #[cold]
    pub(crate) fn waiting(
        moored: Moored<P, R, C, I>,
        landing: Landing,
        request: (request::Parts, R::Body),
        attempt: Attempt<R::Saved>,
    ) -> Self {
        Self {
            moored,
            attempt: Some(attempt),
            state: State::aside(Aside::Waiting {
                paused: Some(Paused::new(request.0, request.1)),
                landing,
            }),
            types: PhantomData,
        }
    }

    /// Asks for a token once it is polled.
    #[cold]
    pub(crate) fn readying(
        moored: Moored<P, R, C, I>,
        request: (request::Parts, R::Body),
        attempt: Attempt<R::Saved>,
    ) -> Self
    where
        P: Adapt<S, ResBody>,
    {
        let service = moored.prototype().adapt();
        Self {
            moored,
            attempt: Some(attempt),
            state: State::aside(Aside::Readying {
                paused: Some(Paused::new(request.0, request.1)),
                service: Some(service.into()),
                resort: false,
            }),
            types: PhantomData,
        }
    }

    #[cold]
    pub(crate) fn failed(moored: Moored<P, R, C, I>, error: Error) -> Self {
        Self {
            moored,
            attempt: None,
            state: State::aside(Aside::Failed { error: Some(error) }),
            types: PhantomData,
        }
    }
}

impl<S, R, C, I, B, ResBody, P> Future for ResponseFuture<S, R, C, I, B, ResBody, P>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    P: Adapt<S, ResBody>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    type Output = Result<Response<C::Body>, BoxError>;

    /// The short way, because almost every call takes it.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let StateProj::Sending { future } = this.state.project() else {
            return self.poll_slowly(None, cx);
        };
        match future.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(response)) if this.moored.classify.accepts(response.status()) || this.attempt.is_none() => {
                let _accepted = Accepted {
                    attempt: this.attempt,
                    status: response.status(),
                    engine: this.moored.engine(),
                };
                Poll::Ready(Ok(this.moored.classify.pass(response)))
            }
            Poll::Ready(answer) => self.poll_slowly(Some(answer), cx),
        }
    }
}

impl<S, R, C, I, B, ResBody, P> ResponseFuture<S, R, C, I, B, ResBody, P>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    P: Adapt<S, ResBody>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    /// Every other way, from an answer that the inner service has given, or from where it stands.
    #[inline(never)]
    fn poll_slowly(
        self: Pin<&mut Self>,
        mut answer: Option<Result<Response<ResBody>, S::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<<Self as Future>::Output> {
        let mut this = self.project();
        loop {
            let way = Way {
                core: this.moored,
                attempt: this.attempt,
                types: PhantomData,
            };
            let step = match this.state.as_mut().project() {
                StateProj::Sending { future } => match answer.take() {
                    Some(answer) => way.answered(answer),
                    None => way.answered(ready!(future.poll(cx))),
                },
                StateProj::Aside { aside } => ready!(way.goes_on(aside.as_mut(), cx)),
            };
            match step {
                Step::Done(result) => {
                    // What was kept is not needed any more, and a body may wait to be released.
                    *this.attempt = None;
                    return Poll::Ready(result);
                }
                Step::Send(future) => this.state.set(State::Sending { future }),
                Step::Aside(next) => this.state.as_mut().step_aside(next),
            }
        }
    }
}

impl<S, R, C, I, B, ResBody, P> fmt::Debug for ResponseFuture<S, R, C, I, B, ResBody, P>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sending { .. } => "sending",
            State::Aside { aside } => match **aside {
                Aside::Waiting { .. } => "waiting",
                Aside::Inspecting { .. } => "inspecting",
                Aside::Renewing { .. } => "renewing",
                Aside::Readying { .. } => "readying",
                Aside::Failed { .. } => "failed",
            },
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl<F, A> State<F, A> {
    fn aside(aside: A) -> Self {
        Self::Aside { aside: Box::pin(aside) }
    }

    /// In the box that is there, if there is one.
    fn step_aside(mut self: Pin<&mut Self>, next: A) {
        match self.as_mut().project() {
            StateProj::Aside { aside } => aside.set(next),
            _ => self.set(Self::aside(next)),
        }
    }
}

/// What a poll comes to: the end, another attempt, or another wait.
enum Step<T, F, A> {
    Done(Result<Response<T>, BoxError>),
    Send(F),
    Aside(A),
}

type StepOf<S, R, C, B, ResBody> = Step<
    <C as Classify<ResBody>>::Body,
    <S as Service<Request<<R as Replay<B>>::Body>>>::Future,
    AsideOf<S, R, C, B, ResBody>,
>;

type AsideOf<S, R, C, B, ResBody> = Aside<S, <C as Classify<ResBody>>::Inspecting, PausedOf<R, C, B, ResBody>>;

type PausedOf<R, C, B, ResBody> =
    Paused<<R as Replay<B>>::Body, <R as Replay<B>>::Saved, <C as Classify<ResBody>>::Body>;

/// A request between two states.
struct Way<'a, S, R, C, I, B, ResBody, P>
where
    R: Replay<B>,
    I: Inject,
{
    core: &'a Core<P, R, C, I>,
    attempt: &'a mut Option<Attempt<R::Saved>>,
    types: PhantomData<fn(S, B) -> ResBody>,
}

impl<S, R, C, I, B, ResBody, P> Way<'_, S, R, C, I, B, ResBody, P>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    P: Adapt<S, ResBody>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    /// What waits goes on, if what it waits for is there.
    fn goes_on(
        self,
        aside: Pin<&mut AsideOf<S, R, C, B, ResBody>>,
        cx: &mut Context<'_>,
    ) -> Poll<StepOf<S, R, C, B, ResBody>> {
        Poll::Ready(match aside.project() {
            AsideProj::Waiting { paused, landing } => {
                let landed = ready!(landing.poll(cx));
                self.woken(paused.take(), landed)
            }
            AsideProj::Inspecting { head, inspecting } => {
                let (verdict, body) = ready!(inspecting.poll(cx));
                self.inspected(verdict, head.take(), body)
            }
            AsideProj::Renewing { paused, landing } => {
                let landed = ready!(landing.poll(cx));
                self.renewed(paused.take(), landed)
            }
            AsideProj::Readying {
                paused,
                service,
                resort,
            } => match service.as_mut().map(|service| service.poll_ready(cx)) {
                Some(Poll::Ready(Ok(()))) => self.readied(paused.take(), service.take(), *resort),
                Some(Poll::Ready(Err(error))) => self.unready(paused.take(), error.into()),
                Some(Poll::Pending) if self.let_go(paused) => return Poll::Pending,
                _ => self.unreplayable(paused.take()),
            },
            AsideProj::Failed { error } => Step::Done(Err(error.take().map_or_else(spent, BoxError::from))),
        })
    }

    /// An answer that has to be looked at.
    fn answered(self, answer: Result<Response<ResBody>, S::Error>) -> StepOf<S, R, C, B, ResBody> {
        let (mut head, body) = match answer {
            Ok(response) => response.into_parts(),
            Err(error) => return Step::Done(Err(error.into())),
        };
        let classify = &self.core.classify;
        let origins = &self.core.presentation.origins;
        let origin = self.attempt.as_ref().map(Attempt::origin);
        let verdict = match classify.accepts(head.status) {
            true => Verdict::Accept,
            false if origin.is_some_and(|origin| P::has_strayed(&body, origins, origin)) => Verdict::Undecided,
            false => classify.head(&head),
        };
        if let Verdict::Inspect(limit) = verdict
            && let Some(report) = self.report()
        {
            P::before_reading(&mut head, &body);
            return Step::Aside(Aside::Inspecting {
                inspecting: classify.inspect(&head, body, limit, report),
                head: Some(head),
            });
        }
        self.judged(verdict, classify.pass(Response::from_parts(head, body)))
    }

    /// A word on the token that may come when the response was handed on already.
    fn report(&self) -> Option<Report> {
        let attempt = self.attempt.as_ref()?;
        let reporter = self.core.reporters.here().clone();
        Some(Report::new(reporter, attempt.generation?, attempt.place()))
    }

    /// The body was looked into.
    fn inspected(self, verdict: Verdict, head: Option<response::Parts>, body: C::Body) -> StepOf<S, R, C, B, ResBody> {
        match head {
            Some(head) => self.judged(verdict, Response::from_parts(head, body)),
            None => Step::Done(Err(spent())),
        }
    }

    fn judged(self, verdict: Verdict, response: Response<C::Body>) -> StepOf<S, R, C, B, ResBody> {
        match verdict {
            Verdict::Refuse(challenge) => self.refused(challenge, response),
            Verdict::Accept => {
                if let Some(attempt) = self.attempt {
                    attempt.accepted(response.status(), self.core.engine());
                }
                Step::Done(Ok(response))
            }
            Verdict::Undecided | Verdict::Inspect(_) => Step::Done(Ok(response)),
        }
    }

    /// A server refused the token that this request carried.
    #[cold]
    fn refused(self, challenge: Challenge, mut response: Response<C::Body>) -> StepOf<S, R, C, B, ResBody> {
        let engine = self.core.engine();
        let carried = self
            .attempt
            .as_ref()
            .and_then(|attempt| Some((attempt, attempt.generation?)));
        let Some((attempt, generation)) = carried else {
            return Step::Done(Ok(response));
        };
        let hand_back = |reason, response| {
            engine.tell(&Event::HandedBack { generation, reason });
            Step::Done(Ok(response))
        };
        let place = attempt.place();
        if let Some(refused) = attempt.refused() {
            engine.refuse_again((refused, generation), place);
            if let Some(why) = unmet(challenge) {
                response.extensions_mut().insert(why);
            }
            return hand_back(HandedBack::RefusedAgain, response);
        }
        // What cannot be sent again is never refused a second time, so it counts against the origin at once.
        let kept = attempt.hold(&self.core.replay);
        let route = place.route.filter(|_| kept);
        match engine.refuse(generation, Place { route, ..place }, challenge) {
            Refusal::HandBack(reason, why) => {
                if let Some(why) = why {
                    response.extensions_mut().insert(why);
                }
                hand_back(reason, response)
            }
            // The next request finds a new token; this one cannot be sent again.
            Refusal::Replay | Refusal::Wait(_) if !kept => hand_back(HandedBack::NotKept, response),
            Refusal::Replay => self.again(Paused::refused(response)),
            Refusal::Wait(landing) => Step::Aside(Aside::Renewing {
                paused: Some(Paused::refused(response)),
                landing,
            }),
        }
    }

    /// The flight that a refused request waited for has landed.
    fn renewed(self, paused: Option<PausedOf<R, C, B, ResBody>>, landed: Landed) -> StepOf<S, R, C, B, ResBody> {
        match (paused, landed) {
            (None, _) => Step::Done(Err(spent())),
            (Some(paused), Landed::Published | Landed::Superseded) => self.again(paused),
            (Some(paused), Landed::Failed(error)) => self.tokenless(paused.refusal, HandedBack::NotRenewed, error),
        }
    }

    /// Makes the refused request again.
    fn again(self, mut paused: PausedOf<R, C, B, ResBody>) -> StepOf<S, R, C, B, ResBody> {
        match self.attempt.as_mut().and_then(Attempt::again) {
            // Checked on every attempt. It passed once, and nothing of it has changed since.
            Some((head, saved))
                if self
                    .core
                    .destination(&head.uri, &head.headers, &head.extensions)
                    .is_some() =>
            {
                paused.request = Some((head, Load::Saved(saved)));
                self.readying(paused, false)
            }
            _ => self.unreplayable(Some(paused)),
        }
    }

    /// The replay has to wait for its service; whether it can still be sent then.
    fn let_go(&self, paused: &mut Option<PausedOf<R, C, B, ResBody>>) -> bool {
        paused
            .as_mut()
            .is_some_and(|paused| paused.let_go::<R, B>(&self.core.replay))
    }

    fn unreplayable(self, paused: Option<PausedOf<R, C, B, ResBody>>) -> StepOf<S, R, C, B, ResBody> {
        self.give_up(paused.and_then(|paused| paused.refusal), HandedBack::NotKept, spent())
    }

    /// The flight that a request without a token waited for has landed.
    fn woken(self, paused: Option<PausedOf<R, C, B, ResBody>>, landed: Landed) -> StepOf<S, R, C, B, ResBody> {
        match (paused, landed) {
            (None, _) => Step::Done(Err(spent())),
            (Some(paused), Landed::Published | Landed::Superseded) => self.readying(paused, false),
            (Some(paused), Landed::Failed(error)) => match self.core.engine().last_resort() {
                Some(_) => self.readying(paused, true),
                None => self.tokenless(paused.refusal, HandedBack::NotRenewed, error),
            },
        }
    }

    /// A token is there; an inner service has to be made ready for the request.
    fn readying(self, paused: PausedOf<R, C, B, ResBody>, resort: bool) -> StepOf<S, R, C, B, ResBody> {
        Step::Aside(Aside::Readying {
            paused: Some(paused),
            service: Some(self.core.prototype().adapt().into()),
            resort,
        })
    }

    /// An inner service is ready. The token is taken now, not when the request was queued.
    fn readied(
        self,
        paused: Option<PausedOf<R, C, B, ResBody>>,
        service: Option<Box<S>>,
        resort: bool,
    ) -> StepOf<S, R, C, B, ResBody> {
        // The service comes apart from the rest, so that a request that has to wait again holds no permit.
        let (Some(mut paused), Some(mut service)) = (paused, service) else {
            return Step::Done(Err(spent()));
        };
        let Some((mut head, load)) = paused.request.take() else {
            return Step::Done(Err(spent()));
        };
        if let Some(attempt) = &mut *self.attempt {
            attempt.keep(&head);
        }
        let presentation = &self.core.presentation;
        let boarding = match self.core.engine().last_resort().filter(|_| resort) {
            Some(current) => presentation.put(&current, &mut head).into(),
            None => presentation.board(&mut head),
        };
        match boarding {
            Boarding::Aboard(generation) => {
                let Some(body) = load.into_body::<R, B>(&self.core.replay) else {
                    return self.unreplayable(Some(paused));
                };
                if let Some(attempt) = &mut *self.attempt {
                    attempt.generation = Some(generation);
                    if let Some(refused) = attempt.refused() {
                        self.core.engine().tell(&Event::Replayed { refused, generation });
                    }
                }
                Step::Send(service.call(Request::from_parts(head, body)))
            }
            Boarding::Wait(landing) => {
                paused.request = Some((head, load));
                Step::Aside(Aside::Waiting {
                    paused: Some(paused),
                    landing,
                })
            }
            Boarding::Denied(error) => self.tokenless(paused.refusal, HandedBack::NotReady, error),
        }
    }

    /// The inner service is not to be had.
    fn unready(self, paused: Option<PausedOf<R, C, B, ResBody>>, error: BoxError) -> StepOf<S, R, C, B, ResBody> {
        self.give_up(paused.and_then(|paused| paused.refusal), HandedBack::NotReady, error)
    }

    /// There is no token to go out with. A refusal that is handed on says why.
    fn tokenless(
        self,
        refusal: Option<Box<Response<C::Body>>>,
        reason: HandedBack,
        error: Error,
    ) -> StepOf<S, R, C, B, ResBody> {
        let refusal = refusal.map(|mut refusal| {
            refusal.extensions_mut().insert(error.clone());
            refusal
        });
        self.give_up(refusal, reason, error)
    }

    /// No second attempt: a refused request gets the server's own answer, any other the error.
    fn give_up(
        self,
        refusal: Option<Box<Response<C::Body>>>,
        reason: HandedBack,
        error: impl Into<BoxError>,
    ) -> StepOf<S, R, C, B, ResBody> {
        let Some(response) = refusal else {
            return Step::Done(Err(error.into()));
        };
        let refused = self
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.refused().or(attempt.generation));
        if let Some(generation) = refused {
            self.core.engine().tell(&Event::HandedBack { generation, reason });
        }
        Step::Done(Ok(*response))
    }
}

/// What a poll finds that comes after the end, where it does not come to the inner future.
pub(crate) fn spent() -> BoxError {
    Error::new(Kind::Unreplayable).into()
}
