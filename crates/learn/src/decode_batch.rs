//! A small batch of rows, as a language model has while it generates: one token for each of a few texts.
//!
//! A general matrix product repacks the weights so that many rows can use them. With 16 rows the repacking costs more
//! than the arithmetic: libtorch reaches a third of what the CPU can do, and its fixed cost per call adds half as much
//! again. Here the rows of a batch lie side by side in a register. The weights are read once, in memory order, by the
//! same product that small networks use. The output has the same layout as the input. A row's result does not depend on
//! the other rows.

use super::kernels::{Left, Right, Target, product};
use flipside_core::Threads;
use flipside_core::simd::{F32Lanes, Job, PAD, exp, load, padded, run, store, tanh};
use tch::{Device, Kind, Tensor};

/// A batch of rows in the layout `[features, stride]`: the numbers of all rows side by side, padded with zeros to whole
/// registers.
#[derive(Clone, Debug)]
pub struct DecodeBatch {
    rows: usize,
    stride: usize,
    numbers: Vec<f32>,
}

impl DecodeBatch {
    /// The largest number of rows for which this layout pays off.
    pub const MOST: usize = 128;

    /// A tensor `[rows, features]` of any kind.
    pub fn of_tensor(tensor: &Tensor) -> DecodeBatch {
        let (rows, features) = (tensor.size()[0] as usize, tensor.size()[1] as usize);
        let mut flat = vec![0.0; rows * features];
        tensor.to_kind(Kind::Float).to_device(Device::Cpu).contiguous().copy_data(&mut flat, rows * features);
        let mut thin = DecodeBatch::zeros(rows, features);
        thin.fill(&flat);
        thin
    }

    fn zeros(rows: usize, features: usize) -> DecodeBatch {
        let stride = padded(rows);
        DecodeBatch { rows, stride, numbers: vec![0.0; features * stride] }
    }

    /// Takes numbers laid out `[rows, features]`.
    fn fill(&mut self, flat: &[f32]) {
        let features = self.features();
        for (row, flat) in flat.chunks_exact(features.max(1)).enumerate() {
            self.numbers[row..].iter_mut().step_by(self.stride).zip(flat).for_each(|(own, &x)| *own = x);
        }
    }

    /// The numbers laid out `[rows, features]`.
    pub fn to_rows(&self) -> Vec<f32> {
        /// So many features that they stay in the first-level cache while each row copies its own.
        const BLOCK: usize = 256;
        let features = self.features();
        let mut flat = vec![0.0; self.rows * features];
        for (block, numbers) in self.numbers.chunks(BLOCK * self.stride).enumerate() {
            for (row, flat) in flat.chunks_exact_mut(features.max(1)).enumerate() {
                let own = numbers[row..].iter().step_by(self.stride);
                flat[block * BLOCK..].iter_mut().zip(own).for_each(|(flat, &x)| *flat = x);
            }
        }
        flat
    }

