//! A configuration that is wrong says where and what would be right; one that is right works.

#![cfg(all(feature = "config", feature = "client"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "config/any.rs"]
mod any;
#[path = "config/presets.rs"]
mod presets;
#[path = "config/right.rs"]
mod right;
#[path = "config/samples.rs"]
mod samples;
#[path = "config/store.rs"]
mod store;
#[path = "config/wrong.rs"]
mod wrong;
