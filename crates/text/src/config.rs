//! The configuration of a language model: reads and writes Hugging Face's `config.json`. A setting that would change
//! the computation in an unsupported way is refused by name.

mod read;
mod write;

use super::error::ModelError;
use super::rope::Rope;
use serde_json::Value;

/// A family of architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// GPT-2: learnt position embeddings, layer norm, an MLP with GELU.
    Gpt2,
    /// Llama 2 and 3: rotary position embeddings, RMS norm, grouped-query attention, SwiGLU.
    Llama,
    /// Llama with sliding-window attention.
    Mistral,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with normalised queries and keys and a head size of its own.
    Qwen3,
    /// Llama with scaled embeddings, norms of weight 1 + w, and GELU in the MLP's gate.
    Gemma,
    /// Gemma with norms on both sides, soft caps, and every second block within a window.
    Gemma2,
    /// Gemma 2 with normalised queries and keys in place of soft caps, and two kinds of rotary positions.
    Gemma3,
    /// Llama with fused projections and, in later versions, LongRoPE.
    Phi3,
    /// GPT-NeoX and Pythia: attention and MLP side by side, rotary positions of a part of each head.
    GptNeoX,
    /// OPT: GPT-2 with separate projections and ReLU.
    Opt,
    /// Llama whose every fourth block has no positions.
    SmolLm3,
    /// Llama with norms after attention and MLP instead of before, and whole queries and keys normalised.
    Olmo2,
}

impl Family {
    /// All families, with their `model_type`, the stem of their `architectures` and their usual name.
    const NAMES: [(Family, &'static str, &'static str, &'static str); 13] = [
        (Family::Gpt2, "gpt2", "GPT2", "GPT-2"),
        (Family::Llama, "llama", "Llama", "Llama"),
        (Family::Mistral, "mistral", "Mistral", "Mistral"),
        (Family::Qwen2, "qwen2", "Qwen2", "Qwen2"),
        (Family::Qwen3, "qwen3", "Qwen3", "Qwen3"),
        (Family::Gemma, "gemma", "Gemma", "Gemma"),
        (Family::Gemma2, "gemma2", "Gemma2", "Gemma 2"),
        (Family::Gemma3, "gemma3_text", "Gemma3", "Gemma 3"),
        (Family::Phi3, "phi3", "Phi3", "Phi-3"),
        (Family::GptNeoX, "gpt_neox", "GPTNeoX", "GPT-NeoX"),
        (Family::Opt, "opt", "OPT", "OPT"),
        (Family::SmolLm3, "smollm3", "SmolLM3", "SmolLM3"),
        (Family::Olmo2, "olmo2", "Olmo2", "OLMo 2"),
    ];

    /// Its usual name.
    pub fn label(self) -> &'static str {
        Family::NAMES[self as usize].3
    }

    /// The `model_type` in its `config.json`.
    fn model_type(self) -> &'static str {
        Family::NAMES[self as usize].1
    }

    /// The class of transformers that ends in this head.
    fn class(self, head: ModelHead) -> String {
        let stem = Family::NAMES[self as usize].2;
        match (head, self) {
            (ModelHead::Causal, Family::Gpt2) => "GPT2LMHeadModel".to_owned(),
            (ModelHead::Causal, _) => format!("{stem}ForCausalLM"),
            (ModelHead::Score, Family::Gemma3) => "Gemma3TextForSequenceClassification".to_owned(),
            (ModelHead::Score, _) => format!("{stem}ForSequenceClassification"),
        }
    }

    fn is_gemma(self) -> bool {
        matches!(self, Family::Gemma | Family::Gemma2 | Family::Gemma3)
    }

    /// Whether embedding and head are one if `config.json` does not say.
    fn ties(self) -> bool {
        self.is_gemma() || matches!(self, Family::Gpt2 | Family::Opt | Family::SmolLm3)
    }
}

/// What follows the final norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelHead {
    /// Logits over the vocabulary: `…ForCausalLM`, `GPT2LMHeadModel`.
    Causal,
    /// One score, without bias, read at the last token that is not padding: `…ForSequenceClassification` with one
    /// label.
    Score,
}

/// The nonlinearity of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU.
    Gelu,
    /// GELU's usual approximation by a hyperbolic tangent.
    GeluTanh,
    /// x / (1 + e⁻ˣ).
    Silu,
    /// max(x, 0).
    Relu,
}

/// The norms of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Layer norm, with a bias.
    Layer,
    /// RMS norm.
    Rms,
    /// RMS norm whose factor is 1 + its weight.
    RmsPlusOne,
}

/// The norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// There are none.
    None,
    /// Each head is normalised.
    Heads,
    /// All heads are normalised together.
    Whole,
}

/// How a block's attention differs from that of other blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockKind {
    /// Whether it attends only within [`ModelConfig::window`].
    pub windowed: bool,
    /// Whether rotary positions rotate its queries and keys.
    pub rotary: bool,
}

