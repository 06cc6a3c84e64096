//! Language models against what transformers computes from the same weights (tests/golden/text/models.py), and against
//! themselves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use flipside::store::{ModelFolder, read_gguf};
use flipside_core::settings::TextRewardSettings;
use flipside_core::{ArrayData, Seed};
use flipside_text::config::{Family, ModelConfig, ModelHead};
use flipside_text::generate::{Sampling, generate};
use flipside_text::lora::LoraSettings;
use flipside_text::model::{Precision, Transformer, weights_bytes};
use flipside_text::{Bundle, Example, ScalarHead, TextReward, tokenizer_of};
use serde_json::Value;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

const FOLDERS: [&str; 20] = [
    "gpt2",
    "llama",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "llama_score",
    "gpt2_exact",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "gpt_neox",
    "gpt_neox_serial",
    "opt",
    "smollm3",
    "olmo2",
    "qwen3_window",
    "llama_linear",
    "llama_yarn",
];

/// Models whose hidden states depend on the length of the longest text in the batch, or that are only scored.
const WHOLE_ONLY: [&str; 3] = ["llama_dynamic", "phi3_long", "gpt_neox_score"];

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/models").join(name)
}

fn load(name: &str, precision: Precision) -> (Transformer, ModelFolder) {
    let folder = ModelFolder::read(&folder(name)).unwrap();
    let config = ModelConfig::from_json(&folder.texts["config.json"]).unwrap();
    (Transformer::from_arrays(&config, &folder.weights, precision, Device::Cpu).unwrap(), folder)
}

fn integers(value: &Value) -> Tensor {
    let rows: Vec<Vec<i64>> = serde_json::from_value(value.clone()).unwrap();
    Tensor::from_slice(&rows.concat()).reshape([rows.len() as i64, -1])
}

