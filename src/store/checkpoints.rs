//! Checkpoints: the state of training from which a run continues.

use super::session::CHECKPOINTS;
use super::{Session, StoreError, arrays_file, disk};
use flipside_core::Arrays;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The version that this program writes, of [`CheckpointHeader`] and of the layout of the arrays.
const VERSION: u32 = 1;

/// How many unnamed checkpoints stay on disk: the newest, and the one before it in case the newest is damaged.
const UNNAMED: usize = 2;

/// Attempts at reading. The writing process may replace the files between listing and reading them.
const TRIES: usize = 5;

/// What a checkpoint holds besides its arrays. It is JSON in the file's metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointHeader {
    /// The layout's version. The store sets it when it saves.
    pub version: u32,
    /// What the arrays are, e.g. `run`.
    pub what: String,
    /// Env steps of training done when it was saved.
    pub env_steps: u64,
    /// Whatever else the writer needs to continue and that is not an array.
    #[serde(default)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl CheckpointHeader {
    /// A header without further entries.
    pub fn new(what: &str, env_steps: u64) -> CheckpointHeader {
        CheckpointHeader { version: VERSION, what: what.to_owned(), env_steps, more: serde_json::Map::new() }
    }
}

/// A checkpoint as it was read from disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its header.
    pub header: CheckpointHeader,
    /// The arrays, bit for bit as they were saved.
    pub arrays: Arrays,
    /// Its file.
    pub path: PathBuf,
    /// A sentence for the person, if a newer checkpoint was damaged and this one replaces it.
    pub warning: Option<String>,
}

impl Session {
    /// Saves a checkpoint completely or not at all. It is on disk when this returns. The one before it stays, older
    /// ones are deleted.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`]; the earlier checkpoints are then unchanged.
    pub fn save_checkpoint(&mut self, header: &CheckpointHeader, arrays: &Arrays) -> Result<PathBuf, StoreError> {
        let numbers = self.numbers()?;
        let number = numbers.last().map_or(1, |n| n + 1);
        let path = self.numbered(number);
        self.save_at(&path, header, arrays)?;
        // A damaged checkpoint does not count. Otherwise the last sound one would be deleted for it.
        let sound = numbers.iter().rev().filter(|n| !self.damaged.contains(n));
        if let Some(&oldest) = sound.take(UNNAMED - 1).last() {
            for &old in numbers.iter().filter(|&&n| n < oldest) {
                let path = self.numbered(old);
                fs::remove_file(&path).map_err(|e| StoreError::io(&path, e))?;
            }
        }
        Ok(path)
    }

