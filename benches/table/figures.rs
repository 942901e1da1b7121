//! What a benchmark found, for the report: a table in `figures/NAME.json` of the build's target directory.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A table of numbers; a cell that was not measured is `None`.
pub(crate) struct Figures {
    /// The file's name, and the table's in the report.
    pub(crate) name: &'static str,
    /// What is seen in it, in a sentence or two, with how it was measured.
    pub(crate) about: &'static str,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Figures {
    /// Writes the table, and says where.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub(crate) fn write(&self) {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(case, cells)| json!({ "case": case, "cells": cells }))
            .collect();
        let table = json!({ "name": self.name, "about": self.about, "columns": self.columns, "rows": rows });
        let path = folder().join(format!("{}.json", self.name));
        fs::write(&path, format!("{table:#}\n")).expect("the target directory is writable");
        println!("written: {}", path.display());
    }
}

/// Beside the program that runs, whatever the target directory is: `target/release/deps/call-0123` writes to
/// `target/figures`.
fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("the system knows what it runs");
    let target = program.ancestors().nth(3).unwrap_or(Path::new("target"));
    let folder = target.join("figures");
    fs::create_dir_all(&folder).expect("the target directory is writable");
    folder
}
