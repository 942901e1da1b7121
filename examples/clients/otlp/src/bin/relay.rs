//! opentelemetry-otlp over gRPC, by a channel into this very program, where the layer is.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-otlp --bin relay
//! ```
//!
//! The exporter wants tonic's own `Channel`, and a layer around one is another type. But what a channel connects to
//! is ours to say: here it is a pipe, at whose other end the calls go through the layer and into the real channel.
//! That is one more HTTP/2 connection, within the program. For it the exporter is as it was, without interceptor
//! and wrapper, and a call waits for its token and is sent again as with any other client. It goes for every client
//! that wants a `Channel`.
//!
//! Nothing leaves the machine. Eight callers record spans and have them exported while tokens expire and one is
//! revoked; what is printed was counted by the collector, the issuer and the callers.

use std::convert::Infallible;
use std::process::ExitCode;

use client_otlp::{Collector, Spans};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_sdk::trace::SdkTracerProvider;
use stage::Stage;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_token::{BoxError, TokenLayer, Tokens};

/// How much the pipe holds, each way.
const PIPE: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let collector = Collector::default();
    let endpoint = collector.serve(stage.gate()).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // The channel to the collector, with the token on each call, as for any client that tonic generated.
    let calls = ServiceBuilder::new()
        .layer(TokenLayer::grpc(&tokens).replay_via(Body::new))
        .service(Channel::from_shared(endpoint)?.connect_lazy());

    // The exporter, as you have it, by a channel to that.
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_channel(channel_into(calls))
        .build()?;

    let spans = Spans::of(SdkTracerProvider::builder().with_batch_exporter(exporter).build());
    let recorder = spans.clone();
    let export_a_span = move || recorder.clone().export_one();
    let verdict = stage.run("opentelemetry-otlp, by a relay", export_a_span).await;
    Ok(collector.has_all_of(&spans, verdict))
}

/// A channel whose calls are `service`'s.
fn channel_into<S, B>(service: S) -> Channel
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: hyper::body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let service = service.map_request(|call: Request<Incoming>| without_origin(call.map(Body::new)));
    let connect = service_fn(move |_: Uri| {
        let (near, far) = tokio::io::duplex(PIPE);
        let calls = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(service.clone()));
        // It ends with the channel.
        tokio::spawn(calls);
        async { Ok::<_, Infallible>(TokioIo::new(near)) }
    });
    Endpoint::from_static("http://relay").connect_with_connector_lazy(connect)
}

/// A call as tonic's clients make it: which origin it goes to is for the next channel to say.
fn without_origin(mut call: Request<Body>) -> Request<Body> {
    if let Some(path) = call.uri().path_and_query() {
        *call.uri_mut() = Uri::from(path.clone());
    }
    call
}
