//! A model whose workings are known, because its single head was written by hand.

use super::*;
use crate::config::ModelConfig;
use crate::model::{Precision, Site, Tensors, Transformer};
use flipside_core::Seed;
use tch::{Device, Kind, Tensor};

/// V tokens and an asking token; embeddings are one-hot, the asker's on axis V, and position 2 adds axis V + 1. Head 0
/// looks from the asker to position 2 and copies its token; the other head and the MLP are 0.
fn planted() -> Transformer {
    const V: i64 = 8;
    let d = V + 2;
    let config =
        ModelConfig { head_width: 8, heads: 2, kv_heads: 2, ..ModelConfig::gpt2(V as usize + 1, 6, d as usize, 1, 1) };
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let set = |x: &Tensor, row: i64, column: i64, value: f64| drop(x.get(row).get(column).fill_(value));
    let random = Transformer::random(&config, Precision::F32, Device::Cpu, &mut Seed(0).stream("planted"));
    let mut all: Tensors = random.tensors();
    for (name, x) in &mut all {
        *x = match name.as_str() {
            "transformer.wte.weight" => Tensor::eye_m(V + 1, d, (Kind::Float, Device::Cpu)),
            _ if x.dim() == 1 && name.ends_with("weight") => x.ones_like(),
            _ => zeros(&x.size()),
        };
    }
    set(&all["transformer.wpe.weight"], 2, V + 1, 1.0);
    // [d, queries | keys | values], each of two heads of 8.
    let input = &all["transformer.h.0.attn.c_attn.weight"];
    set(input, V, 0, 8.0);
    set(input, V + 1, 16, 8.0);
    for axis in 0..V {
        set(input, axis, 32 + axis, 1.0);
        set(&all["transformer.h.0.attn.c_proj.weight"], axis, axis, 3.0);
    }
    Transformer::from_tensors(&config, all, Precision::F32, Device::Cpu).unwrap()
}

#[test]
fn a_planted_head_is_found_by_every_method() {
    let model = planted();
    let subject = Subject::new(&model, false).unwrap();
    let (tokens, others) = ([0, 1, 2, 3, 4, 8], [0, 1, 6, 3, 4, 8]);
    let [a, b] = [&tokens, &others].map(|tokens| subject.tokens(tokens).unwrap());
    let metric = Metric::LogitDifference { better: 2, worse: 6, position: 5 };
    let run = Run { subject, tokens: &a };
    // (6 + 1.5) / 2.26991: the copied token's axis against another's, over the standard deviation of the sum.
    assert!((run.metric(metric).unwrap() - 3.304_087).abs() < 1e-5);
    let patterns = patterns(&subject, &a).unwrap();
    assert!((patterns.double_value(&[0, 0, 5, 2]) - 1.0).abs() < 1e-6);

    let direction = Direction::logit_difference(&subject, 2, 6).unwrap();
    let found = attribution(&subject, &a, &direction).unwrap();
    for (name, value) in found.named(5) {
        let expected = if name == "L0H0" { 3.304_087 } else { 0.0 };
        assert!((value - expected).abs() < 1e-5, "{name}: {value}");
        assert!(name != "L0H1" || value == 0.0);
    }
    let ablated = ablate(run, metric, Replacement::Zero, &mut |_| false).unwrap();
    assert!((ablated.whole + ablated.changes.double_value(&[0, 0])).abs() < 1e-5);
    assert_eq!(ablated.changes.double_value(&[0, 1]), 0.0);

    let scores = patch(run, Run { subject, tokens: &b }, metric, Grid::Heads(Site::Z), &mut |_| false).unwrap().scores;
    assert!((scores.double_value(&[0, 0]) - 1.0).abs() < 1e-6);
    assert_eq!(scores.double_value(&[0, 1]), 0.0);
    // The token comes in at position 2 and goes out at the last one.
    let grid = Grid::HeadPositions;
    let scores = patch(run, Run { subject, tokens: &b }, metric, grid, &mut |_| false).unwrap().scores;
    assert!((scores.double_value(&[0, 0, 5]) - 1.0).abs() < 1e-6 && scores.double_value(&[0, 0, 2]).abs() < 1e-6);
    let grid = Grid::Positions(Site::ResidPre);
    let scores = patch(run, Run { subject, tokens: &b }, metric, grid, &mut |_| false).unwrap().scores;
    assert!((scores.double_value(&[0, 2]) - 1.0).abs() < 1e-6 && scores.double_value(&[0, 5]).abs() < 1e-6);
}
