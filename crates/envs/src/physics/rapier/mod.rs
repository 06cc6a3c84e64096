//! The rapier3d backend: reduced-coordinate multibodies in single precision, one set of rapier's sets a world.
//!
//! Rapier is not MuJoCo. It takes one semi-implicit Euler step a timestep, whatever `<option integrator>` says; damping, springs and
//! Coriolis terms are implicit; contacts are stiff, with rapier's own softness for all of them, so `solref`, `solimp`, `margin` and `gap`
//! are not looked at; of `solreflimit` the time constant counts; friction is a cone, not a pyramid, with the larger of the two geoms'
//! coefficients; a mesh collides as its convex hull, a height field as the surface alone, without its base; torsional and rolling friction do not exist. Armature, damping, dry friction, springs, limits, gears and collision
//! masks mean what they mean in MuJoCo. A medium (`density`, `viscosity`) and springs on free joints are refused.

mod layout;
mod world;

use super::backend::{Backend, Contact, PhysicsError, Quantity};
use super::model::{JointKind, Model};
use glam::DVec3;
use rapier3d::prelude::PhysicsPipeline;
use rayon::prelude::*;
use std::sync::Arc;
use world::{Blueprint, World};

/// A batch of worlds on rapier.
pub struct RapierBackend {
    model: Arc<Model>,
    blueprint: Blueprint,
    lanes: Vec<Lane>,
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    /// None where the caller's thread does it all.
    pool: Option<rayon::ThreadPool>,
}

/// One world and what is not in rapier's sets.
struct Lane {
    world: World,
    pipeline: PhysicsPipeline,
    /// Generalised forces of the actuators, in the order of the layout's coordinates.
    forces: Vec<f64>,
    /// Whether the last thing that happened was a step, so that contact forces mean something.
    stepped: bool,
    /// Went non-finite and stays where it was until it is put into a state again.
    frozen: bool,
    diverged: u64,
}

/// Beyond this a coordinate or a velocity counts as diverged, as in MuJoCo (mjMAXVAL).
const LARGEST: f64 = 1e10;

/// What `--backend` calls it.
pub const NAME: &str = "rapier";

impl RapierBackend {
    /// So many worlds at the reference configuration, at rest.
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
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or_else(available).clamp(1, worlds.max(1));
        let pool = match threads {
            1 => None,
            threads => {
                let name = |index| format!("physics-{index}");
                Some(rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()?)
            }
        };
        let blueprint = Blueprint::new(&model).map_err(|reason| unsupported(&reason))?;
        let lane = || Lane {
            world: blueprint.pristine.clone(),
            pipeline: PhysicsPipeline::new(),
            forces: vec![0.0; blueprint.layout.coordinates.len()],
            stepped: false,
            frozen: false,
            diverged: 0,
        };
        let mut backend = RapierBackend {
            lanes: std::iter::repeat_with(lane).take(worlds).collect(),
            qpos: model.qpos0().repeat(worlds),
            qvel: vec![0.0; worlds * model.nv()],
            blueprint,
            pool,
            model,
        };
        let (qpos, qvel) = (backend.model.qpos0().to_vec(), vec![0.0; backend.model.nv()]);
        for world in 0..worlds {
            backend.set_state(world, &qpos, &qvel);
        }
        Ok(backend)
    }
}

impl Lane {
    fn set_state(&mut self, blueprint: &Blueprint, model: &Model, qpos: &[f64], qvel: &[f64]) {
        // A world that has a past (islands, contact graph, tree of boxes, warm starts) would differ in the last bits.
        self.world = blueprint.pristine.clone();
        self.pipeline = PhysicsPipeline::new();
        self.world.place(blueprint, model, qpos, qvel);
        self.stepped = false;
        self.frozen = false;
    }

