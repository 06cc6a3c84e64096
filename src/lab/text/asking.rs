//! Which completions are asked about, as for robots: several completions of each prompt are written into a pool, and
//! pairs are chosen on which an ensemble disagrees.
//!
//! A language model is too large to have several of it. The ensemble is therefore linear: draws from the posterior of a
//! linear reward on the final hidden state of the supervised model, which does not change while the run lasts. It costs
//! one pass over each judged completion, in all. It reads the tokens that a reward model would which begins as the
//! supervised model, so its weights are a head for that reward model. Its leave-one-out predictions say which answers
//! are disputed, its spread says how far PPO has moved away from what was judged, and the reward model's head begins
//! with its mean.

use super::teaching::{SCORED, Words, scored};
use crate::lab::LabError;
use crate::lab::arrays::{prefixed, unprefixed};
use crate::lab::asked_before::{AskedBefore, disputed_views};
use crate::lab::questions::Offered;
use crate::lab::shared_requests::Label;
use crate::lab::training_loop::Values;
use crate::lab::vocabulary::DisputedView;
use crate::settings::{LabelSettings, TextLabelSettings, TextRun};
use flipside_core::{Array, Arrays, Completion, Item, ItemId, PairReason, Seed, Stream, both_completions};
use flipside_learn::signed_margin;
use flipside_preference::{LinearComparison, LinearReward, Monitor, Pool, Rank, by_surprise, choose_pairs, rank_pairs};
use flipside_text::{Bundle, Episode, Example, ScoreEncoder, last_hidden_states};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Judgements before the first pairs are chosen by disagreement.
const FIRST_FIT: usize = 10;

/// A person's answers change the ensemble when their number has changed by more than one in so many.
const REFIT_SHARE: usize = 25;

/// The share of answers that the ensemble takes for random, as the robots' reward model does at first.
const ERROR_RATE: f64 = 0.1;

/// The monitor evaluates one update of PPO in this many: that costs a pass over its completions.
const WATCH_EVERY: usize = 4;

/// Answers that an alarm asks for.
const ALARM_LABELS: usize = 8;

/// What is asked, and how far the learned reward can be trusted.
pub(super) struct Asking {
    settings: TextLabelSettings,
    /// How much further ahead a much better completion must be, in log-odds.
    margin: f64,
    seed: Seed,
    pub before: AskedBefore,
    pub pool: CompletionPool,
    /// Turns completions into what the supervised model reads as a reward model. A reward model that was given may have
    /// another tokenizer, so this is not its encoder.
    encoder: ScoreEncoder,
    /// The features of each judged completion.
    features: HashMap<ItemId, Arc<[f32]>>,
    ensemble: Option<LinearReward>,
    /// The labels that the ensemble was conditioned on: their number, and the newest.
    fitted: (usize, u64),
    pub monitor: Monitor,
    /// Updates since the monitor last evaluated one.
    unwatched: usize,
    /// The judgements that the ensemble contradicts.
    pub disputed: Vec<DisputedView>,
    /// The number of labels that an alarm demands, whatever the schedule says.
    pub urgent: usize,
}

impl Asking {
    /// `start` is the supervised model, here and below.
    pub fn new(run: &TextRun, start: &Bundle, seed: Seed) -> Asking {
        let context = start.model.config().context;
        Asking {
            encoder: ScoreEncoder::new(&start.tokenizer, &start.tokenizer, start.stop(), context),
            margin: run.reward.margin,
            seed,
            before: AskedBefore::default(),
            pool: CompletionPool::new(run.labels.pool),
            features: HashMap::new(),
            ensemble: None,
            fitted: (0, 0),
            monitor: Monitor::new(run.monitor.clone()),
            unwatched: 0,
            disputed: Vec::new(),
            urgent: 0,
            settings: run.labels.clone(),
        }
    }

    /// Completions to write for each prompt: two until there is something to choose by.
    pub fn completions(&self) -> usize {
        if self.ensemble.is_some() { self.settings.completions } else { 2 }
    }

