// The parameters of one dispatch, and the worlds that it steps.
#define_import_path physics::batch

#import physics::plan::{hold, plan, LANES, TEAM, NQ, NV, NU}
#import physics::derived::Layout
#import physics::team::{any_of, member, same, sync}
#import physics::workspace::{group, lane, workspaces, QACC}

// The parameters of one dispatch.
struct Batch {
    // The worlds `first..end`.
    first: u32,
    end: u32,
    // The range `first_round..end_round` of the `rounds` rounds of an env step.
    first_round: u32,
    end_round: u32,
    rounds: u32,
    // If not 0: only worlds that begin an episode are evaluated, once.
    look: u32,
    // See `hold`.
    zero: u32,
    kept: Layout,
}

@group(1) @binding(0) var<storage, read> batch: Batch;
// For each world: qpos, qvel and the accelerations from which the solver starts next.
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<storage, read> ctrl: array<f32>;
// For each world: 1 if it became non-finite and keeps its last good state, 2 if it begins an episode and was not
// evaluated yet.
@group(0) @binding(4) var<storage, read_write> frozen: array<u32>;

// This thread's.
var<private> world: u32;

const BEGINS: u32 = 2u;
// Beyond this a coordinate or a velocity counts as diverged, as in MuJoCo (mjMAXVAL).
const LARGEST: f32 = 1e10;
const WIDTH: u32 = NQ + 2u * NV;

// Finds this thread's world. Returns whether the thread takes part.
fn enter(workgroup: u32, index: u32) -> bool {
    hold = batch.zero;
#ifdef IS_TEAM
    member = index;
    world = batch.first + workgroup;
#else
    group = workgroup;
    lane = index;
    world = batch.first + LANES * group + lane;
    if world >= batch.end {
        return false;
    }
#endif
    // In an evaluation pass, only worlds that begin an episode are evaluated, once.
    return same(select(0u, 1u, frozen[world] == select(0u, BEGINS, batch.look != 0u))) != 0u;
}

#ifdef IS_TEAM
// What one dispatch of an env step passes to the next.
struct Carried {
    qpos: array<f32, NQ>,
    qvel: array<f32, NV>,
    qacc: array<f32, NV>,
    qpos_start: array<f32, NQ>,
    qvel_start: array<f32, NV>,
    rate: array<f32, NV>,
    qvel_sum: array<f32, NV>,
    qacc_sum: array<f32, NV>,
}

@group(0) @binding(5) var<storage, read_write> carried: array<Carried>;

fn hand_over() {
    let ws = &workspaces[group];
    let kept = &carried[world - batch.first];
    for (var i = member + hold; i < NQ; i += TEAM) {
        kept.qpos[i] = ws.qpos[i][lane];
        kept.qpos_start[i] = ws.qpos_start[i][lane];
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        kept.qvel[i] = ws.qvel[i][lane];
        kept.qacc[i] = ws.vectors[QACC][i][lane];
        kept.qvel_start[i] = ws.qvel_start[i][lane];
        kept.rate[i] = ws.rate[i][lane];
        kept.qvel_sum[i] = ws.qvel_sum[i][lane];
        kept.qacc_sum[i] = ws.qacc_sum[i][lane];
    }
}

fn take_over() {
    let ws = &workspaces[group];
    let kept = &carried[world - batch.first];
    for (var i = member + hold; i < NQ; i += TEAM) {
        ws.qpos[i][lane] = kept.qpos[i];
        ws.qpos_start[i][lane] = kept.qpos_start[i];
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.qvel[i][lane] = kept.qvel[i];
        ws.vectors[QACC][i][lane] = kept.qacc[i];
        ws.qvel_start[i][lane] = kept.qvel_start[i];
        ws.rate[i][lane] = kept.rate[i];
        ws.qvel_sum[i][lane] = kept.qvel_sum[i];
        ws.qacc_sum[i][lane] = kept.qacc_sum[i];
    }
    take_controls();
}
#endif

// Copies a world's state and controls into its workspace.
fn take() {
    let ws = &workspaces[group];
    let at = world * WIDTH;
    for (var i = member + hold; i < NQ; i += TEAM) {
        // Coordinates that nothing depends on are measured from zero; the reader of the results adds them up.
        ws.qpos[i][lane] = select(state[at + i], 0.0, (plan.drift >> i & 1u) == 1u);
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.qvel[i][lane] = state[at + NQ + i];
        ws.vectors[QACC][i][lane] = state[at + NQ + NV + i];
    }
    take_controls();
}

fn take_controls() {
    let ws = &workspaces[group];
    for (var i = member + hold; i < NU; i += TEAM) {
        // In an evaluation pass there is no control.
        ws.ctrl[i][lane] = select(ctrl[world * NU + i], 0.0, batch.look != 0u);
    }
}

// Stores the state of a world's workspace, if all of it is finite.
fn give() {
    let ws = &workspaces[group];
    var finite = true;
    for (var i = member + hold; i < NU; i += TEAM) {
        finite = finite && good(ws.ctrl[i][lane]);
    }
    for (var i = member + hold; i < NQ; i += TEAM) {
        finite = finite && good(ws.qpos[i][lane]);
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        finite = finite && good(ws.qvel[i][lane]) && good(ws.vectors[QACC][i][lane]);
    }
    if any_of(!finite) {
        if member == 0u {
            frozen[world] = 1u;
        }
        return;
    }
    let at = world * WIDTH;
    for (var i = member + hold; i < NQ; i += TEAM) {
        state[at + i] = ws.qpos[i][lane];
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        state[at + NQ + i] = ws.qvel[i][lane];
        state[at + NQ + NV + i] = ws.vectors[QACC][i][lane];
    }
}

// Neither NaN nor too large. Compared as integers, because a device may assume that there are no NaNs.
fn good(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < bitcast<u32>(LARGEST);
}
