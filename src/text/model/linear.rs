//! Linear maps, with a low-rank adapter where there is one.

use tch::Tensor;

/// y = x Wᵀ + b, or x W + b where the family stores its weights the other way round.
#[derive(Debug)]
pub struct Linear {
    /// The module's name, without `.weight`.
    pub name: String,
    /// `[output, input]`; `[input, output]` if transposed.
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

    /// `[.., input]` → `[.., output]`.
    pub fn forward(&self, x: &Tensor, adapters: bool) -> Tensor {
        let y = match self.transposed {
            true => x.linear(&self.weight.tr(), self.bias.as_ref()),
            false => x.linear(&self.weight, self.bias.as_ref()),
        };
        match &self.lora {
            Some(lora) if adapters => {
                let kind = x.kind();
                let low = x.linear(&lora.a.to_kind(kind), None::<Tensor>);
                y + low.linear(&lora.b.to_kind(kind), None::<Tensor>) * lora.scale
            }
            _ => y,
        }
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
