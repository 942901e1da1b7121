//! A file, shared by the processes of one machine: [`FileStore`].
//!
//! Three pieces: where it is ([`place`]), what is in it ([`content`]), and who may change it ([`lock`]).

mod content;
mod lock;
mod place;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::{Envelope, Lease, Record, Saved, StoreError, StoreFuture, TokenStore};
use crate::error::Faults;
use crate::token::Secret;
use content::Stamp;
use lock::Held;
use place::Place;

/// A token in a file, for the processes of one machine that share it.
///
/// ```
/// use tower_token::FileStore;
///
/// let store = FileStore::new("/var/lib/my-app/token.json");
/// ```
///
/// **What is in it.** One [`Record`] as JSON, by an [`Envelope`]: the access token too, so that the processes share one
/// exchange. Of mode 0600 from its first byte on. A file whose mode lets others *write* is refused by name; one that
/// others may *read* is made 0600 when it is read, and refused if it is not ours to change. Whose file it is, is not asked;
/// who saves it owns it from then on, so let every program that shares it be of one user, root not among them.
///
/// **How it is replaced.** A temporary file in the same folder (`.NAME.tmp-*`) is written and synced, renamed over it, and
/// the folder is synced: who reads sees the old or the new one, whole, and a save that failed or was killed has harmed
/// nothing. What killed processes leave behind is removed after 60 s by whoever renews next. If the path is a symbolic
/// link, what it leads to is replaced, and the link stays.
///
/// **Who may renew.** Who has locked `NAME.lock` beside it: a lock of the operating system, which ends with its holder and
/// excludes the tasks of one process as it does processes. That file stays, and holds the number of the last
/// [`Lease`]. If it is deleted while it is locked, its holder notices and saves nothing; still, leave it alone.
///
/// **Where.** On a local disk of Linux, which is what is tested. Locks over NFS are as good as its server's. On other
/// systems than unix nothing is done about modes, and no folder is synced.
///
/// A disk that hangs holds up two threads of the runtime's pool for blocking work, not more. A call that is dropped
/// meanwhile ends by itself, and those after it wait for that.
#[derive(Debug)]
pub struct FileStore {
    file: Arc<TokenFile>,
    /// Whatever changes something, one after the other.
    writing: Lane,
    reading: Lane,
}

impl FileStore {
    /// A token in the file at `path`; its folder has to exist. A relative path begins at the folder that is the current
    /// one now.
    ///
    /// Nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // What cannot be made absolute is empty, and named by `check`.
        let path = std::path::absolute(&path).unwrap_or(path);
        Self::of(TokenFile::new(path, Envelope::plain()))
    }

    /// How the record becomes bytes. Default: [`Envelope::plain`].
    #[must_use]
    pub fn envelope(self, envelope: Envelope) -> Self {
        Self::of(TokenFile::new(self.file.path.clone(), envelope))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    fn of(file: TokenFile) -> Self {
        Self {
            file: Arc::new(file),
            writing: Lane::default(),
            reading: Lane::default(),
        }
    }
}

impl TokenStore for FileStore {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        let file = Arc::clone(&self.file);
        Box::pin(self.reading.run(move || file.load()))
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        Box::pin(async move {
            let Some(held) = held(lease) else {
                return Ok(Saved::Overtaken);
            };
            let (file, record) = (Arc::clone(&self.file), record.clone());
            let saved = self.writing.run(move || file.save(&record, expected, &held)).await?;
            self.file.known().unanswered = None;
            Ok(saved)
        })
    }

    fn lease(&self, _term: Duration) -> StoreFuture<'_, Option<Lease>> {
        let file = Arc::clone(&self.file);
        Box::pin(self.writing.run(move || {
            let held = file.lease()?;
            Ok(held.map(|held| Lease::new(held.fence()).lasting().guard(Arc::new(held))))
        }))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, _term: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let Some(held) = held(lease) else {
                return Ok(false);
            };
            let file = Arc::clone(&self.file);
            let renew = move || held.is_in_force(&Place::of(&file.path)?);
            self.writing.run(renew).await
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let Some(held) = held(lease) else {
                return Ok(());
            };
            self.writing.run(move || held.release()).await
        })
    }

    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            loop {
                // Before the first look too: whatever a caller does with the news, it is no busy loop.
                sleep(LOOK_EVERY).await;
                let file = Arc::clone(&self.file);
                if self.reading.run(move || file.may_differ_from(seen)).await? {
                    return Ok(());
                }
            }
        })
    }

    /// Looks at the disk, and makes an empty file in the folder for a moment.
    fn check(&self, faults: &mut Faults) {
        if let Err(advice) = place::check(&self.file.path) {
            faults.add("store.path", advice);
        }
    }
}

