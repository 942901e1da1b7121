//! A gRPC client whose token is revoked under it three times, and which notices nothing.
//!
//! ```text
//! cargo run --features grpc --example tonic
//! ```
//!
//! Nothing leaves the machine: the issuer comes from the testkit, the server is tonic's, and both listen
//! on loopback. The client is the one that tonic generated for `grpc.health.v1.Health`; one of your own
//! takes the layer in the same way. What you would write are the four statements in [`run`] that have a
//! comment. The numbers at the end were counted by the server, the issuer and the callers.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;
use tower::ServiceBuilder;
use tower_token::oauth2::ClientCredentialsGrant;
use tower_token::testkit::Issuer;
use tower_token::{BoxError, Buffered, Grpc, TokenLayer, TokenService, Tokens};

const RUN: Duration = Duration::from_secs(4);
const REVOCATIONS: u64 = 3;
const CALLERS: usize = 8;
/// What a caller does between two calls.
const THINKS: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tonic: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
async fn run() -> Result<bool, BoxError> {
    let issuer = Issuer::new();
    let issuer_at = issuer.serve().await?;
    let counts = Arc::new(Counts::default());
    let server_at = serve(issuer.clone(), counts.clone()).await?;

    // How a new token is obtained.
    let grant = ClientCredentialsGrant::new(format!("{}/token", issuer_at.url()), issuer.client_id())
        .client_secret(issuer.client_secret())
        .client(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(grant)?;

    // A channel, as you have one already.
    let channel = Channel::from_shared(format!("http://{server_at}"))?.connect_lazy();

    // The generated client, over the channel with the token on each call. A call that is refused is made
    // again with a newer token, its request messages included.
    let client = HealthClient::new(
        ServiceBuilder::new()
            .layer(TokenLayer::grpc(&tokens).replay_via(Body::new))
            .service(channel),
    );

    let end = Instant::now() + RUN;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(keep_calling(client.clone(), end));
    }
    for _ in 0..REVOCATIONS {
        sleep(RUN / (REVOCATIONS as u32 + 1)).await;
        issuer.revoke_access();
        println!("the issuer revoked the token; {} calls so far", counts.accepted());
    }
    let (mut calls, mut failures) = (0, Vec::new());
    for (called, failed) in callers.join_all().await {
        calls += called;
        failures.extend(failed);
    }

    let fetched = issuer.counts().token_requests;
    println!();
    println!("{calls:>6}  calls, {} of them failed", failures.len());
    println!(
        "{:>6}  were refused by the server at first, and sent again",
        counts.refused()
    );
    println!("{fetched:>6}  tokens fetched, one at first and one for each revocation");
    if let Some(failure) = failures.first() {
        println!("\nthe first failure: {failure}");
    }
    Ok(failures.is_empty() && counts.accepted() == calls && counts.refused() > 0 && fetched == 1 + REVOCATIONS)
}

// ===== the callers =====

type Health = HealthClient<TokenService<Channel, Buffered<Body>, Grpc>>;

/// Calls until the end. Returns how often, and what went wrong.
async fn keep_calling(mut client: Health, end: Instant) -> (u64, Vec<Status>) {
    let (mut calls, mut failures) = (0, Vec::new());
    while Instant::now() < end {
        // There is no token in sight: that is the layer's business.
        if let Err(status) = client.check(HealthCheckRequest::default()).await {
            failures.push(status);
        }
        calls += 1;
        sleep(THINKS).await;
    }
    (calls, failures)
}

// ===== the server =====

/// tonic-health's own service, which takes calls with a token of the issuer that is good right now.
async fn serve(issuer: Issuer, counts: Arc<Counts>) -> Result<SocketAddr, BoxError> {
    let demands_a_token = move |call: Request<()>| {
        let header = call.metadata().get("authorization");
        let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if token.is_some_and(|token| issuer.is_alive(token)) {
            counts.accepted.fetch_add(1, Ordering::Relaxed);
            Ok(call)
        } else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            Err(Status::unauthenticated("the token is not valid"))
        }
    };
    let (_, health) = health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let server = Server::builder().add_service(InterceptedService::new(health, demands_a_token));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(at)
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
