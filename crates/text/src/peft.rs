//! Reads and writes adapters in PEFT's format: `adapter_config.json` and the arrays of `adapter_model.safetensors`. An
//! adapter that was trained here loads in PEFT, and the other way round. Features of PEFT that are not supported here
//! are refused by name, never silently ignored.
//!
//! Plain LoRA on a block's linear layers stays beside the weights, so that it can be trained. Whatever else an adapter
//! changes (DoRA, embeddings, the head, biases, whole modules) is computed into a copy of those weights when it is
//! attached, and the model without it is kept beside.

mod config;

use super::error::ModelError;
use super::model::{Lora, Module, Tensors, Transformer};
use super::weights;
use config::{Initialisation, PeftConfig};
use flipside_core::settings::LoraSettings;
use flipside_core::{Array, Arrays, one_line};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// The prefix that PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// The name of a reward head's weight among an adapter's arrays, `[1, d]`.
pub const HEAD: &str = "base_model.model.score.weight";

impl Transformer {
    /// The adapters as PEFT saves them: the text of `adapter_config.json` and the arrays of
    /// `adapter_model.safetensors`; `None` without adapters. `base` is the base model's name or folder. With a reward
    /// head, `[d]`, the task type is SEQ_CLS and the head is among the arrays.
    pub fn to_peft(&self, base: Option<&str>, head: Option<&[f32]>) -> Option<(String, Arrays)> {
        let settings = self.adapter.as_ref()?;
        let trained = weights::arrays(&self.adapter_tensors());
        let trained = trained.into_iter().map(|(name, array)| (format!("{PREFIX}{name}"), array));
        let (source, mut arrays) = match &self.attached {
            Some(attached) => (Some(&attached.config), attached.arrays.clone()),
            None => (None, Arrays::new()),
        };
        arrays.extend(trained);
        if let Some(head) = head {
            arrays.insert(HEAD.to_owned(), Array::f32(&[1, head.len()], head.to_vec()));
        }
        let transposed = self.linears().iter().any(|linear| linear.transposed);
        let config = json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": transposed,
            "inference_mode": true,
            "init_lora_weights": true,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": whole(settings.alpha),
            "lora_dropout": settings.dropout,
            "modules_to_save": head.map(|_| ["score"]),
            "peft_type": "LORA",
            "r": settings.rank,
            "rank_pattern": {},
            "revision": null,
            "target_modules": self.targets(),
            "task_type": if head.is_some() { "SEQ_CLS" } else { "CAUSAL_LM" },
            "use_dora": false,
            "use_rslora": false,
        });
        // An adapter that was read is described by its own file.
        let config = match source {
            None => config,
            Some(source) => {
                let mut source = source.clone();
                source["base_model_name_or_path"] = json!(base);
                source
            }
        };
        Some((format!("{config:#}\n"), arrays))
    }

    /// The modules with adapters, for `target_modules`: the last parts of their names if these identify them, else
    /// their full names.
    fn targets(&self) -> Vec<String> {
        let all = self.linears();
        let last: BTreeSet<&str> = all.iter().filter(|map| map.lora.is_some()).map(|map| last(&map.name)).collect();
        match all.iter().all(|map| map.lora.is_some() == last.contains(self::last(&map.name))) {
            true => last.into_iter().map(str::to_owned).collect(),
            false => all.iter().filter(|map| map.lora.is_some()).map(|map| map.name.clone()).collect(),
        }
    }

    /// Attaches an adapter that PEFT saved, in place of any that there is. `config` is the text of
    /// `adapter_config.json`, `arrays` are those of `adapter_model.safetensors`. A reward head among them ([`HEAD`]) is
    /// left to the caller.
    ///
    /// # Errors
    ///
    /// Settings that are not LoRA's or not supported, targets that the model lacks, and matrices that are missing,
    /// superfluous or of the wrong shape. The error names the cause, and the model is unchanged.
    pub fn attach_peft(&mut self, config: &str, arrays: &Arrays) -> Result<(), ModelError> {
        let (config, source) = PeftConfig::read(config)?;
        let mut base = self.clone();
        base.remove_adapters();
        let mut reading = Reading::new(&config, arrays, &base);
        reading.replace_parameters()?;
        let mut any = false;
        for module in base.modules() {
            if config.covers(&module)? {
                any = true;
                reading.adapt(&module)?;
            }
        }
        // Names are whatever the files say.
        let refuse = |what: String| Err(ModelError::Adapter(one_line(&what)));
        if !any {
            return refuse(format!("its target_modules match no module of this model: {}", config.targets.listed()));
        }
        reading.replace_tokens()?;
        let Reading { unused, changed, tensors, mut loras, .. } = reading;
        if let Some(name) = unused.first() {
            return refuse(format!("its `{name}` matches no module of this model"));
        }
        let mut model = if changed { base.with_tensors(tensors) } else { base.clone() };
        for linear in model.linears_mut() {
            linear.lora = loras.remove(&linear.name);
        }
        let trained = model.adapter_tensors();
        let is_trained = |name: &str| name.strip_prefix(PREFIX).is_some_and(|name| trained.contains_key(name));
        let rest = arrays.iter().filter(|(name, _)| !is_trained(name));
        let arrays = rest.map(|(name, array)| (name.clone(), array.clone())).collect();
        let targets = model.targets();
        model.adapter = Some(LoraSettings { targets, ..config.settings });
        model.attached = Some(Attached { config: source, arrays, base: changed.then(|| Box::new(base)) });
        *self = model;
        Ok(())
    }
}

