//! What was to be shown, and whether it was.

use std::fmt;
use std::time::Duration;

pub(crate) struct Target {
    what: String,
    target: String,
    seen: String,
    met: bool,
}

impl Target {
    pub(crate) fn new(what: impl Into<String>, target: impl fmt::Display, seen: impl fmt::Display, met: bool) -> Self {
        Self {
            what: what.into(),
            target: target.to_string(),
            seen: seen.to_string(),
            met,
        }
    }

    pub(crate) fn exactly<T: PartialEq + fmt::Display>(what: impl Into<String>, target: T, seen: T) -> Self {
        let met = target == seen;
        Self::new(what, target, seen, met)
    }

    pub(crate) fn at_most(what: impl Into<String>, target: Duration, seen: Duration) -> Self {
        Self::new(what, format!("<= {}", span(target)), span(seen), seen <= target)
    }

    /// Nothing is promised.
    pub(crate) fn stated(what: impl Into<String>, seen: impl fmt::Display) -> Self {
        Self::new(what, "stated", seen, true)
    }

    pub(crate) fn is_met(&self) -> bool {
        self.met
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "ok" } else { "MISSED" };
        write!(f, "{} · {} · {} · {verdict}", self.what, self.target, self.seen)
    }
}

/// As people write it.
pub(crate) fn span(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{:.1} ms", span.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", span.as_secs_f64())
    }
}
