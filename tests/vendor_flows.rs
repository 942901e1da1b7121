//! The strategies of the vendors against the strict doubles, over HTTP, through the whole library: a document,
//! the tokens that it describes, the layer with the document's presentation and refusals, a real client.

#![cfg(all(feature = "config", feature = "client"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "vendor_flows/accidents.rs"]
mod accidents;
#[path = "vendor_flows/alive.rs"]
mod alive;
#[path = "vendor_flows/clocks.rs"]
mod clocks;
#[path = "vendor_flows/dead.rs"]
mod dead;
#[path = "vendor_flows/faults.rs"]
mod faults;
#[path = "vendor_flows/herd.rs"]
mod herd;
#[path = "vendor_flows/presented.rs"]
mod presented;
#[path = "vendor_flows/rig.rs"]
mod rig;
#[path = "vendor_flows/secrecy.rs"]
mod secrecy;
mod vendors;
