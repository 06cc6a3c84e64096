//! Tests of online DPO: the optimum that it moves towards, what equal scores do, and resuming.

use super::super::super::tiny::Tiny;
use super::super::tests::{Table, Task, go_on, optimiser};
use super::*;
use flipside_core::settings::OptimiserSettings;
use rand::RngExt;

/// How often token 3 occurs in a completion.
fn threes(episodes: &[Episode]) -> Vec<f32> {
    episodes.iter().map(|e| e.completion.iter().filter(|&&t| t == 3).count() as f32).collect()
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1], vec![2, 3, 4, 5], vec![3, 3], vec![4, 1, 2], vec![5]]
}

fn trainer(group_size: usize, loss: PreferenceLoss) -> TextOnlineDpo<Tiny> {
    let policy = Tiny::new(8, 16, 1);
    let reference = Reference::Model(policy.copy());
    let settings = TextOnlineDpoSettings { group_size, max_new_tokens: 5, ..TextOnlineDpoSettings::default() };
    let loss = TextPreferenceSettings {
        loss,
        batch_size: 8,
        gradient_accumulation_steps: 2,
        optimiser: optimiser(1e-2),
        ..TextPreferenceSettings::default()
    };
    TextOnlineDpo::new(policy, reference, &[0], &settings, &loss, Seed(5)).unwrap()
}

fn update(trainer: &mut TextOnlineDpo<Tiny>) -> TextOnlineDpoStats {
    trainer.update(&prompts(), &mut |episodes, _| Ok(threes(episodes)), &mut go_on).unwrap().1
}

/// How far a policy is from π_ref · exp(r/(dβ))/Z, the optimum of reward − dβ KL, after `updates` updates by a judge
/// that prefers a completion with probability σ((r − r')/d). A Gumbel draw of scale d on each reward is such a judge.
fn distance_to_the_optimum(length: u32, seed: u64, updates: u64) -> [f64; 2] {
    let (task, d, beta) = (Task::new(length, seed), 0.5, 0.5);
    let optimiser = OptimiserSettings { adam_eps: 1e-12, max_grad_norm: 0.0, ..optimiser(0.05) };
    let loss = TextPreferenceSettings { batch_size: 256, beta: Some(beta), optimiser, ..Default::default() };
    let settings = TextOnlineDpoSettings { max_new_tokens: length as usize, ..TextOnlineDpoSettings::default() };
    let [policy, reference] = [0, 1].map(|_| Table::new(length, seed));
    let mut trainer =
        TextOnlineDpo::new(policy, Reference::Model(reference), &[], &settings, &loss, Seed(seed)).unwrap();
    trainer.plan(updates);
    let mut noise = Seed(seed).stream("judge");
    for _ in 0..updates {
        let mut judge = |episodes: &[Episode], _: ProgressFn| {
            let gumbel = || -(-noise.random::<f64>().ln()).ln();
            let draws: Vec<f64> = std::iter::repeat_with(gumbel).take(episodes.len()).collect();
            let score = |(e, draw): (&Episode, f64)| (task.reward(&e.completion) + d * draw) as f32;
            Ok(episodes.iter().zip(draws).map(score).collect())
        };
        trainer.update(&[vec![0]], &mut judge, &mut go_on).unwrap();
    }
    let optimum = task.optimum(d * beta);
    [trainer.policy(), &Table::new(length, seed)].map(|policy| task.total_variation(policy, &optimum))
}

#[test]
fn a_judge_by_bradley_and_terry_leads_to_the_optimum_of_ppo() {
    let [reached, start] = distance_to_the_optimum(2, 1, 400);
    assert!(reached <= 0.05 && start > 0.3, "{reached} {start}");
}

#[test]
#[ignore = "ten seeds, minutes"]
fn a_judge_by_bradley_and_terry_leads_to_the_optimum_of_ppo_on_every_seed() {
    let found: Vec<f64> = (0..10).map(|seed| distance_to_the_optimum(2, seed, 400)[0]).collect();
    println!("{found:.4?}");
    assert!(found.iter().all(|&distance| distance <= 0.05), "{found:.4?}");
}

/// With two completions of a prompt and with four, and with losses that have a reference and that have none.
#[test]
fn the_reward_rises_under_a_judge_that_does_not_err() {
    for (group_size, loss) in [(2, PreferenceLoss::Sigmoid), (4, PreferenceLoss::Ipo), (4, PreferenceLoss::Simpo)] {
        let mut trainer = trainer(group_size, loss);
        let first = update(&mut trainer);
        assert!(first.kl.abs() < 1e-5 && first.pairs > 0, "{loss:?}: {first:?}");
        assert_eq!(first.ties, 1.0 - first.pairs as f64 / 8.0);
        let stats: Vec<TextOnlineDpoStats> = (0..60).map(|_| update(&mut trainer)).collect();
        let mean = |of: &dyn Fn(&TextOnlineDpoStats) -> f64, part: &[TextOnlineDpoStats]| {
            part.iter().map(of).sum::<f64>() / part.len() as f64
        };
        let [early, late] = [&stats[..10], &stats[50..]].map(|part| mean(&|s| s.reward, part));
        assert!(late > early + 0.5, "{loss:?}: {early} {late}");
        assert!(mean(&|s| s.kl, &stats[50..]) > 0.1, "{loss:?}: {:?}", stats[59]);
    }
}

