//! opentelemetry-otlp over HTTP, whose exporter takes an HTTP client of one's own: hyper-util's, with the token on it.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-otlp --bin http
//! ```
//!
//! Here the layer has its place, unlike over gRPC: it waits for the token, and it sends a refused batch again itself.
//! So the exporter needs neither an interceptor nor a wrapper, and the tokens need not be kept alive.
//!
//! Nothing leaves the machine. Eight callers record spans and have them exported while tokens expire and one is
//! revoked; what is printed was counted by the collector, the issuer and the callers.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use client_otlp::{Collector, Spans};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::SdkTracerProvider;
use stage::Stage;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::{BoxError, CloneBody, Origins, TokenLayer, Tokens};

/// How long an export may take, with all that the layer does for it. The exporter leaves that to its client.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let collector = Collector::default();
    let server = stage.serve(collector.over_http()).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // A batch comes as `Bytes`, which are `Clone`: a refused one is sent again as it is. Only below the layer do they
    // become a body, for the client that you have.
    let service = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&server)?).replay(CloneBody))
        .map_request(|batch: Request<Bytes>| batch.map(Full::new))
        .service(Client::builder(TokioExecutor::new()).build_http());

    // The exporter, as you have it. Without an `Authorization` of its own: the layer leaves one that is there.
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{server}/v1/traces"))
        .with_http_client(Stack {
            service,
            runtime: Handle::current(),
        })
        .build()?;

    let spans = Spans::of(SdkTracerProvider::builder().with_batch_exporter(exporter).build());
    let recorder = spans.clone();
    let export_a_span = move || recorder.clone().export_one();
    let verdict = stage.run("opentelemetry-otlp, over HTTP", export_a_span).await;
    Ok(collector.has_all_of(&spans, verdict))
}

// ===== between OpenTelemetry and tower =====

/// A tower service, as OpenTelemetry calls one.
#[derive(Debug)]
struct Stack<S> {
    service: S,
    runtime: Handle,
}

#[async_trait]
impl<S> HttpClient for Stack<S>
where
    S: Service<Request<Bytes>, Response = Response<Incoming>, Error = BoxError>,
    S: Clone + Debug + Send + Sync + 'static,
    S::Future: Send,
{
    /// As a task of the runtime: the exporter's thread has none, and connections, timers and fetches want one. The
    /// task has that thread's context, in which nothing is recorded: an export makes no spans of its own.
    async fn send_bytes(&self, batch: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = whole(self.service.clone().oneshot(batch));
        let in_time = async { timeout(PATIENCE, answer).await? };
        self.runtime.spawn(in_time.with_context(Context::current())).await?
    }
}

/// An answer with its body in memory.
async fn whole(
    answer: impl Future<Output = Result<Response<Incoming>, BoxError>>,
) -> Result<Response<Bytes>, BoxError> {
    let (head, body) = answer.await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}
