//! What every example shares, so that each is about its client and nothing else: an issuer, a server that takes
//! its tokens, and callers who live through expiries and a revocation.
//!
//! All of it listens on loopback. What is reported was counted by the issuer, the server and the callers, not by
//! the layer.

mod gate;
mod orders;
mod report;
mod server;
mod shelf;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower_token::BoxError;
use tower_token::oauth2::ClientCredentialsGrant;
use tower_token::testkit::{Issuer, Server};

pub use gate::Gate;
pub use orders::{json, order, orders, taken};
use report::Report;
pub use shelf::shelf;

const RUN: Duration = Duration::from_secs(7);
const CALLERS: usize = 8;
/// What a caller does between two calls.
const THINKS: Duration = Duration::from_millis(5);
/// No call takes that long, unless it hangs.
const GIVES_UP: Duration = Duration::from_secs(10);
const TOKEN_LIVES: Duration = Duration::from_secs(3);
/// So that callers have something to wait for.
const ISSUER_TAKES: Duration = Duration::from_millis(20);

/// An issuer, a server that takes its tokens, and callers who live through expiries and a revocation.
#[derive(Debug)]
pub struct Stage {
    issuer: Issuer,
    issuer_at: Server,
    gate: Gate,
}

impl Stage {
    /// Opens the issuer, on a port of loopback. Its tokens live for three seconds, so that a run of seven sees several.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no port to give.
    pub async fn open() -> Result<Self, BoxError> {
        let issuer = Issuer::new();
        issuer.lifetime(TOKEN_LIVES).latency(ISSUER_TAKES);
        Ok(Self {
            issuer_at: issuer.serve().await?,
            gate: Gate::new(issuer.clone()),
            issuer,
        })
    }

    /// How a new token is obtained: from the stage's issuer, in the program's own name, over a plain client.
    pub fn grant(&self) -> ClientCredentialsGrant {
        ClientCredentialsGrant::new(format!("{}/token", self.issuer_at.url()), self.issuer.client_id())
            .client_secret(self.issuer.client_secret())
            .client(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>())
    }

    /// Serves `answer` on a port of loopback, over HTTP/1.1 and HTTP/2, to requests that [the gate](Self::gate)
    /// admits; others get a 401 with `Bearer error="invalid_token"`. Bodies are read whole before either answer.
    ///
    /// Returns the origin, like `http://127.0.0.1:1234`. It is served until the runtime ends.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no port to give.
    pub async fn serve<A>(&self, answer: A) -> Result<String, BoxError>
    where
        A: Fn(Request<Bytes>) -> Response<Bytes> + Clone + Send + 'static,
    {
        server::serve(self.gate(), answer).await
    }

    /// The check alone, for a server that brings its own HTTP.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Eight callers call `call` for seven seconds, a few milliseconds apart; in the middle the issuer revokes the
    /// token in use. Then prints the report: the exit code tells whether all was well.
    ///
    /// All is well if no call failed, each reached the server with a good token, the server refused the revoked
    /// token and nothing else, and it saw every token that the issuer minted but perhaps the last: at least three,
    /// the first one, one in place of one that was expiring, and one in place of the revoked one.
    ///
    /// A call that takes longer than ten seconds is a failed one.
    pub async fn run<C, F, T, E>(self, client: &str, call: C) -> ExitCode
    where
        C: Fn() -> F + Clone + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let end = Instant::now() + RUN;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(keep_calling(call.clone(), end));
        }
        self.revoke_in_use(RUN / 2).await;

        let mut report = Report::new(client);
        for calls in callers.join_all().await {
            report.add(calls);
        }
        report.conclude(self.gate.counts(), self.issuer.counts().granted)
    }

    /// Waits so long, then for the next token, and revokes it while it is young: no renewal is in the air.
    async fn revoke_in_use(&self, after: Duration) {
        sleep(after).await;
        // If no other token comes, the report says so.
        let _ = timeout(TOKEN_LIVES, self.gate.sees_another_token()).await;
        sleep(TOKEN_LIVES / 8).await;
        self.issuer.revoke_access();
    }
}

/// What a caller did.
#[derive(Default)]
struct Calls {
    made: u64,
    failures: Vec<BoxError>,
}

/// Calls until the end.
async fn keep_calling<C, F, T, E>(call: C, end: Instant) -> Calls
where
    C: Fn() -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let mut calls = Calls::default();
    while Instant::now() < end {
        match timeout(GIVES_UP, call()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => calls.failures.push(error.into()),
            Err(hung) => calls.failures.push(hung.into()),
        }
        calls.made += 1;
        sleep(THINKS).await;
    }
    calls
}

/// An error and what it came from.
fn chain(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        chain = format!("{chain}: {source}");
        next = source.source();
    }
    chain
}
