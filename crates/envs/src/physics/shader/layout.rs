//! The plain data that shaders/physics/plan.wgsl and related files read: same names, same order, same padding as in
//! WGSL. A test compares the two through naga's reflection.

use super::compose::levels;
use crate::physics::backend::Quantity;
use crate::physics::dynamics::derived;
use crate::physics::dynamics::plan::{self, Axis};
use crate::physics::model::JointKind;
use bytemuck::{Pod, Zeroable};

/// No index.
pub const NONE: u32 = u32::MAX;

/// A [`plan::Plan`] in single precision: the header before its tables, which follow one another in the order of the
/// shader's struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Plan {
    pub gravity: [f32; 3],
    pub timestep: f32,
    pub across: [f32; 3],
    pub density: f32,
    pub viscosity: f32,
    /// Coordinates of qpos that a step measures from zero, one bit each.
    pub drift: u32,
    /// Zero, but no compiler knows it.
    pub zero: u32,
    pub padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Body {
    pub pos: [f32; 3],
    pub parent: u32,
    pub ipos: [f32; 3],
    pub root: u32,
    /// Columns of the matrix that turns it against its parent.
    pub mat_x: [f32; 3],
    pub mass: f32,
    pub mat_y: [f32; 3],
    pub inverse_tree_mass: f32,
    pub mat_z: [f32; 3],
    pub joints_begin: u32,
    pub diagonal: [f32; 3],
    pub joints_end: u32,
    pub products: [f32; 3],
    pub dofs_begin: u32,
    pub fluid_half: [f32; 3],
    pub dofs_end: u32,
    /// Columns of the matrix of its principal axes.
    pub fluid_x: [f32; 3],
    /// The degrees of freedom that move it, a bit each.
    pub moved_by: u32,
    pub fluid_y: [f32; 3],
    pub in_medium: u32,
    pub fluid_z: [f32; 3],
    /// The end of the range of bodies that hang from it, including itself.
    pub tree_end: u32,
    /// Its depth in the tree.
    pub level: u32,
    pub padding_a: u32,
    pub padding_b: u32,
    pub padding_c: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Joint {
    pub axis: [f32; 3],
    pub kind: u32,
    pub pos: [f32; 3],
    pub body: u32,
    pub qposadr: u32,
    pub dofadr: u32,
    pub reference: f32,
    pub stiffness: f32,
    pub springref: f32,
    pub padding_a: u32,
    pub padding_b: u32,
    pub padding_c: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Geom {
    pub pos: [f32; 3],
    pub body: u32,
    pub axis: [f32; 3],
    pub radius: f32,
    pub half_length: f32,
    pub padding_a: u32,
    pub padding_b: u32,
    pub padding_c: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Dof {
    pub body: u32,
    /// The degrees of freedom above it in the tree, those below it, and those whose motion carries its axis along, one
    /// bit each.
    pub ancestors: u32,
    pub descendants: u32,
    pub carriers: u32,
    pub armature: f32,
    pub damping: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Motor {
    pub dof: u32,
    pub gear: f32,
    pub low: f32,
    pub high: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Softness {
    pub d_zero: f32,
    pub d_max: f32,
    pub inverse_width: f32,
    pub midpoint: f32,
    pub rising: f32,
    pub falling: f32,
    pub power: u32,
    pub stiffness: f32,
    pub damping: f32,
    pub regulariser: f32,
    pub padding_a: u32,
    pub padding_b: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Limit {
    pub dof: u32,
    pub qposadr: u32,
    pub low: f32,
    pub high: f32,
    pub margin: f32,
    pub padding_a: u32,
    pub padding_b: u32,
    pub padding_c: u32,
    pub softness: Softness,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Pair {
    pub test: u32,
    pub geom_a: u32,
    pub geom_b: u32,
    pub body_a: u32,
    pub body_b: u32,
    /// The degrees of freedom that move one geom against the other, by the side on which they act, a bit each.
    pub moved_a: u32,
    pub moved_b: u32,
    pub couples: u32,
    pub margin: f32,
    /// The squared distance of the centres below which a test is needed; negative if a shape is unbounded.
    pub near: f32,
    pub friction: f32,
    pub padding: u32,
    pub softness: Softness,
}

/// The parameters of one dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Batch {
    /// The worlds `first..end`.
    pub first: u32,
    pub end: u32,
    /// The range `first_round..end_round` of the `rounds` rounds of an env step.
    pub first_round: u32,
    pub end_round: u32,
    pub rounds: u32,
    /// If not 0: only worlds that begin an episode are evaluated, once.
    pub look: u32,
    /// Zero, but no compiler knows it.
    pub zero: u32,
    pub kept: Layout,
}

/// Where each quantity lies among a world's derived numbers; [`NONE`] if it was not requested.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Layout {
    pub width: u32,
    pub frames: u32,
    pub cinert: u32,
    pub cvel: u32,
    pub cfrc_ext: u32,
    pub qfrc_actuator: u32,
    pub qfrc_constraint: u32,
}

impl Layout {
    pub fn of(layout: &derived::Layout) -> Layout {
        let at = |quantity| layout.of(quantity).map_or(NONE, word);
        Layout {
            width: word(layout.len),
            frames: at(Quantity::Frames),
            cinert: at(Quantity::Cinert),
            cvel: at(Quantity::Cvel),
            cfrc_ext: at(Quantity::CfrcExt),
            qfrc_actuator: at(Quantity::QfrcActuator),
            qfrc_constraint: at(Quantity::QfrcConstraint),
        }
    }
}

impl Body {
    fn of(plan: &plan::Plan<f32>, index: usize, level: usize) -> Body {
        let body = &plan.bodies[index];
        let [mat_x, mat_y, mat_z] = columns(&body.mat.unwrap_or(IDENTITY));
        let (half, axes) = body.fluid.unwrap_or(([0.0; 3], IDENTITY));
        let [fluid_x, fluid_y, fluid_z] = columns(&axes);
        let [xx, yy, zz, xy, xz, yz] = body.inertia;
        Body {
            pos: body.pos,
            parent: word(body.parent),
            ipos: body.ipos,
            root: word(body.root),
            mat_x,
            mass: body.mass,
            mat_y,
            inverse_tree_mass: plan.inverse_tree_mass[index],
            mat_z,
            joints_begin: word(body.joints.start),
            diagonal: [xx, yy, zz],
            joints_end: word(body.joints.end),
            products: [xy, xz, yz],
            dofs_begin: word(body.dofs.start),
            fluid_half: half,
            dofs_end: word(body.dofs.end),
            fluid_x,
            moved_by: plan.last_dof[index].map_or(0, |dof| bits(plan.tree.rows[dof].iter().copied())),
            fluid_y,
            in_medium: u32::from(body.fluid.is_some()),
            fluid_z,
            tree_end: word(tree_end(plan, index)),
            level: word(level),
            padding_a: 0,
            padding_b: 0,
            padding_c: 0,
        }
    }
}

impl Dof {
    fn of(plan: &plan::Plan<f32>, index: usize) -> Dof {
        let dof = &plan.dofs[index];
        let above = |index: usize| plan.tree.rows[index].iter().copied().filter(move |other| *other < index);
        // A free joint translates along fixed axes, and rotates about axes that its translation carries along.
        let free = plan
            .joints
            .iter()
            .find(|joint| joint.kind == JointKind::Free && joint.dofadr + 6 > index && joint.dofadr <= index);
        let carried = |other: &usize| free.is_none_or(|joint| index >= joint.dofadr + 3 && *other < joint.dofadr + 3);
        Dof {
            body: word(dof.body),
            ancestors: bits(above(index)),
            descendants: bits((index + 1..plan.nv).filter(|below| plan.tree.rows[*below].contains(&index))),
            carriers: bits(above(index).filter(carried)),
            armature: dof.armature,
            damping: dof.damping,
        }
    }
}

/// The first body after those that hang from one, which follow it.
fn tree_end(plan: &plan::Plan<f32>, index: usize) -> usize {
    let hangs = |from: usize| {
        std::iter::successors(Some(from), |body| (*body > 0).then(|| plan.bodies[*body].parent))
            .any(|body| body == index)
    };
    (index + 1..plan.bodies.len()).find(|body| !hangs(*body)).unwrap_or(plan.bodies.len())
}

impl Joint {
    fn of(joint: &plan::Joint<f32>) -> Joint {
        let axis = match joint.axis {
            Axis::Any(axis) => axis,
            Axis::Own(k, sign) => std::array::from_fn(|i| if i == k { sign } else { 0.0 }),
        };
        Joint {
            axis,
            kind: match joint.kind {
                JointKind::Free => 0,
                JointKind::Slide => 1,
                JointKind::Hinge => 2,
            },
            pos: joint.pos.unwrap_or([0.0; 3]),
            body: word(joint.body),
            qposadr: word(joint.qposadr),
            dofadr: word(joint.dofadr),
            reference: joint.reference,
            stiffness: joint.stiffness,
            springref: joint.springref,
            padding_a: 0,
            padding_b: 0,
            padding_c: 0,
        }
    }
}

impl Softness {
    fn of(softness: &plan::Softness<f32>) -> Softness {
        Softness {
            d_zero: softness.d0,
            d_max: softness.d_max,
            inverse_width: softness.inverse_width,
            midpoint: softness.midpoint,
            rising: softness.rising,
            falling: softness.falling,
            power: softness.power,
            stiffness: softness.stiffness,
            damping: softness.damping,
            regulariser: softness.regulariser,
            padding_a: 0,
            padding_b: 0,
        }
    }
}

impl Pair {
    fn of(pair: &plan::Pair<f32>) -> Pair {
        let moved = |second: bool| bits(pair.chain.iter().filter(|(_, side)| *side == second).map(|(dof, _)| *dof));
        let [geom_a, geom_b] = pair.geoms.map(word);
        let [body_a, body_b] = pair.bodies.map(word);
        Pair {
            test: pair.test as u32,
            geom_a,
            geom_b,
            body_a,
            body_b,
            moved_a: moved(false),
            moved_b: moved(true),
            couples: u32::from(pair.couples),
            margin: pair.margin,
            near: pair.near.unwrap_or(-1.0),
            friction: pair.friction,
            padding: 0,
            softness: Softness::of(&pair.softness),
        }
    }
}

/// A plan in the layout of the shader's buffer. `drift` lists the coordinates that a step measures from zero.
pub fn bytes(plan: &plan::Plan<f32>, drift: impl Iterator<Item = usize>) -> Vec<u8> {
    let [density, viscosity] = plan.medium.unwrap_or([0.0; 2]);
    let head = Plan {
        gravity: plan.gravity,
        timestep: plan.timestep,
        across: plan.across.unwrap_or([0.0; 3]),
        density,
        viscosity,
        drift: bits(drift),
        zero: 0,
        padding: 0,
    };
    let mut out = bytemuck::bytes_of(&head).to_vec();
    table(&mut out, levels(plan).into_iter().enumerate().map(|(index, level)| Body::of(plan, index, level)));
    table(&mut out, plan.joints.iter().map(Joint::of));
    table(
        &mut out,
        plan.geoms.iter().map(|geom| Geom {
            pos: geom.pos,
            body: word(geom.body),
            axis: geom.axis,
            radius: geom.radius,
            half_length: geom.half_length,
            padding_a: 0,
            padding_b: 0,
            padding_c: 0,
        }),
    );
    table(&mut out, (0..plan.nv).map(|index| Dof::of(plan, index)));
    table(
        &mut out,
        plan.motors.iter().map(|motor| Motor {
            dof: word(motor.dof),
            gear: motor.gear,
            // The shader's clamp needs finite numbers.
            low: motor.low.max(f32::MIN),
            high: motor.high.min(f32::MAX),
        }),
    );
    table(
        &mut out,
        plan.limits.iter().map(|limit| Limit {
            dof: word(limit.dof),
            qposadr: word(limit.qposadr),
            low: limit.low,
            high: limit.high,
            margin: limit.margin,
            padding_a: 0,
            padding_b: 0,
            padding_c: 0,
            softness: Softness::of(&limit.softness),
        }),
    );
    table(&mut out, plan.pairs.iter().map(Pair::of));
    // As long as the shader's struct, which is padded to a multiple of its alignment.
    out.resize(out.len().next_multiple_of(16), 0);
    out
}

/// Appends rows. An empty table gets one row of zeros, because an array of the shader has at least one entry.
fn table<T: Pod>(out: &mut Vec<u8>, rows: impl Iterator<Item = T>) {
    let before = out.len();
    rows.for_each(|row| out.extend_from_slice(bytemuck::bytes_of(&row)));
    if out.len() == before {
        out.extend_from_slice(bytemuck::bytes_of(&T::zeroed()));
    }
}

const IDENTITY: [f32; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

fn columns(m: &[f32; 9]) -> [[f32; 3]; 3] {
    std::array::from_fn(|column| std::array::from_fn(|row| m[3 * row + column]))
}

/// Sizes of a model fit in a word: `specialise` refuses one with more than 32 degrees of freedom.
fn word(index: usize) -> u32 {
    index as u32
}

fn bits(dofs: impl Iterator<Item = usize>) -> u32 {
    dofs.fold(0, |word, dof| word | 1 << dof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physics::Model;
    use crate::physics::shader::compose::{STEP, Specialised};
    use crate::physics::shader::sharing::ThreadsPerWorld;
    use flipside_gpu::reflected;
    use std::mem::offset_of;

    #[test]
    fn a_model_lies_as_the_shader_reads_it() {
        let text = include_str!("../../../../../envs/hopper.xml");
        let model = Model::from_mjcf(text, "hopper.xml").unwrap();
        let plan = plan::Plan::<f32>::new(&model, "shader").unwrap();
        let module = Specialised::new(&model, &plan, ThreadsPerWorld::One).unwrap().shader(STEP);
        macro_rules! check {
            ($type:ident { $($field:ident),* $(,)? }) => {
                let ours = vec![$((stringify!($field).to_string(), offset_of!($type, $field))),*];
                assert_eq!(reflected(&module, stringify!($type)), Some((ours, size_of::<$type>())), stringify!($type));
            };
        }
        check!(Body {
            pos,
            parent,
            ipos,
            root,
            mat_x,
            mass,
            mat_y,
            inverse_tree_mass,
            mat_z,
            joints_begin,
            diagonal,
            joints_end,
            products,
            dofs_begin,
            fluid_half,
            dofs_end,
            fluid_x,
            moved_by,
            fluid_y,
            in_medium,
            fluid_z,
            tree_end,
            level,
            padding_a,
            padding_b,
            padding_c,
        });
        check!(Joint {
            axis,
            kind,
            pos,
            body,
            qposadr,
            dofadr,
            reference,
            stiffness,
            springref,
            padding_a,
            padding_b,
            padding_c,
        });
        check!(Geom { pos, body, axis, radius, half_length, padding_a, padding_b, padding_c });
        check!(Dof { body, ancestors, descendants, carriers, armature, damping });
        check!(Motor { dof, gear, low, high });
        check!(Softness {
            d_zero,
            d_max,
            inverse_width,
            midpoint,
            rising,
            falling,
            power,
            stiffness,
            damping,
            regulariser,
            padding_a,
            padding_b,
        });
        check!(Limit { dof, qposadr, low, high, margin, padding_a, padding_b, padding_c, softness });
        check!(Pair {
            test,
            geom_a,
            geom_b,
            body_a,
            body_b,
            moved_a,
            moved_b,
            couples,
            margin,
            near,
            friction,
            padding,
            softness,
        });
        check!(Batch { first, end, first_round, end_round, rounds, look, zero, kept });
        check!(Layout { width, frames, cinert, cvel, cfrc_ext, qfrc_actuator, qfrc_constraint });
        // The tables follow the header in the shader's order, without gaps, and `bytes` writes them in that order.
        let head: Vec<(String, usize)> = [
            ("gravity", offset_of!(Plan, gravity)),
            ("timestep", offset_of!(Plan, timestep)),
            ("across", offset_of!(Plan, across)),
            ("density", offset_of!(Plan, density)),
            ("viscosity", offset_of!(Plan, viscosity)),
            ("drift", offset_of!(Plan, drift)),
            ("zero", offset_of!(Plan, zero)),
            ("padding", offset_of!(Plan, padding)),
        ]
        .map(|(name, offset)| (name.to_owned(), offset))
        .to_vec();
        let tables = [
            ("bodies", plan.bodies.len() * size_of::<Body>()),
            ("joints", plan.joints.len() * size_of::<Joint>()),
            ("geoms", plan.geoms.len() * size_of::<Geom>()),
            ("dofs", plan.dofs.len() * size_of::<Dof>()),
            ("motors", plan.motors.len() * size_of::<Motor>()),
            ("limits", plan.limits.len() * size_of::<Limit>()),
            ("pairs", plan.pairs.len() * size_of::<Pair>()),
        ];
        let mut expected = head;
        let mut at = size_of::<Plan>();
        for (name, bytes) in tables {
            expected.push((name.to_owned(), at));
            at += bytes;
        }
        assert_eq!(reflected(&module, "Plan"), Some((expected, at)));
        assert_eq!(bytes(&plan, std::iter::empty()).len(), at);
    }
}
