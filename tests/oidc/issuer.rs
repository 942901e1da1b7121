//! The server's side: starts it, steers it, and asks it what it counted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::left_out::left_out;

/// A test that waits longer for something has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What everybody here speaks HTTP with.
pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// The server, for the length of one test.
#[derive(Debug)]
pub(crate) struct Oidc {
    url: String,
    child: Child,
    client: Http,
}

/// What reached the server since it was started or `reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// `POST /token` whose body arrived whole.
    pub(crate) token_requests: u64,
    /// ... answered 200, whether or not anybody was left to read it.
    pub(crate) granted: u64,
    /// ... with a refresh token that had been presented before.
    pub(crate) presented_twice: u64,
    /// ... answered `invalid_grant`.
    pub(crate) invalid_grant: u64,
    /// ... answered `invalid_client`.
    pub(crate) invalid_client: u64,
    /// Grants that died, by reuse or by revocation, each with all its tokens.
    pub(crate) grants_revoked: u64,
    /// Token requests between their arrival and the end of their answer.
    pub(crate) in_flight: u64,
    /// The most of them at a time.
    pub(crate) max_in_flight: u64,
    /// What reached the resource.
    pub(crate) resource: ResourceCounts,
}

/// `requests = ok + refused + no_token`; `expired_seen` are those of `refused` that were too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResourceCounts {
    /// All of them.
    pub(crate) requests: u64,
    /// ... with a live token.
    pub(crate) ok: u64,
    /// ... with a token that is expired, revoked or unknown.
    pub(crate) refused: u64,
    /// ... with a token that is only too old.
    pub(crate) expired_seen: u64,
    /// ... without a token.
    pub(crate) no_token: u64,
}

/// How long the server waits, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Delay {
    /// A token request arrived and is not yet looked at.
    pub(crate) token_before: u64,
    /// A token request is committed and not yet answered.
    pub(crate) token_after: u64,
    /// A resource request arrived and its token is not yet looked at.
    pub(crate) resource: u64,
}

impl Oidc {
    /// Starts a server of its own for the calling test, or says why there is none.
    pub(crate) fn start() -> Option<Self> {
        let (Some(node), Some(dir)) = (
            std::env::var_os("TOWER_TOKEN_NODE"),
            std::env::var_os("TOWER_TOKEN_OIDC"),
        ) else {
            left_out("the real issuer is not installed, `tests/run` does that");
            return None;
        };
        let mut child = Command::new(node)
            .arg(std::path::Path::new(&dir).join("server.mjs"))
            .stdin(Stdio::piped()) // the leash: the server ends when this closes
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the real issuer starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the real issuer says where it is");
        let ready: Value = serde_json::from_str(&line).expect("one line of JSON");
        Some(Self {
            url: ready["url"].as_str().expect("an url").to_owned(),
            child,
            client: http(),
        })
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The token endpoint.
    pub(crate) fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    /// The resource.
    pub(crate) fn resource_url(&self) -> String {
        format!("{}/resource", self.url)
    }

    /// A refresh token, as after a user's sign-in. Clients: `rt-client` (secret `rt-secret`, basic)
    /// and `public` (no secret).
    pub(crate) async fn sign_in(&self, client_id: &str) -> String {
        let answer = self.control("sign-in", json!({ "client_id": client_id })).await;
        answer["refresh_token"].as_str().expect("a refresh token").to_owned()
    }

    /// Every access token dies, the grants live. Answers how many tokens there were.
    pub(crate) async fn revoke_access(&self) -> u64 {
        number(&self.control("revoke-access", json!({})).await, "revoked")
    }

    /// Access tokens issued from now on live so many seconds (up to one less, see `expires_in`).
    pub(crate) async fn access_ttl(&self, seconds: u64) {
        self.control("ttl", json!({ "access": seconds })).await;
    }

    /// Makes the server slow.
    pub(crate) async fn delay(&self, delay: Delay) {
        let body = json!({
            "token_before_ms": delay.token_before,
            "token_after_ms": delay.token_after,
            "resource_ms": delay.resource,
        });
        self.control("delay", body).await;
    }

    /// Counters, delays and life back to their start. Tokens stay, and so does the memory of which
    /// refresh tokens were presented.
    pub(crate) async fn reset(&self) {
        self.control("reset", json!({})).await;
    }

    /// Waits until the counts are like this; fails with them if that takes 20 seconds.
    pub(crate) async fn until(&self, like_this: impl Fn(&Counts) -> bool) -> Counts {
        let started = Instant::now();
        loop {
            let counts = self.counts().await;
            if like_this(&counts) {
                return counts;
            }
            assert!(started.elapsed() < PATIENCE, "the counts stay as they are: {counts:#?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What reached the server.
    pub(crate) async fn counts(&self) -> Counts {
        let all = self.send(Method::GET, "counts", Bytes::new()).await;
        let resource = &all["resource"];
        Counts {
            token_requests: number(&all, "token_requests"),
            granted: number(&all, "granted"),
            presented_twice: number(&all, "presented_twice"),
            invalid_grant: number(&all, "reuse_or_invalid_grant"),
            invalid_client: number(&all, "invalid_client"),
            grants_revoked: number(&all, "grants_revoked"),
            in_flight: number(&all, "in_flight"),
            max_in_flight: number(&all, "max_in_flight"),
            resource: ResourceCounts {
                requests: number(resource, "requests"),
                ok: number(resource, "ok"),
                refused: number(resource, "refused"),
                expired_seen: number(resource, "expired_seen"),
                no_token: number(resource, "no_token"),
            },
        }
    }

    async fn control(&self, name: &str, body: Value) -> Value {
        self.send(Method::POST, name, Bytes::from(body.to_string())).await
    }

    async fn send(&self, method: Method, name: &str, body: Bytes) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/control/{name}", self.url))
            .body(Full::new(body))
            .expect("a request");
        let response = self.client.request(request).await.expect("the control answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        assert_eq!(
            status,
            StatusCode::OK,
            "control/{name}: {}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).expect("JSON")
    }
}

impl Drop for Oidc {
    fn drop(&mut self) {
        // Our own child, by its handle. If even this does not run, its closed stdin ends it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client with a pool of its own.
pub(crate) fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

fn number(object: &Value, name: &str) -> u64 {
    object[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name} in {object}"))
}
