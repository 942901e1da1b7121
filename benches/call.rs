//! What one call costs, side by side in one run: `cargo bench -p tower-token --bench call`.
//!
//! Measured is a whole call of one service by one thread: polled ready, called, polled to its end, its
//! future dropped. The inner service answers at once and hands the request back as the response's body,
//! so that neither it nor this driver allocates, and one request with four headers serves for all
//! calls. Before each call `Authorization` is taken off, because a new request would have none; the
//! bare case does the same and finds none. The values of the headers are thus shared after the first
//! call, and a copy of the head is cheaper than that of a request that was built a moment ago. The
//! token has 900 bytes, as JWTs do. It is fresh, and no request is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mirror.rs"]
mod mirror;
mod table;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_token::{CloneBody, Never, Origins, Token, TokenLayer, Tokens, provider_fn};

use mirror::{Mirror, request, round};
use table::Case;

type Body = Full<Bytes>;

/// The bare inner service first, and then what ours is compared with.
fn cases() -> Vec<(&'static str, Case)> {
    let secret = "t".repeat(900);
    let fixed = AddAuthorizationLayer::bearer(&secret);
    let layer = layer(secret);
    let (empty, text) = (Body::default, || Body::from("x".repeat(1024)));
    vec![
        ("bare inner service", case(Mirror, empty())),
        ("tower-http AddAuthorization", case(fixed.layer(Mirror), empty())),
        (
            "TokenLayer, Never",
            case(layer.clone().replay(Never).layer(Mirror), empty()),
        ),
        (
            "TokenLayer, Auto, empty body",
            case(layer.clone().layer(Mirror), empty()),
        ),
        (
            "TokenLayer, CloneBody, 1 KiB",
            case(layer.replay(CloneBody).layer(Mirror), text()),
        ),
    ]
}

fn layer(secret: String) -> TokenLayer {
    let provider = provider_fn(move |_| {
        let token = Token::bearer(secret.clone()).expires_in(Duration::from_secs(24 * 3600));
        async { Ok(token) }
    });
    let tokens = Tokens::new(provider).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(tokens.get()).unwrap();
    TokenLayer::new(&tokens, Origins::only("https://api.example.com").unwrap())
}

fn case<S>(mut service: S, body: Body) -> Case
where
    S: Service<Request<Body>, Response = Response<Request<Body>>> + 'static,
{
    let mut travelling = Some(request(body));
    Box::new(move |calls| {
        let mut request = travelling.take().unwrap();
        for _ in 0..calls {
            request = black_box(round(&mut service, black_box(request)));
        }
        travelling = Some(request);
    })
}

fn main() {
    table::run("call", 10_000, "AddAuthorization", cases);
}
