//! The sidecar as a program: started, asked and ended from outside.
//!
//! ```text
//! cargo build -p tower-token-examples --all-features --example sidecar --example print_token
//! cargo test  -p tower-token-examples --all-features --test sidecar
//! ```
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "sidecar/admin.rs"]
mod admin;
#[path = "sidecar/ending.rs"]
mod ending;
#[path = "sidecar/files.rs"]
mod files;
#[path = "sidecar/herd.rs"]
mod herd;
#[path = "../../tests/support/left_out.rs"]
mod left_out;
#[path = "sidecar/no_token.rs"]
mod no_token;
#[path = "sidecar/printing.rs"]
mod printing;
#[path = "sidecar/program.rs"]
mod program;
#[path = "sidecar/replay.rs"]
mod replay;
#[path = "sidecar/routing.rs"]
mod routing;
#[path = "sidecar/sharing.rs"]
mod sharing;
#[path = "sidecar/streaming.rs"]
mod streaming;
#[path = "sidecar/upstream.rs"]
mod upstream;
