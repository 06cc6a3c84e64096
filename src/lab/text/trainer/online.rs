//! Online DPO: the policy writes completions, they are judged, and the policy learns from the judgements.
//!
//! Reward functions score the completions of every step at once. A teacher, who is a person or a simulated one, is
//! asked about pairs instead, as before a reward model, but the policy of the moment writes them. After each round of
//! answers the policy takes its share of the planned gradient steps on the session's answers so far, and is asked about
//! anew. A step always learns from the same number of answers, so a run that was interrupted goes on with the same
//! steps.

use super::super::asking::Asking;
use super::super::reward_functions::{RewardFunctions, candidates};
use super::super::teaching::{SCORED, Words};
use super::offline::points;
use super::{Stage, TextTrainer};
use crate::lab::shared_requests::Label;
use crate::lab::training_loop::Values;
use crate::lab::{LabError, TeacherKind};
use crate::settings::TextRun;
use flipside_core::{Completion, Seed, Stream, both_completions};
use flipside_learn::LearnError;
use flipside_text::model::Transformer;
use flipside_text::{Bundle, Example, Progress, Reference, TextComparison, TextOnlineDpo, log_probs};
use rand::Rng;

/// A policy that learns from judgements of what it writes.
pub(super) struct Online {
    /// The supervised model, which is the reference.
    pub start: Bundle,
    pub learner: TextOnlineDpo<Transformer>,
    /// What scores completions; `None` if a teacher answers.
    pub functions: Option<RewardFunctions>,
    /// The answers that the data gives to the prompts, by their places.
    pub references: Vec<Option<String>>,
    /// Which completions are asked about.
    pub asking: Asking,
    /// The prompts that are answered, as tokens, in the corpus's order.
    pub prompts: Vec<Vec<u32>>,
    /// What these prompts say, by their tokens.
    pub words: Words,
    /// Random stream for prompts, for seeds of completions and for sides of pairs.
    pub draws: Stream,
    /// Whether a round has ended since pairs were last proposed, so that those that wait are of an earlier policy.
    pub outdated: bool,
    /// Planned gradient steps and answers, and the answers of a round.
    plan: Plan,
}

#[derive(Clone, Copy)]
struct Plan {
    steps: u64,
    labels: usize,
    round: usize,
}

impl Plan {
    /// The answers that gradient step `step`, counted from 0, learns from: all those of the rounds that it comes after.
    fn answers(self, step: u64) -> usize {
        let share = (u128::from(step) + 1) * self.labels as u128;
        let needed = share.div_ceil(u128::from(self.steps.max(1))) as usize;
        needed.checked_next_multiple_of(self.round).map_or(self.labels, |whole| whole.min(self.labels))
    }
}

impl Online {
    /// The answers that the next gradient step needs; 0 where reward functions judge.
    pub fn answers_needed(&self) -> usize {
        match self.functions {
            Some(_) => 0,
            None => self.plan.answers(self.learner.updates().min(self.plan.steps.saturating_sub(1))),
        }
    }

    /// Answers of a round.
    pub fn round(&self) -> usize {
        self.plan.round
    }

    /// The log-ratio, log π − log π_ref, of each token in nats.
    pub fn log_ratios(&self, examples: &[Example]) -> Vec<Vec<f32>> {
        if self.learner.updates() == 0 {
            return examples.iter().map(|e| vec![0.0; e.completion.len()]).collect();
        }
        let of = |model, adapters| log_probs(model, examples, adapters, 1.0, SCORED, &mut |_| false);
        let (reference, adapters) = self.learner.reference();
        let (policy, reference) = (of(self.learner.policy(), true), of(reference, adapters));
        let less =
            |(policy, reference): (Vec<f32>, Vec<f32>)| policy.iter().zip(reference).map(|(p, r)| p - r).collect();
        policy.into_iter().zip(reference).map(less).collect()
    }

    /// The policy, with what it is written with.
    pub fn bundle(&self) -> Bundle {
        Bundle { model: self.learner.policy().clone(), tokenizer: self.start.tokenizer.clone(), score: None }
    }

    /// What the first of these answers teach.
    fn pairs(&self, labels: &[Label], margin: f64) -> Vec<TextComparison> {
        let pair = |label: &Label| {
            let [left, right] = both_completions(&label.items)?;
            let prompt = left.prompt_tokens.clone();
            TextComparison::new(prompt, left.tokens.clone(), right.tokens.clone(), label.choice, margin)
        };
        labels.iter().filter_map(pair).filter(|pair| pair.left != pair.right).collect()
    }
}

/// What the answers of a round say of the policy that wrote its completions.
fn of_round(labels: &[Label]) -> Values {
    let pairs = labels.iter().filter_map(|label| both_completions(&label.items));
    let completions: Vec<&Completion> = pairs.flatten().map(|completion| &**completion).collect();
    let count = completions.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Completion) -> f64| completions.iter().map(|one| of(one)).sum::<f64>() / count;
    let ties = labels.iter().filter(|label| label.choice.target() == Some(0.5)).count();
    let gold: Option<f64> = completions.iter().map(|one| one.gold).sum();
    let mut values = vec![
        ("reference_kl", mean(&|one| one.log_ratios.iter().map(|&l| f64::from(l)).sum())),
        ("length", mean(&|one| one.tokens.len() as f64)),
        ("ended", mean(&|one| f64::from(u8::from(one.stopped)))),
        ("equal_groups", ties as f64 / labels.len().max(1) as f64),
    ];
    values.extend(gold.map(|sum| ("gold", sum / count)));
    values
}

