//! Text mode's training loop, without threads or database. A base model learns the language, a supervised model learns
//! to answer, a reward model learns from the judgements, and PPO trains the policy on that reward. The next pairs show
//! what PPO made of the policy. `offline` and `online` have the ways that need no reward model. A run may start from a
//! model that has been through the first stages already: a given one, or the built-in one.
//!
//! With a person at the desk, the reward model and PPO take turns for as long as answers come. A simulated teacher
//! answers at once, so it gives all its answers first. Every finished pipeline stage writes its model to the session's
//! folder, `models/base` and so on, in the format of Hugging Face.

mod inside;
mod offline;
mod online;
mod saved;
mod showing;
mod stages;
#[cfg(test)]
mod tests;

use super::built_in;
use super::corpus::Corpus;
use super::reward_functions::candidates;
use super::teaching::{FIRST_FIT, Teaching, sampling, scored};
use crate::lab::questions::Offered;
use crate::lab::shared_requests::Label;
use crate::lab::training_loop::{Tell, TrainingLoop, Values};
use crate::lab::vocabulary::{DisputedView, InsideRequest, ModeView, Snapshot, TextSample, TextView};
use crate::lab::{LabError, TeacherKind};
use crate::settings::{RewardNormalisation, RunSettings, TextRun, TextStage};
use flipside_core::{Arrays, ItemId, Seed};
use flipside_learn::LearnError;
use flipside_text::generate::generate;
use flipside_text::model::Transformer;
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Bundle, Episode, Example, Progress, Supervised, TextComparison};
use inside::Looks;
use offline::{Asks, Offline};
use online::Online;
use rand::Rng;
use rand::RngExt;
use saved::Saved;
pub(in crate::lab) use saved::reached;
use showing::Written;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Gradient steps of the base and the supervised model between two points on their curves.
const POINT: u64 = 5;

/// PPO updates that training may continue after a person's last answer.
const PATIENCE: u64 = 24;

/// Pairs that a simulated teacher is asked at a time. They are chosen by the answers before them.
const HANDFUL: usize = 16;

/// Completions or references at which the rewards are set to 0 once the reward model is trained.
const NORMALISED_AT: usize = 256;

/// Prompts that are answered by both the supervised model and the policy to show the difference.
const SAMPLES: usize = 8;

/// Everything that learns.
pub(in crate::lab) struct TextTrainer {
    settings: RunSettings,
    run: TextRun,
    seed: Seed,
    folder: PathBuf,
    corpus: Corpus,
    stage: Stage,
    /// Steps of all pipeline stages together.
    steps: u64,
    /// Sum and number of the losses since the last point on the curve.
    window: [f64; 2],
    teacher: TeacherKind,
    next_item: u64,
    model: String,
    samples: Arc<Vec<TextSample>>,
    asked: Option<Arc<TextSample>>,
    looks: Looks,
    doing: &'static str,
    /// What the person should be told once.
    warnings: Vec<String>,
}

/// What is being trained.
enum Stage {
    /// The base model or the supervised model.
    Learning(Box<Learning>),
    /// The reward model and the policy.
    Teaching(Box<Teaching>),
    /// The policy, on a fixed set of judgements.
    Offline(Box<Offline>),
    /// The policy, on judgements of what it writes.
    Online(Box<Online>),
    /// Nothing: this pipeline stage is finished. It is the run's last one, or the next one could not be entered yet.
    Done(TextStage),
}

/// A model that learns to continue texts.
struct Learning {
    stage: TextStage,
    tokenizer: Tokenizer,
    trainer: Supervised<Transformer>,
    examples: Vec<Example>,
    held: Vec<Example>,
}

impl Stage {
    /// The pipeline stage that it began with.
    fn began(&self) -> TextStage {
        match self {
            Stage::Learning(learning) => learning.stage,
            Stage::Teaching(teaching) => teaching.stage,
            Stage::Offline(offline) => offline.stage,
            Stage::Online(_) => TextStage::OnlineDpo,
            Stage::Done(stage) => *stage,
        }
    }

