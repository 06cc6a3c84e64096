//! The transformer, from token ids to hidden states and logits. How a family is built is said by its `Names` and by
//! the `ModelConfig`; this file knows no family.
//!
//! Parameters have Hugging Face's names and layouts, so that the same tensors are loaded, trained and saved. There is
//! no dropout, except in adapters that train with it. In bf16, weights and activations are bf16; norms, softmax and the
//! returned logits are computed in f32.

mod attention;
mod hooks;
mod linear;
mod names;
mod norm;

use super::config::{Activation, ModelConfig, ModelHead, NormKind, QkNorm};
use super::error::ModelError;
use super::hidden::{Compute, Hidden};
use super::peft::Attached;
use super::weights::{check_finite, parts};
use attention::{Attention, Columns, Input, LastColumn};
use flipside_core::Stream;
use flipside_core::settings::LoraSettings;
use flipside_learn::{DecodeBatch, numbers, wait_asleep};
use linear::{Adapters, outputs_first, product};
use names::{InputNames, MlpNames, Names, QK_NORMS};
use norm::Norm;
use rand_distr::{Distribution, StandardNormal};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

pub use attention::Cache;
pub use flipside_core::settings::TextPrecision as Precision;
pub use hooks::{HookPoint, Site};
pub(crate) use hooks::{Hooks, NoHooks};
pub(crate) use linear::Linear;
pub use linear::Lora;

/// Named tensors, by Hugging Face's names.
pub type Tensors = BTreeMap<String, Tensor>;

/// The dtype of this parameter. Norms are computed in f32, so theirs stay in f32.
fn kind_of_parameter(name: &str, shape: &[i64], precision: Precision) -> Kind {
    match shape.len() == 1 && name.contains("norm") || name.contains("ln_") {
        true => Kind::Float,
        false => kind_of(precision),
    }
}

/// The dtype of this precision.
fn kind_of(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}

/// A language model. A clone shares the parameters.
#[derive(Debug)]
pub struct Transformer {
    config: ModelConfig,
    precision: Precision,
    device: Device,
    /// `[vocabulary, d]`.
    embedding: Tensor,
    /// Learnt positions, `[context, d]` and perhaps rows before them.
    positions: Option<Tensor>,
    blocks: Vec<Block>,
    norm: Norm,
    /// `[vocabulary, d]`; if tied, the embedding's own tensor.
    head: Tensor,
    /// How many of the first blocks are frozen, together with the embedding; 0 freezes nothing.
    frozen: usize,
    /// The adapters' settings, if there are adapters.
    pub(super) adapter: Option<LoraSettings>,
    /// The rest of an adapter that was read.
    pub(super) attached: Option<Attached>,
    /// The token at which a reward is never read; see [`Transformer::set_score_pad`].
    score_pad: Option<u32>,
    /// Gradient checkpointing: whether the backward pass recomputes blocks instead of storing their activations.
    checkpointing: bool,
}

/// Attention and MLP, each with norms around it and a residual connection around all.
#[derive(Debug)]
struct Block {
    before_attention: Option<Norm>,
    attention: Attention,
    after_attention: Option<Norm>,
    before_mlp: Option<Norm>,
    mlp: Mlp,
    after_mlp: Option<Norm>,
}

#[derive(Debug)]
struct Mlp {
    layers: MlpLayers,
    activation: Activation,
}

#[derive(Debug)]
enum MlpLayers {
    /// output(f(input(x))).
    Plain([Linear; 2]),
    /// down(f(gate(x)) · up(x)).
    Gated([Linear; 3]),
    /// The same with gate and up in one layer.
    Fused([Linear; 2]),
}

/// How a forward pass runs.
struct Pass<'a, H> {
    columns: &'a Columns,
    /// The first column that the last block computes.
    from: i64,
    /// Where keys and values of earlier columns are, and those of these columns go.
    cache: Option<&'a mut Cache>,
    adapters: Adapters,
    hooks: &'a mut H,
}

/// A module that an adapter can change.
pub(super) struct Module {
    pub name: String,
    /// Sizes of input and output; of an embedding, its rows and their size.
    pub sizes: [i64; 2],
    /// Whether its weight is stored `[input, output]`.
    pub transposed: bool,
    pub is_embedding: bool,
    pub is_in_block: bool,
}

impl Activation {
    fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => x.gelu("none"),
            Activation::GeluTanh => x.gelu("tanh"),
            Activation::Silu => x.silu(),
            Activation::Relu => x.relu(),
        }
    }

    /// [`Activation::forward`] in place for a decode batch on the CPU; `None` where it has none.
    fn decode(self, x: &mut DecodeBatch) -> Option<()> {
        match self {
            Activation::Gelu => return None,
            Activation::GeluTanh => x.gelu(),
            Activation::Silu => x.silu(),
            Activation::Relu => x.relu(),
        }
        Some(())
    }
}

