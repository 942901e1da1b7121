//! An HTTPS client, for token requests and for the API: hyper-util's over rustls.
//!
//! A convenience, and nothing that this crate depends on: every `Clone` service of
//! `http::Request`s does as well. HTTP/1.1 and HTTP/2 are spoken, a connection has to stand within
//! 10 seconds, redirects are not followed, and no other time limit is set: put
//! `tower::timeout::Timeout` around it for that. A connection that is idle and whose peer gives no sign of life for a
//! minute is given up (TCP keep-alive: after 30 s, three times, 10 s apart).
//!
//! The cryptography is the process's rustls provider where one is installed, else aws-lc-rs; roots
//! are the operating system's.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture as ClientFuture};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::error::BoxError;
use crate::tls;

/// An HTTPS client with its own pool of connections; clones share it.
///
/// Plain http is spoken too, for a loopback or a service mesh. If TLS cannot be set up on this
/// machine (no root certificates), an https request is an error that says so.
///
/// ```
/// use tower_token::client;
///
/// let api: client::Https = client::https();
/// let request = http::Request::get("https://api.example.com/me").body(client::empty())?;
/// # Ok::<(), http::Error>(())
/// ```
pub fn https() -> Https {
    Https::pooled(usize::MAX)
}

/// A request body without bytes.
pub fn empty() -> Body {
    Body::default()
}

/// The client that [`https`] makes. Always ready; its error is hyper-util's own, boxed.
#[derive(Clone)]
pub struct Https {
    client: Client<Connector, Body>,
}

impl Https {
    /// One that opens a connection for every request: a kept one that its peer has just closed would
    /// lose the answer of a request that had gone out, and token requests are too rare to share one.
    #[cfg(feature = "oauth2")]
    pub(crate) fn unpooled() -> Self {
        Self::pooled(0)
    }

    fn pooled(idle_per_host: usize) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(idle_per_host)
            .build(Connector::new());
        Self { client }
    }
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https").finish_non_exhaustive()
    }
}

impl Service<http::Request<Body>> for Https {
    type Response = http::Response<Incoming>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> ResponseFuture {
        ResponseFuture {
            inner: self.client.request(request),
        }
    }
}

/// The answer of [`Https`], on its way.
pub struct ResponseFuture {
    inner: ClientFuture,
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Incoming>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.inner).poll(cx));
        Poll::Ready(answer.map_err(BoxError::from))
    }
}

/// The body of a request to [`Https`]: bytes that are all there, so that it can be sent twice.
#[derive(Clone, Default)]
pub struct Body {
    bytes: Full<Bytes>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = http_body::Body::size_hint(&self.bytes).lower();
        f.debug_struct("Body").field("bytes", &left).finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.bytes).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes.size_hint()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes: Full::new(bytes),
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

/// Whether one link of an error's chain proves that no byte of the request left: resolving,
/// connecting or the TLS handshake failed.
#[cfg(feature = "oauth2")]
pub(crate) fn is_connect(link: &(dyn std::error::Error + 'static)) -> bool {
    use hyper_util::client::legacy::Error;

    link.downcast_ref::<Error>().is_some_and(Error::is_connect)
}

// ===== impl Connector =====

/// Resolves, connects and shakes hands, all within [`CONNECT_TIMEOUT`].
#[derive(Clone)]
struct Connector {
    plain: HttpConnector,
    /// Set up by the first https request, because the system's roots take their time to be read. If that fails, why is
    /// told to whoever asks for https, and the next one tries again: roots may be in the middle of being replaced.
    secure: Arc<OnceLock<HttpsConnector<HttpConnector>>>,
    config: fn() -> Result<ClientConfig, rustls::Error>,
}

impl Connector {
    fn new() -> Self {
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_nodelay(true);
        plain.set_keepalive(Some(Duration::from_secs(30)));
        plain.set_keepalive_interval(Some(Duration::from_secs(10)));
        plain.set_keepalive_retries(Some(3));
        Self {
            plain,
            secure: Arc::default(),
            config: trusting_the_system,
        }
    }

    fn secure(&self) -> Result<HttpsConnector<HttpConnector>, BoxError> {
        if let Some(connector) = self.secure.get() {
            return Ok(connector.clone());
        }
        let config = (self.config)().map_err(|why| format!("TLS could not be set up: {why}"))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
        let connector = connector
            .enable_http1()
            .enable_http2()
            .wrap_connector(self.plain.clone());
        Ok(self.secure.get_or_init(|| connector).clone())
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.plain.poll_ready(cx).map_err(BoxError::from)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting: Self::Future = if target.scheme() == Some(&http::uri::Scheme::HTTP) {
            let connecting = self.plain.call(target);
            Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
        } else {
            let connector = self.clone();
            Box::pin(async move {
                let mut secure = connector.secure()?;
                poll_fn(|cx| secure.poll_ready(cx)).await?;
                secure.call(target).await
            })
        };
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within 10 s").into()),
            }
        })
    }
}

fn trusting_the_system() -> Result<ClientConfig, rustls::Error> {
    Ok(tls::config()?.with_platform_verifier()?.with_no_client_auth())
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn assert_send_sync<T: Send + Sync + Clone + 'static>(_: &T) {}

    #[tokio::test]
    async fn plain_http_is_spoken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            String::from_utf8(head[..read].to_vec()).unwrap()
        });
        let mut client = https();
        assert_send_sync(&client);
        let request = http::Request::get(format!("http://127.0.0.1:{port}/me"))
            .body(empty())
            .unwrap();
        assert_eq!(client.call(request).await.unwrap().status(), 204);
        assert!(peer.await.unwrap().starts_with("GET /me HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn without_tls_plain_http_still_works_and_https_says_why_it_does_not() {
        let mut connector = Connector::new();
        connector.config = || Err(rustls::Error::General("no roots".into()));
        let error = connector
            .call(Uri::from_static("https://api.example.com"))
            .await
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "TLS could not be set up: unexpected error: no roots");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(
            connector
                .call(format!("http://127.0.0.1:{port}").parse().unwrap())
                .await
                .is_ok()
        );
    }

    #[test]
    fn roots_that_could_not_be_read_once_are_read_again() {
        let mut connector = Connector::new();
        connector.config = || Err(rustls::Error::General("no roots".into()));
        assert!(connector.secure().is_err());
        connector.config = || {
            let roots = rustls::RootCertStore::empty();
            Ok(tls::config()?.with_root_certificates(roots).with_no_client_auth())
        };
        assert!(connector.secure().is_ok());
    }

    #[tokio::test]
    async fn a_peer_that_never_shakes_hands_is_given_up_after_ten_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut connector = Connector::new();
        if connector.secure().is_err() {
            // A machine without roots; the test above is about that.
            return;
        }
        tokio::time::pause();
        let error = connector
            .call(format!("https://127.0.0.1:{port}").parse().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "no connection within 10 s");
        drop(listener);
    }

    #[test]
    fn a_body_can_be_sent_twice_and_prints_its_length_only() {
        let body = Body::from("test-canary");
        assert_eq!(http_body::Body::size_hint(&body.clone()).exact(), Some(11));
        assert_eq!(http_body::Body::size_hint(&empty()).exact(), Some(0));
        assert!(!format!("{body:?}").contains("canary"));
    }
}
