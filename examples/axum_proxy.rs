//! A proxy that streams both ways and puts the token on. The token is revoked while uploads are running.
//!
//! ```text
//! cargo run --features proxy --example axum_proxy
//! ```
//!
//! Nothing leaves the machine: the issuer comes from the testkit, and upstream is another axum server, which
//! sends back what it is sent, as it comes. What you would write are [`proxy`] and [`forward`]. The lines at the end were
//! counted by upstream, the issuer and whoever uploads.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt};
use tower_token::oauth2::ClientCredentialsGrant;
use tower_token::testkit::Issuer;
use tower_token::{BoxError, Buffered, Origins, TokenLayer, TokenService, Tokens};

/// Uploads come in frames of this many bytes.
const FRAME: usize = 16 * 1024;

// ===== what you would write =====

/// A client whose requests carry the token, and which streams: what comes from a caller goes upstream as
/// it comes, and up to 64 KiB of it are kept in case that upstream refuses the token.
type Upstream = TokenService<Client<HttpConnector, Body>, Buffered<Body>>;

#[derive(Clone)]
struct Proxy {
    upstream: Upstream,
    authority: SocketAddr,
}

fn proxy(tokens: &Tokens, upstream: SocketAddr) -> Result<Router, BoxError> {
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(tokens, Origins::only(&format!("http://{upstream}"))?).replay_via(Body::new))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let proxy = Proxy {
        upstream: client,
        authority: upstream,
    };
    Ok(Router::new().fallback(forward).with_state(proxy))
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Result<Response, Unreachable> {
    let (mut head, body) = request.into_parts();
    // What belongs to the connection with the caller, and the caller's own credentials, stay here.
    for name in [header::HOST, header::CONNECTION, header::AUTHORIZATION, header::COOKIE] {
        head.headers.remove(name);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(proxy.authority.to_string())
        .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
        .build()?;
    let response = proxy.upstream.oneshot(Request::from_parts(head, body)).await?;
    Ok(response.map(Body::new))
}

/// No answer from upstream, or no token to ask it with.
struct Unreachable(BoxError);

impl<E: Into<BoxError>> From<E> for Unreachable {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Unreachable {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, format!("{}\n", self.0)).into_response()
    }
}

// ===== what drives it =====

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("axum_proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went as it should.
async fn run() -> Result<bool, BoxError> {
    let issuer = Issuer::new();
    let issuer_at = issuer.serve().await?;
    let grant = ClientCredentialsGrant::new(format!("{}/token", issuer_at.url()), issuer.client_id())
        .client_secret(issuer.client_secret())
        .client(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let tokens = Tokens::new(grant)?;
    let requests = Arc::new(AtomicUsize::new(0));
    let upstream = serve(echoing(issuer.clone(), requests.clone())).await?;
    let proxy = serve(proxy(&tokens, upstream)?).await?;
    let arrived = || requests.swap(0, Ordering::SeqCst);

    let mut good = true;
    let mut tell = |what: &str, uploaded: Uploaded, arrived: usize, expected: (StatusCode, usize)| {
        let came_back = if uploaded.is_whole { "all of it came back" } else { "-" };
        println!(
            "{what:<58} {}  {came_back:<20} {arrived} upstream",
            uploaded.status.as_u16()
        );
        good &= (uploaded.status, arrived) == expected && uploaded.is_whole == uploaded.status.is_success();
    };
    let twice = (StatusCode::OK, 2);

    let uploaded = upload(proxy, "/", 8 << 20).await?;
    tell("8 MiB with a good token", uploaded, arrived(), (StatusCode::OK, 1));

    // The refusal comes while the caller is still sending: the replay takes the rest of the upload over.
    issuer.revoke_access();
    let uploaded = upload(proxy, "/", 8 << 20).await?;
    tell(
        "8 MiB with a revoked one, refused while it is sent",
        uploaded,
        arrived(),
        twice,
    );

    // Everything was sent before the refusal, and no more than is kept.
    issuer.revoke_access();
    let uploaded = upload(proxy, "/late", 64 << 10).await?;
    tell(
        "64 KiB with a revoked one, refused in the end",
        uploaded,
        arrived(),
        twice,
    );

    // More than is kept: the refusal is the caller's, and the next request has a new token.
    issuer.revoke_access();
    let uploaded = upload(proxy, "/late", 1 << 20).await?;
    tell(
        "1 MiB with a revoked one, refused in the end",
        uploaded,
        arrived(),
        (StatusCode::UNAUTHORIZED, 1),
    );
    let uploaded = upload(proxy, "/late", 1 << 20).await?;
    tell("the same again", uploaded, arrived(), (StatusCode::OK, 1));

    let fetched = issuer.counts().token_requests;
    println!("\n{fetched} tokens fetched: one at first, and one for each of three revocations");
    Ok(good && fetched == 4)
}

struct Uploaded {
    status: StatusCode,
    /// The answer was what had been sent.
    is_whole: bool,
}

/// Sends so many bytes, frame by frame, and reads the answer meanwhile.
async fn upload(proxy: SocketAddr, path: &str, size: usize) -> Result<Uploaded, BoxError> {
    let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
    tokio::spawn(async move {
        for at in (0..size).step_by(FRAME) {
            let frame: Vec<u8> = (at..size.min(at + FRAME)).map(byte).collect();
            if sender.send_data(frame.into()).await.is_err() {
                return;
            }
            if at < 8 * FRAME {
                // Slowly at first, so that a refusal comes in the middle.
                sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{proxy}{path}")).body(Body::new(body))?;
    let response = client.request(request).await?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    let sent = (0..size).map(byte);
    Ok(Uploaded {
        status,
        is_whole: answer.iter().copied().eq(sent),
    })
}

/// What stands at this place of an upload.
fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// Sends a request's body back as it comes, if its token is good; `/late` reads all of it before it looks.
fn echoing(issuer: Issuer, requests: Arc<AtomicUsize>) -> Router {
    let judge = move |request: Request| {
        let (issuer, requests) = (issuer.clone(), requests.clone());
        async move {
            requests.fetch_add(1, Ordering::SeqCst);
            let (head, mut body) = request.into_parts();
            if head.uri.path() == "/late" {
                let Ok(all) = body.collect().await else {
                    return StatusCode::BAD_REQUEST.into_response();
                };
                body = Body::from(all.to_bytes());
            }
            if bearer(&head.headers).is_some_and(|token| issuer.is_alive(token)) {
                Response::new(body)
            } else {
                StatusCode::UNAUTHORIZED.into_response()
            }
        }
    };
    Router::new().fallback(any(judge))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// On a port of loopback, for as long as the program runs.
async fn serve(router: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(at)
}