impl Mlp {
    /// The MLP of block `block`.
    fn forward<H: Hooks>(&self, x: &Tensor, block: usize, adapters: Adapters, hooks: &mut H) -> Tensor {
        let bent = |x: &Tensor| self.activation.forward(x);
        let inner = match &self.layers {
            MlpLayers::Plain([input, _]) => bent(&hooks.at(Site::MlpPre, block, input.forward(x, adapters))),
            MlpLayers::Gated([gate, up, _]) => {
                bent(&hooks.at(Site::MlpPre, block, gate.forward(x, adapters)))
                    * hooks.at(Site::MlpPreLinear, block, up.forward(x, adapters))
            }
            MlpLayers::Fused([gate_up, _]) => {
                let both = gate_up.forward(x, adapters).chunk(2, -1);
                bent(&hooks.at(Site::MlpPre, block, both[0].shallow_clone()))
                    * hooks.at(Site::MlpPreLinear, block, both[1].shallow_clone())
            }
        };
        self.output().forward(&hooks.at(Site::MlpPost, block, inner), adapters)
    }

    /// The layer that writes into the residual stream.
    fn output(&self) -> &Linear {
        match &self.layers {
            MlpLayers::Plain([_, output]) | MlpLayers::Gated([_, _, output]) | MlpLayers::Fused([_, output]) => output,
        }
    }

    /// [`Mlp::forward`] for a decode batch on the CPU.
    fn decode(&self, x: &DecodeBatch, adapters: bool) -> Option<DecodeBatch> {
        let (mut inner, up, down) = match &self.layers {
            MlpLayers::Plain([input, output]) => (input.decode(x, adapters)?, None, output),
            MlpLayers::Gated([gate, up, down]) => (gate.decode(x, adapters)?, Some(up.decode(x, adapters)?), down),
            MlpLayers::Fused([gate_up, down]) => {
                let both = gate_up.decode(x, adapters)?;
                let half = both.features() / 2;
                (both.part(0, half), Some(both.part(half, half)), down)
            }
        };
        self.activation.decode(&mut inner)?;
        if let Some(up) = up {
            inner.multiply(&up);
        }
        down.decode(&inner, adapters)
    }

    fn linears(&self) -> &[Linear] {
        match &self.layers {
            MlpLayers::Plain(layers) | MlpLayers::Fused(layers) => layers,
            MlpLayers::Gated(layers) => layers,
        }
    }

    fn linears_mut(&mut self) -> &mut [Linear] {
        match &mut self.layers {
            MlpLayers::Plain(layers) | MlpLayers::Fused(layers) => layers,
            MlpLayers::Gated(layers) => layers,
        }
    }
}

/// The norm of x, or x where there is none.
fn normed(norm: Option<&Norm>, x: Tensor) -> Tensor {
    match norm {
        Some(norm) => norm.forward(&x),
        None => x,
    }
}

/// [`normed`] of what block `block` reads, past these sites.
fn hooked_norm<H: Hooks>(norm: Option<&Norm>, x: &Tensor, sites: [Site; 2], block: usize, hooks: &mut H) -> Tensor {
    match norm {
        Some(norm) if H::TRACES => norm.written_out(x, sites, block, hooks),
        norm => normed(norm, x.shallow_clone()),
    }
}

/// [`normed`] for a decode batch on the CPU.
fn decoded(norm: Option<&Norm>, x: &DecodeBatch) -> DecodeBatch {
    norm.map_or_else(|| x.clone(), |norm| norm.decode(x))
}

impl Transformer {
    /// A model with random weights, initialised as usual for its family: N(0, 0.02²), for GPT-2's projections into the
    /// residual stream with the standard deviation divided by √(2 layers), biases 0, norms 1. The numbers are drawn in
    /// f32, a few at a time, so that making a large model takes no more memory than the model has.
    pub fn random(config: &ModelConfig, precision: Precision, device: Device, stream: &mut Stream) -> Transformer {
        let names = Names::of(config.family);
        // In the layout that the model keeps, so that it is not copied.
        let empty = |name: &str, shape: &[i64], kind: Kind| match *shape {
            [inputs, outputs] if names.is_transposed(name, shape) => {
                Tensor::empty([outputs, inputs], (kind, Device::Cpu)).tr()
            }
            _ => Tensor::empty(shape, (kind, Device::Cpu)),
        };
        let mut draw = |tensor: Tensor, deviation: f64| {
            for mut part in parts(&tensor) {
                let number = |_| {
                    let z: f32 = StandardNormal.sample(stream);
                    z * deviation as f32
                };
                let numbers: Vec<f32> = (0..part.numel()).map(number).collect();
                part.copy_(&Tensor::from_slice(&numbers).reshape(part.size()));
            }
            tensor
        };
        let residual = 0.02 / (2.0 * config.layers as f64).sqrt();
        let tensors = shapes(config)
            .into_iter()
            .map(|(name, shape)| {
                let kind = kind_of_parameter(&name, &shape, precision);
                let options = (kind, Device::Cpu);
                let tensor = if name.ends_with("bias") {
                    Tensor::zeros(&shape, options)
                } else if shape.len() == 1 {
                    let zero = config.norm == NormKind::RmsPlusOne;
                    if zero { Tensor::zeros(&shape, options) } else { Tensor::ones(&shape, options) }
                } else {
                    let deviation = if name.ends_with("c_proj.weight") { residual } else { 0.02 };
                    draw(empty(&name, &shape, kind), deviation)
                };
                (name, tensor)
            })
            .collect();
        #[expect(clippy::expect_used, reason = "names and shapes come from the list that is asked for")]
        Transformer::from_tensors(config, tensors, precision, device).expect("a model of its own list of tensors")
    }

