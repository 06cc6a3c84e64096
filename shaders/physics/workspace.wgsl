// Room for one evaluation of one world: everything that the stages hand to each other. Names are MuJoCo's.
#define_import_path physics::workspace

#import physics::plan::{NQ, NV, NU, NBODY, NJNT, LIMIT_ROOM, SLOTS, TRIANGLE}
#import physics::spatial::{Spatial, Inertia}

// The state.
var<private> qpos: array<f32, NQ>;
var<private> qvel: array<f32, NV>;
var<private> ctrl: array<f32, NU>;

// Kinematics: body frames, centres of mass; joint anchors and axes; the centre of mass of each tree, at its root's index; how each
// degree of freedom moves its body.
var<private> xpos: array<vec3f, NBODY>;
var<private> xmat: array<mat3x3f, NBODY>;
var<private> xipos: array<vec3f, NBODY>;
var<private> anchor: array<vec3f, NJNT>;
var<private> axis: array<vec3f, NJNT>;
var<private> com: array<vec3f, NBODY>;
var<private> cdof: array<Spatial, NV>;

// Inertia; of the mass matrix the lower half, row after row: see `factor::entry`.
var<private> cinert: array<Inertia, NBODY>;
var<private> crb: array<Inertia, NBODY>;
var<private> mass: array<f32, TRIANGLE>;

// Velocities and forces. Once the smooth forces are known, the solver keeps the bodies' motions and the contacts' wrenches in cacc and cfrc.
var<private> cvel: array<Spatial, NBODY>;
var<private> cdof_dot: array<Spatial, NV>;
var<private> cacc: array<Spatial, NBODY>;
var<private> cfrc: array<Spatial, NBODY>;
var<private> actuator: array<f32, NV>;
// passive − bias + actuator.
var<private> smooth_force: array<f32, NV>;

// Contacts: how many, and whether one of them couples two branches of the tree.
var<private> count: u32;
var<private> couples: bool;
var<private> contact: array<Contact, SLOTS>;
var<private> limit: array<LimitRow, LIMIT_ROOM>;

// The solution: accelerations, which on entry to the solver are where it starts, and Jᵀ f of all constraints.
var<private> qacc: array<f32, NV>;
var<private> constraint: array<f32, NV>;
// What the solver keeps between its steps: M + Jᵀ D J and its factor, 1/d of the factor, M a and M Δ.
var<private> hessian: array<f32, TRIANGLE>;
var<private> inverse: array<f32, NV>;
var<private> gradient: array<f32, NV>;
var<private> direction: array<f32, NV>;
var<private> ma: array<f32, NV>;
var<private> md: array<f32, NV>;

// Runge–Kutta. `rate`: how fast qpos changes: qvel, but for rotations.
var<private> qpos_start: array<f32, NQ>;
var<private> qvel_start: array<f32, NV>;
var<private> rate: array<f32, NV>;
var<private> qvel_sum: array<f32, NV>;
var<private> qacc_sum: array<f32, NV>;

// A touching point. Vectors of three are along the contact's own directions: normal and tangents.
struct Contact {
    point: vec3f,
    pair: u32,
    normal: vec3f,
    friction: f32,
    tangent: vec3f,
    // 1/R of a row.
    stiffness: f32,
    // Reference accelerations of the rows n ± μt less the friction part's: see the constraint stage.
    aref: vec3f,
    // J a − aref and J Δ.
    residual: vec3f,
    slope: vec3f,
}

// A violated end of a joint's range: sign is +1 at the low end, −1 at the high one. Where none is violated, stiffness is zero.
struct LimitRow {
    sign: f32,
    aref: f32,
    stiffness: f32,
}
