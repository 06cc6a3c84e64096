//! Environments by name, as Gymnasium makes them.

use crate::gym::{Autoreset, Env, EnvError, Task, TaskError, VectorEnv};
use crate::physics::{self, PhysicsError, Precision};
use std::sync::Arc;

/// Why no environment could be made.
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

/// What [`make_vec_with`] can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct MakeOptions {
    /// One of [`physics::BACKENDS`]; `lanes` if not told.
    pub backend: String,
    /// Single precision if not told; `lanes` alone also computes in double.
    pub precision: Precision,
    /// Threads that step the worlds; all of the machine's where `None`.
    pub threads: Option<usize>,
    /// What happens to a world whose episode ended; [`Autoreset::SameStep`] if not told.
    pub autoreset: Autoreset,
}

impl Default for MakeOptions {
    fn default() -> Self {
        let backend = physics::BACKENDS[0].to_owned();
        MakeOptions { backend, precision: Precision::F32, threads: None, autoreset: Autoreset::default() }
    }
}

/// One environment of a bundled task, by its file's name (`hopper`) or Gymnasium's id (`Hopper-v5`), or of the task file at a path
/// (`my/tiptoe.toml`).
///
/// # Errors
/// An unknown task (the error lists those there are), a wrong file, a robot that the SIMD lanes cannot step.
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

/// [`make_vec`] on another backend, in another precision, on fewer threads or with another way of resetting.
///
/// # Errors
/// As [`make`]'s; a backend that this build does not have.
pub fn make_vec_with(task: &str, num_envs: usize, options: &MakeOptions) -> Result<VectorEnv, MakeError> {
    let task = Arc::new(Task::load(task)?);
    let model = task.model().clone();
    let backend = physics::backend(&options.backend, options.precision, model, num_envs, options.threads)?;
    Ok(VectorEnv::new(task, backend, options.autoreset)?)
}
