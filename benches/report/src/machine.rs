//! On what it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

/// What each figure depends on, by name. No date: the commit has one.
#[derive(Debug)]
pub struct Machine(pub Vec<(&'static str, String)>);

/// Whose versions every table depends on.
const COMPARED: [&str; 8] = [
    "tower-http",
    "tower",
    "http",
    "http-body-util",
    "hyper",
    "hyper-util",
    "arc-swap",
    "tokio",
];

impl Machine {
    /// This one; `with_peers`: they were measured too.
    pub fn here(benches: &Path, with_peers: bool) -> Self {
        let cores = available_parallelism().map_or("unknown".into(), |cores| cores.to_string());
        let mut facts = vec![
            ("commit", commit(benches)),
            ("compiler", said(benches, &["rustc", "--version"])),
            ("processor", processor(&read(Path::new("/proc/cpuinfo")))),
            ("cores", cores),
            ("system", system()),
            ("crates", versions(&read(&benches.join("../Cargo.lock")), &COMPARED)),
        ];
        if with_peers {
            facts.push(("peers", pinned(&read(&benches.join("peers/Cargo.toml")))));
        }
        Self(facts)
    }
}

/// The one that is checked out, and whether it is what was built.
fn commit(benches: &Path) -> String {
    let commit = said(benches, &["git", "rev-parse", "--short=12", "HEAD"]);
    let changed = said(
        benches,
        &[
            "git",
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            "..",
            ":!RESULTS.md",
            ":!plots",
        ],
    );
    match changed.as_str() {
        "" => commit,
        _ => commit + ", with changes",
    }
}

fn system() -> String {
    let release = read(Path::new("/etc/os-release"));
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = read(Path::new("/proc/sys/kernel/osrelease"));
    format!(
        "{}, {} {}",
        name.unwrap_or(std::env::consts::OS).trim_matches('"'),
        std::env::consts::ARCH,
        kernel.trim()
    )
}

fn processor(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    model
        .map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']))
        .into()
}

/// `name version` of each of these crates, of all versions that the lock file has.
fn versions(lock: &str, names: &[&str]) -> String {
    let mut found = Vec::new();
    for package in lock.split("[[package]]") {
        let field = |name: &str| {
            let value = package
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            value.map(|value| value.trim_matches('"'))
        };
        if let (Some(name), Some(version)) = (field("name"), field("version"))
            && names.contains(&name)
        {
            found.push(format!("{name} {version}"));
        }
    }
    found.join(", ")
}

/// `name version` of each dependency that a manifest pins: those are what is compared.
fn pinned(manifest: &str) -> String {
    let pin = |line: &str| {
        let (name, rest) = line.split_once(" = ")?;
        let (version, _) = rest.split_once("\"=")?.1.split_once('"')?;
        Some(format!("{name} {version}"))
    };
    manifest.lines().filter_map(pin).collect::<Vec<_>>().join(", ")
}

fn said(folder: &Path, command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().into(),
        _ => "unknown".into(),
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"http\"\nversion = \"1.5.0\"\n\n[[package]]\nname = \"syn\"\n\
                    version = \"2.0.0\"\n\n[[package]]\nname = \"tower\"\nversion = \"0.5.3\"\n";
        assert_eq!(versions(lock, &["tower", "http"]), "http 1.5.0, tower 0.5.3");
        assert_eq!(versions("", &["tower"]), "");
    }

    #[test]
    fn peers_are_what_the_manifest_pins() {
        let manifest = "[package]\nname = \"peers\"\n[dependencies]\nyup-oauth2 = { version = \"=12.1.2\", features = [] }\n\
                        reqsign-core = \"=3.3.2\"\ntower-token = { path = \"../..\" }\nbytes = \"1.10\"\n";
        assert_eq!(pinned(manifest), "yup-oauth2 12.1.2, reqsign-core 3.3.2");
    }

    #[test]
    fn the_processor_is_named_once() {
        assert_eq!(
            processor("vendor_id\t: X\nmodel name\t: A 9: B\nmodel name\t: A 9: B\n"),
            "A 9: B"
        );
        assert_eq!(processor(""), "unknown");
    }
}
