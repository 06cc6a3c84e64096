//! Tests of PPO of a language model: against optima that can be computed exactly, and against itself (resumed,
//! cancelled, in parts).

use super::super::config::ModelConfig;
use super::super::language_model::AncestralSampling;
use super::super::model::{Precision, Transformer};
use super::super::reward::TextReward;
use super::super::rows::Rows;
use super::super::supervised::Supervised;
use super::super::tiny::Tiny;
use super::super::{Example, ScalarHead};
use super::*;
use flipside_core::settings::{KlSettings, OptimiserSettings, SupervisedSettings, TextRewardSettings};
use rand::RngExt;
use std::collections::BTreeSet;
use tch::Device;

pub(super) fn go_on(_: Progress) -> bool {
    false
}

pub(super) fn optimiser(learning_rate: f64) -> OptimiserSettings {
    OptimiserSettings { learning_rate, ..OptimiserSettings::default() }
}

pub(super) fn small() -> TextPpoSettings {
    TextPpoSettings {
        batch_size: 12,
        minibatch_size: 4,
        gradient_accumulation_steps: 2,
        max_new_tokens: 5,
        temperature: 0.7,
        scale_scores: true,
        optimiser: optimiser(1e-3),
        ..TextPpoSettings::default()
    }
}

pub(super) fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1], vec![2, 3, 4, 5], vec![3, 3], vec![4, 1, 2], vec![5]]
}

/// An example of a score function: how often token 3 occurs in the completion.
pub(super) fn threes(episodes: &[Episode]) -> Vec<f32> {
    episodes.iter().map(|e| e.completion.iter().filter(|&&t| t == 3).count() as f32).collect()
}

fn learner(settings: &TextPpoSettings) -> TextPpo<Tiny> {
    let policy = Tiny::new(8, 16, 1);
    let reference = Reference::Model(policy.copy());
    let mut ppo = TextPpo::new(policy, reference, &[0], settings, Seed(5)).unwrap();
    ppo.plan(20);
    ppo
}

fn round(ppo: &mut TextPpo<Tiny>) -> TextPpoStats {
    let episodes = ppo.collect(&prompts(), &mut go_on).unwrap();
    ppo.learn(&episodes, &threes(&episodes), &mut go_on).unwrap()
}

#[test]
fn the_first_minibatch_sees_the_policy_of_the_rollout() {
    let mut ppo = learner(&small());
    for update in 0..3 {
        let stats = round(&mut ppo);
        assert!(stats.first_log_ratio <= 1e-5 && stats.first_ratio_error <= 1e-5, "{stats:?}");
        assert!(stats.approx_kl > 1e-6, "later minibatches see a policy that moved: {stats:?}");
        assert!(update == 0 || stats.kl.abs() > 1e-4, "{stats:?}");
        assert!(update > 0 || stats.kl.abs() < 1e-5, "the policy begins as the reference: {stats:?}");
    }
    // In bf16, where the number of columns in a batch affects the rounding.
    let policy = Tiny::new(8, 16, 1).to_kind(Kind::BFloat16);
    let reference = Reference::Model(Tiny::new(8, 16, 1).to_kind(Kind::BFloat16));
    let mut ppo = TextPpo::new(policy, reference, &[0], &small(), Seed(5)).unwrap();
    for _ in 0..3 {
        let stats = round(&mut ppo);
        assert!(stats.first_ratio_error <= 1e-3, "{stats:?}");
        assert!(stats.approx_kl > 1e-6, "{stats:?}");
    }
}

