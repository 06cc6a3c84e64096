//! A language model that is small enough for tests: one attention layer and one MLP, with an optional LoRA adapter on
//! each matrix.

use super::language_model::{AncestralSampling, LanguageModel, SampledCompletion};
use flipside_core::{Seed, Stream};
use flipside_learn::numbers;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

/// Length of the longest text, tokens.
const LENGTH: i64 = 32;

pub struct Tiny {
    vocabulary: i64,
    width: i64,
    kind: Kind,
    base: Vec<(String, Tensor)>,
    /// `A [r, in]` and `B [out, r]` of each matrix.
    adapters: Vec<(String, Tensor)>,
}

fn normal(shape: &[i64], scale: f32, stream: &mut Stream) -> Tensor {
    let numbers: Vec<f32> = (0..shape.iter().product::<i64>())
        .map(|_| {
            let z: f32 = StandardNormal.sample(stream);
            z * scale
        })
        .collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

impl Tiny {
    const MATRICES: [&str; 6] = ["q", "k", "v", "o", "up", "down"];

    pub fn new(vocabulary: i64, width: i64, seed: u64) -> Tiny {
        let mut stream = Seed(seed).stream("tiny");
        let (d, scale) = (width, 1.0 / (width as f32).sqrt());
        let mut base = vec![
            ("tokens".to_owned(), normal(&[vocabulary, d], 0.5, &mut stream)),
            ("places".to_owned(), normal(&[LENGTH, d], 0.5, &mut stream)),
            ("head".to_owned(), normal(&[vocabulary, d], 0.5 * scale, &mut stream)),
        ];
        for name in Tiny::MATRICES {
            let shape = match name {
                "up" => [4 * d, d],
                "down" => [d, 4 * d],
                _ => [d, d],
            };
            base.push((name.to_owned(), normal(&shape, scale, &mut stream)));
        }
        let base = base.into_iter().map(|(name, tensor)| (name, tensor.set_requires_grad(true))).collect();
        Tiny { vocabulary, width, kind: Kind::Float, base, adapters: Vec::new() }
    }

    /// A copy that shares no memory with this one.
    pub fn copy(&self) -> Tiny {
        let copied = |list: &[(String, Tensor)]| {
            let copy = |t: &Tensor| t.detach().copy().set_requires_grad(t.requires_grad());
            list.iter().map(|(name, tensor)| (name.clone(), copy(tensor))).collect()
        };
        Tiny { base: copied(&self.base), adapters: copied(&self.adapters), ..*self }
    }

    /// A copy in another dtype.
    pub fn to_kind(&self, kind: Kind) -> Tiny {
        let cast = |t: &Tensor| t.detach().to_kind(kind).set_requires_grad(true);
        Tiny {
            kind,
            base: self.base.iter().map(|(name, t)| (name.clone(), cast(t))).collect(),
            adapters: Vec::new(),
            ..*self
        }
    }

    /// A model that shares this one's base, frozen, and trains adapters of this rank.
    pub fn adapted(&self, rank: i64, seed: u64) -> Tiny {
        let mut stream = Seed(seed).stream("adapters");
        let mut adapters = Vec::new();
        for name in Tiny::MATRICES {
            let shape = self.get(name).size();
            let b = Tensor::zeros([shape[0], rank], (Kind::Float, Device::Cpu));
            adapters.push((format!("{name}.A"), normal(&[rank, shape[1]], 0.2, &mut stream).set_requires_grad(true)));
            adapters.push((format!("{name}.B"), b.set_requires_grad(true)));
        }
        let base = self.base.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
        Tiny { base, adapters, ..*self }
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.base.iter().find(|(n, _)| n == name).unwrap().1
    }

    /// All of its tensors.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.base.iter().chain(&self.adapters).map(|(_, tensor)| tensor)
    }

    fn linear(&self, x: &Tensor, name: &str, adapters: bool) -> Tensor {
        let out = x.linear(self.get(name), None::<Tensor>);
        let find = |letter: &str| self.adapters.iter().find(|(n, _)| *n == format!("{name}.{letter}"));
        match (adapters, find("A"), find("B")) {
            (true, Some((_, a)), Some((_, b))) => out + x.linear(a, None::<Tensor>).linear(b, None::<Tensor>),
            _ => out,
        }
    }
}

