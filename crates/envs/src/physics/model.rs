//! A robot as a physics engine needs it: MuJoCo's arrays, in double precision, read from MJCF by [`Model::from_mjcf`].
//!
//! Names and conventions are MuJoCo's: body 0 is the world, bodies are in depth-first order, joints, degrees of freedom
//! and geoms are grouped by body; lengths are metres, angles radians, and a quaternion rotates from the local frame to
//! its parent's.

use super::mesh::{HeightField, Mesh};
use flipside_core::{Pose, Scene, Shape};
use glam::{DMat3, DQuat, DVec3};
use std::ops::Range;

/// A robot and the options of its simulation, compiled from MJCF.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// `<mujoco model="…">`, or empty.
    pub name: String,
    /// What `<option>` says.
    pub option: Options,
    /// Every body, the world first; a parent comes before its children.
    pub bodies: Vec<Body>,
    /// Every joint, in the order of bodies, then of the file.
    pub joints: Vec<Joint>,
    /// Every geom, in the order of bodies, then of the file.
    pub geoms: Vec<Geom>,
    /// Every mesh, in the order of the file.
    pub meshes: Vec<Mesh>,
    /// Every height field, in the order of the file.
    pub hfields: Vec<HeightField>,
    /// Every site, in the order of bodies, then of the file.
    pub sites: Vec<Site>,
    /// Every actuator, in the order of the file: the order of `ctrl`.
    pub actuators: Vec<Actuator>,
    pub(super) qpos0: Vec<f64>,
    pub(super) ctrl_range: Vec<[f64; 2]>,
    pub(super) nv: usize,
}

/// `<option>`: how time passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Seconds a step.
    pub timestep: f64,
    /// m/s², world frame.
    pub gravity: DVec3,
    /// How MuJoCo would integrate; a backend that cannot says so in its own documentation.
    pub integrator: Integrator,
    /// Which constraint solver MuJoCo would use.
    pub solver: Solver,
    /// The solver's iterations at most.
    pub iterations: u32,
    /// The solver's tolerance.
    pub tolerance: f64,
    /// Ratio of frictional to normal constraint impedance.
    pub impratio: f64,
    /// Density of the surrounding medium, kg/m³; 0 is a vacuum.
    pub density: f64,
    /// Viscosity of the surrounding medium, Pa·s.
    pub viscosity: f64,
}

/// `<option integrator>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrator {
    /// Semi-implicit Euler, implicit in the joint damping.
    Euler,
    /// Fourth-order Runge–Kutta.
    Rk4,
}

/// `<option solver>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Projected Gauss–Seidel.
    Pgs,
    /// Conjugate gradient.
    Cg,
    /// Newton's method.
    Newton,
}

/// A rigid body, or the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// Its name in the file; `world` for body 0; empty where the file gives none.
    pub name: String,
    /// Index of the body it hangs from; the world is its own parent.
    pub parent: usize,
    /// The body that carries this one rigidly: itself where it has joints, else its parent's (MuJoCo's `body_weldid`).
    pub weld: usize,
    /// The child of the world at the root of this body's tree (MuJoCo's `body_rootid`).
    pub root: usize,
    /// Place in the parent's frame at the reference configuration, metres.
    pub pos: DVec3,
    /// Orientation in the parent's frame at the reference configuration.
    pub quat: DQuat,
    /// Kilograms; 0 for the world.
    pub mass: f64,
    /// Centre of mass in the body's frame, metres.
    pub ipos: DVec3,
    /// Orientation of the principal axes in the body's frame.
    pub iquat: DQuat,
    /// Principal moments of inertia about the centre of mass, kg m².
    pub inertia: DVec3,
    /// Its joints, into [`Model::joints`].
    pub joints: Range<usize>,
    /// Its degrees of freedom, into `qvel`.
    pub dofs: Range<usize>,
    /// Its geoms, into [`Model::geoms`].
    pub geoms: Range<usize>,
}

