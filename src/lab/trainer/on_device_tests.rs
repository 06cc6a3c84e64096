//! Tests of the trainer with worlds and policy on a GPU.

use super::tests::answer;
use super::*;
use crate::settings::{ControlRun, ExploreSettings, PpoSettings, TeacherKind};
use toml::Spanned;

/// The largest difference between the rollout's stored log-densities and those under `policy`.
fn gap(trainer: &Trainer, policy: &Policy) -> f32 {
    let Rollout { obs, actions, log_probs, .. } = &trainer.rollout;
    let (means, log_std) = (policy.act_mean(obs, log_probs.len()), policy.log_std());
    let a = log_std.len();
    let density = |i: usize| {
        let each = (0..a).map(|k| {
            let z = (actions[i * a + k] - means[i * a + k]) / log_std[k].exp();
            -0.5 * z * z - log_std[k] - 0.5 * std::f32::consts::TAU.ln()
        });
        each.sum::<f32>()
    };
    log_probs.iter().enumerate().map(|(i, stored)| (density(i) - stored).abs()).fold(0.0, f32::max)
}

/// With `overlap`, the GPU collects the next rollout while the policy learns from the last one. One seed gives one run,
/// however long each part takes. A policy collects the rollout after the next, except that a new policy collects its
/// own.
#[test]
fn rollouts_ahead_of_learning_are_repeatable() {
    let settings = RunSettings {
        ..RunSettings::of_control(ControlRun {
            backend: physics::SHADER.to_owned(),
            ..ControlRun::of("inverted_pendulum")
        })
    };
    let loaded = super::super::task_of(&settings).unwrap();
    let mut spec = loaded.spec().clone();
    let ppo = PpoSettings { overlap: true, ..spec.ppo() };
    let settings = RunSettings { env_steps: 6 * 8 * ppo.num_steps as u64, ..settings };
    spec.ppo = Some(Spanned::new(0..0, ppo));
    spec.explore =
        ExploreSettings { policy_resets: 1, last_reset: 0.5, env_steps: u64::MAX, share: 1.0, ..spec.explore };
    let task = Arc::new(Task::new(spec, loaded.model().clone()).unwrap());
    let run = |slow: bool| {
        let mut trainer = Trainer::new(&settings, task.clone(), ItemId(0), Some(8), Some(1)).unwrap();
        let mut slowly = || {
            if slow {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            false
        };
        let mut policies = vec![trainer.policy()];
        while !trainer.finished() {
            trainer.collect(&mut slowly).unwrap();
            let n = policies.len() - 1;
            // The first rollout of each of the two policies is collected by that policy itself.
            let acted = if n == 0 || n == 3 { n } else { n - 1 };
            let gaps: Vec<f32> = policies.iter().map(|policy| gap(&trainer, policy)).collect();
            assert!(gaps[acted] < 1e-3, "rollout {n}: {gaps:?}");
            assert!(acted == n || gaps[n] > 1e-3, "rollout {n}: {gaps:?}");
            trainer.learn(&[], &mut slowly).unwrap();
            policies.push(trainer.policy());
        }
        assert_eq!(trainer.take_warning().as_deref(), Some(BEGINS_AGAIN));
        assert!(trainer.device.is_some());
        trainer.to_arrays()
    };
    assert!(run(false) == run(true), "two runs of one seed differ");
}

/// The rewards computed on the GPU are those of the reward model, and a run that loses the GPU computes them itself. A
/// rollout collected during a fit is the current policy's.
#[test]
fn rewards_from_a_device_are_the_models() {
    let settings = RunSettings {
        env_steps: 100_000,
        teacher: TeacherKind::Oracle,
        ..RunSettings::of_control(ControlRun {
            backend: physics::SHADER.to_owned(),
            ..ControlRun::of("inverted_pendulum")
        })
    };
    let mut trainer =
        Trainer::new(&settings, super::super::task_of(&settings).unwrap(), ItemId(0), Some(16), Some(1)).unwrap();
    let mut labels = Vec::<Label>::new();
    while !trainer.has_reward() {
        trainer.collect(&mut || false).unwrap();
        assert_eq!(trainer.scores(), None);
        answer(&mut trainer, &mut labels, 5);
        trainer.learn(&labels, &mut || false).unwrap();
    }
    let present = trainer.policy();
    trainer.collect(&mut || false).unwrap();
    assert!(gap(&trainer, &present) < 1e-3, "{}", gap(&trainer, &present));
    let reward = |trainer: &Trainer| {
        let samples = trainer.rollout.samples();
        trainer.preference_learner.as_ref().unwrap().reward().rewards(
            &trainer.rollout.obs,
            &trainer.applied_actions,
            samples,
        )
    };
    let (ours, wanted) = (trainer.scores().unwrap().rewards, reward(&trainer));
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs()));
    assert!(ours.len() == wanted.len() && close(&ours, &wanted));
    trainer.learn(&labels, &mut || false).unwrap();
    assert!(close(&trainer.rollout.rewards, &wanted), "the policy was paid otherwise");

    trainer.lose_device(&DeviceError::Lost { adapter: "a card".to_owned(), why: "it was pulled out".to_owned() });
    assert!(trainer.take_warning().unwrap().contains("goes on"));
    trainer.collect(&mut || false).unwrap();
    assert_eq!(trainer.scores(), None);
    let wanted = reward(&trainer);
    trainer.learn(&labels, &mut || false).unwrap();
    assert_eq!(trainer.rollout.rewards, wanted);
}
