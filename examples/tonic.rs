//! A gRPC client that lives through the expiry of its tokens and a revocation, and notices nothing.
//!
//! ```text
//! cargo run --features grpc --example tonic
//! ```
//!
//! Nothing leaves the machine: the issuer comes from the testkit, the server is tonic's, and both listen
//! on loopback. A token lives for two seconds; once, in the middle, the issuer revokes the one that
//! everybody is using. The client is the one that tonic generated for `grpc.health.v1.Health`; one of your
//! own takes the layer in the same way. What you would write are the four statements in [`run`] that have a
//! comment. The numbers at the end were counted by the server, the issuer and the callers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;
use tower::ServiceBuilder;
use tower_token::oauth2::ClientCredentialsGrant;
use tower_token::testkit::{Issuer, Standing};
use tower_token::{BoxError, Buffered, Grpc, TokenLayer, TokenService, Tokens};

const RUN: Duration = Duration::from_secs(5);
const TOKEN_LIVES: Duration = Duration::from_secs(2);
/// What the callers ask about. The server knows nothing else, and answers `NotFound` to a request that lost its message.
const SERVICE: &str = "orders";
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
    issuer.lifetime(TOKEN_LIVES);
    let issuer_at = issuer.serve().await?;
    let door = Door::of(&issuer);
    let server_at = serve(door.clone()).await?;

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
    revoke_once(&issuer, &tokens, end).await;
    println!("the issuer revoked the token; {} calls so far", door.book().accepted);

    let (mut calls, mut failures) = (0, Vec::new());
    for (called, failed) in callers.join_all().await {
        calls += called;
        failures.extend(failed);
    }

    let (book, minted) = (door.book(), issuer.timeline().len());
    let tokens_seen = book.tokens.len();
    println!();
    println!("{calls:>6}  calls, {} of them failed", failures.len());
    println!(
        "{:>6}  were refused by the server at first, and sent again",
        book.revoked
    );
    println!("{:>6}  came with a token that had expired", book.expired);
    println!("{tokens_seen:>6}  different tokens seen by the server, of {minted} that the issuer minted");
    if let Some(failure) = failures.first() {
        println!("\nthe first failure: {failure}");
    }
    // One token at first, one when that was about to expire, one after the revocation. The last one may
    // have come too late to be used.
    let renewed = (3..=minted).contains(&tokens_seen) && minted - tokens_seen <= 1;
    let told_apart = book.revoked > 0 && book.expired == 0;
    Ok(failures.is_empty() && book.accepted == calls && renewed && told_apart)
}

/// Revokes the token in the middle of the run and of its own life.
async fn revoke_once(issuer: &Issuer, tokens: &Tokens, end: Instant) {
    sleep(RUN / 2).await;
    // At the end at the latest, where it is met by nobody and the run is not a good one.
    let _ = timeout_at(end, tokens.changed()).await;
    sleep(TOKEN_LIVES / 4).await;
    issuer.revoke_access();
}

// ===== the callers =====

type Health = HealthClient<TokenService<Channel, Buffered<Body>, Grpc>>;

/// Calls until the end. Returns how often, and what went wrong.
async fn keep_calling(mut client: Health, end: Instant) -> (u64, Vec<Status>) {
    let (mut calls, mut failures) = (0, Vec::new());
    while Instant::now() < end {
        // There is no token in sight: that is the layer's business.
        let request = HealthCheckRequest {
            service: SERVICE.into(),
        };
        if let Err(status) = client.check(request).await {
            failures.push(status);
        }
        calls += 1;
        sleep(THINKS).await;
    }
    (calls, failures)
}

// ===== the server =====

/// tonic-health's own service, behind a door.
async fn serve(door: Door) -> Result<SocketAddr, BoxError> {
    let (reporter, health) = health_reporter();
    reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let server = Server::builder().add_service(InterceptedService::new(health, move |call| door.admit(call)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(at)
}

/// Lets calls in with a token of the issuer that is good right now, and keeps a book on what it sees.
#[derive(Clone)]
struct Door {
    issuer: Issuer,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    accepted: u64,
    /// The tokens of the accepted calls.
    tokens: HashSet<String>,
    revoked: u64,
    expired: u64,
}

impl Door {
    fn of(issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.clone(),
            book: Arc::default(),
        }
    }

    fn admit(&self, call: Request<()>) -> Result<Request<()>, Status> {
        let header = call.metadata().get("authorization");
        let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Status::unauthenticated("there is no token"))?;
        let mut book = self.book();
        match self.issuer.standing(token) {
            Standing::Alive => {
                book.accepted += 1;
                book.tokens.insert(token.to_owned());
                return Ok(call);
            }
            Standing::Revoked => book.revoked += 1,
            Standing::Expired => book.expired += 1,
            _ => {}
        }
        Err(Status::unauthenticated("the token is not valid"))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