impl Body {
    /// The inertia about the centre of mass in the axes of the body's frame, kg m².
    pub fn inertia_matrix(&self) -> DMat3 {
        let axes = DMat3::from_quat(self.iquat);
        axes * DMat3::from_diagonal(self.inertia) * axes.transpose()
    }
}

/// What a joint lets move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JointKind {
    /// Everything: seven positions (x y z, quaternion w x y z) and six velocities (linear in the world's frame, angular
    /// in the body's).
    Free,
    /// A translation along the axis, metres.
    Slide,
    /// A rotation about the axis through the anchor, radians.
    Hinge,
}

/// A joint between a body and its parent. Joints of one body act one after another, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Joint {
    /// Its name in the file, or empty.
    pub name: String,
    /// The body that it moves.
    pub body: usize,
    /// What it lets move.
    pub kind: JointKind,
    /// Index of its first position in `qpos`.
    pub qposadr: usize,
    /// Index of its first velocity in `qvel`.
    pub dofadr: usize,
    /// Unit axis in the body's frame.
    pub axis: DVec3,
    /// Anchor in the body's frame, metres.
    pub pos: DVec3,
    /// Limits of the position, if it has any.
    pub range: Option<[f64; 2]>,
    /// The position that the reference configuration has (`ref`).
    pub reference: f64,
    /// N/m or N m/rad.
    pub stiffness: f64,
    /// The position at which the spring is at rest.
    pub springref: f64,
    /// N s/m or N m s/rad.
    pub damping: f64,
    /// Rotor inertia that every degree of freedom of the joint adds to the mass matrix's diagonal, kg or kg m².
    pub armature: f64,
    /// Dry friction, N or N m.
    pub frictionloss: f64,
    /// How far before its limit the limit's constraint begins.
    pub margin: f64,
    /// `solreflimit`: time constant and damping ratio of the limit, or negative stiffness and damping.
    pub solref_limit: [f64; 2],
    /// `solimplimit`: impedance of the limit: d₀, d_max, width, midpoint, power.
    pub solimp_limit: [f64; 5],
}

impl Joint {
    /// How many positions and velocities it has.
    pub fn sizes(&self) -> (usize, usize) {
        match self.kind {
            JointKind::Free => (7, 6),
            JointKind::Slide | JointKind::Hinge => (1, 1),
        }
    }
}

/// The shapes that geoms have; the long axis is local z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GeomShape {
    /// Everything below local z = 0 is inside, without end.
    Plane,
    /// A ball.
    Sphere {
        /// Metres.
        radius: f64,
    },
    /// A cylinder capped by half-balls.
    Capsule {
        /// Metres.
        radius: f64,
        /// Metres, of the straight part.
        half_length: f64,
    },
    /// A cylinder.
    Cylinder {
        /// Metres.
        radius: f64,
        /// Metres.
        half_length: f64,
    },
    /// A box.
    Box {
        /// Metres.
        half_extents: DVec3,
    },
    /// A surface of triangles, in the frame of its principal axes; its convex hull collides.
    Mesh {
        /// Index into [`Model::meshes`].
        mesh: usize,
    },
    /// Ground with hills.
    HeightField {
        /// Index into [`Model::hfields`].
        hfield: usize,
    },
}

/// A shape on a body: it collides, is seen, and gives the body its mass.
#[derive(Clone, Debug, PartialEq)]
pub struct Geom {
    /// Its name in the file, or empty.
    pub name: String,
    /// The body that it is part of.
    pub body: usize,
    /// What it is.
    pub shape: GeomShape,
    /// Place in the body's frame, metres.
    pub pos: DVec3,
    /// Orientation in the body's frame.
    pub quat: DQuat,
    /// Bits of what it is, for collision: two geoms collide if either's `contype` meets the other's `conaffinity`.
    pub contype: u32,
    /// Bits of what it collides with.
    pub conaffinity: u32,
    /// 1: frictionless; 3: sliding friction; 4 and 6 add torsional and rolling friction.
    pub condim: u32,
    /// Decides whose contact parameters count, where two differ.
    pub priority: i32,
    /// Sliding, torsional and rolling friction.
    pub friction: [f64; 3],
    /// Distance at which contacts begin to exist, metres.
    pub margin: f64,
    /// Contacts closer than margin − gap push.
    pub gap: f64,
    /// Weight in the mean of two geoms' solver parameters.
    pub solmix: f64,
    /// Time constant and damping ratio of contacts, or negative stiffness and damping.
    pub solref: [f64; 2],
    /// Impedance of contacts: d₀, d_max, width, midpoint, power.
    pub solimp: [f64; 5],
    /// Colour, each in 0..=1.
    pub rgba: [f32; 4],
}

