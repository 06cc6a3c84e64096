//! The model that is read from a file, against MuJoCo's model of that file, and what is refused.

use super::{ROBOTS, load, one, text, weightless_of_contacts};
use flipside_envs::physics::{Geom, GeomShape, Integrator, Joint, JointKind, Model, Solver};
use glam::{DMat3, DQuat, DVec3};
use serde_json::Value;

/// Every bundled robot, and the model that has one of everything.
fn models() -> impl Iterator<Item = &'static str> {
    ROBOTS.into_iter().map(|(name, _)| name).chain(["zoo"])
}

fn golden(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../data/mujoco.json")).unwrap();
    all[name].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Bool(yes) => vec![f64::from(u8::from(*yes))],
        number => vec![number.as_f64().unwrap()],
    }
}

/// All of `ours` must be within `tolerance` of MuJoCo's array of that name.
fn same(robot: &str, golden: &Value, array: &str, ours: impl IntoIterator<Item = f64>, tolerance: f64) {
    let (theirs, ours) = (numbers(&golden[array]), ours.into_iter().collect::<Vec<_>>());
    assert_eq!(ours.len(), theirs.len(), "{robot}: {array} has another length than MuJoCo's");
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let error = (ours - theirs).abs();
        assert!(error <= tolerance, "{robot}: {array}[{index}] is {ours}, and MuJoCo has {theirs}");
    }
}

