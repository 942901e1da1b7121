#[cfg(unix)]
mod unix;

use std::fs;
use std::sync::mpsc;
use std::time::SystemTime;

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::store::record::tests::record;

const TERM: Duration = Duration::from_secs(45);

fn of(generation: u64) -> Record {
    Record { generation, ..record() }
}

/// A folder of its own, and a store in it.
fn store() -> (TempDir, FileStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("token.json"));
    (folder, store)
}

async fn leased(store: &FileStore) -> Lease {
    store.lease(TERM).await.unwrap().unwrap()
}

async fn loaded(store: &FileStore) -> u64 {
    store.load().await.unwrap().map_or(0, |record| record.generation())
}

fn names(folder: &TempDir) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

// ===== What is kept =====

#[tokio::test]
async fn what_was_saved_is_loaded_by_whoever_looks() {
    let (folder, store) = store();
    assert!(store.load().await.unwrap().is_none());
    let lease = leased(&store).await;
    assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Kept);
    let other = FileStore::new(store.path());
    let read = other.load().await.unwrap().unwrap();
    assert_eq!(read.to_json(), of(1).to_json());
    assert_eq!(names(&folder), ["token.json", "token.json.lock"]);
}

#[tokio::test]
async fn a_save_that_expects_another_generation_changes_nothing() {
    let (_folder, store) = store();
    let lease = leased(&store).await;
    assert_eq!(store.save(&of(2), 1, &lease).await.unwrap(), Saved::Overtaken);
    assert!(!store.path().exists());
    store.save(&of(2), 0, &lease).await.unwrap();
    let before = fs::read(store.path()).unwrap();
    for expected in [0, 1, 3] {
        assert_eq!(store.save(&of(3), expected, &lease).await.unwrap(), Saved::Overtaken);
    }
    assert_eq!(fs::read(store.path()).unwrap(), before);
    // Of the same generation: what is noted about it.
    assert_eq!(
        store.save(&Record { intent: None, ..of(2) }, 2, &lease).await.unwrap(),
        Saved::Kept
    );
    assert_ne!(fs::read(store.path()).unwrap(), before);
}

#[tokio::test]
async fn what_cannot_be_read_is_never_overwritten() {
    let (_folder, store) = store();
    let lease = leased(&store).await;
    fs::write(store.path(), "a file of somebody else, with test-canary in it").unwrap();
    close(store.path());
    for error in [
        store.load().await.unwrap_err(),
        store.save(&of(1), 0, &lease).await.unwrap_err(),
    ] {
        let told = error.to_string();
        assert!(
            error.is_unusable() && told.contains("token.json: what is kept is no JSON"),
            "{told}"
        );
        assert!(!format!("{error:?}").contains("canary"));
    }
    assert!(
        fs::read_to_string(store.path())
            .unwrap()
            .starts_with("a file of somebody")
    );
}

#[cfg(unix)]
fn close(path: &Path) {
    unix::chmod(path, 0o600);
}

#[cfg(not(unix))]
fn close(_: &Path) {}

#[tokio::test]
async fn what_is_no_file_or_endless_is_refused_by_name() {
    let (_folder, store) = store();
    fs::create_dir(store.path()).unwrap();
    let error = store.load().await.unwrap_err();
    assert!(
        error.is_unusable() && error.to_string().contains("is no file"),
        "{error}"
    );
    fs::remove_dir(store.path()).unwrap();
    let endless = fs::File::create(store.path()).unwrap();
    endless.set_len(1 << 40).unwrap();
    close(store.path());
    let error = store.load().await.unwrap_err();
    assert!(
        error.is_unusable() && error.to_string().contains("longer than any record"),
        "{error}"
    );
}

// ===== Who may renew =====

#[tokio::test]
async fn two_tasks_of_one_process_exclude_each_other_as_processes_do() {
    let (_folder, store) = store();
    let other = FileStore::new(store.path());
    let lease = leased(&store).await;
    assert!(store.lease(TERM).await.unwrap().is_none());
    assert!(other.lease(TERM).await.unwrap().is_none());
    assert!(store.renew(&lease, TERM).await.unwrap());
    store.release(&lease).await.unwrap();
    let next = leased(&other).await;
    assert!(next.fence() > lease.fence() && next.is_lasting());
    assert!(store.lease(TERM).await.unwrap().is_none());
    // Without a release it ends when it is dropped.
    drop(next);
    leased(&store).await;
}

/// Between its start and its own program a child has all that is open here.
#[tokio::test]
async fn a_copy_of_the_lock_in_a_child_process_keeps_nobody_out() {
    let (_folder, store) = store();
    for released in [false, true] {
        let lease = leased(&store).await;
        let _copy = held(&lease).unwrap().file.try_clone().unwrap();
        if released {
            store.release(&lease).await.unwrap();
        } else {
            drop(lease);
        }
        leased(&store).await;
    }
}

