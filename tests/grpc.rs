//! gRPC: tonic's clients through the layer, and a server on PyPI's `grpcio` (`tests/grpc/server.py`),
//! which `tests/run` installs and names. Without it these tests say that they were left out, and pass.
//!
//! The judge is the server's own count of what reached it, never a clock: what has to happen in the
//! middle of something waits until the server says that it is there.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "grpc/client.rs"]
mod client;
#[path = "support/left_out.rs"]
mod left_out;
#[path = "grpc/server.rs"]
mod server;

#[path = "grpc/contrast.rs"]
mod contrast;
#[path = "grpc/in_process.rs"]
mod in_process;
#[path = "grpc/layer.rs"]
mod layer;