/// A named point on a body, without mass or collision.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Its name in the file, or empty.
    pub name: String,
    /// The body that it is on.
    pub body: usize,
    /// Place in the body's frame, metres.
    pub pos: DVec3,
    /// Orientation in the body's frame.
    pub quat: DQuat,
}

/// A motor: force = gear · clip(ctrl) on one hinge or slide.
#[derive(Clone, Debug, PartialEq)]
pub struct Actuator {
    /// Its name in the file, or empty.
    pub name: String,
    /// The joint that it drives.
    pub joint: usize,
    /// N or N m a unit of control.
    pub gear: f64,
    /// Limits of the control, if it has any.
    pub ctrl_range: Option<[f64; 2]>,
}

impl Model {
    /// Length of `qpos`.
    pub fn nq(&self) -> usize {
        self.qpos0.len()
    }

    /// Length of `qvel`.
    pub fn nv(&self) -> usize {
        self.nv
    }

    /// Length of `ctrl`.
    pub fn nu(&self) -> usize {
        self.actuators.len()
    }

    /// How many bodies, the world included.
    pub fn nbody(&self) -> usize {
        self.bodies.len()
    }

    /// Seconds a step.
    pub fn timestep(&self) -> f64 {
        self.option.timestep
    }

    /// The configuration that the file draws, `[nq]`.
    pub fn qpos0(&self) -> &[f64] {
        &self.qpos0
    }

    /// Limits of each control, `[nu]`; infinite where the file gives none.
    pub fn ctrl_range(&self) -> &[[f64; 2]] {
        &self.ctrl_range
    }

    /// The joint of this name.
    pub fn joint(&self, name: &str) -> Option<usize> {
        self.joints.iter().position(|joint| joint.name == name)
    }

    /// The body of this name.
    pub fn body(&self, name: &str) -> Option<usize> {
        self.bodies.iter().position(|body| body.name == name)
    }

    /// The geom of this name.
    pub fn geom(&self, name: &str) -> Option<usize> {
        self.geoms.iter().position(|geom| geom.name == name)
    }

    /// The site of this name.
    pub fn site(&self, name: &str) -> Option<usize> {
        self.sites.iter().position(|site| site.name == name)
    }

    /// Kilograms of all bodies together.
    pub fn total_mass(&self) -> f64 {
        self.bodies.iter().map(|body| body.mass).sum()
    }

    /// Where every body is in the configuration `qpos`, into `out`, `[nbody]`.
    pub fn poses(&self, qpos: &[f64], out: &mut [Pose]) {
        for (slot, (pos, quat)) in out.iter_mut().zip(self.kinematics(qpos)) {
            *slot = pose(pos, quat);
        }
    }

