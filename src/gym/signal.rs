//! Signals, ready to read: which numbers of a physics state, and how each is shaped.

use crate::basics::Pose;
use crate::settings::Map;

/// One world as a task sees it, after a reset or an env step.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Joint positions, `[nq]`, metres and radians.
    pub qpos: &'a [f64],
    /// Joint velocities, `[nv]`.
    pub qvel: &'a [f64],
    /// The action as the actuators received it, `[nu]`; zero after a reset.
    pub action: &'a [f64],
    /// Body poses, `[nbody]`; may be empty where [`super::Task::needs_poses`] is false.
    pub poses: &'a [Pose],
    /// MuJoCo's `cfrc_ext`, `[nbody, 6]`; may be empty where [`super::Task::needs_forces`] is false.
    pub forces: &'a [f64],
}

/// One number of a state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pick {
    Qpos(usize),
    Qvel(usize),
    Action(usize),
    /// Index into `[nbody, 6]`.
    Force(usize),
    Body(BodyPick),
}

/// One coordinate of where a body, or a point on it, is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BodyPick {
    pub body: usize,
    /// The point, in the body's frame, metres.
    pub offset: [f64; 3],
    pub relative_to: Option<usize>,
    /// 0 for x, 1 for y, 2 for z.
    pub axis: usize,
}

/// One number of a signal: a number of the state, mapped, then kept inside bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Element {
    pub pick: Pick,
    pub map: Option<Map>,
    pub low: f64,
    pub high: f64,
}

impl Element {
    pub fn read(&self, state: &State) -> f64 {
        let x = match self.pick {
            Pick::Qpos(i) => state.qpos[i],
            Pick::Qvel(i) => state.qvel[i],
            Pick::Action(i) => state.action[i],
            Pick::Force(i) => state.forces[i],
            Pick::Body(pick) => pick.read(state.poses),
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
    fn read(&self, poses: &[Pose]) -> f64 {
        let pose = &poses[self.body];
        let here = f64::from(pose.position[self.axis]) + turned(pose.rotation, self.offset)[self.axis];
        here - self.relative_to.map_or(0.0, |other| f64::from(poses[other].position[self.axis]))
    }
}

/// A vector turned by a unit quaternion (w, x, y, z): v + 2w(u × v) + 2u × (u × v).
fn turned([w, x, y, z]: [f32; 4], v: [f64; 3]) -> [f64; 3] {
    if v == [0.0; 3] {
        return v;
    }
    let cross =
        |a: [f64; 3], b: [f64; 3]| [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    let (w, u) = (f64::from(w), [x, y, z].map(f64::from));
    let once = cross(u, v);
    let twice = cross(u, once);
    std::array::from_fn(|i| v[i] + 2.0 * (w * once[i] + twice[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quarter turn about y takes z to x (right-handed), so a tip 0.6 above a body at (1, 2, 3) lies at (1.6, 2, 3).
    #[test]
    fn a_point_on_a_body_turns_with_it() {
        let half = std::f32::consts::FRAC_1_SQRT_2;
        let poses = [Pose::IDENTITY, Pose { position: [1.0, 2.0, 3.0], rotation: [half, 0.0, half, 0.0] }];
        let tip = |axis| BodyPick { body: 1, offset: [0.0, 0.0, 0.6], relative_to: Some(0), axis }.read(&poses);
        for (axis, expected) in [1.6, 2.0, 3.0].into_iter().enumerate() {
            assert!((tip(axis) - expected).abs() < 1e-6, "axis {axis}: {}", tip(axis));
        }
    }
}
