//! What the contenders are called with.

use http::{HeaderName, Request};

use super::mirror;

/// The requests of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requests {
    /// One with four headers, for all calls.
    Travelling,
    /// A new one with four headers for each call, built from strings.
    Built4,
    /// With twelve.
    Built12,
}

impl Requests {
    /// How a new one is built, if there is one for each call.
    pub(crate) fn build<B>(self) -> Option<fn(B) -> Request<B>> {
        match self {
            Self::Travelling => None,
            Self::Built4 => Some(mirror::request),
            Self::Built12 => Some(twelve),
        }
    }

    /// What is said of a case of theirs.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Travelling => "",
            Self::Built4 => ", 4 headers",
            Self::Built12 => ", 12 headers",
        }
    }
}

fn twelve<B>(body: B) -> Request<B> {
    let mut request = mirror::request(body);
    // And room for one: a table that is full would be made anew for the token, whoever puts it there.
    request.headers_mut().reserve(EIGHT_MORE.len() + 1);
    for (name, value) in EIGHT_MORE {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// Half of them have names that `http` knows, and half names that it has to copy.
const EIGHT_MORE: [(&str, &str); 8] = [
    ("accept-encoding", "gzip, br, zstd"),
    ("accept-language", "en-GB, en;q=0.8, de;q=0.5"),
    ("cache-control", "no-cache"),
    ("if-none-match", "\"9e107d9d372bb6826bd81d3542a419d6\""),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-api-version", "2026-06-01"),
    ("x-tenant", "0190163d-8694-739b"),
    ("idempotency-key", "6f1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f8"),
];
