//! A language model with everything that a model folder holds: configuration, tokenizer, weights, the score head of a
//! reward model, and an adapter if there is one. This module takes and returns texts and arrays; the caller reads and
//! writes the files.

use super::config::{ModelConfig, ModelHead};
use super::error::ModelError;
use super::heads::ScalarHead;
use super::model::{Precision, Transformer};
use super::rows::{Example, Rows, rows_of};
use super::tokenizer::{Tokenizer, TokenizerError};
use super::weights;
use flipside_core::settings::{LoraSettings, TextShape};
use flipside_core::{Array, Arrays, Seed};
use flipside_learn::numbers;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tch::Device;

/// The key of `config.json` for the bias of a reward model's score, for which Hugging Face's format has no place.
const SCORE_BIAS: &str = "flipside_score_bias";

/// Why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A required file is missing.
    #[error("the model's folder has no {0}; take it from where the model came from")]
    Missing(&'static str),
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The tokenizer has more tokens than the model's embedding has rows.
    #[error("the tokenizer has {tokens} tokens, the model's embedding only {rows}; take both from the same model")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the model's embedding.
        rows: usize,
    },
}

/// A model, its tokenizer and, for a reward model, its head.
#[derive(Debug)]
pub struct Bundle {
    /// The transformer, with an adapter where one was attached.
    pub model: Transformer,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The head of a reward model: weights `[d]` and bias.
    pub score: Option<(Vec<f32>, f64)>,
}

/// The text files of a folder by file name, and its arrays by name.
pub type Parts = (BTreeMap<String, String>, Arrays);

impl Bundle {
    /// Loads the model of a folder's texts and weights, on the GPU if there is one.
    ///
    /// # Errors
    ///
    /// A missing or damaged part, or a configuration that is not supported.
    pub fn from_parts(parts: &Parts, precision: Precision) -> Result<Bundle, BundleError> {
        let (texts, arrays) = parts;
        let config_text = texts.get("config.json").ok_or(BundleError::Missing("config.json"))?;
        let config = ModelConfig::from_json(config_text)?;
        let tokenizer = tokenizer_of(texts)?;
        if tokenizer.vocabulary() > config.vocabulary {
            return Err(BundleError::Vocabulary { tokens: tokenizer.vocabulary(), rows: config.vocabulary });
        }
        let model = Transformer::from_arrays(&config, arrays, precision, device())?;
        let score = match config.model_head {
            ModelHead::Causal => None,
            ModelHead::Score => {
                let head = arrays.get("score.weight").and_then(weights::tensor);
                let head = head.ok_or_else(|| ModelError::MissingTensor("score.weight".to_owned()))?;
                if head.size() != [1, config.width as i64] {
                    let expected = vec![1, config.width as i64];
                    return Err(ModelError::Shape { name: "score.weight".into(), found: head.size(), expected }.into());
                }
                let all: Value = serde_json::from_str(config_text).unwrap_or_default();
                Some((numbers(&head), all[SCORE_BIAS].as_f64().unwrap_or(0.0)))
            }
        };
        Ok(Bundle { model, tokenizer, score })
    }

    /// A GPT-2 of this size with random weights, for this tokenizer.
    pub fn random(shape: &TextShape, tokenizer: Tokenizer, precision: Precision, seed: Seed) -> Bundle {
        let mut config =
            ModelConfig::gpt2(tokenizer.vocabulary(), shape.context, shape.width, shape.layers, shape.heads);
        config.bos = tokenizer.bos().or(tokenizer.eos());
        config.eos = tokenizer.eos().into_iter().collect();
        config.pad = tokenizer.pad();
        let model = Transformer::random(&config, precision, device(), &mut seed.stream("text.model"));
        Bundle { model, tokenizer, score: None }
    }

