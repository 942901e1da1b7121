//! The built example `fleet`, run for a few seconds.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output};

/// Beside the test's own binary.
fn fleet(arguments: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let binary: PathBuf = test.parent().unwrap().parent().unwrap().join("examples/fleet");
    assert!(
        binary.exists(),
        "it is not built: cargo build -p tower-token-examples --example fleet"
    );
    Command::new(binary).args(arguments).output().unwrap()
}

/// As the issuer counted, in the table at the end.
fn count(table: &str, what: &str) -> u64 {
    let row = table.lines().rev().find_map(|line| line.trim().strip_prefix(what));
    let row = row.unwrap_or_else(|| panic!("no row {what:?} in {table}"));
    row.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn processes_that_share_a_file_make_one_exchange_for_each_token_that_comes_due() {
    let quiet = [
        "--processes",
        "4",
        "--expiries",
        "4",
        "--kill-every",
        "never",
        "--pause-every",
        "never",
    ];
    let run = fleet(&quiet);
    let table = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{table}{}", String::from_utf8_lossy(&run.stderr));
    assert!(count(&table, "exchanges ") >= 4, "{table}");
    assert_eq!(count(&table, "exchanges "), count(&table, "expected"), "{table}");
    assert_eq!(count(&table, "presented twice"), 0, "{table}");
    assert_eq!(count(&table, "requests failed"), 0, "{table}");
}
