//! What two threads get done that share a layer: `cargo bench -p tower-token --bench contention`.
//!
//! Each thread has its own clone of one service. Timed is from the first thread's start to the last one's
//! end, so that a thread that had to wait for a core is not taken for one that was not in the way. A scaling
//! of 2 is twice the work of one thread in the same time. It is read beside that of the same loop over a value
//! without a reference count, because cores share more than counts.
//!
//! Of many short rounds the best one counts: in it both threads had a core. What contends is seen there at its
//! cheapest, so that a scaling that is low really is; that of the median round stands beside it. A value is
//! dropped here by the thread that took it, which a connection's own task would not do: this is the ceiling.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
#[path = "table/figures.rs"]
mod figures;
#[path = "table/statistics.rs"]
mod statistics;
#[path = "table/threads.rs"]
mod threads;

use std::hint::black_box;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tower::{Layer, Service};
use tower_token::{TokenLayer, Tokens};

use cases::{Contender, Requests, Trial, in_place, issued, listed};
use figures::Figures;
use statistics::{least, median, scaling};
use threads::{Pair, Round};

const RUNS: usize = 3;
const ROUNDS: usize = 201;
/// Half a millisecond: what else runs on the machine is then in some rounds, and not in all.
const CALLS: u64 = 2_000;

/// The first of them is what the others are read beside, as in all groups.
const CONTENDERS: [Contender; 6] = [
    Contender::Uncounted,
    Contender::Static,
    Contender::Floor,
    Contender::Never,
    Contender::Detect,
    Contender::Auto,
];

fn main() {
    let bench = std::env::args().any(|argument| argument == "--bench");
    // `cargo test --benches` does everything once.
    let (runs, rounds, calls) = if bench { (RUNS, ROUNDS, CALLS) } else { (1, 1, 20) };
    let runs: Vec<Vec<Row>> = (0..runs).map(|_| run(rounds, calls)).collect();
    if bench {
        written(&medians(&runs));
    }
}

fn run(rounds: usize, calls: u64) -> Vec<Row> {
    let tokens = issued();
    let mut rows = measured("called in place", rounds, calls, called(InPlace, &tokens));
    rows.extend(while_swapped(&tokens, || {
        measured(
            "called in place, tokens swapped",
            rounds,
            calls,
            called(InPlace, &tokens),
        )
    }));
    rows.extend(measured(
        "cloned, called, dropped",
        rounds,
        calls,
        called(ClonePerCall, &tokens),
    ));
    rows.extend(measured("cloned and dropped", rounds, calls, handles(&tokens)));
    rows.extend(measured(
        "cloned and dropped with its client",
        rounds,
        calls,
        clients(&tokens),
    ));
    rows
}

// ===== What the threads do =====

type Cases = Vec<(&'static str, Pair)>;

fn called(trial: impl Trial<Outcome = Pair> + Copy, tokens: &Tokens) -> Cases {
    CONTENDERS
        .iter()
        .map(|contender| (contender.name(), contender.undergo(trial, tokens)))
        .collect()
}

#[derive(Clone, Copy)]
struct InPlace;

impl Trial for InPlace {
    type Outcome = Pair;

    fn of<S, B>(self, service: S, body: fn() -> B) -> Pair
    where
        S: Service<Request<B>, Response = Response<Request<B>>> + Clone + Send + 'static,
        B: Send + 'static,
    {
        Pair::of(|| in_place(service.clone(), body, Requests::Travelling))
    }
}

#[derive(Clone, Copy)]
struct ClonePerCall;

impl Trial for ClonePerCall {
    type Outcome = Pair;

    fn of<S, B>(self, service: S, body: fn() -> B) -> Pair
    where
        S: Service<Request<B>, Response = Response<Request<B>>> + Clone + Send + 'static,
        B: Send + 'static,
    {
        Pair::of(|| in_place(Handed(service.clone()), body, Requests::Travelling))
    }
}

/// Keeps a clone for the next call and hands the service that was polled ready to this one, as services that
/// box their futures do.
struct Handed<S>(S);

impl<S: Clone + Service<R>, R> Service<R> for Handed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        let next = self.0.clone();
        mem::replace(&mut self.0, next).call(request)
    }
}

/// What is handed around, and what a handle costs at the least and with one count for all.
fn handles(tokens: &Tokens) -> Cases {
    let service = Contender::Auto.undergo(CloneAndDrop, tokens);
    vec![
        ("value, not counted", cloned(&HeaderValue::from_static("test"))),
        ("one Arc", cloned(&Arc::new(()))),
        ("Tokens", cloned(tokens)),
        ("TokenService", service),
    ]
}

