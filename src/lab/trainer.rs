//! The circle itself, free of threads and disk: step the worlds, ask for judgement, fit the reward, improve the policy.
//!
//! With [`RewardSource::Preferences`] the policy's reward is the reward model's alone. The task's own reward is carried beside it for
//! simulated teachers and for the curve that says whether it worked; nothing here feeds it to the policy.

use super::LabError;
use super::circle::Values;
use super::control::Label;
use super::evaluate::run_policy;
use super::ledger::Offered;
use super::on_device::OnDevice;
use super::vocabulary::{DisputedView, PairView};
use super::worlds::{INSTEAD, sentence, without_device};
use crate::basics::{
    Array, Arrays, Clip, Frames, Item, ItemId, JudgementId, PairReason, Pose, Seed, Stream, both_clips,
};
use crate::compute::Checks;
use crate::gym::{EnvError, FlipCounter, Task, VectorEnv};
use crate::learn::{Acting, Actions, Policy, Ppo, Rollout, Transition, whiten};
use crate::physics::{self, Contact};
use crate::preference::{
    Alarm, AskedPairs, ClipPool, Comparison, LabelSchedule, Monitor, Novelty, Recorder, RewardModel, StepRecord,
    Unjudged, choose_pairs, disputed, rank_pairs,
};
use crate::settings::{ExploreSettings, LabelSettings, RewardSource, RunSettings};
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

/// Everything that learns, and the worlds that it learns in.
pub(super) struct Trainer {
    settings: RunSettings,
    task: Arc<Task>,
    env: VectorEnv,
    /// Where worlds and policy are on a graphics device; `env` then only waits for it to fail.
    device: Option<OnDevice>,
    ppo: Ppo,
    rollout: Rollout,
    /// `[N, O]`: what the next actions are chosen on.
    obs: Vec<f32>,
    actions: Actions,
    /// `[T·N, A]`: the rollout's actions as the robot received them.
    played: Vec<f32>,
    preference: Option<Preference>,
    env_steps: u64,
    /// The task's own return of the episodes that ended in the latest rollout.
    true_returns: Vec<f64>,
    /// `[N]`: the task's own return of each running episode on the device.
    totals: Vec<f64>,
    /// Whether the device's worlds have begun their episodes.
    begun: bool,
    /// Physics threads, where they were given.
    threads: Option<usize>,
    /// What the person should be told once.
    warning: Option<String>,
}

