//! Meshes and height fields: their mass and place against MuJoCo, what they rest on, and what is refused.

use super::one;
use flipside_core::Shape;
use flipside_envs::physics::{self, GeomShape, Model, ModelError, Precision};
use flipside_envs::tasks::Folders;
use glam::{DMat3, DQuat, DVec3};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/meshes")
}

fn text() -> String {
    std::fs::read_to_string(folder().join("meshes.xml")).unwrap()
}

/// The text of `meshes.xml` in the folder of the test's data.
fn read(text: &str) -> Result<Model, ModelError> {
    let file = |path: &str| std::fs::read(folder().join(path)).map_err(|error| error.to_string());
    Model::from_mjcf_with(text, "meshes.xml", &file)
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../data/meshes.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn vectors(value: &Value) -> Vec<DVec3> {
    numbers(value).chunks_exact(3).map(DVec3::from_slice).collect()
}

#[test]
fn meshes_weigh_and_lie_as_in_mujoco() {
    let (model, golden) = (read(&text()).unwrap(), golden());
    let close = |array: &str, ours: Vec<f64>| {
        let theirs = numbers(&golden[array]);
        assert_eq!(ours.len(), theirs.len(), "{array}");
        for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let error = (ours - theirs).abs();
            assert!(error <= 1e-6 * (1.0 + theirs.abs()), "{array}[{index}] is {ours}, and MuJoCo has {theirs}");
        }
    };
    let bodies = &model.bodies;
    close("body_mass", bodies.iter().map(|body| body.mass).collect());
    close("body_ipos", bodies[1..].iter().flat_map(|body| body.ipos.to_array()).collect());
    close("body_inertia", bodies[1..].iter().flat_map(|body| body.inertia_matrix().to_cols_array()).collect());
    close("geom_pos", model.geoms.iter().flat_map(|geom| geom.pos.to_array()).collect());
    close("hfield_nrow", model.hfields.iter().map(|field| field.rows as f64).collect());
    close("hfield_ncol", model.hfields.iter().map(|field| field.columns as f64).collect());
    close("hfield_size", model.hfields.iter().flat_map(|field| field.size).collect());
    close("hfield_data", model.hfields.iter().flat_map(|field| field.data.clone()).collect());

    // The inertia above is about distinct axes. A mesh that is turned about one of them would be noticed only here.
    let mut meshes = golden["vertices"].as_array().unwrap().iter();
    for geom in &model.geoms {
        let GeomShape::Mesh { mesh } = geom.shape else { continue };
        let theirs = vectors(meshes.next().unwrap());
        let ours: Vec<DVec3> = model.meshes[mesh].vertices.iter().map(|v| geom.pos + geom.quat * *v).collect();
        assert_eq!(ours.len(), theirs.len(), "{}", model.meshes[mesh].name);
        for vertex in ours {
            let nearest = theirs.iter().map(|other| other.distance(vertex)).fold(f64::INFINITY, f64::min);
            assert!(nearest < 1e-6, "{}: {vertex} is {nearest} m from MuJoCo's nearest", model.meshes[mesh].name);
        }
    }
    assert!(meshes.next().is_none());
}

#[test]
fn meshes_come_to_rest_on_the_floor_and_on_terraces() {
    let model = read(&text()).unwrap();
    let mut backend = one(model.clone());
    let mut speed = f64::INFINITY;
    for _ in 0..300 {
        backend.step(&[], 10).unwrap();
        speed = backend.qvel().iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        assert!(backend.qpos().iter().all(|q| q.is_finite()));
    }
    assert!(speed < 0.02, "something still moves at {speed}");
    let frames = model.kinematics(backend.qpos());
    for (body, theirs) in model.bodies[1..].iter().zip(vectors(&golden()["rest"])) {
        let (pos, quat) = frames[model.body(&body.name).unwrap()];
        let ours = pos + quat * body.ipos;
        assert!((ours - theirs).length() < 0.005, "{} rests at {ours}, and MuJoCo's at {theirs}", body.name);
    }
    // Rows and columns of the height field. The terraces are 0, 0.2, 0.4 and 0.6 m high, 0.2 m above the floor, and
    // turned by a right angle. Nothing rests on one of them.
    for (name, height) in [("wedge", 0.2), ("gem", 0.8), ("pair", 0.4)] {
        let body = model.body(name).unwrap();
        let (pos, quat) = frames[body];
        let geoms = model.geoms.iter().filter(|geom| geom.body == body);
        let points = geoms.flat_map(|geom| {
            let GeomShape::Mesh { mesh } = geom.shape else { panic!("{name} is made of meshes") };
            let place = move |vertex: &DVec3| pos + quat * (geom.pos + geom.quat * *vertex);
            model.meshes[mesh].vertices.iter().map(place)
        });
        let low = points.map(|point| point.z).fold(f64::INFINITY, f64::min);
        assert!((low - height).abs() < 0.003, "{name} rests at {low}; expected {height}");
        // Flat on a face: at least three points are at the lowest height.
        let upright = quat * DVec3::Z;
        assert!(upright.z > 0.9999, "{name} has come to lie on its side: {upright}");
    }
}

