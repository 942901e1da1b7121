//! reqwest-middleware, which takes no tower layer: the token in a middleware of some twenty lines.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-reqwest-middleware
//! ```
//!
//! Nothing leaves the machine. Eight callers place orders while tokens expire and one is revoked; what is printed
//! was counted by the server, the issuer and the callers.
//!
//! Where nothing else needs this crate, the layer goes around reqwest itself, and does more: see `client-reqwest`.

use std::process::ExitCode;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderValue, StatusCode};
use reqwest::{Request, Response, Url};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next, Result};
use stage::{Stage, order, orders, taken};
use tower_token::{BoxError, Token, Tokens};

#[tokio::main]
async fn main() -> std::result::Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let api = stage.serve(orders).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // The client that you have; this one leaves the environment's proxy alone.
    let client = reqwest::Client::builder().no_proxy().build()?;

    // The same with the middleware. What retries on other grounds goes before it, and gets the current token each time.
    let api_only = Url::parse(&api)?;
    let client = ClientBuilder::new(client).with(Authorized { tokens, api_only }).build();

    let place_order = move || {
        let request = client.post(format!("{api}/orders")).body(order());
        async move { taken(request.send().await?.status()) }
    };
    Ok(stage.run("reqwest-middleware", place_order).await)
}

// ===== the middleware =====

/// Puts the token on requests to one origin, and sends a refused one again, once, with a newer token.
struct Authorized {
    tokens: Tokens,
    api_only: Url,
}

#[async_trait]
impl Middleware for Authorized {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let elsewhere = request.url().origin() != self.api_only.origin();
        if elsewhere || request.headers().contains_key(AUTHORIZATION) {
            return next.run(request, extensions).await;
        }
        let again = request.try_clone();
        let token = self.tokens.get().await.map_err(Error::middleware)?;
        let refusal = match next.clone().run(with(&token, request)?, extensions).await? {
            response if response.status() == StatusCode::UNAUTHORIZED => response,
            response => return Ok(self.judged(&token, response)),
        };
        // Of all who are refused with this token the first has it renewed, and the others wait for the same fetch.
        self.tokens.invalidate(&token);
        // A stream has no second copy. It gets the server's answer, as does everybody while there is no newer token.
        let Some(again) = again else { return Ok(refusal) };
        match self.tokens.get().await {
            // There may be no newer one: to an API that takes none, the refused token is not sent again.
            Ok(newer) if newer.generation() != token.generation() => {
                let response = next.run(with(&newer, again)?, extensions).await?;
                Ok(self.judged(&newer, response))
            }
            _ => Ok(refusal),
        }
    }
}

impl Authorized {
    /// A token that was accepted once is believed to be revoked when it is refused.
    fn judged(&self, token: &Token, response: Response) -> Response {
        if response.status().is_success() {
            self.tokens.accepted(token);
        }
        response
    }
}

fn with(token: &Token, mut request: Request) -> Result<Request> {
    let value = HeaderValue::try_from(format!("Bearer {}", token.secret()));
    let mut value = value.map_err(Error::middleware)?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(request)
}
