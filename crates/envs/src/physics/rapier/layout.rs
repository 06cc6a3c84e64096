//! How a model maps onto rapier: which links there are, which joint connects each to its parent, and where each of
//! MuJoCo's coordinates lies among rapier's.
//!
//! Rapier has one joint between two links, MuJoCo a list. A planar root's two slides and one hinge fit one generic
//! joint with three free axes. [`stages`] finds such groups. What does not fit one joint becomes a chain of links, all
//! but the last without mass.

use crate::physics::inertia::Inertia;
use crate::physics::model::{Joint, JointKind, Model};
use glam::{DMat3, DQuat, DVec3};
use rapier3d::dynamics::SpringCoefficients;
use rapier3d::prelude::{GenericJoint, JointAxesMask, JointLimits, Pose, Vector};

/// One hinge or slide among rapier's coordinates.
pub struct Coordinate {
    /// Index into [`Model::joints`].
    pub joint: usize,
    /// The link that it moves, counted from 0, the ground not included.
    pub link: usize,
    /// Which of the link's six axes: three translations, then three rotations.
    pub axis: usize,
    /// Its place among rapier's generalised velocities.
    pub dof: usize,
    /// −1 if rapier counts it in the opposite direction.
    pub sign: f64,
}

/// A free joint among rapier's coordinates.
pub struct Free {
    /// Index into [`Model::joints`].
    pub joint: usize,
    /// The link that it moves.
    pub link: usize,
    /// Its first place among rapier's generalised velocities.
    pub dof: usize,
}

/// One link: a rigid body in rapier and the joint that connects it to its parent.
pub struct Link {
    /// The link that it hangs from; none hangs from the ground.
    pub parent: Option<usize>,
    /// Axes, frames and limits.
    pub joint: GenericJoint,
    /// Mass of the body and of all that is welded to it; nothing for the inner links of a chain.
    pub inertia: Inertia,
}

/// The whole map.
pub struct Layout {
    /// A parent before its children.
    pub links: Vec<Link>,
    /// Every hinge and slide.
    pub coordinates: Vec<Coordinate>,
    /// Every free joint.
    pub frees: Vec<Free>,
    /// For every body: the link that carries it and its pose in that link's frame. The world and what is welded to it
    /// have no link.
    pub carriers: Vec<(Option<usize>, DVec3, DQuat)>,
}

impl Layout {
    pub fn new(model: &Model) -> Layout {
        let mut layout = Layout { links: vec![], coordinates: vec![], frees: vec![], carriers: vec![] };
        let mut dof = 0;
        for (index, body) in model.bodies.iter().enumerate() {
            let (parent_link, pos, quat) = match index {
                0 => (None, DVec3::ZERO, DQuat::IDENTITY),
                _ => {
                    let (link, pos, quat) = layout.carriers[body.parent];
                    (link, pos + quat * body.pos, quat * body.quat)
                }
            };
            if body.joints.is_empty() {
                layout.carriers.push((parent_link, pos, quat));
                continue;
            }
            let stages = stages(&model.joints[body.joints.clone()]);
            let mut parent = parent_link;
            for (stage_index, stage) in stages.iter().enumerate() {
                let link = layout.links.len();
                // Only the first stage bridges the distance to the parent; the rest turn in place.
                let (pos, quat) = if stage_index == 0 { (pos, quat) } else { (DVec3::ZERO, DQuat::IDENTITY) };
                // A free joint's position is in the world's frame, wherever the file draws the body.
                let mut joint =
                    if stage.free { stage.joint(DVec3::ZERO, DQuat::IDENTITY) } else { stage.joint(pos, quat) };
                for axis in 0..6 {
                    let Some((offset, sign)) = stage.axes[axis] else { continue };
                    let index = body.joints.start + offset;
                    if let Some([low, high]) = model.joints[index].range {
                        joint.softness = softness(&model.joints[index], model.timestep());
                        let reference = model.joints[index].reference;
                        let ends = [sign * (low - reference), sign * (high - reference)];
                        joint.limit_axes |= JointAxesMask::from_bits_retain(1 << axis);
                        joint.limits[axis] = JointLimits {
                            min: ends[0].min(ends[1]) as f32,
                            max: ends[0].max(ends[1]) as f32,
                            impulse: 0.0,
                        };
                    }
                    layout.coordinates.push(Coordinate { joint: index, link, axis, dof, sign });
                    dof += 1;
                }
                if stage.free {
                    layout.frees.push(Free { joint: body.joints.start, link, dof });
                    dof += 6;
                }
                layout.links.push(Link { parent, joint, inertia: Inertia::NONE });
                parent = Some(link);
            }
            layout.carriers.push((parent, DVec3::ZERO, DQuat::IDENTITY));
        }
        layout.weigh(model);
        layout
    }

    /// Gives each link the mass of all bodies that it carries.
    fn weigh(&mut self, model: &Model) {
        let mut parts: Vec<Vec<Inertia>> = self.links.iter().map(|_| vec![]).collect();
        for (body, (link, pos, quat)) in model.bodies.iter().zip(&self.carriers) {
            if let Some(link) = link {
                let own = Inertia { mass: body.mass, pos: body.ipos, quat: body.iquat, moments: body.inertia };
                parts[*link].push(own.moved(*pos, *quat));
            }
        }
        for (link, parts) in self.links.iter_mut().zip(parts) {
            link.inertia = Inertia::sum(&parts);
        }
    }
}

