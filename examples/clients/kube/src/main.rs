//! kube's client, whose cluster takes tokens of an issuer of its own.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-kube
//! ```
//!
//! Nothing leaves the machine: the cluster is a server on loopback that answers in the shape of the Kubernetes API.
//! Eight callers list and create config maps while tokens expire and one is revoked; what is printed was counted by
//! the server, the issuer and the callers.

use std::process::ExitCode;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::client::{Body, ClientBuilder};
use kube::{Api, Config};
use serde_json::{Value, json};
use stage::{Stage, order};
use tower::buffer::BufferLayer;
use tower_token::{BoxError, Origins, TokenLayer, Tokens, TryClone};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let cluster = stage.serve(answer).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // To the cluster of the config, which kube puts into the URL below us, and in any case nowhere else. kube's body
    // cannot wrap another and has no `Default`; it can be asked for a copy.
    let layer = TokenLayer::new(&tokens, Origins::connected_peer()).replay(TryClone(Body::try_clone));

    // The client with kube's own stack, which is a boxed service and not `Clone`: so there is a buffer below us.
    let client = ClientBuilder::try_from(Config::new(cluster.parse()?))?
        .with_layer(&BufferLayer::new(1024))
        .with_layer(&layer)
        .build();

    // Calls as you make them without a token.
    let config_maps: Api<ConfigMap> = Api::default_namespaced(client);
    let call = move || {
        let config_maps = config_maps.clone();
        async move {
            let created = config_maps.create(&PostParams::default(), &orders()?).await?;
            let listed = config_maps.list(&ListParams::default()).await?;
            match listed.items.first() {
                Some(first) if first.metadata.name == created.metadata.name => Ok(()),
                _ => Err(BoxError::from("the list lacks what was created")),
            }
        }
    };
    Ok(stage.run("kube's Client", call).await)
}

/// A config map with an order in it.
fn orders() -> Result<ConfigMap, BoxError> {
    let order = String::from_utf8(order().into())?;
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some("orders".into()),
            ..ObjectMeta::default()
        },
        data: Some([("today".into(), order)].into()),
        ..ConfigMap::default()
    })
}

// ===== the server =====

/// As the Kubernetes API answers, for the one config map that there is.
fn answer(request: Request<Bytes>) -> Response<Bytes> {
    const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
    match (request.method(), request.uri().path()) {
        (&Method::POST, CONFIG_MAPS) => create(request.body()),
        (&Method::GET, CONFIG_MAPS) => {
            let items = [json!({"metadata": {"name": "orders", "namespace": "default"}})];
            let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": items});
            stage::json(StatusCode::OK, &list)
        }
        _ => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// Only if the order in it arrived whole.
fn create(body: &[u8]) -> Response<Bytes> {
    match serde_json::from_slice::<Value>(body) {
        Ok(created) if created["data"]["today"].as_str().map(str::as_bytes) == Some(&order()) => {
            stage::json(StatusCode::CREATED, &created)
        }
        _ => failure(StatusCode::BAD_REQUEST, "BadRequest"),
    }
}

fn failure(code: StatusCode, reason: &str) -> Response<Bytes> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": "what arrived is not what was sent", "reason": reason, "code": code.as_u16(),
    });
    stage::json(code, &status)
}
