//! Poses and the camera's target at any moment of a clip, as functions of the moment alone, so that scrubbing back
//! shows the same picture.

use super::Camera;
use super::bounds::{Aabb, placed};
use flipside_core::{Clip, Frames, Pose, Scene};
use glam::Vec2;

/// Standard deviation of the blur over the robot's path, seconds: enough to remove the judder of each stride, and
/// little enough to keep the robot in the middle.
const BLUR: f32 = 0.12;

/// The poses `seconds` after the first frame, `[B]`. Positions are interpolated along the straight line between the two
/// nearest frames, rotations along the shorter arc. Moments before the first frame or after the last one get the poses
/// of that frame. `dt` is the seconds between frames. Empty if there are no frames.
pub fn interpolate(frames: &Frames, dt: f32, seconds: f32) -> Vec<Pose> {
    let Some(last) = frames.steps.checked_sub(1) else { return Vec::new() };
    let at = (seconds / dt).clamp(0.0, last as f32);
    let before = (at as usize).min(last);
    let share = at - before as f32;
    let (a, b) = (frames.poses_at(before), frames.poses_at((before + 1).min(last)));
    if share == 0.0 {
        return a.to_vec();
    }
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let ((rotation_a, position_a), (rotation_b, position_b)) = (placed(a), placed(b));
            let rotation = rotation_a.slerp(rotation_b, share);
            Pose {
                position: position_a.lerp(position_b, share).to_array(),
                rotation: [rotation.w, rotation.x, rotation.y, rotation.z],
            }
        })
        .collect()
}

/// The path of a robot's middle along the floor: what a camera follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// `[T]`: (x, y) of the middle of the box around everything that moves.
    middles: Vec<Vec2>,
    dt: f32,
}

impl Track {
    /// The track of the robot of `scene` in `clip`.
    pub fn of(scene: &Scene, clip: &Clip) -> Track {
        let frames = &clip.frames;
        let middle = |t| Aabb::of_robot(scene, frames.poses_at(t)).centre().truncate();
        Track { middles: (0..frames.steps).map(middle).collect(), dt: clip.dt }
    }

    /// `camera` moved to where the robot is `seconds` into the clip. The target keeps its height.
    pub fn aim(&self, camera: Camera, seconds: f32) -> Camera {
        let Vec2 { x, y } = self.blurred(seconds);
        camera.following([x, y, camera.target[2]])
    }

    /// How far the robot has moved along +x `seconds` into the clip, metres.
    pub fn advance(&self, seconds: f32) -> f32 {
        let Some(last) = self.middles.len().checked_sub(1) else { return 0.0 };
        let at = (seconds / self.dt).clamp(0.0, last as f32);
        let before = (at as usize).min(last);
        let (a, b) = (self.middles[before], self.middles[(before + 1).min(last)]);
        a.lerp(b, at - before as f32).x - self.middles[0].x
    }

    /// The path blurred by a Gaussian. Past either end of the clip it continues as its mirror image about the end
    /// point, so that the camera of a running robot does not brake there.
    fn blurred(&self, seconds: f32) -> Vec2 {
        let Some(last) = self.middles.len().checked_sub(1) else { return Vec2::ZERO };
        let last = last as isize;
        let continued = |t: isize| {
            let inside = t.clamp(0, last);
            let mirrored = (2 * inside - t).clamp(0, last);
            let place = |t: isize| self.middles[t as usize];
            if t == inside { place(t) } else { 2.0 * place(inside) - place(mirrored) }
        };
        let at = (seconds / self.dt).clamp(0.0, last as f32);
        let deviation = (BLUR / self.dt).max(1e-3);
        let (reach, nearest) = ((3.0 * deviation).ceil() as isize, at.round() as isize);
        let (mut sum, mut weights) = (Vec2::ZERO, 0.0);
        for t in nearest - reach..=nearest + reach {
            let from_middle = (t as f32 - at) / deviation;
            let weight = (-0.5 * from_middle * from_middle).exp();
            sum += continued(t) * weight;
            weights += weight;
        }
        sum / weights
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use glam::Quat;

    /// One body besides the world. It runs along x at 2 m/s, hops, and turns about y at 3 rad/s.
    fn running(steps: usize, dt: f32) -> Frames {
        let poses = (0..steps)
            .flat_map(|t| {
                let t = t as f32 * dt;
                let q = Quat::from_rotation_y(3.0 * t);
                let body =
                    Pose { position: [2.0 * t, 0.0, 1.0 + 0.2 * (20.0 * t).sin()], rotation: [q.w, q.x, q.y, q.z] };
                [Pose::IDENTITY, body]
            })
            .collect();
        Frames { steps, bodies: 2, poses, ..Frames::default() }
    }

    #[test]
    fn interpolation_is_exact_for_uniform_motion_and_still_past_the_ends() {
        let frames = running(50, 0.02);
        for seconds in [0.0_f32, 0.013, 0.52, 0.977] {
            let body = interpolate(&frames, 0.02, seconds)[1];
            assert!((body.position[0] - 2.0 * seconds).abs() < 1e-5);
            let (w, y) = ((1.5 * seconds).cos(), (1.5 * seconds).sin());
            // q and −q are the same rotation.
            assert!(((body.rotation[0] * w + body.rotation[2] * y).abs() - 1.0).abs() < 1e-5);
        }
        assert_eq!(interpolate(&frames, 0.02, -1.0), frames.poses_at(0));
        assert_eq!(interpolate(&frames, 0.02, 9.0), frames.poses_at(49));
        assert!(interpolate(&Frames::default(), 0.02, 0.0).is_empty());
    }

    #[test]
    fn the_camera_keeps_up_and_does_not_hop_along() {
        let (scene, _) = samples::hopper();
        let clip = samples::hop(2.0, 100);
        let track = Track::of(&scene, &clip);
        let camera = Camera::showing(&scene, [&clip]).unwrap();
        // The hopper's middle sways around a point that moves at 2 m/s.
        let start = camera.target[0];
        for seconds in [0.0, 0.3, 1.0, 1.7, 1.98] {
            let aimed = track.aim(camera, seconds);
            assert!((aimed.target[0] - start - 2.0 * seconds).abs() < 0.05, "{:?} at {seconds}", aimed.target);
            assert_eq!(aimed.target[2], camera.target[2]);
            assert!((track.advance(seconds) - 2.0 * seconds).abs() < 0.1);
        }
        // The camera depends on the moment alone.
        assert_eq!(track.aim(camera, 0.7), track.aim(track.aim(camera, 1.9), 0.7));
    }
}
