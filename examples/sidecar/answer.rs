//! The answers that are our own.
//!
//! None holds a secret: the library's errors hold none, and the words of a client's error are never passed
//! on, because they may quote a URL with a token in it.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tower_token::{Class, Error};

use crate::body::Body;

pub(crate) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    text(status, "application/json", format!("{body}\n"))
}

pub(crate) fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn fault(status: StatusCode, error: &str, message: &str) -> Response<Body> {
    json(status, &json!({ "error": error, "message": message }))
}

pub(crate) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(crate) fn not_allowed(allow: &'static str) -> Response<Body> {
    let message = "this method is not served here";
    let mut response = fault(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The program is ending.
pub(crate) fn ending(is_grpc: bool) -> Response<Body> {
    const MESSAGE: &str = "the sidecar is shutting down";
    let mut response = if is_grpc {
        grpc_unavailable(MESSAGE)
    } else {
        fault(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", MESSAGE)
    };
    last_of_its_connection(&mut response);
    response
}

pub(crate) fn last_of_its_connection(response: &mut Response<Body>) {
    // HTTP/2 has no such header; there the connection is ended by a GOAWAY.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

/// Upstream could not be reached, or answered nothing that is HTTP.
pub(crate) fn unreachable(token: &str, is_grpc: bool) -> Response<Body> {
    const MESSAGE: &str = "upstream could not be reached, or did not answer";
    if is_grpc {
        return grpc_unavailable(MESSAGE);
    }
    let body = json!({ "error": "upstream_unavailable", "token": token, "message": MESSAGE });
    json(StatusCode::BAD_GATEWAY, &body)
}

/// There is no token: why, what it means, and when to come again.
pub(crate) fn no_token(token: &str, error: &Error, is_grpc: bool) -> Response<Body> {
    let message = error.to_string();
    if is_grpc {
        return grpc_unavailable(&message);
    }
    let is_busy = error.is_throttled() || error.is_overloaded() || error.is_shut_down();
    let status = if is_busy {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::BAD_GATEWAY
    };
    let body = json!({
        "error": "token_unavailable",
        "class": class(error),
        "reauth_required": error.is_reauth_required(),
        "token": token,
        "message": message,
    });
    let mut response = json(status, &body);
    if is_busy {
        // Rounded up: whoever comes at that second is not early.
        let wait = error
            .retry_after()
            .unwrap_or_default()
            .as_millis()
            .div_ceil(1000)
            .max(1);
        let wait = HeaderValue::from(u64::try_from(wait).unwrap_or(u64::MAX));
        response.headers_mut().insert(RETRY_AFTER, wait);
    }
    response
}

/// The class of an error, in a word.
pub(crate) fn class(error: &Error) -> &'static str {
    match error.class() {
        Some(class) => class_word(class),
        None if error.is_overloaded() => "overloaded",
        None if error.is_config() || error.is_recursion() => "config",
        None if error.is_signed_out() => "needs_interaction",
        // The fetch broke off, or the program is ending.
        None => "transient",
    }
}

pub(crate) fn class_word(class: Class) -> &'static str {
    match class {
        Class::Terminal => "terminal",
        Class::Throttled { .. } => "throttled",
        Class::NeedsInteraction => "needs_interaction",
        Class::Config => "config",
        Class::Ambiguous => "ambiguous",
        // `Transient`, and whatever is added: a later attempt may succeed.
        _ => "transient",
    }
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// UNAVAILABLE in trailers alone, as a gRPC client wants it.
fn grpc_unavailable(message: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("14"));
    // Printable ASCII once encoded, so it is a header value.
    if let Ok(message) = HeaderValue::try_from(percent_encoded(message)) {
        headers.insert("grpc-message", message);
    }
    response
}

/// As gRPC over HTTP/2 has it: all but printable ASCII, and `%` itself.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