    /// A model with these parameters, named as in the family's causal model, with or without the prefix
    /// (`transformer.`, `model.`). A tied head may be left out. A tensor is copied if its dtype, device or memory
    /// layout differs.
    ///
    /// # Errors
    ///
    /// A parameter that is missing or has the wrong shape.
    pub fn from_tensors(
        config: &ModelConfig,
        mut tensors: Tensors,
        precision: Precision,
        device: Device,
    ) -> Result<Transformer, ModelError> {
        let names = Names::of(config.family);
        let mut taken = Tensors::new();
        for (name, shape) in shapes(config) {
            let bare = name.split_once('.').map_or(&name[..], |(_, bare)| bare);
            // Some programs give every family's head the usual name.
            let other = if name.starts_with(names.prefix) { bare } else { "lm_head.weight" };
            let found = tensors.remove(&name).or_else(|| tensors.remove(other));
            let Some(tensor) = found else { return Err(ModelError::MissingTensor(name)) };
            if tensor.size() != shape {
                return Err(ModelError::Shape { name, found: tensor.size(), expected: shape });
            }
            check_finite(&name, &tensor)?;
            let kind = kind_of_parameter(&name, &shape, precision);
            let tensor = tensor.detach().to_device(device).to_kind(kind);
            let transposed = names.is_transposed(&name, &shape);
            taken.insert(name, outputs_first(&tensor, transposed));
        }
        Ok(Transformer::assemble(config, &taken, precision, device))
    }

