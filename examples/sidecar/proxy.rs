//! One request, from a caller to upstream and back: [`Proxy`].

use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, request};
use hyper::body::{Body as _, Incoming};
use tower::ServiceExt;
use tower_token::{BoxError, Error};

use crate::answer;
use crate::body::{Body, CallerBroke};
use crate::file::Protocol;
use crate::headers;
use crate::pages;
use crate::server::{Gate, Running};
use crate::upstream::{Answer, Lane};

/// The routes, and the clients behind them. Nothing else is ever contacted.
pub(crate) struct Proxy {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) gate: Gate,
    /// Whether what a web page of another site may have sent is refused.
    pub(crate) refuse_pages: bool,
}

impl Proxy {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let is_grpc = answer::is_grpc(request.headers());
        match self.gate.enter() {
            Some(running) => self.forward(request, is_grpc, running).await,
            None => answer::ending(is_grpc),
        }
    }

    // Dropped when the caller leaves, and the request to upstream with it. A fetch that it waited for goes on.
    async fn forward(&self, request: Request<Incoming>, is_grpc: bool, running: Running) -> Response<Body> {
        // A tunnel would end anywhere, and a trace sends back what must not be seen.
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return answer::not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        if self.refuse_pages && pages::is_foreign(request.headers()) {
            let message = "web pages of other sites are not served here, nor names other than localhost";
            return answer::fault(StatusCode::FORBIDDEN, "forbidden", message);
        }
        let path = request.uri().path();
        let Some(lane) = self.lanes.iter().find(|lane| lane.route.matches(path)) else {
            return answer::fault(StatusCode::NOT_FOUND, "no_route", "no route has a prefix of this path");
        };
        let (mut head, body) = request.into_parts();
        if outbound(&mut head, &body, lane).is_err() {
            return answer::fault(
                StatusCode::URI_TOO_LONG,
                "uri_too_long",
                "the URL is too long for upstream",
            );
        }
        let request = Request::from_parts(head, Body::of_caller(body));
        match lane.upstream.clone().oneshot(request).await {
            Ok(answer) => inbound(answer).map(|body| body.while_running(running)),
            Err(error) => failed(&error, &lane.route.token, is_grpc),
        }
    }
}

/// Makes a caller's request one to upstream.
fn outbound(head: &mut request::Parts, body: &Incoming, lane: &Lane) -> Result<(), http::Error> {
    let is_http1 = lane.route.protocol == Protocol::Http1;
    head.uri = lane.route.target(&head.uri)?;
    head.version = if is_http1 { Version::HTTP_11 } else { Version::HTTP_2 };
    // What the server knows of its connection is nothing to upstream's.
    head.extensions.clear();
    // The client writes the one of the URL.
    head.headers.remove(HOST);
    if headers::end_hop(&mut head.headers) {
        headers::ask_for_trailers(&mut head.headers, is_http1);
    }
    if lane.reads_bodies {
        let identity = HeaderValue::from_static("identity");
        head.headers.insert(ACCEPT_ENCODING, identity);
    }
    if is_http1 {
        headers::join_cookies(&mut head.headers);
        let is_bodied = !body.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH);
        if is_bodied && matches!(head.method, Method::GET | Method::HEAD) {
            // Unless told, the client takes it that these have none.
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(TRANSFER_ENCODING, chunked);
        }
    }
    Ok(())
}

/// Makes upstream's response one to the caller.
fn inbound(answer: Answer) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return answer::fault(
            StatusCode::BAD_GATEWAY,
            "upstream_unavailable",
            "upstream changed the protocol unasked",
        );
    }
    head.version = Version::HTTP_11;
    headers::end_hop(&mut head.headers);
    Response::from_parts(head, Body::new(body))
}

/// What the caller is told when there is no answer of upstream's.
fn failed(error: &BoxError, token: &str, is_grpc: bool) -> Response<Body> {
    // Ours alone: one below the client's is that of a body, and no lack of a token.
    match error.downcast_ref::<Error>() {
        Some(error) => answer::no_token(token, error, is_grpc),
        None if CallerBroke::caused(&**error) => {
            let message = "the body ended before its end";
            let mut response = answer::fault(StatusCode::BAD_REQUEST, "body_broken", message);
            answer::last_of_its_connection(&mut response);
            response
        }
        None => answer::unreachable(token, is_grpc),
    }
}
