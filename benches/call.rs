//! What one call costs, side by side in one run: `cargo bench -p tower-token --bench call`.
//!
//! Measured is a whole call of one service by one thread: polled ready, called, polled to its end, its
//! future dropped. The inner service answers at once and hands the request back as the response's body,
//! so that neither it nor this driver allocates, and one request with four headers serves for all
//! calls. Before each call `Authorization` is taken off, because a new request would have none; the
//! bare case does the same and finds none. The values of the headers are thus shared after the first
//! call, and a copy of the head is cheaper than that of a request that was built a moment ago. The
//! token has 900 bytes, as JWTs do. It is fresh, and no request is refused.
//!
//! Criterion's own lines come first, case after case. The table at the end is made of interleaved
//! rounds of all cases, with a changing case first: the median time of each, and the medians of the
//! ratios within a round. Compare ratios; a shared machine makes the times differ from run to run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mirror.rs"]
mod mirror;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_token::{CloneBody, Never, Origins, Token, TokenLayer, Tokens, provider_fn};

use mirror::{Mirror, request, round};

type Body = Full<Bytes>;

/// Makes so many calls.
type Case = Box<dyn FnMut(u64)>;

const BARE: usize = 0;
const STATIC: usize = 1;

fn cases() -> Vec<(&'static str, Case)> {
    let secret = "t".repeat(900);
    let fixed = AddAuthorizationLayer::bearer(&secret);
    let layer = layer(secret);
    let (empty, text) = (Body::default, || Body::from("x".repeat(1024)));
    vec![
        ("bare inner service", case(Mirror, empty())),
        ("tower-http AddAuthorization", case(fixed.layer(Mirror), empty())),
        (
            "TokenLayer, Never",
            case(layer.clone().replay(Never).layer(Mirror), empty()),
        ),
        (
            "TokenLayer, Auto, empty body",
            case(layer.clone().layer(Mirror), empty()),
        ),
        (
            "TokenLayer, CloneBody, 1 KiB",
            case(layer.replay(CloneBody).layer(Mirror), text()),
        ),
    ]
}

fn layer(secret: String) -> TokenLayer {
    let provider = provider_fn(move |_| {
        let token = Token::bearer(secret.clone()).expires_in(Duration::from_secs(24 * 3600));
        async { Ok(token) }
    });
    let tokens = Tokens::new(provider).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(tokens.get()).unwrap();
    TokenLayer::new(&tokens, Origins::only("https://api.example.com").unwrap())
}

fn case<S>(mut service: S, body: Body) -> Case
where
    S: Service<Request<Body>, Response = Response<Request<Body>>> + 'static,
{
    let mut travelling = Some(request(body));
    Box::new(move |calls| {
        let mut request = travelling.take().unwrap();
        for _ in 0..calls {
            request = black_box(round(&mut service, black_box(request)));
        }
        travelling = Some(request);
    })
}

fn time(case: &mut Case, calls: u64) -> Duration {
    let began = Instant::now();
    case(calls);
    began.elapsed()
}

fn with_criterion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(50);
    for (name, mut case) in cases() {
        group.bench_function(name, |bencher| bencher.iter_custom(|calls| time(&mut case, calls)));
    }
    group.finish();
}

/// All cases in turn, many times over.
fn side_by_side() {
    const ROUNDS: usize = 301;
    const CALLS: u64 = 10_000;
    let mut cases = cases();
    let mut nanos = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for turn in 0..ROUNDS + 10 {
        for place in 0..cases.len() {
            let place = (place + turn) % cases.len();
            let took = time(&mut cases[place].1, CALLS).as_nanos() as f64 / CALLS as f64;
            // The first rounds only warm up.
            if turn >= 10 {
                nanos[place].push(took);
            }
        }
    }
    let against = |place: usize, other: usize| {
        let ratios = nanos[place]
            .iter()
            .zip(&nanos[other])
            .map(|(ours, theirs)| ours / theirs);
        median(ratios.collect())
    };
    println!(
        "\n{:<32}{:>10}{:>10}{:>18}{:>10}",
        "median of 301 rounds", "ns", "net ns", "AddAuthorization", "bare"
    );
    let bare = median(nanos[BARE].clone());
    for (place, (name, _)) in cases.iter().enumerate() {
        let ns = median(nanos[place].clone());
        let (fixed, inner) = (against(place, STATIC), against(place, BARE));
        println!("{name:<32}{ns:>10.1}{:>10.1}{fixed:>17.2}x{inner:>9.2}x", ns - bare);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    with_criterion(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` runs every case once, and is done.
    if std::env::args().any(|argument| argument == "--bench") {
        side_by_side();
    }
}
