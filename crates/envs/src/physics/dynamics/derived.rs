//! What an observation reads of an evaluation: each [`Quantity`], stored side by side for each world.

use super::drift::Drift;
use super::external::external_forces;
use super::plan::Plan;
use super::workspace::Workspace;
use crate::physics::backend::Quantity;
use crate::physics::host::write_frame;
use flipside_core::simd::Lanes;
use glam::{DMat3, DQuat, DVec3};

/// Where each quantity lies among the numbers that a backend stores for a world.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// First index of body positions and rotation matrices, `[nbody, 12]`, and of the others in the order of
    /// [`Quantity::ALL`].
    pub at: [Option<usize>; 6],
    /// How many numbers a world has.
    pub len: usize,
}

impl Layout {
    /// A layout for these quantities; frames are always among them.
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

    /// First index of a quantity, if it is stored.
    pub fn of(&self, quantity: Quantity) -> Option<usize> {
        self.at[quantity as usize]
    }
}

/// Writes the requested quantities of the evaluation that `ws` holds into `rows`, `[lanes, layout.len]`. There are as
/// many lanes as rows.
#[inline(always)]
pub fn store<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>, layout: &Layout, rows: &mut [f64]) {
    let stride = layout.len;
    if stride == 0 {
        return;
    }
    if let Some(at) = layout.of(Quantity::Frames) {
        for (body, (xpos, xmat)) in ws.xpos.iter().zip(&ws.xmat).enumerate() {
            put(xpos, rows, stride, at + 12 * body);
            put(xmat, rows, stride, at + 12 * body + 3);
        }
    }
    if let Some(at) = layout.of(Quantity::Cinert) {
        put(ws.cinert.as_flattened(), rows, stride, at);
    }
    if let Some(at) = layout.of(Quantity::Cvel) {
        put(ws.cvel.as_flattened(), rows, stride, at);
    }
    if let Some(at) = layout.of(Quantity::CfrcExt) {
        external_forces(plan, ws);
        put(ws.cfrc_ext.as_flattened(), rows, stride, at);
    }
    if let Some(at) = layout.of(Quantity::QfrcActuator) {
        put(&ws.actuator, rows, stride, at);
    }
    if let Some(at) = layout.of(Quantity::QfrcConstraint) {
        put(&ws.constraint, rows, stride, at);
    }
}

/// Writes numbers of every lane into its row, starting at index `at`.
#[inline(always)]
fn put<L: Lanes>(numbers: &[L], rows: &mut [f64], stride: usize, at: usize) {
    for (lane, row) in rows.chunks_exact_mut(stride).enumerate() {
        for (slot, x) in row[at..at + numbers.len()].iter_mut().zip(numbers) {
            *slot = x.get(lane);
        }
    }
}

/// Computes [`Quantity::Frames`] from the stored numbers of a world: `numbers` are its positions and rotation matrices,
/// `[nbody, 12]`, relative to `origin`, the values of the drifting coordinates.
pub fn frames<S>(plan: &Plan<S>, drift: &[Drift], origin: &[f64], numbers: &[f64], out: &mut [f64]) {
    for (body, (slot, numbers)) in out.chunks_exact_mut(7).zip(numbers.chunks_exact(12)).enumerate() {
        let mut pos = DVec3::from_slice(numbers);
        for (drift, origin) in drift.iter().zip(origin) {
            if body > 0 && plan.bodies[body].root == drift.root {
                pos[drift.axis] += origin;
            }
        }
        let mat = DMat3::from_cols_slice(&numbers[3..]).transpose();
        write_frame(slot, pos, DQuat::from_mat3(&mat).normalize());
    }
}
