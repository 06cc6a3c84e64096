//! The database: its tables, the numbers in its header that identify it, and how it is opened.

use super::StoreError;
use super::clips::damaged;
use crate::settings::{Mode, RunSettings};
use flipside_core::fnv1a;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, ffi};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The database's file name in the session's folder.
pub(super) const DATABASE: &str = "session.db";

/// The formats that this program writes, stored in the header's `user_version`: that of a session with clips, and that
/// of a session with texts. A change that an older program would misread takes the next free number.
const FORMATS: [u32; 2] = [1, 2];

/// The header's `application_id`, "Flip". It distinguishes a session from any other SQLite file.
const APPLICATION: u32 = u32::from_be_bytes(*b"Flip");

/// The first tables of both kinds of session.
const SETTINGS: &str = "
    -- The run's settings as JSON: one row. checksum: FNV-1a of json.
    CREATE TABLE settings (one INTEGER PRIMARY KEY CHECK (one = 1), json TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;

    -- Single facts: when the session was made, and by which version.
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// A robot's clips.
const CLIPS: &str = "
    -- frames: little-endian f32 of poses [T, B, 7], obs [T, O], actions [T, A] and task reward [T], one after the other.
    -- checksum: FNV-1a over all the other columns, see clips.rs.
    CREATE TABLE clips (
        id INTEGER PRIMARY KEY,
        task TEXT NOT NULL,
        dt REAL NOT NULL,
        recorded_at INTEGER NOT NULL,
        steps INTEGER NOT NULL,
        bodies INTEGER NOT NULL,
        obs_dim INTEGER NOT NULL,
        act_dim INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        frames BLOB NOT NULL
    ) STRICT;
";

/// A language model's completions.
const COMPLETIONS: &str = "
    -- json: the completion with its prompt, tokens, pieces and log-ratios. checksum: FNV-1a of json.
    CREATE TABLE completions (id INTEGER PRIMARY KEY, json TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;
";

/// Pairs of items, judgements and learning curves. The name of the items' table replaces `ITEMS`.
const PAIRS: &str = "
    -- left and right as shown. checksum: as for clips.
    CREATE TABLE pairs (
        id INTEGER PRIMARY KEY,
        left_item INTEGER NOT NULL REFERENCES ITEMS (id),
        right_item INTEGER NOT NULL REFERENCES ITEMS (id),
        reason TEXT NOT NULL,
        asked_at INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;

    -- Judgements and retractions, in the order in which they were made. It only grows: the triggers below hold that even against
    -- a mistake in the program. A retraction names its judgement; the other columns are the judgement's. chain: FNV-1a over the entry
    -- before's chain and this entry, so that a changed or missing entry shows. A trigger (HEAD) keeps the number of the newest entry and
    -- its chain in the table meta, so that a missing end shows too.
    CREATE TABLE log (
        entry INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('judged', 'retracted')),
        judgement INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        pair INTEGER REFERENCES pairs (id),
        choice TEXT,
        teacher TEXT,
        thinking_ms INTEGER,
        chain INTEGER NOT NULL,
        CHECK (kind = 'retracted' OR (pair NOTNULL AND choice NOTNULL AND teacher NOTNULL AND thinking_ms NOTNULL)),
        UNIQUE (judgement, kind)
    ) STRICT;
    CREATE INDEX log_by_pair ON log (pair);
    CREATE TRIGGER log_is_never_changed BEFORE UPDATE ON log
        BEGIN SELECT raise(ABORT, 'the log of judgements only grows'); END;
    CREATE TRIGGER log_is_never_cut BEFORE DELETE ON log
        BEGIN SELECT raise(ABORT, 'the log of judgements only grows'); END;

    -- value is NULL where it was not a number.
    CREATE TABLE metrics (
        entry INTEGER PRIMARY KEY,
        env_steps INTEGER NOT NULL,
        name TEXT NOT NULL,
        value REAL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX metrics_by_env_steps ON metrics (env_steps);
";

/// A trigger that keeps the log's length and the newest entry's chain in the table meta, as `log_head`: `LENGTH CHAIN`.
/// As a trigger, it also follows what a program writes that does not know of the head. Entries are numbered from 1 and
/// never deleted, so the newest entry's number is the log's length. Sessions of version 0.1.0 get the trigger when they
/// are first opened for writing.
const HEAD: &str = "
    CREATE TRIGGER log_head_follows AFTER INSERT ON log BEGIN
        INSERT OR REPLACE INTO meta (name, value) VALUES ('log_head', NEW.entry || ' ' || NEW.chain);
    END;
    INSERT OR REPLACE INTO meta (name, value)
        SELECT 'log_head', entry || ' ' || chain FROM (SELECT entry, chain FROM log UNION ALL SELECT 0, 0) ORDER BY entry DESC LIMIT 1;
";

/// The log's length and its newest entry's chain, as [`HEAD`] keeps them; `None` in a session that was last written
/// before there was a head.
pub(super) fn log_head(db: &Connection) -> rusqlite::Result<Option<(u64, i64)>> {
    let stored: Option<String> =
        db.query_row("SELECT value FROM meta WHERE name = 'log_head'", [], |row| row.get(0)).optional()?;
    let Some(stored) = stored else { return Ok(None) };
    let parsed = stored.split_once(' ').and_then(|(length, chain)| Some((length.parse().ok()?, chain.parse().ok()?)));
    parsed.map(Some).ok_or_else(|| damaged(format!("the log's head cannot be read: `{stored}`")))
}

/// Writes a new, complete database at `path` and closes it. The caller renames it into place, so that a session is
/// never half created.
pub(super) fn write_new(path: &Path, settings: &RunSettings) -> Result<(), StoreError> {
    let db = Connection::open(path).map_err(|e| StoreError::database(path, e, None))?;
    let write = || -> rusqlite::Result<()> {
        db.pragma_update(None, "synchronous", "FULL")?;
        let transaction = db.unchecked_transaction()?;
        db.pragma_update(None, "application_id", APPLICATION)?;
        let (format, items, table) = match settings.mode {
            Mode::Control(_) => (FORMATS[0], CLIPS, "clips"),
            Mode::Text(_) => (FORMATS[1], COMPLETIONS, "completions"),
        };
        db.pragma_update(None, "user_version", format)?;
        db.execute_batch(SETTINGS)?;
        db.execute_batch(items)?;
        db.execute_batch(&PAIRS.replace("ITEMS", table))?;
        db.execute_batch(HEAD)?;
        let meta = [("created_at_ms", now_ms().to_string()), ("created_by", env!("CARGO_PKG_VERSION").to_owned())];
        for (name, value) in meta {
            db.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", (name, value))?;
        }
        put_settings(&db, settings)?;
        transaction.commit()?;
        // Stored in the header, so it holds for every later connection.
        db.pragma_update(None, "journal_mode", "WAL")
    };
    write().map_err(|e| refusal(&db, path, e))?;
    db.close().map_err(|(db, e)| refusal(&db, path, e))
}

/// Writes the single row of settings.
pub(super) fn put_settings(db: &Connection, settings: &RunSettings) -> rusqlite::Result<()> {
    let json = serde_json::to_string(settings).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    db.execute(
        "INSERT OR REPLACE INTO settings (one, json, checksum) VALUES (1, ?1, ?2)",
        (&json, settings_sum(&json)),
    )?;
    Ok(())
}

/// Reads the single row of settings.
pub(super) fn read_settings(db: &Connection) -> rusqlite::Result<RunSettings> {
    let (json, checksum): (String, i64) =
        db.query_row("SELECT json, checksum FROM settings", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if checksum != settings_sum(&json) {
        return Err(damaged("its settings do not match their checksum".to_owned()));
    }
    serde_json::from_str(&json).map_err(|e| damaged(format!("its settings cannot be read: {e}")))
}

fn settings_sum(json: &str) -> i64 {
    fnv1a(json.as_bytes()).cast_signed()
}

/// Checks the database's header without changing anything: that it exists, is Flipside's, and is not newer than this
/// program.
pub(super) fn inspect(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(DATABASE);
    let mut header = [0_u8; 100];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut header));
    let damaged = |reason: &str| Err(StoreError::Damaged { path: path.clone(), reason: reason.to_owned() });
    match read.map_err(|e| (e.kind(), e)) {
        Ok(()) => {}
        Err((io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _)) => {
            return Err(StoreError::NotASession(folder.to_owned()));
        }
        Err((io::ErrorKind::UnexpectedEof, _)) => return damaged("it ends within its first 100 bytes"),
        Err((_, source)) => return Err(StoreError::Io { path, source }),
    }
    // Offsets of https://www.sqlite.org/fileformat.html#the_database_header, all big-endian.
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if !header.starts_with(b"SQLite format 3\0") {
        return damaged("its first bytes are not a database's");
    }
    if word(68) != APPLICATION {
        return Err(StoreError::NotASession(folder.to_owned()));
    }
    check_format(folder, word(60))
}

/// Refuses formats that this program does not know.
fn check_format(folder: &Path, found: u32) -> Result<(), StoreError> {
    match found {
        known if FORMATS.contains(&known) => Ok(()),
        0 => Err(StoreError::Damaged { path: folder.join(DATABASE), reason: "it names no format".to_owned() }),
        _ => Err(StoreError::Newer { path: folder.to_owned(), found, known: FORMATS[1] }),
    }
}

/// Opens an inspected database for writing, checks that it is sound, and makes every commit durable.
pub(super) fn connect(folder: &Path) -> Result<Connection, StoreError> {
    let path = folder.join(DATABASE);
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|e| StoreError::database(&path, e, None))?;
    // Until the database is found to be sound and ours, nothing may change. So closing must not move the write-ahead
    // log into it.
    let set = |merge: bool| db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !merge);
    set(false).map_err(|e| refusal(&db, &path, e))?;
    check_whole(&db, folder)?;
    let tune = || -> rusqlite::Result<()> {
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        // Apple's fsync alone leaves the data in the drive's cache. On other systems these settings do nothing.
        db.pragma_update(None, "fullfsync", true)?;
        db.pragma_update(None, "checkpoint_fullfsync", true)?;
        keep_head(&db)?;
        set(true).map(drop)
    };
    tune().map_err(|e| refusal(&db, &path, e))?;
    Ok(db)
}