#[test]
fn compiles_to_mujocos_arrays() {
    for name in models() {
        let (model, golden) = (load(name), golden(name));
        let close = |array: &str, ours: Vec<f64>| same(name, &golden, array, ours, 1e-9);
        let turn = |quat: DQuat| DMat3::from_quat(quat).transpose().to_cols_array();
        let flag = |yes: bool| f64::from(u8::from(yes));
        let (option, bodies, joints, geoms) = (&model.option, &model.bodies, &model.joints, &model.geoms);
        close("nq", vec![model.nq() as f64]);
        close("nv", vec![model.nv() as f64]);
        close("nu", vec![model.nu() as f64]);
        close("nbody", vec![model.nbody() as f64]);
        close("opt_timestep", vec![option.timestep]);
        close("opt_gravity", option.gravity.to_array().to_vec());
        close("opt_integrator", vec![flag(option.integrator == Integrator::Rk4)]);
        close(
            "opt_solver",
            vec![[Solver::Pgs, Solver::Cg, Solver::Newton].iter().position(|s| *s == option.solver).unwrap() as f64],
        );
        close("opt_iterations", vec![option.iterations.into()]);
        close("opt_tolerance", vec![option.tolerance]);
        close("opt_impratio", vec![option.impratio]);
        close("opt_density", vec![option.density]);
        close("opt_viscosity", vec![option.viscosity]);
        close("qpos0", model.qpos0().to_vec());
        // MuJoCo also keeps a free joint's reference as its spring's reference.
        let spring = |joint: &Joint| match joint.kind {
            JointKind::Free => model.qpos0()[joint.qposadr..joint.qposadr + 7].to_vec(),
            JointKind::Slide | JointKind::Hinge => vec![joint.springref],
        };
        close("qpos_spring", joints.iter().flat_map(spring).collect());

        close("body_parentid", bodies.iter().map(|body| body.parent as f64).collect());
        close("body_weldid", bodies.iter().map(|body| body.weld as f64).collect());
        close("body_rootid", bodies.iter().map(|body| body.root as f64).collect());
        close("body_pos", bodies.iter().flat_map(|body| body.pos.to_array()).collect());
        close("body_mat", bodies.iter().flat_map(|body| turn(body.quat)).collect());
        close("body_mass", bodies.iter().map(|body| body.mass).collect());
        close("body_ipos", bodies[1..].iter().flat_map(|body| body.ipos.to_array()).collect());
        close("body_inertia", bodies[1..].iter().flat_map(|body| body.inertia_matrix().to_cols_array()).collect());

        let kind = |joint: &Joint| match joint.kind {
            JointKind::Free => 0.0,
            JointKind::Slide => 2.0,
            JointKind::Hinge => 3.0,
        };
        close("jnt_type", joints.iter().map(kind).collect());
        close("jnt_bodyid", joints.iter().map(|joint| joint.body as f64).collect());
        close("jnt_qposadr", joints.iter().map(|joint| joint.qposadr as f64).collect());
        close("jnt_dofadr", joints.iter().map(|joint| joint.dofadr as f64).collect());
        close("jnt_pos", joints.iter().flat_map(|joint| joint.pos.to_array()).collect());
        close("jnt_axis", joints.iter().flat_map(|joint| joint.axis.to_array()).collect());
        close("jnt_limited", joints.iter().map(|joint| flag(joint.range.is_some())).collect());
        let theirs = numbers(&golden["jnt_range"]);
        for (joint, theirs) in joints.iter().zip(theirs.chunks(2)) {
            if let Some(range) = joint.range {
                let close = (range[0] - theirs[0]).abs().max((range[1] - theirs[1]).abs()) < 1e-9;
                assert!(close, "{name}: {} has the range {range:?}, and MuJoCo {theirs:?}", joint.name);
            }
        }
        close("jnt_stiffness", joints.iter().map(|joint| joint.stiffness).collect());
        close("jnt_margin", joints.iter().map(|joint| joint.margin).collect());
        close("jnt_solref", joints.iter().flat_map(|joint| joint.solref_limit).collect());
        close("jnt_solimp", joints.iter().flat_map(|joint| joint.solimp_limit).collect());
        let dofs = |value: fn(&Joint) -> f64| -> Vec<f64> {
            joints.iter().flat_map(|joint| vec![value(joint); joint.sizes().1]).collect()
        };
        close("dof_damping", dofs(|joint| joint.damping));
        close("dof_armature", dofs(|joint| joint.armature));
        close("dof_frictionloss", dofs(|joint| joint.frictionloss));

        let shape = |geom: &Geom| match geom.shape {
            GeomShape::Plane => (0.0, vec![]),
            GeomShape::Sphere { radius } => (2.0, vec![radius]),
            GeomShape::Capsule { radius, half_length } => (3.0, vec![radius, half_length]),
            GeomShape::Cylinder { radius, half_length } => (5.0, vec![radius, half_length]),
            GeomShape::Box { half_extents } => (6.0, half_extents.to_array().to_vec()),
            GeomShape::Mesh { .. } | GeomShape::HeightField { .. } => {
                panic!("no robot that ships has a {:?}", geom.shape)
            }
        };
        close("geom_type", geoms.iter().map(|geom| shape(geom).0).collect());
        close("geom_size", geoms.iter().flat_map(|geom| shape(geom).1).collect());
        close("geom_bodyid", geoms.iter().map(|geom| geom.body as f64).collect());
        close("geom_pos", geoms.iter().flat_map(|geom| geom.pos.to_array()).collect());
        close("geom_mat", geoms.iter().flat_map(|geom| turn(geom.quat)).collect());
        close("geom_contype", geoms.iter().map(|geom| geom.contype.into()).collect());
        close("geom_conaffinity", geoms.iter().map(|geom| geom.conaffinity.into()).collect());
        close("geom_condim", geoms.iter().map(|geom| geom.condim.into()).collect());
        close("geom_priority", geoms.iter().map(|geom| geom.priority.into()).collect());
        close("geom_friction", geoms.iter().flat_map(|geom| geom.friction).collect());
        close("geom_margin", geoms.iter().map(|geom| geom.margin).collect());
        close("geom_gap", geoms.iter().map(|geom| geom.gap).collect());
        close("geom_solmix", geoms.iter().map(|geom| geom.solmix).collect());
        close("geom_solref", geoms.iter().flat_map(|geom| geom.solref).collect());
        close("geom_solimp", geoms.iter().flat_map(|geom| geom.solimp).collect());

        close("site_bodyid", model.sites.iter().map(|site| site.body as f64).collect());
        close("site_pos", model.sites.iter().flat_map(|site| site.pos.to_array()).collect());
        close("actuator_gear", model.actuators.iter().map(|motor| motor.gear).collect());
        close("actuator_joint", model.actuators.iter().map(|motor| motor.joint as f64).collect());
        close("actuator_ctrllimited", model.actuators.iter().map(|motor| flag(motor.ctrl_range.is_some())).collect());
        let theirs = numbers(&golden["actuator_ctrlrange"]);
        for (motor, theirs) in model.actuators.iter().zip(theirs.chunks(2)) {
            assert!(
                motor.ctrl_range.is_none_or(|range| range == theirs),
                "{name}: {} and MuJoCo {theirs:?}",
                motor.name
            );
        }
    }
}