#[test]
fn scores_come_with_the_last_token_and_an_end_that_is_missing_costs() {
    let episode = |completion: Vec<u32>, stopped| Episode {
        prompt_index: 0,
        prompt: vec![1],
        log_probs: completion.iter().map(|_| -1.0).collect(),
        reference_log_probs: completion.iter().map(|_| -1.5).collect(),
        values: completion.iter().map(|_| 0.0).collect(),
        entropies: completion.iter().map(|_| 2.0).collect(),
        completion,
        stopped,
    };
    let episodes = [episode(vec![3, 2, 0], true), episode(vec![3, 2, 1, 1, 1], false)];
    let mut ppo = learner(&TextPpoSettings { scale_scores: false, ..small() });
    let scores = [Some(2.0), Some(3.0)];
    let rewards = ppo.token_rewards(&episodes, &scores);
    // β = 0.15 times a log-ratio of 0.5 nats per token.
    let expected = [vec![-0.075, -0.075, 1.925], vec![-0.075, -0.075, -0.075, -0.075, 1.925]];
    for (got, expected) in rewards.iter().flatten().zip(expected.iter().flatten()) {
        assert!((got - expected).abs() < 1e-6, "{rewards:?}");
    }
    // With γ = 1, λ = 1 and a critic of 0, a return is the sum of the rewards to come. The advantages are whitened.
    ppo.settings.gae_lambda = 1.0;
    let samples = ppo.samples(&episodes, &rewards, &scores);
    for (got, expected) in samples[0].returns.iter().zip([1.775, 1.85, 1.925]) {
        assert!((got - expected).abs() < 1e-6);
    }
    let all: Vec<f32> = samples.iter().flat_map(|l| l.advantages.clone()).collect();
    let mean = all.iter().sum::<f32>() / 8.0;
    let var = all.iter().map(|a| (a - mean).powi(2)).sum::<f32>() / 8.0;
    assert!(mean.abs() < 1e-6 && (var - 1.0).abs() < 1e-5);
    // Without stop tokens, no completion counts as unfinished.
    ppo.stop.clear();
    assert!((ppo.token_rewards(&episodes, &scores)[1][4] - 2.925).abs() < 1e-6);
    let stats = ppo.summary(&episodes, &scores);
    assert!((stats.kl - 2.0).abs() < 1e-6 && stats.length == 4.0 && stats.stopped == 0.5 && stats.entropy == 2.0);
}

#[test]
fn generating_reports_every_column_once_and_no_more_than_there_can_be() {
    let config = ModelConfig::gpt2(8, 32, 16, 1, 2);
    // 12 completions of at most 5 tokens, 4 at a time.
    let settings = TextPpoSettings { rollout_batch_size: 4, ..small() };
    for stop in [&[][..], &[0, 1, 2, 3, 4, 5]] {
        let policy = Transformer::random(&config, Precision::F32, Device::Cpu, &mut Seed(1).stream("weights"));
        let mut ppo = TextPpo::new(policy, Reference::Base, stop, &settings, Seed(5)).unwrap();
        let mut reported = Vec::new();
        let mut on_progress = |progress| {
            if let Progress::Generating { done, of } = progress {
                reported.push((done, of));
            }
            false
        };
        let episodes = ppo.collect(&prompts(), &mut on_progress).unwrap();
        let columns = |part: &[Episode]| part.iter().map(|e| e.completion.len()).max().unwrap();
        let expected: Vec<(usize, usize)> = (episodes.chunks(4).enumerate())
            .flat_map(|(i, part)| (1..=columns(part)).map(move |column| (i * 5 + column, 15)))
            .collect();
        assert_eq!(reported, expected);
        assert_eq!(reported.len() == 15, stop.is_empty(), "{reported:?}");
    }
}

#[test]
fn goes_on_bit_for_bit_from_saved_arrays() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let make = || {
            let model = || Tiny::new(8, 16, 1).to_kind(kind);
            let mut ppo = TextPpo::new(model(), Reference::Model(model()), &[0], &small(), Seed(5)).unwrap();
            ppo.plan(20);
            ppo
        };
        let mut undisturbed = make();
        (0..2).for_each(|_| assert!(round(&mut undisturbed).kl.is_finite()));
        let saved = undisturbed.to_arrays();
        // As if a run was cut off in the middle of an update, and another process resumed it from the checkpoint.
        let mut resumed = make();
        round(&mut resumed);
        resumed.load_arrays(&saved).unwrap();
        for _ in 0..3 {
            let (a, b) = (round(&mut undisturbed), round(&mut resumed));
            assert_eq!(a, b);
        }
        assert_eq!(undisturbed.to_arrays(), resumed.to_arrays());
        assert_ne!(undisturbed.to_arrays(), saved);
        // `scores_var` is only for readers of the file. Loading uses the sum that it is computed from.
        for name in saved.keys().filter(|name| *name != "scores_var") {
            let mut broken = saved.clone();
            broken.remove(name);
            let before = resumed.to_arrays();
            let error = resumed.load_arrays(&broken).expect_err(name).to_string();
            assert!(error.contains(name.as_str()), "{error}");
            assert_eq!(resumed.to_arrays(), before);
        }
    }
}

