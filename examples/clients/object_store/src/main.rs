//! object_store, whose stores take an HTTP client of one's own: hyper-util's, with the token on it.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-object-store
//! ```
//!
//! Nothing leaves the machine. Eight callers put objects and get them back while tokens expire and one is revoked;
//! what is printed was counted by the server, the issuer and the callers. The store is the one of plain HTTP; those
//! of the clouds have the same `with_http_connector`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt, RetryConfig};
use stage::{Stage, order, shelf};
use tower::{Layer, ServiceExt};
use tower_token::{BoxError, CloneBody, Origins, TokenLayer, TokenService, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let server = stage.serve(shelf()).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // object_store's request bodies are `Clone`, so a refused put is sent again as it is.
    let layer = TokenLayer::new(&tokens, Origins::only(&server)?).replay(CloneBody);

    // A store as you have one, which connects with the layer.
    let store = HttpBuilder::new()
        .with_url(&server)
        .with_http_connector(Connector(layer))
        .with_retry(no_retries())
        .build()?;

    let (store, names) = (Arc::new(store), Arc::new(AtomicU64::new(0)));
    let put_and_get = move || {
        let (store, name) = (store.clone(), names.fetch_add(1, Ordering::Relaxed));
        async move {
            let path = Path::from(format!("orders/{name}.json"));
            store.put(&path, order().into()).await?;
            let got = store.get(&path).await?.bytes().await?;
            (got == order()).then_some(()).ok_or(BoxError::from("another object"))
        }
    };
    Ok(stage.run("object_store", put_and_get).await)
}

/// What is sent again here is sent by the layer. A program keeps its retries: object_store's have other reasons
/// (5xx, 429, a broken connection), and each of them takes the token that is current then.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

// ===== between object_store and tower =====

/// Connects with hyper-util's client, below the layer.
#[derive(Debug)]
struct Connector(TokenLayer<CloneBody>);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(HttpClient::new(Stack(self.0.layer(client))))
    }
}

#[derive(Debug)]
struct Stack(TokenService<Client<TcpConnector, HttpRequestBody>, CloneBody>);

#[async_trait]
impl HttpService for Stack {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.clone().oneshot(request).await.map_err(of_request)?;
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(of_body))))
    }
}

/// The client's error comes through the layer as it is: by its kind object_store knows what it may send again.
fn of_request(error: BoxError) -> HttpError {
    let kind = match error.downcast_ref::<legacy::Error>() {
        Some(error) if error.is_connect() => HttpErrorKind::Connect,
        Some(_) => HttpErrorKind::Interrupted,
        // The layer's own: there was no token to be had, and it has its own pauses.
        None => HttpErrorKind::Unknown,
    };
    HttpError::new_boxed(kind, error)
}

fn of_body(error: hyper::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Interrupted, error)
}
