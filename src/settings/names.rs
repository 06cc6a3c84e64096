//! The names of all settings, as one tree. `--set`, `--config`, the stored overrides and `flipside settings` share it.
//! Types, meanings and defaults come from the structs of settings.

use super::{ControlRun, Mode, RunSettings};
use flipside_core::settings::{
    ExploreSettings, LabelSettings, MonitorSettings, PpoSettings, RewardModelSettings, TeacherKind, TextRun,
};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// A setting, or a table of settings that may be absent as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The full name, e.g. `text.ppo.kl.target`.
    pub name: String,
    /// The type of its values in words, e.g. `number`.
    pub kind: String,
    /// The default; null for none. A task's file may have another value.
    pub default: Value,
    /// What the setting means, with its unit and range.
    pub meaning: String,
    /// The words that it accepts as values; empty if it takes other values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
}

/// One of the words that a setting accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The word.
    pub word: String,
    /// What it means.
    pub meaning: String,
}

/// Which runs have a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// All runs.
    Both,
    /// Runs that teach a robot.
    Control,
    /// Runs that teach a language model.
    Text,
}

impl Belongs {
    /// The runs that have the setting of this name.
    pub fn of(name: &str) -> Belongs {
        match name.split('.').next().unwrap_or(name) {
            "teacher" | "num_labels" | "seed" => Belongs::Both,
            "text" => Belongs::Text,
            _ => Belongs::Control,
        }
    }

    /// Whether runs of this mode have the setting.
    pub fn fits(self, mode: &Mode) -> bool {
        match self {
            Belongs::Both => true,
            Belongs::Control => matches!(mode, Mode::Control(_)),
            Belongs::Text => matches!(mode, Mode::Text(_)),
        }
    }
}

/// The names of the run's own settings. All others belong to the task's file.
pub(super) const OWN: [&str; 9] =
    ["task", "reward", "backend", "teacher", "answer_seconds", "num_labels", "env_steps", "seed", "text"];

/// All settings at or below `path`, ordered by name; every setting if `path` is empty.
///
/// # Errors
/// A sentence with the most similar names, if there is no setting of this name.
pub fn settings(path: &str) -> Result<Vec<Setting>, String> {
    let all = all();
    let below = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let found: Vec<Setting> = all.iter().filter(|s| path.is_empty() || below(&s.name)).cloned().collect();
    if found.is_empty() { Err(unknown(path)) } else { Ok(found) }
}

/// What the table of this name is about, from its doc comment.
pub fn about(table: &str) -> Option<String> {
    let schema = table.split('.').try_fold(root(), |schema, part| schema.get("properties")?.get(part))?;
    schema.get("properties").and_then(|_| meaning(schema))
}

fn all() -> &'static [Setting] {
    static ALL: OnceLock<Vec<Setting>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::new();
        list("", root(), &defaults(), &mut all);
        // Settings without a table come first.
        all.sort_by_cached_key(|s| {
            (s.name.split('.').count() > 1).then(|| s.name.split('.').next().map(str::to_owned))
        });
        all
    })
}

/// The tree of all settings as a JSON schema.
fn root() -> &'static Value {
    static ROOT: OnceLock<Value> = OnceLock::new();
    ROOT.get_or_init(|| {
        let mut properties = Map::new();
        for schema in [schema_of::<RunSettings>(), schema_of::<ControlRun>(), of_the_file()] {
            properties.extend(schema["properties"].as_object().cloned().unwrap_or_default());
        }
        properties.insert("ppo".to_owned(), schema_of::<PpoSettings>());
        properties.insert("labels".to_owned(), schema_of::<LabelSettings>());
        properties.insert("explore".to_owned(), schema_of::<ExploreSettings>());
        properties.insert("reward_model".to_owned(), schema_of::<RewardModelSettings>());
        properties.insert("monitor".to_owned(), schema_of::<MonitorSettings>());
        properties.insert("text".to_owned(), schema_of::<TextRun>());
        json!({ "type": "object", "properties": properties })
    })
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The other keys of a task's file that can be overridden. The reader of the file checks their values.
fn of_the_file() -> Value {
    let list = |what: &str| json!({ "description": format!("{what} As in the task's file.") });
    json!({ "properties": {
        "frame_skip": { "type": "integer", "minimum": 1, "description": "Physics timesteps that one action is held for." },
        "horizon": { "type": "integer", "minimum": 1, "description": "Env steps after which an episode is cut (truncated)." },
        "terminate_when_unhealthy": {
            "type": "boolean",
            "description": "Whether an unhealthy robot ends the episode. Episodes that judgements teach never end early.",
        },
        "reset": list("How an episode begins."),
        "observation": list("What the robot senses."),
        "healthy": list("The bounds within which the robot is healthy."),
        "flips": list("What counts as a landed flip."),
    }})
}

