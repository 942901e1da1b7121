//! Bodies by script, uploads that are refused at some byte, and the server that judges them: by count
//! and by SHA-256. It is the same server in process and behind a socket.

// Each test file uses its own part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod script;
pub(crate) mod upload;
pub(crate) mod wire;
