//! Signals that are ready to read: which numbers of a physics state they take, and how each is transformed.

use crate::physics::{Backend, Model, Quantity};
use crate::tasks::Map;
use std::sync::Arc;

/// One world as a task sees it, after a reset or an env step. Fields that [`super::Task::needs`] does not list may be
/// empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct State<'a> {
    /// Joint positions, `[nq]`, metres and radians.
    pub qpos: &'a [f64],
    /// Joint velocities, `[nv]`.
    pub qvel: &'a [f64],
    /// The action as the actuators received it, `[nu]`; zero after a reset.
    pub action: &'a [f64],
    /// [`Quantity::Frames`], `[nbody, 7]`.
    pub frames: &'a [f64],
    /// [`Quantity::Cinert`], `[nbody, 10]`.
    pub cinert: &'a [f64],
    /// [`Quantity::Cvel`], `[nbody, 6]`.
    pub cvel: &'a [f64],
    /// [`Quantity::CfrcExt`], `[nbody, 6]`.
    pub forces: &'a [f64],
    /// [`Quantity::QfrcActuator`], `[nv]`.
    pub actuator: &'a [f64],
    /// [`Quantity::QfrcConstraint`], `[nv]`.
    pub constraint: &'a [f64],
}

/// Buffers for what a task reads of one world besides its joints.
#[derive(Clone, Debug, Default)]
pub(super) struct Senses {
    /// The quantities that are read; all other vectors are empty.
    needs: Vec<Quantity>,
    frames: Vec<f64>,
    cinert: Vec<f64>,
    cvel: Vec<f64>,
    forces: Vec<f64>,
    actuator: Vec<f64>,
    constraint: Vec<f64>,
}

impl Senses {
    pub fn new(needs: &[Quantity], model: &Model) -> Senses {
        let mut senses = Senses { needs: needs.to_vec(), ..Senses::default() };
        for &quantity in needs {
            senses.room(quantity).resize(quantity.len(model), 0.0);
        }
        senses
    }

    fn room(&mut self, quantity: Quantity) -> &mut Vec<f64> {
        match quantity {
            Quantity::Frames => &mut self.frames,
            Quantity::Cinert => &mut self.cinert,
            Quantity::Cvel => &mut self.cvel,
            Quantity::CfrcExt => &mut self.forces,
            Quantity::QfrcActuator => &mut self.actuator,
            Quantity::QfrcConstraint => &mut self.constraint,
        }
    }

    /// The state of one world as its task sees it.
    pub fn look<'a>(&'a mut self, backend: &'a dyn Backend, world: usize, action: &'a [f64]) -> State<'a> {
        for i in 0..self.needs.len() {
            let quantity = self.needs[i];
            backend.derived(world, quantity, self.room(quantity));
        }
        let model = backend.model();
        let (nq, nv) = (model.nq(), model.nv());
        State {
            qpos: &backend.qpos()[world * nq..(world + 1) * nq],
            qvel: &backend.qvel()[world * nv..(world + 1) * nv],
            action,
            frames: &self.frames,
            cinert: &self.cinert,
            cvel: &self.cvel,
            forces: &self.forces,
            actuator: &self.actuator,
            constraint: &self.constraint,
        }
    }
}

/// One number of a state.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pick {
    Qpos(usize),
    Qvel(usize),
    Action(usize),
    /// Index into `[nbody, 10]`.
    Cinert(usize),
    /// Index into `[nbody, 6]`.
    Cvel(usize),
    /// Index into `[nbody, 6]`.
    Force(usize),
    Actuator(usize),
    Constraint(usize),
    Body(BodyPick),
    CenterOfMass(CenterPick),
}

impl Pick {
    /// The quantity that the backend must compute for it.
    pub fn needs(&self) -> Option<Quantity> {
        match self {
            Pick::Qpos(_) | Pick::Qvel(_) | Pick::Action(_) => None,
            Pick::Cinert(_) => Some(Quantity::Cinert),
            Pick::Cvel(_) => Some(Quantity::Cvel),
            Pick::Force(_) => Some(Quantity::CfrcExt),
            Pick::Actuator(_) => Some(Quantity::QfrcActuator),
            Pick::Constraint(_) => Some(Quantity::QfrcConstraint),
            Pick::Body(_) | Pick::CenterOfMass(_) => Some(Quantity::Frames),
        }
    }
}

