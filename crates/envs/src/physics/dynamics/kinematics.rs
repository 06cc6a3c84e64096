//! Where everything is: body frames from joint positions, centres of mass, and how each degree of freedom moves its
//! body.

use super::plan::{Axis, Plan};
use super::spatial::{M3, S6, V3, add, axpy, column, cross, mul_const, mul_v, rotation, scale, sub, v3};
use super::workspace::Workspace;
use crate::physics::model::JointKind;
use flipside_core::simd::Lanes;

/// Body frames, anchors and axes from qpos (mj_kinematics).
#[inline(always)]
pub fn kinematics<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let (zero, one) = (L::zero(), L::one());
    ws.xpos[0] = [zero; 3];
    ws.xmat[0] = [one, zero, zero, zero, one, zero, zero, zero, one];
    ws.xipos[0] = [zero; 3];
    for (index, body) in plan.bodies.iter().enumerate().skip(1) {
        let parent = &ws.xmat[body.parent];
        let mut pos = add(ws.xpos[body.parent], mul_v(parent, v3(&body.pos)));
        let mut mat = match &body.mat {
            Some(turn) => mul_const(parent, turn),
            None => *parent,
        };
        for j in body.joints.clone() {
            let joint = &plan.joints[j];
            let q = &ws.qpos[joint.qposadr..];
            match joint.kind {
                JointKind::Free => {
                    pos = [q[0], q[1], q[2]];
                    mat = rotation([q[3], q[4], q[5], q[6]]);
                    ws.anchor[j] = pos;
                    ws.axis[j] = column(&mat, 2);
                }
                JointKind::Slide => {
                    let axis = world_axis(&mat, &joint.axis);
                    ws.anchor[j] = anchor_of(&joint.pos, pos, &mat);
                    ws.axis[j] = axis;
                    pos = axpy(q[0] - L::splat(joint.reference), axis, pos);
                }
                JointKind::Hinge => {
                    let axis = world_axis(&mat, &joint.axis);
                    let anchor = anchor_of(&joint.pos, pos, &mat);
                    ws.anchor[j] = anchor;
                    ws.axis[j] = axis;
                    mat = turned(&mat, &joint.axis, q[0] - L::splat(joint.reference));
                    if let Some(at) = &joint.pos {
                        pos = sub(anchor, mul_v(&mat, v3(at)));
                    }
                }
            }
        }
        ws.xipos[index] = add(pos, mul_v(&mat, v3(&body.ipos)));
        ws.xpos[index] = pos;
        ws.xmat[index] = mat;
    }
}

#[inline(always)]
fn anchor_of<L: Lanes>(at: &Option<[L::Scalar; 3]>, pos: V3<L>, mat: &M3<L>) -> V3<L> {
    match at {
        Some(at) => add(pos, mul_v(mat, v3(at))),
        None => pos,
    }
}

#[inline(always)]
fn world_axis<L: Lanes>(mat: &M3<L>, axis: &Axis<L::Scalar>) -> V3<L> {
    match axis {
        Axis::Own(k, sign) => scale(L::splat(*sign), column(mat, *k)),
        Axis::Any(axis) => mul_v(mat, v3(axis)),
    }
}

/// A frame turned about an axis of its own by an angle.
#[inline(always)]
fn turned<L: Lanes>(mat: &M3<L>, axis: &Axis<L::Scalar>, angle: L) -> M3<L> {
    let (sin, cos) = angle.sin_cos();
    match axis {
        Axis::Own(k, sign) => {
            let sin = sin * L::splat(*sign);
            let (a, b) = match k {
                0 => (1, 2),
                1 => (2, 0),
                _ => (0, 1),
            };
            let mut out = *mat;
            for row in 0..3 {
                let (x, y) = (mat[3 * row + a], mat[3 * row + b]);
                out[3 * row + a] = x.mul_add(cos, y * sin);
                out[3 * row + b] = y.mul_add(cos, -(x * sin));
            }
            out
        }
        // Each row r of the frame turns as a vector against the axis: Rodrigues' formula.
        Axis::Any(axis) => {
            let axis = v3::<L>(axis);
            let rest = L::one() - cos;
            let mut out = *mat;
            for row in 0..3 {
                let r = [mat[3 * row], mat[3 * row + 1], mat[3 * row + 2]];
                let along = (r[0] * axis[0] + r[1] * axis[1] + r[2] * axis[2]) * rest;
                let side = cross(r, axis);
                for k in 0..3 {
                    out[3 * row + k] = cos.mul_add(r[k], sin.mul_add(side[k], along * axis[k]));
                }
            }
            out
        }
    }
}

/// Centres of mass of the trees, and each degree of freedom's motion about them (mj_comPos).
#[inline(always)]
pub fn motions<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    for (index, body) in plan.bodies.iter().enumerate().skip(1) {
        if body.root == index {
            ws.com[index] = [L::zero(); 3];
        }
        ws.com[body.root] = axpy(L::splat(body.mass), ws.xipos[index], ws.com[body.root]);
    }
    for (index, body) in plan.bodies.iter().enumerate().skip(1) {
        if body.root == index {
            // The trees' masses stand in the plan of the root.
            ws.com[index] = scale(L::splat(plan.inverse_tree_mass[index]), ws.com[index]);
        }
    }
    for (j, joint) in plan.joints.iter().enumerate() {
        let com = ws.com[plan.bodies[joint.body].root];
        let zero = L::zero();
        let offset = sub(com, ws.anchor[j]);
        match joint.kind {
            JointKind::Free => {
                for k in 0..3 {
                    let mut shift = [zero; 6];
                    shift[3 + k] = L::one();
                    ws.cdof[joint.dofadr + k] = shift;
                    ws.cdof[joint.dofadr + 3 + k] = spin(column(&ws.xmat[joint.body], k), offset);
                }
            }
            JointKind::Slide => {
                let axis = ws.axis[j];
                ws.cdof[joint.dofadr] = [zero, zero, zero, axis[0], axis[1], axis[2]];
            }
            JointKind::Hinge => ws.cdof[joint.dofadr] = spin(ws.axis[j], offset),
        }
    }
}

/// The motion of a rotation about an axis, as felt at the centre of mass, which lies `offset` from the axis.
#[inline(always)]
fn spin<L: Lanes>(axis: V3<L>, offset: V3<L>) -> S6<L> {
    let moved = cross(axis, offset);
    [axis[0], axis[1], axis[2], moved[0], moved[1], moved[2]]
}
