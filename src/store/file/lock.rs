//! The right to renew, as a lock of the operating system: [`Held`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::place::Place;
use super::{content, failed, if_there};
use crate::store::StoreError;

/// A locked file. The lock belongs to what was opened, not to the process, and ends when that is closed: by the last of
/// those who hold it, which may be a save that its caller gave up.
pub(super) struct Held {
    pub(super) file: File,
    fence: u64,
    released: AtomicBool,
}

/// `None` if somebody else has it.
pub(super) fn take(path: &Path) -> Result<Option<Held>, StoreError> {
    for _ in 0..ATTEMPTS {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed("locking", path, error)),
        }
        // Deleted before it was locked: the next one would lock another file of that name.
        if is_at(&file, path)? {
            let closed = content::close_to_others(&file);
            closed.map_err(|error| failed("closing to others", path, error))?;
            let fence = next_fence(&file).map_err(|error| failed("writing", path, error))?;
            return Ok(Some(Held {
                file,
                fence,
                released: AtomicBool::new(false),
            }));
        }
    }
    Err(StoreError::unavailable(format!(
        "{} is a link, or somebody replaces it again and again",
        path.display()
    )))
}

impl Held {
    pub(super) fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether it is still what keeps the others out: `false` if its file was deleted or replaced.
    pub(super) fn is_in_force(&self, place: &Place) -> Result<bool, StoreError> {
        if self.released.load(Ordering::Acquire) || !is_at(&self.file, &place.lock)? {
            return Ok(false);
        }
        let last = last_fence(&self.file).map_err(|error| failed("reading", &place.lock, error))?;
        Ok(last == Some(self.fence))
    }

    pub(super) fn release(&self) -> Result<(), StoreError> {
        self.released.store(true, Ordering::Release);
        let unlocked = self.file.unlock();
        unlocked.map_err(|error| StoreError::unavailable("unlocking the lock of the file").caused_by(error))
    }
}

impl Drop for Held {
    /// Not left to the closing of the file: a child process that is just being started has a copy of it for a moment.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    how.open(path).map_err(|error| failed("opening", path, error))
}

/// Whether `file` is what is at `path`, not behind a link there.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> Result<bool, StoreError> {
    use std::os::unix::fs::MetadataExt;
    let found = if_there(fs::symlink_metadata(path), path)?;
    let ours = file.metadata().map_err(|error| failed("looking at", path, error))?;
    Ok(found.is_some_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino())))
}

/// An open file cannot be replaced there.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> Result<bool, StoreError> {
    Ok(if_there(fs::symlink_metadata(path), path)?.is_some())
}

/// One more than the last, and not less than the microseconds since 1970: if the file was deleted, or lost what was in it
/// with the power, the numbers grow all the same.
fn next_fence(mut file: &File) -> io::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let least = u64::try_from(since.as_micros()).unwrap_or(0);
    let fence = last_fence(file)?.unwrap_or(0).saturating_add(1).max(least);
    file.rewind()?;
    // Always as long, so that a disk that is full by now takes it.
    file.write_all(format!("{fence:020}\n").as_bytes())?;
    Ok(fence)
}

fn last_fence(mut file: &File) -> io::Result<Option<u64>> {
    let mut digits = Vec::with_capacity(DIGITS);
    file.rewind()?;
    file.take(DIGITS as u64).read_to_end(&mut digits)?;
    Ok(str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()))
}

const DIGITS: usize = 20;

const ATTEMPTS: u32 = 10;
