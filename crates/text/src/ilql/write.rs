//! Writes completions by a language model's probabilities and ILQL's values together.

use super::super::generate::{Completion, Sampling, choose, left_padded};
use super::super::language_model::LanguageModel;
use super::super::model::Transformer;
use super::heads::IlqlHeads;
use flipside_core::{Seed, Stream};
use flipside_learn::numbers;
use tch::{Kind, Tensor};

/// log π + β (Q − V) of each next token, up to a constant the log-probability that ILQL writes it with: hidden states
/// `[.., d]` → `[.., vocabulary]`.
pub(in super::super) fn scores_by_values(
    model: &impl LanguageModel,
    heads: &IlqlHeads,
    beta: f64,
    hidden: &Tensor,
) -> Tensor {
    let log_probs = model.logits(hidden).log_softmax(-1, Kind::Float);
    log_probs + (heads.slow_q(hidden) - heads.v(hidden).unsqueeze(-1)) * beta
}

/// As [`generate`](crate::generate::generate) with adapters, but each token is drawn by log π + β (Q − V), where Q is
/// the smaller one of the slow copies. Top-k, top-p and the temperature come after it. The log-probabilities of a
/// completion are those of this distribution.
pub fn generate_by_values(
    (model, heads): (&Transformer, &IlqlHeads),
    prompts: &[&[u32]],
    beta: f64,
    sampling: &Sampling,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Vec<Completion> {
    let rows = prompts.len();
    let mut completions = vec![Completion::default(); rows];
    let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(1);
    // The last token is not read again, so it needs no position.
    let max_new_tokens = sampling.max_new_tokens.min((model.config().context + 1).saturating_sub(width));
    if rows == 0 || max_new_tokens == 0 {
        return completions;
    }
    let mut draws: Vec<Stream> =
        (0..rows).map(|row| Seed(sampling.seed).stream(&format!("completion {row}"))).collect();
    let mut cache = model.cache(rows, width + max_new_tokens);
    let (mut ids, mut mask) = left_padded(prompts, width, model.device());
    for _ in 0..max_new_tokens {
        let mut scores = tch::no_grad(|| {
            let last = model.hidden_from(&ids, &mask, ids.size()[1] - 1, Some(&mut cache), true).squeeze_dim(1);
            numbers(&scores_by_values(model, heads, beta, &last))
        });
        let vocabulary = scores.len() / rows;
        let (mut next, mut real) = (vec![0_i64; rows], vec![0_i64; rows]);
        for (row, scores) in scores.chunks_exact_mut(vocabulary).enumerate() {
            if completions[row].stopped {
                continue;
            }
            let (token, log_prob) = choose(scores, sampling, &mut draws[row]);
            let completion = &mut completions[row];
            completion.tokens.push(token);
            completion.log_probs.push(log_prob);
            completion.stopped = sampling.stop.contains(&token);
            (next[row], real[row]) = (i64::from(token), i64::from(!completion.stopped));
            if !on_token(row, token) {
                return completions;
            }
        }
        if real.iter().all(|&real| real == 0) {
            break;
        }
        let column = |numbers: &[i64]| Tensor::from_slice(numbers).unsqueeze(1).to_device(model.device());
        (ids, mask) = (column(&next), column(&real));
    }
    completions
}
