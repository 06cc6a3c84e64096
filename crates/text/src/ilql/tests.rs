//! Tests of ILQL: its loss by plain arithmetic, backward induction, and shortest paths from random walks.

use super::super::config::ModelConfig;
use super::super::generate::Sampling;
use super::super::language_model::{AncestralSampling, SampledCompletion};
use super::super::model::{Precision, Transformer};
use super::super::progress::Progress;
use super::super::tiny::Tiny;
use super::*;
use flipside_core::Stream;
use flipside_core::settings::OptimiserSettings;
use flipside_learn::numbers;
use rand::RngExt;
use std::collections::BTreeMap;
use tch::Device;

fn go_on(_: Progress) -> bool {
    false
}

fn optimiser(learning_rate: f64) -> OptimiserSettings {
    OptimiserSettings { learning_rate, ..OptimiserSettings::default() }
}

fn small() -> IlqlSettings {
    IlqlSettings { batch_size: 6, alpha: 0.3, steps_for_target_q_sync: 2, ..IlqlSettings::default() }
}

fn data() -> Vec<ScoredCompletion> {
    let mut stream = Seed(2).stream("data");
    let mut write = || -> Vec<u32> { (0..stream.random_range(1..6)).map(|_| stream.random_range(0..7)).collect() };
    let mut data: Vec<ScoredCompletion> = (0..12)
        .map(|i| ScoredCompletion { prompt: write(), completion: write(), score: [1.0, 0.0, 0.5][i % 3] })
        .collect();
    standardise(&mut data);
    data
}

fn trainer(settings: &IlqlSettings) -> Ilql<Tiny> {
    let mut trainer = Ilql::new(Tiny::new(7, 16, 1), settings, Seed(5)).unwrap();
    trainer.plan(40);
    trainer
}

#[test]
fn standardised_scores_have_mean_0_and_deviation_1() {
    let scores: Vec<f32> = data().iter().map(|one| one.score).collect();
    let mean = scores.iter().sum::<f32>() / 12.0;
    let var = scores.iter().map(|score| (score - mean).powi(2)).sum::<f32>() / 12.0;
    assert!(mean.abs() < 1e-6 && (var - 1.0).abs() < 1e-5);
    let mut same = vec![ScoredCompletion { prompt: vec![1], completion: vec![2], score: 0.1 }; 3];
    standardise(&mut same);
    assert!(same.iter().all(|one| one.score == 0.0));
}

/// The loss of trlX, token by token.
#[test]
fn the_loss_is_that_of_plain_arithmetic() {
    let settings = IlqlSettings { gamma: 0.9, tau: 0.8, cql_scale: 0.2, awac_scale: 0.7, ..small() };
    let mut trainer = trainer(&settings);
    // Slow copies that differ from the Q heads.
    (0..3).for_each(|_| assert!(trainer.step(&data(), &mut go_on).unwrap().loss.is_finite()));
    let (all, tokens) = (data(), data().iter().map(|one| one.completion.len()).sum::<usize>());
    let mut found = IlqlStats::default();
    let part: Vec<&ScoredCompletion> = all.iter().collect();
    let _ = part_loss(&trainer.model, &trainer.heads, &settings, &part, tokens, &mut found);
    let mut expected = IlqlStats::default();
    for one in &all {
        let rows = Rows::new(&[(&one.prompt[..], &one.completion[..])], Device::Cpu);
        let hidden = rows.hidden(&trainer.model, true);
        let table = |tensor: &Tensor| -> Vec<Vec<f64>> {
            let width = tensor.size()[2] as usize;
            numbers(tensor).chunks_exact(width).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
        };
        let q = trainer.heads.q(&hidden).each_ref().map(table);
        let (slow, logits) = (table(&trainer.heads.slow_q(&hidden)), table(&trainer.model.logits(&hidden)));
        let v: Vec<f64> = numbers(&trainer.heads.v(&hidden)).into_iter().map(f64::from).collect();
        let cross_entropy = |row: &[f64], token: usize| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[token];
        for (t, &token) in one.completion.iter().enumerate() {
            let (token, is_last) = (token as usize, t + 1 == one.completion.len());
            let target = if is_last { f64::from(one.score) } else { 0.9 * v[t + 1] };
            expected.q_loss += q.iter().map(|q| (q[t][token] - target).powi(2)).sum::<f64>();
            let ahead = slow[t][token] - v[t];
            expected.v_loss += (0.8 - f64::from(u8::from(ahead < 0.0))).abs() * ahead * ahead;
            expected.cql_loss += q.iter().map(|q| cross_entropy(&q[t], token)).sum::<f64>();
            expected.nll += cross_entropy(&logits[t], token);
        }
    }
    let n = tokens as f64;
    for (found, expected) in [
        (found.q_loss, expected.q_loss),
        (found.v_loss, expected.v_loss),
        (found.cql_loss, expected.cql_loss),
        (found.nll, expected.nll),
        (found.loss, expected.q_loss + expected.v_loss + 0.2 * expected.cql_loss + 0.7 * expected.nll),
    ] {
        assert!((found - expected / n).abs() < 1e-5 * (1.0 + expected / n), "{found} {}", expected / n);
    }
}

