//! What a run that learns from preferences has besides its policy: the clips, the questions about them, the reward
//! model fitted to the answers, and the monitor of that reward model. The task's own reward enters only as the teacher
//! reward: simulated teachers judge by it, and it is stored in the clips.

use super::LabError;
use super::arrays::{prefixed, unprefixed, words};
use super::asked_before::{AskedBefore, disputed_views};
use super::questions::Offered;
use super::shared_requests::Label;
use super::training_loop::Values;
use super::vocabulary::DisputedView;
use crate::settings::{ExploreSettings, LabelSettings, RunSettings};
use flipside_core::{
    Array, Arrays, Clip, Frames, Item, ItemId, JudgementId, PairReason, Pose, Seed, Stream, both_clips,
};
use flipside_envs::gym::Task;
use flipside_learn::{Rollout, whiten};
use flipside_preference::{
    Alarm, ClipPool, Comparison, LabelSchedule, Monitor, Novelty, Rank, Recorder, RewardModel, Scores, StepRecord,
    Unjudged, choose_pairs, choose_past_pairs, disputed, rank_pairs,
};
use rand::RngExt;
use std::sync::Arc;

/// Judgements before the first fit. With fewer, the held-out share is empty and the ensemble members agree by accident.
const FIRST_FIT: usize = 10;

/// Clips in the pool before the first pairs are proposed, so that the first question is chosen from several.
const FIRST_CLIPS: usize = 4;

/// The monitor evaluates one rollout in this many: that costs as much as computing the rollout's rewards.
const WATCH_EVERY: usize = 8;

/// A refit waits until the number of labels has changed by more than one in `REFIT_SHARE`: a fit costs time that could
/// be spent on stepping.
const REFIT_SHARE: usize = 25;

/// A fit may guess labels for unjudged pairs of the pool: each clip is paired with this many of the clips that follow
/// it.
const GUESS_STRIDES: usize = 3;

/// What only a run that learns from preferences has.
pub(super) struct PreferenceLearner {
    /// See [`RewardModelSettings::centre_rewards`](crate::settings::RewardModelSettings::centre_rewards).
    centred: bool,
    reward: RewardModel,
    settings: LabelSettings,
    schedule: LabelSchedule,
    recorder: Recorder,
    pool: ClipPool,
    asked: AskedBefore,
    /// Random stream that draws candidate pairs and shuffles their sides.
    pairs: Stream,
    next_item: u64,
    /// The labels of the last fit: their number, and the newest.
    fitted: Option<(usize, Option<JudgementId>)>,
    agreement: Option<f64>,
    /// `[N]`: the learned return of each world's current episode.
    running: Vec<f64>,
    poses: Vec<Pose>,
    /// The novelty bonus, which is the policy's reward before there is a reward model.
    novelty: Novelty,
    /// How much novelty is paid, and for how long.
    explore: ExploreSettings,
    /// The number of env steps after which exploring ends.
    explores_until: u64,
    /// Watches whether the learned reward can be trusted.
    monitor: Monitor,
    /// Rollouts since the monitor last evaluated one.
    unwatched: usize,
    /// The judgements that the last fit contradicts.
    disputed: Vec<DisputedView>,
    /// The number of labels that an alarm demands, whatever the schedule says.
    urgent: usize,
}

