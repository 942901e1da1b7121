//! What a user brings: [`Client`].

use bytes::Bytes;
use http::{Request, Response};
use tower::{BoxError, Service};

use crate::body::Body;

/// An HTTP client: any tower service that takes requests with a [`Body`], and is `Clone`.
///
/// Nobody implements it. It is a trait so that the compiler says what to do about a service that is not `Clone`:
///
/// ```compile_fail,E0277
/// # type Connection = tower::util::BoxService<
/// #     http::Request<acme::Body>, http::Response<http_body_util::Full<bytes::Bytes>>, tower::BoxError>;
/// # fn orders(acme: acme::Builder, connection: Connection) {
/// let orders = acme.orders(connection); // note: put a buffer around it
/// # }
/// ```
///
/// ```
/// # type Connection = tower::util::BoxService<
/// #     http::Request<acme::Body>, http::Response<http_body_util::Full<bytes::Bytes>>, tower::BoxError>;
/// # fn orders(acme: acme::Builder, connection: Connection) {
/// let orders = acme.orders(tower::buffer::Buffer::new(connection, 1024));
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no client for Acme",
    label = "no `Clone` service of `http::Request<acme::Body>`",
    note = "if it is a service that is not `Clone`, put a buffer around it: `tower::buffer::Buffer::new(client, 1024)`"
)]
pub trait Client:
    Service<Request<Body>, Response = Response<Self::Answer>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of its responses.
    type Answer: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

#[diagnostic::do_not_recommend]
impl<S, A> Client for S
where
    S: Service<Request<Body>, Response = Response<A>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    A: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Answer = A;
}