#[test]
fn a_ball_in_a_valley_touches_both_slopes() {
    // z = |x| from −1 to 1. A ball of radius r rests with its centre r√2 above the bottom.
    let model = Model::from_mjcf(
        r#"<mujoco><asset><hfield name="v" nrow="2" ncol="3" size="1 1 1 0.1" elevation="1 0 1 1 0 1"/></asset>
        <worldbody><geom type="hfield" hfield="v" pos="0.5 0 0"/>
        <body pos="0.62 0.1 0.6"><freejoint/><geom size="0.2"/></body></worldbody></mujoco>"#,
        "v.xml",
    )
    .unwrap();
    let mut backend = one(model);
    for _ in 0..400 {
        backend.step(&[], 10).unwrap();
    }
    let place = DVec3::from_slice(&backend.qpos()[..3]);
    let expected = DVec3::new(0.5, 0.1, 0.2 * 2.0_f64.sqrt());
    assert!((place - expected).with_y(0.0).length() < 0.005, "{place}; expected {expected}");
}

#[test]
fn the_lanes_name_what_they_cannot_collide_and_take_what_collides_with_nothing() {
    let lanes = |model: Model| physics::backend("lanes", Precision::F64, Arc::new(model), 1, Some(1)).map(|_| ());
    let refused = |model: Model, words: [&str; 2]| {
        let error = lanes(model).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)) && error.contains("--backend rapier"), "{error}");
    };
    let mut model = read(&text()).unwrap();
    refused(model.clone(), ["the plane \"floor\"", "the mesh \"bracket\""]);
    for geom in &mut model.geoms {
        if matches!(geom.shape, GeomShape::Mesh { .. }) {
            (geom.contype, geom.conaffinity) = (0, 0);
        }
    }
    lanes(model.clone()).unwrap();
    let ball = r#"<mujoco><asset><hfield name="h" nrow="2" ncol="2" size="1 1 1 1"/></asset><worldbody>
        <geom name="ground" type="hfield" hfield="h"/><body><freejoint/><geom name="ball" size="0.1"/></body></worldbody></mujoco>"#;
    refused(Model::from_mjcf(ball, "ball.xml").unwrap(), ["the sphere \"ball\"", "the height field \"ground\""]);
    // What touches nothing still has its mass: it falls like anything else and turns by its inertia.
    let turning = |backend: &str, precision| {
        let mut model = model.clone();
        model.option.gravity = DVec3::ZERO;
        let (mut qpos, mut qvel) = (model.qpos0().to_vec(), vec![0.0; model.nv()]);
        qpos[2] = 3.0;
        qvel[3..6].copy_from_slice(&[0.4, 2.0, 0.3]);
        let mut backend = physics::backend(backend, precision, Arc::new(model), 1, Some(1)).unwrap();
        backend.set_state(0, &qpos, &qvel);
        backend.step(&[], 400).unwrap();
        let q = &backend.qpos()[3..7];
        DQuat::from_xyzw(q[1], q[2], q[3], q[0])
    };
    let apart = turning("lanes", Precision::F64).angle_between(turning("rapier", Precision::F32));
    assert!(apart < 0.02, "the backends differ by {apart} rad");
}

