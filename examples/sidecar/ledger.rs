//! What happened to a token: counted, and told to whoever listens.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, watch};
use tower_token::{Event, Observe, StoreError};

use crate::answer;
use crate::body::Body;

/// Lines that a slow reader may lag behind before it loses some.
const KEPT_LINES: usize = 1024;

/// The lines of `/events`. A clone is another handle.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    lines: broadcast::Sender<Bytes>,
    ended: watch::Sender<bool>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            lines: broadcast::Sender::new(KEPT_LINES),
            ended: watch::Sender::new(false),
        }
    }

    /// Ends every stream, after what it has not sent yet.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// What happens from now on, a JSON object a line.
    pub(crate) fn stream(&self) -> Body {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(pass_on(self.lines.subscribe(), self.ended.subscribe(), sender));
        Body::lines(receiver)
    }
}

/// A reader that is slow holds up this task and nobody else.
async fn pass_on(mut lines: broadcast::Receiver<Bytes>, mut ended: watch::Receiver<bool>, reader: mpsc::Sender<Bytes>) {
    loop {
        let line = tokio::select! {
            biased;
            line = lines.recv() => line,
            () = reader.closed() => return,
            _ = async { ended.wait_for(|ended| *ended).await.is_ok() } => return,
        };
        let line = match line {
            Ok(line) => line,
            Err(RecvError::Lagged(missed)) => {
                Bytes::from(format!("{}\n", json!({ "event": "lagged", "missed": missed })))
            }
            Err(RecvError::Closed) => return,
        };
        tokio::select! {
            biased;
            sent = reader.send(line) => if sent.is_err() { return },
            // It stalls, and is not waited for.
            _ = async { ended.wait_for(|ended| *ended).await.is_ok() } => return,
        }
    }
}

/// The counts of one token.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) renewed: AtomicU64,
    pub(crate) adopted: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) handed_back: AtomicU64,
}

impl Counts {
    fn count(&self, event: &Event) {
        let counter = match event {
            Event::Renewed { .. } => &self.renewed,
            Event::Adopted { .. } => &self.adopted,
            Event::FetchFailed { .. } => &self.failed,
            Event::Refused { .. } => &self.refused,
            Event::Replayed { .. } => &self.replayed,
            Event::HandedBack { .. } => &self.handed_back,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The observer of the token of that name.
pub(crate) fn observer(name: &str, counts: Arc<Counts>, events: &Events) -> impl Observe {
    let (name, lines) = (name.to_owned(), events.lines.clone());
    move |event: &Event| {
        counts.count(event);
        if let Some(trouble) = trouble(event) {
            crate::say(format!("{name}: {trouble}"));
        }
        // Without a reader nothing is written.
        if lines.receiver_count() > 0 {
            let _ = lines.send(line(&name, event));
        }
    }
}

/// What whoever runs it has to know at once: how it stands with the store.
fn trouble(event: &Event) -> Option<String> {
    match event {
        Event::StoreFailed { error, .. } => Some(format!("the store fails: {}", told(error))),
        Event::StoreRecovered => Some("the store works again".into()),
        Event::Undurable { error, .. } => Some(format!(
            "what the issuer sent is not in the store, and lost with this process: {}",
            told(error)
        )),
        Event::Durable => Some("what the issuer sent is in the store".into()),
        Event::StoreRestored { found, known, .. } => Some(format!(
            "the store had lost what was in it (it was at {found}, and had been at {known}): put back"
        )),
        _ => None,
    }
}

/// An error of the store with what caused it. None of them holds a secret.
pub(crate) fn told(error: &StoreError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

fn line(token: &str, event: &Event) -> Bytes {
    let mut object = described(event);
    object["token"] = token.into();
    object["at"] = format!("{:.3}", Timestamp::now()).into();
    Bytes::from(format!("{object}\n"))
}

fn described(event: &Event) -> Value {
    match event {
        Event::FetchBegan { cause, .. } => json!({ "event": "fetch_began", "cause": cause.as_str() }),
        Event::Renewed {
            generation,
            cause,
            took,
            expires_in,
            waited,
            ..
        } => json!({
            "event": "renewed",
            "generation": generation.get(),
            "cause": cause.as_str(),
            "took_ms": millis(*took),
            "expires_in_ms": millis(*expires_in),
            "waited": waited,
        }),
        Event::Adopted {
            generation, expires_in, ..
        } => json!({
            "event": "adopted",
            "generation": generation.get(),
            "expires_in_ms": millis(*expires_in),
        }),
        Event::Undurable { error, .. } => json!({ "event": "undurable", "error": told(error) }),
        Event::Durable => json!({ "event": "durable" }),
        Event::StoreFailed { error, .. } => json!({ "event": "store_failed", "error": told(error) }),
        Event::StoreRecovered => json!({ "event": "store_recovered" }),
        Event::StoreRestored { found, known, .. } => {
            json!({ "event": "store_restored", "found": found, "known": known })
        }
        Event::FetchFailed {
            cause,
            error,
            took,
            waited,
            ..
        } => json!({
            "event": "fetch_failed",
            "cause": cause.as_str(),
            "class": answer::class(error),
            "error": error.to_string(),
            "took_ms": millis(*took),
            "waited": waited,
        }),
        Event::Discarded { cause, .. } => json!({ "event": "discarded", "cause": cause.as_str() }),
        Event::Warned {
            generation, warning, ..
        } => json!({ "event": "warned", "generation": generation.get(), "warning": warning.as_str() }),
        Event::Refused { generation, .. } => json!({ "event": "refused", "generation": generation.get() }),
        Event::BreakerHeld { generation, .. } => json!({ "event": "breaker_held", "generation": generation.get() }),
        Event::Replayed {
            refused, generation, ..
        } => json!({ "event": "replayed", "refused": refused.get(), "generation": generation.get() }),
        Event::HandedBack { generation, reason, .. } => {
            json!({ "event": "handed_back", "generation": generation.get(), "reason": reason.as_str() })
        }
        Event::WithoutToken { reason, .. } => json!({ "event": "without_token", "reason": reason.as_str() }),
        Event::Skipped { cause, reason, .. } => {
            json!({ "event": "skipped", "cause": cause.as_str(), "reason": reason.as_str() })
        }
        Event::Waited { took, ended, .. } => {
            json!({ "event": "waited", "took_ms": millis(*took), "ended": ended.as_str() })
        }
        Event::BreakerOpened { generation, .. } => json!({ "event": "breaker_opened", "generation": generation.get() }),
        Event::BreakerClosed { generation, .. } => json!({ "event": "breaker_closed", "generation": generation.get() }),
        Event::Installed => json!({ "event": "installed" }),
        Event::SignedOut => json!({ "event": "signed_out" }),
        Event::ShutDown => json!({ "event": "shut_down" }),
        // Added since.
        _ => json!({ "event": "other" }),
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
