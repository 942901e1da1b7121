//! HTTP/1.1 on a loopback port, and the faults that are not a vendor's words.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::wire::http_date;
use super::{Answer, Asked, Desk, Fault, Room, Vendor};

type Out = UnsyncBoxBody<Bytes, Infallible>;

/// The port of a double and the one that its redirects point to. Dropping it closes both.
pub(super) struct Server {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn start<V: Vendor>(room: Arc<Room<V>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let addr = listener.local_addr().expect("an address");
        let trap = elsewhere.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        let trapped = room.clone();
        tasks.spawn(accept(elsewhere, move |stream| follow(trapped.clone(), stream)));
        tasks.spawn(accept(listener, move |stream| serve(room.clone(), trap, stream)));
        Self { addr, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// The connections end with the listener.
async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // A dripping answer is to arrive byte by byte.
            let _ = stream.set_nodelay(true);
            connections.spawn(serve(stream));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Where redirects point to: a client that comes here has sent its secrets to a stranger.
async fn follow<V: Vendor>(room: Arc<Room<V>>, stream: TcpStream) {
    let answer = service_fn(move |_: Request<Incoming>| {
        room.desk.count(|counts| counts.redirect_hits += 1);
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn serve<V: Vendor>(room: Arc<Room<V>>, trap: SocketAddr, stream: TcpStream) {
    let resets = Arc::new(AtomicBool::new(false));
    let reset = resets.clone();
    let answer = service_fn(move |request| Box::pin(answer(room.clone(), trap, resets.clone(), request)));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // A client that leaves and a fault that closes the connection both end here, as they should.
    let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let stream = connection.into_parts().io.into_inner();
    if reset.load(Ordering::SeqCst) {
        // Deprecated for the time that dropping may take, which is none for a linger of zero.
        #[allow(deprecated)]
        let _ = stream.set_linger(Some(Duration::ZERO));
    }
}

/// An error closes the connection without a byte.
async fn answer<V: Vendor>(
    room: Arc<Room<V>>,
    trap: SocketAddr,
    reset: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> io::Result<Response<Out>> {
    let (head, body) = request.into_parts();
    let mut asked = Asked {
        method: head.method,
        path: head.uri.path().into(),
        query: head.uri.query().unwrap_or_default().into(),
        headers: head.headers,
        body: Bytes::new(),
    };
    let desk = &room.desk;
    let own = || room.vendor.is_business(&asked).then_some("");
    let business = asked.business().or_else(own).map(str::to_owned);
    let _under_way = business.is_none().then(|| UnderWay::begin(desk));
    asked.body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if let Some(rest) = business {
        return Ok(respond(desk, room.business(&asked, &rest)));
    }
    let operation = room.vendor.operation(&asked);
    desk.count(|counts| *counts.requests.entry(operation).or_default() += 1);
    let authentic = room.vendor.authenticate(&asked, desk);
    let fault = desk.faults.lock().unwrap().pop_front();
    let process = || {
        let outcome = authentic.and_then(|()| room.vendor.process(&asked, desk));
        outcome.unwrap_or_else(|refusal| {
            desk.count(|counts| counts.refused += 1);
            refusal
        })
    };
    let Some(fault) = fault else {
        return Ok(respond(desk, process()));
    };
    let whole = match &fault {
        Fault::LostAnswer => {
            process();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Fault::ResetBefore => {
            reset.store(true, Ordering::SeqCst);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Fault::Delay(late) => {
            let answer = process();
            sleep(*late).await;
            answer
        }
        Fault::CutOff => {
            let answer = process();
            let whole = answer.body.len();
            let half = Half(Some(answer.body.slice(..whole / 2)));
            let response = Response::builder()
                .status(answer.status)
                .header("content-length", whole);
            return Ok(response.body(half.boxed_unsync()).expect("a response"));
        }
        Fault::Status(status) => Answer::json(*status, &serde_json::json!({ "test": true })),
        Fault::Echo(status) => Answer::json(*status, &echo(&asked)),
        Fault::Html502 => Answer::html(502),
        Fault::Html200 => Answer::html(200),
        Fault::Redirect307 => {
            let target = format!("http://{trap}{}?{}", asked.path, asked.query);
            Answer::html(307).with("location", target)
        }
        Fault::Huge => return Ok(stream(desk, Flood { left: HUGE })),
        Fault::Drip => return Ok(stream(desk, Drips(Box::pin(sleep(DRIP))))),
        said => room.vendor.words(&asked, said),
    };
    Ok(respond(desk, whole))
}

impl<V: Vendor> Room<V> {
    fn business(&self, asked: &Asked, rest: &str) -> Answer {
        let token = self.vendor.presented(asked);
        let mut tokens = self.vendor.tokens().lock().unwrap();
        let known = token.as_deref().and_then(|token| tokens.access.get(token));
        let alive = known.is_some_and(|known| known.is_alive());
        let dead = known.is_some() && !alive;
        self.desk.count(|counts| {
            counts.business_ok += u64::from(alive);
            counts.business_refused += u64::from(!alive);
            counts.expired_presented += u64::from(dead);
        });
        let (Some(token), true) = (token, alive) else {
            return self.vendor.unauthorized();
        };
        self.vendor.used(&mut tokens, &token);
        if rest == "/forbidden" {
            return self.vendor.forbidden();
        }
        let kind = asked.header("content-type").unwrap_or("application/octet-stream");
        Answer {
            status: 200,
            headers: vec![("content-type", kind.into())],
            body: asked.body.clone(),
        }
    }
}

/// An error whose every field says what was sent, as it was sent and decoded.
fn echo(asked: &Asked) -> serde_json::Value {
    let body = String::from_utf8_lossy(&asked.body);
    let mut said = format!("{}?{} {body}", asked.path, asked.query);
    for (name, value) in &asked.headers {
        said += &format!(" {name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    for (name, value) in asked.query().and(asked.form()).pairs() {
        said += &format!(" {name}={value}");
    }
    // As a code it has to look like one.
    let secret = [
        "RefreshToken",
        "LoginToken",
        "KeepAliveToken",
        "library_secret",
        "refresh_token",
        "client_secret",
        "Password",
    ];
    let form = asked.query().and(asked.form());
    let code = secret.iter().find_map(|name| form.get(name)).unwrap_or(&asked.path);
    serde_json::json!({
        "Code": code, "code": code, "error": code, "error_code": code,
        "Message": said, "message": said, "error_description": said, "error_msg": said,
    })
}

fn respond(desk: &Desk, answer: Answer) -> Response<Out> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let response = response.header("date", http_date(desk.now()));
    response
        .body(Full::new(answer.body).boxed_unsync())
        .expect("a response")
}

fn stream(desk: &Desk, body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Response<Out> {
    let response = Response::builder()
        .header("content-type", "application/json;charset=utf-8")
        .header("date", http_date(desk.now()));
    response.body(body.boxed_unsync()).expect("a response")
}

/// A token request between its head and the head of its answer.
struct UnderWay<'a>(&'a Desk);

impl<'a> UnderWay<'a> {
    fn begin(desk: &'a Desk) -> Self {
        desk.count(|counts| {
            counts.in_flight += 1;
            counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
        });
        Self(desk)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.count(|counts| counts.in_flight -= 1);
    }
}

// ===== Bodies =====

const HUGE: usize = 64 * 1024 * 1024;
const DRIP: Duration = Duration::from_secs(1);

/// One JSON string that takes [`HUGE`] bytes.
struct Flood {
    left: usize,
}

impl Body for Flood {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PADDING: [u8; 64 * 1024] = [b'x'; 64 * 1024];
        const OPENING: &[u8] = b"{\"padding\":\"";
        const CLOSING: &[u8] = b"\"}";
        let part: &'static [u8] = match self.left {
            0 => return Poll::Ready(None),
            HUGE => OPENING,
            left if left == CLOSING.len() => CLOSING,
            left => &PADDING[..(left - CLOSING.len()).min(PADDING.len())],
        };
        self.left -= part.len();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(part)))))
    }
}

/// So much of an answer that was to be longer.
struct Half(Option<Bytes>);

impl Body for Half {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|half| Ok(Frame::data(half))))
    }
}

/// A space, which may stand before JSON, a second after the last one.
struct Drips(Pin<Box<Sleep>>);

impl Body for Drips {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.0.as_mut().poll(cx));
        self.0 = Box::pin(sleep(DRIP));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}
