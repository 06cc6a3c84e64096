// The ensemble's reward, a thread an env step of a rollout: the mean of the members, each normalised, and how far they differ
// (`src/preference/reward_model.rs`, `ensemble.rs`).
#import network::{Layer, forward, got, hold, put, row, rows}

const LANES: u32 = #{LANES}u;
const OBS: u32 = #{OBS}u;
const ACTS: u32 = #{ACTS}u;
const INPUTS: u32 = #{INPUTS}u;
const MEMBERS: u32 = #{MEMBERS}u;
// Layers of a member.
const LAYERS: u32 = #{LAYERS}u;
const ALL_LAYERS: u32 = #{ALL_LAYERS}u;
// Numbers of the widest layer that are not inputs, in vectors of four. Before them in the room lie the inputs, in FEATURES vectors.
const WIDEST: u32 = #{WIDEST}u;
const FEATURES: u32 = #{FEATURES}u;

struct Scorer {
    // Member after member.
    layers: array<Layer, ALL_LAYERS>,
    inputs: array<Input, INPUTS>,
    // Of each member's output mean and inverse deviation.
    outputs: array<vec2f, MEMBERS>,
    // What products of inputs are multiplied with.
    products: f32,
    // What normalised inputs are held within ±.
    bound: f32,
}

// One number that the networks see, brought into its range, less its mean, times its scale.
struct Input {
    // Of the observation, or of the action where it is OBS or more.
    place: u32,
    mean: f32,
    scale: f32,
    low: f32,
    high: f32,
}

// One dispatch.
struct Batch {
    // The env steps: from `first` up to, but without, `end`, of `samples`.
    first: u32,
    end: u32,
    samples: u32,
    // Where in the rollout each kind of number begins.
    obs: u32,
    actions: u32,
    // Zero, which no compiler knows.
    zero: u32,
    // A NaN.
    broken: u32,
}

@group(1) @binding(0) var<storage, read> batch: Batch;
@group(0) @binding(0) var<storage, read> scorer: Scorer;
@group(0) @binding(2) var<storage, read> rollout: array<f32>;
// Rewards, then deviations between the members. Words, as a device may take it that there are no NaNs.
@group(0) @binding(3) var<storage, read_write> scores: array<u32>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
    hold = batch.zero;
    let sample = batch.first + id.x;
    if sample >= batch.end {
        return;
    }
    row = id.x;
    rows = batch.end - batch.first;
    let broken = see(sample);
    var mean = 0.0;
    var squares = 0.0;
    for (var member = hold; member < MEMBERS; member++) {
        let vote = (output(member) - scorer.outputs[member].x) * scorer.outputs[member].y;
        let off = vote - mean;
        mean += off / f32(member + 1u);
        squares += off * (vote - mean);
    }
    scores[sample] = select(bitcast<u32>(mean), batch.broken, broken);
    scores[batch.samples + sample] = select(bitcast<u32>(sqrt(squares / f32(MEMBERS))), batch.broken, broken);
}

// Writes what the networks see into the room: inputs and, where they see those, products of every two. Returns whether a NaN is among them.
fn see(sample: u32) -> bool {
    var broken = false;
    for (var i = hold; i < INPUTS; i++) {
        let input = scorer.inputs[i];
        let action = batch.actions + sample * ACTS + input.place - OBS;
        let x = rollout[select(batch.obs + sample * OBS + input.place, action, input.place >= OBS)];
        broken = broken || (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
        let moved = (clamp(x, input.low, input.high) - input.mean) * input.scale;
        put(0u, i, clamp(moved, -scorer.bound, scorer.bound));
    }
#ifdef HAS_PRODUCTS
    var next = INPUTS;
    for (var i = hold; i < INPUTS; i++) {
        let factor = got(0u, i) * scorer.products;
        for (var j = i; j < INPUTS; j++) {
            put(0u, next, got(0u, j) * factor);
            next++;
        }
    }
#endif
    return broken;
}

// What a member says of this thread's env step.
fn output(member: u32) -> f32 {
    var start = 0u;
    var to = FEATURES;
    for (var layer = hold; layer < LAYERS; layer++) {
        forward(scorer.layers[member * LAYERS + layer], start, to, layer + 1u == LAYERS);
        start = to;
        to = select(FEATURES, FEATURES + WIDEST, start == FEATURES);
    }
    return got(start, 0u);
}