/// What only a run from preferences has.
struct Preference {
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
    /// Of each recorded world, where simulated teachers think something of a landed flip.
    flips: Vec<FlipCounter>,
    /// Of each recorded world, what the flip that it has just landed is worth.
    worth: Vec<f32>,
    contacts: Vec<Contact>,
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

impl Trainer {
    /// A fresh trainer. `next_item` is the first clip's name that the session has not used; `worlds` and `threads` override the defaults.
    pub fn new(
        settings: &RunSettings,
        task: Arc<Task>,
        next_item: ItemId,
        worlds: Option<usize>,
        threads: Option<usize>,
    ) -> Result<Trainer, LabError> {
        let seed = Seed(settings.seed);
        let labels = task.spec().labels.clone();
        // What the policy trains in is shorter than what it is judged by: a robot that has fallen teaches nothing for the rest of an episode
        // that may not end. Time is not in the observation and the value bootstraps, so a shorter horizon gives nothing away.
        let training = match settings.reward {
            RewardSource::True => task.clone(),
            RewardSource::Preferences => Arc::new(task.with_horizon(labels.episode_steps(task.dt()) as u32)),
        };
        let mut dials = task.spec().ppo();
        dials.worlds = worlds.unwrap_or(dials.worlds);
        let worlds = dials.worlds;
        let horizon = dials.horizon;
        let mut ppo = Ppo::new(task.obs_dim(), task.act_dim(), dials, seed)?;
        let trailed = if settings.reward == RewardSource::Preferences { labels.recorded_worlds } else { 0 };
        let (mut device, mut backend, mut warning) = (None, settings.backend.as_str(), None);
        // Landed flips are told by contacts, which do not come with a rollout from a device.
        let flips = settings.reward == RewardSource::Preferences && task.flip_worth() != 0.0;
        if backend == physics::SHADER && !flips {
            backend = INSTEAD;
            match OnDevice::new(&training, &ppo.policy(), worlds, horizon, trailed, seed, Checks::Off) {
                Ok(made) => device = Some(made),
                Err(LabError::Env(EnvError::Device(error))) => warning = Some(sentence(&error)),
                Err(error) => return Err(error),
            }
        }
        let (mut env, told) = super::worlds::worlds(&training, backend, worlds, threads)?;
        env.reset(settings.seed);
        env.stagger();
        ppo.plan(settings.env_steps);
        if let Some(threads) = threads {
            ppo.use_threads(threads);
        }
        let preference = (settings.reward == RewardSource::Preferences)
            .then(|| Preference::new(settings, labels, &training, worlds, next_item))
            .transpose()?;
        let rollout = Rollout::new(worlds);
        Ok(Trainer {
            settings: settings.clone(),
            task,
            totals: vec![0.0; worlds],
            begun: false,
            env,
            device,
            ppo,
            rollout,
            obs: Vec::new(),
            actions: Actions::default(),
            played: Vec::new(),
            preference,
            env_steps: 0,
            true_returns: Vec::new(),
            threads,
            warning: warning.or(told),
        })
    }

    /// Env steps done, over all worlds.
    pub fn env_steps(&self) -> u64 {
        self.env_steps
    }

    /// Env steps planned.
    pub fn env_steps_planned(&self) -> u64 {
        self.settings.env_steps
    }

    /// Whether the plan is done.
    pub fn finished(&self) -> bool {
        self.env_steps >= self.settings.env_steps
    }

    /// Worlds side by side.
    pub fn worlds(&self) -> usize {
        self.env.worlds()
    }

    /// Whether judgement is the reward.
    pub fn learns_from_preferences(&self) -> bool {
        self.preference.is_some()
    }

    /// Whether there is a reward to train on.
    pub fn has_reward(&self) -> bool {
        self.preference.as_ref().is_none_or(|p| p.fitted.is_some())
    }

    /// Whether the policy is still to be paid for unusual states, before anything was learnt from labels.
    pub fn explores(&self) -> bool {
        self.preference.as_ref().is_some_and(|p| p.explores(self.env_steps))
    }

    /// Whether there are clips enough to ask about.
    pub fn can_ask(&self) -> bool {
        self.preference.as_ref().is_some_and(|p| p.pool.len() >= FIRST_CLIPS)
    }

    /// Whether the pool shows what the policy does at its full breadth.
    pub fn has_choice(&self) -> bool {
        self.preference.as_ref().is_some_and(|p| p.pool.len() >= ENOUGH_CLIPS)
    }

    /// Judgements that the schedule would like to have by now, or an alarm.
    pub fn labels_wanted(&self) -> usize {
        // Labels are for what the policy does once it has a reward: exploring does not use the plan up.
        let trained = |p: &Preference| self.env_steps.saturating_sub(p.explores_until);
        let wanted = |p: &Preference| p.schedule.wanted(trained(p)).max(p.urgent.min(self.settings.labels));
        self.preference.as_ref().filter(|_| !self.explores()).map_or(0, wanted)
    }

    /// How many questions are asked at a time where nobody waits for them: each handful is followed by a fit.
    fn handful(&self) -> usize {
        (self.settings.labels / 40).clamp(1, 10)
    }

    /// Why the learned reward should not be trusted, if it should not.
    pub fn alarm(&self) -> Option<Alarm> {
        self.preference.as_ref().and_then(|p| p.monitor.alarm())
    }

