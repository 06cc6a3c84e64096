//! Measures how fast this machine is: physics alone, and all of PPO. There is no session and no disk.

use super::driver::Driver;
use super::on_device::OnDevice;
use super::opening::{control_of, load_task};
use super::trainer::Trainer;
use super::{LabError, SavedPolicy};
use crate::settings::{ControlRun, RewardSource, RunSettings};
use flipside_core::{ItemId, Seed, cores};
use flipside_envs::gym::{Autoreset, Space, Task, VectorEnv};
use flipside_envs::physics::{self, Backend, BuildOptions, Precision, ThreadsPerWorld};
use flipside_envs::tasks::Folders;
use flipside_gpu::Checks;
use flipside_learn::{Acting, Policy, Ppo, Rollout};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The task's name.
    pub task: String,
    /// The folders of a person's own tasks, which are searched before the bundled ones.
    pub task_folders: Folders,
    /// The physics backend's name.
    pub backend: String,
    /// The lanes backend's number type, for physics alone; training uses f32.
    pub precision: Precision,
    /// Physics threads; `None` for all cores.
    pub threads: Option<usize>,
    /// Threads that step one world, for physics on the backend `shader`; `None` uses what suits the robot and the
    /// adapter.
    pub threads_per_world: Option<ThreadsPerWorld>,
    /// Settings that replace those of the task's file, for PPO alone.
    pub overrides: toml::Table,
    /// Worlds in the batch; `None` for the default.
    pub worlds: Option<usize>,
    /// Time to measure, after a warm-up.
    pub duration: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// The task's name.
    pub task: String,
    /// The physics backend's name.
    pub backend: String,
    /// Env steps per second, summed over all worlds: the median of the measured windows.
    pub env_steps_per_s: f64,
    /// The slowest and the fastest window.
    pub range: [f64; 2],
    /// Seconds from the start to the end of the first step of the batch, including finding a device and compiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_step_s: Option<f64>,
    /// Env steps per second of whole rollouts that stay on a GPU: a policy that acts, physics, reward and resets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_steps_per_s: Option<f64>,
    /// Number of worlds that the next two values are about: those that are submitted together. That is less than the
    /// batch if a step of the batch takes long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_worlds: Option<usize>,
    /// Seconds of each kernel in one env step of these worlds, if the adapter has timestamps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_s: Option<BTreeMap<String, f64>>,
    /// Seconds of each stage of the physics in such an env step, measured as a kernel of its own. Their sum exceeds the
    /// time of the physics kernel, which does all stages at once, by the cost of starting the dispatches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<BTreeMap<String, f64>>,
    /// Threads that step one world on the GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_per_world: Option<usize>,
    /// Bytes of a world's workspace. It is in the device's memory if one thread steps the world, and in a workgroup's
    /// shared memory if a team of threads does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_bytes: Option<u64>,
    /// A rough estimate of what one env step of one world costs on the GPU: floating-point operations, and bytes of the
    /// device's memory. A device that computes P operations and moves B bytes per second makes at most min(P /
    /// operations, B / bytes) env steps per second. This is not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_operations_and_bytes: Option<[f64; 2]>,
    /// Worlds in the batch.
    pub worlds: usize,
    /// How far accelerations were from the optimum of the constraint problem, if the backend can tell.
    pub threads: usize,
    /// How far accelerations were from the optimum of the constraint problem, where the backend can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_residual: Option<f64>,
    /// The graphics adapter, if the physics runs on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The processor's name.
    pub device: String,
}

/// The measured time is divided into this many windows; their median is the result.
const WINDOWS: u32 = 5;

impl Plan {
    fn options(&self) -> BuildOptions {
        BuildOptions { checks: Checks::Off, threads_per_world: self.threads_per_world }
    }

    fn window(&self) -> Duration {
        self.duration / WINDOWS
    }
}

/// Env steps per second under uniformly random actions. This includes observation, reward and resets, but not the
/// choice of actions.
///
/// # Errors
///
/// An unknown task or backend.
pub fn physics(plan: &Plan) -> Result<Speed, LabError> {
    let task = Arc::new(Task::load_from(&plan.task_folders, &plan.task)?);
    let mut stream = Seed(0).stream("bench");
    let space: Space = task.action_space();
    physics_under(plan, &task, |_, worlds, actions| {
        actions.clear();
        for _ in 0..worlds {
            actions.extend(space.sample(&mut stream));
        }
    })
}

