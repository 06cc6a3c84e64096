//! The identities that looking inside must keep, on small models with random weights.

use super::*;
use crate::config::ModelConfig;
use crate::generate::{Sampling, generate};
use crate::lora::LoraSettings;
use crate::model::{HookPoint, Precision, Site, Tensors, Transformer};
use flipside_core::{Arrays, Seed, Stream};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::collections::BTreeSet;
use tch::{Device, Kind, Tensor};

const TOKENS: [u32; 9] = [3, 14, 15, 9, 26, 5, 35, 8, 9];
const OTHER: [u32; 9] = [2, 7, 18, 28, 18, 28, 4, 5, 9];

/// Numbers from a normal distribution with this standard deviation.
pub(super) fn normal(shape: &[i64], scale: f64, stream: &mut Stream) -> Tensor {
    let count: i64 = shape.iter().product();
    let numbers: Vec<f32> = (0..count)
        .map(|_| {
            let z: f32 = StandardNormal.sample(stream);
            z * scale as f32
        })
        .collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

fn gpt2() -> ModelConfig {
    ModelConfig::gpt2(40, 16, 24, 3, 3)
}

/// A configuration of the Llama family: three blocks, four heads over two key heads.
pub fn llama(model_type: &str, class: &str, more: &str) -> ModelConfig {
    let text = format!(
        r#"{{"model_type": "{model_type}", "architectures": ["{class}"], "vocab_size": 40, "hidden_size": 24,
        "intermediate_size": 36, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 500.0, "head_dim": 6{more}}}"#
    );
    ModelConfig::from_json(&text).unwrap()
}

