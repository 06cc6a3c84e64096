//! Worlds, policy and reward model together on one GPU. A rollout stays there until it is complete.

use super::LabError;
use crate::settings::folders::cache_folder;
use crate::store::{read_shader_cache, write_shader_cache};
use flipside_core::Seed;
use flipside_envs::gym::{DeviceEnv, DeviceRollout, EnvError, Task};
use flipside_envs::physics::BuildOptions;
use flipside_gpu::{Checks, Device, DeviceError};
use flipside_learn::{Acting, DeviceActor, Policy, Rollout};
use flipside_preference::{DeviceScorer, RewardModel, Scores};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// While waiting for a rollout, cancellation is checked this often.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// A task's worlds, the policy that acts in them, and the reward model that scores the rollouts.
pub(super) struct OnDevice {
    pub env: DeviceEnv,
    pub actor: DeviceActor,
    device: Device,
    checks: Checks,
    /// Built when it is first needed. The inner `None` means that the reward model does not fit the GPU and the host
    /// scores.
    scorer: Option<Option<DeviceScorer>>,
    readback: DeviceRollout,
    /// The outcome of a rollout that was collected ahead of time, until it is fetched.
    ahead: Option<Result<(), LabError>>,
}

impl OnDevice {
    /// Puts `worlds` worlds on the best adapter there is, for rollouts of `steps` env steps. The states of the first
    /// `trailed` worlds are recorded. The worlds must be reset before the first rollout.
    ///
    /// # Errors
    /// No adapter, one that cannot hold this, or a robot that the shaders do not support.
    pub fn new(
        task: &Arc<Task>,
        policy: &Policy,
        worlds: usize,
        steps: usize,
        trailed: usize,
        seed: Seed,
        options: impl Into<BuildOptions>,
    ) -> Result<OnDevice, LabError> {
        let options = options.into();
        let checks = options.checks;
        let mut device = Device::open().map_err(EnvError::Device)?;
        let cached = place(&device, checks).and_then(|(folder, name)| read_shader_cache(&folder, &name));
        device.use_cache(cached.as_deref()).map_err(EnvError::Device)?;
        let env = DeviceEnv::new(&device, task.clone(), worlds, steps, trailed, options)?;
        let buffers = [env.rollout(), env.controls()];
        let actor = DeviceActor::new(&device, env.layout(), policy, task.model().ctrl_range(), buffers, seed, checks)
            .map_err(EnvError::Device)?;
        save_cache(&device, checks, cached);
        Ok(OnDevice { env, actor, device, checks, scorer: None, readback: DeviceRollout::default(), ahead: None })
    }

    /// Starts an episode in every world, with their ends spread over the horizon. A rollout that was collected ahead of
    /// time is discarded.
    ///
    /// # Errors
    /// Those of the device.
    pub fn begin(&mut self, seed: u64) -> Result<(), EnvError> {
        self.ahead = None;
        self.env.reset(seed, true)
    }

