//! What contacts do to each body: cfrc_ext (mj_rnePostConstraint's first part).

use super::contact::in_world;
use super::plan::Plan;
use super::spatial::{cross, sub};
use super::workspace::Workspace;
use flipside_core::simd::{Lanes, Mask};

/// Torque and force of all contacts on each body, about the centre of mass of its tree, `[nbody]`, in one lane.
///
/// The solver's residuals must be those of the last evaluation.
#[inline(always)]
pub fn external_forces<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    for wrench in &mut ws.cfrc_ext {
        *wrench = [L::zero(); 6];
    }
    let directions = ws.contacts.directions;
    for c in 0..ws.contacts.count {
        let mut parts = [L::zero(); 3];
        super::solve::contact_force(ws, c, &mut parts[..directions]);
        let force = in_world(&ws.contacts.frame[c], &parts[..directions]);
        let point = ws.contacts.point[c];
        for lane in 0..L::LANES {
            if !ws.contacts.active[c].get(lane) {
                continue;
            }
            let pair = &plan.pairs[usize::from(ws.contacts.pair[c * L::LANES + lane])];
            for (body, sign) in [(pair.bodies[0], -1.0), (pair.bodies[1], 1.0)] {
                if body == 0 {
                    continue; // MuJoCo leaves the world's own row empty
                }
                let torque = cross(sub(point, ws.com[plan.bodies[body].root]), force);
                let wrench = &mut ws.cfrc_ext[body];
                for k in 0..3 {
                    let (t, f) = (wrench[k].get(lane), wrench[3 + k].get(lane));
                    wrench[k].set(lane, t + sign * torque[k].get(lane));
                    wrench[3 + k].set(lane, f + sign * force[k].get(lane));
                }
            }
        }
    }
}