impl TextTrainer {
    /// Begins online DPO.
    pub(super) fn online(&self, start: Bundle) -> Result<Online, LabError> {
        let prompts = self.corpus.prompts(&self.checked_reader(&start)?)?;
        let functions = self.reward_functions(&start, &prompts)?;
        let by_teacher = functions.is_none();
        if by_teacher && self.settings.labels == 0 {
            return Err(LabError::Text(
                "Nobody judges the completions: give a reward model or reward functions, or ask for labels.".to_owned(),
            ));
        }
        if by_teacher && self.settings.teacher != TeacherKind::Person && !self.corpus.has_gold() {
            return Err(LabError::Text(
                "Nobody knows the true score of completions of these prompts, so no simulated teacher can answer: give a \
                 reward model or reward functions, or answer yourself at the desk."
                    .to_owned(),
            ));
        }
        let TextRun { online_dpo, preference, online_dpo_steps: steps, lora, .. } = &self.run;
        let reference = if lora.is_some() { Reference::Base } else { Reference::Model(start.model.clone()) };
        let policy = start.model.deep_clone();
        let mut learner = TextOnlineDpo::new(policy, reference, &start.stop(), online_dpo, preference, self.seed)?;
        learner.plan(*steps);
        Ok(Online {
            learner,
            functions,
            references: prompts.iter().map(|prompt| prompt.reference.clone()).collect(),
            asking: Asking::new(&self.run, &start, Seed(self.seed.stream("text.ensemble").next_u64())),
            words: prompts.iter().map(|prompt| (prompt.tokens.clone(), prompt.words.clone())).collect(),
            prompts: prompts.into_iter().map(|prompt| prompt.tokens).collect(),
            draws: self.seed.stream("text.draws"),
            outdated: false,
            plan: Plan { steps: *steps, labels: self.settings.labels, round: online_dpo.round_size },
            start,
        })
    }

    /// One turn: one update, or the end.
    pub(super) fn learn_online(
        &mut self,
        labels: &[Label],
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Values, LabError> {
        let margin = self.run.preference.margin;
        let Stage::Online(online) = &mut self.stage else { return Ok(Values::new()) };
        // The end is a turn of its own: an update that was done is not done again.
        if online.learner.updates() >= self.run.online_dpo_steps {
            let gold = self.gold_of_samples(cancelled)?.map(|gold| ("gold", gold));
            self.leave()?;
            return Ok(gold.into_iter().collect());
        }
        if online.functions.is_some() {
            return self.update_online(cancelled);
        }
        let (step, needed) = (online.learner.updates(), online.answers_needed());
        // A session may go on from a reward model whose answers are all that were planned.
        let written_before = |label: &Label| {
            both_completions(&label.items).is_some_and(|both| both.iter().all(|one| one.recorded_at < self.steps))
        };
        if step == 0 && labels.len() >= online.plan.labels && labels.iter().all(written_before) {
            return Err(LabError::Text(format!(
                "The session has all of its {} planned answers, so the policy would be asked about nothing that it writes; \
                 ask for more labels, or learn from these answers with `flipside text preference`.",
                online.plan.labels
            )));
        }
        if labels.len() < needed {
            return Ok(Values::new());
        }
        self.doing = "Learning what is liked";
        let pairs = online.pairs(&labels[..needed], margin);
        let mut values = match online.learner.step(&pairs, &mut |_| cancelled())? {
            Some(stats) => points(&stats),
            None => Values::new(),
        };
        let begun = if step == 0 { 0 } else { online.plan.answers(step - 1) };
        if needed > begun {
            values.push(("labels", needed as f64));
            values.extend(of_round(&labels[begun..needed]));
        }
        online.outdated |= online.answers_needed() > needed;
        self.steps += 1;
        Ok(values)
    }

    /// An update on completions that the reward functions score.
    fn update_online(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let Stage::Online(online) = &mut self.stage else { return Ok(Values::new()) };
        self.doing = "Following the reward";
        let Online { learner, functions, prompts, words, references, start, .. } = &mut **online;
        let Some(functions) = functions else { return Ok(Values::new()) };
        let mut broken = None;
        let updated = learner.update(
            prompts,
            &mut |episodes, watch| {
                let candidates = candidates(episodes, words, references, &start.tokenizer);
                let scores = functions.scores(&candidates, &mut || watch(Progress::Scoring { done: 0, of: 1 }));
                scores.map_err(|error| {
                    broken = Some(error);
                    LearnError::Cancelled
                })
            },
            &mut |_| cancelled(),
        );
        if let Some(error) = broken {
            return Err(error);
        }
        let (episodes, stats) = updated?;
        self.steps += 1;
        let mut values = vec![
            ("reward", stats.reward),
            ("reference_kl", stats.kl),
            ("entropy", stats.entropy),
            ("length", stats.length),
            ("ended", stats.stopped),
            ("equal_groups", stats.ties),
        ];
        if stats.pairs > 0 {
            values.extend(points(&stats.preference));
        }
        values.extend(self.corpus.mean_gold(&start.tokenizer, &episodes)?.map(|gold| ("gold", gold)));
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps are spread evenly over the answers, none before its round is complete, and the last has all of them.
    #[test]
    fn every_step_learns_from_the_answers_of_whole_rounds() {
        let answers = |steps, labels, round| {
            let plan = Plan { steps, labels, round };
            (0..steps).map(|step| plan.answers(step)).collect::<Vec<usize>>()
        };
        assert_eq!(answers(6, 12, 4), [4, 4, 8, 8, 12, 12]);
        assert_eq!(answers(3, 10, 4), [4, 8, 10]);
        assert_eq!(answers(2, 100, 16), [64, 100]);
        assert_eq!(answers(5, 4, 16), [4; 5]);
    }
}
