//! The list of what a cached libtorch folder contains. It is written last, so it tells a complete folder from a partial
//! one.
//!
//! A folder counts as complete only if its manifest exists, is complete, has the current recipe, and every file on it
//! has the listed size. The check costs one `stat` a file (some 30 ms), so it runs every time. It notices a disk that
//! filled up, unpacking that was killed, a file that was cut short, and a clean-up that removed too much. The folder is
//! then made again. It does not notice changed bytes in a file of unchanged size: the checksums guard the download
//! only.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The manifest's name inside the folder that it describes.
pub const NAME: &str = "flipside-manifest.txt";

/// The layout of the folder. Raise it when other files are kept: caches that were made before are then made again.
const RECIPE: &str = "flipside libtorch cache, recipe 1";

#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What is in the folder, such as `2.11.0 cpu`.
    title: String,
    /// Path inside the folder (with `/`) → size in bytes.
    files: BTreeMap<String, u64>,
}

/// Why a folder cannot be used as it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is no manifest: the folder was never finished, or this program did not make it.
    Unfinished,
    /// The manifest is cut short, of another recipe, or for something else.
    Foreign,
    Missing(String),
    Size {
        file: String,
        expected: u64,
        found: u64,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Unfinished => write!(out, "it was never finished"),
            Flaw::Foreign => write!(out, "it was made for something else"),
            Flaw::Missing(file) => write!(out, "{file} is gone"),
            Flaw::Size { file, expected, found } => write!(out, "{file} has {found} bytes, not {expected}"),
        }
    }
}

impl Manifest {
    /// Lists every file in `folder`.
    pub fn of(title: &str, folder: &Path) -> io::Result<Manifest> {
        let mut files = BTreeMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(relative) = pending.pop() {
            for entry in fs::read_dir(folder.join(&relative))? {
                let entry = entry?;
                let path = relative.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    pending.push(path);
                } else if path != Path::new(NAME) {
                    files.insert(path.to_string_lossy().into_owned(), entry.metadata()?.len());
                }
            }
        }
        Ok(Manifest { title: title.to_owned(), files })
    }

    /// Writes the manifest into `folder`: first under another name, synced to disk, then renamed.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let unfinished = folder.join(format!("{NAME}.part"));
        let mut file = File::create(&unfinished)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, folder.join(NAME))
    }

    /// Checks that `folder` holds everything that `title` stands for.
    pub fn check(title: &str, folder: &Path) -> Result<(), Flaw> {
        let text = fs::read_to_string(folder.join(NAME)).map_err(|_| Flaw::Unfinished)?;
        let manifest = Manifest::parse(&text).filter(|manifest| manifest.title == title).ok_or(Flaw::Foreign)?;
        for (file, &expected) in &manifest.files {
            let found = fs::metadata(folder.join(file)).map_err(|_| Flaw::Missing(file.clone()))?.len();
            if found != expected {
                return Err(Flaw::Size { file: file.clone(), expected, found });
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("{RECIPE}\n{}\n", self.title);
        for (file, size) in &self.files {
            text.push_str(&format!("{size}\t{file}\n"));
        }
        text.push_str(&format!("end\t{}\n", self.files.len()));
        text
    }

    /// `None` unless every line is present, down to the count at the end.
    fn parse(text: &str) -> Option<Manifest> {
        let mut lines = text.lines();
        if lines.next()? != RECIPE {
            return None;
        }
        let title = lines.next()?.to_owned();
        let mut files = BTreeMap::new();
        for line in lines {
            let (size, file) = line.split_once('\t')?;
            if size == "end" {
                return (file.parse() == Ok(files.len())).then_some(Manifest { title, files });
            }
            files.insert(file.to_owned(), size.parse().ok()?);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary folder for one test, with two files and a manifest; removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("flipside-xtask-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("lib")).unwrap();
            fs::create_dir_all(path.join("include/deep/er")).unwrap();
            fs::write(path.join("lib/libtorch_cpu.so"), vec![7; 5000]).unwrap();
            fs::write(path.join("include/deep/er/torch.h"), "#pragma once\n").unwrap();
            Manifest::of("2.11.0 cpu", &path).unwrap().write(&path).unwrap();
            Folder(path)
        }

        fn check(&self) -> Result<(), Flaw> {
            Manifest::check("2.11.0 cpu", &self.0)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_whole_folder_is_whole() {
        let folder = Folder::new("whole");
        assert_eq!(folder.check(), Ok(()));
        assert_eq!(Manifest::check("2.11.0 cuda", &folder.0), Err(Flaw::Foreign));
        // Python, for example, may leave files of its own. A file that is not listed is no flaw.
        fs::write(folder.0.join("lib/other.so"), "").unwrap();
        assert_eq!(folder.check(), Ok(()));
    }

    #[test]
    fn a_file_cut_short_or_gone_is_found() {
        let folder = Folder::new("cut");
        let library = folder.0.join("lib/libtorch_cpu.so");
        File::options().write(true).open(&library).unwrap().set_len(4096).unwrap();
        let flaw = Flaw::Size { file: "lib/libtorch_cpu.so".to_owned(), expected: 5000, found: 4096 };
        assert_eq!(folder.check(), Err(flaw));
        fs::remove_file(&library).unwrap();
        assert_eq!(folder.check(), Err(Flaw::Missing("lib/libtorch_cpu.so".to_owned())));
    }

    #[test]
    fn an_unfinished_folder_is_not_taken_as_whole() {
        let folder = Folder::new("unfinished");
        fs::rename(folder.0.join(NAME), folder.0.join(format!("{NAME}.part"))).unwrap();
        assert_eq!(folder.check(), Err(Flaw::Unfinished));
        assert_eq!(Manifest::check("2.11.0 cpu", Path::new("/nowhere/at/all")), Err(Flaw::Unfinished));
    }

    #[test]
    fn a_manifest_cut_anywhere_is_refused() {
        let folder = Folder::new("manifest");
        let text = fs::read_to_string(folder.0.join(NAME)).unwrap();
        assert!(Manifest::parse(&text).is_some());
        // The last byte is the newline after the count, which does not matter.
        for length in 0..text.len() - 1 {
            assert_eq!(Manifest::parse(&text[..length]), None, "cut after {length} bytes");
        }
        assert_eq!(Manifest::parse(&text.replace("recipe 1", "recipe 0")), None);
    }
}