/// How quickly rapier pulls a joint back inside its limits: with the time constant of `solreflimit`, but not faster
/// than two timesteps, as in MuJoCo.
///
/// Rapier's default is one timestep. A limit only acts once it is exceeded. A joint that leans on it would be thrown
/// back and fall again in every other step, which pumps momentum into the robot.
fn softness(joint: &Joint, timestep: f64) -> SpringCoefficients<f32> {
    /// Far above 1 the limit is a brake that does not swing and hardly gives.
    const DAMPING_RATIO: f64 = 10.0;
    let [time, damping] = joint.solref_limit;
    // A negative solref gives stiffness and damping directly; damping is 2 / (d_max · time).
    let time = if time > 0.0 { time } else { -2.0 / (damping * joint.solimp_limit[1]) };
    let share = timestep / time.max(2.0 * timestep); // of the violation, mended in one step
    let natural_frequency = 2.0 * DAMPING_RATIO * share / (timestep * (1.0 - share)) / std::f64::consts::TAU;
    SpringCoefficients { natural_frequency: natural_frequency as f32, damping_ratio: DAMPING_RATIO as f32 }
}

/// Joints that one joint of rapier's holds.
struct Stage {
    /// For each of the six axes: which joint of the body moves along it, and its sign.
    axes: [Option<(usize, f64)>; 6],
    /// Whether it is a free joint.
    free: bool,
    /// The directions of the three axes in the body's frame.
    basis: DMat3,
    /// The point about which the hinge turns.
    anchor: DVec3,
}

impl Stage {
    /// The joint between the parent's frame, in which the body's reference frame has this place, and the body's.
    fn joint(&self, pos: DVec3, quat: DQuat) -> GenericJoint {
        let basis = DQuat::from_mat3(&self.basis);
        let free: u8 = (0..6).filter(|axis| self.free || self.axes[*axis].is_some()).map(|axis| 1 << axis).sum();
        let mut joint = GenericJoint::new(JointAxesMask::from_bits_retain(!free & 0b11_1111));
        joint.local_frame1 = to_pose(pos + quat * self.anchor, quat * basis);
        joint.local_frame2 = to_pose(self.anchor, basis);
        joint.contacts_enabled = false;
        joint
    }
}

/// Splits a body's joints, in their order, into groups that one generic joint can represent: a free joint; or slides
/// along mutually perpendicular axes, followed by at most one hinge whose axis is parallel or perpendicular to each
/// slide's.
fn stages(joints: &[Joint]) -> Vec<Stage> {
    let mut stages = vec![];
    let mut next = 0;
    while next < joints.len() {
        if joints[next].kind == JointKind::Free {
            stages.push(Stage { axes: [None; 6], free: true, basis: DMat3::IDENTITY, anchor: DVec3::ZERO });
            next += 1;
            continue;
        }
        let first = next;
        let mut directions: Vec<DVec3> = vec![];
        let fits = |directions: &[DVec3], axis: DVec3| directions.iter().all(|other| other.dot(axis).abs() < 1e-9);
        while next < joints.len() && joints[next].kind == JointKind::Slide && fits(&directions, joints[next].axis) {
            directions.push(joints[next].axis);
            next += 1;
        }
        let slides = first..next;
        let mut hinge = None;
        if next < joints.len() && joints[next].kind == JointKind::Hinge {
            let axis = joints[next].axis;
            let along = directions.iter().any(|other| other.dot(axis).abs() > 1.0 - 1e-9);
            if along || fits(&directions, axis) {
                if !along {
                    directions.push(axis);
                }
                hinge = Some(next);
                next += 1;
            }
        }
        let basis = right_handed(&directions);
        let place = |axis: DVec3| {
            let column = (0..3).find(|i| basis.col(*i).dot(axis).abs() > 0.5).unwrap_or(0);
            (column, basis.col(column).dot(axis).signum())
        };
        let mut axes = [None; 6];
        for slide in slides {
            let (column, sign) = place(joints[slide].axis);
            axes[column] = Some((slide, sign));
        }
        if let Some(hinge) = hinge {
            let (column, sign) = place(joints[hinge].axis);
            axes[3 + column] = Some((hinge, sign));
        }
        let anchor = hinge.map_or(DVec3::ZERO, |hinge| joints[hinge].pos);
        stages.push(Stage { axes, free: false, basis, anchor });
    }
    stages
}

/// A right-handed orthonormal basis that has the given directions, up to sign, among its columns.
fn right_handed(directions: &[DVec3]) -> DMat3 {
    match directions {
        [] => DMat3::IDENTITY,
        [x] => {
            let y = x.any_orthonormal_vector();
            DMat3::from_cols(*x, y, x.cross(y))
        }
        [x, y, ..] => DMat3::from_cols(*x, *y, x.cross(*y)),
    }
}

/// Rapier's single-precision pose.
pub fn to_pose(pos: DVec3, quat: DQuat) -> Pose {
    Pose::from_parts(to_vector(pos), quat.as_quat())
}

/// Rapier's single-precision vector.
pub fn to_vector(v: DVec3) -> Vector {
    v.as_vec3()
}
