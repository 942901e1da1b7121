//! rama's client, which has services and HTTP types of its own.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-rama
//! ```
//!
//! Nothing leaves the machine. Eight callers place orders while tokens expire and one is revoked; what is printed
//! was counted by the server, the issuer and the callers.

use std::process::ExitCode;

use rama::Layer;
use rama::http::client::EasyHttpWebClient;
use rama::http::service::client::HttpClientExt;
use rama::http::{Body, Request, Response};
use rama::layer::{MapInputLayer, MapOutputLayer};
use rama::utils::tower::layer::LayerAdapter;
use stage::{Stage, order, orders, taken};
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let api = stage.serve(orders).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // Your client, with a pool of connections.
    let http = EasyHttpWebClient::connector_builder()
        .with_default_transport_connector()
        .without_tls_proxy_support()
        .without_proxy_support()
        .without_tls_support()
        .with_default_http_connector()
        .try_with_default_connection_pool()?
        .build_client();

    // With the token on each request to this origin. rama's body can be made of any other, so a refused request is
    // sent again with up to 64 KiB of it. Above the layer requests become those of the `http` crate and below it
    // rama's again; responses go the other way.
    let token = TokenLayer::new(&tokens, Origins::only(&api)?).replay_via(Body::new);
    let client = (
        MapInputLayer::new(http::Request::<Body>::from),
        MapOutputLayer::new(Response::<Body>::from),
        LayerAdapter::new(token),
        MapInputLayer::new(Request::<Body>::from),
        MapOutputLayer::new(http::Response::<Body>::from),
    )
        .into_layer(http);

    // A request as you make it without a token.
    let place_order = move || {
        let (client, url) = (client.clone(), format!("{api}/orders"));
        async move {
            let response = client.post(url).body(order()).send().await?;
            taken(response.status())
        }
    };
    Ok(stage.run("rama's client", place_order).await)
}
