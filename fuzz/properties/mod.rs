//! What holds whatever comes in: a function for each target, fed by libfuzzer with what it finds, and by
//! `tests/corpora.rs` with the committed corpora.

// Each target uses its own part of it.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used)]

pub(crate) mod challenge;
pub(crate) mod endpoint;
pub(crate) mod times;
pub(crate) mod token_answer;

mod issuer;
mod outcome;
