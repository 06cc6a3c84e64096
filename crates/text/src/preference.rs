//! Learning from preferences without a reward model: direct preference optimisation (DPO) and its relatives, with
//! exchangeable losses.
//!
//! One trainer serves them all. [`TextPreference::step`] learns from pairs with the losses of `preference/losses.rs`,
//! and [`TextPreference::step_labelled`] from single completions by KTO. There is no dropout: the first loss is then
//! exactly that of a policy that equals its reference (ln 2 for the sigmoid loss, 1 for hinge, 1/(4τ²) for IPO, ½ for
//! KTO).

#[path = "preference/losses.rs"]
mod losses;
#[path = "preference/online.rs"]
mod online;
#[cfg(test)]
#[path = "preference/tests.rs"]
mod tests;

use super::hidden::Hidden;
use super::language_model::LanguageModel;
use super::minibatch::{GradientStep, MinibatchTrainer};
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::reward::TextComparison;
use super::rollout::Reference;
use super::rows::{Rows, check_prompts};
use flipside_core::settings::{PreferenceLoss, TextPreferenceSettings};
use flipside_core::{Array, Arrays, Seed};
use flipside_learn::{LearnError, Reader, numbers, signed_margin};
use losses::{PairTerms, kto_losses, pair_losses};
pub use online::{TextOnlineDpo, TextOnlineDpoStats};
use std::ops::Range;
use tch::{Kind, Tensor};

/// A completion, and whether it is a good one: what KTO learns from.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledCompletion {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The completion.
    pub completion: Vec<u32>,
    /// Whether it is a good one.
    pub good: bool,
}

impl LabelledCompletion {
    /// The completions of a pair: the better one is good and the other bad. A tie gives none.
    pub fn of_pair(pair: &TextComparison) -> Vec<LabelledCompletion> {
        let side = |completion: &[u32], good| LabelledCompletion {
            prompt: pair.prompt.clone(),
            completion: completion.to_vec(),
            good,
        };
        match pair.target {
            0.5 => Vec::new(),
            target => vec![side(&pair.left, target > 0.5), side(&pair.right, target < 0.5)],
        }
    }
}

/// The trainer: a policy, its reference, the optimiser and the position in the data.
pub struct TextPreference<M> {
    models: Models<M>,
    training: MinibatchTrainer,
    /// log π_ref of both completions of each pair, summed over tokens, if they were computed once.
    kept: Vec<[f32; 2]>,
}

/// What the losses are computed from.
struct Models<M> {
    settings: TextPreferenceSettings,
    policy: M,
    /// `None` where none is needed, and where the reference's log-probabilities are kept.
    reference: Option<Reference<M>>,
}

/// A pair with the kept log-probabilities of its reference, if they are kept.
type Item<'a> = (&'a TextComparison, Option<[f32; 2]>);

/// Statistics of a step or an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextPreferenceStats {
    /// Mean loss.
    pub loss: f64,
    /// Share of the pairs without a tie whose better completion is ahead; equal ones count half. Of single completions,
    /// the share on its own side of the mean log-ratio. 0 if there are none.
    pub accuracy: f64,
    /// How far the better completion is ahead, times β, the mean over the pairs without a tie. Of single completions,
    /// how far the good ones are ahead of the bad ones; 0 if one class is missing.
    pub margin: f64,
    /// log π of the better completions, summed over tokens, mean over completions, nats; `None` if there are none.
    pub chosen_log_prob: Option<f64>,
    /// The same of the worse completions.
    pub rejected_log_prob: Option<f64>,
    /// log π − log π_ref, summed over tokens, mean over all completions, nats; `None` without a reference. With KTO, of
    /// completions that belong to other prompts, and not below 0: an estimate of the KL.
    pub log_ratio: Option<f64>,
    /// Gradient norm before clipping; 0 without a step.
    pub grad_norm: f64,
    /// Adam's learning rate; 0 without a step.
    pub learning_rate: f64,
}

