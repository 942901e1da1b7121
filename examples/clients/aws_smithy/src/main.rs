//! aws-smithy, the runtime below the AWS SDK and below every client that smithy generates: hyper-util's client with
//! the token on it, as its HTTP client.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-aws-smithy
//! ```
//!
//! Nothing leaves the machine. Eight callers place orders while tokens expire and one is revoked; what is printed
//! was counted by the server, the issuer and the callers. The operation is written by hand, where yours are
//! generated; both are invoked by smithy's orchestrator, and take the same `http_client`. A service of AWS itself
//! wants signatures, not tokens: this is for services that have an `@httpBearerAuth` of an issuer of their own.

use std::convert::Infallible;
use std::process::ExitCode;

use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use stage::{Stage, order, orders, taken};
use tower::{ServiceBuilder, ServiceExt};
use tower_token::{BoxError, Origins, TokenLayer, TokenService, Tokens, TryClone};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let api = stage.serve(orders).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // Your client, with the token on each request to this origin. A body in memory can be cloned, and is sent again.
    let stack = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&api)?).replay(TryClone(SdkBody::try_clone)))
        .service(Client::builder(TokioExecutor::new()).build_http());

    // The same as an HTTP client of smithy's: for a `Config` or an `SdkConfig` too.
    let connector = SharedHttpConnector::new(Stack(stack));
    let http_client = http_client_fn(move |_settings, _components| connector.clone());

    // An operation. Smithy's own auth and retries are off: what is sent again here is sent by the layer.
    let place_order = Operation::builder()
        .service_name("Shop")
        .operation_name("PlaceOrder")
        .endpoint_url(&api)
        .http_client(http_client)
        .no_auth()
        .no_retry()
        .serializer(request_of)
        .deserializer(was_taken)
        .build();
    let call = move || {
        let place_order = place_order.clone();
        async move { place_order.invoke(order()).await }
    };
    Ok(stage.run("aws-smithy", call).await)
}

fn request_of(order: Bytes) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(order));
    request.set_method("POST")?;
    request.set_uri("/orders")?;
    Ok(request)
}

fn was_taken(response: &HttpResponse) -> Result<(), OrchestratorError<Infallible>> {
    taken(response.status().into()).map_err(OrchestratorError::other)
}

// ===== between smithy and tower =====

/// A tower service, as smithy calls one.
#[derive(Debug)]
struct Stack(TokenService<Client<TcpConnector, SdkBody>, TryClone<SdkBody>>);

impl HttpConnector for Stack {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let stack = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let response = stack.oneshot(request).await.map_err(as_it_was)?;
            let response = response.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The client's error comes through the layer as it is: by its kind smithy knows what it may send again.
fn as_it_was(error: BoxError) -> ConnectorError {
    if error.is::<legacy::Error>() {
        ConnectorError::io(error)
    } else {
        // The layer's own: there was no token to be had, and it has its own pauses.
        ConnectorError::other(error, None)
    }
}
