//! What a run from preferences has beside its policy: the clips, the questions about them, the reward that is learnt from the answers, and the watch
//! over it. The task's own reward comes in as what simulated teachers judge by and stays inside the clips.

use super::LabError;
use super::arrays::{prefixed, unprefixed, words};
use super::ledger::Offered;
use super::shared_requests::Label;
use super::training_loop::Values;
use super::vocabulary::{DisputedView, PairView};
use crate::settings::{ExploreSettings, LabelSettings, RunSettings};
use flipside_core::{
    Array, Arrays, Clip, Frames, Item, ItemId, JudgementId, PairReason, Pose, Seed, Stream, both_clips,
};
use flipside_envs::gym::Task;
use flipside_learn::{Rollout, whiten};
use flipside_preference::{
    Alarm, AskedPairs, ClipPool, Comparison, LabelSchedule, Monitor, Novelty, Recorder, RewardModel, Scores,
    StepRecord, Unjudged, choose_pairs, choose_past_pairs, disputed, rank_pairs,
};
use rand::{RngExt, seq::IndexedRandom};
use std::collections::HashMap;
use std::sync::Arc;

/// Judgements before the first fit: with fewer, the held-out share is empty and the members agree by accident.
const FIRST_FIT: usize = 10;

/// Clips in the pool before the first pairs are proposed, so that the first question has some choice behind it.
const FIRST_CLIPS: usize = 4;

/// Clips in the pool before a simulated teacher, whom nobody waits for, is asked, and before an untrained policy may rest.
const ENOUGH_CLIPS: usize = 32;

/// Disputed judgements that are listed, at most, and from which surprise on, nats: the model gave the answer less than .3.
const DISPUTED: usize = 8;
const SURPRISE: f64 = 1.2;

/// The monitor looks at one rollout in so many: looking costs as much as paying it.
const WATCH_EVERY: usize = 8;

/// A refit waits until the labels have grown by this share: a fit costs time that stepping could use.
const REFIT_SHARE: usize = 25;

/// Unjudged pairs of the pool that a fit may guess about: each clip with so many of those that follow it.
const GUESS_STRIDES: usize = 3;

/// Judgements before a pair is asked again: nobody should remember the first time.
const FIRST_REPEAT: usize = 20;

/// What only a run from preferences has.
pub(super) struct PreferenceLearner {
    /// See [`RewardModelSettings::centred`](crate::settings::RewardModelSettings::centred).
    centred: bool,
    reward: RewardModel,
    settings: LabelSettings,
    schedule: LabelSchedule,
    recorder: Recorder,
    pool: ClipPool,
    asked: AskedPairs,
    /// Draws candidate pairs and shuffles sides.
    pairs: Stream,
    next_item: u64,
    /// The labels of the last fit: how many, and the newest.
    fitted: Option<(usize, Option<JudgementId>)>,
    agreement: Option<f64>,
    /// `[N]`: the learned return of each world's running episode.
    running: Vec<f64>,
    poses: Vec<Pose>,
    /// What the policy is paid for before there is a reward …
    novelty: Novelty,
    /// … how much …
    explore: ExploreSettings,
    /// … and until so many env steps.
    explores_until: u64,
    /// Whether the learned reward can be trusted.
    monitor: Monitor,
    /// Rollouts since the monitor looked at one.
    unwatched: usize,
    /// What the last fit contradicts.
    disputed: Vec<DisputedView>,
    /// Pairs that were asked, for choosing ones that are unlike them, and for asking some again.
    known: Vec<[Arc<Clip>; 2]>,
    /// Those that were asked again.
    repeated: AskedPairs,
    /// Labels that an alarm asks for, whatever the schedule says.
    urgent: usize,
}

/// One env step of N worlds, as the recorder sees it.
#[derive(Clone, Copy)]
pub(super) struct Taken<'a> {
    /// `[N, O]`: what was acted on.
    pub obs: &'a [f32],
    /// `[N, A]`, as the robot received them.
    pub actions: &'a [f32],
    /// `[N]`: what a simulated teacher judges it by.
    pub teacher_rewards: &'a [f32],
    pub terminated: &'a [bool],
    pub truncated: &'a [bool],
}

