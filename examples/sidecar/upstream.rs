//! The way to upstream: a client for each route, with its token put on.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tower::Layer;
use tower_token::config::{Injection, Refusal};
use tower_token::{Buffered, Classify, Peeked, TokenLayer, TokenService, Tokens, Verdict};

use crate::body::Body;
use crate::file::Protocol;
use crate::routes::Route;
use crate::server::{CONNECTION_WINDOW, HEADER_LIMIT, STREAM_WINDOW};

/// A client whose requests carry the route's token, to the route's origin and nowhere else.
pub(crate) type Upstream =
    TokenService<Client<HttpsConnector<HttpConnector>, Body>, Buffered<Body>, Refusal, Injection>;

/// A route, and the client behind it.
pub(crate) struct Lane {
    pub(crate) route: Route,
    pub(crate) upstream: Upstream,
    /// Whether refusals of its token stand in bodies, which have to be readable for that.
    pub(crate) reads_bodies: bool,
}

/// What comes back from it.
pub(crate) type Answer = http::Response<Peeked<Incoming>>;

impl Lane {
    pub(crate) fn new(route: Route, tokens: &Tokens, injection: Injection, refusal: Refusal, tls: Tls) -> Self {
        let reads_bodies = reads_bodies(&refusal);
        let upstream = TokenLayer::new(tokens, route.origins.clone())
            .inject(injection)
            .classify(refusal)
            .replay(Buffered::via(Body::new).limit(route.replay_limit))
            .layer(client(route.protocol, tls));
        Self {
            route,
            upstream,
            reads_bodies,
        }
    }
}

/// Whether there is a status that makes it look into the body. What gRPC has there is not compressed.
fn reads_bodies(refusal: &Refusal) -> bool {
    let mut statuses = (200..600).filter_map(|status| StatusCode::from_u16(status).ok());
    statuses.any(|status| {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = status;
        matches!(Classify::<Body>::head(refusal, &head), Verdict::Inspect(_))
    })
}

fn client(protocol: Protocol, Tls(config): Tls) -> Client<HttpsConnector<HttpConnector>, Body> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // Without a word of upstream's for a minute an idle connection is given up, before it costs a request. No PING of
    // HTTP/2, by which gRPC servers take a client for an attacker when it sends them more often than each five minutes.
    http.set_keepalive(Some(Duration::from_secs(30)));
    http.set_keepalive_interval(Some(Duration::from_secs(10)));
    http.set_keepalive_retries(Some(3));
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    let connector = match protocol {
        Protocol::Http1 => connector.enable_http1().wrap_connector(http),
        Protocol::H2c => connector.enable_http2().wrap_connector(http),
    };
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(protocol == Protocol::H2c)
        .http2_max_header_list_size(HEADER_LIMIT)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(connector)
}

/// How a certificate is checked.
#[derive(Clone)]
pub(crate) struct Tls(ClientConfig);

impl Tls {
    /// By the operating system's roots.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub(crate) fn of_the_system() -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?;
        Ok(Self(builder.with_no_client_auth()))
    }

    /// For routes that all are plain http, on machines without roots.
    ///
    /// # Errors
    ///
    /// If the cryptography knows no version of TLS.
    pub(crate) fn unused() -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty());
        Ok(Self(builder.with_no_client_auth()))
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
