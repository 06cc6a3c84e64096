//! Learns two tasks whose optimum is known analytically, and checks what [`Ppo`] promises about gradients, failure and
//! resumption.

use super::*;
use crate::Transition;
use crate::gradient::{Part, Tape};
use rand::RngExt;
use std::time::Instant;

/// A point on a line that should go to the origin: x ← x + 0.1·clip(a, ±1), reward −x², 20 steps from x₀ uniform in ±1.
/// Never terminates; every 20th step truncates.
struct Line {
    x: Vec<f32>,
    age: usize,
    stream: Stream,
}

impl Line {
    const WORLDS: usize = 16;
    const HORIZON: usize = 20;

    fn new(seed: u64) -> Line {
        let mut line = Line { x: Vec::new(), age: 0, stream: Seed(seed).stream("line") };
        line.reset();
        line
    }

    fn reset(&mut self) {
        self.age = 0;
        self.x = (0..Line::WORLDS).map(|_| self.stream.random_range(-1.0..1.0)).collect();
    }

    fn step(x: f32, action: f32) -> (f32, f32) {
        let x = x + 0.1 * action.clamp(-1.0, 1.0);
        (x, -x * x)
    }

    fn collect(&mut self, ppo: &mut Ppo) -> Rollout {
        let mut rollout = Rollout::new(Line::WORLDS);
        for _ in 0..ppo.settings().num_steps {
            let obs = self.x.clone();
            let actions = ppo.act(&obs, Line::WORLDS);
            let (next, rewards): (Vec<f32>, Vec<f32>) =
                obs.iter().zip(&actions.actions).map(|(&x, &a)| Line::step(x, a)).unzip();
            self.x.clone_from(&next);
            self.age += 1;
            let over = self.age == Line::HORIZON;
            if over {
                self.reset();
            }
            let transition = Transition {
                rewards: &rewards,
                terminated: &[false; Line::WORLDS],
                truncated: &[over; Line::WORLDS],
                final_obs: &next,
            };
            rollout.record(&obs, &actions, transition);
        }
        ppo.close(&mut rollout, &self.x);
        rollout
    }

    /// Mean return from 21 even starts.
    fn evaluate(act: impl Fn(f32) -> f32) -> f32 {
        let starts = (-10..=10).map(|i| i as f32 / 10.0);
        let run = |mut x: f32| -> f32 {
            let mut step = || {
                let (next, reward) = Line::step(x, act(x));
                x = next;
                reward
            };
            (0..Line::HORIZON).map(|_| step()).sum()
        };
        starts.map(run).sum::<f32>() / 21.0
    }
}

fn small() -> PpoSettings {
    PpoSettings {
        num_envs: Line::WORLDS,
        num_steps: 40,
        minibatch_size: 160,
        learning_rate: 1e-3,
        ..PpoSettings::default()
    }
}

fn learner(settings: PpoSettings) -> Ppo {
    Ppo::new(1, 1, settings, Seed(1)).unwrap()
}

fn never() -> bool {
    false
}

#[test]
fn learns_to_hold_a_point_at_the_origin() {
    let started = Instant::now();
    let best = Line::evaluate(|x| -10.0 * x);
    let idle = Line::evaluate(|_| 0.0);
    for seed in 0..3 {
        let mut ppo = Ppo::new(1, 1, small(), Seed(seed)).unwrap();
        let mut line = Line::new(seed);
        let mut last = UpdateStats::default();
        for _ in 0..40 {
            let rollout = line.collect(&mut ppo);
            last = ppo.update(&rollout, &mut never).unwrap();
        }
        let reached = Line::evaluate(|x| ppo.act_mean(&[x], 1)[0]);
        assert!(reached > best + 0.05 * (idle - best), "seed {seed}: {reached}, best {best}, idle {idle}");
        assert!(last.explained_variance > 0.7, "{last:?}");
    }
    eprintln!("three seeds in {:.1} s", started.elapsed().as_secs_f64());
}

