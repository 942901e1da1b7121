//! Was it refused? [`Classify`] says, with [`Unauthorized`] as the default.

mod body_code;
mod grpc;
mod peeked;
mod pointer;
mod report;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Response, StatusCode, response};

use crate::challenge::Challenge;

pub use body_code::BodyCode;
pub use grpc::Grpc;
pub use peeked::{Inspecting, InspectingVia, Peeked, Via};
pub use report::Report;
pub(crate) use report::Reporter;

/// Tells a refused token from every other answer.
///
/// Most classifiers look at the head alone and leave the body as it is: use [`classify_fn`], or set
/// `Body = B` and `Inspecting = std::future::Ready<(Verdict, B)>`. One that has to look into the body
/// answers [`Verdict::Inspect`] for candidates, reads a bounded prefix in [`inspect`](Self::inspect)
/// ([`Peeked::read`] does that), and hands on a body that begins with it. The guide has a page on
/// [writing one](crate::guide::write_a_classifier).
pub trait Classify<B> {
    /// The response body that callers get.
    type Body;
    /// Reads what [`Verdict::Inspect`] asked for.
    type Inspecting: Future<Output = (Verdict, Self::Body)>;

    /// Whether every response of this status is [accepted](Verdict::Accept), so that nothing else of it is looked
    /// at: where this says yes, [`head`](Self::head) is never asked, and should say the same. What most responses have
    /// is best answered here. Default: `false`.
    fn accepts(&self, status: StatusCode) -> bool {
        let _ = status;
        false
    }

    /// What the head says.
    fn head(&self, head: &response::Parts) -> Verdict;

    /// A response that is not inspected, refused or not, as callers get it.
    fn pass(&self, response: Response<B>) -> Response<Self::Body>;

    /// What the first `limit` bytes of the body say. [`Verdict::Inspect`] counts as
    /// [`Verdict::Undecided`] here. Whatever the verdict, the body handed on is the whole one.
    ///
    /// `report` is for what shows only later, when the caller has the response already: too late for a
    /// replay, but the next request then goes out with a new token. Most have no use for it.
    fn inspect(&self, head: &response::Parts, body: B, limit: usize, report: Report) -> Self::Inspecting;
}

/// What [`Classify`] says of a response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// Not a refusal of the token: the caller's business. With a status of 2xx or 3xx, the token is known
    /// to be good.
    Accept,
    /// The caller's business too, and it says nothing of the token.
    Undecided,
    /// The token was refused, with this challenge ([`Challenge::none`] if the server gave none).
    Refuse(Challenge),
    /// The head does not say; look at so many bytes of the body at most.
    Inspect(usize),
}

/// The default: 401, read as RFC 6750 §3 and RFC 9110 §11.6.1 have it.
///
/// | 401 with | verdict |
/// |---|---|
/// | a Bearer challenge with `invalid_token` or without an error | refused: renew, replay |
/// | no `WWW-Authenticate`, or an empty one | refused, unless [`bare`](Self::bare) says otherwise |
/// | a Bearer challenge with `insufficient_user_authentication` (RFC 9470) or `insufficient_claims` | refused: the provider is asked once |
/// | a Bearer challenge with `invalid_request`, `insufficient_scope` or `use_dpop_nonce` | handed on |
/// | challenges of other schemes only | handed on |
///
/// Of several Bearer challenges the first with an error decides. 403 and everything else is handed on.
#[derive(Clone, Debug)]
pub struct Unauthorized {
    // A clone of what most have writes to no count that cores share.
    scheme: Cow<'static, str>,
    bare: bool,
}

impl Default for Unauthorized {
    fn default() -> Self {
        Self::new()
    }
}

impl Unauthorized {
    /// Challenges of scheme `Bearer`; a 401 without any challenge counts as a refusal.
    pub fn new() -> Self {
        Self {
            scheme: "Bearer".into(),
            bare: true,
        }
    }

    /// Looks at challenges of this scheme instead, in any case. Default: `Bearer`.
    #[must_use]
    pub fn scheme(mut self, scheme: &str) -> Self {
        self.scheme = scheme.to_owned().into();
        self
    }

