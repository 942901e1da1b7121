//! Times of interleaved rounds, and how much more two threads get done.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use tower_token_peers::Lane;

use crate::cases::{self, CASES};

pub(crate) struct Timing {
    /// The median of a call by one thread.
    pub(crate) nanos: f64,
    /// The median of the ratios to the static header within a round.
    pub(crate) beside_static: f64,
    /// Calls per second of two threads over those of one; 2.0 is all there is.
    pub(crate) scaling: Option<f64>,
}

/// Rounds that count, and calls of each case in one.
const ROUNDS: usize = 201;
const CALLS: u64 = 2_000;

/// Of two threads: fewer rounds, and longer ones, because a thread has to be started for each.
const PAIRS: usize = 51;
const CALLS_OF_A_PAIR: u64 = 5_000;
/// A lock that goes from thread to thread takes long to do so on a busy machine: no more pairs of its case then.
const ENOUGH: Duration = Duration::from_secs(4);

pub(crate) fn measure() -> Vec<Timing> {
    let mut cases: Vec<Vec<Lane>> = CASES.iter().map(|case| (case.open)()).collect();
    let nanos = rounds(&mut cases);
    let scaling = pairs(&mut cases);
    let floor = cases::named(cases::STATIC).place();
    let timing = |(own, scaling): (&Vec<f64>, Option<f64>)| Timing {
        nanos: median(own.clone()),
        beside_static: median(own.iter().zip(&nanos[floor]).map(|(own, floor)| own / floor).collect()),
        scaling,
    };
    nanos.iter().zip(scaling).map(timing).collect()
}

/// All cases in turn, a changing one first.
fn rounds(cases: &mut [Vec<Lane>]) -> Vec<Vec<f64>> {
    let mut nanos = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for turn in 0..ROUNDS + 10 {
        for place in 0..cases.len() {
            let place = (place + turn) % cases.len();
            let began = Instant::now();
            cases[place][0](CALLS);
            let took = began.elapsed().as_nanos() as f64 / CALLS as f64;
            // The first rounds only warm up.
            if turn >= 10 {
                nanos[place].push(took);
            }
        }
    }
    nanos
}

fn pairs(cases: &mut [Vec<Lane>]) -> Vec<Option<f64>> {
    cases.iter_mut().map(|lanes| scaling(lanes)).collect()
}

/// The best of one thread over the best of two, because whatever else runs only makes them slower; `None`
/// for what has one lane only.
fn scaling(lanes: &mut [Lane]) -> Option<f64> {
    let [one, other] = lanes else { return None };
    let began = Instant::now();
    let (mut alone, mut both) = (Duration::MAX, Duration::MAX);
    for _ in 0..PAIRS {
        alone = alone.min(together([&mut *one]));
        both = both.min(together([&mut *one, &mut *other]));
        if began.elapsed() > ENOUGH {
            break;
        }
    }
    Some(2.0 * alone.as_secs_f64() / both.as_secs_f64())
}

/// Each lane on a new thread of its own: from the first start to the last end.
fn together<const N: usize>(lanes: [&mut Lane; N]) -> Duration {
    let start = Barrier::new(N);
    let spans = std::thread::scope(|scope| {
        let start = &start;
        let threads = lanes.map(|lane| {
            scope.spawn(move || {
                lane(CALLS_OF_A_PAIR / 10);
                start.wait();
                let began = Instant::now();
                lane(CALLS_OF_A_PAIR);
                (began, Instant::now())
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let (began, ended) = spans
        .into_iter()
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        .expect("at least one lane");
    ended - began
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
