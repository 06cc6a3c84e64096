//! From accelerations to the next state: semi-implicit Euler with implicit joint damping (mj_Euler), and the classical Runge–Kutta
//! method of fourth order (mj_RungeKutta).

use super::evaluate;
use super::factor::{factor, solve};
use super::lane::Lane;
use super::plan::Plan;
use super::spatial::{normalized, quat_mul, unit};
use super::workspace::Workspace;
use crate::physics::model::{Integrator, JointKind};

/// One timestep. Evaluates the forward dynamics itself: once, or four times.
#[inline(always)]
pub fn step<L: Lane>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let stages = match plan.integrator {
        Integrator::Euler => 1,
        Integrator::Rk4 => 4,
    };
    ws.qpos_start.copy_from_slice(&ws.qpos);
    ws.qvel_start.copy_from_slice(&ws.qvel);
    ws.qvel_sum.fill(L::zero());
    ws.qacc_sum.fill(L::zero());
    for stage in 0..stages {
        // The one place that the evaluation is inlined into.
        evaluate(plan, ws);
        match plan.integrator {
            Integrator::Euler => euler(plan, ws),
            Integrator::Rk4 => runge_kutta(plan, ws, stage),
        }
    }
}

/// v ← v + h (M + h B)⁻¹ f, q ← q + h v, for joint damping B.
#[inline(always)]
fn euler<L: Lane>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let (nv, h) = (plan.nv, L::splat(plan.timestep));
    let solver = &mut ws.solver;
    solver.hessian.copy_from_slice(&ws.mass);
    for (i, dof) in plan.dofs.iter().enumerate() {
        solver.hessian[i * nv + i] += h * L::splat(dof.damping);
        solver.direction[i] = ws.smooth[i] + ws.constraint[i];
    }
    factor(&plan.tree, &mut solver.hessian, &mut solver.inverse);
    solve(&plan.tree, &solver.hessian, &solver.inverse, &mut solver.direction);
    for i in 0..nv {
        ws.qvel[i] = h.mul_add(solver.direction[i], ws.qvel[i]);
    }
    advance(plan, &ws.qpos_start, &ws.qvel, h, &mut ws.qpos);
}

/// Stages at 0, ½, ½, 1 with weights 1, 2, 2, 1: from the accelerations of one to the state of the next.
#[inline(always)]
fn runge_kutta<L: Lane>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>, stage: usize) {
    let h = L::splat(plan.timestep);
    let weight = L::of(if stage == 0 || stage == 3 { 1.0 / 6.0 } else { 1.0 / 3.0 });
    for i in 0..plan.nv {
        ws.qvel_sum[i] = weight.mul_add(ws.qvel[i], ws.qvel_sum[i]);
        ws.qacc_sum[i] = weight.mul_add(ws.qacc[i], ws.qacc_sum[i]);
    }
    if stage < 3 {
        let ahead = h * L::of(if stage == 2 { 1.0 } else { 0.5 });
        advance(plan, &ws.qpos_start, &ws.qvel, ahead, &mut ws.qpos);
        for i in 0..plan.nv {
            ws.qvel[i] = ahead.mul_add(ws.qacc[i], ws.qvel_start[i]);
        }
    } else {
        advance(plan, &ws.qpos_start, &ws.qvel_sum, h, &mut ws.qpos);
        for i in 0..plan.nv {
            ws.qvel[i] = h.mul_add(ws.qacc_sum[i], ws.qvel_start[i]);
        }
    }
}

/// q moved by a velocity for a time; a free joint's quaternion turns by the rotation vector (mj_integratePos).
#[inline(always)]
fn advance<L: Lane>(plan: &Plan<L::Scalar>, from: &[L], qvel: &[L], time: L, to: &mut [L]) {
    for joint in &plan.joints {
        let (q, v) = (joint.qposadr, joint.dofadr);
        match joint.kind {
            JointKind::Slide | JointKind::Hinge => to[q] = time.mul_add(qvel[v], from[q]),
            JointKind::Free => {
                for k in 0..3 {
                    to[q + k] = time.mul_add(qvel[v + k], from[q + k]);
                }
                let (axis, speed) = normalized([qvel[v + 3], qvel[v + 4], qvel[v + 5]]);
                let (sin, cos) = (speed * time * L::of(0.5)).sin_cos();
                let turn = [cos, sin * axis[0], sin * axis[1], sin * axis[2]];
                let turned = unit(quat_mul([from[q + 3], from[q + 4], from[q + 5], from[q + 6]], turn));
                to[q + 3..q + 7].copy_from_slice(&turned);
            }
        }
    }
}
