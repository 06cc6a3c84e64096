//! Coordinates that a step may measure from zero, because how far a robot has run does not affect its motion.

use super::plan::{Plan, Test};
use crate::physics::model::{JointKind, Model};
use glam::{DQuat, DVec3};

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

/// Coordinates that nothing depends on. They are horizontal slides, or the horizontal position of a free joint, of a
/// body that hangs directly from the world, without limit or spring. The body's tree must be the only one, and
/// everything it can touch must be planes along the coordinate.
pub fn drifting(model: &Model, plan: &Plan<f64>) -> Vec<Drift> {
    let root = model.bodies.iter().position(|body| !body.joints.is_empty()).unwrap_or(0);
    let one_tree = model.bodies.iter().skip(1).all(|body| body.root == root || body.joints.is_empty());
    let with_world = plan.pairs.iter().filter(|pair| pair.bodies.iter().any(|body| model.bodies[*body].weld == 0));
    let planes: Vec<DVec3> = with_world
        .map(|pair| match pair.test {
            Test::PlaneSphere | Test::PlaneCapsule => DVec3::from_array(plan.geoms[pair.geoms[0]].axis),
            // Something else of the world can be touched, so every place differs.
            _ => DVec3::ONE,
        })
        .collect();
    let free_along = |axis: usize| {
        let along = DVec3::AXES[axis];
        planes.iter().all(|normal| normal.dot(along) == 0.0)
    };
    if !one_tree || root == 0 || model.bodies[root].parent != 0 {
        return vec![];
    }
    let mut drifts = vec![];
    // Behind a hinge a slide's direction rotates, so only the slides before the hinge count.
    for joint in &model.joints[model.bodies[root].joints.clone()] {
        match joint.kind {
            JointKind::Hinge => break,
            JointKind::Free => drifts.extend((0..3).map(|axis| (joint.qposadr + axis, axis))),
            JointKind::Slide => {
                let own = (0..3).find(|axis| joint.axis[*axis] == 1.0);
                let turned = model.bodies[root].quat != DQuat::IDENTITY;
                let held = joint.range.is_some() || joint.stiffness != 0.0;
                if let (Some(axis), false) = (own, turned || held) {
                    drifts.push((joint.qposadr, axis));
                }
            }
        }
    }
    drifts.retain(|(_, axis)| free_along(*axis));
    drifts.into_iter().map(|(coordinate, axis)| Drift { coordinate, axis, root }).collect()
}
