//! The real issuer: npm `oidc-provider` with strict rotation (`tests/oidc/server.mjs`), installed
//! and named by `tests/run`. Without it these tests say that they were left out, and pass.
//! The judge is the server's own count of what reached it.

#![cfg(all(feature = "oauth2", feature = "client"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// The server, for the length of one test.
#[derive(Debug)]
pub struct Oidc {
    url: String,
    child: Child,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What reached the server since it was started or `reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// `POST /token` whose body arrived whole.
    pub token_requests: u64,
    /// ... answered 200, whether or not anybody was left to read it.
    pub granted: u64,
    /// ... with a refresh token that had been presented before.
    pub presented_twice: u64,
    /// ... answered `invalid_grant`.
    pub invalid_grant: u64,
    /// ... answered `invalid_client`.
    pub invalid_client: u64,
    /// Grants that died, by reuse or by revocation, each with all its tokens.
    pub grants_revoked: u64,
    /// Token requests between their arrival and the end of their answer.
    pub in_flight: u64,
    /// The most of them at a time.
    pub max_in_flight: u64,
    /// What reached the resource.
    pub resource: ResourceCounts,
}

/// `requests = ok + refused + no_token`; `expired_seen` are those of `refused` that were too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceCounts {
    /// All of them.
    pub requests: u64,
    /// ... with a live token.
    pub ok: u64,
    /// ... with a token that is expired, revoked or unknown.
    pub refused: u64,
    /// ... with a token that is only too old.
    pub expired_seen: u64,
    /// ... without a token.
    pub no_token: u64,
}

/// How long the server waits, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delay {
    /// A token request arrived and is not yet looked at.
    pub token_before: u64,
    /// A token request is committed and not yet answered.
    pub token_after: u64,
    /// A resource request arrived and its token is not yet looked at.
    pub resource: u64,
}

impl Oidc {
    /// Starts a server of its own for the calling test, or says why there is none.
    pub fn start() -> Option<Self> {
        let (Some(node), Some(dir)) = (
            std::env::var_os("TOWER_TOKEN_NODE"),
            std::env::var_os("TOWER_TOKEN_OIDC"),
        ) else {
            // Not `eprintln!`: of a test that passes the runner would keep that to itself.
            let _ = writeln!(
                std::io::stderr(),
                "left out: the real issuer is not installed, `tests/run` does that"
            );
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
            client: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    /// The resource.
    pub fn resource_url(&self) -> String {
        format!("{}/resource", self.url)
    }

    /// A refresh token, as after a user's sign-in. Clients: `rt-client` (secret `rt-secret`, basic)
    /// and `public` (no secret).
    pub async fn sign_in(&self, client_id: &str) -> String {
        let answer = self.control("sign-in", json!({ "client_id": client_id })).await;
        answer["refresh_token"].as_str().expect("a refresh token").to_owned()
    }

    /// Every access token dies, the grants live. Answers how many tokens there were.
    pub async fn revoke_access(&self) -> u64 {
        number(&self.control("revoke-access", json!({})).await, "revoked")
    }

    /// Access tokens issued from now on live so many seconds (up to one less, see `expires_in`).
    pub async fn access_ttl(&self, seconds: u64) {
        self.control("ttl", json!({ "access": seconds })).await;
    }

    /// Makes the server slow.
    pub async fn delay(&self, delay: Delay) {
        let body = json!({
            "token_before_ms": delay.token_before,
            "token_after_ms": delay.token_after,
            "resource_ms": delay.resource,
        });
        self.control("delay", body).await;
    }

    /// Counters, delays and life back to their start. Tokens stay, and so does the memory of which
    /// refresh tokens were presented.
    pub async fn reset(&self) {
        self.control("reset", json!({})).await;
    }

    /// What reached the server.
    pub async fn counts(&self) -> Counts {
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

fn number(object: &Value, name: &str) -> u64 {
    object[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name} in {object}"))
}

// ---- below: the harness's own check; the tests of the crate take its place ----------------------

#[tokio::test]
async fn the_server_counts() {
    let Some(oidc) = Oidc::start() else { return };
    assert!(oidc.token_url().starts_with(oidc.url()));
    assert!(oidc.resource_url().ends_with("/resource"));
    let first = oidc.sign_in("rt-client").await;
    assert_ne!(first, oidc.sign_in("public").await);
    oidc.access_ttl(60).await;
    oidc.delay(Delay {
        token_after: 5,
        ..Delay::default()
    })
    .await;

    let form = format!("grant_type=refresh_token&refresh_token={first}");
    for expected in [StatusCode::OK, StatusCode::BAD_REQUEST] {
        let request = Request::post(oidc.token_url())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", "Basic cnQtY2xpZW50OnJ0LXNlY3JldA==")
            .body(Full::new(Bytes::from(form.clone())))
            .unwrap();
        assert_eq!(oidc.client.request(request).await.unwrap().status(), expected);
    }
    assert_eq!(oidc.revoke_access().await, 0, "the reuse had killed it");
    let counts = oidc.counts().await;
    assert_eq!((counts.token_requests, counts.granted), (2, 1));
    assert_eq!(
        (counts.presented_twice, counts.invalid_grant, counts.grants_revoked),
        (1, 1, 1)
    );
    assert_eq!((counts.in_flight, counts.max_in_flight), (0, 1));
    oidc.reset().await;
    assert_eq!(oidc.counts().await.token_requests, 0);
}