/// All defaults, as a tree.
fn defaults() -> Value {
    let mut tree = RunSettings::of_text(TextRun::default()).tree();
    tree.extend(RunSettings::default().tree());
    // The default is in the task's file.
    tree.insert("env_steps".to_owned(), Value::Null);
    let mut put = |name: &str, table: serde_json::Result<Value>| {
        tree.insert(name.to_owned(), table.unwrap_or_default());
    };
    put("ppo", serde_json::to_value(PpoSettings::default()));
    put("labels", serde_json::to_value(LabelSettings::default()));
    put("explore", serde_json::to_value(ExploreSettings::default()));
    put("reward_model", serde_json::to_value(RewardModelSettings::default()));
    put("monitor", serde_json::to_value(MonitorSettings::default()));
    Value::Object(tree)
}

fn list(path: &str, schema: &Value, default: &Value, all: &mut Vec<Setting>) {
    let leaf = |kind: String, choices: Vec<Choice>| Setting {
        name: path.to_owned(),
        kind,
        default: default.clone(),
        meaning: meaning(schema).unwrap_or_default(),
        choices,
    };
    if path == "teacher" {
        let words = TeacherKind::NAMES.map(|(word, ..)| word).join(", ");
        all.push(Setting { default: json!("person"), ..leaf(format!("one of {words}; or a table"), named_teachers()) });
        let variants = variants(schema);
        let choices = variants.iter().map(|(word, v)| choice(word, v)).collect();
        all.push(Setting { name: "teacher.kind".to_owned(), ..leaf("word".to_owned(), choices) });
        for (word, variant) in variants {
            for (key, part) in variant["properties"].as_object().into_iter().flatten().filter(|(key, _)| *key != "kind")
            {
                let before = all.len();
                list(&format!("teacher.{key}"), part, part.get("default").unwrap_or(&Value::Null), all);
                all[before..].iter_mut().for_each(|s| s.meaning = format!("{} With `kind` = {word}.", s.meaning));
            }
        }
        return;
    }
    let Some(parts) = schema.get("properties").and_then(Value::as_object) else {
        return all.push(leaf(kind(schema), words(schema)));
    };
    if may_be_absent(schema) {
        all.push(leaf("table, or none".to_owned(), vec![]));
    }
    let (tables, plain): (Vec<_>, Vec<_>) = parts.iter().partition(|(_, part)| part.get("properties").is_some());
    for (key, part) in plain.into_iter().chain(tables) {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let default = default.get(key).or_else(|| part.get("default")).unwrap_or(&Value::Null);
        list(&name, part, default, all);
    }
}

fn named_teachers() -> Vec<Choice> {
    let choice =
        |(word, _, meaning): (&str, TeacherKind, &str)| Choice { word: word.to_owned(), meaning: meaning.to_owned() };
    TeacherKind::NAMES.map(choice).to_vec()
}

/// The variants of an enum that is tagged by `kind`: each one's tag and schema.
fn variants(schema: &Value) -> Vec<(&str, &Value)> {
    let of = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    of.filter_map(|v| Some((v.pointer("/properties/kind/const")?.as_str()?, v))).collect()
}

fn words(schema: &Value) -> Vec<Choice> {
    let of = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    of.filter_map(|v| Some(choice(v.get("const")?.as_str()?, v))).collect()
}

fn choice(word: &str, schema: &Value) -> Choice {
    Choice { word: word.to_owned(), meaning: meaning(schema).unwrap_or_default() }
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    }
}

fn may_be_absent(schema: &Value) -> bool {
    types(schema).contains(&"null")
}

