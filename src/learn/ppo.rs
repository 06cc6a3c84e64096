//! Proximal policy optimisation (Schulman et al. 2017) for continuous actions, top to bottom.
//!
//! Details follow Stable-Baselines3 and CleanRL ("The 37 implementation details of PPO"), with these departures:
//! - Actor and critic share nothing, and each has its own Adam and its own gradient norm. Their losses are then separate problems, which
//!   are solved on two threads at once; no weight of the value loss is needed, and the target-KL stop ends the actor's epochs alone.
//! - Observation statistics are frozen from the first step of a rollout to the end of its update and take the rollout in afterwards, so
//!   that the first minibatch sees exactly the policy that acted. One reward divisor serves a whole rollout.
//! - Advantages are normalised over the rollout, not over each minibatch.
//! - An update is a transaction: cancelled or failed, it leaves the learner, random streams included, as it was before.

use super::adam::numbers;
use super::gaussian::{entropy, log_prob};
use super::objective::{approx_kl, clipped_objective, clipped_value_loss, explained_variance};
use super::{
    Actions, Adam, Dense, LearnError, Network, OneThread, Policy, Reader, RewardScale, Rollout, RunningNorm,
    Trajectories, Transition, clip_by_global_norm, gae,
};
use crate::basics::{Array, Arrays, Seed, Stream};
use crate::settings::PpoSettings;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tch::Tensor;

#[cfg(test)]
mod tests;

/// The learner: actor, critic, their optimisers, the normalisers and the random streams.
pub struct Ppo {
    settings: PpoSettings,
    actor: Learner,
    critic: Learner,
    obs_norm: RunningNorm,
    reward_scale: RewardScale,
    /// Draws the actions.
    noise: Stream,
    /// Env steps learnt from, and planned in all (0: no plan, no annealing).
    env_steps: u64,
    planned: u64,
    /// Copies of the networks for acting, made after every change of the weights.
    policy: Policy,
    values: Dense,
}

/// A network with its optimiser and the stream that shuffles its minibatches.
struct Learner {
    network: Network,
    adam: Adam,
    shuffle: Stream,
}

/// What an update did. Losses, KL, clip fraction and norms are means over the gradient steps taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UpdateStats {
    /// The clipped surrogate, without the entropy bonus.
    pub policy_loss: f64,
    /// Half the squared error of the critic on scaled returns.
    pub value_loss: f64,
    /// Of the policy after the update, nats.
    pub entropy: f64,
    /// KL from the rollout's policy, estimated on the minibatches, nats.
    pub approx_kl: f64,
    /// Share of samples whose probability ratio left the clip range.
    pub clip_fraction: f64,
    /// Of the rollout's values on its returns: 1 is perfect, 0 no better than a constant.
    pub explained_variance: f64,
    /// Of the actor's gradient before clipping.
    pub grad_norm: f64,
    /// Of the critic's gradient before clipping.
    pub critic_grad_norm: f64,
    /// Adam's step size in this update.
    pub learning_rate: f64,
    /// The actor's passes over the rollout that were finished; fewer than asked for if the KL stop came.
    pub epochs: usize,
    /// What the rollout's rewards were divided by.
    pub reward_divisor: f64,
}

