//! What a test says that cannot run here.

use std::io::Write;

/// Says that the calling test was left out, and why.
pub(crate) fn left_out(why: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test");
    // Not `eprintln!`: of a test that passes the runner would keep that to itself.
    let _ = writeln!(std::io::stderr(), "left out: {name}: {why}");
}
