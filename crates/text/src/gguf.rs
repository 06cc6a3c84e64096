//! Turns the content of a GGUF file into what a model folder holds: `config.json`, the tokenizer's files, and weights
//! by Hugging Face's names. The families are those that llama.cpp calls `llama` (with Mistral and SmolLM), `qwen2`,
//! `qwen3` and `smollm3`.

use super::bpe_files::{Added, Words, byte_level, sentence_piece};
use super::bundle::Parts;
use super::error::ModelError;
use flipside_core::{Array, ArrayData, Arrays, one_line};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

fn refused<T>(why: String) -> Result<T, ModelError> {
    Err(ModelError::Gguf(one_line(&why)))
}

/// The names of a block's tensors in GGUF and of its parameters in Hugging Face's layout.
const BLOCK: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The parts of a model folder, from a GGUF file's metadata and tensors.
///
/// # Errors
///
/// Another architecture, or metadata that is missing or not supported; the error names it.
pub fn parts(metadata: &Map<String, Value>, arrays: Arrays) -> Result<Parts, ModelError> {
    let architecture = metadata.get("general.architecture").and_then(Value::as_str).unwrap_or_default();
    let reader = Reader { metadata, architecture };
    let (model_type, class) = match reader.architecture {
        "llama" => ("llama", "LlamaForCausalLM"),
        "qwen2" => ("qwen2", "Qwen2ForCausalLM"),
        "qwen3" => ("qwen3", "Qwen3ForCausalLM"),
        "smollm3" => ("smollm3", "SmolLM3ForCausalLM"),
        other => return refused(format!("its architecture is \"{other}\"; expected llama, qwen2, qwen3 or smollm3")),
    };
    if reader.number("expert_count")?.is_some_and(|experts| experts > 0) {
        return refused("it is a mixture of experts, which is not supported".to_owned());
    }
    let (heads, width) = (reader.needed("attention.head_count")?, reader.needed("embedding_length")?);
    let kv_heads = reader.number("attention.head_count_kv")?.unwrap_or(heads);
    if heads == 0 || kv_heads == 0 {
        return refused("it has 0 heads".to_owned());
    }
    let head = reader.number("attention.key_length")?.unwrap_or(width / heads);
    if let Some(rotary) = reader.number("rope.dimension_count")?.filter(|&rotary| rotary != head) {
        return refused(format!("rope.dimension_count is {rotary} for heads of {head}, which is not supported"));
    }
    let embedding = arrays.get("token_embd.weight").map(|array| &array.shape[..]);
    let Some(&[rows, _]) = embedding else { return refused("it lacks token_embd.weight".to_owned()) };
    let eos = reader.token("eos");
    let mut config = json!({
        "architectures": [class], "model_type": model_type, "vocab_size": rows, "hidden_size": width,
        "intermediate_size": reader.needed("feed_forward_length")?, "num_hidden_layers": reader.needed("block_count")?,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head, "hidden_act": "silu",
        "rms_norm_eps": reader.real("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6),
        "max_position_embeddings": reader.needed("context_length")?,
        "rope_theta": reader.real("rope.freq_base")?.unwrap_or(10_000.0),
        "rope_scaling": reader.rope_scaling(&arrays)?,
        "tie_word_embeddings": !arrays.contains_key("output.weight"),
        "attention_bias": arrays.contains_key("blk.0.attn_q.bias"), "use_sliding_window": false,
        "bos_token_id": reader.token("bos"), "eos_token_id": eos, "pad_token_id": reader.token("padding"),
    });
    if model_type != "qwen2" && config["attention_bias"] == true && !arrays.contains_key("blk.0.attn_output.bias") {
        return refused("it has biases of queries alone, which is not supported".to_owned());
    }
    if let Some(window) = reader.number("attention.sliding_window")?.filter(|&window| window > 0) {
        if model_type != "llama" {
            return refused("it has a sliding window, which is not supported".to_owned());
        }
        // llama.cpp calls Mistral a llama.
        config["model_type"] = json!("mistral");
        config["architectures"] = json!(["MistralForCausalLM"]);
        config["sliding_window"] = json!(window);
    }
    let mut texts = reader.tokenizer()?;
    texts.insert("config.json".to_owned(), format!("{config:#}\n"));
    let turned = matches!(reader.architecture, "llama" | "smollm3");
    let mut weights = Arrays::new();
    for (name, array) in arrays {
        let Some(new) = parameter(&name) else { continue };
        let heads = match () {
            () if !turned => None,
            () if name.contains(".attn_q.") => Some(heads),
            () if name.contains(".attn_k.") => Some(kv_heads),
            () => None,
        };
        let array = match heads {
            Some(heads) => unturned(array, heads as usize).ok_or_else(|| {
                ModelError::Gguf(format!("the rows of `{}` are not pairs of {heads} heads", one_line(&name)))
            })?,
            None => array,
        };
        weights.insert(new, array);
    }
    Ok((texts, weights))
}

/// Hugging Face's name of a tensor; `None` for one that no parameter has.
fn parameter(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, part) = rest.rsplit_once('.')?;
    let (_, new) = BLOCK.iter().find(|(known, _)| *known == module)?;
    Some(format!("model.layers.{block}.{new}.{part}"))
}

