//! The page: `RESULTS.md`.

use std::fmt::Write;
use std::path::Path;

use crate::machine::Machine;
use crate::numbers::{readable, whole};
use crate::plots;
use crate::table::{Table, Tables};

/// Every table that `benches/run` has made, in the order of the page, with its heading and who makes it.
const PAGE: [(&str, &str, &str); 11] = [
    ("call", "One call", "call"),
    ("call_built", "One call, with a request built for it", "call"),
    ("instructions", "Instructions of one call", "instructions"),
    ("contention", "Two threads", "contention"),
    (
        "peers",
        "Beside the peers",
        "the peers, which --without-peers leaves out",
    ),
    ("replay", "A body that is kept", "replay"),
    ("waiters", "Many waiters", "waiters"),
    (
        "herd",
        "A hundred cold callers",
        "the peers, which --without-peers leaves out",
    ),
    ("failing_herd", "A hundred cold callers whose fetch fails", "waiters"),
    ("wire", "Under load", "wire"),
    ("cold", "The first request", "wire"),
];

/// The page, with the plots that lie in `folder`.
pub fn markdown(tables: &Tables, machine: &Machine, folder: &Path) -> String {
    let mut page = String::from(INTRODUCTION);
    measured_on(&mut page, machine);
    for (name, heading, maker) in PAGE {
        match tables.get(name) {
            Some(table) => {
                section(&mut page, heading, table);
                let plot = plots::FILES
                    .iter()
                    .find(|(of, file)| *of == name && folder.join(file).is_file());
                if let Some((_, file)) = plot {
                    _ = writeln!(page, "\n![{heading}](plots/{file})");
                }
            }
            None => {
                _ = writeln!(
                    page,
                    "\n## {heading}\n\nNot measured in this run: `{name}` (of {maker})."
                )
            }
        }
    }
    for name in tables
        .names()
        .filter(|name| PAGE.iter().all(|(known, ..)| known != name))
    {
        section(&mut page, name, tables.get(name).expect("it is one of their names"));
    }
    page
}

const INTRODUCTION: &str = "\
# What it costs

Written by `benches/run`; edit what measures, not this page. Times differ from machine to machine and from run to run:
compare what stands in one table, and ratios before times. Instructions and allocations are counted, and do not
differ.
";

fn measured_on(page: &mut String, Machine(facts): &Machine) {
    _ = writeln!(page, "\n| measured on | |\n|---|---|");
    for (what, value) in facts {
        _ = writeln!(page, "| {what} | {value} |");
    }
}

fn section(page: &mut String, heading: &str, table: &Table) {
    _ = writeln!(page, "\n## {heading}\n\n{}\n", table.about);
    let written: Vec<fn(f64) -> String> = (0..table.columns.len()).map(|place| how(table, place)).collect();
    _ = writeln!(page, "| case | {} |", table.columns.join(" | "));
    _ = writeln!(page, "|---|{}", "--:|".repeat(table.columns.len()));
    for row in &table.rows {
        let cells = (row.cells.iter().zip(&written)).map(|(cell, written)| cell.map_or(String::new(), written));
        _ = writeln!(page, "| {} | {} |", row.case, cells.collect::<Vec<_>>().join(" | "));
    }
}

/// How the numbers of a column are written: counts are whole, and a ratio of exactly 1 is 1.00.
fn how(table: &Table, place: usize) -> fn(f64) -> String {
    let mut cells = table.rows.iter().filter_map(|row| row.cells[place]);
    if cells.all(|cell| cell.fract() == 0.0) {
        whole
    } else {
        readable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Row;

    fn page(tables: &Tables) -> String {
        let machine = Machine(vec![("cores", "2".into())]);
        markdown(tables, &machine, Path::new("no/such/folder"))
    }

    fn table(name: &str) -> Table {
        Table {
            name: name.into(),
            about: "What is seen.".into(),
            columns: vec!["ns".into(), "ratio".into()],
            rows: vec![Row {
                case: "ours".into(),
                cells: vec![Some(1234.5), None],
            }],
        }
    }

    #[test]
    fn a_table_is_written_with_what_is_seen_in_it() {
        let page = page(&Tables::of([table("call")]));
        assert!(
            page.contains(
                "## One call\n\nWhat is seen.\n\n| case | ns | ratio |\n|---|--:|--:|\n| ours | 1,235 |  |\n"
            )
        );
        assert!(page.contains("| cores | 2 |"));
    }

    #[test]
    fn a_column_of_counts_has_no_fractions_and_one_of_ratios_has_two_everywhere() {
        let mut table = table("call");
        table.rows.push(table.rows[0].clone());
        table.rows[0].cells = vec![Some(2.0), Some(1.0)];
        table.rows[1].cells = vec![Some(3.0), Some(1.5)];
        let page = page(&Tables::of([table]));
        assert!(page.contains("| ours | 2 | 1.00 |\n| ours | 3 | 1.50 |\n"), "{page}");
    }

    #[test]
    fn a_table_that_is_missing_is_said_to_be() {
        let page = page(&Tables::of([table("call")]));
        assert!(page.contains("\n## Under load\n\nNot measured in this run: `wire` (of wire).\n"));
        assert!(!page.contains("Not measured in this run: `call`"));
    }

    #[test]
    fn whatever_was_measured_last_has_a_heading() {
        let page = include_str!("../../RESULTS.md");
        let mut headings = page.lines().filter_map(|line| line.strip_prefix("## "));
        assert!(headings.clone().count() >= PAGE.len());
        let unknown = headings.find(|heading| PAGE.iter().all(|(_, known, _)| known != heading));
        assert_eq!(unknown, None);
    }

    #[test]
    fn a_table_that_nobody_knows_comes_last() {
        let page = page(&Tables::of([table("novel"), table("cold")]));
        assert!(page.find("## novel").unwrap() > page.find("## The first request").unwrap());
    }
}
