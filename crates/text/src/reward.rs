//! Reward models of text: a scalar head on the hidden state of the last token, fitted to judgements by the same
//! Bradley–Terry likelihood as for robots.

use super::heads::ScalarHead;
use super::hidden::Hidden;
use super::language_model::LanguageModel;
use super::minibatch::MinibatchTrainer;
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::rows::{Example, Rows, up_to_last_token};
use flipside_core::settings::TextRewardSettings;
use flipside_core::{Array, Arrays, Choice, Seed};
use flipside_learn::{LearnError, Reader, numbers, preference_loss, signed_margin};
use tch::{Kind, Tensor};

/// Two completions of one prompt, with their label.
#[derive(Clone, Debug, PartialEq)]
pub struct TextComparison {
    /// The prompt of both.
    pub prompt: Vec<u32>,
    /// The completion on the left, or the chosen one of a file.
    pub left: Vec<u32>,
    /// The completion on the right, or the rejected one.
    pub right: Vec<u32>,
    /// The label: the probability that the left one is better, which is 1, 0, or ½ for a tie.
    pub target: f32,
    /// How much further ahead the better one must be for the same likelihood, in log-odds: the margin m in the loss
    /// −ln σ(R_chosen − R_rejected − m) of Llama 2 (Touvron et al. 2023, equation 2) and TRL. A tie has none.
    pub margin: f32,
}

impl TextComparison {
    /// The comparison with the label of this judgement; `None` for a skip, which has no label. `margin` is that of a
    /// completion that is much better, [`TextRewardSettings::margin`].
    pub fn new(
        prompt: Vec<u32>,
        left: Vec<u32>,
        right: Vec<u32>,
        choice: Choice,
        margin: f64,
    ) -> Option<TextComparison> {
        let margin = if choice.is_much() { margin as f32 } else { 0.0 };
        choice.target().map(|target| TextComparison { prompt, left, right, target, margin })
    }
}

/// The trainer: a reward model, its optimiser and the position in the comparisons.
pub struct TextReward<M> {
    reward: RewardModel<M>,
    training: MinibatchTrainer,
}

/// A model and its head. The reward is gain · head + bias.
struct RewardModel<M> {
    model: M,
    head: ScalarHead,
    gain: f64,
    bias: f64,
    /// Share of judgements that is assumed to be random: ε in the Bradley–Terry likelihood.
    error_rate: f64,
    /// c of the term c · (R_left + R_right)² of the loss.
    centring: f64,
}

/// Statistics of a step or an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextRewardStats {
    /// Mean loss, nats.
    pub loss: f64,
    /// Share of the pairs without a tie whose better side has the higher reward; equal rewards count half. 0 if all are
    /// ties.
    pub accuracy: f64,
    /// Mean reward of the better side minus that of the other, over the pairs without a tie.
    pub margin: f64,
    /// Gradient norm before clipping; 0 without a step.
    pub grad_norm: f64,
    /// Adam's learning rate; 0 without a step.
    pub learning_rate: f64,
}

impl<M: LanguageModel> TextReward<M> {
    /// A reward model with a random head on this model. The seed decides the head and the order of comparisons.
    pub fn new(model: M, settings: &TextRewardSettings, seed: Seed) -> Result<TextReward<M>, LearnError> {
        let head = ScalarHead::random(model.width(), model.device(), &mut seed.stream("text.reward.head"));
        TextReward::with_head(model, head, settings, seed)
    }

    /// A reward model with a given head, such as one that was loaded.
    pub fn with_head(
        model: M,
        head: ScalarHead,
        settings: &TextRewardSettings,
        seed: Seed,
    ) -> Result<TextReward<M>, LearnError> {
        settings.check().map_err(LearnError::Settings)?;
        let leaves = model.trainable().into_iter().chain(head.trainable()).collect();
        let training = MinibatchTrainer::new(
            leaves,
            &settings.optimiser,
            settings.batch_size,
            settings.gradient_accumulation_steps,
            seed.stream("text.reward.comparisons"),
            seed,
        )?;
        let (error_rate, centring) = (settings.error_rate, settings.center_rewards_coefficient);
        let reward = RewardModel { model, head, gain: 1.0, bias: 0.0, error_rate, centring };
        Ok(TextReward { reward, training })
    }

    /// Sets the total number of steps, over which the learning rate decays. It is saved with the state.
    pub fn plan(&mut self, steps: u64) {
        self.training.plan(steps);
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.training.steps()
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.reward.model
    }

    /// The head, before gain and bias.
    pub fn head(&self) -> &ScalarHead {
        &self.reward.head
    }

    /// Gain and bias: the reward is gain · head + bias.
    pub fn gain_and_bias(&self) -> [f64; 2] {
        [self.reward.gain, self.reward.bias]
    }

