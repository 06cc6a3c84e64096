//! Scratch memory for one evaluation: everything that the stages pass to each other, allocated once, so that a step
//! allocates nothing.

use super::plan::Plan;
use super::spatial::{I10, M3, S6, V3};
use flipside_core::simd::{Lanes, Mask};

/// One lane group's state and what follows from it. Names are MuJoCo's.
pub struct Workspace<L: Lanes> {
    // The state.
    /// `[nq]`.
    pub qpos: Vec<L>,
    /// `[nv]`.
    pub qvel: Vec<L>,
    /// `[nu]`.
    pub ctrl: Vec<L>,

    // Kinematics.
    /// Body frames, `[nbody]`.
    pub xpos: Vec<V3<L>>,
    pub xmat: Vec<M3<L>>,
    /// Centres of mass, `[nbody]`.
    pub xipos: Vec<V3<L>>,
    /// Joint anchors and axes, `[njnt]`.
    pub anchor: Vec<V3<L>>,
    pub axis: Vec<V3<L>>,
    /// Centre of mass of each tree, at its root's index, `[nbody]`.
    pub com: Vec<V3<L>>,
    /// How each degree of freedom moves its body, `[nv]`.
    pub cdof: Vec<S6<L>>,

    // Inertia.
    pub cinert: Vec<I10<L>>,
    pub crb: Vec<I10<L>>,
    /// The mass matrix, lower half in rows of nv, `[nv, nv]`.
    pub mass: Vec<L>,

    // Velocities and forces.
    pub cvel: Vec<S6<L>>,
    pub cdof_dot: Vec<S6<L>>,
    pub cacc: Vec<S6<L>>,
    pub cfrc: Vec<S6<L>>,
    pub bias: Vec<L>,
    pub passive: Vec<L>,
    pub actuator: Vec<L>,
    /// passive − bias + actuator.
    pub smooth: Vec<L>,

    // Constraints.
    pub contacts: Contacts<L>,
    pub limits: Vec<LimitRow<L>>,

    // The solution.
    /// Accelerations; on entry to the solver, where it starts.
    pub qacc: Vec<L>,
    /// Jᵀ f of all constraints.
    pub constraint: Vec<L>,
    pub solver: Solver<L>,
    /// Contact torque and force on each body about its tree's centre of mass, `[nbody]`.
    pub cfrc_ext: Vec<S6<L>>,

    // Runge–Kutta.
    pub qpos_start: Vec<L>,
    pub qvel_start: Vec<L>,
    /// How fast qpos changes: qvel, except for rotations.
    pub rate: Vec<L>,
    pub qvel_sum: Vec<L>,
    pub qacc_sum: Vec<L>,
}

/// Contacts, packed: the c-th contact of every world lies at index c, whichever pair of geoms it comes from. Lanes with
/// fewer contacts have rows of zeros there.
pub struct Contacts<L: Lanes> {
    /// How many indices are in use.
    pub count: usize,
    /// Whether one of them couples two branches of the tree.
    pub couples: bool,
    /// Lanes that have a contact at the index.
    pub active: Vec<L::Mask>,
    /// Directions a contact: normal and two tangents, or one where motion is planar.
    pub directions: usize,
    /// Rows of the contact Jacobian in the contact's frame, `[index, directions, nv]`.
    pub jacobian: Vec<L>,
    pub friction: Vec<L>,
    /// Reference accelerations of the rows n ± μt minus the friction part's: see the constraint stage,
    /// `[index, directions]`.
    pub aref: Vec<L>,
    /// 1/R of a row.
    pub stiffness: Vec<L>,
    /// Contact frames (normal, tangents), points, distances, and bodies per lane, for computing forces and for
    /// reporting contacts.
    pub frame: Vec<[V3<L>; 3]>,
    pub point: Vec<V3<L>>,
    pub distance: Vec<L>,
    /// `[index, lane]`: the pair.
    pub pair: Vec<u16>,
}

/// A violated end of a joint's range.
#[derive(Clone, Copy)]
pub struct LimitRow<L: Lanes> {
    pub active: L::Mask,
    /// +1 at the low end, −1 at the high one.
    pub sign: L,
    pub aref: L,
    pub stiffness: L,
}

/// What the solver keeps between its steps.
pub struct Solver<L: Lanes> {
    /// M + Jᵀ D J and its factor, `[nv, nv]`.
    pub hessian: Vec<L>,
    /// 1/d of the factor, `[nv]`.
    pub inverse: Vec<L>,
    pub gradient: Vec<L>,
    pub direction: Vec<L>,
    /// M a and M Δ, `[nv]`.
    pub ma: Vec<L>,
    pub md: Vec<L>,
    /// J a − aref and J Δ in the contacts' frames, `[index, directions]`.
    pub residual: Vec<L>,
    pub slope: Vec<L>,
    /// Rows of D J, `[index, directions, nv]`.
    pub weighted: Vec<L>,
}

impl<L: Lanes> Workspace<L> {
    /// At the reference configuration, at rest.
    pub fn new(plan: &Plan<L::Scalar>) -> Workspace<L> {
        let z = L::zero();
        let (nv, bodies, slots) = (plan.nv, plan.bodies.len(), plan.slots);
        let directions = plan.directions;
        Workspace {
            qpos: vec![z; plan.nq],
            qvel: vec![z; nv],
            ctrl: vec![z; plan.nu],
            xpos: vec![[z; 3]; bodies],
            xmat: vec![[z; 9]; bodies],
            xipos: vec![[z; 3]; bodies],
            anchor: vec![[z; 3]; plan.joints.len()],
            axis: vec![[z; 3]; plan.joints.len()],
            com: vec![[z; 3]; bodies],
            cdof: vec![[z; 6]; nv],
            cinert: vec![[z; 10]; bodies],
            crb: vec![[z; 10]; bodies],
            mass: vec![z; nv * nv],
            cvel: vec![[z; 6]; bodies],
            cdof_dot: vec![[z; 6]; nv],
            cacc: vec![[z; 6]; bodies],
            cfrc: vec![[z; 6]; bodies],
            bias: vec![z; nv],
            passive: vec![z; nv],
            actuator: vec![z; nv],
            smooth: vec![z; nv],
            contacts: Contacts {
                count: 0,
                couples: false,
                active: vec![L::Mask::NONE; slots],
                directions,
                jacobian: vec![z; slots * directions * nv],
                friction: vec![z; slots],
                aref: vec![z; slots * directions],
                stiffness: vec![z; slots],
                frame: vec![[[z; 3]; 3]; slots],
                point: vec![[z; 3]; slots],
                distance: vec![z; slots],
                pair: vec![0; slots * L::LANES],
            },
            limits: vec![LimitRow { active: L::Mask::NONE, sign: z, aref: z, stiffness: z }; plan.limits.len()],
            qacc: vec![z; nv],
            constraint: vec![z; nv],
            solver: Solver {
                hessian: vec![z; nv * nv],
                inverse: vec![z; nv],
                gradient: vec![z; nv],
                direction: vec![z; nv],
                ma: vec![z; nv],
                md: vec![z; nv],
                residual: vec![z; slots * directions],
                slope: vec![z; slots * directions],
                weighted: vec![z; slots * directions * nv],
            },
            cfrc_ext: vec![[z; 6]; bodies],
            qpos_start: vec![z; plan.nq],
            qvel_start: vec![z; nv],
            rate: vec![z; nv],
            qvel_sum: vec![z; nv],
            qacc_sum: vec![z; nv],
        }
    }
}
