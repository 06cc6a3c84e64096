//! Fits the reward model to all valid judgements.
//!
//! Each member trains on its own bag of the comparisons, by Adam on the Bradley–Terry loss with weight decay. The 1/e
//! of the comparisons outside a member's bag are its held-out comparisons. They have three uses:
//!
//! - The member's weight decay is adapted so that held-out loss / training loss stays between 1.1 and 1.5 (Christiano
//!   et al. 2017).
//! - The member's final weights are those of the round with the lowest held-out loss.
//! - The reported agreement counts only the votes of members that never trained on the comparison. It is slightly
//!   optimistic, since the best round was chosen by the same comparisons, but no gradient came from them.
//!
//! Two methods that make more of few comparisons are from SURF (Park et al. 2022): a gradient step may see only a
//! window of each clip, and unjudged pairs whose answer the model is sure of may serve as labels. “Much better” is a
//! margin inside the likelihood, as in Llama 2 (Touvron et al. 2023, equation 2).

use super::gaussian_process::{Observations, Pairs};
use super::reward_model::ClipTable;
use super::{PreferenceError, RewardModel};
use flipside_core::settings::RewardModelSettings;
use flipside_core::{Choice, Frames};
use flipside_learn::{LearnError, numbers, preference_loss, signed_margin};
use rand::{RngExt, seq::SliceRandom};
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// A judgement as a training example of the reward model.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The pair's id. It decides for good which members train on the comparison and for which it is held out.
    pub id: u64,
    /// The clip that was shown on the left.
    pub left: &'a Frames,
    /// The clip that was shown on the right.
    pub right: &'a Frames,
    /// The teacher's answer as the probability that left is better: 1, 0, or ½ for a tie.
    pub target: f32,
    /// Whether the better one is much better.
    pub much: bool,
}

impl<'a> Comparison<'a> {
    /// The comparison for an answer; `None` for a skip, which says nothing.
    pub fn new(id: u64, left: &'a Frames, right: &'a Frames, choice: Choice) -> Option<Comparison<'a>> {
        choice.target().map(|target| Comparison { id, left, right, target, much: choice.is_much() })
    }

    /// Whether the teacher preferred one side.
    fn is_decided(&self) -> bool {
        self.target != 0.5
    }

    /// What is subtracted from R_left − R_right before the likelihood sees it. A clip that is much better must be
    /// further ahead by `margin` for the same likelihood.
    fn margin(&self, margin: f64) -> f32 {
        if self.much { signed_margin(self.target, margin as f32) } else { 0.0 }
    }
}

/// How a fit went.
#[derive(Clone, Debug, PartialEq)]
pub struct FitReport {
    /// Mean loss of the members on their own bags, nats, without weight decay.
    pub train_loss: f64,
    /// Mean loss of the members on comparisons outside their bags, nats; `None` if there are none. For a Gaussian
    /// process, the loss of the leave-one-out predictions.
    pub held_out_loss: Option<f64>,
    /// Share of the comparisons, ties excluded, that are predicted correctly by the mean vote of the members that never
    /// trained on them; `None` if there is no such comparison. For a Gaussian process, the share that the leave-one-out
    /// predictions get right; it is optimistic, since the scales are learnt from all comparisons.
    pub held_out_agreement: Option<f64>,
    /// Number of comparisons that the share is computed over.
    pub held_out: usize,
    /// Rounds run; for a Gaussian process, steps of evidence maximisation.
    pub rounds: usize,
    /// Mean weight decay of the members after it was adapted; 0 for a Gaussian process, which has none.
    pub l2: f64,
}

/// With fewer held-out comparisons than this, a member's best round is chosen by its training loss, and its weight
/// decay is not adapted.
const FEWEST_HELD_OUT: usize = 5;

/// Bounds of the adapted weight decay.
const L2_BOUNDS: [f64; 2] = [1e-6, 1e-1];
/// Factor by which the weight decay changes in a round.
const L2_FACTOR: f64 = 1.2;