fn configs() -> Vec<ModelConfig> {
    let window = r#", "sliding_window": 4, "query_pre_attn_scalar": 12, "hidden_activation": "gelu_pytorch_tanh""#;
    vec![
        gpt2(),
        llama("llama", "LlamaForCausalLM", r#", "tie_word_embeddings": false, "hidden_act": "silu""#),
        llama("qwen3", "Qwen3ForCausalLM", r#", "tie_word_embeddings": true, "hidden_act": "silu""#),
        llama(
            "phi3",
            "Phi3ForCausalLM",
            r#", "tie_word_embeddings": false, "hidden_act": "silu", "sliding_window": 5"#,
        ),
        llama(
            "gemma2",
            "Gemma2ForCausalLM",
            &format!(r#"{window}, "attn_logit_softcapping": 8.0, "final_logit_softcapping": 6.0"#),
        ),
        llama("olmo2", "Olmo2ForCausalLM", r#", "tie_word_embeddings": false, "hidden_act": "silu""#),
    ]
}

/// Weights that are large enough for every part to matter.
fn weights(config: &ModelConfig, seed: u64) -> Tensors {
    let mut stream = Seed(seed).stream("interp");
    let random = Transformer::random(config, Precision::F32, Device::Cpu, &mut stream);
    let draw = |(name, tensor): (String, Tensor)| {
        let shape = tensor.size();
        let drawn = match shape.len() {
            1 if name.ends_with("bias") => normal(&shape, 0.2, &mut stream),
            1 => tensor + normal(&shape, 0.2, &mut stream),
            _ => normal(&shape, 0.3, &mut stream),
        };
        (name, drawn)
    };
    random.tensors().into_iter().map(draw).collect()
}

fn model(config: &ModelConfig, seed: u64) -> Transformer {
    Transformer::from_tensors(config, weights(config, seed), Precision::F32, Device::Cpu).unwrap()
}

/// The model with adapters on every layer whose products are not 0, or are.
fn adapted(config: &ModelConfig, seed: u64, scale: f64) -> Transformer {
    let mut model = model(config, seed);
    let mut stream = Seed(seed).stream("adapters");
    let settings = LoraSettings { rank: 2, alpha: 3.0, targets: vec![], ..LoraSettings::default() };
    model.attach(&settings, &mut stream).unwrap();
    for linear in model.linears_mut() {
        let lora = linear.lora.as_mut().unwrap();
        lora.b = normal(&lora.b.size(), scale, &mut stream);
    }
    model
}

fn rows(subject: &Subject) -> Tensor {
    subject.rows(&[&TOKENS, &OTHER]).unwrap()
}

fn farthest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn fast_logits(model: &Transformer, ids: &Tensor, adapters: bool) -> Tensor {
    tch::no_grad(|| model.logits(&model.hidden(ids, &ids.ones_like(), None, adapters)))
}

fn nothing() -> BTreeSet<HookPoint> {
    BTreeSet::new()
}

#[test]
fn a_traced_pass_computes_what_the_fast_pass_does() {
    for config in configs() {
        let model = adapted(&config, 1, 0.3);
        for adapters in [false, true] {
            let subject = Subject::new(&model, adapters).unwrap();
            let ids = rows(&subject);
            let trace = subject.trace(Start::Tokens(&ids), &nothing(), &[]).unwrap();
            let logits = tch::no_grad(|| subject.unembed(&trace.normed));
            let error = farthest(&logits, &fast_logits(&model, &ids, adapters));
            assert!(error < 1e-4, "{:?} with adapters {adapters}: {error}", config.family);
        }
    }
    let side_by_side = ModelConfig { parallel: true, ..gpt2() };
    assert!(Subject::new(&model(&side_by_side, 1), false).is_err());
}

#[test]
fn sums_over_bf16_weights_are_in_f32() {
    for config in configs() {
        let all = weights(&config, 2);
        let rounded =
            all.iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(Kind::BFloat16).to_kind(Kind::Float)));
        let make = |all: Tensors, precision| Transformer::from_tensors(&config, all, precision, Device::Cpu).unwrap();
        let wide = make(rounded.collect(), Precision::F32);
        // Norms stay in f32, so they are given rounded in both.
        let copies = wide.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        let half = make(copies, Precision::Bf16);
        let subject = Subject::new(&half, false).unwrap();
        let ids = rows(&subject);
        let trace = subject.trace(Start::Tokens(&ids), &nothing(), &[]).unwrap();
        let error = farthest(&tch::no_grad(|| subject.unembed(&trace.normed)), &fast_logits(&wide, &ids, false));
        // Gemma rounds the factor of its embeddings to the model's precision.
        let allowed = if config.embedding_scale.is_some() { 0.1 } else { 1e-4 };
        assert!(error < allowed && trace.end.kind() == Kind::Float, "{:?}: {error}", config.family);
    }
}

#[test]
fn activations_have_their_shapes_and_add_up() {
    for config in configs() {
        let model = model(&config, 3);
        let subject = Subject::new(&model, false).unwrap();
        let ids = rows(&subject);
        let all = subject.sites(&["*"]).unwrap();
        let trace = subject.trace(Start::Tokens(&ids), &all, &[]).unwrap();
        let [b, t] = [2, TOKENS.len() as i64];
        let [d, inner, heads, kv, head] =
            [config.width, config.inner, config.heads, config.kv_heads, config.head_width].map(|n| n as i64);
        for (point, x) in trace.activations() {
            let shape = match point.site {
                Site::Q | Site::RotQ | Site::Z => vec![b, t, heads, head],
                Site::K | Site::V | Site::RotK => vec![b, t, kv, head],
                Site::AttnScores | Site::Pattern => vec![b, heads, t, t],
                Site::MlpPre | Site::MlpPreLinear | Site::MlpPost => vec![b, t, inner],
                Site::Ln1Scale | Site::Ln2Scale | Site::LnFinalScale => vec![b, t, 1],
                _ => vec![b, t, d],
            };
            assert_eq!(x.size(), shape, "{point}");
        }
        for point in subject.in_every_block(Site::Pattern) {
            let pattern = trace.get(point.site, point.block).unwrap();
            let sums = pattern.sum_dim_intlist(-1, false, Kind::Float);
            assert!(farthest(&sums, &sums.ones_like()) < 1e-6);
            assert_eq!(pattern.triu(1).abs().max().double_value(&[]), 0.0);
        }
        let mut sum = trace.get(Site::Embed, 0).unwrap().shallow_clone();
        for point in all.iter().filter(|point| matches!(point.site, Site::PosEmbed | Site::AttnOut | Site::MlpOut)) {
            sum += trace.get(point.site, point.block).unwrap();
        }
        assert!(farthest(&sum, &trace.end) < 1e-5);
        assert!(trace.get(Site::ResidPost, config.layers - 1).unwrap().equal(&trace.end));
    }
    let model = model(&gpt2(), 3);
    let subject = Subject::new(&model, false).unwrap();
    assert_eq!(subject.sites(&["blocks.*.attn.hook_z", "hook_embed"]).unwrap().len(), 4);
    for wrong in
        ["blocks.3.attn.hook_z", "attn.hook_z", "hook_embe", "blocks.*.attn.hook_rot_q", "blocks.0.mlp.hook_pre_linear"]
    {
        assert!(subject.sites(&[wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn putting_back_what_was_there_changes_no_bit() {
    for config in configs() {
        let model = adapted(&config, 4, 0.3);
        let subject = Subject::new(&model, true).unwrap();
        let ids = rows(&subject);
        let all = subject.sites(&["*"]).unwrap();
        let trace = subject.trace(Start::Tokens(&ids), &all, &[]).unwrap();
        let again = |edits: &[Edit]| subject.trace(Start::Tokens(&ids), &nothing(), edits).unwrap().normed;
        assert!(again(&[]).equal(&trace.normed), "asking for nothing changes nothing");
        for &at in &all {
            let mut edits = vec![
                Edit::whole(at, Change::From(&trace)),
                Edit { row: Some(1), positions: Some(vec![4, 1]), ..Edit::whole(at, Change::From(&trace)) },
                Edit::whole(at, Change::Value(trace.get(at.site, at.block).unwrap().copy())),
                Edit::whole(at, Change::Scale(1.0)),
            ];
            if at.site.head_axis().is_some() {
                edits.push(Edit { head: Some(1), positions: Some(vec![2]), ..Edit::whole(at, Change::From(&trace)) });
            }
            assert!(again(&edits).equal(&trace.normed), "{at} of {:?}", config.family);
        }
        // From the residual stream before a block on, it is the same run.
        let before = trace.get(Site::ResidPre, 1).unwrap();
        let rest = subject.trace(Start::Residual(1, before), &nothing(), &[]).unwrap();
        assert!(rest.normed.equal(&trace.normed));
    }
}

#[test]
fn an_edit_changes_what_it_selects_and_nothing_else() {
    let model = model(&gpt2(), 5);
    let subject = Subject::new(&model, false).unwrap();
    let ids = rows(&subject);
    let at = Site::Z.of(1);
    let wanted: BTreeSet<_> = [at, Site::Z.of(0), Site::Pattern.of(1)].into();
    let plain = subject.trace(Start::Tokens(&ids), &wanted, &[]).unwrap();
    let edit = |change| Edit { row: Some(1), head: Some(2), positions: Some(vec![3, 5]), ..Edit::whole(at, change) };
    let changed = |change| {
        let trace = subject.trace(Start::Tokens(&ids), &wanted, &[edit(change)]).unwrap();
        assert!(trace.get(Site::Z, 0).unwrap().equal(plain.get(Site::Z, 0).unwrap()));
        assert!(!trace.normed.equal(&plain.normed) && trace.normed.get(0).equal(&plain.normed.get(0)));
        trace.get(Site::Z, 1).unwrap().shallow_clone()
    };
    let expected = |with: &dyn Fn(&Tensor) -> Tensor| {
        let x = plain.get(Site::Z, 1).unwrap().copy();
        for position in [3, 5] {
            let mut part = x.get(1).get(position).get(2);
            part.copy_(&with(&part.copy()));
        }
        x
    };
    let value = normal(&[8], 1.0, &mut Seed(1).stream("value"));
    assert!(changed(Change::Value(value.shallow_clone())).equal(&expected(&|_| value.shallow_clone())));
    assert!(changed(Change::Add(value.shallow_clone())).equal(&expected(&|x| x + &value)));
    assert!(changed(Change::Scale(0.0)).equal(&expected(&|x| x.zeros_like())));
    let other =
        subject.trace(Start::Tokens(&subject.tokens(&OTHER[1..].repeat(2)[..9]).unwrap()), &wanted, &[]).unwrap();
    let places = std::cell::Cell::new(0);
    let from_other = expected(&|_| {
        let place = [3, 5][places.replace(places.get() + 1)];
        other.get(Site::Z, 1).unwrap().get(0).get(place).get(2)
    });
    assert!(changed(Change::From(&other)).equal(&from_other));
    // Scores of −∞ but one make the pattern a single 1.
    let scores = Tensor::full([1, 1, 1, 9], f64::NEG_INFINITY, (Kind::Float, Device::Cpu));
    let _ = scores.narrow(3, 4, 1).fill_(0.0);
    let one =
        Edit { head: Some(0), positions: Some(vec![8]), ..Edit::whole(Site::AttnScores.of(1), Change::Value(scores)) };
    let trace = subject.trace(Start::Tokens(&ids), &wanted, &[one]).unwrap();
    assert_eq!(trace.get(Site::Pattern, 1).unwrap().double_value(&[1, 0, 8, 4]), 1.0);
    let wrong = [
        Edit { positions: Some(vec![9]), ..Edit::whole(at, Change::Scale(0.0)) },
        Edit { head: Some(3), ..Edit::whole(at, Change::Scale(0.0)) },
        Edit { row: Some(2), ..Edit::whole(at, Change::Scale(0.0)) },
        Edit { head: Some(0), ..Edit::whole(Site::MlpOut.of(0), Change::Scale(0.0)) },
        Edit::whole(Site::Z.of(3), Change::Scale(0.0)),
        Edit::whole(Site::RotQ.of(0), Change::Scale(0.0)),
        Edit::whole(at, Change::Value(Tensor::zeros([5], (Kind::Float, Device::Cpu)))),
        Edit::whole(Site::MlpOut.of(0), Change::From(&plain)),
    ];
    for edit in wrong {
        assert!(subject.trace(Start::Tokens(&ids), &nothing(), &[edit]).is_err());
    }
    let late = Edit::whole(at, Change::Scale(0.0));
    let start = plain.end.copy();
    assert!(subject.trace(Start::Residual(2, &start), &nothing(), &[late]).is_err(), "the pass does not come by it");
    assert!(subject.tokens(&[]).is_err() && subject.tokens(&[40]).is_err() && subject.tokens(&[1; 17]).is_err());
    assert!(subject.rows(&[&[1, 2], &[1]]).is_err());
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let metric = Metric::LogitDifference { better: 4, worse: 11, position: 8 };
    for config in configs() {
        let model = model(&config, 6);
        let subject = Subject::new(&model, false).unwrap();
        let ids = subject.tokens(&TOKENS).unwrap();
        let wanted: BTreeSet<HookPoint> =
            [Site::ResidPre.of(1), Site::Z.of(1), Site::Pattern.of(2), Site::K.of(0), Site::MlpOut.of(2)].into();
        let read = |trace: &Trace| metric.read(&subject, &trace.normed, &ids).unwrap();
        let (_, gradients) = subject.gradients(&ids, &wanted, &read).unwrap();
        for (&at, gradient) in &gradients {
            let direction = normal(&gradient.size(), 1.0, &mut Seed(2).stream("direction"));
            let step = 1e-2 / direction.norm().double_value(&[]);
            let moved = |sign: f64| {
                let edit = Edit::whole(at, Change::Add(&direction * (sign * step)));
                let trace = subject.trace(Start::Tokens(&ids), &nothing(), &[edit]).unwrap();
                tch::no_grad(|| read(&trace)).double_value(&[0])
            };
            let (found, guess) = ((moved(1.0) - moved(-1.0)) / 2.0, (gradient * &direction * step).sum(Kind::Double));
            let guess = guess.double_value(&[]);
            assert!((found - guess).abs() < 2e-5 + 0.01 * guess.abs(), "{at} of {:?}: {found} {guess}", config.family);
        }
    }
}

#[test]
fn contributions_add_up_to_what_they_explain() {
    for config in &configs()[..4] {
        let model = adapted(config, 7, 0.3);
        let weight = normal(&[config.width as i64], 1.0, &mut Seed(3).stream("head"));
        let mut sums = vec![];
        for adapters in [false, true] {
            let subject = Subject::new(&model, adapters).unwrap();
            let ids = subject.tokens(&TOKENS).unwrap();
            let logits = fast_logits(&model, &ids, adapters).get(0);
            let column = |token: i64| logits.select(-1, token);
            let hidden = tch::no_grad(|| model.hidden(&ids, &ids.ones_like(), None, adapters)).get(0);
            for (direction, expected) in [
                (Direction::logit_difference(&subject, 4, 11).unwrap(), column(4) - column(11)),
                (Direction::logit(&subject, 4).unwrap(), column(4) - logits.mean_dim(-1, false, Kind::Float)),
                (Direction::linear(&subject, &weight, 0.7).unwrap(), hidden.matmul(&weight) + 0.7),
            ] {
                let found = attribution(&subject, &ids, &direction).unwrap();
                assert!(farthest(&found.sum(), &expected) < 1e-4 && farthest(&found.total, &expected) < 1e-4);
                let named: f64 = found.named(8).iter().map(|(_, value)| value).sum();
                assert!((named - expected.double_value(&[8])).abs() < 1e-4);
                assert_eq!(found.mlp_adapter.abs().max().double_value(&[]) > 0.01, adapters);
                assert_eq!(found.attn_adapter.abs().max().double_value(&[]) > 0.01, adapters);
                sums.push((named, expected.double_value(&[8])));
            }
        }
        // What training changed of the parts is what it changed of the whole.
        let (base, tuned) = (&sums[0], &sums[3]);
        assert!(((tuned.0 - base.0) - (tuned.1 - base.1)).abs() < 1e-4);
    }
    for config in &configs()[4..] {
        let model = model(config, 7);
        assert!(Direction::logit(&Subject::new(&model, false).unwrap(), 1).is_err());
    }
}

#[test]
fn the_lens_ends_in_the_models_own_logits() {
    for config in configs() {
        let model = model(&config, 8);
        let subject = Subject::new(&model, false).unwrap();
        let ids = subject.tokens(&TOKENS).unwrap();
        let sites = lens_sites(config.layers, true);
        let found = lens(&subject, &ids, &sites, &[4, 11], 5, &mut |_| false).unwrap();
        let trace = subject.trace(Start::Tokens(&ids), &sites.iter().copied().collect(), &[]).unwrap();
        let own = tch::no_grad(|| subject.unembed(&trace.normed));
        let last = sites.len() as i64 - 1;
        assert!(tch::no_grad(|| subject.logits(&trace.end)).equal(&own), "bit for bit");
        assert_eq!(found.kl.get(last).abs().max().double_value(&[]), 0.0);
        // Each row by hand, from the fast pass's norm.
        for (row, at) in sites.iter().enumerate() {
            let x = trace.get(at.site, at.block).unwrap();
            let log_probs = tch::no_grad(|| subject.logits(x)).log_softmax(-1, Kind::Float).get(0);
            for (column, token) in [4, 11].into_iter().enumerate() {
                let chosen = log_probs.double_value(&[6, token]);
                let place = [row as i64, 6, column as i64];
                assert!((found.log_probs.double_value(&place) - chosen).abs() < 1e-6);
                let rank = (0..40).filter(|&other| log_probs.double_value(&[6, other]) > chosen).count() + 1;
                assert_eq!(found.rank.int64_value(&place), rank as i64);
            }
            let (top, _) = log_probs.max_dim(-1, false);
            assert!(farthest(&found.top[1].get(row as i64).select(-1, 0), &top) < 1e-6);
            let p = log_probs.get(6).exp();
            let entropy = -(&p * p.log()).sum(Kind::Float).double_value(&[]);
            assert!((found.entropy.double_value(&[row as i64, 6]) - entropy).abs() < 1e-4);
        }
        assert!(found.kl.get(0).max().double_value(&[]) > 0.01);
        assert!(matches!(lens(&subject, &ids, &sites, &[], 1, &mut |_| true), Err(InterpError::Cancelled)));
        assert!(lens(&subject, &ids, &sites, &[40], 1, &mut |_| false).is_err());
    }
}

/// The score of one cell by an edit of its own.
fn score_by_hand(target: Run, source: Run, metric: Metric, edit: &dyn Fn(&Trace) -> Tensor, at: HookPoint) -> f64 {
    let wanted: BTreeSet<HookPoint> = [at].into();
    let [t, s] = [target, source].map(|run| run.subject.trace(Start::Tokens(run.tokens), &wanted, &[]).unwrap());
    let mut value = t.get(at.site, at.block).unwrap().copy();
    value.copy_(&edit(&s));
    drop(t);
    let edits = [Edit::whole(at, Change::Value(value))];
    let trace = target.subject.trace(Start::Tokens(target.tokens), &nothing(), &edits).unwrap();
    let patched =
        tch::no_grad(|| metric.read(&target.subject, &trace.normed, target.tokens).unwrap()).double_value(&[0]);
    let [m, of_source] = [target, source].map(|run| run.metric(metric).unwrap());
    (patched - m) / (of_source - m)
}

#[test]
fn patching_scores_are_those_of_single_edits() {
    let metric = Metric::LogitDifference { better: 4, worse: 11, position: 8 };
    for config in [gpt2(), configs()[1].clone(), configs()[4].clone()] {
        let (base, tuned) = (model(&config, 9), model(&config, 10));
        let [of_base, of_tuned] = [&base, &tuned].map(|model| Subject::new(model, false).unwrap());
        let [a, b] = [&TOKENS, &OTHER].map(|tokens| of_base.tokens(tokens).unwrap());
        let prompts = [Run { subject: of_base, tokens: &a }, Run { subject: of_base, tokens: &b }];
        let models = [Run { subject: of_base, tokens: &a }, Run { subject: of_tuned, tokens: &a }];
        for [target, source] in [prompts, models] {
            for grid in Grid::ALL {
                let found = patch(target, source, metric, grid, &mut |_| false).unwrap();
                let (block, place) = (1, 1_i64);
                let at = grid.site().of(block);
                let mixed = |x: &Tensor, place: &[i64]| {
                    let wanted: BTreeSet<HookPoint> = [at].into();
                    let own = target.subject.trace(Start::Tokens(target.tokens), &wanted, &[]).unwrap();
                    let value = own.get(at.site, at.block).unwrap().copy();
                    match grid {
                        Grid::Positions(_) => value.select(1, place[0]).copy_(&x.select(1, place[0])),
                        Grid::Heads(site) => {
                            let axis = site.head_axis().unwrap();
                            value.select(axis, place[0]).copy_(&x.select(axis, place[0]));
                        }
                        Grid::HeadPositions => {
                            value
                                .select(2, place[0])
                                .select(1, place[1])
                                .copy_(&x.select(2, place[0]).select(1, place[1]));
                        }
                    }
                    value
                };
                let cell = if grid == Grid::HeadPositions { vec![place, 7] } else { vec![place] };
                let by_hand =
                    score_by_hand(target, source, metric, &|s| mixed(s.get(at.site, at.block).unwrap(), &cell), at);
                let index: Vec<i64> = [block as i64].into_iter().chain(cell.iter().copied()).collect();
                let score = found.scores.double_value(&index);
                assert!((score - by_hand).abs() < 1e-4, "{} of {:?}: {score} {by_hand}", grid.name(), config.family);
                assert!(found.scores.abs().max().double_value(&[]) > 1e-3, "{} moves something", grid.name());
            }
            // Patching everything gives the other run; between models, the last norm and the unembedding are a part.
            let wanted: BTreeSet<HookPoint> = [Site::ResidPre.of(0), Site::ResidPost.of(2)].into();
            let s = source.subject.trace(Start::Tokens(source.tokens), &wanted, &[]).unwrap();
            let (site, block) = if source.subject.model().unembedding().equal(target.subject.model().unembedding()) {
                (Site::ResidPre, 0)
            } else {
                (Site::ResidPost, 2)
            };
            let edit = Edit::whole(site.of(block), Change::From(&s));
            let whole = target.subject.trace(Start::Tokens(target.tokens), &nothing(), &[edit]).unwrap();
            let other = source.subject.trace(Start::Tokens(source.tokens), &nothing(), &[]).unwrap();
            assert!(whole.end.equal(&other.end));
            assert!(tch::no_grad(|| source.subject.logits(&whole.end).equal(&source.subject.unembed(&other.normed))));
        }
        let same = patch(prompts[0], prompts[0], metric, Grid::Heads(Site::Z), &mut |_| false);
        assert!(matches!(same, Err(InterpError::Undefined(_))));
        let short = of_base.tokens(&TOKENS[..8]).unwrap();
        assert!(
            patch(prompts[0], Run { subject: of_base, tokens: &short }, metric, Grid::Heads(Site::Z), &mut |_| false)
                .is_err()
        );
    }
    for grid in Grid::ALL {
        assert_eq!(Grid::of_name(&grid.name()), Some(grid));
    }
}

/// Two runs that differ by little: the gradient's guess is the score.
#[test]
fn attribution_patching_guesses_small_changes() {
    let metric = Metric::LogitDifference { better: 4, worse: 11, position: 8 };
    for config in [gpt2(), configs()[1].clone()] {
        let all = weights(&config, 11);
        let mut stream = Seed(12).stream("near");
        let near = all.iter().map(|(name, x)| (name.clone(), x + normal(&x.size(), 7e-4, &mut stream))).collect();
        let [base, tuned] =
            [all, near].map(|all| Transformer::from_tensors(&config, all, Precision::F32, Device::Cpu).unwrap());
        let [of_base, of_tuned] = [&base, &tuned].map(|model| Subject::new(model, false).unwrap());
        let ids = of_base.tokens(&TOKENS).unwrap();
        let [target, source] = [of_base, of_tuned].map(|subject| Run { subject, tokens: &ids });
        for grid in Grid::ALL {
            let scores = patch(target, source, metric, grid, &mut |_| false).unwrap().scores;
            let guess = attribution_patch(target, source, metric, grid).unwrap().scores;
            assert_eq!(scores.size(), guess.size());
            let error = farthest(&scores, &guess);
            assert!(error < 0.02 + 0.1 * scores.abs().max().double_value(&[]), "{}: {error}", grid.name());
        }
    }
}

#[test]
fn a_model_does_not_differ_from_itself_by_a_bit() {
    let metric = Metric::LogProb { from: 4 };
    for config in configs() {
        // A copy, and an adapter whose products are 0.
        let base = model(&config, 13);
        let pairs = [(Subject::new(&base, false).unwrap(), Subject::new(&base, true).unwrap())];
        let zero = adapted(&config, 13, 0.0);
        let with_zero = (Subject::new(&zero, false).unwrap(), Subject::new(&zero, true).unwrap());
        for (base, tuned) in pairs.into_iter().chain([with_zero]) {
            let ids = base.tokens(&TOKENS).unwrap();
            let found = swaps(base, tuned, &ids, metric, &mut |_| false).unwrap();
            let all = found.one.iter().chain(&found.up_to).chain([
                &found.tuned,
                &found.embedding,
                &found.unembedding,
                &found.all,
            ]);
            assert!(all.into_iter().all(|&m| m == found.base), "{found:?}");
            let streams = stream_changes(base, tuned, &ids, true, &mut |_| false).unwrap();
            assert_eq!([&streams.kl, &streams.relative].map(|x| x.abs().max().double_value(&[])), [0.0, 0.0]);
            assert!(weight_changes(base, tuned).unwrap().iter().all(|w| w.change == 0.0 && w.relative == 0.0));
            let moved = moved_tokens(base, tuned, &ids, 8, 5).unwrap();
            assert_eq!((moved.kl, moved.risen.len(), moved.fallen.len()), (0.0, 0, 0));
        }
    }
}

#[test]
fn swapped_blocks_lead_from_base_to_tuned_and_frozen_ones_change_nothing() {
    for config in configs() {
        let base = model(&config, 14);
        // A copy whose first two blocks and embeddings stayed; a tied head is the embedding and stayed, too.
        let names = crate::model::Transformer::ends(&base);
        let mut stream = Seed(15).stream("tuned");
        let tuned = base.tensors().into_iter().map(|(name, x)| {
            let frozen = [".0.", ".1."].iter().any(|block| name.contains(block)) || name.contains("wpe");
            let moves = !frozen && name != format!("{}.weight", names[0]);
            let moved = if moves { &x + normal(&x.size(), 0.1, &mut stream) } else { x.copy() };
            (name, moved)
        });
        let tuned = Transformer::from_tensors(&config, tuned.collect(), Precision::F32, Device::Cpu).unwrap();
        let [a, b] = [&base, &tuned].map(|model| Subject::new(model, false).unwrap());
        let ids = a.tokens(&TOKENS).unwrap();
        let metric = Metric::LogProb { from: 4 };
        let found = swaps(a, b, &ids, metric, &mut |_| false).unwrap();
        assert_eq!(found.all, found.tuned, "bit for bit");
        assert_ne!(found.base, found.tuned);
        for block in 0..2 {
            assert_eq!([found.one[block], found.up_to[block], found.embedding], [found.base; 3]);
        }
        assert_ne!(found.one[2], found.base);
        assert_eq!(found.up_to[2], found.one[2]);
        // The metric is the fast pass's log-probability.
        let log_probs = fast_logits(&tuned, &ids, false).log_softmax(-1, Kind::Float).get(0);
        let by_hand: f64 = (4..9).map(|at| log_probs.double_value(&[at as i64 - 1, i64::from(TOKENS[at])])).sum();
        assert!((found.tuned - by_hand).abs() < 1e-3, "{} {by_hand}", found.tuned);
        for change in weight_changes(a, b).unwrap() {
            let frozen = change.name.contains(".0.") || change.name.contains(".1.");
            assert!(!frozen || change.change == 0.0, "{}", change.name);
            assert!(!change.name.contains(".2.") || change.relative > 0.01, "{}", change.name);
        }
        let streams = stream_changes(a, b, &ids, true, &mut |_| false).unwrap();
        // Embeddings, and two streams of each frozen block.
        for row in 0..5 {
            assert_eq!(streams.relative.get(row).max().double_value(&[]), 0.0);
            assert!((streams.cosine.get(row) - 1.0).abs().max().double_value(&[]) < 1e-6);
        }
        assert!(
            streams.relative.get(6).min().double_value(&[]) > 1e-3 && streams.kl.get(6).min().double_value(&[]) > 0.0
        );
        let moved = moved_tokens(a, b, &ids, 8, 40).unwrap();
        let [p, q] = [&base, &tuned]
            .map(|m| fast_logits(m, &ids, false).get(0).get(8).to_kind(Kind::Double).softmax(-1, Kind::Double));
        let kl = (&q * (q.log() - p.log())).sum(Kind::Double).double_value(&[]);
        let listed: f64 = moved.risen.iter().chain(&moved.fallen).map(|token| token.contribution).sum();
        assert!((moved.kl - kl).abs() < 1e-5 && (listed - kl).abs() < 1e-5, "{} {kl} {listed}", moved.kl);
        assert!(moved.risen.iter().all(|t| t.tuned > t.base) && moved.fallen.iter().all(|t| t.tuned < t.base));
    }
}

#[test]
fn the_length_of_an_adapter_is_that_of_its_product() {
    let model = adapted(&configs()[1], 16, 0.3);
    let [base, tuned] = [false, true].map(|adapters| Subject::new(&model, adapters).unwrap());
    let merged = model.merged();
    let merged = Subject::new(&merged, false).unwrap();
    let (short, long) = (weight_changes(base, tuned).unwrap(), weight_changes(base, merged).unwrap());
    for (short, long) in short.iter().zip(&long) {
        assert_eq!(short.name, long.name);
        assert!((short.change - long.change).abs() < 1e-5 * (1.0 + long.change), "{short:?} {long:?}");
    }
    // From the merged model to the adapted one nothing changes but roundings.
    assert!(weight_changes(merged, tuned).unwrap().iter().all(|w| w.relative < 1e-6));
}

#[test]
fn a_head_that_is_replaced_by_itself_is_worth_nothing() {
    let metric = Metric::LogitDifference { better: 4, worse: 11, position: 8 };
    for config in [gpt2(), configs()[1].clone()] {
        let model = model(&config, 17);
        let subject = Subject::new(&model, false).unwrap();
        let [a, b] = [&TOKENS, &OTHER].map(|tokens| subject.tokens(tokens).unwrap());
        let run = Run { subject, tokens: &a };
        let own = ablate(run, metric, Replacement::Other(&a), &mut |_| false).unwrap();
        assert!(own.changes.abs().max().double_value(&[]) < 1e-5 && own.blocks.abs().max().double_value(&[]) < 1e-5);
        let mean = [a.shallow_clone(), subject.tokens(&OTHER[..5]).unwrap()];
        for replacement in [Replacement::Zero, Replacement::Other(&b), Replacement::Mean(&mean)] {
            let found = ablate(run, metric, replacement, &mut |_| false).unwrap();
            let wanted: BTreeSet<HookPoint> = [Site::Z.of(1)].into();
            let z = |tokens: &Tensor| {
                subject.trace(Start::Tokens(tokens), &wanted, &[]).unwrap().get(Site::Z, 1).unwrap().shallow_clone()
            };
            let value = match replacement {
                Replacement::Zero => z(&a).zeros_like(),
                Replacement::Other(_) => z(&b),
                // Fourteen positions of two prompts.
                Replacement::Mean(_) => Tensor::cat(&[z(&mean[0]), z(&mean[1])], 1).mean_dim(1, true, Kind::Float),
            };
            let change = |head: Option<usize>| {
                let value = match head {
                    Some(head) => value.narrow(2, head as i64, 1),
                    None => value.shallow_clone(),
                };
                let edit = Edit { head, ..Edit::whole(Site::Z.of(1), Change::Value(value)) };
                let trace = subject.trace(Start::Tokens(&a), &nothing(), &[edit]).unwrap();
                tch::no_grad(|| metric.read(&subject, &trace.normed, &a).unwrap()).double_value(&[0]) - found.whole
            };
            assert!((found.changes.double_value(&[1, 2]) - change(Some(2))).abs() < 1e-4);
            assert!((found.blocks.double_value(&[1]) - change(None)).abs() < 1e-4);
        }
        assert!(ablate(run, metric, Replacement::Mean(&[]), &mut |_| false).is_err());
        assert!(ablate(run, metric, Replacement::Other(&mean[1]), &mut |_| false).is_err());
    }
}

/// A column at a time, in the kernels for one column, and in one pass the same is added.
#[test]
fn steering_adds_the_same_in_a_column_and_in_a_pass() {
    for config in configs() {
        let model = adapted(&config, 18, 0.3);
        let subject = Subject::new(&model, true).unwrap();
        let vector = normal(&[config.width as i64], 1.0, &mut Seed(19).stream("vector"));
        let sampling = Sampling { temperature: 0.0, max_new_tokens: 5, ..Sampling::default() };
        let prompts: [&[u32]; 2] = [&TOKENS[..4], &OTHER[..6]];
        let plain = generate(&model, &prompts, &sampling, true, &mut |_, _| true);
        for block in [1, config.layers - 1] {
            let write = |strength: f64| {
                let steering = Steering::new(&subject, block, &vector, strength).unwrap();
                generate_steered(&subject, &prompts, &steering, &sampling, &mut |_, _| true).unwrap()
            };
            assert_eq!(write(0.0), plain, "by 0 nothing changes");
            let steering = Steering::new(&subject, block, &vector, 2.0).unwrap();
            let written = write(2.0);
            assert!(written.iter().zip(&plain).any(|(a, b)| a.log_probs != b.log_probs));
            for (prompt, completion) in prompts.iter().zip(&written) {
                let ids: Vec<u32> = prompt.iter().chain(&completion.tokens).copied().collect();
                let ids = subject.tokens(&ids).unwrap();
                let last = prompt.len() as i64 - 1;
                let hidden = steered_hidden(&subject, &ids, &ids.ones_like(), &steering, last);
                let log_probs = tch::no_grad(|| model.logits(&hidden)).log_softmax(-1, Kind::Float).get(0);
                for (at, (&token, &log_prob)) in completion.tokens.iter().zip(&completion.log_probs).enumerate() {
                    let whole = log_probs.double_value(&[last + at as i64, i64::from(token)]);
                    assert!((whole - f64::from(log_prob)).abs() < 1e-3, "{:?}: {whole} {log_prob}", config.family);
                }
                // The traced pass with an edit says the same.
                let positions = Some((last as usize..ids.size()[1] as usize).collect());
                let edit = Edit { positions, ..Edit::whole(Site::ResidPost.of(block), Change::Add(&vector * 2.0)) };
                let trace = subject.trace(Start::Tokens(&ids), &nothing(), &[edit]).unwrap();
                assert!(farthest(&trace.normed, &hidden) < 1e-4);
            }
        }
        // At one token of each prompt alone.
        let steering = |position| Steering::new(&subject, 1, &vector, 2.0).unwrap().at(position);
        let write = |position| generate_steered(&subject, &prompts, &steering(position), &sampling, &mut |_, _| true);
        for (prompt, completion) in prompts.iter().zip(write(2).unwrap()) {
            let ids: Vec<u32> = prompt.iter().chain(&completion.tokens).copied().collect();
            let ids = subject.tokens(&ids).unwrap();
            let change = Change::Add(&vector * 2.0);
            let edit = Edit { positions: Some(vec![2]), ..Edit::whole(Site::ResidPost.of(1), change) };
            let trace = subject.trace(Start::Tokens(&ids), &nothing(), &[edit]).unwrap();
            let log_probs = tch::no_grad(|| model.logits(&trace.normed)).log_softmax(-1, Kind::Float).get(0);
            for (at, (&token, &log_prob)) in completion.tokens.iter().zip(&completion.log_probs).enumerate() {
                let place = [(prompt.len() - 1 + at) as i64, i64::from(token)];
                let whole = log_probs.double_value(&place);
                assert!((whole - f64::from(log_prob)).abs() < 1e-3, "{:?}: {whole} {log_prob}", config.family);
            }
        }
        assert!(write(2).unwrap().iter().zip(&plain).any(|(a, b)| a.log_probs != b.log_probs));
        assert!(write(4).is_err(), "one of the prompts has four tokens");
        assert!(Steering::new(&subject, 3, &vector, 1.0).is_err());
        assert!(Steering::new(&subject, 0, &vector.narrow(0, 1, 3), 1.0).is_err());
        let prompts = [TOKENS.to_vec(), OTHER[..5].to_vec()];
        let difference = difference_of_means((&subject, &prompts[..1]), (&subject, &prompts[1..]), 1).unwrap();
        let streams = last_streams(&subject, &prompts, &[Site::ResidPost.of(1)], &mut |_| false).unwrap();
        assert!(farthest(&difference, &(streams.get(0).get(0) - streams.get(1).get(0))) < 1e-6);
    }
}

#[test]
fn probes_read_what_is_there_and_nothing_else() {
    let mut stream = Seed(20).stream("probe");
    let (count, d) = (200_i64, 12_i64);
    let labels: Vec<bool> = (0..count).map(|i| i % 3 == 0).collect();
    let signs = Tensor::from_slice(&labels.iter().map(|&l| if l { 1.0_f32 } else { -1.0 }).collect::<Vec<_>>());
    let noise = normal(&[count, 2, d], 1.0, &mut stream);
    // In the first stream axis 3 carries the label; in the second nothing does.
    let axis = noise.select(1, 0).select(1, 3);
    axis.shallow_clone().copy_(&(&axis * 0.3 + &signs));
    let found = probes(&noise, &labels, &ProbeSettings::default(), &mut |_| false).unwrap();
    assert!(found[0].accuracy > 0.95 && found[1].accuracy < 0.8, "{found:?}");
    assert!(found[0].shuffled < 0.8);
    let largest = found[0].weight.iter().map(|w| w.abs()).fold(0.0, f64::max);
    assert_eq!(found[0].weight[3], largest);
    assert!(probes(&noise, &labels[1..], &ProbeSettings::default(), &mut |_| false).is_err());
    assert!(probes(&noise, &[true; 200], &ProbeSettings::default(), &mut |_| false).is_err());
    // At the minimum the gradient is 0: of the loss, by finite differences.
    let x = noise.select(1, 0).to_kind(Kind::Double);
    let y = (&signs + 1.0).to_kind(Kind::Double) * 0.5;
    let (w, bias) = super::probe::logistic(&x, &y, 0.5);
    let loss = |w: &Tensor, bias: f64| {
        let z = x.matmul(w) + bias;
        let log_likelihood = (&y * &z - (z.exp() + 1.0).log()).sum(Kind::Double);
        ((w.square().sum(Kind::Double) * 0.25) - log_likelihood).double_value(&[])
    };
    for axis in 0..d {
        let step = Tensor::zeros([d], (Kind::Double, Device::Cpu));
        let _ = step.get(axis).fill_(1e-4);
        let slope = (loss(&(&w + &step), bias) - loss(&(&w - &step), bias)) / 2e-4;
        assert!(slope.abs() < 1e-4, "{axis}: {slope}");
    }
    assert!(((loss(&w, bias + 1e-4) - loss(&w, bias - 1e-4)) / 2e-4).abs() < 1e-4);
}

/// Untrained it is the logit lens; trained, it is nearer to the model at every stream of texts that it has not seen.
#[test]
fn a_tuned_lens_comes_nearer_to_the_model() {
    for (config, mid) in [(gpt2(), false), (configs()[1].clone(), true)] {
        let model = self::model(&config, 21);
        let subject = Subject::new(&model, false).unwrap();
        let sites = lens_sites(config.layers, mid);
        let mut tuned = TunedLens::new(&subject, mid);
        let ids = subject.tokens(&TOKENS).unwrap();
        let read = |tuned: &TunedLens| tuned.lens(&subject, &ids, &sites, &[4], 3, &mut |_| false).unwrap();
        let plain = lens(&subject, &ids, &sites, &[4], 3, &mut |_| false).unwrap();
        let untrained = read(&tuned);
        for (a, b) in [
            (&plain.kl, &untrained.kl),
            (&plain.entropy, &untrained.entropy),
            (&plain.log_probs, &untrained.log_probs),
            (&plain.top[1], &untrained.top[1]),
        ] {
            assert!(a.equal(b), "bit for bit");
        }
        let mut stream = Seed(22).stream("texts");
        let mut batch = |_| {
            let rows: Vec<u32> = (0..16 * 12).map(|_| stream.random_range(0..40)).collect();
            subject.rows(&rows.chunks(12).collect::<Vec<_>>())
        };
        let settings = TunedLensSettings { steps: 120, ..TunedLensSettings::default() };
        let mut losses = vec![];
        tuned
            .train(&subject, &settings, &mut batch, &mut |_, loss| {
                losses.push(loss);
                false
            })
            .unwrap();
        assert!(losses[119] < 0.8 * losses[0], "{losses:?}");
        let held_out = batch(0).unwrap();
        for (site, errors) in tuned.sites().iter().zip(tuned.errors(&subject, &held_out).unwrap()) {
            assert!(errors.tuned_lens < 0.95 * errors.logit_lens, "{:?} {site}: {errors:?}", config.family);
        }
        // What is reported is what the lenses show.
        let trained = read(&tuned);
        for (i, errors) in tuned.errors(&subject, &ids).unwrap().iter().enumerate() {
            for (lens, error) in [(&plain, errors.logit_lens), (&trained, errors.tuned_lens)] {
                let shown = lens.kl.get(i as i64).mean(Kind::Double).double_value(&[]);
                assert!((shown - error).abs() < 1e-4, "{shown} {error}");
            }
        }
        assert_eq!(trained.kl.get(sites.len() as i64 - 1).abs().max().double_value(&[]), 0.0);
        let mut arrays = Arrays::new();
        tuned.to_arrays("tuned.", &mut arrays);
        assert!(arrays.contains_key("tuned.2.weight") && arrays.contains_key("tuned.0.mid.bias") == mid);
        let again = TunedLens::from_arrays(&subject, "tuned.", &arrays).unwrap();
        assert!(read(&again).log_probs.equal(&trained.log_probs));
        assert!(TunedLens::from_arrays(&subject, "", &arrays).is_err());
        let short = self::model(&ModelConfig::gpt2(40, 16, 24, 2, 3), 21);
        assert!(TunedLens::from_arrays(&Subject::new(&short, false).unwrap(), "tuned.", &arrays).is_err());
        let without =
            TunedLens::new(&subject, false).lens(&subject, &ids, &lens_sites(3, true), &[], 1, &mut |_| false);
        assert!(without.is_err());
    }
}
