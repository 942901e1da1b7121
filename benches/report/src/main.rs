//! Writes `benches/RESULTS.md` and the plots beside it from what the benchmarks left in `target/figures`.
//!
//! `benches/run` runs them and this: `report target/figures benches`. A table that is not there is said to be
//! missing, and so is a plot that was to be made of it.

mod machine;
mod numbers;
mod plots;
mod results;
mod table;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use machine::Machine;
use table::Tables;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [figures, benches] = &arguments[..] else {
        eprintln!("usage: report FOLDER-OF-FIGURES FOLDER-OF-BENCHES");
        return ExitCode::FAILURE;
    };
    match write(figures, benches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(figures: &Path, benches: &Path) -> Result<(), Box<dyn Error>> {
    let tables = Tables::read(figures)?;
    let folder = benches.join("plots");
    fs::create_dir_all(&folder)?;
    for plot in plots::all(&tables) {
        let path = folder.join(plot.file);
        match plot.drawn {
            Ok(svg) => put(&path, svg)?,
            Err(reason) => println!("not drawn: {}: {reason}", path.display()),
        }
    }
    let machine = Machine::here(benches, tables.get("peers").is_some());
    put(
        &benches.join("RESULTS.md"),
        results::markdown(&tables, &machine, &folder),
    )
}

fn put(path: &Path, text: String) -> Result<(), Box<dyn Error>> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}
