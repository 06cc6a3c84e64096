//! The whole circle on the built-in grammar, top to bottom: a base model learns the language, a supervised one the form, a simulated
//! teacher's noisy answers become a reward model, and PPO follows it. Because the gold score of every text is known, so is how good each
//! stage is, and how good it could be.

use super::data::{DataError, Encoder, Example as Line, Tokens, Words};
use super::grammar;
use super::teacher::{GoldTeacher, Noise};
use super::tokenizer::{Tokenizer, TokenizerError};
use super::{Draw, Example, LanguageModel, Progress, Reference, Supervised, TextComparison, TextPpo, TextReward};
use crate::basics::{Seed, Stream};
use crate::learn::LearnError;
use crate::settings::{OptimiserSettings, SupervisedSettings, TextPpoSettings, TextRewardSettings};
use rand::Rng;

/// Why the chain stopped.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A trainer.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A tokenizer that ends nothing.
    #[error("the tokenizer has no token that ends a text, so that no review would end; give one that has")]
    NoEnd,
}

/// A stage of the chain, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The base model learns the language from documents.
    Base,
    /// The supervised model learns to answer prompts.
    Supervised,
    /// Pairs are written and judged.
    Judging,
    /// The reward model learns from the judgements.
    Reward,
    /// PPO follows the reward model.
    Ppo,
    /// Policy and supervised model are compared by the gold score.
    Measuring,
}

/// How long each stage is, and how it learns.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainPlan {
    /// Decides everything.
    pub seed: u64,
    /// Documents that are written for the base model.
    pub documents: usize,
    /// Gradient steps of the base model.
    pub base_steps: u64,
    /// Reviews that are written for the supervised model.
    pub reviews: usize,
    /// Gradient steps of the supervised model.
    pub supervised_steps: u64,
    /// Judgements.
    pub judgements: usize,
    /// How the teacher errs.
    pub noise: Noise,
    /// Gradient steps of the reward model.
    pub reward_steps: u64,
    /// Updates of PPO.
    pub updates: u64,
    /// Prompts and pairs that stages are measured on.
    pub tests: usize,
    /// How the base model learns.
    pub base: SupervisedSettings,
    /// How the supervised model learns.
    pub supervised: SupervisedSettings,
    /// How the reward model learns.
    pub reward: TextRewardSettings,
    /// How PPO learns.
    pub ppo: TextPpoSettings,
}

impl Default for ChainPlan {
    fn default() -> ChainPlan {
        let at = |learning_rate: f64| OptimiserSettings { learning_rate, ..OptimiserSettings::default() };
        let ppo = TextPpoSettings::default();
        ChainPlan {
            seed: 0,
            documents: 20_000,
            base_steps: 600,
            reviews: 8_000,
            supervised_steps: 200,
            judgements: 500,
            noise: Noise::default(),
            reward_steps: 150,
            updates: 80,
            tests: 300,
            base: SupervisedSettings { batch: 32, optimiser: at(2e-3), ..SupervisedSettings::default() },
            supervised: SupervisedSettings { batch: 32, optimiser: at(5e-4), ..SupervisedSettings::default() },
            reward: TextRewardSettings { batch: 16, optimiser: at(3e-4), ..TextRewardSettings::default() },
            ppo: TextPpoSettings {
                max_new_tokens: 64,
                kl: crate::settings::KlSettings { horizon: 1_000.0, ..ppo.kl.clone() },
                optimiser: at(2e-4),
                ..ppo
            },
        }
    }
}

/// How good each stage is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ChainReport {
    /// Mean negative log-likelihood of documents that were held back, nats a token.
    pub base_loss: f64,
    /// The same of reviews.
    pub supervised_loss: f64,
    /// Mean gold score of the supervised model's reviews.
    pub supervised_score: f64,
    /// The probability that an answer of the same teacher agrees with the reward model, mean over new pairs.
    pub reward_accuracy: f64,
    /// The same for the gold score itself: no reward model can do better.
    pub reward_ceiling: f64,
    /// Mean gold score of the policy's reviews.
    pub policy_score: f64,
    /// Share of prompts where the policy's review has the higher gold score; equal scores count half.
    pub win_rate: f64,
    /// Share of the policy's reviews that come to an end.
    pub stopped: f64,
    /// Mean KL of a completion over the last quarter of the updates, nats.
    pub last_quarter_kl: f64,
    /// What the KL was steered to.
    pub kl_target: f64,
    /// KL, reward and price of a nat after each update.
    pub updates: Vec<[f64; 3]>,
}

/// What the chain leaves behind.
pub struct Chain<M> {
    /// The model that learnt the language.
    pub base: M,
    /// The one that learnt to answer.
    pub supervised: M,
    /// The one that learnt from judgements.
    pub policy: M,
    /// How good they are.
    pub report: ChainReport,
}