/// Ids, mask and expected logits: one row for each token, or for each text if the model ends in a score.
fn expected(name: &str) -> (Tensor, Tensor, Tensor) {
    let text = std::fs::read_to_string(folder(name).join("expected.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let rows: Vec<Vec<f32>> = serde_json::from_value(value["logits"].clone()).unwrap();
    let logits = Tensor::from_slice(&rows.concat()).reshape([rows.len() as i64, -1]);
    (integers(&value["ids"]), integers(&value["mask"]), logits)
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

/// Logits `[B · T, vocabulary]` with zeros at padding.
fn logits(model: &Transformer, ids: &Tensor, mask: &Tensor) -> Tensor {
    let hidden = model.hidden(ids, mask, None, true);
    (model.logits(&hidden) * mask.unsqueeze(-1)).flatten(0, 1)
}

/// The rewards of a batch's texts, as a reward model reads them.
fn rewards(model: &Transformer, head: &flipside_core::Array, ids: &Tensor, mask: &Tensor) -> Tensor {
    let mut model = model.clone();
    model.set_score_pad(model.config().pad);
    let head = ScalarHead::of(head.as_f32().unwrap(), 0.0, Device::Cpu);
    let rewards = TextReward::with_head(model, head, &TextRewardSettings::default(), Seed(0)).unwrap();
    let row = |row: i64| -> Vec<u32> {
        let real = |column: &i64| mask.int64_value(&[row, *column]) == 1;
        (0..ids.size()[1]).filter(real).map(|column| ids.int64_value(&[row, column]) as u32).collect()
    };
    let texts: Vec<Example> = (0..ids.size()[0])
        .map(|i| Example { prompt: row(i)[..1].to_vec(), completion: row(i)[1..].to_vec() })
        .collect();
    Tensor::from_slice(&rewards.rewards(&texts, &mut |_| false).unwrap()).unsqueeze(1)
}

#[test]
fn every_family_computes_what_transformers_does() {
    for name in FOLDERS.into_iter().chain(WHOLE_ONLY) {
        let (model, folder) = load(name, Precision::F32);
        let (ids, mask, expected) = expected(name);
        let found = match model.config().model_head {
            ModelHead::Causal => logits(&model, &ids, &mask),
            ModelHead::Score => rewards(&model, &folder.weights["score.weight"], &ids, &mask),
        };
        let error = largest(&(found - &expected));
        assert!(error < 2e-5 * (1.0 + largest(&expected)), "{name}: {error}");
    }
}

#[test]
fn adapters_compute_what_peft_does() {
    for name in [
        "gpt2_ends",
        "gpt2_dora",
        "gpt2_bias",
        "gpt2_lora_bias",
        "gpt2_pissa",
        "llama_pattern",
        "llama_layers",
        "llama_exclude",
        "llama_saved",
        "llama_tokens",
        "llama_olora",
        "llama_dora_ends",
        "llama3_ends",
        "llama3_saved",
        "llama3_tokens",
    ] {
        let at = folder("").join("../adapters").join(name);
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(at.join("expected.json")).unwrap()).unwrap();
        let base_name = golden["model"].as_str().unwrap();
        let (base, _) = load(base_name, Precision::F32);
        let (ids, mask, plain) = expected(base_name);
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden["logits"].clone()).unwrap();
        let expected = Tensor::from_slice(&rows.concat()).reshape([rows.len() as i64, -1]);
        let ModelFolder { texts, weights } = ModelFolder::read(&at).unwrap();
        let config = &texts["adapter_config.json"];
        let mut model = base.clone();
        model.attach_peft(config, &weights).unwrap();
        let error = largest(&(logits(&model, &ids, &mask) - &expected));
        assert!(error < 2e-5 * (1.0 + largest(&expected)), "{name}: {error}");
        assert!(largest(&(&expected - &plain)) > 1e-2, "{name} changes too little to be seen");
        // Merged it is the same, also when it has gone through arrays; off it is the base, bit for bit.
        let merged = model.merged();
        let again =
            Transformer::from_arrays(merged.config(), &merged.to_arrays(), Precision::F32, Device::Cpu).unwrap();
        if name != "gpt2_lora_bias" {
            let error = largest(&(logits(&again, &ids, &mask) - &expected));
            assert!(error < 1e-4 * (1.0 + largest(&expected)), "{name}, merged: {error}");
        }
        let off = |model: &Transformer| model.hidden(&ids, &mask, None, false);
        assert!(off(&model).equal(&off(&base)) && off(&model.clone()).equal(&off(&base)), "{name}");
        // Written again it reads the same, and it comes off without a trace.
        let (config, weights) = model.to_peft(None, None).unwrap();
        let mut read = base.clone();
        read.attach_peft(&config, &weights).unwrap();
        assert!(logits(&read, &ids, &mask).equal(&logits(&model, &ids, &mask)), "{name}");
        model.remove_adapters();
        assert!(logits(&model, &ids, &mask).equal(&logits(&base, &ids, &mask)), "{name}");
        let name = weights.keys().next().unwrap().clone();
        let mut broken = weights;
        if let ArrayData::F32(numbers) = &mut broken.get_mut(&name).unwrap().data {
            numbers[0] = f32::NAN;
        }
        let error = base.clone().attach_peft(&config, &broken).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("NaN"), "{error}");
    }
}

#[test]
fn columns_from_the_cache_are_those_of_the_whole() {
    for name in FOLDERS {
        let (model, _) = load(name, Precision::F32);
        let (ids, mask, _) = expected(name);
        // Every text twice, for a larger decode batch.
        let (ids, mask) = (ids.repeat([2, 1]), mask.repeat([2, 1]));
        let whole = model.hidden(&ids, &mask, None, true);
        let mut cache = model.cache(6, 11);
        let mut parts = vec![];
        let mut start = 0;
        for width in [5, 1, 3, 1, 1] {
            let column = |all: &Tensor| all.narrow(1, start, width);
            parts.push(model.hidden(&column(&ids), &column(&mask), Some(&mut cache), true));
            start += width;
        }
        let error = largest(&((Tensor::cat(&parts, 1) - whole) * mask.unsqueeze(-1)));
        assert!(error < 1e-5, "{name}: {error}");
        assert_eq!(cache.columns(), 11);
    }
}

