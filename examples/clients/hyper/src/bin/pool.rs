//! A pool of connections, built of hyper-util's `client::pool`.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-hyper --bin pool
//! ```
//!
//! Nothing leaves the machine. Eight callers place orders while tokens expire and one is revoked; what is printed
//! was counted by the server, the issuer and the callers.

use std::process::ExitCode;

use bytes::Bytes;
use client_hyper::Connection;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::client::pool::cache;
use stage::{Stage, order, orders, taken};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let api = stage.serve(orders).await?;
    let url: Uri = format!("{api}/orders").parse()?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // Idle connections to one host, and how another one is opened. The pool wants a future that is `Unpin`.
    let authority = url.authority().ok_or("no host")?.clone();
    let pool = cache::builder().build(service_fn(move |()| {
        let authority = authority.clone();
        Box::pin(async move { Connection::open(&authority).await })
    }));

    // With the token on each request. What the pool hands out is not `Clone`, so the layer goes around the pool:
    // a refused request is sent again over whichever connection is idle then.
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&api)?))
        .service_fn(move |request: Request<Full<Bytes>>| {
            let mut pool = pool.clone();
            async move {
                let mut connection = pool.ready().await?.call(()).await?;
                let response = connection.ready().await?.call(request).await?;
                Ok::<_, BoxError>(response)
            }
        });

    // A request as you make it without a token. Its body is in memory, so a refused one is sent again as it is.
    let place_order = move || {
        let (mut client, url) = (client.clone(), url.clone());
        async move {
            let request = Request::post(url).body(Full::new(order()))?;
            let response = client.ready().await?.call(request).await?;
            taken(response.status())
        }
    };
    Ok(stage.run("hyper-util's pool", place_order).await)
}