    /// Conditions the ensemble on these labels if they have changed enough, or at all if `exact`.
    pub fn refit(
        &mut self,
        labels: &[Label],
        exact: bool,
        start: &Bundle,
        words: &Words,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<(), LabError> {
        let state = (labels.len(), labels.last().map_or(0, |label| label.judgement.0));
        let changed = labels.len().abs_diff(self.fitted.0).max(1);
        let enough = exact || self.ensemble.is_none() || changed > labels.len() / REFIT_SHARE;
        if state == self.fitted || !enough {
            return Ok(());
        }
        // A run that is reopened knows from its labels what was asked.
        for label in labels {
            self.before.pairs.insert(label.items[0].id(), label.items[1].id());
        }
        let ids = self.before.comparison_ids(labels);
        self.before.set_judged(labels);
        if labels.len() < FIRST_FIT {
            return Ok(());
        }
        self.read_features(labels, start, words, cancelled)?;
        let features = &self.features;
        let (decided, comparisons): (Vec<&Label>, Vec<LinearComparison>) = labels
            .iter()
            .zip(ids)
            .filter_map(|(label, id)| {
                let target = label.choice.target()?;
                let left = features.get(&label.items[0].id())?;
                let right = features.get(&label.items[1].id())?;
                let margin = if label.choice.is_much() { signed_margin(target, self.margin as f32) } else { 0.0 };
                Some((label, LinearComparison { id, left, right, target, margin }))
            })
            .unzip();
        if comparisons.is_empty() {
            return Ok(());
        }
        let fit = LinearReward::fit(&comparisons, ERROR_RATE, self.seed)?;
        self.monitor.fitted(fit.judged_spread, fit.agreement);
        let known = fit.held_out.iter().zip(comparisons.iter().zip(&decided));
        let (predictions, labels): (Vec<(f64, f32)>, Vec<&Label>) =
            known.filter_map(|(left, (c, label))| Some(((left.as_ref().copied()?, c.target), *label))).unzip();
        self.disputed = disputed_views(&by_surprise(predictions.into_iter()), &labels);
        self.ensemble = Some(fit.reward);
        self.fitted = state;
        Ok(())
    }

    /// Computes the features of the judged completions that have none yet, two at a time: a batch of another size would
    /// round differently, and a run that was interrupted would ask other questions.
    fn read_features(
        &mut self,
        labels: &[Label],
        start: &Bundle,
        words: &Words,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<(), LabError> {
        for completions in labels.iter().filter_map(|label| both_completions(&label.items)) {
            if completions.iter().all(|completion| self.features.contains_key(&completion.id)) {
                continue;
            }
            let [left, right] = completions.map(|completion| self.example(completion, start, words));
            let examples = [left?, right?];
            let states = last_hidden_states(&start.model, &examples, true, examples.len(), &mut |_| cancelled());
            if states.len() < examples.len() {
                return Err(LabError::Cancelled);
            }
            for (completion, state) in completions.iter().zip(states) {
                self.features.entry(completion.id).or_insert_with(|| state.into());
            }
        }
        Ok(())
    }

    /// What the ensemble reads of a completion.
    fn example(&self, completion: &Completion, start: &Bundle, words: &Words) -> Result<Example, LabError> {
        scored(&self.encoder, words, &start.tokenizer, &completion.prompt_tokens, &completion.tokens)
    }

    /// Adds completions to the pool, each with its prompt's place.
    pub fn add(
        &mut self,
        written: impl Iterator<Item = (usize, Completion)>,
        start: &Bundle,
        words: &Words,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<(), LabError> {
        for (prompt, completion) in written {
            self.pool.push(PoolCompletion { completion: Arc::new(completion), prompt, features: Arc::default() });
        }
        if self.ensemble.is_none() {
            return Ok(());
        }
        let new = self.pool.entries.iter().filter(|entry| entry.features.is_empty());
        let examples = new.map(|entry| self.example(&entry.completion, start, words));
        let examples: Vec<Example> = examples.collect::<Result<_, _>>()?;
        let states = last_hidden_states(&start.model, &examples, true, SCORED, &mut |_| cancelled());
        if states.len() < examples.len() {
            return Err(LabError::Cancelled);
        }
        let new = self.pool.entries.iter_mut().filter(|entry| entry.features.is_empty());
        new.zip(states).for_each(|(entry, state)| entry.features = state.into());
        Ok(())
    }

    /// Up to `count` questions from the pool, of which some repeat an answered pair.
    pub fn choose(&mut self, count: usize, stream: &mut Stream) -> Vec<Offered> {
        let again = self.before.repeats(count, self.settings.repeat_share, stream);
        // While the reward cannot be trusted, every question is chosen by the ensemble and none at random.
        let random_share = if self.monitor.alarm().is_some() { 0.0 } else { self.settings.random_share };
        let settings = LabelSettings { random_share, ..self.settings.of_pairs() };
        let Asking { before, pool, features, ensemble, .. } = self;
        let known: Vec<[&[f32]; 2]> = before
            .judged
            .iter()
            .filter_map(|[left, right]| Some([&**features.get(&left.id())?, &**features.get(&right.id())?]))
            .collect();
        let mut ranked;
        let rank: Option<Rank> = match ensemble {
            Some(ensemble) => {
                ranked = |pairs: &[[usize; 2]]| {
                    let sides = |pair: &[usize; 2]| pair.map(|place| &*pool.get(place).features);
                    rank_pairs(&*ensemble, settings.choice, &pairs.iter().map(sides).collect::<Vec<_>>(), &known)
                };
                Some(&mut ranked)
            }
            None => None,
        };
        let chosen = choose_pairs(&*pool, count - again.len(), &before.pairs, rank, &settings, stream);
        let offered = chosen.into_iter().map(|pair| {
            let items = [pair.left, pair.right].map(|place| Item::Completion(pool.get(place).completion.clone()));
            Offered { items, reason: pair.reason }
        });
        let mut offered: Vec<Offered> = offered.collect();
        for Offered { items: [left, right], .. } in &offered {
            before.pairs.insert(left.id(), right.id());
        }
        offered.extend(again);
        offered
    }

    /// The mean of the ensemble as a linear head on the final hidden state: weights and bias.
    pub fn head(&self) -> Option<(Vec<f32>, f64)> {
        self.ensemble.as_ref().map(LinearReward::mean)
    }

    /// Has the monitor evaluate the completions of an update now and then. An alarm demands more labels than there are.
    pub fn watch(
        &mut self,
        episodes: &[Episode],
        labels: usize,
        start: &Bundle,
        words: &Words,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Values, LabError> {
        let Some(ensemble) = &self.ensemble else { return Ok(Values::new()) };
        if self.unwatched + 1 < WATCH_EVERY {
            self.unwatched += 1;
            return Ok(Values::new());
        }
        let example = |e: &Episode| scored(&self.encoder, words, &start.tokenizer, &e.prompt, &e.completion);
        let examples: Vec<Example> = episodes.iter().map(example).collect::<Result<_, _>>()?;
        let states = last_hidden_states(&start.model, &examples, true, SCORED, &mut |_| cancelled());
        if states.len() < episodes.len() {
            return Err(LabError::Cancelled);
        }
        self.unwatched = 0;
        let ratio = self.monitor.observe(ensemble.ensemble_std(states.iter().map(Vec::as_slice)));
        let alarm = self.monitor.alarm().is_some();
        if alarm {
            self.urgent = self.urgent.max(labels + ALARM_LABELS);
        }
        Ok(vec![("spread", ratio), ("alarm", f64::from(u8::from(alarm)))])
    }

    /// What a resumed run needs. The pool is written anew, and the ensemble is conditioned anew on the same answers.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = prefixed(self.monitor.to_arrays(), "monitor/");
        arrays.insert("unwatched".to_owned(), Array::u64(vec![self.unwatched as u64]));
        let mut items: Vec<(&ItemId, &Arc<[f32]>)> = self.features.iter().collect();
        items.sort_unstable_by_key(|(id, _)| **id);
        if let Some(width) = items.first().map(|(_, features)| features.len()) {
            let numbers: Vec<f32> = items.iter().flat_map(|(_, features)| features.iter().copied()).collect();
            arrays.insert("features".to_owned(), Array::f32(&[items.len(), width], numbers));
            arrays.insert("items".to_owned(), Array::u64(items.iter().map(|(id, _)| id.0).collect()));
        }
        arrays
    }

    /// Restores what [`Asking::to_arrays`] returned. Checkpoints of earlier versions have none of it.
    pub fn load_arrays(&mut self, arrays: &Arrays) {
        self.monitor.load_arrays(&unprefixed(arrays, "monitor/"));
        let unwatched = arrays.get("unwatched").and_then(Array::as_u64).and_then(|words| words.first());
        self.unwatched = unwatched.map_or(0, |&unwatched| unwatched as usize);
        let items = arrays.get("items").and_then(Array::as_u64).unwrap_or_default();
        let features = arrays.get("features").and_then(Array::as_f32).unwrap_or_default();
        if let Some(width) = features.len().checked_div(items.len()).filter(|&width| width > 0) {
            let rows = items.iter().zip(features.chunks_exact(width));
            self.features = rows.map(|(&id, row)| (ItemId(id), row.into())).collect();
        }
    }
}

/// A completion in the pool.
pub(super) struct PoolCompletion {
    pub completion: Arc<Completion>,
    /// The prompt's place in the corpus.
    pub prompt: usize,
    /// What the ensemble reads of it.
    pub features: Arc<[f32]>,
}

/// The recent completions that pairs are chosen from. If it is full, a new one replaces the oldest.
pub(super) struct CompletionPool {
    capacity: usize,
    entries: VecDeque<PoolCompletion>,
}

impl CompletionPool {
    fn new(capacity: usize) -> CompletionPool {
        CompletionPool { capacity: capacity.max(2), entries: VecDeque::new() }
    }

    fn push(&mut self, entry: PoolCompletion) {
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    fn get(&self, place: usize) -> &PoolCompletion {
        &self.entries[place]
    }

    /// Drops all completions, e.g. those of prompts that are no longer asked about.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The first two completions of each prompt, equal or not.
    pub fn any_pairs(&self) -> Vec<Offered> {
        let mut by_prompt: Vec<(usize, Vec<&PoolCompletion>)> = Vec::new();
        for entry in &self.entries {
            match by_prompt.last_mut() {
                Some((prompt, entries)) if *prompt == entry.prompt => entries.push(entry),
                _ => by_prompt.push((entry.prompt, vec![entry])),
            }
        }
        let pair = |(_, entries): (usize, Vec<&PoolCompletion>)| match entries[..] {
            [left, right, ..] => {
                let items = [left, right].map(|entry| Item::Completion(entry.completion.clone()));
                Some(Offered { items, reason: PairReason::Random })
            }
            _ => None,
        };
        by_prompt.into_iter().filter_map(pair).collect()
    }
}

impl Pool for CompletionPool {
    fn count(&self) -> usize {
        self.entries.len()
    }

    fn id(&self, index: usize) -> ItemId {
        self.entries[index].completion.id
    }

    /// Only completions of one prompt are compared. Two equal ones are no question.
    fn comparable(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.entries[a], &self.entries[b]);
        a.prompt == b.prompt && a.completion.tokens != b.completion.tokens
    }

    fn most_pairs(&self) -> usize {
        let mut of_prompt: HashMap<usize, usize> = HashMap::new();
        self.entries.iter().for_each(|entry| *of_prompt.entry(entry.prompt).or_default() += 1);
        of_prompt.values().map(|n| n * (n - 1) / 2).sum()
    }

    /// The share of tokens that only one of the two has, by Sørensen and Dice: 0 for the same tokens in any order, 1 if
    /// they share none.
    fn distances(&self, pairs: &[[usize; 2]]) -> Vec<f32> {
        let distance = |&[a, b]: &[usize; 2]| {
            let [a, b] = [a, b].map(|place| &self.entries[place].completion.tokens[..]);
            let mut left: HashMap<u32, usize> = HashMap::new();
            a.iter().for_each(|token| *left.entry(*token).or_default() += 1);
            let shared = b.iter().filter(|token| match left.get_mut(token) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    true
                }
                _ => false,
            });
            1.0 - 2.0 * shared.count() as f32 / (a.len() + b.len()).max(1) as f32
        };
        pairs.iter().map(distance).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(completions: &[(usize, &[u32])]) -> CompletionPool {
        let mut pool = CompletionPool::new(100);
        for (id, &(prompt, tokens)) in completions.iter().enumerate() {
            let completion = Completion { id: ItemId(id as u64), tokens: tokens.to_vec(), ..Completion::default() };
            pool.push(PoolCompletion { completion: Arc::new(completion), prompt, features: Arc::default() });
        }
        pool
    }

    /// Pairs are of one prompt and differ; those that share most tokens are put aside.
    #[test]
    fn pairs_are_of_one_prompt_and_not_alike() {
        let pool = pool(&[(0, &[1, 2, 3]), (0, &[1, 2, 3]), (0, &[3, 2, 1]), (0, &[4, 5]), (1, &[4, 5]), (1, &[4])]);
        let distances = pool.distances(&[[0, 1], [0, 2], [0, 3], [4, 5]]);
        assert_eq!(distances[..3], [0.0, 0.0, 1.0]);
        assert!((distances[3] - 1.0 / 3.0).abs() < 1e-6);
        assert!(!pool.comparable(0, 1) && pool.comparable(0, 2) && !pool.comparable(3, 4));
        assert_eq!(pool.most_pairs(), 7);
        let settings = LabelSettings { drop_similar_share: 0.5, ..LabelSettings::default() };
        let mut stream = Seed(1).stream("pairs");
        let chosen = choose_pairs(&pool, 2, &Default::default(), None, &settings, &mut stream);
        assert!(chosen.iter().all(|pair| pair.left == 3 || pair.right == 3), "{chosen:?}");
        let all = choose_pairs(&pool, 100, &Default::default(), None, &settings, &mut stream);
        assert_eq!(all.len(), 6, "every pair but the two equal ones");
        assert_eq!(pool.any_pairs().len(), 2);
    }
}
