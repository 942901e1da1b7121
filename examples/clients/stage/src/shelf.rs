//! An API for clients of storage: what is put can be got.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};

/// A server that keeps what it is sent: answer of [`Stage::serve`](crate::Stage::serve).
///
/// `PUT` keeps the body under the request's path and is a 201, `GET` is a 200 with what was put there last, or a
/// 404; anything else is a 405.
pub fn shelf() -> impl Fn(Request<Bytes>) -> Response<Bytes> + Clone + Send + 'static {
    let kept = Arc::new(Mutex::new(HashMap::new()));
    move |request| {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, body) = match head.method {
            Method::PUT => {
                kept.insert(path.to_owned(), body);
                (StatusCode::CREATED, Bytes::new())
            }
            Method::GET => match kept.get(path) {
                Some(body) => (StatusCode::OK, body.clone()),
                None => (StatusCode::NOT_FOUND, Bytes::new()),
            },
            _ => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response
    }
}