/// A contextual bandit: reward −‖a − a*(c)‖² with a* = (c, −c/2); each step is an episode that terminates. The entropy
/// bonus β holds σ open: maximising E[reward] + β·H gives −2σ² + β = 0 in each dimension, up to the divisor of the
/// rewards.
#[test]
fn finds_the_best_arm_of_a_gaussian_bandit() {
    for seed in 0..3 {
        let settings = PpoSettings {
            num_steps: 16,
            minibatch_size: 256,
            learning_rate: 1e-3,
            normalise_obs: false,
            final_learning_rate: 0.05,
            ..PpoSettings::default()
        };
        let worlds = settings.num_envs;
        let updates = 60;
        let mut ppo = Ppo::new(1, 2, settings, Seed(seed)).unwrap();
        ppo.plan((updates * worlds * 16) as u64);
        let mut stream = Seed(seed).stream("contexts");
        for _ in 0..updates {
            let mut rollout = Rollout::new(worlds);
            for _ in 0..16 {
                let contexts: Vec<f32> = (0..worlds).map(|_| stream.random_range(-1.0..1.0)).collect();
                let actions = ppo.act(&contexts, worlds);
                let reward = |(c, a): (&f32, &[f32])| -(a[0] - c).powi(2) - (a[1] + c / 2.0).powi(2);
                let rewards: Vec<f32> = contexts.iter().zip(actions.actions.chunks(2)).map(reward).collect();
                let transition = Transition {
                    rewards: &rewards,
                    terminated: &vec![true; worlds],
                    truncated: &vec![false; worlds],
                    final_obs: &contexts,
                };
                rollout.record(&contexts, &actions, transition);
            }
            ppo.close(&mut rollout, &vec![0.0; worlds]);
            ppo.update(&rollout, &mut never).unwrap();
        }
        for c in [-0.8, -0.3, 0.0, 0.5, 0.9] {
            let a = ppo.act_mean(&[c], 1);
            assert!((a[0] - c).abs() < 0.1 && (a[1] + c / 2.0).abs() < 0.1, "seed {seed}: {c} → {a:?}");
        }
        assert!(ppo.policy().log_std().iter().all(|&l| l < -0.5), "{:?}", ppo.policy().log_std());
    }
}

#[test]
fn the_first_minibatch_sees_the_policy_that_acted() {
    let mut ppo = learner(small());
    let mut line = Line::new(1);
    for _ in 0..5 {
        let rollout = line.collect(&mut ppo);
        ppo.normalise(&rollout.obs);
        let network = &ppo.state.actor.network;
        let objective = Loss::Policy(ClippedPolicy {
            actions: &rollout.actions,
            old_log_probs: &rollout.log_probs,
            advantages: &rollout.rewards,
            clip: 1e-5,
        });
        let order: Vec<u32> = (0..rollout.samples() as u32).collect();
        let mut tape = Tape::new(network.layout());
        tape.take(network, &network.dense(), &objective, Part { obs: &ppo.obs, samples: &order, weight: 1.0 });
        assert_eq!(tape.sums.clipped, 0.0, "a log-ratio is above 1e-5");
        ppo.update(&rollout, &mut never).unwrap();
    }
}

/// Any number of threads works, including more than there are parts.
#[test]
fn the_bits_do_not_depend_on_the_threads() {
    // Minibatches of 320 rows are cut into two parts. The KL stop frees the actor's thread early.
    let settings = PpoSettings { minibatch_size: 320, learning_rate: 0.01, target_kl: 0.01, ..small() };
    let train = |threads: usize| {
        let mut ppo = learner(settings.clone());
        ppo.threads = threads;
        let mut line = Line::new(1);
        let mut update = || {
            let rollout = line.collect(&mut ppo);
            ppo.update(&rollout, &mut never).unwrap()
        };
        let stats = [update(), update(), update()];
        assert!(stats.iter().any(|s| s.epochs < 10), "{stats:?}");
        (ppo.to_arrays(), stats)
    };
    let alone = train(1);
    for threads in [2, 3, 7] {
        assert_eq!(train(threads), alone, "{threads} threads");
    }
}