#[test]
fn padding_changes_nothing() {
    for name in FOLDERS {
        let (model, _) = load(name, Precision::F32);
        let (ids, mask, _) = expected(name);
        let padded = model.hidden(&ids, &mask, None, true);
        for row in 0..3 {
            let length = mask.get(row).sum(Kind::Int64).int64_value(&[]);
            let cut = |all: &Tensor| all.narrow(0, row, 1).narrow(1, 11 - length, length);
            let alone = model.hidden(&cut(&ids), &cut(&mask), None, true);
            // Padding on the right changes nothing either.
            let zeros = Tensor::zeros([1, 2], (Kind::Int64, Device::Cpu));
            let right = model.hidden(
                &Tensor::cat(&[cut(&ids), zeros.shallow_clone()], 1),
                &Tensor::cat(&[cut(&mask), zeros], 1),
                None,
                true,
            );
            assert!(largest(&(cut(&padded) - &alone)) < 1e-5, "{name}, row {row}");
            assert!(largest(&(right.narrow(1, 0, length) - &alone)) < 1e-5, "{name}, row {row}");
        }
    }
}

#[test]
fn a_text_that_fills_the_model_may_lie_beside_a_longer_completion() {
    let (model, _) = load("gpt2", Precision::F32);
    let full = model.config().context as i64;
    let ids: Vec<i64> = (0..full).map(|i| i % 37).collect();
    let ids = Tensor::from_slice(&ids).unsqueeze(0);
    let alone = model.hidden(&ids, &ids.ones_like(), None, true);
    // Padding after the text is beyond the model's last position.
    let zeros = Tensor::zeros([1, 5], (Kind::Int64, Device::Cpu));
    let (ids, mask) = (Tensor::cat(&[&ids, &zeros], 1), Tensor::cat(&[&ids.ones_like(), &zeros], 1));
    let beside = model.hidden(&ids, &mask, None, true).narrow(1, 0, full);
    assert!(largest(&(beside - alone)) < 1e-5);
}

#[test]
fn bf16_is_close_and_its_logits_are_f32() {
    for name in FOLDERS {
        let (f32_model, _) = load(name, Precision::F32);
        let (bf16_model, _) = load(name, Precision::Bf16);
        let (ids, mask, _) = expected(name);
        let [exact, rounded] = [&f32_model, &bf16_model].map(|model| logits(model, &ids, &mask));
        assert_eq!(rounded.kind(), Kind::Float);
        let error = largest(&(rounded - &exact)) / largest(&exact);
        assert!(error > 0.0 && error < 0.1, "{name}: {error}");
    }
}

#[test]
fn a_config_is_written_as_it_was_read_and_others_are_refused_by_name() {
    for name in FOLDERS.into_iter().chain(WHOLE_ONLY) {
        let text = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
        let config = ModelConfig::from_json(&text).unwrap();
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config, "{name}");
        let refused = |key: &str, value: Value, words: &str| {
            let mut changed: Value = serde_json::from_str(&text).unwrap();
            changed[key] = value;
            let error = ModelConfig::from_json(&changed.to_string()).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        };
        refused("model_type", "mamba".into(), "model_type is \"mamba\"");
        refused("architectures", serde_json::json!(["GPT2DoubleHeadsModel"]), "GPT2DoubleHeadsModel");
        refused("quantization_config", serde_json::json!({"bits": 4}), "quantization_config");
        refused("vocab_size", serde_json::json!("forty"), "vocab_size");
        match config.family {
            Family::Gpt2 | Family::Opt => refused("activation_function", "mish".into(), "activation_function"),
            Family::Gemma3 => refused("use_bidirectional_attention", true.into(), "use_bidirectional_attention"),
            _ => refused("rope_parameters", serde_json::json!({"rope_type": "axial"}), "rope_type is \"axial\""),
        }
    }
}

#[test]
fn an_adapter_adds_nothing_at_first_and_its_product_when_merged() {
    for name in FOLDERS {
        let (base, _) = load(name, Precision::F32);
        let (ids, mask, _) = expected(name);
        let plain = logits(&base, &ids, &mask);
        let mut model = base.clone();
        let mut stream = Seed(5).stream("adapter");
        model.attach(&LoraSettings { rank: 3, alpha: 6.0, ..Default::default() }, &mut stream).unwrap();
        assert!(logits(&model, &ids, &mask).equal(&plain), "{name}");
        tch::no_grad(|| {
            for (name, mut tensor) in model.trainable() {
                if name.ends_with("lora_B.weight") {
                    let ramp = Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)).sin() * 0.1;
                    tensor.copy_(&ramp.reshape(tensor.size()));
                }
            }
        });
        let adapted = logits(&model, &ids, &mask);
        assert!(largest(&(&adapted - &plain)) > 0.1, "{name}");
        let merged = logits(&model.merged(), &ids, &mask);
        assert!(largest(&(&adapted - merged)) < 1e-4 * (1.0 + largest(&adapted)), "{name}");
        // Switched off, it is the base bit for bit, and the base itself has not changed.
        let off = model.hidden(&ids, &mask, None, false);
        assert!(off.equal(&base.hidden(&ids, &mask, None, true)), "{name}");
        let error = model.attach(&LoraSettings { targets: vec!["q".into()], ..Default::default() }, &mut stream);
        assert!(error.unwrap_err().to_string().contains("no module `q`"));
    }
}

