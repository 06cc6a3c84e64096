//! A model that has learnt to copy what followed a token before, with the heads that are known to do it (Olsson et al.
//! 2022).

use super::tests::normal;
use super::*;
use crate::config::ModelConfig;
use crate::model::{Precision, Site, Transformer};
use flipside_core::{Seed, Stream};
use flipside_learn::Adam;
use rand::RngExt;
use std::collections::BTreeSet;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

const VOCABULARY: u32 = 64;
const LENGTH: usize = 48;

/// A text of random tokens in which a block comes twice.
struct Repeating {
    tokens: Vec<u32>,
    /// How far the second copy is behind the first.
    distance: usize,
    /// The places of the second copy from its second token on. The one before each can foretell it.
    foretold: Range<usize>,
}

impl Repeating {
    fn new(stream: &mut Stream) -> Repeating {
        let mut tokens: Vec<u32> = (0..LENGTH).map(|_| stream.random_range(0..VOCABULARY)).collect();
        // With one length and learnt positions, the model would read by position. With short blocks, little of a text
        // can be foretold, and the heads take many more steps to form.
        let length = stream.random_range(14..=24_usize);
        let start = stream.random_range(0..=LENGTH - 2 * length);
        let gap = stream.random_range(0..=LENGTH - 2 * length - start);
        let second = start + length + gap;
        tokens.copy_within(start..start + length, second);
        Repeating { tokens, distance: length + gap, foretold: second + 1..second + length }
    }
}

/// Rows of tokens, `[B, T]`, and which of them count in the loss, `[B, T]`.
fn batch(rows: usize, stream: &mut Stream) -> (Tensor, Tensor) {
    let (mut ids, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let text = Repeating::new(stream);
        ids.extend(text.tokens.iter().map(|&token| i64::from(token)));
        counts.extend((0..LENGTH).map(|at| if text.foretold.contains(&at) { 1.0_f32 } else { 0.0 }));
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

/// Two blocks that only attend, with an initial standard deviation of 0.1, after 500 steps.
fn trained(stream: &mut Stream) -> Transformer {
    // A token that is copied is written into the stream by another matrix than it was read by.
    let config = ModelConfig { tied: false, ..ModelConfig::gpt2(VOCABULARY as usize, LENGTH, 64, 2, 2) };
    let random = Transformer::random(&config, Precision::F32, Device::Cpu, stream);
    let drawn = random.tensors().into_iter().map(|(name, x)| {
        let x = match x.dim() {
            2 if name.contains("mlp.c_proj") => x.zeros_like(),
            2 => normal(&x.size(), 0.1, stream),
            _ => x,
        };
        (name, x)
    });
    let model = Transformer::from_tensors(&config, drawn.collect(), Precision::F32, Device::Cpu).unwrap();
    let mut weights: Vec<Tensor> =
        model.trainable().into_iter().filter(|(name, _)| !name.contains("mlp")).map(|(_, x)| x).collect();
    let mut adam = Adam::new(&weights.iter().collect::<Vec<_>>(), 1e-8);
    for _ in 0..500 {
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
    // [block][head].
    let (mut induction, mut previous) = ([[0.0; 2]; 2], [[0.0; 2]; 2]);
    for _ in 0..TEXTS {
        let Repeating { tokens, distance, foretold } = Repeating::new(&mut stream);
        let patterns = patterns(&subject, &subject.tokens(&tokens).unwrap()).unwrap();
        let before = head_scores(&patterns, &tokens).previous;
        for (block, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let pattern = patterns.get(block as i64).get(head as i64);
            // From the token before a foretold one to what followed it in the first copy.
            let behind = |at: usize| pattern.double_value(&[at as i64 - 1, (at - distance) as i64]);
            let sum: f64 = foretold.clone().map(behind).sum();
            induction[block][head] += sum / (foretold.len() * TEXTS) as f64;
            previous[block][head] += before.double_value(&[block as i64, head as i64]) / TEXTS as f64;
        }
    }
    let most = |scores: [f64; 2]| scores[0].max(scores[1]);
    assert!(most(induction[1]) > 0.6 && most(induction[0]) < 0.05, "{induction:?}");
    assert!(most(previous[0]) > 0.2 && most(previous[1]) < 0.1, "{previous:?}");
    // `head_scores` looks for any token that came before, and finds the same heads in a text that repeats as a whole.
    let block: Vec<u32> = (0..24).map(|_| stream.random_range(0..VOCABULARY)).collect();
    let twice = [&block[..], &block].concat();
    let scores = head_scores(&patterns(&subject, &subject.tokens(&twice).unwrap()).unwrap(), &twice);
    let of = |block: i64| scores.induction.get(block).max().double_value(&[]);
    assert!(of(1) > 0.5 && of(0) < 0.1, "{} {}", of(0), of(1));
    // The heads of a block stand in for each other, so whole blocks are ablated. Without one, the model foretells worse
    // than one that knows nothing.
    let (ids, counts) = batch(64, &mut stream);
    let read = |edits: &[Edit]| {
        let trace = subject.trace(Start::Tokens(&ids), &BTreeSet::new(), edits).unwrap();
        tch::no_grad(|| loss(&model, &trace.normed, &ids, &counts)).double_value(&[])
    };
    let without = |block: usize| read(&[Edit::whole(Site::Z.of(block), Change::Scale(0.0))]);
    let (whole, first, second) = (read(&[]), without(0), without(1));
    let uniform = f64::from(VOCABULARY).ln();
    assert!(whole < 1.0 && first > uniform && second > uniform, "{whole} {first} {second}");
}