fn held(lease: &Lease) -> Option<Arc<Held>> {
    lease.guarded().cloned()
}

// ===== What is done on a thread that may wait =====

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    envelope: Envelope,
    known: Mutex<Known>,
}

/// What this process knows of the file.
#[derive(Debug, Default)]
struct Known {
    /// What the file was when it was last read or written; `None`: it was not there, or never looked for.
    stamp: Option<Stamp>,
    generation: u64,
    /// What was put in place by a save that nobody had an answer of: it was dropped, or the folder could not be synced.
    unanswered: Option<Record>,
}

impl TokenFile {
    fn new(path: PathBuf, envelope: Envelope) -> Self {
        Self {
            path,
            envelope,
            known: Mutex::default(),
        }
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        let place = Place::of(&self.path)?;
        let known = self.known().generation;
        let kept = self.read(&place)?;
        if generation(kept.as_ref()) > known {
            // Who put it there may not have come to that, and what we send is to be there after the power failed. A disk
            // that cannot do it is told of by the next save.
            let _ = content::sync_folder(&place.folder);
        }
        Ok(kept)
    }

    fn read(&self, place: &Place) -> Result<Option<Record>, StoreError> {
        let opened = content::open(&place.file)?;
        let stamp = opened.as_ref().map(|(_, stamp)| *stamp);
        let read = opened.map(|(file, _)| content::read(file, &place.file, &self.envelope));
        let read = read.transpose();
        // What cannot be used is noted as well: one look at it is enough.
        let generation = read.as_ref().map_or(0, |record| generation(record.as_ref()));
        self.note(stamp, generation);
        read
    }

    fn save(&self, record: &Record, expected: u64, held: &Held) -> Result<Saved, StoreError> {
        let place = Place::of(&self.path)?;
        if !held.is_in_force(&place)? {
            return Ok(Saved::Overtaken);
        }
        let kept = self.read(&place)?;
        if self.was_put_before(record, kept.as_ref()) {
            content::sync(&place)?;
            return Ok(Saved::Kept);
        }
        if generation(kept.as_ref()) != expected {
            return Ok(Saved::Overtaken);
        }
        let bytes = Zeroizing::new(self.envelope.write(record)?);
        let stamp = content::replace(&place, &bytes, || {
            self.known().unanswered = Some(record.clone());
        })?;
        self.note(Some(stamp), record.generation());
        Ok(Saved::Kept)
    }

    /// Whether this process put `record` there itself and does not know it: then it is not overtaken, but by itself.
    fn was_put_before(&self, record: &Record, kept: Option<&Record>) -> bool {
        let known = self.known();
        let (Some(unanswered), Some(kept)) = (&known.unanswered, kept) else {
            return false;
        };
        let [unanswered, kept, record] = [unanswered, kept, record].map(|record| Secret::new(record.to_json()));
        unanswered.expose() == record.expose() && kept.expose() == record.expose()
    }

    fn lease(&self) -> Result<Option<Held>, StoreError> {
        let place = Place::of(&self.path)?;
        let held = lock::take(&place.lock)?;
        if held.is_some() {
            place.sweep();
        }
        Ok(held)
    }

    fn may_differ_from(&self, seen: u64) -> Result<bool, StoreError> {
        let place = Place::of(&self.path)?;
        let stamp = content::stamp(&place.file)?;
        let known = self.known();
        // An older one was read by this process too, which knows better than to take it.
        Ok(stamp != known.stamp || known.generation > seen)
    }

    fn note(&self, stamp: Option<Stamp>, generation: u64) {
        let mut known = self.known();
        (known.stamp, known.generation) = (stamp, generation);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn generation(record: Option<&Record>) -> u64 {
    record.map_or(0, Record::generation)
}

/// One after the other, off the threads of the runtime. Whoever waits for its turn may leave; what has begun ends, and has
/// its turn until then.
#[derive(Clone, Debug, Default)]
struct Lane(Arc<AsyncMutex<()>>);

impl Lane {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.0).lock_owned().await;
        let working = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        let ended = working.await;
        ended.unwrap_or_else(|error| {
            Err(StoreError::unavailable("the work on the file was broken off").caused_by(error))
        })
    }
}

/// What is at `path`, if anything is.
fn if_there<T>(found: io::Result<T>, path: &Path) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("looking for", path, error)),
    }
}

/// What could not be done, to which file, and why: nothing that is in it.
fn failed(doing: &str, path: &Path, error: io::Error) -> StoreError {
    let message = format!("{doing} {}: {}", path.display(), error.kind());
    StoreError::unavailable(message).caused_by(error)
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