#[test]
fn a_cancelled_or_failed_update_leaves_everything_as_it_was() {
    let mut ppo = learner(&small());
    round(&mut ppo);
    let before = ppo.to_arrays();
    // Cancelled at every call of `on_progress`.
    let mut asked = 0;
    let episodes = ppo
        .collect(&prompts(), &mut |_| {
            asked += 1;
            false
        })
        .unwrap();
    let collected = ppo.to_arrays();
    assert_ne!(collected, before);
    ppo.load_arrays(&before).unwrap();
    for place in 1..=asked {
        let mut count = 0;
        let mut on_progress = |_| {
            count += 1;
            count == place
        };
        assert!(matches!(ppo.collect(&prompts(), &mut on_progress), Err(LearnError::Cancelled)));
        assert_eq!(ppo.to_arrays(), before);
    }
    ppo.load_arrays(&collected).unwrap();
    let scores = threes(&episodes);
    // 4 epochs of 3 minibatches in 2 parts.
    for place in [0, 1, 13, 23] {
        let mut on_progress = |progress| progress == Progress::Learning { done: place, of: 24 };
        assert!(matches!(ppo.learn(&episodes, &scores, &mut on_progress), Err(LearnError::Cancelled)));
        assert_eq!(ppo.to_arrays(), collected);
    }
    // A whole update, scoring included.
    ppo.load_arrays(&before).unwrap();
    let mut score_fn = |episodes: &[Episode], on_progress: ProgressFn| {
        check_cancelled(on_progress, Progress::Scoring { done: 0, of: 1 }).map(|()| threes(episodes))
    };
    for place in 1..=asked + 1 + 24 {
        let mut count = 0;
        let mut on_progress = |_| {
            count += 1;
            count == place
        };
        assert!(matches!(ppo.update(&prompts(), &mut score_fn, &mut on_progress), Err(LearnError::Cancelled)));
        assert_eq!(ppo.to_arrays(), before);
    }
    assert_eq!(ppo.update(&prompts(), &mut score_fn, &mut go_on).unwrap().0, episodes);
    ppo.load_arrays(&collected).unwrap();
    // Numbers that are not finite: in the caller's scores, and in the middle of an update.
    let mut bad = scores.clone();
    bad[3] = f32::NAN;
    let error = ppo.learn(&episodes, &bad, &mut go_on).unwrap_err();
    assert_eq!(error.to_string(), "the score of episode 3 is not finite");
    let mut poisoned = episodes.clone();
    poisoned[7].log_probs[0] = f32::NEG_INFINITY;
    let error = ppo.learn(&poisoned, &scores, &mut go_on).unwrap_err();
    assert!(matches!(error, LearnError::NotFinite { .. }), "{error}");
    assert!(ppo.learn(&episodes, &scores[1..], &mut go_on).is_err());
    assert!(ppo.collect(&[vec![]], &mut go_on).is_err());
    assert_eq!(ppo.to_arrays(), collected);
    // After the errors it still learns what it would have learnt without them.
    let stats = ppo.learn(&episodes, &scores, &mut go_on).unwrap();
    let mut fresh = learner(&small());
    round(&mut fresh);
    assert_eq!(round(&mut fresh), stats);
    assert_eq!(fresh.to_arrays(), ppo.to_arrays());
}

#[test]
fn a_part_of_a_minibatch_counts_by_its_tokens() {
    // The same update gives the same result, whole or in parts, up to rounding.
    let run = |accumulate| {
        let mut ppo = learner(&TextPpoSettings { gradient_accumulation_steps: accumulate, ..small() });
        round(&mut ppo);
        numbers_of(&ppo)
    };
    let (whole, parts, start) = (run(1), run(4), numbers_of(&learner(&small())));
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far(&whole, &parts) < 0.05 * far(&whole, &start), "{} {}", far(&whole, &parts), far(&whole, &start));
}