    fn assemble(config: &ModelConfig, tensors: &Tensors, precision: Precision, device: Device) -> Transformer {
        wait_asleep();
        let get = |name: &str| tensors[name].shallow_clone();
        let maybe = |name: &str| tensors.get(name).map(Tensor::shallow_clone);
        let norm = |name: &str| Norm {
            name: name.to_owned(),
            weight: get(&format!("{name}.weight")),
            bias: maybe(&format!("{name}.bias")),
            plus_one: config.norm == NormKind::RmsPlusOne,
            eps: config.norm_eps,
        };
        let names = Names::of(config.family);
        let linear = |name: String| {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
            Linear::new(get(&weight), maybe(&bias), names.transposed, name)
        };
        let block = |i: usize| {
            let linear = |name: &str| linear(names.in_block(i, name));
            let norm = |name: &str| norm(&names.in_block(i, name));
            let input = match names.input {
                InputNames::Fused(all) => Input::Fused(linear(all)),
                InputNames::PerHead(all) => Input::PerHead(linear(all)),
                InputNames::Separate(each) => Input::Separate(each.map(linear)),
            };
            let layers = match names.mlp {
                MlpNames::Plain(each) => MlpLayers::Plain(each.map(linear)),
                MlpNames::Gated(each) => MlpLayers::Gated(each.map(linear)),
                MlpNames::Fused(each) => MlpLayers::Fused(each.map(linear)),
            };
            let qk_norm = (config.qk_norm != QkNorm::None).then(|| QK_NORMS.map(norm));
            Block {
                before_attention: names.before_attention.map(norm),
                attention: Attention::new(config, i, input, linear(names.output), qk_norm),
                after_attention: names.after_attention.map(norm),
                before_mlp: names.before_mlp.map(norm),
                mlp: Mlp { layers, activation: config.activation },
                after_mlp: names.after_mlp.map(norm),
            }
        };
        let embedding = get(&format!("{}.weight", names.outside(names.embedding)));
        Transformer {
            config: config.clone(),
            precision,
            device,
            positions: names.positions.and_then(|(name, _)| maybe(&format!("{}.weight", names.outside(name)))),
            blocks: (0..config.layers).map(block).collect(),
            norm: norm(&names.outside(names.norm)),
            head: maybe(&format!("{}.weight", names.head)).unwrap_or_else(|| embedding.shallow_clone()),
            embedding,
            frozen: 0,
            adapter: None,
            attached: None,
            score_pad: None,
            checkpointing: false,
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The precision of weights and activations.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The device of the tensors.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The hidden states after the final norm, `[B, T, d]`, of token ids `[B, T]` (i64) under a mask of the same shape
    /// (i64: 1 for a token, 0 for padding on either side). A token's position is the number of tokens before it in its
    /// row. With a cache, the columns follow the cached ones, and there are no gradients: call it under
    /// [`tch::no_grad`]. Without `adapters` it is the base model, bit for bit.
    pub fn hidden(&self, ids: &Tensor, mask: &Tensor, cache: Option<&mut Cache>, adapters: bool) -> Tensor {
        self.hidden_from(ids, mask, 0, cache, adapters)
    }

    /// [`Transformer::hidden`] for the columns from `from` on, `[B, T - from, d]`: the last block computes no others.
    pub fn hidden_from(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        from: i64,
        cache: Option<&mut Cache>,
        adapters: bool,
    ) -> Tensor {
        self.hidden_with(ids, mask, from, cache, adapters, &mut NoHooks)
    }

    /// [`Transformer::hidden_from`] with hooks.
    pub(crate) fn hidden_with<H: Hooks>(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        from: i64,
        mut cache: Option<&mut Cache>,
        adapters: bool,
        hooks: &mut H,
    ) -> Tensor {
        let model = self.with_or_without(adapters);
        let columns = model.lay_out::<H>(mask, cache.as_deref());
        let x = model.embed(ids, &columns, hooks);
        if let Some(cache) = cache.as_deref_mut()
            && ids.size()[1] == 1
            && let Some(hidden) = model.decode_column(&x, &columns, cache, adapters, hooks)
        {
            cache.advance(&columns);
            return hidden;
        }
        let all = 0..model.blocks.len();
        let mut pass = Pass {
            columns: &columns,
            from,
            cache: cache.as_deref_mut(),
            adapters: adapters.into(),
            hooks: &mut *hooks,
        };
        let x = model.run(all, x, &mut pass);
        if let Some(cache) = cache {
            cache.advance(&columns);
        }
        model.last_norm(&x, hooks)
    }

    /// This model, or the one without its adapter where that changes the weights themselves.
    pub(crate) fn with_or_without(&self, adapters: bool) -> &Transformer {
        let base = self.attached.as_ref().and_then(|attached| attached.base.as_deref());
        base.filter(|_| !adapters).unwrap_or(self)
    }

    /// [`Transformer::hidden_from`] with adapters and gradients, for a loss. A seed turns on the adapters' dropout.
    /// With [`Transformer::set_checkpointing`], only the inputs of the trained blocks are stored.
    pub fn hidden_for_loss(&self, ids: &Tensor, mask: &Tensor, from: i64, dropout: Option<u64>) -> Hidden<'_> {
        let adapters = dropout.map_or(Adapters::On, Adapters::Dropping);
        let columns = Rc::new(self.lay_out::<NoHooks>(mask, None));
        let run = move |blocks: Range<usize>, x: Tensor, columns: &Columns| {
            self.run(blocks, x, &mut Pass { columns, from, cache: None, adapters, hooks: &mut NoHooks })
        };
        let blocks = self.blocks.len();
        // Frozen blocks have no gradient and are computed once.
        let first = self.frozen.min(blocks);
        let frozen_output = || run(0..first, self.embed(ids, &columns, &mut NoHooks), &columns);
        if !self.checkpointing || first == blocks {
            return Hidden::with_graph(self.norm.forward(&run(first..blocks, frozen_output(), &columns)));
        }
        let frozen = (first > 0).then(|| tch::no_grad(frozen_output));
        let ids = ids.shallow_clone();
        Hidden::checkpointed((first..blocks).map(|i| {
            let (columns, frozen, ids) =
                (columns.clone(), frozen.as_ref().map(Tensor::shallow_clone), ids.shallow_clone());
            let compute = move |input: Option<&Tensor>| {
                let embedded = || self.embed(&ids, &columns, &mut NoHooks);
                let start = || frozen.as_ref().map_or_else(embedded, Tensor::shallow_clone);
                let x = run(i..i + 1, input.map_or_else(start, Tensor::shallow_clone), &columns);
                if i + 1 == blocks { self.norm.forward(&x) } else { x }
            };
            Box::new(compute) as Box<Compute>
        }))
    }

    /// Turns gradient checkpointing on or off. With it, a loss stores only the inputs of the blocks and recomputes each
    /// block for its gradients, which saves memory and costs time.
    pub fn set_checkpointing(&mut self, on: bool) {
        self.checkpointing = on;
    }

    /// The columns of a forward pass, which follow those of the cache. A traced pass is in f32.
    fn lay_out<H: Hooks>(&self, mask: &Tensor, cache: Option<&Cache>) -> Columns {
        let kind = if H::TRACES { Kind::Float } else { kind_of(self.precision) };
        Columns::new(&self.config, mask, cache, kind)
    }

    /// `[B, T]` → `[B, T, d]`.
    fn embed<H: Hooks>(&self, ids: &Tensor, columns: &Columns, hooks: &mut H) -> Tensor {
        let wide = |x: Tensor| if H::TRACES { x.to_kind(Kind::Float) } else { x };
        let mut x = Tensor::embedding(&self.embedding, ids, -1, false, false);
        if let Some(scale) = self.config.embedding_scale {
            // The factor is rounded to the model's precision, as transformers does.
            x = &x * Tensor::from(scale as f32).to_kind(x.kind()).to_device(x.device());
        }
        let x = hooks.at(Site::Embed, 0, wide(x));
        match (&self.positions, Names::of(self.config.family).positions) {
            (Some(positions), Some((_, first))) => {
                let places = Tensor::embedding(positions, &(&columns.positions + first), -1, false, false);
                x + hooks.at(Site::PosEmbed, 0, wide(places))
            }
            _ => x,
        }
    }

    /// Some blocks, one after the other, `[B, T, d]` → `[B, T, d]`; the last block of the model leaves out the columns
    /// before `from`. Every forward pass comes through here, except that of one column on the CPU.
    fn run<H: Hooks>(&self, blocks: Range<usize>, mut x: Tensor, pass: &mut Pass<H>) -> Tensor {
        for i in blocks {
            let block = &self.blocks[i];
            let from = if i + 1 == self.blocks.len() { pass.from } else { 0 };
            x = pass.hooks.at(Site::ResidPre, i, x);
            let seen = block.attention.forward(
                &hooked_norm(block.before_attention.as_ref(), &x, LN1, i, pass.hooks),
                from,
                &pass.columns.of(self.config.blocks[i]),
                pass.cache.as_deref_mut().map(|cache| cache.layer(i)),
                pass.adapters,
                pass.hooks,
            );
            let seen = pass.hooks.at(Site::AttnOut, i, normed(block.after_attention.as_ref(), seen));
            let before = if from == 0 { x } else { x.narrow(1, from, x.size()[1] - from) };
            // Each sum is a new tensor: adding in place would overwrite an input that the norm's backward pass needs.
            let mut after = &before + seen;
            if !self.config.parallel {
                after = pass.hooks.at(Site::ResidMid, i, after);
            }
            let input = if self.config.parallel { &before } else { &after };
            let input = hooked_norm(block.before_mlp.as_ref(), input, LN2, i, pass.hooks);
            let output = block.mlp.forward(&input, i, pass.adapters, pass.hooks);
            let output = pass.hooks.at(Site::MlpOut, i, normed(block.after_mlp.as_ref(), output));
            x = pass.hooks.at(Site::ResidPost, i, after + output);
        }
        x
    }

    /// The last norm.
    fn last_norm<H: Hooks>(&self, x: &Tensor, hooks: &mut H) -> Tensor {
        hooked_norm(Some(&self.norm), x, LN_FINAL, 0, hooks)
    }

    /// One column of a decode batch on the CPU, from embeddings `[B, 1, d]` to hidden states `[B, 1, d]`; `None` if
    /// libtorch has to compute it.
    fn decode_column<H: Hooks>(
        &self,
        x: &Tensor,
        columns: &Columns,
        cache: &mut Cache,
        adapters: bool,
        hooks: &H,
    ) -> Option<Tensor> {
        if H::TRACES || self.device != Device::Cpu || x.size()[0] as usize > DecodeBatch::MOST {
            return None;
        }
        let last: Vec<LastColumn> = columns.last();
        let mut x = DecodeBatch::of_tensor(&x.squeeze_dim(1));
        for (i, (block, &kind)) in self.blocks.iter().zip(&self.config.blocks).enumerate() {
            let normed = decoded(block.before_attention.as_ref(), &x);
            let (seen, last) = (columns.of(kind), &last[columns.index(kind)]);
            let seen = block.attention.decode(&normed, &seen, cache.layer(i), last, adapters)?;
            let seen = decoded(block.after_attention.as_ref(), &seen);
            let before = self.config.parallel.then(|| x.clone());
            x.add(&seen, 1.0);
            let input = decoded(block.before_mlp.as_ref(), before.as_ref().unwrap_or(&x));
            x.add(&decoded(block.after_mlp.as_ref(), &block.mlp.decode(&input, adapters)?), 1.0);
            if let Some(added) = hooks.added(i) {
                x.add(&DecodeBatch::of_tensor(&added.expand([x.rows() as i64, -1], false)), 1.0);
            }
        }
        Some(self.norm.decode(&x).to_tensor().unsqueeze(1).to_kind(kind_of(self.precision)))
    }

    /// The logits of hidden states, `[.., d]` → `[.., vocabulary]`, f32.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.logits_by(hidden, &self.head)
    }