#[test]
fn completions_are_likely_alone_or_together_and_end_where_they_should() {
    let (model, _) = load("llama", Precision::F32);
    let prompts: [&[u32]; 3] = [&[3, 4, 5, 6], &[7], &[9, 8]];
    let write = |prompts: &[&[u32]], sampling: &Sampling| generate(&model, prompts, sampling, true, &mut |_, _| true);
    // Greedy: each token is the likeliest one by the logits of the whole text.
    let greedy = Sampling { temperature: 0.0, max_new_tokens: 6, ..Sampling::default() };
    let together = write(&prompts, &greedy);
    for (prompt, completion) in prompts.iter().zip(&together) {
        let text: Vec<i64> = prompt.iter().chain(&completion.tokens).map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_slice(&text).unsqueeze(0);
        let logits = logits(&model, &ids, &ids.ones_like());
        for (i, (&token, &log_prob)) in completion.tokens.iter().zip(&completion.log_probs).enumerate() {
            let row = logits.get((prompt.len() + i) as i64 - 1).log_softmax(-1, Kind::Float);
            assert_eq!(row.argmax(-1, false).int64_value(&[]), i64::from(token));
            assert!((row.double_value(&[i64::from(token)]) - f64::from(log_prob)).abs() < 1e-5);
        }
        assert_eq!(write(&[prompt], &greedy)[0].tokens, completion.tokens);
    }
    // A stop token ends its row and is its last token.
    let stop = together[0].tokens[2];
    let stopped = write(&prompts, &Sampling { stop: vec![stop], ..greedy.clone() });
    assert!(stopped[0].stopped && stopped[0].tokens.ends_with(&[stop]) && stopped[0].tokens.len() <= 3);
    // The frequencies of the first token are its probabilities, within 5 standard deviations. With top-k and top-p only
    // their tokens occur.
    let many = vec![prompts[0]; 4000];
    let ids = Tensor::from_slice(&[3_i64, 4, 5, 6]).unsqueeze(0);
    let probabilities = (logits(&model, &ids, &ids.ones_like()).get(3) / 1.5).softmax(-1, Kind::Float);
    let first = Sampling { temperature: 1.5, max_new_tokens: 1, seed: 11, ..Sampling::default() };
    let mut counts = [0.0_f64; 40];
    write(&many, &first).iter().for_each(|completion| counts[completion.tokens[0] as usize] += 1.0);
    for (token, &count) in counts.iter().enumerate() {
        let p = probabilities.double_value(&[token as i64]);
        assert!(
            (count - 4000.0 * p).abs() <= 5.0 * (4000.0 * p * (1.0 - p)).sqrt() + 1.0,
            "token {token}: {count} of {}",
            4000.0 * p
        );
    }
    let (_, order) = probabilities.sort(-1, true);
    let rank = |token: u32| (0..40).find(|&i| order.int64_value(&[i]) == i64::from(token)).unwrap();
    let some = write(&many[..300], &Sampling { top_k: 3, ..first.clone() });
    assert_eq!(some.iter().map(|completion| rank(completion.tokens[0])).max(), Some(2));
    let p = probabilities.double_value(&[order.int64_value(&[0])]) + 1e-4;
    let most = write(&many[..300], &Sampling { top_p: p, ..first.clone() });
    assert_eq!(most.iter().map(|completion| rank(completion.tokens[0])).max(), Some(1));
    // The same seed generates the same tokens, and generation stops when `on_token` returns false.
    assert_eq!(write(&many[..5], &first), write(&many[..5], &first));
    let mut calls = 0;
    let cut = generate(&model, &prompts, &greedy, true, &mut |_, _| {
        calls += 1;
        calls < 4
    });
    assert_eq!((calls, cut.iter().map(|completion| completion.tokens.len()).sum::<usize>()), (4, 4));
}

