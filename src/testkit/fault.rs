//! What can go wrong with a token request.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// One accident of a token request, scripted with [`Issuer::fault`](super::Issuer::fault).
///
/// What matters to a client is whether the issuer *committed*: whether the presented refresh
/// token is used up and new tokens exist, although the answer tells nothing of it.
///
/// | fault | committed | the client sees |
/// |---|---|---|
/// | [`DropBefore`](Self::DropBefore) | no | a reset connection |
/// | [`DelayBefore`](Self::DelayBefore) | when the delay is over | a late answer |
/// | [`Hang`](Self::Hang) | no | nothing, ever |
/// | [`Status`](Self::Status), [`RetryAfter`](Self::RetryAfter), [`Answer`](Self::Answer), [`Redirect`](Self::Redirect) | no | that answer |
/// | [`DropAfter`](Self::DropAfter) | yes | a reset connection |
/// | [`DelayAfter`](Self::DelayAfter) | before the delay begins | a late answer |
/// | [`StatusAfter`](Self::StatusAfter) | yes | that status |
/// | [`Garbage`](Self::Garbage), [`Truncate`](Self::Truncate) | yes | an answer that cannot be read |
/// | [`Drip`](Self::Drip), [`Huge`](Self::Huge) | yes | a right answer, slow or long |
/// | [`Rewrite`](Self::Rewrite), [`Without`](Self::Without) | yes | an answer with other fields |
///
/// A request that does not commit is not *presented* either: it raises
/// [`token_requests`](super::IssuerCounts::token_requests) and
/// [`faulted`](super::IssuerCounts::faulted) alone.
///
/// `Debug` shows no body and no value of a field, since these may hold tokens.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The request is lost before the issuer acts on it.
    DropBefore,
    /// The issuer acts, and its answer is lost.
    DropAfter,
    /// The issuer acts this much later.
    DelayBefore(Duration),
    /// The issuer acts at once, and its answer comes this much later.
    DelayAfter(Duration),
    /// This status with an empty body; the issuer does not act.
    ///
    /// A number that is no HTTP status (below 100 or above 999) counts as 500.
    Status(u16),
    /// The issuer acts, and a proxy on the way back answers with this status.
    ///
    /// A number that is no HTTP status (below 100 or above 999) counts as 500.
    StatusAfter(u16),
    /// This answer; the issuer does not act.
    Answer {
        /// The HTTP status; a number that is none counts as 500.
        status: u16,
        /// The `Content-Type`; left out if it cannot stand in a header.
        content_type: String,
        /// The body, sent as it is.
        body: Bytes,
    },
    /// This status with `Retry-After`; the issuer does not act.
    RetryAfter {
        /// The HTTP status; a number that is none counts as 500.
        status: u16,
        /// The wait that is asked for.
        seconds: u64,
    },
    /// The issuer acts, and answers 200 with `application/json` that is neither JSON nor UTF-8.
    Garbage,
    /// The issuer acts, and half of its answer arrives: `Content-Length` promises the rest.
    Truncate,
    /// The issuer acts, and each byte of its answer takes this long.
    Drip(Duration),
    /// The issuer acts, and its answer is padded with spaces up to this many bytes. There is no
    /// `Content-Length`, so the size shows only as it is read.
    Huge(usize),
    /// The issuer acts, and these fields replace or join those of its JSON answer.
    ///
    /// A `null` is sent as `null`; [`Without`](Self::Without) removes a field.
    Rewrite(Map<String, Value>),
    /// The issuer acts, and these fields are missing from its JSON answer.
    Without(Vec<String>),
    /// 307 to this `Location`; the issuer does not act.
    ///
    /// A location that cannot stand in a header is left out.
    Redirect(String),
    /// The request is taken and never answered; the issuer does not act.
    Hang,
}

impl Fault {
    /// An [`Answer`](Self::Answer).
    pub fn answer(status: u16, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::Answer {
            status,
            content_type: content_type.into(),
            body: body.into(),
        }
    }

    /// An [`Answer`](Self::Answer) with an OAuth error, such as 400 and `invalid_grant`.
    ///
    /// Source: RFC 6749 §5.2.
    pub fn oauth_error(status: u16, error: &str) -> Self {
        Self::answer(status, "application/json", json!({ "error": error }).to_string())
    }

    /// A [`Rewrite`](Self::Rewrite) with the fields of a JSON object.
    ///
    /// A value that is not an object has no fields and changes nothing.
    ///
    /// ```
    /// # use tower_token::testkit::Fault;
    /// Fault::rewrite(serde_json::json!({ "expires_in": "soon", "scope": null }));
    /// ```
    pub fn rewrite(fields: Value) -> Self {
        match fields {
            Value::Object(fields) => Self::Rewrite(fields),
            _ => Self::Rewrite(Map::new()),
        }
    }

    /// A [`Without`](Self::Without).
    ///
    /// ```
    /// # use tower_token::testkit::Fault;
    /// Fault::without(["refresh_token"]);
    /// ```
    pub fn without<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::Without(names.into_iter().map(Into::into).collect())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropBefore => f.write_str("DropBefore"),
            Self::DropAfter => f.write_str("DropAfter"),
            Self::DelayBefore(delay) => f.debug_tuple("DelayBefore").field(delay).finish(),
            Self::DelayAfter(delay) => f.debug_tuple("DelayAfter").field(delay).finish(),
            Self::Status(status) => f.debug_tuple("Status").field(status).finish(),
            Self::StatusAfter(status) => f.debug_tuple("StatusAfter").field(status).finish(),
            Self::Answer { status, .. } => f.debug_struct("Answer").field("status", status).finish_non_exhaustive(),
            Self::RetryAfter { status, seconds } => f
                .debug_struct("RetryAfter")
                .field("status", status)
                .field("seconds", seconds)
                .finish(),
            Self::Garbage => f.write_str("Garbage"),
            Self::Truncate => f.write_str("Truncate"),
            Self::Drip(every) => f.debug_tuple("Drip").field(every).finish(),
            Self::Huge(len) => f.debug_tuple("Huge").field(len).finish(),
            Self::Rewrite(fields) => f
                .debug_tuple("Rewrite")
                .field(&fields.keys().collect::<Vec<_>>())
                .finish(),
            Self::Without(names) => f.debug_tuple("Without").field(names).finish(),
            // The location may carry a credential in its query.
            Self::Redirect(_) => f.write_str("Redirect"),
            Self::Hang => f.write_str("Hang"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_fields_but_no_values() {
        let faults = [
            Fault::rewrite(json!({ "access_token": "test-canary" })),
            Fault::answer(200, "text/plain", "test-canary"),
            Fault::Redirect("https://a.example/?t=test-canary".into()),
        ];
        let shown = format!("{faults:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("access_token"), "{shown}");
    }

    #[test]
    fn rewriting_with_what_is_no_object_changes_nothing() {
        assert_eq!(Fault::rewrite(json!([1])), Fault::Rewrite(Map::new()));
    }
}
