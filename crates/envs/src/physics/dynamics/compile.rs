//! From a model to the [`Plan`] of its equations.

use super::plan::{
    Axis, Body, Dof, GeomPlan, Joint, LEAST, Limit, Matrix, Motor, Pair, Pattern, Plan, Softness, Test, chain,
};
use super::refuse::refuse;
use super::weights::InverseWeights;
use crate::physics::backend::PhysicsError;
use crate::physics::model::{Geom, GeomShape, JointKind, Model};
use flipside_core::simd::Scalar;
use glam::{DMat3, DVec3};

/// Impedances are kept inside these.
const IMPEDANCE: [f64; 2] = [1e-4, 0.9999];

impl<S: Scalar> Plan<S> {
    /// Lays a model out. `backend` is the name that refusals give.
    pub fn new(model: &Model, backend: &'static str) -> Result<Plan<S>, PhysicsError> {
        refuse(model, backend)?;
        let mut reference = Plan::<f64>::laid_out(model, &InverseWeights::none(model), backend)?;
        let weights = InverseWeights::at_reference(model, &mut reference);
        Plan::laid_out(model, &weights, backend)
    }

    fn laid_out(model: &Model, weights: &InverseWeights, backend: &'static str) -> Result<Plan<S>, PhysicsError> {
        let dofs: Vec<Dof<S>> = model
            .joints
            .iter()
            .flat_map(|joint| {
                let dof = Dof { body: joint.body, armature: S::of(joint.armature), damping: S::of(joint.damping) };
                std::iter::repeat_n(dof, joint.sizes().1)
            })
            .collect();
        let ancestors = |dof: usize| chain(model, dofs[dof].body).into_iter().filter(|other| *other <= dof).collect();
        let tree = Pattern::new((0..dofs.len()).map(ancestors).collect());
        let dense = Pattern::new((0..dofs.len()).map(|dof| (0..=dof).collect()).collect());
        let fluid = model.option.density != 0.0 || model.option.viscosity != 0.0;
        let pairs = pairs(model, weights, backend)?;
        let across = across(model, &pairs).map(vector);
        let smooth = pairs.iter().all(|pair: &Pair<S>| pair.friction == S::of(0.0));
        Ok(Plan {
            directions: if smooth {
                1
            } else if across.is_some() {
                2
            } else {
                3
            },
            nq: model.nq(),
            nv: model.nv(),
            nu: model.nu(),
            timestep: S::of(model.timestep()),
            gravity: vector(model.option.gravity),
            integrator: model.option.integrator,
            bodies: model.bodies.iter().map(|body| plan_body(body, fluid)).collect(),
            inverse_tree_mass: (0..model.bodies.len())
                .map(|root| {
                    let mass: f64 = model.bodies.iter().filter(|body| body.root == root).map(|body| body.mass).sum();
                    S::of(if mass > LEAST { 1.0 / mass } else { 0.0 })
                })
                .collect(),
            joints: model.joints.iter().map(plan_joint).collect(),
            dofs,
            last_dof: (0..model.bodies.len()).map(|body| chain(model, body).last().copied()).collect(),
            tree,
            dense,
            motors: model
                .actuators
                .iter()
                .zip(model.ctrl_range())
                .map(|(motor, [low, high])| Motor {
                    dof: model.joints[motor.joint].dofadr,
                    gear: S::of(motor.gear),
                    low: S::of(*low),
                    high: S::of(*high),
                })
                .collect(),
            limits: limits(model, weights),
            geoms: model.geoms.iter().map(plan_geom).collect(),
            slots: pairs.iter().map(|pair| pair.test.points()).sum(),
            across,
            pairs,
            medium: fluid.then(|| [S::of(model.option.density), S::of(model.option.viscosity)]),
        })
    }
}

fn vector<S: Scalar>(v: DVec3) -> [S; 3] {
    v.to_array().map(S::of)
}

/// Row after row.
fn matrix<S: Scalar>(m: DMat3) -> Matrix<S> {
    m.transpose().to_cols_array().map(S::of)
}

