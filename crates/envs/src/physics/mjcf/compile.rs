//! What MuJoCo's compiler computes from the elements: addresses, masses, inertias, limits.

use super::Complaint;
use super::schema::{Piece, Source};
use crate::physics::inertia::{self, Inertia};
use crate::physics::mesh::{HeightField, Mesh};
use crate::physics::model::{
    Actuator, Body, Geom, GeomShape, Integrator, Joint, JointKind, Model, Options, Site, Solver,
};
use crate::physics::principal_axes::principal_axes;
use glam::{DMat3, DQuat, DVec3};
use mjcf_rs::Tristate;
use mjcf_rs::body::{self as ast, GeomType, InertiaSpec};
use mjcf_rs::compiler::{Compiler, InertiaFromGeom};
use std::collections::HashSet;

/// kg/m³: what MuJoCo gives a geom without mass and density.
const DENSITY: f64 = 1000.0;
/// MuJoCo's defaults of contact and limit parameters.
const SOLREF: [f64; 2] = [0.02, 1.0];
const SOLIMP: [f64; 5] = [0.9, 0.95, 0.001, 0.5, 2.0];
/// The colour of a geom without one.
const RGBA: [f64; 4] = [0.5, 0.5, 0.5, 1.0];
/// A smaller mass counts as zero (MuJoCo's mjMINVAL).
const LEAST: f64 = 1e-15;

pub fn compile(
    source: &Source,
    parsed: &mjcf_rs::Model,
    meshes: Vec<Mesh>,
    hfields: Vec<HeightField>,
) -> Result<Model, Complaint> {
    let mut model = Model {
        name: parsed.name.clone().unwrap_or_default(),
        option: options(source, parsed)?,
        bodies: Vec::with_capacity(parsed.bodies.len()),
        joints: vec![],
        geoms: vec![],
        meshes,
        hfields,
        sites: vec![],
        actuators: vec![],
        qpos0: vec![],
        ctrl_range: vec![],
        nv: 0,
    };
    for (index, (entry, pieces)) in parsed.bodies.iter().zip(&source.bodies).enumerate() {
        let parent = entry.parent.unwrap_or(0);
        let body = &entry.body;
        let (joints, geoms, dofs) = (model.joints.len(), model.geoms.len(), model.nv);
        for (joint, piece) in body.joints.iter().zip(&pieces.joints) {
            add_joint(&mut model, source, parsed, index, parent, joint, piece)?;
        }
        if model.joints.len() - joints > 1 && model.joints[joints..].iter().any(|joint| joint.kind == JointKind::Free) {
            return Err((pieces.line, "<body> has a free joint and another; expected a free joint alone".into()));
        }
        let mut parts = vec![];
        for (geom, piece) in body.geoms.iter().zip(&pieces.geoms) {
            let (geom, part) = compile_geom(&model, source, parsed, index, geom, piece)?;
            model.geoms.push(geom);
            parts.push(part);
        }
        for site in &body.sites {
            let (pos, quat) = place(&site.pose);
            model.sites.push(Site { name: site.name.clone().unwrap_or_default(), body: index, pos, quat });
        }
        let inertia = if index == 0 { Inertia::NONE } else { inertia_of(&parsed.compiler, body, &parts, pieces.line)? };
        let (pos, quat) = if index == 0 { (DVec3::ZERO, DQuat::IDENTITY) } else { place(&body.pose) };
        model.bodies.push(Body {
            name: if index == 0 { "world".to_owned() } else { body.name.clone().unwrap_or_default() },
            parent,
            weld: if index == 0 || model.joints.len() > joints { index } else { model.bodies[parent].weld },
            root: if parent == 0 { index } else { model.bodies[parent].root },
            pos,
            quat,
            mass: inertia.mass,
            ipos: inertia.pos,
            iquat: inertia.quat,
            inertia: inertia.moments,
            joints: joints..model.joints.len(),
            dofs: dofs..model.nv,
            geoms: geoms..model.geoms.len(),
        });
    }
    for (motor, piece) in parsed.actuators.iter().zip(&source.motors) {
        add_motor(&mut model, source, parsed, motor, piece)?;
    }
    set_total_mass(&mut model, parsed.compiler.set_total_mass);
    moving_bodies_have_mass(&model, source)?;
    names_are_unique(&model, source)?;
    Ok(model)
}

