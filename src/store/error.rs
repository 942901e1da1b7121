//! Why a store did not do what it was asked for: [`StoreError`].

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::error::BoxError;

/// Why a store did not do what it was asked for. Cheap to clone. Its message holds no secret.
///
/// Without a store, a credential that is good for one use is not renewed, unless
/// [that is wanted](crate::StorePolicy::alone); a token that is alive goes out all the same.
#[derive(Clone, Debug)]
pub struct StoreError {
    usable: bool,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// It cannot be reached, or not written: it is asked again until it can. The message must hold no secret.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            usable: true,
            message: message.into(),
            source: None,
        }
    }

    /// What is kept is no record of ours: torn, tampered with, of another owner, schema or key. It is neither used nor
    /// overwritten, and somebody has to see to it. The message must hold no secret.
    pub fn unusable(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            usable: false,
            ..Self::unavailable(message)
        }
    }

    /// What caused it. Its text reaches whoever prints the chain, so it must hold no secret.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The same, with what it is about in front.
    #[cfg(feature = "store")]
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message).into();
        self
    }

    /// What it comes from, for whoever says what it says.
    pub(crate) fn into_source(self) -> Option<Arc<dyn StdError + Send + Sync>> {
        self.source
    }

    /// Whether what is kept is [no record of ours](Self::unusable).
    pub fn is_unusable(&self) -> bool {
        !self.usable
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
