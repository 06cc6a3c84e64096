//! Proximal policy optimisation (Schulman et al. 2017) for continuous actions, top to bottom.
//!
//! Details follow Stable-Baselines3 and CleanRL ("The 37 implementation details of PPO"), with these departures:
//! - Actor and critic share nothing, and each has its own Adam and its own gradient norm. Their losses are then
//!   separate problems, which two threads solve at once. The value loss needs no weight, and the target-KL stop ends
//!   only the actor's epochs.
//! - Observation statistics are frozen from the first step of a rollout to the end of its update. They take in the
//!   rollout afterwards, so that the first minibatch sees exactly the policy that acted. A whole rollout has one reward
//!   divisor.
//! - Advantages are normalised over the rollout, not over each minibatch.
//! - An update is a transaction. If it is cancelled or fails, the learner, including its random streams, is as it was
//!   before.

mod learner;
mod parallel_sgd;
#[cfg(test)]
mod tests;

use self::learner::Learner;
use self::parallel_sgd::{Backoff, GradientScratch, Means, ParallelSgd, TrainingProblem};
use super::gaussian::Spread;
use super::loss::{ClippedPolicy, ClippedValue, Loss};
use super::objective::explained_variance;
use super::{
    Actions, Dense, LearnError, Network, Policy, Reader, RewardScale, Rollout, RunningNorm, Trajectories, gae, whiten,
};
use flipside_core::settings::PpoSettings;
use flipside_core::simd::padded;
use flipside_core::{Array, Arrays, Seed, Stream, cores};
use rand_distr::{Distribution, StandardNormal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The learner: actor, critic, their optimisers, the normalisers and the random streams.
pub struct Ppo {
    settings: PpoSettings,
    state: State,
    /// Copies of the networks and of σ for acting, made after every change of the weights.
    policy: Policy,
    spread: Spread,
    values: Dense,
    /// How many threads may compute gradients at once. The results do not depend on it.
    threads: usize,
    /// Scratch memory for gradients.
    gradient_scratch: [GradientScratch; 2],
    obs: Vec<f32>,
    scratch: Vec<f32>,
}

/// The part of the learner that a checkpoint saves and that is restored after a failed update.
#[derive(Clone)]
struct State {
    actor: Learner,
    critic: Learner,
    obs_norm: RunningNorm,
    reward_scale: RewardScale,
    /// The random stream of the actions.
    noise: Stream,
    /// Env steps learned from, and env steps planned in total (0: no plan, no annealing).
    env_steps: u64,
    planned: u64,
}

/// The results of an update. Losses, KL, clip fraction and norms are means over the gradient steps taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UpdateStats {
    /// The clipped surrogate, without the entropy bonus.
    pub policy_loss: f64,
    /// Half the squared error of the critic on scaled returns.
    pub value_loss: f64,
    /// The policy's entropy after the update, nats.
    pub entropy: f64,
    /// KL from the rollout's policy, estimated on the minibatches, nats.
    pub approx_kl: f64,
    /// Share of samples whose probability ratio left the clip range.
    pub clip_fraction: f64,
    /// How well the rollout's values explain its returns: 1 is perfect, 0 no better than a constant.
    pub explained_variance: f64,
    /// The norm of the actor's gradient before clipping.
    pub grad_norm: f64,
    /// The norm of the critic's gradient before clipping.
    pub critic_grad_norm: f64,
    /// Adam's step size in this update.
    pub learning_rate: f64,
    /// How many passes over the rollout the actor finished; fewer than requested if the KL stop ended them.
    pub epochs: usize,
    /// The divisor of the rollout's rewards.
    pub reward_divisor: f64,
}

