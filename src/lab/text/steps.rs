//! Gradient steps on completions that are given, by PPO's trainer or by a loss of DPO's family, with their losses and
//! times: the same batch can be given to another program.

use super::folders;
use crate::lab::LabError;
use crate::lab::memory::keep_what_is_freed;
use crate::settings::{Asked, PreferenceLoss, RunSettings, TextPrecision, TextPreset, TextRun};
use crate::store::read_results;
use flipside_core::{Choice, Seed};
use flipside_text::model::Transformer;
use flipside_text::{Episode, Example, Reference, TextComparison, TextPpo, TextPreference, log_probs};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rows whose log-probabilities are computed at a time.
const ROWS: usize = 16;

/// What to step on.
#[derive(Clone, Debug)]
pub struct TextStepsPlan {
    /// Folder of the policy, which is the reference as well.
    pub model: PathBuf,
    /// For a preset, a line of JSON for each completion: `prompt` and `completion` as lists of token ids, and `score`.
    /// Those of one prompt are beside one another. For a loss, a line for each pair: `prompt`, `chosen`, `rejected`.
    pub data: PathBuf,
    /// What learns.
    pub method: TextStepsMethod,
    /// Settings that win over the method's, as `--set` takes them.
    pub set: String,
    /// Gradient steps, each on all completions. The ratio is that to the policy before the first step.
    pub steps: usize,
}

/// What learns.
#[derive(Clone, Copy, Debug)]
pub enum TextStepsMethod {
    /// PPO's trainer.
    Preset(TextPreset),
    /// A loss of pairs. The reference's log-probabilities are computed once, before the first step.
    Loss(PreferenceLoss),
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

/// A pair in the file.
#[derive(Deserialize)]
struct GivenPair {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
}

/// Takes the steps.
///
/// # Errors
///
/// A model or a file that cannot be read, tokens that the model does not have, or settings that do not fit the batch.
pub fn text_steps(plan: &TextStepsPlan) -> Result<TextSteps, LabError> {
    keep_what_is_freed();
    let model = folders::read(&plan.model, TextPrecision::F32)?.model;
    match plan.method {
        TextStepsMethod::Preset(preset) => steps_of_ppo(plan, preset, model),
        TextStepsMethod::Loss(loss) => steps_of_pairs(plan, loss, model),
    }
}

/// The settings of a method, those of the plan over them.
fn settings_of(method: &str, plan: &TextStepsPlan) -> Result<TextRun, LabError> {
    let asked = Asked::assignments(method).and_then(|asked| Ok(asked.and(Asked::assignments(&plan.set)?)));
    let settings = asked.and_then(|asked| RunSettings::of_text(TextRun::default()).with(&asked));
    Ok(settings.map_err(LabError::Settings)?.text().cloned().unwrap_or_default())
}

/// The lines of the file, whose lists of tokens must all be the model's and not empty.
fn read<T: DeserializeOwned>(
    path: &Path,
    model: &Transformer,
    tokens: impl Fn(&T) -> Vec<&Vec<u32>>,
) -> Result<Vec<T>, LabError> {
    let all: Vec<T> = read_results(path)?;
    let vocabulary = model.config().vocabulary as u32;
    let fits = |list: &Vec<u32>| !list.is_empty() && list.iter().all(|&token| token < vocabulary);
    match !all.is_empty() && all.iter().all(|line| tokens(line).into_iter().all(fits)) {
        true => Ok(all),
        false => Err(LabError::Text(format!(
            "{} needs lines of the method's fields, with lists of tokens that the model has.",
            path.display()
        ))),
    }
}

fn steps_of_ppo(plan: &TextStepsPlan, preset: TextPreset, model: Transformer) -> Result<TextSteps, LabError> {
    let given: Vec<Given> = read(&plan.data, &model, |given: &Given| vec![&given.prompt, &given.completion])?;
    let batch = format!("text.ppo.batch_size={0}; text.ppo.minibatch_size={0}; text.ppo.update_epochs=1", given.len());
    let settings = settings_of(&format!("{}; {batch}", preset.assignments()), plan)?.ppo;
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
        episodes.push(Episode {
            prompt_index,
            prompt,
            completion,
            stopped: true,
            reference_log_probs: log_probs.clone(),
            log_probs,
            values: none.clone(),
            entropies: none,
        });
    }
    let scores: Vec<f32> = given.iter().map(|given| given.score).collect();
    let mut trainer = TextPpo::new(model.deep_clone(), Reference::Model(model), &[], &settings, Seed(0))?;
    timed(plan.steps, || {
        let stats = trainer.learn(&episodes, &scores, &mut |_| false)?;
        Ok([stats.policy_loss + stats.beta * stats.kl_loss, stats.grad_norm])
    })
}

fn steps_of_pairs(plan: &TextStepsPlan, loss: PreferenceLoss, model: Transformer) -> Result<TextSteps, LabError> {
    let given: Vec<GivenPair> =
        read(&plan.data, &model, |given: &GivenPair| vec![&given.prompt, &given.chosen, &given.rejected])?;
    let method = format!("text.preference.loss={}; text.preference.batch_size={}", loss.name(), given.len());
    let settings = settings_of(&method, plan)?.preference;
    let pair = |given: GivenPair| TextComparison::new(given.prompt, given.chosen, given.rejected, Choice::Left, 0.0);
    let pairs: Vec<TextComparison> = given.into_iter().filter_map(pair).collect();
    let mut trainer = TextPreference::new(model, None, &settings, Seed(0))?;
    if trainer.must_keep_reference() {
        trainer.keep_reference(&pairs, &mut |_| false)?;
    }
    timed(plan.steps, || {
        let stats = trainer.step(&pairs, &mut |_| false)?;
        Ok([stats.loss, stats.grad_norm])
    })
}

/// Takes so many steps, each of which returns its loss and its gradient norm.
fn timed(steps: usize, mut step: impl FnMut() -> Result<[f64; 2], LabError>) -> Result<TextSteps, LabError> {
    let mut found = TextSteps { losses: Vec::new(), grad_norms: Vec::new(), seconds: Vec::new() };
    for _ in 0..steps {
        let began = Instant::now();
        let [loss, grad_norm] = step()?;
        found.seconds.push(began.elapsed().as_secs_f64());
        found.losses.push(loss);
        found.grad_norms.push(grad_norm);
    }
    Ok(found)
}
