//! opentelemetry-otlp over gRPC, whose channel takes no layer: the token in its interceptor.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-otlp
//! ```
//!
//! Nothing leaves the machine. Eight callers record spans and have them exported while tokens expire and one is
//! revoked; what is printed was counted by the collector, the issuer and the callers.
//!
//! An interceptor cannot wait, so the program does two things that the layer would do:
//!
//! * It takes the token in place, and on the exporter's thread, which has no runtime, it cannot have one fetched.
//!   Hence the tokens are kept alive: a task of the runtime renews them, whoever looks.
//! * **No layer sends a refused batch again**, and opentelemetry-otlp does not either: `Unauthenticated` is none of
//!   the codes that its retries are for, and the batch is lost. Hence the [wrapper](AgainIfRefused) around the
//!   exporter, which gives a refused batch to it a second time, with a newer token.
//!
//! `--bin relay` is a way around all of this, at the price of one more hop within the program; and where the collector
//! takes HTTP, `--bin http` needs none of it.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use client_otlp::{Collector, Spans};
use http::header::AUTHORIZATION;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use stage::Stage;
use tokio::runtime::Handle;
use tonic::{Request, Status};
use tower_token::{BoxError, RefreshPolicy, Token, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let collector = Collector::default();
    let endpoint = collector.serve(stage.gate()).await?;

    // The one current token. It is fetched here and now, and from then on renewed whether anybody asks or not.
    let policy = RefreshPolicy::default().keep_alive(true);
    let tokens = Tokens::builder(stage.grant()).policy(policy).build()?;
    tokens.get().await?;

    // The exporter, as you have it, with the token in place on each call.
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_interceptor(bearer(tokens.clone()))
        .build()?;

    // The same for those batches too that are refused.
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(AgainIfRefused {
            exporter,
            tokens,
            runtime: Handle::current(),
        })
        .build();

    let spans = Spans::of(provider);
    let recorder = spans.clone();
    let export_a_span = move || recorder.clone().export_one();
    let verdict = stage.run("opentelemetry-otlp", export_a_span).await;
    Ok(collector.has_all_of(&spans, verdict))
}

/// Puts the token in place on a call, if there is one.
fn bearer(tokens: Tokens) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |mut call| {
        let token = tokens.current_header();
        let token = token.ok_or_else(|| Status::unauthenticated("there is no token"))?;
        call.metadata_mut().as_mut().insert(AUTHORIZATION, token);
        Ok(call)
    }
}

// ===== what becomes of a refused batch =====

/// Gives a refused batch to the exporter once more, with a newer token.
#[derive(Debug)]
struct AgainIfRefused<E> {
    exporter: E,
    tokens: Tokens,
    runtime: Handle,
}

impl<E> AgainIfRefused<E> {
    /// Waits for another token to be in place: as a task of the runtime, because a fetch wants one.
    async fn wait_for_another(&self, refused: Option<Token>) -> OTelSdkResult {
        let tokens = self.tokens.clone();
        let another = self.runtime.spawn(async move {
            if let Some(token) = refused {
                tokens.invalidate(&token);
            }
            tokens.get().await
        });
        another.await.map_err(failure)?.map(drop).map_err(failure)
    }
}

impl<E: SpanExporter> SpanExporter for AgainIfRefused<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        // What the interceptor will find in a moment, or one that is newer yet.
        let presented = self.tokens.current();
        if let Some(token) = &presented {
            match self.exporter.export(batch.clone()).await {
                Err(error) if is_refusal(&error) => {}
                result => {
                    // One that was accepted once is believed to be revoked when it is refused.
                    if result.is_ok() {
                        self.tokens.accepted(token);
                    }
                    return result;
                }
            }
        }
        self.wait_for_another(presented).await?;
        self.exporter.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn failure(error: impl Error) -> OTelSdkError {
    OTelSdkError::InternalFailure(error.to_string())
}

/// The code is handed on in words only. Should they change, batches are lost as they are without the wrapper.
fn is_refusal(error: &OTelSdkError) -> bool {
    matches!(error, OTelSdkError::InternalFailure(words) if words.contains("Unauthenticated"))
}
