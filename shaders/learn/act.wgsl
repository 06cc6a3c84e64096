// A Gaussian policy acts, one thread per world: normalises the observation, computes the mean by a network with tanh
// between its layers, and draws an action with its log-density (`policy.rs` and `gaussian.rs` in crates/learn/src).
#import random::{ACTION, draw, key, normal}
#import network::{Layer, forward, got, hold, put, take}

const LANES: u32 = #{LANES}u;
const OBS: u32 = #{OBS}u;
const ACTS: u32 = #{ACTS}u;
const LAYERS: u32 = #{LAYERS}u;
// Width of the widest layer, in vectors of four.
const WIDEST: u32 = #{WIDEST}u;

struct Policy {
    layers: array<Layer, LAYERS>,
    // For each action: σ, 1/σ, and the range that it is clipped to.
    spread: array<vec4f, ACTS>,
    // Mean and inverse standard deviation of each number of the observation.
    standard: array<vec2f, OBS>,
    // Σ log σ + ½ log 2π.
    constant: f32,
    // Not 0: the action is the mean, without noise.
    is_mean: u32,
}

// The arguments of one dispatch.
struct Batch {
    first: u32,
    end: u32,
    worlds: u32,
    seed_low: u32,
    seed_high: u32,
    // Index in the rollout at which each kind of number starts.
    obs: u32,
    actions: u32,
    log_probs: u32,
    now: u32,
    // Not 0: a new rollout begins.
    rewind: u32,
    // Zero, but not known to the compiler.
    zero: u32,
    // Not 0: the actions are already in the rollout.
    given: u32,
}

@group(1) @binding(0) var<storage, read> batch: Batch;
@group(0) @binding(0) var<storage, read> policy: Policy;
@group(0) @binding(2) var<storage, read_write> rollout: array<f32>;
@group(0) @binding(3) var<storage, read_write> ctrl: array<f32>;
// For each world: the step of the rollout, and all steps so far.
@group(0) @binding(4) var<storage, read_write> clock: array<vec2u>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let world = batch.first + id.x;
    if world >= batch.end {
        return;
    }
    if batch.rewind != 0u {
        clock[world].x = 0u;
        return;
    }
    let now = clock[world];
    clock[world] = now + 1u;
    take(world, batch.worlds, batch.zero);
    let sample = now.x * batch.worlds + world;
    for (var i = hold; i < OBS; i++) {
        let x = rollout[batch.now + world * OBS + i];
        rollout[batch.obs + sample * OBS + i] = x;
        let standard = policy.standard[i];
        put(0u, i, clamp((x - standard.x) * standard.y, -10.0, 10.0));
    }
    if batch.given == 0u {
        for (var layer = hold; layer < LAYERS; layer++) {
            let start = (layer % 2u) * WIDEST;
            forward(policy.layers[layer], start, WIDEST - start, layer + 1u == LAYERS);
        }
        choose(world, sample, now.y);
    }
    for (var k = hold; k < ACTS; k++) {
        let range = policy.spread[k].zw;
        ctrl[world * ACTS + k] = clamp(rollout[batch.actions + sample * ACTS + k], range.x, range.y);
    }
}

// Draws the actions and writes the log-density of the policy there, nats.
fn choose(world: u32, sample: u32, step: u32) {
    let own = key(vec2u(batch.seed_low, batch.seed_high), world);
    let last = (LAYERS % 2u) * WIDEST;
    var squares = 0.0;
    for (var k = hold; k < ACTS; k++) {
        let mean = got(last, k);
        let words = draw(own, ACTION, step, k);
        let spread = policy.spread[k];
        let action = mean + select(spread.x * normal(words.x, words.y), 0.0, policy.is_mean != 0u);
        rollout[batch.actions + sample * ACTS + k] = action;
        // From the rounded action, since the update recomputes it from that.
        let z = (action - mean) * spread.y;
        squares += z * z;
    }
    rollout[batch.log_probs + sample] = -0.5 * squares - policy.constant;
}