    /// `[rows, features]`, f32.
    pub fn to_tensor(&self) -> Tensor {
        Tensor::from_slice(&self.to_rows()).reshape([self.rows as i64, -1])
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row has.
    pub fn features(&self) -> usize {
        self.numbers.len() / self.stride
    }

    /// A range of `count` features, from `first` on.
    pub fn part(&self, first: usize, count: usize) -> DecodeBatch {
        let numbers = self.numbers[first * self.stride..][..count * self.stride].to_vec();
        DecodeBatch { rows: self.rows, stride: self.stride, numbers }
    }

    /// x Wᵀ + b with W `[outputs, inputs]` and b `[outputs]`, f32 or bf16, on the CPU and with inputs side by side in
    /// memory; `None` for other tensors.
    pub fn map(&self, weight: &Tensor, bias: Option<&Tensor>) -> Option<DecodeBatch> {
        let &[outputs, inputs] = &weight.size()[..] else { return None };
        if inputs as usize != self.features() {
            return None;
        }
        let bias = bias.map(|bias| bias.to_kind(Kind::Float).contiguous());
        let bias = bias.as_ref().map_or(Some(&[][..]), |bias| slice(bias, Kind::Float))?;
        let mut y = DecodeBatch::zeros(self.rows, outputs as usize);
        match weight.kind() {
            Kind::Float => map(&self.numbers, self.stride, slice::<f32>(weight, Kind::Float)?, bias, &mut y.numbers),
            Kind::BFloat16 => {
                map(&self.numbers, self.stride, slice::<Bf16>(weight, Kind::BFloat16)?, bias, &mut y.numbers);
            }
            _ => return None,
        }
        Some(y)
    }

    /// Adds `scale` times the other batch.
    pub fn add(&mut self, other: &DecodeBatch, scale: f32) {
        self.numbers.iter_mut().zip(&other.numbers).for_each(|(own, other)| *own += scale * other);
    }

    /// Multiplies element by element.
    pub fn multiply(&mut self, other: &DecodeBatch) {
        self.numbers.iter_mut().zip(&other.numbers).for_each(|(own, other)| *own *= other);
    }

    /// ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), GELU's usual approximation.
    pub fn gelu(&mut self) {
        run(Bend { numbers: &mut self.numbers, gated: false });
    }

    /// x / (1 + e⁻ˣ).
    pub fn silu(&mut self) {
        run(Bend { numbers: &mut self.numbers, gated: true });
    }

    /// max(x, 0).
    pub fn relu(&mut self) {
        self.numbers.iter_mut().for_each(|x| *x = x.max(0.0));
    }

    /// Normalises every `weight.len()` features separately: layer norm if there is a bias, else RMS norm.
    pub fn norm(&self, weight: &[f32], bias: Option<&[f32]>, eps: f64) -> DecodeBatch {
        let mut normed = self.clone();
        let n = weight.len() as f32;
        for group in normed.numbers.chunks_exact_mut(weight.len() * self.stride) {
            let mut mean = vec![0.0; self.stride];
            if bias.is_some() {
                for x in group.chunks_exact(self.stride) {
                    mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += x / n);
                }
            }
            let mut square = vec![0.0; self.stride];
            for x in group.chunks_exact_mut(self.stride) {
                for ((square, x), mean) in square.iter_mut().zip(x).zip(&mean) {
                    *x -= mean;
                    *square += *x * *x / n;
                }
            }
            let scale: Vec<f32> = square.iter().map(|square| 1.0 / (square + eps as f32).sqrt()).collect();
            for (i, x) in group.chunks_exact_mut(self.stride).enumerate() {
                let (weight, bias) = (weight[i], bias.map_or(0.0, |bias| bias[i]));
                x.iter_mut().zip(&scale).for_each(|(x, scale)| *x = *x * scale * weight + bias);
            }
        }
        normed
    }

    /// Rotates the pairs of features (i, i + width/2) of every head of `width` by rotary angles, whose cosines and
    /// sines have `width` features.
    pub fn turn(&mut self, cos: &DecodeBatch, sin: &DecodeBatch) {
        let (stride, half) = (self.stride, cos.numbers.len() / 2);
        for head in self.numbers.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            let angles = cos.numbers.iter().zip(&sin.numbers);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
        debug_assert_eq!(half % stride, 0);
    }
}

/// Keys and values of the columns so far, f32, each `[rows, heads, columns, width]`.
pub struct Past<'a> {
    /// Keys.
    pub keys: &'a mut Tensor,
    /// Values.
    pub values: &'a mut Tensor,
    /// How many columns are filled; the current one goes to this index.
    pub filled: usize,
}

