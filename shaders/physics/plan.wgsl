// A model laid out for stepping. `src/physics/shader/layout.rs` has the same structs, and a test compares the two.
//
// Sizes are constants that are filled in when the model loads. The numbers are in one buffer, which every world reads
// at the same place at the same time. A set of degrees of freedom is a word with one bit each.
#define_import_path physics::plan

const NQ: u32 = #{NQ}u;
const NV: u32 = #{NV}u;
const NU: u32 = #{NU}u;
const NBODY: u32 = #{NBODY}u;
const NJNT: u32 = #{NJNT}u;
// How many motors, limits, geoms and pairs there are, and the lengths of their arrays: an array has at least one entry.
const MOTORS: u32 = #{MOTORS}u;
const LIMITS: u32 = #{LIMITS}u;
const PAIRS: u32 = #{PAIRS}u;
const MOTOR_ROOM: u32 = #{MOTOR_ROOM}u;
const LIMIT_ROOM: u32 = #{LIMIT_ROOM}u;
const GEOM_ROOM: u32 = #{GEOM_ROOM}u;
const PAIR_ROOM: u32 = #{PAIR_ROOM}u;
// The most contacts that a world can store.
const SLOTS: u32 = #{SLOTS}u;
// Directions that a contact is stored in: the normal, and no, one or two tangents.
const DIRECTIONS: u32 = #{DIRECTIONS}u;
// Vectors of four in a row of a matrix with NV columns.
const CHUNKS: u32 = #{CHUNKS}u;
// Levels of the tree of bodies, the world's included.
const LEVELS: u32 = #{LEVELS}u;
// Worlds of a workgroup and threads of a world; one of the two is one.
const LANES: u32 = #{LANES}u;
const TEAM: u32 = #{TEAM}u;
const THREADS: u32 = LANES * TEAM;
// The start of loops: zero, but no compiler knows it. If the stages were unrolled, a software driver would take minutes
// to compile them. The zero is in a storage buffer, as is the model, because llvmpipe treats the numbers of a uniform
// buffer as constants and recompiles the shader when they change.
var<private> hold: u32;
// No index.
const NONE: u32 = 0xffffffffu;

struct Plan {
    gravity: vec3f,
    timestep: f32,
    across: vec3f,
    density: f32,
    viscosity: f32,
    drift: u32,
    // See `zero` in the module team.
    zero: u32,
    padding: u32,
    bodies: array<Body, NBODY>,
    joints: array<Joint, NJNT>,
    geoms: array<Geom, GEOM_ROOM>,
    dofs: array<Dof, NV>,
    motors: array<Motor, MOTOR_ROOM>,
    limits: array<Limit, LIMIT_ROOM>,
    pairs: array<Pair, PAIR_ROOM>,
}

struct Body {
    pos: vec3f,
    parent: u32,
    ipos: vec3f,
    root: u32,
    mat_x: vec3f,
    mass: f32,
    mat_y: vec3f,
    inverse_tree_mass: f32,
    mat_z: vec3f,
    joints_begin: u32,
    diagonal: vec3f,
    joints_end: u32,
    products: vec3f,
    dofs_begin: u32,
    fluid_half: vec3f,
    dofs_end: u32,
    fluid_x: vec3f,
    moved_by: u32,
    fluid_y: vec3f,
    in_medium: u32,
    fluid_z: vec3f,
    // The end of the range of bodies that hang from it, including itself.
    tree_end: u32,
    level: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

const FREE: u32 = 0u;
const SLIDE: u32 = 1u;
const HINGE: u32 = 2u;

struct Joint {
    axis: vec3f,
    kind: u32,
    pos: vec3f,
    body: u32,
    qposadr: u32,
    dofadr: u32,
    reference: f32,
    stiffness: f32,
    springref: f32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

struct Geom {
    pos: vec3f,
    body: u32,
    axis: vec3f,
    radius: f32,
    half_length: f32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

struct Dof {
    body: u32,
    // The degrees of freedom above it in the tree, those below it, and those whose motion carries its axis along.
    ancestors: u32,
    descendants: u32,
    carriers: u32,
    armature: f32,
    damping: f32,
}

struct Motor {
    dof: u32,
    gear: f32,
    low: f32,
    high: f32,
}

struct Softness {
    d_zero: f32,
    d_max: f32,
    inverse_width: f32,
    midpoint: f32,
    rising: f32,
    falling: f32,
    power: u32,
    stiffness: f32,
    damping: f32,
    regulariser: f32,
    padding_a: u32,
    padding_b: u32,
}

struct Limit {
    dof: u32,
    qposadr: u32,
    low: f32,
    high: f32,
    margin: f32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
    softness: Softness,
}

const PLANE_SPHERE: u32 = 0u;
const PLANE_CAPSULE: u32 = 1u;
const SPHERE_SPHERE: u32 = 2u;
const SPHERE_CAPSULE: u32 = 3u;
const CAPSULE_CAPSULE: u32 = 4u;
const SPHERE_CYLINDER: u32 = 5u;
const CAPSULE_CYLINDER: u32 = 6u;

struct Pair {
    test: u32,
    geom_a: u32,
    geom_b: u32,
    body_a: u32,
    body_b: u32,
    moved_a: u32,
    moved_b: u32,
    couples: u32,
    margin: f32,
    near: f32,
    friction: f32,
    padding: u32,
    softness: Softness,
}

@group(0) @binding(0) var<storage, read> plan: Plan;