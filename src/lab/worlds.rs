//! The worlds that a run steps, and what becomes of them where there is no graphics device, or no longer one: a session goes on with the
//! processor's physics, which computes the same equations, and says so.

use super::LabError;
use flipside_envs::gym::{Autoreset, EnvError, Task, VectorEnv};
use flipside_envs::physics::{self, PhysicsError, Precision};
use flipside_gpu::DeviceError;
use std::sync::Arc;

/// What takes the place of a graphics device.
pub(super) const INSTEAD: &str = "lanes";

/// The backend for a film: a single world is done on the processor before a device has its shader.
pub(super) fn for_one_world(backend: &str) -> &str {
    match backend {
        physics::SHADER => INSTEAD,
        other => other,
    }
}

/// A batch of worlds under a task, and a sentence for the person where not the backend asked for steps them.
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

/// The same worlds on the processor, going on from where the last whole step left them, and the sentence that says so.
///
/// # Errors
/// The error itself, where it is none of a graphics device.
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

/// What the person is told.
pub(super) fn sentence(error: &DeviceError) -> String {
    format!("This run goes on with the physics of the processor: {error}.")
}
