//! The head of a request, kept from before the token was put on it.

use http::{Request, Uri, request};

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

    pub(crate) fn into_request<B>(self, body: B) -> Request<B> {
        Request::from_parts(self.parts, body)
    }
}
