//! Five vendors behind the sidecar: its built binary, a file, and a strict double of each API over HTTP.
//!
//! ```text
//! cargo build -p tower-token-examples --all-features --example sidecar
//! cargo test  -p tower-token-examples --all-features --test vendors
//! ```
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "vendors/dead.rs"]
mod dead;
#[path = "vendors/faults.rs"]
mod faults;
#[path = "vendors/herd.rs"]
mod herd;
#[path = "vendors/idle.rs"]
mod idle;
#[path = "vendors/kept.rs"]
mod kept;
#[path = "sidecar/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "vendors/rig.rs"]
mod rig;
#[path = "../../tests/vendors/mod.rs"]
mod vendors;
