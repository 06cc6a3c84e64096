//! A model laid out for stepping: everything that the equations read, in the precision of the lanes. What never changes
//! is computed once: chains of ancestors, pairs of geoms that can touch, mixed contact parameters, inverse weights.

use crate::physics::model::{Integrator, JointKind, Model};
use std::ops::Range;

/// Rows of a rotation matrix.
pub type Matrix<S> = [S; 9];

/// A model in precision S.
#[derive(Clone, Debug)]
pub struct Plan<S> {
    /// Lengths of qpos, qvel and ctrl.
    pub nq: usize,
    pub nv: usize,
    pub nu: usize,
    pub timestep: S,
    pub gravity: [S; 3],
    pub integrator: Integrator,
    /// The world first, parents before children.
    pub bodies: Vec<Body<S>>,
    /// 1/mass of the tree below each child of the world, `[nbody]`.
    pub inverse_tree_mass: Vec<S>,
    pub joints: Vec<Joint<S>>,
    /// One a degree of freedom.
    pub dofs: Vec<Dof<S>>,
    /// The last degree of freedom that moves each body, `[nbody]`; None for what stands still.
    pub last_dof: Vec<Option<usize>>,
    /// Pairs (i, j) of degrees of freedom whose entry in the mass matrix can differ from zero, row by row: for each i
    /// its ancestors and itself, ascending.
    pub tree: Pattern,
    /// All pairs j ≤ i, for when a contact couples two branches.
    pub dense: Pattern,
    pub motors: Vec<Motor<S>>,
    pub limits: Vec<Limit<S>>,
    /// Geoms that can touch something.
    pub geoms: Vec<GeomPlan<S>>,
    pub pairs: Vec<Pair<S>>,
    /// Contact points that the pairs can have together.
    pub slots: usize,
    /// If all motion is in one plane: the axis across it. A contact's friction then has one relevant direction instead
    /// of two.
    pub across: Option<[S; 3]>,
    /// Directions that a contact is stored in: the normal, and no, one or two tangents.
    pub directions: usize,
    /// The density and viscosity of the medium, where there is one.
    pub medium: Option<[S; 2]>,
}

/// A body.
#[derive(Clone, Debug)]
pub struct Body<S> {
    pub parent: usize,
    /// The child of the world that it hangs from; spatial quantities are about that tree's centre of mass.
    pub root: usize,
    pub pos: [S; 3],
    /// None where it is not turned against its parent.
    pub mat: Option<Matrix<S>>,
    pub mass: S,
    /// Centre of mass in its frame.
    pub ipos: [S; 3],
    /// Inertia about the centre of mass, in its frame: xx yy zz xy xz yz.
    pub inertia: [S; 6],
    pub joints: Range<usize>,
    pub dofs: Range<usize>,
    /// Half-sizes of the box of the same inertia and the principal axes, where it moves in a medium.
    pub fluid: Option<([S; 3], Matrix<S>)>,
}

/// Along which axis of its frame a joint lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Axis<S> {
    /// Along ± one of the frame's own axes, which needs a third of the arithmetic.
    Own(usize, S),
    /// Any direction.
    Any([S; 3]),
}

/// A joint.
#[derive(Clone, Debug)]
pub struct Joint<S> {
    pub kind: JointKind,
    pub body: usize,
    pub qposadr: usize,
    pub dofadr: usize,
    pub axis: Axis<S>,
    /// The anchor; None where it is the body's origin.
    pub pos: Option<[S; 3]>,
    pub reference: S,
    pub stiffness: S,
    pub springref: S,
}

/// A degree of freedom.
#[derive(Clone, Debug)]
pub struct Dof<S> {
    pub body: usize,
    pub armature: S,
    pub damping: S,
}

/// For each row the columns that may differ from zero, ascending, the diagonal last.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub rows: Vec<Vec<usize>>,
    /// The same columns as runs without gaps.
    pub runs: Vec<Vec<Range<usize>>>,
}

impl Pattern {
    /// Of these columns.
    pub fn new(rows: Vec<Vec<usize>>) -> Pattern {
        let runs_of = |columns: &Vec<usize>| {
            let mut runs: Vec<Range<usize>> = vec![];
            for column in columns {
                match runs.last_mut() {
                    Some(run) if run.end == *column => run.end += 1,
                    _ => runs.push(*column..column + 1),
                }
            }
            runs
        };
        Pattern { runs: rows.iter().map(runs_of).collect(), rows }
    }
}

/// A motor.
#[derive(Clone, Debug)]
pub struct Motor<S> {
    pub dof: usize,
    pub gear: S,
    pub low: S,
    pub high: S,
}

/// How a constraint pushes back.
#[derive(Clone, Debug)]
pub struct Softness<S> {
    /// Impedance at zero and at full depth.
    pub d0: S,
    pub d_max: S,
    /// 1/width of the transition.
    pub inverse_width: S,
    pub midpoint: S,
    /// 1/midᵖ⁻¹ and 1/(1 − mid)ᵖ⁻¹.
    pub rising: S,
    pub falling: S,
    pub power: u32,
    /// Reference stiffness and damping: aref = −B v − K d r.
    pub stiffness: S,
    pub damping: S,
    /// The regulariser is this · (1 − d)/d.
    pub regulariser: S,
}

/// Both ends of a joint's range.
#[derive(Clone, Debug)]
pub struct Limit<S> {
    pub dof: usize,
    pub qposadr: usize,
    pub low: S,
    pub high: S,
    pub margin: S,
    pub softness: Softness<S>,
}

/// A geom's place in its body.
#[derive(Clone, Debug)]
pub struct GeomPlan<S> {
    pub body: usize,
    pub pos: [S; 3],
    /// Its z: a plane's normal, a capsule's or a cylinder's axis.
    pub axis: [S; 3],
    pub radius: S,
    pub half_length: S,
    /// How far from its centre it reaches; infinite for a plane.
    pub reach: f64,
}

/// How two shapes are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    PlaneSphere,
    PlaneCapsule,
    SphereSphere,
    SphereCapsule,
    CapsuleCapsule,
    SphereCylinder,
    CapsuleCylinder,
}

/// Two geoms that can touch.
#[derive(Clone, Debug)]
pub struct Pair<S> {
    pub test: Test,
    /// Into [`Plan::geoms`], in the order that MuJoCo tests them in: the normal goes from the first to the second.
    pub geoms: [usize; 2],
    pub bodies: [usize; 2],
    /// A contact exists below this distance.
    pub margin: S,
    /// A bounding-sphere test passes below this distance of the centres, where both shapes are bounded.
    pub near: Option<S>,
    /// Friction; zero where the contact has none.
    pub friction: S,
    pub softness: Softness<S>,
    /// Degrees of freedom that move one geom against the other, and on which side they act.
    pub chain: Vec<(usize, bool)>,
    /// Whether both geoms move, so that a contact couples two branches of the tree.
    pub couples: bool,
}

impl Test {
    /// How many points it can give.
    pub fn points(self) -> usize {
        match self {
            Test::PlaneCapsule | Test::CapsuleCapsule => 2,
            _ => 1,
        }
    }
}

/// Less than this is zero (MuJoCo's mjMINVAL).
pub const LEAST: f64 = 1e-15;

/// The degrees of freedom that move a body, ascending.
pub fn chain(model: &Model, body: usize) -> Vec<usize> {
    let mut bodies: Vec<usize> =
        std::iter::successors(Some(body), |body| (*body != 0).then(|| model.bodies[*body].parent)).collect();
    bodies.reverse();
    bodies.into_iter().flat_map(|body| model.bodies[body].dofs.clone()).collect()
}
