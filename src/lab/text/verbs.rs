//! Operations on a model folder that need no session: score texts, generate texts, merge an adapter, export the model.

use super::corpus::{Prompt, Reader, pairs};
use super::folders;
use crate::lab::LabError;
use crate::settings::{TextPrecision, TextRewardSettings, TextStage};
use crate::store::npz::{self, Values};
use flipside_core::Seed;
use flipside_text::data::Reading;
use flipside_text::generate::{Sampling, generate};
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Bundle, Example, TextReward, generate_by_values, log_probs};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Rows that are scored or generated in parallel.
const ROWS: usize = 16;

/// A model folder, and how to read it.
#[derive(Clone, Debug)]
pub struct TextModel {
    /// The folder.
    pub folder: PathBuf,
    /// The folder of an adapter to attach to the model.
    pub adapter: Option<PathBuf>,
    /// Number type that it computes in.
    pub precision: TextPrecision,
}

impl TextModel {
    pub(super) fn read(&self) -> Result<Bundle, LabError> {
        folders::read_with(&self.folder, self.adapter.as_deref(), self.precision)
    }
}

/// A reader for prompts with a completion of up to `max_new_tokens`. The last token of a completion is not read again,
/// so it needs no position.
pub(super) fn reader(bundle: &Bundle, reading: Reading, max_new_tokens: usize) -> Reader<'_> {
    let context = bundle.model.config().context;
    Reader { tokenizer: &bundle.tokenizer, context, prompt: (context + 1).saturating_sub(max_new_tokens), reading }
}

/// A reader for texts that are read and not continued.
pub(super) fn reader_of(tokenizer: &Tokenizer, context: usize) -> Reader<'_> {
    Reader { tokenizer, context, prompt: context, reading: Reading::default() }
}

/// Refuses a model whose weights have led to something that is not a number.
pub(super) fn check_finite(mut numbers: impl Iterator<Item = f32>, folder: &Path) -> Result<(), LabError> {
    match numbers.all(f32::is_finite) {
        true => Ok(()),
        false => Err(LabError::Text(format!(
            "The model in {} computes numbers that are not finite, so its weights are damaged or are too large for the \
             precision; fetch them again, or use f32.",
            folder.display()
        ))),
    }
}

/// A model's scores on a data file.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Scored {
    /// Of a language model: the likelihood.
    Likelihood {
        /// Number of predicted tokens.
        tokens: usize,
        /// Mean negative log-likelihood of a token, nats.
        nll: f64,
        /// exp(`nll`).
        perplexity: f64,
    },
    /// Of a reward model: which completion of a pair it prefers.
    Preference {
        /// Number of pairs.
        pairs: usize,
        /// Share of pairs whose chosen side has the higher reward; equal rewards count half.
        accuracy: f64,
        /// Mean −log σ(chosen − rejected), nats.
        loss: f64,
    },
}

