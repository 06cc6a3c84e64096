//! One lane group: the worlds that share a vector register, and the job that steps them.

use crate::physics::dynamics::derived::{Layout, store};
use crate::physics::dynamics::drift::Drift;
use crate::physics::dynamics::plan::Plan;
use crate::physics::dynamics::workspace::Workspace;
use crate::physics::dynamics::{LARGEST, evaluate, step};
use flipside_core::simd::{JobOn, Lanes};

/// What a group keeps between steps, beside the state.
pub struct Group<L: Lanes> {
    /// Accelerations of the last evaluation, where the solver starts next, `[nv]`.
    pub qacc: Vec<L>,
    /// What was asked for with `need`, quantity after quantity.
    pub derived: Vec<L>,
    /// By lane: went non-finite and stays where it was.
    pub frozen: Vec<bool>,
    /// By lane: whether the last thing that happened was a step.
    pub stepped: Vec<bool>,
    /// Where each lane's drifting coordinates stood when the last step began, `[lanes, drift]`; see [`drift`].
    pub origin: Vec<f64>,
    /// How many times a lane was frozen.
    pub diverged: u64,
}

/// What every group of a batch shares.
pub struct Shared<L: Lanes> {
    pub plan: Plan<L::Scalar>,
    pub layout: Layout,
    /// Indices into qpos of coordinates that nothing depends on (how far a robot has run): a step counts them from zero and the sum is kept
    /// in double precision, so that a robot far from the origin is simulated as precisely as one at it.
    pub drift: Vec<Drift>,
}

/// Steps a group: its rows of ctrl, qpos and qvel, `[lanes, …]`, with as many lanes as there are rows.
pub struct StepGroup<'a, L: Lanes> {
    pub shared: &'a Shared<L>,
    pub ws: &'a mut Workspace<L>,
    pub group: &'a mut Group<L>,
    pub rest: &'a [f64],
    pub ctrl: &'a [f64],
    pub qpos: &'a mut [f64],
    pub qvel: &'a mut [f64],
    pub frame_skip: usize,
}

impl<L: Lanes> JobOn<L> for StepGroup<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let StepGroup { shared, ws, group, rest, ctrl, qpos, qvel, frame_skip } = self;
        let plan = &shared.plan;
        let (nq, nv, nu) = (plan.nq, plan.nv, plan.nu);
        let lanes = group.frozen.len();
        for lane in 0..L::LANES {
            // Lanes without a world, and worlds that are frozen, lie at rest in the reference configuration.
            if lane < lanes && !group.frozen[lane] {
                for (i, x) in ws.qpos.iter_mut().enumerate() {
                    x.set(lane, qpos[lane * nq + i]);
                }
                for (i, x) in ws.qvel.iter_mut().enumerate() {
                    x.set(lane, qvel[lane * nv + i]);
                }
                for (i, x) in ws.ctrl.iter_mut().enumerate() {
                    x.set(lane, ctrl[lane * nu + i]);
                }
                for (k, drift) in shared.drift.iter().enumerate() {
                    group.origin[lane * shared.drift.len() + k] = qpos[lane * nq + drift.coordinate];
                    ws.qpos[drift.coordinate].set(lane, 0.0);
                }
            } else {
                for (i, x) in ws.qpos.iter_mut().enumerate() {
                    x.set(lane, rest[i]);
                }
                ws.qvel.iter_mut().for_each(|x| x.set(lane, 0.0));
                ws.ctrl.iter_mut().for_each(|x| x.set(lane, 0.0));
                group.qacc.iter_mut().for_each(|x| x.set(lane, 0.0));
            }
        }
        ws.qacc.copy_from_slice(&group.qacc);
        for _ in 0..frame_skip {
            step(plan, ws);
        }
        group.qacc.copy_from_slice(&ws.qacc);
        store(plan, ws, &shared.layout, &mut group.derived);
        for lane in 0..lanes {
            if group.frozen[lane] {
                continue;
            }
            let good = |x: f64| x.abs() < LARGEST; // false for NaN
            let finite = ctrl[lane * nu..(lane + 1) * nu].iter().all(|u| u.is_finite())
                && ws.qpos.iter().all(|x| good(x.get(lane)))
                && ws.qvel.iter().all(|x| good(x.get(lane)))
                && ws.qacc.iter().all(|x| good(x.get(lane)));
            group.stepped[lane] = finite;
            if !finite {
                group.frozen[lane] = true;
                group.diverged += 1;
                continue;
            }
            for (i, x) in ws.qpos.iter().enumerate() {
                qpos[lane * nq + i] = x.get(lane);
            }
            for (i, x) in ws.qvel.iter().enumerate() {
                qvel[lane * nv + i] = x.get(lane);
            }
            for (k, drift) in shared.drift.iter().enumerate() {
                qpos[lane * nq + drift.coordinate] += group.origin[lane * shared.drift.len() + k];
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
