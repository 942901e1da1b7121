//! The invoices, over a service that is boxed.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use serde::Deserialize;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt};
use tower_token::{CloneBody, TokenService};

use crate::api::Api;
use crate::body::Body;
use crate::client::Client;
use crate::error::Error;

/// Acme's invoices. Made by [`Builder::invoices`](crate::Builder::invoices); a clone shares the client.
///
/// No type parameter, whatever the client is: easy to put into a struct, for two boxes a call.
#[derive(Clone, Debug)]
pub struct Invoices {
    api: Api<Boxed>,
}

type Boxed = BoxCloneSyncService<Request<Body>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

impl Invoices {
    pub(crate) fn new<C: Client>(service: TokenService<C, CloneBody>, url: Cow<'static, str>) -> Self {
        let service = service
            .map_response(|response: Response<C::Answer>| response.map(|body| body.map_err(Into::into).boxed_unsync()));
        Self {
            api: Api::new(Boxed::new(service), url),
        }
    }

    /// The invoice for the order with this id.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::Status`] with 404 if there is none.
    pub fn of(&self, order: u64) -> impl Future<Output = Result<Invoice, Error>> + Send {
        self.api.get(format!("/invoices/{order}"))
    }
}

/// An invoice as Acme has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Invoice {
    /// The order it is for.
    pub order: u64,
    /// In cents.
    pub amount: u64,
}
