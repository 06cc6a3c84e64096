//! Robots that move: [`Model`], read from MJCF, and the [`Backend`]s that step a batch of worlds of it.
//!
//! Nothing here knows of rewards, episodes or learning.

mod backend;
mod dynamics;
mod inertia;
mod lanes;
mod mesh;
mod mjcf;
mod model;
mod rapier;
mod shader;

pub use backend::{BACKENDS, Backend, Contact, PhysicsError, Quantity, backend};
pub use dynamics::{Forward, forward};
pub use lanes::Precision;
pub use mesh::{HeightField, Mesh, MeshInertia};
pub use mjcf::{Files, ModelError};
pub use model::{Actuator, Body, Geom, GeomShape, Integrator, Joint, JointKind, Model, Options, Site, Solver};
pub use shader::{
    DeviceWorlds, MODULES as SHADER_MODULES, Making, NAME as SHADER, Shader, Stages, ThreadsPerWorld, WORKGROUP,
};
