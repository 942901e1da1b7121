//! hyper-util's client, the one that most programs have.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-hyper --bin legacy
//! ```
//!
//! Nothing leaves the machine. Eight callers place orders while tokens expire and one is revoked; what is printed
//! was counted by the server, the issuer and the callers.

use std::process::ExitCode;

use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use stage::{Stage, order, orders, taken};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let api = stage.serve(orders).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // Your client, with the token on each request to this origin. It is cloned for each caller, as before.
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&api)?))
        .service(Client::builder(TokioExecutor::new()).build_http());

    // A request as you make it without a token. Its body is in memory, so a refused one is sent again as it is.
    let place_order = move || {
        let (mut client, url) = (client.clone(), format!("{api}/orders"));
        async move {
            let request = Request::post(url).body(Full::new(order()))?;
            let response = client.ready().await?.call(request).await?;
            taken(response.status())
        }
    };
    Ok(stage.run("hyper-util's Client", place_order).await)
}