    /// The model that a stage starts from, the policy that it makes of it, and the prompts that are answered; `None` if
    /// there are not both models.
    fn models(&self) -> Option<(&Bundle, &Transformer, &[Vec<u32>])> {
        match self {
            Stage::Teaching(teaching) => Some((&teaching.start, teaching.ppo.policy(), &teaching.prompts)),
            Stage::Online(online) => Some((&online.start, online.learner.policy(), &online.prompts)),
            Stage::Learning(_) | Stage::Offline(_) | Stage::Done(_) => None,
        }
    }
}

impl TextTrainer {
    /// A new trainer at the first pipeline stage, or at the stage of the checkpoint `arrays`. `prompts` are those that
    /// the person chose.
    pub fn new(
        settings: &RunSettings,
        folder: &Path,
        next_item: ItemId,
        prompts: Option<Vec<String>>,
        arrays: Option<&Arrays>,
    ) -> Result<TextTrainer, LabError> {
        let run = settings.text().cloned().unwrap_or_default();
        run.check().map_err(LabError::Text)?;
        if matches!(settings.teacher, TeacherKind::Fallible(noise) if noise.gamma != 1.0) {
            return Err(LabError::Text(
                "A myopic teacher judges a clip by its end, which a completion does not have; choose another teacher."
                    .to_owned(),
            ));
        }
        let seed = Seed(settings.seed);
        let saved = arrays.map(Saved::read).transpose()?;
        // A finished run that was asked to go further starts the pipeline stage after its last one.
        let stage = match &saved {
            None => run.stages().first().copied(),
            Some(saved) if !saved.done => Some(saved.stage),
            Some(saved) => saved.stage.next_towards(run.until),
        };
        let mut corpus = Corpus::new(&run, seed);
        corpus.prompts = prompts.map(Arc::new);
        let mut trainer = TextTrainer {
            corpus,
            stage: Stage::Done(run.until),
            steps: saved.as_ref().map_or(0, |saved| saved.steps),
            window: [0.0; 2],
            teacher: settings.teacher,
            next_item: next_item.0,
            model: String::new(),
            samples: Arc::default(),
            asked: None,
            looks: Looks::default(),
            doing: "",
            warnings: Vec::new(),
            settings: settings.clone(),
            run,
            seed,
            folder: folder.to_owned(),
        };
        if saved.is_none() && trainer.run.model.is_none() && trainer.run.from > TextStage::Base {
            let trained = trainer.run.from.min(TextStage::Reward) as usize - 1;
            built_in::copy(TextStage::ALL[trained], &trainer.folder)?;
        }
        let going_on = saved.as_ref().filter(|saved| !saved.done);
        if let Some(stage) = stage {
            trainer.enter(stage, going_on.map(|saved| saved.taught))?;
        }
        if let (Some(arrays), Some(saved)) = (arrays, going_on) {
            trainer.load(arrays, saved)?;
        }
        Ok(trainer)
    }

    /// Pairs that a simulated teacher is asked at a time.
    fn handful(&self) -> usize {
        match &self.stage {
            Stage::Online(online) => online.round(),
            _ => HANDFUL,
        }
    }

    /// The stage as the person sees it, the steps done in it, and the planned steps.
    fn progress(&self) -> (TextStage, u64, u64) {
        match &self.stage {
            Stage::Learning(l) => (l.stage, l.trainer.steps(), self.run.steps_of(l.stage)),
            Stage::Teaching(t) if !t.trusted => {
                (TextStage::Reward, t.reward.steps(), (t.reward.steps() + t.fit_left).max(self.run.reward_steps))
            }
            Stage::Teaching(t) => (TextStage::Ppo, t.ppo.updates(), self.run.updates),
            Stage::Offline(offline) => (offline.stage, offline.steps(), self.run.steps_of(offline.stage)),
            Stage::Online(online) => (TextStage::OnlineDpo, online.learner.updates(), self.run.online_dpo_steps),
            Stage::Done(stage) => (*stage, self.run.steps_of(*stage), self.run.steps_of(*stage)),
        }
    }