    /// Where every body is in the configuration `qpos`, `[nbody]`: position in metres and orientation, world frame
    /// (MuJoCo's `mj_kinematics`). A quaternion in `qpos` need not be normalised.
    pub fn kinematics(&self, qpos: &[f64]) -> Vec<(DVec3, DQuat)> {
        let mut frames: Vec<(DVec3, DQuat)> = Vec::with_capacity(self.bodies.len());
        for body in &self.bodies {
            let (parent_pos, parent_quat) = frames.get(body.parent).copied().unwrap_or((DVec3::ZERO, DQuat::IDENTITY));
            let mut pos = parent_pos + parent_quat * body.pos;
            let mut quat = parent_quat * body.quat;
            for joint in &self.joints[body.joints.clone()] {
                let q = &qpos[joint.qposadr..];
                match joint.kind {
                    JointKind::Free => {
                        pos = DVec3::new(q[0], q[1], q[2]);
                        quat = unit_quat(&q[3..7]);
                    }
                    JointKind::Slide => pos += quat * joint.axis * (q[0] - joint.reference),
                    JointKind::Hinge => {
                        // The anchor stays where it is while the body turns about it.
                        let anchor = pos + quat * joint.pos;
                        quat *= DQuat::from_axis_angle(joint.axis, q[0] - joint.reference);
                        pos = anchor - quat * joint.pos;
                    }
                }
            }
            frames.push((pos, quat.normalize()));
        }
        frames
    }

    /// Everything that a renderer needs: every geom that is not wholly transparent, including the ground.
    pub fn scene(&self) -> Scene {
        let geoms = self.geoms.iter().filter(|geom| geom.rgba[3] > 0.0).map(|geom| flipside_core::Geom {
            name: geom.name.clone(),
            body: geom.body,
            shape: match geom.shape {
                GeomShape::Plane => Shape::Plane,
                GeomShape::Sphere { radius } => Shape::Sphere { radius: radius as f32 },
                GeomShape::Capsule { radius, half_length } => {
                    Shape::Capsule { radius: radius as f32, half_length: half_length as f32 }
                }
                GeomShape::Cylinder { radius, half_length } => {
                    Shape::Cylinder { radius: radius as f32, half_length: half_length as f32 }
                }
                GeomShape::Box { half_extents } => Shape::Box { half_extents: half_extents.as_vec3().to_array() },
                GeomShape::Mesh { mesh } => Shape::Mesh {
                    mesh,
                    half_extents: self.meshes[mesh].half_extents().as_vec3().to_array(),
                    shadow: Some(self.meshes[mesh].equivalent_box().as_vec3().to_array()),
                },
                // In the scene's list the height fields follow the meshes.
                GeomShape::HeightField { hfield } => Shape::Mesh {
                    mesh: self.meshes.len() + hfield,
                    half_extents: self.hfields[hfield].half_extents().as_vec3().to_array(),
                    shadow: None,
                },
            },
            pose: pose(geom.pos, geom.quat),
            rgba: geom.rgba,
        });
        let frames = self.kinematics(&self.qpos0);
        let level = |joint: &Joint| {
            let upward = (frames[joint.body].1 * joint.axis).z.abs();
            match joint.kind {
                JointKind::Free => false,
                JointKind::Slide => upward < 1e-6,
                JointKind::Hinge => upward > 1.0 - 1e-6,
            }
        };
        Scene {
            lies_flat: !self.joints.is_empty() && self.joints.iter().all(level),
            bodies: self.bodies.iter().map(|body| body.name.clone()).collect(),
            geoms: geoms.collect(),
            meshes: self
                .meshes
                .iter()
                .map(Mesh::triangles)
                .chain(self.hfields.iter().map(HeightField::triangles))
                .collect(),
            focus: self.bodies.iter().position(|body| !body.joints.is_empty()).unwrap_or(0),
        }
    }
}

/// The single-precision pose that renderers and clips store.
fn pose(pos: DVec3, quat: DQuat) -> Pose {
    let q = quat.as_quat();
    Pose { position: pos.as_vec3().to_array(), rotation: [q.w, q.x, q.y, q.z] }
}

/// The unit quaternion along (w, x, y, z); the identity where that is zero, as in MuJoCo.
pub(super) fn unit_quat(wxyz: &[f64]) -> DQuat {
    let q = DQuat::from_xyzw(wxyz[1], wxyz[2], wxyz[3], wxyz[0]);
    if q.length_squared() < 1e-30 { DQuat::IDENTITY } else { q.normalize() }
}
