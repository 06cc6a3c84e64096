//! The configuration of a language model: reads and writes Hugging Face's `config.json`. A setting that would change
//! the computation in an unsupported way is refused by name.

use serde_json::{Map, Value, json};

use super::error::ModelError;

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
}

impl Family {
    /// All families, with their `model_type` and the stem of their `architectures`.
    const NAMES: [(Family, &'static str, &'static str); 5] = [
        (Family::Gpt2, "gpt2", "GPT2"),
        (Family::Llama, "llama", "Llama"),
        (Family::Mistral, "mistral", "Mistral"),
        (Family::Qwen2, "qwen2", "Qwen2"),
        (Family::Qwen3, "qwen3", "Qwen3"),
    ];

    /// Its usual name.
    pub fn label(self) -> &'static str {
        ["GPT-2", "Llama", "Mistral", "Qwen2", "Qwen3"][self as usize]
    }

    fn names(self) -> (&'static str, &'static str) {
        let (_, model_type, stem) = Family::NAMES[self as usize];
        (model_type, stem)
    }
}

/// How rotary angles depend on the position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths: channel pair i of a head of width w rotates by θ^(−2i/w) radians per position.
    pub theta: f64,
    /// Llama 3's scaling for long contexts.
    pub llama3: Option<Llama3Rope>,
}

/// Llama 3.1's rotary scaling: low-frequency channels rotate `factor` times slower, high-frequency ones as before, and
/// those between are interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Rope {
    /// How many times slower low-frequency channels rotate.
    pub factor: f64,
    /// Wavelengths above `original_context` divided by this are low-frequency.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_context` divided by this are high-frequency.
    pub high_freq_factor: f64,
    /// The context length before scaling, tokens.
    pub original_context: f64,
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

/// The configuration of a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Its architecture.
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
    /// The ε of the norms.
    pub norm_eps: f64,
    /// Whether the head is the embedding (tied weights).
    pub tied: bool,
    /// Rotary position embeddings; none for GPT-2.
    pub rope: Option<Rope>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub output_bias: bool,
    /// Whether the linear layers of the MLP have biases.
    pub mlp_bias: bool,
    /// Sliding window: number of tokens that a token attends to, itself included; none for all.
    pub window: Option<usize>,
    /// The BOS token, if there is one.
    pub bos: Option<u32>,
    /// The EOS tokens.
    pub eos: Vec<u32>,
    /// The padding token, if there is one.
    pub pad: Option<u32>,
}

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
            norm_eps: 1e-5,
            tied: true,
            rope: None,
            qkv_bias: true,
            output_bias: true,
            mlp_bias: true,
            window: None,
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
        let config = Reader(&map).read()?;
        config.check()?;
        Ok(config)
    }

    /// Writes a `config.json` that Hugging Face's transformers reads.
    pub fn to_json(&self) -> String {
        let (model_type, stem) = self.family.names();
        let architecture = match (self.model_head, self.family) {
            (ModelHead::Causal, Family::Gpt2) => "GPT2LMHeadModel".to_owned(),
            (ModelHead::Causal, _) => format!("{stem}ForCausalLM"),
            (ModelHead::Score, _) => format!("{stem}ForSequenceClassification"),
        };
        let mut all = json!({
            "architectures": [architecture], "model_type": model_type, "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied, "torch_dtype": "float32", "use_cache": true,
            "bos_token_id": self.bos, "pad_token_id": self.pad,
            "eos_token_id": match &self.eos[..] { [] => Value::Null, [one] => json!(one), more => json!(more) },
        });
        let own = match self.family {
            Family::Gpt2 => json!({
                "n_embd": self.width, "n_layer": self.layers, "n_head": self.heads, "n_positions": self.context, "n_ctx": self.context,
                "n_inner": if self.inner == 4 * self.width { Value::Null } else { json!(self.inner) },
                "activation_function": "gelu_new", "layer_norm_epsilon": self.norm_eps,
                "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
            }),
            _ => {
                let mut own = json!({
                    "hidden_size": self.width, "intermediate_size": self.inner, "num_hidden_layers": self.layers,
                    "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_width,
                    "hidden_act": "silu", "rms_norm_eps": self.norm_eps, "max_position_embeddings": self.context,
                    "attention_dropout": 0.0,
                });
                if let Some(rope) = self.rope {
                    own["rope_theta"] = json!(rope.theta);
                    own["rope_scaling"] = match rope.llama3 {
                        None => Value::Null,
                        Some(l) => json!({
                            "rope_type": "llama3", "factor": l.factor, "low_freq_factor": l.low_freq_factor,
                            "high_freq_factor": l.high_freq_factor, "original_max_position_embeddings": l.original_context as u64,
                        }),
                    };
                }
                match self.family {
                    Family::Llama => {
                        own["attention_bias"] = json!(self.qkv_bias);
                        own["mlp_bias"] = json!(self.mlp_bias);
                    }
                    Family::Mistral => own["sliding_window"] = json!(self.window),
                    Family::Qwen2 | Family::Qwen3 => {
                        own["use_sliding_window"] = json!(false);
                        own["sliding_window"] = Value::Null;
                        if self.family == Family::Qwen3 {
                            own["attention_bias"] = json!(self.qkv_bias);
                        }
                    }
                    Family::Gpt2 => {}
                }
                own
            }
        };
        if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
            all.extend(own);
            if self.model_head == ModelHead::Score {
                all.insert("num_labels".into(), json!(1));
                all.insert("id2label".into(), json!({"0": "LABEL_0"}));
                all.insert("label2id".into(), json!({"LABEL_0": 0}));
            }
        }
        format!("{all:#}\n")
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
        }
        if self.head_width == 0 || (self.family == Family::Gpt2 && self.head_width * self.heads != self.width) {
            return wrong(format!("{} heads do not divide a width of {}", self.heads, self.width));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(format!("{} key and value heads do not divide {} heads", self.kv_heads, self.heads));
        }
        if self.rope.is_some() && !self.head_width.is_multiple_of(2) {
            return wrong(format!("rotary positions need heads of even width; this is {}", self.head_width));
        }
        Ok(())
    }
}