#[test]
fn bodies_are_where_mujoco_puts_them() {
    for name in models() {
        let model = load(name);
        for state in golden(name)["states"].as_array().unwrap() {
            let theirs = numbers(&state["frames"]);
            for ((pos, quat), theirs) in model.kinematics(&numbers(&state["qpos"])).into_iter().zip(theirs.chunks(7)) {
                assert!((pos - DVec3::from_slice(theirs)).length() < 1e-9, "{name}: {pos} {theirs:?}");
                let theirs = DQuat::from_xyzw(theirs[4], theirs[5], theirs[6], theirs[3]);
                assert!(quat.dot(theirs).abs() > 1.0 - 1e-9, "{name}: {quat} {theirs}");
            }
        }
    }
}

/// Mass, inertia, armature, springs, damping, gears, Coriolis and centrifugal forces and the map from joints to
/// rapier's, all at once: in empty space rapier must accelerate as MuJoCo does.
#[test]
fn rapier_accelerates_as_mujoco_does() {
    for name in models().filter(|name| *name != "swimmer") {
        let mut model = weightless_of_contacts(load(name));
        // Short enough that rapier's implicit terms do not show, long enough that single precision does not.
        // (The humanoids' dampers alone would stop a hand within half a millisecond.)
        let dt = if name.starts_with("humanoid") { 1e-5 } else { 1e-4 };
        model.option.timestep = dt;
        let mut backend = one(model);
        for (index, state) in golden(name)["states"].as_array().unwrap().iter().enumerate() {
            let [qpos, qvel, theirs] = ["qpos", "qvel", "qacc"].map(|array| numbers(&state[array]));
            backend.set_state(0, &qpos, &qvel);
            backend.step(&numbers(&state["ctrl"]), 1).unwrap();
            for (after, before) in backend.qpos().iter().zip(&qpos) {
                assert!((after - before).abs() < 20.0 * dt, "{name}, state {index}: {before} jumped to {after}");
            }
            let scale = theirs.iter().fold(1.0, |scale: f64, a| scale.max(a.abs()));
            for (dof, (after, before)) in backend.qvel().iter().zip(&qvel).enumerate() {
                let ours = (after - before) / dt;
                let error = (ours - theirs[dof]).abs() / scale;
                assert!(error < 0.01, "{name}, state {index}: qacc[{dof}] is {ours}, and MuJoCo has {}", theirs[dof]);
            }
        }
    }
}

/// Springs against gravity and the ground: where a robot comes to rest does not depend on how stiff a contact is.
#[test]
fn robots_come_to_rest_where_mujocos_do() {
    for (name, skip, free) in [("half_cheetah", 5, 1), ("ant", 5, 2)] {
        let mut backend = one(load(name));
        for _ in 0..200 {
            backend.step(&vec![0.0; backend.model().nu()], skip).unwrap();
        }
        // The place along the ground is left to chance, so it is skipped.
        let theirs = numbers(&golden(name)["rest"]);
        for (index, (ours, theirs)) in backend.qpos().iter().zip(&theirs).enumerate().skip(free) {
            assert!((ours - theirs).abs() < 0.02, "{name}: qpos[{index}] rests at {ours}, and MuJoCo's at {theirs}");
        }
        assert!(backend.qvel().iter().all(|v| v.abs() < 0.02), "{name} still moves: {:?}", backend.qvel());
    }
}

#[test]
fn reads_what_no_array_above_shows() {
    let model = load("zoo");
    assert_eq!((model.option.integrator, model.option.solver), (Integrator::Rk4, Solver::Cg));
    assert_eq!((model.option.iterations, model.option.tolerance, model.option.impratio), (37, 1e-7, 1.5));
    assert_eq!(model.ctrl_range()[0], [-2.0, 1.5]);
    assert_eq!(model.ctrl_range()[2], [f64::NEG_INFINITY, f64::INFINITY]);
    assert_eq!(model.joints[model.joint("float").unwrap()].kind, JointKind::Free);
    assert_eq!(model.sites[model.site("mark").unwrap()].pos, DVec3::new(0.1, 0.2, 0.3));
    assert_eq!(model.joints[model.joint("two_a").unwrap()].springref, 20_f64.to_radians());
    assert_eq!(model.joints[model.joint("arm_s").unwrap()].springref, 0.1);
    let scene = model.scene();
    assert_eq!(scene.geoms[0].rgba, [0.8, 0.1, 0.1, 1.0]);
    assert_eq!(scene.bodies[scene.focus], "plane_root");
}

