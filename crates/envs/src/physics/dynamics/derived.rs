//! What an observation reads of an evaluation: [`Quantity`], kept side by side for each world.

use super::drift::Drift;
use super::external::external_forces;
use super::plan::Plan;
use super::workspace::Workspace;
use crate::physics::backend::Quantity;
use flipside_core::simd::Lanes;
use glam::{DMat3, DQuat, DVec3};

/// Where each quantity lies among the numbers that a backend keeps of a world.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// First index of body positions and rotation matrices, `[nbody, 12]`, and of the others in the order of [`Quantity::ALL`].
    pub at: [Option<usize>; 6],
    /// Numbers a world.
    pub len: usize,
}

impl Layout {
    /// Room for these, frames always among them.
    pub fn new<S>(plan: &Plan<S>, needs: &[Quantity]) -> Layout {
        let mut layout = Layout::default();
        for (slot, quantity) in layout.at.iter_mut().zip(Quantity::ALL) {
            let asked = needs.contains(&quantity);
            let bodies = plan.bodies.len();
            let width = match quantity {
                Quantity::Frames => 12 * bodies,
                Quantity::Cinert => 10 * bodies,
                Quantity::Cvel | Quantity::CfrcExt => 6 * bodies,
                Quantity::QfrcActuator | Quantity::QfrcConstraint => plan.nv,
            };
            if asked {
                *slot = Some(layout.len);
                layout.len += width;
            }
        }
        layout
    }

    /// First index of a quantity, where it is kept.
    pub fn of(&self, quantity: Quantity) -> Option<usize> {
        self.at[quantity as usize]
    }
}

/// Keeps what was asked for of the evaluation that `ws` holds.
#[inline(always)]
pub fn store<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>, layout: &Layout, out: &mut [L]) {
    if let Some(at) = layout.of(Quantity::Frames) {
        for (body, out) in out[at..at + 12 * plan.bodies.len()].chunks_exact_mut(12).enumerate() {
            out[..3].copy_from_slice(&ws.xpos[body]);
            out[3..].copy_from_slice(&ws.xmat[body]);
        }
    }
    if let Some(at) = layout.of(Quantity::Cinert) {
        for (out, inertia) in out[at..].chunks_exact_mut(10).zip(&ws.cinert) {
            out.copy_from_slice(inertia);
        }
    }
    if let Some(at) = layout.of(Quantity::Cvel) {
        for (out, velocity) in out[at..].chunks_exact_mut(6).zip(&ws.cvel) {
            out.copy_from_slice(velocity);
        }
    }
    if let Some(at) = layout.of(Quantity::CfrcExt) {
        external_forces(plan, ws);
        for (out, wrench) in out[at..].chunks_exact_mut(6).zip(&ws.cfrc_ext) {
            out.copy_from_slice(wrench);
        }
    }
    if let Some(at) = layout.of(Quantity::QfrcActuator) {
        out[at..at + plan.nv].copy_from_slice(&ws.actuator);
    }
    if let Some(at) = layout.of(Quantity::QfrcConstraint) {
        out[at..at + plan.nv].copy_from_slice(&ws.constraint);
    }
}

/// [`Quantity::Frames`] out of what was kept of a world: `number(i)` is the i-th of its positions and rotation matrices, counted from where
/// the drifting coordinates stood, `origin`.
pub fn frames<S>(plan: &Plan<S>, drift: &[Drift], origin: &[f64], number: impl Fn(usize) -> f64, out: &mut [f64]) {
    for (body, slot) in out.chunks_exact_mut(7).enumerate() {
        let mut pos = DVec3::from_array(std::array::from_fn(|i| number(12 * body + i)));
        for (drift, origin) in drift.iter().zip(origin) {
            if body > 0 && plan.bodies[body].root == drift.root {
                pos[drift.axis] += origin;
            }
        }
        let mat = DMat3::from_cols_array(&std::array::from_fn(|i| number(12 * body + 3 + i))).transpose();
        frame(slot, pos, DQuat::from_mat3(&mat).normalize());
    }
}

/// One body's row of [`Quantity::Frames`].
pub fn frame(slot: &mut [f64], pos: DVec3, quat: DQuat) {
    slot.copy_from_slice(&[pos.x, pos.y, pos.z, quat.w, quat.x, quat.y, quat.z]);
}
