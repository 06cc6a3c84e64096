//! One world in double precision: what a state implies before it was stepped, for backends that step in single precision.

use super::derived::{Layout, frame, store};
use super::drift::Drift;
use super::evaluate;
use super::plan::Plan;
use super::workspace::Workspace;
use crate::physics::backend::{Backend, Contact, PhysicsError, Quantity};
use crate::physics::model::Model;

/// A model's plan in double precision, and room for one evaluation.
pub struct Reference {
    /// The plan.
    pub plan: Plan<f64>,
    ws: Workspace<f64>,
}

impl Reference {
    /// Lays a model out. `backend` is whose refusals these are.
    pub fn new(model: &Model, backend: &'static str) -> Result<Reference, PhysicsError> {
        let plan = Plan::<f64>::new(model, backend)?;
        Ok(Reference { ws: Workspace::new(&plan), plan })
    }

    /// What was asked for of a state that was not stepped to: without control and without [`Quantity::CfrcExt`], frames counted from where
    /// the drifting coordinates stand.
    pub fn sense(&mut self, layout: &Layout, drift: &[Drift], qpos: &[f64], qvel: &[f64]) -> Vec<f64> {
        let ws = &mut self.ws;
        ws.qpos.copy_from_slice(qpos);
        ws.qvel.copy_from_slice(qvel);
        ws.ctrl.fill(0.0);
        ws.qacc.fill(0.0);
        evaluate(&self.plan, ws);
        let mut numbers = vec![0.0; layout.len];
        store(&self.plan, ws, layout, &mut numbers);
        let bodies = self.plan.bodies.len();
        if let Some(at) = layout.of(Quantity::CfrcExt) {
            numbers[at..at + 6 * bodies].fill(0.0);
        }
        if let Some(at) = layout.of(Quantity::Frames) {
            for drift in drift {
                for (body, plan) in self.plan.bodies.iter().enumerate().skip(1) {
                    if plan.root == drift.root {
                        numbers[at + 12 * body + drift.axis] -= qpos[drift.coordinate];
                    }
                }
            }
        }
        numbers
    }

    /// [`Quantity::Frames`] of a state.
    pub fn frames(&self, model: &Model, qpos: &[f64], out: &mut [f64]) {
        for (slot, (pos, quat)) in out.chunks_exact_mut(7).zip(model.kinematics(qpos)) {
            frame(slot, pos, quat);
        }
    }

    /// [`Backend::contacts`] of a world that was stepped to where it is, or was not.
    pub fn contacts(&self, backend: &impl Backend, world: usize, stepped: bool, out: &mut Vec<Contact>) {
        out.clear();
        if !stepped {
            return;
        }
        let mut ws = Workspace::<f64>::new(&self.plan);
        let (nq, nv) = (ws.qpos.len(), ws.qvel.len());
        ws.qpos.copy_from_slice(&backend.qpos()[world * nq..][..nq]);
        ws.qvel.copy_from_slice(&backend.qvel()[world * nv..][..nv]);
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
