//! The rapier3d backend: reduced-coordinate multibodies in single precision. Each world has its own collection of
//! rapier's sets.
//!
//! Rapier differs from MuJoCo:
//!
//! - It takes one semi-implicit Euler step per timestep, whatever `<option integrator>` says. Damping, springs and
//!   Coriolis terms are implicit.
//! - Contacts are stiff, with rapier's own softness for all of them, so `solref`, `solimp`, `margin` and `gap` are
//!   ignored. Of `solreflimit` only the time constant is used.
//! - Friction is a cone, not a pyramid, with the larger of the two geoms' coefficients. There is no torsional or
//!   rolling friction.
//! - A mesh collides as its convex hull, a height field as its surface alone, without its base.
//!
//! Armature, damping, dry friction, springs, limits, gears and collision masks mean what they mean in MuJoCo. A medium
//! (`density`, `viscosity`) and springs on free joints are refused.

mod layout;
mod world;

use super::backend::{Backend, Contact, PhysicsError, Quantity};
use super::host::{HostState, WorldsMut, is_sane};
use super::model::{JointKind, Model};
use flipside_core::Threads;
use glam::DVec3;
use rapier3d::prelude::PhysicsPipeline;
use std::sync::Arc;
use world::{Blueprint, World};

/// A batch of worlds on rapier.
pub struct RapierBackend {
    host: HostState,
    blueprint: Blueprint,
    simulations: Vec<Simulation>,
    threads: Threads,
}

/// One world, and its data that is not in rapier's sets.
struct Simulation {
    world: World,
    pipeline: PhysicsPipeline,
    /// Generalised forces of the actuators, in the order of the layout's coordinates.
    forces: Vec<f64>,
    /// A copy of the state before a step, in case the step fails.
    before: [Vec<f64>; 2],
}

/// The name that `--backend` takes.
pub const NAME: &str = "rapier";

impl RapierBackend {
    /// This many worlds at the reference configuration, at rest.
    pub fn new(model: Arc<Model>, worlds: usize, threads: Option<usize>) -> Result<RapierBackend, PhysicsError> {
        let unsupported = |reason: &str| PhysicsError::Unsupported {
            backend: NAME,
            model: model.name.clone(),
            reason: reason.to_owned(),
        };
        if model.option.density != 0.0 || model.option.viscosity != 0.0 {
            return Err(unsupported("rapier has no fluid forces, and the robot swims in a medium"));
        }
        if model.joints.iter().any(|joint| joint.kind == JointKind::Free && joint.stiffness != 0.0) {
            return Err(unsupported("a free joint has a spring, and rapier's springs act on slides and hinges"));
        }
        let blueprint = Blueprint::new(&model).map_err(|reason| unsupported(&reason))?;
        let simulation = || Simulation {
            world: blueprint.pristine.clone(),
            pipeline: PhysicsPipeline::new(),
            forces: vec![0.0; blueprint.layout.coordinates.len()],
            before: [vec![], vec![]],
        };
        let mut backend = RapierBackend {
            simulations: std::iter::repeat_with(simulation).take(worlds).collect(),
            threads: Threads::new("physics", threads, worlds)?,
            host: HostState::new(model.clone(), worlds),
            blueprint,
        };
        let qvel = vec![0.0; model.nv()];
        (0..worlds).for_each(|world| backend.set_state(world, model.qpos0(), &qvel));
        Ok(backend)
    }
}

impl Simulation {
    /// Holds `ctrl` for `frame_skip` timesteps. If that fails, `qpos` and `qvel` keep their values.
    fn step(&mut self, blueprint: &Blueprint, model: &Model, ctrl: &[f64], frame_skip: usize, state: WorldsMut) {
        let WorldsMut { qpos, qvel, outcomes } = state;
        let outcome = &mut outcomes[0];
        if outcome.frozen() {
            return;
        }
        self.actuate(blueprint, model, ctrl);
        for _ in 0..frame_skip {
            self.world.step(&mut self.pipeline, blueprint);
        }
        for (before, now) in self.before.iter_mut().zip([&*qpos, &*qvel]) {
            before.clear();
            before.extend_from_slice(now);
        }
        self.world.read(blueprint, model, qpos, qvel);
        let sane = |x: &f64| is_sane(*x);
        outcome.step(ctrl.iter().all(|u| u.is_finite()) && qpos.iter().all(sane) && qvel.iter().all(sane));
        if outcome.frozen() {
            qpos.copy_from_slice(&self.before[0]);
            qvel.copy_from_slice(&self.before[1]);
        }
    }

