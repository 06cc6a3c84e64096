//! Why the store refused: one sentence each, which ends with what to do next.

use flipside_core::{ItemId, JudgementId, PairId};
use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

/// All errors of reading and writing a session.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder has no session database, or one of another program.
    #[error("{} holds no session; give the folder of one, or start a new one with `flipside train`", .0.display())]
    NotASession(PathBuf),
    /// A new session was to be created where there is one already.
    #[error("{} already holds a session; open that one, or name a new folder", .0.display())]
    AlreadyASession(PathBuf),
    /// A new session was to be created in a folder that holds other things.
    #[error("{} holds other files; name a new or an empty folder for the session", .0.display())]
    NotEmpty(PathBuf),
    /// Another process has this session open for writing.
    #[error(
        "{} is open in another Flipside{}; close it there, or wait until it has finished",
        folder.display(),
        process.map_or(String::new(), |id| format!(" (process {id})"))
    )]
    InUse {
        /// The session.
        folder: PathBuf,
        /// The process that has it open, if known.
        process: Option<u32>,
    },
    /// The format is newer than this program.
    #[error(
        "{} was written by a newer Flipside (format {found}; this one knows up to {known}); update Flipside to open it, \
         nothing in it was changed",
        path.display()
    )]
    Newer {
        /// The session or the file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this program reads.
        known: u32,
    },
    /// The database is damaged.
    #[error(
        "the database {} is damaged ({reason}); restore the session from a copy or start a new one, nothing in it was changed",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// One clip is damaged. The rest of the session is not affected.
    #[error(
        "clip {} in {} is damaged ({reason}); the other clips can still be used, restore the session from a copy to get it back",
        id.0, folder.display()
    )]
    DamagedClip {
        /// The session.
        folder: PathBuf,
        /// Which clip.
        id: ItemId,
        /// What was found.
        reason: String,
    },
    /// Every checkpoint is damaged.
    #[error(
        "{} is damaged ({reason}) and no earlier checkpoint is whole; the judgements are: move that file away to train afresh \
         from them",
        path.display()
    )]
    DamagedCheckpoint {
        /// The newest file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// There is no such folder.
    #[error(
        "{} is no folder; give the folder of a model, with config.json and model.safetensors in it, or a GGUF file",
        .0.display()
    )]
    NoModelFolder(PathBuf),
    /// A model's folder without weights.
    #[error("{} holds no weights; put model.safetensors, or its shards and model.safetensors.index.json, there", .0.display())]
    NoWeights(PathBuf),
    /// Pickled weights, which cannot be read without running the program in them.
    #[error(
        "{} is pickled, and reading it would run whatever is in it; save the model again as safetensors \
         (save_pretrained with safe_serialization=True)",
        .0.display()
    )]
    Pickled(PathBuf),
    /// A model's file is damaged.
    #[error("{} cannot be read ({reason}); fetch that file again, nothing in it was changed", path.display())]
    DamagedModel {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A GGUF file that is damaged or has numbers that are not read.
    #[error("{} cannot be read ({reason}); take a whole file in one of the formats that are", path.display())]
    UnreadGguf {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A pointer of Git LFS in a file's place.
    #[error("{} is a pointer of Git LFS, not the file itself; fetch the file with `git lfs pull` in its repository", .0.display())]
    LfsPointer(PathBuf),
    /// A file of training data is in an encoding or a format that is not read; the reason says what to do.
    #[error("{} cannot be read: {reason}", path.display())]
    DataFile {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// A model was to be written into a folder that holds other files.
    #[error("{} holds other files; name a new or an empty folder for the model", .0.display())]
    ModelFolderTaken(PathBuf),
    /// The disk is full.
    #[error(
        "the disk is full, so {} could not be written; free some space there and try again, what was saved before is whole",
        .0.display()
    )]
    DiskFull(PathBuf),
    /// The folder or its disk cannot be written.
    #[error("{} cannot be written ({reason}); make it writable, or copy the session to a folder that is", path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
        /// The system's message.
        reason: String,
    },
    /// No such clip.
    #[error("there is no clip {} in this session; take one that a pair names", .0.0)]
    NoSuchClip(ItemId),
    /// No such pair.
    #[error("there is no pair {} in this session; take one of the unanswered pairs", .0.0)]
    NoSuchPair(PairId),
    /// No such judgement.
    #[error("there is no judgement {} in this session; take one from its log", .0.0)]
    NoSuchJudgement(JudgementId),
    /// The judgement was already taken back.
    #[error("judgement {} was taken back before; take back another one", .0.0)]
    AlreadyRetracted(JudgementId),
    /// Another clip, completion or pair already has this id.
    #[error("{what} {id} is in the session already and differs; take the next free number for a new one")]
    NumberTaken {
        /// `clip`, `completion` or `pair`.
        what: &'static str,
        /// The id.
        id: u64,
    },
    /// What was to be stored contradicts itself.
    #[error("{what} cannot be stored: {reason}; this is a mistake in Flipside, please report it with these words")]
    Unsound {
        /// What was to be stored.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An export's writer failed.
    #[error("the export could not be written ({0}); check the place that it goes to and export again")]
    Export(#[source] io::Error),
    /// Any other error with a file.
    #[error("{} could not be read or written ({source}); check the disk and try again", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other error with the database.
    #[error("the database {} refused ({source}); try again, and report it if it stays", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Turns an I/O error on `path` into what it means to a person.
    pub(super) fn io(path: &Path, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match source.kind() {
            // A file can reach a limit of the system or a quota before the disk is full. To a person, that is the same.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::DiskFull(path)
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                StoreError::ReadOnly { path, reason: source.to_string() }
            }
            _ => StoreError::Io { path, source },
        }
    }

    /// Turns SQLite's error on the database at `path` into what it means to a person. `system` is the system's error
    /// behind it, if there is one.
    pub(super) fn database(path: &Path, source: rusqlite::Error, system: Option<io::Error>) -> StoreError {
        let path = path.to_owned();
        match &source {
            rusqlite::Error::SqliteFailure(failure, message) => {
                let words = || message.clone().unwrap_or_else(|| source.to_string());
                match failure.code {
                    ErrorCode::DiskFull => StoreError::DiskFull(path),
                    ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                        StoreError::Damaged { path, reason: words() }
                    }
                    ErrorCode::ReadOnly => StoreError::ReadOnly { path, reason: words() },
                    ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => match system {
                        Some(error) => StoreError::io(&path, error),
                        None => StoreError::Database { path, source },
                    },
                    _ => StoreError::Database { path, source },
                }
            }
            // Values that no version of this program writes.
            rusqlite::Error::FromSqlConversionFailure(_, _, reason) => {
                StoreError::Damaged { path, reason: reason.to_string() }
            }
            rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => StoreError::Damaged { path, reason: source.to_string() },
            _ => StoreError::Database { path, source },
        }
    }
}