/// llama.cpp rotates neighbouring channels, and so puts the two halves of each head's rows one by one. This puts them
/// back: row 2i + t of a head becomes row i + t · w/2.
fn unturned(array: Array, heads: usize) -> Option<Array> {
    let rows = *array.shape.first()?;
    let head = rows / heads;
    if rows == 0 || head * heads != rows || !head.is_multiple_of(2) {
        return None;
    }
    let from = |row: usize| {
        let (at, row) = (row / head * head, row % head);
        at + row % (head / 2) * 2 + row / (head / 2)
    };
    fn moved<T: Copy>(numbers: &[T], rows: usize, from: impl Fn(usize) -> usize) -> Vec<T> {
        let width = numbers.len() / rows;
        (0..rows).flat_map(|row| &numbers[from(row) * width..][..width]).copied().collect()
    }
    let data = match array.data {
        ArrayData::F32(numbers) => ArrayData::F32(moved(&numbers, rows, from)),
        ArrayData::F64(numbers) => ArrayData::F64(moved(&numbers, rows, from)),
        ArrayData::Bf16(numbers) => ArrayData::Bf16(moved(&numbers, rows, from)),
        ArrayData::F16(numbers) => ArrayData::F16(moved(&numbers, rows, from)),
        other => other,
    };
    Some(Array { shape: array.shape, data })
}

struct Reader<'a> {
    metadata: &'a Map<String, Value>,
    architecture: &'a str,
}

