//! Linear maps of a few rows, as a language model has them when it writes: one token for each of a handful of texts.
//!
//! A general product repacks the weights so that many rows can use them, and with 16 rows that costs more than the arithmetic: libtorch
//! reaches a third of what the processor can do. Here the weights are read once, in the order in which they lie, by the product that small
//! networks have too. A row's result does not depend on the rows beside it.

use super::kernels::{Left, Right, Target, product, store};
use super::lanes::{Job, Lanes, padded, run};
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Rows for which this is the faster way. Fewer do not fill a register, more are worth packing for.
const ROWS: std::ops::RangeInclusive<usize> = 4..=128;

/// x Wᵀ + b in f32 of x `[.., inputs]` and W `[outputs, inputs]`, without a gradient; `None` where libtorch is the one to ask: elsewhere than on the
/// CPU, in other kinds of numbers than f32 and bf16 (whose sums are f32), with other strides or another number of rows.
pub fn thin_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
    let (mut shape, kind) = (x.size(), x.kind());
    let &[outputs, inputs] = &weight.size()[..] else { return None };
    let rows = x.numel() / (inputs as usize).max(1);
    let fits = shape.last() == Some(&inputs) && inputs > 0 && outputs > 0 && ROWS.contains(&rows);
    if !fits || x.device() != Device::Cpu || weight.device() != Device::Cpu || weight.kind() != kind {
        return None;
    }
    let x = x.to_kind(Kind::Float).contiguous();
    let bias = bias.map(|bias| bias.to_kind(Kind::Float).contiguous());
    let (inputs, stride) = (inputs as usize, padded(rows));
    // The batch becomes the right factor: a register holds one input of several rows.
    let mut turned = vec![0.0; inputs * stride];
    for (row, x) in slice::<f32>(&x, Kind::Float)?.chunks_exact(inputs).enumerate() {
        turned[row..].iter_mut().step_by(stride).zip(x).for_each(|(turned, &x)| *turned = x);
    }
    let bias = bias.as_ref().map_or(Some(&[][..]), |bias| slice(bias, Kind::Float))?;
    let mut y = Tensor::empty([outputs, stride as i64], (Kind::Float, Device::Cpu));
    match kind {
        Kind::Float => map(&turned, stride, slice::<f32>(weight, kind)?, bias, slice_mut(&mut y)),
        Kind::BFloat16 => map(&turned, stride, slice::<Bf16>(weight, kind)?, bias, slice_mut(&mut y)),
        _ => return None,
    }
    *shape.last_mut()? = outputs;
    Some(y.narrow(1, 0, rows as i64).tr().contiguous().reshape(shape))
}

/// The numbers of a contiguous f32 tensor on the CPU that nothing else knows of yet.
fn slice_mut(new: &mut Tensor) -> &mut [f32] {
    // SAFETY: `numel` floats, which live as long as the tensor and are borrowed nowhere else.
    unsafe { std::slice::from_raw_parts_mut(new.data_ptr().cast::<f32>(), new.numel()) }
}

/// The numbers of a contiguous tensor of this kind on the CPU; T must be what the kind is kept in.
fn slice<T>(tensor: &Tensor, kind: Kind) -> Option<&[T]> {
    let plain = tensor.device() == Device::Cpu && tensor.kind() == kind && tensor.is_contiguous();
    let sized = kind.elt_size_in_bytes() == size_of::<T>() && tensor.numel() > 0;
    // SAFETY: a contiguous tensor is `numel` numbers in memory, of the size just compared, and lives as long as it is borrowed. Whoever
    // calls is the thread that trains the model, so nobody writes meanwhile.
    (plain && sized).then(|| unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), tensor.numel()) })
}

/// A kind of number that weights are kept in.
trait Number: Copy + Sync {
    /// The numbers themselves, where they are `f32`.
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

/// The bits of a bfloat16 number: the upper half of an `f32`'s.
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

/// Outputs that a thread takes at once.
const SHARE: usize = 48;

/// W x + b of x `[inputs, stride]` into y `[outputs, stride]`, on all threads.
fn map<T: Number>(x: &[f32], stride: usize, weight: &[T], bias: &[f32], y: &mut [f32]) {
    let inputs = x.len() / stride;
    let work = weight.len() * stride;
    share_out(y.chunks_mut(SHARE * stride).enumerate(), work, |(i, y)| {
        let (first, count) = (i * SHARE, y.len() / stride);
        let weight = &weight[first * inputs..(first + count) * inputs];
        let bias = bias.get(first..first + count).unwrap_or(&[]);
        run(Map { x, inputs, stride, weight, bias, y });
    });
}

/// Multiplications below which waking another thread costs more than doing them.
const ALONE: usize = 1 << 19;

/// Does each part on whichever thread is free. The calling thread begins at once, and the others join it as they wake: handing them the whole
/// and waiting costs a tenth of a millisecond each time, which is a third of such a map.
fn share_out<P: Send>(parts: impl Iterator<Item = P> + Send, work: usize, job: impl Fn(P) + Sync) {
    let helpers = if work < ALONE { 0 } else { rayon::current_num_threads() - 1 };
    let parts = Mutex::new(parts);
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let all = || {
        while let Some(part) = next() {
            job(part);
        }
    };
    rayon::in_place_scope(|scope| {
        (0..helpers).for_each(|_| scope.spawn(|_| all()));
        all();
    });
}

/// What a thread takes of a map.
struct Map<'a, T> {
    x: &'a [f32],
    inputs: usize,
    stride: usize,
    weight: &'a [T],
    bias: &'a [f32],
    y: &'a mut [f32],
}