impl Ppo {
    /// An untrained learner for observations of size O and actions of size A. The seed determines the weights and
    /// everything drawn later.
    pub fn new(obs_dim: usize, act_dim: usize, settings: PpoSettings, seed: Seed) -> Result<Ppo, LearnError> {
        settings.check().map_err(LearnError::Settings)?;
        let sizes = |outputs: usize| [&[obs_dim][..], &settings.hidden, &[outputs]].concat();
        let log_std = vec![settings.initial_log_std.max(settings.min_log_std) as f32; act_dim];
        let actor = Network::new(&sizes(act_dim), 0.01, &log_std, &mut seed.stream("ppo.actor"));
        let critic = Network::new(&sizes(1), 1.0, &[], &mut seed.stream("ppo.critic"));
        let obs_norm = RunningNorm::new(obs_dim);
        Ok(Ppo {
            gradient_scratch: [GradientScratch::new(&actor), GradientScratch::new(&critic)],
            spread: Spread::new(&log_std),
            policy: Policy::new(actor.dense(), log_std, &obs_norm),
            values: critic.dense(),
            state: State {
                actor: Learner::new(actor, settings.adam_eps, seed.stream("ppo.actor.minibatches")),
                critic: Learner::new(critic, settings.adam_eps, seed.stream("ppo.critic.minibatches")),
                obs_norm,
                reward_scale: RewardScale::new(settings.gamma),
                noise: seed.stream("ppo.noise"),
                env_steps: 0,
                planned: 0,
            },
            threads: cores(),
            obs: Vec::new(),
            scratch: Vec::new(),
            settings,
        })
    }

    /// The settings with which it was made.
    pub fn settings(&self) -> &PpoSettings {
        &self.settings
    }

    /// Sets how many env steps the run takes in total. The learning rate is annealed over them. Saved with the rest.
    pub fn plan(&mut self, env_steps: u64) {
        self.state.planned = env_steps;
    }

    /// Starts over for this many env steps, with fresh weights drawn from `seed`. Only the observation statistics are
    /// kept.
    pub fn begin_again(&mut self, env_steps: u64, seed: Seed) -> Result<(), LearnError> {
        let (obs_dim, act_dim) = (self.policy.obs_dim(), self.policy.act_dim());
        let fresh = Ppo::new(obs_dim, act_dim, self.settings.clone(), seed)?;
        self.state = State { obs_norm: self.state.obs_norm.clone(), planned: env_steps, ..fresh.state };
        self.refresh();
        Ok(())
    }

    /// Continues from a saved learner for this many more env steps. The learning rate starts at a new learner's initial
    /// value.
    pub fn go_on_from(&mut self, arrays: &Arrays, env_steps: u64) -> Result<(), LearnError> {
        self.load_arrays(arrays)?;
        (self.state.env_steps, self.state.planned) = (0, env_steps);
        Ok(())
    }

    /// How many threads may compute gradients, including the calling one; by default all cores. The results do not
    /// depend on it.
    pub fn use_threads(&mut self, threads: usize) {
        self.threads = threads.max(1);
    }

    /// Env steps learned from so far.
    pub fn env_steps(&self) -> u64 {
        self.state.env_steps
    }

    /// Adam's step size for the next update.
    pub fn learning_rate(&self) -> f64 {
        let progress = match self.state.planned {
            0 => 0.0,
            planned => (self.state.env_steps as f64 / planned as f64).min(1.0),
        };
        self.settings.learning_rate * (1.0 - (1.0 - self.settings.final_learning_rate) * progress)
    }

    // Acting.

    /// Samples actions for raw observations, `[n, O]`.
    pub fn act(&mut self, obs: &[f32], n: usize) -> Actions {
        let mut actions = Actions::default();
        self.act_into(obs, n, &mut actions);
        actions
    }

    /// The same, but reuses the memory of `actions`.
    pub fn act_into(&mut self, obs: &[f32], n: usize, actions: &mut Actions) {
        let (o, a) = (self.policy.obs_dim(), self.policy.act_dim());
        assert_eq!(obs.len(), n * o, "obs must be [n, O]");
        let Actions { actions, log_probs } = actions;
        self.obs.resize(n * o, 0.0);
        self.policy.normalise_into(obs, &mut self.obs, o);
        actions.resize(n * a, 0.0);
        self.policy.mean_of_normalised(&self.obs, o, actions, &mut self.scratch);
        log_probs.clear();
        self.scratch.resize(2 * a, 0.0);
        let (mean, z) = self.scratch.split_at_mut(a);
        for row in actions.chunks_exact_mut(a) {
            mean.copy_from_slice(row);
            for (action, std) in row.iter_mut().zip(self.spread.std()) {
                let noise: f32 = StandardNormal.sample(&mut self.state.noise);
                *action += std * noise;
            }
            // Computed from the rounded action, as the update will compute it again.
            log_probs.push(self.spread.log_prob(row, mean, z));
        }
    }

    /// The mean actions, `[n, O]` → `[n, A]`: the deterministic policy.
    pub fn act_mean(&self, obs: &[f32], n: usize) -> Vec<f32> {
        self.policy.act_mean(obs, n)
    }

