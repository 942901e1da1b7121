//! Which requests a web page may have sent, in a browser on this machine.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Uri};

/// Whether one of another site sent it, as far as can be seen: by its `Origin`, or because it had its own name point to
/// this machine. Such a page says that name, and could read the answer.
pub(crate) fn is_foreign(headers: &HeaderMap) -> bool {
    !headers.get(ORIGIN).is_none_or(is_here) || !is_addressed(headers)
}

/// Whether `Host` is an address or `localhost`.
pub(crate) fn is_addressed(headers: &HeaderMap) -> bool {
    // HTTP/2 has it in the URL, and no page can speak that without TLS.
    headers.get(HOST).is_none_or(is_here)
}

/// `null`, too, is from elsewhere.
fn is_here(authority: &HeaderValue) -> bool {
    let uri = authority.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    uri.as_ref().and_then(Uri::host).is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
    })
}
