//! The seam for what outlives the process: asked before a lost credential is presented again, told
//! before a new token is published. Private until there is a store.

use std::time::Duration;

use serde_json::Value;

use crate::provider::BoxFuture;
use crate::token::Token;

/// Where a token is kept durably.
pub(crate) trait Store: Send + Sync + 'static {
    /// The credential as it is kept now; somebody else may have renewed it.
    fn load(&self) -> BoxFuture<'_, Option<Value>>;
    /// Makes a token durable. It is published when this resolves, or after [`PATIENCE`].
    fn save(&self, token: Token) -> BoxFuture<'_, ()>;
}

/// How long a publication waits for the store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
