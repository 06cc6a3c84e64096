//! Tests of supervised training and reward models on a small model.

use super::tiny::Tiny;
use super::*;
use flipside_core::settings::{OptimiserSettings, SupervisedSettings, TextRewardSettings};
use flipside_core::{Choice, Seed};
use flipside_learn::LearnError;
use rand::RngExt;

fn go_on(_: Progress) -> bool {
    false
}

fn optimiser(learning_rate: f64) -> OptimiserSettings {
    OptimiserSettings { learning_rate, ..OptimiserSettings::default() }
}

/// Texts of a Markov chain over 6 tokens, and its entropy, nats per token. The next token is the last one plus 1 (three
/// times in four) or plus 2, modulo 6.
fn chain(count: usize) -> (Vec<Example>, f64) {
    let mut stream = Seed(1).stream("chain");
    let examples = (0..count).map(|_| {
        let mut at = stream.random_range(0..6_u32);
        let prompt = vec![at];
        let length = stream.random_range(3..9);
        let completion = (0..length).map(|_| {
            at = (at + if stream.random_bool(0.75) { 1 } else { 2 }) % 6;
            at
        });
        Example { completion: completion.collect(), prompt }
    });
    (examples.collect(), -(0.75 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln()))
}

#[test]
fn supervised_training_comes_to_the_entropy_of_its_source() {
    let (examples, entropy) = chain(1500);
    let settings = SupervisedSettings { batch_size: 50, gradient_accumulation_steps: 2, optimiser: optimiser(5e-3) };
    let mut sft = Supervised::new(Tiny::new(6, 16, 1), &settings, Seed(2)).unwrap();
    sft.plan(400);
    let start = sft.evaluate(&examples[1000..], &mut go_on).unwrap();
    for _ in 0..400 {
        sft.step(&examples[..1000], &mut go_on).unwrap();
    }
    let end = sft.evaluate(&examples[1000..], &mut go_on).unwrap();
    assert!(start > 1.5 && (end / entropy - 1.0).abs() < 0.06, "{start} {end} {entropy}");
}

#[test]
fn prompts_and_padding_teach_nothing() {
    let settings = SupervisedSettings { batch_size: 2, ..SupervisedSettings::default() };
    let make = || Supervised::new(Tiny::new(6, 16, 1), &settings, Seed(2)).unwrap();
    let example =
        |prompt: &[u32], completion: &[u32]| Example { prompt: prompt.to_vec(), completion: completion.to_vec() };
    // The batch's loss is the mean of each completion's own loss, weighted by tokens, whatever else is in the batch.
    let (a, b) = (example(&[1, 2, 3], &[4]), example(&[5], &[4, 3, 2, 1]));
    let alone = [&a, &b].map(|e| make().evaluate(std::slice::from_ref(e), &mut go_on).unwrap());
    let together = make().evaluate(&[a.clone(), b.clone()], &mut go_on).unwrap();
    assert!((together - (alone[0] + 4.0 * alone[1]) / 5.0).abs() < 1e-6, "{together} {alone:?}");
    let stats = make().step(&[a, b], &mut go_on).unwrap();
    assert!((stats.loss - together).abs() < 1e-6 && stats.tokens == 5 && stats.grad_norm > 0.0);
    // Without a prompt, the first token serves as the prompt.
    let bare = make().evaluate(&[example(&[], &[5, 4, 3, 2, 1])], &mut go_on).unwrap();
    assert!((bare - alone[1]).abs() < 1e-6);
}

