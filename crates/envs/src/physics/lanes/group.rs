//! The worlds that share a vector register, and the job that steps them.

use crate::physics::dynamics::derived::{Layout, store};
use crate::physics::dynamics::drift::Drift;
use crate::physics::dynamics::plan::Plan;
use crate::physics::dynamics::workspace::Workspace;
use crate::physics::dynamics::{evaluate, step};
use crate::physics::host::{WorldsMut, is_sane};
use flipside_core::simd::{JobOn, Lanes};

/// Steps a group: its rows of ctrl, qpos and qvel, `[lanes, …]`, with as many lanes as there are rows.
pub struct StepGroup<'a, L: Lanes> {
    pub plan: &'a Plan<L::Scalar>,
    pub layout: &'a Layout,
    pub drift: &'a [Drift],
    pub ws: &'a mut Workspace<L>,
    /// Where lanes without a world lie, `[nq]`.
    pub rest: &'a [f64],
    /// Accelerations of the last evaluation, from which the solver starts next, `[nv]`.
    pub qacc: &'a mut [L],
    /// `[lanes, nu]`.
    pub ctrl: &'a [f64],
    pub worlds: WorldsMut<'a>,
    /// `[lanes, drift]`.
    pub origin: &'a mut [f64],
    /// `[lanes, layout.len]`.
    pub derived: &'a mut [f64],
    pub frame_skip: usize,
}

impl<L: Lanes> JobOn<L> for StepGroup<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let StepGroup { plan, layout, drift, ws, rest, qacc, ctrl, worlds, origin, derived, frame_skip } = self;
        let WorldsMut { qpos, qvel, outcomes } = worlds;
        let (nq, nv, nu) = (plan.nq, plan.nv, plan.nu);
        let lanes = outcomes.len();
        for lane in 0..L::LANES {
            // Lanes without a world, and worlds that are frozen, are at rest in the reference configuration.
            if lane < lanes && !outcomes[lane].frozen() {
                for (i, x) in ws.qpos.iter_mut().enumerate() {
                    x.set(lane, qpos[lane * nq + i]);
                }
                for (i, x) in ws.qvel.iter_mut().enumerate() {
                    x.set(lane, qvel[lane * nv + i]);
                }
                for (i, x) in ws.ctrl.iter_mut().enumerate() {
                    x.set(lane, ctrl[lane * nu + i]);
                }
                for (k, found) in drift.iter().enumerate() {
                    origin[lane * drift.len() + k] = qpos[lane * nq + found.coordinate];
                    ws.qpos[found.coordinate].set(lane, 0.0);
                }
            } else {
                for (i, x) in ws.qpos.iter_mut().enumerate() {
                    x.set(lane, rest[i]);
                }
                ws.qvel.iter_mut().for_each(|x| x.set(lane, 0.0));
                ws.ctrl.iter_mut().for_each(|x| x.set(lane, 0.0));
                qacc.iter_mut().for_each(|x| x.set(lane, 0.0));
            }
        }
        ws.qacc.copy_from_slice(qacc);
        for _ in 0..frame_skip {
            step(plan, ws);
        }
        qacc.copy_from_slice(&ws.qacc);
        store(plan, ws, layout, derived);
        for (lane, outcome) in outcomes.iter_mut().enumerate() {
            if outcome.frozen() {
                continue;
            }
            let sane = ctrl[lane * nu..(lane + 1) * nu].iter().all(|u| u.is_finite())
                && ws.qpos.iter().all(|x| is_sane(x.get(lane)))
                && ws.qvel.iter().all(|x| is_sane(x.get(lane)))
                && ws.qacc.iter().all(|x| is_sane(x.get(lane)));
            outcome.step(sane);
            if !sane {
                continue;
            }
            for (i, x) in ws.qpos.iter().enumerate() {
                qpos[lane * nq + i] = x.get(lane);
            }
            for (i, x) in ws.qvel.iter().enumerate() {
                qvel[lane * nv + i] = x.get(lane);
            }
            for (k, found) in drift.iter().enumerate() {
                qpos[lane * nq + found.coordinate] += origin[lane * drift.len() + k];
            }
        }
    }
}

/// Evaluates the state that a workspace holds.
pub struct Evaluate<'a, L: Lanes> {
    pub plan: &'a Plan<L::Scalar>,
    pub ws: &'a mut Workspace<L>,
}

impl<L: Lanes> JobOn<L> for Evaluate<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        evaluate(self.plan, self.ws);
    }
}