#[test]
fn a_loaded_learner_goes_on_bit_for_bit() {
    let mut line = Line::new(2);
    let mut ppo = learner(small());
    ppo.plan(10 * 640);
    let train = |ppo: &mut Ppo, line: &mut Line, updates: usize| {
        for _ in 0..updates {
            let rollout = line.collect(ppo);
            ppo.update(&rollout, &mut never).unwrap();
        }
    };
    train(&mut ppo, &mut line, 3);
    let saved = ppo.to_arrays();
    let mut line_too = Line { x: line.x.clone(), age: line.age, stream: line.stream.clone() };
    train(&mut ppo, &mut line, 3);

    let mut other = Ppo::new(1, 1, small(), Seed(77)).unwrap();
    other.load_arrays(&saved).unwrap();
    assert_eq!(other.to_arrays(), saved);
    train(&mut other, &mut line_too, 3);
    assert_eq!(other.to_arrays(), ppo.to_arrays());
    assert_ne!(other.to_arrays(), saved);
    assert_eq!(other.act(&[0.5], 1), ppo.act(&[0.5], 1));
    assert_eq!(Policy::from_arrays(&ppo.to_arrays()).unwrap(), ppo.policy());
    assert_eq!(Policy::from_arrays(&ppo.policy().to_arrays()).unwrap(), ppo.policy());

    // A state that does not fit is refused as a whole.
    let before = other.to_arrays();
    let mut wrong = saved.clone();
    wrong.insert("progress".to_owned(), Array::f32(&[2], vec![0.0; 2]));
    assert_eq!(other.load_arrays(&wrong).unwrap_err().to_string(), "the saved array `progress` is f32, not u64");
    wrong = saved;
    wrong.insert("critic.1.weight".to_owned(), Array::f32(&[2, 2], vec![0.0; 4]));
    let error = other.load_arrays(&wrong).unwrap_err().to_string();
    assert_eq!(error, "the saved array `critic.1.weight` is of shape [2, 2] and 4 numbers, not [64, 64]");
    assert_eq!(other.to_arrays(), before);
}

#[test]
fn failures_name_their_cause_and_leave_the_learner_as_it_was() {
    let check = |settings: PpoSettings, break_it: fn(&mut Rollout), wanted: &str| {
        let mut ppo = learner(settings);
        let mut rollout = Line::new(3).collect(&mut ppo);
        break_it(&mut rollout);
        let before = ppo.to_arrays();
        let error = ppo.update(&rollout, &mut never).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(ppo.to_arrays(), before, "{wanted}");
        assert!(ppo.act(&[0.1], 1).actions[0].is_finite());
    };
    check(small(), |r| r.rewards[2 * 16 + 5] = f32::NAN, "a reward of the rollout at step 2 in world 5 is not finite");
    check(small(), |r| r.obs[7] = f32::INFINITY, "an observation of the rollout at step 0 in world 7");
    check(small(), |r| r.values.truncate(639), "the rollout's values: expected 640, got 639");
    // The step is so long that the next loss, or already a parameter, is not finite.
    check(PpoSettings { learning_rate: 1e38, target_kl: 0.0, ..small() }, |_| (), "is not finite");
    // Finite samples whose square is not finite: only the critic fails.
    check(
        PpoSettings { scale_rewards: false, ..small() },
        |r| r.rewards[0] = 3e38,
        "the value loss in epoch 1 is not finite",
    );
    // Only the actor fails.
    check(small(), |r| r.log_probs.fill(-3e38), "the policy's KL in epoch 1 is not finite");
}

#[test]
fn a_cancelled_update_has_not_happened() {
    let mut ppo = learner(small());
    // Alone, the calling thread leads every minibatch and checks for cancellation before each. Beside other threads it
    // may be too late to stop anything.
    ppo.threads = 1;
    let mut line = Line::new(4);
    let rollout = line.collect(&mut ppo);
    let before = ppo.to_arrays();
    for allowed in [0, 1, 7, 39] {
        let mut asked = 0;
        let result = ppo.update(&rollout, &mut || {
            asked += 1;
            asked > allowed
        });
        assert!(matches!(result, Err(LearnError::Cancelled)), "{result:?}");
        assert_eq!(ppo.to_arrays(), before);
    }
    let mut whole = learner(small());
    whole.load_arrays(&before).unwrap();
    whole.update(&rollout, &mut never).unwrap();
    ppo.update(&rollout, &mut never).unwrap();
    assert_eq!(ppo.to_arrays(), whole.to_arrays());
}