#[test]
fn supervised_training_goes_on_bit_for_bit_and_undoes_what_failed() {
    let (examples, _) = chain(40);
    let settings =
        SupervisedSettings { batch_size: 7, gradient_accumulation_steps: 3, ..SupervisedSettings::default() };
    let make = || Supervised::new(Tiny::new(6, 16, 1), &settings, Seed(2)).unwrap();
    let mut sft = make();
    sft.plan(30);
    (0..9).for_each(|_| assert!(sft.step(&examples, &mut go_on).unwrap().loss.is_finite()));
    let saved = sft.to_arrays();
    for place in 0..3 {
        let mut on_progress = |progress| progress == Progress::Learning { done: place, of: 3 };
        assert!(matches!(sft.step(&examples, &mut on_progress), Err(LearnError::Cancelled)));
        assert_eq!(sft.to_arrays(), saved);
    }
    let mut resumed = make();
    resumed.load_arrays(&saved).unwrap();
    for _ in 0..9 {
        assert_eq!(sft.step(&examples, &mut go_on).unwrap(), resumed.step(&examples, &mut go_on).unwrap());
    }
    assert_eq!((sft.to_arrays(), sft.steps()), (resumed.to_arrays(), 18));
}

/// Comparisons of completions whose true reward is the number of fives minus the number of ones, with Bradley–Terry
/// noise or none.
fn comparisons(count: usize, noise: bool) -> Vec<TextComparison> {
    let mut stream = Seed(3).stream("comparisons");
    let score =
        |tokens: &[u32]| tokens.iter().map(|&t| f64::from(u8::from(t == 5)) - f64::from(u8::from(t == 1))).sum::<f64>();
    let mut all = Vec::new();
    while all.len() < count {
        let mut write = || -> Vec<u32> { (0..stream.random_range(2..7)).map(|_| stream.random_range(1..6)).collect() };
        let (left, right) = (write(), write());
        let difference = 2.0 * (score(&left) - score(&right));
        let choice = match difference {
            0.0 => Choice::Tie,
            d if noise && stream.random::<f64>() > 1.0 / (1.0 + (-d.abs()).exp()) => {
                if d > 0.0 {
                    Choice::Right
                } else {
                    Choice::Left
                }
            }
            d if d > 0.0 => Choice::Left,
            _ => Choice::Right,
        };
        all.extend(TextComparison::new(vec![2, 3], left, right, choice, 0.0));
    }
    all
}

/// With rewards l and r the loss is −log σ(l − r) + c (l + r)². A bias of the head changes the second term alone, by
/// the slope 4 c (l + r) times the gain.
#[test]
fn centring_adds_the_squared_sum_of_the_rewards() {
    const C: f64 = 0.3;
    let pair = comparisons(9, true).into_iter().find(|pair| pair.target == 1.0).unwrap();
    let sides = [&pair.left, &pair.right].map(|side| Example { prompt: pair.prompt.clone(), completion: side.clone() });
    let weight: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
    let make = |bias: f32, centring: f64| {
        let settings = TextRewardSettings {
            batch_size: 1,
            center_rewards_coefficient: centring,
            optimiser: optimiser(1e-3),
            ..TextRewardSettings::default()
        };
        let head = ScalarHead::of(&weight, bias, tch::Device::Cpu);
        let mut reward = TextReward::with_head(Tiny::new(6, 16, 1), head, &settings, Seed(1)).unwrap();
        reward.set_gain_and_bias([1.5, -0.2]);
        reward
    };
    let pairs = std::slice::from_ref(&pair);
    let loss = |bias: f32, centring: f64| make(bias, centring).evaluate(pairs, &mut go_on).unwrap().loss;
    for bias in [0.4, -0.9] {
        let rewards = make(bias, C).rewards(&sides, &mut go_on).unwrap();
        let [left, right] = [rewards[0], rewards[1]].map(f64::from);
        assert!((left + right).abs() > 0.3, "{left} {right}");
        let plain = (right - left).exp().ln_1p();
        assert!((loss(bias, 0.0) - plain).abs() < 1e-5);
        assert!((loss(bias, C) - plain - C * (left + right).powi(2)).abs() < 1e-5);
        let slope = (loss(bias + 0.05, C) - loss(bias - 0.05, C)) / 0.1;
        let expected = 4.0 * C * 1.5 * (left + right);
        assert!((slope - expected).abs() < 1e-3 * expected.abs(), "{slope} {expected}");
        // Adam's first step is the step size, against the slope.
        let moved = |centring: f64| {
            let mut reward = make(bias, centring);
            reward.step(pairs, &mut go_on).unwrap();
            reward.head().bias() - f64::from(bias)
        };
        assert!((moved(C) + 1e-3 * slope.signum()).abs() < 1e-4 && moved(0.0).abs() < 1e-5, "{}", moved(C));
    }
}

