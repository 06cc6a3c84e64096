//! The parts of MJCF that the equations do not cover. They are named in an error and never silently left out.

use crate::physics::backend::PhysicsError;
use crate::physics::model::{JointKind, Model};

/// Refuses a model with an element that would be simulated as another.
pub fn refuse(model: &Model, backend: &'static str) -> Result<(), PhysicsError> {
    let refused = |reason: String| Err(PhysicsError::Unsupported { backend, model: model.name.clone(), reason });
    for joint in &model.joints {
        let called = if joint.name.is_empty() { "a joint".to_owned() } else { format!("the joint \"{}\"", joint.name) };
        if joint.frictionloss != 0.0 {
            return refused(format!("{called} has dry friction (frictionloss), which is not supported: leave it out"));
        }
        if joint.kind == JointKind::Free && joint.stiffness != 0.0 {
            return refused(format!("{called} is free and has a spring, which is not supported: leave it out"));
        }
        if joint.range.is_some() && !whole_power(joint.solimp_limit[4]) {
            return refused(format!("{called} has a solimplimit whose power is not a whole number from 1 to 8"));
        }
    }
    for geom in model.geoms.iter().filter(|geom| geom.contype != 0 || geom.conaffinity != 0) {
        let called = match &geom.name[..] {
            "" => format!("a geom of body \"{}\"", model.bodies[geom.body].name),
            name => format!("the geom \"{name}\""),
        };
        if geom.condim > 3 {
            return refused(format!("{called} has condim {}; expected 1 or 3", geom.condim));
        }
        if !whole_power(geom.solimp[4]) {
            return refused(format!("{called} has a solimp whose power is not a whole number from 1 to 8"));
        }
    }
    if model.option.impratio != 1.0 {
        return refused(format!("<option> has impratio {}; expected 1", model.option.impratio));
    }
    Ok(())
}

fn whole_power(power: f64) -> bool {
    power.fract() == 0.0 && (1.0..=8.0).contains(&power)
}