/// The type of a setting's values, in words.
fn kind(schema: &Value) -> String {
    let words = words(schema);
    if !words.is_empty() {
        let words: Vec<_> = words.into_iter().map(|choice| choice.word).collect();
        return format!("one of {}", words.join(", "));
    }
    let of = |part: &str| schema.get(part).map_or_else(String::new, |part| format!(" of {}s", kind(part)));
    let what = match types(schema).first() {
        Some(&"integer") => match schema.get("minimum").and_then(Value::as_f64) {
            Some(least) if least > 0.0 => format!("whole number, {least} or more"),
            _ => "whole number".to_owned(),
        },
        Some(&"number") => "number".to_owned(),
        Some(&"boolean") => "true or false".to_owned(),
        Some(&"string") => "text".to_owned(),
        Some(&"array") => format!("list{}", of("items")),
        Some(&"object") => format!("table{}", of("additionalProperties")),
        _ => "table or list".to_owned(),
    };
    if may_be_absent(schema) { format!("{what}, or none") } else { what }
}

/// A doc comment as plain text: one line, with the names of linked items instead of links.
fn meaning(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?.replace("\n\n", " ").replace('\n', " ");
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("[`") {
        let Some(end) = rest[at..].find("`]").map(|end| at + end) else { break };
        plain.push_str(&rest[..at]);
        plain.push('`');
        plain.push_str(rest[at + 2..end].rsplit("::").next().unwrap_or_default());
        plain.push('`');
        rest = &rest[end + 2..];
        if let Some(link) = rest.strip_prefix('(').and_then(|link| link.find(')')) {
            rest = &rest[link + 2..];
        }
    }
    Some(plain + rest)
}

/// Checks the names and types of the settings that were asked for, `{"text": {"ppo": …}}`. The result has current names
/// and normalised values: 2e6 becomes a whole number where one is expected, and `none` becomes null where a value may
/// be absent.
///
/// # Errors
/// A sentence that names the path, what was found and what is expected.
pub(super) fn check(asked: &Value) -> Result<Value, String> {
    check_at("", root(), asked)
}

fn check_at(path: &str, schema: &Value, value: &Value) -> Result<Value, String> {
    let refuse = |expected: &str| Err(format!("`{path}` is {value}; expected {expected}"));
    let word = value.as_str();
    if word == Some("none") && may_be_absent(schema) || value.is_null() {
        return Ok(Value::Null);
    }
    if path == "teacher" {
        return match (word, value) {
            (Some(word), _) => match TeacherKind::named(word) {
                Some(teacher) => serde_json::to_value(teacher).map_err(|error| error.to_string()),
                None => refuse(&format!("one of {}", TeacherKind::NAMES.map(|(word, ..)| word).join(", "))),
            },
            (_, Value::Object(parts)) => {
                let known: Map<String, Value> = variants(schema)
                    .into_iter()
                    .flat_map(|(_, variant)| variant["properties"].as_object().cloned().into_iter().flatten())
                    .collect();
                let kinds = variants(schema).iter().map(|(word, _)| json!({ "const": word })).collect::<Vec<_>>();
                let each = parts.iter().map(|(key, value)| {
                    let name = format!("teacher.{key}");
                    let part = if key == "kind" { Some(json!({ "oneOf": kinds })) } else { known.get(key).cloned() };
                    Ok((key.clone(), check_at(&name, &part.ok_or_else(|| unknown(&name))?, value)?))
                });
                each.collect::<Result<Map<_, _>, String>>().map(Value::Object)
            }
            _ => refuse("a word or a table"),
        };
    }
    if let Some(parts) = schema.get("properties").and_then(Value::as_object) {
        let Value::Object(asked) = value else { return refuse("a table") };
        let each = asked.iter().map(|(key, value)| {
            let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let (key, part) = known(parts, key).ok_or_else(|| unknown(&deepest(&name, value)))?;
            Ok((key.clone(), check_at(&name, part, value)?))
        });
        return each.collect::<Result<Map<_, _>, String>>().map(Value::Object);
    }
    let choices = words(schema);
    if !choices.is_empty() {
        // `true` counts as a word where words are expected.
        let word = value.as_bool().map(|truth| truth.to_string()).or(word.map(str::to_owned));
        return match word.filter(|word| choices.iter().any(|choice| choice.word == *word)) {
            Some(word) => Ok(word.into()),
            None => refuse(&kind(schema)),
        };
    }
    let fits = match (types(schema).first().copied(), value) {
        (Some("integer"), Value::Number(number)) => {
            let whole = number.as_u64().or_else(|| {
                // People write large counts as 2e6.
                number.as_f64().filter(|x| *x >= 0.0 && x.fract() == 0.0 && *x < 1e15).map(|x| x as u64)
            });
            let least = schema.get("minimum").and_then(Value::as_u64).unwrap_or(0);
            whole.filter(|whole| *whole >= least).map(Value::from)
        }
        (Some("number"), Value::Number(number)) => number.as_f64().map(Value::from),
        (Some("boolean"), Value::Bool(_)) | (Some("string"), Value::String(_)) => Some(value.clone()),
        (Some("array"), Value::Array(items)) => {
            let item = |(i, value)| check_at(&format!("{path}[{i}]"), &schema["items"], value);
            Some(items.iter().enumerate().map(item).collect::<Result<Vec<_>, _>>()?.into())
        }
        (Some("object"), Value::Object(parts)) => {
            let part = |(key, value): (&String, &Value)| {
                Ok((key.clone(), check_at(&format!("{path}.{key}"), &schema["additionalProperties"], value)?))
            };
            Some(Value::Object(parts.iter().map(part).collect::<Result<Map<_, _>, String>>()?))
        }
        (None, Value::Object(_) | Value::Array(_)) => Some(value.clone()),
        _ => None,
    };
    match fits {
        Some(value) => Ok(value),
        None => refuse(&match kind(schema) {
            table if table.starts_with("true") || table.starts_with("text") => table,
            other => format!("a {other}"),
        }),
    }
}