/// One coordinate of the position of a body or of a point on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BodyPick {
    pub body: usize,
    /// The point, in the body's frame, metres.
    pub offset: [f64; 3],
    pub relative_to: Option<usize>,
    /// 0 for x, 1 for y, 2 for z.
    pub axis: usize,
}

/// One coordinate of the centre of mass of all bodies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CenterPick {
    /// For each body: its share of the total mass, and its own centre of mass in its frame, metres.
    pub parts: Arc<[(f64, [f64; 3])]>,
    /// 0 for x, 1 for y, 2 for z.
    pub axis: usize,
}

/// One number of a signal: a number of the state, mapped, then clipped to bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Element {
    pub pick: Pick,
    pub map: Option<Map>,
    pub low: f64,
    pub high: f64,
}

impl Element {
    pub fn read(&self, state: &State) -> f64 {
        let x = match &self.pick {
            Pick::Qpos(i) => state.qpos[*i],
            Pick::Qvel(i) => state.qvel[*i],
            Pick::Action(i) => state.action[*i],
            Pick::Cinert(i) => state.cinert[*i],
            Pick::Cvel(i) => state.cvel[*i],
            Pick::Force(i) => state.forces[*i],
            Pick::Actuator(i) => state.actuator[*i],
            Pick::Constraint(i) => state.constraint[*i],
            Pick::Body(pick) => pick.read(state.frames),
            Pick::CenterOfMass(pick) => pick.read(state.frames),
        };
        let x = match self.map {
            None => x,
            Some(Map::Sin) => x.sin(),
            Some(Map::Cos) => x.cos(),
        };
        x.clamp(self.low, self.high)
    }

    /// The least and greatest value it can take.
    pub fn bounds(&self) -> [f64; 2] {
        match self.map {
            None => [self.low, self.high],
            Some(Map::Sin | Map::Cos) => [(-1.0_f64).clamp(self.low, self.high), 1.0_f64.clamp(self.low, self.high)],
        }
    }
}

impl BodyPick {
    fn read(&self, frames: &[f64]) -> f64 {
        let here = point(frames, self.body, self.offset, self.axis);
        here - self.relative_to.map_or(0.0, |other| frames[7 * other + self.axis])
    }
}

impl CenterPick {
    fn read(&self, frames: &[f64]) -> f64 {
        let weighted =
            |(body, (share, centre)): (usize, &(f64, [f64; 3]))| share * point(frames, body, *centre, self.axis);
        self.parts.iter().enumerate().map(weighted).sum()
    }
}

/// One coordinate of a point given in a body's frame: the body's position plus the offset v rotated by the body's unit
/// quaternion (w, u), v + 2w(u × v) + 2u × (u × v).
fn point(frames: &[f64], body: usize, v: [f64; 3], axis: usize) -> f64 {
    let frame = &frames[7 * body..7 * body + 7];
    if v == [0.0; 3] {
        return frame[axis];
    }
    let cross =
        |a: [f64; 3], b: [f64; 3]| [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    let (w, u) = (frame[3], [frame[4], frame[5], frame[6]]);
    let once = cross(u, v);
    let twice = cross(u, once);
    frame[axis] + v[axis] + 2.0 * (w * once[axis] + twice[axis])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body at (1, 2, 3) with a quarter turn about y, which takes z to x (right-handed); the world before it.
    fn frames() -> [f64; 14] {
        let half = std::f64::consts::FRAC_1_SQRT_2;
        [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, half, 0.0, half, 0.0]
    }

    /// A tip 0.6 above the body lies at (1.6, 2, 3).
    #[test]
    fn a_point_on_a_body_turns_with_it() {
        let tip = |axis| BodyPick { body: 1, offset: [0.0, 0.0, 0.6], relative_to: Some(0), axis }.read(&frames());
        for (axis, expected) in [1.6, 2.0, 3.0].into_iter().enumerate() {
            assert!((tip(axis) - expected).abs() < 1e-12, "axis {axis}: {}", tip(axis));
        }
    }

    /// A quarter of the mass at the world's (0, 0, 4) and three quarters at the tip above.
    #[test]
    fn the_centre_of_mass_weighs_the_bodies_own_centres() {
        let parts: Arc<[_]> = [(0.25, [0.0, 0.0, 4.0]), (0.75, [0.0, 0.0, 0.6])].into();
        for (axis, expected) in [1.2, 1.5, 3.25].into_iter().enumerate() {
            let centre = CenterPick { parts: parts.clone(), axis }.read(&frames());
            assert!((centre - expected).abs() < 1e-12, "axis {axis}: {centre}");
        }
    }
}
