//! HTTP over the simulated TCP: a server for any service, and a client that opens a connection for each request.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, advance, timeout};
use tower::{BoxError, Service};
use turmoil::net::{TcpListener, TcpStream};

pub(crate) type Body = Full<Bytes>;

/// The instant at which all began, by the clock of one host.
pub(crate) type Birth = Arc<OnceLock<Instant>>;

const PORT: u16 = 80;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn serve<S, B>(service: S, birth: Birth) -> turmoil::Result
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    catch_up(&birth).await;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let connections = auto::Builder::new(TokioExecutor::new());
            // Whatever ends it is what the test is about.
            let _ = connections.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A host that comes back from a crash has a new runtime, whose clock begins anew; the issuer remembers
/// instants of the old one.
async fn catch_up(birth: &Birth) {
    let elapsed = turmoil::sim_elapsed().unwrap();
    let birth = *birth.get_or_init(|| Instant::now() - elapsed);
    advance((birth + elapsed).saturating_duration_since(Instant::now())).await;
}

/// Sends `request` to `host`. An error without a connection proves that nothing was sent.
pub(crate) async fn send(host: &'static str, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
    let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, PORT)));
    let stream = connect
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