    /// Whether a 401 without `WWW-Authenticate` (which RFC 9110 forbids), or with an empty one, is a refusal. Default:
    /// `true`.
    #[must_use]
    pub fn bare(mut self, refused: bool) -> Self {
        self.bare = refused;
        self
    }

    #[cold]
    fn challenged(&self, headers: &HeaderMap, bare: bool) -> Verdict {
        // An empty list is none (RFC 9110 §5.6.1); what cannot be read is a challenge, if of no scheme that we know.
        let is_blank = |field: &HeaderValue| field.as_bytes().iter().all(|byte| b", \t".contains(byte));
        if headers.get_all(WWW_AUTHENTICATE).iter().all(is_blank) {
            return match bare {
                true => Verdict::Refuse(Challenge::none()),
                false => Verdict::Accept,
            };
        }
        let mut ours = Challenge::parse_all(headers);
        ours.retain(|challenge| challenge.is_scheme(&self.scheme));
        let deciding = ours
            .iter()
            .position(|challenge| challenge.error().is_some())
            .unwrap_or(0);
        if deciding >= ours.len() {
            return Verdict::Accept;
        }
        let challenge = ours.swap_remove(deciding);
        match challenge.error() {
            Some("invalid_request" | "insufficient_scope" | "use_dpop_nonce") => Verdict::Accept,
            _ => Verdict::Refuse(challenge),
        }
    }
}

impl<B> Classify<B> for Unauthorized {
    type Body = B;
    type Inspecting = Ready<(Verdict, B)>;

    #[inline]
    fn accepts(&self, status: StatusCode) -> bool {
        status != StatusCode::UNAUTHORIZED
    }

    #[inline]
    fn head(&self, head: &response::Parts) -> Verdict {
        if Classify::<B>::accepts(self, head.status) {
            Verdict::Accept
        } else {
            self.challenged(&head.headers, self.bare)
        }
    }

    #[inline]
    fn pass(&self, response: Response<B>) -> Response<B> {
        response
    }

    fn inspect(&self, _: &response::Parts, body: B, _: usize, _: Report) -> Self::Inspecting {
        ready((Verdict::Undecided, body))
    }
}

/// A refusal by status alone, for APIs that answer 419 or a 403 of their own.
///
/// ```
/// use http::StatusCode;
/// use tower_token::StatusIn;
///
/// let refused = StatusIn::new([StatusCode::UNAUTHORIZED, StatusCode::from_u16(419)?]);
/// # Ok::<(), http::status::InvalidStatusCode>(())
/// ```
#[derive(Clone, Debug)]
pub struct StatusIn {
    refused: Arc<[StatusCode]>,
}

impl StatusIn {
    /// Responses with these statuses are refusals, and all others are handed on.
    pub fn new(refused: impl IntoIterator<Item = StatusCode>) -> Self {
        Self {
            refused: refused.into_iter().collect(),
        }
    }
}

impl<B> Classify<B> for StatusIn {
    type Body = B;
    type Inspecting = Ready<(Verdict, B)>;

    #[inline]
    fn accepts(&self, status: StatusCode) -> bool {
        !self.refused.contains(&status)
    }

    fn head(&self, head: &response::Parts) -> Verdict {
        if Classify::<B>::accepts(self, head.status) {
            Verdict::Accept
        } else {
            Verdict::Refuse(Challenge::none())
        }
    }

    #[inline]
    fn pass(&self, response: Response<B>) -> Response<B> {
        response
    }

    fn inspect(&self, _: &response::Parts, body: B, _: usize, _: Report) -> Self::Inspecting {
        ready((Verdict::Undecided, body))
    }
}

/// A classifier from a closure over the head.
///
/// ```
/// use tower_token::{classify_fn, Challenge, Verdict};
///
/// let classify = classify_fn(|head| match head.status.as_u16() {
///     419 => Verdict::Refuse(Challenge::none()),
///     _ => Verdict::Accept,
/// });
/// # let _ = classify;
/// ```
pub fn classify_fn<F: Fn(&response::Parts) -> Verdict>(head: F) -> ClassifyFn<F> {
    ClassifyFn { head }
}

