//! A service on a loopback port.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_service::Service;

use super::body::Body;

/// An [`Issuer`](super::Issuer) or an [`Api`](super::Api) on a port, until it is dropped.
///
/// Dropping it closes the port and cuts every connection, answers under way included, as soon as
/// the runtime gets to it; [`stop`](Self::stop) waits for that. What was counted and minted stays,
/// and `serve_at` opens the same port again.
///
/// Sockets do not follow a paused clock: in virtual time use `service()`.
pub struct Server {
    addr: SocketAddr,
    url: String,
    tasks: Tasks,
}

impl Server {
    pub(super) async fn start<S>(addr: SocketAddr, service: S) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = io::Error>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let tasks = Tasks::default();
        tasks.spawn(accept(listener, service, tasks.clone()));
        Ok(Self {
            addr,
            url: format!("http://{addr}"),
            tasks,
        })
    }

    /// The origin, like `http://127.0.0.1:1234`, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address it listens at.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops as dropping does, and waits until the port is closed.
    pub async fn stop(self) {
        self.tasks.end().shutdown().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.tasks.end());
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

async fn accept<S>(listener: TcpListener, service: S, tasks: Tasks)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = io::Error>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => tasks.spawn(serve(stream, service.clone(), tasks.clone())),
            // Out of file descriptors, say: the next one may be free in a moment.
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

async fn serve<S>(stream: TcpStream, service: S, tasks: Tasks)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = io::Error>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    // A dripping answer is to arrive byte by byte. It works without, only less finely.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let mut service = service.clone();
        async move {
            std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        }
    });
    let builder = auto::Builder::new(tasks);
    // A client that leaves and a fault that drops the connection both end here, as they should.
    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
}

const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Every task of one server: connections, and the streams that HTTP/2 spawns of its own.
#[derive(Clone, Default)]
struct Tasks {
    running: Arc<Mutex<Running>>,
}

enum Running {
    Yes(JoinSet<()>),
    /// The server is dropped: a task spawned at that moment must not outlive it.
    Ended,
}

impl Default for Running {
    fn default() -> Self {
        Self::Yes(JoinSet::new())
    }
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Running::Yes(tasks) = &mut *running {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    /// What still ran. Dropping it aborts it, which must not happen under the lock: a task may
    /// spawn as it ends.
    fn end(&self) -> JoinSet<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *running, Running::Ended) {
            Running::Yes(tasks) => tasks,
            Running::Ended => JoinSet::new(),
        }
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(async move {
            future.await;
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::{Fault, Issuer};
    use super::*;

    const FORM: &str = "grant_type=client_credentials&client_id=test-client&client_secret=test-secret";

    /// Sends a token request and reads until the server closes.
    async fn ask(addr: SocketAddr) -> io::Result<String> {
        let mut stream = TcpStream::connect(addr).await?;
        let head = "POST /token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{FORM}", FORM.len());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn faults_show_on_the_wire() {
        let issuer = Issuer::new();
        let server = issuer.serve().await.unwrap();
        assert_eq!(server.url(), format!("http://{}", server.addr()));
        let whole = ask(server.addr()).await.unwrap();
        assert!(
            whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with('}'),
            "{whole}"
        );
        issuer
            .fault(Fault::DropBefore)
            .fault(Fault::Truncate)
            .fault(Fault::Huge(100_000));
        // Closed without a byte, or reset: both are a lost answer.
        assert_eq!(ask(server.addr()).await.unwrap_or_default(), "");
        let cut = ask(server.addr()).await.unwrap();
        assert!(cut.contains("\r\n\r\n{\"access") && !cut.ends_with('}'), "{cut}");
        assert!(ask(server.addr()).await.unwrap().len() > 100_000);
        assert_eq!((issuer.counts().token_requests, issuer.counts().granted), (4, 3));
    }

    #[tokio::test]
    async fn a_client_that_leaves_a_hanging_server_is_no_longer_in_flight() {
        let issuer = Issuer::new();
        issuer.fault(Fault::Hang);
        let server = issuer.serve().await.unwrap();
        let asking = tokio::spawn(ask(server.addr()));
        while issuer.counts().in_flight == 0 {
            tokio::task::yield_now().await;
        }
        asking.abort();
        while issuer.counts().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_stopped_server_cuts_its_connections_and_frees_its_port() {
        let issuer = Issuer::new();
        issuer.fault(Fault::Hang);
        let server = issuer.serve().await.unwrap();
        let addr = server.addr();
        let asking = tokio::spawn(ask(addr));
        while issuer.counts().in_flight == 0 {
            tokio::task::yield_now().await;
        }
        server.stop().await;
        assert_eq!(issuer.counts().in_flight, 0);
        assert_eq!(asking.await.unwrap().unwrap_or_default(), "");
        assert!(TcpStream::connect(addr).await.is_err());
        let again = issuer.serve_at(addr).await.unwrap();
        assert!(ask(again.addr()).await.unwrap().starts_with("HTTP/1.1 200"));
    }

    /// Over the client of hyper-util, which the feature `client` brings.
    #[tokio::test]
    async fn both_versions_of_http_are_served_and_dropping_ends_them() {
        use http_body_util::{BodyExt as _, Full};
        use hyper_util::client::legacy::Client;
        use hyper_util::rt::TokioExecutor;

        for http2_only in [false, true] {
            let issuer = Issuer::new();
            let server = issuer.serve().await.unwrap();
            let client = Client::builder(TokioExecutor::new())
                .http2_only(http2_only)
                .build_http();
            let send = || {
                let form = Full::new(bytes::Bytes::from_static(FORM.as_bytes()));
                let request = Request::post(format!("{}/token", server.url()))
                    .header("content-type", "application/x-www-form-urlencoded");
                client.request(request.body(form).unwrap())
            };
            let response = send().await.unwrap();
            let version = if http2_only {
                http::Version::HTTP_2
            } else {
                http::Version::HTTP_11
            };
            assert_eq!((response.status().as_u16(), response.version()), (200, version));
            response.into_body().collect().await.unwrap();
            issuer.fault(Fault::DropAfter).fault(Fault::Truncate).fault(Fault::Hang);
            assert!(send().await.is_err());
            assert!(send().await.unwrap().into_body().collect().await.is_err());
            assert_eq!((issuer.counts().granted, issuer.counts().in_flight), (3, 0));
            let hanging = tokio::spawn(send());
            while issuer.counts().in_flight == 0 {
                tokio::task::yield_now().await;
            }
            drop(server);
            assert!(hanging.await.unwrap().is_err());
            assert_eq!(issuer.counts().in_flight, 0);
        }
    }
}
