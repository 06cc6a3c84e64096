//! Gradient steps of PPO's trainer on completions that are given, with their losses and times: the same batch can be
//! given to another program.

use super::folders;
use crate::lab::LabError;
use crate::lab::memory::keep_what_is_freed;
use crate::settings::Asked;
use crate::settings::{RunSettings, TextPrecision, TextPreset, TextRun};
use crate::store::read_results;
use flipside_core::Seed;
use flipside_text::{Episode, Example, Reference, TextPpo, log_probs};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// Rows whose log-probabilities are computed at a time.
const ROWS: usize = 16;

/// What to step on.
#[derive(Clone, Debug)]
pub struct TextStepsPlan {
    /// Folder of the policy, which is the reference as well.
    pub model: PathBuf,
    /// A line of JSON for each completion: `prompt` and `completion` as lists of token ids, and `score`. Those of one
    /// prompt are beside one another.
    pub data: PathBuf,
    /// The method.
    pub preset: TextPreset,
    /// Settings that win over the preset's, as `--set` takes them.
    pub set: String,
    /// Gradient steps, each on all completions. The ratio is that to the policy before the first step.
    pub steps: usize,
}

/// The steps that were taken.
#[derive(Clone, Debug, Serialize)]
pub struct TextSteps {
    /// The loss of each step, the KL penalty included where it is in the loss.
    pub losses: Vec<f64>,
    /// The gradient norm of each step before clipping.
    pub grad_norms: Vec<f64>,
    /// Seconds of each step: forward and backward pass, gradient clipping and Adam.
    pub seconds: Vec<f64>,
}

/// A completion in the file.
#[derive(Deserialize)]
struct Given {
    prompt: Vec<u32>,
    completion: Vec<u32>,
    score: f32,
}

/// Takes the steps.
///
/// # Errors
///
/// A model or a file that cannot be read, tokens that the model does not have, or settings that do not fit the batch.
pub fn text_steps(plan: &TextStepsPlan) -> Result<TextSteps, LabError> {
    keep_what_is_freed();
    let model = folders::read(&plan.model, TextPrecision::F32)?.model;
    let given: Vec<Given> = read_results(&plan.data)?;
    let vocabulary = model.config().vocabulary as u32;
    let is_unknown = |given: &Given| given.prompt.iter().chain(&given.completion).any(|&token| token >= vocabulary);
    if given.is_empty() || given.iter().any(|given| given.prompt.is_empty() || is_unknown(given)) {
        return Err(LabError::Text(format!(
            "{} needs lines of `prompt`, `completion` and `score`, with tokens that the model has.",
            plan.data.display()
        )));
    }
    let asked = Asked::assignments(plan.preset.assignments()).and_then(|asked| {
        let batch = format!("text.ppo.batch_size={0}; text.ppo.minibatch_size={0}", given.len());
        Ok(asked.and(Asked::assignments(&batch)?).and(Asked::assignments(&plan.set)?))
    });
    let settings = asked.and_then(|asked| RunSettings::of_text(TextRun::default()).with(&asked));
    let settings = settings.map_err(LabError::Settings)?;
    let settings = settings.text().map(|run| run.ppo.clone()).unwrap_or_default();

    let examples: Vec<Example> = given
        .iter()
        .map(|given| Example { prompt: given.prompt.clone(), completion: given.completion.clone() })
        .collect();
    let known = log_probs(&model, &examples, true, settings.temperature, ROWS, &mut |_| false);
    let mut prompt_index = 0;
    let mut episodes: Vec<Episode> = Vec::with_capacity(given.len());
    for (Example { prompt, completion }, log_probs) in examples.into_iter().zip(known) {
        prompt_index += usize::from(episodes.last().is_some_and(|last| last.prompt != prompt));
        let none = vec![0.0; completion.len()];
        let (reference_log_probs, stopped) = (log_probs.clone(), true);
        let (values, entropies) = (none.clone(), none);
        let episode =
            Episode { prompt_index, prompt, completion, stopped, log_probs, reference_log_probs, values, entropies };
        episodes.push(episode);
    }
    let scores: Vec<f32> = given.iter().map(|given| given.score).collect();
    let mut trainer = TextPpo::new(model.deep_clone(), Reference::Model(model), &[], &settings, Seed(0))?;
    let mut found = TextSteps { losses: Vec::new(), grad_norms: Vec::new(), seconds: Vec::new() };
    for _ in 0..plan.steps {
        let began = Instant::now();
        let stats = trainer.learn(&episodes, &scores, &mut |_| false)?;
        found.seconds.push(began.elapsed().as_secs_f64());
        found.losses.push(stats.policy_loss + stats.beta * stats.kl_loss);
        found.grad_norms.push(stats.grad_norm);
    }
    Ok(found)
}