    /// The folder of the base model, with the score head if there is one. An adapter is not included.
    ///
    /// # Errors
    ///
    /// A tokenizer that cannot be written.
    pub fn to_parts(&self) -> Result<Parts, BundleError> {
        let mut config = self.model.config().clone();
        config.model_head = if self.score.is_some() { ModelHead::Score } else { ModelHead::Causal };
        if self.score.is_some() {
            // transformers finds a row's last token by the padding token.
            config.pad = config.pad.or(self.tokenizer.pad()).or(self.tokenizer.eos());
        }
        let mut arrays = self.model.to_arrays();
        let mut all: Value = serde_json::from_str(&config.to_json()).unwrap_or_default();
        if self.model.precision() == Precision::Bf16 {
            all["torch_dtype"] = json!("bfloat16");
        }
        if let Some((weight, bias)) = &self.score {
            arrays.remove("lm_head.weight");
            arrays.insert("score.weight".to_owned(), Array::f32(&[1, weight.len()], weight.clone()));
            all[SCORE_BIAS] = json!(bias);
        }
        let generation = json!({
            "bos_token_id": config.bos, "pad_token_id": config.pad,
            "eos_token_id": match &config.eos[..] { [] => Value::Null, [one] => json!(one), more => json!(more) },
        });
        let mut texts = BTreeMap::from([
            ("config.json".to_owned(), format!("{all:#}\n")),
            ("tokenizer.json".to_owned(), self.tokenizer.to_json()?),
            ("tokenizer_config.json".to_owned(), self.tokenizer.config_json()),
        ]);
        if self.score.is_none() {
            texts.insert("generation_config.json".to_owned(), format!("{generation:#}\n"));
        }
        Ok((texts, arrays))
    }

    /// The adapter alone, in PEFT's format; `None` if there is none. `base` is the base model's folder.
    pub fn to_adapter_parts(&self, base: Option<&str>) -> Option<Parts> {
        let head = self.score.as_ref().map(|(weight, _)| &weight[..]);
        let (config, arrays) = self.model.to_peft(base, head)?;
        let mut texts = BTreeMap::from([("adapter_config.json".to_owned(), config)]);
        texts.insert("tokenizer.json".to_owned(), self.tokenizer.to_json().ok()?);
        texts.insert("tokenizer_config.json".to_owned(), self.tokenizer.config_json());
        Some((texts, arrays))
    }

    /// Attaches the adapter of a PEFT folder, and its reward head if there is one.
    ///
    /// # Errors
    ///
    /// An adapter that does not fit or is not supported.
    pub fn attach(&mut self, parts: &Parts) -> Result<(), BundleError> {
        let config = parts.0.get("adapter_config.json").ok_or(BundleError::Missing("adapter_config.json"))?;
        self.model.attach_peft(config, &parts.1)?;
        if let Some(head) = parts.1.get("base_model.model.score.weight").and_then(weights::tensor) {
            self.score = Some((numbers(&head), 0.0));
        }
        Ok(())
    }

    /// Prepares the model for training by a run's settings. With `lora`, new adapters are attached, unless there are
    /// some already. Without it, the embedding and the first `frozen` blocks are frozen.
    ///
    /// # Errors
    ///
    /// Adapter targets that the model does not have.
    pub fn prepare(&mut self, lora: Option<&LoraSettings>, frozen: usize, seed: Seed) -> Result<(), BundleError> {
        if let Some(lora) = lora {
            if self.model.adapter_tensors().is_empty() {
                self.model.attach(lora, &mut seed.stream("text.lora"))?;
            }
        } else if frozen > 0 {
            self.model.freeze(frozen);
        }
        Ok(())
    }

    /// The head of a reward model.
    pub fn head(&self) -> Option<ScalarHead> {
        self.score.as_ref().map(|(weight, _)| ScalarHead::of(weight, 0.0, self.model.device()))
    }

    /// The tokens that end a completion.
    pub fn stop(&self) -> Vec<u32> {
        let mut stop = self.model.config().eos.clone();
        if let Some(eos) = self.tokenizer.eos().filter(|eos| !stop.contains(eos)) {
            stop.push(eos);
        }
        stop
    }

