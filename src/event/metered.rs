//! Events as counters, histograms and gauges of the `metrics` facade: [`Metered`].

use std::borrow::Cow;
use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{Event, Observe, failure};

/// Counts and times every event with the [`metrics`] facade, through the recorder that the program installed.
///
/// Each has the label `tokens`, the name given here. Names and labels are stable; new ones may be added.
///
/// | name | kind | labels | what |
/// |---|---|---|---|
/// | `tower_token_fetches_total` | counter | `cause`, `outcome` | fetches that ended: `renewed`, `discarded`, `aborted` (no answer: it panicked, or its runtime ended), or the class of the error |
/// | `tower_token_fetch_seconds` | histogram | `outcome` | how long they took, but for those discarded |
/// | `tower_token_fetches_skipped_total` | counter | `cause`, `reason` | fetches that were wanted and did not begin |
/// | `tower_token_wait_seconds` | histogram | `ended` | how long callers waited for a token |
/// | `tower_token_refusals_total` | counter | | tokens that a server refused |
/// | `tower_token_replays_total` | counter | | requests sent again |
/// | `tower_token_handed_back_total` | counter | `reason` | refusals that callers got |
/// | `tower_token_without_token_total` | counter | `reason` | requests that went out without the token |
/// | `tower_token_breaker_held_total` | counter | | refusals that cost no fetch because the breaker was open |
/// | `tower_token_breaker_opened_total` | counter | | times that it opened |
/// | `tower_token_warnings_total` | counter | `warning` | answers of the issuer that left something out |
/// | `tower_token_adopted_total` | counter | | tokens that somebody else fetched, found in the store |
/// | `tower_token_undurable` | gauge | | 1 while what is in force would be lost with this process, else 0 |
/// | `tower_token_store_failures_total` | counter | | times that the store stopped doing what it is asked for |
/// | `tower_token_store_losses_total` | counter | | times that the store had less than before, and was given it back |
/// | `tower_token_seconds_to_expiry` | gauge | | what is left of the token's life, zero without one; every 15 s |
#[derive(Clone, Debug)]
pub struct Metered {
    tokens: Cow<'static, str>,
}

impl Metered {
    /// Metrics of tokens that have no name: the label `tokens` is empty.
    pub fn new() -> Self {
        Self::named("")
    }

    /// Metrics of tokens of this name, to tell them from others of the process.
    pub fn named(tokens: impl Into<Cow<'static, str>>) -> Self {
        describe();
        Self { tokens: tokens.into() }
    }

    fn labels<const N: usize>(&self, more: [(&'static str, &'static str); N]) -> Vec<Label> {
        let name = Label::new("tokens", self.tokens.clone());
        let more = more
            .into_iter()
            .map(|(name, value)| Label::from_static_parts(name, value));
        std::iter::once(name).chain(more).collect()
    }

    fn fetched(&self, cause: &'static str, outcome: &'static str, took: Option<Duration>) {
        counter!(FETCHES, self.labels([("cause", cause), ("outcome", outcome)])).increment(1);
        if let Some(took) = took {
            histogram!(FETCH_SECONDS, self.labels([("outcome", outcome)])).record(took);
        }
    }

    fn count<const N: usize>(&self, name: &'static str, labels: [(&'static str, &'static str); N]) {
        counter!(name, self.labels(labels)).increment(1);
    }

    fn is_undurable(&self, undurable: bool) {
        gauge!(UNDURABLE, self.labels([])).set(u8::from(undurable));
    }

    fn lives(&self, expires_in: Duration) {
        gauge!(SECONDS_TO_EXPIRY, self.labels([])).set(expires_in);
    }
}

impl Default for Metered {
    fn default() -> Self {
        Self::new()
    }
}

impl Observe for Metered {
    fn observe(&self, event: &Event) {
        match event {
            Event::Renewed {
                cause,
                took,
                expires_in,
                ..
            } => {
                self.fetched(cause.as_str(), "renewed", Some(*took));
                self.lives(*expires_in);
            }
            Event::FetchFailed { cause, class, took, .. } => {
                self.fetched(cause.as_str(), failure(*class), Some(*took));
            }
            Event::Discarded { cause } => self.fetched(cause.as_str(), "discarded", None),
            Event::Skipped { cause, reason } => {
                self.count(SKIPPED, [("cause", cause.as_str()), ("reason", reason.as_str())]);
            }
            Event::Waited { took, ended } => {
                histogram!(WAIT_SECONDS, self.labels([("ended", ended.as_str())])).record(*took);
            }
            Event::Refused { .. } => self.count(REFUSALS, []),
            Event::Replayed { .. } => self.count(REPLAYS, []),
            Event::HandedBack { reason, .. } => self.count(HANDED_BACK, [("reason", reason.as_str())]),
            Event::WithoutToken { reason } => self.count(WITHOUT_TOKEN, [("reason", reason.as_str())]),
            Event::BreakerHeld { .. } => self.count(BREAKER_HELD, []),
            Event::BreakerOpened { .. } => self.count(BREAKER_OPENED, []),
            Event::Warned { warning, .. } => self.count(WARNINGS, [("warning", warning.as_str())]),
            Event::Alive { expires_in, .. } => self.lives(*expires_in),
            Event::Adopted { expires_in, .. } => {
                self.count(ADOPTED, []);
                self.lives(*expires_in);
            }
            Event::Undurable { .. } => self.is_undurable(true),
            Event::Durable => self.is_undurable(false),
            Event::StoreFailed { .. } => self.count(STORE_FAILURES, []),
            Event::StoreRestored { .. } => self.count(STORE_LOSSES, []),
            Event::Installed | Event::SignedOut => self.lives(Duration::ZERO),
            Event::FetchBegan { .. } | Event::BreakerClosed { .. } | Event::StoreRecovered | Event::ShutDown => {}
        }
    }

