//! From accelerations to the next state: semi-implicit Euler with implicit joint damping (mj_Euler), and the classical
//! Runge–Kutta method of fourth order (mj_RungeKutta).

use super::evaluate;
use super::factor::{factor, solve};
use super::plan::Plan;
use super::spatial::{V3, axpy, clear, copy, cross, dot, normalized, quat_mul, unit};
use super::workspace::Workspace;
use crate::physics::model::{Integrator, JointKind};
use flipside_core::simd::Lanes;

/// One timestep. Evaluates the forward dynamics itself: once, or four times.
#[inline(always)]
pub fn step<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let stages = match plan.integrator {
        Integrator::Euler => 1,
        Integrator::Rk4 => 4,
    };
    copy(&ws.qpos, &mut ws.qpos_start);
    copy(&ws.qvel, &mut ws.qvel_start);
    // This is needed for correctness: a `rate` left over from another group's diverged world is NaN, and NaN times the
    // first stage's zero is NaN.
    clear(&mut ws.rate);
    clear(&mut ws.qvel_sum);
    clear(&mut ws.qacc_sum);
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
fn euler<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let (nv, h) = (plan.nv, L::splat(plan.timestep));
    let solver = &mut ws.solver;
    copy(&ws.mass, &mut solver.hessian);
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
///
/// A free joint's rotation is integrated in the Lie algebra (Munthe-Kaas 1998), as MuJoCo 4 does: the rotation since
/// the step began is exp(u), and a stage's angular velocity ω, which is in the axes of the body as turned by u, counts
/// as u's rate dexp⁻¹_{−u}(ω). Plain sums of angular velocities would be of second order only.
#[inline(always)]
fn runge_kutta<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>, stage: usize) {
    let h = L::splat(plan.timestep);
    let weight = L::of(if stage == 0 || stage == 3 { 1.0 / 6.0 } else { 1.0 / 3.0 });
    // The rate of this stage: qvel, except for rotations. `rate` holds the last stage's.
    let behind = h * L::of(if stage == 3 { 1.0 } else { 0.5 });
    for joint in &plan.joints {
        let v = joint.dofadr;
        match joint.kind {
            JointKind::Slide | JointKind::Hinge => ws.rate[v] = ws.qvel[v],
            JointKind::Free => {
                let behind = if stage == 0 { L::zero() } else { behind };
                let turned = [behind * ws.rate[v + 3], behind * ws.rate[v + 4], behind * ws.rate[v + 5]];
                let rate = algebra_rate(turned, [ws.qvel[v + 3], ws.qvel[v + 4], ws.qvel[v + 5]]);
                ws.rate[v..v + 3].copy_from_slice(&ws.qvel[v..v + 3]);
                ws.rate[v + 3..v + 6].copy_from_slice(&rate);
            }
        }
    }
    for i in 0..plan.nv {
        ws.qvel_sum[i] = weight.mul_add(ws.rate[i], ws.qvel_sum[i]);
        ws.qacc_sum[i] = weight.mul_add(ws.qacc[i], ws.qacc_sum[i]);
    }
    if stage < 3 {
        let ahead = h * L::of(if stage == 2 { 1.0 } else { 0.5 });
        advance(plan, &ws.qpos_start, &ws.rate, ahead, &mut ws.qpos);
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

/// dexp⁻¹_{−u}(ω) = ω + ½ u × ω + k u × (u × ω) with k = (1 − (t/2) cot(t/2)) / t² for t = |u|: how fast the rotation
/// vector u changes while the body turns with ω in its own axes.
#[inline(always)]
fn algebra_rate<L: Lanes>(u: V3<L>, omega: V3<L>) -> V3<L> {
    let (one, half) = (L::one(), L::of(0.5));
    let t2 = dot(u, u);
    let small = t2.lt(L::of(0.04));
    // 1/12 + t²/720 + t⁴/30240 + t⁶/1209600, within 1e-12 of k below t = 0.2.
    let series = L::of(1.0 / 1_209_600.0)
        .mul_add(t2, L::of(1.0 / 30_240.0))
        .mul_add(t2, L::of(1.0 / 720.0))
        .mul_add(t2, L::of(1.0 / 12.0));
    let wide = L::select(small, one, t2);
    let angle = wide.sqrt() * half;
    let (sin, cos) = angle.sin_cos();
    let k = L::select(small, series, (one - angle * cos / sin) / wide);
    let once = cross(u, omega);
    axpy(k, cross(u, once), axpy(half, once, omega))
}

/// q moved by a velocity for a time; a free joint's quaternion turns by the rotation vector (mj_integratePos).
#[inline(always)]
fn advance<L: Lanes>(plan: &Plan<L::Scalar>, from: &[L], qvel: &[L], time: L, to: &mut [L]) {
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
                copy(&turned, &mut to[q + 3..q + 7]);
            }
        }
    }
}
