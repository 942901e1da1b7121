//! What the flows share: grants over an issuer in the same process, a client through the layer, and
//! traffic at a steady rate. All of it in virtual time; the issuer and the API do the counting.

// Each test file uses its own part of this.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used)]

#[cfg(feature = "tracing")]
pub(crate) mod printed;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower::{Layer, ServiceExt};
use tower_token::oauth2::{ClientCredentialsGrant, RefreshTokenGrant};
use tower_token::testkit::{Api, ApiService, Body, Issuer};
use tower_token::{
    BoxError, Clock, Error, Origins, RefreshPolicy, TokenClient, TokenLayer, TokenProvider, TokenService, Tokens,
    TokensBuilder,
};

pub(crate) const API: &str = "https://api.example.com";
pub(crate) const TOKEN_URL: &str = "https://login.example.com/token";
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) type Client = TokenService<ApiService>;
pub(crate) type Outcome = Result<Response<Body>, BoxError>;

/// The issuer as a client of token requests.
pub(crate) fn token_client(issuer: &Issuer) -> TokenClient {
    TokenClient::new::<_, Full<Bytes>, _>(issuer.service())
}

/// When token requests were sent.
#[derive(Clone, Default)]
pub(crate) struct Arrivals {
    at: Arc<Mutex<Vec<Instant>>>,
}

impl Arrivals {
    pub(crate) fn note(&self) {
        self.at.lock().unwrap().push(Instant::now());
    }

    /// The issuer as a client of token requests, each of which is noted.
    pub(crate) fn at(&self, issuer: &Issuer) -> TokenClient {
        let arrivals = self.clone();
        let noted = issuer.service().map_request(move |request: Request<Full<Bytes>>| {
            arrivals.note();
            request
        });
        TokenClient::new(noted)
    }

    pub(crate) fn count(&self) -> usize {
        self.at.lock().unwrap().len()
    }

    /// The time between each request and the next.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        let at = self.at.lock().unwrap();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

/// A grant whose refresh token a user just signed in for.
pub(crate) fn refresh_grant(issuer: &Issuer) -> RefreshTokenGrant {
    RefreshTokenGrant::new(TOKEN_URL, issuer.client_id())
        .client_secret(issuer.client_secret())
        .refresh_token(issuer.sign_in())
        .client(token_client(issuer))
}

pub(crate) fn client_credentials(issuer: &Issuer) -> ClientCredentialsGrant {
    ClientCredentialsGrant::new(TOKEN_URL, issuer.client_id())
        .client_secret(issuer.client_secret())
        .client(token_client(issuer))
}

/// No jitter, so that the times in a test are the times that happen.
pub(crate) fn policy() -> RefreshPolicy {
    RefreshPolicy::default().jitter(0.0)
}

pub(crate) fn builder(grant: impl TokenProvider) -> TokensBuilder {
    Tokens::builder(grant).clock(Clock::of_tokio()).policy(policy())
}

pub(crate) fn tokens(grant: impl TokenProvider) -> Tokens {
    builder(grant).build().unwrap()
}

/// The API through the layer, which lets the token go to [`API`] only.
pub(crate) fn client(tokens: &Tokens, api: &Api) -> Client {
    TokenLayer::new(tokens, Origins::only(API).unwrap()).layer(api.service())
}

/// `GET path`, with an id that the API counts deliveries by.
pub(crate) fn get(path: &str, id: impl ToString) -> Request<String> {
    Request::get(format!("{API}{path}"))
        .header("x-request-id", id.to_string())
        .body(String::new())
        .unwrap()
}

pub(crate) async fn call(client: &Client, path: &str) -> Outcome {
    client.clone().oneshot(get(path, "one of many")).await
}

/// A client with a token in place that the API has accepted.
pub(crate) async fn accepted(issuer: &Issuer, api: &Api) -> Client {
    let client = client(&tokens(refresh_grant(issuer)), api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    client
}

/// So many requests that have all gone out, or wait for a token.
pub(crate) async fn at_once(client: &Client, path: &'static str, requests: usize) -> JoinSet<Outcome> {
    let mut under_way = JoinSet::new();
    for id in 0..requests {
        under_way.spawn(client.clone().oneshot(get(path, format!("{path} at once {id}"))));
    }
    settle().await;
    under_way
}

pub(crate) fn all_ok(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| status(outcome) == Some(200))
}

/// A runtime of its own, in virtual time, for a test that ends one.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// The status, where there is an answer.
pub(crate) fn status(outcome: &Outcome) -> Option<u16> {
    outcome.as_ref().ok().map(|response| response.status().as_u16())
}

/// Our own error, where there is no answer.
pub(crate) fn ours(outcome: &Outcome) -> Error {
    let error = outcome.as_ref().expect_err("an error");
    Error::find(&**error).expect("an error of this crate").clone()
}

/// Lets every task run that can run now.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// One request of [`traffic`].
pub(crate) struct Sample {
    pub(crate) sent: Duration,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

/// Sends `get(path, n)` every `gap` for as long as `lasts`, whether or not the last one is answered.
pub(crate) async fn traffic(client: &Client, path: &'static str, gap: Duration, lasts: Duration) -> Vec<Sample> {
    let began = Instant::now();
    let mut samples = Vec::new();
    let mut under_way = JoinSet::new();
    let mut at = Duration::ZERO;
    let mut id = 0_u64;
    while at < lasts {
        sleep_until(began + at).await;
        let mut call = Box::pin(client.clone().oneshot(get(path, format!("{path} {id}"))));
        // Most are answered at once, and need no task.
        match std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await {
            std::task::Poll::Ready(outcome) => samples.push(Sample {
                sent: at,
                took: Duration::ZERO,
                outcome,
            }),
            std::task::Poll::Pending => {
                let sent = Instant::now();
                under_way.spawn(async move {
                    let outcome = call.await;
                    Sample {
                        sent: at,
                        took: sent.elapsed(),
                        outcome,
                    }
                });
            }
        }
        while let Some(done) = under_way.try_join_next() {
            samples.push(done.unwrap());
        }
        at += gap;
        id += 1;
    }
    samples.extend(under_way.join_all().await);
    samples
}

/// How many answers had this status.
pub(crate) fn answered(samples: &[Sample], code: u16) -> usize {
    samples
        .iter()
        .filter(|sample| status(&sample.outcome) == Some(code))
        .count()
}
