//! The training loop of a robot's run, without threads or disk: step the worlds, ask for judgements, fit the reward
//! model, improve the policy.
//!
//! With [`RewardSource::Preferences`] the policy's reward comes from the reward model alone. The task's own reward is
//! recorded beside it for simulated teachers and for the curve of true returns; it never reaches the policy.

use super::LabError;
use super::arrays::{prefixed, unprefixed, words};
use super::evaluate::run_policy;
use super::on_device::{OnDevice, applied_actions};
use super::policy_checkpoints::PolicyCheckpoints;
use super::preference_learner::{PreferenceLearner, Taken};
use super::questions::Offered;
use super::shared_requests::Label;
use super::training_loop::Values;
use super::vocabulary::DisputedView;
use super::worlds::{INSTEAD, sentence, without_device};
use crate::settings::{RewardSource, RunSettings};
use flipside_core::{Array, Arrays, Clip, ItemId, Seed};
use flipside_envs::gym::{EnvError, Task, VectorEnv};
use flipside_envs::physics;
use flipside_gpu::{Checks, DeviceError};
use flipside_learn::{Acting, Actions, Policy, Ppo, Rollout, Transition};
use flipside_preference::{Alarm, Scores};
use rand::RngExt;
use std::ops::Range;
use std::sync::Arc;

/// What the person is told when the policy starts again from scratch.
const BEGINS_AGAIN: &str =
    "The policy begins again from nothing, paid by what the answers taught so far; all of them still count.";

/// Everything that learns, and the worlds that it learns in.
pub(super) struct Trainer {
    settings: RunSettings,
    task: Arc<Task>,
    env: VectorEnv,
    /// Set while worlds and policy are on a GPU. `env` is then idle, and takes over if the GPU fails.
    device: Option<OnDevice>,
    ppo: Ppo,
    rollout: Rollout,
    /// `[N, O]`: the observations that the next actions are chosen on.
    obs: Vec<f32>,
    actions: Actions,
    /// `[T·N, A]`: the rollout's actions as the robot received them.
    applied_actions: Vec<f32>,
    preference_learner: Option<PreferenceLearner>,
    /// The policies that the run may end with.
    checkpoints: PolicyCheckpoints,
    env_steps: u64,
    /// The true returns of the episodes that ended in the latest rollout.
    true_returns: Vec<f64>,
    /// `[N]`: the true return so far of each current episode on the GPU.
    totals: Vec<f64>,
    /// Whether the worlds on the GPU have begun their episodes.
    begun: bool,
    /// Physics threads, if a number was given.
    threads: Option<usize>,
    /// A warning that the person should be shown once.
    warning: Option<String>,
}

