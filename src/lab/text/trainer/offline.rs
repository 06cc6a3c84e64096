//! The stages that learn from a fixed set of judgements, without a reward model: learning from preferences directly
//! (DPO and its relatives) and ILQL.
//!
//! The judgements are those of a file and those of the session. Without a file, the teacher is asked about pairs that
//! the supervised model writes, as before a reward model, and training begins when all planned answers are there.

use super::super::asking::Asking;
use super::super::corpus::{Reader, pairs};
use super::super::teaching::{Words, sampling};
use super::{Stage, TextTrainer};
use crate::lab::shared_requests::Label;
use crate::lab::training_loop::Values;
use crate::lab::{LabError, TeacherKind};
use crate::settings::{PreferenceLoss, TextRun, TextStage};
use flipside_core::{Array, Arrays, Seed, Stream, both_completions};
use flipside_learn::LearnError;
use flipside_text::data::TokenizedExample;
use flipside_text::generate::{Sampling, generate};
use flipside_text::model::Transformer;
use flipside_text::{
    Bundle, Ilql, LabelledCompletion, Reference, ScoredCompletion, TextComparison, TextPreference, TextPreferenceStats,
    generate_by_values, standardise,
};
use rand::{Rng, RngExt};
use std::path::Path;

/// Completions that are written at the end, to see how good they are.
const SAMPLES: usize = 64;

/// One pair of a file in so many is held out, up to [`MOST_HELD_OUT`].
const HELD_OUT_SHARE: usize = 20;
const MOST_HELD_OUT: usize = 200;

/// A model that learns from a fixed set of judgements.
pub(super) struct Offline {
    pub stage: TextStage,
    /// The supervised model. Where nothing is asked and no step needs the reference, its weights are the policy's.
    pub start: Bundle,
    /// Whether the weights of `start` are the policy's.
    pub shares_weights: bool,
    learner: Learner,
    /// The judgements of a data file; none if there is no file.
    filed: Option<Data>,
    /// What is learned from, once it is complete, with the number of examples at its end that are held out.
    data: Option<(Data, usize)>,
    /// The number of the session's judgements that are learned from, and the ID of the newest, once training has begun.
    begun: Option<[u64; 2]>,
    /// Which completions are asked about.
    pub asking: Asking,
    /// The prompts that pairs are drawn from, as tokens, in the corpus's order.
    pub prompts: Vec<Vec<u32>>,
    /// What these prompts say, by their tokens.
    pub words: Words,
    /// Random stream for prompts, for seeds of completions and for sides of pairs.
    pub draws: Stream,
}

/// What learns.
enum Learner {
    Preference(Box<TextPreference<Transformer>>),
    Ilql(Box<Ilql<Transformer>>),
}

/// What is learned from.
enum Data {
    Pairs(Vec<TextComparison>),
    Labelled(Vec<LabelledCompletion>),
    Scored(Vec<ScoredCompletion>),
}

