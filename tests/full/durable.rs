//! A token in a file, by the system calls that put it there: `strace` shows their order, kills at each of them, and lets
//! the disk fail at each that can.
//!
//! The program is this test binary, started once more: it saves one generation after the other, and says each when it is
//! durable. What it did to the disk it did on one thread.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tower_token::{FileStore, Saved, TokenStore};

use crate::kept::{KEPT, TERM, record, save_on};
use crate::left_out::left_out;

// ===== What is shown =====

#[test]
fn every_save_is_synced_then_renamed_then_its_folder_is_synced_then_told() {
    if is_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ended, trace) = traced(
        &folder,
        SAVES,
        &["trace=fsync,fdatasync,rename,renameat,renameat2,openat,write"],
    );
    assert!(ended.status.success());
    let calls = Call::all(&trace);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let the_folder = format!("<{}>", folder.path().display());
    let renames: Vec<&Call> = calls
        .iter()
        .filter(|call| call.name.starts_with("rename") && call.line.contains(&at("token.json\"")))
        .collect();
    let mut in_order = 0;
    for (number, rename) in (1_u64..).zip(&renames) {
        let temporary = rename.line.split('"').nth(1).unwrap();
        let first = |name: &str, of: &str| {
            calls
                .iter()
                .find(|call| call.name == name && call.line.contains(of))
                .unwrap()
        };
        let opened = first("openat", temporary);
        let written = calls
            .iter()
            .filter(|call| call.name == "write" && call.line.contains(temporary));
        let file_synced = first("fsync", temporary);
        let folder_synced = calls
            .iter()
            .find(|call| call.name == "fsync" && call.line.contains(&the_folder) && call.began > rename.began);
        let told = first("write", &format!("{KEPT}{number}\\n"));
        let order: Vec<&Call> = std::iter::once(opened)
            .chain(written)
            .chain([file_synced, *rename])
            .chain(folder_synced)
            .chain([told])
            .collect();
        assert!(order.len() >= 6, "a step of save {number} is missing: {order:#?}");
        for step in &order {
            assert!(step.succeeded, "{step:?}");
        }
        for pair in order.windows(2) {
            assert!(pair[0].ended < pair[1].began, "{number}: {pair:#?}");
        }
        in_order += 1;
    }
    println!("fsync(file), rename, fsync(folder), told: in this order in {in_order} of {SAVES} saves");
    assert_eq!(in_order, SAVES);
}

/// A token that somebody else has renamed to its place, and was then killed, is used from then on: it is synced first.
#[test]
fn what_another_process_put_there_is_synced_before_it_is_used() {
    if is_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(program(&folder, 1).output().unwrap().status.success());
    let (ended, trace) = traced(&folder, 1, &["trace=openat,fsync"]);
    assert!(ended.status.success());
    let calls = Call::all(&trace);
    let at = |name: &str, of: &str| {
        let of = format!("{}{of}", folder.path().display());
        calls
            .iter()
            .position(|call| call.name == name && call.succeeded && call.line.contains(&of))
    };
    let read = at("openat", "/token.json\"").expect("what is there is read");
    let synced = at("fsync", ">").expect("the folder is synced");
    let saving = at("openat", "/.token.json.tmp-").expect("the next one is saved");
    assert!(read < synced && synced < saving, "{calls:#?}");
}

/// In full only: a call is found again by its number within its thread, and on a busy machine another thread may save.
#[test]
fn a_program_that_is_killed_at_any_system_call_of_a_save_leaves_the_old_or_the_new() {
    if is_missing() || !in_full() {
        return;
    }
    let mut killed = BTreeMap::<String, u32>::new();
    let (mut old, mut new) = (0, 0);
    let steps = steps_of_a_save();
    for Step { name, nth, what } in &steps {
        let folder = tempfile::tempdir().unwrap();
        let trace = format!("trace={name}");
        let inject = format!("inject={name}:signal=SIGKILL:when={nth}");
        let (ended, trace) = traced(&folder, LAST, &[&trace, &inject]);
        assert!(!ended.status.success(), "{name} {nth} was not reached");
        let last = Call::all(&trace)
            .into_iter()
            .rfind(|call| call.line.contains(&*shown(&folder)));
        let at = last.map_or_else(String::new, |call| call.what(&folder));
        assert_eq!(&at, what, "killed elsewhere");
        *killed.entry(at).or_default() += 1;
        match left(&folder) - told(&ended) {
            0 => old += 1,
            1 => new += 1,
            more => panic!("{name} {nth}: {more} generations more than were told"),
        }
    }
    println!(
        "killed at {} system calls: {old} times the old one is left, {new} times the new; {killed:#?}",
        steps.len()
    );
    for needed in [
        "openat token.json",
        "openat .token.json.tmp-",
        "write .token.json.tmp-",
        "fsync .token.json.tmp-",
        "rename .token.json.tmp-",
        "openat .",
        "fsync .",
    ] {
        assert!(killed.contains_key(needed), "never killed at {needed}");
    }
    assert!(old > 0 && new > 0);
}

