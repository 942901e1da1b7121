//! What one call costs, ours beside the peers in one run: see README.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "call/cases.rs"]
mod cases;
#[path = "../table/figures.rs"]
mod figures;
#[path = "call/timing.rs"]
mod timing;
#[path = "call/valgrind.rs"]
mod valgrind;

use cases::{CASES, Case};
use figures::Figures;
use timing::Timing;
use valgrind::Counted;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [valgrind::CHILD, case, calls] => valgrind::be_counted(case, calls.parse().unwrap()),
        ref options => report(options.contains(&"--instructions")),
    }
}

fn report(with_instructions: bool) {
    let timings = timing::measure();
    let counted = CASES
        .iter()
        .map(|case| with_instructions.then(|| valgrind::count(case)));
    let measured = Measured {
        timings,
        counted: counted.collect(),
    };
    let rows = CASES.iter().map(|case| (case.name.to_owned(), measured.row(case)));
    let figures = Figures {
        name: "peers",
        about: "One call with a fresh token of 900 bytes: what each crate adds to the bare call. Instructions and \
                allocations are counted by valgrind over 20,000 calls, times are medians of interleaved rounds.",
        columns: COLUMNS.to_vec(),
        rows: rows.collect(),
    };
    print(&figures);
    figures.write();
}

const COLUMNS: [&str; 11] = [
    "instructions",
    "net instructions",
    "ns",
    "net ns",
    "ns / AddAuthorization",
    "net instructions / ours, Never",
    "net instructions / ours, Auto",
    "net ns / ours, Never",
    "net ns / ours, Auto",
    "allocations",
    "scaling 1 to 2 threads",
];

struct Measured {
    timings: Vec<Timing>,
    counted: Vec<Option<Counted>>,
}

impl Measured {
    fn row(&self, case: &Case) -> Vec<Option<f64>> {
        let place = place(case.name);
        let over = |own: Option<f64>, ours: &str, net: &dyn Fn(usize) -> Option<f64>| {
            let ours = net(self::place(ours)).filter(|ours| *ours > 0.0);
            // What is not net of anything is no peer.
            own.filter(|_| case.bare != case.name)
                .zip(ours)
                .map(|(own, ours)| own / ours)
        };
        let instructions = |place: usize| self.net(place, |place| Some(self.counted[place].as_ref()?.instructions));
        let nanos = |place: usize| self.net(place, |place| Some(self.timings[place].nanos));
        let allocations = |place: usize| Some(self.counted[place].as_ref()?.allocations);
        vec![
            self.counted[place].as_ref().map(|counted| counted.instructions),
            instructions(place),
            Some(self.timings[place].nanos),
            nanos(place),
            Some(self.timings[place].beside_static),
            over(instructions(place), cases::NEVER, &instructions),
            over(instructions(place), cases::AUTO, &instructions),
            over(nanos(place), cases::NEVER, &nanos),
            over(nanos(place), cases::AUTO, &nanos),
            self.net(place, allocations),
            self.timings[place].scaling,
        ]
    }

    /// What is left of a figure without that of the bare call.
    fn net(&self, place: usize, figure: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        Some(
            figure(place)?
                - figure(self::place(CASES[place].bare))
                    .filter(|_| CASES[place].bare != CASES[place].name)
                    .unwrap_or(0.0),
        )
    }
}

fn place(name: &str) -> usize {
    CASES
        .iter()
        .position(|case| case.name == name)
        .expect("a case of this name")
}

fn print(figures: &Figures) {
    let widths: Vec<usize> = figures.columns.iter().map(|column| column.len().max(8) + 2).collect();
    print!("{:<42}", "");
    for (column, width) in figures.columns.iter().zip(&widths) {
        print!("{column:>width$}");
    }
    println!();
    for (case, cells) in &figures.rows {
        print!("{case:<42}");
        for (cell, width) in cells.iter().zip(&widths) {
            match cell {
                Some(cell) => print!("{cell:>width$.2}"),
                None => print!("{:>width$}", "-"),
            }
        }
        println!();
    }
}
