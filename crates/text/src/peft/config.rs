//! `adapter_config.json`: which modules an adapter changes, and how.

use crate::error::ModelError;
use crate::model::Module;
use fancy_regex::Regex;
use flipside_core::one_line;
use flipside_core::settings::LoraSettings;
use serde_json::{Map, Value};
use tch::Tensor;

/// Settings that change the computation and are not supported. An adapter is read only if each of them is off: null,
/// false, or an empty list or object.
const UNSUPPORTED: [&str; 10] = [
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "target_parameters",
    "alora_invocation_tokens",
    "megatron_config",
    "arrow_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
];

/// The settings of an adapter.
pub struct PeftConfig {
    /// Rank, α and dropout; the targets are left out.
    pub settings: LoraSettings,
    pub targets: Modules,
    excluded: Option<Modules>,
    /// Modules that are saved whole and therefore have no adapter.
    saved: Vec<Regex>,
    /// The only blocks that have adapters, where targets are the ends of names.
    layers: Option<Vec<u64>>,
    /// What stands before a block's number.
    layers_patterns: Vec<Regex>,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    rslora: bool,
    pub use_dora: bool,
    pub lora_bias: bool,
    pub initialisation: Initialisation,
    pub ensure_weight_tying: bool,
    /// Tokens whose embeddings are trained alone, by the layer's name; without one, in the embedding.
    pub tokens: Vec<TokensOfLayer>,
}

/// A layer's name, if it has one, and tokens.
pub type TokensOfLayer = (Option<String>, Vec<i64>);

/// A set of modules.
pub enum Modules {
    /// Every linear layer of the blocks.
    AllLinear,
    /// Those whose whole name matches.
    Pattern(Regex, String),
    /// Those with these names, or with names that end in them after a dot.
    Named(Vec<String>),
}

/// What the adapter's initialisation did to the weights of the base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialisation {
    /// Nothing.
    Plain,
    /// PiSSA: took the largest singular components away.
    Pissa,
    /// OLoRA: took the first components of a QR decomposition away.
    Olora,
}

impl Initialisation {
    /// What was taken away from a weight `[output, input]`.
    pub fn product(self, weight: &Tensor, rank: i64, scale: f64, transposed: bool) -> Result<Tensor, ModelError> {
        let failed =
            |error: tch::TchError| ModelError::Adapter(one_line(&format!("its initialisation failed: {error}")));
        let sizes = weight.size();
        if rank > sizes[0].min(sizes[1]) {
            return Err(ModelError::Adapter(format!("its rank {rank} is larger than a weight of {sizes:?}")));
        }
        match self {
            Initialisation::Plain => Ok(weight.zeros_like()),
            Initialisation::Pissa => {
                let (u, s, v) = weight.f_svd(true, true).map_err(failed)?;
                let (u, s, v) = (u.narrow(1, 0, rank), s.narrow(0, 0, rank), v.narrow(1, 0, rank));
                Ok((u * s).matmul(&v.tr()))
            }
            Initialisation::Olora => {
                if transposed {
                    let why = "init_lora_weights is \"olora\" on layers that store their weights transposed";
                    return Err(ModelError::Adapter(format!("{why}, which is not supported")));
                }
                let (q, r) = Tensor::f_linalg_qr(weight, "reduced").map_err(failed)?;
                Ok(q.narrow(1, 0, rank).matmul(&r.narrow(0, 0, rank)) * scale)
            }
        }
    }
}

fn refuse(what: String) -> ModelError {
    ModelError::Adapter(one_line(&format!("adapter_config.json: {what}")))
}

/// A regular expression that has to match from the beginning to the end.
fn pattern(key: &str, text: &str) -> Result<Regex, ModelError> {
    Regex::new(&format!(r"\A(?:{text})\z"))
        .map_err(|error| refuse(format!("{key} has a pattern that is none: {error}")))
}

fn matches(pattern: &Regex, name: &str) -> Result<bool, ModelError> {
    pattern.is_match(name).map_err(|error| refuse(format!("a pattern cannot be matched: {error}")))
}

impl Modules {
    fn read(key: &str, value: &Value) -> Result<Option<Modules>, ModelError> {
        Ok(Some(match value {
            value if off(value) => return Ok(None),
            Value::String(text) if text == "all-linear" => Modules::AllLinear,
            Value::String(text) => Modules::Pattern(pattern(key, text)?, text.clone()),
            value => Modules::Named(names(key, value)?),
        }))
    }