/// In full only, for the same reason.
#[test]
fn a_disk_that_fails_at_any_step_is_named_and_harms_nothing() {
    if is_missing() || !in_full() {
        return;
    }
    let faults = ["EIO", "ENOSPC", "EROFS"];
    let mut failed = 0;
    for Step { name, nth, what } in steps_of_a_save() {
        if !matches!(&*name, "openat" | "write" | "fsync" | "rename" | "read") || what == "openat token.json.lock" {
            continue;
        }
        for fault in faults {
            let folder = tempfile::tempdir().unwrap();
            let trace = format!("trace={name}");
            let inject = format!("inject={name}:error={fault}:when={nth}");
            let (ended, _) = traced(&folder, LAST, &[&trace, &inject]);
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(!ended.status.success(), "{inject} was not reached");
            assert!(
                said.contains("StoreError { usable: true") && said.contains(&*shown(&folder)),
                "{inject}: {said}"
            );
            assert!(!said.contains("test-"), "{inject}: {said}");
            // Once it is renamed it is there, though it may not be durable.
            let renamed = u64::from(what.ends_with(" ."));
            assert_eq!(left(&folder), told(&ended) + renamed, "{inject} at {what}");
            let names = fs::read_dir(&folder).unwrap().count();
            assert_eq!(names, 2, "{inject}: a temporary file is left");
            failed += 1;
        }
    }
    println!("{failed} faults of the disk: each was named, none harmed the file");
    assert!(failed >= 7 * faults.len());
}

#[test]
fn nor_does_a_kill_at_a_random_instant_lose_what_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let kills = if in_full() { 300 } else { 30 };
    let (mut old, mut new) = (0, 0);
    for _ in 0..kills {
        let mut child = program(&folder, 1_000_000).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(KEPT)));
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = first
            .into_iter()
            .chain(lines)
            .map_while(Result::ok)
            .filter_map(|line| number(&line))
            .last();
        match left(&folder) - last.unwrap() {
            0 => old += 1,
            1 => new += 1,
            more => panic!("{more} generations more than were told"),
        }
    }
    println!("killed at {kills} random instants: {old} times what was told last is left, {new} times the next");
}

const SAVES: u64 = 200;

/// What is probed follows so many saves: the end of this one, and the next to its rename. By then the thread that saves
/// has made more calls of each kind than any other thread, whose calls `strace` counts by themselves.
const PROBED: usize = 15;

const LAST: u64 = PROBED as u64 + 2;

fn in_full() -> bool {
    std::env::var_os("TOWER_TOKEN_FULL").is_some()
}

fn is_missing() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    let missing = !there.is_ok_and(|status| status.success());
    if missing {
        left_out("strace is not installed (`apt-get install strace`)");
    }
    missing
}

// ===== What was done =====

/// The program under `strace`, and what that wrote down.
fn traced(folder: &TempDir, saves: u64, what: &[&str]) -> (Output, String) {
    let notes = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    // Cargo's: the loader would look into each of its folders for each library.
    strace.env_remove("LD_LIBRARY_PATH");
    strace.args(["-f", "-y", "-s", "200", "-o"]).arg(notes.path());
    strace.args(what.iter().flat_map(|what| ["-e", *what]));
    let program = program(folder, saves);
    strace.arg(program.get_program()).args(program.get_args());
    strace.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = strace.output().unwrap();
    (ended, fs::read_to_string(notes.path()).unwrap())
}