    /// The critic's values of raw observations, `[n, O]` → `[n]`, in units of scaled return.
    pub fn value(&self, obs: &[f32], n: usize) -> Vec<f32> {
        assert_eq!(obs.len(), n * self.policy.obs_dim(), "obs must be [n, O]");
        let mut normalised = vec![0.0; obs.len()];
        self.policy.normalise_into(obs, &mut normalised, self.policy.obs_dim());
        self.values.forward(&normalised, n)
    }

    /// A copy of the policy as a plain value.
    pub fn policy(&self) -> Policy {
        self.policy.clone()
    }

    /// Ends a rollout with the observations after its last step, `[N, O]`, and computes the critic's values of the
    /// whole rollout. No value is needed earlier, and one large batch costs less than one per step.
    pub fn close(&mut self, rollout: &mut Rollout, last_obs: &[f32]) {
        rollout.last_obs.clear();
        rollout.last_obs.extend_from_slice(last_obs);
        self.evaluate(rollout);
    }

    /// Computes the critic's current values of a rollout.
    fn evaluate(&mut self, rollout: &mut Rollout) {
        let Ppo { policy, values, obs: normalised, scratch, .. } = self;
        let o = policy.obs_dim();
        let mut value = |obs: &[f32], out: &mut Vec<f32>| {
            out.resize(obs.len() / o, 0.0);
            normalised.resize(obs.len(), 0.0);
            policy.normalise_into(obs, normalised, o);
            values.forward_into(normalised, o, out, scratch);
        };
        value(&rollout.obs, &mut rollout.values);
        value(&rollout.last_obs, &mut rollout.last_values);
        let mut of_truncated = Vec::new();
        value(&rollout.final_obs, &mut of_truncated);
        rollout.final_values.clear();
        rollout.final_values.resize(rollout.samples(), 0.0);
        let truncated = rollout.final_values.iter_mut().zip(&rollout.truncated).filter(|(_, truncated)| **truncated);
        truncated.zip(of_truncated).for_each(|((value, _), of_final)| *value = of_final);
    }

    // Learning.

    /// Learns from a rollout in which this learner's current policy acted. `cancel` is checked before every minibatch
    /// of the actor.
    ///
    /// After any error, including a cancellation, the learner is as it was before the call.
    pub fn update(&mut self, rollout: &Rollout, cancel: &mut dyn FnMut() -> bool) -> Result<UpdateStats, LearnError> {
        self.transaction(|ppo| ppo.improve(rollout, cancel))
    }

    /// Adds a rollout's observations to the normaliser without learning anything else, for rollouts that have no reward
    /// yet. This changes the policy, so this rollout cannot be learned from afterwards. The env steps count towards the
    /// annealing of the learning rate.
    pub fn observe(&mut self, rollout: &Rollout) -> Result<(), LearnError> {
        rollout.check(self.policy.obs_dim(), self.policy.act_dim())?;
        self.take_in(rollout);
        Ok(())
    }

    /// Refits only the critic to a rollout whose rewards have been replaced because the reward function changed. Call
    /// it after the rollout's own [`update`](Ppo::update). Reward scaling restarts from this rollout. Returns half the
    /// squared error on scaled returns, before and after.
    ///
    /// Targets are TD(λ) returns of the critic's own current values, recomputed for every pass, so that the new reward
    /// spreads backwards. After any error the learner is as it was before the call.
    pub fn refit_critic(
        &mut self,
        rollout: &Rollout,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<[f64; 2], LearnError> {
        self.transaction(|ppo| ppo.refit(rollout, cancel))
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&mut Ppo) -> Result<T, LearnError>) -> Result<T, LearnError> {
        let before = self.state.clone();
        let done = work(self);
        if done.is_err() {
            self.state = before;
            self.refresh();
        }
        done
    }