    /// One or a few gradient steps of the base or the supervised model.
    fn study(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let Stage::Learning(learning) = &mut self.stage else { return Ok(Values::new()) };
        let planned = self.run.steps_of(learning.stage);
        let name = if learning.stage == TextStage::Base { "base_loss" } else { "supervised_loss" };
        let mut values = Values::new();
        while learning.trainer.steps() < planned {
            let stats = learning.trainer.step(&learning.examples, &mut |_| cancelled())?;
            self.steps += 1;
            self.window = [self.window[0] + stats.loss, self.window[1] + 1.0];
            if learning.trainer.steps().is_multiple_of(POINT) {
                break;
            }
        }
        if learning.trainer.steps() >= planned {
            // The last point on the curve is the held-out loss, if there are examples that were held out.
            let held =
                (!learning.held.is_empty()).then(|| learning.trainer.evaluate(&learning.held, &mut |_| cancelled()));
            let trained = self.window[0] / self.window[1].max(1.0);
            values.push((name, held.transpose()?.unwrap_or(trained)));
            self.leave()?;
        } else {
            values.push((name, self.window[0] / self.window[1].max(1.0)));
        }
        self.window = [0.0; 2];
        Ok(values)
    }

    /// One turn of the training loop: fits the reward model if there is more to learn, and otherwise runs PPO.
    fn teach(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let planned = self.settings.labels;
        let person = self.teacher == TeacherKind::Person;
        let Stage::Teaching(teaching) = &mut self.stage else { return Ok(Values::new()) };
        if !teaching.given {
            teaching.plan_fit(labels, planned, person, &self.run)?;
        }
        if teaching.fit_left > 0 {
            self.doing = "Learning what is liked";
            let comparisons = teaching.comparisons(labels)?;
            // The session's answers are few: before the whole model learns from them, the head does.
            if teaching.reward.steps() == 0 && teaching.filed.is_empty() {
                teaching.asking.refit(labels, true, &teaching.start, &teaching.words, cancelled)?;
                if let Some((weight, bias)) = teaching.asking.head() {
                    teaching.reward.set_head(&weight, bias);
                }
            }
            let stats = teaching.reward.step(&comparisons, &mut |_| cancelled())?;
            teaching.fit_left -= 1;
            teaching.unscaled = teaching.fit_left == 0;
            self.steps += 1;
            return Ok(vec![("reward_loss", stats.loss)]);
        }
        // Scaling is a turn of its own. If it is cancelled, the gradient steps already reported remain and scaling
        // starts again.
        if teaching.unscaled {
            let scaled = match self.run.reward.normalise {
                RewardNormalisation::References => teaching.reward.centre(&teaching.answers, &mut |_| cancelled()),
                RewardNormalisation::Samples => {
                    let comparisons = teaching.comparisons(labels)?;
                    let left = |c: &TextComparison| Example { prompt: c.prompt.clone(), completion: c.left.clone() };
                    let samples: Vec<Example> = comparisons.iter().take(NORMALISED_AT).map(left).collect();
                    teaching.reward.normalise(&samples, &mut |_| cancelled())
                }
            };
            teaching.unscaled = matches!(scaled, Err(LearnError::Cancelled));
            match scaled {
                // What was learned is kept, whatever it is worth.
                Err(LearnError::Settings(_)) => self.warnings.push(
                    "The reward model gives every completion the same reward, so the rewards keep their scale. Give it pairs whose \
                     completions differ."
                        .to_owned(),
                ),
                scaled => scaled?,
            }
            teaching.trusted = true;
            let mut values = vec![("labels", labels.len() as f64)];
            values.extend(teaching.agreement().map(|share| ("agreement", share)));
            if self.run.until == TextStage::Reward {
                self.leave()?;
            }
            return Ok(values);
        }
        if !teaching.trusted || self.run.until < TextStage::Ppo {
            return Ok(Values::new());
        }
        self.doing = "Following the reward";
        let Teaching { ppo, reward, prompts, encoder, words, start, functions, references, .. } = &mut **teaching;
        let mut broken = None;
        let updated = ppo.update(
            prompts,
            &mut |episodes, watch| {
                if let Some(functions) = functions {
                    let candidates = candidates(episodes, words, references, &start.tokenizer);
                    let scores = functions.scores(&candidates, &mut || watch(Progress::Scoring { done: 0, of: 1 }));
                    return scores.map_err(|error| {
                        broken = Some(error);
                        LearnError::Cancelled
                    });
                }
                let example = |e: &Episode| scored(encoder, words, &start.tokenizer, &e.prompt, &e.completion);
                let examples: Result<Vec<Example>, LabError> = episodes.iter().map(example).collect();
                let examples = examples.map_err(|error| LearnError::Settings(error.to_string()))?;
                Ok(reward.rewards(&examples, watch)?.into_iter().map(Some).collect())
            },
            &mut |_| cancelled(),
        );
        if let Some(error) = broken {
            return Err(error);
        }
        let (episodes, stats) = updated?;
        self.steps += 1;
        self.save_policy_checkpoint()?;
        let Stage::Teaching(teaching) = &mut self.stage else { return Ok(Values::new()) };
        let watched = teaching.watch(&episodes, labels, person, cancelled)?;
        let gold = self.corpus.mean_gold(&teaching.start.tokenizer, &episodes)?;
        let mut values = vec![
            ("reward", stats.reward),
            ("reference_kl", stats.kl),
            ("beta", stats.beta),
            ("entropy", stats.entropy),
            ("length", stats.length),
            ("ended", stats.stopped),
            ("kl", stats.approx_kl),
        ];
        if self.run.ppo.has_critic() {
            values.push(("value_loss", stats.value_loss));
        } else {
            values.push(("grad_norm", stats.grad_norm));
        }
        if self.run.ppo.group_size > 1 {
            values.push(("equal_groups", stats.equal_groups));
        }
        values.extend(gold.map(|gold| ("gold", gold)));
        values.extend(watched);
        if teaching.ppo.updates() >= self.run.updates {
            self.leave()?;
        }
        Ok(values)
    }
}