    /// The logits by these rows of the head, `[.., d]` → `[.., rows]`, f32.
    pub(crate) fn logits_by(&self, hidden: &Tensor, rows: &Tensor) -> Tensor {
        let logits = product(hidden, rows, None).to_kind(Kind::Float);
        match self.config.logit_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    /// The logits of hidden states `[B, d]` as numbers, row by row. Call it under [`tch::no_grad`].
    pub(super) fn decode_logits(&self, hidden: &Tensor) -> Vec<f32> {
        let is_small = hidden.size()[0] as usize <= DecodeBatch::MOST && self.device == Device::Cpu;
        let is_plain = is_small && self.config.logit_cap.is_none();
        let decoded = is_plain.then(|| DecodeBatch::of_tensor(hidden).map(&self.head, None)).flatten();
        decoded.map_or_else(|| numbers(&self.logits(hidden)), |logits| logits.to_rows())
    }

    /// An empty KV cache for this many rows and columns.
    pub fn cache(&self, rows: usize, columns: usize) -> Cache {
        Cache::new(&self.config, rows, columns, kind_of(self.precision), self.device)
    }

    /// The base model's parameters by name; a tied head is left out.
    pub fn tensors(&self) -> Tensors {
        let mut all = Tensors::new();
        let names = Names::of(self.config.family);
        all.insert(format!("{}.weight", names.outside(names.embedding)), self.embedding.shallow_clone());
        if let (Some(positions), Some((name, _))) = (&self.positions, names.positions) {
            all.insert(format!("{}.weight", names.outside(name)), positions.shallow_clone());
        }
        let mut norm = |norm: &Norm| {
            all.insert(format!("{}.weight", norm.name), norm.weight.shallow_clone());
            if let Some(bias) = &norm.bias {
                all.insert(format!("{}.bias", norm.name), bias.shallow_clone());
            }
        };
        norm(&self.norm);
        for block in &self.blocks {
            let around = [&block.before_attention, &block.after_attention, &block.before_mlp, &block.after_mlp];
            around.into_iter().flatten().for_each(&mut norm);
            block.attention.norms().into_iter().flatten().for_each(&mut norm);
        }
        for linear in self.linears() {
            all.insert(format!("{}.weight", linear.name), linear.weight.shallow_clone());
            if let Some(bias) = &linear.bias {
                all.insert(format!("{}.bias", linear.name), bias.shallow_clone());
            }
        }
        if has_head(&self.config) {
            all.insert(format!("{}.weight", names.head), self.head.shallow_clone());
        }
        all
    }

    /// [`Transformer::tensors`], with the head also where it is the embedding.
    pub(super) fn tensors_with_head(&self) -> Tensors {
        let mut all = self.tensors();
        if self.config.model_head == ModelHead::Causal {
            all.insert(format!("{}.weight", Names::of(self.config.family).head), self.head.shallow_clone());
        }
        all
    }

    /// This model with other parameters, as [`Transformer::tensors_with_head`] gives them. The head is tied if it is
    /// the embedding's own tensor.
    pub(super) fn with_tensors(&self, mut tensors: Tensors) -> Transformer {
        let mut like = self.clone();
        let [embedding, head] = self.ends().map(|module| format!("{module}.weight"));
        if let (Some(ours), Some(other)) = (tensors.get(&embedding), tensors.get(&head)) {
            like.config.tied = ours.data_ptr() == other.data_ptr();
            if like.config.tied {
                tensors.remove(&head);
            }
        }
        like.of_same_kind(&tensors)
    }

    /// The names of the embedding and of the head.
    pub(super) fn ends(&self) -> [String; 2] {
        let names = Names::of(self.config.family);
        [names.outside(names.embedding), names.head.to_owned()]
    }

    /// A parameter of this name as it has to lie in memory.
    pub(super) fn laid_out(&self, name: &str, tensor: &Tensor) -> Tensor {
        let names = Names::of(self.config.family);
        outputs_first(tensor, names.transposed && tensor.dim() == 2 && names.block_of(name).is_some())
    }

    /// The modules that an adapter can change: the linear layers, the embeddings and the head.
    pub(super) fn modules(&self) -> Vec<Module> {
        let names = Names::of(self.config.family);
        let linear = |linear: &Linear| Module {
            name: linear.name.clone(),
            sizes: linear.sizes(),
            transposed: linear.transposed,
            is_embedding: false,
            is_in_block: true,
        };
        let mut all: Vec<Module> = self.linears().into_iter().map(linear).collect();
        let positions = names.positions.and_then(|(name, _)| Some((name, self.positions.as_ref()?)));
        for (name, table) in [(names.embedding, &self.embedding)].into_iter().chain(positions) {
            let sizes = [table.size()[0], table.size()[1]];
            let name = names.outside(name);
            all.push(Module { name, sizes, transposed: false, is_embedding: true, is_in_block: false });
        }
        if self.config.model_head == ModelHead::Causal {
            let sizes = [self.head.size()[1], self.head.size()[0]];
            let name = names.head.to_owned();
            all.push(Module { name, sizes, transposed: false, is_embedding: false, is_in_block: false });
        }
        all
    }

    /// The name of the last norm's bias, if it has one.
    pub(super) fn last_bias(&self) -> Option<String> {
        self.norm.bias.as_ref().map(|_| format!("{}.bias", self.norm.name))
    }

    /// Sets the token at which a reward is never read. transformers reads the score of a text at the last token that is
    /// not the padding token, wherever that is; without one, at the last token.
    pub fn set_score_pad(&mut self, pad: Option<u32>) {
        self.score_pad = pad;
    }

    /// The token at which a reward is never read.
    pub fn score_pad(&self) -> Option<u32> {
        self.score_pad
    }

    /// The adapters' matrices, `MODULE.lora_A.weight` `[r, input]` and `MODULE.lora_B.weight` `[output, r]`.
    pub fn adapter_tensors(&self) -> Tensors {
        let mut all = Tensors::new();
        for linear in self.linears() {
            if let Some(lora) = &linear.lora {
                all.insert(format!("{}.lora_A.weight", linear.name), lora.a.shallow_clone());
                all.insert(format!("{}.lora_B.weight", linear.name), lora.b.shallow_clone());
            }
        }
        all
    }

    /// Number of the base model's parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().values().map(Tensor::numel).sum()
    }

