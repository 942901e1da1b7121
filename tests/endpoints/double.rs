//! A token API in the same process and in virtual time: what it answers is a function of the request.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_token::config::{self, TokenConfig};
use tower_token::{Class, Clock, Endpoint, Error, RefreshPolicy, TokenClient, TokenLayer, Tokens};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A request, as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Scheme, host, path and query.
    pub(crate) uri: http::Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Since the double was made.
    pub(crate) at: Duration,
    /// The time of day.
    pub(crate) time: SystemTime,
}

impl Seen {
    pub(crate) fn query(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect()
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.query()
            .into_iter()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What happens instead of the answer.
pub(crate) enum Fault {
    Answer(Response<String>),
    /// Carried out, and then the connection breaks.
    Lost,
    /// The connection cannot be made.
    Unsent,
}

type Answers = dyn FnMut(&Seen) -> Response<String> + Send;

/// Answers by its function, or by the faults that are queued.
#[derive(Clone)]
pub(crate) struct Double {
    answers: Arc<Mutex<Box<Answers>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    started: Instant,
    pub(crate) clock: Clock,
}

impl Double {
    pub(crate) fn new(answers: impl FnMut(&Seen) -> Response<String> + Send + 'static) -> Self {
        Self {
            answers: Arc::new(Mutex::new(Box::new(answers))),
            seen: Arc::default(),
            faults: Arc::default(),
            started: Instant::now(),
            clock: Clock::of_tokio(),
        }
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// Everything that came in.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What came in under this path.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.uri.path().starts_with(path))
            .count()
    }

    pub(crate) fn service(&self) -> BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError> {
        let double = self.clone();
        BoxCloneSyncService::new(service_fn(move |request: Request<Full<Bytes>>| {
            let double = double.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body in memory").to_bytes();
                double.answer(Seen {
                    method: head.method,
                    uri: head.uri,
                    headers: head.headers,
                    body: String::from_utf8(body.into()).unwrap(),
                    at: double.started.elapsed(),
                    time: double.clock.now(),
                })
            }
        }))
    }

    fn answer(&self, seen: Seen) -> Result<Response<Full<Bytes>>, BoxError> {
        self.seen.lock().unwrap().push(seen.clone());
        let fault = self.faults.lock().unwrap().pop_front();
        let answer = match fault {
            Some(Fault::Unsent) => return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            Some(Fault::Answer(answer)) => answer,
            Some(Fault::Lost) => {
                let _ = (self.answers.lock().unwrap())(&seen);
                return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
            }
            None => (self.answers.lock().unwrap())(&seen),
        };
        Ok(answer.map(|text| Full::new(Bytes::from(text))))
    }

    /// The tokens that a document's provider mints here.
    pub(crate) fn tokens(&self, provider: &Value) -> Tokens {
        self.built(provider).unwrap()
    }

    pub(crate) fn built(&self, provider: &Value) -> Result<Tokens, Error> {
        let endpoint =
            Endpoint::from_json(&provider.to_string())?.client(TokenClient::new::<_, Full<Bytes>, _>(self.service()));
        Tokens::builder(endpoint)
            .clock(self.clock.clone())
            .policy(RefreshPolicy::default().jitter(0.0))
            .build()
    }
}

/// An answer of this status with this body.
pub(crate) fn answer(status: u16, body: impl ToString) -> Response<String> {
    Response::builder().status(status).body(body.to_string()).unwrap()
}

pub(crate) fn with(mut answer: Response<String>, name: &'static str, value: impl ToString) -> Response<String> {
    answer.headers_mut().insert(name, value.to_string().parse().unwrap());
    answer
}

// ===== Examples =====

/// A file of `examples/vendors`, with secrets written out that it takes from the environment.
pub(crate) struct Example {
    pub(crate) document: Value,
    pub(crate) config: TokenConfig,
}

impl Example {
    pub(crate) fn read(name: &str, secrets: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/vendors/{name}.json"));
        let mut document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let provider = document["provider"].as_object_mut().unwrap();
        for (_, value) in provider["vars"].as_object_mut().unwrap() {
            if let Some(variable) = value["env"].as_str() {
                let known = secrets.iter().find(|(name, _)| *name == variable);
                *value = json!(known.expect("a secret that the test knows").1);
            }
        }
        let config = config::read(&document.to_string()).unwrap();
        Self { document, config }
    }

    pub(crate) fn tokens(&self, double: &Double) -> Tokens {
        let mut endpoint = Endpoint::from_json(&self.document["provider"].to_string()).unwrap();
        endpoint = endpoint.client(TokenClient::new::<_, Full<Bytes>, _>(double.service()));
        // The document's own policy, but for what is drawn.
        let mut policy = RefreshPolicy::default().jitter(0.0);
        if self.document["policy"]["refresh_before"] == json!("20m") {
            policy = policy.refresh_before(20 * MINUTE);
        }
        Tokens::builder(endpoint)
            .clock(double.clock.clone())
            .policy(policy)
            .build()
            .unwrap()
    }

    /// A business request through the layer that the document describes.
    pub(crate) async fn call(&self, tokens: &Tokens, double: &Double, uri: &str) -> (u16, String) {
        let layer = TokenLayer::new(tokens, self.config.origins("").unwrap())
            .inject(self.config.injection("").unwrap())
            .classify(self.config.refusal("").unwrap());
        let request = Request::get(uri).body(Full::default()).unwrap();
        let response = layer.layer(double.service()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The class of what follows from this answer to the first token request. Of a wait only what the answer
    /// says is told, not the engine's own second.
    pub(crate) async fn class(&self, answer: Response<String>) -> Class {
        let double = Double::new(|_| unreachable!("asked twice"));
        double.fault(Fault::Answer(answer));
        double.fault(Fault::Unsent);
        double.fault(Fault::Unsent);
        match self.tokens(&double).get().await.unwrap_err().class().unwrap() {
            Class::Throttled {
                retry_after: Some(wait),
            } if wait < 2 * SECOND => Class::Throttled { retry_after: None },
            class => class,
        }
    }
}
