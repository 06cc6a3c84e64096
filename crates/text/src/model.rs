//! The transformer: GPT-2 and the Llama family, from token ids to hidden states and logits.
//!
//! Parameters have Hugging Face's names and layouts, so that the same tensors are loaded, trained and saved. There is
//! no dropout, except in adapters that train with it. In bf16, weights and activations are bf16; norms, softmax and the
//! returned logits are computed in f32.

mod attention;
mod linear;
mod norm;

use super::config::{Family, ModelConfig, ModelHead};
use super::error::ModelError;
use super::hidden::{Compute, Hidden};
use attention::{Angles, Attention, Columns, Layer};
use flipside_core::Stream;
use flipside_core::settings::LoraSettings;
use flipside_learn::{DecodeBatch, numbers};
use linear::{Adapters, Linear, outputs_first, product};
use norm::Norm;
use rand_distr::{Distribution, StandardNormal};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

pub use attention::Cache;
pub use flipside_core::settings::TextPrecision as Precision;
pub use linear::Lora;

/// Named tensors, by Hugging Face's names.
pub type Tensors = BTreeMap<String, Tensor>;

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
    /// GPT-2's `[context, d]`.
    positions: Option<Tensor>,
    blocks: Vec<Block>,
    norm: Norm,
    /// `[vocabulary, d]`; if tied, the embedding's own tensor.
    head: Tensor,
    /// How many of the first blocks are frozen, together with the embedding; 0 freezes nothing.
    frozen: usize,
    /// The adapters' settings, if there are adapters.
    pub(super) adapter: Option<LoraSettings>,
    /// Gradient checkpointing: whether the backward pass recomputes blocks instead of storing their activations.
    checkpointing: bool,
}

/// Attention and MLP, each with a norm before it and a residual connection around both.
#[derive(Debug)]
struct Block {
    before_attention: Norm,
    attention: Attention,
    before_mlp: Norm,
    mlp: Mlp,
}

#[derive(Debug)]
enum Mlp {
    /// GPT-2: out(gelu(in(x))), with the tanh approximation of GELU.
    Gelu { input: Linear, output: Linear },
    /// SwiGLU: down(silu(gate(x)) · up(x)).
    Gated { gate: Linear, up: Linear, down: Linear },
}

/// What all blocks share in a forward pass.
struct Batch {
    columns: Columns,
    /// `None` if position embeddings are learnt.
    angles: Option<Angles>,
}

impl Mlp {
    fn forward(&self, x: &Tensor, adapters: Adapters) -> Tensor {
        match self {
            Mlp::Gelu { input, output } => output.forward(&input.forward(x, adapters).gelu("tanh"), adapters),
            Mlp::Gated { gate, up, down } => {
                down.forward(&(gate.forward(x, adapters).silu() * up.forward(x, adapters)), adapters)
            }
        }
    }

    /// [`Mlp::forward`] for a decode batch on the CPU.
    fn decode(&self, x: &DecodeBatch, adapters: bool) -> Option<DecodeBatch> {
        match self {
            Mlp::Gelu { input, output } => {
                let mut inner = input.decode(x, adapters)?;
                inner.gelu();
                output.decode(&inner, adapters)
            }
            Mlp::Gated { gate, up, down } => {
                let mut inner = gate.decode(x, adapters)?;
                inner.silu();
                inner.multiply(&up.decode(x, adapters)?);
                down.decode(&inner, adapters)
            }
        }
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        match self {
            Mlp::Gelu { input, output } => vec![input, output],
            Mlp::Gated { gate, up, down } => vec![gate, up, down],
        }
    }
}