impl Data {
    /// Nothing yet, of the kind that this stage of a run learns from.
    fn none(run: &TextRun, stage: TextStage) -> Data {
        match (stage, run.preference.loss) {
            (TextStage::Ilql, _) => Data::Scored(Vec::new()),
            (_, PreferenceLoss::Kto) => Data::Labelled(Vec::new()),
            _ => Data::Pairs(Vec::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Data::Pairs(pairs) => pairs.len(),
            Data::Labelled(completions) => completions.len(),
            Data::Scored(completions) => completions.len(),
        }
    }

    /// Adds what a judged pair teaches.
    fn add_pair(&mut self, pair: TextComparison) {
        match self {
            Data::Pairs(pairs) => pairs.push(pair),
            Data::Labelled(completions) => completions.extend(LabelledCompletion::of_pair(&pair)),
            Data::Scored(completions) => {
                let TextComparison { prompt, left, right, target, .. } = pair;
                completions.push(ScoredCompletion { prompt: prompt.clone(), completion: left, score: target });
                completions.push(ScoredCompletion { prompt, completion: right, score: 1.0 - target });
            }
        }
    }

    /// Adds a completion that is good or bad. Losses on pairs learn nothing from it.
    fn add_labelled(&mut self, one: LabelledCompletion) {
        match self {
            Data::Pairs(_) => {}
            Data::Labelled(completions) => completions.push(one),
            Data::Scored(completions) => {
                let LabelledCompletion { prompt, completion, good } = one;
                completions.push(ScoredCompletion { prompt, completion, score: f32::from(u8::from(good)) });
            }
        }
    }

    /// The examples of a file.
    fn of_file(mut self, path: &Path, reader: &Reader) -> Result<Data, LabError> {
        pairs(path, reader)?.into_iter().for_each(|pair| self.add_pair(pair));
        if !matches!(self, Data::Pairs(_)) {
            for tokens in reader.file(path)? {
                let TokenizedExample::Labelled { prompt, completion, good } = tokens else { continue };
                let as_read = TokenizedExample::Completion { prompt, completion };
                let cut = reader.examples(as_read).into_iter();
                cut.for_each(|one| {
                    let (prompt, completion) = (one.prompt, one.completion);
                    self.add_labelled(LabelledCompletion { prompt, completion, good });
                });
            }
        }
        if self.len() > 0 {
            return Ok(self);
        }
        let (path, wanted) = (
            path.display(),
            match self {
                Data::Pairs(_) => "lines with \"chosen\" and \"rejected\"",
                _ => "lines with \"chosen\" and \"rejected\", or with \"completion\" and \"label\"",
            },
        );
        Err(LabError::Text(format!("{path} holds no judgements that can be learned from; give {wanted}.")))
    }
}

/// What a stage that asks about pairs has.
pub(super) struct Asks<'a> {
    pub asking: &'a mut Asking,
    pub start: &'a Bundle,
    /// The model that writes the completions.
    pub policy: &'a Transformer,
    pub prompts: &'a [Vec<u32>],
    pub words: &'a Words,
    pub draws: &'a mut Stream,
}

impl Stage {
    /// What is needed to ask about pairs; `None` in a stage that asks nothing.
    pub fn asks(&mut self) -> Option<Asks<'_>> {
        match self {
            Stage::Teaching(teaching) => Some(Asks {
                asking: &mut teaching.asking,
                start: &teaching.start,
                policy: teaching.ppo.policy(),
                prompts: &teaching.prompts,
                words: &teaching.words,
                draws: &mut teaching.draws,
            }),
            Stage::Offline(offline) => Some(Asks {
                asking: &mut offline.asking,
                start: &offline.start,
                policy: &offline.start.model,
                prompts: &offline.prompts,
                words: &offline.words,
                draws: &mut offline.draws,
            }),
            Stage::Online(online) if online.functions.is_none() => Some(Asks {
                asking: &mut online.asking,
                start: &online.start,
                policy: online.learner.policy(),
                prompts: &online.prompts,
                words: &online.words,
                draws: &mut online.draws,
            }),
            Stage::Learning(_) | Stage::Online(_) | Stage::Done(_) => None,
        }
    }
}

