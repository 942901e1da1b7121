//! Ports, connections, and the end of both.
//!
//! One port speaks HTTP/1.1 and HTTP/2 with prior knowledge. It ends in three steps: the [`Gate`] closes, and
//! requests are answered 503 from then on; those that run come to their end; the connections are closed.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::body::Body;

/// Held by whoever runs; all are gone when the last one is.
pub(crate) type Running = mpsc::Sender<Infallible>;

/// Lets requests in until it is closed.
#[derive(Debug)]
pub(crate) struct Gate {
    running: Mutex<Option<Running>>,
}

impl Gate {
    pub(crate) fn new(running: Running) -> Self {
        Self {
            running: Mutex::new(Some(running)),
        }
    }

    /// `None` once it is closed.
    pub(crate) fn enter(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn close(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What a connection has to know of the program.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// Turns true when connections are to be closed.
    pub(crate) closing: watch::Receiver<bool>,
    /// Held by every connection.
    pub(crate) open: Running,
}

/// Answers whoever connects, until connections are to be closed.
pub(crate) async fn serve<H, F>(listener: TcpListener, life: Life, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut closing = life.closing.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed(&mut closing) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, life.clone(), handler.clone()));
            }
            // Out of file descriptors, or a peer that left in the queue: neither is the end of the others.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn converse<H, F>(stream: TcpStream, mut life: Life, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // A frame of a stream waits for no other. Without it only speed is lost.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(HEADER_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // An error of a connection is its peer's business, who sees it as well.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closed(&mut life.closing) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(life.open);
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error says that the program has ended already.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// What is under way of one HTTP/2 stream, in bytes, and of all that share a connection. The second has to hold the
/// first many times, or a stream that nobody reads holds up its neighbours.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;

/// Of all headers of an HTTP/2 message, in bytes.
pub(crate) const HEADER_LIMIT: u32 = 64 * 1024;

/// On one HTTP/2 connection: a program may have only one.
const MOST_STREAMS: u32 = 1024;