/// A [`Classify`] that is a closure. Made by [`classify_fn`].
#[derive(Clone, Copy)]
pub struct ClassifyFn<F> {
    head: F,
}

impl<F> fmt::Debug for ClassifyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifyFn").finish_non_exhaustive()
    }
}

impl<F: Fn(&response::Parts) -> Verdict, B> Classify<B> for ClassifyFn<F> {
    type Body = B;
    type Inspecting = Ready<(Verdict, B)>;

    fn head(&self, head: &response::Parts) -> Verdict {
        (self.head)(head)
    }

    #[inline]
    fn pass(&self, response: Response<B>) -> Response<B> {
        response
    }

    fn inspect(&self, _: &response::Parts, body: B, _: usize, _: Report) -> Self::Inspecting {
        ready((Verdict::Undecided, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(classify: &Unauthorized, status: u16, challenges: &[&str]) -> Option<String> {
        let mut response = http::Response::builder().status(status);
        for challenge in challenges {
            response = response.header(WWW_AUTHENTICATE, *challenge);
        }
        let (head, ()) = response.body(()).unwrap().into_parts();
        match Classify::<()>::head(classify, &head) {
            Verdict::Refuse(challenge) => Some(challenge.error().unwrap_or("-").to_owned()),
            _ => None,
        }
    }

    #[test]
    fn a_401_is_read_as_the_table_says() {
        let default = Unauthorized::new();
        for (challenges, refused) in [
            (&[][..], Some("-")),
            (&["Bearer"], Some("-")),
            (&["Bearer error=\"invalid_token\""], Some("invalid_token")),
            (&["bearer realm=\"x\""], Some("-")),
            (
                &["Basic realm=\"x\", Bearer error=\"invalid_token\""],
                Some("invalid_token"),
            ),
            (&["Basic realm=\"x\"", "Bearer"], Some("-")),
            (
                &["Bearer realm=\"a\"", "Bearer error=\"invalid_token\""],
                Some("invalid_token"),
            ),
            (
                &["Bearer error=\"invalid_token\", Bearer error=\"invalid_request\""],
                Some("invalid_token"),
            ),
            (&["Bearer error=\"insufficient_claims\""], Some("insufficient_claims")),
            (
                &["Bearer error=\"insufficient_user_authentication\", acr_values=\"x\""],
                Some("insufficient_user_authentication"),
            ),
            (&["Bearer error=\"expired_token\""], Some("expired_token")),
            (
                &["Negotiate YIIabc==, Bearer error=\"invalid_token\""],
                Some("invalid_token"),
            ),
            (&["Bearer error=\"invalid_request\""], None),
            (&["Bearer error=\"insufficient_scope\""], None),
            (&["Bearer error=\"use_dpop_nonce\""], None),
            (&["DPoP error=\"use_dpop_nonce\""], None),
            (&["Basic realm=\"x\""], None),
            (&[""], Some("-")),
            (&["", " , "], Some("-")),
            (&["", "Basic realm=\"x\""], None),
        ] {
            assert_eq!(verdict(&default, 401, challenges).as_deref(), refused, "{challenges:?}");
        }
    }

    #[test]
    fn a_403_and_every_other_status_is_handed_on() {
        for status in [200, 302, 400, 403, 407, 419, 500, 503] {
            let challenge = &["Bearer error=\"invalid_token\""];
            assert_eq!(verdict(&Unauthorized::new(), status, challenge), None, "{status}");
        }
    }

    #[test]
    fn a_bare_401_and_the_scheme_can_be_set() {
        assert_eq!(verdict(&Unauthorized::new().bare(false), 401, &[]), None);
        let token = Unauthorized::new().scheme("Token");
        assert_eq!(verdict(&token, 401, &["token error=\"x\""]).as_deref(), Some("x"));
        assert_eq!(verdict(&token, 401, &["Bearer"]), None);
    }
}
