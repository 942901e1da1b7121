//! This crate, as a user sets it up: one listed origin, the caller's own header respected.

use http::{Response, StatusCode};
use tower::util::service_fn;
use tower::{Layer, ServiceExt};
use tower_token::{FetchError, Never, Origins, Token, TokenLayer, Tokens, provider_fn};

use crate::issuer::{DAY, Issuer};
use crate::mirror::Mirror;
use crate::{Body, BoxError, Call, Lanes, call_of, request, service};

/// 401s are detected, and nothing is kept of the request.
pub async fn never(issuer: Issuer) -> Lanes {
    service(fetched(issuer).await.replay(Never).layer(Mirror))
}

/// The request is kept for a second sending.
pub async fn auto(issuer: Issuer) -> Lanes {
    service(fetched(issuer).await.layer(Mirror))
}

async fn fetched(issuer: Issuer) -> TokenLayer {
    let (layer, tokens) = layer(issuer);
    tokens.get().await.unwrap();
    layer
}

fn layer(issuer: Issuer) -> (TokenLayer, Tokens) {
    let provider = provider_fn(move |_| {
        let issuer = issuer.clone();
        async move {
            let token = issuer
                .issue()
                .await
                .map_err(|_| FetchError::transient("the issuer refused"))?;
            Ok(Token::bearer(token).expires_in(DAY))
        }
    });
    let tokens = Tokens::new(provider).unwrap();
    let layer = TokenLayer::new(&tokens, Origins::only("https://api.example.com").unwrap());
    (layer, tokens)
}

/// A call of an API that refuses what was revoked.
pub fn call(issuer: Issuer) -> Call {
    let api = {
        let issuer = issuer.clone();
        service_fn(move |request: http::Request<Body>| {
            let accepted = issuer.accepts(request.headers());
            async move {
                let mut response = Response::new(());
                if !accepted {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok::<_, BoxError>(response)
            }
        })
    };
    let service = layer(issuer).0.layer(api).map_result(taken);
    call_of(move || service.clone().oneshot(request()))
}

fn taken(outcome: Result<Response<()>, BoxError>) -> Result<(), BoxError> {
    match outcome?.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("the API answered {status}").into()),
    }
}