/// Like [`physics()`], but the policy of the session in `folder` acts, by its mean action. It runs on the session's
/// task with its terminations; [`Plan::task`] is not read.
///
/// # Errors
///
/// A folder without a session or a checkpoint, an unknown backend.
pub fn physics_of_session(plan: &Plan, folder: &Path) -> Result<Speed, LabError> {
    let saved = SavedPolicy::load(folder, &plan.task_folders)?;
    let policy: Policy = saved.policy;
    let task = Arc::new(load_task(&plan.task_folders, control_of(&saved.settings)?)?);
    let plan = Plan { task: saved.settings.task().to_owned(), ..plan.clone() };
    physics_under(&plan, &task, |obs, worlds, actions| *actions = policy.act_mean(obs, worlds))
}

/// Env steps per second under the actions that `choose` writes for the observations `[worlds, O]`.
fn physics_under(
    plan: &Plan,
    task: &Arc<Task>,
    mut choose: impl FnMut(&[f32], usize, &mut Vec<f32>),
) -> Result<Speed, LabError> {
    let worlds = plan.worlds.unwrap_or(64);
    let (began, mut first_step_s) = (Instant::now(), None);
    let model = task.model().clone();
    let backend: Box<dyn Backend> = match plan.threads_per_world {
        Some(_) => Box::new(physics::Shader::new(model, worlds, plan.options())?),
        None => physics::backend(&plan.backend, plan.precision, model, worlds, plan.threads)?,
    };
    let mut env = VectorEnv::new(task.clone(), backend, Autoreset::SameStep)?;
    let mut actions: Vec<f32> = Vec::with_capacity(worlds * task.act_dim());
    let mut obs = env.reset(0).to_vec();
    let speed = measure(plan, worlds, || {
        choose(&obs, worlds, &mut actions);
        let started = Instant::now();
        let step = env.step(&actions)?;
        let time = started.elapsed();
        first_step_s.get_or_insert(began.elapsed().as_secs_f64());
        obs.copy_from_slice(&step.obs);
        Ok(Round { env_steps: worlds as u64, time })
    })?;
    let adapter = env.backend().adapter().map(str::to_owned);
    let solver_residual = env.backend().solver_residual();
    let speed = Speed { solver_residual, adapter, first_step_s, ..speed };
    if plan.backend == physics::SHADER { rollouts(plan, task, speed) } else { Ok(speed) }
}

/// Adds the speed of rollouts on a GPU, under an untrained policy.
fn rollouts(plan: &Plan, task: &Arc<Task>, speed: Speed) -> Result<Speed, LabError> {
    const STEPS: usize = 16;
    let worlds = speed.worlds;
    // On a slow device the rollout is shorter, so that measuring takes about as long as was asked for.
    let batches = speed.env_steps_per_s * plan.window().as_secs_f64() / worlds as f64;
    let steps = (batches as usize).clamp(1, STEPS);
    let policy = Ppo::new(task.obs_dim(), task.act_dim(), task.spec().ppo(), Seed(0))?.policy();
    let mut device = OnDevice::new(task, &policy, worlds, steps, 0, Seed(0), plan.options())?;
    device.env.reset(0, true)?;
    let mut rollout = Rollout::new(worlds);
    let made = measure(plan, worlds, || {
        let started = Instant::now();
        device.collect(&policy, Acting::Sampling, &mut rollout, &mut || false)?;
        Ok(Round { env_steps: (worlds * steps) as u64, time: started.elapsed() })
    })?;
    let kernel_s = device.env.times(&mut device.actor)?.map(|times| times.into_iter().collect());
    let stages = device.env.stage_times(&mut device.actor)?.map(|times| times.into_iter().collect());
    Ok(Speed {
        rollout_steps_per_s: Some(made.env_steps_per_s),
        kernel_worlds: Some(device.env.at_once()),
        kernel_s,
        stages,
        threads_per_world: Some(device.env.threads_per_world().count()),
        workspace_bytes: Some(device.env.workspace()),
        estimated_operations_and_bytes: Some(device.env.work()),
        ..speed
    })
}