#[test]
fn equal_scores_are_no_wins() {
    let mut trainer = trainer(2, PreferenceLoss::Sigmoid);
    let before = trainer.trainer.to_arrays();
    let mut same = |episodes: &[Episode], _: ProgressFn| Ok(vec![Some(1e6); episodes.len()]);
    let (episodes, stats) = trainer.update(&prompts(), &mut same, &mut go_on).unwrap();
    assert_eq!((episodes.len(), stats.pairs, stats.ties, stats.reward), (16, 0, 1.0, 1e6));
    assert_eq!((trainer.trainer.to_arrays(), trainer.updates()), (before, 1));
    // A completion without a score makes no pair, either. The first prompt is judged: its second completion is better.
    let mut one = |episodes: &[Episode], _: ProgressFn| {
        let score = |i: usize| [Some(0.0), Some(1.0)].get(i).copied().flatten();
        Ok((0..episodes.len()).map(|i| if i == 3 { Some(2.0) } else { score(i) }).collect::<Vec<Option<f32>>>())
    };
    let (episodes, stats) = trainer.update(&prompts(), &mut one, &mut go_on).unwrap();
    assert_eq!((stats.pairs, stats.ties, stats.reward), (1, 7.0 / 8.0, 1.0));
    let chosen: f64 = episodes[1].log_probs.iter().map(|&l| f64::from(l)).sum();
    assert!((stats.preference.chosen_log_prob.unwrap() - chosen).abs() < 1e-4, "{stats:?}");
    assert!((stats.preference.loss - 2_f64.ln()).abs() < 1e-5 && stats.preference.grad_norm > 0.0, "{stats:?}");
    // A missing end has a price: the completion that ended is better than the one that scores a little more.
    let episode = |completion: &[u32], stopped| Episode {
        completion: completion.to_vec(),
        stopped,
        reference_log_probs: vec![-1.0; completion.len()],
        ..episodes[0].clone()
    };
    let group = [episode(&[1, 2, 0], true), episode(&[1, 2, 3, 3, 3], false)];
    let scores = [Some(1.0), Some(1.5)];
    trainer.settings.missing_eos_penalty = 1.0;
    let (pair, reference) = trainer.pair(&group, &scores).unwrap();
    assert_eq!((pair.left, pair.target, reference), (vec![1, 2, 0], 1.0, [-3.0, -5.0]));
    assert_eq!(trainer.pair(&[group[0].clone(), group[0].clone()], &scores), None);
}

#[test]
fn goes_on_bit_for_bit_and_undoes_what_failed() {
    let mut undisturbed = trainer(2, PreferenceLoss::Sigmoid);
    undisturbed.plan(20);
    (0..3).for_each(|_| assert!(update(&mut undisturbed).preference.loss > 0.0));
    let saved = undisturbed.to_arrays();
    for place in 0.. {
        let mut checked = 0;
        let mut on_progress = |_| {
            checked += 1;
            checked == place + 1
        };
        let done = undisturbed.update(&prompts(), &mut |episodes, _| Ok(threes(episodes)), &mut on_progress);
        match done {
            Ok(_) => {
                assert!(place > 6, "completions, log-probabilities and gradients are cancelled: {place}");
                break;
            }
            Err(error) => assert!(matches!(error, LearnError::Cancelled), "{error}"),
        }
        assert_eq!(undisturbed.to_arrays(), saved);
    }
    let mut broken = |_: &[Episode], _: ProgressFn| -> Result<Vec<f32>, LearnError> { Err(LearnError::Cancelled) };
    let after = undisturbed.to_arrays();
    assert!(undisturbed.update(&prompts(), &mut broken, &mut go_on).is_err());
    assert_eq!(undisturbed.to_arrays(), after);
    let mut resumed = trainer(2, PreferenceLoss::Sigmoid);
    for name in saved.keys() {
        let mut broken = saved.clone();
        broken.remove(name);
        let before = resumed.to_arrays();
        let error = resumed.load_arrays(&broken).expect_err(name).to_string();
        assert!(error.contains(name.as_str()), "{error}");
        assert_eq!(resumed.to_arrays(), before);
    }
    resumed.load_arrays(&saved).unwrap();
    update(&mut resumed);
    (0..3).for_each(|_| assert_eq!(update(&mut undisturbed), update(&mut resumed)));
    assert_eq!((undisturbed.to_arrays(), undisturbed.updates()), (resumed.to_arrays(), 7));
}

/// The answers of a teacher are learned from by the same trainer, and what cannot be is refused by its name.
#[test]
fn answers_of_a_teacher_are_learned_from() {
    let mut trainer = trainer(2, PreferenceLoss::Sigmoid);
    let pair = |target| TextComparison { prompt: vec![1], left: vec![3, 0], right: vec![2, 0], target, margin: 0.0 };
    let pairs = [pair(1.0), pair(1.0), pair(0.5)];
    let mut step = || trainer.step(&pairs, &mut go_on).unwrap().unwrap();
    let first = step();
    assert!((first.loss - 2_f64.ln()).abs() < 1e-6 && first.log_ratio == Some(0.0), "{first:?}");
    (0..20).for_each(|_| assert!(step().grad_norm > 0.0));
    assert!(step().margin > 0.0);
    let before = trainer.trainer.to_arrays();
    assert_eq!(trainer.step(&[], &mut go_on).unwrap(), None);
    assert_eq!((trainer.trainer.to_arrays(), trainer.updates()), (before, 23));
    for (loss, words) in [
        (TextPreferenceSettings { loss: PreferenceLoss::Kto, ..Default::default() }, "kto"),
        (TextPreferenceSettings { precompute_ref_log_probs: true, ..Default::default() }, "precompute_ref_log_probs"),
    ] {
        let (policy, reference) = (Tiny::new(8, 16, 1), Reference::Model(Tiny::new(8, 16, 1)));
        let refused = TextOnlineDpo::new(policy, reference, &[0], &TextOnlineDpoSettings::default(), &loss, Seed(1));
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