#[test]
fn a_reward_model_learns_what_the_teacher_prefers() {
    let settings = TextRewardSettings {
        batch_size: 32,
        gradient_accumulation_steps: 2,
        optimiser: optimiser(3e-3),
        ..TextRewardSettings::default()
    };
    let mut reward = TextReward::new(Tiny::new(6, 16, 1), &settings, Seed(4)).unwrap();
    let (train, clean) = (comparisons(600, true), comparisons(1000, false).split_off(600));
    let samples: Vec<Example> =
        train.iter().take(100).map(|c| Example { prompt: c.prompt.clone(), completion: c.left.clone() }).collect();
    let is_normal = |reward: &TextReward<Tiny>| {
        let rewards = reward.rewards(&samples, &mut go_on).unwrap();
        let mean = rewards.iter().map(|&r| f64::from(r)).sum::<f64>() / 100.0;
        let var = rewards.iter().map(|&r| (f64::from(r) - mean).powi(2)).sum::<f64>() / 100.0;
        mean.abs() < 1e-5 && (var - 1.0).abs() < 1e-4
    };
    assert!(!is_normal(&reward));
    reward.normalise(&samples, &mut go_on).unwrap();
    assert!(is_normal(&reward));
    let before = reward.evaluate(&clean, &mut go_on).unwrap();
    reward.plan(150);
    for _ in 0..400 {
        reward.step(&train, &mut go_on).unwrap();
    }
    let after = reward.evaluate(&clean, &mut go_on).unwrap();
    assert!(before.accuracy < 0.75 && after.accuracy > 0.93 && after.margin > 1.0, "{before:?} {after:?}");
    assert!(!is_normal(&reward));
    reward.normalise(&samples, &mut go_on).unwrap();
    assert!(is_normal(&reward));
    // Gain and bias change the sign of no preference.
    assert_eq!(reward.evaluate(&clean, &mut go_on).unwrap().accuracy, after.accuracy);
    assert!(reward.normalise(&samples[..1], &mut go_on).is_err() && is_normal(&reward));
}

/// The loss is the mean of −ln σ(Δ − m), Δ the chosen reward minus the rejected one. A gradient step descends along the
/// margin's own gradient: judged much better, the same pair ends up further apart.
#[test]
fn a_margin_asks_for_a_wider_gap() {
    let settings = TextRewardSettings { batch_size: 4, optimiser: optimiser(3e-3), ..TextRewardSettings::default() };
    let make = || TextReward::new(Tiny::new(6, 16, 1), &settings, Seed(4)).unwrap();
    let graded =
        |choice: Choice, margin: f64| TextComparison::new(vec![2], vec![5, 5], vec![1, 3], choice, margin).unwrap();
    let pairs = [Choice::Left, Choice::MuchLeft, Choice::Right, Choice::MuchRight, Choice::Tie].map(|c| graded(c, 0.8));
    let reward = make();
    let ahead = f64::from(reward.differences(&pairs[..1], &mut go_on).unwrap()[0]);
    let loss = |pair: &TextComparison| reward.evaluate(std::slice::from_ref(pair), &mut go_on).unwrap().loss;
    let expected = [-ahead, 0.8 - ahead, ahead, 0.8 + ahead].map(|x| x.exp().ln_1p());
    for (pair, expected) in pairs.iter().zip(expected) {
        assert!((loss(pair) - expected).abs() < 1e-6, "{pair:?}: {} {expected}", loss(pair));
    }
    let tie = 0.5 * (ahead.exp().ln_1p() + (-ahead).exp().ln_1p());
    assert!((loss(&pairs[4]) - tie).abs() < 1e-6 && pairs[4].margin == 0.0);
    let taught = |choice: Choice, margin: f64| {
        let (mut reward, pair) = (make(), [graded(choice, margin)]);
        (0..60).for_each(|_| assert!(reward.step(&pair, &mut go_on).unwrap().loss.is_finite()));
        reward.differences(&pair, &mut go_on).unwrap()[0]
    };
    let (plain, much) = (taught(Choice::Left, 2.0), taught(Choice::MuchLeft, 2.0));
    assert!(much > plain + 0.2 && plain > 0.0, "{plain} {much}");
    assert!((taught(Choice::MuchLeft, 0.0) - plain).abs() < 1e-6);
}

