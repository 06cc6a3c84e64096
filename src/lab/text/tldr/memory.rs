//! Measures the memory and the time that the recipe takes with GPT-2 of a true size and random weights: the weights do
//! not change either. It makes what the stages of a session hold, and takes their steps.

use crate::lab::LabError;
use crate::lab::bench::processor;
use crate::lab::memory::{keep_what_is_freed, peak_resident};
use crate::settings::{
    LoraSettings, SupervisedSettings, TextPpoSettings, TextPrecision, TextRewardSettings, TextStage,
};
use flipside_core::{Seed, Stream};
use flipside_text::config::ModelConfig;
use flipside_text::model::Transformer;
use flipside_text::{Example, Reference, Supervised, TextComparison, TextPpo, TextReward, device};
use rand::RngExt;
use serde::Serialize;
use std::time::Instant;

/// The published sizes of GPT-2 (Radford et al. 2019).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GptSize {
    /// 124 M parameters.
    Small,
    /// 355 M parameters.
    Medium,
    /// 774 M parameters.
    Large,
    /// 1,558 M parameters.
    Xl,
}

impl GptSize {
    /// All sizes.
    pub const ALL: [GptSize; 4] = [GptSize::Small, GptSize::Medium, GptSize::Large, GptSize::Xl];

    /// Its name: `gpt2` and so on, as the models are called on Hugging Face.
    pub fn name(self) -> &'static str {
        ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"][self as usize]
    }

    fn config(self) -> ModelConfig {
        let (width, layers, heads) = [(768, 12, 12), (1024, 24, 16), (1280, 36, 20), (1600, 48, 25)][self as usize];
        ModelConfig::gpt2(50_257, 1024, width, layers, heads)
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct MemoryPlan {
    /// The model.
    pub size: GptSize,
    /// The stage: supervised, or PPO, which holds the reward model too and takes one step of each.
    pub stage: TextStage,
    /// Number type of weights and activations.
    pub precision: TextPrecision,
    /// Adapters, if any.
    pub lora: Option<LoraSettings>,
    /// Frozen blocks, counted from the embedding.
    pub frozen_layers: usize,
    /// Whether blocks are computed again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Texts that are learned from at a time. A larger batch adds up parts of so many.
    pub rows: usize,
    /// Tokens of a query and of a summary.
    pub tokens: [usize; 2],
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// The model's name.
    pub model: &'static str,
    /// The stage.
    pub stage: TextStage,
    /// Number of parameters.
    pub parameters: usize,
    /// Number of them that are trained.
    pub trained: usize,
    /// Bytes of the weights of one copy.
    pub weight_bytes: u64,
    /// The most memory that the process has had while the model was made, bytes; `None` where the system does not say.
    pub peak_before_bytes: Option<u64>,
    /// The most memory that the process has had at all, bytes.
    pub peak_bytes: Option<u64>,
    /// Seconds of each step, by name.
    pub seconds: Vec<(&'static str, f64)>,
    /// The processor's name.
    pub machine: String,
}

/// Makes the model and takes the steps of the stage, each once: two of gradient descent, so that Adam's state counts.
///
/// # Errors
///
/// Settings that cannot work: texts longer than the context, adapters together with frozen blocks.
pub fn measure_memory(plan: &MemoryPlan) -> Result<MemoryReport, LabError> {
    keep_what_is_freed();
    let config = plan.size.config();
    let [query, summary] = plan.tokens;
    if query + summary > config.context || query == 0 || summary == 0 || plan.rows == 0 {
        return Err(LabError::Text(format!(
            "A query of {query} and a summary of {summary} tokens, {} at a time, cannot be measured: each needs at least one, and \
             together they may have {}.",
            plan.rows, config.context
        )));
    }
    if plan.lora.is_some() && plan.frozen_layers > 0 {
        return Err(LabError::Text("--lora freezes every layer already; leave --freeze out.".to_owned()));
    }
    let mut stream = Seed(0).stream("text.tldr.memory");
    let mut model = Transformer::random(&config, plan.precision, device(), &mut stream);
    match &plan.lora {
        Some(lora) => {
            model.attach(lora, &mut stream).map_err(flipside_text::BundleError::from)?;
        }
        None if plan.frozen_layers > 0 => model.freeze(plan.frozen_layers),
        None => {}
    }
    model.set_checkpointing(plan.gradient_checkpointing);
    let peak_before_bytes = peak_resident();
    let vocabulary = config.vocabulary as u32;
    let draw = |count: usize, stream: &mut Stream| -> Vec<u32> {
        (0..count).map(|_| stream.random_range(0..vocabulary)).collect()
    };
    let mut seconds = Vec::new();
    let parameters = model.parameters();
    let trained = model.trainable().iter().map(|(_, tensor)| tensor.numel()).sum();
    if plan.stage == TextStage::Supervised {
        let example = |stream: &mut Stream| Example { prompt: draw(query, stream), completion: draw(summary, stream) };
        let examples: Vec<Example> = (0..plan.rows).map(|_| example(&mut stream)).collect();
        let settings = SupervisedSettings { batch_size: plan.rows, ..SupervisedSettings::default() };
        let mut trainer = Supervised::new(model, &settings, Seed(0))?;
        for _ in 0..2 {
            let start = Instant::now();
            trainer.step(&examples, &mut |_| false)?;
            seconds.push(("supervised step", start.elapsed().as_secs_f64()));
        }
    } else {
        // As the stage of a session: reward model, policy and reference share what is not trained.
        let rewarded = TextRewardSettings { batch_size: plan.rows.div_ceil(2), ..TextRewardSettings::default() };
        let mut reward = TextReward::new(model.deep_clone(), &rewarded, Seed(0))?;
        let ppo = TextPpoSettings {
            batch_size: plan.rows,
            minibatch_size: plan.rows,
            update_epochs: 2,
            max_new_tokens: summary,
            ..TextPpoSettings::default()
        };
        let policy = model.deep_clone();
        let reference = if plan.lora.is_some() { Reference::Base } else { Reference::Model(model) };
        let mut learner = TextPpo::new(policy, reference, &[], &ppo, Seed(0))?;
        let comparison = |stream: &mut Stream| TextComparison {
            prompt: draw(query, stream),
            left: draw(summary, stream),
            right: draw(summary, stream),
            target: 1.0,
            margin: 0.0,
        };
        let comparisons: Vec<TextComparison> = (0..rewarded.batch_size).map(|_| comparison(&mut stream)).collect();
        for _ in 0..2 {
            let start = Instant::now();
            reward.step(&comparisons, &mut |_| false)?;
            seconds.push(("reward step", start.elapsed().as_secs_f64()));
        }
        let prompts: Vec<Vec<u32>> = (0..plan.rows).map(|_| draw(query, &mut stream)).collect();
        let start = Instant::now();
        let episodes = learner.collect(&prompts, &mut |_| false)?;
        seconds.push(("writing summaries", start.elapsed().as_secs_f64()));
        let start = Instant::now();
        let written: Vec<Example> =
            episodes.iter().map(|e| Example { prompt: e.prompt.clone(), completion: e.completion.clone() }).collect();
        let scores = reward.rewards(&written, &mut |_| false)?;
        seconds.push(("scoring them", start.elapsed().as_secs_f64()));
        let start = Instant::now();
        learner.learn(&episodes, &scores, &mut |_| false)?;
        seconds.push(("two PPO steps", start.elapsed().as_secs_f64()));
    }
    let bytes = if plan.precision == TextPrecision::Bf16 { 2 } else { 4 };
    Ok(MemoryReport {
        model: plan.size.name(),
        stage: plan.stage,
        parameters,
        trained,
        weight_bytes: bytes * parameters as u64,
        peak_before_bytes,
        peak_bytes: peak_resident(),
        seconds,
        machine: processor(),
    })
}