fn numbers_of(ppo: &TextPpo<Tiny>) -> Vec<f32> {
    let arrays = ppo.to_arrays();
    arrays
        .iter()
        .filter(|(name, _)| name.starts_with("model."))
        .flat_map(|(_, a)| a.as_f32().unwrap().to_vec())
        .collect()
}

#[test]
fn adapters_hold_one_copy_of_the_base() {
    let base = Tiny::new(64, 128, 1);
    let bytes = |tensors: &mut dyn Iterator<Item = &Tensor>| -> usize {
        // Distinct storages, told apart by their address.
        let distinct: BTreeSet<(usize, usize)> = tensors.map(|t| (t.data_ptr() as usize, 4 * t.numel())).collect();
        distinct.iter().map(|(_, bytes)| bytes).sum()
    };
    let whole = bytes(&mut base.tensors());
    let reward = TextReward::new(base.adapted(2, 3), &TextRewardSettings::default(), Seed(1)).unwrap();
    let mut ppo = TextPpo::new(base.adapted(2, 2), Reference::Base, &[0], &small(), Seed(1)).unwrap();
    let stats = round(&mut ppo);
    assert!(stats.kl.abs() < 1e-5 && stats.approx_kl > 0.0);
    assert!(round(&mut ppo).kl.abs() > 1e-5);
    let heads: Vec<Tensor> =
        [ppo.critic().unwrap().trainable(), reward.head().trainable()].into_iter().flatten().map(|(_, t)| t).collect();
    let held = bytes(&mut base.tensors().chain(ppo.policy().tensors()).chain(reward.model().tensors()).chain(&heads));
    assert!(held > whole && held as f64 <= 1.25 * whole as f64, "{held} {whole}");
    // The base itself has not changed.
    let fresh = Tiny::new(64, 128, 1);
    assert!(base.tensors().zip(fresh.tensors()).all(|(a, b)| a.equal(b)));
}

// --- Eight tokens, length four ---

/// All 4,096 sequences. The reward of a sequence is the sum of a term for each token at its position and a term for
/// each pair of neighbours, halved.
pub(super) struct Enumerable {
    pub sequences: Vec<Vec<u32>>,
    pub rewards: Vec<f64>,
}

impl Enumerable {
    pub fn new(seed: u64) -> Enumerable {
        let mut stream = Seed(seed).stream("enumerable");
        let mut draw = |n: usize| (0..n).map(|_| stream.random_range(-1.0..1.0)).collect::<Vec<f64>>();
        let (single, double) = (draw(4 * 8), draw(8 * 8));
        let sequences: Vec<Vec<u32>> = (0..4096).map(|i| (0..4).map(|t| (i >> (3 * t)) & 7).collect()).collect();
        let reward = |s: &Vec<u32>| {
            let singles: f64 = s.iter().enumerate().map(|(t, &x)| single[8 * t + x as usize]).sum();
            let doubles: f64 = s.windows(2).map(|p| double[8 * p[0] as usize + p[1] as usize]).sum();
            0.5 * (singles + doubles)
        };
        Enumerable { rewards: sequences.iter().map(reward).collect(), sequences }
    }

    /// log-probabilities of all sequences.
    pub fn log_probs(&self, model: &Tiny) -> Vec<f64> {
        let rows: Vec<(&[u32], &[u32])> = self.sequences.iter().map(|s| (&[0_u32][..], &s[..])).collect();
        let rows = Rows::new(&rows, Device::Cpu);
        let sums = tch::no_grad(|| {
            let all = rows.log_softmax(model, &rows.before_tokens(&rows.hidden(model, true)), 1.0);
            rows.chosen(&all).sum_dim_intlist(-1, false, Kind::Double)
        });
        Vec::try_from(sums).unwrap()
    }

