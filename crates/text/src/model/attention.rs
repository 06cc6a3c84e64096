//! Causal self-attention with grouped queries, rotary position embeddings and a KV cache.

use super::hooks::{Hooks, Site};
use super::linear::{Adapters, Linear};
use super::norm::Norm;
use crate::config::{BlockKind, ModelConfig};
use crate::rope::Rope;
use flipside_learn::{DecodeBatch, Past, attend, numbers};
use tch::{Device, Kind, Tensor};

/// The attention layer of one block: the projections to queries, keys and values, and the output projection.
#[derive(Debug)]
pub struct Attention {
    /// The number of its block.
    block: usize,
    input: Input,
    output: Linear,
    /// Norms of queries and keys.
    qk_norm: Option<[Norm; 2]>,
    heads: i64,
    kv_heads: i64,
    width: i64,
    /// What multiplies the products of queries and keys; none for 1/√width.
    scale: Option<f64>,
    /// Scores s become c tanh(s/c).
    cap: Option<f64>,
}

#[derive(Debug)]
pub enum Input {
    /// One projection for all: first all queries, then keys, then values.
    Fused(Linear),
    /// One projection for all: each head's query, key and value side by side.
    PerHead(Linear),
    Separate([Linear; 3]),
}

impl Attention {
    /// The attention of block `i`.
    pub fn new(config: &ModelConfig, i: usize, input: Input, output: Linear, qk_norm: Option<[Norm; 2]>) -> Attention {
        let [heads, kv_heads, width] = [config.heads, config.kv_heads, config.head_width].map(|n| n as i64);
        let (scale, cap) = (config.query_scale_of(i), config.attention_cap);
        Attention { block: i, input, output, qk_norm, heads, kv_heads, width, scale, cap }
    }

