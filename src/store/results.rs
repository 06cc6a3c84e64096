//! Results of a long benchmark, one per line, so that an interrupted run continues where it stopped.

use super::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Appends a result to the file. Creates the file and its folder if needed. The result is on disk when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn append_result(path: &Path, result: &impl Serialize) -> Result<(), StoreError> {
    let failed = |e| StoreError::io(path, e);
    let mut line = serde_json::to_string(result).map_err(|e| failed(e.into()))?;
    line.push('\n');
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// The results in the file; none if there is no file. An incomplete line, left by an interrupted run, is skipped.
///
/// # Errors
/// The file cannot be read.
pub fn read_results<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        assert!(read_results::<u64>(&path).unwrap().is_empty());
        [7_u64, 11].iter().for_each(|n| append_result(&path, n).unwrap());
        fs::write(&path, [fs::read(&path).unwrap(), b"[1".to_vec()].concat()).unwrap();
        assert_eq!(read_results::<u64>(&path).unwrap(), [7_u64, 11]);
    }
}