    /// Sets gain and bias, for a model that was normalised before.
    pub fn set_gain_and_bias(&mut self, [gain, bias]: [f64; 2]) {
        (self.reward.gain, self.reward.bias) = (gain, bias);
    }

    /// Replaces the head, before the first step: with what a linear model has learned from the same judgements,
    /// training begins where that ends (Kumar et al. 2022, "Fine-tuning can distort pretrained features").
    pub fn set_head(&mut self, weight: &[f32], bias: f64) {
        self.reward.head.set(weight, bias as f32);
    }

    /// Takes one gradient step on the next batch of `comparisons`, a list that should only grow between calls.
    /// `on_progress` is called before every part of the batch (gradient accumulation) and may cancel. On any error the
    /// trainer is unchanged.
    pub fn step(
        &mut self,
        comparisons: &[TextComparison],
        on_progress: ProgressFn,
    ) -> Result<TextRewardStats, LearnError> {
        if comparisons.is_empty() {
            return Err(LearnError::Settings("there is no comparison to learn from".to_owned()));
        }
        let (reward, mut tally) = (&self.reward, Tally::default());
        let step = self.training.step(comparisons, on_progress, |minibatch, part, dropout| {
            let (loss, difference, hidden) =
                reward.loss(part, |rows| rows.hidden_for_loss(&reward.model, Some(dropout)));
            tally.count(&loss, &difference, part);
            if !tally.loss.is_finite() {
                return Err(LearnError::NotFinite { what: "the loss of the comparisons".to_owned() });
            }
            Ok(Some((loss / minibatch.len() as f64, hidden)))
        })?;
        Ok(TextRewardStats { grad_norm: step.grad_norm, learning_rate: step.learning_rate, ..tally.stats() })
    }

    /// Loss, accuracy and margin of comparisons, without learning.
    pub fn evaluate(
        &self,
        comparisons: &[TextComparison],
        on_progress: ProgressFn,
    ) -> Result<TextRewardStats, LearnError> {
        let all: Vec<&TextComparison> = comparisons.iter().collect();
        let parts = all.chunks(self.training.part_size());
        let (of, mut tally) = (parts.len(), Tally::default());
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            let hidden = |rows: &Rows| Hidden::with_graph(rows.hidden(&self.reward.model, true));
            let (loss, difference, _) = tch::no_grad(|| self.reward.loss(part, hidden));
            tally.count(&loss, &difference, part);
        }
        Ok(tally.stats())
    }

    /// The reward of the left completion of each comparison minus that of the right one.
    pub fn differences(&self, comparisons: &[TextComparison], on_progress: ProgressFn) -> Result<Vec<f32>, LearnError> {
        let side = |c: &TextComparison, completion: &Vec<u32>| Example {
            prompt: c.prompt.clone(),
            completion: completion.clone(),
        };
        let examples: Vec<Example> = comparisons.iter().flat_map(|c| [side(c, &c.left), side(c, &c.right)]).collect();
        let rewards = self.rewards(&examples, on_progress)?;
        Ok(rewards.chunks_exact(2).map(|pair| pair[0] - pair[1]).collect())
    }

    /// The rewards of completions.
    pub fn rewards(&self, examples: &[Example], on_progress: ProgressFn) -> Result<Vec<f32>, LearnError> {
        let raw = self.unscaled(examples, on_progress)?;
        let RewardModel { gain, bias, .. } = self.reward;
        Ok(raw.into_iter().map(|x| (f64::from(x) * gain + bias) as f32).collect())
    }

    fn unscaled(&self, examples: &[Example], on_progress: ProgressFn) -> Result<Vec<f32>, LearnError> {
        let RewardModel { model, head, .. } = &self.reward;
        let row = |e| up_to_last_token(Example::parts(e), model.score_pad());
        let rows: Vec<(&[u32], &[u32])> = examples.iter().map(row).collect();
        let parts = rows.chunks(2 * self.training.part_size());
        let (of, mut rewards) = (parts.len(), Vec::with_capacity(rows.len()));
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            let rows = Rows::new(part, model.device());
            let last = || rows.at_last(&rows.hidden(model, true));
            rewards.extend(tch::no_grad(|| numbers(&head.forward(&last()))));
        }
        Ok(rewards)
    }

    /// Sets gain and bias so that the rewards of these samples, which the reference policy generated, have mean 0 and
    /// standard deviation 1. Call it before the first step and after the last (Ziegler et al. 2019, section 2.1). Where
    /// the model cannot keep a bias ([`LanguageModel::keeps_score_bias`]), only the standard deviation becomes 1, so
    /// that transformers computes the same rewards from it; the mean is left to the critic of PPO. On an error nothing
    /// has changed.
    pub fn normalise(&mut self, samples: &[Example], on_progress: ProgressFn) -> Result<(), LearnError> {
        let raw = self.unscaled(samples, on_progress)?;
        let n = raw.len() as f64;
        let mean = raw.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let std = (raw.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
        if !std.is_finite() {
            return Err(LearnError::NotFinite { what: "a reward".to_owned() });
        }
        // Rewards of equal samples may still differ by rounding.
        if std <= 1e-6 * mean.abs() {
            let problem =
                "the rewards of the reference's samples do not vary: give more samples, or train the reward model";
            return Err(LearnError::Settings(problem.to_owned()));
        }
        let bias = if self.reward.model.keeps_score_bias() { -mean / std } else { 0.0 };
        self.set_gain_and_bias([1.0 / std, bias]);
        Ok(())
    }

    /// Sets the bias so that the rewards of these samples, the references of a data set, have mean 0, and leaves the
    /// scale as it was learned (Stiennon et al. 2020, section 3.4). Where the model cannot keep a bias, nothing
    /// changes, as in [`TextReward::normalise`]. On an error nothing has changed.
    pub fn centre(&mut self, samples: &[Example], on_progress: ProgressFn) -> Result<(), LearnError> {
        let raw = self.unscaled(samples, on_progress)?;
        let mean = raw.iter().map(|&x| f64::from(x)).sum::<f64>() / raw.len().max(1) as f64;
        if !mean.is_finite() {
            return Err(LearnError::NotFinite { what: "a reward".to_owned() });
        }
        let bias = if self.reward.model.keeps_score_bias() { -mean } else { 0.0 };
        self.set_gain_and_bias([1.0, bias]);
        Ok(())
    }

    /// The whole state: the trained parameters (including the head) under `model.*`, `adam.*`, `cursor`, `progress` and
    /// `scale` (gain and bias).
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = self.training.to_arrays();
        arrays.insert("scale".to_owned(), Array::f64(&[2], self.gain_and_bias().to_vec()));
        arrays
    }

    /// Restores a state from [`TextReward::to_arrays`], of the same model. On the CPU, training continues bit for bit.
    /// On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let reader = Reader(arrays);
        let scale = reader.f64("scale", &[2])?;
        self.training.load_arrays(reader)?;
        self.set_gain_and_bias([scale[0], scale[1]]);
        Ok(())
    }
}