/// Attention of the current column's queries over this and all earlier columns: softmax(q kᵀ/√width + bias) v. The
/// current keys and values are appended to the past ones first. `bias` is `[rows, filled + 1]`: 0, or −∞ where a row
/// must not attend. `None` if the past is not f32 on the CPU.
pub fn attend(q: &DecodeBatch, k: &DecodeBatch, v: &DecodeBatch, past: Past, bias: &[f32]) -> Option<DecodeBatch> {
    let &[rows, heads, columns, width] = &past.keys.size()[..] else { return None };
    let [rows, columns, width] = [rows, columns, width].map(|n| n as usize);
    let each = heads as usize * columns * width;
    let (now, seen) = (past.filled, past.filled + 1);
    let plain = |t: &Tensor| t.device() == Device::Cpu && t.kind() == Kind::Float && t.is_contiguous();
    if !plain(past.keys) || !plain(past.values) || rows != q.rows || seen > columns || bias.len() != rows * seen {
        return None;
    }
    let (keys, values) = (slice_mut(past.keys), slice_mut(past.values));
    let mut out = vec![0.0; rows * q.features()];
    let parts = keys.chunks_mut(each).zip(values.chunks_mut(each)).zip(out.chunks_mut(q.features())).enumerate();
    let work = rows * q.features() * seen * 2;
    threads(work).share_out(parts, |_, (row, ((keys, values), out))| {
        let of =
            |thin: &DecodeBatch| -> Vec<f32> { thin.numbers[row..].iter().step_by(thin.stride).copied().collect() };
        for (past, new) in [(&mut *keys, of(k)), (&mut *values, of(v))] {
            for (past, new) in past.chunks_exact_mut(columns * width).zip(new.chunks_exact(width)) {
                past[now * width..seen * width].copy_from_slice(new);
            }
        }
        run(Attend { q: &of(q), keys, values, columns, width, bias: &bias[row * seen..][..seen], out });
    });
    let mut thin = DecodeBatch::zeros(rows, q.features());
    thin.fill(&out);
    Some(thin)
}

/// Attention of one row's heads.
struct Attend<'a> {
    q: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    columns: usize,
    width: usize,
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Job for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        let Attend { q, keys, values, columns, width, bias, out } = self;
        let scale = 1.0 / (width as f32).sqrt();
        // Several query heads may share one head of keys and values.
        let shared = q.len() / width / (keys.len() / (columns * width));
        let mut weights = vec![0.0_f32; bias.len()];
        for (head, (q, out)) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let at = head / shared * columns * width;
            let (keys, values) = (&keys[at..], &values[at..]);
            for ((weight, key), bias) in weights.iter_mut().zip(keys.chunks_exact(width)).zip(bias) {
                *weight = if *bias == 0.0 { scale * dot(q, key) } else { f32::NEG_INFINITY };
            }
            let top = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            weights.iter_mut().for_each(|weight| *weight = (*weight - top).exp());
            let total: f32 = weights.iter().sum();
            out.fill(0.0);
            for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
                let weight = weight / total;
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
            }
        }
    }
}

/// Σ a b, in sixteen parallel sums so that the additions do not wait for each other.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (mut sums, (a, b)) = ([0.0_f32; 16], (a.chunks_exact(16), b.chunks_exact(16)));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Replaces every number x by exp(x − `top`). Results below f32's normal range become the smallest normal number.
pub fn exponentials(numbers: &mut [f32], top: f32) {
    run(Exponentials { numbers, top });
}

struct Exponentials<'a> {
    numbers: &'a mut [f32],
    top: f32,
}

impl Job for Exponentials<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        let top = L::splat(self.top);
        for numbers in self.numbers.chunks_mut(L::LANES) {
            let mut filled = [0.0; PAD];
            filled[..numbers.len()].copy_from_slice(numbers);
            store(exp(load::<L>(&filled, 0) - top), &mut filled, 0);
            numbers.copy_from_slice(&filled[..numbers.len()]);
        }
    }
}

/// GELU or SiLU of every number.
struct Bend<'a> {
    numbers: &'a mut [f32],
    gated: bool,
}

impl Job for Bend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        let (half, one) = (L::splat(0.5), L::splat(1.0));
        let root = L::splat((2.0 / std::f32::consts::PI).sqrt());
        for at in (0..self.numbers.len()).step_by(L::LANES) {
            let x: L = load(self.numbers, at);
            let y = if self.gated {
                x / (one + exp(L::splat(0.0) - x))
            } else {
                let inner = root * (x * x * x).mul_add(L::splat(0.044_715), x);
                half * x * (one + tanh(inner))
            };
            store(y, self.numbers, at);
        }
    }
}