impl<M: LanguageModel> TextPreference<M> {
    /// A trainer of the policy's trainable parameters. The seed decides the order of the data.
    ///
    /// `None` as reference is for losses that have none ([`PreferenceLoss::has_reference`]), which pass over any other,
    /// and for a policy that is its own reference at the start: its log-probabilities are then kept by
    /// [`TextPreference::keep_reference`].
    /// [`Reference::Base`] is refused if the policy trains more than adapters.
    pub fn new(
        policy: M,
        reference: Option<Reference<M>>,
        settings: &TextPreferenceSettings,
        seed: Seed,
    ) -> Result<TextPreference<M>, LearnError> {
        settings.check().map_err(LearnError::Settings)?;
        let training = MinibatchTrainer::new(
            policy.trainable(),
            &settings.optimiser,
            settings.batch_size,
            settings.gradient_accumulation_steps,
            seed.stream("text.preference.examples"),
            seed,
        )?;
        if matches!(reference, Some(Reference::Base)) && trains_its_base(&policy) {
            return Err(LearnError::Settings(
                "more than adapters is trained, so the policy without adapters is not its reference: keep a copy of the \
                 model or its log-probabilities"
                    .to_owned(),
            ));
        }
        if settings.loss == PreferenceLoss::Kto && reference.is_none() {
            return Err(LearnError::Settings(
                "KTO needs its reference in every step: keep a copy of the model, or train adapters".to_owned(),
            ));
        }
        Ok(TextPreference {
            models: Models { settings: settings.clone(), policy, reference },
            training,
            kept: Vec::new(),
        })
    }

    /// Sets the total number of steps, over which the learning rate decays. It is saved with the state.
    pub fn plan(&mut self, steps: u64) {
        self.training.plan(steps);
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.training.steps()
    }

    /// The policy.
    pub fn policy(&self) -> &M {
        &self.models.policy
    }

    /// Returns the policy.
    pub fn into_policy(self) -> M {
        self.models.policy
    }

    /// Whether the reference's log-probabilities must be kept before the first step.
    pub fn must_keep_reference(&self) -> bool {
        self.models.must_keep() && self.kept.is_empty()
    }

