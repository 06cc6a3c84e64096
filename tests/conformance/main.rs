//! Asks of every task in `envs/` what Gymnasium's `check_env` and its vector tests ask, holds observation, reward and termination against
//! numbers that Gymnasium itself computed, and shows what a wrong task file is told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod files;
mod scripted;

use flipside_core::{Seed, Stream};
use flipside_envs::gym::{Autoreset, Env, EnvError, Space, State, Task, VectorEnv, rollout_from};
use flipside_envs::physics::{self, Backend, Precision, Quantity};
use flipside_envs::tasks::{self, TaskSpec};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;

/// A task, and the name of a backend that runs it.
type Subject = (Task, &'static str);

/// The backends that need no graphics device. `src/physics/shader/tests.rs` holds the third against the first of them: here a software driver
/// would compile a shader a task.
const ON_THE_PROCESSOR: [&str; 2] = ["lanes", "rapier"];

/// Every task there is on every backend of the processor that runs it.
fn subjects() -> Vec<Subject> {
    let entries = tasks::Folders::default().list();
    assert!(entries.len() >= 11, "{entries:?}");
    let tasks = entries.iter().map(|entry| Task::load(&entry.name).unwrap_or_else(|e| panic!("{e}")));
    let pairs = tasks.flat_map(|task| ON_THE_PROCESSOR.map(|name| (task.clone(), name)));
    pairs.filter(|(task, physics)| !refused(task, physics)).collect()
}

/// What rapier does not compute: forces of limits, inertias and velocities about the centre of mass, fluids.
fn refused(task: &Task, physics: &str) -> bool {
    let beyond = ["inverted_double_pendulum", "humanoid", "humanoid_standup", "swimmer"];
    physics == "rapier" && beyond.contains(&task.name())
}

/// The same task, cut after so many steps.
fn cut_at(task: &Task, horizon: u32) -> Task {
    let spec = TaskSpec { horizon: Spanned::new(0..0, horizon), ..task.spec().clone() };
    Task::new(spec, task.model().clone()).unwrap()
}

fn backend(task: &Task, physics: &str, worlds: usize, threads: usize) -> Box<dyn Backend> {
    physics::backend(physics, Precision::F32, task.model().clone(), worlds, Some(threads)).unwrap()
}

fn batch(task: &Task, physics: &str, worlds: usize, threads: usize, mode: Autoreset) -> VectorEnv {
    VectorEnv::new(Arc::new(task.clone()), backend(task, physics, worlds, threads), mode).unwrap()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Gymnasium's `check_env`: the values of reset and step are what the spaces promise.
#[test]
fn values_lie_in_their_spaces() {
    for (task, physics) in subjects() {
        let (actions, observations) = (task.action_space(), task.observation_space());
        let mut stream = Seed(1).stream("actions");
        let mut env = Env::new(Arc::new(task.clone()), backend(&task, physics, 1, 1)).unwrap();
        assert!(observations.contains(env.reset(Some(1))), "{}", task.name());
        let mut reset = false;
        for _ in 0..200 {
            if std::mem::take(&mut reset) {
                assert!(observations.contains(env.reset(None)), "{}", task.name());
            }
            let action = actions.sample(&mut stream);
            assert!(actions.contains(&action));
            let step = env.step(&action).unwrap();
            assert!(observations.contains(step.obs), "{}: {:?}", task.name(), step.obs);
            assert_eq!(step.terms.len(), task.term_names().len());
            let sum: f32 = step.terms.iter().sum();
            assert!(step.reward.is_finite() && (step.reward - sum).abs() < 1e-4, "{}", task.name());
            reset = step.terminated || step.truncated;
        }
    }
}

/// The sizes that Gymnasium's documentation gives: observation, action, bound of the action, seconds and steps.
#[test]
fn spaces_have_gymnasiums_sizes() {
    for (name, obs, act, bound, dt, horizon) in [
        ("InvertedPendulum-v5", 4, 1, 3.0, 0.04, 1000),
        ("InvertedDoublePendulum-v5", 9, 1, 1.0, 0.05, 1000),
        ("Reacher-v5", 10, 2, 1.0, 0.02, 50),
        ("Pusher-v5", 23, 7, 2.0, 0.05, 100),
        ("Swimmer-v5", 8, 2, 1.0, 0.04, 1000),
        ("Hopper-v5", 11, 3, 1.0, 0.008, 1000),
        ("HalfCheetah-v5", 17, 6, 1.0, 0.05, 1000),
        ("Walker2d-v5", 17, 6, 1.0, 0.008, 1000),
        ("Ant-v5", 105, 8, 1.0, 0.05, 1000),
        ("Humanoid-v5", 348, 17, 0.4, 0.015, 1000),
        ("HumanoidStandup-v5", 348, 17, 0.4, 0.015, 1000),
    ] {
        let task = Task::load(name).unwrap();
        assert_eq!((task.obs_dim(), task.act_dim(), task.horizon()), (obs, act, horizon), "{name}");
        assert_eq!(
            task.action_space(),
            Space::Box { low: vec![-bound; act], high: vec![bound; act], shape: vec![act] },
            "{name}"
        );
        assert!((task.dt() - dt).abs() < 1e-12, "{name}: {}", task.dt());
    }
}

/// A backend that cannot run a task says so, in one of two places: the robot is beyond it, or what the task reads is.
#[test]
fn what_a_backend_cannot_run_is_refused() {
    for entry in tasks::Folders::default().list() {
        let task = Task::load(&entry.name).unwrap();
        for name in ON_THE_PROCESSOR {
            let made =
                physics::backend(name, Precision::F32, task.model().clone(), 1, Some(1)).map_err(|e| e.to_string());
            let env = made.and_then(|b| Env::new(Arc::new(task.clone()), b).map_err(|e| e.to_string()));
            match (env, refused(&task, name)) {
                (Ok(_), false) => {}
                (Err(message), true) => assert!(message.contains("rapier"), "{message}"),
                (Ok(_), true) => panic!("{name} runs {} after all", task.name()),
                (Err(message), false) => panic!("{}: {message}", task.name()),
            }
        }
    }
}

/// Gymnasium's `check_reset_seed_determinism` and `check_step_determinism`, to the bit.
#[test]
fn the_same_seed_gives_the_same_bits() {
    for (task, physics) in subjects() {
        let mut env = Env::new(Arc::new(task.clone()), backend(&task, physics, 1, 1)).unwrap();
        let mut run = |seed: u64| {
            let mut stream = Seed(9).stream("actions");
            let mut seen = vec![bits(env.reset(Some(seed)))];
            for _ in 0..10 {
                let step = env.step(&task.action_space().sample(&mut stream)).unwrap();
                seen.push(bits(step.obs));
                seen.push(bits(step.terms));
                if step.terminated || step.truncated {
                    break;
                }
            }
            seen.push(bits(env.reset(None)));
            seen
        };
        let (first, other, again) = (run(123), run(456), run(123));
        assert_eq!(first, again, "{}", task.name());
        assert_ne!(first[0], other[0], "{}: another seed must begin elsewhere", task.name());
        assert_ne!(first[0], first[first.len() - 1], "{}: the next episode must begin elsewhere", task.name());
    }
}

/// One world's life as a learner sees it, without rows that are no transition.
#[derive(Debug, PartialEq)]
struct Transition {
    obs: Vec<u32>,
    reward: u32,
    terminated: bool,
    truncated: bool,
    next_obs: Vec<u32>,
}

/// The first `wanted` transitions of each world; actions depend on the world, its episode and its step alone.
fn transitions(env: &mut VectorEnv, seed: u64, first_world: usize, wanted: usize) -> Vec<Vec<Transition>> {
    let (task, worlds) = (env.task().clone(), env.worlds());
    let (o, space) = (task.obs_dim(), task.action_space());
    let mut lives: Vec<Vec<Transition>> = (0..worlds).map(|_| Vec::new()).collect();
    let mut streams: Vec<Stream> = (0..worlds).map(|w| Seed(77).world(first_world + w).stream("actions")).collect();
    let mut obs = env.reset(seed).to_vec();
    let mut resets = vec![false; worlds];
    while lives.iter().any(|life| life.len() < wanted) {
        if resets.contains(&true) {
            obs = env.reset_worlds(&resets, None).unwrap().to_vec();
        }
        // A row that will be a reset takes no action from the stream, so that the modes see the same actions.
        let waiting = env.waiting().to_vec();
        let mut actions = Vec::new();
        for (stream, waits) in streams.iter_mut().zip(&waiting) {
            actions.extend(if *waits { vec![0.0; task.act_dim()] } else { space.sample(stream) });
        }
        let disabled = env.mode() == Autoreset::Disabled;
        let step = env.step(&actions).unwrap();
        for w in 0..worlds {
            let row = w * o..(w + 1) * o;
            assert_eq!(step.was_reset[w], waiting[w]);
            let done = step.terminated[w] || step.truncated[w];
            assert!(!(step.terminated[w] && step.truncated[w]));
            resets[w] = disabled && done;
            if step.was_reset[w] {
                assert!(!done && step.reward[w] == 0.0);
                continue;
            }
            let next = if done { &step.final_obs[row.clone()] } else { &step.obs[row.clone()] };
            lives[w].push(Transition {
                obs: bits(&obs[row]),
                reward: step.reward[w].to_bits(),
                terminated: step.terminated[w],
                truncated: step.truncated[w],
                next_obs: bits(next),
            });
        }
        obs.copy_from_slice(&step.obs);
    }
    lives.iter_mut().for_each(|life| life.truncate(wanted));
    lives
}

/// The three modes differ in when a world is reset, never in what a learner sees between resets.
#[test]
fn all_autoreset_modes_tell_the_same_story() {
    for (task, physics) in subjects() {
        let task = cut_at(&task, 30);
        let story = |mode| transitions(&mut batch(&task, physics, 3, 2, mode), 5, 0, 80);
        let same_step = story(Autoreset::SameStep);
        assert!(same_step.iter().all(|life| life.iter().any(|t| t.terminated || t.truncated)), "{}", task.name());
        assert!(same_step == story(Autoreset::NextStep), "{} on {physics}", task.name());
        assert!(same_step == story(Autoreset::Disabled), "{} on {physics}", task.name());
        // A transition begins where the last one ended, unless that one ended the episode.
        for life in &same_step {
            for pair in life.windows(2) {
                let ended = pair[0].terminated || pair[0].truncated;
                assert_eq!(ended, pair[0].next_obs != pair[1].obs, "{}", task.name());
            }
        }
    }
}

/// A world's numbers depend on its own seed and actions alone.
#[test]
fn batch_size_and_threads_change_no_bit() {
    for (task, physics) in subjects() {
        let task = cut_at(&task, 25);
        let run = |worlds, threads, first: usize| {
            transitions(&mut batch(&task, physics, worlds, threads, Autoreset::SameStep), 40 + first as u64, first, 40)
        };
        let eight = run(8, 2, 0);
        // Not assert_eq, which would print every number of either.
        assert!(eight == run(8, 1, 0), "{} on {physics}: threads", task.name());
        assert!(eight[..3] == run(3, 2, 0)[..], "{} on {physics}: batch size", task.name());
        assert!(eight[5..6] == run(1, 1, 5)[..], "{} on {physics}: world 5 alone", task.name());
    }
}

/// Truncation comes exactly at the horizon and never with termination; the books of an episode agree with its steps.
#[test]
fn episodes_end_and_are_booked() {
    for (task, physics) in subjects() {
        let mut terminated = 0;
        for task in [cut_at(&task, 60), cut_at(&task, 60).fixed_horizon()] {
            let (worlds, o) = (4, task.obs_dim());
            let mut env = batch(&task, physics, worlds, 2, Autoreset::SameStep);
            let mut stream = Seed(2).stream("actions");
            env.reset(11);
            let (mut length, mut total) = (vec![0_u32; worlds], vec![0.0_f64; worlds]);
            for _ in 0..130 {
                let actions: Vec<f32> = (0..worlds).flat_map(|_| task.action_space().sample(&mut stream)).collect();
                let step = env.step(&actions).unwrap();
                let mut ended = Vec::new();
                for w in 0..worlds {
                    length[w] += 1;
                    total[w] += f64::from(step.reward[w]);
                    assert_eq!(step.truncated[w], !step.terminated[w] && length[w] == 60, "{}", task.name());
                    assert!(task.terminates() || !step.terminated[w], "{}", task.name());
                    if step.terminated[w] || step.truncated[w] {
                        terminated += u32::from(step.terminated[w]);
                        let row = w * o..(w + 1) * o;
                        assert_ne!(step.final_obs[row.clone()], step.obs[row], "{}: a new episode begins", task.name());
                        ended.push((w, std::mem::take(&mut length[w]), std::mem::take(&mut total[w])));
                    }
                }
                let booked: Vec<_> = step.episodes.iter().map(|e| (e.world, e.length)).collect();
                assert_eq!(booked, ended.iter().map(|e| (e.0, e.1)).collect::<Vec<_>>(), "{}", task.name());
                for (episode, (_, _, total)) in step.episodes.iter().zip(&ended) {
                    assert!((episode.total_reward - total).abs() < 1e-3, "{}: {episode:?}, {total}", task.name());
                }
            }
        }
        // At random these fall within sixty steps; the ant seldom does, and the rest never end.
        let falls = ["hopper", "walker2d", "inverted_pendulum", "inverted_double_pendulum", "humanoid"];
        let falls = falls.contains(&task.name());
        assert!(!falls || terminated > 0, "{} never fell", task.name());
    }
}

/// In preference mode nothing ends early, and the alive bonus goes step by step with health.
#[test]
fn a_fixed_horizon_pays_the_alive_bonus_only_while_healthy() {
    let task = cut_at(&Task::load("hopper").unwrap(), 400).fixed_horizon();
    let alive = task.term_names().position(|name| name == "reward_survive").unwrap();
    let mut env = batch(&task, physics::BACKENDS[0], 1, 1, Autoreset::SameStep);
    env.reset(0);
    let mut paid = [0, 0];
    for t in 1..=400 {
        let step = env.step(&[0.0; 3]).unwrap();
        assert_eq!((step.terminated[0], step.truncated[0]), (false, t == 400));
        let obs = if t == 400 { &step.final_obs } else { &step.obs };
        let healthy = obs[0] > 0.7 && obs[1].abs() < 0.2 && obs[1..5].iter().all(|x| x.abs() < 100.0);
        // With no torque it stands at first, then falls; the bonus is 1 or nothing.
        assert_eq!(step.terms[alive], f32::from(u8::from(healthy)), "step {t}: {obs:?}");
        paid[usize::from(healthy)] += 1;
    }
    assert!(paid[0] > 20 && paid[1] > 20, "{paid:?}");
}

/// What cannot be done is refused by type, before anything moves.
#[test]
fn misuse_is_refused() {
    let task = cut_at(&Task::load("inverted_pendulum").unwrap(), 2);
    let mut env = batch(&task, physics::BACKENDS[0], 2, 1, Autoreset::Disabled);
    assert_eq!(env.step(&[0.0; 2]), Err(EnvError::NotReset));
    assert_eq!(env.reset_worlds(&[true, false], Some(0)), Err(EnvError::NotReset));
    let before = env.reset(0).to_vec();
    assert!(matches!(env.step(&[0.0; 3]), Err(EnvError::Length { expected: 2, got: 3, .. })));
    assert!(matches!(env.step(&[]), Err(EnvError::Length { expected: 2, got: 0, .. })));
    assert_eq!(env.step(&[0.0, f32::NAN]), Err(EnvError::NotANumber { world: 1 }));
    assert_eq!(env.last().obs, before);
    assert!(env.step(&[0.0; 2]).is_ok());
    assert_eq!(env.step(&[0.0; 2]).unwrap().truncated, [true, true]);
    assert_eq!(env.step(&[0.0; 2]), Err(EnvError::EpisodeOver { world: 0 }));
    assert!(matches!(env.reset_worlds(&[true], None), Err(EnvError::Length { expected: 2, got: 1, .. })));
    assert_eq!(env.reset_worlds(&[false, false], None), Err(EnvError::EmptyMask));
    assert!(env.reset_worlds(&[true, false], None).is_ok());
    assert_eq!(env.step(&[0.0; 2]), Err(EnvError::EpisodeOver { world: 1 }));
    assert!(env.reset_worlds(&[false, true], None).is_ok());
    // Beyond the range is clipped, as the actuators would.
    assert_eq!(env.step(&[100.0, f32::NEG_INFINITY]).unwrap().actions, [3.0, -3.0]);
    let hopper = Task::load("hopper").unwrap();
    let other = VectorEnv::new(Arc::new(hopper), backend(&task, physics::BACKENDS[0], 1, 1), Autoreset::SameStep);
    assert!(matches!(other, Err(EnvError::OtherRobot { .. })));
}

/// Reset noise has the task's distribution: bounds for the uniform, the second moment for both, within five standard errors.
#[test]
fn episodes_begin_around_the_initial_state() {
    // Of each task: half width of the uniform qpos noise; then standard deviation of the qvel noise.
    let uniform = |half: f64| half / 3.0_f64.sqrt();
    let cases = [("hopper", 5e-3, uniform(5e-3)), ("half_cheetah", 0.1, 0.1), ("walker2d", 5e-3, uniform(5e-3))];
    let cases = cases.into_iter().chain([("inverted_pendulum", 0.01, uniform(0.01))]);
    let cases = cases.chain([("inverted_double_pendulum", 0.1, 0.1), ("swimmer", 0.1, uniform(0.1))]);
    for (name, half, qvel_sigma) in cases {
        let task = Task::load(name).unwrap();
        let model = task.model();
        let (mut qpos, mut qvel) = (vec![0.0; model.nq()], vec![0.0; model.nv()]);
        let mut stream = Seed(0).stream("reset");
        let (mut squares, draws) = ([0.0; 2], 4000);
        for _ in 0..draws {
            task.draw(&mut stream, &mut qpos, &mut qvel);
            let noise = qpos.iter().zip(model.qpos0()).map(|(q, q0)| q - q0);
            assert!(noise.clone().all(|x| x.abs() <= half), "{name}");
            squares[0] += noise.map(|x| x * x).sum::<f64>();
            squares[1] += qvel.iter().map(|x| x * x).sum::<f64>();
        }
        for (sum, (n, sigma)) in squares.iter().zip([(model.nq(), uniform(half)), (model.nv(), qvel_sigma)]) {
            let count = (draws * n) as f64;
            let ratio = sum / count / (sigma * sigma);
            // The square of a normal number has a relative standard deviation of √2, that of a uniform one less.
            assert!(
                (ratio - 1.0).abs() < 5.0 * (2.0 / count).sqrt(),
                "{name}: variance is {ratio} of what it should be"
            );
        }
    }
    let ant = Task::load("ant").unwrap();
    let (mut qpos, mut qvel) = (vec![0.0; ant.model().nq()], vec![0.0; ant.model().nv()]);
    ant.draw(&mut Seed(0).stream("reset"), &mut qpos, &mut qvel);
    let norm: f64 = qpos[3..7].iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-12 && qpos[4..7].iter().any(|&x| x != 0.0), "{qpos:?}");
}

/// Reacher's target and Pusher's puck are drawn as in Gymnasium, and what they are drawn for rests.
#[test]
fn things_begin_where_gymnasium_puts_them() {
    let mut stream = Seed(0).stream("reset");
    let draws = 4000;
    // Uniform in a disc of radius 0.2: half of the targets lie within 0.2 / √2.
    let reacher = Task::load("reacher").unwrap();
    let (mut qpos, mut qvel, mut near) = ([0.0; 4], [0.0; 4], 0);
    for _ in 0..draws {
        reacher.draw(&mut stream, &mut qpos, &mut qvel);
        let distance = qpos[2].hypot(qpos[3]);
        assert!(distance < 0.2 && qvel[2..] == [0.0; 2], "{qpos:?} {qvel:?}");
        assert!(qpos[..2].iter().all(|q| q.abs() <= 0.1) && qvel[..2].iter().all(|v| v.abs() <= 0.005));
        near += u32::from(distance < 0.1 * 2.0_f64.sqrt());
    }
    let share = f64::from(near) / f64::from(draws);
    assert!((share - 0.5).abs() < 5.0 * (0.25 / f64::from(draws)).sqrt(), "{share} of the targets are near");
    // Uniform in a box, but not within 0.17 of the goal. Further than 0.17 to the back all is allowed: 0.4 × 0.13 of 0.12 − π 0.17² / 2.
    let pusher = Task::load("pusher").unwrap();
    let (mut qpos, mut qvel, mut back) = ([0.0; 11], [0.0; 11], 0);
    for _ in 0..draws {
        pusher.draw(&mut stream, &mut qpos, &mut qvel);
        let [y, x] = [qpos[7], qpos[8]];
        assert!((-0.3..=0.0).contains(&y) && (-0.2..=0.2).contains(&x) && y.hypot(x) > 0.17, "{qpos:?}");
        assert!(qpos[..7] == [0.0; 7] && qpos[9..] == [0.0; 2] && qvel[7..] == [0.0; 4], "{qpos:?} {qvel:?}");
        assert!(qvel[..7].iter().all(|v| v.abs() <= 0.005 && *v != 0.0), "{qvel:?}");
        back += u32::from(y < -0.17);
    }
    let (share, expected) =
        (f64::from(back) / f64::from(draws), 0.052 / (0.12 - std::f64::consts::PI * 0.17_f64.powi(2) / 2.0));
    assert!((share - expected).abs() < 5.0 * (0.25 / f64::from(draws)).sqrt(), "{share}, and {expected} is right");
}

/// Arrays of `tests/data/gymnasium.npz`, by name; each is rows of equal width.
fn gymnasium() -> BTreeMap<String, Vec<Vec<f64>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gymnasium.npz");
    let mut file = npyz::npz::NpzArchive::open(path).unwrap();
    let names: Vec<String> = file.array_names().map(str::to_owned).collect();
    names
        .into_iter()
        .map(|name| {
            let array = file.by_name(&name).unwrap().unwrap();
            let width = array.shape()[1] as usize;
            let numbers: Vec<f64> = array.into_vec().unwrap();
            (name, numbers.chunks(width).map(<[f64]>::to_vec).collect())
        })
        .collect()
}