#[test]
fn the_kl_stop_ends_the_actors_epochs_alone() {
    let settings = PpoSettings { learning_rate: 0.01, target_kl: 0.01, ..small() };
    let mut ppo = learner(settings.clone());
    let rollout = Line::new(5).collect(&mut ppo);
    let stats = ppo.update(&rollout, &mut never).unwrap();
    assert!(stats.epochs < settings.update_epochs && stats.approx_kl <= 0.015, "{stats:?}");
    assert_eq!(ppo.state.critic.adam.steps(), 40);
    assert!(ppo.state.actor.adam.steps() < 40);
    // Without it all epochs run.
    let mut free = learner(PpoSettings { target_kl: 0.0, ..settings });
    assert_eq!(free.update(&rollout, &mut never).unwrap().epochs, 10);
}

/// The point on a line needs no noise, so σ falls as far as it can.
#[test]
fn sigma_falls_to_its_floor_and_no_further() {
    let log_std_after = |least_log_std: f64| {
        let mut ppo = learner(PpoSettings { min_log_std: least_log_std, ..small() });
        let mut line = Line::new(6);
        for _ in 0..30 {
            let rollout = line.collect(&mut ppo);
            ppo.update(&rollout, &mut never).unwrap();
        }
        f64::from(ppo.state.actor.network.free()[0])
    };
    let free = log_std_after(PpoSettings::default().min_log_std);
    assert!(free < -0.1, "{free}");
    assert!((log_std_after(-0.05) + 0.05).abs() < 1e-6);
}

#[test]
fn the_learning_rate_falls_to_its_floor_over_the_plan() {
    let mut ppo = learner(PpoSettings { learning_rate: 1e-3, final_learning_rate: 0.2, ..small() });
    let mut line = Line::new(6);
    ppo.plan(4 * 640);
    let mut rates = Vec::new();
    for _ in 0..6 {
        let rollout = line.collect(&mut ppo);
        rates.push(ppo.update(&rollout, &mut never).unwrap().learning_rate);
    }
    let expected = [1e-3, 0.8e-3, 0.6e-3, 0.4e-3, 0.2e-3, 0.2e-3];
    assert!(rates.iter().zip(expected).all(|(r, e)| (r - e).abs() < 1e-12), "{rates:?}");
}

#[test]
fn observing_moves_the_normaliser_alone() {
    let mut ppo = learner(small());
    let rollout = Line::new(8).collect(&mut ppo);
    let before = ppo.to_arrays();
    ppo.observe(&rollout).unwrap();
    assert_eq!(changed(&before, &ppo), ["obs_count", "obs_m2", "obs_mean", "obs_var", "progress"]);
    let n = rollout.obs.len() as f64;
    let mean = rollout.obs.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let var = rollout.obs.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    assert!((ppo.state.obs_norm.mean()[0] - mean).abs() < 1e-9 && (ppo.state.obs_norm.var()[0] - var).abs() < 1e-9);
}

fn changed(before: &Arrays, ppo: &Ppo) -> Vec<String> {
    ppo.to_arrays().into_iter().filter(|(name, array)| before[name] != *array).map(|(name, _)| name).collect()
}

#[test]
fn refitting_moves_the_critic_alone_to_the_new_reward() {
    let mut ppo = learner(PpoSettings { refit_epochs: 40, ..small() });
    let mut line = Line::new(7);
    let mut rollout = line.collect(&mut ppo);
    for _ in 0..10 {
        ppo.update(&rollout, &mut never).unwrap();
        rollout = line.collect(&mut ppo);
    }
    // The opposite task: being far from the origin is good.
    rollout.rewards.iter_mut().for_each(|r| *r = 5.0 - *r);
    let before = ppo.to_arrays();
    let [worse, better] = ppo.refit_critic(&rollout, &mut never).unwrap();
    assert!(better < 0.2 * worse, "{worse} → {better}");
    let changed = changed(&before, &ppo);
    assert!(changed.iter().all(|n| n.contains("critic") || n.starts_with("reward_scale")), "{changed:?}");
}
