//! Velocities of the bodies (mj_comVel), and the forces due to motion and gravity alone: recursive Newton–Euler
//! (mj_rne).

use super::plan::Plan;
use super::spatial::{axpy6, cross_force, cross_motion, dot6, inertia_mul, v3};
use super::workspace::Workspace;
use crate::physics::model::JointKind;
use flipside_core::simd::Lanes;

/// Body velocities and how the joints' axes change.
#[inline(always)]
pub fn velocities<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    ws.cvel[0] = [L::zero(); 6];
    for (index, body) in plan.bodies.iter().enumerate().skip(1) {
        let mut velocity = ws.cvel[body.parent];
        for joint in &plan.joints[body.joints.clone()] {
            let first = joint.dofadr;
            match joint.kind {
                JointKind::Free => {
                    // The translation is along fixed axes and comes first.
                    for dof in first..first + 3 {
                        ws.cdof_dot[dof] = [L::zero(); 6];
                        velocity = axpy6(ws.qvel[dof], &ws.cdof[dof], &velocity);
                    }
                    for dof in first + 3..first + 6 {
                        ws.cdof_dot[dof] = cross_motion(&velocity, &ws.cdof[dof]);
                    }
                    for dof in first + 3..first + 6 {
                        velocity = axpy6(ws.qvel[dof], &ws.cdof[dof], &velocity);
                    }
                }
                JointKind::Slide | JointKind::Hinge => {
                    ws.cdof_dot[first] = cross_motion(&velocity, &ws.cdof[first]);
                    velocity = axpy6(ws.qvel[first], &ws.cdof[first], &velocity);
                }
            }
        }
        ws.cvel[index] = velocity;
    }
}

/// Coriolis, centrifugal and gravitational forces in joint space.
#[inline(always)]
pub fn bias<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let zero = L::zero();
    let [x, y, z] = v3::<L>(&plan.gravity);
    // Gravity is represented by a world that accelerates upwards.
    ws.cacc[0] = [zero, zero, zero, -x, -y, -z];
    for (index, body) in plan.bodies.iter().enumerate().skip(1) {
        let mut acceleration = ws.cacc[body.parent];
        for dof in body.dofs.clone() {
            acceleration = axpy6(ws.qvel[dof], &ws.cdof_dot[dof], &acceleration);
        }
        ws.cacc[index] = acceleration;
        let momentum = inertia_mul(&ws.cinert[index], &ws.cvel[index]);
        let gyroscopic = cross_force(&ws.cvel[index], &momentum);
        let force = inertia_mul(&ws.cinert[index], &acceleration);
        ws.cfrc[index] = axpy6(L::one(), &force, &gyroscopic);
    }
    for index in (1..plan.bodies.len()).rev() {
        let body = &plan.bodies[index];
        for dof in body.dofs.clone() {
            ws.bias[dof] = dot6(&ws.cdof[dof], &ws.cfrc[index]);
        }
        if body.parent > 0 {
            ws.cfrc[body.parent] = axpy6(L::one(), &ws.cfrc[index], &ws.cfrc[body.parent]);
        }
    }
}
