// A batch of worlds, a thread each: holds every world's controls for an env step (`src/physics/lanes/group.rs`).
#import physics::plan::{hold, plan, NQ, NV, NU}
#import physics::integrate::step
#import physics::derived::{Layout, store}
#import physics::workspace as ws

struct Batch {
    // The worlds of this dispatch: from `first` up to, but without, `end`.
    first: u32,
    end: u32,
    frame_skip: u32,
    kept: Layout,
}

@group(0) @binding(1) var<storage, read> batch: Batch;
// Of each world qpos, qvel and the accelerations where the solver starts next.
@group(0) @binding(2) var<storage, read_write> state: array<f32>;
@group(0) @binding(3) var<storage, read> ctrl: array<f32>;
// Of each world 1 where it went non-finite and stays where it was.
@group(0) @binding(5) var<storage, read_write> frozen: array<u32>;

// Beyond this a coordinate or a velocity counts as diverged, as in MuJoCo (mjMAXVAL).
const LARGEST: f32 = 1e10;
const WIDTH: u32 = NQ + 2u * NV;

@compute @workgroup_size(#{WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
#ifndef IS_UNROLLED
    hold = plan.zero;
#endif
    let world = batch.first + id.x;
    if world >= batch.end || frozen[world] != 0u {
        return;
    }
    let at = world * WIDTH;
    for (var i = 0u; i < NQ + hold; i++) {
        // Coordinates that nothing depends on are counted from zero, and added up by whoever reads them.
        ws::qpos[i] = select(state[at + i], 0.0, (plan.drift >> i & 1u) == 1u);
    }
    for (var i = 0u; i < NV + hold; i++) {
        ws::qvel[i] = state[at + NQ + i];
        ws::qacc[i] = state[at + NQ + NV + i];
    }
    var finite = true;
    for (var i = 0u; i < NU + hold; i++) {
        ws::ctrl[i] = ctrl[world * NU + i];
        finite = finite && good(ws::ctrl[i]);
    }
    for (var k = 0u; k < batch.frame_skip; k++) {
        step();
    }
    store(batch.kept, world * batch.kept.width);
    for (var i = 0u; i < NQ + hold; i++) {
        finite = finite && good(ws::qpos[i]);
    }
    for (var i = 0u; i < NV + hold; i++) {
        finite = finite && good(ws::qvel[i]) && good(ws::qacc[i]);
    }
    if !finite {
        frozen[world] = 1u;
        return;
    }
    for (var i = 0u; i < NQ + hold; i++) {
        state[at + i] = ws::qpos[i];
    }
    for (var i = 0u; i < NV + hold; i++) {
        state[at + NQ + i] = ws::qvel[i];
        state[at + NQ + NV + i] = ws::qacc[i];
    }
}

// Neither NaN nor too large. Compared as whole numbers, as a device may take it that there are no NaNs.
fn good(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < bitcast<u32>(LARGEST);
}
