//! The plots: horizontal bars, in groups that have a scale each.
//!
//! On a white ground, so that they can be read on a dark page too, and with no font of their own.

mod bars;

use crate::numbers::readable;
use crate::table::{Table, Tables, group};
use bars::{Bar, Chart, Group, Shade};

/// Of which table each is made, for the page.
pub const FILES: [(&str, &str); 3] = [
    ("call", "call.svg"),
    ("contention", "scaling.svg"),
    ("waiters", "waiters.svg"),
];

pub struct Plot {
    pub file: &'static str,
    /// The SVG, or why there is none.
    pub drawn: Result<String, String>,
}

pub fn all(tables: &Tables) -> Vec<Plot> {
    let charts = [call, scaling, waiters];
    FILES
        .iter()
        .zip(charts)
        .map(|(&(name, file), chart)| {
            let table = tables.get(name).ok_or_else(|| format!("there is no table `{name}`"));
            let drawn = table.and_then(|table| bars::draw(&chart(table, tables)?));
            Plot { file, drawn }
        })
        .collect()
}

/// Whole calls, and below them what the peers add to one.
fn call(table: &Table, tables: &Tables) -> Result<Chart, String> {
    let bar = |(case, ns): (&str, f64)| Bar::one(case, shade(case), ns, format!("{} ns", readable(ns)));
    let mut groups = vec![Group {
        title: "one whole call by one thread, over a service that answers at once".into(),
        bars: column(table, "ns")?.into_iter().map(bar).collect(),
    }];
    if let Some(peers) = tables.get("peers") {
        let mut net = column(peers, "net ns")?;
        net.retain(|(_, ns)| *ns > 0.0);
        net.sort_by(|one, other| one.1.total_cmp(&other.1));
        groups.push(Group {
            title: "what is added to the bare call".into(),
            bars: net.into_iter().map(bar).collect(),
        });
    }
    Ok(Chart {
        title: "Nanoseconds of a call with a fresh token",
        groups,
    })
}

/// What one thread gets done, and two.
fn scaling(table: &Table, _: &Tables) -> Result<Chart, String> {
    let alone = column(table, "ns, 1 thread")?;
    let together = column(table, "ns, 2 threads")?;
    let scaling = column(table, "scaling")?;
    let mut groups: Vec<Group> = Vec::new();
    for (place, (case, alone)) in alone.into_iter().enumerate() {
        let (title, name) = group(case);
        let bar = Bar {
            label: name.into(),
            shade: shade(name),
            values: vec![
                (1000.0 / alone, "1 thread".into()),
                (
                    2.0 * 1000.0 / together[place].1,
                    format!("2 threads: {}×", readable(scaling[place].1)),
                ),
            ],
        };
        in_group(&mut groups, title, bar);
    }
    Ok(Chart {
        title: "What one thread and two threads get done that share a layer, in the same time",
        groups,
    })
}

fn waiters(table: &Table, _: &Tables) -> Result<Chart, String> {
    let mut groups: Vec<Group> = Vec::new();
    for (case, ns) in column(table, "released, ns per waiter")? {
        let (title, name) = group(case);
        let bar = Bar::one(name, shade(name), ns, format!("{} ns", readable(ns)));
        in_group(&mut groups, &format!("{title} waiters"), bar);
    }
    Ok(Chart {
        title: "From the end of a fetch until the last waiter has the token, for each waiter",
        groups,
    })
}

fn column<'a>(table: &'a Table, name: &str) -> Result<Vec<(&'a str, f64)>, String> {
    let column = table.column(name);
    column.ok_or_else(|| format!("the table `{}` has no column `{name}`", table.name))
}

fn in_group(groups: &mut Vec<Group>, title: &str, bar: Bar) {
    match groups.last_mut() {
        Some(last) if last.title == title => last.bars.push(bar),
        _ => groups.push(Group {
            title: title.into(),
            bars: vec![bar],
        }),
    }
}

fn shade(case: &str) -> Shade {
    let is = |names: &[&str]| names.iter().any(|name| case.contains(name));
    if is(&["Token", "tower-token", "ours"]) && !is(&["TokenCache", "TokenSource"]) {
        Shade::Ours
    } else if is(&["bare", "static", "AddAuthorization", "floor", "not counted"]) {
        Shade::Reference
    } else {
        Shade::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Row;

    fn table(name: &str, columns: &[&str], rows: &[(&str, &[f64])]) -> Table {
        let row = |(case, cells): &(&str, &[f64])| Row {
            case: (*case).into(),
            cells: cells.iter().copied().map(Some).collect(),
        };
        Table {
            name: name.into(),
            about: String::new(),
            columns: columns.iter().map(|column| (*column).into()).collect(),
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn a_plot_without_its_table_says_which_is_missing() {
        let drawn: Vec<_> = all(&Tables::default()).into_iter().map(|plot| plot.drawn).collect();
        assert_eq!(drawn[2], Err("there is no table `waiters`".into()));
    }

    #[test]
    fn a_plot_without_its_column_says_which_is_missing() {
        let tables = Tables::of([table("call", &["seconds"], &[("bare", &[1.0])])]);
        assert_eq!(all(&tables)[0].drawn, Err("the table `call` has no column `ns`".into()));
    }

    #[test]
    fn every_case_is_named_with_its_value() {
        let call = table(
            "call",
            &["ns"],
            &[("bare inner service", &[103.2]), ("TokenLayer, Never", &[161.0])],
        );
        let peers = table(
            "peers",
            &["net ns"],
            &[("bare", &[0.0]), ("kube <AuthLayer>", &[315.0])],
        );
        let svg = all(&Tables::of([call, peers]))[0].drawn.clone().unwrap();
        for text in [
            "bare inner service",
            "103 ns",
            "TokenLayer, Never",
            "161 ns",
            "kube &lt;AuthLayer&gt;",
            "315 ns",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }

    #[test]
    fn two_threads_are_drawn_as_what_they_get_done_in_the_same_time() {
        let rows: [(&str, &[f64]); 2] = [("a: ours", &[100.0, 100.0, 2.0]), ("b: ours", &[100.0, 200.0, 1.0])];
        let columns = ["ns, 1 thread", "ns, 2 threads", "scaling"];
        let chart = scaling(&table("contention", &columns, &rows), &Tables::default()).unwrap();
        let drawn: Vec<_> = chart.groups.iter().map(|group| &group.bars[0].values[..]).collect();
        let one = (10.0, "1 thread".to_owned());
        assert_eq!(drawn[0], [one.clone(), (20.0, "2 threads: 2.00×".into())]);
        assert_eq!(drawn[1], [one, (10.0, "2 threads: 1.00×".into())]);
    }
}
