//! What is kept of a request, so that it can be sent twice.
//!
//! A request is kept only as far as its body allows: [`Auto`] keeps requests with an empty body or a
//! body in memory, [`CloneBody`] those whose body is `Clone`, [`TryClone`] those that can clone
//! themselves when asked, [`Buffered`] the first bytes of a stream, [`Never`] none. What cannot be kept is
//! sent once: a refusal still renews the token for the next request, and goes to the caller as it came.

mod auto;
mod body;
mod buffered;
mod first;
mod head;
mod page;
mod passage;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use http::{Method, Request};

pub use auto::{Auto, Kept};
pub use body::{Recording, ReplayBody};
pub use buffered::{Buffered, Unboxed};
pub(crate) use head::Head;

/// Keeps a request's body so that it can be sent a second time.
///
/// Pass a strategy to [`TokenLayer::replay`](crate::TokenLayer::replay); the guide has [a
/// table](crate::guide::add_a_client#what-is-sent-twice). One that does not fit the body is a compile error that says
/// what to write instead:
///
/// ```compile_fail,E0277
/// use tower_token::{Auto, Replay};
///
/// struct Upload; // neither `Clone` nor a body with a `Default`
/// fn keeps<B>(_strategy: impl Replay<B>) {}
/// keeps::<Upload>(Auto); // if `Upload` is `Clone`: `.replay(CloneBody)` ...
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make a second copy of the request body `{B}`",
    label = "this replay strategy does not fit the body `{B}`",
    note = "if `{B}` can be made of any other body: `.replay_via(<{B}>::new)`, or what its constructor is called",
    note = "if it can try to clone itself: `.replay(TryClone(<{B}>::try_clone))`; if it is `Clone`: `.replay(CloneBody)`",
    note = "if the inner service takes any body: `.replay(Buffered::unboxed())`",
    note = "if no replay is wanted: `.replay(Never)`; a refusal then still renews the token for the next request",
    note = "`Auto`, the default, wants `B: http_body::Body + Default + 'static`"
)]
pub trait Replay<B> {
    /// The body that the inner service gets; `B` for every strategy that does not wrap it.
    type Body;
    /// What is kept until the answer is there.
    type Saved;

    /// Whether a request like this is kept at all. Default: `true`.
    fn keeps(&self, request: &Request<B>) -> bool {
        let _ = request;
        true
    }

    /// A request that is not kept, as the inner service gets it: mostly with the token on it already.
    fn pass(&self, request: Request<B>) -> Request<Self::Body>;

    /// The body of the first attempt of one that is, and what a second one could be made of. Called before it is known
    /// whether the request can go out.
    fn prepare(&self, body: B) -> (Self::Body, Option<Self::Saved>);

    /// What a second body could be made of, where the first can go out as it lies: the request is then
    /// [passed](Self::pass), which spares it being taken apart. Default: `None`, and the body is
    /// [prepared](Self::prepare).
    fn save(&self, body: &mut B) -> Option<Self::Saved> {
        let _ = body;
        None
    }

    /// The request was refused, and a newer token is waited for. `false`: it cannot be replayed, and the
    /// refusal goes to the caller at once. What would spoil a replay meanwhile has to stop, until
    /// [`replay`](Self::replay) is called or `saved` is dropped. Default: `true`.
    fn hold(&self, saved: &Self::Saved) -> bool {
        let _ = saved;
        true
    }

    /// The body of the second attempt; `None` hands the refusal to the caller.
    fn replay(&self, saved: Self::Saved) -> Option<Self::Body>;
}

/// Clones the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

#[diagnostic::do_not_recommend]
impl<B: Clone> Replay<B> for CloneBody {
    type Body = B;
    type Saved = B;

    #[inline]
    fn pass(&self, request: Request<B>) -> Request<B> {
        request
    }

    fn prepare(&self, body: B) -> (B, Option<B>) {
        let saved = body.clone();
        (body, Some(saved))
    }

    #[inline]
    fn save(&self, body: &mut B) -> Option<B> {
        Some(body.clone())
    }

    fn replay(&self, saved: B) -> Option<B> {
        Some(saved)
    }
}

/// Asks the body for a clone, which it may decline: `TryClone(kube::client::Body::try_clone)`.
///
/// A body that declines is sent once.
pub struct TryClone<B>(
    /// What makes the clone.
    pub fn(&B) -> Option<B>,
);

