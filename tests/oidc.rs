//! The real issuer: npm `oidc-provider` with strict rotation (`tests/oidc/server.mjs`), installed
//! and named by `tests/run`. Without it these tests say that they were left out, and pass.
//!
//! The judge is the server's own count of what reached it, never a clock: what has to happen in the
//! middle of something waits until the server says that it is there.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "oidc/issuer.rs"]
#[cfg_attr(not(all(feature = "oauth2", feature = "client")), allow(dead_code))]
mod issuer;
#[path = "support/left_out.rs"]
mod left_out;

#[path = "oidc/contrast.rs"]
mod contrast;
#[cfg(all(feature = "oauth2", feature = "client"))]
#[path = "oidc/layer.rs"]
mod layer;

#[cfg(not(all(feature = "oauth2", feature = "client")))]
#[test]
fn every_test_of_the_layer() {
    left_out::left_out("the features `oauth2` and `client` are off");
}