impl PreferenceLearner {
    pub fn new(
        settings: &RunSettings,
        labels: LabelSettings,
        task: &Task,
        worlds: usize,
        next_item: ItemId,
    ) -> Result<PreferenceLearner, LabError> {
        let seed = Seed(settings.seed);
        let recorded: Vec<usize> = (0..worlds.min(labels.recorded_worlds)).collect();
        let steps = labels.clip_steps(task.dt());
        let spec = task.spec();
        let explores = spec.explore.steps_of(settings.env_steps);
        Ok(PreferenceLearner {
            centred: spec.reward_model().centred,
            reward: RewardModel::new(task.obs_dim(), task.act_dim(), spec.reward_model(), seed),
            novelty: Novelty::new(task.obs_dim(), &spec.explore, seed.stream("novelty")),
            explore: spec.explore.clone(),
            explores_until: explores,
            known: Vec::new(),
            repeated: AskedPairs::default(),
            urgent: 0,
            monitor: Monitor::new(spec.monitor.clone()),
            unwatched: 0,
            disputed: Vec::new(),
            schedule: LabelSchedule::new(settings.labels, settings.env_steps.saturating_sub(explores), &labels),
            recorder: Recorder::new(&recorded, steps, task.horizon() as usize, seed.stream("clips")),
            pool: ClipPool::new(labels.pool),
            asked: AskedPairs::default(),
            pairs: seed.stream("pairs"),
            next_item: next_item.0,
            fitted: None,
            agreement: None,
            running: vec![0.0; worlds],
            poses: vec![Pose::IDENTITY; recorded.len() * task.model().nbody()],
            settings: labels,
        })
    }

    /// Whether there is a reward.
    pub fn has_reward(&self) -> bool {
        self.fitted.is_some()
    }

    /// Whether there are clips enough to ask about.
    pub fn can_ask(&self) -> bool {
        self.pool.len() >= FIRST_CLIPS
    }

    /// Whether the pool shows what the policy does at its full breadth.
    pub fn has_choice(&self) -> bool {
        self.pool.len() >= ENOUGH_CLIPS
    }

    /// Judgements that the schedule would like to have after so many env steps, or an alarm, out of `planned`.
    pub fn labels_wanted(&self, env_steps: u64, planned: usize) -> usize {
        // Labels are for what the policy does once it has a reward: exploring does not use the plan up.
        let trained = env_steps.saturating_sub(self.explores_until);
        self.schedule.wanted(trained).max(self.urgent.min(planned))
    }

    /// Why the learned reward should not be trusted, if it should not.
    pub fn alarm(&self) -> Option<Alarm> {
        self.monitor.alarm()
    }

    /// The judgements that the reward model contradicts most, as of its last fit, the worst first.
    pub fn disputed(&self) -> &[DisputedView] {
        &self.disputed
    }

    /// Share of held-out judgements that the reward model gets right.
    pub fn agreement(&self) -> Option<f64> {
        self.agreement
    }

    /// Pays for unusual states alone, and returns the entropy of the states.
    pub fn explore(&mut self, rollout: &mut Rollout) -> f64 {
        rollout.rewards = self.novelty.rewards(&rollout.obs);
        self.novelty.entropy()
    }

    /// All worlds begin new episodes.
    pub fn begin_again(&mut self) {
        self.recorder.restart();
        self.running.fill(0.0);
    }

    /// Whether the policy is still to be paid for unusual states, before anything was learnt from labels.
    pub fn explores(&self, env_steps: u64) -> bool {
        self.fitted.is_none() && env_steps < self.explores_until
    }

    /// Notes where the bodies are, in the worlds that are being recorded.
    pub fn before_step(&mut self, poses_of: &dyn Fn(usize, &mut [Pose])) {
        let bodies = self.poses.len() / self.recorder.worlds().count().max(1);
        for (slot, world) in self.recorder.worlds().enumerate() {
            if self.recorder.is_recording(slot) {
                poses_of(world, &mut self.poses[slot * bodies..(slot + 1) * bodies]);
            }
        }
    }

    /// Hands the step to the recorder; clips that it completes join the pool.
    pub fn after_step(&mut self, step: Taken, task: &Task, env_steps: u64) {
        let (bodies, o, a) = (task.model().nbody(), task.obs_dim(), task.act_dim());
        let worlds: Vec<usize> = self.recorder.worlds().collect();
        for (slot, world) in worlds.into_iter().enumerate() {
            let record = StepRecord {
                poses: &self.poses[slot * bodies..(slot + 1) * bodies],
                obs: &step.obs[world * o..(world + 1) * o],
                action: &step.actions[world * a..(world + 1) * a],
                task_reward: step.teacher_rewards[world],
                done: step.terminated[world] || step.truncated[world],
            };
            if let Some(cut) = self.recorder.push(slot, record) {
                let clip = Clip {
                    id: ItemId(self.next_item),
                    task: task.name().to_owned(),
                    dt: task.dt() as f32,
                    recorded_at: env_steps,
                    frames: cut.frames,
                };
                self.next_item += 1;
                self.pool.push(Arc::new(clip), cut.origin);
            }
        }
    }

