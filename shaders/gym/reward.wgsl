// The task of worlds in device memory, one thread per world: observations, rewards, ends of episodes and resets
// (`gym/task.rs` and `gym/vector.rs` in crates/envs, with `Autoreset::SameStep`). The task is a table, laid out by
// crates/envs/src/gym/on_device/table.rs.
#import physics::plan::{THREADS, NQ, NV, NU, NBODY, NONE}
#import physics::spatial::sin_cos
#import random::{RESET, draw, key, normal, uniform}

const OBS: u32 = #{OBS}u;
// Number of terms of the reward, and of the terms of the teacher reward, which follow them.
const TERMS: u32 = #{TERMS}u;
const TEACHER_REWARDS: u32 = #{TEACHER_REWARDS}u;

struct Task {
    dt: f32,
    horizon: u32,
    // Whether an unhealthy robot ends the episode.
    terminates: u32,
    // Number of bounds that a healthy robot satisfies; they are the first ones.
    health: u32,
    // Reset noise: 0 for none, 1 for uniform, 2 for normal; and its scale.
    qpos_noise: u32,
    qvel_noise: u32,
    qpos_size: f32,
    qvel_size: f32,
    drifts: u32,
    quaternions: u32,
    places: u32,
    // Number of elements. Each world has `width` derived numbers, in which the body frames start at `frames`.
    count: u32,
    frames: u32,
    width: u32,
    padding_a: u32,
    padding_b: u32,
    parts: array<vec4f, NBODY>,
    roots: array<vec4u, NBODY>,
    elements: array<Element, #{ELEMENTS}>,
    bounds: array<Bound, #{BOUNDS}>,
    terms: array<Term, #{ALL_TERMS}>,
    drift: array<Drift, 3>,
    place: array<Place, #{PLACES}>,
    placed: array<Placed, #{PLACED}>,
    // Of each coordinate: its value at a reset, and whether a quaternion starts there.
    start: array<Start, NQ>,
}

const QPOS: u32 = 0u;
const QVEL: u32 = 1u;
const ACTION: u32 = 2u;
// Derived numbers of a world. A force is zero at the beginning of an episode.
const DERIVED: u32 = 3u;
const FORCE: u32 = 4u;
const BODY: u32 = 5u;
const CENTER: u32 = 6u;

const SIN: u32 = 1u;
const COS: u32 = 2u;

// One number of a signal: a number of the state, mapped (sine, cosine or nothing), then clipped to [low, high].
struct Element {
    offset: vec3f,
    kind: u32,
    index: u32,
    axis: u32,
    other: u32,
    map: u32,
    low: f32,
    high: f32,
    // Not 0: drifting coordinates are relative to their values at the beginning of the step.
    relative_: u32,
    padding: u32,
}

struct Bound {
    first: u32,
    count: u32,
    above: f32,
    below: f32,
    at_least: f32,
    at_most: f32,
    padding_a: u32,
    padding_b: u32,
}

const ALIVE: u32 = 0u;
const VELOCITY: u32 = 1u;
const VALUE: u32 = 2u;
const SUM_SQUARES: u32 = 3u;
const NORM: u32 = 4u;
const DOT: u32 = 5u;

// One term of the reward: its signal, its factors, and the bounds within which it counts.
struct Term {
    kind: u32,
    first: u32,
    count: u32,
    other: u32,
    factor: u32,
    factors: u32,
    bound: u32,
    bounds: u32,
    weight: f32,
    goal: f32,
    low: f32,
    high: f32,
}

struct Drift {
    coordinate: u32,
    axis: u32,
    root: u32,
    padding: u32,
}

struct Place {
    first: u32,
    count: u32,
    nearer: f32,
    farther: f32,
}