    /// Holds `ctrl` for `frame_skip` timesteps; `qpos` and `qvel` stay as they are where that goes wrong.
    fn step(
        &mut self,
        blueprint: &Blueprint,
        model: &Model,
        ctrl: &[f64],
        frame_skip: usize,
        qpos: &mut [f64],
        qvel: &mut [f64],
    ) {
        if self.frozen {
            return;
        }
        self.actuate(blueprint, model, ctrl);
        for _ in 0..frame_skip {
            self.world.step(&mut self.pipeline, blueprint);
        }
        let (good_qpos, good_qvel) = (qpos.to_vec(), qvel.to_vec());
        self.world.read(blueprint, model, qpos, qvel);
        self.stepped = true;
        let good = |x: &f64| x.abs() < LARGEST; // false for NaN
        if !ctrl.iter().all(|u| u.is_finite()) || !qpos.iter().all(good) || !qvel.iter().all(good) {
            qpos.copy_from_slice(&good_qpos);
            qvel.copy_from_slice(&good_qvel);
            self.frozen = true;
            self.stepped = false;
            self.diverged += 1;
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

    fn model(&self) -> &Model {
        &self.model
    }

    fn worlds(&self) -> usize {
        self.lanes.len()
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        let (nq, nv) = (self.model.nq(), self.model.nv());
        self.qpos[world * nq..][..nq].copy_from_slice(qpos);
        self.qvel[world * nv..][..nv].copy_from_slice(qvel);
        self.lanes[world].set_state(&self.blueprint, &self.model, qpos, qvel);
    }

    fn qpos(&self) -> &[f64] {
        &self.qpos
    }

    fn qvel(&self) -> &[f64] {
        &self.qvel
    }

    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError> {
        let (nq, nv, nu) = (self.model.nq(), self.model.nv(), self.model.nu());
        let (blueprint, model) = (&self.blueprint, &*self.model);
        let control = |world: usize| &ctrl[world * nu..(world + 1) * nu];
        let lanes = &mut self.lanes;
        // A model without joints has empty states, and chunks of nothing are not allowed.
        if nq == 0 {
            return Ok(());
        }
        let (qpos, qvel) = (&mut self.qpos, &mut self.qvel);
        match &self.pool {
            None => {
                let states = qpos.chunks_exact_mut(nq).zip(qvel.chunks_exact_mut(nv));
                for (world, (lane, (qpos, qvel))) in lanes.iter_mut().zip(states).enumerate() {
                    lane.step(blueprint, model, control(world), frame_skip, qpos, qvel);
                }
            }
            Some(pool) => pool.install(|| {
                let states = qpos.par_chunks_exact_mut(nq).zip(qvel.par_chunks_exact_mut(nv));
                lanes.par_iter_mut().zip(states).enumerate().for_each(|(world, (lane, (qpos, qvel)))| {
                    lane.step(blueprint, model, control(world), frame_skip, qpos, qvel);
                });
            }),
        }
        Ok(())
    }

    fn contacts(&self, world: usize, out: &mut Vec<Contact>) {
        out.clear();
        self.lanes[world].world.contacts(&self.blueprint, |geoms, contact, _| {
            if contact.distance <= 0.0 {
                out.push(Contact { bodies: geoms.map(|geom| self.model.geoms[geom].body), ..contact });
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
            Quantity::Frames => self.frames(world, out),
            Quantity::CfrcExt => self.contact_forces(world, out),
            Quantity::QfrcActuator => self.actuator_forces(world, out),
            // `need` has refused them.
            Quantity::Cinert | Quantity::Cvel | Quantity::QfrcConstraint => out.fill(f64::NAN),
        }
    }

    fn frozen(&self, world: usize) -> bool {
        self.lanes[world].frozen
    }

    fn diverged(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.diverged).sum()
    }
}

impl RapierBackend {
    fn frames(&self, world: usize, out: &mut [f64]) {
        let nq = self.model.nq();
        let frames = self.model.kinematics(&self.qpos[world * nq..(world + 1) * nq]);
        for (row, (pos, quat)) in out.chunks_exact_mut(7).zip(frames) {
            row.copy_from_slice(&[pos.x, pos.y, pos.z, quat.w, quat.x, quat.y, quat.z]);
        }
    }

    fn contact_forces(&self, world: usize, out: &mut [f64]) {
        out.fill(0.0);
        let lane = &self.lanes[world];
        if !lane.stepped {
            return;
        }
        let nq = self.model.nq();
        let centres = tree_centres(&self.model, &self.qpos[world * nq..(world + 1) * nq]);
        lane.world.contacts(&self.blueprint, |geoms, contact, force| {
            for (geom, force) in [(geoms[0], -force), (geoms[1], force)] {
                let body = self.model.geoms[geom].body;
                if body == 0 {
                    continue; // MuJoCo leaves the world's own row empty
                }
                let arm = DVec3::from_array(contact.position) - centres[self.model.bodies[body].root];
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
        let lane = &self.lanes[world];
        if lane.stepped {
            for (coordinate, force) in self.blueprint.layout.coordinates.iter().zip(&lane.forces) {
                out[self.model.joints[coordinate.joint].dofadr] += force;
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
