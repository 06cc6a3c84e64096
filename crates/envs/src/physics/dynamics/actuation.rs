//! Motors: gear · clip(ctrl), in joint space (mj_fwdActuation).

use super::plan::Plan;
use super::spatial::clear;
use super::workspace::Workspace;
use flipside_core::simd::Lanes;

/// Actuator forces in joint space.
#[inline(always)]
pub fn actuation<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    clear(&mut ws.actuator);
    for (motor, ctrl) in plan.motors.iter().zip(&ws.ctrl) {
        let held = ctrl.max(L::splat(motor.low)).min(L::splat(motor.high));
        ws.actuator[motor.dof] = L::splat(motor.gear).mul_add(held, ws.actuator[motor.dof]);
    }
}

/// The sum of all forces that do not depend on the acceleration: passive − bias + actuator.
#[inline(always)]
pub fn smooth<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    for dof in 0..plan.nv {
        ws.smooth[dof] = ws.passive[dof] - ws.bias[dof] + ws.actuator[dof];
    }
}