/// What is kept of an adapter that was read, beside its trained matrices.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its `adapter_config.json`.
    config: Value,
    /// The arrays that are not trained here.
    arrays: Arrays,
    /// The model without it, if it changes the weights themselves.
    pub(super) base: Option<Box<Transformer>>,
}

/// An adapter while it is read.
struct Reading<'a> {
    config: &'a PeftConfig,
    arrays: &'a Arrays,
    /// The arrays that have found no use yet.
    unused: BTreeSet<&'a str>,
    base: &'a Transformer,
    /// The model's parameters as the adapter changes them, with the head by its own name.
    tensors: Tensors,
    /// Whether it changes any of them.
    changed: bool,
    /// The plain adapters, by module.
    loras: BTreeMap<String, Lora>,
}

impl<'a> Reading<'a> {
    fn new(config: &'a PeftConfig, arrays: &'a Arrays, base: &'a Transformer) -> Reading<'a> {
        let unused = arrays.keys().map(String::as_str).filter(|&name| name != HEAD).collect();
        let tensors = base.tensors_with_head();
        Reading { config, arrays, unused, base, tensors, changed: false, loras: BTreeMap::new() }
    }

    /// An array as a tensor, which must have this shape.
    fn array(&mut self, name: &str, expected: &[i64]) -> Result<Tensor, ModelError> {
        let found = self.arrays.get_key_value(name);
        let Some((name, tensor)) = found.and_then(|(name, array)| Some((name, weights::tensor(array)?))) else {
            return Err(ModelError::Adapter(format!("it lacks `{}`", one_line(name))));
        };
        if tensor.size() != expected {
            let found = tensor.size();
            return Err(ModelError::Adapter(format!("its `{}` is {found:?}, not {expected:?}", one_line(name))));
        }
        weights::check_finite(name, &tensor)?;
        self.unused.remove(name.as_str());
        Ok(tensor.to_kind(Kind::Float).to_device(self.base.device()))
    }

    fn change(&mut self, name: &str, tensor: &Tensor) {
        if let Some(old) = self.tensors.get(name) {
            let changed = tensor.to_kind(old.kind());
            self.tensors.insert(name.to_owned(), self.base.laid_out(name, &changed));
        } else {
            let kind = self.tensors.values().next().map_or(Kind::Float, Tensor::kind);
            self.tensors.insert(name.to_owned(), tensor.to_kind(kind));
        }
        self.changed = true;
    }

    /// Takes over parameters that the adapter has whole: modules to save, biases, and embeddings beside their adapters.
    fn replace_parameters(&mut self) -> Result<(), ModelError> {
        let [embedding, head] = self.base.ends();
        let [of_embedding, of_head] = [&embedding, &head].map(|module| format!("{module}.weight"));
        let names: Vec<&'a String> = self.arrays.keys().collect();
        for name in names {
            let Some(bare) = name.strip_prefix(PREFIX) else { continue };
            let mut parameter = bare.replace(".base_layer.", ".");
            if parameter == "lm_head.weight" {
                parameter.clone_from(&of_head);
            }
            let Some(size) = self.tensors.get(&parameter).map(Tensor::size) else { continue };
            let tensor = self.array(name, &size)?;
            self.change(&parameter, &tensor);
            if parameter == of_embedding && self.base.config().tied && parameter != bare {
                self.change(&of_head, &tensor);
            }
        }
        if self.config.ensure_weight_tying && self.base.config().tied {
            self.tie(&of_embedding, &of_head);
        }
        Ok(())
    }

    /// Makes the head the embedding.
    fn tie(&mut self, embedding: &str, head: &str) {
        if let Some(tensor) = self.tensors.get(embedding).map(Tensor::shallow_clone) {
            self.tensors.insert(head.to_owned(), tensor);
        }
    }

    /// Adds the adapter of one module.
    fn adapt(&mut self, module: &Module) -> Result<(), ModelError> {
        let (rank, scale) = self.config.rank_and_scale(&module.name)?;
        let name = &module.name;
        let at = format!("{PREFIX}{}", self.name_in_file(module));
        let [input, output] = module.sizes;
        let matrices = if module.is_embedding { "lora_embedding_" } else { "lora_" };
        let suffix = if module.is_embedding { "" } else { ".weight" };
        let a = self.array(&format!("{at}.{matrices}A{suffix}"), &[rank, input])?;
        let b = self.array(&format!("{at}.{matrices}B{suffix}"), &[output, rank])?;
        let weight_name = format!("{name}.weight");
        let stored = self.tensors.get(&weight_name).map(Tensor::shallow_clone).unwrap_or_default();
        // [output, input], in which an embedding is the map from a token to its row.
        let is_turned = module.transposed || module.is_embedding;
        let turned = |weight: &Tensor| if is_turned { weight.tr() } else { weight.shallow_clone() };
        let mut weight = turned(&stored.to_kind(Kind::Float));
        if self.config.initialisation != Initialisation::Plain && !module.is_embedding {
            weight = &weight - self.config.initialisation.product(&weight, rank, scale, module.transposed)?;
            self.change(&weight_name, &turned(&weight));
        }
        if self.config.lora_bias && !module.is_embedding {
            let bias = self.array(&format!("{at}.lora_B.bias"), &[output])? * scale;
            let name = format!("{name}.bias");
            let sum = match self.tensors.get(&name) {
                Some(old) => old.to_kind(Kind::Float) + bias,
                None => bias,
            };
            self.change(&name, &sum);
        }
        let is_plain = !self.config.use_dora && self.base.linears().iter().any(|linear| linear.name == *name);
        if is_plain {
            let [a, b] = [a, b].map(|matrix| matrix.set_requires_grad(true));
            self.loras.insert(name.clone(), Lora { a, b, scale, dropout: self.config.settings.dropout });
            return Ok(());
        }
        let mut sum = tch::no_grad(|| &weight + b.matmul(&a) * scale);
        if self.config.use_dora {
            // Liu et al. 2024, equation 5: each output's row has the length that the adapter says.
            let lengths = sum.square().sum_dim_intlist(1, false, Kind::Float).sqrt();
            // Earlier versions of PEFT add ".weight".
            let name = format!("{at}.lora_magnitude_vector");
            let name = if self.arrays.contains_key(&name) { name } else { format!("{name}.weight") };
            sum *= (self.array(&name, &[output])? / lengths).unsqueeze(1);
        }
        self.change(&weight_name, &turned(&sum));
        let [embedding, head] = self.base.ends();
        if self.config.ensure_weight_tying && self.base.config().tied && *name == embedding {
            self.tie(&weight_name, &format!("{head}.weight"));
        }
        Ok(())
    }

    /// The module's name in the file, where another name of the head is usual.
    fn name_in_file(&self, module: &Module) -> String {
        let usual = format!("{PREFIX}lm_head.lora_A.weight");
        let is_head = self.base.ends()[1] == module.name && self.arrays.contains_key(&usual);
        if is_head { "lm_head".to_owned() } else { module.name.clone() }
    }

    /// Replaces the embeddings of the tokens that were trained alone.
    fn replace_tokens(&mut self) -> Result<(), ModelError> {
        let [embedding, head] = self.base.ends();
        let tokens = self.config.tokens.clone();
        for (layer, tokens) in tokens {
            let is = |module: &str| {
                layer.as_ref().is_none_or(|layer| {
                    module.strip_suffix(&layer[..]).is_some_and(|before| before.is_empty() || before.ends_with('.'))
                })
            };
            let module = match (is(&embedding), is(&head)) {
                (true, _) => &embedding,
                (_, true) => &head,
                _ => {
                    let layer = one_line(&layer.unwrap_or_default());
                    return Err(ModelError::Adapter(format!(
                        "trainable_token_indices names {layer}, not an embedding"
                    )));
                }
            };
            let name = format!("{module}.weight");
            let stored = self.tensors.get(&name).map(Tensor::shallow_clone).unwrap_or_default();
            let (rows, width) = (stored.size()[0], stored.size()[1]);
            if tokens.iter().any(|&token| token >= rows) {
                return Err(ModelError::Adapter(format!("trainable_token_indices has a token beyond the {rows} rows")));
            }
            let at = format!("{PREFIX}{module}.token_adapter.trainable_tokens_delta");
            let new = self.array(&at, &[tokens.len() as i64, width])?;
            let all =
                stored.to_kind(Kind::Float).index_copy(0, &Tensor::from_slice(&tokens).to_device(new.device()), &new);
            self.change(&name, &all);
            if self.base.config().tied && *module == embedding {
                self.tie(&name, &format!("{head}.weight"));
            }
        }
        Ok(())
    }
}

/// The number in JSON, without a fraction if it is whole.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e9 { json!(number as i64) } else { json!(number) }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
