//! Causal self-attention with grouped queries, rotary position embeddings and a KV cache.

use super::linear::{Adapters, Linear};
use super::norm::Norm;
use crate::config::{ModelConfig, Rope};
use flipside_learn::{DecodeBatch, Past, attend, numbers};
use tch::{Device, Kind, Tensor};

/// The attention layer of one block: the projections to queries, keys and values, and the output projection.
#[derive(Debug)]
pub struct Attention {
    /// One projection for all three (GPT-2), or one for each.
    input: Input,
    output: Linear,
    /// Qwen3's norms of queries and keys.
    qk_norm: Option<[Norm; 2]>,
    heads: i64,
    kv_heads: i64,
    width: i64,
}

#[derive(Debug)]
enum Input {
    Fused(Linear),
    Separate([Linear; 3]),
}

impl Attention {
    pub fn fused(config: &ModelConfig, input: Linear, output: Linear) -> Attention {
        Attention::new(config, Input::Fused(input), output, None)
    }

    pub fn separate(config: &ModelConfig, input: [Linear; 3], output: Linear, qk_norm: Option<[Norm; 2]>) -> Attention {
        Attention::new(config, Input::Separate(input), output, qk_norm)
    }

    fn new(config: &ModelConfig, input: Input, output: Linear, qk_norm: Option<[Norm; 2]>) -> Attention {
        let [heads, kv_heads, width] = [config.heads, config.kv_heads, config.head_width].map(|n| n as i64);
        Attention { input, output, qk_norm, heads, kv_heads, width }
    }

    /// The outputs of the columns from `from` on, `[B, T, d]` → `[B, T - from, d]`. Keys and values come from all
    /// columns.
    pub fn forward(
        &self,
        x: &Tensor,
        from: i64,
        columns: &Columns,
        angles: Option<&Angles>,
        cache: Option<&mut Layer>,
        adapters: Adapters,
    ) -> Tensor {
        let (rows, new) = (x.size()[0], x.size()[1]);
        let query_columns = new - from;
        let from_column = |x: &Tensor| if from == 0 { x.shallow_clone() } else { x.narrow(1, from, query_columns) };
        let [q, k, v] = match &self.input {
            Input::Fused(all) => {
                let width = self.heads * self.width;
                let all = all.forward(x, adapters);
                let part = |i: i64| all.narrow(-1, i * width, width);
                [from_column(&part(0)), part(1), part(2)]
            }
            Input::Separate([q, k, v]) => {
                [q.forward(&from_column(x), adapters), k.forward(x, adapters), v.forward(x, adapters)]
            }
        };
        let split = |part: &Tensor, heads: i64| part.reshape([rows, part.size()[1], heads, self.width]);
        let (mut q, mut k) = (split(&q, self.heads), split(&k, self.kv_heads));
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q), k_norm.forward(&k));
        }
        let (mut q, mut k) = (q.transpose(1, 2), k.transpose(1, 2));
        let mut v = split(&v, self.kv_heads).transpose(1, 2);
        if let Some(angles) = angles {
            (q, k) = (angles.turn(&q, from), angles.turn(&k, 0));
        }
        if let Some(layer) = cache {
            layer.keys.narrow(2, columns.before, new).copy_(&k);
            layer.values.narrow(2, columns.before, new).copy_(&v);
            k = layer.keys.narrow(2, 0, columns.before + new).to_kind(q.kind());
            v = layer.values.narrow(2, 0, columns.before + new).to_kind(q.kind());
        }
        let bias = if from == 0 { columns.bias.shallow_clone() } else { columns.bias.narrow(2, from, query_columns) };
        let grouped = self.heads != self.kv_heads;
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&bias), 0.0, false, None, grouped);
        self.output.forward(&mixed.transpose(1, 2).reshape([rows, query_columns, self.heads * self.width]), adapters)
    }

    /// [`Attention::forward`] for one column of a decode batch on the CPU.
    pub fn decode(
        &self,
        x: &DecodeBatch,
        columns: &Columns,
        angles: Option<&[DecodeBatch; 2]>,
        layer: &mut Layer,
        bias: &[f32],
        adapters: bool,
    ) -> Option<DecodeBatch> {
        let [mut q, mut k, v] = match &self.input {
            Input::Fused(all) => {
                let all = all.decode(x, adapters)?;
                let width = all.features() / 3;
                [0, 1, 2].map(|i| all.part(i * width, width))
            }
            Input::Separate([q, k, v]) => [q.decode(x, adapters)?, k.decode(x, adapters)?, v.decode(x, adapters)?],
        };
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            (q, k) = (q_norm.decode(&q), k_norm.decode(&k));
        }
        if let Some([cos, sin]) = angles {
            q.turn(cos, sin);
            k.turn(cos, sin);
        }
        let past = Past { keys: &mut layer.keys, values: &mut layer.values, filled: columns.before as usize };
        self.output.decode(&attend(&q, &k, &v, past, bias)?, adapters)
    }

    pub fn norms(&self) -> Option<&[Norm; 2]> {
        self.qk_norm.as_ref()
    }

    pub fn linears(&self) -> Vec<&Linear> {
        let mut all = match &self.input {
            Input::Fused(map) => vec![map],
            Input::Separate(maps) => maps.iter().collect(),
        };
        all.push(&self.output);
        all
    }

    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all = match &mut self.input {
            Input::Fused(map) => vec![map],
            Input::Separate(maps) => maps.iter_mut().collect(),
        };
        all.push(&mut self.output);
        all
    }
}

