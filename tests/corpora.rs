//! What the fuzz targets assert, on the corpora that they begin with. See `fuzz/README.md`.

#![cfg(all(feature = "testkit", feature = "config"))]
#![allow(clippy::expect_used)]

#[path = "../fuzz/properties/mod.rs"]
mod properties;

use std::path::Path;

/// Feeds every file of the corpus to the target's property.
fn each(target: &str, hold: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(corpus)
        .expect("a corpus")
        .map(|file| file.expect("an entry").path())
        .collect();
    assert!(files.len() >= 20, "{target}: {} files", files.len());
    files.sort();
    for file in files {
        // The runner shows it if the property does not hold.
        println!("{}", file.display());
        hold(&std::fs::read(file).expect("a file"));
    }
}

#[test]
fn challenges_are_read_within_their_bounds() {
    each("challenge", properties::challenge::hold);
}

#[test]
fn every_answer_of_an_issuer_ends_in_a_token_or_a_classed_error() {
    each("token_answer", properties::token_answer::hold);
}

#[test]
fn so_does_every_answer_to_a_document_or_the_document_is_refused() {
    each("endpoint", properties::endpoint::hold);
}

#[test]
fn no_time_that_is_named_is_waited_for_too_long() {
    each("times", properties::times::hold);
}
