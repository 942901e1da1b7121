//! Cases side by side in one run.
//!
//! Criterion's own lines come first, case after case. The table at the end is made of interleaved
//! rounds of all cases, with a changing case first: the median time of each, and the medians of the
//! ratios within a round. Compare ratios; a shared machine makes the times differ from run to run.

#[allow(dead_code)] // Not every benchmark writes one.
pub(crate) mod figures;

use std::time::{Duration, Instant};

use criterion::Criterion;

/// Does what is measured so many times.
pub(crate) type Case = Box<dyn FnMut(u64)>;

const ROUNDS: usize = 301;

/// Measures the cases: the first is what all the others do as well, the second, named `beside`, what they
/// are compared with. A round is so many `calls` of each.
pub(crate) fn run(group: &str, calls: u64, beside: &str, cases: impl Fn() -> Vec<(&'static str, Case)>) {
    let mut criterion = Criterion::default().configure_from_args();
    with_criterion(&mut criterion, group, cases());
    criterion.final_summary();
    // `cargo test --benches` runs every case once, and is done.
    if std::env::args().any(|argument| argument == "--bench") {
        side_by_side(calls, beside, cases());
    }
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

/// All cases in turn, many times over.
fn side_by_side(calls: u64, beside: &str, mut cases: Vec<(&'static str, Case)>) {
    let mut nanos = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for turn in 0..ROUNDS + 10 {
        for place in 0..cases.len() {
            let place = (place + turn) % cases.len();
            let took = time(&mut cases[place].1, calls).as_nanos() as f64 / calls as f64;
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
        "\n{:<32}{:>10}{:>10}{beside:>18}{:>10}",
        format!("median of {ROUNDS} rounds"),
        "ns",
        "net ns",
        "first"
    );
    let first = median(nanos[0].clone());
    for (place, (name, _)) in cases.iter().enumerate() {
        let ns = median(nanos[place].clone());
        let (ours, inner) = (against(place, 1), against(place, 0));
        println!("{name:<32}{ns:>10.1}{:>10.1}{ours:>17.2}x{inner:>9.2}x", ns - first);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
