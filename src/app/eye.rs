//! Where the desk looks from: far enough away that the whole robot stays in the picture however it lies, at a height that stays, and
//! moving along with its middle.
//!
//! Both clips of a pair share one eye, and it goes on from pair to pair, so that what is compared is never how it was filmed.

use crate::basics::{Clip, Frames, Pose, Scene, Shape};
use crate::view::{Camera, follow};
use glam::{Quat, Vec3};
use std::sync::Arc;

/// Moments of a clip that are looked at to learn how much room it needs.
const MOMENTS: usize = 12;

/// An orbit camera that knows how far away it needs to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Eye {
    /// Turned and moved by the person. The target's z is the height looked at; x and y are filled in by [`Path::aim`].
    pub camera: Camera,
    /// The distance that shows everything seen so far.
    natural: f32,
}

impl Eye {
    /// An eye that shows all of these clips; `None` if there is nothing in them.
    pub fn on(scene: &Scene, clips: &[Arc<Clip>]) -> Option<Eye> {
        let (first, distance, height) = room(scene, clips)?;
        let camera = Camera { distance, lift: 0.0, target: [0.0, 0.0, height], ..first };
        Some(Eye { camera, natural: distance })
    }

    /// Moves away as far as these clips need, unless the person has chosen a distance of their own. Never comes nearer, so that pairs are
    /// seen alike.
    pub fn widen(&mut self, scene: &Scene, clips: &[Arc<Clip>]) {
        let Some((_, distance, height)) = room(scene, clips) else { return };
        self.camera.target[2] = self.camera.target[2].max(height);
        if distance > self.natural {
            if self.camera.distance == self.natural {
                self.camera.distance = distance;
            }
            self.natural = distance;
        }
    }
}

/// A camera as the field uses it, the distance and the height that show the robot in all of these clips.
fn room(scene: &Scene, clips: &[Arc<Clip>]) -> Option<(Camera, f32, f32)> {
    let moments = clips.iter().filter(|clip| clip.frames.steps > 0).flat_map(|clip| {
        let last = clip.frames.steps - 1;
        (0..MOMENTS).map(move |i| clip.frames.poses_at(last * i / (MOMENTS - 1)))
    });
    let seen: Vec<Camera> = moments.map(|poses| Camera::framing(scene, poses)).collect();
    let most = |of: fn(&Camera) -> f32| seen.iter().map(of).fold(f32::NEG_INFINITY, f32::max);
    // The middle of a robot that stands is higher than that of one on the floor.
    Some((*seen.first()?, most(|c| c.distance), most(|c| c.target[2] + c.lift)))
}

/// The way that the robot's middle takes through a clip.
pub(super) struct Path {
    /// One body without extent: the middle.
    frames: Frames,
    dt: f32,
}

impl Path {
    /// Of the robot of `scene` in `clip`.
    pub fn of(scene: &Scene, clip: &Clip) -> Path {
        let steps = clip.frames.steps;
        let poses = (0..steps).map(|t| Pose { position: middle(scene, clip.frames.poses_at(t)), ..Pose::IDENTITY });
        Path { frames: Frames { steps, bodies: 1, poses: poses.collect(), ..Frames::default() }, dt: clip.dt }
    }

    /// `camera`, moved along to where the middle is `seconds` into the clip, at the height that it has.
    pub fn aim(&self, camera: Camera, seconds: f32) -> Camera {
        let [x, y, _] = follow(&self.frames, self.dt, 0, seconds);
        camera.following([x, y, camera.target[2]])
    }
}

/// The middle of the box about the axes of everything that moves.
fn middle(scene: &Scene, poses: &[Pose]) -> [f32; 3] {
    let placed = |pose: &Pose| {
        let [w, x, y, z] = pose.rotation;
        (Quat::from_xyzw(x, y, z, w), Vec3::from(pose.position))
    };
    let (mut low, mut high) = (Vec3::INFINITY, Vec3::NEG_INFINITY);
    for geom in scene.geoms.iter().filter(|geom| geom.body > 0) {
        let Some(body) = poses.get(geom.body) else { continue };
        let ((turn, at), (turn_in_body, at_in_body)) = (placed(body), placed(&geom.pose));
        let centre = at + turn * at_in_body;
        let reach = match geom.shape {
            Shape::Capsule { half_length, .. } | Shape::Cylinder { half_length, .. } => half_length,
            Shape::Plane | Shape::Sphere { .. } | Shape::Box { .. } => 0.0,
        };
        let half_axis = turn * (turn_in_body * Vec3::Z) * reach;
        low = low.min(centre - half_axis.abs());
        high = high.max(centre + half_axis.abs());
    }
    if low.is_finite() { (0.5 * (low + high)).to_array() } else { [0.0; 3] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basics::{Geom, ItemId};

    const TURNED: [f32; 4] = [std::f32::consts::FRAC_1_SQRT_2, 0.0, std::f32::consts::FRAC_1_SQRT_2, 0.0];

    /// A pole of 1.6 m whose origin is its foot: it stands at `x`, or lies with its foot there and reaches along +x.
    fn pole(stands: bool, x: f32) -> Arc<Clip> {
        let rotation = if stands { Pose::IDENTITY.rotation } else { TURNED };
        let poses = (0..40).flat_map(|_| [Pose::IDENTITY, Pose { position: [x, 0.0, 0.05], rotation }]).collect();
        let frames = Frames { steps: 40, bodies: 2, poses, ..Frames::default() };
        Arc::new(Clip { id: ItemId(0), task: "pole".to_owned(), dt: 0.02, recorded_at: 0, frames })
    }

    fn scene() -> Scene {
        let shape = Shape::Capsule { radius: 0.05, half_length: 0.75 };
        let pose = Pose { position: [0.0, 0.0, 0.75], rotation: [1.0, 0.0, 0.0, 0.0] };
        let geom = Geom { name: String::new(), body: 1, shape, pose, rgba: [1.0; 4] };
        Scene { bodies: vec!["world".to_owned(), "pole".to_owned()], geoms: vec![geom], focus: 1 }
    }

    #[test]
    fn the_whole_robot_stays_in_the_picture_also_when_it_falls() {
        let (scene, size) = (scene(), [460, 570]);
        // Seen lying first, standing later: the eye has to move away and up.
        let mut eye = Eye::on(&scene, &[pole(false, 2.0)]).unwrap();
        eye.widen(&scene, &[pole(true, -1.0)]);
        for (clip, ends) in [
            (pole(true, -1.0), [[-1.0, 0.0, 0.0], [-1.0, 0.0, 1.6]]),
            (pole(false, 2.0), [[2.0, 0.0, 0.05], [3.55, 0.0, 0.05]]),
        ] {
            let camera = Path::of(&scene, &clip).aim(eye.camera, 0.3);
            for end in ends {
                let [x, y] = camera.project(end, size).unwrap();
                assert!(x > 0.0 && x < 460.0 && y > 0.0 && y < 570.0, "{end:?} is at {x}, {y}");
            }
        }
    }

    #[test]
    fn a_distance_of_ones_own_is_kept() {
        let scene = scene();
        let mut eye = Eye::on(&scene, &[pole(true, 0.0)]).unwrap();
        eye.camera.zoom(2.0);
        let chosen = eye.camera.distance;
        eye.widen(&scene, &[pole(false, 0.0), pole(true, 0.0)]);
        assert_eq!(eye.camera.distance, chosen);
        assert_eq!(Eye::on(&scene, &[]), None);
    }
}
