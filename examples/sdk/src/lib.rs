//! The Acme API in Rust: [`Orders`] and [`Invoices`], over whatever HTTP client you have.
//!
//! Acme does not exist. This is how a library author embeds `tower-token`: the layer, its errors and its types
//! stay inside, and one type of it is in the public API, [`Tokens`], because that is what users share between
//! libraries.
//!
//! ```
//! # use http_body_util::Full;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let client = tower::service_fn(|request: http::Request<acme::Body>| async move {
//! #     assert_eq!(request.uri(), "https://orders.acme.example/orders/7");
//! #     assert_eq!(request.headers()["authorization"], "Bearer test-token");
//! #     let order = Full::<bytes::Bytes>::from(r#"{"id":7,"item":"anvil","quantity":1}"#);
//! #     Ok::<_, std::convert::Infallible>(http::Response::new(order))
//! # });
//! // How tokens are obtained: a grant of OAuth 2.0, a vendor's API, or one from the environment.
//! let tokens = acme::Tokens::new(tower_token::Fixed::new("test-token"))?;
//!
//! // `client` is any tower service for HTTP: hyper's client, say, with layers of your own around it.
//! let acme = acme::Builder::new(&tokens);
//! let orders = acme.orders(client)?;
//! let order = orders.get(7).await?;
//! assert_eq!(order.item, "anvil");
//! # Ok(()) }
//! ```
//!
//! # The token
//!
//! It is renewed ahead of its end, once for all clients that were built with these [`Tokens`] or with clones of
//! them, in this library or any other. A call that finds it revoked is sent again once, with the next one. It goes to
//! Acme's two origins and nowhere else.
//!
//! If nobody but a person can bring the next one, calls fail with an [`Error`] that
//! [says so](Error::is_reauth_required).
//!
//! # Which client
//!
//! Any [`Client`], which is to say any `tower::Service<http::Request<acme::Body>>` that is `Clone`. If yours is not,
//! put a buffer around it: `tower::buffer::Buffer::new(client, 1024)`.
//!
//! # Tests
//!
//! `Builder::new(&tokens).url("http://127.0.0.1:8080")` sends everything, the token included, to a double on a
//! loopback port; or give it a `tower::service_fn` for a client, as above, and there is no port at all.

mod api;
mod body;
mod client;
mod error;
mod invoices;
mod orders;

use std::borrow::Cow;

use tower::Layer;
use tower_token::{CloneBody, Origins, TokenLayer};

use api::Api;
pub use body::Body;
pub use client::Client;
pub use error::Error;
pub use invoices::{Invoice, Invoices};
pub use orders::{NewOrder, Order, Orders};
/// The one current token, shared by every client that is built with it.
///
/// From `tower-token`, whose next major version is therefore one of this crate too.
pub use tower_token::Tokens;

/// Makes clients of Acme's APIs.
#[derive(Clone, Debug)]
pub struct Builder {
    tokens: Tokens,
    url: Option<Cow<'static, str>>,
}

impl Builder {
    /// Clients whose requests carry the token of `tokens`. Nothing is fetched yet.
    pub fn new(tokens: &Tokens) -> Self {
        Self {
            tokens: tokens.clone(),
            url: None,
        }
    }

    /// Both APIs are here instead: a sandbox, or a test's double. Default: where Acme has them, each at its own.
    ///
    /// An origin without a path, such as `https://sandbox.acme.example`; plain http on loopback only.
    #[must_use]
    pub fn url(mut self, url: impl Into<Cow<'static, str>>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// A client of the orders.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a token may not go to the [`url`](Self::url).
    pub fn orders<C: Client>(&self, client: C) -> Result<Orders<C>, Error> {
        let (url, layer) = self.reaching("https://orders.acme.example")?;
        Ok(Orders::new(Api::new(layer.layer(client), url)))
    }

    /// A client of the invoices.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a token may not go to the [`url`](Self::url).
    pub fn invoices<C: Client>(&self, client: C) -> Result<Invoices, Error> {
        let (url, layer) = self.reaching("https://invoices.acme.example")?;
        Ok(Invoices::new(layer.layer(client), url))
    }

    /// An API's address, and the layer that lets the token go there.
    fn reaching(&self, acmes: &'static str) -> Result<(Cow<'static, str>, TokenLayer<CloneBody>), Error> {
        let url = self.url.clone().unwrap_or(Cow::Borrowed(acmes));
        let origins = Origins::only(&url).map_err(|error| Error::Config(error.into()))?;
        // Every body is in memory, so every refused request can be sent again.
        let layer = TokenLayer::new(&self.tokens, origins).replay(CloneBody);
        Ok((url, layer))
    }
}
