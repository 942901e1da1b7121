//! What belongs to one connection and not to the message (RFC 9110 §7.6.1).

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Takes out what ends at this hop: `Connection` and what it names, `Keep-Alive`, `Proxy-*`, `TE`,
/// `Transfer-Encoding`, `Upgrade`.
///
/// Whether the message's sender takes trailers (`TE: trailers`) is returned, because that goes on.
pub(crate) fn end_hop(headers: &mut HeaderMap) -> bool {
    let takes_trailers = words(headers, &TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    let named: Vec<HeaderName> = words(headers, &CONNECTION)
        .filter_map(|word| word.parse().ok())
        .collect();
    // A length beside chunks is not the body's, and whoever believes it can be made to see two messages in one.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let proxy = headers.keys().filter(|name| name.as_str().starts_with("proxy-"));
    let ours = [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, HTTP2_SETTINGS];
    let gone: Vec<HeaderName> = proxy.cloned().chain(named).chain(ours).collect();
    for name in gone {
        headers.remove(name);
    }
    takes_trailers
}

/// Says that the caller takes trailers. In HTTP/1.1 that has to be named in `Connection` (RFC 9110 §10.1.4).
pub(crate) fn ask_for_trailers(headers: &mut HeaderMap, is_http1: bool) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if is_http1 {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// HTTP/2 may cut `Cookie` into several fields; in HTTP/1.1 there can be one only (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    // Made of header values and a separator, so it is one.
    if let Ok(mut joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        joined.set_sensitive(true);
        headers.insert(COOKIE, joined);
    }
}

/// The members of a list, in all fields of that name.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
