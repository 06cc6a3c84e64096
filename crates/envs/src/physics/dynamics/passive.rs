//! Forces without a command: springs, dampers, and the drag of a medium on the bodies' boxes of equal inertia
//! (mj_passive).

use super::plan::Plan;
use super::spatial::{V3, add, cross, dot6, mul_const, mul_tv, mul_v, sub, v3};
use super::workspace::Workspace;
use crate::physics::model::JointKind;
use flipside_core::simd::Lanes;
use std::f64::consts::PI;

/// Passive forces in joint space.
#[inline(always)]
pub fn passive<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    for (i, dof) in plan.dofs.iter().enumerate() {
        ws.passive[i] = -(L::splat(dof.damping) * ws.qvel[i]);
    }
    for joint in plan.joints.iter().filter(|joint| joint.kind != JointKind::Free) {
        let stretch = ws.qpos[joint.qposadr] - L::splat(joint.springref);
        ws.passive[joint.dofadr] = L::splat(joint.stiffness).mul_add(-stretch, ws.passive[joint.dofadr]);
    }
    if let Some([density, viscosity]) = plan.medium {
        drag(plan, ws, L::splat(density), L::splat(viscosity));
    }
}

/// Per body, in its principal axes, with half-sizes r of the box and their mean r̄:
/// force_i = −2ρ r_j r_k |v_i| v_i − 6πβ r̄ v_i and torque_i = −½ρ r_i (r_j⁴ + r_k⁴) |ω_i| ω_i − 8πβ r̄³ ω_i.
#[inline(always)]
fn drag<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>, density: L, viscosity: L) {
    for (index, body) in plan.bodies.iter().enumerate().skip(1) {
        let Some((half, axes)) = &body.fluid else { continue };
        let axes = mul_const(&ws.xmat[index], axes);
        let v = &ws.cvel[index];
        let (angular, linear) = ([v[0], v[1], v[2]], [v[3], v[4], v[5]]);
        let arm = sub(ws.xipos[index], ws.com[body.root]);
        // The velocity of the centre of mass.
        let here = add(linear, cross(angular, arm));
        let (w, u) = (mul_tv(&axes, angular), mul_tv(&axes, here));
        let r: V3<L> = v3(half);
        let mean = (r[0] + r[1] + r[2]) * L::of(1.0 / 3.0);
        let mut force = [L::zero(); 3];
        let mut torque = [L::zero(); 3];
        for i in 0..3 {
            let (j, k) = ((i + 1) % 3, (i + 2) % 3);
            force[i] =
                -(L::of(2.0) * density * r[j] * r[k] * u[i].abs() * u[i]) - L::of(6.0 * PI) * viscosity * mean * u[i];
            torque[i] = -(L::of(0.5) * density * r[i] * (fourth(r[j]) + fourth(r[k])) * w[i].abs() * w[i])
                - L::of(8.0 * PI) * viscosity * (mean * mean * mean) * w[i];
        }
        let (force, torque) = (mul_v(&axes, force), mul_v(&axes, torque));
        let torque = add(torque, cross(arm, force));
        let wrench = [torque[0], torque[1], torque[2], force[0], force[1], force[2]];
        // The body's own last degree of freedom, or that of what carries it: its ancestors are all that move it.
        if let Some(dof) = plan.last_dof[index] {
            for moved in &plan.tree.rows[dof] {
                ws.passive[*moved] += dot6(&ws.cdof[*moved], &wrench);
            }
        }
    }
}

#[inline(always)]
fn fourth<L: Lanes>(x: L) -> L {
    x * x * (x * x)
}
