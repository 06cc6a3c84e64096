//! Looking inside language models: what `flipside text look` computes, writes and says.
//!
//! Every verb compares up to two subjects: the base model, and a tuned version of it, which is another folder, the same
//! folder with an adapter, or the model that a session trained.

mod changes;
mod models;
mod parts;
mod steer;
mod tuned_lens;

use self::models::{Opened, Wanted, no_session_of_critic};
use super::verbs::reader;
use crate::lab::LabError;
use crate::settings::TextPrecision;
use crate::store::write_arrays;
use flipside_core::{Array, ArrayData, Arrays};
use flipside_text::config::ModelHead;
use flipside_text::data::{Example, Reading, TextOrMessages, TokenizedExample};
use flipside_text::interp::{InterpError, Metric, MovedTokens, Start, Subject, moved_between};
use flipside_text::tokenizer::Tokenizer;
use flipside_view::chart;
use flipside_view::heat_map::{Colours, HeatMap, heat_maps_png};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

pub(super) use parts::contributions;
pub use steer::{ProbeLabels, SteerPlan};
pub use tuned_lens::TunedLensPlan;

/// Which models are looked into.
#[derive(Clone, Debug, Default)]
pub struct LookModels {
    /// The base model's folder. Without one, the built-in supervised model.
    pub model: Option<PathBuf>,
    /// An adapter of it: the tuned version is the model with it.
    pub adapter: Option<PathBuf>,
    /// The folder of the tuned version.
    pub against: Option<PathBuf>,
    /// A session instead: the model that its training started from, and the one that it came to.
    pub session: Option<PathBuf>,
    /// Number type of the weights.
    pub precision: TextPrecision,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub enum LookWhat {
    /// Activations by TransformerLens' names; `*` stands for any characters.
    Cache(Vec<String>),
    /// The logit lens, or a tuned lens.
    Lens {
        /// Whether it also reads between attention and MLP.
        mid: bool,
        /// How many of the likeliest tokens are kept.
        top: usize,
        /// The file of a tuned lens.
        tuned_lens: Option<PathBuf>,
    },
    /// A tuned lens to be trained.
    TunedLens(TunedLensPlan),
    /// What each part adds to a logit difference.
    Attribution,
    /// Attention patterns; the picture shows this block, or the one that changed most.
    Attention(Option<usize>),
    /// Activation patching.
    Patch {
        /// The grids by their names.
        grids: Vec<String>,
        /// Whether the gradient's guess is computed instead.
        guess: bool,
        /// Whether the roles of the two runs are swapped.
        reverse: bool,
    },
    /// Blocks swapped between the two models.
    Swap,
    /// What training changed. With `mid`, also between attention and MLP.
    Diff {
        /// Whether streams between attention and MLP are compared, too.
        mid: bool,
    },
    /// Heads ablated.
    Ablate(AblateWith),
    /// What each part adds to a reward.
    Reward,
    /// What each part adds to a critic's value.
    Value,
    /// A vector added while writing.
    Steer(SteerPlan),
    /// Linear probes.
    Probe(ProbeLabels),
}

/// What a head's output becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AblateWith {
    /// 0.
    Zero,
    /// Its mean over the other prompts.
    Mean,
    /// What it is in the other prompt.
    Other,
}