impl TrainingLoop for TextTrainer {
    fn steps(&self) -> u64 {
        self.steps
    }

    fn steps_planned(&self) -> u64 {
        let (stage, done, of) = self.progress();
        let later = self.run.stages().iter().filter(|later| !stage.path().contains(later));
        self.steps + of.saturating_sub(done) + later.map(|&later| self.run.steps_of(later)).sum::<u64>()
    }

    fn finished(&self) -> bool {
        matches!(self.stage, Stage::Done(stage) if stage.next_towards(self.run.until).is_none())
    }

    fn patience(&self) -> Option<u64> {
        match &self.stage {
            Stage::Teaching(teaching) => {
                let waits = !teaching.given && teaching.filed.is_empty() && !teaching.is_fitting();
                waits.then_some(PATIENCE + teaching.fit)
            }
            // It waits for all planned answers, and then for none.
            Stage::Offline(offline) => offline.needs_answers().then_some(0),
            // Whether it waits follows from the answers of the round alone.
            Stage::Online(online) => online.functions.is_none().then_some(u64::MAX),
            _ => None,
        }
    }

    fn runs_ahead(&self, labels: usize) -> bool {
        match &self.stage {
            // Before it waits, it asks about what the policy writes now.
            Stage::Online(online) => labels < online.answers_needed() && !online.outdated,
            _ => false,
        }
    }

    fn has_reward(&self) -> bool {
        match &self.stage {
            Stage::Teaching(teaching) => teaching.trusted || teaching.is_fitting(),
            Stage::Offline(offline) => !offline.needs_answers(),
            Stage::Online(_) => true,
            Stage::Learning(_) | Stage::Done(_) => false,
        }
    }

    fn has_choice(&self) -> bool {
        matches!(self.stage, Stage::Teaching(_) | Stage::Offline(_) | Stage::Online(_))
    }

    fn labels_wanted(&self) -> usize {
        let teaching = match &self.stage {
            Stage::Teaching(teaching) => teaching,
            Stage::Offline(offline) if !offline.has_file() => return self.settings.labels,
            Stage::Online(online) => return online.answers_needed(),
            _ => return 0,
        };
        if teaching.given || !teaching.filed.is_empty() {
            return 0;
        }
        match self.teacher {
            // This pace keeps PPO from training on a reward that has had no recent answers.
            TeacherKind::Person => {
                let share = teaching.ppo.updates() as f64 / self.run.updates.max(1) as f64;
                let first = FIRST_FIT.min(self.settings.labels);
                let scheduled = first + ((self.settings.labels - first) as f64 * share) as usize;
                scheduled.max(teaching.asking.urgent.min(self.settings.labels))
            }
            _ => self.settings.labels,
        }
    }

    fn labels_due(&self, labels: usize) -> usize {
        let handful = self.handful();
        self.labels_wanted().saturating_sub(labels).min(handful - labels % handful)
    }

