//! What whoever runs the sidecar asks it, and tells it: [`Admin`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::ORIGIN;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tower_token::alibaba::PageToken;
use tower_token::{State, Status, Token, Tokens};

use crate::answer;
use crate::body::Body;
use crate::ledger::{self, Counts, Events, millis};
use crate::metrics;
use crate::pages;
use crate::server::{Gate, Running};

/// The tokens by name, and what happened to them.
pub(crate) struct Admin {
    pub(crate) tokens: BTreeMap<String, Kept>,
    pub(crate) events: Events,
    pub(crate) gate: Gate,
}

/// One token of the file.
pub(crate) struct Kept {
    pub(crate) tokens: Tokens,
    pub(crate) counts: Arc<Counts>,
    /// Whether it may be handed out.
    pub(crate) expose: bool,
}

const CREDENTIAL_LIMIT: usize = 64 * 1024;

impl Admin {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let Some(running) = self.gate.enter() else {
            return self.while_ending(&path);
        };
        if request.headers().contains_key(ORIGIN) {
            let message = "web pages are not served here";
            return answer::fault(StatusCode::FORBIDDEN, "forbidden", message);
        }
        match &*path {
            "/status" => read_only(&request, || answer::json(StatusCode::OK, &self.status(true))),
            "/metrics" => read_only(&request, || {
                answer::text(StatusCode::OK, metrics::CONTENT_TYPE, metrics::written(&self.tokens))
            }),
            "/events" => {
                // A stream ends when the tokens have: nobody waits for it.
                drop(running);
                self.events(&request)
            }
            _ => self.command(&path, request, running).await,
        }
    }

    /// A probe learns that it is over; all else is refused.
    fn while_ending(&self, path: &str) -> Response<Body> {
        let mut response = match path {
            "/status" => answer::json(StatusCode::SERVICE_UNAVAILABLE, &self.status(false)),
            _ => answer::ending(false),
        };
        answer::last_of_its_connection(&mut response);
        response
    }

    fn events(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET {
            return answer::not_allowed("GET");
        }
        let response = answer::text(StatusCode::OK, "application/x-ndjson", String::new());
        response.map(|_| self.events.stream())
    }

    /// `/tokens/{name}/{verb}`.
    async fn command(&self, path: &str, request: Request<Incoming>, running: Running) -> Response<Body> {
        let not_found = |message| answer::fault(StatusCode::NOT_FOUND, "not_found", message);
        let split = path.strip_prefix("/tokens/").and_then(|rest| rest.rsplit_once('/'));
        let Some((name, verb)) = split else {
            return not_found("there is /status, /metrics, /events and /tokens/{name}/{verb}");
        };
        let Some((name, kept)) = decoded(name).and_then(|name| self.tokens.get_key_value(&name)) else {
            return not_found("no token has that name");
        };
        let allow = match verb {
            "refresh" | "invalidate" | "install" => Method::POST,
            "current" => Method::GET,
            _ => return not_found("the verbs are refresh, invalidate, install and current"),
        };
        if request.method() != allow {
            return answer::not_allowed(if allow == Method::GET { "GET" } else { "POST" });
        }
        let response = match verb {
            "refresh" => kept.refresh(name).await,
            "invalidate" => kept.invalidate(),
            "install" => kept.install(request).await,
            _ => kept.current(name, request.headers()).await,
        };
        response.map(|body| body.while_running(running))
    }

    fn status(&self, ready: bool) -> Value {
        let token = |(name, kept): (&String, &Kept)| (name.clone(), kept.status());
        let tokens: Map<String, Value> = self.tokens.iter().map(token).collect();
        json!({ "ready": ready, "tokens": tokens })
    }
}

impl Kept {
    fn status(&self) -> Value {
        let status = self.tokens.status();
        json!({
            "state": state(&status),
            "generation": status.generation.map_or(0, |generation| generation.get()),
            "expires_in_ms": status.expires_in.map(millis),
            "fetches": status.exchanges,
            "failures": status.failures,
            "last_error": status.last_error.map(|error| error.to_string()),
            "undurable": status.undurable,
            "store_error": status.store_error.map(|error| ledger::told(&error)),
            "replays": self.counts.replayed.load(Ordering::Relaxed),
        })
    }

    async fn refresh(&self, name: &str) -> Response<Body> {
        match self.tokens.refresh().await {
            Ok(token) => answer::json(StatusCode::OK, &json!({ "generation": generation(&token) })),
            Err(error) => answer::no_token(name, &error, false),
        }
    }

    fn invalidate(&self) -> Response<Body> {
        // Asked for a token, one that was never fetched would be.
        if matches!(self.tokens.status().state, State::Fresh | State::Stale)
            && let Some(token) = self.tokens.current()
        {
            self.tokens.invalidate(&token);
        }
        answer::no_content()
    }

    async fn install(&self, request: Request<Incoming>) -> Response<Body> {
        let body = match Limited::new(request.into_body(), CREDENTIAL_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = "a credential has 64 KiB at most";
                return answer::fault(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message);
            }
            Err(_) => return answer::fault(StatusCode::BAD_REQUEST, "bad_request", "the body broke off"),
        };
        // What is wrong with it is not quoted: it is a secret.
        match serde_json::from_slice(&body) {
            Ok(Value::Object(credential)) => match self.tokens.install(Value::Object(credential)) {
                Ok(()) => answer::no_content(),
                Err(error) => answer::fault(StatusCode::BAD_REQUEST, "bad_request", &error.to_string()),
            },
            _ => {
                let message = r#"the body is no JSON object; write a credential, as in {"refresh_token":"..."}"#;
                answer::fault(StatusCode::BAD_REQUEST, "bad_request", message)
            }
        }
    }

    async fn current(&self, name: &str, headers: &HeaderMap) -> Response<Body> {
        if !self.expose || !pages::is_addressed(headers) {
            let message = r#"this token is handed out only with "expose": true, and under an address or localhost"#;
            return answer::fault(StatusCode::FORBIDDEN, "not_exposed", message);
        }
        match self.tokens.get().await {
            Ok(token) => answer::json(StatusCode::OK, &json!(PageToken::of(&token))),
            Err(error) => answer::no_token(name, &error, false),
        }
    }
}

fn read_only(request: &Request<Incoming>, answer: impl FnOnce() -> Response<Body>) -> Response<Body> {
    match *request.method() {
        Method::GET | Method::HEAD => answer(),
        _ => answer::not_allowed("GET, HEAD"),
    }
}

/// The words of `/status`. What the end of the program makes of a token is none of them.
pub(crate) fn state(status: &Status) -> &'static str {
    match status.state {
        State::Fresh => "fresh",
        State::Stale => "stale",
        State::Expired => "expired",
        State::Terminal => "terminal",
        State::ShutDown if status.expires_in.is_some_and(|left| !left.is_zero()) => "fresh",
        State::ShutDown if status.generation.is_some() => "expired",
        _ => "none",
    }
}

fn generation(token: &Token) -> u64 {
    token.generation().map_or(0, |generation| generation.get())
}

/// A segment of a path, `None` if it decodes to nothing that is text.
fn decoded(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                decoded.push(digit(*high)? << 4 | digit(*low)?);
                tail
            }
            (b'%', _) => return None,
            (byte, tail) => {
                decoded.push(*byte);
                tail
            }
        };
    }
    String::from_utf8(decoded).ok()
}