/// Wrong files, each with the line and words of its refusal.
#[test]
fn a_wrong_file_is_refused_with_its_line_and_what_was_expected() {
    let hopper = text("hopper");
    let line_of = |needle: &str| hopper.lines().position(|line| line.contains(needle)).unwrap() + 1;
    for (from, to, expected) in [
        ("armature=\"1\"", "armour=\"1\"", "\"armour\", which is not supported; expected one of type, group"),
        ("damping=\"1\"", "damping=\"much\"", "damping=\"much\"; expected a number"),
        (
            "name=\"root_x\" class=\"root\" type=\"slide\"",
            "type=\"ball\"",
            "type=\"ball\"; expected one of free, slide, hinge",
        ),
        ("axis=\"0 0 1\" pos=\"0 0 -1.25\"", "axis=\"0 1\"", "axis=\"0 1\"; expected 3 numbers"),
        ("timestep=\"0.002\"", "timestep=\"nan\"", "timestep=\"nan\"; expected a number"),
        ("integrator=\"RK4\"", "integrator=\"implicit\"", "expected one of Euler, RK4"),
        (
            "<geom name=\"torso\"",
            "<mesh name=\"torso\"",
            "<mesh> in <body> is not supported; expected one of inertial, joint",
        ),
        (
            "joint=\"foot\"",
            "joint=\"toe\"",
            "joint=\"toe\"; expected one of root_x, root_z, root_pitch, thigh, leg, foot",
        ),
        ("range=\"-45 45\"", "range=\"45 -45\"", "expected the lower end first"),
        ("name=\"leg\" size=\"0.04 0.25\"", "name=\"leg\" size=\"0.04\"", "needs 2 sizes above 0"),
        (
            "name=\"thigh\" size=\"0.05 0.225\"",
            "name=\"torso\" size=\"0.05 0.225\"",
            "a second <geom> is called \"torso\"",
        ),
        (
            "class=\"root\" type=\"slide\" axis=\"1 0 0\"",
            "class=\"route\" axis=\"1 0 0\"",
            "class \"route\", which no <default> defines; expected one of main, root",
        ),
        ("zaxis=\"-1 0 0\"", "zaxis=\"-1 0 0\" euler=\"0 0 0\"", "has euler and zaxis; expected one orientation"),
    ] {
        let wrong = hopper.replacen(from, to, 1);
        assert_ne!(wrong, hopper, "{from} is not in the file");
        let error = Model::from_mjcf(&wrong, "mine.xml").expect_err(to).to_string();
        let place = format!("mine.xml:{}: ", line_of(from));
        assert!(error.starts_with(&place) && error.contains(expected), "{error}\nexpected {place}…{expected}");
    }
    for (wrong, expected) in [
        ("<robot/>", "w.xml:1: the root element is <robot>; expected <mujoco>"),
        ("<mujoco>\n<worldbody>\n<body></worldbody></mujoco>", "w.xml:3: not well-formed XML"),
        ("<mujoco>\n<equality/></mujoco>", "w.xml:2: <equality> in <mujoco> is not supported"),
        ("<mujoco><include file=\"a.xml\"/></mujoco>", "w.xml:1: <include> in <mujoco> is not supported"),
        ("<mujoco><worldbody>\n<body><joint/></body></worldbody></mujoco>", "w.xml:2: <body> moves but has no mass"),
        (
            "<mujoco><worldbody><body>\n<joint limited=\"true\"/><geom size=\"1\"/></body></worldbody></mujoco>",
            "w.xml:2: <joint> is limited but has no range",
        ),
        (
            "<mujoco><worldbody><body><geom size=\"1\"/><body>\n<freejoint/><geom size=\"1\"/></body></body></worldbody></mujoco>",
            "w.xml:2: a free joint is on a body inside another",
        ),
    ] {
        let error = Model::from_mjcf(wrong, "w.xml").expect_err(wrong).to_string();
        assert!(error.starts_with(expected), "{error}\nexpected {expected}");
    }
}