    /// The judgements that the reward model contradicts most, as of its last fit, the worst first.
    pub fn disputed(&self) -> &[DisputedView] {
        self.preference.as_ref().map_or(&[], |p| &p.disputed)
    }

    /// Share of held-out judgements that the reward model gets right.
    pub fn agreement(&self) -> Option<f64> {
        self.preference.as_ref().and_then(|p| p.agreement)
    }

    /// How many pairs a simulated teacher should be asked now, `labels` judgements standing: whole handfuls.
    pub fn labels_due(&self, labels: usize) -> usize {
        let due = self.labels_wanted().saturating_sub(labels);
        let last = self.labels_wanted() >= self.settings.labels;
        if self.has_choice() && (due >= self.handful() || last || labels == 0) { due } else { 0 }
    }

    /// Up to `count` pairs worth asking, sides shuffled; none while there are too few clips.
    pub fn propose(&mut self, count: usize) -> Vec<Offered> {
        let enough = self.can_ask();
        match &mut self.preference {
            Some(preference) if enough && count > 0 => preference.propose(count),
            _ => Vec::new(),
        }
    }

    /// Steps every world through one rollout of the present policy. `cancelled` is asked at every env step; a rollout that it ends is not kept.
    pub fn collect(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        if let Some(mut device) = self.device.take() {
            match self.collect_on(&mut device, cancelled) {
                Err(LabError::Env(EnvError::Device(error))) => self.warning = Some(sentence(&error)),
                done => {
                    self.device = Some(device);
                    return done;
                }
            }
        }
        let worlds = self.env.worlds();
        self.rollout.clear();
        self.played.clear();
        self.true_returns.clear();
        self.obs.clone_from(&self.env.last().obs);
        for _ in 0..self.ppo.settings().horizon {
            if cancelled() {
                return Err(LabError::Cancelled);
            }
            self.ppo.act_into(&self.obs, worlds, &mut self.actions);
            if let Some(preference) = &mut self.preference {
                preference.before_step(&|world, poses| self.env.poses(world, poses));
                preference.see_flips(&self.env);
            }
            if let Err(error) = self.env.step(&self.actions.actions) {
                self.leave_device(error)?;
                self.env.step(&self.actions.actions)?;
            }
            let step = self.env.last();
            let transition = Transition {
                rewards: &step.reward,
                terminated: &step.terminated,
                truncated: &step.truncated,
                final_obs: &step.final_obs,
            };
            self.rollout.record(&self.obs, &self.actions, transition);
            self.played.extend_from_slice(&step.actions);
            self.true_returns.extend(step.episodes.iter().map(|e| e.total_reward));
            if let Some(preference) = &mut self.preference {
                let taken = Taken {
                    obs: &self.obs,
                    actions: &step.actions,
                    tastes: &step.taste,
                    terminated: &step.terminated,
                    truncated: &step.truncated,
                };
                preference.after_step(taken, &self.task, self.env_steps);
            }
            self.obs.copy_from_slice(&self.env.last().obs);
            self.env_steps += worlds as u64;
        }
        self.ppo.close(&mut self.rollout, &self.obs);
        Ok(())
    }

