//! From the files of shaders/physics to one shader for one robot: naga_oil composes them, with the robot's sizes filled in and what it has
//! no use for left out.

use super::super::backend::PhysicsError;
use super::super::dynamics::plan::{Plan, Test};
use super::super::model::{Integrator, JointKind, Model};
use super::NAME;
use naga_oil::compose::{
    ComposableModuleDescriptor, Composer, ComposerError, NagaModuleDescriptor, ShaderDefValue, ShaderLanguage,
};
use std::collections::HashMap;
use wgpu::naga;

/// Threads of a workgroup, a world each.
pub const WORKGROUP: u32 = 32;
/// Contacts that a world has room for, at most: a humanoid that lies on the ground has about twenty.
const MOST_SLOTS: usize = 64;
/// Degrees of freedom and coordinates, at most: sets of them are the bits of a word.
const MOST_DOFS: usize = 32;

macro_rules! file {
    ($name:literal) => {
        (concat!("shaders/physics/", $name), include_str!(concat!("../../../shaders/physics/", $name)))
    };
}

/// Every module, after those that it imports.
const MODULES: &[(&str, &str)] = &[
    file!("plan.wgsl"),
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
];

/// The env step of a batch.
pub const STEP: (&str, &str) = file!("step.wgsl");

/// What a robot fills into the shaders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specialised {
    values: HashMap<String, ShaderDefValue>,
}

impl Specialised {
    /// Sizes and features of a robot. Loops whose ends the sizes give are `unrolled` or not, as suits the device's compiler.
    ///
    /// # Errors
    /// [`PhysicsError::Unsupported`] for a robot with more degrees of freedom than a word has bits.
    pub fn new(model: &Model, plan: &Plan<f32>, unrolled: bool) -> Result<Specialised, PhysicsError> {
        if plan.nq.max(plan.nv) > MOST_DOFS || plan.nv == 0 {
            return Err(PhysicsError::Unsupported {
                backend: NAME,
                model: model.name.clone(),
                reason: format!("it has {} coordinates; expected 1 to {MOST_DOFS}", plan.nq),
            });
        }
        let mut values = HashMap::new();
        let mut size = |name: &str, n: usize| values.insert(name.to_owned(), ShaderDefValue::UInt(n as u32));
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
        size("TRIANGLE", plan.nv * (plan.nv + 1) / 2);
        size("WORKGROUP", WORKGROUP as usize);
        let mut feature = |name: &str, has: bool| {
            if has {
                values.insert(name.to_owned(), ShaderDefValue::Bool(true));
            }
        };
        let tests = |test: Test| plan.pairs.iter().any(|pair| pair.test == test);
        feature("IS_UNROLLED", unrolled);
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
        Ok(Specialised { values })
    }

    /// The shader of one entry file for this robot, validated.
    pub fn shader(&self, (file_path, source): (&str, &str)) -> naga::Module {
        let mut composer = Composer::default();
        let made = MODULES.iter().try_for_each(|(file_path, source)| {
            let module = ComposableModuleDescriptor {
                source,
                file_path,
                language: ShaderLanguage::Wgsl,
                shader_defs: self.values.clone(),
                ..ComposableModuleDescriptor::default()
            };
            composer.add_composable_module(module).map(drop).map_err(Box::new)
        });
        let shader = made.and_then(|()| {
            composer
                .make_naga_module(NagaModuleDescriptor {
                    source,
                    file_path,
                    shader_defs: self.values.clone(),
                    ..NagaModuleDescriptor::default()
                })
                .map_err(Box::new)
        });
        // The files are compiled in, and a test composes them for every robot that comes with the program; what else a robot fills in are
        // whole numbers from 1 to some thousand.
        shader.unwrap_or_else(|error: Box<ComposerError>| panic!("{}", error.emit_to_string(&composer)))
    }
}
