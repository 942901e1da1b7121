//! What one call costs, side by side in one run: `cargo bench -p tower-token --bench call`.
//!
//! Measured is a whole call of one service by one thread: polled ready, called, polled to its end, its
//! future dropped. See [`cases`] for what is called and with which requests.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod table;

use cases::{Contender, Requests, issued};
use table::figures::Figures;
use table::{Case, Row};

/// The bare inner service first, and then what ours is compared with.
const TRAVELLING: [Contender; 9] = [
    Contender::Bare,
    Contender::Static,
    Contender::Uncounted,
    Contender::Floor,
    Contender::Guarded,
    Contender::Never,
    Contender::Detect,
    Contender::Auto,
    Contender::CloneBody,
];
const BUILT: [Contender; 7] = [
    Contender::Bare,
    Contender::Static,
    Contender::Floor,
    Contender::Guarded,
    Contender::Never,
    Contender::Detect,
    Contender::Auto,
];

const BESIDE: &str = "AddAuthorization";

fn cases(contenders: &[Contender], requests: Requests) -> Vec<(&'static str, Case)> {
    let tokens = issued();
    contenders
        .iter()
        .map(|contender| (contender.name(), contender.calls(requests, &tokens) as Case))
        .collect()
}

fn figures(name: &'static str, about: &'static str, rows: Vec<(String, Row)>) -> Figures {
    Figures {
        name,
        about,
        columns: vec!["ns", "ns net of the bare call", "time beside AddAuthorization"],
        rows: rows
            .into_iter()
            .map(|(case, row)| (case, vec![Some(row.ns), Some(row.net), Some(row.beside)]))
            .collect(),
    }
}

fn travelling() {
    let rows = table::run("call", 10_000, BESIDE, || cases(&TRAVELLING, Requests::Travelling));
    let Some(rows) = rows else { return };
    figures(
        "call",
        "One whole call by one thread over a service that answers at once. One request with four headers \
         serves for all calls, and the driver allocates nothing. Ratios are medians of those within a round \
         of interleaved cases, and the medians of three runs of them.",
        rows.into_iter().map(|row| (row.case.clone(), row)).collect(),
    )
    .write();
}

fn built() {
    let mut all = Vec::new();
    for requests in [Requests::Built4, Requests::Built12] {
        let group = format!("call{}", requests.suffix());
        let Some(rows) = table::run(&group, 3_000, BESIDE, || cases(&BUILT, requests)) else {
            return;
        };
        all.extend(rows.into_iter().map(|row| (row.case.clone() + requests.suffix(), row)));
    }
    figures(
        "call_built",
        "The same with a request that is built from strings for each call, as clients do, which is part of \
         what is timed. Ratios are to AddAuthorization with as many headers.",
        all,
    )
    .write();
}

fn main() {
    travelling();
    built();
}
