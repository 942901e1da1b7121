//! Where the file is, and what lies beside it: [`Place`].

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::{failed, if_there};
use crate::store::StoreError;

/// Where the file is now, behind all links, so that those who come by different links meet at one lock.
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) lock: PathBuf,
    pub(super) folder: PathBuf,
    /// What the names of its temporary files begin with.
    temporary: OsString,
}

impl Place {
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let file = behind_links(path)?;
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(StoreError::unavailable(format!("{} names no file", file.display())));
        };
        Ok(Self {
            lock: folder.join(joined(["".as_ref(), name, ".lock".as_ref()])),
            temporary: joined([".".as_ref(), name, ".tmp-".as_ref()]),
            folder: folder.to_owned(),
            file,
        })
    }

    /// A file of its own in the same folder, which is gone when it is dropped. Mode 0600.
    pub(super) fn temporary(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(&self.temporary)
            .rand_bytes(DRAWN)
            .tempfile_in(&self.folder)
    }

    /// Removes what killed processes left behind. What cannot be removed is left to the next.
    pub(super) fn sweep(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| self.is_temporary(&entry.file_name())) {
            let written = entry.metadata().and_then(|found| found.modified());
            let age = written.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            if age.is_ok_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn is_temporary(&self, name: &OsStr) -> bool {
        let drawn = name.as_encoded_bytes().strip_prefix(self.temporary.as_encoded_bytes());
        // As long as ours are: another token may be kept in a file whose name goes on like this.
        drawn.is_some_and(|drawn| drawn.len() == DRAWN)
    }
}

/// Names what is wrong with where it is to be.
pub(super) fn check(path: &Path) -> Result<(), String> {
    if path.as_os_str().is_empty() {
        return Err("is empty: it names the file that the token is kept in".into());
    }
    let place = Place::of(path).map_err(|error| error.to_string())?;
    let (file, folder) = (place.file.display(), place.folder.display());
    if place.file.is_dir() {
        return Err(format!(
            "{file} is a folder: it names the file that the token is kept in"
        ));
    }
    if !place.folder.is_dir() {
        return Err(format!("there is no folder {folder}: make it, for this user alone"));
    }
    match place.temporary().map_err(|error| error.kind()) {
        // A full disk is no mistake in the configuration.
        Ok(_) | Err(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Ok(()),
        Err(kind) => Err(format!(
            "{file} cannot be written, and a token that is renewed would be lost: {kind}"
        )),
    }
}

fn behind_links(path: &Path) -> Result<PathBuf, StoreError> {
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let found = if_there(fs::symlink_metadata(&at), &at)?;
        if !found.is_some_and(|found| found.is_symlink()) {
            return Ok(at);
        }
        let target = fs::read_link(&at).map_err(|error| failed("following", &at, error))?;
        at.pop();
        at.push(target);
    }
    Err(StoreError::unavailable(format!(
        "{} leads from link to link",
        path.display()
    )))
}

fn joined<const N: usize>(parts: [&OsStr; N]) -> OsString {
    parts.into_iter().collect()
}

/// As many as Linux follows.
const MOST_LINKS: u32 = 40;

/// How many letters of a temporary file's name are drawn.
const DRAWN: usize = 6;

/// No save takes so long, unless the disk hangs.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