    /// The share of the possible gain in reward − β KL that a policy has reached.
    pub fn recovered(&self, policy: &Tiny, reference: &Tiny, beta: f64) -> f64 {
        let (policy, reference) = (self.log_probs(policy), self.log_probs(reference));
        let total: f64 = policy.iter().map(|p| p.exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        let mean = |of: &dyn Fn(usize) -> f64| (0..4096).map(of).sum::<f64>();
        let start = mean(&|i| reference[i].exp() * self.rewards[i]);
        let reached = mean(&|i| policy[i].exp() * (self.rewards[i] - beta * (policy[i] - reference[i])));
        // The maximum of reward − β KL over all distributions is β ln Z.
        let best = beta * mean(&|i| (reference[i] + self.rewards[i] / beta).exp()).ln();
        assert!(best >= reached - 1e-4 && best > start + 0.3, "{start} {reached} {best}");
        (reached - start) / (best - start)
    }
}

pub(super) const BETA: f64 = 0.15;

fn recovers(seed: u64) -> f64 {
    let task = Enumerable::new(seed);
    let policy = Tiny::new(8, 32, seed);
    let reference = policy.copy();
    let settings = TextPpoSettings {
        batch_size: 256,
        minibatch_size: 128,
        max_new_tokens: 4,
        kl: KlSettings { beta: BETA, adaptive: false, ..KlSettings::default() },
        optimiser: optimiser(3e-3),
        ..TextPpoSettings::default()
    };
    let mut ppo = TextPpo::new(policy, Reference::Model(reference), &[], &settings, Seed(seed)).unwrap();
    ppo.plan(UPDATES);
    let place = |s: &[u32]| s.iter().rev().fold(0, |i, &x| 8 * i + x as usize);
    for update in 0..UPDATES {
        let episodes = ppo.collect(&[vec![0]], &mut go_on).unwrap();
        let scores: Vec<f32> = episodes.iter().map(|e| task.rewards[place(&e.completion)] as f32).collect();
        let stats = ppo.learn(&episodes, &scores, &mut go_on).unwrap();
        if update % 20 == 0 {
            eprintln!("{update} {:.4} {stats:?}", task.recovered(ppo.policy(), ppo.reference().unwrap(), BETA));
        }
    }
    task.recovered(ppo.policy(), ppo.reference().unwrap(), BETA)
}

const UPDATES: u64 = 150;

#[test]
fn reaches_the_exact_optimum() {
    for seed in 0..2 {
        let share = recovers(seed);
        assert!(share >= 0.98, "seed {seed}: {share}");
    }
}

#[test]
#[ignore = "twenty seeds, a few minutes"]
fn reaches_the_exact_optimum_on_every_seed() {
    let shares: Vec<f64> = (0..20).map(recovers).collect();
    println!("{shares:.4?}");
    assert!(shares.iter().all(|&share| share >= 0.98), "{shares:.4?}");
}

// --- Random walks ---

/// A random directed graph of 21 nodes. Node 0 is the goal.
struct Graph {
    edges: Vec<Vec<u32>>,
    /// For each node, the number of edges on the shortest path to the goal.
    shortest: Vec<usize>,
}

const NODES: u32 = 21;
/// The most nodes of a walk, the first included.
const LONGEST: usize = 10;

impl Graph {
    fn new(stream: &mut Stream) -> Graph {
        loop {
            let mut edges: Vec<Vec<u32>> = (0..NODES)
                .map(|from| (0..NODES).filter(|&to| to != from && stream.random_bool(0.12)).collect())
                .collect();
            edges[0].clear();
            let mut shortest = vec![usize::MAX; NODES as usize];
            shortest[0] = 0;
            for length in 1..LONGEST {
                for from in 1..NODES as usize {
                    let near = edges[from].iter().any(|&to| shortest[to as usize] == length - 1);
                    if near && shortest[from] == usize::MAX {
                        shortest[from] = length;
                    }
                }
            }
            if shortest.iter().all(|&length| length < LONGEST) {
                return Graph { edges, shortest };
            }
        }
    }

    fn walk(&self, stream: &mut Stream) -> Example {
        let start = stream.random_range(1..NODES);
        let (mut at, mut completion) = (start, Vec::new());
        while at != 0 && completion.len() < LONGEST - 1 {
            at = self.edges[at as usize][stream.random_range(0..self.edges[at as usize].len())];
            completion.push(at);
        }
        Example { prompt: vec![start], completion }
    }

