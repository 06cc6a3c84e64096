//! Adapters in PEFT's files, `adapter_config.json` and the arrays of `adapter_model.safetensors`, so that what is learnt here can be used there
//! and the other way round. What PEFT can do and is not computed here is refused by name rather than left out silently.

use super::error::ModelError;
use super::model::{Lora, Transformer};
use super::weights;
use flipside_core::settings::LoraSettings;
use flipside_core::{Array, Arrays, one_line};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// A reward head's weight among an adapter's arrays, `[1, d]`.
pub const HEAD: &str = "base_model.model.score.weight";

/// Settings that change what is computed, and are only read where they are off: null, false, empty or 0.
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
    /// The adapters as PEFT saves them: the text of `adapter_config.json` and the arrays of `adapter_model.safetensors`; `None` without
    /// adapters. `base` is the base model's name or folder. With a reward head, `[d]`, the task is SEQ_CLS and the head goes along.
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

    /// The modules with adapters: by the last parts of their names where those say which, else by their full names.
    fn targets(&self) -> Vec<String> {
        let all = self.linears();
        let last: BTreeSet<&str> = all.iter().filter(|map| map.lora.is_some()).map(|map| last(&map.name)).collect();
        match all.iter().all(|map| map.lora.is_some() == last.contains(self::last(&map.name))) {
            true => last.into_iter().map(str::to_owned).collect(),
            false => all.iter().filter(|map| map.lora.is_some()).map(|map| map.name.clone()).collect(),
        }
    }

    /// Puts on the adapter that PEFT saved, in place of any there is: `config` is the text of `adapter_config.json`, the arrays are those of
    /// `adapter_model.safetensors`. A reward head among them is left to whoever calls ([`HEAD`]).
    ///
    /// # Errors
    ///
    /// Settings that are not LoRA's or not built here, targets that the model lacks, and matrices that are missing, left over or of another
    /// shape; each is named, and nothing has changed.
    pub fn attach_peft(&mut self, config: &str, arrays: &Arrays) -> Result<(), ModelError> {
        let (mut settings, wanted) = read(config)?;
        // Names are whatever the files say.
        let refuse = |what: String| Err(ModelError::Adapter(one_line(&what)));
        let chosen: Vec<bool> = self.linears().iter().map(|map| wanted.covers(&map.name)).collect();
        if !chosen.contains(&true) {
            return refuse(format!("its target_modules name no map of this model: {}", wanted.words()));
        }
        let (rank, device) = (settings.rank as i64, self.device());
        let scale = settings.alpha / settings.rank as f64;
        let mut left: BTreeSet<&str> = arrays.keys().map(String::as_str).filter(|&name| name != HEAD).collect();
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
                left.remove(&name[..]);
                Ok(tensor.to_kind(Kind::Float).to_device(device).set_requires_grad(true))
            };
            let (a, b) = (matrix("lora_A", [rank, input])?, matrix("lora_B", [output, rank])?);
            adapters.push(Lora { a, b, scale, dropout: settings.dropout });
        }
        if let Some(name) = left.first() {
            return refuse(format!("nothing of this model takes its `{name}`"));
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
enum Wanted {
    Every,
    Named(Vec<String>),
}

impl Wanted {
    /// Whether the module of this name does: PEFT goes by whole parts from the end.
    fn covers(&self, module: &str) -> bool {
        match self {
            Wanted::Every => true,
            Wanted::Named(names) => names.iter().any(|name| {
                module.strip_suffix(name.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
        }
    }

    fn words(&self) -> String {
        match self {
            Wanted::Every => "all-linear".to_owned(),
            Wanted::Named(names) => names.join(", "),
        }
    }
}

/// What a configuration says, or what of it is not built here.
fn read(config: &str) -> Result<(LoraSettings, Wanted), ModelError> {
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
    // Other starts change the base's weights, which are not in the adapter.
    if value["init_lora_weights"].is_string() {
        is("init_lora_weights", &["gaussian", "orthogonal", "eva"])?;
    }
    // PEFT saves both names of a classifier's head, whichever the model has.
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
        // Its scale is alpha / √r; this alpha gives the same as alpha / r.
        alpha *= (rank as f64).sqrt();
    }
    let dropout = if value["lora_dropout"].is_null() { 0.0 } else { number("lora_dropout")? };
    let wanted = match &value["target_modules"] {
        Value::String(text) if text == "all-linear" => Wanted::Every,
        Value::Array(names) if !names.is_empty() && names.iter().all(Value::is_string) => {
            Wanted::Named(names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        other => {
            return Err(refuse(format!(
                "target_modules is {other}; expected a list of names (a pattern is not supported)"
            )));
        }
    };
    Ok((LoraSettings { rank, alpha, dropout, targets: vec![] }, wanted))
}

/// Whether a setting asks for nothing.
fn off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.is_empty(),
        _ => false,
    }
}

/// A number that is written without a fraction where it has none.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e9 { json!(number as i64) } else { json!(number) }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
