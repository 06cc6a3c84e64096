//! The transformer as the [`LanguageModel`] that is trained.

use super::generate::{Sampling, generate_each};
use super::hidden::Hidden;
use super::language_model::{AncestralSampling, LanguageModel, SampledCompletion};
use super::model::Transformer;
use tch::{Device, Tensor};

impl LanguageModel for Transformer {
    fn hidden(&self, ids: &Tensor, mask: &Tensor, from: i64, adapters: bool) -> Tensor {
        self.hidden_from(ids, mask, from, None, adapters)
    }

    fn hidden_for_loss(&self, ids: &Tensor, mask: &Tensor, from: i64, dropout: Option<u64>) -> Hidden<'_> {
        Transformer::hidden_for_loss(self, ids, mask, from, dropout)
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        Transformer::logits(self, hidden)
    }

    fn width(&self) -> usize {
        self.config().width
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        Transformer::trainable(self)
    }

    fn score_pad(&self) -> Option<u32> {
        Transformer::score_pad(self)
    }

    fn keeps_score_bias(&self) -> bool {
        self.last_bias().is_some()
    }

    fn device(&self) -> Device {
        Transformer::device(self)
    }

    fn complete(
        &self,
        prompts: &[&[u32]],
        sampling: &AncestralSampling,
        on_column: &mut dyn FnMut() -> bool,
    ) -> Vec<SampledCompletion> {
        self.complete_each(prompts, 1, sampling, on_column)
    }

    fn complete_each(
        &self,
        prompts: &[&[u32]],
        each: usize,
        sampling: &AncestralSampling,
        on_column: &mut dyn FnMut() -> bool,
    ) -> Vec<SampledCompletion> {
        let sampling = Sampling {
            temperature: sampling.temperature,
            max_new_tokens: sampling.max_new_tokens,
            stop: sampling.stop.clone(),
            seed: sampling.seed,
            ..Sampling::default()
        };
        // The tokens of a column are chosen together, so the first of them stands for all.
        let (mut lengths, mut columns) = (vec![0_usize; prompts.len() * each], 0);
        let mut on_token = |row: usize, _| {
            lengths[row] += 1;
            if lengths[row] <= columns {
                return true;
            }
            columns = lengths[row];
            on_column()
        };
        generate_each(self, prompts, each, &sampling, true, &mut on_token)
            .into_iter()
            .map(|completion| SampledCompletion { tokens: completion.tokens, stopped: completion.stopped })
            .collect()
    }
}