/// Told of every step (the stage, steps done, and of how many), says whether to stop.
pub type Follow<'a> = &'a mut dyn FnMut(Stage, u64, u64) -> bool;

/// Runs the chain from a model of random weights. `copy` gives a model of the same numbers that shares none that are trained. The same
/// plan on the same processor gives the same report.
///
/// # Errors
///
/// Settings that cannot work, numbers that are not finite, or a wish to stop ([`LearnError::Cancelled`]).
pub fn run<M: LanguageModel>(
    model: M,
    copy: &dyn Fn(&M) -> M,
    tokenizer: &Tokenizer,
    plan: &ChainPlan,
    follow: Follow,
) -> Result<Chain<M>, ChainError> {
    let seed = Seed(plan.seed);
    let end = tokenizer.eos().ok_or(ChainError::NoEnd)?;
    let words = Language { tokenizer, end };

    // Base and supervised: the same loss on other texts. A tenth is held back.
    let mut stream = seed.stream("chain.documents");
    let documents: Vec<Example> =
        (0..plan.documents).map(|_| words.document(&grammar::document(&mut stream))).collect::<Result<_, _>>()?;
    let (base, base_loss) =
        learn(model, &documents, &plan.base, plan.base_steps, seed, &mut |done, of| follow(Stage::Base, done, of))?;
    let mut stream = seed.stream("chain.reviews");
    let reviews: Vec<Example> = (0..plan.reviews)
        .map(|_| {
            let review = grammar::review(&mut stream);
            words.review(&review.prompt, &review.completion)
        })
        .collect::<Result<_, _>>()?;
    let (supervised, supervised_loss) =
        learn(copy(&base), &reviews, &plan.supervised, plan.supervised_steps, seed, &mut |done, of| {
            follow(Stage::Supervised, done, of)
        })?;

    // The teacher judges what the supervised model writes.
    let mut writer = Writer { words: &words, draws: seed.stream("chain.draws"), most: plan.ppo.max_new_tokens };
    let mut prompts = seed.stream("chain.prompts");
    let mut teacher = GoldTeacher::new(plan.noise, seed.stream("chain.teacher"));
    let total = (plan.judgements + plan.tests) as u64;
    let mut pairs = Vec::new();
    while pairs.len() < plan.judgements + plan.tests {
        go_on(follow(Stage::Judging, pairs.len() as u64, total))?;
        let asked: Vec<String> = (0..32).map(|_| grammar::prompt(&mut prompts)).collect();
        let left = writer.write(&supervised, &asked)?;
        let right = writer.write(&supervised, &asked)?;
        // The same words twice are no question.
        pairs.extend(left.into_iter().zip(right).filter(|(left, right)| left.text != right.text));
    }
    pairs.truncate(plan.judgements + plan.tests);
    let comparison = |(left, right): &(Written, Written), choice| {
        TextComparison::new(left.prompt.clone(), left.tokens.clone(), right.tokens.clone(), choice)
    };
    let comparisons: Vec<TextComparison> = pairs[..plan.judgements]
        .iter()
        .filter_map(|pair| comparison(pair, teacher.judge(pair.0.gold, pair.1.gold)))
        .collect();

    // The reward model, scaled by what the supervised model writes, before and after.
    let samples: Vec<Example> = pairs.iter().map(|(left, _)| left.example()).collect();
    let mut reward = TextReward::new(copy(&supervised), &plan.reward, seed)?;
    reward.plan(plan.reward_steps);
    reward.normalise(&samples, &mut |_| false)?;
    for step in 0..plan.reward_steps {
        go_on(follow(Stage::Reward, step, plan.reward_steps))?;
        reward.step(&comparisons, &mut |_: Progress| false)?;
    }
    reward.normalise(&samples, &mut |_| false)?;
    let (reward_accuracy, reward_ceiling) = agreement(&reward, &pairs[plan.judgements..], &plan.noise)?;

    // PPO on the reward model's word alone.
    let asked: Vec<Vec<u32>> =
        grammar::prompts().iter().map(|prompt| words.prompt(prompt)).collect::<Result<_, _>>()?;
    let reference = Reference::Model(copy(&supervised));
    let mut ppo = TextPpo::new(copy(&supervised), reference, &[end], &plan.ppo, seed)?;
    ppo.plan(plan.updates);
    let mut updates: Vec<[f64; 3]> = Vec::new();
    for update in 0..plan.updates {
        go_on(follow(Stage::Ppo, update, plan.updates))?;
        let episodes = ppo.collect(&asked, &mut |_| false)?;
        let written: Vec<Example> =
            episodes.iter().map(|e| Example { prompt: e.prompt.clone(), completion: e.completion.clone() }).collect();
        let scores = reward.rewards(&written, &mut |_| false)?;
        let stats = ppo.learn(&episodes, &scores, &mut |_| false)?;
        updates.push([stats.kl, stats.reward, stats.beta]);
    }
    let policy = copy(ppo.policy());

    // Policy and supervised model answer the same prompts.
    go_on(follow(Stage::Measuring, 0, 1))?;
    let asked: Vec<String> = (0..plan.tests).map(|_| grammar::prompt(&mut prompts)).collect();
    let ours = writer.write(&policy, &asked)?;
    let theirs = writer.write(&supervised, &asked)?;
    let wins = ours.iter().zip(&theirs).map(|(ours, theirs)| match ours.gold - theirs.gold {
        gap if gap > 0.0 => 1.0,
        0.0 => 0.5,
        _ => 0.0,
    });
    let last = &updates[updates.len() - updates.len().div_ceil(4)..];
    let report = ChainReport {
        base_loss,
        supervised_loss,
        supervised_score: mean(theirs.iter().map(|review| review.gold)),
        reward_accuracy,
        reward_ceiling,
        policy_score: mean(ours.iter().map(|review| review.gold)),
        win_rate: mean(wins),
        stopped: mean(ours.iter().map(|review| f64::from(u8::from(review.stopped)))),
        last_quarter_kl: mean(last.iter().map(|update| update[0])),
        kl_target: plan.ppo.kl.target,
        updates,
    };
    Ok(Chain { base, supervised, policy, report })
}