impl TextTrainer {
    /// Begins a stage that learns from a fixed set of judgements.
    pub(super) fn offline(&self, start: Bundle, stage: TextStage) -> Result<Offline, LabError> {
        let reader = self.checked_reader(&start)?;
        let none = || Data::none(&self.run, stage);
        let filed = self.run.comparisons.as_ref().map(|path| none().of_file(path, &reader)).transpose()?;
        let prompts = self.corpus.prompts(&reader)?;
        if filed.is_none() && self.settings.labels == 0 {
            return Err(LabError::Text(
                "There is nothing to learn from; give a file of judged pairs or ask for labels.".to_owned(),
            ));
        }
        if filed.is_none() && self.settings.teacher != TeacherKind::Person && !self.corpus.has_gold() {
            return Err(LabError::Text(
                "Nobody knows the true score of completions of these prompts, so no simulated teacher can answer: give \
                 judged pairs, or answer yourself at the desk."
                    .to_owned(),
            ));
        }
        let (settings, adapted) = (&self.run.preference, self.run.lora.is_some());
        let asks = filed.is_none();
        let needs_copy = stage == TextStage::Preference && settings.loss == PreferenceLoss::Kto && !adapted;
        let shares_weights = !(asks || needs_copy || adapted);
        let policy = if shares_weights { start.model.clone() } else { start.model.deep_clone() };
        let learner = match stage {
            TextStage::Ilql => Learner::Ilql(Box::new(Ilql::new(policy, &self.run.ilql, self.seed)?)),
            _ => {
                let reference = match (adapted, settings.precompute_ref_log_probs) {
                    _ if needs_copy => Some(Reference::Model(start.model.clone())),
                    (true, false) => Some(Reference::Base),
                    _ => None,
                };
                Learner::Preference(Box::new(TextPreference::new(policy, reference, settings, self.seed)?))
            }
        };
        let mut offline = Offline {
            stage,
            shares_weights,
            learner,
            filed,
            data: None,
            begun: None,
            asking: Asking::new(&self.run, &start, Seed(self.seed.stream("text.ensemble").next_u64())),
            words: prompts.iter().map(|prompt| (prompt.tokens.clone(), prompt.words.clone())).collect(),
            prompts: prompts.into_iter().map(|prompt| prompt.tokens).collect(),
            draws: self.seed.stream("text.draws"),
            start,
        };
        offline.plan(self.run.steps_of(stage));
        Ok(offline)
    }

    /// One turn: one gradient step, or what comes before the first and after the last.
    pub(super) fn learn_offline(
        &mut self,
        labels: &[Label],
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Values, LabError> {
        let planned = self.settings.labels;
        let Stage::Offline(offline) = &mut self.stage else { return Ok(Values::new()) };
        let steps = self.run.steps_of(offline.stage);
        if offline.needs_answers() && labels.len() < planned {
            return Ok(Values::new());
        }
        if offline.data.is_none() {
            offline.gather(labels, &self.run)?;
        }
        let mut values = Values::new();
        if offline.steps() < steps {
            self.doing = "Learning what is liked";
            // Keeping the reference is a turn of its own. If it is cancelled, it starts again.
            if offline.keep_reference(cancelled)? {
                return Ok(values);
            }
            values = offline.step(cancelled)?;
            self.steps += 1;
        }
        // The end is a turn of its own, too: a step that was done is not done again.
        else {
            values.extend(offline.agreement(cancelled)?.map(|share| ("agreement", share)));
            values.push(("labels", labels.len() as f64));
            values.extend(self.gold_of_samples(cancelled)?.map(|gold| ("gold", gold)));
            self.leave()?;
        }
        Ok(values)
    }

    /// The mean gold score of completions for prompts of the corpus, where it is known.
    pub(super) fn gold_of_samples(&self, cancelled: &mut dyn FnMut() -> bool) -> Result<Option<f64>, LabError> {
        let (start, prompts, policy, values) = match &self.stage {
            Stage::Online(online) => (&online.start, &online.prompts, online.learner.policy(), None),
            Stage::Offline(offline) => match &offline.learner {
                Learner::Preference(trainer) => (&offline.start, &offline.prompts, trainer.policy(), None),
                Learner::Ilql(trainer) => (&offline.start, &offline.prompts, trainer.model(), Some(trainer.heads())),
            },
            _ => return Ok(None),
        };
        if !self.corpus.has_gold() {
            return Ok(None);
        }
        let mut stream = self.seed.stream("text.offline.samples");
        let places: Vec<usize> = (0..SAMPLES).map(|_| stream.random_range(0..prompts.len())).collect();
        let rows: Vec<&[u32]> = places.iter().map(|&place| &prompts[place][..]).collect();
        let sampling = sampling(start, &self.run, stream.next_u64());
        let mut stop = false;
        let mut on_token = |_, _| {
            stop = cancelled();
            !stop
        };
        let written = match values {
            None => generate(policy, &rows, &sampling, true, &mut on_token),
            Some(heads) => {
                let sampling = Sampling { top_k: self.run.ilql.top_k, ..sampling };
                generate_by_values((policy, heads), &rows, self.run.ilql.beta, &sampling, &mut on_token)
            }
        };
        if stop {
            return Err(LabError::Cancelled);
        }
        let tokenizer = &start.tokenizer;
        let golds = places.iter().zip(rows).zip(written).map(|((&place, prompt), one)| {
            let text = self.corpus.prompt_text(tokenizer, prompt, place)?;
            Ok(self.corpus.gold(&text, &tokenizer.continuation(prompt, &one.tokens, true)?))
        });
        let golds: Vec<Option<f64>> = golds.collect::<Result<_, LabError>>()?;
        Ok(golds.iter().copied().sum::<Option<f64>>().map(|sum| sum / SAMPLES as f64))
    }
}

impl Offline {
    pub fn steps(&self) -> u64 {
        match &self.learner {
            Learner::Preference(trainer) => trainer.steps(),
            Learner::Ilql(trainer) => trainer.steps(),
        }
    }