/// The positions and the attention mask of a batch's columns.
pub struct Columns {
    /// `[B, T]` (i64): each column's position, which is the number of tokens before it in its row.
    pub positions: Tensor,
    /// `[B, 1, T, S]`: 0 where a query may attend to a key, −∞ elsewhere. S counts the cached columns too.
    bias: Tensor,
    /// Number of columns in the cache, which come before these.
    before: i64,
    /// `[B, S]`: 1 for a token, 0 for padding; the cached columns are included.
    mask: Tensor,
}

impl Columns {
    pub fn new(mask: &Tensor, cache: &Cache, cached: bool, window: Option<usize>, kind: Kind) -> Columns {
        let new = mask.size()[1];
        let before = if cached { cache.filled } else { 0 };
        let mask = if before == 0 { mask.shallow_clone() } else { Tensor::cat(&[&cache.mask, mask], 1) };
        let all = mask.size()[1];
        // A query in column i attends to the tokens up to its own column. Padding attends to itself, so that no row of
        // the softmax is empty.
        let columns = Tensor::arange(all, (Kind::Int64, mask.device()));
        let (keys, queries) = (columns.unsqueeze(0), columns.narrow(0, before, new).unsqueeze(1));
        let tokens = mask.to_kind(Kind::Bool).unsqueeze(1);
        // Padding after a text takes the position of the last token: the next position may be beyond the model's
        // context.
        let at = (mask.cumsum(1, Kind::Int64) - 1).clamp_min(0);
        let positions = at.narrow(1, before, new);
        let mut allowed = keys.le_tensor(&queries).unsqueeze(0).logical_and(&tokens);
        if let Some(window) = window {
            let behind = positions.unsqueeze(2) - at.unsqueeze(1);
            allowed = allowed.logical_and(&behind.lt(window as i64));
        }
        let allowed = allowed.logical_or(&keys.eq_tensor(&queries).unsqueeze(0)).unsqueeze(1);
        let zero = Tensor::zeros([1], (kind, mask.device()));
        let bias = zero.where_self(&allowed, &zero.fill(f64::NEG_INFINITY));
        Columns { positions, bias, before, mask }
    }
}

impl Columns {
    /// The attention bias of the last column, `[B, S]` row by row, f32.
    pub fn bias_of_last(&self) -> Vec<f32> {
        numbers(&self.bias.select(2, self.bias.size()[2] - 1))
    }
}

