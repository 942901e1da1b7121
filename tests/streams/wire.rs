//! The server behind a socket, and hyper's client for it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::BoxError;

use super::upload::{Boxed, Case, Tally, Upload, Wire, send, send_all};

pub(crate) fn bearer(headers: &HeaderMap) -> String {
    let value = headers.get("authorization").and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or("-")
        .to_owned()
}

/// Comes with each request: has its connection end once that has nothing more to do.
///
/// hyper's HTTP/1.1 server does not pass on trailers that arrive after its answer is complete: the body never ends,
/// and is incomplete once the connection is closed (hyper 1.12.0; it is idle by then, and does not look at the body
/// again). hyper's client in turn does not notice now and then that an upload which was answered early is over, and
/// keeps the connection. So whoever waits for the rest of such an upload has to end the connection.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<Notify>);

impl Ending {
    pub(crate) fn begin(&self) {
        self.0.notify_one();
    }
}

/// Serves HTTP/1.1 and HTTP/2 on loopback until it is dropped.
pub(crate) struct Server {
    pub(crate) origin: String,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Answers every request with `answer`.
    pub(crate) async fn answering<F, Fut, B>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let open = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (answer, open) = (answer.clone(), open.clone());
                open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let ending = Ending::default();
                    let of_each = ending.clone();
                    let service = service_fn(move |mut request: Request<Incoming>| {
                        request.extensions_mut().insert(of_each.clone());
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let mut connection = auto::Builder::new(TokioExecutor::new());
                    // A body that is not read stalls its own upload, not the others on the connection.
                    let mut windows = connection.http2();
                    windows
                        .initial_stream_window_size(64 << 10)
                        .initial_connection_window_size(16 << 20);
                    // Connections that a taken-over upload leaves behind end with an error.
                    let mut connection = std::pin::pin!(connection.serve_connection(TokioIo::new(socket), service));
                    tokio::select! {
                        _ = &mut connection => {}
                        () = ending.0.notified() => {
                            connection.as_mut().graceful_shutdown();
                            connection.await.ok();
                        }
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            origin,
            connections,
            accepting,
        }
    }

    /// Waits until every connection is closed. The caller has to drop its client first.
    ///
    /// Not for ever, and it is no judgement: an upload that blocks in a socket which its server no longer reads
    /// is not polled, so that nothing above hyper can end it, recorded or not. What is left then is printed.
    pub(crate) async fn is_left(&self) {
        for _ in 0..2_000 {
            if self.connections.load(Ordering::SeqCst) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{} connections are still open", self.connections.load(Ordering::SeqCst));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) fn client<B>(wire: Wire) -> Client<HttpConnector, B>
where
    B: Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new())
        .http2_only(wire == Wire::Http2)
        .build_http()
}

/// These uploads over sockets.
pub(crate) async fn over_sockets(wire: Wire, numbers: std::ops::Range<u64>, longest: u64) -> Tally {
    type Cases = Arc<Mutex<HashMap<String, Arc<Case>>>>;
    let cases = Cases::default();
    let known = cases.clone();
    let server = Server::answering(move |request: Request<Incoming>| {
        let number = request.headers()["x-upload"].to_str().unwrap();
        let case = known.lock().unwrap()[number].clone();
        case.attend(request)
    })
    .await;
    let client = client::<Boxed>(wire);
    let tally = send_all(numbers, 16, |number| {
        let (origin, cases) = (server.origin.clone(), cases.clone());
        // HTTP/1.1 with connections of its own: what one upload leaves unread must not come to another.
        let client = if wire == Wire::Http1 {
            super::wire::client(wire)
        } else {
            client.clone()
        };
        async move {
            let upload = Upload::nth(number, longest, wire);
            let inner = |case: &Arc<Case>| {
                cases.lock().unwrap().insert(number.to_string(), case.clone());
                client
            };
            let tally = send(upload, &origin, inner).await;
            cases.lock().unwrap().remove(&number.to_string());
            tally
        }
    })
    .await;
    drop(client);
    server.is_left().await;
    tally
}