    fn pace(&self) -> Option<Duration> {
        Some(PACE)
    }
}

/// As often as most collectors look.
const PACE: Duration = Duration::from_secs(15);

const FETCHES: &str = "tower_token_fetches_total";
const FETCH_SECONDS: &str = "tower_token_fetch_seconds";
const SKIPPED: &str = "tower_token_fetches_skipped_total";
const WAIT_SECONDS: &str = "tower_token_wait_seconds";
const REFUSALS: &str = "tower_token_refusals_total";
const REPLAYS: &str = "tower_token_replays_total";
const HANDED_BACK: &str = "tower_token_handed_back_total";
const WITHOUT_TOKEN: &str = "tower_token_without_token_total";
const BREAKER_HELD: &str = "tower_token_breaker_held_total";
const BREAKER_OPENED: &str = "tower_token_breaker_opened_total";
const WARNINGS: &str = "tower_token_warnings_total";
const ADOPTED: &str = "tower_token_adopted_total";
const UNDURABLE: &str = "tower_token_undurable";
const STORE_FAILURES: &str = "tower_token_store_failures_total";
const STORE_LOSSES: &str = "tower_token_store_losses_total";
const SECONDS_TO_EXPIRY: &str = "tower_token_seconds_to_expiry";

fn describe() {
    let counters = [
        (FETCHES, "Fetches that ended"),
        (SKIPPED, "Fetches that were wanted and did not begin"),
        (REFUSALS, "Tokens that a server refused"),
        (REPLAYS, "Requests sent again with a newer token"),
        (HANDED_BACK, "Refusals that callers got"),
        (WITHOUT_TOKEN, "Requests that went out without the token"),
        (BREAKER_HELD, "Refusals that cost no fetch because the breaker was open"),
        (BREAKER_OPENED, "Times that the breaker opened"),
        (WARNINGS, "Answers of the issuer that left something out"),
        (ADOPTED, "Tokens that somebody else fetched"),
        (
            STORE_FAILURES,
            "Times that the store stopped doing what it is asked for",
        ),
        (STORE_LOSSES, "Times that the store had less than before"),
    ];
    for (name, what) in counters {
        describe_counter!(name, Unit::Count, what);
    }
    describe_histogram!(FETCH_SECONDS, Unit::Seconds, "How long a fetch took");
    describe_histogram!(WAIT_SECONDS, Unit::Seconds, "How long a caller waited for a token");
    describe_gauge!(
        UNDURABLE,
        Unit::Count,
        "Whether what is in force would be lost with the process"
    );
    describe_gauge!(SECONDS_TO_EXPIRY, Unit::Seconds, "What is left of the token's life");
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::DebuggingRecorder;

    use super::super::{one_of_each, quoted, rows_of};
    use super::*;

    /// Dashboards are built from it.
    #[test]
    fn its_page_lists_each_name_kind_and_label_that_is_recorded_and_no_other() {
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || {
            let metered = Metered::named("test");
            one_of_each().iter().for_each(|event| metered.observe(event));
        });
        let recorded = recorder.snapshotter().snapshot().into_vec();
        let mut recorded: Vec<_> = recorded
            .iter()
            .map(|(key, unit, told, _)| {
                assert!(unit.is_some() && told.is_some(), "{key:?} is not described");
                let mut labels: Vec<_> = key.key().labels().map(|label| label.key().to_owned()).collect();
                labels.sort();
                let kind = format!("{:?}", key.kind()).to_lowercase();
                (key.key().name().to_owned(), kind, labels)
            })
            .collect();
        recorded.sort();
        recorded.dedup();
        let mut listed: Vec<_> = rows_of(include_str!("metered.rs"))
            .iter()
            .map(|row| {
                let mut labels = quoted(row[2]);
                labels.push("tokens".into());
                labels.sort();
                (row[0].trim_end_matches('`').to_owned(), row[1].to_owned(), labels)
            })
            .collect();
        listed.sort();
        assert_eq!(recorded, listed);
    }
}