    /// The linear layers, in order.
    pub(super) fn linears(&self) -> Vec<&Linear> {
        let mut all = vec![];
        for block in &self.blocks {
            all.extend(block.attention.linears());
            all.extend(block.mlp.linears());
        }
        all
    }

    /// The linear layers, in order, to attach adapters to.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all = vec![];
        for block in &mut self.blocks {
            all.extend(block.attention.linears_mut());
            all.extend(block.mlp.linears_mut());
        }
        all
    }
}

impl Transformer {
    /// Freezes the embeddings and the first `layers` blocks: they are not trained, and deep clones share them. A tied
    /// head is the embedding and is frozen with it. 0 unfreezes everything.
    pub fn freeze(&mut self, layers: usize) {
        self.frozen = layers.min(self.config.layers);
    }

    /// Whether [`Transformer::freeze`] froze the parameter or adapter matrix of this name.
    pub(super) fn is_frozen(&self, name: &str) -> bool {
        if self.frozen == 0 {
            return false;
        }
        let names = Names::of(self.config.family);
        match names.block_of(name) {
            Some(block) => block < self.frozen,
            None => {
                let embeddings = [Some(names.embedding), names.positions.map(|(name, _)| name)];
                embeddings.into_iter().flatten().any(|embedding| name == format!("{}.weight", names.outside(embedding)))
            }
        }
    }

