//! What is in the file, and how it is replaced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::place::Place;
use super::{failed, if_there};
use crate::store::{Envelope, Record, StoreError};

/// By what a file is told from the one that was there before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = found.ino();
        #[cfg(not(unix))]
        let inode = 0;
        Self {
            modified: found.modified().ok(),
            length: found.len(),
            inode,
        }
    }
}

pub(super) fn stamp(path: &Path) -> Result<Option<Stamp>, StoreError> {
    let found = if_there(fs::metadata(path), path)?;
    Ok(found.as_ref().map(Stamp::of))
}

/// `None` if there is no such file.
pub(super) fn open(path: &Path) -> Result<Option<(File, Stamp)>, StoreError> {
    // To open a pipe would wait for who writes into it.
    match if_there(fs::metadata(path), path)? {
        Some(found) if !found.is_file() => {
            return Err(StoreError::unusable(format!("{} is no file", path.display())));
        }
        Some(_) => {}
        None => return Ok(None),
    }
    let file = File::open(path).map_err(|error| failed("opening", path, error))?;
    let found = file.metadata().map_err(|error| failed("looking at", path, error))?;
    Ok(Some((file, Stamp::of(&found))))
}

pub(super) fn read(file: File, path: &Path, envelope: &Envelope) -> Result<Record, StoreError> {
    only_ours(&file, path)?;
    // At its full size from the start: a buffer that grows would leave copies.
    let length = file.metadata().map_or(0, |found| found.len().min(LONGEST));
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed("reading", path, error))?;
    if bytes.len() as u64 > LONGEST {
        return Err(StoreError::unusable(format!(
            "{} is longer than any record",
            path.display()
        )));
    }
    let read = envelope.read(&bytes);
    read.map_err(|error| error.about(path.display()))
}

/// Puts `bytes` there, durably. Calls `put` when nothing but the disk can take them back.
pub(super) fn replace(place: &Place, bytes: &[u8], put: impl FnOnce()) -> Result<Stamp, StoreError> {
    let (file, folder) = (&place.file, &place.folder);
    let mut temporary = place
        .temporary()
        .map_err(|error| failed("making a file in", folder, error))?;
    let written = temporary.write_all(bytes);
    written.map_err(|error| failed("writing", temporary.path(), error))?;
    let synced = temporary.as_file().sync_all();
    synced.map_err(|error| failed("syncing", temporary.path(), error))?;
    let found = temporary.as_file().metadata();
    let found = found.map_err(|error| failed("looking at", temporary.path(), error))?;
    let renamed = temporary.persist(file);
    renamed.map_err(|error| failed("renaming a file to", file, error.error))?;
    put();
    sync_folder(folder)?;
    Ok(Stamp::of(&found))
}

/// Makes sure of what is there already.
pub(super) fn sync(place: &Place) -> Result<(), StoreError> {
    let synced = File::open(&place.file).and_then(|file| file.sync_all());
    synced.map_err(|error| failed("syncing", &place.file, error))?;
    sync_folder(&place.folder)
}

#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| failed("syncing", folder, error))
}

/// A folder cannot be opened there.
#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

/// As ssh does with its keys: what others may have written is not believed, what they may read is closed to them.
#[cfg(unix)]
fn only_ours(file: &File, path: &Path) -> Result<(), StoreError> {
    let refused = |why| StoreError::unusable(format!("{} {why}: chmod 600, if it can be trusted", path.display()));
    let found = file.metadata().map_err(|error| failed("looking at", path, error))?;
    if found.permissions().mode() & 0o022 != 0 {
        return Err(refused("may be written by others"));
    }
    let closed = close_to_others(file);
    closed.map_err(|error| refused("may be read by others, and is not ours to change").caused_by(error))
}

#[cfg(unix)]
pub(super) fn close_to_others(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(mode & 0o700))
}

#[cfg(not(unix))]
fn only_ours(_: &File, _: &Path) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn close_to_others(_: &File) -> io::Result<()> {
    Ok(())
}

/// A token is a megabyte at most.
const LONGEST: u64 = 16 << 20;