/// The numbers of a contiguous tensor of this kind on the CPU. T must be the type that stores this kind.
fn slice<T>(tensor: &Tensor, kind: Kind) -> Option<&[T]> {
    let plain = tensor.device() == Device::Cpu && tensor.kind() == kind && tensor.is_contiguous();
    let sized = kind.elt_size_in_bytes() == size_of::<T>() && tensor.numel() > 0;
    // SAFETY: a contiguous tensor is `numel` numbers in memory, of the size just compared, and lives as long as it is
    // borrowed. The caller is the thread that trains the model, so nobody writes meanwhile.
    (plain && sized).then(|| unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), tensor.numel()) })
}

/// The numbers of a contiguous f32 tensor on the CPU that nobody else reads meanwhile.
fn slice_mut(tensor: &mut Tensor) -> &mut [f32] {
    // SAFETY: `numel` floats, which live as long as the tensor and are borrowed nowhere else.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

/// A number type in which weights are stored.
trait Number: Copy + Sync {
    /// The numbers themselves if they are `f32`.
    fn as_f32(numbers: &[Self]) -> Option<&[f32]>;
    /// The number as an `f32`.
    fn widened(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn as_f32(numbers: &[f32]) -> Option<&[f32]> {
        Some(numbers)
    }
    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

/// The bits of a bfloat16 number: the upper half of an `f32`.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bf16(u16);

impl Number for Bf16 {
    #[inline(always)]
    fn as_f32(_: &[Bf16]) -> Option<&[f32]> {
        None
    }
    #[inline(always)]
    fn widened(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// How many outputs a thread processes at once.
const SHARE: usize = 48;

/// W x + b of x `[inputs, stride]` into y `[outputs, stride]`, on all threads.
fn map<T: Number>(x: &[f32], stride: usize, weight: &[T], bias: &[f32], y: &mut [f32]) {
    let inputs = x.len() / stride;
    let work = weight.len() * stride;
    threads(work).share_out(y.chunks_mut(SHARE * stride).enumerate(), |_, (i, y)| {
        let (first, count) = (i * SHARE, y.len() / stride);
        let weight = &weight[first * inputs..(first + count) * inputs];
        let bias = bias.get(first..first + count).unwrap_or(&[]);
        run(Map { x, inputs, stride, weight, bias, y });
    });
}

/// With fewer multiplications than this, waking another thread costs more than doing them here.
const ALONE: usize = 1 << 19;

/// How many threads this many multiplications are worth.
fn threads(work: usize) -> Threads {
    if work < ALONE { Threads::Calling } else { Threads::Global }
}

/// A thread's part of a map.
struct Map<'a, T> {
    x: &'a [f32],
    inputs: usize,
    stride: usize,
    weight: &'a [T],
    bias: &'a [f32],
    y: &'a mut [f32],
}

/// How many outputs' weights are widened at once: as many rows as a product may take.
const WIDENED: usize = 12;

/// Numbers in a cache line.
const LINE: usize = 16;

/// Rows of a multiple of so many numbers all begin in the same set of the first cache (64 sets of lines) …
const SAME_SET: usize = 64 * LINE;

/// … which holds 8 lines or more. A product that reads more rows at once would fetch every line again and again.
const WAYS: usize = 6;

impl<T: Number> Job for Map<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        let Map { x, inputs, stride, weight, bias, y } = self;
        let right = Right { numbers: x, stride, columns: stride };
        let bias_from = |output: usize| bias.get(output..).unwrap_or(&[]);
        if let Some(numbers) = T::as_f32(weight) {
            let side_by_side = if inputs.is_multiple_of(SAME_SET) { WAYS } else { y.len() / stride };
            let rows = numbers.chunks(side_by_side * inputs).zip(y.chunks_mut(side_by_side * stride));
            for (i, (numbers, y)) in rows.enumerate() {
                let left = Left { numbers, stride: inputs };
                let mut outputs = Outputs { bias: bias_from(i * side_by_side), y, stride };
                product::<L, false, _>(outputs.y.len() / stride, inputs, left, right, &mut outputs);
            }
            return;
        }
        // One cache line between rows, for the same reason as above.
        let apart = inputs + LINE;
        let mut wide = vec![0.0; WIDENED * apart];
        for (i, (weight, y)) in weight.chunks(WIDENED * inputs).zip(y.chunks_mut(WIDENED * stride)).enumerate() {
            for (wide, weight) in wide.chunks_mut(apart).zip(weight.chunks(inputs)) {
                wide.iter_mut().zip(weight).for_each(|(wide, number)| *wide = number.widened());
            }
            let left = Left { numbers: &wide, stride: apart };
            let mut outputs = Outputs { bias: bias_from(i * WIDENED), y, stride };
            product::<L, false, _>(outputs.y.len() / stride, inputs, left, right, &mut outputs);
        }
    }
}

/// One row per output, initialised with its bias.
struct Outputs<'a> {
    bias: &'a [f32],
    y: &'a mut [f32],
    stride: usize,
}

impl Target for Outputs<'_> {
    #[inline(always)]
    fn start<L: F32Lanes>(&self, row: usize, _column: usize) -> L {
        L::splat(self.bias.get(row).copied().unwrap_or(0.0))
    }
    #[inline(always)]
    fn finish<L: F32Lanes>(&mut self, row: usize, column: usize, sums: L) {
        store(sums, self.y, row * self.stride + column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn thin_maps_are_libtorchs() {
        let mut stream = Seed(0).stream("thin");
        let mut draw = |shape: &[i64]| {
            let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| StandardNormal.sample(&mut stream)).collect();
            Tensor::from_slice(&numbers).reshape(shape)
        };
        let bf16 = Kind::BFloat16;
        for (rows, inputs, outputs) in
            [(1, 9, 40), (4, 3, 5), (7, 64, 100), (16, 768, 1030), (17, 33, 1), (90, 100, 97)]
        {
            let (x, weight) = (draw(&[rows, inputs]), draw(&[outputs, inputs]));
            let bias = draw(&[outputs]);
            for (bias, kind) in [(None, Kind::Float), (Some(&bias), Kind::Float), (Some(&bias), bf16)] {
                let weight = weight.to_kind(kind);
                let bias = bias.map(|bias| bias.to_kind(kind));
                let ours = DecodeBatch::of_tensor(&x).map(&weight, bias.as_ref()).unwrap().to_tensor();
                let wide = |t: &Tensor| t.to_kind(Kind::Double);
                let truth = wide(&x).linear(&wide(&weight), bias.as_ref().map(wide).as_ref());
                let worst = ((wide(&ours) - truth).abs().max()).double_value(&[]);
                // Rounding errors add up like a random walk.
                assert!(worst < 1e-5 * (inputs as f64).sqrt(), "{rows}×{inputs}×{outputs}: {worst}");
            }
            // A row has the same bits beside fewer rows.
            let alone = DecodeBatch::of_tensor(&x.narrow(0, 0, 1)).map(&weight, None).unwrap().to_tensor();
            assert!(DecodeBatch::of_tensor(&x).map(&weight, None).unwrap().to_tensor().narrow(0, 0, 1).equal(&alone));
        }
        let odd = draw(&[5, 6]);
        assert!(DecodeBatch::of_tensor(&odd).map(&draw(&[6, 5]).tr(), None).is_none());
        assert!(DecodeBatch::of_tensor(&odd).map(&draw(&[6, 5]), None).is_none());
    }

    #[test]
    fn exponentials_end_where_registers_do_not() {
        let mut numbers: Vec<f32> = (0..37).map(|i| i as f32 / 4.0 - 3.0).collect();
        let truth: Vec<f32> = numbers.iter().map(|x| (x - 1.5).exp()).collect();
        exponentials(&mut numbers, 1.5);
        assert!(numbers.iter().zip(&truth).all(|(a, b)| (a / b - 1.0).abs() < 3e-7));
    }
}