fn plan_body<S: Scalar>(body: &crate::physics::model::Body, fluid: bool) -> Body<S> {
    let turned = body.quat.to_array() != [0.0, 0.0, 0.0, 1.0];
    let inertia = body.inertia_matrix();
    let about = |row: usize, col: usize| S::of(inertia.col(col)[row]);
    Body {
        parent: body.parent,
        root: body.root,
        pos: vector(body.pos),
        mat: turned.then(|| matrix(DMat3::from_quat(body.quat))),
        mass: S::of(body.mass),
        ipos: vector(body.ipos),
        inertia: [about(0, 0), about(1, 1), about(2, 2), about(0, 1), about(0, 2), about(1, 2)],
        joints: body.joints.clone(),
        dofs: body.dofs.clone(),
        fluid: (fluid && body.mass > LEAST).then(|| {
            let m = body.inertia;
            let sizes = DVec3::new(m.y + m.z - m.x, m.x + m.z - m.y, m.x + m.y - m.z);
            // A box of half-sizes r has the moments m/3 · (r_j² + r_k²).
            let half = (sizes.max(DVec3::splat(LEAST)) / body.mass * 6.0).map(f64::sqrt) / 2.0;
            (vector(half), matrix(DMat3::from_quat(body.iquat)))
        }),
    }
}

fn plan_joint<S: Scalar>(joint: &crate::physics::model::Joint) -> Joint<S> {
    let own = (0..3).find(|k| joint.axis[*k].abs() == 1.0);
    Joint {
        kind: joint.kind,
        body: joint.body,
        qposadr: joint.qposadr,
        dofadr: joint.dofadr,
        axis: match own {
            Some(k) => Axis::Own(k, S::of(joint.axis[k])),
            None => Axis::Any(vector(joint.axis)),
        },
        pos: (joint.pos != DVec3::ZERO).then(|| vector(joint.pos)),
        reference: S::of(joint.reference),
        stiffness: S::of(joint.stiffness),
        springref: S::of(joint.springref),
    }
}

fn plan_geom<S: Scalar>(geom: &Geom) -> GeomPlan<S> {
    let (radius, half_length) = match geom.shape {
        GeomShape::Plane | GeomShape::Box { .. } | GeomShape::Mesh { .. } | GeomShape::HeightField { .. } => (0.0, 0.0),
        GeomShape::Sphere { radius } => (radius, 0.0),
        GeomShape::Capsule { radius, half_length } | GeomShape::Cylinder { radius, half_length } => {
            (radius, half_length)
        }
    };
    let reach = match geom.shape {
        // `pair` refuses meshes and height fields that can touch anything.
        GeomShape::Plane | GeomShape::Mesh { .. } | GeomShape::HeightField { .. } => f64::INFINITY,
        GeomShape::Box { half_extents } => half_extents.length(),
        GeomShape::Sphere { radius } => radius,
        GeomShape::Capsule { radius, half_length } => radius + half_length,
        GeomShape::Cylinder { radius, half_length } => radius.hypot(half_length),
    };
    GeomPlan {
        body: geom.body,
        pos: vector(geom.pos),
        axis: vector(geom.quat * DVec3::Z),
        radius: S::of(radius),
        half_length: S::of(half_length),
        reach,
    }
}

/// The softness of a constraint (MuJoCo's solref and solimp) with a regulariser scale.
fn softness<S: Scalar>(solref: [f64; 2], solimp: [f64; 5], timestep: f64, regulariser: f64) -> Softness<S> {
    let [d0, d_max, width, midpoint, power] = solimp;
    let [mut d0, mut d_max] = [d0, d_max].map(|d| d.clamp(IMPEDANCE[0], IMPEDANCE[1]));
    let midpoint = midpoint.clamp(IMPEDANCE[0], IMPEDANCE[1]);
    let width = width.max(0.0);
    if width <= LEAST {
        d0 = (d0 + d_max) / 2.0;
        d_max = d0;
    }
    let power = power.max(1.0);
    let (stiffness, damping) = if solref[0] > 0.0 {
        let time = solref[0].max(2.0 * timestep);
        (1.0 / (d_max * d_max * time * time * solref[1] * solref[1]).max(LEAST), 2.0 / (d_max * time).max(LEAST))
    } else {
        (-solref[0] / (d_max * d_max), -solref[1] / d_max)
    };
    Softness {
        d0: S::of(d0),
        d_max: S::of(d_max),
        inverse_width: S::of(1.0 / width.max(LEAST)),
        midpoint: S::of(midpoint),
        rising: S::of(midpoint.powf(1.0 - power)),
        falling: S::of((1.0 - midpoint).powf(1.0 - power)),
        power: power as u32,
        stiffness: S::of(stiffness),
        damping: S::of(damping),
        regulariser: S::of(regulariser),
    }
}

