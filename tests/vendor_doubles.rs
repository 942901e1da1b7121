//! The doubles of the vendors are strict themselves: each documented refusal, and what is granted.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "vendor_doubles/captures.rs"]
mod captures;
#[path = "vendor_doubles/client.rs"]
mod client;
#[path = "vendor_doubles/ecd.rs"]
mod ecd;
#[path = "vendor_doubles/faults.rs"]
mod faults;
#[path = "vendor_doubles/huawei.rs"]
mod huawei;
#[path = "vendor_doubles/imm.rs"]
mod imm;
#[path = "vendor_doubles/smh.rs"]
mod smh;
mod vendors;
