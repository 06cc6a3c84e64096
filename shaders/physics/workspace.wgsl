// Scratch memory for one evaluation of each world of a workgroup: everything that the stages pass to each other. Names
// are MuJoCo's.
//
// If each thread has its own world, it lies in a buffer, and a quantity's numbers of neighbouring threads lie side by
// side. A GPU's compiler would spill a thread's arrays that are indexed at run time to such memory anyway, and a
// software driver takes a minute to compile them. If a team shares a world, it lies in workgroup memory, and a buffer
// holds what one dispatch passes to the next.
#define_import_path physics::workspace

#import physics::plan::{LANES, NQ, NV, NU, NBODY, NJNT, LIMIT_ROOM, SLOTS, CHUNKS, DIRECTIONS}
#import physics::spatial::{Spatial, Inertia}

#ifdef IS_TEAM
var<workgroup> workspaces: array<Workspace, 1>;
const group: u32 = 0u;
const lane: u32 = 0u;
#else
@group(0) @binding(5) var<storage, read_write> workspaces: array<Workspace>;

// The workspace of this thread's world, and the lane in it.
var<private> group: u32;
var<private> lane: u32;
#endif

struct Workspace {
    // The state.
    qpos: array<array<f32, LANES>, NQ>,
    qvel: array<array<f32, LANES>, NV>,
    ctrl: array<array<f32, LANES>, NU>,

    // Kinematics: body frames, centres of mass; joint anchors and axes; the centre of mass of each tree, at its root's
    // index; how each degree of freedom moves its body.
    xpos: array<array<vec3f, LANES>, NBODY>,
    xmat: array<array<mat3x3f, LANES>, NBODY>,
    xipos: array<array<vec3f, LANES>, NBODY>,
    anchor: array<array<vec3f, LANES>, NJNT>,
    axis: array<array<vec3f, LANES>, NJNT>,
    com: array<array<vec3f, LANES>, NBODY>,
    cdof: array<array<Spatial, LANES>, NV>,

    // Inertia, and the mass matrix: see `factor::chunk`.
    cinert: array<array<Inertia, LANES>, NBODY>,
#ifndef IS_TEAM
    crb: array<array<Inertia, LANES>, NBODY>,
#endif
    mass: array<array<vec4f, LANES>, NV * CHUNKS>,

    // Velocities and forces. Once the smooth forces are known, the solver keeps the bodies' motions and the contacts'
    // wrenches in cacc and cfrc.
    cvel: array<array<Spatial, LANES>, NBODY>,
    cdof_dot: array<array<Spatial, LANES>, NV>,
    cacc: array<array<Spatial, LANES>, NBODY>,
    cfrc: array<array<Spatial, LANES>, NBODY>,
    actuator: array<array<f32, LANES>, NV>,
    // passive − bias + actuator.
    smooth_force: array<array<f32, LANES>, NV>,

    // Contacts: how many, and whether one of them couples two branches of the tree.
    count: array<u32, LANES>,
    couples: array<u32, LANES>,
    contact: array<array<Contact, LANES>, SLOTS>,
    limit: array<array<LimitRow, LANES>, LIMIT_ROOM>,

    // Jᵀ f of all constraints.
    constraint: array<array<f32, LANES>, NV>,
    // The vectors that are passed to the matrix routines by name, see below.
    vectors: array<array<array<f32, LANES>, NV>, VECTORS>,
    // What the solver stores between its steps: M + Jᵀ D J and its factor, 1/d of the factor, and the Jacobians of the
    // contacts that are added to it.
    hessian: array<array<vec4f, LANES>, NV * CHUNKS>,
    inverse: array<array<f32, LANES>, NV>,
    gradient: array<array<f32, LANES>, NV>,
    jacobian: array<array<array<array<vec4f, LANES>, CHUNKS>, DIRECTIONS>, JACOBIANS>,

    // Runge–Kutta. `rate` is how fast qpos changes: qvel, except for rotations.
    qpos_start: array<array<f32, LANES>, NQ>,
    qvel_start: array<array<f32, LANES>, NV>,
    rate: array<array<f32, LANES>, NV>,
    qvel_sum: array<array<f32, LANES>, NV>,
    qacc_sum: array<array<f32, LANES>, NV>,
}

// The solution: accelerations. On entry to the solver they are its starting point.
const QACC: u32 = 0u;
// The solver's step Δ, M a and M Δ.
const DIRECTION: u32 = 1u;
const MA: u32 = 2u;
const MD: u32 = 3u;
const VECTORS: u32 = 4u;
// Contacts that are added to the Hessian together.
#ifdef IS_TEAM
const JACOBIANS: u32 = 4u;
#else
const JACOBIANS: u32 = 1u;
#endif

// A touching point. Vectors of three are along the contact's own directions: normal and tangents.
struct Contact {
    point: vec3f,
    pair: u32,
    normal: vec3f,
    friction: f32,
    tangent: vec3f,
    // 1/R of a row.
    stiffness: f32,
    // J a − aref. Before the solver begins it is aref: the reference accelerations of the rows n ± μt minus the
    // friction part's, see the constraint stage.
    residual: vec3f,
    // J Δ. While a team sums forces, it is the contact's force in world axes.
    slope: vec3f,
}

// A violated end of a joint's range: sign is +1 at the low end, −1 at the high one. If none is violated, stiffness is
// zero.
struct LimitRow {
    sign: f32,
    aref: f32,
    stiffness: f32,
}