#[tokio::test]
async fn who_has_released_saves_nothing_and_frees_no_other() {
    let (_folder, store) = store();
    let lease = leased(&store).await;
    store.release(&lease).await.unwrap();
    assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Overtaken);
    assert!(!store.renew(&lease, TERM).await.unwrap());
    let next = leased(&store).await;
    store.release(&lease).await.unwrap();
    assert!(store.lease(TERM).await.unwrap().is_none());
    assert!(store.renew(&next, TERM).await.unwrap());
}

#[tokio::test]
async fn a_lease_of_something_else_is_none() {
    let (_folder, store) = store();
    let (_other_folder, other) = self::store();
    let strangers = [leased(&other).await, Lease::new(u64::MAX)];
    let _taken = leased(&store).await;
    for lease in &strangers {
        assert_eq!(store.save(&of(1), 0, lease).await.unwrap(), Saved::Overtaken);
        assert!(!store.renew(lease, TERM).await.unwrap());
    }
    store.release(&strangers[1]).await.unwrap();
    assert!(store.lease(TERM).await.unwrap().is_none());
}

#[cfg(unix)]
#[tokio::test]
async fn who_holds_a_lock_file_that_was_deleted_or_replaced_notices() {
    let (folder, store) = store();
    let lock = folder.path().join("token.json.lock");
    let mut fences = Vec::new();
    for replaced in [false, true] {
        let lease = leased(&store).await;
        fs::remove_file(&lock).unwrap();
        let next = if replaced { Some(leased(&store).await) } else { None };
        assert!(!store.renew(&lease, TERM).await.unwrap());
        assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Overtaken);
        fences.push(lease.fence());
        fences.extend(next.map(|next| next.fence()));
    }
    fences.push(leased(&store).await.fence());
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
    assert!(!store.path().exists());
}

#[tokio::test]
async fn whatever_is_in_the_lock_file_the_numbers_grow() {
    let (folder, store) = store();
    let lock = folder.path().join("token.json.lock");
    let mut last = 0;
    for content in ["", "no number", "7", "\u{0}\u{0}"] {
        fs::write(&lock, content).unwrap();
        let lease = leased(&store).await;
        assert!(lease.fence() > last && store.renew(&lease, TERM).await.unwrap());
        last = lease.fence();
        // A later one was given, though its holder is not seen any more.
        fs::write(&lock, format!("{:020}\n", last + 1)).unwrap();
        assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Overtaken);
    }
}

// ===== Calls that are dropped, and disks that hang =====

#[tokio::test]
async fn a_save_that_was_dropped_ends_before_the_next_begins() {
    let (_folder, store) = store();
    let lease = leased(&store).await;
    for generation in (1..200).step_by(2) {
        // On a machine that is busy enough it has ended by now.
        let _ = store.save(&of(generation), generation - 1, &lease).now_or_never();
        let next = store.save(&of(generation + 1), generation, &lease).await;
        assert_eq!(next.unwrap(), Saved::Kept);
    }
}

/// Else the protocol would take it for the work of somebody else.
#[test]
fn a_save_that_was_dropped_and_is_tried_again_is_not_overtaken_by_itself() {
    with_threads(1).block_on(async {
        let (_folder, store) = store();
        let lease = leased(&store).await;
        let (go, gone) = mpsc::channel::<()>();
        let busy = spawn_blocking(move || gone.recv().ok());
        assert!(store.save(&of(1), 0, &lease).now_or_never().is_none());
        drop(go);
        busy.await.unwrap();
        assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Kept);
        // This one was answered.
        assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Overtaken);
    });
}

/// A runtime with so many threads for what may wait.
fn with_threads(number: usize) -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().max_blocking_threads(number).build().unwrap()
}

#[tokio::test]
async fn a_save_that_was_dropped_keeps_the_lock_until_it_has_ended() {
    let (_folder, store) = store();
    let lease = leased(&store).await;
    let (go, gone) = mpsc::channel::<()>();
    let held = held(&lease).unwrap();
    let hung = store.writing.run(move || {
        gone.recv().ok();
        drop(held);
        Ok(())
    });
    assert!(hung.now_or_never().is_none());
    // Given back, and forgotten.
    assert!(store.release(&lease).now_or_never().is_none());
    drop(lease);
    let other = FileStore::new(store.path());
    assert!(other.lease(TERM).await.unwrap().is_none());
    go.send(()).unwrap();
    drop(leased(&store).await);
    leased(&other).await;
}