    /// As [`Trainer::collect`], with worlds and policy on a graphics device.
    fn collect_on(&mut self, device: &mut OnDevice, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        if !std::mem::replace(&mut self.begun, true) {
            device.env.reset(self.settings.seed.wrapping_add(self.env_steps), true)?;
            self.totals.fill(0.0);
        }
        device.collect(&self.ppo.policy(), Acting::Sampling, &mut self.rollout, cancelled)?;
        let (worlds, o, a) = (self.env.worlds(), self.task.obs_dim(), self.task.act_dim());
        let range = self.task.model().ctrl_range().iter().cycle();
        self.played.clear();
        self.played
            .extend(self.rollout.actions.iter().zip(range).map(|(x, [low, high])| x.clamp(*low as f32, *high as f32)));
        self.true_returns.clear();
        for step in 0..self.rollout.steps {
            let samples = step * worlds..(step + 1) * worlds;
            for (world, i) in samples.clone().enumerate() {
                self.totals[world] += f64::from(self.rollout.rewards[i]);
                if self.rollout.ended(i) {
                    self.true_returns.push(std::mem::take(&mut self.totals[world]));
                }
            }
            if let Some(preference) = &mut self.preference {
                preference.before_step(&|world, poses| {
                    let (qpos, _) = device.state(step, world);
                    let qpos: Vec<f64> = qpos.iter().map(|x| f64::from(*x)).collect();
                    self.task.model().poses(&qpos, poses);
                });
                let taken = Taken {
                    obs: &self.rollout.obs[step * worlds * o..][..worlds * o],
                    actions: &self.played[step * worlds * a..][..worlds * a],
                    tastes: &device.tastes()[samples.clone()],
                    terminated: &self.rollout.terminated[samples.clone()],
                    truncated: &self.rollout.truncated[samples],
                };
                preference.after_step(taken, &self.task, self.env_steps);
            }
            self.env_steps += worlds as u64;
        }
        self.ppo.close(&mut self.rollout, device.last_obs());
        Ok(())
    }

    /// Goes on without the graphics device that failed; any other error stands.
    fn leave_device(&mut self, error: EnvError) -> Result<(), LabError> {
        let (env, sentence) = without_device(&self.env, error, self.threads)?;
        self.env = env;
        self.warning = Some(sentence);
        Ok(())
    }

    /// What the person should be told, once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Learns from the latest rollout: the policy from the reward as it stands, then the reward from `labels` where they have grown. Returns
    /// the points that belong on the learning curves.
    pub fn learn(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let mut values = Values::new();
        if !self.true_returns.is_empty() {
            values.push(("true_return", self.true_returns.iter().sum::<f64>() / self.true_returns.len() as f64));
        }
        let (explored, handful) = (self.explores(), self.handful());
        if let Some(preference) = &mut self.preference {
            // From here on the rollout holds the learned reward alone, or none.
            let learned = preference.score(&mut self.rollout, &self.played);
            values.extend(learned.map(|value| ("learned_return", value)));
            values.extend(preference.watch(&self.rollout, &self.played, handful));
            if explored {
                self.rollout.rewards = preference.novelty.rewards(&self.rollout.obs);
                values.push(("state_entropy", preference.novelty.entropy()));
            } else if preference.fitted.is_some() {
                let progress = self.env_steps as f64 / self.settings.env_steps.max(1) as f64;
                preference.pay_novelty(&mut self.rollout, progress);
            }
        }
        if explored || self.has_reward() {
            let stats = self.ppo.update(&self.rollout, cancelled)?;
            values.extend([("entropy", stats.entropy), ("kl", stats.approx_kl), ("value_loss", stats.value_loss)]);
        }
        if let Some(preference) = &mut self.preference
            && preference.wants_fit(labels)
        {
            values.extend(preference.fit(labels, cancelled)?);
            // Values learnt under the old reward would make advantages of the difference between the two.
            preference.rescore(&mut self.rollout, &self.played);
            self.ppo.refit_critic(&self.rollout, cancelled)?;
        }
        Ok(values)
    }

    /// A copy of the present policy.
    pub fn policy(&self) -> Policy {
        self.ppo.policy()
    }

    /// What the present policy does without exploring, from a fresh start.
    pub fn film_policy(&self, seconds: f32) -> Result<Clip, LabError> {
        let seed = self.settings.seed.wrapping_add(self.env_steps);
        let frames = run_policy(&self.task, &self.ppo.policy(), &self.settings.backend, seconds, seed)?;
        Ok(Clip {
            id: ItemId(u64::MAX),
            task: self.task.name().to_owned(),
            dt: self.task.dt() as f32,
            recorded_at: self.env_steps,
            frames,
        })
    }

