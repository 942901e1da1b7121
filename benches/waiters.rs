//! What it costs that many wait for one token: `cargo bench -p tower-token --bench waiters`.
//!
//! All waiters are tasks of one runtime with two workers. They are spawned onto a cold handle, and once each of
//! them was polled, the gate of the fetch is opened: measured is the time from there until the last of them has
//! the token. The cases take turns, a changing one first; medians of all rounds. What a waiter allocates is
//! counted on a runtime of one thread, and what a parked task costs is taken off.
//!
//! The last table is of a herd whose fetch fails.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "table/figures.rs"]
mod figures;
#[path = "waiters/primitives.rs"]
mod primitives;

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tower_token::{FetchError, Token, Tokens, provider_fn};

use figures::Figures;
use primitives::*;

/// How many wait, and how often.
const HERDS: [(usize, usize); 3] = [(1_000, 101), (10_000, 51), (100_000, 21)];

fn main() {
    // `cargo test --benches` runs every case once, and is done.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let (herds, rounds) = if measures {
        (&HERDS[..], 21)
    } else {
        (&[(100, 1)][..], 1)
    };
    let rows = herds.iter().flat_map(|&(waiters, rounds)| rows(waiters, rounds));
    let many = Figures {
        name: "waiters",
        about: "Tasks that wait for the token of one fetch, on a runtime with two workers: medians of interleaved \
                rounds. Released: from the end of the fetch until the last of them has the token.",
        columns: COLUMNS.to_vec(),
        rows: rows.collect(),
    };
    let herd = Figures {
        name: "failing_herd",
        about: "A hundred tasks ask a cold handle at once, and the one fetch fails after 50 ms: medians of the rounds.",
        columns: HERD_COLUMNS.to_vec(),
        rows: vec![failing_herd(rounds)],
    };
    for table in [many, herd] {
        print(&table);
        if measures {
            table.write();
        }
    }
}

type Row = (String, Vec<Option<f64>>);

// ===== many wait =====

const COLUMNS: [&str; 9] = [
    "bytes of the future",
    "fetches",
    "bytes held per waiter",
    "allocations per waiter",
    "registered, ms",
    "released, ms",
    "released, ns per waiter",
    "ratio to the best",
    "ratio to ours",
];

/// Each case with so many waiters.
fn rows(waiters: usize, rounds: usize) -> Vec<Row> {
    let cases = [
        Case::of::<Ours>(),
        Case::of::<DoubleChecked>(),
        Case::of::<Cell>(),
        Case::of::<Notified>(),
        Case::of::<Watched>(),
        Case::of::<Broadcast>(),
        Case::of::<SharedFuture>(),
        Case::of::<Listening>(),
        Case::of::<Listed>(),
    ];
    let timed = take_turns(&cases, waiters, rounds);
    let released: Vec<_> = timed
        .iter()
        .map(|timed| median(timed.iter().map(|timing| timing.released)))
        .collect();
    let best = released.iter().copied().fold(f64::INFINITY, f64::min);
    let parked = held::<Parked>(waiters);
    let row = |place: usize| {
        let (case, timed) = (&cases[place], &timed[place]);
        let held = (case.held)(waiters);
        let each = |bare: f64, with: f64| (with - bare) / waiters as f64;
        let cells = [
            case.size as f64,
            timed.iter().map(|timing| timing.fetches).fold(0.0, f64::max),
            each(parked.bytes, held.bytes),
            each(parked.allocations, held.allocations),
            median(timed.iter().map(|timing| timing.registered)),
            released[place],
            released[place] * 1e6 / waiters as f64,
            released[place] / best,
            released[place] / released[0],
        ];
        (format!("{waiters}: {}", case.name), cells.map(Some).to_vec())
    };
    (0..cases.len()).map(row).collect()
}

/// One way to wait, as what can be done with it.
struct Case {
    name: &'static str,
    size: usize,
    time: fn(&Runtime, usize) -> Timing,
    held: fn(usize) -> Held,
}

impl Case {
    fn of<P: Primitive>() -> Self {
        let runtime = two_workers();
        let _inside = runtime.enter();
        Self {
            name: P::NAME,
            size: size_of_val(&P::new(Fetch::new()).get()),
            time: time::<P>,
            held: held::<P>,
        }
    }
}

/// In milliseconds.
struct Timing {
    fetches: f64,
    /// From the first spawn until all were polled.
    registered: f64,
    /// From the end of the fetch until the last has its token.
    released: f64,
}

fn take_turns(cases: &[Case], waiters: usize, rounds: usize) -> Vec<Vec<Timing>> {
    let runtime = two_workers();
    let mut timed: Vec<_> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for place in 0..cases.len() {
            let place = (place + round) % cases.len();
            let timing = (cases[place].time)(&runtime, waiters);
            // The first round only warms up.
            if round > 0 {
                timed[place].push(timing);
            }
        }
    }
    timed
}

