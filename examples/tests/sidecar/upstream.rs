//! Servers behind the sidecar.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tower_token::testkit::Issuer;

use crate::program::{Body, full};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }
}

/// A server that writes down what it was sent.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) at: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Reads all of a request, and answers it with `answer`.
    pub(crate) async fn new(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        let at = serve(move |request| {
            let (log, answer) = (log.clone(), answer.clone());
            Box::pin(async move {
                let (head, body) = request.into_parts();
                let Ok(body) = body.collect().await else {
                    return status(StatusCode::BAD_REQUEST);
                };
                let seen = Seen {
                    method: head.method,
                    target: head.uri.path_and_query().map_or(String::new(), ToString::to_string),
                    version: head.version,
                    headers: head.headers,
                    body: body.to_bytes(),
                };
                log.lock().unwrap().push(seen.clone());
                answer(&seen)
            })
        })
        .await;
        Self { at, seen }
    }

    /// 200 to a request with a token of that issuer, else 401.
    pub(crate) async fn of(issuer: &Issuer) -> Self {
        let issuer = issuer.clone();
        Self::new(move |seen| {
            let token = seen
                .header("authorization")
                .and_then(|value| value.strip_prefix("Bearer "));
            status(if token.is_some_and(|token| issuer.is_alive(token)) {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            })
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.at)
    }

    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().expect("a request").clone()
    }
}

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(full("")).unwrap()
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// HTTP/1.1 and h2c on one port, for as long as the test runs.
pub(crate) async fn serve(
    handler: impl Fn(Request<Incoming>) -> Answering + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let answering = handler(request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    at
}
