//! What the engine shares between threads, and a body with its replay: the lock, the atomics, the cells, and the
//! runtime that tasks are spawned on.
//!
//! These are names for what `std`, `arc-swap` and `tokio` have, and nothing else; only the unit tests with
//! the feature `shuttle` have shapes of their own behind them. What synchronises threads in `tokens` and `replay`
//! comes from here, but for `Arc` and tokio's `watch`, `Notify` and timers.

#[cfg(not(all(test, feature = "shuttle")))]
pub(crate) use {
    arc_swap::ArcSwapOption,
    std::sync::atomic::{AtomicBool, AtomicU64, Ordering},
    std::sync::{Mutex, MutexGuard, OnceLock},
    tokio::runtime::Handle,
};

#[cfg(all(test, feature = "shuttle"))]
pub(crate) mod modelled;
#[cfg(all(test, feature = "shuttle"))]
pub(crate) use modelled::{ArcSwapOption, AtomicBool, AtomicU64, Handle, Mutex, MutexGuard, OnceLock, Ordering};
