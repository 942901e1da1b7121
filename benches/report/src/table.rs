//! What a benchmark left: a table of numbers in a file of JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::Deserialize;

/// As `benches/table/figures.rs` writes it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Table {
    pub name: String,
    /// What is seen in it.
    pub about: String,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Row {
    /// What was measured; where there are groups of them, `group: case`.
    pub case: String,
    /// `None` was not measured.
    pub cells: Vec<Option<f64>>,
}

/// All that are there, by name.
#[derive(Debug, Default)]
pub struct Tables(BTreeMap<String, Table>);

impl Tables {
    /// Reads all of a folder. One that cannot be read is an error, because a report without it would look whole.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let failed = |path: &Path, error: &dyn std::error::Error| format!("{}: {error}", path.display());
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("{}: not there; run benches/run", folder.display()));
            }
            Err(error) => return Err(failed(folder, &error)),
        };
        let mut tables = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(folder, &error))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
                let table = parsed(&text).map_err(|error| format!("{}: {error}", path.display()))?;
                tables.insert(table.name.clone(), table);
            }
        }
        Ok(Self(tables))
    }

    pub fn get(&self, name: &str) -> Option<&Table> {
        self.0.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub fn of(tables: impl IntoIterator<Item = Table>) -> Self {
        Self(tables.into_iter().map(|table| (table.name.clone(), table)).collect())
    }
}

/// A table whose rows have a cell for each column.
fn parsed(text: &str) -> Result<Table, String> {
    let table: Table = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match table.rows.iter().find(|row| row.cells.len() != table.columns.len()) {
        Some(row) => Err(format!(
            "the row `{}` has {} cells for {} columns",
            row.case,
            row.cells.len(),
            table.columns.len()
        )),
        None => Ok(table),
    }
}

impl Table {
    /// Each case with its cell of a column, where there is one; `None` without such a column.
    pub fn column(&self, name: &str) -> Option<Vec<(&str, f64)>> {
        let place = self.columns.iter().position(|column| column == name)?;
        let cell = |row: &'_ Row| row.cells[place];
        Some(
            self.rows
                .iter()
                .filter_map(|row| Some((row.case.as_str(), cell(row)?)))
                .collect(),
        )
    }
}

/// The group of a case, and what it is called in it.
pub fn group(case: &str) -> (&str, &str) {
    case.split_once(": ").unwrap_or(("", case))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{
        "name": "call", "about": "One call.", "columns": ["ns", "net ns"],
        "rows": [{ "case": "bare", "cells": [100.5, null] }, { "case": "a: ours", "cells": [150, 49.5] }]
    }"#;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let table = parsed(CALL).unwrap();
        assert_eq!((table.name.as_str(), table.about.as_str()), ("call", "One call."));
        assert_eq!(table.column("ns").unwrap(), [("bare", 100.5), ("a: ours", 150.0)]);
    }

    #[test]
    fn a_cell_that_was_not_measured_is_in_no_column() {
        let table = parsed(CALL).unwrap();
        assert_eq!(table.column("net ns").unwrap(), [("a: ours", 49.5)]);
        assert_eq!(table.column("allocations"), None);
    }

    #[test]
    fn a_row_that_is_too_short_is_an_error_that_names_it() {
        let error = parsed(&CALL.replace("[150, 49.5]", "[150]")).unwrap_err();
        assert_eq!(error, "the row `a: ours` has 1 cells for 2 columns");
    }

    #[test]
    fn a_file_that_is_cut_off_is_an_error_and_no_missing_table() {
        assert!(parsed(&CALL[..80]).is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_says_what_makes_it() {
        let error = Tables::read(Path::new("no/such/folder")).unwrap_err();
        assert!(error.ends_with("run benches/run"), "{error}");
    }

    #[test]
    fn a_case_has_a_group_or_none() {
        assert_eq!(group("1000: Tokens::get"), ("1000", "Tokens::get"));
        assert_eq!(group("bare"), ("", "bare"));
    }
}
