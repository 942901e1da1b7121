//! What the engine shares between threads: the lock, the atomics, the cell of the current token, and the
//! runtime that its tasks are spawned on.
//!
//! These are names for what `std`, `arc-swap` and `tokio` have, and nothing else: what synchronises threads
//! in this folder stands in one place, and can be taken from elsewhere by tests. Not here are `Arc`, and
//! tokio's `watch`, `Notify` and timers.

pub(crate) use {
    arc_swap::ArcSwapOption,
    std::sync::atomic::{AtomicBool, AtomicU64, Ordering},
    std::sync::{Mutex, MutexGuard},
    tokio::runtime::Handle,
};