    fn improve(&mut self, rollout: &Rollout, cancel: &mut dyn FnMut() -> bool) -> Result<UpdateStats, LearnError> {
        rollout.check(self.policy.obs_dim(), self.policy.act_dim())?;
        let mut stats = UpdateStats { learning_rate: self.learning_rate(), ..UpdateStats::default() };

        let rewards = self.scaled_rewards(rollout);
        stats.reward_divisor = self.state.reward_scale.divisor();
        let (gamma, lambda) = (self.settings.gamma as f32, self.settings.gae_lambda as f32);
        let estimate = gae(rollout.trajectories(&rewards), gamma, lambda);
        stats.explained_variance = explained_variance(&rollout.values, &estimate.returns);
        let advantages = whiten(&estimate.advantages, true);
        self.normalise(&rollout.obs);

        let Ppo {
            settings,
            state: State { actor, critic, .. },
            gradient_scratch: [actor_scratch, critic_scratch],
            obs,
            threads,
            ..
        } = self;
        let clipped_policy = ClippedPolicy {
            actions: &rollout.actions,
            old_log_probs: &rollout.log_probs,
            advantages: &advantages,
            clip: settings.clip_coef as f32,
        };
        let clipped_value =
            ClippedValue { old_values: &rollout.values, returns: &estimate.returns, clip: settings.value_clip as f32 };
        let policy = TrainingProblem {
            name: "policy",
            objective: Loss::Policy(clipped_policy),
            obs,
            samples: rollout.samples(),
            settings,
            learning_rate: stats.learning_rate,
        };
        let value = TrainingProblem { name: "value", objective: Loss::Value(clipped_value), ..policy };
        let optimisers =
            [ParallelSgd::new(policy, actor, actor_scratch), ParallelSgd::new(value, critic, critic_scratch)];
        let [policy, value] = descend(&optimisers, *threads, cancel)?;
        stats.policy_loss = policy.loss;
        stats.approx_kl = policy.kl;
        stats.clip_fraction = policy.clipped;
        stats.grad_norm = policy.norm;
        stats.epochs = policy.epochs;
        stats.value_loss = value.loss;
        stats.critic_grad_norm = value.norm;

        self.take_in(rollout);
        stats.entropy = self.spread.entropy();
        Ok(stats)
    }

    fn refit(&mut self, rollout: &Rollout, cancel: &mut dyn FnMut() -> bool) -> Result<[f64; 2], LearnError> {
        rollout.check(self.policy.obs_dim(), self.policy.act_dim())?;
        self.state.reward_scale = RewardScale::new(self.settings.gamma);
        let mut rollout = rollout.clone();
        let rewards = self.scaled_rewards(&rollout);
        let (gamma, lambda) = (self.settings.gamma as f32, self.settings.gae_lambda as f32);
        let settings = PpoSettings { update_epochs: 1, value_clip: 0.0, target_kl: 0.0, ..self.settings.clone() };
        let learning_rate = self.learning_rate();
        let mut errors = Vec::new();
        for epoch in 0..=self.settings.refit_epochs {
            self.evaluate(&mut rollout);
            let returns = gae(rollout.trajectories(&rewards), gamma, lambda).returns;
            errors.push(half_squared_error(&rollout.values, &returns));
            if epoch < self.settings.refit_epochs {
                self.normalise(&rollout.obs);
                let problem = TrainingProblem {
                    name: "value",
                    objective: Loss::Value(ClippedValue { old_values: &rollout.values, returns: &returns, clip: 0.0 }),
                    obs: &self.obs,
                    samples: rollout.samples(),
                    settings: &settings,
                    learning_rate,
                };
                let optimiser = ParallelSgd::new(problem, &mut self.state.critic, &mut self.gradient_scratch[1]);
                descend(&[optimiser], self.threads, cancel)?;
                self.values.follow(&self.state.critic.network);
            }
        }
        Ok([errors[0], errors[errors.len() - 1]])
    }

    /// Normalises observations into rows in the kernels' layout.
    fn normalise(&mut self, obs: &[f32]) {
        let (o, stride) = (self.policy.obs_dim(), padded(self.policy.obs_dim()));
        self.obs.clear();
        self.obs.resize(obs.len() / o * stride, 0.0);
        self.policy.normalise_into(obs, &mut self.obs, stride);
    }

    /// What happens after every rollout: its observations go into the statistics, and its steps are counted.
    fn take_in(&mut self, rollout: &Rollout) {
        if self.settings.normalise_obs {
            self.state.obs_norm.absorb(&rollout.obs);
        }
        self.state.env_steps += rollout.samples() as u64;
        self.refresh();
    }

    /// Adds the rollout's rewards to the statistics and returns them divided.
    fn scaled_rewards(&mut self, rollout: &Rollout) -> Vec<f32> {
        match self.settings.scale_rewards {
            true => {
                let scale = &mut self.state.reward_scale;
                scale.absorb(&rollout.rewards, |i| rollout.ended(i), rollout.worlds);
                scale.scale(&rollout.rewards)
            }
            false => rollout.rewards.clone(),
        }
    }

