//! One lane group: the worlds that share a vector register, and the job that steps them.

use crate::physics::backend::Quantity;
use crate::physics::dynamics::lane::{Job, Lane};
use crate::physics::dynamics::plan::Plan;
use crate::physics::dynamics::workspace::Workspace;
use crate::physics::dynamics::{evaluate, external_forces, step};

/// What a group keeps between steps, beside the state.
pub struct Group<L: Lane> {
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

/// Where each quantity lies in [`Group::derived`].
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// First index of body positions and rotation matrices, `[nbody, 12]`, and of the others in the order of [`Quantity::ALL`].
    pub at: [Option<usize>; 6],
    /// Numbers a world.
    pub len: usize,
}

impl Layout {
    /// Room for these, frames always among them.
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

    fn of(&self, quantity: Quantity) -> Option<usize> {
        self.at[quantity as usize]
    }
}

/// What every group of a batch shares.
pub struct Shared<L: Lane> {
    pub plan: Plan<L::Scalar>,
    pub layout: Layout,
    /// Indices into qpos of coordinates that nothing depends on (how far a robot has run): a step counts them from zero and the sum is kept
    /// in double precision, so that a robot far from the origin is simulated as precisely as one at it.
    pub drift: Vec<Drift>,
}

/// A coordinate that nothing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Into qpos.
    pub coordinate: usize,
    /// The axis of the world along which it moves its tree: 0, 1 or 2.
    pub axis: usize,
    /// The tree's root.
    pub root: usize,
}

/// Beyond this a coordinate or a velocity counts as diverged, as in MuJoCo (mjMAXVAL).
const LARGEST: f64 = 1e10;

/// Steps a group: its rows of ctrl, qpos and qvel, `[lanes, …]`, with as many lanes as there are rows.
pub struct StepGroup<'a, L: Lane> {
    pub shared: &'a Shared<L>,
    pub ws: &'a mut Workspace<L>,
    pub group: &'a mut Group<L>,
    pub rest: &'a [f64],
    pub ctrl: &'a [f64],
    pub qpos: &'a mut [f64],
    pub qvel: &'a mut [f64],
    pub frame_skip: usize,
}

impl<L: Lane> Job for StepGroup<'_, L> {
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

/// Keeps what was asked for of the evaluation that `ws` holds.
#[inline(always)]
pub fn store<L: Lane>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>, layout: &Layout, out: &mut [L]) {
    if let Some(at) = layout.of(Quantity::Frames) {
        for (body, out) in out[at..at + 12 * plan.bodies.len()].chunks_exact_mut(12).enumerate() {
            out[..3].copy_from_slice(&ws.xpos[body]);
            out[3..].copy_from_slice(&ws.xmat[body]);
        }
    }
    if let Some(at) = layout.of(Quantity::Cinert) {
        for (out, inertia) in out[at..].chunks_exact_mut(10).zip(&ws.cinert) {
            out.copy_from_slice(inertia);
        }
    }
    if let Some(at) = layout.of(Quantity::Cvel) {
        for (out, velocity) in out[at..].chunks_exact_mut(6).zip(&ws.cvel) {
            out.copy_from_slice(velocity);
        }
    }
    if let Some(at) = layout.of(Quantity::CfrcExt) {
        external_forces(plan, ws);
        for (out, wrench) in out[at..].chunks_exact_mut(6).zip(&ws.cfrc_ext) {
            out.copy_from_slice(wrench);
        }
    }
    if let Some(at) = layout.of(Quantity::QfrcActuator) {
        out[at..at + plan.nv].copy_from_slice(&ws.actuator);
    }
    if let Some(at) = layout.of(Quantity::QfrcConstraint) {
        out[at..at + plan.nv].copy_from_slice(&ws.constraint);
    }
}

/// Evaluates the state that a workspace holds.
pub struct Evaluate<'a, L: Lane> {
    pub plan: &'a Plan<L::Scalar>,
    pub ws: &'a mut Workspace<L>,
}

impl<L: Lane> Job for Evaluate<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        evaluate(self.plan, self.ws);
    }
}
