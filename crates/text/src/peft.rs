//! Reads and writes adapters in PEFT's format: `adapter_config.json` and the arrays of `adapter_model.safetensors`. An
//! adapter that was trained here loads in PEFT, and the other way round. Features of PEFT that are not supported here
//! are refused by name, never silently ignored.

use super::error::ModelError;
use super::model::{Lora, Transformer};
use super::weights;
use flipside_core::settings::LoraSettings;
use flipside_core::{Array, Arrays, one_line};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// The prefix that PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// The name of a reward head's weight among an adapter's arrays, `[1, d]`.
pub const HEAD: &str = "base_model.model.score.weight";

/// Settings that change the computation and are not supported. An adapter is read only if each of them is off: null,
/// false, or an empty list or object.
const UNSUPPORTED: [&str; 14] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "layer_replication",
    "exclude_modules",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "megatron_config",
];

impl Transformer {
    /// The adapters as PEFT saves them: the text of `adapter_config.json` and the arrays of
    /// `adapter_model.safetensors`; `None` without adapters. `base` is the base model's name or folder. With a reward
    /// head, `[d]`, the task type is SEQ_CLS and the head is among the arrays.
    pub fn to_peft(&self, base: Option<&str>, head: Option<&[f32]>) -> Option<(String, Arrays)> {
        let settings = self.adapter.as_ref()?;
        let mut arrays: Arrays = weights::arrays(&self.adapter_tensors())
            .into_iter()
            .map(|(name, array)| (format!("{PREFIX}{name}"), array))
            .collect();
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
        let (mut settings, target_modules) = read(config)?;
        // Names are whatever the files say.
        let refuse = |what: String| Err(ModelError::Adapter(one_line(&what)));
        let chosen: Vec<bool> = self.linears().iter().map(|map| target_modules.covers(&map.name)).collect();
        if !chosen.contains(&true) {
            return refuse(format!("its target_modules match no module of this model: {}", target_modules.listed()));
        }
        let (rank, device) = (settings.rank as i64, self.device());
        let scale = settings.alpha / settings.rank as f64;
        let mut unused: BTreeSet<&str> = arrays.keys().map(String::as_str).filter(|&name| name != HEAD).collect();
        let mut adapters = vec![];
        for (map, _) in self.linears().iter().zip(&chosen).filter(|(_, chosen)| **chosen) {
            let [input, output] = map.sizes();
            let mut matrix = |part: &str, expected: [i64; 2]| -> Result<Tensor, ModelError> {
                let name = format!("{PREFIX}{}.{part}.weight", map.name);
                let Some(tensor) = arrays.get(&name).and_then(weights::tensor) else {
                    return Err(ModelError::Adapter(format!("it lacks `{name}`")));
                };
                if tensor.size() != expected {
                    return Err(ModelError::Adapter(format!("its `{name}` is {:?}, not {expected:?}", tensor.size())));
                }
                unused.remove(&name[..]);
                Ok(tensor.to_kind(Kind::Float).to_device(device).set_requires_grad(true))
            };
            let (a, b) = (matrix("lora_A", [rank, input])?, matrix("lora_B", [output, rank])?);
            adapters.push(Lora { a, b, scale, dropout: settings.dropout });
        }
        if let Some(name) = unused.first() {
            return refuse(format!("its `{name}` matches no module of this model"));
        }
        let mut adapters = adapters.into_iter();
        for (map, chosen) in self.linears_mut().into_iter().zip(chosen) {
            map.lora = if chosen { adapters.next() } else { None };
        }
        settings.targets = self.targets();
        self.adapter = Some(settings);
        Ok(())
    }
}

/// Which modules get an adapter.
enum TargetModules {
    AllLinear,
    Named(Vec<String>),
}

impl TargetModules {
    /// Whether the module of this name gets one. As in PEFT, a target matches whole dotted parts at the end of the
    /// name.
    fn covers(&self, module: &str) -> bool {
        match self {
            TargetModules::AllLinear => true,
            TargetModules::Named(names) => names.iter().any(|name| {
                module.strip_suffix(name.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
        }
    }

    fn listed(&self) -> String {
        match self {
            TargetModules::AllLinear => "all-linear".to_owned(),
            TargetModules::Named(names) => names.join(", "),
        }
    }
}

/// Parses an `adapter_config.json`; what is not supported is an error.
fn read(config: &str) -> Result<(LoraSettings, TargetModules), ModelError> {
    let refuse = |what: String| ModelError::Adapter(format!("adapter_config.json: {what}"));
    let value: Value = serde_json::from_str(config).map_err(|error| refuse(error.to_string()))?;
    let is = |key: &str, known: &[&str]| match &value[key] {
        Value::String(text) if known.contains(&&text[..]) => Ok(()),
        other => Err(refuse(format!("{key} is {other}; expected {}", known.join(" or ")))),
    };
    is("peft_type", &["LORA"])?;
    if !value["task_type"].is_null() {
        is("task_type", &["CAUSAL_LM", "SEQ_CLS"])?;
    }
    if !value["bias"].is_null() {
        is("bias", &["none"])?;
    }
    for key in UNSUPPORTED {
        if !off(&value[key]) {
            return Err(refuse(format!("{key} is {}, which is not supported", value[key])));
        }
    }
    // Other initialisations change the base model's weights, which are not in the adapter.
    if value["init_lora_weights"].is_string() {
        is("init_lora_weights", &["gaussian", "orthogonal", "eva"])?;
    }
    // PEFT lists both names of a classification head, whichever the model has.
    match &value["modules_to_save"] {
        Value::Null => {}
        Value::Array(names) if names.iter().all(|name| name == "score" || name == "classifier") => {}
        other => return Err(refuse(format!("modules_to_save is {other}; expected only the reward head, \"score\""))),
    }
    let number = |key: &str| {
        let found = value[key].as_f64().filter(|number| number.is_finite() && *number >= 0.0);
        found.ok_or_else(|| refuse(format!("{key} is {}; expected a number", value[key])))
    };
    let rank = value["r"].as_u64().filter(|&rank| rank > 0);
    let rank = rank.ok_or_else(|| refuse(format!("r is {}; expected 1 or more", value["r"])))? as usize;
    let mut alpha = number("lora_alpha")?;
    if !off(&value["use_rslora"]) {
        // rsLoRA's scale is alpha / √r. With this alpha, alpha / r is the same.
        alpha *= (rank as f64).sqrt();
    }
    let dropout = if value["lora_dropout"].is_null() { 0.0 } else { number("lora_dropout")? };
    let target_modules = match &value["target_modules"] {
        Value::String(text) if text == "all-linear" => TargetModules::AllLinear,
        Value::Array(names) if !names.is_empty() && names.iter().all(Value::is_string) => {
            TargetModules::Named(names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        other => {
            return Err(refuse(format!(
                "target_modules is {other}; expected a list of names (a pattern is not supported)"
            )));
        }
    };
    Ok((LoraSettings { rank, alpha, dropout, targets: vec![] }, target_modules))
}

/// Whether a setting is off: null, false, or an empty list or object.
fn off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.is_empty(),
        _ => false,
    }
}

/// The number in JSON, without a fraction if it is whole.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e9 { json!(number as i64) } else { json!(number) }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
