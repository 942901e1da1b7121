//! The service: [`TokenService`].

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Extensions, HeaderMap, Request, Response, Uri, request, response};
use tower_service::Service;

use crate::attempt::{Attempt, Kept};
use crate::classify::{Classify, Reporter, Unauthorized};
use crate::error::{BoxError, Error, Kind};
use crate::event::{Event, WithoutToken};
use crate::future::ResponseFuture;
use crate::inject::{Authorization, Inject};
use crate::origin::{NoToken, Origins, Outside};
use crate::presentation::{Presentation, Recent, Snapshot};
use crate::provider::TokenRequest;
use crate::replay::{Auto, Head, Replay};
use crate::stripe::{Anchor, Handle, Striped};
use crate::tokens::{Admission, Engine};

/// A service whose requests carry the current token. Made by [`TokenLayer`](crate::TokenLayer).
///
/// Its error is [`BoxError`]: the inner service's own, as it is, or an [`Error`](crate::Error).
///
/// It may be cloned for each request: a clone that stays with its thread writes to nothing that other threads write
/// to, as long as there are no more than eight of them; one that is sent elsewhere counts where it was made. One that is
/// called again and again is a little cheaper, because it remembers what it put on the last request. So the secret of
/// that token stays in memory until the service is called with a newer one, or dropped.
pub struct TokenService<S, R = Auto, C = Unauthorized, I: Inject = Authorization> {
    pub(crate) inner: S,
    core: Handle<Core<S, R, C, I>>,
    recent: Recent<I::Ready>,
}

/// What all clones of a service share: everything but a readied inner service.
pub(crate) struct Core<S, R, C, I: Inject> {
    pub(crate) presentation: Arc<Presentation<I>>,
    /// For response bodies, which outlive the future and do not know these types.
    pub(crate) reporters: Striped<Arc<Reporter>>,
    pub(crate) replay: R,
    pub(crate) classify: C,
    /// As the layer got it. A replay goes to a clone of this, polled ready first: a clone of a service
    /// that was polled ready is not ready, and the one that was may be needed by somebody else.
    prototype: Mutex<S>,
}

/// What the future of a call holds of the core: the [`Anchor`] of its thread's lane, and through it everything.
pub(crate) type Moored<S, R, C, I> = Arc<Anchor<Core<S, R, C, I>>>;