impl Trainer {
    /// A new trainer. `next_item` is the first clip ID that the session has not used. `worlds` and `threads` override
    /// the defaults.
    pub fn new(
        settings: &RunSettings,
        task: Arc<Task>,
        next_item: ItemId,
        worlds: Option<usize>,
        threads: Option<usize>,
    ) -> Result<Trainer, LabError> {
        let seed = Seed(settings.seed);
        let labels = task.spec().labels.clone();
        // Training episodes are shorter than the episodes that the policy is evaluated on: once a robot has fallen, the
        // rest of an episode that cannot terminate teaches nothing. Time is not in the observation and the value is
        // bootstrapped at truncation, so a shorter horizon reveals nothing.
        let training = match settings.reward() {
            RewardSource::True => task.clone(),
            RewardSource::Preferences => Arc::new(task.with_horizon(labels.episode_steps(task.dt()) as u32)),
        };
        let mut dials = task.spec().ppo();
        dials.num_envs = worlds.unwrap_or(dials.num_envs);
        let worlds = dials.num_envs;
        let horizon = dials.num_steps;
        let mut ppo = Ppo::new(task.obs_dim(), task.act_dim(), dials, seed)?;
        let trailed = if settings.reward() == RewardSource::Preferences { labels.recorded_worlds } else { 0 };
        let (mut device, mut backend, mut warning) = (None, settings.backend(), None);
        if backend == physics::SHADER {
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
        ppo.plan(length(&policy_at(settings, &task, 0)));
        if let Some(threads) = threads {
            ppo.use_threads(threads);
        }
        let preference_learner = (settings.reward() == RewardSource::Preferences)
            .then(|| PreferenceLearner::new(settings, labels, &training, worlds, next_item))
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
            applied_actions: Vec::new(),
            preference_learner,
            checkpoints: PolicyCheckpoints::default(),
            env_steps: 0,
            true_returns: Vec::new(),
            threads,
            warning: warning.or(told),
        })
    }

    /// Env steps done, summed over all worlds.
    pub fn env_steps(&self) -> u64 {
        self.env_steps
    }

    /// Env steps planned.
    pub fn env_steps_planned(&self) -> u64 {
        self.settings.env_steps
    }

    /// Whether all planned env steps are done.
    pub fn finished(&self) -> bool {
        self.env_steps >= self.settings.env_steps
    }

    /// Number of worlds.
    pub fn worlds(&self) -> usize {
        self.env.worlds()
    }

    /// Whether the reward is learned from preferences.
    pub fn learns_from_preferences(&self) -> bool {
        self.preference_learner.is_some()
    }

    /// Whether there is a reward to train on.
    pub fn has_reward(&self) -> bool {
        self.preference_learner.as_ref().is_none_or(PreferenceLearner::has_reward)
    }

    /// Whether the policy is still paid for novelty alone, because no reward model has been fitted yet.
    pub fn explores(&self) -> bool {
        self.preference_learner.as_ref().is_some_and(|p| p.explores(self.env_steps))
    }

    /// Whether there are enough clips to ask about.
    pub fn can_ask(&self) -> bool {
        self.preference_learner.as_ref().is_some_and(PreferenceLearner::can_ask)
    }

    /// Whether the pool holds enough clips to show the full range of what the policy does.
    pub fn has_choice(&self) -> bool {
        self.preference_learner.as_ref().is_some_and(PreferenceLearner::has_choice)
    }

    /// Judgements that the schedule or an alarm wants by now.
    pub fn labels_wanted(&self) -> usize {
        let wanted = |preference_learner: &PreferenceLearner| {
            preference_learner.labels_wanted(self.env_steps, self.settings.labels)
        };
        self.preference_learner.as_ref().filter(|_| !self.explores()).map_or(0, wanted)
    }

    /// Whether training is so far ahead of `labels` judgements that it should wait for more.
    pub fn runs_ahead(&self, labels: usize) -> bool {
        let lead = self.task.spec().labels.max_lead;
        self.has_reward()
            && lead < 1.0
            && self.labels_wanted() as f64 > labels as f64 + lead * self.settings.labels as f64
    }

    /// How many questions are asked at a time of a teacher that answers at once. A fit follows each such handful.
    fn handful(&self) -> usize {
        (self.settings.labels / 40).clamp(1, 10)
    }

    /// Why the learned reward should not be trusted, if it should not.
    pub fn alarm(&self) -> Option<Alarm> {
        self.preference_learner.as_ref().and_then(PreferenceLearner::alarm)
    }

    /// The judgements that the reward model contradicted most at its last fit, the worst first.
    pub fn disputed(&self) -> &[DisputedView] {
        self.preference_learner.as_ref().map_or(&[], PreferenceLearner::disputed)
    }

    /// Held-out agreement: the share of held-out judgements that the reward model predicts.
    pub fn agreement(&self) -> Option<f64> {
        self.preference_learner.as_ref().and_then(PreferenceLearner::agreement)
    }

    /// How many pairs a simulated teacher should be asked now. `labels` is the number of standing judgements. Small
    /// numbers wait until there is a handful.
    pub fn labels_due(&self, labels: usize) -> usize {
        let due = self.labels_wanted().saturating_sub(labels);
        let last = self.labels_wanted() >= self.settings.labels;
        if self.has_choice() && (due >= self.handful() || last || labels == 0) { due } else { 0 }
    }

    /// Up to `count` pairs worth asking, with their sides shuffled; none while there are too few clips.
    pub fn propose(&mut self, count: usize) -> Vec<Offered> {
        let enough = self.can_ask();
        match &mut self.preference_learner {
            Some(preference_learner) if enough && count > 0 => preference_learner.propose(count),
            _ => Vec::new(),
        }
    }

    /// Steps every world through one rollout of the current policy. `cancelled` is checked at every env step; a
    /// cancelled rollout is discarded.
    pub fn collect(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        if let Some(mut device) = self.device.take() {
            match self.collect_on(&mut device, cancelled) {
                Err(LabError::Env(EnvError::Device(error))) => self.lose_device(&error),
                done => {
                    self.device = Some(device);
                    return done;
                }
            }
        }
        let worlds = self.env.worlds();
        self.rollout.clear();
        self.applied_actions.clear();
        self.true_returns.clear();
        self.obs.clone_from(&self.env.last().obs);
        for _ in 0..self.ppo.settings().num_steps {
            if cancelled() {
                return Err(LabError::Cancelled);
            }
            self.ppo.act_into(&self.obs, worlds, &mut self.actions);
            if let Some(preference_learner) = &mut self.preference_learner {
                preference_learner.before_step(&|world, poses| self.env.poses(world, poses));
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
            self.applied_actions.extend_from_slice(&step.actions);
            self.true_returns.extend(step.episodes.iter().map(|e| e.total_reward));
            if let Some(preference_learner) = &mut self.preference_learner {
                let taken = Taken {
                    obs: &self.obs,
                    actions: &step.actions,
                    teacher_rewards: &step.teacher_reward,
                    terminated: &step.terminated,
                    truncated: &step.truncated,
                };
                preference_learner.after_step(taken, &self.task, self.env_steps);
            }
            self.obs.copy_from_slice(&self.env.last().obs);
            self.env_steps += worlds as u64;
        }
        self.ppo.close(&mut self.rollout, &self.obs);
        Ok(())
    }

    /// Runs the current policy until there are enough clips to ask about. Nothing learns from these env steps, and they
    /// do not count.
    pub fn gather(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        let env_steps = self.env_steps;
        let mut done = Ok(());
        while self.preference_learner.is_some() && !self.has_choice() && done.is_ok() {
            done = self.collect(cancelled);
            self.env_steps = env_steps;
        }
        done
    }

    /// Like [`Trainer::collect`], with worlds and policy on a GPU.
    fn collect_on(&mut self, device: &mut OnDevice, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        if !std::mem::replace(&mut self.begun, true) {
            device.begin(self.settings.seed.wrapping_add(self.env_steps))?;
            self.totals.fill(0.0);
        }
        device.collect(&self.ppo.policy(), Acting::Sampling, &mut self.rollout, cancelled)?;
        let (worlds, o, a) = (self.env.worlds(), self.task.obs_dim(), self.task.act_dim());
        self.applied_actions.clear();
        self.applied_actions.extend(applied_actions(&self.task, &self.rollout.actions));
        self.true_returns.clear();
        for step in 0..self.rollout.steps {
            let samples = step * worlds..(step + 1) * worlds;
            for (world, i) in samples.clone().enumerate() {
                self.totals[world] += f64::from(self.rollout.rewards[i]);
                if self.rollout.ended(i) {
                    self.true_returns.push(std::mem::take(&mut self.totals[world]));
                }
            }
            if let Some(preference_learner) = &mut self.preference_learner {
                preference_learner.before_step(&|world, poses| {
                    let (qpos, _) = device.state(step, world);
                    let qpos: Vec<f64> = qpos.iter().map(|x| f64::from(*x)).collect();
                    self.task.model().poses(&qpos, poses);
                });
                let taken = Taken {
                    obs: &self.rollout.obs[step * worlds * o..][..worlds * o],
                    actions: &self.applied_actions[step * worlds * a..][..worlds * a],
                    teacher_rewards: &device.teacher_rewards()[samples.clone()],
                    terminated: &self.rollout.terminated[samples.clone()],
                    truncated: &self.rollout.truncated[samples],
                };
                preference_learner.after_step(taken, &self.task, self.env_steps);
            }
            self.env_steps += worlds as u64;
        }
        self.ppo.close(&mut self.rollout, device.last_obs());
        Ok(())
    }

    /// Continues with the idle worlds on the CPU after the GPU has failed.
    fn lose_device(&mut self, error: &DeviceError) {
        self.device = None;
        self.warning = Some(sentence(error));
        if let Some(preference_learner) = &mut self.preference_learner {
            preference_learner.begin_again();
        }
    }

    /// The reward model's scores of the latest rollout, if the rollout is on a GPU.
    fn scores(&mut self) -> Option<Scores> {
        let preference_learner =
            self.preference_learner.as_ref().filter(|preference_learner| preference_learner.has_reward())?;
        let scores = self.device.as_mut()?.score(preference_learner.reward());
        scores.unwrap_or_else(|error| {
            self.lose_device(&error);
            None
        })
    }

    /// Continues without the GPU if that was the cause of the error. Returns any other error.
    fn leave_device(&mut self, error: EnvError) -> Result<(), LabError> {
        let (env, sentence) = without_device(&self.env, error, self.threads)?;
        self.env = env;
        self.warning = Some(sentence);
        Ok(())
    }

    /// Returns a warning that the person should be shown once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Learns from the latest rollout. The policy learns from the current reward model; then the reward model is fitted
    /// if `labels` have changed enough. Returns the points for the learning curves.
    pub fn learn(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let mut values = Values::new();
        if !self.true_returns.is_empty() {
            values.push(("true_return", self.true_returns.iter().sum::<f64>() / self.true_returns.len() as f64));
        }
        let (explored, handful, scores) = (self.explores(), self.handful(), self.scores());
        if let Some(preference_learner) = &mut self.preference_learner {
            // From here on the rollout holds only the learned reward, or zeros.
            let learned = preference_learner.score(&mut self.rollout, &self.applied_actions, scores.as_ref());
            values.extend(learned.map(|value| ("learned_return", value)));
            values.extend(preference_learner.watch(&self.rollout, &self.applied_actions, scores.as_ref(), handful));
            if explored {
                values.push(("state_entropy", preference_learner.explore(&mut self.rollout)));
            } else if preference_learner.has_reward() {
                let span = policy_at(&self.settings, &self.task, self.env_steps);
                let progress = (self.env_steps - span.start) as f64 / length(&span) as f64;
                preference_learner.pay_novelty(&mut self.rollout, progress);
            }
        }
        let before = self.env_steps - self.rollout.samples() as u64;
        let span = policy_at(&self.settings, &self.task, self.env_steps);
        let begins_again = before < span.start && !self.finished();
        // After the last rollout of a policy, none is collected ahead of time.
        let goes_on = !begins_again && !self.finished();
        let overlaps = goes_on && self.ppo.settings().overlap;
        let learnt = self.beside_next_rollout(overlaps, cancelled, |trainer, cancelled| {
            let mut values = Values::new();
            if explored || trainer.has_reward() {
                let stats = trainer.ppo.update(&trainer.rollout, cancelled)?;
                values.extend([("entropy", stats.entropy), ("kl", stats.approx_kl), ("value_loss", stats.value_loss)]);
            }
            if trainer
                .preference_learner
                .as_ref()
                .is_some_and(|preference_learner| preference_learner.wants_fit(labels))
            {
                // A fit does not change the policy, which can therefore collect the next rollout meanwhile.
                let fit = |trainer: &mut Trainer, cancelled: &mut dyn FnMut() -> bool| trainer.fit(labels, cancelled);
                values.extend(trainer.beside_next_rollout(goes_on, cancelled, fit)?);
            }
            Ok(values)
        });
        values.extend(learnt?);
        let is_last = span.end >= self.settings.env_steps;
        let is_due = is_last && self.checkpoints.is_due(self.env_steps, self.settings.env_steps);
        if self.has_reward() && (begins_again || is_due || self.finished()) {
            self.save_candidate()?;
        }
        if begins_again {
            self.begin_again(&span)?;
        }
        if self.finished() {
            self.keep_best()?;
        }
        Ok(values)
    }

    /// Saves the current policy as one that the run may end with, if the task asks for that.
    fn save_candidate(&mut self) -> Result<(), LabError> {
        if self.preference_learner.is_some() && self.task.spec().labels.select_best_policy {
            let (learner, policy) = (self.ppo.to_arrays(), self.ppo.policy());
            self.checkpoints.add(self.env_steps, learner, &policy, &self.task, self.settings.backend())?;
        }
        Ok(())
    }

    /// Replaces the final policy with the policy checkpoint that has the highest learned reward.
    fn keep_best(&mut self) -> Result<(), LabError> {
        if let Some((env_steps, learner)) = self.best().filter(|(env_steps, _)| *env_steps < self.env_steps) {
            self.ppo.load_arrays(&learner)?;
            let kept = "Kept is the policy of";
            self.warning.get_or_insert_with(|| format!("{kept} {}.", better_than_the_last(env_steps)));
        }
        Ok(())
    }

    /// The policy checkpoint with the highest mean learned reward, and the env steps at which it was saved.
    fn best(&self) -> Option<(u64, Arrays)> {
        let best = self.checkpoints.best(self.preference_learner.as_ref()?.reward(), self.task.act_dim())?;
        Some((best.0, best.1.clone()))
    }

    /// Fits the reward model to `labels`, and refits the critic to the new rewards.
    fn fit(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        let Some(preference_learner) = &mut self.preference_learner else { return Ok(Values::new()) };
        let values = preference_learner.fit(labels, cancelled)?;
        // The critic would otherwise hold values of the old reward, and the difference between the two rewards would
        // appear in the advantages.
        preference_learner.rescore(&mut self.rollout, &self.applied_actions);
        self.ppo.refit_critic(&self.rollout, cancelled)?;
        Ok(values)
    }

    /// Does some work. If `ahead` is set and worlds and policy are on a GPU, the current policy collects the next
    /// rollout meanwhile.
    fn beside_next_rollout(
        &mut self,
        ahead: bool,
        cancelled: &mut dyn FnMut() -> bool,
        work: impl FnOnce(&mut Trainer, &mut dyn FnMut() -> bool) -> Result<Values, LabError>,
    ) -> Result<Values, LabError> {
        let Some(mut device) = self.device.take_if(|_| ahead) else { return work(self, cancelled) };
        let policy = self.ppo.policy();
        let done = device.collect_beside(&policy, cancelled, |cancelled| work(self, cancelled));
        self.device = Some(device);
        done
    }

    /// A copy of the current policy.
    pub fn policy(&self) -> Policy {
        self.ppo.policy()
    }

    /// A clip of the current policy without exploration, from a fresh reset.
    pub fn film_policy(&self, seconds: f32) -> Result<Clip, LabError> {
        let seed = self.settings.seed.wrapping_add(self.env_steps);
        let frames = run_policy(&self.task, &self.ppo.policy(), self.settings.backend(), seconds, seed)?;
        Ok(Clip {
            id: ItemId(u64::MAX),
            task: self.task.name().to_owned(),
            dt: self.task.dt() as f32,
            recorded_at: self.env_steps,
            frames,
        })
    }

    /// Everything that a resumed run needs, except the worlds' states: it begins new episodes.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = prefixed(self.ppo.to_arrays(), "ppo/");
        arrays.insert("trainer/env_steps".to_owned(), Array::u64(vec![self.env_steps]));
        if let Some(preference_learner) = &self.preference_learner {
            arrays.extend(preference_learner.to_arrays());
        }
        arrays.extend(prefixed(self.checkpoints.to_arrays(), "candidates/"));
        arrays
    }

    /// Restores what [`Trainer::to_arrays`] returned.
    pub fn load(&mut self, arrays: &Arrays) -> Result<(), LabError> {
        let &[env_steps] = words(arrays, "trainer/env_steps")? else {
            return Err(LabError::Incomplete("trainer/env_steps".to_owned()));
        };
        self.ppo.load_arrays(&unprefixed(arrays, "ppo/"))?;
        self.ppo.plan(length(&policy_at(&self.settings, &self.task, env_steps)));
        if let Some(preference_learner) = &mut self.preference_learner {
            preference_learner.load(arrays)?;
        }
        self.checkpoints = PolicyCheckpoints::from_arrays(&unprefixed(arrays, "candidates/"))?;
        self.env_steps = env_steps;
        self.reset_worlds();
        Ok(())
    }

    /// Starts new episodes in all worlds, with other initial states than the first time.
    fn reset_worlds(&mut self) {
        self.env.reset(self.settings.seed.wrapping_add(self.env_steps));
        self.env.stagger();
        self.begun = false;
    }

    /// Replaces the policy when its env steps are used up. The new policy is untrained. If the task asks for it, the
    /// run's last policy instead continues from the best policy checkpoint so far.
    fn begin_again(&mut self, span: &Range<u64>) -> Result<(), LabError> {
        let seed = Seed(Seed(self.settings.seed).stream(&format!("policy/{}", span.start)).random());
        let is_last = span.end >= self.settings.env_steps;
        match is_last.then(|| self.best()).flatten() {
            Some((env_steps, learner)) => {
                self.ppo.go_on_from(&learner, length(span))?;
                let goes_on = "From here on the policy goes on that stood after";
                self.warning.get_or_insert_with(|| format!("{goes_on} {}.", better_than_the_last(env_steps)));
            }
            None => {
                self.ppo.begin_again(length(span), seed)?;
                self.warning.get_or_insert_with(|| BEGINS_AGAIN.to_owned());
            }
        }
        self.reset_worlds();
        if let Some(preference_learner) = &mut self.preference_learner {
            preference_learner.begin_again();
        }
        Ok(())
    }
}

/// The env steps during which the policy that is current at `env_steps` is trained.
fn policy_at(settings: &RunSettings, task: &Task, env_steps: u64) -> Range<u64> {
    match settings.reward() {
        RewardSource::True => 0..settings.env_steps,
        RewardSource::Preferences => task.spec().explore.policy_at(env_steps, settings.env_steps),
    }
}

/// Says which policy is used, and why.
fn better_than_the_last(env_steps: u64) -> String {
    format!("{:.1} million env steps: by what your answers taught it is the best so far", env_steps as f64 / 1e6)
}

fn length(span: &Range<u64>) -> u64 {
    (span.end - span.start).max(1)
}

#[cfg(test)]
mod on_device_tests;

#[cfg(test)]
mod tests;