    /// Computes the reference's log-probabilities of these pairs and keeps them with the state. From now on every step
    /// takes this list or its beginning, and none computes the reference. If the trainer was given no reference, it is
    /// the policy as it is now, so this must come before the first step. On an error nothing has changed.
    pub fn keep_reference(&mut self, pairs: &[TextComparison], on_progress: ProgressFn) -> Result<(), LearnError> {
        check_pairs(pairs)?;
        if self.models.must_keep() && self.training.steps() > 0 {
            let problem = "the policy has moved, so its reference is lost: keep the log-probabilities before a step";
            return Err(LearnError::Settings(problem.to_owned()));
        }
        if self.models.settings.loss == PreferenceLoss::Kto {
            let problem = "KTO pairs the completions of every batch anew, so its reference cannot be computed once";
            return Err(LearnError::Settings(problem.to_owned()));
        }
        let parts = pairs.chunks(self.training.part_size());
        let (of, mut kept) = (parts.len(), Vec::with_capacity(pairs.len()));
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            let items: Vec<Item> = part.iter().map(|pair| (pair, None)).collect();
            let rows = pair_rows(&items, &self.models.policy);
            let sums = numbers(&self.models.reference_sums(&rows));
            let (left, right) = sums.split_at(part.len());
            kept.extend(left.iter().zip(right).map(|(&left, &right)| [left, right]));
        }
        if kept.iter().flatten().any(|sum| !sum.is_finite()) {
            return Err(LearnError::NotFinite { what: "the reference's log-probability of a completion".to_owned() });
        }
        self.kept = kept;
        Ok(())
    }

    /// Takes one gradient step on the next batch of `pairs`, a list that should only grow between calls. `on_progress`
    /// is called before every part of the batch (gradient accumulation) and may cancel. On any error the trainer is
    /// unchanged.
    pub fn step(
        &mut self,
        pairs: &[TextComparison],
        on_progress: ProgressFn,
    ) -> Result<TextPreferenceStats, LearnError> {
        let items = items(&self.models, &self.kept, pairs, 0..pairs.len())?;
        let (models, mut tally) = (&self.models, Tally::default());
        let step = self
            .training
            .step(&items, on_progress, |minibatch, part, _| models.share_of_loss(minibatch, part, &mut tally))?;
        Ok(tally.stats(&step))
    }

    /// Takes one gradient step on exactly these pairs, at least one. The log-probabilities of the reference are those
    /// that are given with a pair, or else computed. For the rest see [`TextPreference::step`].
    fn step_on(&mut self, items: &[Item], on_progress: ProgressFn) -> Result<TextPreferenceStats, LearnError> {
        check_prompts(items.iter().map(|(pair, _)| &pair.prompt), "pair")?;
        let all: Vec<&Item> = items.iter().collect();
        let (models, mut tally) = (&self.models, Tally::default());
        let step = self
            .training
            .step_on(&all, on_progress, |minibatch, part, _| models.share_of_loss(minibatch, part, &mut tally))?;
        Ok(tally.stats(&step))
    }

    /// Takes one gradient step on the next batch of labelled completions by KTO. A batch of one class is no error. For
    /// the rest see [`TextPreference::step`].
    pub fn step_labelled(
        &mut self,
        completions: &[LabelledCompletion],
        on_progress: ProgressFn,
    ) -> Result<TextPreferenceStats, LearnError> {
        if self.models.settings.loss != PreferenceLoss::Kto {
            return Err(LearnError::Settings("single completions are learned from by the loss kto alone".to_owned()));
        }
        check_prompts(completions.iter().map(|one| &one.prompt), "completion")?;
        let (models, mut tally) = (&self.models, Tally::default());
        let (part_size, most, mut baseline) = (self.training.part_size(), longest(completions), None);
        let step = self.training.step(completions, on_progress, |minibatch, part, _| {
            let baseline = *baseline.get_or_insert_with(|| models.baseline(minibatch, most, part_size));
            let hidden = |rows: &Rows| rows.hidden_for_loss(&models.policy, None);
            let (sum, hidden) = models.labelled_loss(part, baseline, &mut tally, hidden);
            tally.check_finite()?;
            Ok(Some((sum / minibatch.len() as f64, hidden)))
        })?;
        Ok(TextPreferenceStats { log_ratio: baseline, ..tally.stats(&step) })
    }

    /// Loss, accuracy and margin of the pairs in this range of a list, without learning. If the reference's
    /// log-probabilities are kept, the list must be the one that they were kept for.
    pub fn evaluate(
        &self,
        pairs: &[TextComparison],
        range: Range<usize>,
        on_progress: ProgressFn,
    ) -> Result<TextPreferenceStats, LearnError> {
        let items = items(&self.models, &self.kept, pairs, range)?;
        let parts = items.chunks(self.training.part_size());
        let (of, mut tally) = (parts.len(), Tally::default());
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            let hidden = |rows: &Rows| Hidden::with_graph(rows.hidden(&self.models.policy, true));
            let _ = tch::no_grad(|| self.models.pairs_loss(part, &mut tally, hidden));
        }
        Ok(tally.stats(&GradientStep { grad_norm: 0.0, learning_rate: 0.0 }))
    }

    /// The same of labelled completions. Their baseline is that of all of them together.
    pub fn evaluate_labelled(
        &self,
        completions: &[LabelledCompletion],
        on_progress: ProgressFn,
    ) -> Result<TextPreferenceStats, LearnError> {
        check_prompts(completions.iter().map(|one| &one.prompt), "completion")?;
        let all: Vec<&LabelledCompletion> = completions.iter().collect();
        let baseline = self.models.baseline(&all, longest(completions), self.training.part_size());
        let parts = all.chunks(self.training.part_size());
        let (of, mut tally) = (parts.len(), Tally::default());
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            let hidden = |rows: &Rows| Hidden::with_graph(rows.hidden(&self.models.policy, true));
            let _ = tch::no_grad(|| self.models.labelled_loss(part, baseline, &mut tally, hidden));
        }
        let stats = tally.stats(&GradientStep { grad_norm: 0.0, learning_rate: 0.0 });
        Ok(TextPreferenceStats { log_ratio: Some(baseline), ..stats })
    }

    /// The whole state: the trained parameters under `model.*`, `adam.*`, `cursor`, `progress` and, if the reference's
    /// log-probabilities are kept, `reference` `[pairs, 2]`.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = self.training.to_arrays();
        if !self.kept.is_empty() {
            arrays.insert("reference".to_owned(), Array::f32(&[self.kept.len(), 2], self.kept.concat()));
        }
        arrays
    }

    /// Restores a state from [`TextPreference::to_arrays`], of the same models. On the CPU, training continues bit for
    /// bit. On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let reader = Reader(arrays);
        let kept = match arrays.contains_key("reference") || !self.kept.is_empty() {
            true => reader.f32("reference", reader.shape("reference")?)?,
            false => &[],
        };
        let kept = kept.chunks_exact(2).map(|sums| [sums[0], sums[1]]).collect();
        self.training.load_arrays(reader)?;
        self.kept = kept;
        Ok(())
    }
}

