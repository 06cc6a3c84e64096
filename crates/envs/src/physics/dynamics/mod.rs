//! MuJoCo's equations, one file per stage, written once for any [`Lanes`]: [`f64`] for reference, registers of `f32`
//! for speed. A lane is a world.
//!
//! A forward evaluation goes from a state (qpos, qvel) and controls to accelerations:
//!
//! ```text
//! kinematics → inertia → bias, passive, actuation → contact, constraint → solve → (integrate)
//!    frames        M              forces             rows of J, D, aref    qacc     next state
//! ```
//!
//! The stages share one [`workspace::Workspace`] and allocate nothing. They are inlined into one function for each
//! instruction set ([`Lanes::run`]), so that a portable build uses whatever the processor has.

mod actuation;
mod bias;
mod collide;
mod compile;
mod constraint;
mod contact;
pub mod derived;
pub mod drift;
mod external;
mod factor;
mod inertia;
mod integrate;
mod kinematics;
mod passive;
pub mod plan;
mod refuse;
mod solve;
pub mod spatial;
mod weights;
pub mod workspace;

use super::backend::PhysicsError;
use super::model::Model;
use flipside_core::simd::Lanes;
use plan::Plan;
use workspace::Workspace;

pub use integrate::step;

/// One forward evaluation of all lanes: accelerations and constraint forces from qpos, qvel and ctrl. The solver starts
/// from `qacc`.
#[inline(always)]
pub fn evaluate<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    kinematics::kinematics(plan, ws);
    kinematics::motions(plan, ws);
    inertia::inertia(plan, ws);
    bias::velocities(plan, ws);
    bias::bias(plan, ws);
    passive::passive(plan, ws);
    actuation::actuation(plan, ws);
    actuation::smooth(plan, ws);
    contact::contacts(plan, ws);
    constraint::limits(plan, ws);
    solve::accelerations(plan, ws);
}

/// What one forward evaluation computes, in double precision, by MuJoCo's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// M with armature, `[nv, nv]`, both halves.
    pub mass_matrix: Vec<f64>,
    /// Coriolis, centrifugal and gravitational forces, `[nv]`.
    pub bias: Vec<f64>,
    /// Springs, dampers and the medium, `[nv]`.
    pub passive: Vec<f64>,
    /// Motors, `[nv]`.
    pub actuator: Vec<f64>,
    /// M⁻¹ (passive − bias + actuator), `[nv]`.
    pub qacc_smooth: Vec<f64>,
    /// Forces of contacts and limits, `[nv]`.
    pub constraint: Vec<f64>,
    /// Accelerations, `[nv]`.
    pub qacc: Vec<f64>,
    /// How many contacts there are.
    pub contacts: usize,
    /// How far the solution is from its optimum: ‖M qacc − smooth forces − Jᵀf(qacc)‖ over 1 + ‖smooth forces‖.
    pub residual: f64,
}

/// MuJoCo's `mj_forward` in double precision: `qpos` is `[nq]`, `qvel` `[nv]`, `ctrl` `[nu]`.
///
/// # Errors
/// [`PhysicsError::Unsupported`] if the robot has an element outside of what these equations cover.
pub fn forward(model: &Model, qpos: &[f64], qvel: &[f64], ctrl: &[f64]) -> Result<Forward, PhysicsError> {
    let plan = Plan::<f64>::new(model, "lanes")?;
    let mut ws = Workspace::<f64>::new(&plan);
    ws.qpos.copy_from_slice(qpos);
    ws.qvel.copy_from_slice(qvel);
    ws.ctrl.copy_from_slice(ctrl);
    evaluate(&plan, &mut ws);
    let nv = plan.nv;
    let mut mass_matrix = vec![0.0; nv * nv];
    for (i, columns) in plan.tree.rows.iter().enumerate() {
        for j in columns {
            mass_matrix[i * nv + j] = ws.mass[i * nv + j];
            mass_matrix[j * nv + i] = ws.mass[i * nv + j];
        }
    }
    let (constraint, qacc, contacts) = (ws.constraint.clone(), ws.qacc.clone(), ws.contacts.count);
    let residual = residual(&plan, &mut ws, &qacc);
    solve::unconstrained(&plan, &mut ws);
    Ok(Forward {
        mass_matrix,
        bias: ws.bias,
        passive: ws.passive,
        actuator: ws.actuator,
        qacc_smooth: ws.qacc,
        constraint,
        qacc,
        contacts,
        residual,
    })
}

/// How far accelerations are from the optimum of the state that was last evaluated: see [`Forward::residual`].
pub fn residual(plan: &Plan<f64>, ws: &mut Workspace<f64>, qacc: &[f64]) -> f64 {
    ws.qacc.copy_from_slice(qacc);
    solve::optimality(plan, ws)
}