    /// The outputs of the columns from `from` on, `[B, T, d]` → `[B, T - from, d]`. Keys and values come from all
    /// columns.
    pub fn forward<H: Hooks>(
        &self,
        x: &Tensor,
        from: i64,
        columns: &BlockColumns,
        cache: Option<&mut Layer>,
        adapters: Adapters,
        hooks: &mut H,
    ) -> Tensor {
        let (rows, new) = (x.size()[0], x.size()[1]);
        let query_columns = new - from;
        let from_column = |x: &Tensor| if from == 0 { x.shallow_clone() } else { x.narrow(1, from, query_columns) };
        let [q_width, kv_width] = [self.heads, self.kv_heads].map(|heads| heads * self.width);
        let [mut q, mut k, mut v] = match &self.input {
            Input::Fused(all) => {
                // One split and not three views, whose gradients would each be as wide as all three.
                let parts = all.forward(x, adapters).split_with_sizes([q_width, kv_width, kv_width], -1);
                [from_column(&parts[0]), parts[1].shallow_clone(), parts[2].shallow_clone()]
            }
            Input::PerHead(all) => {
                let all = all.forward(x, adapters).reshape([rows, new, self.heads, 3, self.width]);
                let part = |i: i64| all.select(3, i).reshape([rows, new, q_width]);
                [from_column(&part(0)), part(1), part(2)]
            }
            Input::Separate([q, k, v]) => {
                [q.forward(&from_column(x), adapters), k.forward(x, adapters), v.forward(x, adapters)]
            }
        };
        if H::TRACES {
            let mut hooked = |site, part: &Tensor, heads: i64| {
                let split = part.reshape([rows, part.size()[1], heads, self.width]);
                hooks.at(site, self.block, split).reshape(part.size())
            };
            q = hooked(Site::Q, &q, self.heads);
            k = hooked(Site::K, &k, self.kv_heads);
            v = hooked(Site::V, &v, self.kv_heads);
        }
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            (q, k) = (q_norm.forward_groups(&q), k_norm.forward_groups(&k));
        }
        let split = |part: &Tensor, heads: i64| part.reshape([rows, part.size()[1], heads, self.width]).transpose(1, 2);
        let (mut q, mut k, mut v) = (split(&q, self.heads), split(&k, self.kv_heads), split(&v, self.kv_heads));
        if let Some(angles) = columns.angles {
            (q, k) = (angles.turn(&q, from), angles.turn(&k, 0));
            if H::TRACES {
                let mut hooked = |site, x: &Tensor| hooks.at(site, self.block, x.transpose(1, 2)).transpose(1, 2);
                (q, k) = (hooked(Site::RotQ, &q), hooked(Site::RotK, &k));
            }
        }
        if let Some(layer) = cache {
            layer.keys.narrow(2, columns.before, new).copy_(&k);
            layer.values.narrow(2, columns.before, new).copy_(&v);
            k = layer.keys.narrow(2, 0, columns.before + new).to_kind(q.kind());
            v = layer.values.narrow(2, 0, columns.before + new).to_kind(q.kind());
        }
        let bias = if from == 0 { columns.bias.shallow_clone() } else { columns.bias.narrow(2, from, query_columns) };
        let grouped = self.heads != self.kv_heads;
        let mut mixed = match self.cap {
            None if !H::TRACES => {
                Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&bias), 0.0, false, self.scale, grouped)
            }
            _ => self.written_out([&q, &k, &v], &bias, hooks),
        }
        .transpose(1, 2);
        if H::TRACES {
            mixed = hooks.at(Site::Z, self.block, mixed);
        }
        self.output.forward(&mixed.reshape([rows, query_columns, q_width]), adapters)
    }

    /// softmax(s + bias) v of the scores s, which a cap c makes c tanh(s/c), with the softmax in f32.
    fn written_out<H: Hooks>(&self, [q, k, v]: [&Tensor; 3], bias: &Tensor, hooks: &mut H) -> Tensor {
        let scale = self.scale.unwrap_or(1.0 / (self.width as f64).sqrt());
        let served = self.heads / self.kv_heads;
        let [k, v] = [k, v].map(|x| x.repeat_interleave_self_int(served, 1, None));
        let products = q.matmul(&k.transpose(2, 3));
        let scores = match self.cap {
            Some(cap) => (products * (scale / cap)).tanh() * cap,
            None => products * scale,
        };
        let scores = hooks.at(Site::AttnScores, self.block, scores + bias);
        let pattern = hooks.at(Site::Pattern, self.block, scores.softmax(-1, Kind::Float));
        pattern.to_kind(q.kind()).matmul(&v)
    }

    /// [`Attention::forward`] for one column of a decode batch on the CPU; `None` where [`attend`] does not compute
    /// what this attention needs.
    pub fn decode(
        &self,
        x: &DecodeBatch,
        columns: &BlockColumns,
        layer: &mut Layer,
        last: &LastColumn,
        adapters: bool,
    ) -> Option<DecodeBatch> {
        let is_partial = last.angles.as_ref().is_some_and(|[cos, _]| cos.features() as i64 != self.width);
        if self.scale.is_some() || self.cap.is_some() || is_partial {
            return None;
        }
        let [mut q, mut k, v] = match &self.input {
            Input::Fused(all) => {
                let all = all.decode(x, adapters)?;
                let [q, kv] = [self.heads, self.kv_heads].map(|heads| (heads * self.width) as usize);
                [all.part(0, q), all.part(q, kv), all.part(q + kv, kv)]
            }
            Input::PerHead(_) => return None,
            Input::Separate([q, k, v]) => [q.decode(x, adapters)?, k.decode(x, adapters)?, v.decode(x, adapters)?],
        };
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            (q, k) = (q_norm.decode(&q), k_norm.decode(&k));
        }
        if let Some([cos, sin]) = &last.angles {
            q.turn(cos, sin);
            k.turn(cos, sin);
        }
        let past = Past { keys: &mut layer.keys, values: &mut layer.values, filled: columns.before as usize };
        self.output.decode(&attend(&q, &k, &v, past, &last.bias)?, adapters)
    }

    /// The layer that writes into the residual stream.
    pub fn output(&self) -> &Linear {
        &self.output
    }

    pub fn norms(&self) -> Option<&[Norm; 2]> {
        self.qk_norm.as_ref()
    }

    pub fn linears(&self) -> Vec<&Linear> {
        let mut all = match &self.input {
            Input::Fused(map) | Input::PerHead(map) => vec![map],
            Input::Separate(maps) => maps.iter().collect(),
        };
        all.push(&self.output);
        all
    }

    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all = match &mut self.input {
            Input::Fused(map) | Input::PerHead(map) => vec![map],
            Input::Separate(maps) => maps.iter_mut().collect(),
        };
        all.push(&mut self.output);
        all
    }
}

