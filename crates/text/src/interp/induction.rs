//! A model that has learnt to copy what followed a token before, with the heads that are known to do it (Olsson et al.
//! 2022).

use super::*;
use crate::config::ModelConfig;
use crate::model::{Precision, Site, Tensors, Transformer};
use flipside_core::{Seed, Stream};
use flipside_learn::Adam;
use rand::RngExt;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

const VOCABULARY: u32 = 32;
const LENGTH: usize = 32;

/// A text of random tokens in which a block of random length comes twice, and the places of the second copy from its
/// second token on.
fn repeating(stream: &mut Stream) -> (Vec<u32>, Range<usize>) {
    let mut tokens: Vec<u32> = (0..LENGTH).map(|_| stream.random_range(0..VOCABULARY)).collect();
    // With one length and learnt positions, the model would read by position.
    let length = stream.random_range(4..=12_usize);
    let start = stream.random_range(0..=LENGTH - 2 * length);
    let gap = stream.random_range(0..=LENGTH - 2 * length - start);
    let second = start + length + gap;
    tokens.copy_within(start..start + length, second);
    (tokens, second + 1..second + length)
}

/// Rows of tokens, `[B, T]`, and which of them count in the loss, `[B, T]`.
fn batch(rows: usize, stream: &mut Stream) -> (Tensor, Tensor) {
    let (mut ids, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let (tokens, second) = repeating(stream);
        ids.extend(tokens.iter().map(|&token| i64::from(token)));
        counts.extend((0..LENGTH).map(|at| if second.contains(&at) { 1.0_f32 } else { 0.0 }));
    }
    let shape = [rows as i64, LENGTH as i64];
    (Tensor::from_slice(&ids).reshape(shape), Tensor::from_slice(&counts).reshape(shape))
}

/// Mean negative log-likelihood of the tokens that count, from hidden states, nats.
fn loss(model: &Transformer, hidden: &Tensor, ids: &Tensor, counts: &Tensor) -> Tensor {
    let most = LENGTH as i64 - 1;
    let log_probs = model.logits(&hidden.narrow(1, 0, most)).log_softmax(-1, Kind::Float);
    let next = log_probs.gather(-1, &ids.narrow(1, 1, most).unsqueeze(-1), false).squeeze_dim(-1);
    let counts = counts.narrow(1, 1, most);
    -(next * &counts).sum(Kind::Float) / counts.sum(Kind::Float)
}

/// Two blocks that only attend, with an initial standard deviation of 0.1, after 600 steps.
fn trained(stream: &mut Stream) -> Transformer {
    let config = ModelConfig { tied: false, ..ModelConfig::gpt2(VOCABULARY as usize, LENGTH, 64, 2, 2) };
    let random = Transformer::random(&config, Precision::F32, Device::Cpu, stream);
    let wide = |(name, x): (String, Tensor)| {
        let wider = if name.contains("attn.c_proj") { &x * 10.0 } else { &x * 5.0 };
        let x = if name.contains("mlp.c_proj") { x.zeros_like() } else { x };
        let is_wide = x.dim() == 2 && !name.contains("mlp.c_proj");
        (name, if is_wide { wider } else { x })
    };
    let all: Tensors = random.tensors().into_iter().map(wide).collect();
    let model = Transformer::from_tensors(&config, all, Precision::F32, Device::Cpu).unwrap();
    let mut weights: Vec<Tensor> =
        model.trainable().into_iter().filter(|(name, _)| !name.contains("mlp")).map(|(_, x)| x).collect();
    let mut adam = Adam::new(&weights.iter().collect::<Vec<_>>(), 1e-8);
    for _ in 0..600 {
        let (ids, counts) = batch(32, stream);
        let hidden = model.hidden_for_loss(&ids, &ids.ones_like(), 0, None);
        let loss = loss(&model, hidden.states(), &ids, &counts);
        let mut gradients = Vec::new();
        hidden.gradients(&loss, &weights, &mut |found| gradients = found).unwrap();
        adam.step(&mut weights.iter_mut().collect::<Vec<_>>(), &gradients, 2e-3);
    }
    model
}

/// The second block looks behind the earlier copy, the first at the token before.
#[test]
fn induction_heads_form_and_are_found() {
    let mut stream = Seed(1).stream("induction");
    let model = trained(&mut stream);
    let subject = Subject::new(&model, false).unwrap();
    const TEXTS: usize = 20;
    let (mut induction, mut previous) = ([0.0; 2], [0.0; 2]);
    for _ in 0..TEXTS {
        let (tokens, second) = repeating(&mut stream);
        let patterns = patterns(&subject, &subject.tokens(&tokens).unwrap()).unwrap();
        for block in 0..2 {
            let heads = patterns.get(block as i64);
            // The earlier copy is found by its tokens, not by where it was put.
            let copied = (0..tokens.len() - second.len()).find(|&at| {
                at + 1 < second.start && tokens[at..=at + second.len()] == tokens[second.start - 1..second.end]
            });
            let gap = second.start - 1 - copied.unwrap();
            let behind = second.clone().map(|query| heads.select(1, query as i64).select(1, (query + 1 - gap) as i64));
            let behind: Vec<Tensor> = behind.collect();
            induction[block] += Tensor::stack(&behind, 0).mean_dim(0, false, Kind::Float).max().double_value(&[]);
            let scores = head_scores(&patterns, &tokens);
            previous[block] += scores.previous.get(block as i64).max().double_value(&[]);
        }
    }
    let [induction, previous] = [induction, previous].map(|sums| sums.map(|sum| sum / TEXTS as f64));
    assert!(induction[1] > 0.35 && induction[0] < 0.15, "{induction:?}");
    assert!(previous[0] > 0.2 && previous[0] > previous[1], "{previous:?}");
    // `head_scores` looks for any token that came before, and finds the same heads in texts that repeat as a whole.
    let block: Vec<u32> = (0..12).map(|_| stream.random_range(0..VOCABULARY)).collect();
    let twice = [&block[..], &block].concat();
    let scores = head_scores(&patterns(&subject, &subject.tokens(&twice).unwrap()).unwrap(), &twice);
    let of = |block: i64| scores.induction.get(block).max().double_value(&[]);
    assert!(of(1) > 0.25 && of(1) > 2.0 * of(0), "{} {}", of(0), of(1));
    // The heads of a block stand in for each other, so whole blocks are ablated.
    let (ids, counts) = batch(64, &mut stream);
    let read = |edits: &[Edit]| {
        let trace = subject.trace(Start::Tokens(&ids), &Default::default(), edits).unwrap();
        tch::no_grad(|| loss(&model, &trace.normed, &ids, &counts)).double_value(&[])
    };
    let without = |block: usize| read(&[Edit::whole(Site::Z.of(block), Change::Scale(0.0))]);
    let (whole, first, second) = (read(&[]), without(0), without(1));
    assert!(whole < 1.5 && first > whole + 1.0 && second > whole + 1.0, "{whole} {first} {second}");
}
