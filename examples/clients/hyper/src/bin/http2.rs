//! One HTTP/2 connection of hyper's.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-hyper --bin http2
//! ```
//!
//! Nothing leaves the machine. Eight callers place orders over the one connection while tokens expire and one is
//! revoked; what is printed was counted by the server, the issuer and the callers.

use std::process::ExitCode;

use http::{Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use stage::{Stage, order, orders, taken};
use tokio::net::TcpStream;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let api = stage.serve(orders).await?;
    let url: Uri = format!("{api}/orders").parse()?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // The connection, as you have one already.
    let stream = TcpStream::connect(url.authority().ok_or("no host")?.as_str()).await?;
    stream.set_nodelay(true)?;
    let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);

    // With the token on each request. The sending half can be cloned, which makes a service of it in one line.
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&api)?))
        .service_fn(move |request| {
            let mut requests = requests.clone();
            async move {
                requests.ready().await?;
                requests.send_request(request).await
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
    Ok(stage.run("hyper's http2 connection", place_order).await)
}