/// What to look at, and where to write it.
#[derive(Clone, Debug)]
pub struct LookPlan {
    /// Which models.
    pub models: LookModels,
    /// What.
    pub what: LookWhat,
    /// Prompts, as they were typed. Most verbs take one.
    pub prompts: Vec<String>,
    /// Other prompts.
    pub others: Vec<String>,
    /// The two tokens whose logits are compared, as they were typed: `" good, bad"`.
    pub tokens: Option<String>,
    /// A continuation whose log-probability is explained instead of a logit difference.
    pub completion: Option<String>,
    /// The position of the token before those that are compared; by default the last one.
    pub position: Option<usize>,
    /// The file of arrays, `.npz` or `.safetensors`.
    pub output: Option<PathBuf>,
    /// The picture, `.png`.
    pub picture: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct LookReport {
    /// All figures.
    pub json: Value,
    /// The same in short, line by line.
    pub lines: Vec<String>,
}

/// Called with the work done and its total; returns whether to stop.
pub type OnLook<'a> = &'a mut dyn FnMut(usize, usize) -> bool;

/// Looks, and writes what was asked for.
///
/// # Errors
///
/// A model that cannot be read, tokens or prompts that do not fit it, a file that cannot be written, or cancellation.
pub fn look(plan: &LookPlan, on_progress: OnLook) -> Result<LookReport, LabError> {
    check_endings(plan)?;
    let opened = Opened::read(&plan.models, Wanted::of(&plan.what))?;
    let [base, tuned] = opened.subjects()?;
    let look = Look { plan, opened: &opened, base: base.ok_or_else(nothing_there)?, tuned };
    let mut found = match &plan.what {
        LookWhat::Cache(names) => parts::cache(&look, names)?,
        LookWhat::Lens { mid, top, tuned_lens } => parts::lens(&look, *mid, *top, tuned_lens.as_deref(), on_progress)?,
        LookWhat::TunedLens(plan) => tuned_lens::train(&look, plan, on_progress)?,
        LookWhat::Attribution => parts::attribution(&look)?,
        LookWhat::Attention(block) => parts::attention(&look, *block)?,
        LookWhat::Reward => parts::reward(&look)?,
        LookWhat::Value => parts::value(&look)?,
        LookWhat::Patch { grids, guess, reverse } => changes::patch(&look, grids, *guess, *reverse, on_progress)?,
        LookWhat::Swap => changes::swap(&look, on_progress)?,
        LookWhat::Diff { mid } => changes::diff(&look, *mid, on_progress)?,
        LookWhat::Ablate(with) => changes::ablate(&look, *with, on_progress)?,
        LookWhat::Steer(how) => steer::steer(&look, how, on_progress)?,
        LookWhat::Probe(labels) => steer::probe(&look, labels, on_progress)?,
    };
    let config = look.base.config();
    let mut about = Map::new();
    about.insert("model".to_owned(), json!(opened.names[0]));
    about.insert("tuned".to_owned(), json!(tuned.map(|_| &opened.names[1])));
    about.insert("family".to_owned(), json!(config.family.label()));
    about.insert("eps".to_owned(), json!(config.norm_eps));
    about.insert("processing".to_owned(), json!("none"));
    about.append(&mut found.about);
    if let Some(path) = &plan.output {
        let mut metadata = about.clone();
        metadata.insert("labels".to_owned(), Value::Object(found.labels));
        let metadata = metadata.iter().map(|(name, value)| match value {
            Value::String(text) => (name.clone(), text.clone()),
            other => (name.clone(), other.to_string()),
        });
        write_arrays(path, &metadata.collect::<BTreeMap<String, String>>(), &found.arrays)?;
    }
    if let Some(path) = &plan.picture {
        found.picture.draw(path, &opened.names, tuned.is_some(), &about)?;
    }
    let mut json = about;
    json.append(&mut found.figures);
    Ok(LookReport { json: Value::Object(json), lines: found.lines })
}

fn nothing_there() -> LabError {
    LabError::Text("There is no model to look into; name one with --model, or a session with --session.".to_owned())
}

/// Refuses files whose ending says nothing that can be written, before any work is done.
fn check_endings(plan: &LookPlan) -> Result<(), LabError> {
    let ends = |path: &Path, endings: &[&str]| {
        path.extension().is_some_and(|ending| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
    };
    if let Some(path) = plan.output.as_ref().filter(|path| !ends(path, &["npz", "safetensors"])) {
        return Err(LabError::Text(format!("{} has to end in .npz or .safetensors.", path.display())));
    }
    let is_lens = matches!(plan.what, LookWhat::TunedLens(_));
    if is_lens && !plan.output.as_ref().is_some_and(|path| ends(path, &["safetensors"])) {
        return Err(LabError::Text(
            "A tuned lens is written to a file; name one that ends in .safetensors with --output.".to_owned(),
        ));
    }
    if let Some(path) = plan.picture.as_ref().filter(|path| !ends(path, &["png"])) {
        return Err(LabError::Text(format!("{} has to end in .png.", path.display())));
    }
    Ok(())
}

/// A plan with its models.
struct Look<'a> {
    plan: &'a LookPlan,
    opened: &'a Opened,
    base: Subject<'a>,
    tuned: Option<Subject<'a>>,
}

/// What a verb found.
#[derive(Default)]
struct Found {
    /// What was looked at: prompt, tokens and position.
    about: Map<String, Value>,
    figures: Map<String, Value>,
    arrays: Arrays,
    /// The axes' names of each array.
    labels: Map<String, Value>,
    lines: Vec<String>,
    picture: Picture,
}

/// What a verb draws.
#[derive(Default)]
struct Picture {
    maps: Vec<HeatMap>,
    per_row: usize,
    colours: Option<Colours>,
    unit: String,
    /// Curves instead of tables: names with their points, and the names of both axes.
    curves: Vec<(String, Vec<[f64; 2]>)>,
    axes: [String; 2],
    title: String,
}

impl Picture {
    fn draw(&self, path: &Path, names: &[String; 2], both: bool, about: &Map<String, Value>) -> Result<(), LabError> {
        let text = |key: &str| about.get(key).and_then(|value| value["text"].as_str().or(value.as_str()));
        let mut line = if both { format!("base {}   tuned {}", names[0], names[1]) } else { names[0].clone() };
        for (key, name) in [("prompt", "prompt"), ("other", "other"), ("better", ""), ("worse", "against")] {
            if let Some(text) = text(key) {
                line.push_str(&format!("   {name} “{text}”"));
            }
        }
        if let Some(position) = about.get("position").and_then(Value::as_u64) {
            line.push_str(&format!("   position {position}"));
        }
        let failed = |error: chart::ChartError| LabError::Text(format!("{}: {error}.", path.display()));
        if !self.curves.is_empty() {
            let series: Vec<chart::Series> =
                self.curves.iter().map(|(name, points)| chart::Series { name, points }).collect();
            return chart::curve_png(path, &self.title, &self.axes[0], &self.axes[1], &series).map_err(failed);
        }
        let all = self.maps.iter().flat_map(|map| &map.values);
        let colours = self.colours.unwrap_or_else(|| Colours::diverging(all));
        heat_maps_png(path, [&self.title, &line, &self.unit], &self.maps, self.per_row.max(1), colours).map_err(failed)
    }
}

impl Found {
    /// Adds an array to the file and, unless it is of activations, to the figures.
    fn add(&mut self, name: &str, x: &Tensor, labels: Value) {
        self.arrays.insert(name.to_owned(), array(x));
        self.labels.insert(name.to_owned(), labels);
        self.figures.insert(name.to_owned(), nested(x));
    }