impl LanguageModel for Tiny {
    fn hidden(&self, ids: &Tensor, mask: &Tensor, from: i64, adapters: bool) -> Tensor {
        let t = ids.size()[1];
        let places = (mask.cumsum(1, Kind::Int64) - mask).clamp(0, LENGTH - 1);
        let x = Tensor::embedding(self.get("tokens"), ids, -1, false, false)
            + Tensor::embedding(self.get("places"), &places, -1, false, false);
        let norm =
            |x: &Tensor| x.to_kind(Kind::Float).layer_norm([self.width], None::<Tensor>, None::<Tensor>, 1e-5, false);
        let normed = norm(&x).to_kind(self.kind);
        let [q, k, v] = ["q", "k", "v"].map(|name| self.linear(&normed, name, adapters));
        let causal = Tensor::ones([t, t], (Kind::Bool, Device::Cpu)).tril(0);
        let seen = causal
            .logical_and(&mask.to_kind(Kind::Bool).unsqueeze(1))
            .logical_or(&Tensor::eye(t, (Kind::Bool, Device::Cpu)));
        let scores = q.matmul(&k.transpose(1, 2)).to_kind(Kind::Float) / (self.width as f64).sqrt();
        let weights = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY).softmax(-1, Kind::Float);
        let x = x + self.linear(&weights.to_kind(self.kind).matmul(&v), "o", adapters);
        let up = self.linear(&norm(&x).to_kind(self.kind), "up", adapters).gelu("none");
        norm(&(x + self.linear(&up, "down", adapters))).to_kind(self.kind).narrow(1, from, t - from)
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(self.get("head"), None::<Tensor>).to_kind(Kind::Float)
    }

    fn width(&self) -> usize {
        self.width as usize
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        let trained = self.base.iter().chain(&self.adapters).filter(|(_, tensor)| tensor.requires_grad());
        trained.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn complete(
        &self,
        prompts: &[&[u32]],
        sampling: &AncestralSampling,
        on_column: &mut dyn FnMut() -> bool,
    ) -> Vec<SampledCompletion> {
        let mut stream = Seed(sampling.seed).stream("draw");
        let mut all: Vec<SampledCompletion> =
            prompts.iter().map(|_| SampledCompletion { tokens: Vec::new(), stopped: false }).collect();
        let width = prompts.iter().map(|p| p.len()).max().unwrap();
        for _ in 0..sampling.max_new_tokens {
            let (mut ids, mut mask) = (Vec::new(), Vec::new());
            for (prompt, completion) in prompts.iter().zip(&all) {
                let pad = width - prompt.len();
                ids.extend(
                    std::iter::repeat_n(0, pad).chain(prompt.iter().chain(&completion.tokens).map(|&x| i64::from(x))),
                );
                mask.extend((0..width + completion.tokens.len()).map(|i| i64::from(i >= pad)));
                let missing = all[0].tokens.len().max(all.iter().map(|d| d.tokens.len()).max().unwrap())
                    - completion.tokens.len();
                ids.extend(std::iter::repeat_n(0, missing));
                mask.extend(std::iter::repeat_n(0, missing));
            }
            let shaped = |numbers: &[i64]| Tensor::from_slice(numbers).reshape([prompts.len() as i64, -1]);
            let logits = tch::no_grad(|| {
                let hidden = self.hidden(&shaped(&ids), &shaped(&mask), 0, true);
                self.logits(&hidden.select(1, hidden.size()[1] - 1)) / sampling.temperature
            });
            let weights = numbers(&logits.softmax(-1, Kind::Float));
            for (completion, weights) in all.iter_mut().zip(weights.chunks_exact(self.vocabulary as usize)) {
                let mut left: f32 = stream.random();
                let chosen = weights.iter().position(|w| {
                    left -= w;
                    left < 0.0
                });
                if !completion.stopped {
                    let token = chosen.unwrap_or(weights.len() - 1) as u32;
                    completion.tokens.push(token);
                    completion.stopped = sampling.stop.contains(&token);
                }
            }
            if !on_column() || all.iter().all(|d| d.stopped) {
                break;
            }
        }
        all
    }
}
