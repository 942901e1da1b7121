//! A request with a token, over HTTPS, in the program's own name.
//!
//! ```text
//! export TOKEN_URL=https://login.example.com/token CLIENT_ID=my-service CLIENT_SECRET=...
//! export API=https://api.example.com
//! cargo run --features https --example hyper -- /me
//! ```

use std::env;

use http::Request;
use http_body_util::BodyExt;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::oauth2::ClientCredentialsGrant;
use tower_token::{BoxError, Origins, TokenLayer, Tokens, client};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let origin = variable("API")?;
    let path = env::args().nth(1).unwrap_or_else(|| "/".into());

    // How a new token is obtained.
    let grant = ClientCredentialsGrant::new(variable("TOKEN_URL")?, variable("CLIENT_ID")?)
        .client_secret(variable("CLIENT_SECRET")?);

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(grant)?;

    // The client: hyper-util's over rustls. The token goes to this origin and nowhere else.
    let mut api = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&origin)?))
        .service(client::https());

    // As without a token: it is fetched now, renewed ahead of time, and a 401 is replayed once.
    let request = Request::get(format!("{origin}{path}")).body(client::empty())?;
    let response = api.ready().await?.call(request).await?;

    println!("{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}

fn variable(name: &str) -> Result<String, BoxError> {
    env::var(name).map_err(|_| format!("{name} is not set; see the top of examples/hyper.rs").into())
}
