//! Composes the files of shaders/physics into one shader for one robot with naga_oil. The robot's sizes are filled in,
//! and code that it does not need is left out.

use super::super::backend::PhysicsError;
use super::super::dynamics::plan::{Plan, Test};
use super::super::model::{Integrator, JointKind, Model};
use super::NAME;
use super::sharing::{ThreadsPerWorld, WORKGROUP};
use flipside_gpu::{Definitions, MOST_TURNS, Module, Source, compose};

/// Newton steps and line-search steps of the solver, at most. Two or three, and one or two, are usual.
const NEWTON_STEPS: usize = 20;
const SEARCH_STEPS: usize = 12;
/// The most contacts that a world can store; a humanoid that lies on the ground has about twenty.
const MOST_SLOTS: usize = 64;
/// A usual number of simultaneous contacts.
const USUAL_CONTACTS: usize = 20;
/// The most degrees of freedom and coordinates, because a set of them is stored as the bits of a word.
const MOST_DOFS: usize = 32;

macro_rules! file {
    ($name:literal) => {
        (concat!("shaders/physics/", $name), include_str!(concat!("../../../../../shaders/physics/", $name)))
    };
}

/// Every module, after those that it imports.
pub const MODULES: &[Source] = &[
    file!("plan.wgsl"),
    file!("team.wgsl"),
    file!("spatial.wgsl"),
    file!("workspace.wgsl"),
    file!("kinematics.wgsl"),
    file!("factor.wgsl"),
    file!("inertia.wgsl"),
    file!("bias.wgsl"),
    file!("passive.wgsl"),
    file!("actuation.wgsl"),
    file!("collide.wgsl"),
    file!("constraint.wgsl"),
    file!("contact.wgsl"),
    file!("solve.wgsl"),
    file!("dynamics.wgsl"),
    file!("integrate.wgsl"),
    file!("derived.wgsl"),
    file!("batch.wgsl"),
];

/// The env step of a batch.
pub const STEP: Source = file!("step.wgsl");

/// A part of an env step.
const STAGE: Source = file!("stage.wgsl");

/// The definitions that a robot fills into the shaders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specialised {
    definitions: Definitions,
}

impl Specialised {
    /// Sizes and features of a robot whose worlds have this many threads.
    ///
    /// # Errors
    /// [`PhysicsError::Unsupported`] for a robot with more degrees of freedom than a word has bits.
    pub fn new(model: &Model, plan: &Plan<f32>, threads: ThreadsPerWorld) -> Result<Specialised, PhysicsError> {
        if plan.nq.max(plan.nv) > MOST_DOFS || plan.nv == 0 {
            return Err(PhysicsError::Unsupported {
                backend: NAME,
                model: model.name.clone(),
                reason: format!("it has {} coordinates; expected 1 to {MOST_DOFS}", plan.nq),
            });
        }
        let mut definitions = Definitions::default();
        let mut size = |name: &str, n: usize| definitions.size(name, n);
        size("NQ", plan.nq);
        size("NV", plan.nv);
        size("NU", plan.nu.max(1));
        size("NBODY", plan.bodies.len());
        size("NJNT", plan.joints.len());
        size("MOTORS", plan.motors.len());
        size("MOTOR_ROOM", plan.motors.len().max(1));
        size("LIMITS", plan.limits.len());
        size("LIMIT_ROOM", plan.limits.len().max(1));
        size("GEOM_ROOM", plan.geoms.len().max(1));
        size("PAIRS", plan.pairs.len());
        size("PAIR_ROOM", plan.pairs.len().max(1));
        size("SLOTS", plan.slots.clamp(1, MOST_SLOTS));
        size("DIRECTIONS", plan.directions);
        size("CHUNKS", plan.nv.div_ceil(4));
        size("LEVELS", 1 + levels(plan).into_iter().max().unwrap_or(0));
        size("LANES", threads.worlds());
        size("TEAM", threads.count());
        size("NEWTON_STEPS", NEWTON_STEPS);
        size("SEARCH_STEPS", SEARCH_STEPS);
        let mut feature = |name: &str, has: bool| definitions.feature(name, has);
        let tests = |test: Test| plan.pairs.iter().any(|pair| pair.test == test);
        feature("IS_TEAM", threads == ThreadsPerWorld::Team);
        feature("HAS_FREE", plan.joints.iter().any(|joint| joint.kind == JointKind::Free));
        feature("HAS_MEDIUM", plan.medium.is_some());
        feature("HAS_RUNGE_KUTTA", plan.integrator == Integrator::Rk4);
        feature("IS_PLANAR", plan.across.is_some());
        feature("HAS_PLANE_SPHERE", tests(Test::PlaneSphere));
        feature("HAS_PLANE_CAPSULE", tests(Test::PlaneCapsule));
        feature("HAS_SPHERE_SPHERE", tests(Test::SphereSphere));
        feature("HAS_SPHERE_CAPSULE", tests(Test::SphereCapsule));
        feature("HAS_CAPSULE_CAPSULE", tests(Test::CapsuleCapsule));
        feature("HAS_SPHERE_CYLINDER", tests(Test::SphereCylinder));
        feature("HAS_CAPSULE_CYLINDER", tests(Test::CapsuleCylinder));
        feature("HAS_CYLINDER", tests(Test::SphereCylinder) || tests(Test::CapsuleCylinder));
        Ok(Specialised { definitions })
    }