    /// Steps every world through one rollout of this policy while `work` runs, and stores the rollout for the next
    /// [`OnDevice::collect`]. Returns the result of `work` when both are done or `cancelled` returns true. `cancelled`
    /// is checked here now and then, and is passed to `work`. Neither result depends on how long the other takes.
    pub fn collect_beside<T>(
        &mut self,
        policy: &Policy,
        cancelled: &mut dyn FnMut() -> bool,
        work: impl FnOnce(&mut dyn FnMut() -> bool) -> T,
    ) -> T {
        let stop = &AtomicBool::new(false);
        let mut asked = || {
            let cancelled = cancelled();
            stop.fetch_or(cancelled, Ordering::Relaxed);
            cancelled
        };
        let device = &mut *self;
        let (worked, ahead) = std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            let collect = move || {
                // The receiver waits for this, or its thread has panicked.
                let _ = sender.send(device.bring(policy, Acting::Sampling, &mut || stop.load(Ordering::Relaxed)));
            };
            let begun = std::thread::Builder::new().name("rollout".to_owned()).spawn_scoped(scope, collect);
            let worked = work(&mut asked);
            if begun.is_err() {
                // If no thread could be started, the rollout is collected when it is fetched.
                return (worked, None);
            }
            loop {
                match receiver.recv_timeout(ASKED_EVERY) {
                    Err(RecvTimeoutError::Timeout) => drop(asked()),
                    done => return (worked, done.ok()),
                }
            }
        });
        self.ahead = ahead.filter(|done| !done.as_ref().is_err_and(LabError::is_cancelled));
        worked
    }

    /// Steps every world through one rollout of this policy and copies it into `rollout`, without values. If a rollout
    /// was collected ahead of time, that one is copied instead.
    ///
    /// # Errors
    /// Those of the device, and [`LabError::Cancelled`] if `cancelled`, which is checked now and then, returns true.
    pub fn collect(
        &mut self,
        policy: &Policy,
        acting: Acting,
        rollout: &mut Rollout,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<(), LabError> {
        match self.ahead.take() {
            Some(done) => done?,
            None => self.bring(policy, acting, cancelled)?,
        }
        let (layout, places) = (self.env.layout(), self.env.layout().places());
        let (samples, o) = (layout.steps * layout.worlds, layout.obs_dim);
        let part = |at: usize, numbers: usize| self.readback.part(at, numbers);
        rollout.clear();
        rollout.worlds = layout.worlds;
        rollout.steps = layout.steps;
        rollout.obs.extend_from_slice(part(places.obs, samples * o));
        rollout.actions.extend_from_slice(part(places.actions, samples * layout.act_dim));
        rollout.log_probs.extend_from_slice(part(places.log_probs, samples));
        rollout.rewards.extend_from_slice(part(places.rewards, samples));
        let mut ends = vec![0; layout.worlds];
        for (i, flags) in part(places.flags, samples).iter().enumerate() {
            let flags = *flags as u32;
            rollout.terminated.push(flags & 1 != 0);
            rollout.truncated.push(flags & 2 != 0);
            if flags & 2 != 0 {
                let world = i % layout.worlds;
                // The buffer holds a limited number of final observations. For further truncated episodes, the
                // observation before the end replaces the final one.
                let at = match flags & 8 {
                    0 => places.obs + i * o,
                    _ => places.finals + (ends[world] * layout.worlds + world) * o,
                };
                ends[world] += 1;
                rollout.final_obs.extend_from_slice(part(at, o));
            }
        }
        Ok(())
    }

    fn bring(&mut self, policy: &Policy, acting: Acting, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        self.actor.follow(policy, acting);
        match self.env.collect(&mut self.actor, &mut self.readback, cancelled)? {
            true => Ok(()),
            false => Err(LabError::Cancelled),
        }
    }

    /// A reward model's scores of the last rollout, which is still on the GPU; `None` if the model is too large for it.
    /// The model must have the same shape in every call.
    ///
    /// # Errors
    /// Those of the device.
    pub fn score(&mut self, reward: &RewardModel) -> Result<Option<Scores>, DeviceError> {
        let OnDevice { env, device, checks, scorer, .. } = self;
        if scorer.is_none() {
            let (cached, range) = (device.cached(), env.task().model().ctrl_range());
            *scorer = Some(DeviceScorer::new(device, env.layout(), reward, range, env.rollout(), *checks)?);
            save_cache(device, *checks, cached);
        }
        scorer.iter_mut().flatten().next().map(|scorer| scorer.score(reward)).transpose()
    }

    /// `[N, O]`: the observations after the last step.
    pub fn last_obs(&self) -> &[f32] {
        let layout = self.env.layout();
        self.readback.part(layout.places().now, layout.worlds * layout.obs_dim)
    }

    /// qpos and qvel of a world before a step of the last rollout, or after the last step if `step` is T. Only for
    /// worlds whose states are recorded.
    pub fn state(&self, step: usize, world: usize) -> (&[f32], &[f32]) {
        let layout = self.env.layout();
        let at = layout.places().trail + (step * layout.trailed + world) * layout.state_dim;
        self.readback.part(at, layout.state_dim).split_at(self.env.task().model().nq())
    }

    /// `[T, N]`: the teacher rewards of the last rollout, by which simulated teachers judge.
    pub fn teacher_rewards(&self) -> &[f32] {
        let layout = self.env.layout();
        self.readback.part(layout.places().teacher_rewards, layout.steps * layout.worlds)
    }
}

