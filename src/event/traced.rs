//! Events as `tracing` events and a span: [`Traced`].

use std::borrow::Cow;

use tracing::{Level, Span};

use super::{Event, Observe, failure};
use crate::provider::Cause;

/// Tells [`tracing`] of every event, and puts each fetch into a span.
///
/// All have the target `tower_token`, and `tokens`, the name given here. The names of events (their message)
/// and fields are stable; new ones may be added.
///
/// | message | level | fields |
/// |---|---|---|
/// | `fetch began` | DEBUG | `cause` |
/// | `renewed` | INFO | `generation`, `token`, `cause`, `took_ms`, `expires_in_s`, `waited` (callers) |
/// | `adopted` | INFO | `generation`, `token`, `expires_in_s` |
/// | `undurable` | WARN | `error` |
/// | `durable` | INFO | |
/// | `store failed` | WARN | `error` |
/// | `store recovered` | INFO | |
/// | `store restored` | WARN | `found`, `known` |
/// | `fetch failed` | WARN | `cause`, `class` (or `aborted`, without an answer), `error`, `took_ms`, `waited` |
/// | `fetch skipped` | DEBUG | `cause`, `reason` |
/// | `discarded` | DEBUG | `cause` |
/// | `warned` | WARN | `generation`, `warning` |
/// | `waited` | DEBUG | `took_ms`, `ended` |
/// | `refused` | INFO | `generation`, `token` |
/// | `replayed` | DEBUG | `refused`, `generation` |
/// | `handed back` | DEBUG | `generation`, `reason` |
/// | `without token` | DEBUG | `reason` |
/// | `breaker opened` | WARN | `generation` |
/// | `breaker held` | DEBUG | `generation` |
/// | `breaker closed` | INFO | `generation` |
/// | `installed`, `signed out`, `shut down` | INFO | |
///
/// The span is `fetch`, at level INFO, with `tokens` and `cause`. It surrounds everything that the provider does,
/// so its client's own spans and events stand in it. `token` is a [`Fingerprint`](crate::Fingerprint), never the secret.
#[derive(Clone, Debug)]
pub struct Traced {
    tokens: Cow<'static, str>,
}

impl Traced {
    /// Events of tokens that have no name: `tokens` is empty.
    pub fn new() -> Self {
        Self::named("")
    }

    /// Events of tokens of this name, to tell them from others of the process.
    pub fn named(tokens: impl Into<Cow<'static, str>>) -> Self {
        Self { tokens: tokens.into() }
    }
}

impl Default for Traced {
    fn default() -> Self {
        Self::new()
    }
}

/// One event; the name of the tokens stands in each.
macro_rules! told {
    ($self:ident, $level:ident, $message:literal $(, $($field:tt)+)?) => {
        tracing::event!(
            target: "tower_token",
            Level::$level,
            tokens = &*$self.tokens,
            $($($field)+,)?
            $message
        )
    };
}

impl Observe for Traced {
    fn observe(&self, event: &Event) {
        match event {
            Event::FetchBegan { cause } => told!(self, DEBUG, "fetch began", %cause),
            Event::Renewed {
                generation,
                token,
                cause,
                took,
                expires_in,
                waited,
            } => told!(
                self, INFO, "renewed", %generation, %token, %cause, took_ms = millis(*took),
                expires_in_s = expires_in.as_secs(), waited
            ),
            Event::Adopted {
                generation,
                token,
                expires_in,
            } => told!(self, INFO, "adopted", %generation, %token, expires_in_s = expires_in.as_secs()),
            Event::Undurable { error } => told!(self, WARN, "undurable", %error),
            Event::Durable => told!(self, INFO, "durable"),
            Event::StoreFailed { error } => told!(self, WARN, "store failed", %error),
            Event::StoreRecovered => told!(self, INFO, "store recovered"),
            Event::StoreRestored { found, known } => told!(self, WARN, "store restored", found, known),
            Event::FetchFailed {
                cause,
                class,
                error,
                took,
                waited,
            } => {
                let class = failure(*class);
                told!(self, WARN, "fetch failed", %cause, class, %error, took_ms = millis(*took), waited);
            }
            Event::Skipped { cause, reason } => told!(self, DEBUG, "fetch skipped", %cause, %reason),
            Event::Discarded { cause } => told!(self, DEBUG, "discarded", %cause),
            Event::Warned { generation, warning } => told!(self, WARN, "warned", %generation, %warning),
            Event::Waited { took, ended } => told!(self, DEBUG, "waited", took_ms = millis(*took), %ended),
            Event::Refused { generation, token } => told!(self, INFO, "refused", %generation, %token),
            Event::Replayed { refused, generation } => told!(self, DEBUG, "replayed", %refused, %generation),
            Event::HandedBack { generation, reason } => told!(self, DEBUG, "handed back", %generation, %reason),
            Event::WithoutToken { reason } => told!(self, DEBUG, "without token", %reason),
            Event::BreakerOpened { generation } => told!(self, WARN, "breaker opened", %generation),
            Event::BreakerHeld { generation } => told!(self, DEBUG, "breaker held", %generation),
            Event::BreakerClosed { generation } => told!(self, INFO, "breaker closed", %generation),
            // Asked for by others; a log that repeats it tells nothing.
            Event::Alive { .. } => {}
            Event::Installed => told!(self, INFO, "installed"),
            Event::SignedOut => told!(self, INFO, "signed out"),
            Event::ShutDown => told!(self, INFO, "shut down"),
        }
    }

    fn span(&self, cause: Cause) -> Option<Span> {
        Some(tracing::info_span!(target: "tower_token", "fetch", tokens = &*self.tokens, %cause))
    }
}

fn millis(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::super::{one_of_each, quoted, rows_of};
    use super::*;

    /// Message, level and the names of the fields.
    type Told = (String, String, Vec<String>);

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<Told>>>);

    impl<S: tracing::Subscriber> Layer<S> for Log {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            fields.names.sort();
            assert_eq!(event.metadata().target(), "tower_token");
            let level = event.metadata().level().to_string();
            self.0.lock().unwrap().push((fields.message, level, fields.names));
        }
    }

    #[derive(Default)]
    struct Fields {
        message: String,
        names: Vec<String>,
    }

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            match field.name() {
                "message" => self.message = format!("{value:?}"),
                name => self.names.push(name.to_owned()),
            }
        }
    }

    /// Alerts are built from it.
    #[test]
    fn its_page_lists_each_message_level_and_field_that_is_told_and_no_other() {
        let log = Log::default();
        with_default(tracing_subscriber::registry().with(log.clone()), || {
            let traced = Traced::named("test");
            one_of_each().iter().for_each(|event| traced.observe(event));
        });
        let mut listed: Vec<Told> = Vec::new();
        for row in rows_of(include_str!("traced.rs")) {
            // Of the first one the mark before it is gone already.
            for message in quoted(&format!("`{}", row[0])) {
                // What stands in parentheses is about values.
                let fields = row[2].split('(').map(|part| part.rsplit(')').next().unwrap());
                let mut fields = quoted(&fields.collect::<String>());
                fields.push("tokens".into());
                fields.sort();
                listed.push((message, row[1].to_owned(), fields));
            }
        }
        let mut told = log.0.lock().unwrap().clone();
        told.sort();
        listed.sort();
        assert_eq!(told, listed);
    }
}