fn limits<S: Scalar>(model: &Model, weights: &InverseWeights) -> Vec<Limit<S>> {
    let limited = model.joints.iter().filter_map(|joint| joint.range.map(|range| (joint, range)));
    limited
        .map(|(joint, [low, high])| Limit {
            dof: joint.dofadr,
            qposadr: joint.qposadr,
            low: S::of(low),
            high: S::of(high),
            margin: S::of(joint.margin),
            softness: softness(joint.solref_limit, joint.solimp_limit, model.timestep(), weights.dof[joint.dofadr]),
        })
        .collect()
}

/// Every pair of geoms that MuJoCo would test, with mixed parameters.
fn pairs<S: Scalar>(
    model: &Model,
    weights: &InverseWeights,
    backend: &'static str,
) -> Result<Vec<Pair<S>>, PhysicsError> {
    let mut pairs = vec![];
    for second in 0..model.geoms.len() {
        for first in 0..second {
            if may_touch(model, first, second) && !idle(model, first, second) {
                pairs.push(pair(model, weights, first, second, backend)?);
            }
        }
    }
    Ok(pairs)
}

fn may_touch(model: &Model, first: usize, second: usize) -> bool {
    let (a, b) = (&model.geoms[first], &model.geoms[second]);
    let masks = a.contype & b.conaffinity != 0 || b.contype & a.conaffinity != 0;
    let weld = |geom: &Geom| model.bodies[geom.body].weld;
    let above = |weld: usize| model.bodies[model.bodies[weld].parent].weld;
    let (one, two) = (weld(a), weld(b));
    // Bodies that are joined rigidly or by one joint do not collide. The world does not count as a parent here.
    let related = one == two || (one != 0 && two != 0 && (above(one) == two || above(two) == one));
    masks && !related
}

/// Whether a contact of the two could never push anything: a plane without friction under something that only slides
/// along it.
fn idle(model: &Model, first: usize, second: usize) -> bool {
    let (plane, other) = match (model.geoms[first].shape, model.geoms[second].shape) {
        (GeomShape::Plane, _) => (&model.geoms[first], &model.geoms[second]),
        (_, GeomShape::Plane) => (&model.geoms[second], &model.geoms[first]),
        _ => return false,
    };
    let normal = plane.quat * DVec3::Z;
    let frames = model.kinematics(model.qpos0());
    let moved_by = chain(model, other.body);
    let slides_along = |joint: &crate::physics::model::Joint| {
        joint.kind == JointKind::Slide && (frames[joint.body].1 * joint.axis).dot(normal).abs() < LEAST
    };
    Mixed::of(plane, other).condim == 1
        && model.joints.iter().filter(|joint| moved_by.contains(&joint.dofadr)).all(slides_along)
}

