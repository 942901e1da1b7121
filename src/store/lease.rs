//! The right of one process to renew: [`Lease`].

use std::any::Any;
use std::fmt;

/// The right to renew, given by a [`TokenStore`](crate::TokenStore) to one holder at a time.
pub struct Lease {
    fence: u64,
    owner: String,
    lasting: bool,
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Lease {
    /// A lease with this number: greater than that of every lease that the store gave before.
    pub fn new(fence: u64) -> Self {
        Self {
            fence,
            owner: String::new(),
            lasting: false,
            guard: None,
        }
    }

    /// By what the store knows whose it is. Default: nothing.
    #[must_use]
    pub fn owned_by(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// It ends with its process or when it is released, whatever its term, as the lock of a file does. Default: it ends
    /// with its term.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    /// Something that is dropped with it: a locked file, a connection. Default: nothing.
    #[must_use]
    pub fn guard(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Its number.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// By what the store knows whose it is.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether it does not end with its term.
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// What is dropped with it, if it is of that type.
    pub fn guarded<T: Any>(&self) -> Option<&T> {
        self.guard.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who knows the owner's name could release it.
        f.debug_struct("Lease")
            .field("fence", &self.fence)
            .field("lasting", &self.lasting)
            .finish_non_exhaustive()
    }
}
