//! One call: a request out, JSON in.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::{BoxError, Service, ServiceExt};

use crate::body::Body;
use crate::error::Error;

/// The most of an answer that is read: 4 MiB.
const LONGEST: usize = 4 << 20;

/// Where an API is, and the service that reaches it: a named one for [`Orders`](crate::Orders), a boxed one for
/// [`Invoices`](crate::Invoices).
#[derive(Clone, Debug)]
pub(crate) struct Api<S> {
    service: S,
    url: Cow<'static, str>,
}

impl<S> Api<S> {
    pub(crate) fn new(service: S, url: Cow<'static, str>) -> Self {
        Self { service, url }
    }
}

impl<S, A> Api<S>
where
    S: Service<Request<Body>, Response = Response<A>, Error = BoxError> + Clone,
    A: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        let request = Request::get(format!("{}{path}", self.url)).body(Body::default());
        self.send(request).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &(impl Serialize + Sync),
    ) -> Result<T, Error> {
        let json = serde_json::to_vec(what).map_err(|error| Error::Config(error.into()))?;
        let request = Request::post(format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json")
            .body(json.into());
        self.send(request).await
    }

    async fn send<T: DeserializeOwned>(&self, request: http::Result<Request<Body>>) -> Result<T, Error> {
        let request = request.map_err(|error| Error::Config(error.into()))?;
        // A clone for each call is what the layer is made for, and lets calls go out side by side.
        let response = self.service.clone().oneshot(request).await.map_err(Error::not_sent)?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(Error::answered(&head));
        }
        let body = Limited::new(body, LONGEST).collect().await.map_err(Error::Answer)?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| Error::Answer(error.into()))
    }
}