/// The client of many: it has counts of its own. Beside it, the least that a handle costs which is counted at all.
fn clients(tokens: &Tokens) -> Cases {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let service = TokenLayer::new(tokens, listed()).layer(client.clone());
    vec![
        ("hyper-util Client", cloned(&client)),
        (
            "Client, and an Arc of each thread",
            made(|| (client.clone(), Arc::new(()))),
        ),
        ("TokenService over the Client", cloned(&service)),
    ]
}

#[derive(Clone, Copy)]
struct CloneAndDrop;

impl Trial for CloneAndDrop {
    type Outcome = Pair;

    fn of<S, B>(self, service: S, _: fn() -> B) -> Pair
    where
        S: Clone + Send + 'static,
    {
        cloned(&service)
    }
}

fn cloned<T: Clone + Send + 'static>(value: &T) -> Pair {
    made(|| value.clone())
}

/// Each thread makes what it clones.
fn made<T: Clone + Send + 'static>(make: impl Fn() -> T) -> Pair {
    Pair::of(|| {
        let mine = make();
        Box::new(move |calls| {
            for _ in 0..calls {
                drop(black_box(clone(&mine)));
            }
        })
    })
}

/// Not inlined, for the same reason as a call.
#[inline(never)]
fn clone<T: Clone>(value: &T) -> T {
    black_box(value).clone()
}

/// Measures while a third thread gets a new token a hundred times a second.
fn while_swapped<T>(tokens: &Tokens, measure: impl FnOnce() -> T) -> T {
    let (end, mut ended) = oneshot::channel::<()>();
    let tokens = tokens.clone();
    let writer = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut every = tokio::time::interval(Duration::from_millis(10));
            while ended.try_recv().is_err() {
                every.tick().await;
                tokens.refresh().await.unwrap();
            }
        });
    });
    let measured = measure();
    end.send(()).expect("the writer only ends when told");
    writer.join().unwrap();
    measured
}

// ===== What it comes to =====

struct Row {
    case: String,
    cells: [f64; COLUMNS.len()],
}

const COLUMNS: [&str; 6] = [
    "ns, 1 thread",
    "ns, 2 threads",
    "scaling",
    "scaling beside the group's first",
    "time of 2 threads beside the group's first",
    "scaling of the median round",
];

/// Rounds of all cases in turn, with a changing one first.
fn measured(group: &str, rounds: usize, calls: u64, mut cases: Cases) -> Vec<Row> {
    let mut seen: Vec<Vec<Round>> = vec![Vec::new(); cases.len()];
    for turn in 0..rounds {
        for place in 0..cases.len() {
            let place = (place + turn) % cases.len();
            seen[place].push(cases[place].1.round(calls));
        }
    }
    let best = |place: usize| Round {
        alone: least(seen[place].iter().map(|round| round.alone)),
        together: least(seen[place].iter().map(|round| round.together)),
    };
    let scales = |round: &Round| scaling(2, round.alone, round.together);
    let first = best(0);
    (cases.iter().enumerate())
        .map(|(place, (name, _))| {
            let best = best(place);
            Row {
                case: format!("{group}: {name}"),
                cells: [
                    best.alone,
                    best.together,
                    scales(&best),
                    scales(&best) / scales(&first),
                    best.together / first.together,
                    median(seen[place].iter().map(scales)),
                ],
            }
        })
        .collect()
}

/// Of each cell, over all runs.
fn medians(runs: &[Vec<Row>]) -> Vec<Row> {
    let of = |row: usize, cell: usize| median(runs.iter().map(|run| run[row].cells[cell]));
    (runs[0].iter().enumerate())
        .map(|(row, first)| Row {
            case: first.case.clone(),
            cells: std::array::from_fn(|cell| of(row, cell)),
        })
        .collect()
}

fn written(rows: &[Row]) {
    println!(
        "{:<66}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        format!("{RUNS} runs of {ROUNDS} rounds"),
        "1T ns",
        "2T ns",
        "scaling",
        "of first",
        "2T ratio",
        "median"
    );
    for Row { case, cells } in rows {
        let [alone, together, scaling, beside, time, median] = cells;
        println!("{case:<66}{alone:>9.1}{together:>9.1}{scaling:>8.2}x{beside:>8.2}x{time:>8.2}x{median:>8.2}x");
    }
    Figures {
        name: "contention",
        about: "One thread, and two that share a layer, each with its own clone of the service. Timed is from the \
                first start to the last end; a scaling of 2 is twice the work in the same time. Tokens are swapped \
                a hundred times a second by a third thread. Of interleaved rounds the best is taken, because only \
                then both threads had a core each, and of three runs the median. Where the scaling of the group's \
                first, which shares nothing, is far from 2, the machine was busy.",
        columns: COLUMNS.to_vec(),
        rows: rows
            .iter()
            .map(|row| (row.case.clone(), row.cells.map(Some).to_vec()))
            .collect(),
    }
    .write();
}
