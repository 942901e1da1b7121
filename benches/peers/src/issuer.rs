//! Mints tokens, counts how often it was asked, and refuses if told to.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// How long its tokens are good for.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// Whoever asks, asks this.
#[derive(Clone, Debug)]
pub struct Issuer {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    fetches: usize,
    issued: usize,
    /// Tokens up to this number are refused by the API.
    revoked: usize,
}

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub takes: Duration,
    pub fails: bool,
    pub life: Duration,
}

impl Manner {
    pub const AT_ONCE: Self = Self {
        takes: Duration::ZERO,
        fails: false,
        life: DAY,
    };

    pub const fn takes(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    pub const fn fails(self) -> Self {
        Self { fails: true, ..self }
    }

    pub const fn life(self, life: Duration) -> Self {
        Self { life, ..self }
    }
}

/// What it says if it fails.
#[derive(Debug)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the issuer refused")
    }
}

impl std::error::Error for Refused {}

impl Issuer {
    pub fn new(manner: Manner) -> Self {
        let state = State {
            manner,
            fetches: 0,
            issued: 0,
            revoked: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// From now on answers so; returns how it did before.
    pub fn turn(&self, manner: Manner) -> Manner {
        std::mem::replace(&mut self.state().manner, manner)
    }

    /// A token of 900 bytes, unlike all before.
    pub async fn issue(&self) -> Result<String, Refused> {
        let manner = {
            let mut state = self.state();
            state.fetches += 1;
            state.manner
        };
        if !manner.takes.is_zero() {
            tokio::time::sleep(manner.takes).await;
        }
        if manner.fails {
            return Err(Refused);
        }
        let mut state = self.state();
        state.issued += 1;
        Ok(format!("test-{:08}-{}", state.issued, "t".repeat(886)))
    }

    /// How often it was asked, since the last time this was called.
    pub fn take_fetches(&self) -> usize {
        std::mem::take(&mut self.state().fetches)
    }

    /// All tokens so far are good for nothing.
    pub fn revoke(&self) {
        let mut state = self.state();
        state.revoked = state.issued;
    }

    /// Whether the API takes this request.
    pub fn accepts(&self, headers: &HeaderMap) -> bool {
        let number = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.get(12..20)?.parse().ok());
        number.is_some_and(|number: usize| number > self.state().revoked)
    }

    /// The same over HTTP on a port of its own, as OAuth 2.0 answers; returns its URL.
    pub async fn serve(&self) -> String {
        // Two of the clients that will ask cannot be built without, though they do not speak TLS here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let issuer = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let issuer = issuer.clone();
                let answer = service_fn(move |_: Request<Incoming>| issuer.clone().answer());
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        url
    }

    async fn answer(self) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, document) = self.document().await;
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/json");
        Ok(response.body(Full::from(document)).unwrap())
    }

    /// The status and the JSON of an answer.
    pub async fn document(&self) -> (u16, String) {
        let life = self.state().manner.life.as_secs();
        match self.issue().await {
            Ok(token) => (
                200,
                format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{life}}}"#),
            ),
            Err(Refused) => (
                400,
                r#"{"error":"invalid_grant","error_description":"test"}"#.to_owned(),
            ),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}
