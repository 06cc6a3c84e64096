//! Scenes and motions for this crate's tests.

use flipside_core::{Clip, Frames, Geom, ItemId, Pose, Scene, Shape};
use glam::{Quat, Vec3};

pub fn geom(name: &str, body: usize, shape: Shape, rgba: [f32; 4]) -> Geom {
    Geom { name: name.into(), body, shape, pose: Pose::IDENTITY, rgba }
}

pub fn plane() -> Geom {
    geom("floor", 0, Shape::Plane, [0.8, 0.9, 0.8, 1.0])
}

pub fn pose(position: Vec3, rotation: Quat) -> Pose {
    Pose { position: position.to_array(), rotation: [rotation.w, rotation.x, rotation.y, rotation.z] }
}

/// A one-legged robot in the x–z plane: torso, thigh, shin and foot, each body at its geom's middle.
pub fn hopper() -> (Scene, Vec<Pose>) {
    (hopper_scene(), hopper_poses(0.0, 0.25, 0.0))
}

fn hopper_scene() -> Scene {
    let orange = [0.90, 0.42, 0.16, 1.0];
    let capsule =
        |name: &str, body, radius, half_length| geom(name, body, Shape::Capsule { radius, half_length }, orange);
    Scene {
        bodies: ["world", "torso", "thigh", "shin", "foot"].map(String::from).to_vec(),
        geoms: vec![
            plane(),
            capsule("torso", 1, 0.05, 0.2),
            capsule("thigh", 2, 0.05, 0.225),
            capsule("shin", 3, 0.04, 0.25),
            capsule("foot", 4, 0.06, 0.195),
        ],
        meshes: vec![],
        focus: 1,
        lies_flat: false,
    }
}

/// The hopper at `x` with its knee bent by `bend` radians and its foot `height` above the floor.
pub fn hopper_poses(x: f32, bend: f32, height: f32) -> Vec<Pose> {
    let along = |from: Vec3, angle: f32, length: f32| from + Quat::from_rotation_y(angle) * Vec3::Z * length;
    let foot = Vec3::new(x, 0.0, 0.06 + height);
    let ankle = foot - Vec3::X * 0.065;
    let knee = along(ankle, bend, 0.5);
    let hip = along(knee, -bend, 0.45);
    let middle = |a: Vec3, b: Vec3| 0.5 * (a + b);
    vec![
        Pose::IDENTITY,
        pose(along(hip, 0.3 * bend, 0.2), Quat::from_rotation_y(0.3 * bend)),
        pose(middle(knee, hip), Quat::from_rotation_y(-bend)),
        pose(middle(ankle, knee), Quat::from_rotation_y(bend)),
        pose(foot, Quat::from_rotation_y(std::f32::consts::FRAC_PI_2)),
    ]
}

/// A hopper that hops along x at `speed` metres a second for `steps` frames of 20 ms.
pub fn hop(speed: f32, steps: usize) -> Clip {
    let dt = 0.02;
    let poses = (0..steps)
        .flat_map(|t| {
            let seconds = t as f32 * dt;
            let swing = (seconds * 6.0).sin();
            hopper_poses(speed * seconds, 0.35 - 0.2 * swing, 0.2 * swing.max(0.0))
        })
        .collect();
    Clip {
        id: ItemId(1),
        task: "hopper".into(),
        dt,
        recorded_at: 0,
        frames: Frames { steps, bodies: 5, poses, ..Frames::default() },
    }
}

/// A four-legged robot with a ball for a torso, and beside it a box, a cylinder and a disc: every shape except a mesh.
pub fn zoo() -> (Scene, Vec<Pose>) {
    let teal = [0.16, 0.55, 0.62, 1.0];
    let mut geoms = vec![plane(), geom("torso", 1, Shape::Sphere { radius: 0.25 }, teal)];
    let mut poses = vec![Pose::IDENTITY, pose(Vec3::new(0.0, 0.0, 0.55), Quat::IDENTITY)];
    for leg in 0..4 {
        let turn = Quat::from_rotation_z((leg as f32 + 0.5) * std::f32::consts::FRAC_PI_2);
        let (hip, knee, foot) = (Vec3::new(0.2, 0.0, 0.55), Vec3::new(0.55, 0.0, 0.6), Vec3::new(0.95, 0.0, 0.08));
        for (a, b) in [(hip, knee), (knee, foot)] {
            let (a, b) = (turn * a, turn * b);
            let half_length = 0.5 * a.distance(b);
            geoms.push(geom("leg", poses.len(), Shape::Capsule { radius: 0.08, half_length }, teal));
            poses.push(pose(0.5 * (a + b), Quat::from_rotation_arc(Vec3::Z, (b - a).normalize())));
        }
    }
    geoms.push(geom("box", poses.len(), Shape::Box { half_extents: [0.3, 0.2, 0.15] }, [0.85, 0.3, 0.3, 1.0]));
    poses.push(pose(Vec3::new(1.5, 0.6, 0.15), Quat::from_rotation_z(0.4)));
    geoms.push(geom(
        "cylinder",
        poses.len(),
        Shape::Cylinder { radius: 0.2, half_length: 0.35 },
        [0.9, 0.75, 0.3, 1.0],
    ));
    poses.push(pose(Vec3::new(1.3, -0.9, 0.35), Quat::IDENTITY));
    geoms.push(geom("disc", poses.len(), Shape::Cylinder { radius: 0.3, half_length: 0.05 }, [0.5, 0.4, 0.8, 1.0]));
    poses.push(pose(Vec3::new(-1.2, 0.9, 0.3), Quat::from_rotation_x(0.5)));
    (
        Scene {
            bodies: (0..poses.len()).map(|b| format!("body {b}")).collect(),
            geoms,
            meshes: vec![],
            focus: 1,
            lies_flat: false,
        },
        poses,
    )
}

/// A robot that is shipped with the program, as it stands before its first step.
pub fn robot(task: &str) -> (Scene, Vec<Pose>) {
    let path = format!("{}/../../envs/{task}.xml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let model = flipside_envs::physics::Model::from_mjcf(&text, &path).unwrap();
    let poses = model
        .kinematics(model.qpos0())
        .into_iter()
        .map(|(position, rotation)| pose(position.as_vec3(), rotation.as_quat()))
        .collect();
    (model.scene(), poses)
}
