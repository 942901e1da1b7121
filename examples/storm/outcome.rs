//! What one accident came to: a line of the table, and whether every promise was kept.

use std::fmt;

use crate::words::quoted;

pub(crate) struct Outcome {
    /// As the test of it is called.
    row: &'static str,
    went_wrong: &'static str,
    callers_saw: String,
    /// As the issuer counted.
    token_requests: u64,
    broken: Vec<String>,
}

impl Outcome {
    pub(crate) fn of(row: &'static str, went_wrong: &'static str) -> Self {
        Self {
            row,
            went_wrong,
            callers_saw: String::new(),
            token_requests: 0,
            broken: Vec::new(),
        }
    }

    pub(crate) fn callers_saw(mut self, what: impl Into<String>) -> Self {
        self.callers_saw = what.into();
        self
    }

    /// As many as the issuer counted, and as many as there should be.
    pub(crate) fn token_requests(mut self, counted: u64, promised: u64) -> Self {
        self.token_requests = counted;
        self.promise(format!("{promised} token requests"), counted == promised)
    }

    /// A promise, and whether it was kept.
    pub(crate) fn promise(mut self, promise: impl Into<String>, kept: bool) -> Self {
        if !kept {
            self.broken.push(promise.into());
        }
        self
    }

    pub(crate) fn is_good(&self) -> bool {
        self.broken.is_empty()
    }

    pub(crate) fn heading() -> String {
        line("", "what goes wrong", "what the callers see", "token requests")
    }

    pub(crate) fn json(&self) -> String {
        let broken: Vec<_> = self.broken.iter().map(|promise| quoted(promise)).collect();
        format!(
            r#"{{"row":{},"went_wrong":{},"callers_saw":{},"token_requests":{},"broken":[{}]}}"#,
            quoted(self.row),
            quoted(self.went_wrong),
            quoted(&self.callers_saw),
            self.token_requests,
            broken.join(","),
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.token_requests.to_string();
        f.write_str(&line(self.row, self.went_wrong, &self.callers_saw, &asked))?;
        if !self.is_good() {
            write!(f, "   BROKEN: {}", self.broken.join("; "))?;
        }
        Ok(())
    }
}

fn line(row: &str, went_wrong: &str, callers_saw: &str, token_requests: &str) -> String {
    format!("{row:<3}  {went_wrong:<48}  {callers_saw:<70}  {token_requests:>14}")
}
