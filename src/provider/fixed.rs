//! A token that does not change: [`Fixed`].

use std::fmt;
use std::future::{Future, ready};

use serde_json::{Value, json};

use super::{FetchContext, IfLost, TokenProvider};
use crate::clock::A_YEAR;
use crate::error::{Faults, FetchError};
use crate::token::{Secret, Token};

/// One and the same token, for tests and for API keys.
///
/// It is handed out again on every fetch and counts as good for a year each time. If a server refuses
/// it, the request is sent once more, and for a minute that server's refusals go to the caller at once. A token that
/// somebody else renews, in a file or a variable, is not one: have a [`provider_fn`](crate::provider_fn) read it each time.
#[derive(Clone)]
pub struct Fixed {
    secret: Secret<String>,
}

impl Fixed {
    /// Brings `secret`, always. One that is empty or holds other than visible ASCII is an error when
    /// [`Tokens`](crate::Tokens) are made from it.
    pub fn new(secret: impl Into<String>) -> Self {
        Self {
            secret: Secret::new(secret.into()),
        }
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixed").finish_non_exhaustive()
    }
}

impl TokenProvider for Fixed {
    fn fetch(&self, context: FetchContext) -> impl Future<Output = Result<Token, FetchError>> + Send {
        let _ = context;
        ready(Ok(Token::bearer(self.secret.expose().clone()).expires_in(A_YEAR)))
    }

    fn if_lost(&self) -> IfLost {
        IfLost::Idempotent
    }

    fn owner(&self) -> String {
        "fixed".into()
    }

    /// Another one takes the place of what was kept.
    fn seed(&self) -> Option<Secret<Value>> {
        Some(Secret::new(json!({ "access_token": self.secret.expose() })))
    }

    fn check(&self, faults: &mut Faults) {
        if let Some(flaw) = Token::bearer(self.secret.expose().clone()).flaw() {
            faults.add("fixed", flaw);
        }
    }
}