/// Observation, reward and termination of MuJoCo's states, as Gymnasium computed them (tests/data/make_gymnasium.py).
#[test]
fn formulas_are_gymnasiums() {
    let data = gymnasium();
    // A task of our own has no other to be held to.
    for entry in tasks::Folders::default().list().into_iter().filter(|entry| entry.gymnasium.is_some()) {
        let task = Task::load(&entry.name).unwrap();
        let (name, nu, k) = (task.name(), task.model().nu(), task.term_names().len());
        let row = |key: &str, i: usize| &data[&format!("{name}.{key}")][i][..];
        // What the task does not read is not in the file, and reading it anyhow panics.
        let derived = |quantity: Quantity, i: usize| match task.needs().contains(&quantity) {
            true => row(quantity.name(), i),
            false => &[],
        };
        let rows = data[&format!("{name}.qpos")].len();
        let mut ended = 0;
        for i in 0..rows {
            let mut before = vec![0.0; k];
            let frames = if task.needs().contains(&Quantity::Frames) { row("frames_before", i) } else { &[] };
            let zeros = vec![0.0; 10 * task.model().nbody()];
            task.remember(
                &State {
                    qpos: row("qpos", i),
                    qvel: row("qvel", i),
                    action: &zeros[..nu],
                    frames,
                    cinert: &zeros,
                    cvel: &zeros,
                    forces: &zeros,
                    actuator: &zeros,
                    constraint: &zeros,
                },
                &mut before,
            );
            let state = State {
                qpos: row("next_qpos", i),
                qvel: row("next_qvel", i),
                action: row("ctrl", i),
                frames: derived(Quantity::Frames, i),
                cinert: derived(Quantity::Cinert, i),
                cvel: derived(Quantity::Cvel, i),
                forces: derived(Quantity::CfrcExt, i),
                actuator: derived(Quantity::QfrcActuator, i),
                constraint: derived(Quantity::QfrcConstraint, i),
            };
            let mut obs = vec![0.0; task.obs_dim()];
            task.observe(&state, &mut obs);
            assert_eq!(obs.len(), row("obs", i).len(), "{name}");
            for (j, (ours, theirs)) in obs.iter().zip(row("obs", i)).enumerate() {
                // All but sines and cosines are handed on as they are.
                assert!((ours - theirs).abs() < 1e-15, "{name}, row {i}: obs[{j}] is {ours}, Gymnasium has {theirs}");
            }
            let healthy = task.healthy(&state);
            let terminated = row("terminated", i)[0] == 1.0;
            assert_eq!(task.terminates() && !healthy, terminated, "{name}, row {i}");
            ended += usize::from(terminated);
            let reward = task.reward(&before, &state, healthy, &mut vec![0.0; k]);
            let expected = row("reward", i)[0];
            // Gymnasium sums the squares of its f32 actions in single precision.
            let squares: f64 = row("ctrl", i).iter().map(|u| u * u).sum();
            let tolerance = 1e-12 * (1.0 + expected.abs()) + 2e-7 * squares;
            assert!((reward - expected).abs() < tolerance, "{name}, row {i}: {reward}, Gymnasium has {expected}");
        }
        assert_eq!(ended * 2, if task.spec().healthy.is_empty() { 0 } else { rows }, "{name}");
    }
}

