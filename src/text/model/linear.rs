//! Linear maps, with a low-rank adapter where there is one.

use crate::learn::Thin;
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
}

impl Lora {
    /// The same adapter: it shares its parameters.
    pub fn share(&self) -> Lora {
        Lora { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale }
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
    pub fn forward(&self, x: &Tensor, adapters: bool) -> Tensor {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        let kind = x.kind();
        let y = product(x, &weight, self.bias.as_ref()).to_kind(kind);
        match &self.lora {
            Some(lora) if adapters => {
                let of = |x: &Tensor, map: &Tensor| product(x, &map.to_kind(kind), None).to_kind(kind);
                y + of(&of(x, &lora.a), &lora.b) * lora.scale
            }
            _ => y,
        }
    }

    /// The same for a few rows on the CPU, without a gradient; `None` where their weights lie elsewhere.
    pub fn write(&self, x: &Thin, adapters: bool) -> Option<Thin> {
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