#[derive(Debug)]
struct Call {
    thread: String,
    name: String,
    /// Begun and ended in these lines of the notes.
    began: usize,
    ended: usize,
    succeeded: bool,
    line: String,
}

impl Call {
    fn all(trace: &str) -> Vec<Self> {
        let mut calls: Vec<Self> = Vec::new();
        for (number, line) in trace.lines().enumerate() {
            let Some((thread, rest)) = line.split_once(' ') else {
                continue;
            };
            let rest = rest.trim_start();
            if rest.starts_with("<... ") {
                let begun = calls.iter_mut().rfind(|call| call.thread == thread);
                if let Some(call) = begun {
                    (call.ended, call.succeeded) = (number, !rest.contains(" = -1 "));
                    call.line += rest;
                }
            } else if let Some((name, _)) = rest.split_once('(') {
                let unfinished = rest.ends_with("<unfinished ...>");
                calls.push(Self {
                    thread: thread.into(),
                    name: name.into(),
                    began: number,
                    ended: if unfinished { usize::MAX } else { number },
                    succeeded: !unfinished && !rest.contains(" = -1 "),
                    line: rest.into(),
                });
            }
        }
        calls
    }

    /// The call and the file, without what is drawn; the folder is `.`.
    fn what(&self, folder: &TempDir) -> String {
        let at = shown(folder);
        let file = self.line.split_once(&*at).map_or("", |(_, rest)| rest);
        let file = file
            .trim_start_matches('/')
            .split(['"', '>'])
            .next()
            .unwrap_or_default();
        let file = file.split_inclusive("tmp-").next().filter(|file| !file.is_empty());
        format!("{} {}", self.name, file.unwrap_or("."))
    }
}

struct Step {
    name: String,
    /// Of the calls of this name by this thread.
    nth: usize,
    what: String,
}

/// What the thread that saves does to the folder, from one save to the next.
fn steps_of_a_save() -> Vec<Step> {
    let folder = tempfile::tempdir().unwrap();
    let (ended, trace) = traced(&folder, LAST, &["trace=all"]);
    assert!(ended.status.success());
    let calls = Call::all(&trace);
    let saver = calls.iter().find(|call| call.name.starts_with("rename")).unwrap();
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut steps = Vec::new();
    let mut renames = 0;
    for call in calls.iter().filter(|call| call.thread == saver.thread) {
        let nth = counts.entry(&call.name).or_default();
        *nth += 1;
        if renames == PROBED && call.line.contains(&*shown(&folder)) {
            steps.push(Step {
                name: call.name.clone(),
                nth: *nth,
                what: call.what(&folder),
            });
        }
        renames += usize::from(call.name.starts_with("rename"));
    }
    steps
}

fn shown(folder: &TempDir) -> String {
    folder.path().display().to_string()
}

// ===== What is left =====

fn told(ended: &Output) -> u64 {
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    said.lines().filter_map(number).next_back().unwrap_or(0)
}

fn number(line: &str) -> Option<u64> {
    line.split_once(KEPT)?.1.parse().ok()
}

/// The generation that is kept, by a store that can be used on at once.
fn left(folder: &TempDir) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = FileStore::new(folder.path().join("token.json"));
        let lease = store.lease(TERM).await.unwrap().expect("the lease is free");
        let kept = store.load().await.unwrap().expect("something is kept");
        let generation = kept.generation();
        assert_eq!(kept.token().unwrap().secret(), format!("test-access-{generation}"));
        let again = store.save(&record(generation), generation, &lease).await;
        assert_eq!(again.unwrap(), Saved::Kept);
        generation
    })
}

// ===== The program itself =====

fn program(folder: &TempDir, saves: u64) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", "durable::the_program", "--nocapture"])
        .env("PROGRAM_SAVES", saves.to_string())
        .env("PROGRAM_PATH", folder.path().join("token.json"));
    program
}

/// No test: what the tests above start.
#[test]
fn the_program() {
    let Ok(saves) = std::env::var("PROGRAM_SAVES") else {
        return;
    };
    let path = PathBuf::from(std::env::var_os("PROGRAM_PATH").unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(save_on(Path::new(&path), saves.parse().unwrap()));
}