/// `[n, A]`: actions as the robot receives them, clipped to the range of its actuators.
pub(super) fn applied_actions<'a>(task: &'a Task, actions: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let range = task.model().ctrl_range().iter().cycle();
    actions.iter().zip(range).map(|(x, [low, high])| x.clamp(*low as f32, *high as f32))
}

/// Folder and file name for the driver's compiled shaders; `None` if they are not cached. Shaders with checks are for
/// tests, which leave no files behind.
fn place(device: &Device, checks: Checks) -> Option<(PathBuf, String)> {
    let folder = cache_folder().filter(|_| checks == Checks::Off).map(|folder| folder.join("shaders"));
    folder.zip(device.cache_name().map(str::to_owned))
}

/// Caches the driver's compiled shaders for the next run, if they differ from `cached`.
fn save_cache(device: &Device, checks: Checks, cached: Option<Vec<u8>>) {
    let compiled = device.cached().filter(|compiled| cached.as_ref() != Some(compiled));
    if let Some(((folder, name), compiled)) = place(device, checks).zip(compiled) {
        // Shaders that could not be cached are compiled again.
        if let Err(error) = write_shader_cache(&folder, &name, &compiled) {
            log::debug!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{PpoSettings, TaskSpec};
    use flipside_envs::gym::{Autoreset, VectorEnv};
    use flipside_envs::physics::ThreadsPerWorld::{self, One, Team};
    use flipside_envs::physics::{Precision, backend};
    use flipside_learn::Ppo;

    fn policy(task: &Task) -> Policy {
        Ppo::new(task.obs_dim(), task.act_dim(), PpoSettings::default(), Seed(5)).unwrap().policy()
    }

    fn scaled(a: &[f32], b: &[f32]) -> f64 {
        let errors = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs() / (1.0 + b.abs())));
        errors.fold(0.0, |most, x| if x <= most { most } else { x })
    }

    /// Given the same actions and states, the GPU agrees with the CPU's environment at every step: observation, reward,
    /// teacher reward and episode ends. Episodes terminate as well as truncate.
    fn agrees(name: &str, horizon: u32, steps: usize, threads: ThreadsPerWorld) {
        let mut task = Task::load(name).unwrap();
        if name == "hopper_backflip" {
            // This adds a term that is paid only under conditions, which no task file has.
            let text = concat!(
                include_str!("../../envs/hopper_backflip.toml"),
                include_str!("../../tests/data/choosy_teacher.toml")
            );
            task = Task::new(TaskSpec::parse(text, name, "choosy.toml").unwrap(), task.model().clone()).unwrap();
        }
        let task = Arc::new(task.with_horizon(horizon));
        let worlds = 40;
        let policy = policy(&task);
        let options = BuildOptions { checks: Checks::On, threads_per_world: Some(threads) };
        let mut device = OnDevice::new(&task, &policy, worlds, steps, worlds, Seed(3), options).unwrap();
        device.env.reset(3, false).unwrap();
        let mut rollout = Rollout::new(worlds);
        device.collect(&policy, Acting::Sampling, &mut rollout, &mut || false).unwrap();

        let lanes = backend("lanes", Precision::F32, task.model().clone(), worlds, Some(1)).unwrap();
        let mut env = VectorEnv::new(task.clone(), lanes, Autoreset::SameStep).unwrap();
        env.reset(0);
        let wide = |numbers: &[f32]| numbers.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (o, a) = (task.obs_dim(), task.act_dim());
        let mut fresh = vec![true; worlds];
        let (mut errors, mut ended, mut differ, mut finals) = (vec![], 0, 0, 0);
        for step in 0..steps {
            for world in (0..worlds).filter(|world| fresh[*world]) {
                let (qpos, qvel) = device.state(step, world);
                env.set_state(world, &wide(qpos), &wide(qvel)).unwrap();
            }
            let row = |world: usize| step * worlds + world;
            for world in 0..worlds {
                let (ours, theirs) = (&rollout.obs[row(world) * o..][..o], &env.last().obs[world * o..(world + 1) * o]);
                errors.push(scaled(ours, theirs));
            }
            let taken = env.step(&rollout.actions[step * worlds * a..][..worlds * a]).unwrap();
            for (world, begins) in fresh.iter_mut().enumerate() {
                let i = row(world);
                errors.push(scaled(&rollout.rewards[i..=i], &taken.reward[world..=world]));
                errors.push(scaled(&device.teacher_rewards()[i..=i], &taken.teacher_reward[world..=world]));
                let ends = (taken.terminated[world], taken.truncated[world]);
                differ += usize::from(ends != (rollout.terminated[i], rollout.truncated[i]));
                if rollout.truncated[i] {
                    if ends.1 {
                        errors.push(scaled(&rollout.final_obs[finals * o..][..o], &taken.final_obs[world * o..][..o]));
                    }
                    finals += 1;
                }
                // If the two drew different initial states or have drifted apart, the CPU's world is set to the GPU's
                // state.
                *begins = ends.0 || ends.1 || rollout.terminated[i] || rollout.truncated[i];
                ended += usize::from(*begins);
            }
        }
        errors.sort_by(f64::total_cmp);
        let beyond = errors.iter().filter(|error| error.is_nan() || **error > 1e-3).count();
        let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
        println!(
            "{name}: {beyond} of {} beyond, median {median:.0e}, worst {worst:.0e}; {ended} ended, {differ} ends differ",
            errors.len()
        );
        assert!(beyond * 100 <= errors.len() && differ * 100 <= ended, "{name}");
        assert!(ended > 0, "{name}: no episode ended");
    }

    macro_rules! agree {
        ($($name:ident $horizon:literal $steps:literal $threads:ident),* $(,)?) => {
            mod agrees_with_the_processor {
                $(#[test] fn $name() { super::agrees(stringify!($name), $horizon, $steps, super::$threads); })*
            }
        };
    }

    // Together these cover both ways to share a workgroup, frames, initial states drawn from boxes, forces of
    // constraints and contacts, inertias, teacher rewards, dot products and conditions.
    agree!(
        hopper 12 30 One,
        hopper_backflip 6 10 One,
        reacher 8 12 One,
        inverted_double_pendulum 6 10 One,
        pusher 4 6 One,
        ant 4 6 Team,
        humanoid 3 4 One,
    );

    /// Log-densities match the closed form for the actions drawn, the draws are standard normal, and the means are the
    /// network's.
    #[test]
    fn a_policy_on_the_device_is_the_processors() {
        let task = Arc::new(Task::load("inverted_pendulum").unwrap());
        let policy = policy(&task);
        let (worlds, steps) = (64, 32);
        let mut device = OnDevice::new(&task, &policy, worlds, steps, 0, Seed(3), Checks::On).unwrap();
        device.env.reset(3, true).unwrap();
        let mut rollout = Rollout::new(worlds);
        device.collect(&policy, Acting::Sampling, &mut rollout, &mut || false).unwrap();
        let n = worlds * steps;
        let mean = policy.act_mean(&rollout.obs, n);
        let std = policy.log_std()[0].exp();
        let z: Vec<f64> = rollout.actions.iter().zip(&mean).map(|(a, mean)| f64::from((a - mean) / std)).collect();
        let constant = f64::from(policy.log_std()[0]) + 0.5 * std::f64::consts::TAU.ln();
        for (z, ours) in z.iter().zip(&rollout.log_probs) {
            let exact = -0.5 * z * z - constant;
            assert!((f64::from(*ours) - exact).abs() < 1e-3 * (1.0 + exact.abs()), "{ours} {exact}");
        }
        let moment = |power: i32| z.iter().map(|z| z.powi(power)).sum::<f64>() / n as f64;
        let error = 5.0 / (n as f64).sqrt();
        assert!(moment(1).abs() < error && (moment(2) - 1.0).abs() < 1.5 * error, "{} {}", moment(1), moment(2));
        // The next rollout has different draws; repeating the same rollout gives the same ones.
        let first = rollout.clone();
        device.collect(&policy, Acting::Sampling, &mut rollout, &mut || false).unwrap();
        assert_ne!(first.actions, rollout.actions);
        let mut again = OnDevice::new(&task, &policy, worlds, steps, 0, Seed(3), Checks::On).unwrap();
        again.env.reset(3, true).unwrap();
        again.collect(&policy, Acting::Sampling, &mut rollout, &mut || false).unwrap();
        assert_eq!(first, rollout);
    }

    /// A rollout collected during some work equals the one collected without it, however long the work takes. A
    /// cancelled rollout is discarded.
    #[test]
    fn a_rollout_beside_work_is_the_one_without() {
        let task = Arc::new(Task::load("inverted_pendulum").unwrap());
        let policy = policy(&task);
        let fresh = || {
            let mut device = OnDevice::new(&task, &policy, 32, 16, 0, Seed(3), Checks::On).unwrap();
            device.begin(3).unwrap();
            (device, Rollout::new(32))
        };
        let beside = |work: fn(), cancel: bool| {
            let (mut device, mut rollout) = fresh();
            let mut all = vec![];
            for _ in 0..3 {
                device.collect(&policy, Acting::Sampling, &mut rollout, &mut || false).unwrap();
                all.push(rollout.clone());
                let worked = device.collect_beside(&policy, &mut || cancel, |cancelled| {
                    work();
                    cancelled()
                });
                assert_eq!(worked, cancel);
                assert_eq!(device.ahead.is_some(), !cancel);
            }
            all
        };
        let (mut device, mut rollout) = fresh();
        let mut alone = vec![];
        for _ in 0..3 {
            device.collect(&policy, Acting::Sampling, &mut rollout, &mut || false).unwrap();
            alone.push(rollout.clone());
        }
        assert_eq!(beside(|| (), false), alone);
        assert_eq!(beside(|| std::thread::sleep(Duration::from_millis(300)), false), alone);
        assert_eq!(beside(|| (), true).len(), 3);
        // A rollout that nobody fetched is discarded when new episodes begin.
        device.collect_beside(&policy, &mut || false, |_| ());
        device.begin(3).unwrap();
        assert!(device.ahead.is_none());
    }

    /// A fixed policy's mean returns on the GPU and on the CPU differ by less than their confidence interval allows;
    /// the two draw different initial states. It takes a thousand episodes, because a hundred would hide a difference
    /// of half a standard deviation. The confidence is 99.9 %, because the seed is one of many.
    #[test]
    fn returns_on_the_device_are_the_processors() {
        let task = Arc::new(Task::load("inverted_pendulum").unwrap().with_horizon(60));
        let policy = policy(&task);
        let worlds = 1000;
        let mut device = OnDevice::new(&task, &policy, worlds, 60, 0, Seed(3), Checks::On).unwrap();
        device.env.reset(3, false).unwrap();
        let mut rollout = Rollout::new(worlds);
        device.collect(&policy, Acting::Mean, &mut rollout, &mut || false).unwrap();
        let returned = |world: usize| {
            let (mut sum, mut i) = (0.0, world);
            loop {
                sum += f64::from(rollout.rewards[i]);
                if rollout.ended(i) {
                    return sum;
                }
                i += worlds;
            }
        };
        let ours: Vec<f64> = (0..worlds).map(returned).collect();
        let theirs = super::super::evaluate(&task, &policy, "lanes", worlds, 3).unwrap().returns;
        let statistics = |returns: &[f64]| {
            let n = returns.len() as f64;
            let mean = returns.iter().sum::<f64>() / n;
            (mean, (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt())
        };
        let ((a, error_a), (b, error_b)) = (statistics(&ours), statistics(&theirs));
        println!("device {a:.2} ± {error_a:.2}, processor {b:.2} ± {error_b:.2}");
        assert!((a - b).abs() < 3.29 * error_a.hypot(error_b), "{a} ± {error_a} against {b} ± {error_b}");
    }
}
