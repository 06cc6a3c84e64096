//! Poses and the camera's target at any moment of a clip, as functions of the moment alone: scrubbing back shows the same picture.

use super::bounds::placed;
use crate::basics::{Frames, Pose};
use glam::Vec3;

/// Standard deviation, in seconds, of the blur over the followed body's path along the floor: enough to take the judder of each
/// stride out, little enough to keep the robot in the middle.
const FLOOR_BLUR: f32 = 0.12;
/// The same for its height: a hop should be seen as a hop, not be followed by the camera.
const HEIGHT_BLUR: f32 = 0.8;

/// The poses `seconds` after the first frame, `[B]`: positions on the straight line between the two nearest frames, rotations along
/// the shorter arc between them. Before the first and after the last frame time stands still. `dt` is the seconds between frames.
/// Empty if there are no frames.
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

/// Where a camera that follows body `focus` looks `seconds` after the first frame, metres, world frame: the body's path, blurred by
/// a Gaussian, lightly along the floor and heavily in height. Past either end of the clip the path along the floor goes on as its
/// mirror image about the end point, so that the camera of a robot that runs does not brake there, and the height as its mirror
/// image in time.
pub fn follow(frames: &Frames, dt: f32, focus: usize, seconds: f32) -> [f32; 3] {
    if frames.steps == 0 || focus >= frames.bodies {
        return [0.0; 3];
    }
    let last = frames.steps as isize - 1;
    let at = (seconds / dt).clamp(0.0, last as f32);
    let place = |t: isize| Vec3::from(frames.poses_at(t as usize)[focus].position);
    let mirrored = |t: isize| place((2 * t.clamp(0, last) - t).clamp(0, last));
    let continued = |t: isize| {
        if (0..=last).contains(&t) { place(t) } else { 2.0 * place(t.clamp(0, last)) - mirrored(t) }
    };
    let blurred = |blur: f32, path: &dyn Fn(isize) -> Vec3| {
        let deviation = (blur / dt).max(1e-3);
        let reach = (3.0 * deviation).ceil() as isize;
        let middle = at.round() as isize;
        let (mut sum, mut weights) = (Vec3::ZERO, 0.0);
        for t in middle - reach..=middle + reach {
            let from_middle = (t as f32 - at) / deviation;
            let weight = (-0.5 * from_middle * from_middle).exp();
            sum += path(t) * weight;
            weights += weight;
        }
        sum / weights
    };
    let floor = blurred(FLOOR_BLUR, &continued);
    let height = blurred(HEIGHT_BLUR, &mirrored);
    [floor.x, floor.y, height.z]
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::Quat;

    /// One body besides the world: runs along x at 2 m/s, hops, turns about y at 3 rad/s.
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
            // q and −q are one rotation.
            assert!(((body.rotation[0] * w + body.rotation[2] * y).abs() - 1.0).abs() < 1e-5);
        }
        assert_eq!(interpolate(&frames, 0.02, -1.0), frames.poses_at(0));
        assert_eq!(interpolate(&frames, 0.02, 9.0), frames.poses_at(49));
        assert!(interpolate(&Frames::default(), 0.02, 0.0).is_empty());
    }

    #[test]
    fn the_camera_keeps_up_and_does_not_hop_along() {
        let frames = running(100, 0.02);
        for seconds in [0.0, 0.3, 1.0, 1.7, 1.98] {
            let [x, y, z] = follow(&frames, 0.02, 1, seconds);
            assert!((x - 2.0 * seconds).abs() < 0.01, "{x} at {seconds}");
            assert_eq!(y, 0.0);
            assert!((z - 1.0).abs() < 0.03, "{z}");
        }
    }
}