impl Ppo {
    /// An untrained learner for observations of size O and actions of size A. The seed decides the weights and everything drawn later.
    pub fn new(obs_dim: usize, act_dim: usize, settings: PpoSettings, seed: Seed) -> Result<Ppo, LearnError> {
        settings.check().map_err(LearnError::Settings)?;
        let sizes = |outputs: usize| [&[obs_dim][..], &settings.hidden, &[outputs]].concat();
        let log_std = vec![settings.initial_log_std as f32; act_dim];
        let actor = Network::new(&sizes(act_dim), 0.01, &log_std, &mut seed.stream("ppo.actor"));
        let critic = Network::new(&sizes(1), 1.0, &[], &mut seed.stream("ppo.critic"));
        let obs_norm = RunningNorm::new(obs_dim);
        Ok(Ppo {
            policy: Policy::new(actor.dense(), log_std, &obs_norm),
            values: critic.dense(),
            actor: Learner::new(actor, settings.adam_eps, seed.stream("ppo.actor.minibatches")),
            critic: Learner::new(critic, settings.adam_eps, seed.stream("ppo.critic.minibatches")),
            obs_norm,
            reward_scale: RewardScale::new(settings.gamma),
            noise: seed.stream("ppo.noise"),
            env_steps: 0,
            planned: 0,
            settings,
        })
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &PpoSettings {
        &self.settings
    }

    /// Says how many env steps the run is to take in all, which is what the learning rate is annealed over. Saved with the rest.
    pub fn plan(&mut self, env_steps: u64) {
        self.planned = env_steps;
    }

    /// Env steps learnt from so far.
    pub fn env_steps(&self) -> u64 {
        self.env_steps
    }

    /// Adam's step size for the next update.
    pub fn learning_rate(&self) -> f64 {
        let progress = match self.planned {
            0 => 0.0,
            planned => (self.env_steps as f64 / planned as f64).min(1.0),
        };
        self.settings.learning_rate * (1.0 - (1.0 - self.settings.final_learning_rate) * progress)
    }

    // Acting.

    /// Samples actions for raw observations, `[n, O]`.
    pub fn act(&mut self, obs: &[f32], n: usize) -> Actions {
        let obs = self.policy.normalise(obs);
        let mut actions = self.policy.mean_of_normalised(&obs, n);
        let log_std = self.policy.log_std();
        let std: Vec<f32> = log_std.iter().map(|l| l.exp()).collect();
        let inverse: Vec<f32> = log_std.iter().map(|l| (-l).exp()).collect();
        let constant: f32 = log_std.iter().map(|l| l + 0.5 * std::f32::consts::TAU.ln()).sum();
        let mut log_probs = Vec::with_capacity(n);
        for row in actions.chunks_exact_mut(std.len()) {
            let mut squares = 0.0;
            for ((action, std), inverse) in row.iter_mut().zip(&std).zip(&inverse) {
                let mean = *action;
                let noise: f32 = StandardNormal.sample(&mut self.noise);
                *action = mean + std * noise;
                // From the rounded action, as the update will compute it again.
                squares += ((*action - mean) * inverse).powi(2);
            }
            log_probs.push(-0.5 * squares - constant);
        }
        Actions { actions, log_probs, values: self.values.forward(&obs, n) }
    }

    /// The mean actions, `[n, O]` → `[n, A]`: the deterministic policy.
    pub fn act_mean(&self, obs: &[f32], n: usize) -> Vec<f32> {
        self.policy.act_mean(obs, n)
    }

    /// The critic's values of raw observations, `[n, O]` → `[n]`, in units of scaled return.
    pub fn value(&self, obs: &[f32], n: usize) -> Vec<f32> {
        self.values.forward(&self.policy.normalise(obs), n)
    }

    /// A copy of the policy as a plain value.
    pub fn policy(&self) -> Policy {
        self.policy.clone()
    }

    /// Appends one step of all worlds: the observations `[N, O]`, what [`Ppo::act`] gave for them, and what came of it.
    pub fn record(&self, rollout: &mut Rollout, obs: &[f32], actions: &Actions, transition: Transition) {
        let worlds = rollout.worlds;
        let obs_dim = obs.len() / worlds;
        rollout.steps += 1;
        rollout.obs.extend_from_slice(obs);
        rollout.actions.extend_from_slice(&actions.actions);
        rollout.log_probs.extend_from_slice(&actions.log_probs);
        rollout.values.extend_from_slice(&actions.values);
        rollout.rewards.extend_from_slice(transition.rewards);
        rollout.terminated.extend_from_slice(transition.terminated);
        rollout.truncated.extend_from_slice(transition.truncated);
        for world in 0..worlds {
            let value = match transition.truncated[world] {
                true => {
                    let final_obs = &transition.final_obs[world * obs_dim..][..obs_dim];
                    rollout.final_obs.extend_from_slice(final_obs);
                    self.value(final_obs, 1)[0]
                }
                false => 0.0,
            };
            rollout.final_values.push(value);
        }
    }

    /// Ends a rollout with the observations after its last step, `[N, O]`.
    pub fn close(&self, rollout: &mut Rollout, last_obs: &[f32]) {
        rollout.last_obs = last_obs.to_vec();
        rollout.last_values = self.value(last_obs, rollout.worlds);
    }

    // Learning.

    /// Learns from a rollout that this learner's present policy acted in. `cancel` is asked before every minibatch of the actor.
    ///
    /// On any error, a cancel among them, the learner is as it was before the call.
    pub fn update(&mut self, rollout: &Rollout, cancel: &mut dyn FnMut() -> bool) -> Result<UpdateStats, LearnError> {
        self.transaction(|ppo| ppo.improve(rollout, cancel))
    }

    /// Takes a rollout's observations into the normaliser without learning anything else, for rollouts that have no reward yet. The policy changes
    /// with it, so this rollout cannot be learnt from afterwards. The number of env steps that the learning rate goes by counts on.
    pub fn observe(&mut self, rollout: &Rollout) -> Result<(), LearnError> {
        rollout.check(self.policy.obs_dim(), self.policy.act_dim())?;
        self.take_in(rollout);
        Ok(())
    }

    /// Refits the critic alone to a rollout whose rewards have been replaced, for when the reward function changed; to be called after the
    /// rollout's own [`update`](Ppo::update). Reward scaling starts anew from this rollout. Returns half the squared error
    /// on scaled returns, before and after.
    ///
    /// Targets are TD(λ) returns of the critic's own present values, computed again for every pass, so that the new reward spreads
    /// backwards. On any error the learner is as it was before the call.
    pub fn refit_critic(
        &mut self,
        rollout: &Rollout,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<[f64; 2], LearnError> {
        self.transaction(|ppo| ppo.refit(rollout, cancel))
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&mut Ppo) -> Result<T, LearnError>) -> Result<T, LearnError> {
        let before = self.to_arrays();
        work(self).inspect_err(|_| {
            let restored = self.load_arrays(&before);
            debug_assert!(restored.is_ok(), "a learner reads what it wrote");
        })
    }

    fn improve(&mut self, rollout: &Rollout, cancel: &mut dyn FnMut() -> bool) -> Result<UpdateStats, LearnError> {
        rollout.check(self.policy.obs_dim(), self.policy.act_dim())?;
        let mut stats = UpdateStats { learning_rate: self.learning_rate(), ..UpdateStats::default() };

        let rewards = self.scaled_rewards(rollout);
        stats.reward_divisor = self.reward_scale.divisor();
        let (gamma, lambda) = (self.settings.gamma as f32, self.settings.lambda as f32);
        let estimate = gae(rollout.trajectories(&rewards), gamma, lambda);
        stats.explained_variance = explained_variance(&rollout.values, &estimate.returns);
        let advantages = standardised(&estimate.advantages);
        let obs = self.policy.normalise(&rollout.obs);

        let stop = AtomicBool::new(false);
        let Ppo { actor, critic, settings, .. } = self;
        let learning_rate = stats.learning_rate;
        let (actor_done, critic_done) = std::thread::scope(|scope| {
            let fit = || {
                let mut cancel = || stop.load(Ordering::Relaxed);
                let done =
                    critic.fit_values(&obs, &rollout.values, &estimate.returns, settings, learning_rate, &mut cancel);
                if done.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                done
            };
            let critic = scope.spawn(fit);
            let mut cancel = || {
                if cancel() {
                    stop.store(true, Ordering::Relaxed);
                }
                stop.load(Ordering::Relaxed)
            };
            let actor = actor.improve_policy(&obs, rollout, &advantages, settings, learning_rate, &mut cancel);
            if actor.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            while !critic.is_finished() {
                cancel();
                std::thread::sleep(Duration::from_micros(100));
            }
            (actor, critic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        // Whoever failed first made the other one stop: a cancel is the cause only where nothing else is.
        let (policy, value) = match (actor_done, critic_done) {
            (Ok(policy), Ok(value)) => (policy, value),
            (Err(LearnError::Cancelled), Err(error)) | (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        stats.policy_loss = policy.loss;
        stats.approx_kl = policy.kl;
        stats.clip_fraction = policy.clipped;
        stats.grad_norm = policy.norm;
        stats.epochs = policy.epochs;
        stats.value_loss = value.loss;
        stats.critic_grad_norm = value.norm;

        self.take_in(rollout);
        stats.entropy = entropy(&Tensor::from_slice(self.policy.log_std())).double_value(&[]);
        Ok(stats)
    }

    fn refit(&mut self, rollout: &Rollout, cancel: &mut dyn FnMut() -> bool) -> Result<[f64; 2], LearnError> {
        rollout.check(self.policy.obs_dim(), self.policy.act_dim())?;
        self.reward_scale = RewardScale::new(self.settings.gamma);
        let mut rollout = rollout.clone();
        let rewards = self.scaled_rewards(&rollout);
        let obs = self.policy.normalise(&rollout.obs);
        let truncated: Vec<usize> = (0..rollout.samples()).filter(|&i| rollout.truncated[i]).collect();
        let (gamma, lambda) = (self.settings.gamma as f32, self.settings.lambda as f32);
        let settings = PpoSettings { epochs: 1, value_clip: 0.0, ..self.settings.clone() };
        let mut errors = Vec::new();
        for epoch in 0..=self.settings.refit_epochs {
            rollout.values = self.values.forward(&obs, rollout.samples());
            rollout.last_values = self.value(&rollout.last_obs, rollout.worlds);
            let final_values = self.value(&rollout.final_obs, truncated.len());
            truncated.iter().zip(final_values).for_each(|(&i, value)| rollout.final_values[i] = value);
            let returns = gae(rollout.trajectories(&rewards), gamma, lambda).returns;
            errors.push(half_squared_error(&rollout.values, &returns));
            if epoch < self.settings.refit_epochs {
                let rate = self.learning_rate();
                self.critic.fit_values(&obs, &rollout.values, &returns, &settings, rate, cancel)?;
                self.values = self.critic.network.dense();
            }
        }
        Ok([errors[0], errors[errors.len() - 1]])
    }

    /// What every rollout leaves behind when it is done with: its observations in the statistics, its steps in the count.
    fn take_in(&mut self, rollout: &Rollout) {
        if self.settings.normalise_obs {
            self.obs_norm.absorb(&rollout.obs);
        }
        self.env_steps += rollout.samples() as u64;
        self.refresh();
    }

    /// Takes the rollout's rewards into the statistics and divides by them.
    fn scaled_rewards(&mut self, rollout: &Rollout) -> Vec<f32> {
        match self.settings.scale_rewards {
            true => {
                self.reward_scale.absorb(&rollout.rewards, |i| rollout.ended(i), rollout.worlds);
                self.reward_scale.scale(&rollout.rewards)
            }
            false => rollout.rewards.clone(),
        }
    }

    /// Copies weights and statistics to where acting reads them.
    fn refresh(&mut self) {
        self.policy = Policy::new(self.actor.network.dense(), self.actor.network.free(), &self.obs_norm);
        self.values = self.critic.network.dense();
    }

    // Saving.

    /// The whole state: a learner that loads it goes on bit for bit. Beside the policy's arrays (see [`Policy`]): `critic.N.weight` and
    /// `.bias`, `adam.actor.*` and `adam.critic.*`, `obs_count`, `obs_m2`, `reward_scale_*`, `stream.*` and `progress` (env steps
    /// done and planned).
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        self.actor.to_arrays("actor", "log_std", &mut arrays);
        self.critic.to_arrays("critic", "", &mut arrays);
        self.obs_norm.to_arrays("obs", &mut arrays);
        self.reward_scale.to_arrays("reward_scale", &mut arrays);
        arrays.insert("stream.noise".to_owned(), Array::u64(self.noise.state().to_vec()));
        arrays.insert("progress".to_owned(), Array::u64(vec![self.env_steps, self.planned]));
        arrays
    }

    /// Takes a state that [`Ppo::to_arrays`] gave, of a learner with the same sizes. On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let reader = Reader(arrays);
        let actor = self.actor.restored("actor", "log_std", reader)?;
        let critic = self.critic.restored("critic", "", reader)?;
        let obs_norm = RunningNorm::from_arrays("obs", self.policy.obs_dim(), reader)?;
        let reward_scale = RewardScale::from_arrays("reward_scale", self.settings.gamma, reader)?;
        let noise = reader.stream("stream.noise")?;
        let [env_steps, planned] = reader.words("progress")?;
        (self.actor, self.critic, self.obs_norm, self.reward_scale) = (actor, critic, obs_norm, reward_scale);
        (self.noise, self.env_steps, self.planned) = (noise, env_steps, planned);
        self.refresh();
        Ok(())
    }
}

/// Means over the actor's gradient steps.
#[derive(Default)]
struct PolicyStats {
    loss: f64,
    kl: f64,
    clipped: f64,
    norm: f64,
    epochs: usize,
}

/// Means over the critic's gradient steps.
#[derive(Default)]
struct ValueStats {
    loss: f64,
    norm: f64,
}

impl Learner {
    fn new(network: Network, eps: f64, shuffle: Stream) -> Learner {
        let adam = Adam::new(&[network.parameters()], eps);
        Learner { network, adam, shuffle }
    }

    /// Epochs of the clipped surrogate with an entropy bonus. `obs` is normalised, `advantages` standardised.
    fn improve_policy(
        &mut self,
        obs: &[f32],
        rollout: &Rollout,
        advantages: &[f32],
        settings: &PpoSettings,
        learning_rate: f64,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<PolicyStats, LearnError> {
        let _one_thread = OneThread::new();
        let samples = rollout.samples();
        let data = [obs, &rollout.actions, &rollout.log_probs, advantages].map(|column| matrix(column, samples));
        let mut stats = PolicyStats::default();
        let mut steps = 0.0;
        'epochs: for epoch in 1..=settings.epochs {
            for part in shuffled(&data, settings.minibatch, &mut self.shuffle) {
                if cancel() {
                    return Err(LearnError::Cancelled);
                }
                let PolicyLoss { loss, surrogate, log_ratio } = policy_loss(&self.network, &part, settings);
                let log_ratios = numbers(&log_ratio);
                let kl = approx_kl(&log_ratios);
                if !kl.is_finite() {
                    return Err(LearnError::NotFinite { what: format!("the policy's KL in epoch {epoch}") });
                }
                if settings.target_kl > 0.0 && kl > 1.5 * settings.target_kl {
                    break 'epochs;
                }
                let left = |l: &&f32| (l.exp() - 1.0).abs() > settings.clip as f32;
                let norm = self.descend("policy", &loss, epoch, settings, learning_rate)?;
                steps += 1.0;
                stats.loss += surrogate.double_value(&[]);
                stats.kl += kl;
                stats.clipped += log_ratios.iter().filter(left).count() as f64 / log_ratios.len() as f64;
                stats.norm += norm;
            }
            stats.epochs = epoch;
        }
        self.check_parameters("policy")?;
        let mean = |sum: f64| sum / f64::max(steps, 1.0);
        Ok(PolicyStats {
            loss: mean(stats.loss),
            kl: mean(stats.kl),
            clipped: mean(stats.clipped),
            norm: mean(stats.norm),
            epochs: stats.epochs,
        })
    }

    /// Epochs of regression to `returns`. `obs` is normalised; `old_values` are where `value_clip` holds predictions.
    fn fit_values(
        &mut self,
        obs: &[f32],
        old_values: &[f32],
        returns: &[f32],
        settings: &PpoSettings,
        learning_rate: f64,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<ValueStats, LearnError> {
        let _one_thread = OneThread::new();
        let data = [obs, old_values, returns].map(|column| matrix(column, returns.len()));
        let mut stats = ValueStats::default();
        let mut steps = 0.0;
        for epoch in 1..=settings.epochs {
            for part in shuffled(&data, settings.minibatch, &mut self.shuffle) {
                if cancel() {
                    return Err(LearnError::Cancelled);
                }
                let loss = value_loss(&self.network, &part, settings);
                stats.norm += self.descend("value", &loss, epoch, settings, learning_rate)?;
                stats.loss += loss.double_value(&[]);
                steps += 1.0;
            }
        }
        self.check_parameters("value")?;
        Ok(ValueStats { loss: stats.loss / steps, norm: stats.norm / steps })
    }

    /// One step down the gradient of `loss`; returns the gradient's norm before clipping. Refuses a loss or gradient that is not finite.
    fn descend(
        &mut self,
        name: &str,
        loss: &Tensor,
        epoch: usize,
        settings: &PpoSettings,
        learning_rate: f64,
    ) -> Result<f64, LearnError> {
        let not_finite = |what: &str| LearnError::NotFinite { what: format!("the {name} {what} in epoch {epoch}") };
        if !loss.double_value(&[]).is_finite() {
            return Err(not_finite("loss"));
        }
        let mut gradients = Tensor::f_run_backward(&[loss], &[self.network.parameters()], false, false)?;
        let norm = clip_by_global_norm(&mut gradients, settings.max_grad_norm);
        if !norm.is_finite() {
            return Err(not_finite("gradient"));
        }
        self.adam.step(&mut [self.network.parameters_mut()], &gradients, learning_rate);
        Ok(norm)
    }

    fn check_parameters(&self, name: &str) -> Result<(), LearnError> {
        match numbers(self.network.parameters()).iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(LearnError::NotFinite { what: format!("a parameter of the {name} network after the update") }),
        }
    }

    fn to_arrays(&self, name: &str, free_name: &str, arrays: &mut Arrays) {
        self.network.to_arrays(name, free_name, arrays);
        self.adam.to_arrays(&format!("adam.{name}"), arrays);
        arrays.insert(format!("stream.{name}"), Array::u64(self.shuffle.state().to_vec()));
    }

    fn restored(&self, name: &str, free_name: &str, arrays: Reader) -> Result<Learner, LearnError> {
        Ok(Learner {
            network: self.network.restored(name, free_name, arrays)?,
            adam: self.adam.restored(&format!("adam.{name}"), arrays)?,
            shuffle: arrays.stream(&format!("stream.{name}"))?,
        })
    }
}

struct PolicyLoss {
    /// What is minimised, a scalar.
    loss: Tensor,
    /// Without the entropy bonus, a scalar.
    surrogate: Tensor,
    /// log π − log π_old of each sample, `[B]`.
    log_ratio: Tensor,
}

/// The actor's loss on a minibatch of observations `[B, O]`, actions `[B, A]`, old log-densities `[B, 1]` and advantages `[B, 1]`.
fn policy_loss(actor: &Network, minibatch: &[Tensor; 4], settings: &PpoSettings) -> PolicyLoss {
    let [obs, actions, old_log_probs, advantages] = minibatch;
    let views = actor.views();
    let log_probs = log_prob(&views.forward(obs), &views.free, actions);
    let log_ratio = log_probs - old_log_probs.squeeze_dim(-1);
    let surrogate = clipped_objective(&log_ratio, &advantages.squeeze_dim(-1), settings.clip).mean(obs.kind());
    let loss = match settings.entropy > 0.0 {
        true => &surrogate - entropy(&views.free) * settings.entropy,
        false => surrogate.shallow_clone(),
    };
    PolicyLoss { loss, surrogate, log_ratio }
}

/// The critic's loss on a minibatch of observations `[B, O]`, old values `[B, 1]` and returns `[B, 1]`.
fn value_loss(critic: &Network, minibatch: &[Tensor; 3], settings: &PpoSettings) -> Tensor {
    let [obs, old_values, returns] = minibatch;
    let values = critic.views().forward(obs);
    clipped_value_loss(&values, old_values, returns, settings.value_clip).mean(obs.kind())
}

impl Rollout {
    fn trajectories<'a>(&'a self, rewards: &'a [f32]) -> Trajectories<'a> {
        Trajectories {
            rewards,
            values: &self.values,
            terminated: &self.terminated,
            truncated: &self.truncated,
            final_values: &self.final_values,
            last_values: &self.last_values,
        }
    }
}

/// `[rows, numbers / rows]`.
fn matrix(numbers: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(numbers).view([rows as i64, -1])
}

/// The rows of all columns in one random order, cut into equal parts (to within a row) of about `size`.
fn shuffled<const N: usize>(columns: &[Tensor; N], size: usize, stream: &mut Stream) -> Vec<[Tensor; N]> {
    let rows = columns[0].size()[0];
    let mut order: Vec<i64> = (0..rows).collect();
    order.shuffle(stream);
    let order = Tensor::from_slice(&order);
    let columns = columns.each_ref().map(|column| column.index_select(0, &order));
    let parts = ((rows as f64 / size as f64).round() as i64).max(1);
    let cut = |part: i64| part * rows / parts;
    (0..parts).map(|i| columns.each_ref().map(|column| column.narrow(0, cut(i), cut(i + 1) - cut(i)))).collect()
}

/// Mean 0 and standard deviation 1.
fn standardised(numbers: &[f32]) -> Vec<f32> {
    let n = numbers.len() as f64;
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let var = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (var.sqrt() + 1e-8);
    numbers.iter().map(|&x| ((f64::from(x) - mean) * scale) as f32).collect()
}

fn half_squared_error(predictions: &[f32], targets: &[f32]) -> f64 {
    let squares: f64 = predictions.iter().zip(targets).map(|(&p, &t)| (f64::from(p) - f64::from(t)).powi(2)).sum();
    0.5 * squares / targets.len() as f64
}
