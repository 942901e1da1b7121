//! Stores: one that is kept in memory and fails on demand.

mod contents;
mod faults;
mod memory;

pub use self::faults::{Calls, StoreCall};
pub use self::memory::{MemoryStore, Snapshot};
