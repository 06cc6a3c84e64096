//! Where files are kept on this machine.

use directories::ProjectDirs;
use flipside_envs::tasks::Folders;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The environment variable that names another folder for sessions.
pub const SESSIONS_VARIABLE: &str = "FLIPSIDE_SESSIONS";

/// Why there is no folder for a session.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system has no home folder.
    #[error("this system names no home folder to keep sessions in; set FLIPSIDE_SESSIONS to a folder of yours")]
    NoHome,
    /// The folder cannot be created.
    #[error("the folder {} could not be made ({source}); set FLIPSIDE_SESSIONS to a folder that you can write", path.display())]
    CannotMake {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The folders that are searched for a person's own tasks: first the one that `FLIPSIDE_ENVS` names, if it is set, then
/// `envs` in the working directory.
pub fn task_folders() -> Folders {
    let own = env::var_os("FLIPSIDE_ENVS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    Folders(own.into_iter().chain([PathBuf::from("envs")]).collect())
}

/// The folder that holds the sessions: the one that `FLIPSIDE_SESSIONS` names, otherwise `flipside/sessions` in the
/// system's folder for program data (`~/.local/share` on Linux). It need not exist yet.
pub fn sessions_folder() -> Result<PathBuf, FolderError> {
    let data = ProjectDirs::from("", "", "flipside").map(|dirs| dirs.data_dir().to_owned());
    choose(env::var_os(SESSIONS_VARIABLE), data)
}

/// The cache folder, if this system has one (`~/.cache/flipside` on Linux). It holds what can be computed again and is
/// kept to save time. It need not exist yet.
pub fn cache_folder() -> Option<PathBuf> {
    ProjectDirs::from("", "", "flipside").map(|dirs| dirs.cache_dir().to_owned())
}

/// Makes a new, empty folder for a session of this task. Its name is the task and the time (UTC), e.g.
/// `hopper-2026-11-23-194501`, with `-2`, `-3`, … if that exists. The folder is created by this call, so two callers
/// never get the same one.
pub fn new_session_folder(task: &str) -> Result<PathBuf, FolderError> {
    // A clock before 1970 only gives a wrong name, which does no harm.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    make_in(&sessions_folder()?, task, now)
}

fn choose(named: Option<OsString>, data: Option<PathBuf>) -> Result<PathBuf, FolderError> {
    match named.filter(|folder| !folder.is_empty()) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => data.map(|data| data.join("sessions")).ok_or(FolderError::NoHome),
    }
}

fn make_in(root: &Path, task: &str, unix_seconds: u64) -> Result<PathBuf, FolderError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError::CannotMake { path, source }
    };
    fs::create_dir_all(root).map_err(failed(root))?;
    let name = format!("{}-{}", plain(task), stamp(unix_seconds));
    for attempt in 1.. {
        let path = root.join(if attempt == 1 { name.clone() } else { format!("{name}-{attempt}") });
        match fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path.clone()).map_err(failed(&path)),
        }
    }
    unreachable!("one of the names is free")
}

/// The task's name without characters that are special in a path or a shell.
fn plain(task: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    task.chars().map(kept).collect()
}

/// A Unix time as date and time, UTC: `2026-11-23-194501`.
fn stamp(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Converts days to a date by eras of 400 years that begin on 1 March, after Howard Hinnant, "chrono-Compatible
    // Low-Level Date Algorithms", civil_from_days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds were computed with `date -u -d '…' +%s`.
    #[test]
    fn stamps_agree_with_date() {
        for (seconds, expected) in [
            (0, "1970-01-01-000000"),
            (951_782_399, "2000-02-28-235959"),
            (951_782_400, "2000-02-29-000000"),
            (1_709_251_199, "2024-02-29-235959"),
            (1_795_463_101, "2026-11-23-194501"),
            (1_798_761_599, "2026-12-31-235959"),
            (4_107_542_400, "2100-03-01-000000"),
        ] {
            assert_eq!(stamp(seconds), expected);
        }
    }

    #[test]
    fn a_new_folder_is_never_an_existing_one() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("not/there/yet");
        let names: Vec<String> = (0..3)
            .map(|_| make_in(&root, "Hopper-v5", 1_795_463_101).unwrap())
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        let first = "hopper-v5-2026-11-23-194501";
        assert_eq!(names, [first.to_owned(), format!("{first}-2"), format!("{first}-3")]);
        assert_eq!(plain("../my robot"), "---my-robot");
    }

    #[test]
    fn the_variable_comes_first() {
        let data = Some(PathBuf::from("/home/a/.local/share/flipside"));
        assert_eq!(choose(Some("/x".into()), data.clone()).unwrap(), Path::new("/x"));
        assert_eq!(choose(Some("".into()), data.clone()).unwrap(), Path::new("/home/a/.local/share/flipside/sessions"));
        assert_eq!(choose(None, data).unwrap(), Path::new("/home/a/.local/share/flipside/sessions"));
        assert!(matches!(choose(None, None), Err(FolderError::NoHome)));
    }
}
