//! The axis-aligned box around a robot.

use flipside_core::{Geom, Pose, Scene, Shape};
use glam::{Quat, Vec3};

/// A pose as rotation and translation.
pub(super) fn placed(pose: &Pose) -> (Quat, Vec3) {
    let [w, x, y, z] = pose.rotation;
    (Quat::from_xyzw(x, y, z, w).normalize(), Vec3::from(pose.position))
}

/// The world transform of a geom, given its body's pose.
pub(super) fn in_world(geom: &Geom, body: &Pose) -> (Quat, Vec3) {
    let (body_rotation, body_position) = placed(body);
    let (rotation, position) = placed(&geom.pose);
    (body_rotation * rotation, body_position + body_rotation * position)
}

/// An axis-aligned box in the world, metres.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aabb {
    pub low: Vec3,
    pub high: Vec3,
    /// The largest distance of any geom's centre from the x–z plane through the first geom's centre, metres.
    off_plane: f32,
}

impl Aabb {
    /// The box around all geoms on moving bodies (those after body 0). Without any, a unit cube at the origin.
    pub fn of_robot(scene: &Scene, poses: &[Pose]) -> Aabb {
        let moving = scene.geoms.iter().filter(|g| g.body > 0);
        let mut plane = None;
        let mut all = moving
            .filter_map(|geom| {
                let (rotation, centre) = in_world(geom, poses.get(geom.body)?);
                let extent = extent(&geom.shape, rotation)?;
                let off_plane = (centre.y - *plane.get_or_insert(centre.y)).abs();
                Some(Aabb { low: centre - extent, high: centre + extent, off_plane })
            })
            .collect::<Vec<_>>();
        if all.is_empty() {
            all.push(Aabb { low: Vec3::splat(-0.5), high: Vec3::splat(0.5), off_plane: 0.0 });
        }
        all.into_iter().fold(Aabb { low: Vec3::INFINITY, high: Vec3::NEG_INFINITY, off_plane: 0.0 }, |a, b| Aabb {
            low: a.low.min(b.low),
            high: a.high.max(b.high),
            off_plane: a.off_plane.max(b.off_plane),
        })
    }

    pub fn size(&self) -> Vec3 {
        self.high - self.low
    }

    pub fn centre(&self) -> Vec3 {
        0.5 * (self.low + self.high)
    }

    /// Whether all geom centres lie in one plane of constant y, as in robots that walk in the x–z plane.
    pub fn is_planar(&self) -> bool {
        self.off_plane < 0.02
    }
}

/// Half the size of the axis-aligned box around a shape turned by `rotation`; `None` for a plane.
pub(super) fn extent(shape: &Shape, rotation: Quat) -> Option<Vec3> {
    let axis = (rotation * Vec3::Z).abs();
    Some(match *shape {
        Shape::Plane => return None,
        Shape::Sphere { radius } => Vec3::splat(radius),
        Shape::Capsule { radius, half_length } => axis * half_length + radius,
        // A disc of radius r with unit normal n reaches r √(1 − nᵢ²) along axis i.
        Shape::Cylinder { radius, half_length } => {
            axis * half_length + (Vec3::ONE - axis * axis).max(Vec3::ZERO).map(f32::sqrt) * radius
        }
        Shape::Box { half_extents: [x, y, z] } | Shape::Mesh { half_extents: [x, y, z], .. } => {
            (rotation * Vec3::X).abs() * x + (rotation * Vec3::Y).abs() * y + axis * z
        }
    })
}
