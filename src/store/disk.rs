//! Three guarantees for files: one writer at a time, complete or not at all, and still there after a power cut.

use super::StoreError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The file that the writing process locks.
pub(super) const LOCK: &str = "session.lock";

/// The extension of files that are not complete yet.
pub(super) const PARTIAL: &str = "partial";

/// Locks the session for writing until the returned file is dropped or the process dies. The operating system holds the
/// lock, so a dead process leaves none behind. The file holds this process's id, for the error message of another
/// process.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let failed = |e| StoreError::io(&path, e);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            // A full disk may refuse these few bytes. The lock holds without them.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let process = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Err(StoreError::InUse { folder: folder.to_owned(), process })
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Writes a complete file or nothing: into a file beside it, synced, renamed to `path`, and the folder synced. On an
/// error, what was at `path` before is unchanged, and the space that was taken is freed.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_whole_with(path, |file| file.write_all(bytes).map_err(StoreError::Export))
}

/// [`write_whole`] for content that is written piece by piece. Returns the value of `fill`.
pub(super) fn write_whole_with<T>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let beside = partial(path);
    let failed = |e| StoreError::io(path, e);
    let write = || -> Result<T, StoreError> {
        let mut file = File::create(&beside).map_err(failed)?;
        let value = fill(&mut file).map_err(|error| match error {
            // Only here is the file's path known.
            StoreError::Export(error) => failed(error),
            other => other,
        })?;
        file.sync_all().map_err(failed)?;
        drop(file);
        fs::rename(&beside, path).map_err(failed)?;
        Ok(value)
    };
    let value = write().inspect_err(|_| drop(fs::remove_file(&beside)))?;
    sync_folder(path.parent().unwrap_or(Path::new("")))?;
    Ok(value)
}

/// Where `path` is written until it is complete.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// Makes the names in a folder (new files, renames) survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    // The parent of a bare file name is "", which means the current folder.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Windows has no such call, and does not let a folder be opened as a file.
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| StoreError::io(folder, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_whole(&path, b"old").unwrap();
        let error = write_whole_with(&path, |file| {
            file.write_all(b"half of the new").unwrap();
            Err::<(), _>(StoreError::Export(std::io::ErrorKind::StorageFull.into()))
        })
        .unwrap_err();
        assert!(error.to_string().starts_with("the disk is full"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_lock_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        let error = lock(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(first);
        lock(folder.path()).unwrap();
    }
}
