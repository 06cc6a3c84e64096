// A Gaussian policy acts, a thread a world: the observation normalised, its mean a network with tanh between its layers, a sample and its
// log-density (`src/learn/policy.rs`, `gaussian.rs`).
#import random::{ACTION, draw, key, normal}

const LANES: u32 = #{LANES}u;
const OBS: u32 = #{OBS}u;
const ACTS: u32 = #{ACTS}u;
const LAYERS: u32 = #{LAYERS}u;
// Numbers of the widest layer, in vectors of four.
const WIDEST: u32 = #{WIDEST}u;

struct Policy {
    layers: array<Layer, LAYERS>,
    // Of each action σ, 1/σ, and the range that it is clipped to.
    spread: array<vec4f, ACTS>,
    // Mean and inverse deviation of each number of the observation.
    standard: array<vec2f, OBS>,
    // Σ log σ + ½ log 2π.
    constant: f32,
    // Not 0: actions are the mean, and not drawn.
    is_mean: u32,
}

// y = W x + b: where W begins among `numbers`, a row of outputs for each input, and b; widths in numbers, those of rows in vectors of four.
struct Layer {
    inputs: u32,
    columns: u32,
    weight: u32,
    bias: u32,
}

// One dispatch.
struct Batch {
    first: u32,
    end: u32,
    worlds: u32,
    seed_low: u32,
    seed_high: u32,
    // Where in the rollout each kind of number begins.
    obs: u32,
    actions: u32,
    log_probs: u32,
    now: u32,
    // Not 0: a new rollout begins.
    rewind: u32,
    // Zero, which no compiler knows.
    zero: u32,
    // Not 0: the actions stand in the rollout already.
    given: u32,
}

@group(1) @binding(0) var<storage, read> batch: Batch;
@group(0) @binding(0) var<storage, read> policy: Policy;
@group(0) @binding(1) var<storage, read> numbers: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> rollout: array<f32>;
@group(0) @binding(3) var<storage, read_write> ctrl: array<f32>;
// Of each world the step of the rollout, and steps ever.
@group(0) @binding(4) var<storage, read_write> clock: array<vec2u>;
// Two layers' numbers, those of all worlds side by side.
@group(0) @binding(5) var<storage, read_write> room: array<vec4f>;

var<private> world: u32;
var<private> hold: u32;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
    hold = batch.zero;
    world = batch.first + id.x;
    if world >= batch.end {
        return;
    }
    if batch.rewind != 0u {
        clock[world].x = 0u;
        return;
    }
    let now = clock[world];
    clock[world] = now + 1u;
    let row = now.x * batch.worlds + world;
    for (var i = hold; i < OBS; i++) {
        let x = rollout[batch.now + world * OBS + i];
        rollout[batch.obs + row * OBS + i] = x;
        let standard = policy.standard[i];
        room[(i / 4u) * batch.worlds + world][i % 4u] = clamp((x - standard.x) * standard.y, -10.0, 10.0);
    }
    if batch.given == 0u {
        for (var layer = hold; layer < LAYERS; layer++) {
            forward(layer);
        }
        sample(row, now.y);
    }
    for (var k = hold; k < ACTS; k++) {
        let range = policy.spread[k].zw;
        ctrl[world * ACTS + k] = clamp(rollout[batch.actions + row * ACTS + k], range.x, range.y);
    }
}

// One layer, from one half of the room to the other.
fn forward(index: u32) {
    let layer = policy.layers[index];
    let start = (index % 2u) * WIDEST;
    let to = WIDEST - start;
    for (var column = hold; column < layer.columns; column++) {
        var sum = numbers[layer.bias + column];
        for (var i = hold; i < layer.inputs; i++) {
            let x = room[(start + i / 4u) * batch.worlds + world][i % 4u];
            sum += x * numbers[layer.weight + i * layer.columns + column];
        }
        if index + 1u < LAYERS {
            // Beyond ±9 it is ±1 in single precision.
            sum = tanh(clamp(sum, vec4f(-9.0), vec4f(9.0)));
        }
        room[(to + column) * batch.worlds + world] = sum;
    }
}

// Draws the actions and says how dense the policy is there, nats.
fn sample(row: u32, step: u32) {
    let own = key(vec2u(batch.seed_low, batch.seed_high), world);
    let last = (LAYERS % 2u) * WIDEST;
    var squares = 0.0;
    for (var k = hold; k < ACTS; k++) {
        let mean = room[(last + k / 4u) * batch.worlds + world][k % 4u];
        let words = draw(own, ACTION, step, k);
        let spread = policy.spread[k];
        let action = mean + select(spread.x * normal(words.x, words.y), 0.0, policy.is_mean != 0u);
        rollout[batch.actions + row * ACTS + k] = action;
        // From the rounded action, as the update will compute it again.
        let z = (action - mean) * spread.y;
        squares += z * z;
    }
    rollout[batch.log_probs + row] = -0.5 * squares - policy.constant;
}