    fn plan(&mut self, steps: u64) {
        match &mut self.learner {
            Learner::Preference(trainer) => trainer.plan(steps),
            Learner::Ilql(trainer) => trainer.plan(steps),
        }
    }

    /// Whether the judgements come from a file, so that none are asked for.
    pub fn has_file(&self) -> bool {
        self.filed.is_some()
    }

    /// Whether training waits for the teacher's answers.
    pub fn needs_answers(&self) -> bool {
        self.begun.is_none() && self.filed.is_none()
    }

    /// Puts together what is learned from. It stays the same from the first step on.
    fn gather(&mut self, labels: &[Label], run: &TextRun) -> Result<(), LabError> {
        let newest = |labels: &[&Label]| labels.last().map_or(0, |label| label.judgement.0);
        let until = self.begun.map_or(u64::MAX, |[_, newest]| newest);
        let labels: Vec<&Label> = labels.iter().filter(|label| label.judgement.0 <= until).collect();
        let state = [labels.len() as u64, newest(&labels)];
        if self.begun.is_some_and(|begun| begun != state) {
            return Err(LabError::Text(
                "Answers that this stage learns from were taken back after it had begun; undo that, or begin a new \
                 session."
                    .to_owned(),
            ));
        }
        let mut data = Data::none(run, self.stage);
        let filed = self.filed.as_ref().map_or(0, Data::len);
        match (&mut data, &self.filed) {
            (Data::Pairs(all), Some(Data::Pairs(filed))) => all.clone_from(filed),
            (Data::Labelled(all), Some(Data::Labelled(filed))) => all.clone_from(filed),
            (Data::Scored(all), Some(Data::Scored(filed))) => all.clone_from(filed),
            _ => {}
        }
        for label in labels {
            let Some([left, right]) = both_completions(&label.items) else { continue };
            let prompt = left.prompt_tokens.clone();
            let (left, right) = (left.tokens.clone(), right.tokens.clone());
            let pair = TextComparison::new(prompt, left, right, label.choice, run.preference.margin);
            pair.filter(|pair| pair.left != pair.right).into_iter().for_each(|pair| data.add_pair(pair));
        }
        if data.len() == 0 {
            return Err(LabError::Text(
                "No answer prefers one of two different completions, so there is nothing to learn from; ask for more."
                    .to_owned(),
            ));
        }
        let held_out = (filed / HELD_OUT_SHARE).min(MOST_HELD_OUT);
        match &mut data {
            // The held-out examples are the file's first; they move to the end.
            Data::Pairs(all) => all.rotate_left(held_out),
            Data::Labelled(all) => all.rotate_left(held_out),
            Data::Scored(all) => standardise(all),
        }
        self.begun = Some(state);
        self.data = Some((data, held_out));
        Ok(())
    }