fn options(source: &Source, parsed: &mjcf_rs::Model) -> Result<Options, Complaint> {
    let number = |name, default| source.option(name).and_then(|text| text.trim().parse().ok()).unwrap_or(default);
    let option = Options {
        timestep: parsed.option.timestep,
        gravity: DVec3::from_array(parsed.option.gravity),
        integrator: match source.option("integrator") {
            Some("RK4") => Integrator::Rk4,
            _ => Integrator::Euler,
        },
        solver: match source.option("solver") {
            Some("PGS") => Solver::Pgs,
            Some("CG") => Solver::Cg,
            _ => Solver::Newton,
        },
        iterations: number("iterations", 100.0) as u32,
        tolerance: number("tolerance", 1e-8),
        impratio: number("impratio", 1.0),
        density: number("density", 0.0),
        viscosity: number("viscosity", 0.0),
    };
    if option.timestep <= 0.0 {
        return Err((source.root_line, format!("<option> has timestep={}; expected more than 0", option.timestep)));
    }
    Ok(option)
}

fn add_joint(
    model: &mut Model,
    source: &Source,
    parsed: &mjcf_rs::Model,
    body: usize,
    parent: usize,
    joint: &ast::Joint,
    piece: &Piece,
) -> Result<(), Complaint> {
    let kind = match joint.type_ {
        ast::JointType::Free => JointKind::Free,
        ast::JointType::Slide => JointKind::Slide,
        ast::JointType::Hinge => JointKind::Hinge,
        ast::JointType::Ball => return Err((piece.line, "<joint> is a ball; expected free, slide or hinge".into())),
    };
    if kind == JointKind::Free && parent != 0 {
        return Err((
            piece.line,
            "a free joint is on a body inside another; expected it on a child of <worldbody>".into(),
        ));
    }
    // A free joint has no axis; z stands in for it, as in MuJoCo.
    let axis = if kind == JointKind::Free { DVec3::Z } else { DVec3::from_array(joint.axis) };
    if axis.length() < LEAST {
        return Err((piece.line, "<joint> has a zero axis; expected a direction".into()));
    }
    let range = limits("joint", joint.limited, joint.range, &parsed.compiler, piece.line)?;
    model.joints.push(Joint {
        name: joint.name.clone().unwrap_or_default(),
        body,
        kind,
        qposadr: model.qpos0.len(),
        dofadr: model.nv,
        axis: axis.normalize(),
        pos: DVec3::from_array(joint.pos),
        range: if kind == JointKind::Free { None } else { range },
        reference: joint.ref_,
        stiffness: joint.stiffness,
        springref: joint.springref,
        damping: joint.damping,
        armature: joint.armature,
        frictionloss: joint.frictionloss,
        margin: joint.margin,
        solref_limit: filled(source.numbers(piece, "solreflimit"), SOLREF),
        solimp_limit: filled(source.numbers(piece, "solimplimit"), SOLIMP),
    });
    for (name, value) in [
        ("stiffness", joint.stiffness),
        ("damping", joint.damping),
        ("armature", joint.armature),
        ("frictionloss", joint.frictionloss),
    ] {
        if value < 0.0 {
            return Err((piece.line, format!("<joint> has {name}={value}; expected 0 or more")));
        }
    }
    match kind {
        JointKind::Free => {
            let (pos, quat) = place(&parsed.bodies[body].body.pose);
            model.qpos0.extend([pos.x, pos.y, pos.z, quat.w, quat.x, quat.y, quat.z]);
            model.nv += 6;
        }
        JointKind::Slide | JointKind::Hinge => {
            model.qpos0.push(joint.ref_);
            model.nv += 1;
        }
    }
    Ok(())
}