impl<M: LanguageModel> Models<M> {
    /// Whether the loss has a reference that is not here, so that its log-probabilities must be kept.
    fn must_keep(&self) -> bool {
        self.reference.is_none() && self.settings.loss.has_reference()
    }

    /// A part's share of the loss of a minibatch, and the hidden states that it was computed from.
    fn share_of_loss(
        &self,
        minibatch: &[&Item],
        part: &[&Item],
        tally: &mut Tally,
    ) -> Result<Option<(Tensor, Hidden<'_>)>, LearnError> {
        let part: Vec<Item> = part.iter().map(|item| **item).collect();
        let (sum, hidden) = self.pairs_loss(&part, tally, |rows| rows.hidden_for_loss(&self.policy, None));
        tally.check_finite()?;
        Ok(Some((sum / minibatch.len() as f64, hidden)))
    }

    /// The sum of the losses of these pairs, and the hidden states that it was computed from.
    fn pairs_loss<'m>(
        &self,
        part: &[Item],
        tally: &mut Tally,
        hidden: impl FnOnce(&Rows) -> Hidden<'m>,
    ) -> (Tensor, Hidden<'m>) {
        let rows = pair_rows(part, &self.policy);
        let hidden = hidden(&rows);
        let sums = completion_sums(&rows, &self.policy, hidden.states());
        let reference = match part.iter().map(|(_, kept)| *kept).collect::<Option<Vec<[f32; 2]>>>() {
            _ if !self.settings.loss.has_reference() => None,
            Some(kept) => {
                let sides: Vec<f32> = [0, 1].iter().flat_map(|&side| kept.iter().map(move |sums| sums[side])).collect();
                Some(Tensor::from_slice(&sides).to_device(self.policy.device()))
            }
            None => Some(self.reference_sums(&rows)),
        };
        let n = part.len() as i64;
        let halves = |both: &Tensor| [both.narrow(0, 0, n), both.narrow(0, n, n)];
        let column = |of: &dyn Fn(&TextComparison) -> f32| {
            let numbers: Vec<f32> = part.iter().map(|(pair, _)| of(pair)).collect();
            Tensor::from_slice(&numbers).to_device(self.policy.device())
        };
        let terms = PairTerms {
            log_probs: halves(&sums),
            reference: halves(reference.as_ref().unwrap_or(&sums.zeros_like())),
            lengths: [column(&|pair| pair.left.len().max(1) as f32), column(&|pair| pair.right.len().max(1) as f32)],
            target: column(&|pair| pair.target),
            margin: column(&|pair| signed_margin(pair.target, pair.margin)),
        };
        let (losses, ahead) = pair_losses(&self.settings, &terms);
        let loss = losses.sum(Kind::Float);
        tally.count_pairs(&loss, &ahead, &sums, reference.as_ref(), part);
        (loss, hidden)
    }

    /// The sum of KTO's losses of these completions, and the hidden states that it was computed from.
    fn labelled_loss<'m>(
        &self,
        part: &[&LabelledCompletion],
        baseline: f64,
        tally: &mut Tally,
        hidden: impl FnOnce(&Rows) -> Hidden<'m>,
    ) -> (Tensor, Hidden<'m>) {
        let rows: Vec<(&[u32], &[u32])> = part.iter().map(|one| (&one.prompt[..], &one.completion[..])).collect();
        let rows = Rows::new(&rows, self.policy.device());
        let hidden = hidden(&rows);
        let sums = completion_sums(&rows, &self.policy, hidden.states());
        let ratios = &sums - self.reference_sums(&rows);
        let good: Vec<f32> = part.iter().map(|one| f32::from(u8::from(one.good))).collect();
        let good = Tensor::from_slice(&good).to_device(self.policy.device());
        let loss = kto_losses(&self.settings, &ratios, &good, baseline).sum(Kind::Float);
        tally.count_labelled(&loss, &ratios, &sums, baseline, self.settings.beta(), part);
        (loss, hidden)
    }

    /// KTO's estimate of the KL: the mean log-ratio of the batch's completions, each after the prompt before its own,
    /// at least 0. A completion is cut where prompt and completion together are longer than `most` tokens, because the
    /// model may have no more positions.
    fn baseline(&self, batch: &[&LabelledCompletion], most: usize, part_size: usize) -> f64 {
        let shifted = batch.iter().enumerate().map(|(i, one)| {
            let completion = &batch[(i + 1) % batch.len()].completion;
            (&one.prompt[..], &completion[..completion.len().min(most.saturating_sub(one.prompt.len()))])
        });
        let shifted: Vec<(&[u32], &[u32])> = shifted.collect();
        let mut sum = 0.0;
        for part in shifted.chunks(part_size.max(1)) {
            let rows = Rows::new(part, self.policy.device());
            sum += tch::no_grad(|| {
                let policy = completion_sums(&rows, &self.policy, &rows.hidden(&self.policy, true));
                (policy - self.reference_sums(&rows)).sum(Kind::Double).double_value(&[])
            });
        }
        (sum / batch.len().max(1) as f64).max(0.0)
    }

    /// The reference's model, and whether its adapters are on. Before the first step a policy without a reference is
    /// its own.
    fn reference_model(&self) -> (&M, bool) {
        self.reference.as_ref().map_or((&self.policy, true), |reference| reference.model(&self.policy))
    }

    /// log π_ref of each row's completion, `[B]`, without gradients.
    fn reference_sums(&self, rows: &Rows) -> Tensor {
        let (model, adapters) = self.reference_model();
        tch::no_grad(|| completion_sums(rows, model, &rows.hidden(model, adapters)))
    }
}

