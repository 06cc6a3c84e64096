//! The names of a family's modules in Hugging Face's layout. They also say how a block is built: where its norms are,
//! which projections are fused, and whether the MLP is gated.

use crate::config::Family;

/// The modules of a family's causal model.
pub struct Names {
    /// What all names begin with, except the head's.
    pub prefix: &'static str,
    pub embedding: &'static str,
    /// Learnt positions, and the row of the first one.
    pub positions: Option<(&'static str, i64)>,
    pub blocks: &'static str,
    /// The last norm.
    pub norm: &'static str,
    pub head: &'static str,
    pub before_attention: Option<&'static str>,
    pub after_attention: Option<&'static str>,
    pub before_mlp: Option<&'static str>,
    pub after_mlp: Option<&'static str>,
    pub input: InputNames,
    pub output: &'static str,
    pub mlp: MlpNames,
    /// Whether linear layers store their weights `[input, output]`.
    pub transposed: bool,
}

/// The projections to queries, keys and values.
pub enum InputNames {
    /// One for all: first all queries, then keys, then values.
    Fused(&'static str),
    /// One for all: each head's query, key and value side by side.
    PerHead(&'static str),
    /// One for each.
    Separate([&'static str; 3]),
}

/// The linear layers of an MLP.
pub enum MlpNames {
    /// output(f(input(x))).
    Plain([&'static str; 2]),
    /// down(f(gate(x)) · up(x)).
    Gated([&'static str; 3]),
    /// The same with gate and up in one layer.
    Fused([&'static str; 2]),
}

/// The norms of queries and keys, wherever there are any.
pub const QK_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

const LLAMA: Names = Names {
    prefix: "model.",
    embedding: "embed_tokens",
    positions: None,
    blocks: "layers",
    norm: "norm",
    head: "lm_head",
    before_attention: Some("input_layernorm"),
    after_attention: None,
    before_mlp: Some("post_attention_layernorm"),
    after_mlp: None,
    input: InputNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    mlp: MlpNames::Gated(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
    transposed: false,
};

impl Names {
    /// The names of this family.
    pub const fn of(family: Family) -> Names {
        match family {
            Family::Gpt2 => Names {
                prefix: "transformer.",
                embedding: "wte",
                positions: Some(("wpe", 0)),
                blocks: "h",
                norm: "ln_f",
                before_attention: Some("ln_1"),
                before_mlp: Some("ln_2"),
                input: InputNames::Fused("attn.c_attn"),
                output: "attn.c_proj",
                mlp: MlpNames::Plain(["mlp.c_fc", "mlp.c_proj"]),
                transposed: true,
                ..LLAMA
            },
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Gemma | Family::SmolLm3 => LLAMA,
            Family::Gemma2 | Family::Gemma3 => Names {
                after_attention: Some("post_attention_layernorm"),
                before_mlp: Some("pre_feedforward_layernorm"),
                after_mlp: Some("post_feedforward_layernorm"),
                ..LLAMA
            },
            Family::Phi3 => Names {
                input: InputNames::Fused("self_attn.qkv_proj"),
                mlp: MlpNames::Fused(["mlp.gate_up_proj", "mlp.down_proj"]),
                ..LLAMA
            },
            Family::GptNeoX => Names {
                prefix: "gpt_neox.",
                embedding: "embed_in",
                norm: "final_layer_norm",
                head: "embed_out",
                input: InputNames::PerHead("attention.query_key_value"),
                output: "attention.dense",
                mlp: MlpNames::Plain(["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]),
                ..LLAMA
            },
            Family::Opt => Names {
                prefix: "model.decoder.",
                positions: Some(("embed_positions", 2)),
                norm: "final_layer_norm",
                before_attention: Some("self_attn_layer_norm"),
                before_mlp: Some("final_layer_norm"),
                output: "self_attn.out_proj",
                mlp: MlpNames::Plain(["fc1", "fc2"]),
                ..LLAMA
            },
            Family::Olmo2 => Names {
                before_attention: None,
                after_attention: Some("post_attention_layernorm"),
                before_mlp: None,
                after_mlp: Some("post_feedforward_layernorm"),
                ..LLAMA
            },
        }
    }

    /// The full name of a module outside of the blocks.
    pub fn outside(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The full name of a module of block `i`.
    pub fn in_block(&self, i: usize, name: &str) -> String {
        format!("{}{}.{i}.{name}", self.prefix, self.blocks)
    }

    /// The block that a parameter or module of this name belongs to; none for what lies outside.
    pub fn block_of(&self, name: &str) -> Option<usize> {
        let bare = name.strip_prefix(self.prefix).unwrap_or(name);
        bare.strip_prefix(self.blocks)?.strip_prefix('.')?.split('.').next()?.parse().ok()
    }

    /// Whether a parameter is stored as `[input, output]`: the weights of linear layers are, in some families. They are
    /// the only matrices in the blocks.
    pub fn is_transposed(&self, name: &str, shape: &[i64]) -> bool {
        self.transposed && shape.len() == 2 && self.block_of(name).is_some()
    }

    /// The norms of a block.
    pub fn norms(&self) -> [Option<&'static str>; 4] {
        [self.before_attention, self.after_attention, self.before_mlp, self.after_mlp]
    }
}
