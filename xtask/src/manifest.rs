//! The list of what a cached libtorch folder holds, written last, by which a whole folder is told from a half one.
//!
//! A folder is taken as whole only if its manifest is there, complete, made by the same recipe, and every file on it
//! has the size it had. That costs one `stat` a file (some 30 ms), so it is done on every run; a disk that filled up, a
//! killed unpacking, a file cut short or a clean-up that went too far all show, and the folder is made again. It does
//! not show changed bytes under an unchanged size: the checksums were for the way here.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Its name, inside the folder that it describes.
pub const NAME: &str = "flipside-manifest.txt";

/// The layout of the folder: raise it when other files are kept, and caches made before are made again.
const RECIPE: &str = "flipside libtorch cache, recipe 1";

#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What is in the folder, such as `2.11.0 cpu`.
    title: String,
    /// Path inside the folder (with `/`), and size in bytes.
    files: BTreeMap<String, u64>,
}

/// Why a folder cannot be used as it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No manifest: never finished, or not made by this program.
    Unfinished,
    /// A manifest that is cut short, of another recipe, or for something else.
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

    /// Puts the manifest into `folder`: under another name, onto the disk, and only then under its own.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let unfinished = folder.join(format!("{NAME}.part"));
        let mut file = File::create(&unfinished)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, folder.join(NAME))
    }

    /// Whether `folder` holds, whole, what `title` stands for.
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

    /// `None` unless every line is there, down to the count at the end.
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

    /// A folder of its own for one test, with two files and a manifest; gone when dropped.
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
        // Python, say, may leave a file of its own: more than was listed is no flaw.
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
        // The last byte is the newline after the count, which changes nothing.
        for length in 0..text.len() - 1 {
            assert_eq!(Manifest::parse(&text[..length]), None, "cut after {length} bytes");
        }
        assert_eq!(Manifest::parse(&text.replace("recipe 1", "recipe 0")), None);
    }
}
