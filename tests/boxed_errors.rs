//! Where the inner service's error is boxed, a call can be made within an `async` block that is sent elsewhere,
//! as with tower's own middleware in our place. Inside such a block the compiler cannot prove that a boxed error
//! goes `Into` one, so no future may make it ask.
//!
//! `ServiceExt::oneshot` asks whatever the service is, tower's as well: these say `ready` and `call`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower::buffer::Buffer;
use tower::timeout::Timeout;
use tower::util::BoxCloneService;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_token::{Never, TokenLayer, TokenService};

use support::{Api, Page, get, issuer, origins};

type Sent<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Boxed = BoxCloneService<Request<String>, Response<Page>, BoxError>;
type Buffered = Buffer<Request<String>, Sent<Response<Page>>>;

/// Each spells its types: a generic one would be proven before the block is there.
macro_rules! calls {
    ($($name:ident, $service:ty;)*) => {$(
        fn $name(mut service: $service) -> Sent<Response<Page>> {
            Box::pin(async move { service.ready().await?.call(get()).await })
        }
    )*};
}

calls! {
    call_tower, Timeout<Timeout<Boxed>>;
    call_boxed, TokenService<Boxed>;
    call_timed, TokenService<Timeout<Boxed>>;
    call_between, Timeout<TokenService<Timeout<Boxed>>>;
    call_buffered, TokenService<Buffered>;
    call_timed_and_buffered, TokenService<Timeout<Buffered>>;
}

fn timed<S>(service: S) -> Timeout<S> {
    Timeout::new(service, Duration::from_secs(1))
}

#[tokio::test(start_paused = true)]
async fn a_call_over_a_boxed_error_can_be_boxed_and_spawned() {
    let (tokens, _) = issuer();
    let layer = TokenLayer::new(&tokens, origins());
    let api = Api::refusing(["test-1"]);
    let boxed = || BoxCloneService::new(api.clone().map_err(BoxError::from));
    let buffered = || Buffer::new(api.clone().map_future(|call| -> Sent<_> { Box::pin(call) }), 4);
    for call in [
        call_tower(timed(timed(boxed()))),
        call_boxed(layer.layer(boxed())),
        call_timed(layer.layer(timed(boxed()))),
        call_between(timed(layer.layer(timed(boxed())))),
        call_buffered(layer.layer(buffered())),
        call_timed_and_buffered(layer.layer(timed(buffered()))),
    ] {
        tokio::spawn(call).await.unwrap().unwrap();
    }
}

type Body = UnsyncBoxBody<Bytes, BoxError>;
type OfBodies = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

fn call_of_bodies(mut service: TokenService<Timeout<OfBodies>, Never>, body: Body) -> Sent<Response<Body>> {
    Box::pin(async move {
        let request = Request::post("https://api.example.com/api").body(body)?;
        service.ready().await?.call(request).await
    })
}

#[tokio::test(start_paused = true)]
async fn so_can_one_whose_bodies_have_boxed_errors_too() {
    let (tokens, _) = issuer();
    let mirror =
        tower::service_fn(|request: Request<Body>| async { Ok::<_, BoxError>(Response::new(request.into_body())) });
    let client = TokenLayer::new(&tokens, origins())
        .replay(Never)
        .layer(timed(BoxCloneService::new(mirror)));
    let body = Full::new(Bytes::from_static(b"text"))
        .map_err(BoxError::from)
        .boxed_unsync();
    let answer = tokio::spawn(call_of_bodies(client, body)).await.unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "text");
}
