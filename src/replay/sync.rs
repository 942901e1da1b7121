//! The lock that a first attempt and its replay share: `std`'s, and in the unit tests with the feature `shuttle` the
//! one that the engine is modelled with.

#[cfg(not(all(test, feature = "shuttle")))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, feature = "shuttle"))]
pub(super) use crate::tokens::sync::{Mutex, MutexGuard};