    /// All that a resumed run needs, but for the worlds' states: it begins new episodes.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = prefixed(self.ppo.to_arrays(), "ppo/");
        arrays.insert("trainer/env_steps".to_owned(), Array::u64(vec![self.env_steps]));
        if let Some(p) = &self.preference {
            arrays.extend(prefixed(p.reward.to_arrays(), "reward/"));
            arrays.insert("trainer/pairs".to_owned(), Array::u64(p.pairs.state().to_vec()));
            arrays.insert("trainer/recorder".to_owned(), Array::u64(p.recorder.stream().state().to_vec()));
            arrays.extend(prefixed(p.novelty.to_arrays(), "novelty/"));
            arrays.extend(prefixed(p.monitor.to_arrays(), "monitor/"));
            let fitted = p.fitted.map(|(count, newest)| vec![count as u64, newest.map_or(0, |id| id.0)]);
            arrays.insert("trainer/fitted".to_owned(), Array::u64(fitted.unwrap_or_default()));
        }
        arrays
    }

    /// Goes on from what [`Trainer::to_arrays`] gave.
    pub fn load(&mut self, arrays: &Arrays) -> Result<(), LabError> {
        let words = |name: &str| {
            let missing = || LabError::Incomplete(name.to_owned());
            arrays.get(name).and_then(Array::as_u64).ok_or_else(missing)
        };
        let stream = |name: &str| {
            let state: [u64; 4] = words(name)?.try_into().map_err(|_| LabError::Incomplete(name.to_owned()))?;
            Ok::<_, LabError>(Stream::from_state(state))
        };
        let &[env_steps] = words("trainer/env_steps")? else {
            return Err(LabError::Incomplete("trainer/env_steps".to_owned()));
        };
        self.ppo.load_arrays(&unprefixed(arrays, "ppo/"))?;
        self.ppo.plan(self.settings.env_steps);
        if let Some(p) = &mut self.preference {
            p.reward.load_arrays(&unprefixed(arrays, "reward/"))?;
            p.pairs = stream("trainer/pairs")?;
            let novelty = unprefixed(arrays, "novelty/");
            // Runs that began before there was exploring have none of it.
            if !novelty.is_empty() {
                p.novelty.load_arrays(&novelty)?;
            }
            p.monitor.load_arrays(&unprefixed(arrays, "monitor/"));
            p.recorder.resume(stream("trainer/recorder")?);
            p.fitted = match words("trainer/fitted")? {
                &[count, newest] => Some((count as usize, (newest > 0).then_some(JudgementId(newest)))),
                _ => None,
            };
        }
        self.env_steps = env_steps;
        // The worlds begin new episodes, other ones than the first time.
        self.env.reset(self.settings.seed.wrapping_add(env_steps));
        self.env.stagger();
        self.begun = false;
        Ok(())
    }
}

/// One env step of N worlds, as the recorder sees it.
#[derive(Clone, Copy)]
struct Taken<'a> {
    /// `[N, O]`: what was acted on.
    obs: &'a [f32],
    /// `[N, A]`, as the robot received them.
    actions: &'a [f32],
    /// `[N]`: what a simulated teacher judges it by.
    tastes: &'a [f32],
    terminated: &'a [bool],
    truncated: &'a [bool],
}

impl Preference {
    fn new(
        settings: &RunSettings,
        labels: LabelSettings,
        task: &Task,
        worlds: usize,
        next_item: ItemId,
    ) -> Result<Preference, LabError> {
        let seed = Seed(settings.seed);
        let recorded: Vec<usize> = (0..worlds.min(labels.recorded_worlds)).collect();
        let steps = labels.clip_steps(task.dt());
        let spec = task.spec();
        let explores = spec.explore.steps_of(settings.env_steps);
        Ok(Preference {
            reward: RewardModel::new(task.obs_dim(), task.act_dim(), spec.reward_model.clone(), seed),
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
            flips: match task.flip_rule() {
                Some(rule) if task.flip_worth() != 0.0 => vec![FlipCounter::new(rule, task.dt()); recorded.len()],
                _ => Vec::new(),
            },
            worth: vec![0.0; recorded.len()],
            contacts: Vec::new(),
            settings: labels,
        })
    }