/// Scores a data file. If an output file is given, writes the scores of each token (`logprobs`, `tokens`, `offsets`) or
/// pair (`chosen`, `rejected`) to it.
///
/// # Errors
///
/// A model or data that cannot be read, or data of the other kind.
pub fn evaluate_text(
    model: &TextModel,
    data: &Path,
    reading: Reading,
    output: Option<&Path>,
) -> Result<Scored, LabError> {
    let bundle = model.read()?;
    let reader = reader(&bundle, reading, 1);
    let nothing = |what: &str| LabError::Text(format!("{} holds no {what}; give a file with some.", data.display()));
    if let Some(head) = bundle.head() {
        let pairs = pairs(data, &reader)?;
        if pairs.is_empty() {
            return Err(nothing("pairs"));
        }
        let mut judge = TextReward::with_head(bundle.model.clone(), head, &TextRewardSettings::default(), Seed(0))?;
        judge.set_gain_and_bias([1.0, bundle.score.as_ref().map_or(0.0, |(_, bias)| *bias)]);
        let side = |right: bool| {
            let of = |pair: &flipside_text::TextComparison| Example {
                prompt: pair.prompt.clone(),
                completion: if right { pair.right.clone() } else { pair.left.clone() },
            };
            judge.rewards(&pairs.iter().map(of).collect::<Vec<_>>(), &mut |_| false)
        };
        let (chosen, rejected) = (side(false)?, side(true)?);
        check_finite(chosen.iter().chain(&rejected).copied(), &model.folder)?;
        if let Some(path) = output {
            let shape: &[usize] = &[chosen.len()];
            npz::write(path, &[("chosen", shape, Values::F32(&chosen)), ("rejected", shape, Values::F32(&rejected))])?;
        }
        let gaps = || chosen.iter().zip(&rejected).map(|(c, r)| f64::from(c - r));
        let n = chosen.len() as f64;
        let right = gaps().map(|gap| if gap > 0.0 { 1.0 } else { f64::from(u8::from(gap == 0.0)) * 0.5 });
        return Ok(Scored::Preference {
            pairs: chosen.len(),
            accuracy: right.sum::<f64>() / n,
            loss: gaps().map(|gap| (-gap).exp().ln_1p()).sum::<f64>() / n,
        });
    }
    let examples: Vec<Example> = reader.file(data)?.into_iter().flat_map(|tokens| reader.examples(tokens)).collect();
    if examples.is_empty() {
        return Err(nothing("texts"));
    }
    let found = log_probs(&bundle.model, &examples, true, 1.0, ROWS, &mut |_| false);
    let flat: Vec<f32> = found.concat();
    check_finite(flat.iter().copied(), &model.folder)?;
    if let Some(path) = output {
        let predicted = |example: &Example| {
            let given = usize::from(example.prompt.is_empty() && !example.completion.is_empty());
            example.completion[given..].iter().map(|&token| i64::from(token)).collect::<Vec<_>>()
        };
        let tokens: Vec<i64> = examples.iter().flat_map(predicted).collect();
        let mut offsets = vec![0_i64];
        offsets.extend(found.iter().scan(0_i64, |at, row| {
            *at += row.len() as i64;
            Some(*at)
        }));
        npz::write(
            path,
            &[
                ("logprobs", &[flat.len()], Values::F32(&flat)),
                ("tokens", &[tokens.len()], Values::I64(&tokens)),
                ("offsets", &[offsets.len()], Values::I64(&offsets)),
            ],
        )?;
    }
    let nll = -flat.iter().map(|&x| f64::from(x)).sum::<f64>() / flat.len().max(1) as f64;
    Ok(Scored::Likelihood { tokens: flat.len(), nll, perplexity: nll.exp() })
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct GeneratePlan {
    /// Prompts, as they were typed.
    pub prompts: Vec<String>,
    /// A file with more prompts.
    pub data: Option<PathBuf>,
    /// How the file is read.
    pub reading: Reading,
    /// The maximum number of tokens in a completion.
    pub max_new_tokens: usize,
    /// The logits are divided by this; 0 takes the most likely token.
    pub temperature: f64,
    /// Sample only from this many of the most likely tokens; 0 uses all.
    pub top_k: usize,
    /// Sample only from the most likely tokens that together have this probability.
    pub top_p: f64,
    /// Write by log π + β (Q − V) with the heads of ILQL; `None` writes by π.
    pub beta: Option<f64>,
    /// The seed of all draws.
    pub seed: u64,
}

/// A prompt and its completion.
#[derive(Clone, Debug, Serialize)]
pub struct Generated {
    /// The prompt.
    pub prompt: String,
    /// The completion's text.
    pub text: String,
    /// The completion's tokens, including the one that ended it.
    pub tokens: Vec<u32>,
    /// Whether the completion ended by itself.
    pub stopped: bool,
}

/// Answers prompts. `on_piece` is called with the text that each token adds, and with the completion that it belongs
/// to.
///
/// # Errors
///
/// A model or data that cannot be read, or no prompt.
pub fn generate_text(
    model: &TextModel,
    plan: &GeneratePlan,
    on_piece: &mut dyn FnMut(usize, &str),
) -> Result<Vec<Generated>, LabError> {
    let bundle = model.read()?;
    let reader = reader(&bundle, plan.reading, plan.max_new_tokens);
    let mut prompts: Vec<Prompt> = plan.prompts.iter().map(|p| reader.prompt_of(p)).collect::<Result<_, _>>()?;
    if let Some(path) = &plan.data {
        prompts.extend(reader.prompts(path)?);
    }
    prompts.iter().try_for_each(|prompt| reader.check_length(prompt))?;
    if prompts.is_empty() {
        return Err(LabError::Text("There is nothing to answer; give a prompt or a file with some.".to_owned()));
    }
    let heads = plan.beta.map(|beta| Ok::<_, LabError>((beta, folders::ilql_heads(&model.folder, &bundle)?)));
    let heads = heads.transpose()?;
    let mut all = Vec::new();
    for (part, prompts) in prompts.chunks(ROWS).enumerate() {
        let sampling = Sampling {
            temperature: plan.temperature,
            top_k: plan.top_k,
            top_p: plan.top_p,
            max_new_tokens: plan.max_new_tokens,
            stop: bundle.stop(),
            seed: plan.seed.wrapping_add(part as u64),
        };
        let rows: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.tokens[..]).collect();
        let mut streams: Vec<_> = rows.iter().map(|prompt| bundle.tokenizer.stream_after(prompt)).collect();
        let mut on_token = |row: usize, token| {
            let piece = streams[row].push(token).unwrap_or_default();
            on_piece(part * ROWS + row, &piece);
            true
        };
        let written = match &heads {
            Some((beta, heads)) => generate_by_values((&bundle.model, heads), &rows, *beta, &sampling, &mut on_token),
            None => generate(&bundle.model, &rows, &sampling, true, &mut on_token),
        };
        for (row, (prompt, completion)) in rows.iter().zip(written).enumerate() {
            check_finite(completion.log_probs.iter().copied(), &model.folder)?;
            on_piece(part * ROWS + row, &streams[row].finish()?);
            all.push(Generated {
                prompt: bundle.tokenizer.decode(prompt, true)?,
                text: bundle.tokenizer.continuation(prompt, &completion.tokens, true)?,
                tokens: completion.tokens,
                stopped: completion.stopped,
            });
        }
    }
    Ok(all)
}