impl Reader<'_> {
    fn of_architecture(&self, key: &str) -> Option<&Value> {
        self.metadata.get(&format!("{}.{key}", self.architecture))
    }

    fn number(&self, key: &str) -> Result<Option<u64>, ModelError> {
        match self.of_architecture(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => refused(format!("{}.{key} is not a whole number, which is not supported", self.architecture)),
            },
        }
    }

    fn needed(&self, key: &str) -> Result<u64, ModelError> {
        match self.number(key)? {
            Some(number) => Ok(number),
            None => refused(format!("it lacks {}.{key}", self.architecture)),
        }
    }

    fn real(&self, key: &str) -> Result<Option<f64>, ModelError> {
        match self.of_architecture(key).map(Value::as_f64) {
            Some(None) => refused(format!("{}.{key} is not a number", self.architecture)),
            Some(number) => Ok(number),
            None => Ok(None),
        }
    }

    /// The scaling of rotary positions, as `rope_scaling` describes it.
    fn rope_scaling(&self, arrays: &Arrays) -> Result<Value, ModelError> {
        if let Some(factors) = arrays.get("rope_freqs.weight") {
            // Llama 3's scaling, worked out: how many times slower each channel pair rotates.
            let factors = factors.as_f32().unwrap_or_default();
            let context = self.needed("context_length")?;
            return Ok(json!({
                "rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.0,
                "factor": 1.0, "original_max_position_embeddings": context,
            }));
        }
        let kind = self.of_architecture("rope.scaling.type").and_then(Value::as_str).unwrap_or("none");
        let factor = self.real("rope.scaling.factor")?.unwrap_or(1.0);
        match kind {
            "none" => Ok(Value::Null),
            "linear" => Ok(json!({ "rope_type": "linear", "factor": factor })),
            "yarn" => Ok(json!({
                "rope_type": "yarn", "factor": factor,
                "original_max_position_embeddings": self.needed("rope.scaling.original_context_length")?,
            })),
            other => refused(format!("its rope.scaling.type is \"{other}\"; expected none, linear or yarn")),
        }
    }

    fn token(&self, role: &str) -> Option<u64> {
        self.metadata.get(&format!("tokenizer.ggml.{role}_token_id"))?.as_u64()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.metadata.get(&format!("tokenizer.ggml.{key}"))?.as_bool()
    }

    fn list(&self, key: &str) -> Option<&Vec<Value>> {
        self.metadata.get(&format!("tokenizer.ggml.{key}"))?.as_array()
    }

    /// `tokenizer.json` and `tokenizer_config.json`.
    fn tokenizer(&self) -> Result<BTreeMap<String, String>, ModelError> {
        let lacks = |what: &str| ModelError::Gguf(format!("it lacks tokenizer.ggml.{what}"));
        let strings = |key: &str| -> Result<Vec<String>, ModelError> {
            let list = self.list(key).ok_or_else(|| lacks(key))?;
            Ok(list.iter().map(|value| value.as_str().unwrap_or_default().to_owned()).collect())
        };
        let tokens = strings("tokens")?;
        let named = |role: &str| self.token(role).and_then(|id| tokens.get(id as usize)).cloned();
        let roles = ["bos", "eos", "unknown", "padding"];
        let is_role = |id: u64| roles.iter().any(|role| self.token(role) == Some(id));
        // Types: 3 is a control token, 4 one that a user defined, 2 the unknown token.
        let kinds = self.list("token_type");
        let added: Vec<Added> = (tokens.iter().enumerate())
            .filter_map(|(id, token)| {
                let kind = kinds.and_then(|kinds| kinds.get(id)?.as_i64());
                let special = matches!(kind, Some(2 | 3)) || (kinds.is_none() && is_role(id as u64));
                (special || kind == Some(4)).then(|| Added { id: id as u64, content: token.clone(), special })
            })
            .collect();
        let kind = self.metadata.get("tokenizer.ggml.model").and_then(Value::as_str).unwrap_or_default();
        let begins = |usual: bool| self.flag("add_bos_token").unwrap_or(usual);
        let bos = self.token("bos").and_then(|bos| {
            let content = tokens.get(bos as usize)?.clone();
            Some(Added { id: bos, content, special: true })
        });
        let json = match kind {
            "gpt2" => {
                let pre = self.metadata.get("tokenizer.ggml.pre").and_then(Value::as_str).unwrap_or("default");
                // As in llama.cpp, texts begin with the BOS token where nothing is said of it only in Llama 3's.
                let (words, begins_usually) = match pre {
                    "default" | "gpt-2" | "gpt2" | "olmo" | "jina-en" => (Words::Gpt2, false),
                    "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => (Words::Digits, false),
                    "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => (Words::Llama3, true),
                    "smaug-bpe" | "dbrx" => (Words::Llama3, false),
                    "qwen2" | "deepseek-r1-qwen" => (Words::Qwen2, false),
                    "qwen35" => (Words::Qwen35, false),
                    other => {
                        return refused(format!("its tokenizer.ggml.pre is \"{other}\", which is not supported"));
                    }
                };
                let merges = strings("merges")?;
                let merges: Option<Vec<[String; 2]>> = merges
                    .iter()
                    .map(|merge| merge.split_once(' ').map(|(left, right)| [left.to_owned(), right.to_owned()]))
                    .collect();
                let Some(merges) = merges else {
                    return refused("tokenizer.ggml.merges has a line that is no pair".into());
                };
                let vocabulary = tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect();
                let begin = bos.as_ref().filter(|_| begins(begins_usually));
                byte_level(&vocabulary, &merges, words, false, &added, begin)
            }
            "llama" => {
                let scores = self.list("scores").ok_or_else(|| lacks("scores"))?;
                let scores: Vec<f64> = scores.iter().map(|score| score.as_f64().unwrap_or(0.0)).collect();
                let unknown = named("unknown").unwrap_or_else(|| "<unk>".to_owned());
                let prefix_space = self.flag("add_space_prefix").unwrap_or(true);
                sentence_piece(&tokens, &scores, prefix_space, &unknown, &added, bos.as_ref().filter(|_| begins(true)))
            }
            other => return refused(format!("its tokenizer.ggml.model is \"{other}\"; expected gpt2 or llama")),
        };
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
            "model_max_length": self.needed("context_length")?,
        });
        for (key, role) in ["bos_token", "eos_token", "unk_token", "pad_token"].into_iter().zip(roles) {
            if let Some(token) = named(role) {
                config[key] = json!(token);
            }
        }
        if let Some(template) = self.metadata.get("tokenizer.chat_template").and_then(Value::as_str) {
            config["chat_template"] = json!(template);
        }
        Ok(BTreeMap::from([
            ("tokenizer.json".to_owned(), json.to_string()),
            ("tokenizer_config.json".to_owned(), format!("{config:#}\n")),
        ]))
    }
}
