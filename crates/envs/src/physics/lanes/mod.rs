//! The lanes backend: MuJoCo's equations ([`super::dynamics`]) on sixteen or eight worlds at once in single precision, or on one in double
//! precision for reference.
//!
//! Worlds are grouped in order, as many to a group as there are lanes; threads take groups. A world's numbers depend on its own state and
//! controls alone: not on its lane, its neighbours, the size of the batch or the number of threads. States are kept in double precision
//! between env steps.

mod group;
#[cfg(test)]
mod tests;

use super::backend::{Backend, Contact, PhysicsError, Quantity};
use super::dynamics::derived::{Layout, frames};
use super::dynamics::drift::drifting;
use super::dynamics::plan::Plan;
use super::dynamics::reference::Reference;
use super::dynamics::residual;
use super::dynamics::workspace::Workspace;
use super::model::Model;
use flipside_core::simd::{self, Instructions, Lanes};
use group::{Evaluate, Group, Shared, StepGroup};
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

/// What `--backend` calls it.
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
    model: Arc<Model>,
    worlds: usize,
    shared: Shared<L>,
    groups: Vec<Group<L>>,
    /// For what a state implies before it was stepped: double precision, a world at a time.
    reference: Reference,
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    /// `[worlds, nu]`, of the last step.
    ctrl: Vec<f64>,
    /// One a thread, each in use by its own thread alone.
    workspaces: Vec<Mutex<Workspace<L>>>,
    /// Those beside the caller's; none where that does it all.
    helpers: Option<rayon::ThreadPool>,
}

impl<L: Lanes> LanesBackend<L> {
    fn new(model: Arc<Model>, worlds: usize, threads: Option<usize>) -> Result<LanesBackend<L>, PhysicsError> {
        let plan = Plan::<L::Scalar>::new(&model, NAME)?;
        let reference = Reference::new(&model, NAME)?;
        let drift = if L::EPSILON > 1e-10 { drifting(&model, &reference.plan) } else { vec![] };
        let layout = Layout::new(&plan, &[]);
        let count = worlds.div_ceil(L::LANES);
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or_else(available).clamp(1, count.max(1));
        let helpers = match threads {
            1 => None,
            threads => {
                let name = |index| format!("physics-{index}");
                Some(rayon::ThreadPoolBuilder::new().num_threads(threads - 1).thread_name(name).build()?)
            }
        };
        let group = |index: usize| {
            let lanes = (worlds - index * L::LANES).min(L::LANES);
            Group {
                qacc: vec![L::zero(); plan.nv],
                derived: vec![],
                frozen: vec![false; lanes],
                stepped: vec![false; lanes],
                origin: vec![0.0; lanes * drift.len()],
                diverged: 0,
            }
        };
        Ok(LanesBackend {
            groups: (0..count).map(group).collect(),
            workspaces: (0..threads).map(|_| Mutex::new(Workspace::new(&plan))).collect(),
            reference,
            qpos: model.qpos0().repeat(worlds),
            qvel: vec![0.0; worlds * model.nv()],
            ctrl: vec![0.0; worlds * model.nu()],
            shared: Shared { plan, layout, drift },
            worlds,
            helpers,
            model,
        })
    }

    /// Evaluates a world's present state in double precision and keeps what was asked for.
    fn sense(&mut self, world: usize) {
        let Shared { layout, drift, .. } = &self.shared;
        if layout.len == 0 {
            return;
        }
        let (nq, nv) = (self.model.nq(), self.model.nv());
        let (qpos, qvel) = (&self.qpos[world * nq..][..nq], &self.qvel[world * nv..][..nv]);
        let numbers = self.reference.sense(layout, drift, qpos, qvel);
        let (group, lane) = (&mut self.groups[world / L::LANES], world % L::LANES);
        for (k, drift) in drift.iter().enumerate() {
            group.origin[lane * self.shared.drift.len() + k] = qpos[drift.coordinate];
        }
        for (slot, x) in group.derived.iter_mut().zip(&numbers) {
            slot.set(lane, *x);
        }
    }
}

