//! Reads a `config.json`, as transformers 4 and 5 write it.

use super::{Activation, BlockKind, Family, ModelConfig, ModelHead, NormKind, QkNorm};
use crate::error::ModelError;
use crate::rope::{Llama3Rope, LongRope, Rope, RopeScaling, YarnRope};
use serde_json::{Map, Value};

/// The most blocks that a model may have: a number that no model comes near, so that a damaged file costs no memory.
const MOST_BLOCKS: usize = 10_000;

/// One `config.json`, or a table in it.
pub(super) struct Reader<'a>(pub &'a Map<String, Value>);

fn refused<T>(why: String) -> Result<T, ModelError> {
    Err(ModelError::Config(why))
}

impl Reader<'_> {
    pub fn read(&self) -> Result<ModelConfig, ModelError> {
        let model_type = self.0.get("model_type").and_then(Value::as_str).unwrap_or("");
        let Some(&(family, ..)) = Family::NAMES.iter().find(|(_, name, ..)| *name == model_type) else {
            let known: Vec<&str> = Family::NAMES.iter().map(|(_, name, ..)| *name).collect();
            return refused(format!("its model_type is \"{model_type}\"; expected one of {}", known.join(", ")));
        };
        let model_head = self.model_head(family)?;
        for key in ["quantization_config", "cross_attention_hidden_size"] {
            if self.0.get(key).is_some_and(|value| !value.is_null()) {
                return refused(format!("`{key}` is set, which is not supported"));
            }
        }
        let mut config = match family {
            Family::Gpt2 => self.gpt2()?,
            Family::Opt => self.opt()?,
            Family::GptNeoX => self.gpt_neox()?,
            _ => self.llama(family)?,
        };
        config.model_head = model_head;
        config.tied = self.flag_or("tie_word_embeddings", family.ties())?;
        self.tokens(&mut config)?;
        Ok(config)
    }

    fn model_head(&self, family: Family) -> Result<ModelHead, ModelError> {
        let names = self.0.get("architectures").and_then(Value::as_array);
        let Some(name) = names.into_iter().flatten().find_map(Value::as_str) else { return Ok(ModelHead::Causal) };
        let [causal, score] = [ModelHead::Causal, ModelHead::Score].map(|head| family.class(head));
        let stem = Family::NAMES[family as usize].2;
        match name.strip_prefix(stem) {
            Some("ForCausalLM" | "LMHeadModel" | "Model" | "TextModel") => Ok(ModelHead::Causal),
            Some("ForSequenceClassification" | "TextForSequenceClassification") => match self.labels() {
                1 => Ok(ModelHead::Score),
                labels => refused(format!("it classifies into {labels} labels; expected 1")),
            },
            _ => refused(format!("its architecture is \"{name}\"; expected {causal} or {score}")),
        }
    }

    fn labels(&self) -> usize {
        let listed = self.0.get("id2label").and_then(Value::as_object).map(Map::len);
        self.0.get("num_labels").and_then(Value::as_u64).map(|n| n as usize).or(listed).unwrap_or(2)
    }

    /// A model with learnt positions and layer norms, whose sizes have these names.
    fn plain(&self, [context, width, layers, heads]: [&str; 4]) -> Result<ModelConfig, ModelError> {
        let heads = self.number(heads)?;
        let mut config = ModelConfig::gpt2(
            self.number("vocab_size")?,
            self.number(context)?,
            self.number(width)?,
            self.blocks(layers)?,
            heads.max(1),
        );
        config.heads = heads;
        config.kv_heads = heads;
        Ok(config)
    }

    fn gpt2(&self) -> Result<ModelConfig, ModelError> {
        self.must("scale_attn_weights", true)?;
        self.must("add_cross_attention", false)?;
        let mut config = self.plain(["n_positions", "n_embd", "n_layer", "n_head"])?;
        config.activation = self.activation("activation_function", "gelu_new")?;
        config.inner = self.number_or("n_inner", 4 * config.width)?;
        config.norm_eps = self.real_or("layer_norm_epsilon", 1e-5)?;
        config.inverse_layer_scale = self.flag_or("scale_attn_by_inverse_layer_idx", false)?;
        Ok(config)
    }

    fn opt(&self) -> Result<ModelConfig, ModelError> {
        self.must("do_layer_norm_before", true)?;
        self.must("_remove_final_layer_norm", false)?;
        self.must("layer_norm_elementwise_affine", true)?;
        let mut config =
            self.plain(["max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads"])?;
        let projected = self.number_or("word_embed_proj_dim", config.width)?;
        if projected != config.width {
            return refused(format!(
                "`word_embed_proj_dim` is {projected}, not the hidden_size, which is not supported"
            ));
        }
        config.family = Family::Opt;
        config.activation = self.activation("activation_function", "relu")?;
        config.inner = self.number("ffn_dim")?;
        let bias = self.flag_or("enable_bias", true)?;
        (config.qkv_bias, config.output_bias, config.mlp_bias) = (bias, bias, bias);
        Ok(config)
    }

    fn gpt_neox(&self) -> Result<ModelConfig, ModelError> {
        let mut config =
            self.plain(["max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads"])?;
        config.family = Family::GptNeoX;
        config.activation = self.activation("hidden_act", "gelu")?;
        config.inner = self.number("intermediate_size")?;
        config.norm_eps = self.real_or("layer_norm_eps", 1e-5)?;
        config.parallel = self.flag_or("use_parallel_residual", true)?;
        let bias = self.flag_or("attention_bias", true)?;
        (config.qkv_bias, config.output_bias) = (bias, bias);
        config.rope = Some(self.rope(&config, None)?);
        config.blocks.fill(BlockKind { windowed: false, rotary: true });
        Ok(config)
    }

    fn llama(&self, family: Family) -> Result<ModelConfig, ModelError> {
        let (width, heads) = (self.number("hidden_size")?, self.number("num_attention_heads")?);
        let layers = self.blocks("num_hidden_layers")?;
        let qkv_bias = match family {
            Family::Qwen2 => true,
            Family::Mistral | Family::Phi3 => false,
            _ => self.flag_or("attention_bias", false)?,
        };
        let usual_head = match family {
            Family::Qwen3 => 128,
            _ if family.is_gemma() => 256,
            _ => width / heads.max(1),
        };
        let usual_eps = if matches!(family, Family::Phi3 | Family::Olmo2) { 1e-5 } else { 1e-6 };
        let has_mlp_bias = matches!(family, Family::Llama | Family::SmolLm3);
        let mut config = ModelConfig {
            family,
            model_head: ModelHead::Causal,
            vocabulary: self.number("vocab_size")?,
            context: self.number("max_position_embeddings")?,
            width,
            layers,
            heads,
            kv_heads: self.number_or("num_key_value_heads", heads)?,
            head_width: self.number_or("head_dim", usual_head)?,
            inner: self.number("intermediate_size")?,
            activation: match family {
                // Its first files say "gelu" and mean the approximation.
                Family::Gemma => Activation::GeluTanh,
                Family::Gemma2 | Family::Gemma3 => self.activation("hidden_activation", "gelu_pytorch_tanh")?,
                _ => self.activation("hidden_act", "silu")?,
            },
            norm: if family.is_gemma() { NormKind::RmsPlusOne } else { NormKind::Rms },
            norm_eps: self.real_or("rms_norm_eps", usual_eps)?,
            tied: false,
            rope: None,
            window_rope: None,
            qkv_bias,
            output_bias: qkv_bias && family != Family::Qwen2,
            mlp_bias: has_mlp_bias && self.flag_or("mlp_bias", false)?,
            window: None,
            blocks: vec![BlockKind { windowed: false, rotary: true }; layers],
            query_scale: None,
            inverse_layer_scale: false,
            qk_norm: match family {
                Family::Qwen3 | Family::Gemma3 => QkNorm::Heads,
                Family::Olmo2 => QkNorm::Whole,
                _ => QkNorm::None,
            },
            attention_cap: None,
            logit_cap: None,
            embedding_scale: family.is_gemma().then(|| (width as f64).sqrt()),
            parallel: false,
            bos: None,
            eos: vec![],
            pad: None,
        };
        if family.is_gemma() {
            self.must("use_bidirectional_attention", false)?;
        }
        if let Family::Gemma2 | Family::Gemma3 = family {
            let scalar = self.real_or("query_pre_attn_scalar", 256.0)?;
            config.query_scale = (scalar != config.head_width as f64).then(|| 1.0 / scalar.sqrt());
            let usual = |cap: f64| (family == Family::Gemma2).then_some(cap);
            config.attention_cap = self.cap("attn_logit_softcapping", usual(50.0))?;
            config.logit_cap = self.cap("final_logit_softcapping", usual(30.0))?;
        }
        if family == Family::SmolLm3 {
            let interval = self.number_or("no_rope_layer_interval", 4)?.max(1);
            let listed = self.0.get("no_rope_layers").and_then(Value::as_array);
            for (i, block) in config.blocks.iter_mut().enumerate() {
                block.rotary = match listed {
                    Some(list) => list.get(i).and_then(Value::as_u64) != Some(0),
                    None => !(i + 1).is_multiple_of(interval),
                };
            }
        }
        self.windows(&mut config)?;
        if family == Family::Gemma3 {
            config.rope = Some(self.rope(&config, Some("full_attention"))?);
            config.window_rope = Some(self.rope(&config, Some("sliding_attention"))?);
        } else {
            config.rope = Some(self.rope(&config, None)?);
        }
        Ok(config)
    }

    /// Reads which blocks attend within a window, and how large it is.
    fn windows(&self, config: &mut ModelConfig) -> Result<(), ModelError> {
        let (family, layers) = (config.family, config.layers);
        let switched = matches!(family, Family::Qwen2 | Family::Qwen3 | Family::SmolLm3);
        let windowed = matches!(family, Family::Mistral | Family::Phi3 | Family::Gemma2 | Family::Gemma3);
        let is_on = windowed || (switched && self.flag_or("use_sliding_window", false)?);
        if !is_on {
            return Ok(());
        }
        let usual = (!matches!(family, Family::Phi3 | Family::SmolLm3)).then_some(4096);
        let window = if self.0.contains_key("sliding_window") { self.optional("sliding_window")? } else { usual };
        let Some(window) = window else { return Ok(()) };
        if let Some(kinds) = self.0.get("layer_types").and_then(Value::as_array).filter(|_| family != Family::Mistral) {
            for (i, block) in config.blocks.iter_mut().enumerate() {
                block.windowed = match kinds.get(i).and_then(Value::as_str) {
                    Some("sliding_attention") => true,
                    Some("full_attention") => false,
                    other => {
                        return refused(format!("`layer_types` has {other:?} for block {i}, which is not supported"));
                    }
                };
            }
        } else {
            let first = if switched { self.number_or("max_window_layers", 28)? } else { 0 };
            let pattern = match family {
                Family::Gemma2 => 2,
                Family::Gemma3 => {
                    self.optional("sliding_window_pattern")?.or(self.optional("_sliding_window_pattern")?).unwrap_or(6)
                }
                _ => 0,
            };
            for i in 0..layers {
                let full = match family {
                    Family::SmolLm3 => config.blocks[i].rotary,
                    _ => i < first || (pattern > 0 && (i + 1).is_multiple_of(pattern)),
                };
                config.blocks[i].windowed = !full;
            }
        }
        config.window = config.blocks.iter().any(|block| block.windowed).then_some(window);
        Ok(())
    }

    /// The rotary positions; with `blocks`, those of the blocks of this `layer_types` name.
    fn rope(&self, config: &ModelConfig, blocks: Option<&str>) -> Result<Rope, ModelError> {
        // transformers 5 has everything in `rope_parameters`; earlier versions have `rope_theta` and `rope_scaling`.
        let empty = Map::new();
        let object = |map: &'_ Map<String, Value>, key: &str| map.get(key).and_then(Value::as_object).cloned();
        let new = object(self.0, "rope_parameters");
        let nested = blocks.and_then(|blocks| object(new.as_ref()?, blocks));
        let is_local = blocks == Some("sliding_attention");
        let old = if is_local { None } else { object(self.0, "rope_scaling") };
        let table = if blocks.is_some() { nested.or(old) } else { new.or(old) }.unwrap_or(empty);
        let table = Reader(&table);
        let (theta_key, usual_theta) = match config.family {
            Family::GptNeoX => ("rotary_emb_base", 1e4),
            Family::SmolLm3 => ("rope_theta", 2e6),
            Family::Gemma3 if is_local => ("rope_local_base_freq", 1e4),
            Family::Gemma3 => ("rope_theta", 1e6),
            _ => ("rope_theta", 1e4),
        };
        let theta = table.real_or("rope_theta", self.real_or(theta_key, usual_theta)?)?;
        let share = match config.family {
            Family::GptNeoX => table.real_or("partial_rotary_factor", self.real_or("rotary_pct", 0.25)?)?,
            Family::Phi3 => table.real_or("partial_rotary_factor", self.real_or("partial_rotary_factor", 1.0)?)?,
            _ => 1.0,
        };
        let width = (config.head_width as f64 * share) as usize;
        let scaling = table.scaling(config, self.optional("original_max_position_embeddings")?, width)?;
        Ok(Rope { theta, width, scaling })
    }

    /// The scaling that this table of rotary parameters describes.
    fn scaling(&self, config: &ModelConfig, original: Option<usize>, width: usize) -> Result<RopeScaling, ModelError> {
        let kind = self.0.get("rope_type").or_else(|| self.0.get("type")).and_then(Value::as_str).unwrap_or("default");
        let context = config.context as f64;
        let original_context = || match original {
            Some(tokens) => Ok(tokens as f64),
            None => self.real_or("original_max_position_embeddings", context),
        };
        let maybe = |key: &str| -> Result<Option<f64>, ModelError> {
            if self.0.get(key).is_none_or(Value::is_null) { Ok(None) } else { self.real(key).map(Some) }
        };
        Ok(match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: self.positive("factor")? },
            "dynamic" => {
                if width <= 2 {
                    return refused(format!("its rope_type \"dynamic\" needs more than {width} rotary channels"));
                }
                RopeScaling::Dynamic { factor: self.positive("factor")?, context }
            }
            "llama3" => RopeScaling::Llama3(Llama3Rope {
                factor: self.positive("factor")?,
                low_freq_factor: self.real("low_freq_factor")?,
                high_freq_factor: self.real("high_freq_factor")?,
                original_context: original_context()?,
            }),
            // Phi-3's earlier names.
            "longrope" | "su" => self.long_rope(config, original_context()?, width)?,
            "yarn" if config.family == Family::Phi3 => self.long_rope(config, original_context()?, width)?,
            "yarn" => {
                let original_context = original_context()?;
                let factor = self.real_or("factor", context / original_context)?;
                let mscale = match (maybe("mscale")?, maybe("mscale_all_dim")?) {
                    (Some(mscale), Some(all)) => Some([mscale, all]),
                    _ => None,
                };
                let usual = YarnRope::usual_attention_factor(factor, mscale);
                RopeScaling::Yarn(YarnRope {
                    factor,
                    original_context,
                    beta_fast: self.real_or("beta_fast", 32.0)?,
                    beta_slow: self.real_or("beta_slow", 1.0)?,
                    truncate: self.flag_or("truncate", true)?,
                    attention_factor: self.real_or("attention_factor", usual)?,
                })
            }
            other => {
                return refused(format!(
                    "its rope_type is \"{other}\"; expected default, linear, dynamic, llama3, yarn or longrope"
                ));
            }
        })
    }

    fn long_rope(&self, config: &ModelConfig, original_context: f64, width: usize) -> Result<RopeScaling, ModelError> {
        let factors = |key: &str| -> Result<Vec<f64>, ModelError> {
            let list = self.0.get(key).and_then(Value::as_array);
            let list: Vec<f64> = list.into_iter().flatten().filter_map(Value::as_f64).collect();
            match list.len() == width / 2 && list.iter().all(|&factor| factor > 0.0) {
                true => Ok(list),
                false => refused(format!("`{key}` is not a list of {} positive numbers", width / 2)),
            }
        };
        let factor = self.real_or("factor", config.context as f64 / original_context)?;
        let usual = LongRope::usual_attention_factor(factor, original_context);
        Ok(RopeScaling::Long(LongRope {
            short: factors("short_factor")?,
            long: factors("long_factor")?,
            original_context,
            attention_factor: self.real_or("attention_factor", usual)?,
        }))
    }

    fn tokens(&self, config: &mut ModelConfig) -> Result<(), ModelError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        // The first Llama says -1 where it has no token.
        let named = |value: &&Value| !value.is_null() && value.as_i64().is_none_or(|id| id >= 0);
        let one = |key: &str| self.0.get(key).filter(named).map(|value| (value, id(value)));
        for (key, place) in [("bos_token_id", &mut config.bos), ("pad_token_id", &mut config.pad)] {
            if let Some((value, found)) = one(key) {
                *place = Some(
                    found.ok_or_else(|| ModelError::Config(format!("`{key}` is {value}; expected a token's id")))?,
                );
            }
        }
        let eos = self.0.get("eos_token_id").unwrap_or(&Value::Null);
        let ids = eos.as_array().map_or(std::slice::from_ref(eos), Vec::as_slice);
        if !eos.is_null() && !ids.iter().all(|id| id.is_i64() || id.is_u64()) {
            return refused(format!("`eos_token_id` is {eos}; expected a token's id, or a list of them"));
        }
        config.eos = match eos {
            Value::Null => vec![],
            Value::Array(ids) => ids.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        };
        Ok(())
    }

    fn activation(&self, key: &str, usual: &str) -> Result<Activation, ModelError> {
        match self.0.get(key).and_then(Value::as_str).unwrap_or(usual) {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            "relu" => Ok(Activation::Relu),
            other => {
                refused(format!("`{key}` is \"{other}\"; expected gelu, gelu_new, gelu_pytorch_tanh, silu or relu"))
            }
        }
    }

    /// A soft cap: `usual` if the key is missing, none if it is null.
    fn cap(&self, key: &str, usual: Option<f64>) -> Result<Option<f64>, ModelError> {
        match self.0.get(key) {
            None => Ok(usual),
            Some(Value::Null) => Ok(None),
            Some(_) => self.positive(key).map(Some),
        }
    }

    fn blocks(&self, key: &str) -> Result<usize, ModelError> {
        let number = self.number(key)?;
        if number > MOST_BLOCKS {
            refused(format!("`{key}` is {number}; expected at most {MOST_BLOCKS}"))
        } else {
            Ok(number)
        }
    }

    fn number(&self, key: &str) -> Result<usize, ModelError> {
        self.optional(key)?.ok_or_else(|| ModelError::Config(format!("`{key}` is missing")))
    }

    fn number_or(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    fn optional(&self, key: &str) -> Result<Option<usize>, ModelError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|&number| number <= u64::from(u32::MAX)) {
                Some(number) => Ok(Some(number as usize)),
                None => refused(format!("`{key}` is {value}; expected a whole number")),
            },
        }
    }

    fn real(&self, key: &str) -> Result<f64, ModelError> {
        let value = self.0.get(key).ok_or_else(|| ModelError::Config(format!("`{key}` is missing")))?;
        value.as_f64().ok_or_else(|| ModelError::Config(format!("`{key}` is {value}; expected a number")))
    }

    fn positive(&self, key: &str) -> Result<f64, ModelError> {
        match self.real(key)? {
            number if number > 0.0 => Ok(number),
            number => refused(format!("`{key}` is {number}; expected more than 0")),
        }
    }

    fn real_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        if self.0.get(key).is_none_or(Value::is_null) { Ok(default) } else { self.real(key) }
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => refused(format!("`{key}` is {value}; expected true or false")),
        }
    }

    fn must(&self, key: &str, wanted: bool) -> Result<(), ModelError> {
        match self.flag_or(key, wanted)? == wanted {
            true => Ok(()),
            false => refused(format!("`{key}` is {}, which is not supported", !wanted)),
        }
    }
}
