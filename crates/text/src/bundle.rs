//! A language model with everything that a model folder holds: configuration, tokenizer, weights, the score head of a
//! reward model, and an adapter if there is one. This module takes and returns texts and arrays; the caller reads and
//! writes the files.

use super::bpe_files::from_vocabulary_and_merges;
use super::config::{ModelConfig, ModelHead};
use super::error::ModelError;
use super::heads::ScalarHead;
use super::model::{Precision, Transformer};
use super::rows::{Example, Rows, rows_of};
use super::tokenizer::{Tokenizer, TokenizerError};
use super::weights;
use flipside_core::settings::{LoraSettings, TextShape};
use flipside_core::{Array, ArrayData, Arrays, Seed};
use flipside_learn::numbers;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tch::Device;

/// The key of `config.json` for the bias of a reward model's score, for which Hugging Face's format has no place.
const SCORE_BIAS: &str = "flipside_score_bias";

/// The files of a folder that change the tokens of a text.
const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

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
        let mut tokenizer = tokenizer_of(texts)?;
        tokenizer.set_rows(config.vocabulary);
        let mut model = Transformer::from_arrays(&config, arrays, precision, device())?;
        model.set_score_pad(score_pad(&config, &tokenizer));
        let score = match config.model_head {
            ModelHead::Causal => None,
            ModelHead::Score => {
                let head = arrays.get("score.weight").and_then(weights::tensor);
                let head = head.ok_or_else(|| ModelError::MissingTensor("score.weight".to_owned()))?;
                if head.size() != [1, config.width as i64] {
                    let expected = vec![1, config.width as i64];
                    return Err(ModelError::Shape { name: "score.weight".into(), found: head.size(), expected }.into());
                }
                weights::check_finite("score.weight", &head)?;
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
        let mut model = Transformer::random(&config, precision, device(), &mut seed.stream("text.model"));
        model.set_score_pad(score_pad(&config, &tokenizer));
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
            // transformers reads the score at the last token that is not this one, as it is read here.
            config.pad = self.model.score_pad();
        }
        let mut arrays = self.model.to_arrays();
        let mut all: Value = serde_json::from_str(&config.to_json()).unwrap_or_default();
        if self.model.precision() == Precision::Bf16 {
            all["torch_dtype"] = json!("bfloat16");
        }
        if let Some((weight, bias)) = &self.score {
            let [_, head] = self.model.ends();
            arrays.remove(&format!("{head}.weight"));
            arrays.insert("score.weight".to_owned(), Array::f32(&[1, weight.len()], weight.clone()));
            if !absorb_bias(&mut arrays, self.model.last_bias(), weight, *bias) {
                all[SCORE_BIAS] = json!(bias);
            }
        }
        let generation = self.generation(&config);
        let mut texts = BTreeMap::from([
            ("config.json".to_owned(), format!("{all:#}\n")),
            ("tokenizer.json".to_owned(), self.tokenizer.to_json()?),
            ("tokenizer_config.json".to_owned(), self.tokenizer.config_json()),
        ]);
        if self.score.is_none() {
            texts.insert("generation_config.json".to_owned(), format!("{:#}\n", Value::Object(generation)));
        }
        Ok((texts, arrays))
    }

    /// `generation_config.json`: what was read, such as defaults of sampling, with all tokens that end a completion.
    fn generation(&self, config: &ModelConfig) -> Map<String, Value> {
        let mut generation = self.tokenizer.generation().clone();
        let mut set = |key: &str, value: Value| {
            if generation.get(key).is_none_or(Value::is_null) {
                generation.insert(key.to_owned(), value);
            }
        };
        set("bos_token_id", json!(config.bos));
        set("pad_token_id", json!(config.pad));
        let ends = match &self.stop()[..] {
            [] => Value::Null,
            [one] => json!(one),
            more => json!(more),
        };
        generation.insert("eos_token_id".to_owned(), ends);
        generation
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
        self.take_tokenizer(&parts.0)?;
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

    /// Takes what an adapter's folder has of a tokenizer, chat template and ends in place of the base model's.
    ///
    /// # Errors
    ///
    /// A damaged tokenizer.
    fn take_tokenizer(&mut self, adapter: &BTreeMap<String, String>) -> Result<(), BundleError> {
        if !TOKENIZER_FILES.iter().any(|file| adapter.contains_key(*file)) {
            return Ok(());
        }
        let mut texts = adapter.clone();
        let base = &self.tokenizer;
        if !texts.contains_key("tokenizer.json") {
            texts.insert("tokenizer.json".to_owned(), base.to_json()?);
            texts.entry("tokenizer_config.json".to_owned()).or_insert_with(|| base.config_json());
        }
        let generation = || Value::Object(base.generation().clone()).to_string();
        texts.entry("generation_config.json".to_owned()).or_insert_with(generation);
        // The family says which rules the tokenizer's class has.
        texts.entry("config.json".to_owned()).or_insert_with(|| self.model.config().to_json());
        let mut tokenizer = tokenizer_of(&texts)?;
        tokenizer.set_rows(self.model.config().vocabulary);
        self.tokenizer = tokenizer;
        Ok(())
    }

    /// The head of a reward model.
    pub fn head(&self) -> Option<ScalarHead> {
        self.score.as_ref().map(|(weight, _)| ScalarHead::of(weight, 0.0, self.model.device()))
    }

    /// The tokens that end a completion: all that config.json, generation_config.json and the tokenizer name.
    pub fn stop(&self) -> Vec<u32> {
        let mut stop = self.model.config().eos.clone();
        for end in self.tokenizer.ends() {
            if !stop.contains(&end) {
                stop.push(end);
            }
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

/// The token at which a reward of this model is never read, so that transformers reads it at the same one: the model's
/// padding token, even if that is also its end. A model that becomes a reward model and has none takes the tokenizer's,
/// or at last the end.
fn score_pad(config: &ModelConfig, tokenizer: &Tokenizer) -> Option<u32> {
    let pad = config.pad.or_else(|| tokenizer.pad());
    match config.model_head {
        ModelHead::Score => pad,
        ModelHead::Causal => pad.or_else(|| config.eos.first().copied()).or_else(|| tokenizer.eos()),
    }
}

/// Adds a score's bias to the last norm's bias, for a score head of transformers has none. The shift b w/|w|² of the
/// hidden states changes the score w · h by b. Returns whether it could be done; an RMS norm has no bias.
fn absorb_bias(arrays: &mut Arrays, last: Option<String>, weight: &[f32], bias: f64) -> bool {
    let length = weight.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
    let array = last.and_then(|name| arrays.get_mut(&name));
    match array.map(|array| &mut array.data) {
        Some(ArrayData::F32(shift)) if length > 0.0 => {
            for (shift, &weight) in shift.iter_mut().zip(weight) {
                *shift = (f64::from(*shift) + bias * f64::from(weight) / length) as f32;
            }
            true
        }
        _ => false,
    }
}

/// The tokenizer of a folder's texts.
///
/// # Errors
///
/// A missing or damaged tokenizer.
pub fn tokenizer_of(texts: &BTreeMap<String, String>) -> Result<Tokenizer, BundleError> {
    if !texts.contains_key("tokenizer.json")
        && let Some(built) = from_vocabulary_and_merges(texts)?
    {
        let mut texts = texts.clone();
        texts.insert("tokenizer.json".to_owned(), built);
        return Tokenizer::from_texts(&texts)?.ok_or(BundleError::Missing("tokenizer.json"));
    }
    Tokenizer::from_texts(texts)?.ok_or(BundleError::Missing("tokenizer.json"))
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
