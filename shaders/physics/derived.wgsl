// What an observation reads of the last evaluation, by MuJoCo's names (`Quantity` in src/physics/backend.rs).
#define_import_path physics::derived

#import physics::plan::{hold, NBODY, NV, NONE, TEAM}
#import physics::solve::wrenches
#import physics::team::member
#import physics::workspace::{group, lane, workspaces}

// Where each quantity lies among a world's numbers; `NONE` if it was not requested.
struct Layout {
    // How many numbers a world has.
    width: u32,
    // Body positions and rotation matrices, row after row, twelve a body.
    frames: u32,
    cinert: u32,
    cvel: u32,
    cfrc_ext: u32,
    qfrc_actuator: u32,
    qfrc_constraint: u32,
}

@group(0) @binding(3) var<storage, read_write> derived: array<f32>;

// Stores the requested quantities of the world whose numbers begin at `base`.
fn store(kept: Layout, base: u32) {
    let ws = &workspaces[group];
    if kept.frames != NONE {
        for (var body = member + hold; body < NBODY; body += TEAM) {
            let at = base + kept.frames + 12u * body;
            put(at, ws.xpos[body][lane]);
            let rows = transpose(ws.xmat[body][lane]);
            put(at + 3u, rows[0]);
            put(at + 6u, rows[1]);
            put(at + 9u, rows[2]);
        }
    }
    if kept.cinert != NONE {
        for (var body = member + hold; body < NBODY; body += TEAM) {
            let at = base + kept.cinert + 10u * body;
            put(at, ws.cinert[body][lane].diagonal);
            put(at + 3u, ws.cinert[body][lane].products);
            put(at + 6u, ws.cinert[body][lane].moment);
            derived[at + 9u] = ws.cinert[body][lane].mass;
        }
    }
    if kept.cvel != NONE {
        for (var body = member + hold; body < NBODY; body += TEAM) {
            let at = base + kept.cvel + 6u * body;
            put(at, ws.cvel[body][lane].angular);
            put(at + 3u, ws.cvel[body][lane].linear);
        }
    }
    if kept.cfrc_ext != NONE {
        wrenches();
        for (var body = member + hold; body < NBODY; body += TEAM) {
            let at = base + kept.cfrc_ext + 6u * body;
            put(at, ws.cfrc[body][lane].angular);
            put(at + 3u, ws.cfrc[body][lane].linear);
        }
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        if kept.qfrc_actuator != NONE {
            derived[base + kept.qfrc_actuator + i] = ws.actuator[i][lane];
        }
        if kept.qfrc_constraint != NONE {
            derived[base + kept.qfrc_constraint + i] = ws.constraint[i][lane];
        }
    }
}

fn put(at: u32, v: vec3f) {
    derived[at] = v.x;
    derived[at + 1u] = v.y;
    derived[at + 2u] = v.z;
}
