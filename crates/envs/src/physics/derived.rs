//! The quantities that were requested of a batch, kept on the host for engines that solve MuJoCo's equations.
//!
//! A step writes them. For a state that was set rather than stepped to, they are computed here, in double precision,
//! one world at a time.

use super::backend::{Contact, PhysicsError, Quantity};
use super::dynamics::derived::{Layout, frames, store};
use super::dynamics::drift::{Drift, drifting};
use super::dynamics::evaluate;
use super::dynamics::plan::Plan;
use super::dynamics::workspace::Workspace;
use super::host::HostState;
use super::model::Model;

/// [`Quantity`]s of a batch of worlds.
pub struct DerivedState {
    /// The model in double precision.
    pub plan: Plan<f64>,
    /// Where each quantity lies in a row of `numbers`.
    pub layout: Layout,
    /// Coordinates that a step measures from zero, because nothing depends on them (for example how far a robot has
    /// run). A robot far from the origin is then simulated as precisely as one at the origin.
    pub drift: Vec<Drift>,
    /// `[worlds, layout.len]`. Frames are relative to `origin`.
    pub numbers: Vec<f64>,
    /// The values of each world's drifting coordinates when its last step began, `[worlds, drift]`.
    pub origin: Vec<f64>,
    /// Whether worlds are stepped in single precision. Numbers are then rounded to it, however they were computed.
    single: bool,
    /// Scratch memory for one evaluation.
    ws: Workspace<f64>,
}

impl DerivedState {
    /// No quantities yet. `single` says whether worlds are stepped in single precision, in which large drifting
    /// coordinates would lose precision. `backend` is the name that refusals give.
    ///
    /// # Errors
    /// [`PhysicsError::Unsupported`].
    pub fn new(
        model: &Model,
        worlds: usize,
        single: bool,
        backend: &'static str,
    ) -> Result<DerivedState, PhysicsError> {
        let plan = Plan::<f64>::new(model, backend)?;
        let drift = if single { drifting(model, &plan) } else { vec![] };
        Ok(DerivedState {
            layout: Layout::new(&plan, &[]),
            numbers: vec![],
            origin: vec![0.0; worlds * drift.len()],
            drift,
            single,
            ws: Workspace::new(&plan),
            plan,
        })
    }

    /// Keeps these quantities from now on, and computes those of the present states.
    pub fn need(&mut self, host: &HostState, quantities: &[Quantity]) {
        self.layout = Layout::new(&self.plan, quantities);
        self.numbers = vec![0.0; host.worlds() * self.layout.len];
        (0..host.worlds()).for_each(|world| self.evaluate(host, world));
    }

    /// Computes the requested quantities of a state that was set rather than stepped to: without control, and without
    /// [`Quantity::CfrcExt`].
    pub fn evaluate(&mut self, host: &HostState, world: usize) {
        let DerivedState { plan, layout, drift, numbers, origin, single, ws } = self;
        if layout.len == 0 {
            return;
        }
        let (qpos, qvel) = host.state(world);
        ws.qpos.copy_from_slice(qpos);
        ws.qvel.copy_from_slice(qvel);
        ws.ctrl.fill(0.0);
        ws.qacc.fill(0.0);
        evaluate(plan, ws);
        let numbers = &mut numbers[world * layout.len..][..layout.len];
        store(plan, ws, layout, numbers);
        if let Some(at) = layout.of(Quantity::CfrcExt) {
            numbers[at..at + 6 * plan.bodies.len()].fill(0.0);
        }
        for (drift, origin) in drift.iter().zip(&mut origin[world * drift.len()..]) {
            *origin = qpos[drift.coordinate];
            if let Some(at) = layout.of(Quantity::Frames) {
                for (body, plan) in plan.bodies.iter().enumerate().skip(1) {
                    if plan.root == drift.root {
                        numbers[at + 12 * body + drift.axis] -= *origin;
                    }
                }
            }
        }
        if *single {
            numbers.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        }
    }

    /// [`Backend::derived`](super::Backend::derived).
    pub fn write(&self, host: &HostState, world: usize, quantity: Quantity, out: &mut [f64]) {
        let row = &self.numbers[world * self.layout.len..][..self.layout.len];
        match (self.layout.of(quantity), quantity) {
            (None, Quantity::Frames) => host.frames(world, out),
            (Some(at), Quantity::Frames) => {
                let origin = &self.origin[world * self.drift.len()..][..self.drift.len()];
                frames(&self.plan, &self.drift, origin, &row[at..], out);
            }
            (None, _) => out.fill(0.0),
            (Some(at), _) => out.copy_from_slice(&row[at..][..out.len()]),
        }
    }

    /// [`Backend::contacts`](super::Backend::contacts).
    pub fn contacts(&self, host: &HostState, world: usize, out: &mut Vec<Contact>) {
        out.clear();
        if !host.outcome(world).stepped() {
            return;
        }
        let mut ws = Workspace::<f64>::new(&self.plan);
        let (qpos, qvel) = host.state(world);
        ws.qpos.copy_from_slice(qpos);
        ws.qvel.copy_from_slice(qvel);
        evaluate(&self.plan, &mut ws);
        for c in 0..ws.contacts.count {
            let pair = &self.plan.pairs[usize::from(ws.contacts.pair[c])];
            if ws.contacts.distance[c] <= 0.0 {
                out.push(Contact {
                    bodies: pair.bodies,
                    position: ws.contacts.point[c],
                    normal: ws.contacts.frame[c][0],
                    distance: ws.contacts.distance[c],
                });
            }
        }
    }
}
