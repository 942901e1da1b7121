//! Instructions and allocations of a call, counted from outside: this program runs itself under valgrind.
//!
//! Each case runs in a process of its own, with two numbers of calls; the difference is what the calls
//! cost, without what it took to get there. Nothing depends on the names of functions, and no counting
//! allocator stands in the way of what is timed.

use std::process::{Command, Stdio};

use tower_token_peers::key;

use crate::cases::{self, Case};

pub(crate) const CHILD: &str = "--count";

const FEW: u64 = 1_000;
const MANY: u64 = 21_000;

pub(crate) struct Counted {
    pub(crate) instructions: f64,
    /// Blocks of the heap.
    pub(crate) allocations: f64,
}

pub(crate) fn count(case: &Case) -> Counted {
    eprintln!("counting: {}", case.name);
    Counted {
        // "Collected : 123"
        instructions: per_call(case, "callgrind", |line| {
            line.split_once("Collected : ")?.1.split(' ').next()
        }),
        // "Total:     1,234 bytes in 56 blocks"
        allocations: per_call(case, "dhat", |line| {
            line.split_once("Total:")?.1.split_once(" in ")?.1.split(' ').next()
        }),
    }
}

fn per_call(case: &Case, tool: &str, figure: fn(&str) -> Option<&str>) -> f64 {
    let few = run(case, tool, FEW, figure);
    let many = run(case, tool, MANY, figure);
    (many - few) / (MANY - FEW) as f64
}

fn run(case: &Case, tool: &str, calls: u64, figure: fn(&str) -> Option<&str>) -> f64 {
    let output = Command::new("valgrind")
        .arg(format!("--tool={tool}"))
        .arg(format!("--{tool}-out-file=/dev/null"))
        .arg(std::env::current_exe().unwrap())
        .args([CHILD, case.name, &calls.to_string()])
        .env(key::VARIABLE, key::pem())
        .stdin(Stdio::null())
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", case.name);
    let figure = said
        .lines()
        .find_map(figure)
        .unwrap_or_else(|| panic!("no figure in: {said}"));
    figure.replace(',', "").parse().unwrap()
}

/// The child.
pub(crate) fn be_counted(name: &str, calls: u64) {
    (cases::named(name).open)()[0](calls);
}