/// One `config.json`.
struct Reader<'a>(&'a Map<String, Value>);

impl Reader<'_> {
    fn read(&self) -> Result<ModelConfig, ModelError> {
        let model_type = self.0.get("model_type").and_then(Value::as_str).unwrap_or("");
        let Some(&(family, _, stem)) = Family::NAMES.iter().find(|(_, name, _)| *name == model_type) else {
            let known: Vec<&str> = Family::NAMES.iter().map(|(_, name, _)| *name).collect();
            return Err(ModelError::Config(format!(
                "its model_type is \"{model_type}\"; expected one of {}",
                known.join(", ")
            )));
        };
        let model_head = self.model_head(stem)?;
        for key in ["quantization_config", "cross_attention_hidden_size"] {
            if self.0.get(key).is_some_and(|value| !value.is_null()) {
                return Err(ModelError::Config(format!("`{key}` is set, which is not supported")));
            }
        }
        if family == Family::Gpt2 { self.gpt2(model_head) } else { self.llama(family, model_head) }
    }

    fn model_head(&self, stem: &str) -> Result<ModelHead, ModelError> {
        let names: Vec<&str> = self
            .0
            .get("architectures")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(name) = names.first() else { return Ok(ModelHead::Causal) };
        match name.strip_prefix(stem) {
            Some("ForCausalLM" | "LMHeadModel" | "Model") => Ok(ModelHead::Causal),
            Some("ForSequenceClassification") => match self.labels() {
                1 => Ok(ModelHead::Score),
                labels => Err(ModelError::Config(format!("it classifies into {labels} labels; expected 1"))),
            },
            _ => Err(ModelError::Config(format!(
                "its architecture is \"{name}\"; expected {stem}ForCausalLM or {stem}ForSequenceClassification"
            ))),
        }
    }

    fn labels(&self) -> usize {
        let listed = self.0.get("id2label").and_then(Value::as_object).map(Map::len);
        self.0.get("num_labels").and_then(Value::as_u64).map(|n| n as usize).or(listed).unwrap_or(2)
    }

    fn gpt2(&self, model_head: ModelHead) -> Result<ModelConfig, ModelError> {
        self.must_be("activation_function", &["gelu_new", "gelu_pytorch_tanh"], "gelu_new")?;
        self.must("scale_attn_weights", true)?;
        self.must("scale_attn_by_inverse_layer_idx", false)?;
        self.must("add_cross_attention", false)?;
        let width = self.number("n_embd")?;
        let heads = self.number("n_head")?;
        let mut config = ModelConfig::gpt2(
            self.number("vocab_size")?,
            self.number("n_positions")?,
            width,
            self.number("n_layer")?,
            heads.max(1),
        );
        config.heads = heads;
        config.kv_heads = heads;
        config.inner = self.number_or("n_inner", 4 * width)?;
        config.norm_eps = self.real_or("layer_norm_epsilon", 1e-5)?;
        config.tied = self.flag_or("tie_word_embeddings", true)?;
        config.model_head = model_head;
        self.tokens(&mut config)?;
        Ok(config)
    }

    fn llama(&self, family: Family, model_head: ModelHead) -> Result<ModelConfig, ModelError> {
        self.must_be("hidden_act", &["silu"], "silu")?;
        let (width, heads) = (self.number("hidden_size")?, self.number("num_attention_heads")?);
        let qkv_bias = match family {
            Family::Qwen2 => true,
            Family::Llama | Family::Qwen3 => self.flag_or("attention_bias", false)?,
            _ => false,
        };
        let mut config = ModelConfig {
            family,
            model_head,
            vocabulary: self.number("vocab_size")?,
            context: self.number("max_position_embeddings")?,
            width,
            layers: self.number("num_hidden_layers")?,
            heads,
            kv_heads: self.number_or("num_key_value_heads", heads)?,
            head_width: self.number_or("head_dim", if family == Family::Qwen3 { 128 } else { width / heads.max(1) })?,
            inner: self.number("intermediate_size")?,
            norm_eps: self.real_or("rms_norm_eps", 1e-6)?,
            tied: self.flag_or("tie_word_embeddings", false)?,
            rope: Some(self.rope()?),
            qkv_bias,
            output_bias: qkv_bias && family != Family::Qwen2,
            mlp_bias: family == Family::Llama && self.flag_or("mlp_bias", false)?,
            window: None,
            bos: None,
            eos: vec![],
            pad: None,
        };
        match family {
            Family::Mistral => config.window = self.optional("sliding_window")?,
            Family::Qwen2 | Family::Qwen3 => self.must("use_sliding_window", false)?,
            _ => {}
        }
        self.tokens(&mut config)?;
        Ok(config)
    }

    fn rope(&self) -> Result<Rope, ModelError> {
        // transformers 5 has both in `rope_parameters`; earlier versions have `rope_theta` and `rope_scaling`.
        let table =
            ["rope_parameters", "rope_scaling"].iter().find_map(|key| self.0.get(*key).and_then(Value::as_object));
        let empty = Map::new();
        let table = Reader(table.unwrap_or(&empty));
        let theta = table.real_or("rope_theta", self.real_or("rope_theta", 10_000.0)?)?;
        let kind =
            table.0.get("rope_type").or_else(|| table.0.get("type")).and_then(Value::as_str).unwrap_or("default");
        let llama3 = match kind {
            "default" => None,
            "llama3" => Some(Llama3Rope {
                factor: table.real("factor")?,
                low_freq_factor: table.real("low_freq_factor")?,
                high_freq_factor: table.real("high_freq_factor")?,
                original_context: table.real("original_max_position_embeddings")?,
            }),
            other => {
                return Err(ModelError::Config(format!(
                    "its rope_type is \"{other}\"; expected \"default\" or \"llama3\""
                )));
            }
        };
        Ok(Rope { theta, llama3 })
    }

    fn tokens(&self, config: &mut ModelConfig) -> Result<(), ModelError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let one = |key: &str| self.0.get(key).filter(|value| !value.is_null()).map(|value| (value, id(value)));
        for (key, place) in [("bos_token_id", &mut config.bos), ("pad_token_id", &mut config.pad)] {
            if let Some((value, found)) = one(key) {
                *place = Some(
                    found.ok_or_else(|| ModelError::Config(format!("`{key}` is {value}; expected a token's id")))?,
                );
            }
        }
        let eos = self.0.get("eos_token_id").unwrap_or(&Value::Null);
        config.eos = match eos {
            Value::Null => vec![],
            Value::Array(ids) => ids.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        };
        Ok(())
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
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number as usize)),
                None => Err(ModelError::Config(format!("`{key}` is {value}; expected a whole number"))),
            },
        }
    }

    fn real(&self, key: &str) -> Result<f64, ModelError> {
        let value = self.0.get(key).ok_or_else(|| ModelError::Config(format!("`{key}` is missing")))?;
        value.as_f64().ok_or_else(|| ModelError::Config(format!("`{key}` is {value}; expected a number")))
    }

    fn real_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        if self.0.get(key).is_none_or(Value::is_null) { Ok(default) } else { self.real(key) }
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(ModelError::Config(format!("`{key}` is {value}; expected true or false"))),
        }
    }

    fn must(&self, key: &str, wanted: bool) -> Result<(), ModelError> {
        match self.flag_or(key, wanted)? == wanted {
            true => Ok(()),
            false => Err(ModelError::Config(format!("`{key}` is {}, which is not supported", !wanted))),
        }
    }

    fn must_be(&self, key: &str, wanted: &[&str], default: &str) -> Result<(), ModelError> {
        let found = self.0.get(key).and_then(Value::as_str).unwrap_or(default);
        match wanted.contains(&found) {
            true => Ok(()),
            false => Err(ModelError::Config(format!("`{key}` is \"{found}\"; expected {}", wanted.join(" or ")))),
        }
    }
}