/// The pairs of a range with the kept log-probabilities of their reference.
fn items<'a, M: LanguageModel>(
    models: &Models<M>,
    kept: &[[f32; 2]],
    pairs: &'a [TextComparison],
    range: Range<usize>,
) -> Result<Vec<Item<'a>>, LearnError> {
    if models.settings.loss == PreferenceLoss::Kto {
        let problem = "KTO learns from single completions with a label, not from pairs";
        return Err(LearnError::Settings(problem.to_owned()));
    }
    check_pairs(&pairs[range.clone()])?;
    let needs_kept = models.must_keep() || !kept.is_empty();
    if needs_kept && models.settings.loss.has_reference() && kept.len() < range.end {
        let what = "the reference's log-probabilities of every pair".to_owned();
        return Err(LearnError::Size { what, expected: range.end, got: kept.len() });
    }
    Ok(range.map(|place| (&pairs[place], kept.get(place).copied())).collect())
}

fn check_pairs(pairs: &[TextComparison]) -> Result<(), LearnError> {
    check_prompts(pairs.iter().map(|pair| &pair.prompt), "pair")
}

/// The most tokens that a prompt and its completion have together.
fn longest(completions: &[LabelledCompletion]) -> usize {
    completions.iter().map(|one| one.prompt.len() + one.completion.len()).max().unwrap_or(0)
}

/// The rows of both completions of every pair: first all left ones, then all right ones.
fn pair_rows(part: &[Item], model: &impl LanguageModel) -> Rows {
    let left = part.iter().map(|(pair, _)| (&pair.prompt[..], &pair.left[..]));
    let right = part.iter().map(|(pair, _)| (&pair.prompt[..], &pair.right[..]));
    let rows: Vec<(&[u32], &[u32])> = left.chain(right).collect();
    Rows::new(&rows, model.device())
}

/// log π of each row's completion, summed over its tokens, `[B]`.
fn completion_sums(rows: &Rows, model: &impl LanguageModel, hidden: &Tensor) -> Tensor {
    let log_probs = rows.chosen(&rows.log_softmax(model, &rows.before_tokens(hidden), 1.0));
    (log_probs * &rows.real).sum_dim_intlist(-1, false, Kind::Float)
}

