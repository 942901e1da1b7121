//! An HTTP/1.1 connection as a tower service, which hyper leaves to its users.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;
use tower_token::BoxError;

/// One connection, one request at a time. It cannot be cloned.
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects to a host and port.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub async fn open(authority: &Authority) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(authority.as_str()).await?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { requests })
    }
}

impl Service<Request<Full<Bytes>>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Full<Bytes>>) -> Self::Future {
        name_the_host(&mut request);
        Box::pin(self.requests.send_request(request))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// HTTP/1.1 has the host in a header, and the path alone in its first line (RFC 9112 §3.2.1).
fn name_the_host<B>(request: &mut Request<B>) {
    let host = request.uri().authority().map(Authority::as_str);
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
}
