//! Tasks and their files. A task is `NAME.toml`. Its robot's MJCF file lies beside it or else among the bundled ones,
//! so that a copied task needs no copy of its robot.
//!
//! [`load`] takes a bundled task's name, Gymnasium's id, or a path. Other folders are searched only if the program
//! names them: see [`Folders`].

mod spec;

pub use spec::{
    BenchmarkSpec, FlipSpec, HealthSpec, Map, Noise, Origin, PlaceSpec, ResetSpec, RewardKind, RewardSpec, SignalSpec,
    Source, SpecError, TaskSpec, overlay, use_names_of_today,
};

use include_dir::{Dir, include_dir};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../envs");

/// A task that can be loaded, or a broken file with the reason.
#[derive(Clone, Debug)]
pub struct TaskEntry {
    /// The file's name without `.toml`.
    pub name: String,
    /// Gymnasium's id, if the task mirrors one.
    pub gymnasium: Option<String>,
    /// The name in the robot picker; the file's name if the file is broken.
    pub title: String,
    /// One sentence.
    pub description: String,
    /// Env steps of a run of this task that is started from the desk.
    pub desk_steps: u64,
    /// The folder that contains it; `None` for a built-in task.
    pub folder: Option<PathBuf>,
    /// What is wrong with the file.
    pub fault: Option<SpecError>,
}

/// The contents of a task's two files.
#[derive(Clone, Debug)]
pub struct TaskFiles {
    /// The task.
    pub spec: TaskSpec,
    /// The robot's MJCF text.
    pub mjcf: String,
    /// The robot's file name, as messages show it.
    pub mjcf_file: String,
    /// The folders of the robot's other files.
    pub assets: AssetFolders,
}

/// The folders that are searched for the files that a robot's file names: its meshes and height fields.
#[derive(Clone, Debug)]
pub struct AssetFolders {
    /// In search order; `None` is the built-in folder.
    folders: Vec<Option<PathBuf>>,
    /// The robot's folder, relative to each of them.
    below: PathBuf,
}

impl AssetFolders {
    /// The bytes of the first file with this path, which is relative to the robot's own folder.
    ///
    /// # Errors
    /// The end of a sentence: the path leads out of the folder, there is no such file, or it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if path.contains('\\') || !Path::new(path).components().all(plain) {
            return Err(format!("{path} leads out of the robot's folder; expected a path inside it"));
        }
        let path = self.below.join(path);
        let there = |folder: &&Option<PathBuf>| match folder {
            Some(folder) => folder.join(&path).is_file(),
            None => BUILT_IN.get_file(&path).is_some(),
        };
        match self.folders.iter().find(there) {
            Some(Some(folder)) => {
                let file = folder.join(&path);
                std::fs::read(&file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
            }
            Some(None) => Ok(BUILT_IN.get_file(&path).map(|file| file.contents().to_vec()).unwrap_or_default()),
            None => {
                let place = |folder: &Option<PathBuf>| match folder {
                    Some(folder) => folder.join(&self.below).display().to_string(),
                    None => "the built-in files".to_owned(),
                };
                let places: Vec<String> = self.folders.iter().map(place).collect();
                Err(format!("there is no such file in {}", places.join(" or ")))
            }
        }
    }
}

/// Why a task could not be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EnvsError {
    /// There is no file and no Gymnasium id of this name.
    #[error("there is no task `{asked}`; there is: {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What exists: `hopper (Hopper-v5)`, …
        known: Vec<String>,
    },
    /// Several files claim the Gymnasium id.
    #[error("`{asked}` is claimed by several tasks ({}): ask for one by its file's name", .claimed_by.join(", "))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// File names.
        claimed_by: Vec<String>,
    },
    /// The task's file is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file could not be read.
    #[error("cannot read {file}: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// The operating system's message.
        reason: String,
    },
}

/// Reads a task. A bundled task is named by its file (`hopper`) or by Gymnasium's id (`Hopper-v5`), in upper or lower
/// case, any other by the path of its file (`my/tiptoe.toml`).
///
/// # Errors
/// An unknown name (the error lists what exists), a wrong file, a missing robot.
pub fn load(name: &str) -> Result<TaskFiles, EnvsError> {
    Folders::default().load(name)
}

/// The folders that are searched before the built-in one, in search order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folders(pub Vec<PathBuf>);

/// The tasks that a [`Folders`] search found: each name with the folder whose file is used; `None` is the built-in one.
type Found = BTreeMap<String, Option<PathBuf>>;

impl Folders {
    /// Every task in these folders and the built-in one, sorted by name.
    pub fn list(&self) -> Vec<TaskEntry> {
        let entry = |(name, folder): (String, Option<PathBuf>)| match self.spec(&name, folder.as_deref()) {
            Ok(spec) => {
                let desk_steps = spec.desk_steps();
                let TaskSpec { gymnasium, title, description, .. } = spec;
                TaskEntry { name, gymnasium, title, description, desk_steps, folder, fault: None }
            }
            Err(error) => {
                let fault = match error {
                    EnvsError::Spec(fault) => fault,
                    other => SpecError { file: format!("{name}.toml"), line: 1, message: other.to_string() },
                };
                let title = name.clone();
                TaskEntry {
                    name,
                    gymnasium: None,
                    title,
                    description: String::new(),
                    desk_steps: TaskSpec::UNHURRIED,
                    folder,
                    fault: Some(fault),
                }
            }
        };
        self.find().into_iter().map(entry).collect()
    }

