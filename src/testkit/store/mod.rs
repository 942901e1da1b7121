//! Stores: one that is kept in memory and fails on demand, and the rules that every store is held to.

mod contents;
mod faults;
mod memory;
mod suite;

pub use self::faults::{Calls, StoreCall};
pub use self::memory::{MemoryStore, Snapshot};
pub use self::suite::{BrokenRules, StoreSuite};
