//! The head of a request, kept from before the token was put on it.

use http::{Uri, request};

/// Enough of a head to make the request again: method, URL, version, headers in order, extensions.
pub(crate) struct Head {
    parts: request::Parts,
}

impl Head {
    pub(crate) fn keep(parts: &request::Parts) -> Self {
        Self { parts: parts.clone() }
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    pub(crate) fn into_parts(self) -> request::Parts {
        self.parts
    }
}