/// The positions, rotary angles and attention masks of a batch's columns.
pub struct Columns {
    /// `[B, T]` (i64): each column's position, which is the number of tokens before it in its row.
    pub positions: Tensor,
    /// What each kind of block sees; there are as many as the model has kinds.
    kinds: Vec<(BlockKind, Sight)>,
    /// Number of columns in the cache, which come before these.
    before: i64,
    /// `[B, S]`: 1 for a token, 0 for padding; the cached columns are included.
    mask: Tensor,
}

/// What the blocks of one kind see.
struct Sight {
    /// `[B, 1, T, S]`: 0 where a query may attend to a key, −∞ elsewhere. S counts the cached columns too.
    bias: Tensor,
    /// `None` without rotary positions.
    angles: Option<Angles>,
}

/// The columns as a block sees them.
pub struct BlockColumns<'a> {
    bias: &'a Tensor,
    angles: Option<&'a Angles>,
    before: i64,
}

/// The last column of a decode batch as the blocks of one kind see it.
pub struct LastColumn {
    /// The attention bias, `[B, S]` row by row.
    bias: Vec<f32>,
    /// Cosines and sines, `[B, rotary channels]` each.
    angles: Option<[DecodeBatch; 2]>,
}

impl Columns {
    pub fn new(config: &ModelConfig, mask: &Tensor, cache: Option<&Cache>, kind: Kind) -> Columns {
        let new = mask.size()[1];
        let before = cache.map_or(0, |cache| cache.filled);
        let mask = match cache {
            Some(cache) if before > 0 => Tensor::cat(&[&cache.mask, mask], 1),
            _ => mask.shallow_clone(),
        };
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
        let causal = keys.le_tensor(&queries).unsqueeze(0).logical_and(&tokens);
        let bias = |windowed: bool| {
            let mut allowed = causal.shallow_clone();
            if let Some(window) = config.window.filter(|_| windowed) {
                let behind = positions.unsqueeze(2) - at.unsqueeze(1);
                allowed = allowed.logical_and(&behind.lt(window as i64));
            }
            let allowed = allowed.logical_or(&keys.eq_tensor(&queries).unsqueeze(0)).unsqueeze(1);
            let zero = Tensor::zeros([1], (kind, mask.device()));
            zero.where_self(&allowed, &zero.fill(f64::NEG_INFINITY))
        };
        let mut kinds: Vec<(BlockKind, Sight)> = vec![];
        for &block in &config.blocks {
            if kinds.iter().all(|(known, _)| *known != block) {
                let same_bias = kinds.iter().find(|(known, _)| known.windowed == block.windowed);
                let bias = same_bias.map_or_else(|| bias(block.windowed), |(_, sight)| sight.bias.shallow_clone());
                let angles = config.rope_of(block).map(|rope| Angles::new(rope, &positions, kind));
                kinds.push((block, Sight { bias, angles }));
            }
        }
        Columns { positions, kinds, before, mask }
    }

    /// The columns as a block of this kind sees them.
    pub fn of(&self, block: BlockKind) -> BlockColumns<'_> {
        let (_, sight) = &self.kinds[self.index(block)];
        BlockColumns { bias: &sight.bias, angles: sight.angles.as_ref(), before: self.before }
    }

    /// The place of this kind of block among the model's kinds.
    pub fn index(&self, block: BlockKind) -> usize {
        self.kinds.iter().position(|(kind, _)| *kind == block).unwrap_or(0)
    }

    /// The last column as each kind of block sees it.
    pub fn last(&self) -> Vec<LastColumn> {
        let last = |(_, sight): &(BlockKind, Sight)| LastColumn {
            bias: numbers(&sight.bias.select(2, sight.bias.size()[2] - 1)),
            angles: sight.angles.as_ref().map(Angles::of_column),
        };
        self.kinds.iter().map(last).collect()
    }
}

/// The cosines and sines of the rotary position embedding.
struct Angles {
    /// `[B, 1, T, rotary channels]`.
    cos: Tensor,
    /// `[B, 1, T, rotary channels]`.
    sin: Tensor,
}