    /// Adds an activation to the file.
    fn add_activation(&mut self, name: String, x: &Tensor) {
        self.arrays.insert(name, array(x));
    }
}

/// A tensor as an array: integers stay i64, everything else is f32.
fn array(x: &Tensor) -> Array {
    let shape: Vec<usize> = x.size().iter().map(|&n| n as usize).collect();
    match x.kind() {
        Kind::Int64 => {
            let mut numbers = vec![0_i64; x.numel()];
            x.contiguous().copy_data(&mut numbers, x.numel());
            Array { shape, data: ArrayData::I64(numbers) }
        }
        _ => Array::f32(&shape, flipside_learn::numbers(x)),
    }
}

/// A tensor as nested lists. What is not finite is null.
fn nested(x: &Tensor) -> Value {
    let array = array(x);
    let flat: Vec<Value> = match &array.data {
        ArrayData::I64(numbers) => numbers.iter().map(|&n| json!(n)).collect(),
        _ => flipside_learn::numbers(x).iter().map(|&n| json!(n)).collect(),
    };
    let mut values = flat;
    for &n in array.shape.iter().skip(1).rev() {
        values = values.chunks(n.max(1)).map(|part| Value::from(part.to_vec())).collect();
    }
    if array.shape.is_empty() { values.pop().unwrap_or(Value::Null) } else { Value::from(values) }
}

/// The numbers of a tensor.
fn numbers(x: &Tensor) -> Vec<f64> {
    flipside_learn::numbers(x).into_iter().map(f64::from).collect()
}

/// `0` to `count − 1`.
fn counted(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

impl<'a> Look<'a> {
    fn tokenizer(&self) -> &'a Tokenizer {
        &self.opened.base.tokenizer
    }

    /// The subjects that are there, with the prefix of their arrays' names.
    fn subjects(&self) -> impl Iterator<Item = (&'static str, Subject<'a>)> {
        [("", Some(self.base)), ("tuned.", self.tuned)].into_iter().filter_map(|(name, s)| Some((name, s?)))
    }

    fn tuned(&self) -> Result<Subject<'a>, LabError> {
        self.tuned.ok_or_else(|| {
            LabError::Text(
                "This compares two versions of a model; name the tuned one with --adapter or --against, or a session \
                 with --session."
                    .to_owned(),
            )
        })
    }

