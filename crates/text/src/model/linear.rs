//! Linear maps, with a low-rank adapter where there is one.

use flipside_core::Seed;
use flipside_learn::DecodeBatch;
use rand::Rng;
use tch::{Device, Kind, Tensor};

/// y = x Wᵀ + b, or x W + b where the family stores its weights the other way round.
#[derive(Debug)]
pub struct Linear {
    /// The module's name, without `.weight`.
    pub name: String,
    /// `[output, input]`; `[input, output]` if transposed. In memory, inputs lie side by side in either case ([`outputs_first`]).
    pub weight: Tensor,
    /// `[output]`.
    pub bias: Option<Tensor>,
    /// Whether the weight is stored `[input, output]`, as GPT-2's Conv1D does.
    pub transposed: bool,
    /// What is learnt beside the weight.
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
    /// Share of its inputs that is set to 0 where it learns with dropout.
    pub dropout: f64,
}

/// What a pass does with adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapters {
    /// Nothing: it is the base model's.
    Off,
    /// Adds what they say.
    On,
    /// The same, with a share of their inputs dropped, which this seed and the map's name decide. So the same pass drops the same again.
    Dropping(u64),
}

impl From<bool> for Adapters {
    fn from(on: bool) -> Adapters {
        if on { Adapters::On } else { Adapters::Off }
    }
}

impl Lora {
    /// The same adapter: it shares its parameters.
    pub fn share(&self) -> Lora {
        Lora { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale, dropout: self.dropout }
    }

    /// What is added to the weight, `[output, input]`, f32.
    pub fn delta(&self) -> Tensor {
        self.b.matmul(&self.a) * self.scale
    }
}

impl Linear {
    pub fn new(weight: Tensor, bias: Option<Tensor>, transposed: bool, name: String) -> Linear {
        Linear { name, weight, bias, transposed, lora: None }
    }

    /// `[.., input]` → `[.., output]`, of the same kind.
    pub fn forward(&self, x: &Tensor, adapters: Adapters) -> Tensor {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        let kind = x.kind();
        let y = product(x, &weight, self.bias.as_ref()).to_kind(kind);
        let Some(lora) = self.lora.as_ref().filter(|_| adapters != Adapters::Off) else { return y };
        let of = |x: &Tensor, map: &Tensor| product(x, &map.to_kind(kind), None).to_kind(kind);
        let x = match adapters {
            Adapters::Dropping(seed) if lora.dropout > 0.0 => x * kept(x, lora.dropout, Seed(seed), &self.name),
            _ => x.shallow_clone(),
        };
        y + of(&of(&x, &lora.a), &lora.b) * lora.scale
    }

    /// The same for a few rows on the CPU, without a gradient; `None` where their weights lie elsewhere.
    pub fn write(&self, x: &DecodeBatch, adapters: bool) -> Option<DecodeBatch> {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        let mut y = x.map(&weight, self.bias.as_ref())?;
        if let Some(lora) = self.lora.as_ref().filter(|_| adapters) {
            y.add(&x.map(&lora.a, None)?.map(&lora.b, None)?, lora.scale as f32);
        }
        Some(y)
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

/// For each number of x 0 with the probability `share`, which is taken to 1/65,536, and else what leaves the mean of the product as it was.
fn kept(x: &Tensor, share: f64, seed: Seed, name: &str) -> Tensor {
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

/// x Wᵀ + b with W `[output, input]`, of the kind of x or, where that comes for nothing, in f32.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    if x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && !multiplies_bf16() {
        // The same sums of the same products: libtorch takes thirty times as long for them without the instructions.
        let wide = |tensor: &Tensor| tensor.to_kind(Kind::Float);
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

/// The tensor with its shape as it is and, in memory, `[output, input]`: the order that every product of a few rows wants.
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
            let factors = kept(&x, share, Seed(3), "map");
            let n = x.numel() as f64;
            let dropped = factors.eq(0.0).sum(Kind::Float).double_value(&[]) / n;
            // Within five standard deviations of a binomial count, and of the 1/65,536 that the share is taken to.
            let deviation = 5.0 * (share * (1.0 - share) / n).sqrt() + 1e-5;
            assert!((dropped - share).abs() < deviation, "{dropped} of {share}");
            let scale = factors.max().double_value(&[]);
            assert!((scale * (1.0 - share) - 1.0).abs() < 1e-4, "{scale}");
            assert!((factors.sum(Kind::Float).double_value(&[]) / n - 1.0).abs() < deviation * scale);
            assert!(!factors.equal(&kept(&x, share, Seed(3), "another")));
        }
    }
}
