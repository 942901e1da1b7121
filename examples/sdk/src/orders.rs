//! The orders, over a service whose type has a name.

use std::fmt;

use serde::{Deserialize, Serialize};
use tower_token::{CloneBody, TokenService};

use crate::api::Api;
use crate::client::Client;
use crate::error::Error;

/// Acme's orders. Made by [`Builder::orders`](crate::Builder::orders); a clone shares the client.
///
/// It names its client, `C`, so that a call is one call of that client: nothing is boxed on the way. Whoever
/// would rather not write the type puts a `tower::util::BoxCloneSyncService` around his client first; or see
/// [`Invoices`](crate::Invoices), which does that inside.
#[derive(Clone)]
pub struct Orders<C> {
    /// Nobody outside sees this type, so that its parameters may change in any release.
    api: Api<TokenService<C, CloneBody>>,
}

impl<C> Orders<C> {
    pub(crate) fn new(api: Api<TokenService<C, CloneBody>>) -> Self {
        Self { api }
    }
}

// No `async fn`: that these futures are `Send` is proven here, for every client. Within an async block of a user whose
// client has a boxed error the compiler could not prove it.
impl<C: Client> Orders<C> {
    /// The order with this id.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::Status`] with 404 if there is none.
    pub fn get(&self, id: u64) -> impl Future<Output = Result<Order, Error>> + Send {
        self.api.get(format!("/orders/{id}"))
    }

    /// Places an order.
    ///
    /// Sent again only where Acme refused the token, and so placed nothing.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn place(&self, order: &NewOrder) -> impl Future<Output = Result<Order, Error>> + Send {
        self.api.post("/orders", order)
    }
}

// Of any client, not only of one that is `Debug`.
impl<C> fmt::Debug for Orders<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").finish_non_exhaustive()
    }
}

/// An order as Acme has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Order {
    /// Its number.
    pub id: u64,
    /// What was ordered.
    pub item: String,
    /// How many of it.
    pub quantity: u32,
}

/// An order that is to be placed.
#[derive(Clone, Debug, Serialize)]
pub struct NewOrder {
    /// What is ordered.
    pub item: String,
    /// How many of it.
    pub quantity: u32,
}
