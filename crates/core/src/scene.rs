//! What a robot looks like, independent of physics engine and renderer: bodies, the geoms on them, and poses.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// A rigid transform: position in metres and a unit quaternion in MuJoCo's order (w, x, y, z).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, Serialize, Deserialize)]
pub struct Pose {
    /// Metres, world frame (or the body's frame for a [`Geom`]); z is up.
    pub position: [f32; 3],
    /// Unit quaternion, (w, x, y, z).
    pub rotation: [f32; 4],
}

impl Pose {
    /// No translation, no rotation.
    pub const IDENTITY: Pose = Pose { position: [0.0; 3], rotation: [1.0, 0.0, 0.0, 0.0] };
}

/// The shapes of MJCF geoms. Lengths are in metres, the long axis is along local z, as in MuJoCo.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Shape {
    /// An infinite ground plane, normal along local z.
    Plane,
    /// A ball.
    Sphere {
        /// Metres.
        radius: f32,
    },
    /// A cylinder with two half-balls; the straight part reaches `half_length` to each side.
    Capsule {
        /// Metres.
        radius: f32,
        /// Metres.
        half_length: f32,
    },
    /// A cylinder reaching `half_length` to each side.
    Cylinder {
        /// Metres.
        radius: f32,
        /// Metres.
        half_length: f32,
    },
    /// A box.
    Box {
        /// Metres.
        half_extents: [f32; 3],
    },
    /// Triangles.
    Mesh {
        /// Index into [`Scene::meshes`].
        mesh: usize,
        /// Metres: half sizes of a box around the geom's origin that contains the mesh.
        half_extents: [f32; 3],
        /// Metres: half sizes of the box, also around the geom's origin, that replaces the mesh in shadow computation.
        /// `None`: it casts no shadow.
        shadow: Option<[f32; 3]>,
    },
}

/// A surface of triangles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TriangleMesh {
    /// Metres, in the frame of the geom that uses the mesh.
    pub vertices: Vec<[f32; 3]>,
    /// Three indices into `vertices` per triangle.
    pub faces: Vec<[u32; 3]>,
}

/// One visible piece of a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Geom {
    /// Its name in the MJCF file, or empty.
    pub name: String,
    /// Index into [`Scene::bodies`].
    pub body: usize,
    /// Its shape.
    pub shape: Shape,
    /// Its pose in the body's frame.
    pub pose: Pose,
    /// Colour, linear alpha, each in 0..=1.
    pub rgba: [f32; 4],
}

/// All that a renderer needs to know of a robot before it gets poses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Body names in MuJoCo's order; body 0 is the world.
    pub bodies: Vec<String>,
    /// Every visible geom, the ground included.
    pub geoms: Vec<Geom>,
    /// What [`Shape::Mesh`] refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meshes: Vec<TriangleMesh>,
    /// The body that a camera follows: the first one that moves.
    pub focus: usize,
    /// Whether the robot moves only along the floor, as a swimmer does. Such a robot is best seen from above.
    pub lies_flat: bool,
}