/// The gradients, by parameter, of a loss that depends on every parameter.
fn gradients_of(model: &Transformer, ids: &Tensor, mask: &Tensor, dropout: Option<u64>) -> Vec<Tensor> {
    let parameters: Vec<Tensor> = model.trainable().into_iter().map(|(_, tensor)| tensor).collect();
    let hidden = model.hidden_for_loss(ids, mask, 1, dropout);
    let loss = model.logits(hidden.states()).square().sum(Kind::Float);
    let mut sums: Vec<Tensor> = parameters.iter().map(Tensor::zeros_like).collect();
    let add = &mut |gradients: Vec<Tensor>| {
        for (sum, gradient) in sums.iter_mut().zip(gradients).filter(|(_, gradient)| gradient.defined()) {
            *sum += gradient;
        }
    };
    hidden.gradients(&loss, &parameters, add).unwrap();
    sums
}

#[test]
fn gradients_are_the_same_with_checkpointing() {
    for name in FOLDERS {
        let (base, _) = load(name, Precision::F32);
        let (ids, mask, _) = expected(name);
        let mut adapted = base.clone();
        let settings = LoraSettings { rank: 3, alpha: 6.0, dropout: 0.3, targets: vec![] };
        adapted.attach(&settings, &mut Seed(5).stream("adapter")).unwrap();
        fill_adapters(&adapted);
        let mut half = base.deep_clone();
        half.freeze(1);
        for (what, model, dropout) in
            [("all", &base, None), ("half", &half, None), ("LoRA", &adapted, None), ("dropout", &adapted, Some(7))]
        {
            let mut again = model.clone();
            again.set_checkpointing(true);
            let (stored, recomputed) =
                (gradients_of(model, &ids, &mask, dropout), gradients_of(&again, &ids, &mask, dropout));
            for ((parameter, _), (stored, recomputed)) in model.trainable().iter().zip(stored.iter().zip(&recomputed)) {
                let error = largest(&(stored - recomputed)) / (1.0 + largest(stored));
                assert!(error < 1e-6, "{name}, {what}: {parameter} is {error} off");
            }
            assert!(stored.iter().any(|gradient| largest(gradient) > 1e-3), "{name}, {what}");
        }
        let states = |dropout| adapted.hidden_for_loss(&ids, &mask, 0, dropout).states().detach();
        assert!(states(None).equal(&adapted.hidden(&ids, &mask, None, true)), "{name}");
        assert!(states(Some(1)).equal(&states(Some(1))) && !states(Some(1)).equal(&states(Some(2))), "{name}");
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for name in FOLDERS {
        let (model, _) = load(name, Precision::F32);
        let (ids, mask, _) = expected(name);
        let parameters = model.trainable();
        logits(&model, &ids, &mask).square().sum(Kind::Float).backward();
        for (parameter, tensor) in parameters {
            // Zero is allowed: a bias of the keys shifts all scores of a query equally, which softmax cancels, unless
            // rotary positions rotate it.
            assert!(
                tensor.grad().defined() && tensor.grad().isfinite().all().int64_value(&[]) == 1,
                "{name}: {parameter}"
            );
        }
    }
}

/// Sets every adapter's B to small numbers, so that the adapter has an effect.
fn fill_adapters(model: &Transformer) {
    tch::no_grad(|| {
        for (name, mut tensor) in model.adapter_tensors() {
            if name.ends_with("lora_B.weight") {
                let ramp = Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)).sin() * 0.1;
                tensor.copy_(&ramp.reshape(tensor.size()));
            }
        }
    });
}

