//! The backends there are, by name.

use super::Model;
use super::backend::{Backend, PhysicsError};
use super::lanes::{self, Precision};
#[cfg(feature = "rapier")]
use super::rapier;
#[cfg(feature = "gpu")]
use super::shader;
use std::sync::Arc;

/// The names that [`backend`] knows. `rapier` and `shader` need the features `rapier` and `gpu` of this crate.
pub const BACKENDS: &[&str] = &[
    lanes::NAME,
    #[cfg(feature = "rapier")]
    rapier::NAME,
    #[cfg(feature = "gpu")]
    shader::NAME,
];

/// A batch of `worlds` worlds of a robot at its reference configuration, on the backend of this name and in this
/// precision, spread over `threads` threads (`None` uses all of the machine's).
///
/// # Errors
/// An unknown name, a robot or precision that the backend does not support, a graphics device that is missing or fails.
pub fn backend(
    name: &str,
    precision: Precision,
    model: Arc<Model>,
    worlds: usize,
    threads: Option<usize>,
) -> Result<Box<dyn Backend>, PhysicsError> {
    #[cfg(any(feature = "rapier", feature = "gpu"))]
    let single = |backend: &'static str| match precision {
        Precision::F32 => Ok(()),
        Precision::F64 => Err(PhysicsError::Unsupported {
            backend,
            model: model.name.clone(),
            reason: "it computes in single precision: leave out --precision f64, or choose --backend lanes".to_owned(),
        }),
    };
    match name {
        lanes::NAME => lanes::lanes(precision, model, worlds, threads),
        #[cfg(feature = "rapier")]
        rapier::NAME => {
            single(rapier::NAME)?;
            Ok(Box::new(rapier::RapierBackend::new(model, worlds, threads)?))
        }
        #[cfg(feature = "gpu")]
        shader::NAME => {
            single(shader::NAME)?;
            Ok(Box::new(shader::Shader::new(model, worlds, flipside_gpu::Checks::Off)?))
        }
        _ => Err(PhysicsError::UnknownBackend { name: name.to_owned(), known: BACKENDS }),
    }
}
