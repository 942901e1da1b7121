//! An HTTP server behind the gate.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tower_token::BoxError;

use crate::gate::Gate;

pub(crate) async fn serve<A>(gate: Gate, answer: A) -> Result<String, BoxError>
where
    A: Fn(Request<Bytes>) -> Response<Bytes> + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        // No connection can be accepted any more: callers will fail, and the report says so.
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, gate.clone(), answer.clone()));
        }
    });
    Ok(origin)
}

async fn converse<A>(stream: TcpStream, gate: Gate, answer: A)
where
    A: Fn(Request<Bytes>) -> Response<Bytes> + Clone + Send + 'static,
{
    let respond = service_fn(move |request| respond(request, gate.clone(), answer.clone()));
    // It works without, only slower.
    let _ = stream.set_nodelay(true);
    // Clients come and go as they like.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), respond)
        .await;
}

async fn respond<A>(request: Request<Incoming>, gate: Gate, answer: A) -> Result<Response<Full<Bytes>>, hyper::Error>
where
    A: Fn(Request<Bytes>) -> Response<Bytes>,
{
    let (head, body) = request.into_parts();
    let admitted = gate.admits(&head.headers);
    let body = body.collect().await?.to_bytes();
    let response = if admitted {
        answer(Request::from_parts(head, body))
    } else {
        refusal()
    };
    Ok(response.map(Full::new))
}

fn refusal() -> Response<Bytes> {
    let mut refusal = Response::default();
    *refusal.status_mut() = StatusCode::UNAUTHORIZED;
    let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    refusal
}