    fn actuate(&mut self, blueprint: &Blueprint, model: &Model, ctrl: &[f64]) {
        self.forces.fill(0.0);
        for ((actuator, place), u) in model.actuators.iter().zip(&blueprint.motors).zip(ctrl) {
            let u = actuator.ctrl_range.map_or(*u, |[low, high]| u.clamp(low, high));
            self.forces[*place] += actuator.gear * u;
        }
        self.world.push(blueprint, model, &self.forces);
    }
}

impl Backend for RapierBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self) -> &HostState {
        &self.host
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        self.host.set(world, qpos, qvel);
        let simulation = &mut self.simulations[world];
        // A world with a history (islands, contact graph, bounding-volume tree, warm starts) would differ in the last
        // bits.
        simulation.world = self.blueprint.pristine.clone();
        simulation.pipeline = PhysicsPipeline::new();
        simulation.world.place(&self.blueprint, self.host.model(), qpos, qvel);
    }

    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError> {
        let RapierBackend { host, blueprint, simulations, threads } = self;
        let model = host.model().clone();
        if model.nq() == 0 {
            return Ok(());
        }
        let nu = model.nu();
        let worlds = simulations.iter_mut().zip(host.chunks_mut(1)).enumerate();
        threads.share_out(worlds, |_, (world, (simulation, state))| {
            simulation.step(blueprint, &model, &ctrl[world * nu..][..nu], frame_skip, state);
        });
        Ok(())
    }

    fn contacts(&self, world: usize, out: &mut Vec<Contact>) {
        out.clear();
        self.simulations[world].world.contacts(&self.blueprint, |geoms, contact, _| {
            if contact.distance <= 0.0 {
                out.push(Contact { bodies: geoms.map(|geom| self.model().geoms[geom].body), ..contact });
            }
        });
    }

    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError> {
        match quantities.iter().find(|q| matches!(q, Quantity::Cinert | Quantity::Cvel | Quantity::QfrcConstraint)) {
            Some(quantity) => Err(PhysicsError::NotSupplied { backend: NAME, quantity: quantity.name() }),
            None => Ok(()),
        }
    }

    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]) {
        match quantity {
            Quantity::Frames => self.host.frames(world, out),
            Quantity::CfrcExt => self.contact_forces(world, out),
            Quantity::QfrcActuator => self.actuator_forces(world, out),
            // `need` has already refused them.
            Quantity::Cinert | Quantity::Cvel | Quantity::QfrcConstraint => out.fill(f64::NAN),
        }
    }
}

impl RapierBackend {
    fn contact_forces(&self, world: usize, out: &mut [f64]) {
        out.fill(0.0);
        let simulation = &self.simulations[world];
        if !self.host.outcome(world).stepped() {
            return;
        }
        let model = self.host.model();
        let centres = tree_centres(model, self.host.state(world).0);
        simulation.world.contacts(&self.blueprint, |geoms, contact, force| {
            for (geom, force) in [(geoms[0], -force), (geoms[1], force)] {
                let body = model.geoms[geom].body;
                if body == 0 {
                    continue; // MuJoCo leaves the world's own row empty
                }
                let arm = DVec3::from_array(contact.position) - centres[model.bodies[body].root];
                let torque = arm.cross(force);
                let row = &mut out[body * 6..body * 6 + 6];
                for (slot, x) in row.iter_mut().zip(torque.to_array().into_iter().chain(force.to_array())) {
                    *slot += x;
                }
            }
        });
    }

    fn actuator_forces(&self, world: usize, out: &mut [f64]) {
        out.fill(0.0);
        let simulation = &self.simulations[world];
        if self.host.outcome(world).stepped() {
            for (coordinate, force) in self.blueprint.layout.coordinates.iter().zip(&simulation.forces) {
                out[self.host.model().joints[coordinate.joint].dofadr] += force;
            }
        }
    }
}

/// The centre of mass of every tree, at the index of its root (MuJoCo's `subtree_com` of `body_rootid`).
fn tree_centres(model: &Model, qpos: &[f64]) -> Vec<DVec3> {
    let mut sums = vec![(DVec3::ZERO, 0.0); model.nbody()];
    for (body, (pos, quat)) in model.bodies.iter().zip(model.kinematics(qpos)) {
        let (moment, mass) = &mut sums[body.root];
        *moment += (pos + quat * body.ipos) * body.mass;
        *mass += body.mass;
    }
    sums.into_iter().map(|(moment, mass)| if mass > 0.0 { moment / mass } else { DVec3::ZERO }).collect()
}