impl Angles {
    fn new(rope: &Rope, positions: &Tensor, kind: Kind) -> Angles {
        let length =
            if rope.needs_length() && positions.numel() > 0 { positions.max().int64_value(&[]) + 1 } else { 0 };
        let frequencies = Tensor::from_slice(&rope.frequencies(length as usize)).to_device(positions.device());
        let half = positions.to_kind(Kind::Float).unsqueeze(-1) * frequencies;
        let angles = Tensor::cat(&[&half, &half], -1).unsqueeze(1);
        let scaled = |x: Tensor| match rope.attention_factor() {
            1.0 => x.to_kind(kind),
            factor => (x * factor).to_kind(kind),
        };
        Angles { cos: scaled(angles.cos()), sin: scaled(angles.sin()) }
    }

    /// Cosines and sines of one column, `[B, rotary channels]` each.
    fn of_column(&self) -> [DecodeBatch; 2] {
        [&self.cos, &self.sin].map(|angles| DecodeBatch::of_tensor(&angles.flatten(1, 2).select(1, 0)))
    }

    /// Rotates the channel pairs (i, i + r/2) of the first r channels of `[B, heads, T - from, head]`, which holds the
    /// columns from `from` on.
    fn turn(&self, x: &Tensor, from: i64) -> Tensor {
        let (head, rotary) = (x.size()[3], self.cos.size()[3]);
        if rotary < head {
            let still = x.narrow(3, rotary, head - rotary);
            return Tensor::cat(&[&self.turn(&x.narrow(3, 0, rotary), from), &still], -1);
        }
        let halves = x.chunk(2, -1);
        let [cos, sin] = [&self.cos, &self.sin].map(|angles| angles.narrow(2, from, x.size()[2]));
        x * cos + Tensor::cat(&[&halves[1].neg(), &halves[0]], -1) * sin
    }
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

    /// A cache for `rows` rows whose first columns hold these keys and values of each block,
    /// `[1, heads, columns, head]` (f32, keys as they are after norm and rotation), with space for `more` columns. A
    /// block without any must not be run with it.
    pub(crate) fn filled_with(prefix: &[Option<[Tensor; 2]>], rows: i64, more: i64) -> Cache {
        let mut columns = 0;
        let mut device = Device::Cpu;
        let mut wide = |x: &Tensor| {
            let size = x.size();
            (columns, device) = (size[2], x.device());
            let wide = Tensor::empty([rows, size[1], columns + more, size[3]], (Kind::Float, device));
            wide.narrow(2, 0, columns).copy_(x);
            wide
        };
        let none = || Tensor::empty([0], (Kind::Float, Device::Cpu));
        let layer = |filled: &Option<[Tensor; 2]>| match filled {
            Some([keys, values]) => Layer { keys: wide(keys), values: wide(values) },
            None => Layer { keys: none(), values: none() },
        };
        let layers = prefix.iter().map(layer).collect();
        Cache { layers, mask: Tensor::ones([rows, columns], (Kind::Int64, device)), filled: columns }
    }

    pub(super) fn layer(&mut self, block: usize) -> &mut Layer {
        &mut self.layers[block]
    }

    pub(super) fn advance(&mut self, columns: &Columns) {
        self.filled = columns.mask.size()[1];
        self.mask = columns.mask.shallow_clone();
    }

    /// A cache for this many columns with `copies` of each row in a row.
    pub(crate) fn repeated(&self, copies: usize, columns: usize) -> Cache {
        let repeat = |x: &Tensor| x.repeat_interleave_self_int(copies as i64, 0, None);
        let wider = |x: &Tensor| {
            let size = x.size();
            let wide =
                Tensor::empty([size[0] * copies as i64, size[1], columns as i64, size[3]], (x.kind(), x.device()));
            wide.narrow(2, 0, self.filled).copy_(&repeat(&x.narrow(2, 0, self.filled)));
            wide
        };
        let layers = self.layers.iter().map(|l| Layer { keys: wider(&l.keys), values: wider(&l.values) }).collect();
        Cache { layers, mask: repeat(&self.mask), filled: self.filled }
    }

    /// Number of columns in the cache.
    pub fn columns(&self) -> usize {
        self.filled as usize
    }
}
