//! The lanes backend: MuJoCo's equations ([`super::dynamics`]) on sixteen or eight worlds at once in single precision,
//! or on one in double precision for reference.
//!
//! Worlds are grouped in order, with one world per lane, and threads take groups. A world's numbers depend only on its
//! own state and controls: not on its lane, the other worlds, the size of the batch or the number of threads. States
//! are stored in double precision between env steps.

mod group;
#[cfg(test)]
mod tests;

use super::Model;
use super::backend::{Backend, Contact, PhysicsError, Quantity};
use super::derived::DerivedState;
use super::dynamics::plan::Plan;
use super::dynamics::residual;
use super::dynamics::workspace::Workspace;
use super::host::{HostState, rows_mut};
use flipside_core::Threads;
use flipside_core::simd::{self, Instructions, Lanes};
use group::{Evaluate, StepGroup};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// The number type that the lanes backend computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision, as many worlds at once as a vector register holds.
    #[default]
    F32,
    /// Double precision, one world at a time: the reference.
    F64,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        match text {
            "f32" => Ok(Precision::F32),
            "f64" => Ok(Precision::F64),
            _ => Err(format!("\"{text}\" is no precision; expected f32 or f64")),
        }
    }
}

/// The name that `--backend` takes.
pub const NAME: &str = "lanes";

/// A batch of worlds on the widest lanes that this machine has, or in double precision.
pub fn lanes(
    precision: Precision,
    model: Arc<Model>,
    worlds: usize,
    threads: Option<usize>,
) -> Result<Box<dyn Backend>, PhysicsError> {
    Ok(match (precision, simd::detected()) {
        (Precision::F64, _) => Box::new(LanesBackend::<f64>::new(model, worlds, threads)?),
        (Precision::F32, Instructions::Portable) => Box::new(LanesBackend::<simd::F32x4>::new(model, worlds, threads)?),
        #[cfg(target_arch = "x86_64")]
        (Precision::F32, Instructions::Avx2) => Box::new(LanesBackend::<simd::F32x8>::new(model, worlds, threads)?),
        #[cfg(target_arch = "x86_64")]
        (Precision::F32, Instructions::Avx512) => Box::new(LanesBackend::<simd::F32x16>::new(model, worlds, threads)?),
    })
}

/// A batch of worlds in lanes.
struct LanesBackend<L: Lanes> {
    plan: Plan<L::Scalar>,
    host: HostState,
    derived: DerivedState,
    /// `[worlds, nu]`, of the last step.
    ctrl: Vec<f64>,
    /// Accelerations of each group's last evaluation, from which its solver starts next, `[groups, nv]`.
    qacc: Vec<L>,
    threads: Threads,
    /// One per thread, used by that thread only.
    workspaces: Vec<Mutex<Workspace<L>>>,
}

impl<L: Lanes> LanesBackend<L> {
    fn new(model: Arc<Model>, worlds: usize, threads: Option<usize>) -> Result<LanesBackend<L>, PhysicsError> {
        let plan = Plan::<L::Scalar>::new(&model, NAME)?;
        let groups = worlds.div_ceil(L::LANES);
        let threads = Threads::new("physics", threads, groups)?;
        Ok(LanesBackend {
            derived: DerivedState::new(&model, worlds, L::EPSILON > 1e-10, NAME)?,
            ctrl: vec![0.0; worlds * model.nu()],
            qacc: vec![L::zero(); groups * plan.nv],
            workspaces: (0..threads.count()).map(|_| Mutex::new(Workspace::new(&plan))).collect(),
            host: HostState::new(model, worlds),
            threads,
            plan,
        })
    }
}

impl<L: Lanes> Backend for LanesBackend<L> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self) -> &HostState {
        &self.host
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        self.host.set(world, qpos, qvel);
        let (group, lane, nv) = (world / L::LANES, world % L::LANES, self.plan.nv);
        self.qacc[group * nv..][..nv].iter_mut().for_each(|x| x.set(lane, 0.0));
        self.derived.evaluate(&self.host, world);
    }

    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError> {
        self.ctrl.copy_from_slice(ctrl);
        let LanesBackend { plan, host, derived, ctrl, qacc, threads, workspaces } = self;
        let DerivedState { layout, drift, numbers, origin, .. } = derived;
        if plan.nq == 0 {
            return Ok(());
        }
        let model = host.model().clone();
        let groups = host
            .chunks_mut(L::LANES)
            .zip(rows_mut(ctrl, plan.nu * L::LANES))
            .zip(rows_mut(qacc, plan.nv))
            .zip(rows_mut(origin, drift.len() * L::LANES))
            .zip(rows_mut(numbers, layout.len * L::LANES));
        threads.share_out(groups, |thread, ((((worlds, ctrl), qacc), origin), derived)| {
            // A workspace holds nothing between steps, so a workspace whose thread panicked is still usable.
            let ws = &mut *workspaces[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let rest = model.qpos0();
            L::run(StepGroup { plan, layout, drift, ws, rest, qacc, ctrl, worlds, origin, derived, frame_skip });
        });
        Ok(())
    }

    fn contacts(&self, world: usize, out: &mut Vec<Contact>) {
        self.derived.contacts(&self.host, world, out);
    }

    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError> {
        self.derived.need(&self.host, quantities);
        Ok(())
    }

    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]) {
        self.derived.write(&self.host, world, quantity, out);
    }

    fn solver_residual(&self) -> Option<f64> {
        let reference = &self.derived.plan;
        let mut exact = Workspace::<f64>::new(reference);
        let mut ws = Workspace::<L>::new(&self.plan);
        let mut worst: Option<f64> = None;
        for world in 0..self.host.worlds().min(64) {
            let (qpos, qvel) = self.host.state(world);
            let ctrl = &self.ctrl[world * self.plan.nu..][..self.plan.nu];
            exact.qpos.copy_from_slice(qpos);
            exact.qvel.copy_from_slice(qvel);
            exact.ctrl.copy_from_slice(ctrl);
            let spread = |to: &mut [L], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, x)| *to = L::of(*x));
            spread(&mut ws.qpos, qpos);
            spread(&mut ws.qvel, qvel);
            spread(&mut ws.ctrl, ctrl);
            L::run(Evaluate { plan: &self.plan, ws: &mut ws });
            super::dynamics::evaluate(reference, &mut exact);
            let qacc: Vec<f64> = ws.qacc.iter().map(|x| x.get(0)).collect();
            let off = residual(reference, &mut exact, &qacc);
            worst = Some(worst.map_or(off, |worst| worst.max(off)));
        }
        worst
    }
}
