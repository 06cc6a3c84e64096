//! Opening and creating sessions. What an open session can do is in the files beside this one: clips, judgements,
//! metrics, checkpoints, exports.

use super::schema::{self, DATABASE};
use super::{StoreError, disk};
use crate::settings::RunSettings;
use rusqlite::{Connection, OptionalExtension};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The folder of the checkpoints, in the session's folder.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// An open session. It belongs to one thread at a time (`Send`, not `Sync`). While it is open for writing, no other
/// process can open it for writing. Dropping it closes it. Everything acknowledged is on disk already.
#[derive(Debug)]
pub struct Session {
    folder: PathBuf,
    settings: RunSettings,
    pub(super) db: Connection,
    /// Checkpoints that [`Session::load_checkpoint`] found damaged. They do not count as saved.
    pub(super) damaged: BTreeSet<u64>,
    /// `None` if opened for reading. It is the last field because fields are dropped in this order, and the database
    /// must be closed under the lock.
    lock: Option<File>,
}

impl Session {
    /// Creates a new session in `folder` and opens it for writing. The folder is created if needed, and must hold
    /// nothing else.
    ///
    /// # Errors
    /// [`StoreError::AlreadyASession`], [`StoreError::NotEmpty`], [`StoreError::InUse`], [`StoreError::DiskFull`],
    /// [`StoreError::ReadOnly`]. After a failure or a kill, the same folder can be given again.
    pub fn create(folder: &Path, settings: &RunSettings) -> Result<Session, StoreError> {
        let failed = |e| StoreError::io(folder, e);
        fs::create_dir_all(folder).map_err(failed)?;
        refuse_foreign_files(folder)?;
        let lock = disk::lock(folder)?;
        // Again, now that no other process can be creating one.
        refuse_foreign_files(folder)?;

        fs::create_dir_all(folder.join(CHECKPOINTS)).map_err(failed)?;
        let database = folder.join(DATABASE);
        let beside = disk::partial(&database);
        remove_partials(folder)?;
        schema::write_new(&beside, settings)?;
        fs::rename(&beside, &database).map_err(failed)?;
        disk::sync_folder(folder)?;
        disk::sync_folder(folder.parent().unwrap_or(Path::new("")))?;
        Session::with(folder, schema::connect(folder)?, Some(lock))
    }

    /// Opens the session in `folder` for writing.
    ///
    /// # Errors
    /// [`StoreError::NotASession`], [`StoreError::Newer`], [`StoreError::Damaged`], [`StoreError::InUse`],
    /// [`StoreError::ReadOnly`], [`StoreError::DiskFull`]; the session is then unchanged.
    pub fn open(folder: &Path) -> Result<Session, StoreError> {
        schema::inspect(folder)?;
        let lock = disk::lock(folder)?;
        let session = Session::with(folder, schema::connect(folder)?, Some(lock))?;
        remove_partials(&folder.join(CHECKPOINTS))?;
        Ok(session)
    }

    /// Opens the session in `folder` for reading only, even while another process writes it, or on a disk that cannot
    /// be written. Methods that write then return [`StoreError::ReadOnly`].
    ///
    /// # Errors
    /// As [`Session::open`], but never [`StoreError::InUse`].
    pub fn open_to_read(folder: &Path) -> Result<Session, StoreError> {
        schema::inspect(folder)?;
        Session::with(folder, schema::connect_to_read(folder)?, None)
    }

    fn with(folder: &Path, db: Connection, lock: Option<File>) -> Result<Session, StoreError> {
        let mut session =
            Session { folder: folder.to_owned(), settings: RunSettings::default(), db, damaged: BTreeSet::new(), lock };
        session.settings = session.sql(schema::read_settings)?;
        session.settings.folder = Some(folder.to_owned());
        Ok(session)
    }

    /// The session's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run's settings. [`RunSettings::folder`] is this session's folder.
    pub fn settings(&self) -> &RunSettings {
        &self.settings
    }

    /// Replaces the settings. The session continues with these when it is opened again.
    pub fn put_settings(&mut self, settings: &RunSettings) -> Result<(), StoreError> {
        self.must_be_writable()?;
        self.sql(|db| schema::put_settings(db, settings))?;
        self.settings = RunSettings { folder: Some(self.folder.clone()), ..settings.clone() };
        Ok(())
    }

    /// A single stored fact, by name: `created_at_ms`, `created_by`, or what [`Session::put_meta`] wrote.
    pub fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.sql(|db| db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional())
    }

    /// Stores a single fact, replacing an earlier one of that name.
    pub fn put_meta(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        self.must_be_writable()?;
        const PUT: &str = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
        self.sql(|db| db.execute(PUT, [name, value])).map(drop)
    }

    /// The database's path, for error messages.
    pub(super) fn database(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }

    /// Runs `work` on the connection. An error of SQLite becomes a [`StoreError`].
    pub(super) fn sql<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.db).map_err(|e| schema::refusal(&self.db, &self.database(), e))
    }

    /// Refuses to write if the session was opened for reading.
    pub(super) fn must_be_writable(&self) -> Result<(), StoreError> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(StoreError::ReadOnly {
                path: self.folder.clone(),
                reason: "it was opened only to be read".to_owned(),
            }),
        }
    }
}

/// The sessions directly below `root`, the most recently written first. A `root` that does not exist holds none.
///
/// # Errors
/// [`StoreError::Io`] if `root` cannot be listed.
pub fn sessions_in(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| StoreError::io(root, e))?,
    };
    let mut sessions: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in entries {
        let folder = entry.map_err(|e| StoreError::io(root, e))?.path();
        let changed = |name: &str| fs::metadata(folder.join(name)).and_then(|m| m.modified());
        if let Ok(database) = changed(DATABASE) {
            // Commits go to the write-ahead log first, so it may be newer than the database.
            let latest = changed("session.db-wal").map_or(database, |log| log.max(database));
            sessions.push((latest, folder));
        }
    }
    sessions.sort();
    Ok(sessions.into_iter().rev().map(|(_, folder)| folder).collect())
}

/// Accepts an empty folder, and what an interrupted [`Session::create`] leaves.
fn refuse_foreign_files(folder: &Path) -> Result<(), StoreError> {
    let failed = |e| StoreError::io(folder, e);
    if folder.join(DATABASE).exists() {
        return Err(StoreError::AlreadyASession(folder.to_owned()));
    }
    let beside = disk::partial(Path::new(DATABASE));
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        let ours = name == disk::LOCK || name == CHECKPOINTS || name.starts_with(&*beside.to_string_lossy());
        if !ours {
            return Err(StoreError::NotEmpty(folder.to_owned()));
        }
    }
    Ok(())
}

/// Removes what a killed process left half written. No process can be writing it, because this one holds the lock.
fn remove_partials(folder: &Path) -> Result<(), StoreError> {
    let failed = |e| StoreError::io(folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // `session.db.partial`, and SQLite's `session.db.partial-journal` and the like beside it.
        if path.extension().is_some_and(|e| e.to_string_lossy().starts_with(disk::PARTIAL)) {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}
