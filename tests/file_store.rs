//! A token in a file, among processes: who may renew, what is read while another writes, and what a process leaves that is
//! killed. What one process can show is beside the code; what takes `strace` is in `tests/full`.

#![cfg(all(feature = "testkit", unix))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "support/kept.rs"]
mod kept;
#[path = "support/left_out.rs"]
mod left_out;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tower_token::{Envelope, FileStore, Saved, TokenStore};

use kept::{KEPT, TERM, record, save_on, sheet};
use left_out::left_out;

// ===== Who may renew =====

#[tokio::test]
async fn two_processes_exclude_each_other() {
    let (_folder, path) = place();
    let here = FileStore::new(&path);
    let mut there = Program::start("hold", &path);
    assert_eq!(there.asked("lease").await, "held");
    assert!(here.lease(TERM).await.unwrap().is_none());
    assert_eq!(there.asked("release").await, "released");
    let lease = here.lease(TERM).await.unwrap().unwrap();
    assert_eq!(there.asked("lease").await, "busy");
    drop(lease);
    assert_eq!(there.asked("lease").await, "held");
}

#[tokio::test]
async fn a_holder_that_is_killed_is_free_at_once() {
    let (_folder, path) = place();
    let here = FileStore::new(&path);
    let mut last = 0;
    for _ in 0..5 {
        let mut there = Program::start("hold", &path);
        assert_eq!(there.asked("lease").await, "held");
        assert!(here.lease(TERM).await.unwrap().is_none());
        there.kill().await;
        // Whatever term it was taken for.
        let lease = here.lease(TERM).await.unwrap().unwrap();
        assert!(lease.fence() > last);
        last = lease.fence();
    }
}

// ===== What is read meanwhile, and what is left =====

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_while_a_writer_is_killed_at_random_finds_the_old_or_the_new() {
    let (folder, path) = place();
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read_on(path.clone(), done.clone()));
    let here = FileStore::new(&path);
    let mut reached = 0;
    for killed in 0..=KILLS {
        let left = GENERATIONS.saturating_sub(reached);
        let mut writer = Program::start("save", &path);
        writer.tell(&left.to_string()).await;
        let until = if killed < KILLS {
            fastrand::u64(0..=left / (KILLS + 1 - killed))
        } else {
            left
        };
        let mut told = reached;
        for _ in 0..until {
            told = writer.answer(KEPT).await.parse().unwrap();
        }
        writer.kill().await;
        // The next one has no need to wait for anything, and nothing that was durable is lost.
        let now = here.load().await.unwrap().map_or(0, |record| record.generation());
        assert!(now >= told, "{told} was kept, and {now} is left");
        reached = now;
    }
    done.store(true, Ordering::Relaxed);
    let reads = reader.await.unwrap();
    assert_eq!(reached, GENERATIONS);
    assert!(reads > 0);
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
    }
    println!("{GENERATIONS} generations, {KILLS} kills, {reads} reads");
}

const GENERATIONS: u64 = 1000;
const KILLS: u64 = 20;