impl<M: LanguageModel> RewardModel<M> {
    /// The sum of the losses, the differences of the rewards (left minus right), and the hidden states that both were
    /// computed from.
    fn loss<'m>(
        &self,
        part: &[&TextComparison],
        hidden: impl FnOnce(&Rows) -> Hidden<'m>,
    ) -> (Tensor, Tensor, Hidden<'m>) {
        let left = part.iter().map(|c| (&c.prompt[..], &c.left[..]));
        let all = left.chain(part.iter().map(|c| (&c.prompt[..], &c.right[..])));
        let rows: Vec<_> = all.map(|row| up_to_last_token(row, self.model.score_pad())).collect();
        let rows = Rows::new(&rows, self.model.device());
        let hidden = hidden(&rows);
        let rewards = self.head.forward(&rows.at_last(hidden.states())) * self.gain;
        let n = part.len() as i64;
        let difference = rewards.narrow(0, 0, n) - rewards.narrow(0, n, n);
        let column = |of: fn(&TextComparison) -> f32| {
            let numbers: Vec<f32> = part.iter().map(|c| of(c)).collect();
            Tensor::from_slice(&numbers).to_device(self.model.device())
        };
        let ahead = &difference - column(|c| signed_margin(c.target, c.margin));
        let mut loss = preference_loss(&ahead, &column(|c| c.target), self.error_rate);
        if self.centring > 0.0 {
            let sum = rewards.narrow(0, 0, n) + rewards.narrow(0, n, n) + 2.0 * self.bias;
            loss += sum.square() * self.centring;
        }
        (loss.sum(Kind::Float), difference, hidden)
    }
}

/// Sums over pairs.
#[derive(Default)]
struct Tally {
    loss: f64,
    correct: f64,
    margin: f64,
    pairs: usize,
    /// Pairs without a tie.
    decided: usize,
}

impl Tally {
    fn count(&mut self, loss: &Tensor, difference: &Tensor, part: &[&TextComparison]) {
        self.loss += loss.double_value(&[]);
        self.pairs += part.len();
        for (difference, comparison) in numbers(difference).into_iter().zip(part) {
            if comparison.target != 0.5 {
                let margin = if comparison.target > 0.5 { difference } else { -difference };
                self.margin += f64::from(margin);
                self.correct += if margin > 0.0 { 1.0 } else { f64::from(u8::from(margin == 0.0)) * 0.5 };
                self.decided += 1;
            }
        }
    }

    fn stats(self) -> TextRewardStats {
        let decided = self.decided.max(1) as f64;
        TextRewardStats {
            loss: self.loss / self.pairs.max(1) as f64,
            accuracy: self.correct / decided,
            margin: self.margin / decided,
            ..TextRewardStats::default()
        }
    }
}
