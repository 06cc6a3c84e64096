//! The camera: an orbit around a point that follows the robot.

use super::bounds::Aabb;
use flipside_core::{Clip, Pose, Scene};
use glam::{Mat4, Vec2, Vec3, Vec4};
use std::f32::consts::{FRAC_PI_2, PI};

/// Frames of a clip that are sampled to find its bounds.
const MOMENTS: usize = 12;
/// Distance of the near plane from the eye, metres.
pub(super) const NEAR: f32 = 0.02;
/// Radians of orbit for one point of pointer travel.
const RADIANS_PER_POINT: f32 = 0.008;
/// Lowest and highest pitch, radians: never below the floor, and never quite overhead, where yaw would lose its
/// meaning.
const PITCH: [f32; 2] = [0.02, 1.5];
/// Smallest and largest distance, metres.
const DISTANCE: [f32; 2] = [0.3, 60.0];

/// An orbit camera. The person sets its angles and distance. [`Track`](super::Track) sets its target for every picture,
/// so that two cameras with the same angles show two clips in the same way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    /// Radians about z, from +x towards +y, of the eye as seen from the target: −π/2 looks along +y, with +x to the
    /// right.
    pub yaw: f32,
    /// Radians above the horizontal of the eye as seen from the target.
    pub pitch: f32,
    /// From the target to the eye, metres.
    pub distance: f32,
    /// Field of view across the picture's shorter side, radians.
    pub field_of_view: f32,
    /// The point that the camera looks at, world frame, metres.
    pub target: [f32; 3],
}

/// The space that robots take up in pictures that follow them along the floor, but not up and down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Lowest and highest z of any part of a robot, metres.
    heights: [f32; 2],
    /// The largest extent of a robot along the floor at any moment, metres.
    width: f32,
}

impl Bounds {
    /// The bounds of the robot of `scene` in all these clips; `None` if they have no frames.
    pub fn of<'a>(scene: &Scene, clips: impl IntoIterator<Item = &'a Clip>) -> Option<Bounds> {
        let moments = clips.into_iter().filter(|clip| clip.frames.steps > 0).flat_map(|clip| {
            let last = clip.frames.steps - 1;
            (0..MOMENTS).map(move |i| clip.frames.poses_at(last * i / (MOMENTS - 1)))
        });
        let bounds = moments.map(|poses| {
            let aabb = Aabb::of_robot(scene, poses);
            Bounds { heights: [aabb.low.z, aabb.high.z], width: aabb.size().truncate().length() }
        });
        bounds.reduce(Bounds::and)
    }

    /// The bounds that contain both.
    pub fn and(self, other: Bounds) -> Bounds {
        let ([a, b], [c, d]) = (self.heights, other.heights);
        Bounds { heights: [a.min(c), b.max(d)], width: self.width.max(other.width) }
    }
}

impl Camera {
    /// A camera that shows the whole robot of `scene` in `poses` (`[bodies]`) with some margin. A planar robot, which
    /// moves in the x–z plane, is seen from the side; one that lies flat, from high above; any other, from the front
    /// right and above.
    pub fn framing(scene: &Scene, poses: &[Pose]) -> Camera {
        let aabb = Aabb::of_robot(scene, poses);
        let field_of_view = 32_f32.to_radians();
        let (yaw, pitch) = if scene.lies_flat {
            (-FRAC_PI_2 + 10_f32.to_radians(), 55_f32.to_radians())
        } else if aabb.is_planar() {
            (-FRAC_PI_2 + 10_f32.to_radians(), 9_f32.to_radians())
        } else {
            (-60_f32.to_radians(), 17_f32.to_radians())
        };
        Camera {
            yaw,
            pitch,
            distance: distance(0.5 * aabb.size().length(), field_of_view),
            field_of_view,
            target: aabb.centre().to_array(),
        }
    }