/// Env steps per second of PPO on the task's own reward, including collecting and learning.
///
/// # Errors
///
/// An unknown task or backend, or training that fails.
pub fn ppo(plan: &Plan) -> Result<Speed, LabError> {
    let settings = RunSettings {
        env_steps: u64::MAX / 2,
        task_folders: plan.task_folders.clone(),
        ..RunSettings::of_control(ControlRun {
            reward: RewardSource::True,
            backend: plan.backend.clone(),
            overrides: plan.overrides.clone(),
            ..ControlRun::of(&plan.task)
        })
    };
    let trainer = Trainer::new(&settings, super::task_of(&settings)?, ItemId(1), plan.worlds, plan.threads)?;
    let worlds = trainer.worlds();
    let mut driver = Driver::new(Box::new(trainer), &settings);
    measure(plan, worlds, || {
        let (started, before) = (Instant::now(), driver.training.learner.env_steps());
        // Nobody is asked, so the time does not matter.
        driver.step(&|| Duration::ZERO, &mut || false)?;
        Ok(Round { env_steps: driver.training.learner.env_steps() - before, time: started.elapsed() })
    })
}

/// A number of env steps and the time that they took.
struct Round {
    env_steps: u64,
    time: Duration,
}

/// Runs `round` for one window of warm-up and then for the plan's time.
fn measure(plan: &Plan, worlds: usize, mut round: impl FnMut() -> Result<Round, LabError>) -> Result<Speed, LabError> {
    let window = plan.window();
    let mut rates = Vec::new();
    for _ in 0..=WINDOWS {
        let (mut steps, mut time) = (0, Duration::ZERO);
        while time < window {
            let done = round()?;
            steps += done.env_steps;
            time += done.time;
        }
        rates.push(steps as f64 / time.as_secs_f64());
    }
    // The first window warms up caches and threads.
    rates.remove(0);
    rates.sort_by(f64::total_cmp);
    Ok(Speed {
        task: plan.task.clone(),
        backend: plan.backend.clone(),
        env_steps_per_s: rates[rates.len() / 2],
        range: [rates[0], rates[rates.len() - 1]],
        worlds,
        threads: plan.threads.unwrap_or_else(cores),
        solver_residual: None,
        adapter: None,
        first_step_s: None,
        rollout_steps_per_s: None,
        kernel_worlds: None,
        kernel_s: None,
        stages: None,
        threads_per_world: None,
        workspace_bytes: None,
        estimated_operations_and_bytes: None,
        device: processor(),
    })
}

/// The vector instruction sets that this processor has, widest last.
pub fn instruction_sets() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("SSE4.2", is_x86_feature_detected!("sse4.2")),
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&str, bool); 0] = [];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// The processor's name and cores, to report with a figure.
pub fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let name = brand().unwrap_or_else(|| "x86-64".to_owned());
    #[cfg(not(target_arch = "x86_64"))]
    let name = std::env::consts::ARCH.to_owned();
    format!("{name}, {} cores", cores())
}

/// The processor's own name, from the CPUID brand leaves 0x8000_0002 to 0x8000_0004.
#[cfg(target_arch = "x86_64")]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return None;
    }
    let mut bytes = Vec::with_capacity(48);
    for leaf in 0x8000_0002..=0x8000_0004_u32 {
        let r = __cpuid(leaf);
        for word in [r.eax, r.ebx, r.ecx, r.edx] {
            bytes.extend(word.to_le_bytes());
        }
    }
    let name = String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ']).to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_counts_the_time_of_the_rounds_alone_and_is_their_median() {
        let plan = Plan {
            task: "hopper".to_owned(),
            task_folders: Folders::default(),
            backend: "lanes".to_owned(),
            precision: Precision::F32,
            threads: Some(1),
            threads_per_world: None,
            overrides: toml::Table::new(),
            worlds: None,
            duration: Duration::from_secs(50),
        };
        // Each round claims to have taken ten seconds, so each fills a window; the first is the warm-up.
        let mut env_steps = [1, 100, 500, 300, 200, 400].into_iter();
        let started = Instant::now();
        let speed =
            measure(&plan, 7, || Ok(Round { env_steps: env_steps.next().unwrap(), time: Duration::from_secs(10) }))
                .unwrap();
        assert_eq!((speed.env_steps_per_s, speed.range), (30.0, [10.0, 50.0]));
        assert_eq!((speed.worlds, speed.threads, env_steps.next()), (7, 1, None));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
