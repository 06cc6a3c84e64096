//! Turns settings into what they name: a session that is created or resumed, and the task that a run uses.

use super::{LabError, going_on};
use crate::settings::folders::new_session_folder;
use crate::settings::{ControlRun, Mode, RewardSource, RunSettings};
use crate::store::{Checkpoint, Session, StoreError};
use flipside_envs::gym::{Task, TaskError};
use flipside_envs::physics::{self, PhysicsError, Precision};
use flipside_envs::tasks::Folders;
use std::path::Path;
use std::sync::Arc;

/// An open session, the settings in force, and its checkpoint if it has been trained.
pub(super) struct Opened {
    pub session: Session,
    pub settings: RunSettings,
    pub checkpoint: Option<Checkpoint>,
}

/// The session that `settings` ask for: a new one, or the existing one in their folder. An existing session keeps its
/// own settings, except for those that were asked for and may change.
pub(super) fn open_session(asked: RunSettings) -> Result<Opened, LabError> {
    let folder = match asked.folder.clone() {
        Some(folder) => folder,
        None => {
            // The names are checked before a folder is made for them.
            check_new(&asked)?;
            new_session_folder(asked.task())?
        }
    };
    match Session::open(&folder) {
        Ok(mut session) => {
            let checkpoint = session.load_checkpoint()?;
            let stored = RunSettings { task_folders: asked.task_folders.clone(), ..session.settings().clone() };
            let settings = going_on::go_on(&stored, &asked, checkpoint.as_ref().map(|loaded| &loaded.arrays))?;
            if settings != stored {
                session.put_settings(&settings)?;
            }
            Ok(Opened { session, settings, checkpoint })
        }
        Err(StoreError::NotASession(_)) => {
            let settings = RunSettings { mode: check_new(&asked)?, folder: Some(folder.clone()), ..asked };
            Ok(Opened { session: Session::create(&folder, &settings)?, settings, checkpoint: None })
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a folder holds a session.
pub fn is_session(folder: &Path) -> bool {
    !matches!(Session::open_to_read(folder), Err(StoreError::NotASession(_)))
}

/// Refuses a new run that cannot work. In the returned mode the task has the name under which a session
/// stores it.
fn check_new(asked: &RunSettings) -> Result<Mode, LabError> {
    match &asked.mode {
        Mode::Text(run) => {
            run.check().map_err(LabError::Text)?;
            Ok(asked.mode.clone())
        }
        Mode::Control(run) => {
            let task = name_to_keep(&run.task, &playable(&asked.task_folders, run)?);
            Ok(Mode::Control(ControlRun { task, ..run.clone() }))
        }
    }
}

/// The name under which a session stores a task, whichever of its names was given. A known task is stored by its file's
/// name, any other by the absolute path of its file.
pub(super) fn name_to_keep(asked: &str, task: &Task) -> String {
    let path = Path::new(asked);
    let whole = path.extension().filter(|end| *end == "toml").and_then(|_| std::path::absolute(path).ok());
    whole.map_or_else(|| task.name().to_owned(), |path| path.display().to_string())
}

/// The task that a new run names. Refuses a backend that cannot simulate its robot.
fn playable(folders: &Folders, run: &ControlRun) -> Result<Task, LabError> {
    let task = load_task(folders, run)?;
    match physics::backend(&run.backend, Precision::default(), task.model().clone(), 1, Some(1)) {
        // A missing GPU is no error: the run then uses the CPU.
        Ok(_) | Err(PhysicsError::Device(_)) => Ok(task),
        Err(error) => Err(error.into()),
    }
}

/// The task of a run: its file, which is searched for in `folders` and then among the bundled ones, with the run's
/// overrides applied.
pub(super) fn load_task(folders: &Folders, run: &ControlRun) -> Result<Task, LabError> {
    let task = Task::load_from(folders, &run.task)?;
    if run.overrides.is_empty() {
        return Ok(task);
    }
    let spec = task.spec().overridden(&run.overrides).map_err(TaskError::from)?;
    Ok(Task::new(spec, task.model().clone())?)
}

/// The settings of a robot's run.
pub(super) fn control_of(settings: &RunSettings) -> Result<&ControlRun, LabError> {
    let no_robot = || LabError::Settings("The run teaches a language model, which has no task.".to_owned());
    settings.control().ok_or_else(no_robot)
}

/// The task as this run uses it. If the reward is learned from judgements, episodes have a fixed length and never
/// terminate: the end of an episode would tell the policy something that the reward model has not.
pub(crate) fn task_of(settings: &RunSettings) -> Result<Arc<Task>, LabError> {
    let run = control_of(settings)?;
    let task = load_task(&settings.task_folders, run)?;
    Ok(Arc::new(match run.reward {
        RewardSource::True => task,
        RewardSource::Preferences => task.fixed_horizon(),
    }))
}