/// Trains on nine tenths of the examples; returns the model and its loss on the rest.
fn learn<M: LanguageModel>(
    model: M,
    examples: &[Example],
    settings: &SupervisedSettings,
    steps: u64,
    seed: Seed,
    follow: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<(M, f64), ChainError> {
    let (held, taught) = examples.split_at((examples.len() / 10).min(500));
    let mut trainer = Supervised::new(model, settings, seed)?;
    trainer.plan(steps);
    for step in 0..steps {
        go_on(follow(step, steps))?;
        trainer.step(taught, &mut |_| false)?;
    }
    let loss = trainer.evaluate(held, &mut |_| false)?;
    Ok((trainer.into_model(), loss))
}

/// How often an answer of this teacher agrees with the reward model on these pairs, and with the gold score.
fn agreement<M: LanguageModel>(
    reward: &TextReward<M>,
    pairs: &[(Written, Written)],
    noise: &Noise,
) -> Result<(f64, f64), ChainError> {
    let side = |which: fn(&(Written, Written)) -> &Written| -> Vec<Example> {
        pairs.iter().map(|pair| which(pair).example()).collect()
    };
    let left = reward.rewards(&side(|pair| &pair.0), &mut |_| false)?;
    let right = reward.rewards(&side(|pair| &pair.1), &mut |_| false)?;
    let agrees = pairs.iter().zip(left.iter().zip(&right)).map(|(pair, (left, right))| {
        let says_left = noise.probability_left(pair.0.gold, pair.1.gold);
        if left > right { says_left } else { 1.0 - says_left }
    });
    Ok((mean(agrees), mean(pairs.iter().map(|pair| noise.ceiling(pair.0.gold, pair.1.gold)))))
}

fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = numbers.fold((0_usize, 0.0), |(count, sum), x| (count + 1, sum + x));
    sum / count.max(1) as f64
}

fn go_on(stop: bool) -> Result<(), LearnError> {
    if stop { Err(LearnError::Cancelled) } else { Ok(()) }
}

/// The grammar's texts in tokens.
struct Language<'a> {
    tokenizer: &'a Tokenizer,
    end: u32,
}

impl Language<'_> {
    fn encode(&self, line: &Line) -> Result<Tokens, ChainError> {
        let encoder = Encoder { tokenizer: self.tokenizer, tldr: Default::default() };
        // Only posts of TL;DR are ever left out.
        Ok(encoder.encode(line)?.unwrap_or(Tokens::Whole(Vec::new())))
    }

    fn document(&self, text: &str) -> Result<Example, ChainError> {
        let tokens = self.encode(&Line::Whole(Words::Text(text.to_owned())))?;
        // What stands before a document is the end of the one before.
        let completion = if let Tokens::Whole(tokens) = tokens { tokens } else { Vec::new() };
        Ok(Example { prompt: vec![self.end], completion })
    }

    fn prompt(&self, prompt: &str) -> Result<Vec<u32>, ChainError> {
        let mut tokens = vec![self.end];
        tokens.extend(self.encode(&Line::Prompt(Words::Text(prompt.to_owned())))?.prompt());
        Ok(tokens)
    }

    fn review(&self, prompt: &str, completion: &str) -> Result<Example, ChainError> {
        let mut tokens = self.tokenizer.encode(completion, false)?;
        tokens.push(self.end);
        Ok(Example { prompt: self.prompt(prompt)?, completion: tokens })
    }
}

