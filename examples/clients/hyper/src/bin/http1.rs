//! One HTTP/1.1 connection of hyper's.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-hyper --bin http1
//! ```
//!
//! Nothing leaves the machine. Eight callers place orders over the one connection while tokens expire and one is
//! revoked; what is printed was counted by the server, the issuer and the callers.

use std::process::ExitCode;

use client_hyper::Connection;
use http::{Request, Uri};
use http_body_util::Full;
use stage::{Stage, order, orders, taken};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let api = stage.serve(orders).await?;
    let url: Uri = format!("{api}/orders").parse()?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // The connection, as a service: see `src/lib.rs`.
    let connection = Connection::open(url.authority().ok_or("no host")?).await?;

    // With the token on each request. A connection is not `Clone`, and a refused request goes to a second one:
    // so there is a buffer below the layer, whose clones queue up for the connection.
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&api)?))
        .buffer(1024)
        .service(connection);

    // Callers name the host, though there is only one: the layer goes by that.
    let place_order = move || {
        let (mut client, url) = (client.clone(), url.clone());
        async move {
            let request = Request::post(url).body(Full::new(order()))?;
            let response = client.ready().await?.call(request).await?;
            taken(response.status())
        }
    };
    Ok(stage.run("hyper's http1 connection", place_order).await)
}
