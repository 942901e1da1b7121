//! A collector, and spans for it: what the ways to put the token on opentelemetry-otlp are tried with.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, StatusCode};
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_sdk::trace::SdkTracerProvider;
use prost::Message;
use stage::Gate;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tower_token::BoxError;

/// Takes spans from those whom the gate admits, and counts them.
///
/// A clone is another handle on the same collector.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    taken: u64,
    ids: HashSet<Vec<u8>>,
}

impl Collector {
    /// Takes spans over gRPC, on a port of loopback. Returns the endpoint, like `http://127.0.0.1:1234`.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no port to give.
    pub async fn serve(&self, gate: Gate) -> Result<String, BoxError> {
        let admit = move |call: Request<()>| match gate.admits(call.metadata().as_ref()) {
            true => Ok(call),
            false => Err(Status::unauthenticated("the token is not valid")),
        };
        let service = InterceptedService::new(TraceServiceServer::new(self.clone()), admit);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(format!("http://{at}"))
    }

    /// Takes spans over HTTP, to be [served](stage::Stage::serve).
    ///
    /// `POST /v1/traces` is a 200 if the body is a batch of spans, otherwise a 400; anything else is a 404.
    pub fn over_http(&self) -> impl Fn(http::Request<Bytes>) -> http::Response<Bytes> + Clone + Send + 'static {
        let collector = self.clone();
        move |request| {
            let (head, body) = request.into_parts();
            let batch = ExportTraceServiceRequest::decode(body);
            let (status, answer) = match (head.method, head.uri.path(), batch) {
                (Method::POST, "/v1/traces", Ok(batch)) => (StatusCode::OK, collector.take(batch).encode_to_vec()),
                (Method::POST, "/v1/traces", Err(_)) => (StatusCode::BAD_REQUEST, Vec::new()),
                _ => (StatusCode::NOT_FOUND, Vec::new()),
            };
            let mut response = http::Response::new(answer.into());
            *response.status_mut() = status;
            response
        }
    }

    fn take(&self, batch: ExportTraceServiceRequest) -> ExportTraceServiceResponse {
        let resources = batch.resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        for span in scopes.flat_map(|scope| scope.spans) {
            book.taken += 1;
            book.ids.insert(span.span_id);
        }
        ExportTraceServiceResponse::default()
    }

    /// Prints how many it has of the spans that were recorded: the exit code is `verdict` if it has all of them, and
    /// none twice.
    pub fn has_all_of(&self, spans: &Spans, verdict: ExitCode) -> ExitCode {
        let recorded = spans.recorded.load(Ordering::Relaxed);
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let different = book.ids.len() as u64;
        println!("{recorded:>6}  spans recorded; the collector took {different}");
        if (book.taken, different) == (recorded, recorded) {
            return verdict;
        }
        println!("wrong: spans were lost, or came twice");
        ExitCode::FAILURE
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(self.take(request.into_inner())))
    }
}

/// What the callers record spans with.
#[derive(Clone, Debug)]
pub struct Spans {
    provider: SdkTracerProvider,
    turn: Arc<tokio::sync::Mutex<()>>,
    recorded: Arc<AtomicU64>,
}

impl Spans {
    /// Spans of this provider.
    pub fn of(provider: SdkTracerProvider) -> Self {
        Self {
            provider,
            turn: Arc::default(),
            recorded: Arc::default(),
        }
    }

    /// Records a span, and waits until it is exported. One after the other, which is the exporter's way too: so each
    /// caller learns how its own span fared.
    ///
    /// # Errors
    ///
    /// The exporter's.
    pub async fn export_one(self) -> Result<(), BoxError> {
        let _turn = self.turn.lock().await;
        self.provider.tracer("shop").in_span("place order", |_| ());
        self.recorded.fetch_add(1, Ordering::Relaxed);
        let provider = self.provider.clone();
        Ok(spawn_blocking(move || provider.force_flush()).await??)
    }
}
