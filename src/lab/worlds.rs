//! The worlds that a run steps, and the fallback if there is no GPU or it fails: the session continues with the physics
//! on the CPU, which computes the same equations, and reports it.

use super::LabError;
use flipside_envs::gym::{Autoreset, EnvError, Task, VectorEnv};
use flipside_envs::physics::{self, PhysicsError, Precision};
use flipside_gpu::DeviceError;
use std::sync::Arc;

/// The backend that replaces the GPU.
pub(super) const INSTEAD: &str = "lanes";

/// The backend for a film. The CPU has finished a single world before a GPU has compiled its shader.
pub(super) fn for_one_world(backend: &str) -> &str {
    match backend {
        physics::SHADER => INSTEAD,
        other => other,
    }
}

/// A batch of worlds for a task. If another backend than the requested one steps them, also a sentence that tells the
/// person so.
///
/// # Errors
/// An unknown backend, or one that cannot hold the robot.
pub(super) fn worlds(
    task: &Arc<Task>,
    backend: &str,
    worlds: usize,
    threads: Option<usize>,
) -> Result<(VectorEnv, Option<String>), LabError> {
    let make = |name: &str| physics::backend(name, Precision::default(), task.model().clone(), worlds, threads);
    let (backend, told) = match make(backend) {
        Err(PhysicsError::Device(error)) => (make(INSTEAD)?, Some(sentence(&error))),
        made => (made?, None),
    };
    match VectorEnv::new(task.clone(), backend, Autoreset::SameStep) {
        Err(EnvError::Device(error)) => {
            Ok((VectorEnv::new(task.clone(), make(INSTEAD)?, Autoreset::SameStep)?, Some(sentence(&error))))
        }
        made => Ok((made?, told)),
    }
}

/// The same worlds on the CPU, continuing from the last complete step, and a sentence that reports it.
///
/// # Errors
/// The error itself, if it does not come from a GPU.
pub(super) fn without_device(
    env: &VectorEnv,
    error: EnvError,
    threads: Option<usize>,
) -> Result<(VectorEnv, String), LabError> {
    let EnvError::Device(error) = error else { return Err(error.into()) };
    let (mut on_processor, _) = worlds(env.task(), INSTEAD, env.worlds(), threads)?;
    on_processor.load_arrays(&env.to_arrays())?;
    Ok((on_processor, sentence(&error)))
}

/// The sentence that the person is shown.
pub(super) fn sentence(error: &DeviceError) -> String {
    format!("This run goes on with the physics of the processor: {error}.")
}