    fn covers(&self, module: &Module) -> Result<bool, ModelError> {
        Ok(match self {
            Modules::AllLinear => module.is_in_block,
            Modules::Pattern(pattern, _) => matches(pattern, &module.name)?,
            Modules::Named(names) => names.iter().any(|name| {
                module.name.strip_suffix(name.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
        })
    }

    /// As the file lists them.
    pub fn listed(&self) -> String {
        match self {
            Modules::AllLinear => "all-linear".to_owned(),
            Modules::Pattern(_, text) => text.clone(),
            Modules::Named(names) => names.join(", "),
        }
    }
}

/// A list of names; one name alone counts as a list of one.
fn names(key: &str, value: &Value) -> Result<Vec<String>, ModelError> {
    let list = match value {
        Value::String(_) => std::slice::from_ref(value),
        Value::Array(list) => list,
        _ => &[],
    };
    let names: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match !names.is_empty() && names.len() == list.len() {
        true => Ok(names),
        false => Err(refuse(format!("{key} is {value}; expected a list of names or a pattern"))),
    }
}

impl PeftConfig {
    /// Parses an `adapter_config.json`; what is not supported is an error.
    pub fn read(config: &str) -> Result<(PeftConfig, Value), ModelError> {
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
            // Whatever biases the adapter has are among its arrays.
            is("bias", &["none", "all", "lora_only"])?;
        }
        for key in UNSUPPORTED {
            if !off(&value[key]) {
                return Err(refuse(format!("{key} is {}, which is not supported", value[key])));
            }
        }
        let initialisation = match value["init_lora_weights"].as_str() {
            Some("pissa") => Initialisation::Pissa,
            Some("olora") => Initialisation::Olora,
            None | Some("gaussian" | "orthogonal" | "eva" | "mica") => Initialisation::Plain,
            Some(other) => {
                return Err(refuse(format!(
                    "init_lora_weights is \"{other}\": it belongs to changed base weights, which the adapter alone does not \
                     give; convert it to plain LoRA with peft's path_initial_model_for_weight_conversion"
                )));
            }
        };
        let number = |key: &str| {
            let found = value[key].as_f64().filter(|number| number.is_finite() && *number >= 0.0);
            found.ok_or_else(|| refuse(format!("{key} is {}; expected a number", value[key])))
        };
        let rank = value["r"].as_u64().filter(|&rank| rank > 0 && rank <= i64::MAX as u64);
        let rank = rank.ok_or_else(|| refuse(format!("r is {}; expected 1 or more", value["r"])))? as usize;
        let rslora = !off(&value["use_rslora"]);
        let mut alpha = number("lora_alpha")?;
        if rslora {
            // rsLoRA's scale is alpha / √r. With this alpha, alpha / r is the same.
            alpha *= (rank as f64).sqrt();
        }
        let dropout = if value["lora_dropout"].is_null() { 0.0 } else { number("lora_dropout")? };
        let targets = Modules::read("target_modules", &value["target_modules"])?;
        let targets = targets.ok_or_else(|| {
            refuse(format!("target_modules is {}; expected a list of names or a pattern", value["target_modules"]))
        })?;
        let saved = match &value["modules_to_save"] {
            list if off(list) => vec![],
            list => names("modules_to_save", list)?,
        };
        let saved = saved.iter().map(|name| pattern("modules_to_save", &format!(r"(|.*\.)(?:{name})(|\..*)")));
        let layers = match &value["layers_to_transform"] {
            list if off(list) => None,
            one @ Value::Number(_) => Some(vec![one.as_u64()]),
            list => Some(list.as_array().into_iter().flatten().map(Value::as_u64).collect()),
        };
        let layers = layers.map(|list| list.into_iter().collect::<Option<Vec<u64>>>().filter(|list| !list.is_empty()));
        if layers == Some(None) {
            return Err(refuse(format!("layers_to_transform is {}; expected numbers", value["layers_to_transform"])));
        }
        let layers_patterns = match &value["layers_pattern"] {
            list if off(list) || list == "" => vec![r"[^.]*".to_owned()],
            list => names("layers_pattern", list)?,
        };
        let layers_patterns = layers_patterns.iter().map(|name| {
            let text = format!(r"\A(?:|.*?\.)(?:{name})\.(\d+)\.");
            Regex::new(&text).map_err(|error| refuse(format!("layers_pattern is none: {error}")))
        });
        let table = |key: &str| -> Result<Vec<(Regex, f64)>, ModelError> {
            let empty = Map::new();
            let table = if off(&value[key]) { Some(&empty) } else { value[key].as_object() };
            let table = table.ok_or_else(|| refuse(format!("{key} is {}; expected a table", value[key])))?;
            let entry = |(name, number): (&String, &Value)| {
                let number = number.as_f64().filter(|number| number.is_finite() && *number >= 0.0);
                let number = number.ok_or_else(|| refuse(format!("{key} has no number for {name}")))?;
                Ok((pattern(key, &format!(r"(?:.*\.)?(?:{name})"))?, number))
            };
            table.iter().map(entry).collect()
        };
        let config = PeftConfig {
            settings: LoraSettings { rank, alpha, dropout, targets: vec![] },
            targets,
            excluded: Modules::read("exclude_modules", &value["exclude_modules"])?,
            saved: saved.collect::<Result<_, _>>()?,
            layers: layers.flatten(),
            layers_patterns: layers_patterns.collect::<Result<_, _>>()?,
            ranks: table("rank_pattern")?,
            alphas: table("alpha_pattern")?,
            rslora,
            use_dora: !off(&value["use_dora"]),
            lora_bias: !off(&value["lora_bias"]),
            initialisation,
            ensure_weight_tying: !off(&value["ensure_weight_tying"]),
            tokens: tokens(&value["trainable_token_indices"])?,
        };
        Ok((config, value))
    }

    /// Whether this module has an adapter, by PEFT's rules.
    pub fn covers(&self, module: &Module) -> Result<bool, ModelError> {
        if let Some(excluded) = &self.excluded
            && excluded.covers(module)?
        {
            return Ok(false);
        }
        for saved in &self.saved {
            if matches(saved, &module.name)? {
                return Ok(false);
            }
        }
        if !self.targets.covers(module)? {
            return Ok(false);
        }
        match (&self.targets, &self.layers) {
            (Modules::Named(names), Some(layers)) if !names.contains(&module.name) => {
                for pattern in &self.layers_patterns {
                    let found = pattern.captures(&module.name).map_err(|error| refuse(error.to_string()))?;
                    if let Some(number) = found.and_then(|found| found.get(1)) {
                        return Ok(number.as_str().parse().is_ok_and(|number: u64| layers.contains(&number)));
                    }
                }
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// The rank and the scale of a module's adapter.
    pub fn rank_and_scale(&self, name: &str) -> Result<(i64, f64), ModelError> {
        let of = |table: &[(Regex, f64)]| -> Result<Option<f64>, ModelError> {
            for (pattern, number) in table {
                if matches(pattern, name)? {
                    return Ok(Some(*number));
                }
            }
            Ok(None)
        };
        let settings = &self.settings;
        let rank = of(&self.ranks)?.unwrap_or(settings.rank as f64);
        if rank < 1.0 || rank.fract() != 0.0 || rank > 1e9 {
            return Err(refuse(format!("rank_pattern gives {name} the rank {rank}; expected 1 or more")));
        }
        let scale = match of(&self.alphas)? {
            Some(alpha) if self.rslora => alpha / rank.sqrt(),
            Some(alpha) => alpha / rank,
            // The settings' alpha has √r in it.
            None if self.rslora => settings.alpha / (settings.rank as f64).sqrt() / rank.sqrt(),
            None => settings.alpha / rank,
        };
        Ok((rank as i64, scale))
    }
}

/// The tokens of `trainable_token_indices`: a list for the embedding, or a table of lists by layer.
fn tokens(value: &Value) -> Result<Vec<TokensOfLayer>, ModelError> {
    let list = |value: &Value| -> Result<Vec<i64>, ModelError> {
        let list: Option<Vec<i64>> = value
            .as_array()
            .map(|list| list.iter().map(|token| token.as_i64().filter(|&token| token >= 0)).collect())
            .unwrap_or_default();
        list.ok_or_else(|| refuse(format!("trainable_token_indices is {value}; expected lists of tokens")))
    };
    match value {
        value if off(value) => Ok(vec![]),
        Value::Object(table) => table.iter().map(|(layer, tokens)| Ok((Some(layer.clone()), list(tokens)?))).collect(),
        value => Ok(vec![(None, list(value)?)]),
    }
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