    /// Copies weights and statistics to the copies that acting reads.
    fn refresh(&mut self) {
        let State { actor, critic, obs_norm, .. } = &self.state;
        self.policy = Policy::new(actor.network.dense(), actor.network.free().to_vec(), obs_norm);
        self.spread.set(actor.network.free());
        self.values.follow(&critic.network);
    }

    // Saving.

    /// The whole state: a learner that loads it continues bit for bit. It holds the policy's arrays (see [`Policy`])
    /// and `critic.N.weight` and `.bias`, `adam.actor.*` and `adam.critic.*`, `obs_count`, `obs_m2`, `reward_scale_*`,
    /// `stream.*` and `progress` (env steps done and planned).
    pub fn to_arrays(&self) -> Arrays {
        let (mut arrays, state) = (Arrays::new(), &self.state);
        state.actor.to_arrays("actor", "log_std", &mut arrays);
        state.critic.to_arrays("critic", "", &mut arrays);
        state.obs_norm.to_arrays("obs", &mut arrays);
        state.reward_scale.to_arrays("reward_scale", &mut arrays);
        arrays.insert("stream.noise".to_owned(), Array::u64(state.noise.state().to_vec()));
        arrays.insert("progress".to_owned(), Array::u64(vec![state.env_steps, state.planned]));
        arrays
    }

    /// Loads a state that [`Ppo::to_arrays`] gave, of a learner with the same sizes. After an error nothing has
    /// changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let reader = Reader(arrays);
        let actor = self.state.actor.restored("actor", "log_std", reader)?;
        let critic = self.state.critic.restored("critic", "", reader)?;
        let obs_norm = RunningNorm::from_arrays("obs", self.policy.obs_dim(), reader)?;
        let reward_scale = RewardScale::from_arrays("reward_scale", self.settings.gamma, reader)?;
        let noise = reader.stream("stream.noise")?;
        let [env_steps, planned] = reader.words("progress")?;
        self.state = State { actor, critic, obs_norm, reward_scale, noise, env_steps, planned };
        self.refresh();
        Ok(())
    }
}

/// Runs every optimiser with this many threads in total, including the calling one. Different optimisers run side by
/// side as far as there are threads, and a thread that leads none helps another. `cancel` is only checked on the
/// calling thread.
fn descend<const N: usize>(
    optimisers: &[ParallelSgd; N],
    threads: usize,
    cancel: &mut dyn FnMut() -> bool,
) -> Result<[Means; N], LearnError> {
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let results: [OnceLock<Result<Means, LearnError>>; N] = [const { OnceLock::new() }; N];
    let work = |cancelled: &mut dyn FnMut() -> bool| {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(optimiser) = optimisers.get(i) else { break };
            let done = optimiser.run(&mut || cancelled() || stop.load(Ordering::Relaxed));
            stop.fetch_or(done.is_err(), Ordering::Relaxed);
            let _ = results[i].set(done);
        }
        let mut backoff = Backoff::default();
        while !optimisers.iter().all(ParallelSgd::is_over) {
            stop.fetch_or(cancelled(), Ordering::Relaxed);
            match optimisers.iter().any(ParallelSgd::assist) {
                true => backoff = Backoff::default(),
                false => backoff.wait(),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(N * ParallelSgd::HANDS) {
            scope.spawn(|| work(&mut || false));
        }
        work(cancel);
    });
    // The first one to fail stops the others, so a cancellation is the cause only if there is no other error.
    let mut means = [Means::default(); N];
    let mut cancelled = false;
    for (means, result) in means.iter_mut().zip(results) {
        match result.into_inner() {
            Some(Ok(found)) => *means = found,
            Some(Err(LearnError::Cancelled)) | None => cancelled = true,
            Some(Err(error)) => return Err(error),
        }
    }
    if cancelled { Err(LearnError::Cancelled) } else { Ok(means) }
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

fn half_squared_error(predictions: &[f32], targets: &[f32]) -> f64 {
    let squares: f64 = predictions.iter().zip(targets).map(|(&p, &t)| (f64::from(p) - f64::from(t)).powi(2)).sum();
    0.5 * squares / targets.len() as f64
}
