//! The robots and their backends, held against MuJoCo's numbers, closed forms and conservation laws.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod lanes;
mod mechanics;
mod meshes;
mod model;
mod robots;

use flipside_core::Seed;
use flipside_envs::physics::{self, Backend, GeomShape, Model};
use glam::DVec3;
use rand::RngExt;
use std::sync::Arc;

/// Name and frame skip of every robot that ships.
const ROBOTS: [(&str, usize); 11] = [
    ("hopper", 4),
    ("half_cheetah", 5),
    ("walker2d", 4),
    ("ant", 5),
    ("humanoid", 5),
    ("humanoid_standup", 5),
    ("inverted_pendulum", 2),
    ("inverted_double_pendulum", 5),
    ("reacher", 2),
    ("pusher", 5),
    ("swimmer", 4),
];

/// Those that rapier can hold: all but the swimmer.
fn on_rapier() -> impl Iterator<Item = (&'static str, usize)> {
    ROBOTS.into_iter().filter(|(name, _)| *name != "swimmer")
}

/// Those whose place is the ground that they stand or lie on.
fn on_the_ground() -> impl Iterator<Item = (&'static str, usize)> {
    ROBOTS.into_iter().take(6)
}

/// The text of `envs/NAME.xml`, or of `tests/data/zoo.xml`.
fn text(name: &str) -> String {
    let folder = if name == "zoo" { "tests/data" } else { "envs" };
    let path = format!("{}/{folder}/{name}.xml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn load(name: &str) -> Model {
    Model::from_mjcf(&text(name), name).unwrap_or_else(|error| panic!("{error}"))
}

/// One world on one thread.
fn one(model: Model) -> Box<dyn Backend> {
    physics::backend("rapier", physics::Precision::F32, Arc::new(model), 1, Some(1)).unwrap()
}

/// One world of a model written down in a test.
fn made(mjcf: &str) -> Box<dyn Backend> {
    one(Model::from_mjcf(mjcf, "test.xml").unwrap_or_else(|error| panic!("{error}")))
}

/// A model that moves in empty space: nothing touches and no joint has limits.
fn weightless_of_contacts(mut model: Model) -> Model {
    for geom in &mut model.geoms {
        (geom.contype, geom.conaffinity) = (0, 0);
    }
    for joint in &mut model.joints {
        joint.range = None;
    }
    model
}

/// The lowest point of everything that touches the ground, metres.
fn lowest(model: &Model, qpos: &[f64]) -> f64 {
    let frames = model.kinematics(qpos);
    let low = model.geoms.iter().filter(|geom| geom.body != 0).map(|geom| {
        let (pos, quat) = frames[geom.body];
        let (centre, z) = (pos + quat * geom.pos, quat * geom.quat * DVec3::Z);
        match geom.shape {
            GeomShape::Sphere { radius } => centre.z - radius,
            GeomShape::Capsule { radius, half_length } => centre.z - half_length * z.z.abs() - radius,
            shape => panic!("no robot has a {shape:?}"),
        }
    });
    low.fold(f64::INFINITY, f64::min)
}

/// Controls for one world, uniform in −1..1.
fn controls(seed: u64, steps: usize, nu: usize) -> Vec<Vec<f64>> {
    let mut stream = Seed(seed).stream("controls");
    (0..steps).map(|_| (0..nu).map(|_| stream.random_range(-1.0..1.0)).collect()).collect()
}

/// Steps the only world through one env step after another.
fn run(backend: &mut Box<dyn Backend>, controls: &[Vec<f64>], frame_skip: usize) {
    for ctrl in controls {
        backend.step(ctrl, frame_skip).unwrap();
    }
}

fn still(backend: &dyn Backend, steps: usize) -> Vec<Vec<f64>> {
    vec![vec![0.0; backend.model().nu()]; steps]
}