impl<S: Clone, R, C, I: Inject> TokenService<S, R, C, I> {
    pub(crate) fn new(inner: S, presentation: Arc<Presentation<I>>, replay: R, classify: C) -> Self {
        let engine = Arc::downgrade(&presentation.engine);
        let core = Core {
            reporters: Striped::new(|| Arc::new(Reporter { engine: engine.clone() })),
            presentation,
            replay,
            classify,
            prototype: Mutex::new(inner.clone()),
        };
        Self {
            inner,
            core: Handle::new(core),
            recent: Recent::none(),
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

    /// The call of every kind of request: `send` hands the one that is to go out to the inner service.
    #[inline(always)]
    pub(crate) fn call_via<T, B, ResBody>(
        &mut self,
        mut request: Request<B>,
        send: impl FnOnce(&mut S, Request<R::Body>) -> T::Future,
    ) -> ResponseFuture<T, R, C, I, B, ResBody, S>
    where
        S: Adapt<T, ResBody>,
        T: Service<Request<R::Body>>,
        R: Replay<B>,
        C: Classify<ResBody>,
    {
        let core = self.core.settle();
        let Some(origin) = core.destination(request.uri(), request.headers(), request.extensions()) else {
            return self.call_slowly(request, send);
        };
        let presentation = &*core.presentation;
        let Some(snapshot) = presentation.fresh(&mut self.recent) else {
            return self.call_slowly(request, send);
        };
        let generation = Some(snapshot.generation);
        if !core.replay.keeps(&request) {
            // Before it becomes what is sent, so that it is moved once.
            let offered = presentation.offer(snapshot, &mut request);
            let (moored, request) = (core.clone(), core.replay.pass(request));
            if !offered {
                return Self::without_token(&mut self.inner, moored, WithoutToken::CallersOwn, request, send);
            }
            let future = send(&mut self.inner, request);
            return ResponseFuture::sending(moored, future, Some(Attempt::first(generation, origin, None)));
        }
        let Some(body) = core.replay.save(request.body_mut()) else {
            return Self::call_prepared(&mut self.inner, core, snapshot, origin, request, send);
        };
        // Before the token is put on it.
        let head = Head::keep(&request);
        let offered = presentation.offer(snapshot, &mut request);
        let moored = core.clone();
        if !offered {
            drop((head, body));
            let request = moored.replay.pass(request);
            return Self::without_token(&mut self.inner, moored, WithoutToken::CallersOwn, request, send);
        }
        let future = send(&mut self.inner, moored.replay.pass(request));
        let kept = Some(Kept { head, body });
        ResponseFuture::sending(moored, future, Some(Attempt::first(generation, origin, kept)))
    }

    /// A call with a fresh token whose body does not go out as it lies.
    fn call_prepared<T, B, ResBody>(
        inner: &mut S,
        core: &Moored<S, R, C, I>,
        snapshot: &Snapshot<I::Ready>,
        origin: u64,
        request: Request<B>,
        send: impl FnOnce(&mut S, Request<R::Body>) -> T::Future,
    ) -> ResponseFuture<T, R, C, I, B, ResBody, S>
    where
        S: Clone,
        T: Service<Request<R::Body>>,
        R: Replay<B>,
        C: Classify<ResBody>,
    {
        let (mut request, kept) = core.prepare(request, |request| Head::keep(request));
        let offered = core.presentation.offer(snapshot, &mut request);
        let moored = core.clone();
        if !offered {
            drop(kept);
            return Self::without_token(inner, moored, WithoutToken::CallersOwn, request, send);
        }
        let future = send(inner, request);
        ResponseFuture::sending(
            moored,
            future,
            Some(Attempt::first(Some(snapshot.generation), origin, kept)),
        )
    }

    /// A call that gets no token, or whose token is not known to be fresh. Its handle has settled.
    #[cold]
    #[inline(never)]
    fn call_slowly<T, B, ResBody>(
        &mut self,
        request: Request<B>,
        send: impl FnOnce(&mut S, Request<R::Body>) -> T::Future,
    ) -> ResponseFuture<T, R, C, I, B, ResBody, S>
    where
        S: Adapt<T, ResBody>,
        T: Service<Request<R::Body>>,
        R: Replay<B>,
        C: Classify<ResBody>,
    {
        let moored = self.core.anchor().clone();
        let core = &*moored;
        let (head, body) = request.into_parts();
        let destination = core.destination_of(&head);
        let request = Request::from_parts(head, body);
        let origin = match destination {
            Ok(origin) => origin,
            Err(Outside::Elsewhere(reason)) => {
                let request = core.replay.pass(request);
                return Self::without_token(&mut self.inner, moored, reason, request, send);
            }
            Err(Outside::Nowhere) => return self.fail(moored, Error::new(Kind::NoAuthority)),
            Err(Outside::Recursion) => return self.fail(moored, Error::new(Kind::Recursion)),
        };
        match core.engine().admit() {
            Admission::Use(current) => {
                // Kept before the token is put on it.
                let (request, kept) = core.keep(request, |request| Head::keep(request));
                let (mut head, body) = request.into_parts();
                match core.presentation.put(&current, &mut head) {
                    Ok(generation) => {
                        let future = send(&mut self.inner, Request::from_parts(head, body));
                        ResponseFuture::sending(moored, future, Some(Attempt::first(Some(generation), origin, kept)))
                    }
                    Err(error) => self.fail(moored, error),
                }
            }
            Admission::Wait(landing) => {
                // While the request has its head, no copy is needed.
                let (request, kept) = core.keep(request, |_| Head::unsent());
                // Gives back the permit of the service that was polled ready: the fetch may need it.
                self.inner = core.prototype();
                ResponseFuture::waiting(
                    moored,
                    landing,
                    request.into_parts(),
                    Attempt::first(None, origin, kept),
                )
            }
            // Called outside of the runtime that it is polled in, as in `runtime.block_on(api.call(request))`.
            Admission::Deny(error) if error.is_without_runtime() => {
                let (request, kept) = core.keep(request, |_| Head::unsent());
                self.inner = core.prototype();
                ResponseFuture::readying(moored, request.into_parts(), Attempt::first(None, origin, kept))
            }
            Admission::Deny(error) => self.fail(moored, error),
        }
    }

    /// The request goes out as it came.
    #[cold]
    fn without_token<T, B, ResBody>(
        inner: &mut S,
        moored: Moored<S, R, C, I>,
        reason: WithoutToken,
        request: Request<R::Body>,
        send: impl FnOnce(&mut S, Request<R::Body>) -> T::Future,
    ) -> ResponseFuture<T, R, C, I, B, ResBody, S>
    where
        T: Service<Request<R::Body>>,
        R: Replay<B>,
        C: Classify<ResBody>,
    {
        moored.engine().tell(&Event::WithoutToken { reason });
        ResponseFuture::sending(moored, send(inner, request), None)
    }

    /// Answers without the inner service.
    #[cold]
    fn fail<T, B, ResBody>(
        &mut self,
        moored: Moored<S, R, C, I>,
        error: Error,
    ) -> ResponseFuture<T, R, C, I, B, ResBody, S>
    where
        S: Clone,
        T: Service<Request<R::Body>>,
        R: Replay<B>,
        C: Classify<ResBody>,
    {
        self.stand_down();
        ResponseFuture::failed(moored, error)
    }

    /// Gives back the permit that the inner service was polled ready with: a call that is not made must not keep
    /// others waiting.
    #[cold]
    pub(crate) fn stand_down(&mut self)
    where
        S: Clone,
    {
        self.inner = self.core.prototype();
    }
}

/// The inner service as the layer was given it, whose requests go out through `T`: itself, or an adapter of it.
///
/// Not to be named or implemented elsewhere.
pub trait Adapt<T, ResBody>: Clone {
    #[doc(hidden)]
    fn adapt(self) -> T;

    /// Whether the answer comes from elsewhere than the `origin` that the token went to: a redirect has led there.
    #[doc(hidden)]
    fn has_strayed(body: &ResBody, origins: &Origins, origin: u64) -> bool {
        let _ = (body, origins, origin);
        false
    }

    /// Before the body of an answer is looked into, which may use it up.
    #[doc(hidden)]
    fn before_reading(head: &mut response::Parts, body: &ResBody) {
        let _ = (head, body);
    }
}

impl<S: Clone, ResBody> Adapt<S, ResBody> for S {
    #[inline]
    fn adapt(self) -> S {
        self
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
        &self.presentation.engine
    }

    /// The place where the request goes, if the token may go with it.
    #[inline(always)]
    pub(crate) fn destination(&self, uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Option<u64> {
        if !extensions.is_empty() && self.set_aside(extensions).is_err() {
            return None;
        }
        self.presentation.origins.place(uri, headers)
    }

    /// The same, if the caller brought no token of his own; or why it may not.
    fn destination_of(&self, head: &request::Parts) -> Result<u64, Outside> {
        self.set_aside(&head.extensions)?;
        if self.presentation.is_present(head) {
            return Err(Outside::Elsewhere(WithoutToken::CallersOwn));
        }
        self.presentation.origins.check(&head.uri, &head.headers)
    }

    /// What the extensions of a request have to say against the token.
    #[inline(never)]
    fn set_aside(&self, extensions: &Extensions) -> Result<(), Outside> {
        let waited_for = |request: &TokenRequest| request.engine == self.engine().id();
        if extensions.get::<TokenRequest>().is_some_and(waited_for) {
            return Err(Outside::Recursion);
        }
        match extensions.get::<NoToken>() {
            Some(NoToken) => Err(Outside::Elsewhere(WithoutToken::OptedOut)),
            None => Ok(()),
        }
    }

    /// The request as it is sent first, and what a second attempt is made of, if anything is kept.
    fn prepare<B>(
        &self,
        request: Request<B>,
        head_of: impl FnOnce(&Request<R::Body>) -> Head,
    ) -> (Request<R::Body>, Option<Kept<R::Saved>>)
    where
        R: Replay<B>,
    {
        let (head, body) = request.into_parts();
        let (body, saved) = self.replay.prepare(body);
        let request = Request::from_parts(head, body);
        let kept = saved.map(|body| Kept {
            head: head_of(&request),
            body,
        });
        (request, kept)
    }

    /// The same, as far as requests like this are kept.
    fn keep<B>(
        &self,
        request: Request<B>,
        head_of: impl FnOnce(&Request<R::Body>) -> Head,
    ) -> (Request<R::Body>, Option<Kept<R::Saved>>)
    where
        R: Replay<B>,
    {
        match self.replay.keeps(&request) {
            true => self.prepare(request, head_of),
            false => (self.replay.pass(request), None),
        }
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

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.call_via(request, |inner, request| inner.call(request))
    }
}

impl<S: Clone, R, C, I: Inject> Clone for TokenService<S, R, C, I> {
    #[inline]
    fn clone(&self) -> Self {
        // With nothing to drop should the inner service's clone panic, it is cloned to its place. Else it is moved there,
        // and a client has 300 bytes. The panic would leak this handle.
        let core = ManuallyDrop::new(self.core.clone());
        Self {
            inner: self.inner.clone(),
            core: ManuallyDrop::into_inner(core),
            recent: Recent::none(),
        }
    }
}

impl<S: fmt::Debug, R, C, I: Inject> fmt::Debug for TokenService<S, R, C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenService")
            .field("inner", &self.inner)
            .field("tokens", &self.core.presentation.tokens)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Pending, pending};
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::Response;
    use tower::util::ServiceFn;
    use tower::{Layer, service_fn};

    use super::*;
    use crate::{Origins, Token, TokenLayer, Tokens, provider_fn};

    type Never = Pending<Result<Response<()>, Infallible>>;
    type Client = TokenService<ServiceFn<fn(Request<String>) -> Never>>;

    fn client() -> Client {
        client_of(service_fn(|_| pending()))
    }

    fn client_of<S: Clone>(inner: S) -> TokenService<S> {
        let life = std::time::Duration::from_secs(3600);
        let token = move |_| async move { Ok(Token::bearer("test-a").expires_in(life)) };
        let origins = Origins::only("https://api.example.com").unwrap();
        TokenLayer::new(&Tokens::new(provider_fn(token)).unwrap(), origins).layer(inner)
    }

    fn call(client: &mut Client) -> impl Sized + use<> {
        let request = Request::get("https://api.example.com/").body(String::new()).unwrap();
        client.call(request)
    }

    /// Panics when it is cloned, once it is told to.
    struct Touchy(Arc<AtomicBool>);

    impl Clone for Touchy {
        fn clone(&self) -> Self {
            assert!(!self.0.load(Ordering::SeqCst), "as told");
            Self(self.0.clone())
        }
    }

    #[test]
    fn a_clone_that_panics_leaks_one_handle_and_the_service_goes_on() {
        let told = Arc::new(AtomicBool::new(false));
        let client = client_of(Touchy(told.clone()));
        let handles = || client.core.counts()[client.core.lane()];
        told.store(true, Ordering::SeqCst);
        assert!(std::panic::catch_unwind(AssertUnwindSafe(|| client.clone())).is_err());
        told.store(false, Ordering::SeqCst);
        assert_eq!(handles(), 2);
        let another = client.clone();
        assert_eq!(handles(), 3);
        drop(another);
        assert_eq!(handles(), 2);
    }

    fn on_another_thread(act: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(act).join().unwrap());
    }