/// Whether the policy without adapters has trained parameters.
fn trains_its_base(policy: &impl LanguageModel) -> bool {
    let token = Tensor::from_slice(&[0_i64]).reshape([1, 1]).to_device(policy.device());
    policy.logits(&policy.hidden(&token, &token.ones_like(), 0, false)).requires_grad()
}

/// Sums over pairs or completions.
#[derive(Default)]
struct Tally {
    loss: f64,
    correct: f64,
    /// Pairs, or completions of KTO.
    examples: usize,
    /// Pairs without a tie, or completions.
    decided: usize,
    /// Of the better and of the worse completions: their number, their log π and how far they are ahead, times β.
    sides: [(usize, f64, f64); 2],
    /// Sum and number of the log-ratios.
    log_ratios: (f64, usize),
}

impl Tally {
    fn count_pairs(&mut self, loss: &Tensor, ahead: &Tensor, sums: &Tensor, reference: Option<&Tensor>, part: &[Item]) {
        self.loss += loss.double_value(&[]);
        self.examples += part.len();
        let (ahead, sums) = (numbers(ahead), numbers(sums));
        for (i, (pair, _)) in part.iter().enumerate().filter(|(_, (pair, _))| pair.target != 0.5) {
            let left_is_better = pair.target > 0.5;
            let (left, right) = (sums[i], sums[part.len() + i]);
            let (better, worse) = if left_is_better { (left, right) } else { (right, left) };
            let lead = if left_is_better { ahead[i] } else { -ahead[i] };
            self.add(0, better, lead);
            self.add(1, worse, 0.0);
            self.correct += share_correct(lead);
            self.decided += 1;
        }
        if let Some(reference) = reference {
            let ratios = sums.iter().zip(numbers(reference)).map(|(sum, reference)| f64::from(sum - reference));
            self.log_ratios = (self.log_ratios.0 + ratios.sum::<f64>(), self.log_ratios.1 + sums.len());
        }
    }

    fn count_labelled(
        &mut self,
        loss: &Tensor,
        ratios: &Tensor,
        sums: &Tensor,
        baseline: f64,
        beta: f64,
        part: &[&LabelledCompletion],
    ) {
        self.loss += loss.double_value(&[]);
        self.examples += part.len();
        self.decided += part.len();
        for ((ratio, sum), one) in numbers(ratios).into_iter().zip(numbers(sums)).zip(part) {
            self.add(usize::from(!one.good), sum, (beta * f64::from(ratio)) as f32);
            let ahead = ratio - baseline as f32;
            self.correct += share_correct(if one.good { ahead } else { -ahead });
        }
    }

    fn add(&mut self, side: usize, log_prob: f32, ahead: f32) {
        let (count, log_probs, leads) = &mut self.sides[side];
        *count += 1;
        *log_probs += f64::from(log_prob);
        *leads += f64::from(ahead);
    }

    fn check_finite(&self) -> Result<(), LearnError> {
        match self.loss.is_finite() {
            true => Ok(()),
            false => Err(LearnError::NotFinite { what: "the loss of the preferences".to_owned() }),
        }
    }

    fn stats(self, step: &GradientStep) -> TextPreferenceStats {
        let mean = |sum: f64, count: usize| (count > 0).then(|| sum / count as f64);
        let [better, worse] = self.sides;
        let margin = mean(better.2, better.0).zip(mean(worse.2, worse.0)).map(|(better, worse)| better - worse);
        TextPreferenceStats {
            loss: self.loss / self.examples.max(1) as f64,
            accuracy: self.correct / self.decided.max(1) as f64,
            margin: margin.unwrap_or(0.0),
            chosen_log_prob: mean(better.1, better.0),
            rejected_log_prob: mean(worse.1, worse.0),
            log_ratio: mean(self.log_ratios.0, self.log_ratios.1),
            grad_norm: step.grad_norm,
            learning_rate: step.learning_rate,
        }
    }
}

/// 1 if this is ahead, ½ if it is level.
fn share_correct(lead: f32) -> f64 {
    if lead > 0.0 { 1.0 } else { f64::from(u8::from(lead == 0.0)) * 0.5 }
}
