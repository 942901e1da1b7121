//! Accidents that really happened, one test each, in virtual time. The README has the table.
//!
//! `t05_...` is a row of that table: what happened to somebody, and where. What happened to this crate
//! itself before it was released is in `ours.rs`.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "accidents/cancellation.rs"]
mod cancellation;
#[path = "accidents/clocks.rs"]
mod clocks;
#[path = "accidents/flight.rs"]
mod flight;
mod flows;
#[path = "accidents/ours.rs"]
mod ours;
#[path = "accidents/plumbing.rs"]
mod plumbing;
#[path = "accidents/requests.rs"]
mod requests;
#[path = "accidents/rotation.rs"]
mod rotation;
#[path = "accidents/storms.rs"]
mod storms;