struct Placed {
    qpos: u32,
    qvel: u32,
    low: f32,
    high: f32,
    center: f32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

struct Start {
    qpos: f32,
    quaternion: u32,
}

// The arguments of one dispatch.
struct Batch {
    // The worlds first..end, of `worlds` in all.
    first: u32,
    end: u32,
    worlds: u32,
    what: u32,
    seed: vec2u,
    // Not 0: the worlds' first episodes start at step numbers spread over the horizon; 0: all start at step 0.
    stagger: u32,
    // Number of worlds whose states are recorded.
    trailed: u32,
    // Index in the rollout at which each kind of number starts.
    obs: u32,
    rewards: u32,
    teacher_rewards: u32,
    flags: u32,
    finals: u32,
    now: u32,
    trail: u32,
    // How many final observations of truncated episodes can be recorded per world.
    ends: u32,
    // Zero, but not known to the compiler.
    zero: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

// Values of `what`: begin a rollout; reset every world; compute reward and observation of a step; observe the worlds
// that were reset.
const BEGIN_ROLLOUT: u32 = 0u;
const RESET_ALL: u32 = 1u;
const REWARD: u32 = 2u;
const OBSERVE: u32 = 3u;

@group(1) @binding(0) var<storage, read> batch: Batch;
@group(0) @binding(0) var<storage, read> task: Task;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<storage, read> ctrl: array<f32>;
@group(0) @binding(3) var<storage, read> derived: array<f32>;
@group(0) @binding(4) var<storage, read_write> frozen: array<u32>;
// Records of each world's episode, `[number, world]`.
@group(0) @binding(5) var<storage, read_write> books: array<u32>;
@group(0) @binding(6) var<storage, read_write> rollout: array<f32>;

// Values of `frozen`: the world diverged, or it was reset and has not been observed yet.
const BROKEN: u32 = 1u;
const BEGINS: u32 = 2u;
// Indices of the records: steps of the episode, episodes begun, steps of the rollout, truncated episodes in it; signals
// whose velocity the next reward needs; drifting coordinates at the beginning of the step; values of the elements.
const LENGTH: u32 = 0u;
const EPISODES: u32 = 1u;
const ROW: u32 = 2u;
const ENDS: u32 = 3u;
const BEFORE: u32 = 4u;
const ORIGIN: u32 = BEFORE + TERMS + TEACHER_REWARDS;
const VALUES: u32 = ORIGIN + NQ;
const WIDTH: u32 = NQ + 2u * NV;

var<private> world: u32;
// Zero, where loops start: see `hold` in shaders/physics.
var<private> hold: u32;
var<private> begins: bool;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
    hold = batch.zero;
    world = batch.first + id.x;
    if world >= batch.end {
        return;
    }
    begins = false;
    if batch.what == BEGIN_ROLLOUT {
        tally(ROW, 0u);
        tally(ENDS, 0u);
        trail(0u);
    } else if batch.what == RESET_ALL {
        tally(EPISODES, 0u);
        reset();
        tally(LENGTH, select(0u, u32(f32(world) * f32(task.horizon) / f32(batch.worlds)), batch.stagger != 0u));
    } else if batch.what == REWARD {
        reward_and_observe();
    } else if frozen[world] == BEGINS {
        begins = true;
        read_all();
        observe();
        remember();
        frozen[world] = 0u;
        trail(counted(ROW));
    }
}

// Computes reward and observation, and whether the episode ended.
fn reward_and_observe() {
    read_all();
    let row = counted(ROW);
    let at = row * batch.worlds + world;
    let healthy = hold_all(0u, task.health);
    var reward = 0.0;
    var teacher_reward = 0.0;
    for (var k = hold; k < TERMS + TEACHER_REWARDS; k++) {
        let paid = pay(k, healthy);
        reward += select(0.0, paid, k < TERMS);
        teacher_reward += select(paid, 0.0, k < TERMS);
    }
    if TEACHER_REWARDS == 0u {
        teacher_reward = reward;
    }
    let broken = frozen[world] == BROKEN;
    var finite = !broken && good(reward) && good(teacher_reward);
    for (var i = hold; i < OBS; i++) {
        finite = finite && good(book(VALUES + i));
    }
    // If the physics is no longer finite, the last finite observation stays, the reward is 0, and the episode is
    // truncated.
    if finite {
        observe();
    }
    let length = counted(LENGTH) + 1u;
    let terminated = task.terminates != 0u && !healthy;
    let truncated = !terminated && (length >= task.horizon || !finite);
    rollout[batch.rewards + at] = select(0.0, reward, finite);
    rollout[batch.teacher_rewards + at] = select(0.0, teacher_reward, finite);
    var flags = select(0u, 1u, terminated) | select(0u, 2u, truncated) | select(4u, 0u, finite);
    if truncated {
        let end = counted(ENDS);
        if end < batch.ends {
            flags |= 8u;
            let to = batch.finals + (end * batch.worlds + world) * OBS;
            for (var i = hold; i < OBS; i++) {
                rollout[to + i] = rollout[batch.now + world * OBS + i];
            }
            tally(ENDS, end + 1u);
        }
    }
    rollout[batch.flags + at] = f32(flags);
    tally(LENGTH, length);
    tally(ROW, row + 1u);
    if !broken {
        remember();
        for (var d = hold; d < task.drifts; d++) {
            let i = task.drift[d].coordinate;
            note(ORIGIN + i, book(ORIGIN + i) + state[world * WIDTH + i]);
            // From now on the coordinate counts from this position.
            state[world * WIDTH + i] = 0.0;
        }
    }
    if terminated || truncated {
        reset();
    } else {
        trail(row + 1u);
    }
}

// Draws the initial state of an episode. It is observed in a later dispatch with OBSERVE.
fn reset() {
    let episode = counted(EPISODES);
    tally(EPISODES, episode + 1u);
    tally(LENGTH, 0u);
    let own = key(batch.seed, world);
    let at = world * WIDTH;
    for (var i = hold; i < NQ; i++) {
        let words = draw(own, RESET, episode, i);
        state[at + i] = task.start[i].qpos + noise(task.qpos_noise, task.qpos_size, words);
    }
    for (var i = hold; i < NV; i++) {
        let words = draw(own, RESET, episode, NQ + i);
        state[at + NQ + i] = noise(task.qvel_noise, task.qvel_size, words);
        state[at + NQ + NV + i] = 0.0;
    }
    for (var i = hold; i < NQ; i++) {
        if task.start[i].quaternion != 0u {
            let q = vec4f(state[at + i], state[at + i + 1u], state[at + i + 2u], state[at + i + 3u]);
            let turned = q * (1.0 / sqrt(dot(q, q)));
            for (var k = 0u; k < 4u; k++) {
                state[at + i + k] = turned[k];
            }
        }
    }
    for (var p = hold; p < task.places; p++) {
        place(p, own, episode);
    }
    for (var d = hold; d < task.drifts; d++) {
        let i = task.drift[d].coordinate;
        note(ORIGIN + i, state[at + i]);
        state[at + i] = 0.0;
    }
    frozen[world] = BEGINS;
}

fn noise(kind: u32, size: f32, words: vec4u) -> f32 {
    let made = select(2.0 * uniform(words.x) - 1.0, normal(words.x, words.y), kind == 2u);
    return select(size * made, 0.0, kind == 0u);
}

// Draws joint positions from a box until their distance from the centre is within its bounds. Their velocities are 0.
fn place(p: u32, own: vec2u, episode: u32) {
    let found = task.place[p];
    let at = world * WIDTH;
    for (var attempt = 0u; attempt < 1000u; attempt++) {
        var squared = 0.0;
        for (var k = found.first; k < found.first + found.count; k++) {
            let one = task.placed[k];
            let word = draw(own, RESET, episode, 1024u * (attempt + 1u) + k).x;
            let x = one.low + (one.high - one.low) * uniform(word);
            state[at + one.qpos] = x;
            state[at + NQ + one.qvel] = 0.0;
            squared += (x - one.center) * (x - one.center);
        }
        let distance = sqrt(squared);
        if distance < found.nearer && distance > found.farther {
            break;
        }
    }
}

// The term's contribution to the reward of the step.
fn pay(k: u32, healthy: bool) -> f32 {
    let term = task.terms[k];
    if !hold_all(term.bound, term.bounds) {
        return 0.0;
    }
    var made = 0.0;
    for (var i = hold; i < term.count; i++) {
        let x = book(VALUES + term.first + i) - term.goal;
        if term.kind == DOT {
            made += x * book(VALUES + term.other + i);
        } else {
            made += select(x * x, x, term.kind == VALUE);
        }
    }
    if term.kind == NORM {
        made = sqrt(made);
    } else if term.kind == ALIVE {
        made = select(0.0, 1.0, healthy);
    } else if term.kind == VELOCITY {
        made = (book(VALUES + term.first) - book(BEFORE + k)) / task.dt - term.goal;
    }
    made *= term.weight;
    for (var i = hold; i < term.factors; i++) {
        made *= book(VALUES + term.factor + i);
    }
    return clamp(made, term.low, term.high);
}

// Whether every number of the signals of these bounds is within them.
fn hold_all(first: u32, count: u32) -> bool {
    var kept = true;
    for (var b = first + hold; b < first + count; b++) {
        let bound = task.bounds[b];
        for (var i = hold; i < bound.count; i++) {
            let x = book(VALUES + bound.first + i);
            kept = kept && good(x) && x > bound.above && x < bound.below && x >= bound.at_least && x <= bound.at_most;
        }
    }
    return kept;
}

// Records what the next reward needs from this state: the signals whose velocity is rewarded, relative to the origin
// that the next step uses.
fn remember() {
    for (var k = hold; k < TERMS + TEACHER_REWARDS; k++) {
        let term = task.terms[k];
        if term.kind == VELOCITY {
            note(BEFORE + k, book(VALUES + term.first) - shift(task.elements[term.first]));
        }
    }
}

// How far an element's origin moves at the end of this step.
fn shift(element: Element) -> f32 {
    if element.relative_ == 0u || begins {
        return 0.0;
    }
    var sum = 0.0;
    for (var d = hold; d < task.drifts; d++) {
        let moved = state[world * WIDTH + task.drift[d].coordinate];
        sum += moved * carried(element, d);
    }
    return sum;
}

// The derivative of an element with respect to drifting coordinate `d`. Two bodies on the same root cancel.
fn carried(element: Element, d: u32) -> f32 {
    let drift = task.drift[d];
    if element.kind == QPOS {
        return select(0.0, 1.0, element.index == drift.coordinate);
    }
    if element.axis != drift.axis {
        return 0.0;
    }
    if element.kind == BODY {
        let here = select(0.0, 1.0, task.roots[element.index].x == drift.root);
        let there = element.other != NONE && task.roots[min(element.other, NBODY - 1u)].x == drift.root;
        return here - select(0.0, 1.0, there);
    }
    if element.kind == CENTER {
        var share = 0.0;
        for (var b = hold; b < NBODY; b++) {
            share += select(0.0, task.parts[b].w, task.roots[b].x == drift.root);
        }
        return share;
    }
    return 0.0;
}

// Reads every element of the task.
fn read_all() {
    for (var e = hold; e < task.count; e++) {
        note(VALUES + e, sense(task.elements[e]));
    }
}

fn sense(element: Element) -> f32 {
    let row = world * task.width;
    var x = 0.0;
    if element.kind == QPOS {
        x = state[world * WIDTH + element.index];
    } else if element.kind == QVEL {
        x = state[world * WIDTH + NQ + element.index];
    } else if element.kind == ACTION {
        x = select(ctrl[world * NU + element.index], 0.0, begins);
    } else if element.kind == DERIVED {
        x = derived[row + element.index];
    } else if element.kind == FORCE {
        x = select(derived[row + element.index], 0.0, begins);
    } else if element.kind == BODY {
        x = point(element.index, element.offset, element.axis);
        if element.other != NONE {
            x -= point(element.other, vec3f(), element.axis);
        }
    } else {
        for (var b = hold; b < NBODY; b++) {
            x += task.parts[b].w * point(b, task.parts[b].xyz, element.axis);
        }
    }
    if element.relative_ == 0u {
        for (var d = hold; d < task.drifts; d++) {
            x += book(ORIGIN + task.drift[d].coordinate) * carried(element, d);
        }
    }
    if element.map != 0u {
        let turn = sin_cos(x);
        x = select(turn.x, turn.y, element.map == COS);
    }
    return clamp(x, element.low, element.high);
}

// One world coordinate of a point given in a body's frame. A frame is stored as position and rows of the rotation
// matrix.
fn point(body: u32, offset: vec3f, axis: u32) -> f32 {
    let at = world * task.width + task.frames + 12u * body;
    let row = vec3f(derived[at + 3u + 3u * axis], derived[at + 4u + 3u * axis], derived[at + 5u + 3u * axis]);
    return derived[at + axis] + dot(row, offset);
}

// Writes the observation, for which the next action is chosen.
fn observe() {
    for (var i = hold; i < OBS; i++) {
        rollout[batch.now + world * OBS + i] = book(VALUES + i);
    }
}

// Records qpos and qvel before step `row` of the rollout.
fn trail(row: u32) {
    if world >= batch.trailed {
        return;
    }
    let to = batch.trail + (row * batch.trailed + world) * (NQ + NV);
    for (var i = hold; i < NQ; i++) {
        rollout[to + i] = state[world * WIDTH + i];
    }
    for (var d = hold; d < task.drifts; d++) {
        let i = task.drift[d].coordinate;
        rollout[to + i] = book(ORIGIN + i);
    }
    for (var i = hold; i < NV; i++) {
        rollout[to + NQ + i] = state[world * WIDTH + NQ + i];
    }
}

fn book(number: u32) -> f32 {
    return bitcast<f32>(counted(number));
}

fn note(number: u32, x: f32) {
    tally(number, bitcast<u32>(x));
}

fn counted(number: u32) -> u32 {
    return books[number * batch.worlds + world];
}

fn tally(number: u32, n: u32) {
    books[number * batch.worlds + world] = n;
}

// Whether x is neither NaN nor infinite. Compared as integers, since a device may assume that there are no NaNs.
fn good(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u;
}
