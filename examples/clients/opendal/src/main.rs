//! OpenDAL, whose services send by a transport of one's own: here the one that it has, with the token on it.
//!
//! ```text
//! cargo run --manifest-path examples/clients/Cargo.toml -p client-opendal
//! ```
//!
//! Nothing leaves the machine. Eight callers write files and read them back while tokens expire and one is revoked;
//! what is printed was counted by the server, the issuer and the callers. The service is WebDAV; every other that
//! speaks HTTP takes the same transport.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, Response};
use opendal::services::Webdav;
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use stage::{Stage, order, shelf};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::{BoxError, CloneBody, Origins, TokenLayer, Tokens};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let stage = Stage::open().await?;
    let server = stage.serve(shelf()).await?;

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::new(stage.grant())?;

    // The transport that you have; this one leaves the environment's proxy alone.
    let transport = ReqwestTransport::new(reqwest::Client::builder().no_proxy().build()?);

    // The same with the token on each request. A `Buffer` is `Clone`, so a refused write is sent again as it is.
    let stack = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&server)?).replay(CloneBody))
        .service_fn(move |request| {
            let transport = transport.clone();
            async move { transport.fetch(request).await }
        });

    // An operator as you have one. Without credentials of its own: the layer leaves an `Authorization` that is there.
    let context = OperationContext::new().with_http_transport(HttpTransporter::new(Stack(stack)));
    let service = Webdav::default().endpoint(&server).disable_create_dir(true);
    let files = Operator::new(service)?.with_context(context);

    let names = Arc::new(AtomicU64::new(0));
    let write_and_read = move || {
        let (files, name) = (files.clone(), names.fetch_add(1, Ordering::Relaxed));
        async move {
            let path = format!("orders-{name}.json");
            files.write(&path, order()).await?;
            let read = files.read(&path).await?.to_bytes();
            (read == order()).then_some(()).ok_or(BoxError::from("another file"))
        }
    };
    Ok(stage.run("OpenDAL", write_and_read).await)
}

// ===== between OpenDAL and tower =====

/// A tower service, as OpenDAL calls one.
struct Stack<S>(S);

impl<S> HttpTransport for Stack<S>
where
    S: Service<Request<Buffer>, Response = Response<HttpBody>, Error = BoxError>,
    S: Clone + Send + Sync + Unpin + 'static,
    S::Future: Send,
{
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        self.0.clone().oneshot(request).await.map_err(as_it_was)
    }
}

/// The transport's error comes through the layer as it is: OpenDAL's retries are told by it what may be sent again.
fn as_it_was(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        // The layer's own: there was no token to be had, and it has its own pauses.
        Err(error) => Error::new(ErrorKind::Unexpected, "there is no token").set_source(io::Error::other(error)),
    }
}