    /// 1 for a shortest path, 0 for a walk that never arrives or takes an edge that does not exist, and linear in the
    /// length between.
    fn optimality(&self, start: u32, walk: &[u32]) -> f64 {
        let mut from = start;
        for (i, &to) in walk.iter().enumerate() {
            if !self.edges[from as usize].contains(&to) {
                return 0.0;
            }
            if to == 0 {
                let shortest = self.shortest[start as usize];
                return (LONGEST - (i + 1)) as f64 / (LONGEST - shortest) as f64;
            }
            from = to;
        }
        0.0
    }
}

fn walks(seed: u64) -> [f64; 2] {
    let mut stream = Seed(seed).stream("walks");
    let graph = Graph::new(&mut stream);
    let examples: Vec<Example> = (0..1000).map(|_| graph.walk(&mut stream)).collect();
    let starts: Vec<Vec<u32>> = (1..NODES).map(|start| vec![start]).collect();
    let settings = SupervisedSettings { batch_size: 50, optimiser: optimiser(5e-3), ..SupervisedSettings::default() };
    let mut sft = Supervised::new(Tiny::new(i64::from(NODES), 32, seed), &settings, Seed(seed)).unwrap();
    sft.plan(200);
    (0..200).for_each(|_| assert!(sft.step(&examples, &mut go_on).unwrap().loss.is_finite()));
    let policy = sft.into_model();
    let reference = Reference::Model(policy.copy());
    let settings = TextPpoSettings {
        batch_size: 200,
        minibatch_size: 100,
        max_new_tokens: LONGEST - 1,
        kl: KlSettings { beta: 0.02, adaptive: false, ..KlSettings::default() },
        optimiser: optimiser(3e-3),
        ..TextPpoSettings::default()
    };
    let mut ppo = TextPpo::new(policy, reference, &[0], &settings, Seed(seed)).unwrap();
    ppo.plan(80);
    let optimality = |episodes: &[Episode]| -> Vec<f32> {
        episodes.iter().map(|e| graph.optimality(e.prompt[0], &e.completion) as f32).collect()
    };
    let mean = |scores: &[f32]| f64::from(scores.iter().sum::<f32>()) / scores.len() as f64;
    let mut start = 0.0;
    for update in 0..80 {
        let episodes = ppo.collect(&starts, &mut go_on).unwrap();
        let scores = optimality(&episodes);
        if update == 0 {
            start = mean(&scores);
        }
        ppo.learn(&episodes, &scores, &mut go_on).unwrap();
    }
    // Evaluated as published: nearly greedy.
    let sampling = AncestralSampling { temperature: 0.01, max_new_tokens: LONGEST - 1, stop: vec![0], seed: 1 };
    let from: Vec<&[u32]> = starts.iter().map(|s| &s[..]).collect();
    let completions = ppo.policy().complete(&from, &sampling, &mut || true);
    let end = from.iter().zip(completions).map(|(s, c)| graph.optimality(s[0], &c.tokens)).sum::<f64>() / 20.0;
    [start, end]
}

#[test]
fn finds_shortest_paths_from_random_walks() {
    let [start, end] = walks(1);
    assert!(start < 0.7 && end >= 0.95, "{start} {end}");
}

#[test]
#[ignore = "five graphs, minutes"]
fn finds_shortest_paths_on_every_graph() {
    let found: Vec<[f64; 2]> = (1..6).map(walks).collect();
    println!("{found:.3?}");
    assert!(found.iter().all(|[_, end]| *end >= 0.95), "{found:.3?}");
}

#[test]
fn a_critic_may_begin_as_the_reward_head() {
    let (policy, head) = (Tiny::new(8, 16, 1), ScalarHead::random(16, Device::Cpu, &mut Seed(2).stream("head")));
    let reference = Reference::Model(policy.copy());
    let mut ppo = TextPpo::with_critic(policy, head.copy(), reference, &[0], &small(), Seed(5)).unwrap();
    let episodes = ppo.collect(&prompts(), &mut go_on).unwrap();
    assert!(episodes.iter().flat_map(|e| &e.values).any(|v| v.abs() > 0.1));
    ppo.learn(&episodes, &threes(&episodes), &mut go_on).unwrap();
    assert_ne!(ppo.critic().unwrap().weight(), head.weight());
    let std = (head.weight().iter().map(|w| w * w).sum::<f32>() / 16.0).sqrt();
    assert!((std * 17.0_f32.sqrt() - 1.0).abs() < 0.5, "{std}");
}