/// A completion and what it is worth.
struct Written {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    text: String,
    gold: f64,
    stopped: bool,
}

impl Written {
    fn example(&self) -> Example {
        Example { prompt: self.prompt.clone(), completion: self.tokens.clone() }
    }
}

/// Has models answer prompts.
struct Writer<'a> {
    words: &'a Language<'a>,
    draws: Stream,
    most: usize,
}

impl Writer<'_> {
    /// An answer to each prompt, with its gold score.
    fn write(&mut self, model: &impl LanguageModel, prompts: &[String]) -> Result<Vec<Written>, ChainError> {
        let tokens: Vec<Vec<u32>> = prompts.iter().map(|prompt| self.words.prompt(prompt)).collect::<Result<_, _>>()?;
        let mut all = Vec::with_capacity(prompts.len());
        for (prompts, tokens) in prompts.chunks(64).zip(tokens.chunks(64)) {
            let rows: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
            let stop = vec![self.words.end];
            let draw = Draw { temperature: 1.0, max_new_tokens: self.most, stop, seed: self.draws.next_u64() };
            for ((prompt, row), drawn) in prompts.iter().zip(&rows).zip(model.complete(&rows, &draw, &mut || true)) {
                let text = self.words.tokenizer.decode(&drawn.tokens, true)?;
                let gold = grammar::score(prompt, &text);
                let (prompt, stopped) = (row.to_vec(), drawn.stopped);
                all.push(Written { prompt, tokens: drawn.tokens, text, gold, stopped });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Tiny;
    use super::*;

    fn plan() -> ChainPlan {
        let whole = ChainPlan::default();
        ChainPlan {
            documents: 300,
            base_steps: 12,
            reviews: 300,
            supervised_steps: 12,
            judgements: 40,
            reward_steps: 6,
            updates: 4,
            tests: 24,
            ppo: TextPpoSettings { max_new_tokens: 8, batch: 16, minibatch: 8, epochs: 2, ..whole.ppo.clone() },
            ..whole
        }
    }

    fn tokenizer() -> Tokenizer {
        let mut stream = Seed(1).stream("texts");
        let texts: Vec<String> = (0..500).map(|_| grammar::document(&mut stream)).collect();
        Tokenizer::train(texts.iter().map(String::as_str), 400).unwrap()
    }

    #[test]
    fn one_plan_gives_one_report_stage_by_stage() {
        let tokenizer = tokenizer();
        let run = |stages: &mut Vec<Stage>| {
            let mut follow = |stage, done, of| {
                assert!(done < of);
                if stages.last() != Some(&stage) {
                    stages.push(stage);
                }
                false
            };
            super::run(Tiny::new(400, 16, 1), &Tiny::copy, &tokenizer, &plan(), &mut follow).unwrap().report
        };
        let (mut stages, mut again) = (Vec::new(), Vec::new());
        let report = run(&mut stages);
        assert_eq!(run(&mut again), report);
        let all = [Stage::Base, Stage::Supervised, Stage::Judging, Stage::Reward, Stage::Ppo, Stage::Measuring];
        assert_eq!((stages.as_slice(), again.as_slice()), (&all[..], &all[..]));
        // Nothing beats the ceiling, and the first update meets the reference itself.
        assert!(report.reward_accuracy <= report.reward_ceiling + 1e-12 && report.reward_ceiling <= 0.95 + 1e-12);
        assert_eq!(report.updates.len(), 4);
        assert!(report.updates[0][0].abs() < 1e-4, "{report:?}");
        // A few steps on texts of 400 tokens beat guessing.
        assert!(report.base_loss < 400_f64.ln() && report.supervised_loss < report.base_loss + 1.0, "{report:?}");
        assert!((0.0..=1.0).contains(&report.win_rate) && (-3.0..=2.0).contains(&report.policy_score));
    }

    #[test]
    fn every_stage_can_be_stopped() {
        let tokenizer = tokenizer();
        for stage in [Stage::Base, Stage::Judging, Stage::Reward, Stage::Ppo, Stage::Measuring] {
            let mut follow = |at, _, _| at == stage;
            let stopped = super::run(Tiny::new(400, 16, 1), &Tiny::copy, &tokenizer, &plan(), &mut follow);
            assert!(matches!(stopped.err(), Some(ChainError::Learn(LearnError::Cancelled))), "{stage:?}");
        }
    }
}