/// The cosines and sines of the rotary position embedding.
pub struct Angles {
    /// `[B, 1, T, head]`.
    cos: Tensor,
    /// `[B, 1, T, head]`.
    sin: Tensor,
}

impl Angles {
    pub fn new(rope: Rope, width: usize, positions: &Tensor, kind: Kind) -> Angles {
        let frequencies: Vec<f32> = (0..width / 2).map(|i| frequency(rope, 2.0 * i as f64 / width as f64)).collect();
        let frequencies = Tensor::from_slice(&frequencies).to_device(positions.device());
        let half = positions.to_kind(Kind::Float).unsqueeze(-1) * frequencies;
        let angles = Tensor::cat(&[&half, &half], -1).unsqueeze(1);
        Angles { cos: angles.cos().to_kind(kind), sin: angles.sin().to_kind(kind) }
    }

    /// Cosines and sines of one column, `[B, head]` each.
    pub fn of_column(&self) -> [DecodeBatch; 2] {
        [&self.cos, &self.sin].map(|angles| DecodeBatch::of_tensor(&angles.flatten(1, 2).select(1, 0)))
    }

    /// Rotates the channel pairs (i, i + head/2) of `[B, heads, T - from, head]`, which holds the columns from `from`
    /// on.
    fn turn(&self, x: &Tensor, from: i64) -> Tensor {
        let halves = x.chunk(2, -1);
        let [cos, sin] = [&self.cos, &self.sin].map(|angles| angles.narrow(2, from, x.size()[2]));
        x * cos + Tensor::cat(&[&halves[1].neg(), &halves[0]], -1) * sin
    }
}

/// Radians per position of a channel pair; `share` is 2i / head size for pair i.
fn frequency(rope: Rope, share: f64) -> f32 {
    let plain = rope.theta.powf(-share);
    let Some(l) = rope.llama3 else { return plain as f32 };
    let wavelength = std::f64::consts::TAU / plain;
    // 0 for long wavelengths, which are stretched; 1 for short ones, which stay.
    let fast = (l.original_context / wavelength - l.low_freq_factor) / (l.high_freq_factor - l.low_freq_factor);
    let fast = fast.clamp(0.0, 1.0);
    ((1.0 - fast) * plain / l.factor + fast * plain) as f32
}

/// The KV cache: keys and values of the columns so far, so that each is computed once.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Layer>,
    /// `[B, filled]`.
    mask: Tensor,
    filled: i64,
}

/// One block's keys and values, `[B, heads, columns, head]`.
#[derive(Debug)]
pub struct Layer {
    keys: Tensor,
    values: Tensor,
}

impl Cache {
    pub(super) fn new(config: &ModelConfig, rows: usize, columns: usize, kind: Kind, device: Device) -> Cache {
        // On the CPU decoding is in f32, as a [`DecodeBatch`] is.
        let kind = if device == Device::Cpu { Kind::Float } else { kind };
        let shape = [rows, config.kv_heads, columns, config.head_width].map(|n| n as i64);
        let empty = || Tensor::empty(shape, (kind, device));
        let layers = (0..config.layers).map(|_| Layer { keys: empty(), values: empty() }).collect();
        Cache { layers, mask: Tensor::empty([rows as i64, 0], (Kind::Int64, device)), filled: 0 }
    }

    pub(super) fn none() -> Cache {
        Cache { layers: vec![], mask: Tensor::empty([0, 0], (Kind::Int64, Device::Cpu)), filled: 0 }
    }

    pub(super) fn layer(&mut self, block: usize, cached: bool) -> Option<&mut Layer> {
        if cached { self.layers.get_mut(block) } else { None }
    }

    pub(super) fn advance(&mut self, columns: &Columns) {
        self.filled = columns.mask.size()[1];
        self.mask = columns.mask.shallow_clone();
    }

    /// Number of columns in the cache.
    pub fn columns(&self) -> usize {
        self.filled as usize
    }
}