    #[tokio::test]
    async fn calls_of_a_threads_own_clone_write_to_no_count_of_another_lane() {
        let client = client();
        client.core.presentation.tokens.get().await.unwrap();
        let thread = || {
            let mut own = client.clone();
            // Makes the snapshot of the lane.
            drop(call(&mut own));
            let lane = own.core.lane();
            let before = client.core.counts();
            let mut clone = own.clone();
            let futures = [call(&mut own), call(&mut clone), call(&mut client.clone())];
            let mut during = client.core.counts();
            assert_eq!(during[lane], before[lane] + 1 + futures.len());
            during[lane] = before[lane];
            assert_eq!(during, before);
        };
        // One lane after the other.
        (0..20).for_each(|_| on_another_thread(thread));
    }

    #[test]
    fn a_clone_that_is_called_once_elsewhere_makes_no_anchor_there_though_no_token_is_fresh() {
        let client = client();
        let lane = client.core.lane();
        for _ in 0..20 {
            let mut sent = client.clone();
            let before = client.core.counts();
            on_another_thread(|| {
                let _future = call(&mut sent);
                let mut during = client.core.counts();
                assert_eq!(
                    during[lane],
                    before[lane] + 1,
                    "the future is counted where the clone is"
                );
                during[lane] = before[lane];
                assert_eq!(during, before);
            });
        }
    }
}
