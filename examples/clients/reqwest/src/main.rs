//! reqwest's client, with the layer around it: requests and responses stay reqwest's own.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-reqwest
//! ```
//!
//! Nothing leaves the machine. Eight callers store orders as JSON and read them back while tokens expire and one is
//! revoked; what is printed was counted by the server, the issuer and the callers.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use stage::{Stage, shelf};
use tower::{ServiceBuilder, ServiceExt};
use tower_token::{BoxError, Origins, TokenLayer, TokenService, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let origin = stage.serve(shelf()).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // The client that you have; this one leaves the environment's proxy alone.
    let client = reqwest::Client::builder().no_proxy().build()?;

    // The same with the token on each request to this origin. What is in memory is sent again as it is; for streams,
    // files and multipart write `.replay_via(reqwest::Body::wrap)` after the layer's `new`.
    let api = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&origin)?))
        .service(client.clone());

    let numbers = Arc::new(AtomicU64::new(0));
    let store_and_read = move || {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let (client, api, url) = (client.clone(), api.clone(), format!("{origin}/orders/{number}"));
        async move { trip(&client, api, &url, &order(number)).await }
    };
    Ok(stage.run("reqwest", store_and_read).await)
}

/// Stores an order and reads it back. Requests are made with the client as before; who sends them is `api`.
async fn trip(
    client: &reqwest::Client,
    api: TokenService<reqwest::Client>,
    url: &str,
    order: &Value,
) -> Result<(), BoxError> {
    let put = client.put(url).json(order).build()?;
    api.clone().oneshot(put).await?.error_for_status()?;

    let get = client.get(url).build()?;
    let stored: Value = api.oneshot(get).await?.error_for_status()?.json().await?;
    (stored == *order).then_some(()).ok_or(BoxError::from("another order"))
}

fn order(number: u64) -> Value {
    json!({ "number": number, "articles": vec!["tea"; 2_000] })
}