    pub fn propose(&mut self, count: usize) -> Vec<Offered> {
        let again = self.repeats(count);
        let PreferenceLearner { pool, asked, reward, settings, pairs, fitted, known, monitor, .. } = self;
        // What is still in the pool is not past.
        let oldest = pool.iter().next().map_or(0, |entry| entry.clip.recorded_at);
        let past = known.iter().flatten().filter(|clip| settings.past_share > 0.0 && clip.recorded_at < oldest);
        let past: Vec<Arc<Clip>> = past.cloned().collect();
        let known: Vec<_> = known.iter().map(|[left, right]| (&left.frames, &right.frames)).collect();
        // While the reward cannot be trusted, every question goes where the members disagree.
        let random_share = if monitor.alarm().is_some() { 0.0 } else { settings.random_share };
        let settings = &LabelSettings { random_share, ..settings.clone() };
        let count = count - again.len();
        let mut rank = |candidates: &[(&Frames, &Frames)]| rank_pairs(reward, settings.choice, candidates, &known);
        let share = settings.past_share.clamp(0.0, 1.0);
        let wanted = if share == 0.0 { 0 } else { (0..count).filter(|_| pairs.random_bool(share)).count() };
        let then = choose_past_pairs(pool, &past, wanted, asked, &mut rank, settings, pairs);
        let count = count - then.len();
        let chosen = choose_pairs(pool, count, asked, fitted.is_some().then_some(&mut rank), settings, pairs);
        let offered = chosen.into_iter().map(|pair| {
            let clips = [pair.left, pair.right].map(|i| pool.get(i).clip.clone());
            asked.insert(clips[0].id, clips[1].id);
            Offered { items: clips.map(Item::Clip), reason: pair.reason }
        });
        let mut offered: Vec<Offered> = offered.collect();
        for clips in then {
            asked.insert(clips[0].id, clips[1].id);
            offered.push(Offered { items: clips.map(Item::Clip), reason: PairReason::Past });
        }
        offered.extend(again);
        offered
    }

    /// Out of `count` questions the share that repeats an answered pair, sides changed. No pair is repeated twice.
    fn repeats(&mut self, count: usize) -> Vec<Offered> {
        let share = self.settings.repeat_share.clamp(0.0, 1.0);
        if share == 0.0 || self.known.len() < FIRST_REPEAT {
            return Vec::new();
        }
        let wanted = (0..count).filter(|_| self.pairs.random_bool(share)).count();
        let fresh: Vec<&[Arc<Clip>; 2]> =
            self.known.iter().filter(|[left, right]| !self.repeated.contains(left.id, right.id)).collect();
        let chosen: Vec<[Arc<Clip>; 2]> = fresh.sample(&mut self.pairs, wanted).map(|&pair| pair.clone()).collect();
        let again = |[left, right]: [Arc<Clip>; 2]| {
            self.repeated.insert(left.id, right.id);
            Offered { items: [right, left].map(Item::Clip), reason: PairReason::Repeat }
        };
        chosen.into_iter().map(again).collect()
    }

    /// The reward as it stands.
    pub fn reward(&self) -> &RewardModel {
        &self.reward
    }

    /// Puts the learned reward in the place of the task's own, and returns the mean learned return of the episodes that ended, if any did.
    /// `scores` are the reward model's, where they are known already.
    pub fn score(&mut self, rollout: &mut Rollout, applied_actions: &[f32], scores: Option<&Scores>) -> Option<f64> {
        if self.fitted.is_none() {
            rollout.rewards.fill(0.0);
            return None;
        }
        match scores {
            Some(scores) => rollout.rewards.copy_from_slice(&scores.rewards),
            None => rollout.rewards = self.reward.rewards(&rollout.obs, applied_actions, rollout.samples()),
        }
        let mut ended = Vec::new();
        for i in 0..rollout.samples() {
            let world = i % rollout.worlds;
            self.running[world] += f64::from(rollout.rewards[i]);
            if rollout.ended(i) {
                ended.push(std::mem::take(&mut self.running[world]));
            }
        }
        self.centre(&mut rollout.rewards);
        (!ended.is_empty()).then(|| ended.iter().sum::<f64>() / ended.len() as f64)
    }

