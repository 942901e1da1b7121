//! A document for `Endpoint` or for `config`, a line `---`, and an answer to what it describes.

use std::path::Path;

use serde_json::Value;
use tower_token::config::{self, TokenConfig};
use tower_token::{Endpoint, Error, RefreshPolicy};

use super::issuer::{Answer, split};
use super::outcome::{CANARY, Fetching, SECRETS, clock, in_paused_time};

/// Documents that are right, by the name that stands for them, so that answers are tried on all that one may say.
const DOCUMENTS: [(&[u8], &str); 3] = [
    (b"rotating", include_str!("documents/rotating.json")),
    (b"signed", include_str!("documents/signed.json")),
    (b"kept", include_str!("documents/kept.json")),
];

pub(crate) fn hold(input: &[u8]) {
    let (document, answer) = split(input, b"\n---\n");
    let known = DOCUMENTS.iter().find(|(name, _)| *name == document);
    let document = match known {
        Some((_, document)) => document,
        None => match std::str::from_utf8(document) {
            Ok(document) if !reads_files(document) => document,
            _ => return,
        },
    };
    is_read_or_refused(document);
    match Endpoint::from_json(document) {
        // Nobody knows the secrets of the others.
        Ok(endpoint) => answers(endpoint, answer, if known.is_some() { &SECRETS[..1] } else { &[] }),
        Err(error) => {
            assert!(known.is_none(), "{error}");
            is_of_the_configuration(&error, document);
        }
    }
}

fn is_read_or_refused(document: &str) {
    let built = config::read::<TokenConfig>(document).and_then(|token| {
        token.injection("")?;
        token.refusal("")?;
        // Outside of a runtime, so that nothing is fetched.
        token.builder("", Path::new("."))?.build()
    });
    if let Err(error) = built {
        is_of_the_configuration(&error, document);
    }
}

fn answers(endpoint: Endpoint, answer: &[u8], secrets: &'static [&'static str]) {
    let endpoint = endpoint.client(Answer::read(answer).client());
    in_paused_time(async {
        // Its secrets are found when it is built, what else is wrong with it now.
        match Fetching::of(endpoint, RefreshPolicy::default(), clock(0)) {
            Ok(fetching) => fetching.with(secrets).end_well().await,
            Err(error) => assert!(error.is_config()),
        }
    });
}

/// A path is quoted, and so are the names in it; a value is not.
fn is_of_the_configuration(error: &Error, document: &str) {
    assert!(error.is_config());
    let named = serde_json::from_str(document).is_ok_and(|value| !has_name(&value, &|name| name.contains(CANARY)));
    assert!(!named || !format!("{error} {error:?}").contains(CANARY), "{error}");
}

/// A fuzzer is not to read what lies on the disk, and some files have no end.
fn reads_files(document: &str) -> bool {
    serde_json::from_str(document).is_ok_and(|value| has_name(&value, &|name| name == "file"))
}

fn has_name(value: &Value, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| is(name) || has_name(value, is)),
        Value::Array(items) => items.iter().any(|item| has_name(item, is)),
        _ => false,
    }
}
