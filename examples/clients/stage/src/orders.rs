//! An API for clients that bring none of their own, and what those that do need for it.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tower_token::BoxError;

/// The body of an order: some 20 KB, so that it fills more than one frame.
pub fn order() -> Bytes {
    r#"{"article":"tea","pieces":1}"#.repeat(700).into()
}

/// An API that takes [orders](order), to be [served](crate::Stage::serve).
///
/// `POST /orders` is a 201 if the order arrived whole, otherwise a 400; `GET /orders` is a 200.
pub fn orders(request: Request<Bytes>) -> Response<Bytes> {
    let mut response = Response::default();
    *response.status_mut() = match (request.method(), request.uri().path()) {
        (&Method::POST, "/orders") if *request.body() == order() => StatusCode::CREATED,
        (&Method::POST, "/orders") => StatusCode::BAD_REQUEST,
        (&Method::GET, "/orders") => StatusCode::OK,
        _ => StatusCode::NOT_FOUND,
    };
    response
}

/// Whether an order was taken.
///
/// # Errors
///
/// Any status but 201, in words.
pub fn taken(status: StatusCode) -> Result<(), BoxError> {
    match status {
        StatusCode::CREATED => Ok(()),
        other => Err(format!("the order was not taken: {other}").into()),
    }
}

/// An answer in JSON, for servers that speak the API of some client.
pub fn json(status: StatusCode, body: &impl fmt::Display) -> Response<Bytes> {
    let mut response = Response::new(body.to_string().into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
