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
    /// The stage: supervised, reward, or PPO, which also takes the steps of the reward model. Both hold all models that
    /// a session holds then.
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
    let parameters = model.parameters();
    let trained = model.trainable().iter().map(|(_, tensor)| tensor.numel()).sum();
    let mut texts = Texts { vocabulary: config.vocabulary as u32, tokens: plan.tokens, stream };
    let mut seconds = Seconds::default();
    match plan.stage {
        TextStage::Supervised => supervised_steps(model, plan.rows, &mut texts, &mut seconds)?,
        stage => teaching_steps(model, plan, stage == TextStage::Ppo, &mut texts, &mut seconds)?,
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
        seconds: seconds.0,
        machine: processor(),
    })
}

/// Random texts.
struct Texts {
    vocabulary: u32,
    /// Of a query and of a summary.
    tokens: [usize; 2],
    stream: Stream,
}

impl Texts {
    fn draw(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.stream.random_range(0..self.vocabulary)).collect()
    }

    fn query(&mut self) -> Vec<u32> {
        self.draw(self.tokens[0])
    }

    fn summary(&mut self) -> Vec<u32> {
        self.draw(self.tokens[1])
    }
}

/// How long each step took, by its name.
#[derive(Default)]
struct Seconds(Vec<(&'static str, f64)>);

impl Seconds {
    fn of<T>(&mut self, step: &'static str, take: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let made = take();
        self.0.push((step, start.elapsed().as_secs_f64()));
        made
    }
}

fn supervised_steps(model: Transformer, rows: usize, texts: &mut Texts, seconds: &mut Seconds) -> Result<(), LabError> {
    let examples: Vec<Example> =
        (0..rows).map(|_| Example { prompt: texts.query(), completion: texts.summary() }).collect();
    let settings = SupervisedSettings { batch_size: rows, ..SupervisedSettings::default() };
    let mut trainer = Supervised::new(model, &settings, Seed(0))?;
    for _ in 0..2 {
        seconds.of("supervised step", || trainer.step(&examples, &mut |_| false))?;
    }
    Ok(())
}

/// The steps of the reward model, and then, `with_ppo`, those of PPO. As in a session, reward model, policy and
/// reference are there from the beginning and share what is not trained.
fn teaching_steps(
    model: Transformer,
    plan: &MemoryPlan,
    with_ppo: bool,
    texts: &mut Texts,
    seconds: &mut Seconds,
) -> Result<(), LabError> {
    let rewarded = TextRewardSettings { batch_size: plan.rows.div_ceil(2), ..TextRewardSettings::default() };
    let mut reward = TextReward::new(model.deep_clone(), &rewarded, Seed(0))?;
    let ppo = TextPpoSettings {
        batch_size: plan.rows,
        minibatch_size: plan.rows,
        update_epochs: 2,
        max_new_tokens: plan.tokens[1],
        ..TextPpoSettings::default()
    };
    let policy = model.deep_clone();
    let reference = if plan.lora.is_some() { Reference::Base } else { Reference::Model(model) };
    let mut learner = TextPpo::new(policy, reference, &[], &ppo, Seed(0))?;
    let mut comparison = || TextComparison {
        prompt: texts.query(),
        left: texts.summary(),
        right: texts.summary(),
        target: 1.0,
        margin: 0.0,
    };
    let comparisons: Vec<TextComparison> = (0..rewarded.batch_size).map(|_| comparison()).collect();
    for _ in 0..2 {
        seconds.of("reward step", || reward.step(&comparisons, &mut |_| false))?;
    }
    if with_ppo {
        let prompts: Vec<Vec<u32>> = (0..plan.rows).map(|_| texts.query()).collect();
        let episodes = seconds.of("writing summaries", || learner.collect(&prompts, &mut |_| false))?;
        let written: Vec<Example> =
            episodes.iter().map(|e| Example { prompt: e.prompt.clone(), completion: e.completion.clone() }).collect();
        let scores = seconds.of("scoring them", || reward.rewards(&written, &mut |_| false))?;
        seconds.of("two PPO steps", || learner.learn(&episodes, &scores, &mut |_| false))?;
    }
    Ok(())
}