    /// Reads a task; see [`load`].
    pub fn load(&self, asked: &str) -> Result<TaskFiles, EnvsError> {
        let path = Path::new(asked);
        if let (Some(end), Some(stem)) = (path.extension(), path.file_stem())
            && end == "toml"
        {
            let beside = path.parent().map(Path::to_owned).unwrap_or_default();
            return self.read(&stem.to_string_lossy(), Some(beside));
        }
        let found = self.find();
        let (name, folder) = match found.iter().find(|(name, _)| name.eq_ignore_ascii_case(asked)) {
            Some((name, folder)) => (name.clone(), folder.clone()),
            None => self.by_gymnasium_id(asked)?,
        };
        self.read(&name, folder)
    }

    fn read(&self, name: &str, folder: Option<PathBuf>) -> Result<TaskFiles, EnvsError> {
        let spec = self.spec(name, folder.as_deref())?;
        let (mjcf, mjcf_file, robots) = self.mjcf(&spec, folder.as_deref())?;
        let mut folders = vec![robots];
        for other in self.0.iter().cloned().map(Some).chain([None]) {
            if !folders.contains(&other) {
                folders.push(other);
            }
        }
        let below = Path::new(spec.model.get_ref()).parent().map(Path::to_owned).unwrap_or_default();
        Ok(TaskFiles { spec, mjcf, mjcf_file, assets: AssetFolders { folders, below } })
    }

    fn by_gymnasium_id(&self, asked: &str) -> Result<(String, Option<PathBuf>), EnvsError> {
        let tasks = self.list();
        let claims = |t: &&TaskEntry| t.gymnasium.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(asked));
        let mut claimants: Vec<_> = tasks.iter().filter(claims).collect();
        // If a copy keeps the id of the built-in task it was copied from, the id still means the original.
        let original = |t: &&TaskEntry| BUILT_IN.contains(format!("{}.toml", t.name));
        if claimants.iter().any(original) {
            claimants.retain(original);
        }
        match claimants[..] {
            [task] => Ok((task.name.clone(), task.folder.clone())),
            [] => {
                let known = |t: &TaskEntry| match &t.gymnasium {
                    Some(id) => format!("{} ({id})", t.name),
                    None => t.name.clone(),
                };
                Err(EnvsError::Unknown { asked: asked.to_owned(), known: tasks.iter().map(known).collect() })
            }
            ref several => Err(EnvsError::Ambiguous {
                asked: asked.to_owned(),
                claimed_by: several.iter().map(|t| t.name.clone()).collect(),
            }),
        }
    }

    /// Each task's name and the folder whose file is used. A missing folder counts as empty.
    fn find(&self) -> Found {
        let task_name = |path: &Path| match path.extension() {
            Some(end) if end == "toml" => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
            _ => None,
        };
        let mut found: Found = BUILT_IN.files().filter_map(|f| Some((task_name(f.path())?, None))).collect();
        for folder in self.0.iter().rev() {
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
            found.extend(files.filter_map(|f| Some((task_name(&f.path())?, Some(folder.clone())))));
        }
        found
    }

    fn spec(&self, name: &str, folder: Option<&Path>) -> Result<TaskSpec, EnvsError> {
        let (text, file) = read(Path::new(&format!("{name}.toml")), folder)?;
        Ok(TaskSpec::parse(&text, name, &file)?)
    }

    /// The robot's text, file name and folder. The file is looked for beside the task, then in the folders in their
    /// order. A built-in task searches the folders first, so that an overriding robot applies to it too.
    fn mjcf(&self, spec: &TaskSpec, beside: Option<&Path>) -> Result<(String, String, Option<PathBuf>), EnvsError> {
        let path = Path::new(spec.model.get_ref());
        let folders = beside.into_iter().chain(self.0.iter().map(PathBuf::as_path)).map(Some).chain([None]);
        let there = |folder: &Option<&Path>| match folder {
            Some(folder) => folder.join(path).is_file(),
            None => BUILT_IN.get_file(path).is_some(),
        };
        match folders.into_iter().find(there) {
            Some(folder) => {
                let (text, file) = read(path, folder)?;
                Ok((text, file, folder.map(Path::to_owned)))
            }
            None => {
                let place = beside.map_or("among the built-in files".to_owned(), |f| format!("in {}", f.display()));
                let message = format!("expected the robot's MJCF file: there is no {} {place}", path.display());
                Err(spec.origin.error(spec.model.span(), message).into())
            }
        }
    }
}

/// The text of a file in one folder, and the name that messages use for it.
fn read(path: &Path, folder: Option<&Path>) -> Result<(String, String), EnvsError> {
    let (text, file) = match folder {
        Some(folder) => {
            let file = folder.join(path);
            (std::fs::read_to_string(&file).map_err(|e| e.to_string()), file)
        }
        None => {
            let text = BUILT_IN.get_file(path).and_then(|f| f.contents_utf8());
            (text.map(str::to_owned).ok_or("it is not text".to_owned()), Path::new("envs").join(path))
        }
    };
    let file = file.display().to_string();
    match text {
        Ok(text) => Ok((text, file)),
        Err(reason) => Err(EnvsError::Unreadable { file, reason }),
    }
}