    /// A camera that shows the robot of `scene` at every moment of all these clips, standing, fallen or in the air,
    /// once it is [aimed](super::Track::aim). Its angles are those of [`Camera::framing`] at the first moment. `None`
    /// if the clips have no frames.
    pub fn showing<'a>(scene: &Scene, clips: impl IntoIterator<Item = &'a Clip> + Clone) -> Option<Camera> {
        let first = clips.clone().into_iter().find(|clip| clip.frames.steps > 0)?;
        Some(Camera::framing(scene, first.frames.poses_at(0)).holding(Bounds::of(scene, clips)?))
    }

    /// The same camera at the height and distance that show all of `bounds`.
    pub fn holding(self, bounds: Bounds) -> Camera {
        let [low, high] = bounds.heights;
        let [x, y, _] = self.target;
        let radius = (0.5 * (high - low)).hypot(0.5 * bounds.width);
        Camera { distance: distance(radius, self.field_of_view), target: [x, y, 0.5 * (low + high)], ..self }
    }

    /// The same camera with another target.
    pub fn following(self, target: [f32; 3]) -> Camera {
        Camera { target, ..self }
    }

    /// Turns around the target by a drag of `(dx, dy)` points, as if the pointer held the floor.
    pub fn orbit(&mut self, dx: f32, dy: f32) {
        let yaw = self.yaw - dx * RADIANS_PER_POINT;
        self.yaw = (yaw + PI).rem_euclid(2.0 * PI) - PI;
        self.pitch = (self.pitch + dy * RADIANS_PER_POINT).clamp(PITCH[0], PITCH[1]);
    }

    /// Divides the distance by `factor`: above 1 comes nearer.
    pub fn zoom(&mut self, factor: f32) {
        if factor > 0.0 && factor.is_finite() {
            self.distance = (self.distance / factor).clamp(DISTANCE[0], DISTANCE[1]);
        }
    }

    /// Where the eye is, world frame, metres.
    pub fn eye(&self) -> [f32; 3] {
        (Vec3::from(self.target) - self.forward() * self.distance).to_array()
    }

    /// The place of a world point in a picture of `size` pixels: x to the right and y down from the top left corner.
    /// `None` if the point is behind the eye.
    pub fn project(&self, point: [f32; 3], size: [u32; 2]) -> Option<[f32; 2]> {
        let clip = self.world_to_clip(size) * Vec3::from(point).extend(1.0);
        (clip.w > NEAR).then(|| {
            let ndc = Vec2::new(clip.x, -clip.y) / clip.w;
            ((ndc + 1.0) * 0.5 * Vec2::new(size[0] as f32, size[1] as f32)).to_array()
        })
    }

    /// The unit direction of the ray from the eye through a place in a picture of `size` pixels: the inverse of
    /// [`Camera::project`].
    pub fn ray(&self, pixel: [f32; 2], size: [u32; 2]) -> [f32; 3] {
        let [right, up, forward] = self.ray_basis(size);
        let x = 2.0 * pixel[0] / size[0] as f32 - 1.0;
        let y = 1.0 - 2.0 * pixel[1] / size[1] as f32;
        (forward + right * x + up * y).normalize().to_array()
    }

    /// From world to clip space, depth reversed: 1 at the near plane, 0 at infinity.
    pub(super) fn world_to_clip(&self, size: [u32; 2]) -> Mat4 {
        let [tan_x, tan_y] = self.half_tangents(size);
        let projection = Mat4::from_cols(
            Vec4::new(1.0 / tan_x, 0.0, 0.0, 0.0),
            Vec4::new(0.0, 1.0 / tan_y, 0.0, 0.0),
            Vec4::new(0.0, 0.0, 0.0, -1.0),
            Vec4::new(0.0, 0.0, NEAR, 0.0),
        );
        let (right, forward) = (self.right(), self.forward());
        let eye = Vec3::from(self.eye());
        let up = right.cross(forward);
        let rotation = Mat4::from_cols(right.extend(0.0), up.extend(0.0), (-forward).extend(0.0), Vec4::W).transpose();
        projection * rotation * Mat4::from_translation(-eye)
    }

    /// Right, up and forward, scaled so that `forward + x right + y up` is the ray through clip-space (x, y).
    pub(super) fn ray_basis(&self, size: [u32; 2]) -> [Vec3; 3] {
        let [tan_x, tan_y] = self.half_tangents(size);
        let (right, forward) = (self.right(), self.forward());
        [right * tan_x, right.cross(forward) * tan_y, forward]
    }

    fn forward(&self) -> Vec3 {
        let (sin_yaw, cos_yaw) = self.yaw.sin_cos();
        let (sin_pitch, cos_pitch) = self.pitch.sin_cos();
        -Vec3::new(cos_pitch * cos_yaw, cos_pitch * sin_yaw, sin_pitch)
    }

    fn right(&self) -> Vec3 {
        let (sin_yaw, cos_yaw) = self.yaw.sin_cos();
        Vec3::new(-sin_yaw, cos_yaw, 0.0)
    }

    /// Tangents of half the horizontal and half the vertical field of view.
    fn half_tangents(&self, size: [u32; 2]) -> [f32; 2] {
        let tan = (0.5 * self.field_of_view).tan();
        let [width, height] = size.map(|s| s.max(1) as f32);
        let shorter = width.min(height);
        [tan * width / shorter, tan * height / shorter]
    }
}