fn pair<S: Scalar>(
    model: &Model,
    weights: &InverseWeights,
    first: usize,
    second: usize,
    backend: &'static str,
) -> Result<Pair<S>, PhysicsError> {
    let rank = |geom: usize| match model.geoms[geom].shape {
        GeomShape::Plane => 0,
        GeomShape::Sphere { .. } => 1,
        GeomShape::Capsule { .. } => 2,
        GeomShape::Cylinder { .. } => 3,
        GeomShape::Box { .. } => 4,
        GeomShape::Mesh { .. } => 5,
        GeomShape::HeightField { .. } => 6,
    };
    let geoms = if rank(first) <= rank(second) { [first, second] } else { [second, first] };
    let [a, b] = geoms.map(|geom| &model.geoms[geom]);
    let test = match geoms.map(rank) {
        [0, 1] => Test::PlaneSphere,
        [0, 2] => Test::PlaneCapsule,
        [1, 1] => Test::SphereSphere,
        [1, 2] => Test::SphereCapsule,
        [2, 2] => Test::CapsuleCapsule,
        [1, 3] => Test::SphereCylinder,
        [2, 3] => Test::CapsuleCylinder,
        _ => {
            let words = ["plane", "sphere", "capsule", "cylinder", "box", "mesh", "height field"];
            let called = |geom: usize| match &model.geoms[geom].name[..] {
                "" => format!("the {} on body \"{}\"", words[rank(geom)], model.bodies[model.geoms[geom].body].name),
                name => format!("the {} \"{name}\"", words[rank(geom)]),
            };
            return Err(PhysicsError::Unsupported {
                backend,
                model: model.name.clone(),
                reason: format!(
                    "{} can touch {}, and there is no test for that pair: let them not collide, or choose --backend rapier",
                    called(geoms[0]),
                    called(geoms[1])
                ),
            });
        }
    };
    let mixed = Mixed::of(a, b);
    let friction = if mixed.condim == 1 { 0.0 } else { mixed.friction.max(1e-5) };
    let translation = weights.body[a.body] + weights.body[b.body];
    // A contact has four rows n ± μt. Without friction the four are one: a quarter of the weight each.
    let regulariser = match mixed.condim {
        1 => 4.0 * translation,
        _ => 2.0 * friction * friction * translation * (1.0 + friction * friction),
    };
    let chains = [a, b].map(|geom| chain(model, geom.body));
    let mut moves: Vec<(usize, bool)> = vec![];
    for (side, chain) in chains.iter().enumerate() {
        moves.extend(chain.iter().filter(|dof| !chains[1 - side].contains(dof)).map(|dof| (*dof, side == 1)));
    }
    moves.sort_unstable();
    let reach = |geom: &Geom| plan_geom::<f64>(geom).reach;
    let near = reach(a) + reach(b) + mixed.margin;
    Ok(Pair {
        test,
        geoms,
        bodies: [a.body, b.body],
        margin: S::of(mixed.margin),
        near: near.is_finite().then(|| S::of(near * near)),
        friction: S::of(friction),
        softness: softness(mixed.solref, mixed.solimp, model.timestep(), regulariser),
        couples: chains.iter().all(|chain| !chain.is_empty()),
        chain: moves,
    })
}

/// Contact parameters of two geoms together.
struct Mixed {
    condim: u32,
    friction: f64,
    /// The distance below which the contact pushes.
    margin: f64,
    solref: [f64; 2],
    solimp: [f64; 5],
}

impl Mixed {
    fn of(a: &Geom, b: &Geom) -> Mixed {
        let margin = a.margin + b.margin - (a.gap + b.gap);
        if a.priority != b.priority {
            let one = if a.priority > b.priority { a } else { b };
            return Mixed {
                condim: one.condim,
                friction: one.friction[0],
                margin,
                solref: one.solref,
                solimp: one.solimp,
            };
        }
        let mix = match (a.solmix >= LEAST, b.solmix >= LEAST) {
            (true, true) => a.solmix / (a.solmix + b.solmix),
            (false, false) => 0.5,
            (false, true) => 0.0,
            (true, false) => 1.0,
        };
        let mean = |x: f64, y: f64| mix * x + (1.0 - mix) * y;
        let direct = a.solref[0] <= 0.0 || b.solref[0] <= 0.0;
        let solref = [0, 1].map(|k| match direct {
            true => a.solref[k].min(b.solref[k]),
            false => mean(a.solref[k], b.solref[k]),
        });
        Mixed {
            condim: a.condim.max(b.condim),
            friction: a.friction[0].max(b.friction[0]),
            margin,
            solref,
            solimp: std::array::from_fn(|k| mean(a.solimp[k], b.solimp[k])),
        }
    }
}

/// The axis that nothing moves along or tilts away from, if there is one: all hinges are parallel to it, and all slides
/// and the normals of all planes that can be touched are perpendicular to it.
fn across<S>(model: &Model, pairs: &[Pair<S>]) -> Option<DVec3>
where
    S: Scalar,
{
    let frames = model.kinematics(model.qpos0());
    let axis = |joint: &crate::physics::model::Joint| frames[joint.body].1 * joint.axis;
    let across = axis(model.joints.iter().find(|joint| joint.kind == JointKind::Hinge)?);
    let close = 1e-9;
    let in_plane = model.joints.iter().all(|joint| match joint.kind {
        JointKind::Free => false,
        JointKind::Slide => axis(joint).dot(across).abs() < close,
        JointKind::Hinge => axis(joint).cross(across).length() < close,
    });
    let flat = pairs.iter().all(|pair| {
        let normal = model.geoms[pair.geoms[0]].quat * DVec3::Z;
        let plane = matches!(pair.test, Test::PlaneSphere | Test::PlaneCapsule);
        pair.friction == S::of(0.0) || (plane && normal.dot(across).abs() < close)
    });
    (in_plane && flat).then_some(across)
}
