//! Generates completions token by token, with a KV cache.

use super::model::{Hooks, NoHooks, Transformer};
use flipside_core::{Seed, Stream};
use flipside_learn::{OneThread, exponentials};
use rand::RngExt;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy decoding.
    pub temperature: f64,
    /// Only this many of the likeliest tokens are sampled from; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens are sampled from, as few as reach this total probability; 1 for all.
    pub top_p: f64,
    /// Number of tokens after which an unfinished completion is truncated.
    pub max_new_tokens: usize,
    /// The tokens that end a completion.
    pub stop: Vec<u32>,
    /// Seeds the sampling. A row's random numbers depend only on the seed and the row's index, not on the other rows.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, max_new_tokens: 64, stop: vec![], seed: 0 }
    }
}

/// A generated completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Its tokens, including the stop token.
    pub tokens: Vec<u32>,
    /// Each token's log-probability under the full distribution at the sampling temperature (at 1 if that is 0), nats.
    pub log_probs: Vec<f32>,
    /// Whether a stop token ended it; false if it was truncated.
    pub stopped: bool,
}

/// Generates one completion for each prompt. Every prompt must have at least one token. After every token, `on_token`
/// is called with its row and the token; if it returns `false`, the completions so far are returned. Without `adapters`
/// the base model generates. All completions are truncated where the longest prompt's leaves the model's context: the
/// caller checks the lengths and says so.
pub fn generate(
    model: &Transformer,
    prompts: &[&[u32]],
    sampling: &Sampling,
    adapters: bool,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Vec<Completion> {
    generate_each(model, prompts, 1, sampling, adapters, on_token)
}

/// [`generate`] with `each` completions for each prompt, those of one prompt in a row. Each prompt is read once, and
/// its part of the KV cache is then copied for its completions.
pub fn generate_each(
    model: &Transformer,
    prompts: &[&[u32]],
    each: usize,
    sampling: &Sampling,
    adapters: bool,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Vec<Completion> {
    generate_with(model, prompts, each, sampling, adapters, &mut NoHooks, on_token)
}

/// [`generate_each`] with hooks in every forward pass.
pub(super) fn generate_with<H: Hooks>(
    model: &Transformer,
    prompts: &[&[u32]],
    each: usize,
    sampling: &Sampling,
    adapters: bool,
    hooks: &mut H,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Vec<Completion> {
    tch::no_grad(|| decode(model, prompts, each, sampling, adapters, hooks, on_token))
}

fn decode<H: Hooks>(
    model: &Transformer,
    prompts: &[&[u32]],
    each: usize,
    sampling: &Sampling,
    adapters: bool,
    hooks: &mut H,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Vec<Completion> {
    let rows = prompts.len() * each;
    let mut completions = vec![Completion::default(); rows];
    let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(1);
    // The last token is not read again, so it needs no position.
    let max_new_tokens = sampling.max_new_tokens.min((model.config().context + 1).saturating_sub(width));
    if rows == 0 || max_new_tokens == 0 {
        return completions;
    }
    let mut draws: Vec<Stream> =
        (0..rows).map(|row| Seed(sampling.seed).stream(&format!("completion {row}"))).collect();
    let mut cache = model.cache(prompts.len(), if each == 1 { width + max_new_tokens } else { width });
    let mut copies = each;
    let (mut ids, mut mask) = left_padded(prompts, width, model.device());
    let mut _one_thread = None;
    loop {
        let from = ids.size()[1] - 1;
        let last = model.hidden_with(&ids, &mask, from, Some(&mut cache), adapters, hooks).squeeze_dim(1);
        let mut logits = model.decode_logits(&last);
        if copies > 1 {
            let vocabulary = logits.len() / prompts.len();
            logits = logits.chunks_exact(vocabulary).flat_map(|row| row.repeat(copies)).collect();
            cache = cache.repeated(copies, width + max_new_tokens);
            copies = 1;
        }
        let vocabulary = logits.len() / rows;
        let chosen: Vec<Option<(u32, f32)>> =
            (logits.par_chunks_exact_mut(vocabulary).zip(&mut draws).zip(&completions))
                .map(|((logits, draw), completion)| (!completion.stopped).then(|| choose(logits, sampling, draw)))
                .collect();
        let (mut next, mut real) = (vec![0_i64; rows], vec![0_i64; rows]);
        for (row, chosen) in chosen.into_iter().enumerate() {
            let Some((token, log_prob)) = chosen else { continue };
            let completion = &mut completions[row];
            completion.tokens.push(token);
            completion.log_probs.push(log_prob);
            completion.stopped = sampling.stop.contains(&token);
            (next[row], real[row]) = (i64::from(token), i64::from(!completion.stopped));
            if !on_token(row, token) {
                return completions;
            }
        }
        let longest = completions.iter().map(|completion| completion.tokens.len()).max().unwrap_or(0);
        if longest >= max_new_tokens || real.iter().all(|&real| real == 0) {
            return completions;
        }
        // Only small operations are left to libtorch. Its threads would wait for them on the cores that compute the
        // linear layers.
        _one_thread.get_or_insert_with(OneThread::new);
        let column = |numbers: &[i64]| Tensor::from_slice(numbers).unsqueeze(1).to_device(model.device());
        (ids, mask) = (column(&next), column(&real));
    }
}

/// Prompts, padded on the left: ids and mask, `[B, width]` (i64).
pub(super) fn left_padded(prompts: &[&[u32]], width: usize, device: Device) -> (Tensor, Tensor) {
    let (mut ids, mut mask) = (vec![0_i64; prompts.len() * width], vec![0_i64; prompts.len() * width]);
    for (row, prompt) in prompts.iter().enumerate() {
        let start = (row + 1) * width - prompt.len();
        for (i, &token) in prompt.iter().enumerate() {
            (ids[start + i], mask[start + i]) = (i64::from(token), 1);
        }
    }
    let tensor = |numbers: &[i64]| {
        Tensor::from_slice(numbers).reshape([-1, width as i64]).to_device(device).to_kind(Kind::Int64)
    };
    (tensor(&ids), tensor(&mask))
}

/// Chooses a token; returns it with its log-probability under the full distribution. The logits are overwritten.
pub(super) fn choose(logits: &mut [f32], sampling: &Sampling, stream: &mut Stream) -> (u32, f32) {
    let greedy = sampling.temperature == 0.0;
    if !greedy && sampling.temperature != 1.0 {
        let inverse_temperature = (1.0 / sampling.temperature) as f32;
        logits.iter_mut().for_each(|logit| *logit *= inverse_temperature);
    }
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let likeliest = logits.iter().position(|&logit| logit == top).unwrap_or(0);
    exponentials(logits, top);
    let weights = &*logits;
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let token = match greedy {
        true => likeliest,
        false => draw(weights, total, sampling, stream.random::<f64>()),
    };
    (token as u32, (f64::from(weights[token]).ln() - total.ln()) as f32)
}

/// The token at `point` (0 to 1) of the cumulative distribution of `weights`, after top-k and top-p. `total` is the sum
/// of the weights.
fn draw(weights: &[f32], total: f64, sampling: &Sampling, point: f64) -> usize {
    let weight = |i: usize| f64::from(weights[i]);
    let pick = |candidates: &mut dyn Iterator<Item = usize>, total: f64| {
        let (mut rest, mut last) = (point * total, 0);
        for i in candidates {
            last = i;
            rest -= weight(i);
            if rest < 0.0 {
                break;
            }
        }
        last
    };
    let (use_top_k, use_top_p) = (sampling.top_k > 0 && sampling.top_k < weights.len(), sampling.top_p < 1.0);
    if !use_top_k && !use_top_p {
        return pick(&mut (0..weights.len()), total);
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_unstable_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    if use_top_k {
        order.truncate(sampling.top_k);
    }
    let mut remaining: f64 = order.iter().map(|&i| weight(i)).sum();
    if use_top_p {
        // The fewest tokens that reach the probability, at least one.
        let (mut sum, mut count) = (0.0, 0);
        for &i in &order {
            sum += weight(i);
            count += 1;
            if sum >= sampling.top_p * remaining {
                break;
            }
        }
        order.truncate(count);
        remaining = sum;
    }
    pick(&mut order.into_iter(), remaining)
}