/// A head that was given is the one that rewards, and training goes on from it.
#[test]
fn a_given_head_is_where_training_begins() {
    let settings = TextRewardSettings { batch_size: 4, ..TextRewardSettings::default() };
    let mut reward = TextReward::new(Tiny::new(6, 16, 1), &settings, Seed(4)).unwrap();
    let other = ScalarHead::of(&[0.5; 16], 0.25, tch::Device::Cpu);
    let expected = TextReward::with_head(Tiny::new(6, 16, 1), other, &settings, Seed(4)).unwrap();
    reward.set_head(&[0.5; 16], 0.25);
    let pairs = comparisons(12, true);
    let (a, b) = (reward.differences(&pairs, &mut go_on).unwrap(), expected.differences(&pairs, &mut go_on).unwrap());
    assert_eq!(a, b);
    let before = reward.evaluate(&pairs, &mut go_on).unwrap().loss;
    (0..40).for_each(|_| assert!(reward.step(&pairs, &mut go_on).unwrap().loss.is_finite()));
    assert!(reward.evaluate(&pairs, &mut go_on).unwrap().loss < before);
}

#[test]
fn a_reward_reads_the_last_real_token_whatever_lies_beside_it() {
    let reward = TextReward::new(Tiny::new(6, 16, 1), &TextRewardSettings::default(), Seed(4)).unwrap();
    let examples = [(vec![1, 2, 3], vec![4]), (vec![5], vec![4, 3, 2, 1, 1]), (vec![2], vec![])]
        .map(|(prompt, completion)| Example { prompt, completion });
    let together = reward.rewards(&examples, &mut go_on).unwrap();
    for (example, together) in examples.iter().zip(&together) {
        let alone = reward.rewards(std::slice::from_ref(example), &mut go_on).unwrap()[0];
        assert!((alone - together).abs() < 1e-5, "{alone} {together}");
    }
    // Where the text is cut between prompt and completion does not matter.
    let whole = Example { prompt: vec![5, 4, 3], completion: vec![2, 1, 1] };
    assert!((reward.rewards(&[whole], &mut go_on).unwrap()[0] - together[1]).abs() < 1e-5);
}

#[test]
fn a_reward_model_goes_on_bit_for_bit_and_undoes_what_failed() {
    let settings =
        TextRewardSettings { batch_size: 8, gradient_accumulation_steps: 2, ..TextRewardSettings::default() };
    let make = |seed| TextReward::new(Tiny::new(6, 16, 1), &settings, Seed(seed)).unwrap();
    let pairs = comparisons(30, true);
    let mut reward = make(4);
    reward.plan(20);
    (0..6).for_each(|_| assert!(reward.step(&pairs, &mut go_on).unwrap().loss.is_finite()));
    let saved = reward.to_arrays();
    let mut on_progress = |progress| progress == Progress::Learning { done: 1, of: 2 };
    assert!(matches!(reward.step(&pairs, &mut on_progress), Err(LearnError::Cancelled)));
    assert_eq!(reward.to_arrays(), saved);
    // Another seed: the arrays hold everything that matters.
    let mut resumed = make(5);
    resumed.load_arrays(&saved).unwrap();
    for _ in 0..6 {
        assert_eq!(reward.step(&pairs, &mut go_on).unwrap(), resumed.step(&pairs, &mut go_on).unwrap());
    }
    assert_eq!(reward.to_arrays(), resumed.to_arrays());
}
