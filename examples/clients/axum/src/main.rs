//! An axum handler that calls another service, with the client in its `State`.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-axum
//! ```
//!
//! Nothing leaves the machine. Eight callers hand their orders to the app, which places them where a token is
//! needed, while tokens expire and one is revoked; what is printed was counted by the server there, the issuer and
//! the callers.

use std::process::ExitCode;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use stage::{Stage, order, orders, taken};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::{BoxError, Buffered, Origins, TokenLayer, TokenService, Tokens};

// ===== what you would write =====

/// A client with the token, whose bodies are axum's. The type can be named; who would rather not puts the client
/// into a `tower::util::BoxCloneSyncService<Request<Body>, http::Response<hyper::body::Incoming>, BoxError>`.
type Shop = TokenService<Client<HttpConnector, Body>, Buffered<Body>>;

#[derive(Clone)]
struct App {
    shop: Shop,
    url: String,
}

impl App {
    fn new(tokens: &Tokens, shop: &str) -> Result<Self, BoxError> {
        // A refused request is sent again, with up to 64 KiB of whatever body it has.
        let layer = TokenLayer::new(tokens, Origins::only(shop)?).replay_via(Body::new);
        Ok(Self {
            shop: ServiceBuilder::new()
                .layer(layer)
                .service(Client::builder(TokioExecutor::new()).build_http()),
            url: format!("{shop}/orders"),
        })
    }
}

/// Hands the order on. There is no token in sight: that is the layer's business.
async fn place_order(State(mut app): State<App>, order: Bytes) -> Result<StatusCode, Unreachable> {
    let request = Request::post(app.url).body(Body::from(order))?;
    let response = app.shop.ready().await?.call(request).await?;
    Ok(response.status())
}

/// No answer from the shop, or no token to ask it with.
struct Unreachable(BoxError);

impl<E: Into<BoxError>> From<E> for Unreachable {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Unreachable {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, format!("{}\n", self.0)).into_response()
    }
}

// ===== what drives it =====

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let shop = stage.serve(orders).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;
    let app = App::new(&tokens, &shop)?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    let routes = Router::new().route("/orders", post(place_order)).with_state(app);
    tokio::spawn(axum::serve(listener, routes).into_future());

    // Callers of the app know of no token.
    let client = Client::builder(TokioExecutor::new()).build_http();
    let call = move || {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let request = Request::post(url).body(Full::new(order()))?;
            let response = client.request(request).await?;
            taken(response.status())
        }
    };
    Ok(stage.run("a client in axum's State", call).await)
}
