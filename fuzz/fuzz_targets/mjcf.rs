//! A robot's MJCF text. What follows a zero byte is the content of every file that the text asks for: meshes and height
//! fields.

#![no_main]

use flipside_envs::physics::{self, Model, Precision};
use flipside_fuzz::{checked, text_and_file};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let Some((text, file)) = text_and_file(data) else { return };
    let Some(model) = checked(Model::from_mjcf_with(text, "robot.xml", &|_| Ok(file.to_vec()))) else { return };
    // What was accepted can be drawn, and stepped where the lanes take it.
    model.scene();
    model.kinematics(model.qpos0());
    let ctrl = vec![0.5; model.nu()];
    if model.nv() > 40 || model.geoms.len() > 40 {
        return;
    }
    if let Some(mut worlds) = checked(physics::backend("lanes", Precision::F64, Arc::new(model), 1, Some(1))) {
        checked(worlds.step(&ctrl, 1));
    }
});
