//! Writes a `config.json` that transformers 4 and 5 read.

use super::{Activation, Family, ModelConfig, ModelHead};
use crate::rope::{Rope, RopeScaling};
use serde_json::{Map, Value, json};

/// The file's content.
pub(super) fn config_json(config: &ModelConfig) -> Value {
    let mut all = json!({
        "architectures": [config.family.class(config.model_head)], "model_type": config.family.model_type(),
        "vocab_size": config.vocabulary, "tie_word_embeddings": config.tied, "torch_dtype": "float32", "use_cache": true,
        "bos_token_id": config.bos, "pad_token_id": config.pad,
        "eos_token_id": match &config.eos[..] { [] => Value::Null, [one] => json!(one), more => json!(more) },
    });
    let own = match config.family {
        Family::Gpt2 => json!({
            "n_embd": config.width, "n_layer": config.layers, "n_head": config.heads, "n_positions": config.context,
            "n_ctx": config.context,
            "n_inner": if config.inner == 4 * config.width { Value::Null } else { json!(config.inner) },
            "activation_function": activation(config), "layer_norm_epsilon": config.norm_eps,
            "scale_attn_by_inverse_layer_idx": config.inverse_layer_scale,
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        }),
        Family::Opt => json!({
            "hidden_size": config.width, "word_embed_proj_dim": config.width, "ffn_dim": config.inner,
            "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
            "max_position_embeddings": config.context, "activation_function": activation(config),
            "enable_bias": config.qkv_bias, "do_layer_norm_before": true, "layer_norm_elementwise_affine": true,
            "dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0,
        }),
        Family::GptNeoX => json!({
            "hidden_size": config.width, "intermediate_size": config.inner, "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads, "max_position_embeddings": config.context,
            "hidden_act": activation(config), "layer_norm_eps": config.norm_eps,
            "use_parallel_residual": config.parallel, "attention_bias": config.qkv_bias,
            "attention_dropout": 0.0, "hidden_dropout": 0.0, "classifier_dropout": 0.0,
        }),
        _ => llama(config),
    };
    if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
        all.extend(own);
        if let Some(rope) = &config.rope {
            all.extend(rope_keys(config, rope));
        }
        if config.model_head == ModelHead::Score {
            all.insert("num_labels".into(), json!(1));
            all.insert("id2label".into(), json!({"0": "LABEL_0"}));
            all.insert("label2id".into(), json!({"LABEL_0": 0}));
        }
    }
    all
}

fn activation(config: &ModelConfig) -> &'static str {
    match config.activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh if config.family == Family::Gpt2 => "gelu_new",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::Silu => "silu",
        Activation::Relu => "relu",
    }
}

/// The keys of Llama and the families that follow it.
fn llama(config: &ModelConfig) -> Value {
    let mut own = json!({
        "hidden_size": config.width, "intermediate_size": config.inner, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads, "head_dim": config.head_width,
        "hidden_act": activation(config), "rms_norm_eps": config.norm_eps, "max_position_embeddings": config.context,
        "attention_dropout": 0.0,
    });
    if !matches!(config.family, Family::Mistral | Family::Qwen2 | Family::Phi3) {
        own["attention_bias"] = json!(config.qkv_bias);
    }
    let layer_types = || -> Value {
        let kind = |windowed| if windowed { "sliding_attention" } else { "full_attention" };
        config.blocks.iter().map(|block| kind(block.windowed)).collect()
    };
    match config.family {
        Family::Llama => own["mlp_bias"] = json!(config.mlp_bias),
        Family::Mistral => own["sliding_window"] = json!(config.window),
        Family::Phi3 => {
            own["sliding_window"] = json!(config.window);
            own["resid_pdrop"] = json!(0.0);
            own["embd_pdrop"] = json!(0.0);
        }
        Family::Gemma2 | Family::Gemma3 => {
            let scale = config.query_scale.map_or(config.head_width as f64, |scale| 1.0 / (scale * scale));
            own["hidden_activation"] = json!(activation(config));
            own["query_pre_attn_scalar"] = json!(scale.round() as u64);
            own["attn_logit_softcapping"] = json!(config.attention_cap);
            own["final_logit_softcapping"] = json!(config.logit_cap);
            own["sliding_window"] = json!(config.window);
            own["layer_types"] = layer_types();
        }
        Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => {
            own["use_sliding_window"] = json!(config.window.is_some());
            own["sliding_window"] = json!(config.window);
            own["layer_types"] = layer_types();
            if config.family == Family::SmolLm3 {
                own["mlp_bias"] = json!(config.mlp_bias);
                own["no_rope_layers"] = config.blocks.iter().map(|block| u8::from(block.rotary)).collect();
            } else {
                let full = config.blocks.iter().take_while(|block| !block.windowed).count();
                own["max_window_layers"] = json!(full);
            }
        }
        _ => {}
    }
    own
}

/// The keys of rotary positions, by the names of transformers 4, which version 5 reads, too.
fn rope_keys(config: &ModelConfig, rope: &Rope) -> Map<String, Value> {
    let mut keys = Map::new();
    let share = rope.width as f64 / config.head_width as f64;
    let mut add = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    match config.family {
        Family::GptNeoX => {
            add("rotary_emb_base", json!(rope.theta));
            add("rotary_pct", json!(share));
        }
        _ => {
            add("rope_theta", json!(rope.theta));
        }
    }
    if let Some(local) = &config.window_rope {
        add("rope_local_base_freq", json!(local.theta));
    }
    if config.family == Family::Phi3 {
        add("partial_rotary_factor", json!(share));
    }
    let scaling = match &rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Dynamic { factor, .. } => json!({ "rope_type": "dynamic", "factor": factor }),
        RopeScaling::Llama3(l) => json!({
            "rope_type": "llama3", "factor": l.factor, "low_freq_factor": l.low_freq_factor,
            "high_freq_factor": l.high_freq_factor, "original_max_position_embeddings": l.original_context as u64,
        }),
        RopeScaling::Yarn(y) => json!({
            "rope_type": "yarn", "factor": y.factor, "original_max_position_embeddings": y.original_context as u64,
            "beta_fast": y.beta_fast, "beta_slow": y.beta_slow, "truncate": y.truncate,
            "attention_factor": y.attention_factor,
        }),
        RopeScaling::Long(l) => {
            add("original_max_position_embeddings", json!(l.original_context as u64));
            let usual = crate::rope::LongRope::usual_attention_factor(
                config.context as f64 / l.original_context,
                l.original_context,
            );
            // transformers 4 wants exactly the three keys.
            let mut scaling = json!({ "type": "longrope", "short_factor": l.short, "long_factor": l.long });
            if l.attention_factor != usual {
                scaling["attention_factor"] = json!(l.attention_factor);
            }
            scaling
        }
    };
    add("rope_scaling", scaling);
    keys
}