fn compile_geom(
    model: &Model,
    source: &Source,
    parsed: &mjcf_rs::Model,
    body: usize,
    geom: &ast::Geom,
    piece: &Piece,
) -> Result<(Geom, Inertia), Complaint> {
    let (mut pos, mut quat) = place(&geom.pose);
    let mut size = geom.size;
    let given = source.numbers(piece, "size").map_or(0, |size| size.len());
    if let Some([x0, y0, z0, x1, y1, z1]) = geom.fromto {
        if !matches!(geom.type_, GeomType::Capsule | GeomType::Cylinder | GeomType::Box) {
            return Err((piece.line, "<geom> has fromto; expected it on a capsule, a cylinder or a box".into()));
        }
        let (from, to) = (DVec3::new(x0, y0, z0), DVec3::new(x1, y1, z1));
        let along = from - to;
        if along.length() < LEAST {
            return Err((piece.line, "<geom> has fromto with two equal points; expected two different ones".into()));
        }
        pos = (from + to) / 2.0;
        quat = turn_of_z(along.normalize());
        let half = along.length() / 2.0;
        size = match geom.type_ {
            GeomType::Box if given < 2 => [size[0], size[0], half],
            GeomType::Box => [size[0], size[1], half],
            _ => [size[0], half, 0.0],
        };
    }
    let (shape, sizes) = match geom.type_ {
        GeomType::Plane => (GeomShape::Plane, 0),
        GeomType::Sphere => (GeomShape::Sphere { radius: size[0] }, 1),
        GeomType::Capsule => (GeomShape::Capsule { radius: size[0], half_length: size[1] }, 2),
        GeomType::Cylinder => (GeomShape::Cylinder { radius: size[0], half_length: size[1] }, 2),
        GeomType::Box => (GeomShape::Box { half_extents: DVec3::from_array(size) }, 3),
        GeomType::Mesh => {
            let names = || model.meshes.iter().map(|mesh| &mesh.name[..]);
            let mesh = asset("mesh", geom.mesh.as_deref(), names, piece)?;
            // The mesh is stored in its own frame and knows that frame's pose in the file's frame.
            pos += quat * model.meshes[mesh].pos;
            quat *= model.meshes[mesh].quat;
            (GeomShape::Mesh { mesh }, 0)
        }
        GeomType::Hfield => {
            let names = || model.hfields.iter().map(|hfield| &hfield.name[..]);
            (GeomShape::HeightField { hfield: asset("hfield", geom.hfield.as_deref(), names, piece)? }, 0)
        }
        _ => {
            return Err((
                piece.line,
                "<geom> has a type that is not supported; expected plane, hfield, sphere, capsule, cylinder, box or mesh"
                    .into(),
            ));
        }
    };
    for (name, named, its_own) in
        [("mesh", &geom.mesh, geom.type_ == GeomType::Mesh), ("hfield", &geom.hfield, geom.type_ == GeomType::Hfield)]
    {
        if named.is_some() && !its_own {
            return Err((piece.line, format!("<geom> has {name} and another type; expected it with type=\"{name}\"")));
        }
    }
    if size[..sizes].iter().any(|size| *size <= 0.0) {
        let expected = if geom.fromto.is_some() { "with fromto the radius or the half-widths" } else { "all of them" };
        let message = format!("<geom> needs {sizes} sizes above 0 for its type; expected {expected} in \"size\"");
        return Err((piece.line, message));
    }
    if matches!(shape, GeomShape::Plane | GeomShape::HeightField { .. }) && body != 0 {
        let message = "a plane or height field is on a body; expected planes and height fields in <worldbody>";
        return Err((piece.line, message.into()));
    }
    let volume = inertia::volume(shape, &model.meshes);
    let mass = geom.mass.unwrap_or_else(|| geom.density.unwrap_or(DENSITY) * volume);
    if mass < 0.0 {
        return Err((piece.line, "<geom> has a negative mass or density; expected 0 or more".into()));
    }
    let part = Inertia { mass, pos, quat, moments: inertia::moments(shape, mass, &model.meshes) };
    let compiled = Geom {
        name: geom.name.clone().unwrap_or_default(),
        body,
        shape,
        pos,
        quat,
        contype: geom.contype,
        conaffinity: geom.conaffinity,
        condim: geom.condim,
        priority: geom.priority,
        friction: geom.friction,
        margin: geom.margin,
        gap: source.numbers(piece, "gap").map_or(0.0, |gap| gap[0]),
        solmix: source.numbers(piece, "solmix").map_or(1.0, |mix| mix[0]),
        solref: filled(source.numbers(piece, "solref"), SOLREF),
        solimp: filled(source.numbers(piece, "solimp"), SOLIMP),
        rgba: colour(parsed, geom).map(|channel| channel as f32),
    };
    Ok((compiled, part))
}

