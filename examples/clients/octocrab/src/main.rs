//! octocrab, at a GitHub whose tokens come from an issuer of yours.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-octocrab
//! ```
//!
//! Nothing leaves the machine: GitHub is a server on loopback that answers in the shape of its API. Eight callers
//! create labels and read the repository while tokens expire and one is revoked; what is printed was counted by the
//! server, the issuer and the callers.

use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, OctoBody, OctocrabBuilder};
use serde_json::{Value, json};
use stage::{Stage, order};
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let github = stage.serve(answer).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // octocrab's body can be made of any other, so a refused request is sent again with up to 64 KiB of it. (Its
    // `try_clone` has no copy of an empty body, and its `Clone` shares the one that is read up.)
    let layer = TokenLayer::new(&tokens, Origins::only(&github)?).replay_via(OctoBody::new);

    // The client, with octocrab's own layers above us: they say which GitHub it is, and who asks.
    let user_agent = (header::USER_AGENT, "tower-token".parse()?);
    let octocrab = OctocrabBuilder::new_empty()
        .with_service(Client::builder(TokioExecutor::new()).build_http())
        .with_layer(&layer)
        .with_layer(&BaseUriLayer::new(github.parse()?))
        .with_layer(&ExtraHeadersLayer::new(Arc::new(vec![user_agent])))
        .with_auth(AuthState::None)
        .build()?;

    // Calls as you make them without a token.
    let order = String::from_utf8(order().into())?;
    let call = move || {
        let (octocrab, order) = (octocrab.clone(), order.clone());
        async move {
            octocrab
                .issues("tea", "orders")
                .create_label("today", "00ff00", order)
                .await?;
            octocrab.repos("tea", "orders").get().await
        }
    };
    Ok(stage.run("octocrab", call).await)
}

// ===== the server =====

/// As GitHub's API answers, for the one repository that there is.
fn answer(request: Request<Bytes>) -> Response<Bytes> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/repos/tea/orders/labels") => create_label(request.body()),
        (&Method::GET, "/repos/tea/orders") => {
            let url = "https://github.example.com/repos/tea/orders";
            stage::json(StatusCode::OK, &json!({"id": 1, "name": "orders", "url": url}))
        }
        _ => failure(StatusCode::NOT_FOUND, "Not Found"),
    }
}

/// Only if the order in it arrived whole.
fn create_label(body: &[u8]) -> Response<Bytes> {
    match serde_json::from_slice::<Value>(body) {
        Ok(label) if label["description"].as_str().map(str::as_bytes) == Some(&order()) => {
            let url = "https://github.example.com/repos/tea/orders/labels/today";
            let created = json!({
                "id": 1, "node_id": "1", "url": url, "name": label["name"], "color": label["color"], "default": false,
            });
            stage::json(StatusCode::CREATED, &created)
        }
        _ => failure(StatusCode::BAD_REQUEST, "Problems parsing JSON"),
    }
}

fn failure(status: StatusCode, message: &str) -> Response<Bytes> {
    stage::json(status, &json!({"message": message}))
}