/// The `rollout` command's trajectories are those of the environment.
#[test]
fn a_rollout_repeats_the_environment() {
    for (task, physics) in subjects() {
        let task = task.fixed_horizon();
        let (n, t, o, a) = (5, 12, task.obs_dim(), task.act_dim());
        let mut env = batch(&task, physics, n, 2, Autoreset::SameStep);
        env.reset(3);
        let (qpos, qvel) = (env.backend().qpos().to_vec(), env.backend().qvel().to_vec());
        let mut stream = Seed(8).stream("actions");
        let mut ctrl = vec![0.0; n * t * a];
        let (mut obs, mut reward) = (vec![0.0; n * t * o], vec![0.0; n * t]);
        for step in 0..t {
            let actions: Vec<f32> = (0..n).flat_map(|_| task.action_space().sample(&mut stream)).collect();
            let out = env.step(&actions).unwrap();
            for w in 0..n {
                let at = w * t + step;
                (0..a).for_each(|j| ctrl[at * a + j] = f64::from(actions[w * a + j]));
                obs[at * o..(at + 1) * o].copy_from_slice(&out.obs[w * o..(w + 1) * o]);
                reward[at] = out.reward[w];
            }
        }
        // Two worlds for five trajectories: three turns, the last one half empty.
        let out = rollout_from(&task, &mut *backend(&task, physics, 2, 1), &qpos, &qvel, &ctrl).unwrap();
        assert_eq!((out.trajectories, out.steps), (n, t));
        assert!(out.obs.iter().zip(&obs).all(|(&x, y)| x as f32 == *y), "{} on {physics}", task.name());
        assert!(out.reward.iter().zip(&reward).all(|(&x, y)| x as f32 == *y), "{} on {physics}", task.name());
        let short = rollout_from(&task, &mut *backend(&task, physics, 2, 1), &qpos, &qvel[1..], &ctrl);
        assert!(matches!(short, Err(EnvError::Length { what: "joint velocities", .. })));
    }
}

/// A saved batch goes on with the same states, books and streams.
#[test]
fn a_saved_batch_goes_on() {
    let task = cut_at(&Task::load("hopper").unwrap(), 40);
    let mut env = batch(&task, physics::BACKENDS[0], 2, 1, Autoreset::SameStep);
    env.reset(6);
    let actions = [0.3; 6];
    for _ in 0..35 {
        env.step(&actions).unwrap();
    }
    let mut other = batch(&task, physics::BACKENDS[0], 2, 1, Autoreset::SameStep);
    assert_eq!(other.load_arrays(&env.to_arrays()).unwrap(), env.last().obs);
    assert_eq!(other.to_arrays(), env.to_arrays());
    // The episodes that begin after both have ended begin alike.
    for _ in 0..6 {
        env.step(&actions).unwrap();
        other.step(&actions).unwrap();
    }
    assert_eq!(other.to_arrays()["streams"], env.to_arrays()["streams"]);
    assert_eq!(other.to_arrays()["length"], env.to_arrays()["length"]);
    let mut broken = env.to_arrays();
    broken.remove("streams");
    assert!(matches!(other.load_arrays(&broken), Err(EnvError::Saved(_))));
}
