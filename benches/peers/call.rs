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
    match &arguments[..] {
        [option, case, calls] if option == valgrind::CHILD => valgrind::be_counted(case, calls.parse().unwrap()),
        options => report(options.iter().any(|option| option == "--instructions")),
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
        about: "One call with a fresh token of 900 bytes; net is what it adds to the same call without a token. \
                Instructions and allocations are counted by valgrind over 20,000 calls, times are medians of \
                interleaved rounds.",
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
    "net allocations",
    "scaling 1 to 2 threads",
];

/// In the order of [`CASES`].
struct Measured {
    timings: Vec<Timing>,
    /// `None` without valgrind.
    counted: Vec<Option<Counted>>,
}

type Figure = fn(&Measured, &Case) -> Option<f64>;

impl Measured {
    fn row(&self, case: &Case) -> Vec<Option<f64>> {
        let timing = &self.timings[case.place()];
        vec![
            self.instructions(case),
            self.net(case, Self::instructions),
            Some(timing.nanos),
            self.net(case, Self::nanos),
            Some(timing.beside_static),
            self.times(case, cases::NEVER, Self::instructions),
            self.times(case, cases::AUTO, Self::instructions),
            self.times(case, cases::NEVER, Self::nanos),
            self.times(case, cases::AUTO, Self::nanos),
            self.net(case, Self::allocations),
            timing.scaling,
        ]
    }

    fn instructions(&self, case: &Case) -> Option<f64> {
        Some(self.counted[case.place()].as_ref()?.instructions)
    }

    fn allocations(&self, case: &Case) -> Option<f64> {
        Some(self.counted[case.place()].as_ref()?.allocations)
    }

    fn nanos(&self, case: &Case) -> Option<f64> {
        Some(self.timings[case.place()].nanos)
    }

    fn net(&self, case: &Case, figure: Figure) -> Option<f64> {
        Some(figure(self, case)? - figure(self, cases::named(case.bare))?)
    }

    /// How many times ours.
    fn times(&self, case: &Case, ours: &str, figure: Figure) -> Option<f64> {
        Some(self.net(case, figure)? / self.net(cases::named(ours), figure)?)
    }
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