/// Adds the trigger that keeps the log's head to a session of version 0.1.0.
fn keep_head(db: &Connection) -> rusqlite::Result<()> {
    const ASK: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = 'log_head_follows'";
    if db.prepare(ASK)?.exists([])? {
        return Ok(());
    }
    let transaction = db.unchecked_transaction()?;
    db.execute_batch(HEAD)?;
    transaction.commit()
}

/// Opens an inspected database for reading only, beside a writer or on a disk that cannot be written.
pub(super) fn connect_to_read(folder: &Path) -> Result<Connection, StoreError> {
    let path = folder.join(DATABASE);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |name: &str, flags| -> Result<Connection, StoreError> {
        let db = Connection::open_with_flags(name, flags).map_err(|e| StoreError::database(&path, e, None))?;
        check_whole(&db, folder)?;
        Ok(db)
    };
    let Some(name) = path.to_str() else {
        return Err(StoreError::database(&path, rusqlite::Error::InvalidPath(path.clone()), None));
    };
    match open(name, flags) {
        // If the write-ahead log's index can be neither found nor created, a database that was closed properly is read
        // as it is.
        Err(StoreError::ReadOnly { .. } | StoreError::Database { .. } | StoreError::Io { .. }) if !has_log(&path) => {
            let escaped = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            open(&format!("file:{escaped}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)
        }
        result => result,
    }
}

/// Whether commits are waiting in a write-ahead log beside the database.
fn has_log(database: &Path) -> bool {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).is_ok_and(|log| log.len() > 0)
}

/// Refuses a database whose pages contradict each other, or that a newer program has begun to write. Its format may
/// still be only in the write-ahead log, which [`inspect`] does not read.
fn check_whole(db: &Connection, folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(DATABASE);
    let ask = || -> rusqlite::Result<(u32, String)> {
        // A reader may hold a lock for a moment. Wait for it rather than fail.
        db.busy_timeout(Duration::from_secs(10))?;
        let format = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let verdict = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((format, verdict))
    };
    let (format, verdict) = ask().map_err(|e| refusal(db, &path, e))?;
    check_format(folder, format)?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Damaged { path, reason: verdict.replace('\n', ", ") }),
    }
}

/// The typed error for what SQLite refused on this connection, including the system's own error.
pub(super) fn refusal(db: &Connection, path: &Path, error: rusqlite::Error) -> StoreError {
    // SAFETY: the handle is valid for as long as `db` is borrowed, and the call only reads a number from it.
    let errno = unsafe { ffi::sqlite3_system_errno(db.handle()) };
    StoreError::database(path, error, (errno != 0).then(|| io::Error::from_raw_os_error(errno)))
}

/// Unix time in milliseconds.
fn now_ms() -> i64 {
    // A clock before 1970 is no reason not to start a session.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as i64)
}