/// Merges an adapter into the weights and writes the resulting model.
///
/// # Errors
///
/// A model or adapter that cannot be read, or a folder that holds other files.
pub fn merge_text(model: &TextModel, output: &Path) -> Result<(), LabError> {
    let bundle = model.read()?;
    let merged = Bundle { model: bundle.model.merged(), tokenizer: bundle.tokenizer, score: bundle.score };
    folders::write(output, merged.to_parts()?, None)
}

/// Writes a model again, in another precision or in shards of `shard` bytes. If there is an adapter, writes only the
/// adapter.
///
/// # Errors
///
/// As for [`merge_text`].
pub fn export_text(model: &TextModel, output: &Path, shard: Option<usize>) -> Result<(), LabError> {
    let bundle = model.read()?;
    let parts = match bundle.to_adapter_parts(model.folder.to_str()) {
        Some(adapter) if model.adapter.is_some() => adapter,
        _ => bundle.to_parts()?,
    };
    folders::write(output, parts, shard)
}

/// Copies the model of a session's pipeline stage to another folder. If the stage trained an adapter, copies only the
/// adapter, except for ILQL, whose heads are beside the merged model.
///
/// # Errors
///
/// A session that has not come that far, or a folder that holds other files.
pub fn copy_stage(session: &Path, stage: TextStage, output: &Path) -> Result<(), LabError> {
    let read = |folder: &Path| crate::store::ModelFolder::read(folder);
    let folder = match read(&folders::adapter_of(session, stage)) {
        Ok(adapter) if stage != TextStage::Ilql => adapter,
        _ => read(&folders::of_stage(session, stage))?,
    };
    Ok(folder.write(output, crate::store::SHARD)?)
}