/// A pair without a judgement.
pub type Unjudged<'a> = [&'a Frames; 2];

/// How much the returns of two clips of mean length differ if the networks' outputs differ by 1 at every step.
const LOGITS: f64 = 4.0;

/// The answer to each comparison.
struct Answers {
    targets: Vec<f32>,
    /// See [`Comparison::margin`].
    margins: Vec<f32>,
}

/// One member's bootstrap sample of the comparisons.
struct Bag {
    /// Indices of the comparisons to train on, each as often as it is in the bag.
    inside: Vec<usize>,
    /// Indices of the held-out comparisons.
    outside: Vec<usize>,
    /// How many of `inside` were used since the last shuffle.
    used: usize,
}

/// Unjudged pairs, as indices into the clip table, and those of them that the model is sure enough of to learn from.
#[derive(Default)]
struct Guesses {
    sides: Vec<[usize; 2]>,
    /// Indices into `sides`, with the target that the model gives them.
    sure: Vec<(usize, f32)>,
}

/// A member's mean losses after a round, inside and outside its bag.
struct Losses {
    inside: Option<f64>,
    outside: Option<f64>,
    /// Whether enough comparisons are outside for their loss to choose the best round.
    trusted: bool,
}

impl Losses {
    /// The loss that chooses the best round; lower is better.
    fn score(&self) -> f64 {
        let held_out = self.outside.filter(|_| self.trusted);
        held_out.or(self.inside).or(self.outside).unwrap_or(f64::INFINITY)
    }
}