#[test]
fn goes_on_bit_for_bit_in_parts_or_whole() {
    let in_parts = IlqlSettings { gradient_accumulation_steps: 3, ..small() };
    let (mut whole, mut parts) = (trainer(&small()), trainer(&in_parts));
    for _ in 0..3 {
        let [a, b] = [&mut whole, &mut parts].map(|trainer| trainer.step(&data(), &mut go_on).unwrap());
        assert!(
            (a.loss - b.loss).abs() < 1e-4 * a.loss && (a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3,
            "{a:?} {b:?}"
        );
    }
    let saved = parts.to_arrays();
    let mut cancel = |progress| progress == Progress::Learning { done: 1, of: 3 };
    assert!(matches!(parts.step(&data(), &mut cancel), Err(LearnError::Cancelled)));
    assert_eq!(parts.to_arrays(), saved);
    let mut resumed = trainer(&in_parts);
    for name in saved.keys() {
        let (mut broken, before) = (saved.clone(), resumed.to_arrays());
        broken.remove(name);
        assert!(resumed.load_arrays(&broken).expect_err(name).to_string().contains(name.as_str()));
        assert_eq!(resumed.to_arrays(), before);
    }
    resumed.load_arrays(&saved).unwrap();
    for _ in 0..4 {
        assert_eq!(parts.step(&data(), &mut go_on).unwrap(), resumed.step(&data(), &mut go_on).unwrap());
    }
    assert_eq!((parts.to_arrays(), parts.steps()), (resumed.to_arrays(), 7));
    // The heads of a file are the same heads.
    let read = IlqlHeads::from_arrays(16, 7, Device::Cpu, &parts.heads().to_arrays()).unwrap();
    assert_eq!(read.to_arrays(), parts.heads().to_arrays());
    assert_eq!(read.copy().to_arrays().len(), 20);
}

// --- Random walks ---

const NODES: u32 = 21;
/// The most nodes of a walk, the first included.
const LONGEST: usize = 10;
/// Probability of an edge.
const EDGES: f64 = 0.12;

/// A random directed graph. Node 0 is the goal.
struct Graph {
    edges: Vec<Vec<u32>>,
    /// For each node, the number of edges on the shortest path to the goal.
    shortest: Vec<usize>,
}

impl Graph {
    fn new(stream: &mut Stream) -> Graph {
        loop {
            let mut edges: Vec<Vec<u32>> = (0..NODES)
                .map(|from| (0..NODES).filter(|&to| to != from && stream.random_bool(EDGES)).collect())
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

    fn walk(&self, stream: &mut Stream) -> ScoredCompletion {
        let start = stream.random_range(1..NODES);
        let (mut at, mut completion) = (start, Vec::new());
        while at != 0 && completion.len() < LONGEST - 1 {
            at = self.edges[at as usize][stream.random_range(0..self.edges[at as usize].len())];
            completion.push(at);
        }
        let score = self.optimality(start, &completion) as f32;
        ScoredCompletion { prompt: vec![start], completion, score }
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

/// The mean optimality of 1,000 random walks, and of what is written from each node with β = 0 and β = 100. τ and α are
/// those of trlX for its random walks.
fn walks(seed: u64, steps: u64) -> [f64; 3] {
    let mut stream = Seed(seed).stream("walks");
    let graph = Graph::new(&mut stream);
    let mut data: Vec<ScoredCompletion> = (0..1000).map(|_| graph.walk(&mut stream)).collect();
    let before = data.iter().map(|one| f64::from(one.score)).sum::<f64>() / data.len() as f64;
    standardise(&mut data);
    let config = ModelConfig::gpt2(NODES as usize, 16, 48, 2, 4);
    let model = Transformer::random(&config, Precision::F32, Device::Cpu, &mut Seed(seed).stream("weights"));
    let settings = IlqlSettings {
        batch_size: 100,
        tau: 0.8,
        alpha: 0.1,
        optimiser: OptimiserSettings { adam_eps: 1e-8, ..optimiser(1e-3) },
        ..IlqlSettings::default()
    };
    let mut trainer = Ilql::new(model, &settings, Seed(seed)).unwrap();
    trainer.plan(steps);
    for step in 0..steps {
        let stats = trainer.step(&data, &mut go_on).unwrap();
        if step % 100 == 0 {
            eprintln!("{step} {stats:?}");
        }
    }
    let starts: Vec<Vec<u32>> = (1..NODES).map(|start| vec![start]).collect();
    let prompts: Vec<&[u32]> = starts.iter().map(|start| &start[..]).collect();
    let reached = |beta: f64| {
        let sampling = Sampling { max_new_tokens: LONGEST - 1, stop: vec![0], seed: 1, ..Sampling::default() };
        let models = (trainer.model(), trainer.heads());
        let written = generate_by_values(models, &prompts, beta, &sampling, &mut |_, _| true);
        let scores = prompts.iter().zip(&written).map(|(start, one)| graph.optimality(start[0], &one.tokens));
        scores.sum::<f64>() / prompts.len() as f64
    };
    [before, reached(0.0), reached(100.0)]
}

#[test]
fn finds_shortest_paths_from_random_walks() {
    let [before, without, with] = walks(1, 300);
    assert!(with >= 0.87 && with > before.max(without) + 0.2, "{before} {without} {with}");
}

#[test]
#[ignore = "sixteen graphs, two minutes"]
fn finds_shortest_paths_on_every_graph() {
    let found: Vec<[f64; 3]> = (1..17).map(|seed| walks(seed, 600)).collect();
    println!("{found:.3?}");
    assert!(found.iter().all(|[_, _, with]| *with >= 0.87), "{found:.3?}");
}

/// A state of a walk: its start, the present node and the number of steps.
type State = (u32, u32, usize);

/// A language model whose hidden state is a vector of its own for every state of a walk.
struct States {
    /// `[states, d]`.
    vectors: Tensor,
    /// `[d, NODES]`.
    head: Tensor,
}

impl States {
    fn new(width: i64) -> States {
        let mut stream = Seed(9).stream("states");
        let mut uniform = |shape: [i64; 2]| {
            let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(|_| stream.random_range(-1.0..1.0)).collect();
            Tensor::from_slice(&numbers).reshape(shape).set_requires_grad(true)
        };
        let nodes = i64::from(NODES);
        States { vectors: uniform([nodes * nodes * LONGEST as i64, width]), head: uniform([nodes, width]) }
    }
}

impl LanguageModel for States {
    fn hidden(&self, ids: &Tensor, _mask: &Tensor, from: i64, _adapters: bool) -> Tensor {
        let width = ids.size()[1] as usize;
        let (nodes, steps) = (i64::from(NODES), LONGEST as i64);
        let rows = Vec::<i64>::try_from(ids.flatten(0, 1)).unwrap();
        let states = rows.chunks_exact(width).flat_map(|row| {
            let state = move |(step, node): (usize, &i64)| (row[0] * nodes + node) * steps + step as i64;
            row.iter().enumerate().map(state)
        });
        let states = Tensor::from_slice(&states.collect::<Vec<i64>>()).reshape([-1, width as i64]);
        Tensor::embedding(&self.vectors, &states, -1, false, false).narrow(1, from, width as i64 - from)
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.head, None::<Tensor>)
    }

    fn width(&self) -> usize {
        self.vectors.size()[1] as usize
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        vec![("vectors".to_owned(), self.vectors.shallow_clone()), ("logits".to_owned(), self.head.shallow_clone())]
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn complete(
        &self,
        _prompts: &[&[u32]],
        _sampling: &AncestralSampling,
        _on_column: &mut dyn FnMut() -> bool,
    ) -> Vec<SampledCompletion> {
        panic!("nothing is written here")
    }
}

/// The τ-expectile of values with weights: where τ times the distance of those above equals 1 − τ times that of those
/// below.
fn expectile(values: &[(f64, f64)], tau: f64) -> f64 {
    let (mut low, mut high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let pull = |(x, n): &(f64, f64)| n * (x - middle) * if *x > middle { tau } else { 1.0 - tau };
        if values.iter().map(pull).sum::<f64>() > 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// V by backward induction: the τ-expectile of Q over the walks that pass a state, Q = r + γ V. With the number of
/// walks that pass it.
fn backward_induction(data: &[ScoredCompletion], tau: f64, gamma: f64) -> BTreeMap<State, (f64, usize)> {
    let mut values: BTreeMap<State, (f64, usize)> = BTreeMap::new();
    for step in (0..LONGEST).rev() {
        let mut q: BTreeMap<State, BTreeMap<u32, (f64, f64)>> = BTreeMap::new();
        for one in data.iter().filter(|one| step < one.completion.len()) {
            let (start, next) = (one.prompt[0], one.completion[step]);
            let node = if step == 0 { start } else { one.completion[step - 1] };
            let is_last = step + 1 == one.completion.len();
            let reward = if is_last { f64::from(one.score) } else { gamma * values[&(start, next, step + 1)].0 };
            let (sum, count) = q.entry((start, node, step)).or_default().entry(next).or_default();
            (*sum, *count) = (*sum + reward, *count + 1.0);
        }
        for (state, actions) in q {
            let actions: Vec<(f64, f64)> = actions.values().map(|(sum, count)| (sum / count, *count)).collect();
            let count = actions.iter().map(|(_, count)| count).sum::<f64>() as usize;
            values.insert(state, (expectile(&actions, tau), count));
        }
    }
    values
}

#[test]
fn v_is_the_expectile_of_q_by_backward_induction() {
    let mut stream = Seed(1).stream("walks");
    let graph = Graph::new(&mut stream);
    let mut data: Vec<ScoredCompletion> = (0..1000).map(|_| graph.walk(&mut stream)).collect();
    standardise(&mut data);
    let settings = IlqlSettings {
        batch_size: 250,
        tau: 0.8,
        gamma: 0.99,
        // Both would move Q away from r + γ V.
        cql_scale: 0.0,
        awac_scale: 0.0,
        alpha: 0.5,
        optimiser: OptimiserSettings { adam_eps: 1e-8, max_grad_norm: 0.0, ..optimiser(1e-2) },
        ..IlqlSettings::default()
    };
    let mut trainer = Ilql::new(States::new(48), &settings, Seed(1)).unwrap();
    trainer.plan(600);
    for step in 0..600 {
        let stats = trainer.step(&data, &mut go_on).unwrap();
        if step % 100 == 0 {
            eprintln!("{step} {stats:?}");
        }
    }
    let expected = backward_induction(&data, 0.8, 0.99);
    let (mut error, mut spread, mut visits, mut mean) = (0.0, 0.0, 0.0, 0.0);
    let total: f64 = expected.values().map(|(v, count)| v * *count as f64).sum();
    let all: f64 = expected.values().map(|(_, count)| *count as f64).sum();
    for (&(start, node, step), &(v, count)) in &expected {
        let place = (i64::from(start) * i64::from(NODES) + i64::from(node)) * LONGEST as i64 + step as i64;
        let found = trainer.heads().v(&trainer.model().vectors.get(place).unsqueeze(0)).double_value(&[0]);
        error += count as f64 * (found - v).powi(2);
        spread += count as f64 * (v - total / all).powi(2);
        visits += count as f64;
        mean += count as f64 * (found - v);
    }
    let (error, spread, bias) = ((error / visits).sqrt(), (spread / visits).sqrt(), mean / visits);
    eprintln!("error {error:.4}, spread {spread:.4}, bias {bias:.4}, states {}", expected.len());
    assert!(error < 0.1 * spread && bias.abs() < 0.03, "{error} {spread} {bias}");
}
