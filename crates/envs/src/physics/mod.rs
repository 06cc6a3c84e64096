//! Robots that move: [`Model`], read from MJCF, and the [`Backend`]s that step a batch of its worlds.
//!
//! This module knows nothing of rewards, episodes or learning.

mod backend;
mod derived;
mod dynamics;
mod host;
mod inertia;
mod lanes;
mod make;
mod mesh;
mod mjcf;
mod model;
mod principal_axes;
#[cfg(feature = "rapier")]
mod rapier;
#[cfg(feature = "gpu")]
mod shader;

pub use backend::{Backend, Contact, PhysicsError, Quantity};
pub use dynamics::{Forward, forward};
pub use host::{HostState, Outcome, WorldsMut};
pub use lanes::Precision;
pub use make::{BACKENDS, backend};
pub use mesh::{HeightField, Mesh, MeshInertia};
pub use mjcf::{Files, ModelError};
pub use model::{Actuator, Body, Geom, GeomShape, Integrator, Joint, JointKind, Model, Options, Site, Solver};
#[cfg(feature = "gpu")]
pub use shader::{
    BuildOptions, DeviceWorlds, MODULES as SHADER_MODULES, NAME as SHADER, Shader, Stages, ThreadsPerWorld, WORKGROUP,
};