    /// A copy that can be trained independently. What is trained is copied, as leaves that require gradients; what is
    /// frozen is shared. With adapters, the base is shared and the adapters are copied.
    pub fn deep_clone(&self) -> Transformer {
        let leaf = |tensor: &Tensor| tch::no_grad(|| tensor.detach().copy()).set_requires_grad(true);
        let adapted = self.linears().iter().any(|linear| linear.lora.is_some());
        let mut tensors = self.tensors();
        if !adapted {
            tensors.iter_mut().filter(|(name, _)| !self.is_frozen(name)).for_each(|(_, tensor)| *tensor = leaf(tensor));
        }
        let mut copy = self.of_same_kind(&tensors);
        for (new, old) in copy.linears_mut().into_iter().zip(self.linears()) {
            new.lora = old.lora.as_ref().map(|lora| match self.is_frozen(&old.name) {
                true => lora.share(),
                false => Lora { a: leaf(&lora.a), b: leaf(&lora.b), ..lora.share() },
            });
        }
        copy
    }

    /// A model with these tensors and this one's settings. It has no adapter matrices yet.
    fn of_same_kind(&self, tensors: &Tensors) -> Transformer {
        let mut model = Transformer::assemble(&self.config, tensors, self.precision, self.device);
        model.frozen = self.frozen;
        model.adapter = self.adapter.clone();
        model.attached = self.attached.clone();
        model.score_pad = self.score_pad;
        model.checkpointing = self.checkpointing;
        model
    }
}

impl Clone for Transformer {
    fn clone(&self) -> Transformer {
        let mut copy = self.of_same_kind(&self.tensors());
        for (new, old) in copy.linears_mut().into_iter().zip(self.linears()) {
            new.lora = old.lora.as_ref().map(Lora::share);
        }
        copy
    }
}

/// The sites of the norms: before attention, before the MLP, and the last one.
const LN1: [Site; 2] = [Site::Ln1Scale, Site::Ln1Normalized];
const LN2: [Site; 2] = [Site::Ln2Scale, Site::Ln2Normalized];
const LN_FINAL: [Site; 2] = [Site::LnFinalScale, Site::LnFinalNormalized];

/// The steps of a traced pass, for rows of one length without padding. Activations are f32.
impl Transformer {
    /// Token ids `[B, T]` → embeddings `[B, T, d]`.
    pub(crate) fn traced_embedding<H: Hooks>(&self, ids: &Tensor, hooks: &mut H) -> Tensor {
        self.embed(ids, &self.lay_out::<H>(&ids.ones_like(), None), hooks)
    }

    /// Some blocks, `[B, T, d]` → `[B, T, d]`. With a cache, its columns come before these. The last block of the model
    /// leaves out the columns before `from`.
    pub(crate) fn traced_blocks<H: Hooks>(
        &self,
        blocks: Range<usize>,
        x: Tensor,
        from: i64,
        cache: Option<&mut Cache>,
        adapters: bool,
        hooks: &mut H,
    ) -> Tensor {
        let mask = Tensor::ones(&x.size()[..2], (Kind::Int64, x.device()));
        let columns = self.lay_out::<H>(&mask, cache.as_deref());
        self.run(blocks, x, &mut Pass { columns: &columns, from, cache, adapters: adapters.into(), hooks })
    }

    /// The last norm, `[B, T, d]` → `[B, T, d]`.
    pub(crate) fn traced_norm<H: Hooks>(&self, x: &Tensor, hooks: &mut H) -> Tensor {
        self.last_norm(x, hooks)
    }

