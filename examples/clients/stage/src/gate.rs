//! Who comes in: requests whose token is good right now.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, header};
use tokio::sync::watch;
use tower_token::testkit::{Issuer, Standing};

/// Admits requests whose Bearer token is good right now, and counts what it sees.
///
/// A clone is another handle on the same gate.
#[derive(Clone)]
pub struct Gate {
    issuer: Issuer,
    counts: Arc<watch::Sender<Counts>>,
}

impl Gate {
    pub(crate) fn new(issuer: Issuer) -> Self {
        Self {
            issuer,
            counts: Arc::default(),
        }
    }

    /// Whether these headers carry a token that is good right now. To be asked once for each request.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let token = bearer(headers).unwrap_or_default();
        let standing = self.issuer.standing(token);
        self.counts.send_modify(|counts| counts.add(token, standing));
        standing == Standing::Alive
    }

    pub(crate) async fn sees_another_token(&self) {
        let mut counts = self.counts.subscribe();
        let so_far = counts.borrow_and_update().good_tokens.len();
        // It cannot be closed: `self` has the sender.
        let _ = counts.wait_for(|counts| counts.good_tokens.len() > so_far).await;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    value.to_str().ok()?.strip_prefix("Bearer ")
}

/// What arrived at the gate.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) admitted: u64,
    pub(crate) revoked: u64,
    pub(crate) expired: u64,
    /// Without a token, or with one that the issuer never minted.
    pub(crate) foreign: u64,
    pub(crate) good_tokens: HashSet<String>,
}

impl Counts {
    fn add(&mut self, token: &str, standing: Standing) {
        match standing {
            Standing::Alive => {
                self.admitted += 1;
                if !self.good_tokens.contains(token) {
                    self.good_tokens.insert(token.to_owned());
                }
            }
            Standing::Revoked => self.revoked += 1,
            Standing::Expired => self.expired += 1,
            _ => self.foreign += 1,
        }
    }
}
