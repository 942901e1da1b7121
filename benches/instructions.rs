//! How many instructions one call takes: `cargo bench -p tower-token --bench instructions`.
//!
//! The program runs itself under callgrind, twice for each case with two numbers of calls, and what they
//! differ by is what the calls took, whatever functions the compiler made of them. Unlike times, counts
//! are the same on a busy machine, so they are held to bounds: ratios to tower-http's
//! `AddAuthorization` in the same binary. valgrind has no vDSO, so that reading the clock is a system
//! call here, of about as many instructions on our side of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
#[path = "table/figures.rs"]
mod figures;

use std::process::{Command, ExitCode};

use cases::{Contender, Requests, issued};
use figures::Figures;

/// What a ratio may be above its bound before it fails: another compiler inlines otherwise.
const TOLERANCE: f64 = 1.03;

/// What is held to what: ratios to [`Contender::Static`] with the same requests.
struct Bound {
    contender: Contender,
    requests: Requests,
    /// Fails above it. Lower it with what is gained.
    bound: f64,
    /// Where it is to get.
    target: Option<f64>,
}

const fn bound(contender: Contender, requests: Requests, bound: f64, target: Option<f64>) -> Bound {
    Bound {
        contender,
        requests,
        bound,
        target,
    }
}

const BOUNDS: [Bound; 10] = [
    bound(Contender::Never, Requests::Travelling, 1.18, Some(1.12)),
    bound(Contender::Detect, Requests::Travelling, 1.18, Some(1.20)),
    bound(Contender::Auto, Requests::Travelling, 1.67, None),
    bound(Contender::CloneBody, Requests::Travelling, 1.70, None),
    bound(Contender::Never, Requests::Built4, 1.04, None),
    bound(Contender::Detect, Requests::Built4, 1.04, None),
    bound(Contender::Auto, Requests::Built4, 1.12, None),
    bound(Contender::Never, Requests::Built12, 1.01, None),
    bound(Contender::Detect, Requests::Built12, 1.01, None),
    bound(Contender::Auto, Requests::Built12, 1.09, None),
];

/// Shown beside them, and held to nothing.
const BESIDE: [(Contender, Requests); 9] = [
    (Contender::Bare, Requests::Travelling),
    (Contender::Static, Requests::Travelling),
    (Contender::Uncounted, Requests::Travelling),
    (Contender::Floor, Requests::Travelling),
    (Contender::Guarded, Requests::Travelling),
    (Contender::Bare, Requests::Built4),
    (Contender::Static, Requests::Built4),
    (Contender::Bare, Requests::Built12),
    (Contender::Static, Requests::Built12),
];

const FEW: u64 = 200;
const MORE: u64 = 1200;

/// How this program is told to do nothing but calls: `--calls PLACE NUMBER`.
const CALLS: &str = "--calls";

/// All cases: what ours is compared with, and then ours.
fn all() -> Vec<(Contender, Requests)> {
    let bounded = BOUNDS.iter().map(|bound| (bound.contender, bound.requests));
    BESIDE.into_iter().chain(bounded).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().position(|argument| argument == CALLS) {
        Some(at) => {
            let number = |place: usize| arguments[at + place].parse::<usize>().expect("a number");
            let (contender, requests) = all()[number(1)];
            contender.calls(requests, &issued())(number(2) as u64);
            ExitCode::SUCCESS
        }
        None if arguments.iter().any(|argument| argument == "--bench") => measured(),
        // `cargo test --benches`: callgrind takes too long for it.
        None => ExitCode::SUCCESS,
    }
}

fn measured() -> ExitCode {
    let counted = match counted() {
        Ok(counted) => counted,
        Err(error) => {
            eprintln!("instructions: {error}");
            return ExitCode::FAILURE;
        }
    };
    let rows: Vec<Row> = all()
        .into_iter()
        .map(|(contender, requests)| Row::new(contender, requests, &counted))
        .collect();
    println!(
        "{:<42}{:>14}{:>8}{:>8}{:>8}{:>8}",
        "instructions of one call", "", "net", "ratio", "bound", "target"
    );
    rows.iter().for_each(Row::print);
    written(&rows);
    let over: Vec<&Row> = rows.iter().filter(|row| row.is_over()).collect();
    for row in &over {
        let (case, ratio, bound) = (&row.case, row.ratio, row.bound.unwrap_or_default());
        eprintln!("instructions: {case} takes {ratio:.3} of AddAuthorization's, and its bound is {bound:.2} + 3 %");
    }
    if over.is_empty() {
        ExitCode::SUCCESS
    } else {
        eprintln!(
            "instructions: find what was added to the call, or say in benches/instructions.rs why it is worth it"
        );
        ExitCode::FAILURE
    }
}

// ===== Counting =====

/// Instructions of one call of each case, in the order of [`all`].
fn counted() -> Result<Vec<f64>, String> {
    (0..all().len())
        .map(|place| Ok((run(place, MORE)? - run(place, FEW)?) / (MORE - FEW) as f64))
        .collect()
}

/// Instructions of a whole run of this program with so many calls.
fn run(place: usize, calls: u64) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([CALLS, &place.to_string(), &calls.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start ({error}); install it: apt-get install valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match collected(&said) {
        Some(instructions) if output.status.success() => Ok(instructions),
        _ => Err(format!("callgrind counted nothing:\n{said}")),
    }
}

/// `==123== Collected : 456` of what callgrind says at its end.
fn collected(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

// ===== The table =====

struct Row {
    case: String,
    instructions: f64,
    net: f64,
    ratio: f64,
    bound: Option<f64>,
    target: Option<f64>,
}

impl Row {
    fn new(contender: Contender, requests: Requests, counted: &[f64]) -> Self {
        let of = |contender| {
            let place = all().iter().position(|case| *case == (contender, requests));
            counted[place.expect("every kind of request has a bare and a static case")]
        };
        let held = |bound: &&Bound| (bound.contender, bound.requests) == (contender, requests);
        let bound = BOUNDS.iter().find(held);
        let instructions = of(contender);
        Self {
            case: contender.name().to_owned() + requests.suffix(),
            instructions,
            net: instructions - of(Contender::Bare),
            ratio: instructions / of(Contender::Static),
            bound: bound.map(|bound| bound.bound),
            target: bound.and_then(|bound| bound.target),
        }
    }

    fn is_over(&self) -> bool {
        self.bound.is_some_and(|bound| self.ratio > bound * TOLERANCE)
    }

    fn print(&self) {
        let Self {
            case,
            instructions,
            net,
            ratio,
            ..
        } = self;
        let limit = |limit: Option<f64>| limit.map_or(String::new(), |limit| format!("{limit:.2}"));
        let (bound, target) = (limit(self.bound), limit(self.target));
        println!("{case:<42}{instructions:>14.1}{net:>8.0}{ratio:>8.3}{bound:>8}{target:>8}");
    }
}

fn written(rows: &[Row]) {
    Figures {
        name: "instructions",
        about: "Instructions of one call, counted by callgrind. The ratio is to AddAuthorization with the same \
                requests in the same binary; it may be 3 % above the bound.",
        columns: vec![
            "instructions",
            "net of the bare call",
            "beside AddAuthorization",
            "bound",
            "target",
        ],
        rows: rows
            .iter()
            .map(|row| {
                let measured = [row.instructions, row.net, row.ratio].map(Some);
                (row.case.clone(), [&measured[..], &[row.bound, row.target]].concat())
            })
            .collect(),
    }
    .write();
}