    /// The layers of block `i` that write into the residual stream: attention's output and the MLP's.
    pub(crate) fn writers(&self, i: usize) -> [&Linear; 2] {
        [self.blocks[i].attention.output(), self.blocks[i].mlp.output()]
    }

    /// The factor `[d]` and the bias `[d]` of the last norm; an RMS norm has no bias.
    pub(crate) fn last_norm_parameters(&self) -> (Tensor, Option<&Tensor>) {
        (self.norm.factor(), self.norm.bias.as_ref())
    }

    /// The unembedding, `[vocabulary, d]`.
    pub(crate) fn unembedding(&self) -> &Tensor {
        &self.head
    }

    /// Whether norms come before attention and MLP.
    pub(crate) fn norms_its_reads(&self) -> bool {
        self.blocks.iter().all(|block| block.before_attention.is_some() && block.before_mlp.is_some())
    }

    /// Whether its MLPs are gated.
    pub(crate) fn is_gated(&self) -> bool {
        self.blocks.iter().all(|block| !matches!(block.mlp.layers, MlpLayers::Plain(_)))
    }

    /// Whether norms come after attention or MLP, between them and the residual stream.
    pub(crate) fn norms_its_writes(&self) -> bool {
        self.blocks.iter().any(|block| block.after_attention.is_some() || block.after_mlp.is_some())
    }
}

/// The total size of these models' weights in bytes, adapters included. Shared tensors count once.
pub fn weights_bytes(models: &[&Transformer]) -> usize {
    let mut seen = BTreeSet::new();
    let bases = models.iter().filter_map(|model| model.attached.as_ref()?.base.as_deref());
    let all = models.iter().copied().chain(bases);
    let all = all.flat_map(|model| model.tensors().into_values().chain(model.adapter_tensors().into_values()));
    all.filter(|tensor| seen.insert(tensor.data_ptr() as usize))
        .map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes())
        .sum()
}

/// Whether the head has weights of its own: a tied head is the embedding, and a model that ends in a score has no
/// logits.
fn has_head(config: &ModelConfig) -> bool {
    !config.tied && config.model_head == ModelHead::Causal
}

/// Every parameter's name and shape, as the family's causal model names them.
fn shapes(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
    let names = Names::of(config.family);
    let [vocabulary, context, d, inner] =
        [config.vocabulary, config.context, config.width, config.inner].map(|n| n as i64);
    let [q, kv] = [config.heads, config.kv_heads].map(|heads| (heads * config.head_width) as i64);
    let mut all: Vec<(String, Vec<i64>)> = vec![];
    let mut add = |module: String, part: &str, shape: &[i64]| all.push((format!("{module}.{part}"), shape.to_vec()));
    let has_norm_bias = config.norm == NormKind::Layer;
    add(names.outside(names.embedding), "weight", &[vocabulary, d]);
    if let Some((positions, first)) = names.positions {
        add(names.outside(positions), "weight", &[context + first, d]);
    }
    // Each linear layer with the sizes of its input and output, and whether it has a bias.
    let mut linears = match names.input {
        InputNames::Fused(all) | InputNames::PerHead(all) => vec![(all, d, q + 2 * kv, config.qkv_bias)],
        InputNames::Separate(each) => {
            each.into_iter().zip([q, kv, kv]).map(|(name, output)| (name, d, output, config.qkv_bias)).collect()
        }
    };
    linears.push((names.output, q, d, config.output_bias));
    let (inputs, output, from_input) = match names.mlp {
        MlpNames::Plain([input, output]) => (vec![input], output, inner),
        MlpNames::Gated([gate, up, down]) => (vec![gate, up], down, inner),
        MlpNames::Fused([gate_up, down]) => (vec![gate_up], down, 2 * inner),
    };
    linears.extend(inputs.into_iter().map(|name| (name, d, from_input, config.mlp_bias)));
    linears.push((output, inner, d, config.mlp_bias));
    let qk_sizes = match config.qk_norm {
        QkNorm::None => None,
        QkNorm::Heads => Some([config.head_width as i64; 2]),
        QkNorm::Whole => Some([q, kv]),
    };
    for i in 0..config.layers {
        for norm in names.norms().into_iter().flatten() {
            add(names.in_block(i, norm), "weight", &[d]);
            if has_norm_bias {
                add(names.in_block(i, norm), "bias", &[d]);
            }
        }
        for &(name, input, output, bias) in &linears {
            add(names.in_block(i, name), "weight", &if names.transposed { [input, output] } else { [output, input] });
            if bias {
                add(names.in_block(i, name), "bias", &[output]);
            }
        }
        for (norm, size) in QK_NORMS.into_iter().zip(qk_sizes.into_iter().flatten()) {
            add(names.in_block(i, norm), "weight", &[size]);
        }
    }
    add(names.outside(names.norm), "weight", &[d]);
    if has_norm_bias {
        add(names.outside(names.norm), "bias", &[d]);
    }
    if has_head(config) {
        add(names.head.to_owned(), "weight", &[vocabulary, d]);
    }
    all
}