    /// Adds what is left of the bonus for unusual states, that far into the run.
    pub fn pay_novelty(&mut self, rollout: &mut Rollout, progress: f64) {
        let ExploreSettings { bonus, bonus_until, .. } = self.explore;
        let weight = bonus * (1.0 - progress / bonus_until.max(f64::MIN_POSITIVE)).max(0.0);
        if weight > 0.0 {
            let novelty = whiten(&self.novelty.rewards(&rollout.obs), true);
            rollout.rewards.iter_mut().zip(novelty).for_each(|(reward, unusual)| *reward += weight as f32 * unusual);
        }
    }

    /// The rewards of a rollout by the reward model as it stands.
    pub fn rescore(&self, rollout: &mut Rollout, applied_actions: &[f32]) {
        rollout.rewards = self.reward.rewards(&rollout.obs, applied_actions, rollout.samples());
        self.centre(&mut rollout.rewards);
    }

    /// Takes the mean off the rewards of a rollout, where that is asked for.
    fn centre(&self, rewards: &mut [f32]) {
        if self.centred {
            let mean = rewards.iter().map(|&reward| f64::from(reward)).sum::<f64>() / rewards.len().max(1) as f64;
            rewards.iter_mut().for_each(|reward| *reward -= mean as f32);
        }
    }

    /// Lets the monitor look at what the policy does, now and then. An alarm asks for a handful of labels more than have been learnt from.
    pub fn watch(
        &mut self,
        rollout: &Rollout,
        applied_actions: &[f32],
        scores: Option<&Scores>,
        handful: usize,
    ) -> Values {
        self.unwatched += 1;
        if self.fitted.is_none() || self.unwatched < WATCH_EVERY {
            return Values::new();
        }
        self.unwatched = 0;
        let spread =
            scores.map_or_else(|| self.reward.ensemble_std(&rollout.obs, applied_actions), Scores::ensemble_std);
        let ratio = self.monitor.observe(spread);
        let alarm = self.monitor.alarm().is_some();
        if let (true, Some((labels, _))) = (alarm, self.fitted) {
            self.urgent = self.urgent.max(labels + handful);
        }
        vec![("spread", ratio), ("alarm", f64::from(u8::from(alarm)))]
    }

    pub fn wants_fit(&self, labels: &[Label]) -> bool {
        let state = fit_state(labels);
        match self.fitted {
            _ if labels.len() < FIRST_FIT.min(self.schedule.untrained().max(1)) => false,
            None => true,
            // An answer taken back counts like one given.
            Some((count, newest)) => {
                (count, newest) != state && labels.len().abs_diff(count).max(1) > labels.len() / REFIT_SHARE
            }
        }
    }

