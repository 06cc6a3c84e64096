//! Linear layers, each with an optional LoRA adapter.

use flipside_core::Seed;
use flipside_learn::DecodeBatch;
use rand::Rng;
use tch::{Device, Kind, Tensor};

/// y = x Wᵀ + b, or x W + b if the family stores its weights transposed.
#[derive(Debug)]
pub struct Linear {
    /// The module's name, without `.weight`.
    pub name: String,
    /// `[output, input]`; `[input, output]` if transposed. In memory a weight is `[output, input]` either way
    /// ([`outputs_first`]).
    pub weight: Tensor,
    /// `[output]`.
    pub bias: Option<Tensor>,
    /// Whether the weight is stored `[input, output]`, as GPT-2's Conv1D does.
    pub transposed: bool,
    /// The LoRA adapter.
    pub lora: Option<Lora>,
}

/// A low-rank adapter (Hu et al. 2021): adds scale · (x Aᵀ) Bᵀ.
#[derive(Debug)]
pub struct Lora {
    /// `[rank, input]`, f32.
    pub a: Tensor,
    /// `[output, rank]`, f32; zero at the start, so that nothing is added.
    pub b: Tensor,
    /// alpha / rank.
    pub scale: f64,
    /// Dropout probability of its inputs in training.
    pub dropout: f64,
}

/// How a forward pass uses the adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapters {
    /// It does not: this is the base model.
    Off,
    /// It adds their outputs.
    On,
    /// The same, with dropout on their inputs. This seed and the layer's name decide what is dropped, so that
    /// recomputing a pass drops the same inputs.
    Dropping(u64),
}

impl From<bool> for Adapters {
    fn from(on: bool) -> Adapters {
        if on { Adapters::On } else { Adapters::Off }
    }
}

impl Lora {
    /// Another handle to the same adapter, with shared parameters.
    pub fn share(&self) -> Lora {
        Lora { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale, dropout: self.dropout }
    }

    /// The change of the weight, scale · B A, `[output, input]`, f32.
    pub fn delta(&self) -> Tensor {
        self.b.matmul(&self.a) * self.scale
    }
}

impl Linear {
    pub fn new(weight: Tensor, bias: Option<Tensor>, transposed: bool, name: String) -> Linear {
        Linear { name, weight, bias, transposed, lora: None }
    }

    /// `[.., input]` → `[.., output]`, of the same dtype.
    pub fn forward(&self, x: &Tensor, adapters: Adapters) -> Tensor {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        let kind = x.kind();
        let y = product(x, &weight, self.bias.as_ref()).to_kind(kind);
        let Some(lora) = self.lora.as_ref().filter(|_| adapters != Adapters::Off) else { return y };
        let of = |x: &Tensor, map: &Tensor| product(x, &map.to_kind(kind), None).to_kind(kind);
        let x = match adapters {
            Adapters::Dropping(seed) if lora.dropout > 0.0 => {
                x * dropout_factors(x, lora.dropout, Seed(seed), &self.name)
            }
            _ => x.shallow_clone(),
        };
        y + of(&of(&x, &lora.a), &lora.b) * lora.scale
    }

    /// [`Linear::forward`] for a decode batch on the CPU, without gradients; `None` if [`DecodeBatch::map`] does not
    /// take the weights.
    pub fn decode(&self, x: &DecodeBatch, adapters: bool) -> Option<DecodeBatch> {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        let mut y = x.map(&weight, self.bias.as_ref())?;
        if let Some(lora) = self.lora.as_ref().filter(|_| adapters) {
            y.add(&x.map(&lora.a, None)?.map(&lora.b, None)?, lora.scale as f32);
        }
        Some(y)
    }

    /// The weight as `[output, input]`, f32, without the adapter.
    pub fn outputs_by_inputs(&self) -> Tensor {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        weight.detach().to_kind(Kind::Float)
    }

    /// Sizes of input and output.
    pub fn sizes(&self) -> [i64; 2] {
        match (self.weight.size()[..].first(), self.weight.size()[..].last(), self.transposed) {
            (Some(&input), Some(&output), true) => [input, output],
            (Some(&output), Some(&input), false) => [input, output],
            _ => [0, 0],
        }
    }
}

/// Factors of dropout for x: each is 0 with probability `share` (rounded to a multiple of 1/65,536), else the scale
/// that keeps the mean, 1 / (1 − share).
fn dropout_factors(x: &Tensor, share: f64, seed: Seed, name: &str) -> Tensor {
    let dropped = (share * 65_536.0).round().clamp(0.0, 65_535.0);
    let scale = (65_536.0 / (65_536.0 - dropped)) as f32;
    let mut stream = seed.stream(name);
    let mut factors = Vec::with_capacity(x.numel() + 3);
    while factors.len() < x.numel() {
        let word = stream.next_u64();
        factors
            .extend([0, 16, 32, 48].map(|shift| if f64::from((word >> shift) as u16) < dropped { 0.0 } else { scale }));
    }
    Tensor::from_slice(&factors[..x.numel()]).reshape(x.size()).to_device(x.device()).to_kind(x.kind())
}

/// x Wᵀ + b with W `[output, input]`. The result has the dtype of x, or f32 if the computation was in f32.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let shape = x.size();
    if let [rows @ .., input] = &shape[..]
        && rows.len() > 1
    {
        // Of more than two dimensions, libtorch multiplies each row by a copy of the weights of its own unless the
        // rows lie one after the other in memory.
        let y = product(&x.reshape([-1, *input]), weight, bias);
        return y.reshape([rows, &y.size()[1..]].concat());
    }
    let wide = |tensor: &Tensor| tensor.to_kind(Kind::Float);
    if x.kind() == Kind::Float && weight.kind() == Kind::BFloat16 {
        // A traced pass: f32 activations over bf16 weights.
        return x.linear(&wide(weight), bias.map(wide).as_ref());
    }
    if x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && !multiplies_bf16() {
        // Sums and products are the same in f32. Without bf16 instructions, libtorch takes thirty times as long in
        // bf16.
        return wide(x).linear(&wide(weight), bias.map(wide).as_ref());
    }
    x.linear(weight, bias)
}

/// Whether the processor has instructions for products of bf16 numbers.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// The tensor with the same shape, laid out in memory as `[output, input]`, the order that [`DecodeBatch::map`] reads.
pub fn outputs_first(weight: &Tensor, transposed: bool) -> Tensor {
    if transposed { weight.tr().contiguous().tr() } else { weight.contiguous() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_drops_its_share_and_leaves_the_mean() {
        let x = Tensor::ones([100, 1001], (Kind::Float, Device::Cpu));
        for share in [0.05, 0.3, 0.9] {
            let factors = dropout_factors(&x, share, Seed(3), "map");
            let n = x.numel() as f64;
            let dropped = factors.eq(0.0).sum(Kind::Float).double_value(&[]) / n;
            // Within five standard deviations of a binomial count, plus the rounding of the share to 1/65,536.
            let deviation = 5.0 * (share * (1.0 - share) / n).sqrt() + 1e-5;
            assert!((dropped - share).abs() < deviation, "{dropped} of {share}");
            let scale = factors.max().double_value(&[]);
            assert!((scale * (1.0 - share) - 1.0).abs() < 1e-4, "{scale}");
            assert!((factors.sum(Kind::Float).double_value(&[]) / n - 1.0).abs() < deviation * scale);
            assert!(!factors.equal(&dropout_factors(&x, share, Seed(3), "another")));
        }
    }
}
