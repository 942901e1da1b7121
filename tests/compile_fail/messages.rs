//! What the compiler says to somebody whose types do not fit: the advice of this crate, word by word.
//!
//! The layout of the messages changes with the compiler, so they are compared on the version that they
//! were recorded with: `TRYBUILD=overwrite cargo test -p tower-token-compile-fail`. On every version the
//! documentation of `Replay` and `Prototype` holds that the same does not compile.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

const RECORDED: &str = "1.95.";

#[test]
fn what_does_not_fit_is_answered_with_what_to_write() {
    let rustc = Command::new("rustc").arg("--version").output().expect("a compiler");
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let version = rustc.split(' ').nth(1).unwrap_or_default();
    if !version.starts_with(RECORDED) {
        println!("left out: the messages of rustc {version} (recorded with {RECORDED}x)");
        return;
    }
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}

/// So that a new recording cannot lose the advice.
#[test]
fn the_recorded_messages_hold_the_advice() {
    for (recorded, advice) in [
        (
            include_str!("cases/auto_with_a_foreign_body.stderr"),
            &[
                "`.replay_via(Upload::new)`",
                "`.replay(TryClone(Upload::try_clone))`",
                "`.replay(CloneBody)`",
                "`.replay(Buffered::unboxed())`",
                "`.replay(Never)`",
            ][..],
        ),
        (
            include_str!("cases/clone_body_without_clone.stderr"),
            &["`.replay_via(Upload::new)`"],
        ),
        (
            include_str!("cases/buffered_of_another_body.stderr"),
            &["`.replay_via(Upload::new)`"],
        ),
        (
            include_str!("cases/inner_service_without_clone.stderr"),
            &["put a buffer below", "`tower::buffer::Buffer::new(service, 1024)`"],
        ),
    ] {
        for words in advice {
            assert!(recorded.contains(words), "{words} is not in\n{recorded}");
        }
    }
}