    pub fn fit(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        // A pair that was asked again keeps its first name: a member that must not learn from it must not do so the second time either.
        let mut names: HashMap<[ItemId; 2], u64> = HashMap::new();
        let repeated = &mut self.repeated;
        let (decided, comparisons): (Vec<&Label>, Vec<Comparison>) = labels
            .iter()
            .filter_map(|label| {
                let [left, right] = both_clips(&label.items)?;
                let name = *names.entry([left.id.min(right.id), left.id.max(right.id)]).or_insert(label.pair.0);
                if name != label.pair.0 {
                    // Known from the labels, so that a run that is opened again repeats no pair a second time.
                    repeated.insert(left.id, right.id);
                }
                Some((label, Comparison::new(name, &left.frames, &right.frames, label.choice)?))
            })
            .unzip();
        self.monitor.foresee(&self.reward, &comparisons);
        let newest: Vec<&Frames> = self.pool.iter().map(|entry| &entry.clip.frames).collect();
        // Neighbours in the pool are of different worlds, mostly; whatever they are, nobody was asked.
        let unjudged: Vec<Unjudged> = (1..=GUESS_STRIDES)
            .flat_map(|stride| newest.iter().zip(newest.iter().skip(stride)).map(|(a, b)| [*a, *b]))
            .collect();
        let report = self.reward.fit(&comparisons, &unjudged, cancelled)?;
        self.known =
            labels.iter().filter_map(|label| both_clips(&label.items)).map(|clips| clips.map(Arc::clone)).collect();
        // The pool shows whole clips of what the policy did lately; one rollout is too short to tell the reward's mean and spread by.
        let recent = |part: fn(&Frames) -> &Vec<f32>| -> Vec<f32> {
            self.pool.iter().flat_map(|entry| part(&entry.clip.frames)).copied().collect()
        };
        let (obs, actions) = (recent(|f| &f.obs), recent(|f| &f.actions));
        self.reward.renormalise(&obs, &actions)?;
        let held_out = report.held_out_agreement.map(|share| (share, report.held_out));
        self.monitor.fitted(&self.reward, &comparisons, held_out);
        let surprising = disputed(&self.reward, &comparisons).into_iter().filter(|found| found.surprise > SURPRISE);
        self.disputed = surprising
            .take(DISPUTED)
            .map(|found| {
                let label = decided[found.index];
                // Why it was asked is no part of a label, and of no matter here.
                let pair = PairView { id: label.pair, items: label.items.clone(), reason: PairReason::Disagreement };
                DisputedView { judgement: label.judgement, pair, choice: label.choice, left: found.left }
            })
            .collect();
        self.fitted = Some(fit_state(labels));
        self.agreement = report.held_out_agreement.or(self.agreement);
        let mut values = vec![("labels", labels.len() as f64)];
        values.extend(report.held_out_agreement.map(|a| ("agreement", a)));
        values.push(("random_answers", self.reward.error_rate()));
        values.extend(report.held_out_loss.map(|l| ("reward_loss", l)));
        values.extend(self.monitor.foreseen().map(|share| ("foreseen", share)));
        Ok(values)
    }

    /// All that a resumed run needs, but for clips: it records new ones.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = prefixed(self.reward.to_arrays(), "reward/");
        arrays.insert("trainer/pairs".to_owned(), Array::u64(self.pairs.state().to_vec()));
        arrays.insert("trainer/recorder".to_owned(), Array::u64(self.recorder.stream().state().to_vec()));
        arrays.extend(prefixed(self.novelty.to_arrays(), "novelty/"));
        arrays.extend(prefixed(self.monitor.to_arrays(), "monitor/"));
        let fitted = self.fitted.map(|(count, newest)| vec![count as u64, newest.map_or(0, |id| id.0)]);
        arrays.insert("trainer/fitted".to_owned(), Array::u64(fitted.unwrap_or_default()));
        let agreement: Vec<f64> = self.agreement.into_iter().collect();
        arrays.insert("trainer/agreement".to_owned(), Array::f64(&[agreement.len()], agreement));
        arrays
    }

    /// Goes on from what [`PreferenceLearner::to_arrays`] gave.
    pub fn load(&mut self, arrays: &Arrays) -> Result<(), LabError> {
        let stream = |name: &str| {
            let state: [u64; 4] = words(arrays, name)?.try_into().map_err(|_| LabError::Incomplete(name.to_owned()))?;
            Ok::<_, LabError>(Stream::from_state(state))
        };
        let reward = unprefixed(arrays, "reward/");
        // A run that began with another kind of reward model learns this one from the same answers.
        let same = self.reward.is_kind_of(&reward);
        if same {
            self.reward.load_arrays(&reward)?;
        }
        self.pairs = stream("trainer/pairs")?;
        let novelty = unprefixed(arrays, "novelty/");
        // Runs that began before there was exploring have none of it.
        if !novelty.is_empty() {
            self.novelty.load_arrays(&novelty)?;
        }
        self.monitor.load_arrays(&unprefixed(arrays, "monitor/"));
        self.recorder.resume(stream("trainer/recorder")?);
        self.fitted = match words(arrays, "trainer/fitted")? {
            &[count, newest] if same => Some((count as usize, (newest > 0).then_some(JudgementId(newest)))),
            _ => None,
        };
        // Runs that began before it was saved know it after their next fit.
        let agreement = arrays.get("trainer/agreement").and_then(Array::as_f64);
        self.agreement = agreement.filter(|_| same).and_then(|share| share.first().copied());
        Ok(())
    }
}

/// What tells one set of labels from another: how many stand, and the newest.
fn fit_state(labels: &[Label]) -> (usize, Option<JudgementId>) {
    (labels.len(), labels.last().map(|l| l.judgement))
}
