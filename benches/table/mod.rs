//! Cases side by side in one run.
//!
//! Criterion's own lines come first, case after case. The table at the end is made of interleaved
//! rounds of all cases, with a changing case first and the stack at a changing place: the median time of
//! each, and the medians of the ratios within a round; of three such runs, the median again. Compare
//! ratios; a shared machine makes the times differ from run to run.

#[allow(dead_code)] // Not every benchmark writes one.
pub(crate) mod figures;
pub(crate) mod statistics;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;

use statistics::{median, ratio};

/// Does what is measured so many times.
pub(crate) type Case = Box<dyn FnMut(u64)>;

const RUNS: usize = 3;
const ROUNDS: usize = 151;
/// The first ones only warm up.
const WARM_UP: usize = 10;

/// What one case came to.
pub(crate) struct Row {
    pub(crate) case: String,
    /// Nanoseconds of one call.
    pub(crate) ns: f64,
    /// Without what the first case takes.
    pub(crate) net: f64,
    /// Beside the second case.
    pub(crate) beside: f64,
    /// Beside the first.
    pub(crate) first: f64,
}

/// Measures the cases: the first is what all the others do as well, the second, named `beside`, what they
/// are compared with. A round is so many `calls` of each.
///
/// `None` where nothing is to be measured: `cargo test --benches` runs every case once, and is done.
pub(crate) fn run(
    group: &str,
    calls: u64,
    beside: &str,
    cases: impl Fn() -> Vec<(&'static str, Case)>,
) -> Option<Vec<Row>> {
    let mut criterion = Criterion::default().configure_from_args();
    with_criterion(&mut criterion, group, cases());
    criterion.final_summary();
    if !std::env::args().any(|argument| argument == "--bench") {
        return None;
    }
    let runs: Vec<_> = (0..RUNS).map(|_| side_by_side(calls, cases())).collect();
    let rows: Vec<Row> = cases()
        .iter()
        .enumerate()
        .map(|(place, (name, _))| median_row(name, runs.iter().map(|run| &run[place])))
        .collect();
    print(beside, &rows);
    Some(rows)
}

fn with_criterion(criterion: &mut Criterion, group: &str, cases: Vec<(&'static str, Case)>) {
    let mut group = criterion.benchmark_group(group);
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(50);
    for (name, mut case) in cases {
        group.bench_function(name, |bencher| bencher.iter_custom(|calls| time(&mut case, calls)));
    }
    group.finish();
}

fn time(case: &mut Case, calls: u64) -> Duration {
    let began = Instant::now();
    case(calls);
    began.elapsed()
}

/// The same with the stack a little deeper: where a future lies moves its time by up to a tenth, so
/// that no single place may decide.
fn time_at(depth: usize, case: &mut Case, calls: u64) -> Duration {
    fn deeper<const BYTES: usize>(case: &mut Case, calls: u64) -> Duration {
        let below = black_box([0_u8; BYTES]);
        let took = time(case, calls);
        black_box(&below);
        took
    }
    match depth % 8 {
        0 => deeper::<0>(case, calls),
        1 => deeper::<32>(case, calls),
        2 => deeper::<64>(case, calls),
        3 => deeper::<112>(case, calls),
        4 => deeper::<256>(case, calls),
        5 => deeper::<528>(case, calls),
        6 => deeper::<1040>(case, calls),
        _ => deeper::<2064>(case, calls),
    }
}

/// All cases in turn, many times over.
fn side_by_side(calls: u64, mut cases: Vec<(&'static str, Case)>) -> Vec<Row> {
    let mut nanos = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for turn in 0..ROUNDS + WARM_UP {
        for place in 0..cases.len() {
            let place = (place + turn) % cases.len();
            let took = time_at(turn, &mut cases[place].1, calls).as_nanos() as f64 / calls as f64;
            if turn >= WARM_UP {
                nanos[place].push(took);
            }
        }
    }
    rows(&cases.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &nanos)
}

/// What the rounds of each case, in nanoseconds, come to.
fn rows(names: &[&str], nanos: &[Vec<f64>]) -> Vec<Row> {
    let first = median(nanos[0].iter().copied());
    names
        .iter()
        .zip(nanos)
        .map(|(name, rounds)| {
            let ns = median(rounds.iter().copied());
            Row {
                case: (*name).to_owned(),
                ns,
                net: ns - first,
                beside: ratio(rounds, &nanos[1]),
                first: ratio(rounds, &nanos[0]),
            }
        })
        .collect()
}

fn median_row<'a>(case: &str, runs: impl Iterator<Item = &'a Row> + Clone) -> Row {
    let of = |value: fn(&Row) -> f64| median(runs.clone().map(value));
    Row {
        case: case.to_owned(),
        ns: of(|row| row.ns),
        net: of(|row| row.net),
        beside: of(|row| row.beside),
        first: of(|row| row.first),
    }
}

fn print(beside: &str, rows: &[Row]) {
    println!(
        "\n{:<32}{:>10}{:>10}{beside:>18}{:>10}",
        format!("{RUNS} runs of {ROUNDS} rounds"),
        "ns",
        "net ns",
        "first"
    );
    for row in rows {
        println!(
            "{:<32}{:>10.1}{:>10.1}{:>17.2}x{:>9.2}x",
            row.case, row.ns, row.net, row.beside, row.first
        );
    }
}
