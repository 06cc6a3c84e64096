//! The desk's camera. It is far enough away to show the whole robot however it lies. It keeps its height and moves
//! along with the robot's middle.
//!
//! Both clips of a pair share one eye, which is carried over from pair to pair, so that clips never differ in how they
//! are filmed.

use flipside_core::{Clip, Scene};
use flipside_view::{Bounds, Camera};
use std::sync::Arc;

/// An orbit camera that knows how far away it needs to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Eye {
    /// The person turns and moves it. The target's z is the height that it looks at.
    /// [`Track::aim`](flipside_view::Track::aim) fills in x and y.
    pub camera: Camera,
    /// The bounds of everything shown so far.
    bounds: Bounds,
    /// The distance that shows all of `bounds`, metres.
    natural: f32,
}

impl Eye {
    /// An eye that shows all of these clips; `None` if they have no frames.
    pub fn on(scene: &Scene, clips: &[Arc<Clip>]) -> Option<Eye> {
        let clips = clips.iter().map(Arc::as_ref);
        let camera = Camera::showing(scene, clips.clone())?;
        Some(Eye { camera, bounds: Bounds::of(scene, clips)?, natural: camera.distance })
    }

    /// Moves away as far as these clips need, unless the person has chosen a distance. Never comes nearer, so that
    /// pairs are seen alike.
    pub fn widen(&mut self, scene: &Scene, clips: &[Arc<Clip>]) {
        let Some(bounds) = Bounds::of(scene, clips.iter().map(Arc::as_ref)) else { return };
        self.bounds = self.bounds.and(bounds);
        let needed = self.camera.holding(self.bounds);
        self.camera.target = needed.target;
        if self.camera.distance == self.natural {
            self.camera.distance = needed.distance;
        }
        self.natural = needed.distance;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::{Frames, Geom, ItemId, Pose, Shape};
    use flipside_view::Track;

    const TURNED: [f32; 4] = [std::f32::consts::FRAC_1_SQRT_2, 0.0, std::f32::consts::FRAC_1_SQRT_2, 0.0];

    /// A pole of 1.6 m whose origin is its foot. It stands at `x`, or lies with its foot there and reaches along +x.
    fn pole(stands: bool, x: f32) -> Arc<Clip> {
        pole_at(stands, x, 0.05)
    }

    /// The same with its foot in the air.
    fn pole_at(stands: bool, x: f32, z: f32) -> Arc<Clip> {
        let rotation = if stands { Pose::IDENTITY.rotation } else { TURNED };
        let poses = (0..40).flat_map(|_| [Pose::IDENTITY, Pose { position: [x, 0.0, z], rotation }]).collect();
        let frames = Frames { steps: 40, bodies: 2, poses, ..Frames::default() };
        Arc::new(Clip { id: ItemId(0), task: "pole".to_owned(), dt: 0.02, recorded_at: 0, frames })
    }

    fn scene() -> Scene {
        let shape = Shape::Capsule { radius: 0.05, half_length: 0.75 };
        let pose = Pose { position: [0.0, 0.0, 0.75], rotation: [1.0, 0.0, 0.0, 0.0] };
        let geom = Geom { name: String::new(), body: 1, shape, pose, rgba: [1.0; 4] };
        Scene {
            bodies: vec!["world".to_owned(), "pole".to_owned()],
            geoms: vec![geom],
            meshes: vec![],
            focus: 1,
            lies_flat: false,
        }
    }

    #[test]
    fn the_whole_robot_stays_in_the_picture_also_when_it_falls() {
        let (scene, size) = (scene(), [460, 570]);
        // First lying, then standing: the eye has to move away and up.
        let mut eye = Eye::on(&scene, &[pole(false, 2.0)]).unwrap();
        eye.widen(&scene, &[pole(true, -1.0)]);
        // Then jumping. The floor must still be visible.
        eye.widen(&scene, &[pole_at(true, 0.0, 1.5)]);
        for (clip, ends) in [
            (pole_at(true, 0.0, 1.5), [[0.0, 0.0, 1.45], [0.0, 0.0, 3.05]]),
            (pole(true, -1.0), [[-1.0, 0.0, 0.0], [-1.0, 0.0, 1.6]]),
            (pole(false, 2.0), [[2.0, 0.0, 0.05], [3.55, 0.0, 0.05]]),
        ] {
            let camera = Track::of(&scene, &clip).aim(eye.camera, 0.3);
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
