// What one dispatch is told, and the worlds that it steps, a thread each.
#define_import_path physics::batch

#import physics::plan::{hold, plan, LANES, NQ, NV, NU}
#import physics::derived::Layout
#import physics::workspace::{group, lane, workspaces, QACC}

// One dispatch.
struct Batch {
    // The worlds: from `first` up to, but without, `end`.
    first: u32,
    end: u32,
    // Of the rounds of an env step, `rounds` of them, those from `first_round` up to, but without, `end_round`.
    first_round: u32,
    end_round: u32,
    rounds: u32,
    // Not 0: worlds that begin an episode are evaluated once, and no other.
    look: u32,
    // See `hold`.
    zero: u32,
    kept: Layout,
}

@group(1) @binding(0) var<storage, read> batch: Batch;
// Of each world qpos, qvel and the accelerations where the solver starts next.
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<storage, read> ctrl: array<f32>;
// Of each world 1 where it went non-finite and stays where it was, and 2 where it begins an episode and was not looked at yet.
@group(0) @binding(4) var<storage, read_write> frozen: array<u32>;

// This thread's.
var<private> world: u32;

const BEGINS: u32 = 2u;
// Beyond this a coordinate or a velocity counts as diverged, as in MuJoCo (mjMAXVAL).
const LARGEST: f32 = 1e10;
const WIDTH: u32 = NQ + 2u * NV;

// Finds this thread's world; whether it takes part.
fn enter(workgroup: u32, index: u32) -> bool {
    hold = batch.zero;
    group = workgroup;
    lane = index;
    world = batch.first + LANES * group + lane;
    if world >= batch.end {
        return false;
    }
    // Where worlds are looked at, those that begin an episode are evaluated once, and no other.
    return frozen[world] == select(0u, BEGINS, batch.look != 0u);
}

// Brings a world's state and controls into its workspace.
fn take() {
    let ws = &workspaces[group];
    let at = world * WIDTH;
    for (var i = hold; i < NQ; i++) {
        // Coordinates that nothing depends on are counted from zero, and added up by whoever reads them.
        ws.qpos[i][lane] = select(state[at + i], 0.0, (plan.drift >> i & 1u) == 1u);
    }
    for (var i = hold; i < NV; i++) {
        ws.qvel[i][lane] = state[at + NQ + i];
        ws.vectors[QACC][i][lane] = state[at + NQ + NV + i];
    }
    for (var i = hold; i < NU; i++) {
        // Without control where a world is only looked at.
        ws.ctrl[i][lane] = select(ctrl[world * NU + i], 0.0, batch.look != 0u);
    }
}

// Gives a world the state that its workspace holds, if all of it is finite.
fn give() {
    let ws = &workspaces[group];
    var finite = true;
    for (var i = hold; i < NU; i++) {
        finite = finite && good(ws.ctrl[i][lane]);
    }
    for (var i = hold; i < NQ; i++) {
        finite = finite && good(ws.qpos[i][lane]);
    }
    for (var i = hold; i < NV; i++) {
        finite = finite && good(ws.qvel[i][lane]) && good(ws.vectors[QACC][i][lane]);
    }
    if !finite {
        frozen[world] = 1u;
        return;
    }
    let at = world * WIDTH;
    for (var i = hold; i < NQ; i++) {
        state[at + i] = ws.qpos[i][lane];
    }
    for (var i = hold; i < NV; i++) {
        state[at + NQ + i] = ws.qvel[i][lane];
        state[at + NQ + NV + i] = ws.vectors[QACC][i][lane];
    }
}

// Neither NaN nor too large. Compared as whole numbers, as a device may take it that there are no NaNs.
fn good(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < bitcast<u32>(LARGEST);
}
