//! Work for the command line on sessions that are not running: lists, replays and exports.

use super::{LabError, SavedPolicy};
use crate::store::npz::{self, Axis, Values};
use crate::store::{LabelFrames, PolicyMetadata, Session, export_policy};
use flipside_envs::gym::{RolloutOut, Task, rollout_from};
use flipside_envs::physics::{self, Precision};
use flipside_envs::tasks::Folders;
use flipside_learn::{CudaLibrary, Policy, cuda_devices, cuda_library};
use serde::Serialize;
use std::path::Path;

/// A task, as shown in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskLine {
    /// Its file's name.
    pub name: String,
    /// Gymnasium's id, if it has one.
    pub gymnasium: Option<String>,
    /// Its title in the desk's list of tasks.
    pub title: String,
    /// A description in one sentence.
    pub description: String,
    /// Env steps of a run of this task that is started at the desk.
    pub desk_steps: u64,
    /// Why it cannot be used; `None` if it can.
    pub fault: Option<String>,
}

/// The tasks in these folders and the bundled ones, sorted by name. A task with a wrong file has its `fault` set.
pub fn tasks(folders: &Folders) -> Vec<TaskLine> {
    folders
        .list()
        .into_iter()
        .map(|entry| TaskLine {
            name: entry.name,
            gymnasium: entry.gymnasium,
            title: entry.title,
            description: entry.description,
            desk_steps: entry.desk_steps,
            fault: entry.fault.map(|fault| fault.to_string()),
        })
        .collect()
}

/// The task of this name, in these folders or bundled.
///
/// # Errors
///
/// An unknown name, or a wrong file.
pub fn task(folders: &Folders, name: &str) -> Result<Task, LabError> {
    Ok(Task::load_from(folders, name)?)
}

/// Worlds that a replay steps in parallel.
const REPLAY_WORLDS: usize = 64;

/// Reads qpos `[N, nq]`, qvel `[N, nv]` and ctrl `[N, T, nu]` from an npz file, steps each state under its controls,
/// and writes qpos, qvel, obs, reward and terminated, `[N, T, …]`, to another. Nothing is reset in between.
///
/// # Errors
///
/// Unknown names, arrays that are missing or do not fit the robot, files that cannot be read or written.
pub fn replay(task: &Task, backend: &str, precision: Precision, input: &Path, output: &Path) -> Result<(), LabError> {
    let model = task.model().clone();
    let (nq, nv, nu, o) = (model.nq(), model.nv(), model.nu(), task.obs_dim());
    let (n, t) = (Axis::Free("N"), Axis::Free("T"));
    let read = npz::read(
        input,
        &[
            ("qpos", &[n, Axis::Exactly("nq", nq)]),
            ("qvel", &[n, Axis::Exactly("nv", nv)]),
            ("ctrl", &[n, t, Axis::Exactly("nu", nu)]),
        ],
    )?;
    let [qpos, qvel, ctrl] = [0, 1, 2].map(|i| &read[i].values);
    let worlds = read[0].shape[0].clamp(1, REPLAY_WORLDS);
    let mut backend = physics::backend(backend, precision, model, worlds, None)?;
    let RolloutOut { trajectories: n, steps: t, qpos, qvel, obs, reward, terminated } =
        rollout_from(task, &mut *backend, qpos, qvel, ctrl)?;
    npz::write(
        output,
        &[
            ("qpos", &[n, t, nq], Values::F64(&qpos)),
            ("qvel", &[n, t, nv], Values::F64(&qvel)),
            ("obs", &[n, t, o], Values::F64(&obs)),
            ("reward", &[n, t], Values::F64(&reward)),
            ("terminated", &[n, t], Values::Bool(&terminated)),
        ],
    )?;
    Ok(())
}

/// Writes the standing judgements of a session as JSON lines, with their clips' observations and actions. Returns their
/// number.
///
/// # Errors
///
/// A folder without a session, a damaged one, a file that cannot be written.
pub fn export_labels(folder: &Path, output: &Path) -> Result<usize, LabError> {
    Ok(Session::open_to_read(folder)?.export_labels(output, LabelFrames::With)?)
}

/// Writes the policy of a session as safetensors: `actor.N.weight`, `actor.N.bias`, `log_std`, `obs_mean`, `obs_var`.
///
/// # Errors
///
/// A folder without a session or without a checkpoint, a damaged one, a file that cannot be written.
pub fn export_policy_of(folder: &Path, task_folders: &Folders, output: &Path) -> Result<(), LabError> {
    let saved = SavedPolicy::load(folder, task_folders)?;
    let metadata = PolicyMetadata {
        task: saved.task.name().to_owned(),
        env_steps: saved.env_steps,
        seed: saved.settings.seed,
        obs_epsilon: Policy::OBS_EPSILON,
        obs_clip: Policy::OBS_CLIP,
    };
    export_policy(output, &saved.policy.to_arrays(), &metadata)?;
    Ok(())
}

/// A description of the devices that libtorch can compute on, and the number of CUDA devices.
pub fn libtorch_devices() -> (String, usize) {
    let devices = cuda_devices();
    let words = match (cuda_library(), devices) {
        (CudaLibrary::Absent, _) => {
            "CPU; its CUDA library is not installed (`cargo xtask setup --cuda` fetches it)".into()
        }
        (CudaLibrary::Broken(why), _) => format!("CPU; its CUDA library cannot be opened: {why}"),
        (CudaLibrary::Opened(file), 0) => format!("CPU; {} sees no CUDA device", file.display()),
        (CudaLibrary::Opened(_), 1) => "CPU and 1 CUDA device".into(),
        (CudaLibrary::Opened(_), n) => format!("CPU and {n} CUDA devices"),
    };
    (words, devices)
}
