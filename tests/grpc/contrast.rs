//! What the tests of the layer are held against: the server's refusals as they are on the wire, and the
//! same calls without the layer.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::client::{EchoClient, request};
use crate::server::Server;

/// What an answer consists of: the status in its head, how many messages, the status in its trailers.
type Shape = (Option<u8>, usize, Option<u8>);

#[tokio::test]
async fn each_refusal_is_on_the_wire_as_it_is_named() {
    let Some(server) = Server::start().await else { return };
    server.release().await;
    for (path, when, shape) in [
        ("/test.Echo/Unary", "start", (Some(16), 0, None)),
        ("/test.Echo/Unary", "headers", (None, 0, Some(16))),
        ("/test.Echo/ServerStream", "held", (None, 0, Some(16))),
        ("/test.Echo/ServerStream", "sent:2", (None, 2, Some(16))),
        ("/test.Echo/ClientStream", "read:1", (Some(16), 0, None)),
        ("/test.Echo/ClientStream", "read:all", (Some(16), 0, None)),
        ("/test.Echo/Bidi", "start", (Some(16), 0, None)),
        ("/test.Echo/Bidi", "each", (Some(16), 0, None)),
        ("/test.Echo/Bidi", "read:1", (None, 0, Some(16))),
        ("/grpc.health.v1.Health/Check", "start", (Some(16), 0, None)),
        ("/grpc.health.v1.Health/Watch", "headers", (None, 0, Some(16))),
    ] {
        assert_eq!(shape_of(&server, path, when).await, shape, "{path} {when}");
    }
    let counts = server.counts().await;
    assert_eq!((counts.deliveries, counts.refused), (11, 11), "{counts:#?}");
    assert_eq!((counts.connections, counts.issued), (11, 0), "{counts:#?}");
}

#[tokio::test]
async fn without_the_layer_every_call_after_a_revocation_fails() {
    let Some(server) = Server::start().await else { return };
    let token = server.tokens().get().await.unwrap();
    let bearer: MetadataValue<Ascii> = format!("Bearer {}", token.secret()).parse().unwrap();
    let with_token = InterceptedService::new(server.channel(), move |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", bearer.clone());
        Ok::<_, Status>(request)
    });
    let mut echo = EchoClient::new(with_token);

    server.revoke_after(20).await;
    let mut failed = 0;
    for call in 0..50 {
        let answer = echo.unary(request(Bytes::new(), &call.to_string(), "start")).await;
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::Unauthenticated);
            failed += 1;
        }
    }
    let counts = server.counts().await;
    assert_eq!((failed, counts.answered, counts.refused), (30, 20, 30), "{counts:#?}");
    assert_eq!(
        (counts.calls, counts.max_deliveries, counts.revoked),
        (50, 1, 1),
        "{counts:#?}"
    );
}

/// Without a token, over a connection of its own.
async fn shape_of(server: &Server, path: &str, when: &'static str) -> Shape {
    // A message of three bytes: no compression, its length, itself.
    let message = Bytes::from_static(b"\0\0\0\0\x03abc");
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-judge", HeaderValue::from_static(when))
        .header("x-messages", "3")
        .body(Body::new(http_body_util::Full::new(message)))
        .unwrap();
    let (head, mut body) = server.channel().oneshot(request).await.unwrap().into_parts();
    let (mut messages, mut trailers) = (0, None);
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(_) => messages += 1,
            Err(frame) => trailers = status(&frame.into_trailers().unwrap()),
        }
    }
    (status(&head.headers), messages, trailers)
}

fn status(headers: &HeaderMap) -> Option<u8> {
    Some(headers.get("grpc-status")?.to_str().unwrap().parse().unwrap())
}