    /// A short description of the model.
    pub fn describe(&self) -> String {
        let numbers: usize = self.model.tensors().values().map(tch::Tensor::numel).sum();
        let size = match numbers as f64 {
            n if n >= 1e9 => format!("{:.1} B", n / 1e9),
            n if n >= 1e6 => format!("{:.1} M", n / 1e6),
            n => format!("{:.0} k", n / 1e3),
        };
        let family = self.model.config().family.label();
        let precision = if self.model.precision() == Precision::Bf16 { "bf16" } else { "f32" };
        let place = if self.model.device() == Device::Cpu { "" } else { ", on the GPU" };
        format!("{family}, {size} parameters, {precision}{place}")
    }
}

/// The tokenizer of a folder's texts.
///
/// # Errors
///
/// A missing or damaged tokenizer.
pub fn tokenizer_of(texts: &BTreeMap<String, String>) -> Result<Tokenizer, BundleError> {
    let tokenizer = texts.get("tokenizer.json").ok_or(BundleError::Missing("tokenizer.json"))?;
    let config = texts.get("tokenizer_config.json").map(String::as_str);
    let mut config: Value = serde_json::from_str(config.unwrap_or("{}")).unwrap_or_else(|_| json!({}));
    // A chat template in its own file takes precedence over the one in the configuration.
    if let Some(template) = texts.get("chat_template.jinja") {
        config["chat_template"] = json!(template);
    }
    Ok(Tokenizer::from_json(tokenizer, Some(&config.to_string()))?)
}

/// The device of models: the first GPU that libtorch finds, else the CPU.
pub fn device() -> Device {
    flipside_learn::cuda_devices();
    Device::cuda_if_available()
}

/// log π of the completion tokens of each example, nats: one list for each example, computed in batches of `batch`
/// rows. Without a prompt, an example's first token serves as its prompt. `on_batch` is called before every batch with
/// the number of batches done; if it returns true, only the examples so far are returned.
pub fn log_probs(
    model: &Transformer,
    examples: &[Example],
    adapters: bool,
    temperature: f64,
    batch: usize,
    on_batch: &mut dyn FnMut(usize) -> bool,
) -> Vec<Vec<f32>> {
    let mut all = Vec::with_capacity(examples.len());
    for (done, part) in examples.chunks(batch.max(1)).enumerate() {
        if on_batch(done) {
            break;
        }
        let rows: Vec<(&[u32], &[u32])> = part.iter().map(Example::parts).collect();
        let lengths: Vec<usize> = rows.iter().map(|(_, completion)| completion.len()).collect();
        if lengths.iter().all(|&n| n == 0) {
            all.extend(lengths.iter().map(|_| Vec::new()));
            continue;
        }
        let rows = Rows::new(&rows, model.device());
        all.extend(tch::no_grad(|| {
            let scores = rows.log_softmax(model, &rows.before_tokens(&rows.hidden(model, adapters)), temperature);
            rows_of(&rows.chosen(&scores), lengths.into_iter())
        }));
    }
    all
}

/// The final hidden state of each example's last token, `[d]`, which is what a reward model's head reads, computed in
/// batches of `batch` rows. `on_batch` is called before every batch with the number of batches done; if it returns
/// true, only the states so far are returned.
pub fn last_hidden_states(
    model: &Transformer,
    examples: &[Example],
    adapters: bool,
    batch: usize,
    on_batch: &mut dyn FnMut(usize) -> bool,
) -> Vec<Vec<f32>> {
    let mut all = Vec::with_capacity(examples.len());
    for (done, part) in examples.chunks(batch.max(1)).enumerate() {
        if on_batch(done) {
            break;
        }
        let rows: Vec<(&[u32], &[u32])> = part.iter().map(|e| (&e.prompt[..], &e.completion[..])).collect();
        let rows = Rows::new(&rows, model.device());
        let states = tch::no_grad(|| numbers(&rows.at_last(&rows.hidden(model, adapters))));
        all.extend(states.chunks_exact(states.len() / part.len()).map(<[f32]>::to_vec));
    }
    all
}