/// The configuration of a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Its architecture, which gives the parameters' names and the places of the norms.
    pub family: Family,
    /// What follows the final norm.
    pub model_head: ModelHead,
    /// Vocabulary size, tokens.
    pub vocabulary: usize,
    /// Context length, tokens.
    pub context: usize,
    /// Size of a hidden state, d.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Size of one head.
    pub head_width: usize,
    /// Size of the MLP's hidden layer.
    pub inner: usize,
    /// The nonlinearity of the MLP.
    pub activation: Activation,
    /// The norms.
    pub norm: NormKind,
    /// The ε of the norms.
    pub norm_eps: f64,
    /// Whether the head is the embedding (tied weights).
    pub tied: bool,
    /// Rotary position embeddings; none if positions are learnt.
    pub rope: Option<Rope>,
    /// Rotary position embeddings of the windowed blocks, where they differ.
    pub window_rope: Option<Rope>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub output_bias: bool,
    /// Whether the linear layers of the MLP have biases.
    pub mlp_bias: bool,
    /// Sliding window: number of tokens that a token attends to, itself included; none for all.
    pub window: Option<usize>,
    /// The kind of each block.
    pub blocks: Vec<BlockKind>,
    /// What multiplies the products of queries and keys; none for 1/√`head_width`.
    pub query_scale: Option<f64>,
    /// Whether that is divided by the number of the block, which counts from 1.
    pub inverse_layer_scale: bool,
    /// The norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Attention scores s become c tanh(s/c).
    pub attention_cap: Option<f64>,
    /// Logits become c tanh(logit/c).
    pub logit_cap: Option<f64>,
    /// What multiplies embeddings; none for 1.
    pub embedding_scale: Option<f64>,
    /// Whether attention and MLP read the same hidden states side by side, instead of one after the other.
    pub parallel: bool,
    /// The BOS token, if there is one.
    pub bos: Option<u32>,
    /// The EOS tokens.
    pub eos: Vec<u32>,
    /// The padding token, if there is one.
    pub pad: Option<u32>,
}

/// The largest size that a model may have along any axis: products of two fit into 64 bits.
const LARGEST: usize = 100_000_000;

impl ModelConfig {
    /// A GPT-2 of this size with a tied head, to train from scratch.
    pub fn gpt2(vocabulary: usize, context: usize, width: usize, layers: usize, heads: usize) -> ModelConfig {
        ModelConfig {
            family: Family::Gpt2,
            model_head: ModelHead::Causal,
            vocabulary,
            context,
            width,
            layers,
            heads,
            kv_heads: heads,
            head_width: width / heads,
            inner: 4 * width,
            activation: Activation::GeluTanh,
            norm: NormKind::Layer,
            norm_eps: 1e-5,
            tied: true,
            rope: None,
            window_rope: None,
            qkv_bias: true,
            output_bias: true,
            mlp_bias: true,
            window: None,
            blocks: vec![BlockKind { windowed: false, rotary: false }; layers],
            query_scale: None,
            inverse_layer_scale: false,
            qk_norm: QkNorm::None,
            attention_cap: None,
            logit_cap: None,
            embedding_scale: None,
            parallel: false,
            bos: None,
            eos: vec![],
            pad: None,
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    ///
    /// Text that is not JSON, a missing number, or a setting that is not supported; the error names the key.
    pub fn from_json(text: &str) -> Result<ModelConfig, ModelError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| ModelError::Config(format!("it is not JSON: {error}")))?;
        let Value::Object(map) = value else { return Err(ModelError::Config("it is not a JSON object".into())) };
        let config = read::Reader(&map).read()?;
        config.check()?;
        Ok(config)
    }

    /// Writes a `config.json` that Hugging Face's transformers reads.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", write::config_json(self))
    }

    /// The rotary positions of a block of this kind.
    pub(super) fn rope_of(&self, block: BlockKind) -> Option<&Rope> {
        let rope = if block.windowed { self.window_rope.as_ref().or(self.rope.as_ref()) } else { self.rope.as_ref() };
        rope.filter(|_| block.rotary)
    }

    /// What multiplies the products of queries and keys in block `i`; `None` for 1/√`head_width`.
    pub(super) fn query_scale_of(&self, i: usize) -> Option<f64> {
        if !self.inverse_layer_scale {
            return self.query_scale;
        }
        let scale = self.query_scale.unwrap_or(1.0 / (self.head_width as f64).sqrt());
        Some(scale / (i + 1) as f64)
    }

    fn check(&self) -> Result<(), ModelError> {
        let wrong = |why: String| Err(ModelError::Config(why));
        for (name, number) in [
            ("vocabulary", self.vocabulary),
            ("context", self.context),
            ("width", self.width),
            ("number of layers", self.layers),
            ("number of heads", self.heads),
            ("number of key and value heads", self.kv_heads),
            ("inner width", self.inner),
        ] {
            if number == 0 {
                return wrong(format!("the {name} is 0"));
            }
            if number > LARGEST {
                return wrong(format!("the {name} is {number}, more than any model's"));
            }
        }
        if self.head_width > LARGEST {
            return wrong(format!("the size of a head is {}, more than any model's", self.head_width));
        }
        let divides = matches!(self.family, Family::Gpt2 | Family::GptNeoX | Family::Opt);
        if self.head_width == 0 || (divides && self.head_width * self.heads != self.width) {
            return wrong(format!("{} heads do not divide a width of {}", self.heads, self.width));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(format!("{} key and value heads do not divide {} heads", self.kv_heads, self.heads));
        }
        for rope in self.rope.iter().chain(&self.window_rope) {
            if !rope.width.is_multiple_of(2) || rope.width == 0 || rope.width > self.head_width {
                return wrong(format!("rotary positions need heads of even width; this is {}", rope.width));
            }
        }
        Ok(())
    }
}