impl<L: Lanes> Backend for LanesBackend<L> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn worlds(&self) -> usize {
        self.worlds
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        let (nq, nv) = (self.model.nq(), self.model.nv());
        self.qpos[world * nq..][..nq].copy_from_slice(qpos);
        self.qvel[world * nv..][..nv].copy_from_slice(qvel);
        let (group, lane) = (&mut self.groups[world / L::LANES], world % L::LANES);
        group.frozen[lane] = false;
        group.stepped[lane] = false;
        group.qacc.iter_mut().for_each(|x| x.set(lane, 0.0));
        self.sense(world);
    }

    fn qpos(&self) -> &[f64] {
        &self.qpos
    }

    fn qvel(&self) -> &[f64] {
        &self.qvel
    }

    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError> {
        let (nq, nv, nu) = (self.model.nq(), self.model.nv(), self.model.nu());
        if nq == 0 || self.worlds == 0 {
            return Ok(());
        }
        self.ctrl.copy_from_slice(ctrl);
        let (shared, workspaces, rest) = (&self.shared, &self.workspaces, self.model.qpos0());
        let states = self.qpos.chunks_mut(nq * L::LANES).zip(self.qvel.chunks_mut(nv * L::LANES));
        let groups = Mutex::new(self.groups.iter_mut().zip(states).enumerate());
        let next = || groups.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = |thread: usize| {
            // A workspace holds nothing between steps, so that one whose thread panicked is as good as any.
            let mut ws = workspaces[thread].lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((index, (group, (qpos, qvel)))) = next() {
                let rows = index * L::LANES * nu..index * L::LANES * nu + group.frozen.len() * nu;
                L::run(StepGroup { shared, ws: &mut ws, group, rest, ctrl: &ctrl[rows], qpos, qvel, frame_skip });
            }
        };
        match &self.helpers {
            None => work(0),
            // The calling thread begins at once, and the others join it as they wake: to hand all of it over and wait would cost two wakings a step.
            Some(helpers) => helpers.in_place_scope(|scope| {
                let work = &work;
                (1..workspaces.len()).for_each(|thread| scope.spawn(move |_| work(thread)));
                work(0);
            }),
        }
        Ok(())
    }

    fn contacts(&self, world: usize, out: &mut Vec<Contact>) {
        let stepped = self.groups[world / L::LANES].stepped[world % L::LANES];
        self.reference.contacts(self, world, stepped, out);
    }

    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError> {
        self.shared.layout = Layout::new(&self.shared.plan, quantities);
        for group in &mut self.groups {
            group.derived = vec![L::zero(); self.shared.layout.len];
        }
        (0..self.worlds).for_each(|world| self.sense(world));
        Ok(())
    }

    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]) {
        let (group, lane) = (&self.groups[world / L::LANES], world % L::LANES);
        match (self.shared.layout.of(quantity), quantity) {
            (None, Quantity::Frames) => {
                let nq = self.model.nq();
                self.reference.frames(&self.model, &self.qpos[world * nq..][..nq], out);
            }
            (Some(at), Quantity::Frames) => {
                let Shared { plan, drift, .. } = &self.shared;
                let origin = &group.origin[lane * drift.len()..][..drift.len()];
                frames(plan, drift, origin, |i| group.derived[at + i].get(lane), out);
            }
            (None, _) => out.fill(0.0),
            (Some(at), _) => {
                for (slot, x) in out.iter_mut().zip(&group.derived[at..]) {
                    *slot = x.get(lane);
                }
            }
        }
    }

    fn frozen(&self, world: usize) -> bool {
        self.groups[world / L::LANES].frozen[world % L::LANES]
    }

    fn diverged(&self) -> u64 {
        self.groups.iter().map(|group| group.diverged).sum()
    }

    fn solver_residual(&self) -> Option<f64> {
        let (nq, nv, nu) = (self.model.nq(), self.model.nv(), self.model.nu());
        let mut exact = Workspace::<f64>::new(&self.reference.plan);
        let mut ws = Workspace::<L>::new(&self.shared.plan);
        let mut worst: Option<f64> = None;
        for world in 0..self.worlds.min(64) {
            let rows = [&self.qpos[world * nq..][..nq], &self.qvel[world * nv..][..nv], &self.ctrl[world * nu..][..nu]];
            exact.qpos.copy_from_slice(rows[0]);
            exact.qvel.copy_from_slice(rows[1]);
            exact.ctrl.copy_from_slice(rows[2]);
            let spread = |to: &mut [L], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, x)| *to = L::of(*x));
            spread(&mut ws.qpos, rows[0]);
            spread(&mut ws.qvel, rows[1]);
            spread(&mut ws.ctrl, rows[2]);
            L::run(Evaluate { plan: &self.shared.plan, ws: &mut ws });
            super::dynamics::evaluate(&self.reference.plan, &mut exact);
            let qacc: Vec<f64> = ws.qacc.iter().map(|x| x.get(0)).collect();
            let off = residual(&self.reference.plan, &mut exact, &qacc);
            worst = Some(worst.map_or(off, |worst| worst.max(off)));
        }
        worst
    }
}