/// The distance from which a ball of this radius fills most of the picture. A radius below 0.4 m counts as 0.4 m.
fn distance(radius: f32, field_of_view: f32) -> f32 {
    (1.1 * radius.max(0.4) / (0.5 * field_of_view).sin()).clamp(DISTANCE[0], DISTANCE[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_ray_goes_through_what_projects_to_its_pixel() {
        let (scene, poses) = samples::hopper();
        let mut camera = Camera::framing(&scene, &poses);
        camera.orbit(130.0, 25.0);
        for size in [[500, 400], [300, 700]] {
            for point in [[0.3, -0.2, 0.1], [-0.5, 0.4, 1.3], [0.0, 0.0, 0.0]] {
                let pixel = camera.project(point, size).unwrap();
                let to_point = (Vec3::from(point) - Vec3::from(camera.eye())).normalize();
                assert!(Vec3::from(camera.ray(pixel, size)).dot(to_point) > 1.0 - 1e-6);
            }
        }
        let behind = Vec3::from(camera.eye()) - Vec3::from(camera.ray([250.0, 200.0], [500, 400]));
        assert_eq!(camera.project(behind.to_array(), [500, 400]), None);
    }

    #[test]
    fn agrees_with_glam() {
        let camera = Camera { yaw: 0.7, pitch: 0.4, distance: 3.0, field_of_view: 0.6, target: [1.0, 2.0, 0.6] };
        let centre = Vec3::new(1.0, 2.0, 0.6);
        let theirs = glam::camera::rh::proj::directx::perspective_infinite_reverse(0.6, 1.25, NEAR)
            * glam::camera::rh::view::look_at_mat4(Vec3::from(camera.eye()), centre, Vec3::Z);
        assert!(camera.world_to_clip([500, 400]).abs_diff_eq(theirs, 1e-5));
    }

    #[test]
    fn a_drag_and_its_reverse_leave_it_where_it_was() {
        let (scene, poses) = samples::hopper();
        let before = Camera::framing(&scene, &poses);
        let mut camera = before;
        camera.orbit(40.0, 30.0);
        camera.zoom(1.5);
        assert_ne!(camera, before);
        camera.orbit(-40.0, -30.0);
        camera.zoom(1.0 / 1.5);
        assert!((camera.yaw - before.yaw).abs() < 1e-5 && (camera.pitch - before.pitch).abs() < 1e-5);
        assert!((camera.distance - before.distance).abs() < 1e-5);
    }

    /// A swimmer that turns sideways must not look much shorter.
    #[test]
    fn a_robot_that_lies_flat_is_seen_from_above() {
        let (scene, poses) = samples::robot("swimmer");
        assert!(
            scene.lies_flat && !samples::robot("half_cheetah").0.lies_flat && !samples::robot("pusher").0.lies_flat
        );
        let camera = Camera::framing(&scene, &poses);
        let place = |point| Vec2::from(camera.project(point, [500, 400]).unwrap());
        let (along, across) = (place([1.0, 0.0, 0.0]) - place([0.0; 3]), place([0.0, 1.0, 0.0]) - place([0.0; 3]));
        assert!(across.length() > 0.7 * along.length(), "{across} across, {along} along");
    }

    #[test]
    fn a_planar_robot_is_seen_from_the_side_and_all_of_it() {
        let (scene, poses) = samples::hopper();
        let camera = Camera::framing(&scene, &poses);
        let [x0, _] = camera.project([0.0, 0.0, 0.6], [500, 400]).unwrap();
        let [x1, _] = camera.project([0.2, 0.0, 0.6], [500, 400]).unwrap();
        assert!(x1 > x0 + 20.0, "+x must point to the right: {x0} to {x1}");
        for geom in scene.geoms.iter().filter(|g| g.body > 0) {
            let [x, y] = camera.project(poses[geom.body].position, [500, 400]).unwrap();
            assert!(x > 20.0 && x < 480.0 && y > 20.0 && y < 380.0, "{} at {x}, {y}", geom.name);
        }
    }
}
