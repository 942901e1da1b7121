//! What the compiler says to somebody whose types do not fit: the advice of this crate, word by word.
//!
//! The layout of the messages changes with the compiler. So whole messages are compared on the version that
//! they were recorded with (`TRYBUILD=overwrite cargo test -p tower-token-compile-fail`); on any other, only what
//! this crate says is looked for in them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const RECORDED: &str = "1.95.";

/// What has to be said, whatever the compiler says around it.
const ADVICE: [(&str, &[&str]); 4] = [
    (
        "auto_with_a_foreign_body",
        &[
            "`.replay_via(<Upload>::new)`",
            "`.replay(TryClone(<Upload>::try_clone))`",
            "`.replay(CloneBody)`",
            "`.replay(Buffered::unboxed())`",
            "`.replay(Never)`",
        ],
    ),
    ("clone_body_without_clone", &["`.replay_via(<Upload>::new)`"]),
    ("buffered_of_another_body", &["`.replay_via(<Upload>::new)`"]),
    (
        "inner_service_without_clone",
        &["put a buffer below", "`tower::buffer::Buffer::new(service, 1024)`"],
    ),
];

#[test]
fn what_does_not_fit_is_answered_with_what_to_write() {
    if let Some(elsewhere) = std::env::var_os(ELSEWHERE) {
        trybuild::TestCases::new().compile_fail(Path::new(&elsewhere).join("*.rs"));
    } else if compiler().starts_with(RECORDED) {
        trybuild::TestCases::new().compile_fail("cases/*.rs");
    } else {
        println!(
            "not compared: the messages of rustc {} ({RECORDED}x recorded them)",
            compiler()
        );
        assert_advice(&messages_of_this_compiler());
    }
}

/// So that a new recording cannot lose the advice.
#[test]
fn the_recorded_messages_hold_the_advice() {
    assert_advice(&recorded());
}

fn assert_advice(messages: &Path) {
    for (case, advice) in ADVICE {
        let message = fs::read_to_string(messages.join(case).with_extension("stderr")).unwrap();
        for words in advice {
            assert!(message.contains(words), "{words} is not in\n{message}");
        }
    }
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

fn compiler() -> String {
    let rustc = Command::new("rustc").arg("--version").output().expect("a compiler");
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    rustc.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Where the cases lie that another process runs.
const ELSEWHERE: &str = "TOWER_TOKEN_COMPILE_FAIL";

/// Copies the cases and has trybuild write down the messages beside them, which it does if it is told to by
/// its environment: that of a process of its own.
fn messages_of_this_compiler() -> PathBuf {
    let elsewhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&elsewhere).unwrap();
    for (case, _) in ADVICE {
        let case = format!("{case}.rs");
        fs::copy(recorded().join(&case), elsewhere.join(&case)).unwrap();
    }
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_does_not_fit_is_answered_with_what_to_write"])
        .env(ELSEWHERE, &elsewhere)
        .env("TRYBUILD", "overwrite")
        .status();
    assert!(ran.unwrap().success(), "one of them compiles");
    elsewhere
}
