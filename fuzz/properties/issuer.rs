//! An issuer that always answers the same, in the process and at once.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use tower::service_fn;
use tower_token::TokenClient;

/// An answer as a text: a line with the status, a line for each header, an empty one, the body.
///
/// `200 cut` breaks off at the end of its body, `200 hang` never ends. What is no status is a 200, what is no
/// header is left out.
#[derive(Clone)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    ends: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Well,
    Cut,
    Never,
}

impl Answer {
    pub(crate) fn read(text: &[u8]) -> Self {
        let (head, body) = split(text, b"\n\n");
        let (status, fields) = split(head, b"\n");
        let mut words = status.split(|byte| *byte == b' ');
        Self {
            status: words
                .next()
                .and_then(|status| StatusCode::from_bytes(status).ok())
                .unwrap_or_default(),
            headers: fields.split(|byte| *byte == b'\n').filter_map(header).collect(),
            body: Bytes::copy_from_slice(body),
            ends: match words.next() {
                Some(b"cut") => End::Cut,
                Some(b"hang") => End::Never,
                _ => End::Well,
            },
        }
    }

    pub(crate) fn new(status: StatusCode, headers: HeaderMap, body: String) -> Self {
        Self {
            status,
            headers,
            body: body.into(),
            ends: End::Well,
        }
    }

    /// What sends every token request here.
    pub(crate) fn client(self) -> TokenClient {
        TokenClient::new(service_fn(
            move |_: Request<Bytes>| -> Ready<Result<Response<Pieces>, Infallible>> {
                let answer = self.clone();
                let mut response = Response::new(Pieces(answer.body, answer.ends));
                *response.status_mut() = answer.status;
                *response.headers_mut() = answer.headers;
                ready(Ok(response))
            },
        ))
    }
}

/// Before and after the first `separator`.
pub(crate) fn split<'a>(text: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    match text.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (&text[..at], &text[at + separator.len()..]),
        None => (text, b""),
    }
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = split(line, b":");
    let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
    Some((HeaderName::from_bytes(name).ok()?, value))
}

/// A body that comes in pieces.
struct Pieces(Bytes, End);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.0.is_empty() {
            return match self.1 {
                End::Well => Poll::Ready(None),
                End::Cut => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                End::Never => Poll::Pending,
            };
        }
        let length = self.0.len().min(PIECE);
        let piece = self.0.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

const PIECE: usize = 100;