#[test]
fn a_disk_that_hangs_holds_up_two_threads_however_often_it_is_tried() {
    with_threads(3).block_on(async {
        let (_folder, store) = store();
        let lease = leased(&store).await;
        let hung: Vec<_> = [&store.reading, &store.writing]
            .into_iter()
            .map(|lane| {
                let (go, gone) = mpsc::channel::<()>();
                assert!(lane.run(move || Ok(gone.recv().ok())).now_or_never().is_none());
                go
            })
            .collect();
        for _ in 0..100 {
            assert!(store.load().now_or_never().is_none());
            assert!(store.save(&of(1), 0, &lease).now_or_never().is_none());
            assert!(store.lease(TERM).now_or_never().is_none());
        }
        spawn_blocking(|| "something else").await.unwrap();
        drop(hung);
        // None of those has begun.
        assert!(store.load().await.unwrap().is_none());
        assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Kept);
    });
}

// ===== What is left behind, and what is new =====

#[tokio::test]
async fn what_killed_processes_left_is_removed_after_a_minute() {
    let (folder, store) = store();
    let long_ago = SystemTime::now() - Duration::from_secs(61);
    for (name, modified) in [
        (".token.json.tmp-Ab3dEf", long_ago),
        (".token.json.tmp-young1", SystemTime::now()),
        // Of a token that is kept in `token.json.tmp-more`.
        (".token.json.tmp-more.tmp-Ab3dEf", long_ago),
        ("somebody's", long_ago),
    ] {
        let file = fs::File::create(folder.path().join(name)).unwrap();
        file.set_modified(modified).unwrap();
    }
    leased(&store).await;
    assert_eq!(
        names(&folder),
        [
            ".token.json.tmp-more.tmp-Ab3dEf",
            ".token.json.tmp-young1",
            "somebody's",
            "token.json.lock"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_of_what_others_saved_and_not_of_what_this_one_knows() {
    let (_folder, store) = store();
    let other = FileStore::new(store.path());
    let quiet = async |seen| timeout(Duration::from_secs(5), store.watch(seen)).await.is_err();
    assert!(quiet(0).await);
    let lease = leased(&other).await;
    other.save(&of(1), 0, &lease).await.unwrap();
    store.watch(0).await.unwrap();
    assert_eq!(loaded(&store).await, 1);
    assert!(quiet(1).await);
    // Another of its tasks has read what this one has not seen.
    store.watch(0).await.unwrap();
    // What is noted about the same generation may matter too.
    other.save(&Record { intent: None, ..of(1) }, 1, &lease).await.unwrap();
    store.watch(1).await.unwrap();
    drop(lease);
    let lease = leased(&store).await;
    assert_eq!(store.save(&of(2), 1, &lease).await.unwrap(), Saved::Kept);
    assert!(quiet(2).await);
    fs::remove_file(store.path()).unwrap();
    store.watch(2).await.unwrap();
    assert_eq!(loaded(&store).await, 0);
    assert!(quiet(2).await);
    // What cannot be used is told of once.
    fs::write(store.path(), "{").unwrap();
    store.watch(2).await.unwrap();
    assert!(store.load().await.is_err());
    assert!(quiet(2).await);
}

// ===== What is named when it is built =====

#[test]
fn a_path_that_cannot_work_is_named() {
    let (folder, store) = store();
    let said = |path: &Path| {
        let mut faults = Faults::default();
        FileStore::new(path).check(&mut faults);
        faults.into_result().err().map(|error| error.to_string())
    };
    assert_eq!(said(store.path()), None);
    assert_eq!(names(&folder), [""; 0]);
    fs::write(folder.path().join("file"), "").unwrap();
    for (path, expected) in [
        (PathBuf::new(), "store.path: is empty"),
        (folder.path().into(), "is a folder"),
        ("/".into(), "names no file"),
        (folder.path().join("missing/token.json"), "there is no folder"),
        (folder.path().join("file/token.json"), "not a directory"),
        (folder.path().join("n".repeat(250)), "cannot be written"),
    ] {
        let said = said(&path).unwrap();
        assert!(
            said.contains("store.path: ") && said.contains(expected),
            "{path:?}: {said}"
        );
    }
}

#[test]
fn a_relative_path_begins_where_the_program_is_now() {
    let store = FileStore::new("token.json");
    assert_eq!(store.path(), std::env::current_dir().unwrap().join("token.json"));
}

#[tokio::test]
async fn an_error_of_the_disk_says_what_was_done_to_which_file() {
    let (folder, store) = store();
    let lease = leased(&store).await;
    fs::remove_dir_all(folder.path()).unwrap();
    fs::write(folder.path(), "").unwrap();
    let error = store.save(&of(1), 0, &lease).await.unwrap_err();
    let told = error.to_string();
    assert!(
        !error.is_unusable() && told.contains("looking for ") && told.ends_with("token.json: not a directory"),
        "{told}"
    );
    fs::remove_file(folder.path()).unwrap();
}
