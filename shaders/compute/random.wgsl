// Counter-based random numbers: the same counter gives the same numbers on every device and in any order.
#define_import_path random

// Purposes of random numbers. Different purposes have independent streams.
const RESET: u32 = 1u;
const ACTION: u32 = 2u;

// The key of one world: seed + world, a sum of 64 bits in two words, as in `Seed::world`.
fn key(seed: vec2u, world: u32) -> vec2u {
    let low = seed.x + world;
    return vec2u(low, seed.y + select(0u, 1u, low < world));
}

// Four words for a key, a purpose, and the number of the draw in its sequence (pcg4d; Jarzynski and Olano 2020). `many`
// is the number of the sequence, e.g. of the episode or of the step.
fn draw(key: vec2u, purpose: u32, many: u32, number: u32) -> vec4u {
    var v = vec4u(key.x, key.y ^ (purpose << 28u), many, number) * 1664525u + 1013904223u;
    v = mixed(v);
    v ^= v >> vec4u(16u);
    return mixed(v);
}

fn mixed(word: vec4u) -> vec4u {
    var v = word;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// A word as a number in [0, 1).
fn uniform(word: u32) -> f32 {
    return f32(word >> 8u) * 5.9604645e-8;
}

// Two words as a standard normal number (Box and Muller). The first is never 0, whose logarithm is infinite.
fn normal(a: u32, b: u32) -> f32 {
    let u = f32((a >> 8u) + 1u) * 5.9604645e-8;
    return sqrt(-2.0 * log(u)) * cos(6.2831853 * uniform(b));
}
