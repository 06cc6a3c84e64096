// What reward models of every kind do, a thread an env step of a rollout: they see inputs, normalised, and products of them; and what their members
// say, each normalised, comes out as its mean and as how far they differ (`src/preference/reward_model.rs`).
#define_import_path score
#import network::{Layer, got, hold, put}

const OBS: u32 = #{OBS}u;
const ACTS: u32 = #{ACTS}u;
const INPUTS: u32 = #{INPUTS}u;
const MEMBERS: u32 = #{MEMBERS}u;
const ALL_LAYERS: u32 = #{ALL_LAYERS}u;

struct Scorer {
    layers: array<Layer, ALL_LAYERS>,
    inputs: array<Input, INPUTS>,
    // Of each member's output mean and inverse deviation.
    outputs: array<vec2f, MEMBERS>,
    // What products of inputs are multiplied with.
    products: f32,
    // What normalised inputs are held within ±.
    bound: f32,
}

// One number that the model sees, brought into its range, less its mean, times its scale.
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

// Writes what the model sees into the room, from vector `start` on: inputs and, where it sees those, products of every two or squares alone. Returns
// whether a NaN is among them.
fn see(sample: u32, start: u32) -> bool {
    var broken = false;
    for (var i = hold; i < INPUTS; i++) {
        let input = scorer.inputs[i];
        let action = batch.actions + sample * ACTS + input.place - OBS;
        let x = rollout[select(batch.obs + sample * OBS + input.place, action, input.place >= OBS)];
        broken = broken || (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
        let moved = (clamp(x, input.low, input.high) - input.mean) * input.scale;
        put(start, i, clamp(moved, -scorer.bound, scorer.bound));
    }
#ifdef HAS_PRODUCTS
    var next = INPUTS;
    for (var i = hold; i < INPUTS; i++) {
        let factor = got(start, i) * scorer.products;
        for (var j = i; j < INPUTS; j++) {
            put(start, next, got(start, j) * factor);
            next++;
        }
    }
#endif
#ifdef HAS_SQUARES
    for (var i = hold; i < INPUTS; i++) {
        let x = got(start, i);
        put(start, INPUTS + i, x * x * scorer.products);
    }
#endif
    return broken;
}

// Mean of the members' votes, and the sum of their squared distances from it (Welford's way), with the vote of one member more.
fn with_vote(votes: vec2f, member: u32, output: f32) -> vec2f {
    let vote = (output - scorer.outputs[member].x) * scorer.outputs[member].y;
    let off = vote - votes.x;
    let mean = votes.x + off / f32(member + 1u);
    return vec2f(mean, votes.y + off * (vote - mean));
}

// Writes mean and standard deviation of all votes; of an env step with a NaN two of them.
fn tell(sample: u32, votes: vec2f, broken: bool) {
    // Where all say the same, rounding may leave a sum below 0.
    let deviation = sqrt(max(votes.y, 0.0) / f32(MEMBERS));
    scores[sample] = select(bitcast<u32>(votes.x), batch.broken, broken);
    scores[batch.samples + sample] = select(bitcast<u32>(deviation), batch.broken, broken);
}