/// One env step of N worlds, as the recorder sees it.
#[derive(Clone, Copy)]
pub(super) struct Taken<'a> {
    /// `[N, O]`: the observations that the actions were chosen on.
    pub obs: &'a [f32],
    /// `[N, A]`: the actions as the robot received them.
    pub actions: &'a [f32],
    /// `[N]`: the teacher rewards, by which a simulated teacher judges.
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
            centred: spec.reward_model().centre_rewards,
            reward: RewardModel::new(task.obs_dim(), task.act_dim(), spec.reward_model(), seed),
            novelty: Novelty::new(task.obs_dim(), &spec.explore, seed.stream("novelty")),
            explore: spec.explore.clone(),
            explores_until: explores,
            urgent: 0,
            monitor: Monitor::new(spec.monitor.clone()),
            unwatched: 0,
            disputed: Vec::new(),
            schedule: LabelSchedule::new(settings.labels, settings.env_steps.saturating_sub(explores), &labels),
            recorder: Recorder::new(&recorded, steps, task.horizon() as usize, seed.stream("clips")),
            pool: ClipPool::new(labels.pool),
            asked: AskedBefore::default(),
            pairs: seed.stream("pairs"),
            next_item: next_item.0,
            fitted: None,
            agreement: None,
            running: vec![0.0; worlds],
            poses: vec![Pose::IDENTITY; recorded.len() * task.model().nbody()],
            settings: labels,
        })
    }

    /// Whether a reward model has been fitted.
    pub fn has_reward(&self) -> bool {
        self.fitted.is_some()
    }

    /// Whether there are enough clips to ask about.
    pub fn can_ask(&self) -> bool {
        self.pool.len() >= FIRST_CLIPS
    }

    /// Whether the pool holds enough clips to show the full range of what the policy does. A simulated teacher that
    /// answers at once is not asked before that, and an untrained policy does not stop collecting.
    pub fn has_choice(&self) -> bool {
        self.pool.len() >= LabelSettings::FEWEST_CLIPS
    }

    /// Judgements that the schedule or an alarm wants after `env_steps`. `planned` is the number of judgements in the
    /// plan.
    pub fn labels_wanted(&self, env_steps: u64, planned: usize) -> usize {
        // Labels are for what the policy does once it has a reward, so env steps of exploring do not count for the
        // schedule.
        let trained = env_steps.saturating_sub(self.explores_until);
        self.schedule.wanted(trained).max(self.urgent.min(planned))
    }

    /// Why the learned reward should not be trusted, if it should not.
    pub fn alarm(&self) -> Option<Alarm> {
        self.monitor.alarm()
    }

    /// The judgements that the reward model contradicted most at its last fit, the worst first.
    pub fn disputed(&self) -> &[DisputedView] {
        &self.disputed
    }

    /// Held-out agreement: the share of held-out judgements that the reward model predicts.
    pub fn agreement(&self) -> Option<f64> {
        self.agreement
    }

    /// Makes the novelty bonus the only reward of a rollout. Returns the entropy of the states.
    pub fn explore(&mut self, rollout: &mut Rollout) -> f64 {
        rollout.rewards = self.novelty.rewards(&rollout.obs);
        self.novelty.entropy()
    }

    /// Starts new episodes in all worlds.
    pub fn begin_again(&mut self) {
        self.recorder.restart();
        self.running.fill(0.0);
    }

    /// Whether the policy is still paid for novelty alone, because no reward model has been fitted yet.
    pub fn explores(&self, env_steps: u64) -> bool {
        self.fitted.is_none() && env_steps < self.explores_until
    }

    /// Records the bodies' poses in the worlds that are being recorded.
    pub fn before_step(&mut self, poses_of: &dyn Fn(usize, &mut [Pose])) {
        let bodies = self.poses.len() / self.recorder.worlds().count().max(1);
        for (slot, world) in self.recorder.worlds().enumerate() {
            if self.recorder.is_recording(slot) {
                poses_of(world, &mut self.poses[slot * bodies..(slot + 1) * bodies]);
            }
        }
    }

    /// Passes the step to the recorder. Clips that it completes are added to the pool.
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
        let again = self.asked.repeats(count, self.settings.repeat_share, &mut self.pairs);
        let PreferenceLearner { pool, asked, reward, settings, pairs, fitted, monitor, .. } = self;
        let known: Vec<[&Arc<Clip>; 2]> = asked.judged.iter().filter_map(both_clips).collect();
        // Clips that are still in the pool do not count as past.
        let oldest = pool.iter().next().map_or(0, |entry| entry.clip.recorded_at);
        let past = known.iter().flatten().filter(|clip| settings.past_clip_share > 0.0 && clip.recorded_at < oldest);
        let past: Vec<Arc<Clip>> = past.map(|clip| Arc::clone(clip)).collect();
        let known: Vec<_> = known.iter().map(|[left, right]| (&left.frames, &right.frames)).collect();
        // While the reward cannot be trusted, every question is chosen by the model and none at random.
        let random_share = if monitor.alarm().is_some() { 0.0 } else { settings.random_share };
        let settings = &LabelSettings { random_share, ..settings.clone() };
        let count = count - again.len();
        let mut rank = |candidates: &[(&Frames, &Frames)]| rank_pairs(&*reward, settings.choice, candidates, &known);
        let share = settings.past_clip_share.clamp(0.0, 1.0);
        let wanted = if share == 0.0 { 0 } else { (0..count).filter(|_| pairs.random_bool(share)).count() };
        let then = choose_past_pairs(pool, &past, wanted, &asked.pairs, &mut rank, settings, pairs);
        let count = count - then.len();
        let mut rank_places = |candidates: &[[usize; 2]]| {
            let frames = |place: usize| &pool.get(place).clip.frames;
            rank(&candidates.iter().map(|&[a, b]| (frames(a), frames(b))).collect::<Vec<_>>())
        };
        let rank: Option<Rank> = if fitted.is_some() { Some(&mut rank_places) } else { None };
        let chosen = choose_pairs(&*pool, count, &asked.pairs, rank, settings, pairs);
        let offered = chosen.into_iter().map(|pair| {
            let clips = [pair.left, pair.right].map(|i| pool.get(i).clip.clone());
            Offered { items: clips.map(Item::Clip), reason: pair.reason }
        });
        let past = then.into_iter().map(|clips| Offered { items: clips.map(Item::Clip), reason: PairReason::Past });
        let mut offered: Vec<Offered> = offered.chain(past).collect();
        for Offered { items: [left, right], .. } in &offered {
            asked.pairs.insert(left.id(), right.id());
        }
        offered.extend(again);
        offered
    }

    /// The current reward model.
    pub fn reward(&self) -> &RewardModel {
        &self.reward
    }

    /// Replaces the rewards of a rollout with the learned reward. Returns the mean learned return of the episodes that
    /// ended, or `None` if none did. Before the first fit all rewards are 0. `scores` are the reward model's scores, if
    /// they have been computed already.
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

    /// Adds the novelty bonus, whose weight falls with `progress`, the share of the current policy's env steps that are
    /// done.
    pub fn pay_novelty(&mut self, rollout: &mut Rollout, progress: f64) {
        let ExploreSettings { bonus, bonus_until, .. } = self.explore;
        let weight = bonus * (1.0 - progress / bonus_until.max(f64::MIN_POSITIVE)).max(0.0);
        if weight > 0.0 {
            let novelty = whiten(&self.novelty.rewards(&rollout.obs), true);
            rollout.rewards.iter_mut().zip(novelty).for_each(|(reward, unusual)| *reward += weight as f32 * unusual);
        }
    }

    /// Computes the rewards of a rollout again, with the current reward model.
    pub fn rescore(&self, rollout: &mut Rollout, applied_actions: &[f32]) {
        rollout.rewards = self.reward.rewards(&rollout.obs, applied_actions, rollout.samples());
        self.centre(&mut rollout.rewards);
    }

    /// Subtracts the mean from the rewards of a rollout, if the settings ask for that.
    fn centre(&self, rewards: &mut [f32]) {
        if self.centred {
            let mean = rewards.iter().map(|&reward| f64::from(reward)).sum::<f64>() / rewards.len().max(1) as f64;
            rewards.iter_mut().for_each(|reward| *reward -= mean as f32);
        }
    }

    /// Has the monitor evaluate a rollout of the policy now and then. An alarm demands a handful of labels more than
    /// the last fit had.
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
            // A retracted answer counts as a change, like a new one.
            Some((count, newest)) => {
                (count, newest) != state && labels.len().abs_diff(count).max(1) > labels.len() / REFIT_SHARE
            }
        }
    }

    pub fn fit(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let ids = self.asked.comparison_ids(labels);
        let (decided, comparisons): (Vec<&Label>, Vec<Comparison>) = labels
            .iter()
            .zip(ids)
            .filter_map(|(label, id)| {
                let [left, right] = both_clips(&label.items)?;
                Some((label, Comparison::new(id, &left.frames, &right.frames, label.choice)?))
            })
            .unzip();
        let reward = &self.reward;
        self.monitor.record_predictions(comparisons.iter().map(|c| (c.id, c.target)), &mut |place| {
            let comparison = &comparisons[place];
            reward.is_fitted().then(|| reward.predict(comparison.left, comparison.right))
        });
        let newest: Vec<&Frames> = self.pool.iter().map(|entry| &entry.clip.frames).collect();
        // Neighbours in the pool mostly come from different worlds. In any case they are treated as pairs that nobody
        // was asked about.
        let unjudged: Vec<Unjudged> = (1..=GUESS_STRIDES)
            .flat_map(|stride| newest.iter().zip(newest.iter().skip(stride)).map(|(a, b)| [*a, *b]))
            .collect();
        let report = self.reward.fit(&comparisons, &unjudged, cancelled)?;
        self.asked.set_judged(labels);
        // The pool shows whole clips of what the policy did recently. One rollout is too short to estimate the mean and
        // the standard deviation of the reward.
        let recent = |part: fn(&Frames) -> &Vec<f32>| -> Vec<f32> {
            self.pool.iter().flat_map(|entry| part(&entry.clip.frames)).copied().collect()
        };
        let (obs, actions) = (recent(|f| &f.obs), recent(|f| &f.actions));
        self.reward.renormalise(&obs, &actions)?;
        let held_out = report.held_out_agreement.map(|share| (share, report.held_out));
        self.monitor.fitted(self.reward.judged_spread(&comparisons), held_out);
        self.disputed = disputed_views(&disputed(&self.reward, &comparisons), &decided);
        self.fitted = Some(fit_state(labels));
        self.agreement = report.held_out_agreement.or(self.agreement);
        let mut values = vec![("labels", labels.len() as f64)];
        values.extend(report.held_out_agreement.map(|a| ("agreement", a)));
        values.push(("random_answers", self.reward.error_rate()));
        values.extend(report.held_out_loss.map(|l| ("reward_loss", l)));
        values.extend(self.monitor.recent_agreement().map(|share| ("foreseen", share)));
        Ok(values)
    }

    /// Everything that a resumed run needs, except clips: it records new ones.
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

    /// Restores what [`PreferenceLearner::to_arrays`] returned.
    pub fn load(&mut self, arrays: &Arrays) -> Result<(), LabError> {
        let stream = |name: &str| {
            let state: [u64; 4] = words(arrays, name)?.try_into().map_err(|_| LabError::Incomplete(name.to_owned()))?;
            Ok::<_, LabError>(Stream::from_state(state))
        };
        let reward = unprefixed(arrays, "reward/");
        // A run that began with another kind of reward model fits this one to the same answers.
        let same = self.reward.is_kind_of(&reward);
        if same {
            self.reward.load_arrays(&reward)?;
        }
        self.pairs = stream("trainer/pairs")?;
        let novelty = unprefixed(arrays, "novelty/");
        // Checkpoints from before exploring existed hold no novelty.
        if !novelty.is_empty() {
            self.novelty.load_arrays(&novelty)?;
        }
        self.monitor.load_arrays(&unprefixed(arrays, "monitor/"));
        self.recorder.resume(stream("trainer/recorder")?);
        self.fitted = match words(arrays, "trainer/fitted")? {
            &[count, newest] if same => Some((count as usize, (newest > 0).then_some(JudgementId(newest)))),
            _ => None,
        };
        // Checkpoints from before the agreement was saved get it at their next fit.
        let agreement = arrays.get("trainer/agreement").and_then(Array::as_f64);
        self.agreement = agreement.filter(|_| same).and_then(|share| share.first().copied());
        Ok(())
    }
}

/// Tells two sets of labels apart: their number, and the newest.
fn fit_state(labels: &[Label]) -> (usize, Option<JudgementId>) {
    (labels.len(), labels.last().map(|l| l.judgement))
}