/// The index of the mesh or height field that a geom names.
fn asset<'m, N: Iterator<Item = &'m str>>(
    kind: &str,
    named: Option<&str>,
    names: impl Fn() -> N,
    piece: &Piece,
) -> Result<usize, Complaint> {
    let named = named.unwrap_or_default();
    names().position(|name| name == named).ok_or_else(|| {
        let expected = match names().collect::<Vec<_>>()[..] {
            [] => format!("a <{kind}> in <asset>"),
            ref names => format!("one of {}", names.join(", ")),
        };
        (piece.line, format!("<geom> has {kind}=\"{named}\"; expected {expected}"))
    })
}

/// The smallest rotation that takes z to a unit vector; about x where they are opposite, as in MuJoCo.
fn turn_of_z(to: DVec3) -> DQuat {
    let axis = DVec3::Z.cross(to);
    match axis.length() {
        sine if sine >= LEAST => DQuat::from_axis_angle(axis / sine, sine.atan2(to.z)),
        _ if to.z < 0.0 => DQuat::from_xyzw(1.0, 0.0, 0.0, 0.0),
        _ => DQuat::IDENTITY,
    }
}

/// The geom's own colour, else its material's.
fn colour(parsed: &mjcf_rs::Model, geom: &ast::Geom) -> [f64; 4] {
    let material = || {
        let name = geom.material.as_deref()?;
        parsed.assets.materials.iter().find(|material| material.name.as_deref() == Some(name))?.rgba
    };
    geom.rgba.or_else(material).unwrap_or(RGBA)
}

