//! Under load: do a static header and ours differ in what a client gets done?

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt};
use tower_http::auth::AddAuthorizationLayer;
use tower_token::{Origins, Token, TokenLayer, Tokens, provider_fn};

use crate::figures::Figures;
use crate::statistics::{Between, median};
use crate::{Body, Version, elsewhere, runtime};

/// Many short ones: what else the machine does then falls on both of a pair, or on few pairs.
const ROUNDS: usize = 61;
const SPAN: Duration = Duration::from_millis(200);
/// Requests in the air at a time.
const CALLERS: usize = 32;

/// What one client got done.
#[derive(Clone, Copy)]
struct Load {
    throughput: f64,
    p50: f64,
    p99: f64,
}

/// The static header twice: how two clients differ that are the same is the noise of this machine.
struct Round {
    fixed: Load,
    control: Load,
    ours: Load,
}

pub(crate) fn run(bench: bool) {
    let (rounds, span) = if bench {
        (ROUNDS, SPAN)
    } else {
        (6, Duration::from_millis(2))
    };
    let url = elsewhere(serve);
    let rows: Vec<Row> = [Version::Http1, Version::Http2]
        .into_iter()
        .flat_map(|version| compared(version, &runtime().block_on(measured(version, &url, rounds, span))))
        .collect();
    if bench {
        written(&rows);
    }
}

/// Answers everything with two bytes.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let answer = service_fn(async |request: Request<Incoming>| {
            let authorized = request.headers().contains_key(http::header::AUTHORIZATION);
            assert!(authorized, "every client here sends a token");
            Ok::<_, Infallible>(Response::new(Body::from("ok")))
        });
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A connection that its client drops is no failure.
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    url
}

async fn measured(version: Version, url: &str, rounds: usize, span: Duration) -> Vec<Round> {
    let secret = "test".repeat(225);
    let fixed = AddAuthorizationLayer::bearer(&secret);
    let provider = provider_fn(move |_| {
        let token = Token::bearer(secret.clone()).expires_in(Duration::from_secs(24 * 3600));
        async { Ok(token) }
    });
    let ours = TokenLayer::new(&Tokens::new(provider).unwrap(), Origins::only(url).unwrap());
    let mut all = Vec::new();
    for turn in 0..rounds {
        let mut loads = [None; 3];
        for place in 0..3 {
            let place = (place + turn) % 3;
            // With new connections each time, so that none of the three has a lucky one for good.
            let client = version.client();
            loads[place] = Some(match place {
                0 | 1 => load(fixed.layer(client), url, span).await,
                _ => load(ours.layer(client), url, span).await,
            });
        }
        let [fixed, control, ours] = loads.map(|load| load.expect("each of them had its turn"));
        all.push(Round { fixed, control, ours });
    }
    all
}

async fn load<S>(service: S, url: &str, span: Duration) -> Load
where
    S: Service<Request<Body>, Response = Response<Incoming>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug + Send,
{
    calls(&service, url, span / 10).await;
    let began = Instant::now();
    let mut micros = calls(&service, url, span).await;
    let took = began.elapsed();
    micros.sort_by(f64::total_cmp);
    Load {
        throughput: micros.len() as f64 / took.as_secs_f64(),
        p50: micros[micros.len() / 2],
        p99: micros[micros.len() * 99 / 100],
    }
}

/// How many microseconds each call took that began within this time.
async fn calls<S>(service: &S, url: &str, span: Duration) -> Vec<f64>
where
    S: Service<Request<Body>, Response = Response<Incoming>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug + Send,
{
    let until = Instant::now() + span;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut service, url) = (service.clone(), format!("{url}/v1/things/17?page=3"));
        callers.spawn(async move {
            let mut micros = Vec::new();
            let mut began = Instant::now();
            while began < until {
                let request = Request::get(&url).header("accept", "text/plain").body(Body::default());
                let response = service.ready().await.unwrap().call(request.unwrap()).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                let read: Bytes = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(read, "ok");
                let ended = Instant::now();
                micros.push((ended - began).as_nanos() as f64 / 1000.0);
                began = ended;
            }
            micros
        });
    }
    callers.join_all().await.concat()
}

// ===== What it comes to =====

struct Row {
    case: String,
    fixed: f64,
    ours: f64,
    /// In percent, and so is the control.
    difference: Between,
    control: Between,
}

type Value = fn(&Load) -> f64;

const VALUES: [(&str, Value); 3] = [
    ("requests a second", |load| load.throughput),
    ("p50 in µs", |load| load.p50),
    ("p99 in µs", |load| load.p99),
];

fn compared(version: Version, rounds: &[Round]) -> Vec<Row> {
    let row = |(name, value): (&str, Value)| {
        let beside = |other: fn(&Round) -> &Load| {
            Between::of(
                rounds
                    .iter()
                    .map(|round| (value(other(round)) / value(&round.fixed) - 1.0) * 100.0),
            )
        };
        Row {
            case: format!("{}, {name}", version.name()),
            fixed: median(rounds.iter().map(|round| value(&round.fixed))),
            ours: median(rounds.iter().map(|round| value(&round.ours))),
            difference: beside(|round| &round.ours),
            control: beside(|round| &round.control),
        }
    };
    VALUES.map(row).into()
}

fn written(rows: &[Row]) {
    println!(
        "\n{ROUNDS} pairs of {} ms; differences in percent, with 95 % of certainty",
        SPAN.as_millis()
    );
    for Row {
        case,
        fixed,
        ours,
        difference,
        control,
    } in rows
    {
        let verdict = if difference.holds_zero() {
            "no measurable difference"
        } else {
            "measurable"
        };
        let shown = |Between { low, median, high }: &Between| format!("{median:+.1} ({low:+.1} to {high:+.1})");
        println!(
            "{case:<32} static {fixed:>9.1}  ours {ours:>9.1}  {:<24} static again {:<24} {verdict}",
            shown(difference),
            shown(control)
        );
    }
    Figures {
        name: "wire",
        about: "Requests through hyper's client to hyper's server on loopback, 32 at a time, by one thread against one, \
                with a static header and with our layer in turns of a fifth of a second. The difference is the median of \
                those within a pair, in percent, between the two values that hold it with 95 % of certainty: no \
                difference is measurable where they have 0 between them. The control is the static header against \
                itself.",
        columns: vec![
            "static", "ours", "difference, %", "from", "to", "control, %", "control from", "control to",
        ],
        rows: rows
            .iter()
            .map(|row| {
                let cells = [row.fixed, row.ours].into_iter().chain(row.difference.cells()).chain(row.control.cells());
                (row.case.clone(), cells.map(Some).collect())
            })
            .collect(),
    }
    .write();
}