    /// The tokens of a text, as the model reads it in `text generate`.
    fn encode(&self, text: &str) -> Result<Vec<u32>, LabError> {
        Ok(reader(&self.opened.base, Reading::default(), 1).prompt_of(text)?.tokens)
    }

    /// The tokens of a whole text with its end, as `text eval` scores it.
    fn encode_whole(&self, text: &str) -> Result<Vec<u32>, LabError> {
        let line = Example::Whole(TextOrMessages::Text(text.to_owned()));
        match reader(&self.opened.base, Reading::default(), 1).encode(&line)? {
            TokenizedExample::Whole(tokens) => Ok(tokens),
            _ => Ok(vec![]),
        }
    }

    /// Refuses a reward model, which has no logits.
    fn check_logits(&self) -> Result<(), LabError> {
        match self.has_logits() {
            true => Ok(()),
            false => Err(LabError::Text(
                "This is a reward model, which predicts no tokens; `text look` shows its reward, attention, cache and \
                 probe."
                    .to_owned(),
            )),
        }
    }

    fn has_logits(&self) -> bool {
        let is_causal = |subject: &Subject| subject.config().model_head == ModelHead::Causal;
        is_causal(&self.base) && self.tuned.as_ref().is_none_or(is_causal)
    }

    /// The only prompt.
    fn prompt(&self) -> Result<&'a str, LabError> {
        one(&self.plan.prompts, "--prompt")
    }

    /// The only other prompt.
    fn other(&self) -> Result<&'a str, LabError> {
        one(&self.plan.others, "--other")
    }

    /// What a token says.
    fn word(&self, token: u32) -> String {
        word(self.tokenizer(), token)
    }

    fn words(&self, tokens: &[u32]) -> Vec<String> {
        tokens.iter().map(|&token| self.word(token)).collect()
    }

    /// The words of tokens as labels of positions, which tell equal words apart.
    fn columns(&self, tokens: &[u32]) -> Vec<String> {
        tokens.iter().enumerate().map(|(i, &token)| format!("{i} {}", self.word(token).trim())).collect()
    }

    /// The position that was named, or the last one.
    fn position(&self, tokens: &[u32]) -> Result<usize, LabError> {
        let position = self.plan.position.unwrap_or(tokens.len().saturating_sub(1));
        match position < tokens.len() {
            true => Ok(position),
            false => Err(InterpError::Tokens(format!(
                "There is no position {position} in a prompt of {} tokens; positions count from 0.",
                tokens.len()
            ))
            .into()),
        }
    }

    /// What is explained of a prompt: the metric, with the tokens that it needs.
    fn question(&self, prompt: &str) -> Result<Question, LabError> {
        self.check_logits()?;
        let tokens = self.encode(prompt)?;
        let mut about = Map::new();
        about.insert("prompt".to_owned(), json!(prompt));
        if let Some(completion) = &self.plan.completion {
            if self.plan.tokens.is_some() || self.plan.position.is_some() {
                return Err(LabError::Text(
                    "A completion's log-probability is explained, or a logit difference; leave out --completion, or \
                     --tokens and --position."
                        .to_owned(),
                ));
            }
            let whole = self.encode(&format!("{prompt}{completion}"))?;
            // Where the border falls inside a token, that token belongs to the completion.
            let from = tokens.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            about.insert("completion".to_owned(), json!(completion));
            about.insert("tokens".to_owned(), json!(self.words(&whole)));
            return Ok(Question { tokens: whole, metric: Metric::LogProb { from }, about });
        }
        let position = self.position(&tokens)?;
        let [better, worse] = match &self.plan.tokens {
            Some(typed) => self.two_tokens(typed)?,
            None => self.default_tokens(&tokens, position)?,
        };
        let name = |token: u32| json!({ "token": token, "text": self.word(token) });
        about.insert("tokens".to_owned(), json!(self.words(&tokens)));
        about.insert("position".to_owned(), json!(position));
        about.insert("better".to_owned(), name(better));
        about.insert("worse".to_owned(), name(worse));
        Ok(Question { tokens, metric: Metric::LogitDifference { better, worse, position }, about })
    }

    /// The tokens of `" good, bad"`.
    fn two_tokens(&self, typed: &str) -> Result<[u32; 2], LabError> {
        let parts: Vec<&str> = typed.split(',').collect();
        let [better, worse] = parts[..] else {
            return Err(LabError::Text(format!(
                "--tokens takes two tokens with a comma between them, such as \" good, bad\"; it got {typed:?}."
            )));
        };
        let token = |word: &str| -> Result<u32, LabError> {
            let tokens = self.tokenizer().encode(word, false)?;
            match tokens[..] {
                [token] => Ok(token),
                _ => Err(LabError::Text(format!(
                    "{word:?} is {} tokens in this model ({:?}); take a word that is one token, with its space before it.",
                    tokens.len(),
                    self.words(&tokens)
                ))),
            }
        };
        let pair = [token(better)?, token(worse)?];
        match pair[0] == pair[1] {
            true => Err(LabError::Text(format!("Both tokens of --tokens are {better:?}; take two different ones."))),
            false => Ok(pair),
        }
    }

    /// The tokens that rose and fell most; within one model, the two likeliest ones.
    fn default_tokens(&self, tokens: &[u32], position: usize) -> Result<[u32; 2], LabError> {
        let ids = self.base.tokens(tokens)?;
        let normed = |subject: Subject| normed_at(subject, &ids, position);
        let tuned = self.tuned.map(|tuned| Ok::<_, LabError>((tuned, normed(tuned)?))).transpose()?;
        Ok(default_tokens((self.base, &normed(self.base)?), tuned.as_ref().map(|(tuned, normed)| (*tuned, normed))))
    }
}