#[test]
fn deep_clones_share_what_is_not_trained() {
    for name in ["gpt2", "llama", "qwen3"] {
        let (mut model, _) = load(name, Precision::F32);
        let (ids, mask, _) = expected(name);
        let plain = logits(&model, &ids, &mask);
        let all = model.trainable().len();
        // Nothing is frozen: nothing is shared.
        let whole = model.deep_clone();
        assert_eq!(weights_bytes(&[&model, &whole]), 2 * weights_bytes(&[&model]), "{name}");
        // The embedding and the first block are frozen: clones share them, and they need no gradient.
        model.freeze(1);
        let trained = model.trainable();
        assert!(trained.len() < all && trained.iter().all(|(name, _)| !name.contains(".0.") && !name.contains("emb")));
        let names: Vec<&String> = trained.iter().map(|(name, _)| name).collect();
        for (name, tensor) in model.tensors() {
            assert_eq!(tensor.requires_grad(), names.contains(&&name), "{name}");
        }
        let copy = model.deep_clone();
        let own: usize = trained.iter().map(|(_, tensor)| 4 * tensor.numel()).sum();
        assert_eq!(weights_bytes(&[&model, &copy]), weights_bytes(&[&model]) + own, "{name}");
        // Training the clone does not change the model.
        assert!(logits(&copy, &ids, &mask).equal(&plain), "{name}");
        tch::no_grad(|| copy.trainable().into_iter().for_each(|(_, mut tensor)| drop(tensor.g_add_scalar_(0.1))));
        assert!(logits(&model, &ids, &mask).equal(&plain), "{name}");
        assert!(!logits(&copy, &ids, &mask).equal(&plain), "{name}");
        model.freeze(0);
        assert_eq!(model.trainable().len(), all);
    }
}

#[test]
fn four_models_with_adapters_take_little_more_than_one() {
    let config = r#"{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 2000, "n_positions": 128, "n_embd": 256,
        "n_layer": 4, "n_head": 8}"#;
    let config = ModelConfig::from_json(config).unwrap();
    let mut policy = Transformer::random(&config, Precision::F32, Device::Cpu, &mut Seed(1).stream("weights"));
    let base = weights_bytes(&[&policy]);
    policy.attach(&LoraSettings { rank: 8, ..Default::default() }, &mut Seed(2).stream("adapter")).unwrap();
    let (reward, value) = (policy.deep_clone(), policy.deep_clone());
    let mut reference = policy.clone();
    reference.remove_adapters();
    let all = weights_bytes(&[&policy, &reference, &reward, &value]);
    assert!(all > base && all as f64 <= 1.25 * base as f64, "{all} bytes for a base of {base}");
    assert!(policy.trainable().iter().all(|(name, _)| name.contains("lora_")));
    assert!(policy.tensors().values().all(|tensor| !tensor.requires_grad()));
}

#[test]
fn an_adapter_goes_through_peft_files_and_comes_off_without_a_trace() {
    for name in FOLDERS {
        let (base, _) = load(name, Precision::F32);
        let (ids, mask, _) = expected(name);
        let mut model = base.clone();
        let settings = LoraSettings { rank: 3, alpha: 6.0, dropout: 0.1, targets: vec![] };
        model.attach(&settings, &mut Seed(5).stream("adapter")).unwrap();
        fill_adapters(&model);
        let head: Vec<f32> = (0..model.config().width).map(|i| i as f32).collect();
        let (text, arrays) = model.to_peft(Some("base/model"), Some(&head)).unwrap();
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["fan_in_fan_out"], Value::Bool(name.starts_with("gpt2")));
        assert_eq!((&written["task_type"], &written["r"]), (&"SEQ_CLS".into(), &3.into()));
        assert_eq!(arrays["base_model.model.score.weight"].shape, [1, head.len()]);
        let mut read = base.clone();
        read.attach_peft(&text, &arrays).unwrap();
        assert!(logits(&read, &ids, &mask).equal(&logits(&model, &ids, &mask)), "{name}");
        assert_eq!(read.to_peft(Some("base/model"), Some(&head)).unwrap(), (text.clone(), arrays.clone()));
        read.remove_adapters();
        assert!(logits(&read, &ids, &mask).equal(&logits(&base, &ids, &mask)), "{name}");
        assert!(read.to_peft(None, None).is_none());
        // rsLoRA: the scale is alpha / √r in place of alpha / r.
        let changed = |key: &str, value: Value| {
            let mut changed = written.clone();
            changed[key] = value;
            changed.to_string()
        };
        read.attach_peft(&changed("use_rslora", true.into()), &arrays).unwrap();
        assert!((read.adapter().unwrap().alpha - 6.0 * 3.0_f64.sqrt()).abs() < 1e-12);
        for (key, value) in [
            ("peft_type", "IA3".into()),
            ("use_qalora", true.into()),
            ("bias", "some".into()),
            ("modules_to_save", serde_json::json!([3])),
            ("target_modules", "(".into()),
            ("init_lora_weights", "pissa_niter_4".into()),
        ] {
            let error = base.clone().attach_peft(&changed(key, value), &arrays).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let (some, mut fewer) = (arrays.keys().find(|key| key.contains("lora_A")).unwrap(), arrays.clone());
        fewer.remove(some);
        let error = base.clone().attach_peft(&text, &fewer).unwrap_err().to_string();
        assert!(error.contains(&format!("lacks `{some}`")), "{error}");
        let error = base.clone().attach_peft(&changed("r", 4.into()), &arrays).unwrap_err().to_string();
        assert!(error.contains("lora_A") && error.contains("[4, "), "{error}");
    }
}