    /// The definitions.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The shader of one stage of a step; shaders/physics/stage.wgsl names the stages.
    pub fn stage(&self, name: &str) -> Module {
        let mut definitions = self.definitions.clone();
        definitions.feature(&format!("STAGE_{}", name.to_uppercase()), true);
        compose(MODULES, STAGE, &definitions)
    }

    /// The shader of one entry file for this robot, validated.
    pub fn shader(&self, entry: Source) -> Module {
        compose(MODULES, entry, &self.definitions)
    }
}

/// The depth of each body in the tree, starting from the world.
pub fn levels(plan: &Plan<f32>) -> Vec<usize> {
    let mut levels: Vec<usize> = vec![];
    for (index, body) in plan.bodies.iter().enumerate() {
        // Parents come before children.
        levels.push(if index == 0 { 0 } else { levels[body.parent] + 1 });
    }
    levels
}

/// The most rounds of an env step in one dispatch. Each round is a forward evaluation.
pub fn most_rounds(plan: &Plan<f32>, threads: ThreadsPerWorld, software: bool) -> usize {
    let (nv, bodies, limits) = (plan.nv, plan.bodies.len(), plan.limits.len());
    let contacts = plan.slots.min(USUAL_CONTACTS);
    if threads == ThreadsPerWorld::Team {
        // What a team's dispatches pass to each other costs memory traffic, and GPUs have no limit on loop iterations.
        if !software {
            return usize::MAX;
        }
        // Counts by matrix routine with one row per member, then a contact's rows, and the sums over all members.
        let chunks = nv.div_ceil(4);
        let algebra = nv * (2 + chunks) + 6 * nv + contacts * (8 + 4 * chunks);
        let newton = algebra + (4 + SEARCH_STEPS) * (WORKGROUP + 8) + 2 * (contacts + bodies + nv);
        let other = (2 * WORKGROUP + 40) * (1 + plan.pairs.len() / WORKGROUP) + 8 * (bodies + nv);
        return (MOST_TURNS / (other + NEWTON_STEPS * newton)).max(1);
    }
    // Counts by matrix routine: factor, solve and multiply, then the Hessian with one row per degree of freedom that a
    // contact moves.
    let algebra = nv * nv / 2 + nv * nv + nv * nv / 2 + nv * plan.nv.div_ceil(4) + contacts * 2 * nv;
    let newton = algebra + SEARCH_STEPS * (contacts + limits) + 4 * (contacts + bodies + nv);
    let other = 24 * plan.pairs.len() + 20 * (bodies + nv) + nv * nv;
    (MOST_TURNS / (other + NEWTON_STEPS * newton)).max(1)
}
