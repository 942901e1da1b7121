//! The default: [`Auto`] keeps what costs nothing to keep.

use std::any::{Any, TypeId};
use std::fmt;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{Empty, Full};

use super::Replay;

/// Keeps empty bodies (made again by `Default`) and bodies in memory: `Full<Bytes>`, `String`, this crate's own, and
/// with the feature `reqwest` those of reqwest that are no stream. Any other body is sent once.
///
/// No copy is made: `Bytes` are shared. A `String` is the exception.
#[derive(Clone, Copy, Debug, Default)]
pub struct Auto;

/// What [`Auto`] keeps of a body.
pub struct Kept(Kind);

enum Kind {
    Empty,
    Full(Full<Bytes>),
    Text(String),
    #[cfg(feature = "client")]
    Client(crate::provider::client::Body),
    #[cfg(feature = "reqwest")]
    Reqwest(Bytes),
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A body may hold a secret.
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

#[diagnostic::do_not_recommend]
impl<B: Body + Default + 'static> Replay<B> for Auto {
    type Body = B;
    type Saved = Kept;

    #[inline]
    fn keeps(&self, request: &Request<B>) -> bool {
        request.body().is_end_stream() || is_known::<B>()
    }

    #[inline]
    fn pass(&self, request: Request<B>) -> Request<B> {
        request
    }

    #[inline]
    fn prepare(&self, mut body: B) -> (B, Option<Kept>) {
        let kept = kept(&mut body);
        (body, kept)
    }

    #[inline]
    fn save(&self, body: &mut B) -> Option<Kept> {
        kept(body)
    }

    fn replay(&self, saved: Kept) -> Option<B> {
        match saved.0 {
            Kind::Empty => Some(B::default()),
            Kind::Full(full) => back(full),
            Kind::Text(text) => back(text),
            #[cfg(feature = "client")]
            Kind::Client(body) => back(body),
            #[cfg(feature = "reqwest")]
            Kind::Reqwest(bytes) => back(reqwest::Body::from(bytes)),
        }
    }
}

/// Whether such bodies lie in memory.
#[inline]
fn is_known<B: 'static>() -> bool {
    let body = TypeId::of::<B>();
    let known = [
        TypeId::of::<Full<Bytes>>(),
        TypeId::of::<Empty<Bytes>>(),
        TypeId::of::<String>(),
        #[cfg(feature = "client")]
        TypeId::of::<crate::provider::client::Body>(),
        #[cfg(feature = "reqwest")]
        TypeId::of::<reqwest::Body>(),
    ];
    known.contains(&body)
}

#[inline]
fn kept<B: Body + 'static>(body: &mut B) -> Option<Kept> {
    let kind = if body.is_end_stream() {
        Some(Kind::Empty)
    } else {
        shared(body)
    };
    kind.map(Kept)
}

/// A second handle on a body that lies in memory.
fn shared(body: &mut dyn Any) -> Option<Kind> {
    #[cfg(feature = "reqwest")]
    if let Some(body) = body.downcast_mut::<reqwest::Body>() {
        return crate::reqwest::share(body).map(Kind::Reqwest);
    }
    if let Some(full) = body.downcast_ref::<Full<Bytes>>() {
        return Some(Kind::Full(full.clone()));
    }
    #[cfg(feature = "client")]
    if let Some(body) = body.downcast_ref::<crate::provider::client::Body>() {
        return Some(Kind::Client(body.clone()));
    }
    if body.is::<Empty<Bytes>>() {
        return Some(Kind::Empty);
    }
    body.downcast_ref::<String>().map(|text| Kind::Text(text.clone()))
}

/// `T` as the `B` that it is.
fn back<T: 'static, B: 'static>(body: T) -> Option<B> {
    let mut slot = Some(body);
    (&mut slot as &mut dyn Any).downcast_mut::<Option<B>>()?.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again<B: Body + Default + Clone + PartialEqBody + 'static>(body: B) -> Option<B> {
        let (_, kept) = Auto.prepare(body);
        Auto.replay(kept?)
    }

    trait PartialEqBody {}
    impl PartialEqBody for Full<Bytes> {}
    impl PartialEqBody for String {}

    #[test]
    fn bodies_in_memory_are_kept_whole() {
        assert_eq!(again(String::from("abc")).unwrap(), "abc");
        assert_eq!(again(String::new()).unwrap(), "");
        let full = again(Full::new(Bytes::from_static(b"abc"))).unwrap();
        assert_eq!(full.size_hint().exact(), Some(3));
        assert!(again(Full::new(Bytes::new())).unwrap().is_end_stream());
    }

    #[test]
    fn a_body_that_is_neither_empty_nor_known_is_not_kept() {
        #[derive(Default)]
        struct Stream;
        impl Body for Stream {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
                std::task::Poll::Ready(None)
            }
        }
        assert!(Auto.prepare(Stream).1.is_none());
    }
}