fn inertia_of(compiler: &Compiler, body: &ast::Body, geoms: &[Inertia], line: u32) -> Result<Inertia, Complaint> {
    let inertial = match compiler.inertia_from_geom {
        InertiaFromGeom::True => None,
        InertiaFromGeom::False | InertiaFromGeom::Auto => body.inertial.as_ref(),
    };
    let Some(inertial) = inertial else {
        return Ok(match compiler.inertia_from_geom {
            InertiaFromGeom::False => Inertia::NONE,
            _ => Inertia::sum(geoms),
        });
    };
    let (pos, quat) = place(&inertial.pose);
    let (turn, moments) = match inertial.inertia {
        InertiaSpec::Diagonal(moments) => (DQuat::IDENTITY, DVec3::from_array(moments)),
        InertiaSpec::Full([xx, yy, zz, xy, xz, yz]) => {
            principal_axes(DMat3::from_cols_array_2d(&[[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
        }
    };
    if inertial.mass < 0.0 || moments.min_element() < 0.0 {
        return Err((line, "<inertial> has a negative mass or moment; expected 0 or more".into()));
    }
    Ok(Inertia { mass: inertial.mass, pos, quat: quat * turn, moments })
}

fn add_motor(
    model: &mut Model,
    source: &Source,
    parsed: &mjcf_rs::Model,
    motor: &mjcf_rs::extras::Actuator,
    piece: &Piece,
) -> Result<(), Complaint> {
    let named = motor.joint.as_deref().unwrap_or_default();
    let movable = |joint: &&Joint| joint.kind != JointKind::Free && !joint.name.is_empty();
    let joint = model.joint(named).filter(|joint| movable(&&model.joints[*joint])).ok_or_else(|| {
        let names: Vec<_> = model.joints.iter().filter(movable).map(|joint| joint.name.as_str()).collect();
        (piece.line, format!("<motor> has joint=\"{named}\"; expected one of {}", names.join(", ")))
    })?;
    let gear = source.numbers(piece, "gear").unwrap_or_else(|| vec![1.0]);
    if gear[1..].iter().any(|gear| *gear != 0.0) {
        return Err((piece.line, "<motor> has a gear for more than one direction; expected one number".into()));
    }
    let ctrl_range = limits("motor", motor.ctrl_limited, motor.ctrl_range, &parsed.compiler, piece.line)?;
    let name = motor.name.clone().unwrap_or_default();
    model.actuators.push(Actuator { name, joint, gear: gear[0], ctrl_range });
    model.ctrl_range.push(ctrl_range.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]));
    Ok(())
}

/// `range` or `ctrlrange`, if `limited` or `ctrllimited` enables it.
fn limits(
    tag: &str,
    limited: Tristate,
    range: Option<[f64; 2]>,
    compiler: &Compiler,
    line: u32,
) -> Result<Option<[f64; 2]>, Complaint> {
    if limited == Tristate::Auto && range.is_some() && !compiler.autolimits {
        let message = format!(
            "<{tag}> has a range but does not say whether it is limited, and autolimits is off; expected \"true\" or \"false\""
        );
        return Err((line, message));
    }
    if !limited.resolve(compiler.autolimits, range.is_some()) {
        return Ok(None);
    }
    match range {
        Some([low, high]) if low < high => Ok(Some([low, high])),
        Some([low, high]) => Err((line, format!("<{tag}> has the range {low} {high}; expected the lower end first"))),
        None => Err((line, format!("<{tag}> is limited but has no range; expected one"))),
    }
}

fn set_total_mass(model: &mut Model, target: f64) {
    let total = model.total_mass();
    if target > 0.0 && total > 0.0 {
        for body in &mut model.bodies {
            body.mass *= target / total;
            body.inertia *= target / total;
        }
    }
}

/// A body that moves must have mass, its own or that of bodies welded to it; else its acceleration has no meaning.
fn moving_bodies_have_mass(model: &Model, source: &Source) -> Result<(), Complaint> {
    for (index, (body, pieces)) in model.bodies.iter().zip(&source.bodies).enumerate() {
        let mass: f64 = model.bodies.iter().filter(|other| other.weld == index).map(|other| other.mass).sum();
        if !body.joints.is_empty() && mass < LEAST {
            let message = "<body> moves but has no mass; expected a geom with mass or an <inertial>".to_owned();
            return Err((pieces.line, message));
        }
    }
    Ok(())
}

fn names_are_unique(model: &Model, source: &Source) -> Result<(), Complaint> {
    let twice = |tag: &str, names: Vec<(&str, u32)>| {
        let mut seen = HashSet::new();
        match names.into_iter().find(|(name, _)| !name.is_empty() && !seen.insert(*name)) {
            Some((name, line)) => {
                Err((line, format!("a second <{tag}> is called \"{name}\"; expected names that differ")))
            }
            None => Ok(()),
        }
    };
    let lines = |pieces: fn(&super::schema::BodyPieces) -> Vec<u32>| -> Vec<u32> {
        source.bodies.iter().flat_map(pieces).collect()
    };
    let joint_lines = lines(|body| body.joints.iter().map(|piece| piece.line).collect());
    let geom_lines = lines(|body| body.geoms.iter().map(|piece| piece.line).collect());
    twice(
        "body",
        model.bodies.iter().zip(&source.bodies).map(|(body, pieces)| (body.name.as_str(), pieces.line)).collect(),
    )?;
    twice("joint", model.joints.iter().map(|joint| joint.name.as_str()).zip(joint_lines).collect())?;
    twice("geom", model.geoms.iter().map(|geom| geom.name.as_str()).zip(geom_lines).collect())
}

fn place(pose: &mjcf_rs::Pose) -> (DVec3, DQuat) {
    (pose.translation, pose.rotation)
}

/// The given numbers, the rest from the defaults.
fn filled<const N: usize>(given: Option<Vec<f64>>, mut defaults: [f64; N]) -> [f64; N] {
    for (slot, number) in defaults.iter_mut().zip(given.unwrap_or_default()) {
        *slot = number;
    }
    defaults
}