impl Transformer {
    /// A model with random weights, initialised as usual for its family: N(0, 0.02²), for GPT-2's projections into the
    /// residual stream with the standard deviation divided by √(2 layers), biases 0, norms 1.
    pub fn random(config: &ModelConfig, precision: Precision, device: Device, stream: &mut Stream) -> Transformer {
        let mut draw = |shape: &[i64], deviation: f64| {
            let count: i64 = shape.iter().product();
            let numbers: Vec<f32> = (0..count)
                .map(|_| {
                    let z: f32 = StandardNormal.sample(stream);
                    z * deviation as f32
                })
                .collect();
            Tensor::from_slice(&numbers).reshape(shape)
        };
        let residual = match config.family {
            Family::Gpt2 => 0.02 / (2.0 * config.layers as f64).sqrt(),
            _ => 0.02,
        };
        let tensors = shapes(config)
            .into_iter()
            .map(|(name, shape)| {
                let options = (Kind::Float, Device::Cpu);
                let tensor = if name.ends_with("bias") {
                    Tensor::zeros(&shape, options)
                } else if shape.len() == 1 {
                    Tensor::ones(&shape, options)
                } else {
                    draw(&shape, if name.ends_with("c_proj.weight") { residual } else { 0.02 })
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
        let mut taken = Tensors::new();
        for (name, shape) in shapes(config) {
            let bare = name.split_once('.').map_or(&name[..], |(_, bare)| bare);
            let found = tensors.remove(&name).or_else(|| tensors.remove(bare));
            let Some(tensor) = found else { return Err(ModelError::MissingTensor(name)) };
            if tensor.size() != shape {
                return Err(ModelError::Shape { name, found: tensor.size(), expected: shape });
            }
            // Norms are computed in f32, so their parameters stay in f32.
            let kind = if shape.len() == 1 && name.contains("norm") || name.contains("ln_") {
                Kind::Float
            } else {
                kind_of(precision)
            };
            let tensor = tensor.detach().to_device(device).to_kind(kind);
            // GPT-2's linear layers: their weights are the only matrices in its blocks.
            let transposed = config.family == Family::Gpt2 && shape.len() == 2 && name.contains(".h.");
            taken.insert(name, outputs_first(&tensor, transposed));
        }
        Ok(Transformer::assemble(config, &taken, precision, device))
    }

    fn assemble(config: &ModelConfig, tensors: &Tensors, precision: Precision, device: Device) -> Transformer {
        let get = |name: &str| tensors[name].shallow_clone();
        let maybe = |name: &str| tensors.get(name).map(Tensor::shallow_clone);
        let norm = |name: &str| Norm {
            name: name.to_owned(),
            weight: get(&format!("{name}.weight")),
            bias: maybe(&format!("{name}.bias")),
            eps: config.norm_eps,
        };
        let conv1d = config.family == Family::Gpt2;
        let linear =
            |name: String| Linear::new(get(&format!("{name}.weight")), maybe(&format!("{name}.bias")), conv1d, name);
        let prefix = prefix(config.family);
        let block = |i: usize| match config.family {
            Family::Gpt2 => {
                let at = format!("{prefix}h.{i}");
                Block {
                    before_attention: norm(&format!("{at}.ln_1")),
                    attention: Attention::fused(
                        config,
                        linear(format!("{at}.attn.c_attn")),
                        linear(format!("{at}.attn.c_proj")),
                    ),
                    before_mlp: norm(&format!("{at}.ln_2")),
                    mlp: Mlp::Gelu {
                        input: linear(format!("{at}.mlp.c_fc")),
                        output: linear(format!("{at}.mlp.c_proj")),
                    },
                }
            }
            _ => {
                let at = format!("{prefix}layers.{i}");
                let qk_norm = (config.family == Family::Qwen3)
                    .then(|| [norm(&format!("{at}.self_attn.q_norm")), norm(&format!("{at}.self_attn.k_norm"))]);
                let [q, k, v, o] = ["q", "k", "v", "o"].map(|x| linear(format!("{at}.self_attn.{x}_proj")));
                Block {
                    before_attention: norm(&format!("{at}.input_layernorm")),
                    attention: Attention::separate(config, [q, k, v], o, qk_norm),
                    before_mlp: norm(&format!("{at}.post_attention_layernorm")),
                    mlp: Mlp::Gated {
                        gate: linear(format!("{at}.mlp.gate_proj")),
                        up: linear(format!("{at}.mlp.up_proj")),
                        down: linear(format!("{at}.mlp.down_proj")),
                    },
                }
            }
        };
        let [embedding, last] = match config.family {
            Family::Gpt2 => [format!("{prefix}wte.weight"), format!("{prefix}ln_f")],
            _ => [format!("{prefix}embed_tokens.weight"), format!("{prefix}norm")],
        };
        let embedding = get(&embedding);
        Transformer {
            config: config.clone(),
            precision,
            device,
            positions: maybe(&format!("{prefix}wpe.weight")),
            blocks: (0..config.layers).map(block).collect(),
            norm: norm(&last),
            head: maybe("lm_head.weight").unwrap_or_else(|| embedding.shallow_clone()),
            embedding,
            frozen: 0,
            adapter: None,
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
        let mut no_cache = Cache::none();
        let cached = cache.is_some();
        let cache = cache.unwrap_or(&mut no_cache);
        let batch = self.lay_out(mask, cache, cached);
        let mut x = self.embed(ids, &batch);
        if cached
            && ids.size()[1] == 1
            && let Some(hidden) = self.decode_column(&x, &batch, cache, adapters)
        {
            cache.advance(&batch.columns);
            return hidden;
        }
        for i in 0..self.blocks.len() {
            x = self.block(i, &x, from, &batch, cache.layer(i, cached), adapters.into());
        }
        if cached {
            cache.advance(&batch.columns);
        }
        self.norm.forward(&x)
    }

    /// [`Transformer::hidden_from`] with adapters and gradients, for a loss. A seed turns on the adapters' dropout.
    /// With [`Transformer::set_checkpointing`], only the inputs of the trained blocks are stored.
    pub fn hidden_for_loss(&self, ids: &Tensor, mask: &Tensor, from: i64, dropout: Option<u64>) -> Hidden<'_> {
        let adapters = dropout.map_or(Adapters::On, Adapters::Dropping);
        let batch = Rc::new(self.lay_out(mask, &Cache::none(), false));
        let blocks = self.blocks.len();
        // Frozen blocks have no gradient and are computed once.
        let first = self.frozen.min(blocks);
        let frozen_output =
            || (0..first).fold(self.embed(ids, &batch), |x, i| self.block(i, &x, from, &batch, None, adapters));
        if !self.checkpointing || first == blocks {
            let x = (first..blocks).fold(frozen_output(), |x, i| self.block(i, &x, from, &batch, None, adapters));
            return Hidden::with_graph(self.norm.forward(&x));
        }
        let frozen = (first > 0).then(|| tch::no_grad(frozen_output));
        let ids = ids.shallow_clone();
        Hidden::checkpointed((first..blocks).map(|i| {
            let (batch, frozen, ids) = (batch.clone(), frozen.as_ref().map(Tensor::shallow_clone), ids.shallow_clone());
            let compute = move |input: Option<&Tensor>| {
                let start = || frozen.as_ref().map_or_else(|| self.embed(&ids, &batch), Tensor::shallow_clone);
                let x = input.map_or_else(start, Tensor::shallow_clone);
                let x = self.block(i, &x, from, &batch, None, adapters);
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

    /// What all blocks share in a forward pass over columns that follow those of the cache.
    fn lay_out(&self, mask: &Tensor, cache: &Cache, cached: bool) -> Batch {
        let kind = kind_of(self.precision);
        let columns = Columns::new(mask, cache, cached, self.config.window, kind);
        let rope = self.config.rope;
        let angles = rope.map(|rope| Angles::new(rope, self.config.head_width, &columns.positions, kind));
        Batch { columns, angles }
    }

    /// `[B, T]` → `[B, T, d]`.
    fn embed(&self, ids: &Tensor, batch: &Batch) -> Tensor {
        let x = Tensor::embedding(&self.embedding, ids, -1, false, false);
        match &self.positions {
            Some(positions) => x + Tensor::embedding(positions, &batch.columns.positions, -1, false, false),
            None => x,
        }
    }

    /// One block, `[B, T, d]` → `[B, T, d]`; the last block leaves out the columns before `from`.
    fn block(
        &self,
        i: usize,
        x: &Tensor,
        from: i64,
        batch: &Batch,
        layer: Option<&mut Layer>,
        adapters: Adapters,
    ) -> Tensor {
        let block = &self.blocks[i];
        let from = if i + 1 == self.blocks.len() { from } else { 0 };
        let normed = block.before_attention.forward(x);
        let seen = block.attention.forward(&normed, from, &batch.columns, batch.angles.as_ref(), layer, adapters);
        // Each sum is a new tensor: adding in place would overwrite an input that the norm's backward pass needs.
        let x = if from == 0 { x.shallow_clone() } else { x.narrow(1, from, x.size()[1] - from) } + seen;
        let normed = block.before_mlp.forward(&x);
        &x + block.mlp.forward(&normed, adapters)
    }

    /// One column of a decode batch on the CPU, from embeddings `[B, 1, d]` to hidden states `[B, 1, d]`; `None` if
    /// libtorch has to compute it.
    fn decode_column(&self, x: &Tensor, batch: &Batch, cache: &mut Cache, adapters: bool) -> Option<Tensor> {
        if self.device != Device::Cpu || x.size()[0] as usize > DecodeBatch::MOST {
            return None;
        }
        let columns = &batch.columns;
        let (bias, angles) = (columns.bias_of_last(), batch.angles.as_ref().map(Angles::of_column));
        let mut x = DecodeBatch::of_tensor(&x.squeeze_dim(1));
        for (i, block) in self.blocks.iter().enumerate() {
            let normed = block.before_attention.decode(&x);
            let layer = cache.layer(i, true)?;
            x.add(&block.attention.decode(&normed, columns, angles.as_ref(), layer, &bias, adapters)?, 1.0);
            x.add(&block.mlp.decode(&block.before_mlp.decode(&x), adapters)?, 1.0);
        }
        Some(self.norm.decode(&x).to_tensor().unsqueeze(1).to_kind(kind_of(self.precision)))
    }

    /// The logits of hidden states, `[.., d]` → `[.., vocabulary]`, f32.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        product(hidden, &self.head, None).to_kind(Kind::Float)
    }

    /// The logits of hidden states `[B, d]` as numbers, row by row. Call it under [`tch::no_grad`].
    pub(super) fn decode_logits(&self, hidden: &Tensor) -> Vec<f32> {
        let is_small = hidden.size()[0] as usize <= DecodeBatch::MOST && self.device == Device::Cpu;
        let decoded = is_small.then(|| DecodeBatch::of_tensor(hidden).map(&self.head, None)).flatten();
        decoded.map_or_else(|| numbers(&self.logits(hidden)), |logits| logits.to_rows())
    }

    /// An empty KV cache for this many rows and columns.
    pub fn cache(&self, rows: usize, columns: usize) -> Cache {
        Cache::new(&self.config, rows, columns, kind_of(self.precision), self.device)
    }

    /// The base model's parameters by name; a tied head is left out.
    pub fn tensors(&self) -> Tensors {
        let mut all = Tensors::new();
        let prefix = prefix(self.config.family);
        match self.config.family {
            Family::Gpt2 => all.insert(format!("{prefix}wte.weight"), self.embedding.shallow_clone()),
            _ => all.insert(format!("{prefix}embed_tokens.weight"), self.embedding.shallow_clone()),
        };
        if let Some(positions) = &self.positions {
            all.insert(format!("{prefix}wpe.weight"), positions.shallow_clone());
        }
        let mut norm = |norm: &Norm| {
            all.insert(format!("{}.weight", norm.name), norm.weight.shallow_clone());
            if let Some(bias) = &norm.bias {
                all.insert(format!("{}.bias", norm.name), bias.shallow_clone());
            }
        };
        norm(&self.norm);
        for block in &self.blocks {
            norm(&block.before_attention);
            norm(&block.before_mlp);
            block.attention.norms().into_iter().flatten().for_each(&mut norm);
        }
        for linear in self.linears() {
            all.insert(format!("{}.weight", linear.name), linear.weight.shallow_clone());
            if let Some(bias) = &linear.bias {
                all.insert(format!("{}.bias", linear.name), bias.shallow_clone());
            }
        }
        if has_head(&self.config) {
            all.insert("lm_head.weight".into(), self.head.shallow_clone());
        }
        all
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
            match &block.mlp {
                Mlp::Gelu { input, output } => all.extend([input, output]),
                Mlp::Gated { gate, up, down } => all.extend([gate, up, down]),
            }
        }
        all
    }

    /// The linear layers, in order, to attach adapters to.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all = vec![];
        for block in &mut self.blocks {
            all.extend(block.attention.linears_mut());
            all.extend(block.mlp.linears());
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
        let bare = name.strip_prefix(prefix(self.config.family)).unwrap_or(name);
        let block = bare.strip_prefix("h.").or_else(|| bare.strip_prefix("layers."));
        match block.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok()) {
            Some(block) => block < self.frozen,
            None => ["wte.", "wpe.", "embed_tokens."].iter().any(|embedding| bare.starts_with(embedding)),
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

/// The total size of these models' weights in bytes, adapters included. Shared tensors count once.
pub fn weights_bytes(models: &[&Transformer]) -> usize {
    let mut seen = BTreeSet::new();
    let all =
        models.iter().flat_map(|model| model.tensors().into_values().chain(model.adapter_tensors().into_values()));
    all.filter(|tensor| seen.insert(tensor.data_ptr() as usize))
        .map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes())
        .sum()
}

/// The prefix of a family's parameter names, except the head's.
fn prefix(family: Family) -> &'static str {
    match family {
        Family::Gpt2 => "transformer.",
        _ => "model.",
    }
}

/// Whether the head has weights of its own: a tied head is the embedding, and a model that ends in a score has no
/// logits.
fn has_head(config: &ModelConfig) -> bool {
    !config.tied && config.model_head == ModelHead::Causal
}

/// Every parameter's name and shape, as the family's causal model names them.
fn shapes(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
    let number = |n: usize| n as i64;
    let (d, inner) = (number(config.width), number(config.inner));
    let prefix = prefix(config.family);
    let mut all: Vec<(String, Vec<i64>)> = vec![];
    let mut add = |name: String, shape: &[i64]| all.push((name, shape.to_vec()));
    match config.family {
        Family::Gpt2 => {
            add(format!("{prefix}wte.weight"), &[number(config.vocabulary), d]);
            add(format!("{prefix}wpe.weight"), &[number(config.context), d]);
            for i in 0..config.layers {
                for norm in ["ln_1", "ln_2"] {
                    add(format!("{prefix}h.{i}.{norm}.weight"), &[d]);
                    add(format!("{prefix}h.{i}.{norm}.bias"), &[d]);
                }
                for (map, input, output) in
                    [("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, inner), ("mlp.c_proj", inner, d)]
                {
                    add(format!("{prefix}h.{i}.{map}.weight"), &[input, output]);
                    add(format!("{prefix}h.{i}.{map}.bias"), &[output]);
                }
            }
            add(format!("{prefix}ln_f.weight"), &[d]);
            add(format!("{prefix}ln_f.bias"), &[d]);
        }
        _ => {
            let w = number(config.head_width);
            let (q, kv) = (number(config.heads) * w, number(config.kv_heads) * w);
            add(format!("{prefix}embed_tokens.weight"), &[number(config.vocabulary), d]);
            for i in 0..config.layers {
                let at = format!("{prefix}layers.{i}");
                add(format!("{at}.input_layernorm.weight"), &[d]);
                add(format!("{at}.post_attention_layernorm.weight"), &[d]);
                for (map, output, input, bias) in [
                    ("self_attn.q_proj", q, d, config.qkv_bias),
                    ("self_attn.k_proj", kv, d, config.qkv_bias),
                    ("self_attn.v_proj", kv, d, config.qkv_bias),
                    ("self_attn.o_proj", d, q, config.output_bias),
                    ("mlp.gate_proj", inner, d, config.mlp_bias),
                    ("mlp.up_proj", inner, d, config.mlp_bias),
                    ("mlp.down_proj", d, inner, config.mlp_bias),
                ] {
                    add(format!("{at}.{map}.weight"), &[output, input]);
                    if bias {
                        add(format!("{at}.{map}.bias"), &[output]);
                    }
                }
                if config.family == Family::Qwen3 {
                    add(format!("{at}.self_attn.q_norm.weight"), &[w]);
                    add(format!("{at}.self_attn.k_norm.weight"), &[w]);
                }
            }
            add(format!("{prefix}norm.weight"), &[d]);
        }
    }
    if has_head(config) {
        add("lm_head.weight".into(), &[number(config.vocabulary), d]);
    }
    all
}