/// The last norm's output at one position of a prompt `[1, T]`, `[d]`.
pub(super) fn normed_at(subject: Subject, ids: &Tensor, position: usize) -> Result<Tensor, LabError> {
    let trace = subject.trace(Start::Tokens(ids), &Default::default(), &[])?;
    Ok(trace.normed.get(0).get(position as i64))
}

/// The tokens that rose and fell most from the first model to the second; if there is no second one or nothing moved,
/// the first one's two likeliest tokens. Of each model, the last norm's output at the position in question, `[d]`.
pub(super) fn default_tokens(base: (Subject, &Tensor), tuned: Option<(Subject, &Tensor)>) -> [u32; 2] {
    if let Some(tuned) = tuned {
        let MovedTokens { risen, fallen, .. } = moved_between(base.0, tuned.0, [base.1, tuned.1], 1);
        if let ([risen], [fallen]) = (&risen[..], &fallen[..]) {
            return [risen.token, fallen.token];
        }
    }
    let logits = tch::no_grad(|| base.0.unembed(base.1));
    let (_, top) = logits.topk(2, -1, true, true);
    [top.int64_value(&[0]) as u32, top.int64_value(&[1]) as u32]
}

/// What a token says; its name if that is no text.
pub(super) fn word(tokenizer: &Tokenizer, token: u32) -> String {
    let decoded = tokenizer.decode(&[token], false).unwrap_or_default();
    let name = || tokenizer.name(token).unwrap_or_else(|| format!("#{token}"));
    if decoded.is_empty() || decoded.contains('\u{fffd}') { name() } else { decoded }
}

/// The only one of what was typed.
fn one<'t>(typed: &'t [String], option: &str) -> Result<&'t str, LabError> {
    match typed {
        [one] => Ok(one),
        [] => Err(LabError::Text(format!("There is no text to look at; give one with {option}."))),
        more => Err(LabError::Text(format!("{option} was given {} times and is taken once here.", more.len()))),
    }
}

/// Refuses what a verb does not use.
fn unused(given: bool, what: &str) -> Result<(), LabError> {
    match given {
        true => Err(LabError::Text(format!("This verb does not use {what}; leave it out."))),
        false => Ok(()),
    }
}

/// A prompt's tokens and what is explained of them.
struct Question {
    tokens: Vec<u32>,
    metric: Metric,
    about: Map<String, Value>,
}

impl Question {
    /// The logit difference's tokens and position.
    fn difference(&self) -> Result<(u32, u32, usize), LabError> {
        match self.metric {
            Metric::LogitDifference { better, worse, position } => Ok((better, worse, position)),
            Metric::LogProb { .. } => Err(LabError::Text(
                "This explains a logit difference and not a completion's log-probability; leave --completion out."
                    .to_owned(),
            )),
        }
    }
}
