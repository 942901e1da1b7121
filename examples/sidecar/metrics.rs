//! `/metrics`: how things stand, as Prometheus reads it (text format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use tower_token::Status;

use crate::admin::{Kept, state};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const STATES: [&str; 5] = ["none", "fresh", "stale", "expired", "terminal"];

/// A metric with one value a token; `None` where there is nothing to say.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Kept, &Status) -> Option<f64>,
}

const METRICS: [Metric; 12] = [
    Metric {
        name: "fetches_total",
        kind: "counter",
        help: "Exchanges with the issuer.",
        value: |_, status| Some(status.exchanges as f64),
    },
    Metric {
        name: "renewals_total",
        kind: "counter",
        help: "Tokens that fetches brought.",
        value: |kept, _| counted(&kept.counts.renewed),
    },
    Metric {
        name: "adopted_total",
        kind: "counter",
        help: "Tokens that others fetched, found in the store.",
        value: |kept, _| counted(&kept.counts.adopted),
    },
    Metric {
        name: "failures_total",
        kind: "counter",
        help: "Fetches that brought no token.",
        value: |kept, _| counted(&kept.counts.failed),
    },
    Metric {
        name: "refused_total",
        kind: "counter",
        help: "Tokens that upstream refused.",
        value: |kept, _| counted(&kept.counts.refused),
    },
    Metric {
        name: "replays_total",
        kind: "counter",
        help: "Requests that were sent again with a newer token.",
        value: |kept, _| counted(&kept.counts.replayed),
    },
    Metric {
        name: "handed_back_total",
        kind: "counter",
        help: "Refusals that went to the caller.",
        value: |kept, _| counted(&kept.counts.handed_back),
    },
    Metric {
        name: "consecutive_failures",
        kind: "gauge",
        help: "Fetches that brought no token since the last one that did.",
        value: |_, status| Some(f64::from(status.failures)),
    },
    Metric {
        name: "generation",
        kind: "gauge",
        help: "The number of the current token; 0 if there is none.",
        value: |_, status| Some(status.generation.map_or(0, |generation| generation.get()) as f64),
    },
    Metric {
        name: "expires_in_seconds",
        kind: "gauge",
        help: "What is left of the life of the current token; absent if there is none.",
        value: |_, status| status.expires_in.map(|left| left.as_secs_f64()),
    },
    Metric {
        name: "undurable",
        kind: "gauge",
        help: "1 while what is in force is not in the store, and would be lost with this process.",
        value: |_, status| Some(f64::from(u8::from(status.undurable))),
    },
    Metric {
        name: "waiting",
        kind: "gauge",
        help: "Callers that wait for a token.",
        value: |_, status| Some(status.waiting as f64),
    },
];

pub(crate) fn written(tokens: &BTreeMap<String, Kept>) -> String {
    let tokens: Vec<(String, &Kept, Status)> = tokens
        .iter()
        .map(|(name, kept)| (escaped(name), kept, kept.tokens.status()))
        .collect();
    let mut text = String::new();
    for metric in &METRICS {
        begin(&mut text, metric.name, metric.kind, metric.help);
        for (name, kept, status) in &tokens {
            if let Some(value) = (metric.value)(kept, status) {
                // Writing to a text cannot fail.
                let _ = writeln!(text, "tower_token_{}{{token=\"{name}\"}} {value}", metric.name);
            }
        }
    }
    begin(&mut text, "state", "gauge", "1 for the state that the token is in.");
    for (name, _, status) in &tokens {
        for word in STATES {
            let value = u8::from(state(status) == word);
            let _ = writeln!(text, "tower_token_state{{token=\"{name}\",state=\"{word}\"}} {value}");
        }
    }
    text
}

fn begin(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        text,
        "# HELP tower_token_{name} {help}\n# TYPE tower_token_{name} {kind}"
    );
}

fn counted(counter: &AtomicU64) -> Option<f64> {
    Some(counter.load(Ordering::Relaxed) as f64)
}

/// As the value of a label.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