    /// Computes the reference's log-probabilities if they must be kept and are not yet. Returns whether it did.
    fn keep_reference(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<bool, LabError> {
        match (&mut self.learner, &self.data) {
            (Learner::Preference(trainer), Some((Data::Pairs(pairs), _))) if trainer.must_keep_reference() => {
                trainer.keep_reference(pairs, &mut |_| cancelled())?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Takes a gradient step. Returns points of curves.
    fn step(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let mut on_progress = |_| cancelled();
        let stats = match (&mut self.learner, &self.data) {
            (Learner::Preference(trainer), Some((Data::Pairs(pairs), held_out))) => {
                trainer.step(&pairs[..pairs.len() - held_out], &mut on_progress)?
            }
            (Learner::Preference(trainer), Some((Data::Labelled(completions), held_out))) => {
                trainer.step_labelled(&completions[..completions.len() - held_out], &mut on_progress)?
            }
            (Learner::Ilql(trainer), Some((Data::Scored(completions), _))) => {
                let stats = trainer.step(completions, &mut on_progress)?;
                return Ok(vec![
                    ("ilql_loss", stats.loss),
                    ("q_loss", stats.q_loss),
                    ("v_loss", stats.v_loss),
                    ("q", stats.q),
                    ("v", stats.v),
                    ("nll", stats.nll),
                    ("grad_norm", stats.grad_norm),
                ]);
            }
            _ => return Err(LearnError::Settings("there is nothing to learn from".to_owned()).into()),
        };
        Ok(points(&stats))
    }

    /// Share of the held-out judgements that the policy agrees with; `None` if none are held out.
    fn agreement(&self, cancelled: &mut dyn FnMut() -> bool) -> Result<Option<f64>, LabError> {
        let mut on_progress = |_| cancelled();
        let stats = match (&self.learner, &self.data) {
            (Learner::Preference(trainer), Some((Data::Pairs(pairs), held_out))) if *held_out > 0 => {
                trainer.evaluate(pairs, pairs.len() - held_out..pairs.len(), &mut on_progress)?
            }
            (Learner::Preference(trainer), Some((Data::Labelled(all), held_out))) if *held_out > 0 => {
                trainer.evaluate_labelled(&all[all.len() - held_out..], &mut on_progress)?
            }
            _ => return Ok(None),
        };
        Ok(Some(stats.accuracy))
    }

    /// The policy.
    pub fn model(&self) -> &Transformer {
        match &self.learner {
            Learner::Preference(trainer) => trainer.policy(),
            Learner::Ilql(trainer) => trainer.model(),
        }
    }

    /// The policy, with what it is written with.
    pub fn bundle(&self) -> Bundle {
        Bundle { model: self.model().clone(), tokenizer: self.start.tokenizer.clone(), score: None }
    }

    /// The heads of ILQL, which its model's folder has too.
    pub fn heads(&self) -> Arrays {
        match &self.learner {
            Learner::Preference(_) => Arrays::new(),
            Learner::Ilql(trainer) => trainer.heads().to_arrays(),
        }
    }

    /// What a resumed run needs beside its data.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = match &self.learner {
            Learner::Preference(trainer) => trainer.to_arrays(),
            Learner::Ilql(trainer) => trainer.to_arrays(),
        };
        if let Some(begun) = self.begun {
            arrays.insert("begun".to_owned(), Array::u64(begun.to_vec()));
        }
        arrays
    }

    /// Restores what [`Offline::to_arrays`] returned. The plan may have become longer.
    pub fn load_arrays(&mut self, arrays: &Arrays, planned: u64) -> Result<(), LabError> {
        match &mut self.learner {
            Learner::Preference(trainer) => trainer.load_arrays(arrays)?,
            Learner::Ilql(trainer) => trainer.load_arrays(arrays)?,
        }
        self.plan(planned);
        let begun = arrays.get("begun").and_then(Array::as_u64);
        self.begun = begun.and_then(|words| words.try_into().ok());
        Ok(())
    }
}

/// The points on the curves of a step.
pub(super) fn points(stats: &TextPreferenceStats) -> Values {
    let mut values = vec![
        ("preference_loss", stats.loss),
        ("preference_accuracy", stats.accuracy),
        ("preference_margin", stats.margin),
        ("grad_norm", stats.grad_norm),
    ];
    values.extend(stats.chosen_log_prob.map(|value| ("chosen_log_prob", value)));
    values.extend(stats.rejected_log_prob.map(|value| ("rejected_log_prob", value)));
    values.extend(stats.log_ratio.map(|value| ("log_ratio", value)));
    values
}
