// A small network, one thread per row: linear layers with a leaky rectifier, a cosine or tanh between them, laid out by
// crates/learn/src/device_network.rs.
#define_import_path network

// y = W x + b. `weight` and `bias` are the indices in `numbers` at which W (a row of outputs for each input) and b
// start. `inputs` counts numbers, `columns` is the number of outputs in vectors of four.
struct Layer {
    inputs: u32,
    columns: u32,
    weight: u32,
    bias: u32,
}

@group(0) @binding(1) var<storage, read> numbers: array<vec4f>;
// Scratch memory: inputs and outputs of layers, `[vector, row]`.
@group(0) @binding(5) var<storage, read_write> room: array<vec4f>;

// This thread's row, and the number of rows.
var<private> row: u32;
var<private> rows: u32;
// Zero, but not known to the compiler.
var<private> hold: u32;

// Must be called first: sets this thread's row to `own` of `all`.
fn take(own: u32, all: u32, zero: u32) {
    row = own;
    rows = all;
    hold = zero;
}

// Writes number i of this thread's row, in the part of the scratch memory that starts at vector `start`.
fn put(start: u32, i: u32, x: f32) {
    room[(start + i / 4u) * rows + row][i % 4u] = x;
}

fn got(start: u32, i: u32) -> f32 {
    return room[(start + i / 4u) * rows + row][i % 4u];
}

// One layer, from the part of the scratch memory at `start` to that at `to`.
fn forward(layer: Layer, start: u32, to: u32, is_last: bool) {
    for (var column = hold; column < layer.columns; column++) {
        var sum = numbers[layer.bias + column];
        var weight = layer.weight + column;
        for (var i = hold; i < layer.inputs / 4u; i++) {
            let x = room[(start + i) * rows + row];
            sum += x.x * numbers[weight];
            sum += x.y * numbers[weight + layer.columns];
            sum += x.z * numbers[weight + 2u * layer.columns];
            sum += x.w * numbers[weight + 3u * layer.columns];
            weight += 4u * layer.columns;
        }
        for (var i = hold + layer.inputs / 4u * 4u; i < layer.inputs; i++) {
            sum += got(start, i) * numbers[weight];
            weight += layer.columns;
        }
        if !is_last {
#ifdef RECTIFIES
            sum = max(sum, 0.01 * sum);
#else ifdef UNDULATES
            sum = wave(sum);
#else
            // Beyond ±9 it is ±1 in single precision.
            sum = tanh(clamp(sum, vec4f(-9.0), vec4f(9.0)));
#endif
        }
        room[(to + column) * rows + row] = sum;
    }
}

// cos 2πx. WGSL's own cosine is only guaranteed to an error of 2⁻¹¹, and only within ±π. This is the sine of the
// complement to a quarter turn, by its Taylor series, whose next term is below 6e-8 there.
fn wave(x: vec4f) -> vec4f {
    let angle = 6.2831855 * (0.25 - abs(x - round(x)));
    let z = angle * angle;
    let tail = 1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362880.0 - z * (1.0 / 39916800.0)));
    return angle + angle * z * (z * tail - 1.0 / 6.0);
}
