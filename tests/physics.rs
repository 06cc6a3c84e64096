//! The robots on their backends.

use flipside::physics::{self, Backend, Model};
use std::sync::Arc;

fn robot(name: &str) -> Arc<Model> {
    let path = format!("{}/envs/{name}.xml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("a robot's file");
    Arc::new(Model::from_mjcf(&text, &path).unwrap_or_else(|error| panic!("{error}")))
}

fn one(model: &Arc<Model>) -> Box<dyn Backend> {
    physics::backend("rapier", model.clone(), 1, Some(1)).expect("a backend")
}

/// Total masses as MuJoCo 4.0.0 computes them from Gymnasium's published models.
#[test]
fn robots_weigh_what_mujoco_says() {
    for (name, kilograms) in [
        ("hopper", 15.820013405927003),
        ("half_cheetah", 14.0),
        ("walker2d", 23.67713663255508),
        ("ant", 0.9108800827073915),
        ("inverted_pendulum", 15.490567153329286),
    ] {
        let mass = robot(name).total_mass();
        assert!((mass - kilograms).abs() < 1e-12, "{name} weighs {mass} kg, and {kilograms} is right");
    }
}

#[test]
fn a_passive_hopper_lands_stands_for_a_moment_and_falls() {
    let model = robot("hopper");
    let mut backend = one(&model);
    let mut contacts = vec![];
    let mut qvel = vec![0.0; model.nv()];
    qvel[2] = 0.1;
    backend.set_state(0, model.qpos0(), &qvel);
    for _ in 0..30 {
        backend.step(&[0.0; 3], 4);
    }
    backend.contacts(0, &mut contacts);
    assert!(backend.qpos()[1] > 1.15 && !contacts.is_empty(), "{:?}", backend.qpos());
    for _ in 0..200 {
        backend.step(&[0.0; 3], 4);
    }
    assert!(backend.qpos()[1] < 0.6, "{:?}", backend.qpos());
}