    fn stale_after(&self) -> Duration {
        match &self.stage {
            Stage::Online(online) if online.outdated => Duration::ZERO,
            // The policy stands still while a person answers the questions of a round.
            Stage::Online(_) => Duration::MAX,
            _ => Duration::from_secs(30),
        }
    }

    fn renews(&self) -> bool {
        matches!(&self.stage, Stage::Online(online) if online.outdated)
    }

    fn agreement(&self) -> Option<f64> {
        match &self.stage {
            Stage::Teaching(teaching) => teaching.agreement(),
            _ => None,
        }
    }

    fn take_warning(&mut self) -> Option<String> {
        (!self.warnings.is_empty()).then(|| self.warnings.remove(0))
    }

    fn propose(
        &mut self,
        count: usize,
        labels: &[Label],
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Offered>, LabError> {
        let (person, handful) = (self.teacher == TeacherKind::Person, self.handful());
        let outdated = self.renews();
        let Some(Asks { asking, start, words, prompts, draws, policy }) = self.stage.asks() else {
            return Ok(Vec::new());
        };
        self.doing = "Writing completions";
        // The pairs for a simulated teacher depend only on the standing answers, so a run that was killed between two
        // answers continues with exactly the next pair. For this, a handful is always generated and chosen as a whole,
        // by the answers before it, and the part that was already answered is left out.
        let answered = if person { 0 } else { labels.len() % handful };
        let wanted = if person { count } else { handful };
        let before = &labels[..labels.len() - answered];
        asking.refit(before, !person, start, words, cancelled)?;
        let mut stream = match person {
            true => draws.clone(),
            false => self.seed.stream(&format!("text.pairs/{}", before.len() / handful)),
        };
        let places: Vec<usize> = (0..wanted).map(|_| stream.random_range(0..prompts.len())).collect();
        let seed = stream.next_u64();
        let sampling = sampling(start, &self.run, seed);
        let each = asking.completions();
        let asked: Vec<usize> = places.into_iter().flat_map(|place| std::iter::repeat_n(place, each)).collect();
        let rows: Vec<&[u32]> = asked.iter().map(|&place| &prompts[place][..]).collect();
        let mut stop = false;
        let written = generate(policy, &rows, &sampling, true, &mut |_, _| {
            stop = cancelled();
            !stop
        });
        if stop {
            return Err(LabError::Cancelled);
        }
        let written = asked.iter().zip(written).map(|(&place, completion)| Written {
            prompt: prompts[place].clone(),
            place: Some(place),
            tokens: completion.tokens,
            stopped: completion.stopped,
        });
        let written: Vec<Written> = written.collect();
        let completions = self.shown(written)?;
        let Some(Asks { asking, start, words, draws, .. }) = self.stage.asks() else { return Ok(Vec::new()) };
        // Online DPO asks about the present policy alone.
        if !person || outdated {
            asking.pool.clear();
        }
        let written = asked.into_iter().zip(completions);
        asking.add(written, start, words, cancelled)?;
        let mut offered = asking.choose(wanted, &mut stream);
        if person {
            *draws = stream;
        } else if offered.len() < handful {
            // A simulated teacher compares equal completions, too: this teaches nothing, but keeps the count.
            offered.extend(asking.pool.any_pairs().into_iter().take(handful - offered.len()));
        }
        if let Stage::Online(online) = &mut self.stage {
            online.outdated = false;
        }
        self.doing = "";
        Ok(offered.into_iter().skip(answered).take(count).collect())
    }

    fn alarm(&self) -> Option<String> {
        match &self.stage {
            Stage::Teaching(teaching) if !teaching.given => {
                teaching.asking.monitor.alarm().map(|alarm| alarm.sentence("policy"))
            }
            _ => None,
        }
    }

    fn disputed(&self) -> &[DisputedView] {
        match &self.stage {
            Stage::Teaching(teaching) => &teaching.asking.disputed,
            _ => &[],
        }
    }

    fn collect(&mut self, _cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        // Generating, scoring and learning of an update belong together, in `learn`: an interrupted update leaves
        // nothing behind.
        Ok(())
    }

    fn learn(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        match &self.stage {
            Stage::Learning(_) => {
                self.doing = "Reading";
                self.study(cancelled)
            }
            Stage::Teaching(_) => self.teach(labels, cancelled),
            Stage::Offline(_) => self.learn_offline(labels, cancelled),
            Stage::Online(_) => self.learn_online(labels, cancelled),
            Stage::Done(stage) => {
                // The stage after it could not be entered, for example because a file could not be read.
                if let Some(next) = stage.next_towards(self.run.until) {
                    self.enter(next, None)?;
                }
                Ok(Values::new())
            }
        }
    }

    fn to_arrays(&self) -> Arrays {
        self.save()
    }

    fn show(&mut self, tell: Tell, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        let Some((_, _, known)) = self.stage.models() else { return Ok(()) };
        let n = known.len();
        // Spread evenly over the prompts, and always the same ones.
        let places = (0..SAMPLES.min(n)).map(|i| i * n / SAMPLES.min(n));
        let prompts: Vec<_> = places.map(|place| (known[place].clone(), Some(place))).collect();
        let samples = self.then_and_now(&prompts, 0, &mut |_| {}, cancelled)?;
        self.samples = Arc::new(samples);
        tell(&|snapshot: &mut Snapshot| self.publish(snapshot));
        Ok(())
    }

    fn ask(&mut self, prompt: &str, tell: Tell, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        let Some((start, ..)) = self.stage.models() else { return Ok(()) };
        let reader = self.reader(start);
        let prompt = reader.prompt_of(prompt)?;
        if let Err(too_long) = reader.check_length(&prompt) {
            self.warnings.push(too_long.to_string());
            return Ok(());
        }
        let tokens = prompt.tokens;
        let view = self.view();
        let mut streaming = |samples: &[TextSample]| {
            let asked = samples.first().cloned().map(Arc::new);
            let view = Arc::new(TextView { asked, ..view.clone() });
            tell(&|snapshot: &mut Snapshot| snapshot.mode = ModeView::Text(view.clone()));
        };
        let samples = self.then_and_now(&[(tokens, None)], self.steps, &mut streaming, cancelled)?;
        self.asked = samples.into_iter().next().map(Arc::new);
        tell(&|snapshot: &mut Snapshot| self.publish(snapshot));
        Ok(())
    }

    fn begin_look(&mut self, request: InsideRequest) {
        self.begin_inside(request);
    }

    fn look_on(&mut self, cancelled: &mut dyn FnMut() -> bool) {
        self.looks.go_on(cancelled);
    }

    fn is_looking(&self) -> bool {
        self.looks.is_looking()
    }

    fn keep_looked_into(&mut self) {
        self.looks.keep();
    }

    fn stop_looking(&mut self) {
        self.looks.stop();
    }

    fn set_prompts(&mut self, prompts: Vec<String>) -> Result<(), LabError> {
        self.corpus.prompts = Some(Arc::new(prompts));
        let start = match &self.stage {
            Stage::Teaching(teaching) => &teaching.start,
            Stage::Offline(offline) => &offline.start,
            Stage::Online(online) => &online.start,
            Stage::Learning(_) | Stage::Done(_) => return Ok(()),
        };
        let chosen = self.corpus.prompts(&self.reader(start))?;
        let references = chosen.iter().map(|prompt| prompt.reference.clone()).collect();
        match &mut self.stage {
            Stage::Teaching(teaching) => teaching.references = references,
            Stage::Online(online) => online.references = references,
            _ => {}
        }
        let (words, prompts, asking) = match &mut self.stage {
            Stage::Teaching(teaching) => (&mut teaching.words, &mut teaching.prompts, &mut teaching.asking),
            Stage::Offline(offline) => (&mut offline.words, &mut offline.prompts, &mut offline.asking),
            Stage::Online(online) => (&mut online.words, &mut online.prompts, &mut online.asking),
            Stage::Learning(_) | Stage::Done(_) => return Ok(()),
        };
        // Labels on earlier prompts are still learned from, so what these say is kept.
        words.extend(chosen.iter().map(|prompt| (prompt.tokens.clone(), prompt.words.clone())));
        *prompts = chosen.into_iter().map(|prompt| prompt.tokens).collect();
        asking.pool.clear();
        Ok(())
    }

    fn publish(&self, snapshot: &mut Snapshot) {
        snapshot.mode = ModeView::Text(Arc::new(self.view()));
    }

    fn is_small(&self) -> bool {
        false
    }

    fn set_teacher(&mut self, teacher: TeacherKind) {
        self.teacher = teacher;
    }
}