/// Each is whole, of mode 0600, and not older than the one before.
async fn read_on(path: PathBuf, done: Arc<AtomicBool>) -> u64 {
    let store = FileStore::new(&path);
    let (mut reads, mut last) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let Some(found) = store.load().await.unwrap() else {
            continue;
        };
        assert!(found.generation() >= last);
        last = found.generation();
        let secret = found.token().unwrap().secret();
        assert_eq!(secret, format!("test-access-{last}"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        reads += 1;
    }
    reads
}

// ===== What is none of ours =====

#[tokio::test]
async fn what_is_torn_foreign_or_changed_is_refused_by_name_and_left_as_it_is() {
    let whole = sheet(1, 7);
    let flipped = whole.replace("test-access-7", "test-access-6");
    let torn = &whole[..whole.len() / 2];
    let earlier = sheet(0, 7);
    let later = r#"{"tower_token_record":2,"something":"new"}"#;
    for (content, expected) in [
        (flipped.as_str(), "changed or damaged"),
        (torn, "is torn: it ends after"),
        ("", "is empty: a write was torn"),
        (&earlier, "is of schema 0, and this program knows 1"),
        (later, "is of schema 2, and this program knows 1"),
        (
            r#"{"access_token":"test-access"}"#,
            "is JSON, but no token of this library",
        ),
        ("test-access", "is no JSON"),
        ("\0\0\0\0", "is no JSON"),
    ] {
        refused(Envelope::plain(), content, expected).await;
    }
}

#[cfg(feature = "encryption")]
#[tokio::test]
async fn so_is_what_is_encrypted_otherwise_than_agreed() {
    use tower_token::EncryptionKey;

    let sealed = |key| Envelope::sealed(EncryptionKey::new([key; 32]));
    let content = String::from_utf8(sealed(1).write(&record(7)).unwrap()).unwrap();
    refused(sealed(2), &content, "is encrypted with another key").await;
    refused(Envelope::plain(), &content, "is encrypted, and no key was given").await;
    refused(sealed(1), &sheet(1, 7), "is not encrypted").await;
    let at = content.rfind('"').unwrap() - 9;
    let other = if content.as_bytes()[at] == b'A' { "B" } else { "A" };
    let flipped = format!("{}{other}{}", &content[..at], &content[at + 1..]);
    refused(sealed(1), &flipped, "was damaged or tampered with").await;
    // And what is as agreed is read.
    let (_folder, path) = place();
    fs::write(&path, &content).unwrap();
    let store = FileStore::new(&path).envelope(sealed(1));
    assert_eq!(store.load().await.unwrap().unwrap().generation(), 7);
}

async fn refused(envelope: Envelope, content: &str, expected: &str) {
    let (_folder, path) = place();
    let store = FileStore::new(&path).envelope(envelope);
    let lease = store.lease(TERM).await.unwrap().unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for error in [
        store.load().await.unwrap_err(),
        store.save(&record(1), 0, &lease).await.unwrap_err(),
        store.save(&record(8), 7, &lease).await.unwrap_err(),
    ] {
        let told = error.to_string();
        assert!(error.is_unusable() && told.contains(expected), "{told}");
        assert!(told.starts_with(path.to_str().unwrap()), "{told}");
        assert!(!format!("{error:?}").contains("test-"), "{error:?}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
}

// ===== A disk that is full =====

/// A real one of 64 KiB, which the program mounts for itself.
#[tokio::test]
async fn a_full_disk_harms_nothing_and_is_named() {
    let (folder, path) = place();
    let mounted = |then: &str| {
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size=64k,mode=700 tmpfs \"$0\" && {then}");
        command.args(["--map-root-user", "--mount", "sh", "-c", &mount]);
        command.arg(folder.path()).kill_on_drop(true);
        command
    };
    let possible = mounted("true").stderr(Stdio::null()).status().await;
    if !possible.is_ok_and(|status| status.success()) {
        return left_out("no disk can be mounted here (`unshare --map-root-user --mount`)");
    }
    let mut program = mounted("exec \"$@\"");
    program.arg(std::env::current_exe().unwrap());
    let ended = Program::told(&mut program, "full", &path).status();
    assert!(timeout(PATIENCE, ended).await.unwrap().unwrap().success());
}

async fn fill_the_disk(path: &Path) {
    let store = FileStore::new(path);
    let names = || fs::read_dir(path.parent().unwrap()).unwrap().count();
    let lease = store.lease(TERM).await.unwrap().unwrap();
    assert_eq!(store.save(&record(1), 0, &lease).await.unwrap(), Saved::Kept);
    let filler = path.with_file_name("filler");
    let full = (1..)
        .map(|length| fs::write(&filler, vec![0; length << 10]))
        .find(Result::is_err);
    assert_eq!(full.unwrap().unwrap_err().kind(), ErrorKind::StorageFull);
    let (before, there) = (fs::read(path).unwrap(), names());
    for _ in 0..3 {
        let error = store.save(&record(2), 1, &lease).await.unwrap_err();
        let told = error.to_string();
        assert!(!error.is_unusable() && told.contains("no storage space"), "{told}");
        assert!(told.contains("writing") && told.contains(".token.json.tmp-"), "{told}");
        assert!(!format!("{error:?}").contains("test-"), "{error:?}");
        assert_eq!((fs::read(path).unwrap(), names()), (before.clone(), there));
    }
    // The right to renew needs no space.
    drop(lease);
    let lease = store.lease(TERM).await.unwrap().unwrap();
    fs::remove_file(filler).unwrap();
    assert_eq!(store.save(&record(2), 1, &lease).await.unwrap(), Saved::Kept);
}

// ===== The program, seen from here =====

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token.json");
    (folder, path)
}

struct Program {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(what: &str, path: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = Self::told(&mut command, what, path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            commands,
            answers: BufReader::new(answers).lines(),
        }
    }

    fn told<'a>(command: &'a mut Command, what: &str, path: &Path) -> &'a mut Command {
        command
            .args(["--exact", "the_program", "--nocapture"])
            .env("PROGRAM", what)
            .env("PROGRAM_PATH", path)
            .kill_on_drop(true)
    }

    async fn tell(&mut self, command: &str) {
        let line = format!("{command}\n");
        self.commands.write_all(line.as_bytes()).await.unwrap();
    }

    async fn asked(&mut self, command: &str) -> String {
        self.tell(command).await;
        self.answer(MARK).await
    }

    async fn answer(&mut self, mark: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.answers.next_line())
                .await
                .expect("the program hangs");
            let line = line.unwrap().expect("the program ended");
            // The test runner writes its own lines between them, and in front of the first.
            if let Some((_, answer)) = line.split_once(mark) {
                return answer.to_owned();
            }
        }
    }

    /// As `kill -9` does; when this resolves it is no more.
    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// In front of what the program answers.
const MARK: &str = "program: ";

/// For what takes no time, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

// ===== The program itself =====

/// No test: what the tests above start. It does as it is told on its input.
#[tokio::test]
async fn the_program() {
    let Ok(what) = std::env::var("PROGRAM") else { return };
    let path = PathBuf::from(std::env::var_os("PROGRAM_PATH").unwrap());
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    match what.as_str() {
        "full" => fill_the_disk(&path).await,
        "save" => {
            let number = commands.next_line().await.unwrap().unwrap();
            save_on(&path, number.parse().unwrap()).await;
        }
        _ => {
            let store = FileStore::new(path);
            let mut held = None;
            while let Some(command) = commands.next_line().await.unwrap() {
                let answer = match (command.as_str(), held.take()) {
                    ("release", Some(lease)) => {
                        store.release(&lease).await.unwrap();
                        "released"
                    }
                    _ => {
                        held = store.lease(TERM).await.unwrap();
                        if held.is_some() { "held" } else { "busy" }
                    }
                };
                println!("{MARK}{answer}");
            }
        }
    }
}