impl RewardModel {
    /// Learns from all comparisons, starting from the present weights. `cancel` is called before every gradient step.
    /// `unjudged` are recent pairs without an answer, for
    /// [`pseudo_label_threshold`](flipside_core::settings::RewardModelSettings::pseudo_label_threshold).
    ///
    /// After an error, cancellation included, the model is unchanged. The fit does not update the normalisation of the
    /// output: call [`RewardModel::renormalise`] before using the new reward.
    pub fn fit(
        &mut self,
        comparisons: &[Comparison],
        unjudged: &[Unjudged],
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<FitReport, PreferenceError> {
        if comparisons.is_empty() {
            return Err(PreferenceError::NoComparisons);
        }
        self.check(comparisons)?;
        let mut next = self.copy()?;
        let report = next.run(comparisons, unjudged, cancel)?;
        *self = next;
        Ok(report)
    }

    fn run(
        &mut self,
        comparisons: &[Comparison],
        unjudged: &[Unjudged],
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<FitReport, PreferenceError> {
        // Before the first fit the model's guesses mean nothing.
        let unjudged = if self.fits > 0 && self.settings.pseudo_label_threshold < 1.0 { unjudged } else { &[] };
        let clips = comparisons.iter().flat_map(|c| [c.left, c.right]).chain(unjudged.iter().copied().flatten());
        let (table, input) = ClipTable::with_own_statistics(clips, self);
        self.input = input;
        if self.fits == 0 {
            let logits = if self.process.is_some() { 1.0 } else { LOGITS };
            self.unit = logits / table.mean_length().max(1.0);
        }
        let places = |clips: [&Frames; 2]| clips.map(|clip| table.places[&std::ptr::from_ref(clip)]);
        let sides: Vec<[usize; 2]> = comparisons.iter().map(|c| places([c.left, c.right])).collect();
        let mut guesses = Guesses { sides: unjudged.iter().map(|&pair| places(pair)).collect(), sure: Vec::new() };
        let answers = Answers {
            targets: comparisons.iter().map(|c| c.target).collect(),
            margins: comparisons.iter().map(|c| c.margin(self.settings.margin)).collect(),
        };
        if self.process.is_some() {
            return self.condition(&table, &sides, &answers, comparisons, cancel);
        }
        let mut bags: Vec<Bag> = (0..self.members()).map(|member| self.bag(member, comparisons)).collect();

        let mut losses = self.losses(&table, &sides, &answers, &bags)?;
        let mut best: Vec<(f64, Tensor)> =
            losses.iter().enumerate().map(|(m, l)| (l.score(), self.weights(m))).collect();
        let (mut rounds, mut stale) = (0, 0);
        while rounds < self.settings.rounds && stale < self.settings.patience.max(1) {
            guesses.sure = self.sure(&table, &guesses.sides);
            for _ in 0..self.settings.round_steps {
                if cancel() {
                    return Err(LearnError::Cancelled.into());
                }
                self.gradient_step(&table, &sides, &answers, &mut bags, &guesses);
            }
            rounds += 1;
            stale += 1;
            losses = self.losses(&table, &sides, &answers, &bags)?;
            for (m, losses) in losses.iter().enumerate() {
                if losses.score() < best[m].0 {
                    best[m] = (losses.score(), self.weights(m));
                    stale = 0;
                }
            }
            self.adapt_l2(&losses);
        }

        let rows: Vec<&Tensor> = best.iter().map(|(_, weights)| weights).collect();
        tch::no_grad(|| self.ensemble.parameters_mut().copy_(&Tensor::stack(&rows, 0)));
        self.fits += 1;
        let losses = self.losses(&table, &sides, &answers, &bags)?;
        let (held_out_agreement, held_out) = self.agreement(&table, &sides, comparisons, &bags);
        Ok(FitReport {
            // Every comparison is inside or outside of each bag: without a training loss there is a held-out loss.
            train_loss: mean(losses.iter().filter_map(|l| l.inside)).unwrap_or(f64::NAN),
            held_out_loss: mean(losses.iter().filter_map(|l| l.outside)),
            held_out_agreement,
            held_out,
            rounds,
            l2: mean(self.l2.iter().copied()).unwrap_or(0.0),
        })
    }

    /// Conditions the Gaussian process on the comparisons. It trains on all of them, since leave-one-out predictions
    /// have a closed form.
    fn condition(
        &mut self,
        table: &ClipTable,
        sides: &[[usize; 2]],
        answers: &Answers,
        comparisons: &[Comparison],
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<FitReport, PreferenceError> {
        let Some(process) = &mut self.process else { unreachable!("there is one, as the caller saw") };
        let count = self.settings.rows.min(table.longest()).max(1);
        let clips: Vec<usize> = (0..table.places.len()).collect();
        let (rows, weights) = table.sample_features(&clips, count, None);
        // A clip's sum is its mean over the sampled rows, times their number and weight.
        let weights = weights.to_kind(Kind::Double) * (count as f64 * self.unit);
        let double = |numbers: &[f32]| Tensor::from_slice(numbers).to_kind(Kind::Double);
        let [targets, margins] = [&answers.targets, &answers.margins].map(|numbers| double(numbers));
        let pairs = Pairs { rows: &rows, count, weights: &weights, sides };
        let RewardModelSettings { error_rate, learn_error_rate: learns_errors, .. } = self.settings;
        let observations = Observations { targets: &targets, margins: &margins, error_rate, learns_errors };
        let posterior = process.condition(&pairs, &observations, self.fits > 0, cancel)?;
        self.fits += 1;
        let error_rate = self.error_rate();
        let loss = |differences: &[f64]| {
            let ahead = Tensor::from_slice(differences) - &margins;
            f64::try_from(preference_loss(&ahead, &targets, error_rate).mean(Kind::Double)).unwrap_or(f64::NAN)
        };
        // The other answer to a pair that was asked twice would predict this one, so only pairs asked once count.
        let mut seen: HashMap<u64, usize> = HashMap::new();
        comparisons.iter().for_each(|c| *seen.entry(c.id).or_default() += 1);
        let predictions = comparisons.iter().zip(&posterior.loo_predictions);
        let once = predictions.filter(|(c, _)| c.is_decided() && seen[&c.id] == 1);
        let right: Vec<f64> =
            once.map(|(c, ahead)| if (*ahead > 0.0) == (c.target > 0.5) { 1.0 } else { 0.0 }).collect();
        Ok(FitReport {
            train_loss: loss(&posterior.differences),
            held_out_loss: (comparisons.len() > 1).then(|| loss(&posterior.loo_predictions)),
            held_out_agreement: mean(right.iter().copied()),
            held_out: right.len(),
            rounds: posterior.evidence_steps,
            l2: 0.0,
        })
    }

    fn bag(&self, member: usize, comparisons: &[Comparison]) -> Bag {
        let mut bag = Bag { inside: Vec::new(), outside: Vec::new(), used: 0 };
        for (place, comparison) in comparisons.iter().enumerate() {
            match self.bag_count(member, comparison.id) {
                0 => bag.outside.push(place),
                count => bag.inside.extend(std::iter::repeat_n(place, count)),
            }
        }
        bag.used = bag.inside.len();
        bag
    }

    /// One gradient step of every member, each on its own minibatch. A member with an empty bag gets weights of 0.
    fn gradient_step(
        &mut self,
        table: &ClipTable,
        sides: &[[usize; 2]],
        given: &Answers,
        bags: &mut [Bag],
        guesses: &Guesses,
    ) {
        let (members, batch) = (self.members() as i64, self.settings.batch.max(1));
        let count = self.settings.rows.min(table.longest()).max(1);
        let (mut clips, mut targets, mut margins, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for bag in bags.iter_mut() {
            for _ in 0..batch {
                if bag.used == bag.inside.len() {
                    bag.inside.shuffle(&mut self.stream);
                    bag.used = 0;
                }
                let place = bag.inside.get(bag.used).copied();
                bag.used += usize::from(place.is_some());
                clips.extend(sides[place.unwrap_or(0)]);
                targets.push(given.targets[place.unwrap_or(0)]);
                margins.push(given.margins[place.unwrap_or(0)]);
                shares.push(if place.is_some() { 1.0 / batch as f32 } else { 0.0 });
            }
            // As many guesses as answers, if there are any guesses.
            for _ in 0..if guesses.sure.is_empty() { 0 } else { batch } {
                let (place, target) = guesses.sure[self.stream.random_range(0..guesses.sure.len())];
                clips.extend(guesses.sides[place]);
                targets.push(target);
                margins.push(0.0);
                shares.push(self.settings.pseudo_label_weight as f32 / batch as f32);
            }
        }
        let window = match self.settings.crop {
            crop if crop < 1.0 => self.stream.random_range(crop.max(0.1)..=1.0),
            _ => 1.0,
        };
        let (rows, weights) = table.sample_features(&clips, count, Some((&mut self.stream, window)));
        let inputs = rows.size()[1];
        let returns = self.returns_of(&rows.view([members, -1, inputs]), &weights.view([members, -1]), count);
        let returns = returns.view([members, -1, 2]);
        let margins = Tensor::from_slice(&margins).view([members, -1]);
        let difference = returns.select(2, 0) - returns.select(2, 1) - margins;
        let targets = Tensor::from_slice(&targets).view([members, -1]);
        let shares = Tensor::from_slice(&shares).view([members, -1]);
        let decay: Vec<f32> = self.l2.iter().map(|&l2| l2 as f32).collect();
        // The members share no parameters, so the gradient of the sum is each member's own gradient.
        let loss = (preference_loss(&difference, &targets, self.settings.error_rate) * shares).sum(None)
            + (self.ensemble.squared_weights() * Tensor::from_slice(&decay)).sum(None);
        let gradients = Tensor::run_backward(&[loss], &[self.ensemble.parameters()], false, false);
        self.adam.step(&mut [self.ensemble.parameters_mut()], &gradients, self.settings.learning_rate);
    }

    /// The unjudged pairs that the members' mean probability is sure of, with the target that it gives them.
    fn sure(&self, table: &ClipTable, sides: &[[usize; 2]]) -> Vec<(usize, f32)> {
        if sides.is_empty() {
            return Vec::new();
        }
        let left = numbers(&self.differences(table, sides).sigmoid().mean_dim(0, false, Kind::Float));
        let sure = self.settings.pseudo_label_threshold as f32;
        let decided = |left: f32| (left > sure).then_some(1.0).or((left < 1.0 - sure).then_some(0.0));
        left.into_iter().enumerate().filter_map(|(place, left)| Some((place, decided(left)?))).collect()
    }

    /// Each member's mean loss inside and outside its bag, over the same env steps every time.
    fn losses(
        &self,
        table: &ClipTable,
        sides: &[[usize; 2]],
        answers: &Answers,
        bags: &[Bag],
    ) -> Result<Vec<Losses>, PreferenceError> {
        let [targets, margins] = [&answers.targets, &answers.margins].map(|numbers| Tensor::from_slice(numbers));
        let ahead = self.differences(table, sides) - margins;
        let losses = preference_loss(&ahead, &targets, self.settings.error_rate);
        let losses = numbers(&losses);
        if losses.iter().any(|loss| !loss.is_finite()) {
            return Err(LearnError::NotFinite { what: "the reward model's loss".to_owned() }.into());
        }
        let of = |member: usize, places: &[usize]| {
            mean(places.iter().map(|&place| f64::from(losses[member * sides.len() + place])))
        };
        let member = |(m, bag): (usize, &Bag)| Losses {
            inside: of(m, &bag.inside),
            outside: of(m, &bag.outside),
            trusted: bag.outside.len() >= FEWEST_HELD_OUT,
        };
        Ok(bags.iter().enumerate().map(member).collect())
    }

    /// Raises the weight decay of members that overfit and lowers that of members that underfit.
    fn adapt_l2(&mut self, losses: &[Losses]) {
        for (l2, losses) in self.l2.iter_mut().zip(losses) {
            let (Some(inside), Some(outside), true) = (losses.inside, losses.outside, losses.trusted) else { continue };
            let ratio = outside / inside;
            if ratio > self.settings.overfit_ratio {
                *l2 *= L2_FACTOR;
            } else if ratio < self.settings.underfit_ratio {
                *l2 /= L2_FACTOR;
            }
            *l2 = l2.clamp(L2_BOUNDS[0], L2_BOUNDS[1]);
        }
    }

    /// The share of decided comparisons that are predicted correctly by the mean vote of the members that never trained
    /// on them, and the number of such comparisons.
    fn agreement(
        &self,
        table: &ClipTable,
        sides: &[[usize; 2]],
        comparisons: &[Comparison],
        bags: &[Bag],
    ) -> (Option<f64>, usize) {
        let differences = numbers(&self.differences(table, sides).sigmoid());
        let mut votes: Vec<Vec<f64>> = vec![Vec::new(); comparisons.len()];
        for (m, bag) in bags.iter().enumerate() {
            for &place in &bag.outside {
                votes[place].push(f64::from(differences[m * comparisons.len() + place]));
            }
        }
        let right = comparisons.iter().zip(votes).filter(|(comparison, _)| comparison.is_decided()).filter_map(
            |(comparison, votes)| {
                let left = mean(votes.into_iter())?;
                Some(if (left > 0.5) == (comparison.target > 0.5) { 1.0 } else { 0.0 })
            },
        );
        let right: Vec<f64> = right.collect();
        (mean(right.iter().copied()), right.len())
    }

    /// A copy of one member's weights, `[K]`.
    fn weights(&self, member: usize) -> Tensor {
        self.ensemble.parameters().detach().get(member as i64).copy()
    }

    /// R_left − R_right of every comparison under every member, `[members, comparisons]`.
    fn differences(&self, table: &ClipTable, sides: &[[usize; 2]]) -> Tensor {
        let returns = table.returns(self, self.settings.rows);
        let side = |side: usize| {
            let places: Vec<i64> = sides.iter().map(|clips| clips[side] as i64).collect();
            returns.index_select(1, &Tensor::from_slice(&places))
        };
        side(0) - side(1)
    }
}

fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = numbers.fold((0_usize, 0.0), |(count, sum), x| (count + 1, sum + x));
    (count > 0).then(|| sum / count as f64)
}
