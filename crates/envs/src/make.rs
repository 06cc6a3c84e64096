//! Environments by name, as Gymnasium makes them.

use crate::gym::{Autoreset, Env, EnvError, Task, TaskError, VectorEnv};
use crate::physics::{self, PhysicsError, Precision};
use std::sync::Arc;

/// Why an environment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// There is no such task, or one of its files is wrong.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The backend cannot step this robot.
    #[error(transparent)]
    Physics(#[from] PhysicsError),
    /// The environment refused.
    #[error(transparent)]
    Env(#[from] EnvError),
}

/// The options of [`make_vec_with`].
#[derive(Clone, Debug, PartialEq)]
pub struct MakeOptions {
    /// One of [`physics::BACKENDS`]; `lanes` by default.
    pub backend: String,
    /// Single precision by default; only `lanes` also computes in double precision.
    pub precision: Precision,
    /// Threads that step the worlds; `None` uses all of the machine's.
    pub threads: Option<usize>,
    /// What happens to a world whose episode ended; [`Autoreset::SameStep`] by default.
    pub autoreset: Autoreset,
}

impl Default for MakeOptions {
    fn default() -> Self {
        let backend = physics::BACKENDS[0].to_owned();
        MakeOptions { backend, precision: Precision::F32, threads: None, autoreset: Autoreset::default() }
    }
}

/// Makes one environment. A bundled task is named by its file (`hopper`) or by Gymnasium's id (`Hopper-v5`), any other
/// by the path of its task file (`my/tiptoe.toml`).
///
/// # Errors
/// An unknown task (the error lists the known ones), a wrong file, a robot that the SIMD lanes cannot step.
pub fn make(task: &str) -> Result<Env, MakeError> {
    let task = Arc::new(Task::load(task)?);
    let options = MakeOptions::default();
    let backend = physics::backend(&options.backend, options.precision, task.model().clone(), 1, Some(1))?;
    Ok(Env::new(task, backend)?)
}

/// A batch of `num_envs` environments of a task that step together; see [`make`] for the names.
///
/// # Errors
/// As [`make`]'s.
pub fn make_vec(task: &str, num_envs: usize) -> Result<VectorEnv, MakeError> {
    make_vec_with(task, num_envs, &MakeOptions::default())
}

/// [`make_vec`] with another backend, precision, number of threads or autoreset mode.
///
/// # Errors
/// As [`make`]'s; a backend that this build does not have.
pub fn make_vec_with(task: &str, num_envs: usize, options: &MakeOptions) -> Result<VectorEnv, MakeError> {
    let task = Arc::new(Task::load(task)?);
    let model = task.model().clone();
    let backend = physics::backend(&options.backend, options.precision, model, num_envs, options.threads)?;
    Ok(VectorEnv::new(task, backend, options.autoreset)?)
}
