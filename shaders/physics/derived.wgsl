// What an observation reads of the last evaluation, by MuJoCo's names (`Quantity` in src/physics/backend.rs).
#define_import_path physics::derived

#import physics::plan::{hold, NBODY, NV, NONE}
#import physics::solve::wrenches
#import physics::workspace as ws

// Where each quantity lies among a world's numbers; `NONE` where it is not asked for.
struct Layout {
    // Numbers a world.
    width: u32,
    // Body positions and rotation matrices, row after row, twelve a body.
    frames: u32,
    cinert: u32,
    cvel: u32,
    cfrc_ext: u32,
    qfrc_actuator: u32,
    qfrc_constraint: u32,
}

@group(0) @binding(4) var<storage, read_write> derived: array<f32>;

// Keeps what was asked for, of the world whose numbers begin at `base`.
fn store(kept: Layout, base: u32) {
    if kept.frames != NONE {
        for (var body = 0u; body < NBODY + hold; body++) {
            let at = base + kept.frames + 12u * body;
            put(at, ws::xpos[body]);
            let rows = transpose(ws::xmat[body]);
            put(at + 3u, rows[0]);
            put(at + 6u, rows[1]);
            put(at + 9u, rows[2]);
        }
    }
    if kept.cinert != NONE {
        for (var body = 0u; body < NBODY + hold; body++) {
            let at = base + kept.cinert + 10u * body;
            put(at, ws::cinert[body].diagonal);
            put(at + 3u, ws::cinert[body].products);
            put(at + 6u, ws::cinert[body].moment);
            derived[at + 9u] = ws::cinert[body].mass;
        }
    }
    if kept.cvel != NONE {
        for (var body = 0u; body < NBODY + hold; body++) {
            let at = base + kept.cvel + 6u * body;
            put(at, ws::cvel[body].angular);
            put(at + 3u, ws::cvel[body].linear);
        }
    }
    if kept.cfrc_ext != NONE {
        wrenches();
        for (var body = 0u; body < NBODY + hold; body++) {
            let at = base + kept.cfrc_ext + 6u * body;
            put(at, ws::cfrc[body].angular);
            put(at + 3u, ws::cfrc[body].linear);
        }
    }
    for (var i = 0u; i < NV + hold; i++) {
        if kept.qfrc_actuator != NONE {
            derived[base + kept.qfrc_actuator + i] = ws::actuator[i];
        }
        if kept.qfrc_constraint != NONE {
            derived[base + kept.qfrc_constraint + i] = ws::constraint[i];
        }
    }
}

fn put(at: u32, v: vec3f) {
    derived[at] = v.x;
    derived[at + 1u] = v.y;
    derived[at + 2u] = v.z;
}