fn gguf_file() -> PathBuf {
    folder("").join("../gguf/tiny.gguf")
}

#[test]
fn a_gguf_file_computes_and_reads_what_transformers_does() {
    let text = std::fs::read_to_string(folder("").join("../gguf/expected.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<i64> = serde_json::from_value(golden["ids"].clone()).unwrap();
    let ids = Tensor::from_slice(&ids).unsqueeze(0);
    let rows: Vec<Vec<f32>> = serde_json::from_value(golden["logits"].clone()).unwrap();
    let expected = Tensor::from_slice(&rows.concat()).reshape([rows.len() as i64, -1]);
    for (half, tolerance) in [(false, 2e-5), (true, 0.05)] {
        let (metadata, arrays) = read_gguf(&gguf_file(), half).unwrap();
        let parts = flipside_text::gguf::parts(&metadata, arrays).unwrap();
        let bundle = Bundle::from_parts(&parts, if half { Precision::Bf16 } else { Precision::F32 }).unwrap();
        let found = logits(&bundle.model, &ids, &ids.ones_like());
        let error = largest(&(found - &expected)) / largest(&expected);
        assert!(error < tolerance, "half {half}: {error}");
        assert_eq!(bundle.stop(), [2]);
        assert!(bundle.tokenizer.chat_template().unwrap().contains("<|im_start|>"));
        for (text, tokens) in golden["texts"].as_array().unwrap().iter().zip(golden["tokens"].as_array().unwrap()) {
            let tokens: Vec<u32> = serde_json::from_value(tokens.clone()).unwrap();
            assert_eq!(bundle.tokenizer.encode(text.as_str().unwrap(), false).unwrap(), tokens, "{text}");
        }
        // Written as a folder it is the same model.
        let again = Bundle::from_parts(&bundle.to_parts().unwrap(), bundle.model.precision()).unwrap();
        assert!(logits(&again.model, &ids, &ids.ones_like()).equal(&logits(&bundle.model, &ids, &ids.ones_like())));
    }
}

/// Each file has the vocabulary of a tokenizer that says what its tokens are: `tests/golden/text/make_gguf.py`.
#[test]
fn the_tokenizers_of_gguf_files_give_the_tokens_of_those_that_they_came_from() {
    let of = |name: &str| folder("").join("../gguf").join(name);
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(of("words.json")).unwrap()).unwrap();
    let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
    for (name, expected) in golden["tokens"].as_object().unwrap() {
        let (metadata, arrays) = read_gguf(&of(&format!("{name}.gguf")), false).unwrap();
        let (files, _) = flipside_text::gguf::parts(&metadata, arrays).unwrap();
        let tokenizer = tokenizer_of(&files).unwrap();
        for (key, special) in [("plain", false), ("special", true)] {
            let tokens: Vec<Vec<u32>> = serde_json::from_value(expected[key].clone()).unwrap();
            for (text, tokens) in texts.iter().zip(tokens) {
                assert_eq!(tokenizer.encode(text, special).unwrap(), tokens, "{name}, {key}: {text:?}");
            }
        }
    }
    // What is not read is named.
    let (mut metadata, arrays) = read_gguf(&of("qwen2.gguf"), false).unwrap();
    for (key, value) in [("pre", "tekken"), ("model", "t5")] {
        metadata.insert(format!("tokenizer.ggml.{key}"), value.into());
        let error = flipside_text::gguf::parts(&metadata, arrays.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("its tokenizer.ggml.{key} is \"{value}\"")), "{error}");
    }
}

