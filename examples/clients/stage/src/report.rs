//! What is printed in the end.

use std::process::ExitCode;

use tower_token::BoxError;

use crate::gate::Counts;
use crate::{CALLERS, Calls, RUN, TOKEN_LIVES, chain};

/// One in the beginning, one for an expiry and one for the revocation.
const FEWEST_TOKENS: usize = 3;

pub(crate) struct Report {
    client: String,
    made: u64,
    failures: Vec<BoxError>,
}

impl Report {
    pub(crate) fn new(client: &str) -> Self {
        Self {
            client: client.to_owned(),
            made: 0,
            failures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, calls: Calls) {
        self.made += calls.made;
        self.failures.extend(calls.failures);
    }

    /// Prints all of it.
    pub(crate) fn conclude(self, server: Counts, minted: u64) -> ExitCode {
        println!(
            "{}: {CALLERS} callers for {} s, tokens that live for {} s, one of them revoked",
            self.client,
            RUN.as_secs(),
            TOKEN_LIVES.as_secs()
        );
        let seen = server.good_tokens.len();
        println!("{:>6}  calls, {} of them failed", self.made, self.failures.len());
        println!("{:>6}  requests with a good token at the server", server.admitted);
        println!("{:>6}  with the revoked one, and refused", server.revoked);
        println!("{:>6}  with one that had expired", server.expired);
        println!("{:>6}  with none of the issuer's", server.foreign);
        println!("{minted:>6}  tokens minted by the issuer, {seen} of them seen by the server");

        let wrong = self.wrong(&server, minted);
        for what in &wrong {
            println!("wrong: {what}");
        }
        if let Some(first) = self.failures.first() {
            println!("the first failure: {}", chain(&**first));
        }
        if wrong.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// What should not be so.
    fn wrong(&self, server: &Counts, minted: u64) -> Vec<&'static str> {
        let seen = server.good_tokens.len();
        let rules = [
            (self.made > 0, "nobody called"),
            (self.failures.is_empty(), "calls failed"),
            (server.admitted >= self.made, "calls did not reach the server"),
            (server.revoked > 0, "the revocation was not met"),
            (server.expired == 0, "an expired token was sent"),
            (server.foreign == 0, "a request came without a token of the issuer"),
            (seen >= FEWEST_TOKENS, "too few tokens were used"),
            // The last one may have come when everybody was done.
            (minted - seen as u64 <= 1, "tokens were fetched and not used"),
        ];
        rules
            .into_iter()
            .filter_map(|(holds, otherwise)| (!holds).then_some(otherwise))
            .collect()
    }
}