/// Finds a setting in a table by its name or by an earlier name.
fn known<'a>(parts: &'a Map<String, Value>, key: &str) -> Option<(&'a String, &'a Value)> {
    let was =
        |part: &Value| part.get("aliases").and_then(Value::as_array).is_some_and(|names| names.contains(&json!(key)));
    parts.get_key_value(key).or_else(|| parts.iter().find(|(_, part)| was(part)))
}

/// Extends a name by the keys below it, as long as there is only one.
fn deepest(name: &str, value: &Value) -> String {
    match value.as_object().map(|parts| parts.iter().collect::<Vec<_>>()).as_deref() {
        Some([(key, value)]) => deepest(&format!("{name}.{key}"), value),
        _ => name.to_owned(),
    }
}

/// Refuses settings of a teacher that its kind does not have, and missing ones.
pub(super) fn check_teacher(teacher: &Value) -> Result<(), String> {
    let schema = &root()["properties"]["teacher"];
    let kind = teacher.get("kind").and_then(Value::as_str).unwrap_or_default();
    let Some((_, variant)) = variants(schema).into_iter().find(|(word, _)| *word == kind) else { return Ok(()) };
    let has = |variant: &Value, key: &str| variant["properties"].get(key).is_some();
    if let Some(key) = teacher.as_object().into_iter().flat_map(Map::keys).find(|key| !has(variant, key)) {
        let others = variants(schema).into_iter().filter(|(_, other)| has(other, key)).map(|(word, _)| word);
        let others: Vec<_> = others.collect();
        return Err(format!("`teacher.{key}` goes with `teacher.kind` = {}, not with {kind}", others.join(" or ")));
    }
    let needs = variant["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    match needs.into_iter().find(|key| teacher.get(key).is_none()) {
        Some(key) => Err(format!("`teacher.kind` = {kind} needs `teacher.{key}`")),
        None => Ok(()),
    }
}

/// The error for a name that no setting has.
pub(super) fn unknown(name: &str) -> String {
    let near = nearest(name);
    let [others @ .., last] = &near[..] else {
        return format!("there is no setting `{name}`; `flipside settings` lists them all");
    };
    let others = others.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let either = if others.is_empty() { format!("`{last}`") } else { format!("{others} or `{last}`") };
    format!("there is no setting `{name}`; did you mean {either}?")
}

/// Up to three names that are spelled similarly, the most similar first.
pub fn nearest(name: &str) -> Vec<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::jaro_winkler(known, name);
        // A person who knows a setting's own name need not know its table.
        let own = 0.97 * strsim::jaro_winkler(&last(known), &last(name));
        let end = if known.ends_with(&format!(".{name}")) { 1.0 } else { 0.0 };
        whole.max(own).max(end)
    };
    let mut near: Vec<(f64, &str)> = all().iter().map(|s| (likeness(&s.name), s.name.as_str())).collect();
    near.retain(|(likeness, _)| *likeness > 0.85);
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.len().cmp(&b.1.len())));
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Whether the task's file has the value if nobody sets it.
pub fn is_of_the_task(name: &str) -> bool {
    let table = name.split('.').next().unwrap_or(name);
    name == "env_steps" || !OWN.contains(&table)
}
