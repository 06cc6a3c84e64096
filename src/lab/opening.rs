//! From settings to what they name: a session that is made or gone on with, and the task that a run plays.

use super::LabError;
use crate::settings::folders::{new_session_folder, task_folders};
use crate::settings::{ControlRun, Mode, RewardSource, RunSettings, TextRun};
use crate::store::{Session, StoreError};
use flipside_envs::gym::{Task, TaskError};
use flipside_envs::physics::{self, PhysicsError, Precision};
use std::path::Path;
use std::sync::Arc;

/// The session that `settings` ask for, and the settings that hold: an existing session's own, but for who answers and how much is planned.
pub(super) fn open_session(asked: RunSettings) -> Result<(Session, RunSettings), LabError> {
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
            let stored = session.settings().clone();
            let mode = match (&stored.mode, &asked.mode) {
                (Mode::Text(stored), Mode::Text(asked)) => Mode::Text(gone_on(stored, asked)),
                (Mode::Control(_), Mode::Text(_)) => {
                    return Err(LabError::Text(format!(
                        "The session in {} teaches a robot; give another folder for text.",
                        folder.display()
                    )));
                }
                (stored, Mode::Control(_)) => stored.clone(),
            };
            let settings = RunSettings {
                teacher: asked.teacher,
                answer_seconds: asked.answer_seconds,
                labels: asked.labels.max(stored.labels),
                env_steps: asked.env_steps.max(stored.env_steps),
                mode,
                ..stored.clone()
            };
            if settings != stored {
                session.put_settings(&settings)?;
            }
            Ok((session, settings))
        }
        Err(StoreError::NotASession(_)) => {
            let settings = RunSettings { mode: check_new(&asked)?, folder: Some(folder.clone()), ..asked };
            Ok((Session::create(&folder, &settings)?, settings))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a folder holds a session.
pub fn is_session(folder: &Path) -> bool {
    !matches!(Session::open_to_read(folder), Err(StoreError::NotASession(_)))
}

/// A run of text that is gone on with: what its stages come from stays, and what is asked for anew may go further.
fn gone_on(stored: &TextRun, asked: &TextRun) -> TextRun {
    let later = asked.until > stored.until;
    TextRun {
        until: asked.until.max(stored.until),
        documents: stored.documents.clone().or(asked.documents.clone()),
        demonstrations: stored.demonstrations.clone().or(asked.demonstrations.clone()),
        comparisons: stored.comparisons.clone().or(asked.comparisons.clone()),
        prompts: stored.prompts.clone().or(asked.prompts.clone()),
        reward_model: stored.reward_model.clone().or(asked.reward_model.clone()),
        // A stage that has not begun takes what it is told now.
        supervised_steps: if later { asked.supervised_steps } else { stored.supervised_steps },
        reward_steps: if later { asked.reward_steps } else { stored.reward_steps },
        updates: if later { asked.updates } else { stored.updates },
        lora: stored.lora.clone().or(if later { asked.lora.clone() } else { None }),
        ..stored.clone()
    }
}

/// Refuses a new run that cannot be. Its task then has its file's name, whatever it was called.
fn check_new(asked: &RunSettings) -> Result<Mode, LabError> {
    match &asked.mode {
        Mode::Text(run) => {
            run.check().map_err(LabError::Text)?;
            Ok(asked.mode.clone())
        }
        Mode::Control(run) => {
            let task = playable(run)?.name().to_owned();
            Ok(Mode::Control(ControlRun { task, ..run.clone() }))
        }
    }
}

/// The task that a new run names, on a backend that holds its robot.
fn playable(run: &ControlRun) -> Result<Task, LabError> {
    let task = load_task(run)?;
    match physics::backend(&run.backend, Precision::default(), task.model().clone(), 1, Some(1)) {
        // The run goes on without a graphics device.
        Ok(_) | Err(PhysicsError::Device(_)) => Ok(task),
        Err(error) => Err(error.into()),
    }
}

/// The task of a run: its file, with the run's overrides in the place of what they name.
pub(super) fn load_task(run: &ControlRun) -> Result<Task, LabError> {
    let task = Task::load_from(&task_folders(), &run.task)?;
    if run.overrides.is_empty() {
        return Ok(task);
    }
    let spec = task.spec().overridden(&run.overrides).map_err(TaskError::from)?;
    Ok(Task::new(spec, task.model().clone())?)
}

/// What is set of a robot's run.
pub(super) fn control_of(settings: &RunSettings) -> Result<&ControlRun, LabError> {
    let no_robot = || LabError::Settings("The run teaches a language model, which has no task.".to_owned());
    settings.control().ok_or_else(no_robot)
}

/// The task as this run plays it: without termination and with a fixed horizon where judgement is the reward, because an episode's end
/// would tell the policy what the reward model has not.
pub(crate) fn task_of(settings: &RunSettings) -> Result<Arc<Task>, LabError> {
    let run = control_of(settings)?;
    let task = load_task(run)?;
    Ok(Arc::new(match run.reward {
        RewardSource::True => task,
        RewardSource::Preferences => task.fixed_horizon(),
    }))
}