impl<B> Replay<B> for TryClone<B> {
    type Body = B;
    type Saved = B;

    #[inline]
    fn pass(&self, request: Request<B>) -> Request<B> {
        request
    }

    fn prepare(&self, body: B) -> (B, Option<B>) {
        let saved = (self.0)(&body);
        (body, saved)
    }

    fn replay(&self, saved: B) -> Option<B> {
        Some(saved)
    }
}

impl<B> Clone for TryClone<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for TryClone<B> {}

impl<B> fmt::Debug for TryClone<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryClone").finish_non_exhaustive()
    }
}

/// Keeps nothing, and asks nothing of the body: a refusal goes to the caller, and renews the token for the next request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl<B> Replay<B> for Never {
    type Body = B;
    type Saved = std::convert::Infallible;

    #[inline]
    fn pass(&self, request: Request<B>) -> Request<B> {
        request
    }

    #[inline]
    fn prepare(&self, body: B) -> (B, Option<Self::Saved>) {
        (body, None)
    }

    fn replay(&self, saved: Self::Saved) -> Option<B> {
        match saved {}
    }

    #[inline]
    fn keeps(&self, _: &Request<B>) -> bool {
        false
    }
}

/// Another strategy, for requests of some methods only. See [`TokenLayer::methods`](crate::TokenLayer::methods).
#[derive(Clone, Debug)]
pub struct Methods<R> {
    replay: R,
    methods: Arc<[Method]>,
}

impl<R> Methods<R> {
    /// `replay` for requests of these methods, and [`Never`] for the rest.
    pub fn new(replay: R, methods: impl IntoIterator<Item = Method>) -> Self {
        Self {
            replay,
            methods: methods.into_iter().collect(),
        }
    }
}

impl<B, R: Replay<B>> Replay<B> for Methods<R> {
    type Body = R::Body;
    type Saved = R::Saved;

    #[inline]
    fn pass(&self, request: Request<B>) -> Request<R::Body> {
        self.replay.pass(request)
    }

    fn prepare(&self, body: B) -> (R::Body, Option<R::Saved>) {
        self.replay.prepare(body)
    }

    #[inline]
    fn save(&self, body: &mut B) -> Option<R::Saved> {
        self.replay.save(body)
    }

    fn hold(&self, saved: &R::Saved) -> bool {
        self.replay.hold(saved)
    }

    fn replay(&self, saved: R::Saved) -> Option<R::Body> {
        self.replay.replay(saved)
    }

    #[inline]
    fn keeps(&self, request: &Request<B>) -> bool {
        self.methods.contains(request.method()) && self.replay.keeps(request)
    }
}

/// A strategy that another may take the place of: any of this crate's but [`Methods`].
///
/// A trait of its own only so that the compiler says what to do where a limit would be lost without a word:
///
/// ```compile_fail,E0277
/// use http::Method;
/// # use tower_token::CloneBody;
///
/// # fn layer(layer: tower_token::TokenLayer) {
/// layer.methods([Method::GET]).replay(CloneBody); // call `.methods(..)` after ...
/// # }
/// ```
///
/// Implement it for a strategy of your own if layers that have it are given another.
#[diagnostic::on_unimplemented(
    message = "another strategy cannot take the place of `{Self}`",
    label = "what it limits would be lost",
    note = "call `.methods(..)` after `.replay(..)` or `.replay_via(..)`",
    note = "if `{Self}` is a strategy of your own that limits nothing: implement `Replaceable` for it"
)]
pub trait Replaceable {}

impl Replaceable for Auto {}
impl Replaceable for CloneBody {}
impl<B> Replaceable for TryClone<B> {}
impl<B> Replaceable for Buffered<B> {}
impl Replaceable for Unboxed {}
impl Replaceable for Never {}

#[cfg(test)]
mod methods {
    use super::*;

    #[test]
    fn methods_keep_only_theirs() {
        let keeps = |method: Method| {
            let request = Request::builder().method(method).body(()).unwrap();
            Methods::new(CloneBody, [Method::GET, Method::HEAD]).keeps(&request)
        };
        assert!(keeps(Method::GET) && keeps(Method::HEAD));
        assert!(!keeps(Method::POST));
    }
}
