//! The service: [`TokenService`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Request, Response, request};
use tower_service::Service;

use crate::attempt::{Attempt, Kept};
use crate::classify::{Classify, Reporter, Unauthorized};
use crate::error::{BoxError, Error, Kind};
use crate::event::{Event, WithoutToken};
use crate::future::ResponseFuture;
use crate::inject::{Authorization, Inject};
use crate::origin::{NoToken, Outside};
use crate::presentation::{Boarding, Presentation};
use crate::provider::TokenRequest;
use crate::replay::{Auto, Head, Replay};
use crate::stripe::Striped;
use crate::tokens::Engine;

/// A service whose requests carry the current token. Made by [`TokenLayer`](crate::TokenLayer).
///
/// Its error is [`BoxError`]: the inner service's own, as it is, or an [`Error`](crate::Error).
pub struct TokenService<S, R = Auto, C = Unauthorized, I: Inject = Authorization> {
    inner: S,
    handle: Arc<Lanes<S, R, C, I>>,
}

type Lanes<S, R, C, I> = Striped<Arc<Lane<S, R, C, I>>>;

/// What all clones of a service share: everything but a readied inner service.
pub(crate) struct Core<S, R, C, I: Inject> {
    pub(crate) presentation: Arc<Presentation<I>>,
    pub(crate) replay: R,
    pub(crate) classify: C,
    /// As the layer got it. A replay goes to a clone of this, polled ready first: a clone of a service
    /// that was polled ready is not ready, and the one that was may be needed by somebody else.
    prototype: Mutex<S>,
}

/// A handle on the core whose reference count only the threads of one lane write to.
#[repr(align(128))]
pub(crate) struct Lane<S, R, C, I: Inject> {
    pub(crate) core: Arc<Core<S, R, C, I>>,
    /// For response bodies, which outlive the future and do not know these types.
    pub(crate) reporter: Arc<Reporter>,
}

impl<S: Clone, R, C, I: Inject> TokenService<S, R, C, I> {
    pub(crate) fn new(inner: S, presentation: Arc<Presentation<I>>, replay: R, classify: C) -> Self {
        let core = Arc::new(Core {
            presentation,
            replay,
            classify,
            prototype: Mutex::new(inner.clone()),
        });
        let lane = || Lane {
            core: core.clone(),
            reporter: Arc::new(Reporter {
                engine: Arc::downgrade(core.engine()),
            }),
        };
        Self {
            inner,
            handle: Arc::new(Striped::new(|| Arc::new(lane()))),
        }
    }
}

impl<S, R, C, I: Inject> TokenService<S, R, C, I> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Answers without the inner service, which gives back the permit that it was polled ready with:
    /// a call that was not made must not keep others waiting.
    #[cold]
    fn fail<B, ResBody>(&mut self, lane: Arc<Lane<S, R, C, I>>, error: Error) -> ResponseFuture<S, R, C, I, B, ResBody>
    where
        S: Service<Request<R::Body>> + Clone,
        R: Replay<B>,
        C: Classify<ResBody>,
    {
        self.inner = lane.core.prototype();
        ResponseFuture::failed(lane, error)
    }
}

impl<S: Clone, R, C, I: Inject> Core<S, R, C, I> {
    /// A service that nobody has polled.
    pub(crate) fn prototype(&self) -> S {
        self.prototype.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S, R, C, I: Inject> Core<S, R, C, I> {
    #[inline]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.presentation.tokens.engine()
    }

    /// Where the request goes, if the token may go with it.
    #[inline]
    pub(crate) fn destination(&self, head: &request::Parts) -> Result<u64, Outside> {
        if !head.extensions.is_empty() && head.extensions.get::<NoToken>().is_some() {
            return Err(Outside::Elsewhere(WithoutToken::OptedOut));
        }
        if self.presentation.is_present(head) {
            return Err(Outside::Elsewhere(WithoutToken::CallersOwn));
        }
        self.presentation.origins.check(head)
    }

    /// Whether this is the request that our own token waits for.
    #[inline]
    fn is_recursion(&self, head: &request::Parts) -> bool {
        !head.extensions.is_empty()
            && head
                .extensions
                .get::<TokenRequest>()
                .is_some_and(|request| request.engine == self.engine().id())
    }
}

impl<S, R, C, I, B, ResBody> Service<Request<B>> for TokenService<S, R, C, I>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
    C: Classify<ResBody>,
    I: Inject,
{
    type Response = Response<C::Body>;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, C, I, B, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let lane = self.handle.here().clone();
        let core = &*lane.core;
        let (mut head, body) = request.into_parts();
        if core.is_recursion(&head) {
            return self.fail(lane, Error::new(Kind::Recursion));
        }
        let origin = match core.destination(&head) {
            Ok(origin) => origin,
            Err(Outside::Nowhere) => return self.fail(lane, Error::new(Kind::NoAuthority)),
            Err(Outside::Elsewhere(reason)) => {
                core.engine().tell(&Event::WithoutToken { reason });
                let future = self.inner.call(Request::from_parts(head, core.replay.pass(body)));
                return ResponseFuture::sending(lane, future, None);
            }
        };
        // Kept before the token is put on it.
        let (body, kept) = if core.replay.keeps(&head) {
            let (body, saved) = core.replay.prepare(body);
            (body, saved.map(|body| Kept::boxed(Head::keep(&head), body)))
        } else {
            (core.replay.pass(body), None)
        };
        match core.presentation.board(&mut head) {
            Boarding::Aboard(generation) => {
                let future = self.inner.call(Request::from_parts(head, body));
                ResponseFuture::sending(lane, future, Some(Attempt::first(Some(generation), origin, kept)))
            }
            Boarding::Wait(landing) => {
                // Gives back the permit of the service that was polled ready: the fetch may need it.
                self.inner = core.prototype();
                ResponseFuture::waiting(lane, landing, (head, body), origin, kept)
            }
            Boarding::Denied(error) => self.fail(lane, error),
        }
    }
}

impl<S: Clone, R, C, I: Inject> Clone for TokenService<S, R, C, I> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            handle: self.handle.clone(),
        }
    }
}

impl<S: fmt::Debug, R, C, I: Inject> fmt::Debug for TokenService<S, R, C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenService")
            .field("inner", &self.inner)
            .field("tokens", &self.handle.here().core.presentation.tokens)
            .finish_non_exhaustive()
    }
}
