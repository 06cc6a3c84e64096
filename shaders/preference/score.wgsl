// The part shared by all kinds of reward models, one thread per env step of a rollout. It writes the normalised inputs
// and their products, and computes mean and standard deviation of the members' normalised outputs
// (`crates/preference/src/reward_model.rs`).
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
    // Mean and inverse standard deviation of each member's output.
    outputs: array<vec2f, MEMBERS>,
    // Factor of the products of inputs.
    products: f32,
    // Normalised inputs are clipped to ± this.
    bound: f32,
}

// One input of the model: (clamp(x, low, high) − mean) · scale.
struct Input {
    // Index in the observation, or OBS plus the index in the action.
    place: u32,
    mean: f32,
    scale: f32,
    low: f32,
    high: f32,
}

// The arguments of one dispatch.
struct Batch {
    // The env steps first..end, of `samples` in all.
    first: u32,
    end: u32,
    samples: u32,
    // Index in the rollout at which each kind of number starts.
    obs: u32,
    actions: u32,
    // Zero, but not known to the compiler.
    zero: u32,
    // A NaN.
    broken: u32,
}

@group(1) @binding(0) var<storage, read> batch: Batch;
@group(0) @binding(0) var<storage, read> scorer: Scorer;
@group(0) @binding(2) var<storage, read> rollout: array<f32>;
// Rewards, then standard deviations between the members. Stored as integers, since a device may assume that there are
// no NaNs.
@group(0) @binding(3) var<storage, read_write> scores: array<u32>;

// Writes the model's inputs into the scratch memory, from vector `start` on, followed by the products of every two or
// the squares alone, if the model has them. Returns whether an input is NaN.
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

// Welford's update: the mean of the members' votes and the sum of their squared distances from it, after the vote of
// one more member.
fn with_vote(votes: vec2f, member: u32, output: f32) -> vec2f {
    let vote = (output - scorer.outputs[member].x) * scorer.outputs[member].y;
    let off = vote - votes.x;
    let mean = votes.x + off / f32(member + 1u);
    return vec2f(mean, votes.y + off * (vote - mean));
}

// Writes mean and standard deviation of all votes. Both are NaN if an input was NaN.
fn tell(sample: u32, votes: vec2f, broken: bool) {
    // If all votes are equal, rounding may give a sum below 0.
    let deviation = sqrt(max(votes.y, 0.0) / f32(MEMBERS));
    scores[sample] = select(bitcast<u32>(votes.x), batch.broken, broken);
    scores[batch.samples + sample] = select(bitcast<u32>(deviation), batch.broken, broken);
}