    fn explores(&self, env_steps: u64) -> bool {
        self.fitted.is_none() && env_steps < self.explores_until
    }

    /// Notes where the bodies are, in the worlds that are being recorded.
    fn before_step(&mut self, poses_of: &dyn Fn(usize, &mut [Pose])) {
        let bodies = self.poses.len() / self.recorder.worlds().count().max(1);
        for (slot, world) in self.recorder.worlds().enumerate() {
            if self.recorder.is_recording(slot) {
                poses_of(world, &mut self.poses[slot * bodies..(slot + 1) * bodies]);
            }
        }
    }

    /// Notes whether a flip was landed, in the worlds that are being recorded, where simulated teachers think something of it.
    fn see_flips(&mut self, env: &VectorEnv) {
        for (slot, world) in self.recorder.worlds().enumerate() {
            if let Some(counter) = self.flips.get_mut(slot) {
                let before = counter.landed();
                env.stance(world, &mut self.contacts).into_iter().for_each(|stance| counter.see(stance));
                self.worth[slot] = ((counter.landed() - before) as f64 * env.task().flip_worth()) as f32;
            }
        }
    }

    /// Hands the step to the recorder; clips that it completes join the pool.
    fn after_step(&mut self, step: Taken, task: &Task, env_steps: u64) {
        let (bodies, o, a) = (task.model().nbody(), task.obs_dim(), task.act_dim());
        let worlds: Vec<usize> = self.recorder.worlds().collect();
        for (slot, world) in worlds.into_iter().enumerate() {
            let record = StepRecord {
                poses: &self.poses[slot * bodies..(slot + 1) * bodies],
                obs: &step.obs[world * o..(world + 1) * o],
                action: &step.actions[world * a..(world + 1) * a],
                task_reward: step.tastes[world] + self.worth[slot],
                done: step.terminated[world] || step.truncated[world],
            };
            if let (true, Some(counter), Some(rule)) = (record.done, self.flips.get_mut(slot), task.flip_rule()) {
                *counter = FlipCounter::new(rule, task.dt());
            }
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

    fn propose(&mut self, count: usize) -> Vec<Offered> {
        let again = self.repeats(count);
        let Preference { pool, asked, reward, settings, pairs, fitted, known, monitor, .. } = self;
        let known: Vec<_> = known.iter().map(|[left, right]| (&left.frames, &right.frames)).collect();
        // While the reward cannot be trusted, every question goes where the members disagree.
        let random_share = if monitor.alarm().is_some() { 0.0 } else { settings.random_share };
        let settings = &LabelSettings { random_share, ..settings.clone() };
        let count = count - again.len();
        let mut rank = |candidates: &[(&Frames, &Frames)]| rank_pairs(reward, settings.choice, candidates, &known);
        let chosen = choose_pairs(pool, count, asked, fitted.is_some().then_some(&mut rank), settings, pairs);
        let offered = chosen.into_iter().map(|pair| {
            let clips = [pair.left, pair.right].map(|i| pool.get(i).clip.clone());
            asked.insert(clips[0].id, clips[1].id);
            Offered { items: clips.map(Item::Clip), reason: pair.reason }
        });
        offered.chain(again).collect()
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

    /// Puts the learned reward in the place of the task's own, and returns the mean learned return of the episodes that ended, if any did.
    fn score(&mut self, rollout: &mut Rollout, played: &[f32]) -> Option<f64> {
        if self.fitted.is_none() {
            rollout.rewards.fill(0.0);
            return None;
        }
        self.rescore(rollout, played);
        let mut ended = Vec::new();
        for i in 0..rollout.samples() {
            let world = i % rollout.worlds;
            self.running[world] += f64::from(rollout.rewards[i]);
            if rollout.ended(i) {
                ended.push(std::mem::take(&mut self.running[world]));
            }
        }
        (!ended.is_empty()).then(|| ended.iter().sum::<f64>() / ended.len() as f64)
    }

    /// Adds what is left of the bonus for unusual states, that far into the run.
    fn pay_novelty(&mut self, rollout: &mut Rollout, progress: f64) {
        let ExploreSettings { bonus, bonus_until, .. } = self.explore;
        let weight = bonus * (1.0 - progress / bonus_until.max(f64::MIN_POSITIVE)).max(0.0);
        if weight > 0.0 {
            let novelty = whiten(&self.novelty.rewards(&rollout.obs), true);
            rollout.rewards.iter_mut().zip(novelty).for_each(|(reward, unusual)| *reward += weight as f32 * unusual);
        }
    }

    fn rescore(&self, rollout: &mut Rollout, played: &[f32]) {
        rollout.rewards = self.reward.rewards(&rollout.obs, played, rollout.samples());
    }

    /// Lets the monitor look at what the policy does, now and then. An alarm asks for a handful of labels more than have been learnt from.
    fn watch(&mut self, rollout: &Rollout, played: &[f32], handful: usize) -> Values {
        self.unwatched += 1;
        if self.fitted.is_none() || self.unwatched < WATCH_EVERY {
            return Values::new();
        }
        self.unwatched = 0;
        let ratio = self.monitor.look(self.reward.spread(&rollout.obs, played));
        let alarm = self.monitor.alarm().is_some();
        if let (true, Some((labels, _))) = (alarm, self.fitted) {
            self.urgent = self.urgent.max(labels + handful);
        }
        vec![("spread", ratio), ("alarm", f64::from(u8::from(alarm)))]
    }

    fn wants_fit(&self, labels: &[Label]) -> bool {
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

    fn fit(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
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
        values.extend(report.held_out_loss.map(|l| ("reward_loss", l)));
        values.extend(self.monitor.foreseen().map(|share| ("foreseen", share)));
        Ok(values)
    }
}

/// What tells one set of labels from another: how many stand, and the newest.
fn fit_state(labels: &[Label]) -> (usize, Option<JudgementId>) {
    (labels.len(), labels.last().map(|l| l.judgement))
}

/// Every array under a name that begins with `prefix`.
pub(super) fn prefixed(arrays: Arrays, prefix: &str) -> Arrays {
    arrays.into_iter().map(|(name, array)| (format!("{prefix}{name}"), array)).collect()
}

/// The arrays whose names begin with `prefix`, without it.
pub(super) fn unprefixed(arrays: &Arrays, prefix: &str) -> Arrays {
    arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::DeviceError;

    /// A run whose graphics device is lost goes on from the same states on the processor, and tells once; any other error stops it.
    #[test]
    fn a_lost_device_is_left() {
        let settings = RunSettings { task: "hopper".to_owned(), reward: RewardSource::True, ..RunSettings::default() };
        let task = super::super::task_of(&settings).unwrap();
        let mut trainer = Trainer::new(&settings, task, ItemId(0), Some(4), Some(1)).unwrap();
        trainer.collect(&mut || false).unwrap();
        assert_eq!(trainer.take_warning(), None);
        let before = trainer.env.to_arrays();
        let lost = DeviceError::Lost { adapter: "a card".to_owned(), why: "it was pulled out".to_owned() };
        trainer.leave_device(EnvError::Device(lost)).unwrap();
        assert_eq!(trainer.env.to_arrays(), before);
        let told = trainer.take_warning().unwrap();
        assert!(told.contains("a card") && told.contains("goes on"), "{told}");
        assert_eq!(trainer.take_warning(), None);
        trainer.collect(&mut || false).unwrap();
        assert!(matches!(trainer.leave_device(EnvError::NotReset), Err(LabError::Env(EnvError::NotReset))));
    }
}
