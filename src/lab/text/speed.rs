//! Measures how fast a language model generates and learns on this machine: a batch of completions, and a gradient step
//! of PPO on it.

use super::folders;
use crate::lab::LabError;
use crate::lab::bench::processor;
use crate::lab::memory::keep_what_is_freed;
use crate::settings::{TextPpoSettings, TextPrecision};
use flipside_core::Seed;
use flipside_text::config::ModelConfig;
use flipside_text::generate::{Sampling, generate};
use flipside_text::model::Transformer;
use flipside_text::{Reference, TextPpo, device};
use rand::RngExt;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Debug)]
pub struct TextSpeedPlan {
    /// The model's folder; `None` uses a GPT-2 with 124 M random weights.
    pub model: Option<PathBuf>,
    /// Number type of weights and activations.
    pub precision: TextPrecision,
    /// Texts in the batch.
    pub batch: usize,
    /// Tokens in a prompt, drawn at random.
    pub prompt: usize,
    /// Tokens in a completion.
    pub new_tokens: usize,
    /// Number of measurements, after one that does not count.
    pub repeats: usize,
}

/// Medians over the repeats.
#[derive(Clone, Debug, Serialize)]
pub struct TextSpeed {
    /// Number of parameters of the model.
    pub parameters: usize,
    /// Number type that it computes in.
    pub precision: TextPrecision,
    /// Completion tokens generated per second, including the pass over the prompts.
    pub generate_tokens_per_s: f64,
    /// Seconds of the pass over the prompts alone.
    pub prompts_s: f64,
    /// Seconds of generating all columns after the first.
    pub columns_s: f64,
    /// Prompt and completion tokens per second of one gradient step: forward and backward pass, gradient clipping and
    /// Adam.
    pub ppo_tokens_per_s: f64,
    /// Seconds of that gradient step.
    pub ppo_step_s: f64,
    /// The processor's name.
    pub machine: String,
}

/// Runs the measurements.
///
/// # Errors
///
/// A model that cannot be read, or one whose context is too short for these texts.
pub fn text_speed(plan: &TextSpeedPlan) -> Result<TextSpeed, LabError> {
    keep_what_is_freed();
    let model = match &plan.model {
        Some(folder) => folders::read(folder, plan.precision)?.model,
        None => {
            let config = ModelConfig::gpt2(50_257, 1024, 768, 12, 12);
            Transformer::random(&config, plan.precision, device(), &mut Seed(0).stream("bench.weights"))
        }
    };
    let (vocabulary, columns) = (model.config().vocabulary as u32, plan.prompt + plan.new_tokens);
    if columns > model.config().context {
        return Err(LabError::Text(format!(
            "Texts of {columns} tokens do not fit into this model's context of {}; ask for shorter ones.",
            model.config().context
        )));
    }
    let mut stream = Seed(0).stream("bench.prompts");
    let prompts: Vec<Vec<u32>> =
        (0..plan.batch).map(|_| (0..plan.prompt).map(|_| stream.random_range(0..vocabulary)).collect()).collect();
    let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let sampling = Sampling { max_new_tokens: plan.new_tokens, ..Sampling::default() };
    let write = || {
        let (start, mut tokens, mut prompts_s) = (Instant::now(), 0, 0.0);
        generate(&model, &rows, &sampling, true, &mut |_, _| {
            tokens += 1;
            if tokens == rows.len() {
                prompts_s = start.elapsed().as_secs_f64();
            }
            true
        });
        [prompts_s, start.elapsed().as_secs_f64() - prompts_s]
    };
    let written = measured(plan.repeats, || Ok(write()))?;
    let [prompts_s, columns_s] = [0, 1].map(|part| median(written.iter().map(|parts| parts[part])));

    let settings = TextPpoSettings {
        batch_size: plan.batch,
        minibatch_size: plan.batch,
        gradient_accumulation_steps: 1,
        update_epochs: 1,
        max_new_tokens: plan.new_tokens,
        ..TextPpoSettings::default()
    };
    let (policy, parameters) = (model.deep_clone(), model.parameters());
    let mut learner = TextPpo::new(policy, Reference::Model(model), &[], &settings, Seed(0))?;
    let episodes = learner.collect(&prompts, &mut |_| false)?;
    let scores: Vec<f32> = (0..episodes.len()).map(|i| (i % 2) as f32).collect();
    let steps = measured(plan.repeats, || {
        let start = Instant::now();
        learner.learn(&episodes, &scores, &mut |_| false)?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    let ppo_step_s = median(steps.into_iter());
    let texts = plan.batch as f64;
    Ok(TextSpeed {
        parameters,
        precision: plan.precision,
        generate_tokens_per_s: texts * plan.new_tokens as f64 / (prompts_s + columns_s),
        prompts_s,
        columns_s,
        ppo_tokens_per_s: texts * columns as f64 / ppo_step_s,
        ppo_step_s,
        machine: processor(),
    })
}

/// The results of all repeats, after one that only warms up.
fn measured<T>(repeats: usize, mut once: impl FnMut() -> Result<T, LabError>) -> Result<Vec<T>, LabError> {
    once()?;
    (0..repeats.max(1)).map(|_| once()).collect()
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
