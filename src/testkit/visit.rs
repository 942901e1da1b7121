//! One token request, from its arrival to the last byte of its answer.

use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::issuer::Issuer;
use super::ledger::{Birth, Line};

/// Counts a token request as in flight for as long as it lives.
///
/// A client that goes away drops the future or the body this sits in, and the count is right.
pub(super) struct Visit {
    issuer: Issuer,
    concerns: Option<Holder>,
    /// The access token in the answer, if a client can read it there.
    bears: Option<Birth>,
}

/// Whose tokens a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Family(Line),
    Client(String),
}

impl Visit {
    pub(super) fn begin(issuer: &Issuer) -> Self {
        let mut state = issuer.state();
        let counts = &mut state.counts;
        counts.token_requests += 1;
        counts.in_flight += 1;
        counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
        drop(state);
        Self {
            issuer: issuer.clone(),
            concerns: None,
            bears: None,
        }
    }

    pub(super) fn concerns(&mut self, holder: Holder) {
        let mut state = self.issuer.state();
        let now = state.in_flight.entry(holder.clone()).or_default();
        *now += 1;
        let now = *now;
        let most = &mut state.counts.max_in_flight_per_grant;
        *most = (*most).max(now);
        drop(state);
        self.concerns = Some(holder);
    }

    pub(super) fn bears(&mut self, birth: Birth) {
        self.bears = Some(birth);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.issuer.state().counts.answer_bytes += bytes as u64;
    }

    pub(super) fn handed_out(&mut self) {
        if let Some(birth) = self.bears.take() {
            self.issuer.state().ledger.handed_out(birth, Instant::now());
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut state = self.issuer.state();
        state.counts.in_flight -= 1;
        let Some(holder) = self.concerns.take() else {
            return;
        };
        if let Entry::Occupied(mut entry) = state.in_flight.entry(holder) {
            *entry.get_mut() -= 1;
            // Not kept at zero: a long test has many families.
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