#[test]
fn a_renderer_gets_the_triangles_where_the_geoms_are() {
    let model = read(&text()).unwrap();
    let scene = model.scene();
    assert_eq!(scene.meshes.len(), model.meshes.len() + model.hfields.len());
    for geom in &scene.geoms {
        let Shape::Mesh { mesh, half_extents, shadow } = geom.shape else { continue };
        let seen = &scene.meshes[mesh];
        let inside = |vertex: &[f32; 3]| (0..3).all(|k| vertex[k].abs() <= half_extents[k] + 1e-6);
        assert!(seen.vertices.iter().all(inside), "{}", geom.name);
        assert_eq!(shadow.is_some(), geom.body != 0);
        assert!(seen.faces.iter().flatten().all(|at| (*at as usize) < seen.vertices.len()));
    }
    // A hill of the picture: 250 on a scale from 20 to 250, in the lower right corner, at the top of the field's 0.3 m.
    let hills = model.hfields.iter().position(|field| field.name == "hills").unwrap();
    let corner = DVec3::new(1.0, -0.6, 0.3).as_vec3().to_array();
    assert!(scene.meshes[model.meshes.len() + hills].vertices.contains(&corner));
    let turn = DMat3::from_quat(model.geoms[model.geom("terraces").unwrap()].quat);
    assert!((turn * DVec3::X - DVec3::Y).length() < 1e-9);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let right = text();
    let line_of = |words: &str| right.lines().position(|line| line.contains(words)).unwrap() + 1;
    for (from, to, expected) in [
        ("file=\"bracket.stl\"/>", "file=\"gone.stl\"/>", "<mesh> has file=\"gone.stl\": No such file"),
        ("file=\"bracket.stl\"/>", "file=\"roof.ply\"/>", "<mesh> has file=\"roof.ply\": "),
        ("file=\"bracket.stl\"/>", "file=\"hills.png\"/>", "./hills.png is no mesh: its ending is \"png\""),
        ("file=\"bracket.stl\"/>", "file=\"bracket.stl\" vertex=\"0 0 0 1 0 0 0 1 0 0 0 1\"/>", "either \"file\" or"),
        ("file=\"hills.png\"", "file=\"roof.obj\"", "./roof.obj is no height field: its ending is \"obj\""),
        ("file=\"hills.png\"", "nrow=\"2\" ncol=\"5\" file=\"hills.png\"", "2 rows of 5 and a picture of 3 rows of 5"),
        ("inertia=\"convex\"", "inertia=\"shell\"", "inertia=\"shell\"; expected one of convex, exact, legacy"),
        ("name=\"wedge\" vertex", "name=\"wedge\" maxhullvert=\"8\" vertex", "\"maxhullvert\", which is not supported"),
        (
            "face=\"0 2 1  0 1 3  0 3 2  1 2 3\"",
            "face=\"0 2 1  0 1 3  0 3 4\"",
            "names the vertices [0, 3, 4], and there are 4",
        ),
        (
            "face=\"0 2 1  0 1 3  0 3 2  1 2 3\"",
            "inertia=\"exact\" face=\"0 2 1  0 1 3  0 3 2\"",
            "the <mesh> \"wedge\" is no solid: its surface is not closed",
        ),
        ("mesh=\"gem\"", "mesh=\"gum\"", "<geom> has mesh=\"gum\"; expected one of bracket, bracket_exact"),
        ("type=\"mesh\" mesh=\"gem\"", "mesh=\"gem\"", "expected it with type=\"mesh\""),
        ("type=\"mesh\" mesh=\"gem\"", "type=\"hfield\" hfield=\"hills\"", "is on a body"),
        ("nrow=\"4\" ncol=\"6\"", "nrow=\"4\" ncol=\"5\"", "has 24 numbers in \"elevation\"; expected 4 × 5"),
        (
            "nrow=\"4\" ncol=\"6\" size=\"1.5 1 0.6 0.1\"",
            "nrow=\"4\" ncol=\"6\" size=\"1.5 1 0.6 0\"",
            "four sizes above 0",
        ),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from} is not in the file");
        let error = read(&wrong).expect_err(to).to_string();
        let place = format!("meshes.xml:{}: ", line_of(from));
        assert!(error.starts_with(&place) && error.contains(expected), "{error}\nexpected {place}…{expected}");
    }
    // Without its folder, a robot of several files cannot be read.
    let alone = Model::from_mjcf(&right, "meshes.xml").unwrap_err().to_string();
    assert!(alone.contains("file=\"bracket.stl\": expected none"), "{alone}");
    let broken = |path: &str| {
        let bytes = std::fs::read(folder().join(path)).unwrap();
        Ok(bytes[..bytes.len() / 2].to_vec())
    };
    let error = Model::from_mjcf_with(&right, "meshes.xml", &broken).unwrap_err();
    assert_eq!(error.line as usize, line_of("name=\"bracket\" class=\"small\""));
    assert!(
        error.message.contains("./bracket.stl is no mesh: a binary STL file of 20 triangles has 1084 bytes"),
        "{error}"
    );
}

#[test]
fn a_tasks_meshes_are_found_beside_its_robot_and_nowhere_outside() {
    let there = tempfile::tempdir().unwrap();
    let (first, second) = (there.path().join("first"), there.path().join("second"));
    std::fs::create_dir_all(first.join("robots/parts")).unwrap();
    std::fs::create_dir_all(second.join("robots/parts")).unwrap();
    let task = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("envs/hopper.toml")).unwrap();
    std::fs::write(first.join("mine.toml"), task.replace("\"hopper.xml\"", "\"robots/mine.xml\"")).unwrap();
    std::fs::write(first.join("robots/mine.xml"), "<mujoco/>").unwrap();
    std::fs::write(first.join("robots/parts/a.stl"), "first").unwrap();
    std::fs::write(second.join("robots/parts/a.stl"), "second").unwrap();
    std::fs::write(second.join("robots/parts/b.stl"), "second").unwrap();
    std::fs::write(there.path().join("secret.stl"), "secret").unwrap();
    let folders = Folders(vec![second, first]);
    let assets = folders.load("mine").unwrap().assets;
    assert_eq!(assets.read("parts/a.stl").unwrap(), b"first", "beside the robot comes first");
    assert_eq!(assets.read("./parts/b.stl").unwrap(), b"second", "then the other folders");
    for outside in ["../../secret.stl", "parts/../../../secret.stl", "/etc/hostname", "..\\secret.stl"] {
        let error = assets.read(outside).unwrap_err();
        assert!(error.contains("leads out of the robot's folder"), "{error}");
    }
    let missing = assets.read("parts/c.stl").unwrap_err();
    assert!(missing.contains("there is no such file in") && missing.contains("robots"), "{missing}");
}