#[test]
fn a_damaged_gguf_file_is_refused_in_one_line() {
    let whole = std::fs::read(gguf_file()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("damaged.gguf");
    let read = |bytes: &[u8]| -> Result<(), String> {
        std::fs::write(&path, bytes).unwrap();
        let (metadata, arrays) = read_gguf(&path, false).map_err(|error| error.to_string())?;
        let parts = flipside_text::gguf::parts(&metadata, arrays).map_err(|error| error.to_string())?;
        Bundle::from_parts(&parts, Precision::F32).map(drop).map_err(|error| error.to_string())
    };
    read(&whole).unwrap();
    let one_line = |error: &str| assert!(!error.is_empty() && !error.contains('\n'), "{error}");
    for cut in (0..whole.len()).step_by(997) {
        one_line(&read(&whole[..cut]).unwrap_err());
    }
    // The header and the metadata, byte by byte; whatever can still be read is fine.
    for at in (0..600).step_by(5).chain((600..whole.len()).step_by(1201)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x91;
        if let Err(error) = read(&bytes) {
            one_line(&error);
        }
    }
    // So many tensors and entries that no file could hold them; a type that is not read; a family that is not known.
    let mut many = whole.clone();
    many[8..24].fill(0xff);
    assert!(read(&many).unwrap_err().contains("cut short"));
    let replaced = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|window| window == from).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    let error = read(&replaced(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba")).unwrap_err();
    assert!(error.contains("architecture is \"mamba\""), "{error}");
    let name = b"blk.0.attn_q.weight\x02\0\0\0\x20\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0";
    let error =
        read(&replaced(&[&name[..], &[8, 0, 0, 0]].concat(), &[&name[..], &[15, 0, 0, 0]].concat())).unwrap_err();
    assert!(error.contains("blk.0.attn_q.weight is in Q8_K"), "{error}");
}

#[test]
fn vocab_and_merges_are_the_tokenizer_that_they_came_from() {
    let text = std::fs::read_to_string(folder("").join("../tokenizers.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let gpt2 = &golden["tokenizers"]["gpt2"];
    let json: Value = serde_json::from_str(gpt2["json"].as_str().unwrap()).unwrap();
    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| match merge {
            Value::Array(parts) => format!("{} {}", parts[0].as_str().unwrap(), parts[1].as_str().unwrap()),
            whole => whole.as_str().unwrap().to_owned(),
        })
        .collect();
    let specials = r#"{"eos_token": "<|end|>", "bos_token": "<|end|>", "pad_token": {"content": "<|pad|>"}}"#;
    let mut texts = std::collections::BTreeMap::from([
        ("vocab.json".to_owned(), json["model"]["vocab"].to_string()),
        ("merges.txt".to_owned(), format!("#version: 0.2\n{}\n", merges.join("\n"))),
        ("special_tokens_map.json".to_owned(), specials.to_owned()),
        ("tokenizer_config.json".to_owned(), r#"{"tokenizer_class": "GPT2Tokenizer"}"#.to_owned()),
    ]);
    let read = |texts: &std::collections::BTreeMap<String, String>| flipside_text::tokenizer_of(texts);
    let tokenizer = read(&texts).unwrap();
    for case in gpt2["cases"].as_array().unwrap() {
        let tokens: Vec<u32> = serde_json::from_value(case["plain"].clone()).unwrap();
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap(), true).unwrap(), tokens, "{case}");
        assert_eq!(tokenizer.decode(&tokens, true).unwrap(), case["decoded"].as_str().unwrap());
    }
    // With the setting of OPT, the beginning is put before each text.
    texts.insert("tokenizer_config.json".to_owned(), r#"{"add_bos_token": true, "bos_token": "<|end|>"}"#.to_owned());
    assert_eq!(read(&texts).unwrap().encode("a", true).unwrap()[0], tokenizer.id("<|end|>").unwrap());
    // A token of its own gets the next place.
    texts.insert("added_tokens.json".to_owned(), r#"{"<new>": 480}"#.to_owned());
    assert_eq!(read(&texts).unwrap().encode("a<new>", false).unwrap()[1], 480);
    texts.remove("merges.txt");
    assert!(read(&texts).unwrap_err().to_string().contains("merges.txt"));
}