fn time<P: Primitive>(runtime: &Runtime, waiters: usize) -> Timing {
    let _inside = runtime.enter();
    let fetch = Fetch::new();
    let primitive = P::new(fetch.clone());
    let (herd, seen) = Herd::of(waiters);
    let began = Instant::now();
    for _ in 0..waiters {
        tokio::spawn(herd.clone().wait(primitive.get()));
    }
    let all_wait = seen.all_wait.recv().unwrap();
    let opened = Instant::now();
    fetch.open();
    let all_have_it = seen.all_have_it.recv().unwrap();
    drop(primitive);
    // The next case has both workers for itself.
    while runtime.metrics().num_alive_tasks() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    Timing {
        fetches: fetch.begun() as f64,
        registered: millis(all_wait - began),
        released: millis(all_have_it - opened),
    }
}

struct Held {
    bytes: f64,
    allocations: f64,
}

/// What all of them hold that wait.
fn held<P: Primitive>(waiters: usize) -> Held {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let primitive = P::new(Fetch::new());
    let (herd, seen) = Herd::of(waiters);
    let held = measure(|| {
        for _ in 0..waiters {
            tokio::spawn(herd.clone().wait(primitive.get()));
        }
        runtime.block_on(async {
            while seen.all_wait.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
        });
    });
    Held {
        bytes: held.bytes_current as f64,
        allocations: held.count_total as f64,
    }
}

/// Counts how many have yet to be polled, and how many have yet to get their token.
struct Herd {
    to_wait: AtomicUsize,
    to_have_it: AtomicUsize,
    all_wait: Sender<Instant>,
    all_have_it: Sender<Instant>,
}

/// When the last of them was polled, and when the last had its token.
struct Seen {
    all_wait: Receiver<Instant>,
    all_have_it: Receiver<Instant>,
}

impl Herd {
    fn of(waiters: usize) -> (Arc<Self>, Seen) {
        let (wait, all_wait) = channel();
        let (have_it, all_have_it) = channel();
        let herd = Self {
            to_wait: waiters.into(),
            to_have_it: waiters.into(),
            all_wait: wait,
            all_have_it: have_it,
        };
        (Arc::new(herd), Seen { all_wait, all_have_it })
    }

    async fn wait(self: Arc<Self>, get: impl Future<Output = Token>) {
        let mut get = pin!(get);
        let mut is_new = true;
        let token = poll_fn(|cx| {
            let poll = get.as_mut().poll(cx);
            if std::mem::take(&mut is_new) {
                count_down(&self.to_wait, &self.all_wait);
            }
            poll
        });
        black_box(token.await);
        count_down(&self.to_have_it, &self.all_have_it);
    }
}

fn count_down(left: &AtomicUsize, none_left: &Sender<Instant>) {
    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
        // Whoever wants to know may be gone.
        let _ = none_left.send(Instant::now());
    }
}

// ===== a herd whose fetch fails =====

const HERD_COLUMNS: [&str; 5] = [
    "callers told",
    "fetches",
    "the fetch, ms",
    "last caller back, ms",
    "ratio to the fetch",
];

fn failing_herd(rounds: usize) -> Row {
    let runtime = two_workers();
    let rounds: Vec<_> = (0..rounds).map(|_| runtime.block_on(fail_a_herd())).collect();
    let cells = (0..HERD_COLUMNS.len()).map(|cell| Some(median(rounds.iter().map(|round| round[cell]))));
    ("100 cold callers, the issuer fails".into(), cells.collect())
}

async fn fail_a_herd() -> [f64; HERD_COLUMNS.len()] {
    let fetches = Arc::new(Mutex::new(Vec::new()));
    let told = fetches.clone();
    let fails = provider_fn(move |_| {
        let told = told.clone();
        async move {
            let began = Instant::now();
            tokio::time::sleep(Duration::from_millis(50)).await;
            told.lock().unwrap().push(began.elapsed());
            Err::<Token, _>(FetchError::transient("down"))
        }
    });
    let tokens = Tokens::new(fails).unwrap();
    let began = Instant::now();
    let callers: JoinSet<_> = (0..100).map(|_| tokens.get()).collect();
    let failed = callers.join_all().await.iter().filter(|got| got.is_err()).count();
    let back = millis(began.elapsed());
    let fetches = fetches.lock().unwrap();
    let fetch = millis(fetches[0]);
    [failed as f64, fetches.len() as f64, fetch, back, back / fetch]
}

// ===== what they share =====

fn two_workers() -> Runtime {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_time().build().unwrap()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(table: &Figures) {
    println!("\n{}\n{}", table.about, table.columns.join(" | "));
    for (case, cells) in &table.rows {
        print!("{case:<36}");
        for cell in cells.iter().flatten() {
            print!("{cell:>12.2}");
        }
        println!();
    }
}