    /// The newest sound checkpoint; `None` if none was ever saved.
    ///
    /// # Errors
    /// [`StoreError::DamagedCheckpoint`] if there are some but all are damaged; [`StoreError::Newer`] if the newest was
    /// written by a newer program. That is not damage, and falling back to an older one would lose its training.
    pub fn load_checkpoint(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        let mut newest_damage: Option<(PathBuf, String)> = None;
        let mut tries = TRIES;
        'list: loop {
            for number in self.numbers()?.into_iter().rev() {
                let path = self.numbered(number);
                match read(&path)? {
                    Read::Sound(mut checkpoint) => {
                        checkpoint.warning = newest_damage.as_ref().map(|(path, reason)| {
                            format!(
                                "{} is damaged ({reason}), so training goes on from the checkpoint before it, at {} steps; \
                                 every judgement is kept",
                                path.display(),
                                checkpoint.header.env_steps
                            )
                        });
                        return Ok(Some(*checkpoint));
                    }
                    Read::Damaged(reason) => {
                        self.damaged.insert(number);
                        newest_damage.get_or_insert((path, reason));
                    }
                    Read::Gone if tries > 0 => {
                        tries -= 1;
                        newest_damage = None;
                        continue 'list;
                    }
                    Read::Gone => {}
                }
            }
            break;
        }
        match newest_damage {
            None => Ok(None),
            Some((path, reason)) => Err(StoreError::DamagedCheckpoint { path, reason }),
        }
    }

    /// Saves a checkpoint under a name, e.g. `initial` for the untrained policy. It stays until the same name is saved
    /// again. A name consists of `a`–`z`, `0`–`9`, `-` and `_`, and does not begin with `checkpoint`.
    pub fn save_named(
        &mut self,
        name: &str,
        header: &CheckpointHeader,
        arrays: &Arrays,
    ) -> Result<PathBuf, StoreError> {
        let path = self.named(name)?;
        self.save_at(&path, header, arrays)?;
        Ok(path)
    }

    /// The checkpoint of this name; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::DamagedCheckpoint`], [`StoreError::Newer`].
    pub fn load_named(&self, name: &str) -> Result<Option<Checkpoint>, StoreError> {
        let path = self.named(name)?;
        match read(&path)? {
            Read::Sound(checkpoint) => Ok(Some(*checkpoint)),
            Read::Gone => Ok(None),
            Read::Damaged(reason) => Err(StoreError::DamagedCheckpoint { path, reason }),
        }
    }

    fn save_at(&self, path: &Path, header: &CheckpointHeader, arrays: &Arrays) -> Result<(), StoreError> {
        self.must_be_writable()?;
        let unsound = |reason: String| StoreError::Unsound { what: "the checkpoint".to_owned(), reason };
        for (name, array) in arrays {
            let (expected, there) = (array.shape.iter().product::<usize>(), array.data.len());
            if expected != there {
                return Err(unsound(format!("array {name} has {there} numbers for shape {:?}", array.shape)));
            }
        }
        let header = CheckpointHeader { version: VERSION, ..header.clone() };
        let header = serde_json::to_string(&header).map_err(|e| unsound(e.to_string()))?;
        disk::write_whole(path, &arrays_file::encode(&header, arrays).map_err(unsound)?)
    }

    /// The numbers of the unnamed checkpoints, ascending.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let folder = self.folder().join(CHECKPOINTS);
        let failed = |e| StoreError::io(&folder, e);
        let mut numbers = Vec::new();
        match fs::read_dir(&folder) {
            // A session that was copied without its checkpoints can be trained from the start.
            Err(e) if e.kind() == ErrorKind::NotFound && self.must_be_writable().is_ok() => {
                fs::create_dir_all(&folder).map_err(failed)?;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            entries => {
                for entry in entries.map_err(failed)? {
                    let name = entry.map_err(failed)?.file_name();
                    let number =
                        name.to_str().and_then(|n| n.strip_prefix("checkpoint-")?.strip_suffix(".safetensors"));
                    numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
                }
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.folder().join(CHECKPOINTS).join(format!("checkpoint-{number:08}.safetensors"))
    }

    fn named(&self, name: &str) -> Result<PathBuf, StoreError> {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !plain || name.is_empty() || name.starts_with("checkpoint") {
            return Err(StoreError::Unsound {
                what: format!("a snapshot named {name:?}"),
                reason: "a name is of a-z, 0-9, - and _, and does not begin with \"checkpoint\"".to_owned(),
            });
        }
        Ok(self.folder().join(CHECKPOINTS).join(format!("{name}.safetensors")))
    }
}

/// What was found at a checkpoint's path.
enum Read {
    Sound(Box<Checkpoint>),
    Damaged(String),
    Gone,
}

fn read(path: &Path) -> Result<Read, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Read::Gone),
        Err(e) => return Err(StoreError::Io { path: path.to_owned(), source: e }),
    };
    let (header, arrays) = match arrays_file::decode(&bytes) {
        Ok(sound) => sound,
        Err(reason) => return Ok(Read::Damaged(reason)),
    };
    // Read the version first, because a newer header may have other fields.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_str::<Version>(&header) {
        Ok(Version { version: found }) if found > VERSION => {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
        }
        _ => {}
    }
    Ok(match serde_json::from_str(&header) {
        Ok(header) => Read::Sound(Box::new(Checkpoint { header, arrays, path: path.to_owned(), warning: None })),
        Err(e) => Read::Damaged(format!("its header cannot be read: {e}")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::clips::fixtures::session;
    use super::*;
    use flipside_core::Array;

    fn arrays(x: u64) -> Arrays {
        let weights = (0..50).map(|i| (x * 100 + i) as f32).collect();
        Arrays::from([("w".to_owned(), Array::f32(&[5, 10], weights)), ("stream".to_owned(), Array::u64(vec![!x; 4]))])
    }

    fn save(session: &mut Session, x: u64) -> PathBuf {
        session.save_checkpoint(&CheckpointHeader::new("run", x), &arrays(x)).unwrap()
    }

    fn damage(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.len() - 50;
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn steps(session: &mut Session) -> (u64, Option<String>) {
        let checkpoint = session.load_checkpoint().unwrap().unwrap();
        assert_eq!(checkpoint.arrays, arrays(checkpoint.header.env_steps));
        (checkpoint.header.env_steps, checkpoint.warning)
    }

    #[test]
    fn the_newest_is_loaded_and_two_stay() {
        let (_folder, mut session) = session();
        assert_eq!(session.load_checkpoint().unwrap(), None);
        session.save_named("initial", &CheckpointHeader::new("policy", 0), &arrays(0)).unwrap();
        for x in 1..=5 {
            save(&mut session, x);
            assert_eq!(steps(&mut session), (x, None));
        }
        let folder = session.folder().join(CHECKPOINTS);
        let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(
            names,
            ["checkpoint-00000004.safetensors", "checkpoint-00000005.safetensors", "initial.safetensors"]
        );
        assert_eq!(session.load_named("initial").unwrap().unwrap().arrays, arrays(0));
        assert_eq!(session.load_named("final").unwrap(), None);
        for name in ["", "../x", "checkpoint-1", "A b"] {
            assert!(matches!(session.load_named(name), Err(StoreError::Unsound { .. })), "{name}");
        }
    }

    #[test]
    fn a_damaged_newest_gives_way_to_the_one_before_and_never_pushes_it_out() {
        let (_folder, mut session) = session();
        save(&mut session, 1);
        damage(&save(&mut session, 2));
        let (env_steps, warning) = steps(&mut session);
        let warning = warning.unwrap();
        assert_eq!(env_steps, 1);
        assert!(warning.contains("checkpoint-00000002.safetensors is damaged") && warning.contains("at 1 steps"));

        let third = save(&mut session, 3);
        damage(&third);
        assert_eq!(steps(&mut session).0, 1, "the sound one must still be there");
        save(&mut session, 4);
        save(&mut session, 5);
        assert_eq!(steps(&mut session), (5, None));
        assert!(!third.exists());

        for number in session.numbers().unwrap() {
            damage(&session.numbered(number));
        }
        let error = session.load_checkpoint().unwrap_err();
        assert!(matches!(error, StoreError::DamagedCheckpoint { .. }), "{error}");
        assert!(error.to_string().contains("the judgements are"), "{error}");
    }

    #[test]
    fn a_newer_checkpoint_is_not_taken_for_damage() {
        let (_folder, mut session) = session();
        save(&mut session, 1);
        let path = save(&mut session, 2);
        let newer = arrays_file::encode(r#"{"version": 2, "unheard": "of"}"#, &arrays(2)).unwrap();
        fs::write(&path, &newer).unwrap();
        let error = session.load_checkpoint().unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), newer);
    }

    #[test]
    fn what_a_killed_save_left_is_swept_at_the_next_opening() {
        let (_folder, mut session) = session();
        let path = save(&mut session, 1);
        let half = disk::partial(&session.numbered(2));
        fs::write(&half, &fs::read(&path).unwrap()[..100]).unwrap();
        let folder = session.folder().to_owned();
        drop(session);
        let mut session = Session::open(&folder).unwrap();
        assert!(!half.exists());
        assert_eq!(steps(&mut session), (1, None));
    }
}