/// Outputs whose weights are widened at once: as many rows as a product may take.
const WIDENED: usize = 12;

impl<T: Number> Job for Map<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Map { x, inputs, stride, weight, bias, y } = self;
        let right = Right { numbers: x, stride, columns: stride };
        if let Some(numbers) = T::as_f32(weight) {
            let left = Left { numbers, stride: inputs };
            product::<L, false, _>(y.len() / stride, inputs, left, right, &mut Outputs { bias, y, stride });
            return;
        }
        let mut wide = vec![0.0; WIDENED * inputs];
        for (i, (weight, y)) in weight.chunks(WIDENED * inputs).zip(y.chunks_mut(WIDENED * stride)).enumerate() {
            wide.iter_mut().zip(weight).for_each(|(wide, number)| *wide = number.widened());
            let left = Left { numbers: &wide, stride: inputs };
            let bias = bias.get(i * WIDENED..).unwrap_or(&[]);
            product::<L, false, _>(y.len() / stride, inputs, left, right, &mut Outputs { bias, y, stride });
        }
    }
}

/// A row an output, which begins as its bias.
struct Outputs<'a> {
    bias: &'a [f32],
    y: &'a mut [f32],
    stride: usize,
}

impl Target for Outputs<'_> {
    #[inline(always)]
    fn start<L: Lanes>(&self, row: usize, _column: usize) -> L {
        L::splat(self.bias.get(row).copied().unwrap_or(0.0))
    }
    #[inline(always)]
    fn finish<L: Lanes>(&mut self, row: usize, column: usize, sums: L) {
        store(sums, self.y, row * self.stride + column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thin_maps_are_libtorchs() {
        tch::manual_seed(0);
        let (cpu, bf16) = ((Kind::Float, Device::Cpu), Kind::BFloat16);
        for (rows, inputs, outputs) in [(4, 3, 5), (7, 64, 100), (16, 768, 1030), (17, 33, 1), (128, 100, 97)] {
            let [x, weight] = [[rows, inputs], [outputs, inputs]].map(|shape| Tensor::randn(shape, cpu));
            let bias = Tensor::randn([outputs], cpu);
            for bias in [None, Some(&bias)] {
                let ours = thin_linear(&x.unsqueeze(1), &weight, bias).unwrap();
                // Rounding adds up like a random walk.
                let allowed = 4e-6 * (inputs as f64).sqrt();
                let close = |ours: &Tensor, kind: Kind| {
                    let [x, weight] = [&x, &weight].map(|t| t.to_kind(kind).to_kind(Kind::Double));
                    let bias = bias.map(|bias| bias.to_kind(kind).to_kind(Kind::Double));
                    let truth = x.linear(&weight, bias.as_ref());
                    assert_eq!(ours.size(), [rows, 1, outputs]);
                    let worst = (ours.squeeze_dim(1).to_kind(Kind::Double) - &truth) / (truth.abs() + 1.0);
                    assert!(worst.abs().max().double_value(&[]) < allowed, "{rows}×{inputs}×{outputs}: {worst}");
                };
                close(&ours, Kind::Float);
                let bias = bias.map(|bias| bias.to_kind(bf16));
                let ours = thin_linear(&x.unsqueeze(1).to_kind(bf16), &weight.to_kind(bf16), bias.as_ref()).unwrap();
                close(&ours, bf16);
            }
            // A row alone is refused; beside others it has the bits that it has beside fewer.
            let fewer = thin_linear(&x.narrow(0, 0, 4), &weight, Some(&bias)).unwrap();
            assert!(thin_linear(&x, &weight, Some(&bias)).unwrap().narrow(0, 0, 4).equal(&fewer));
            assert!(thin_linear(&x.narrow(0, 0, 1), &weight, None).is_none());
            assert!(thin_linear(&x, &Tensor::randn([inputs, outputs], cpu).tr(), None).is_none() || outputs == 1);
        }
    }
}
