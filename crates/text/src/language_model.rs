//! What training needs of a language model.

use super::hidden::Hidden;
use tch::{Device, Tensor};

/// A causal language model whose parameters are tensors. It has no dropout, except in adapters that train with a
/// dropout seed.
pub trait LanguageModel {
    /// The final hidden states of the columns from `from` on, `[B, T - from, d]`, of ids `[B, T]` (i64) with a mask of
    /// the same shape (i64: 1 for a token, 0 for padding on either side). Without `adapters` it is the base model, bit
    /// for bit.
    fn hidden(&self, ids: &Tensor, mask: &Tensor, from: i64, adapters: bool) -> Tensor;

    /// The same with adapters and gradients, for a loss. A seed turns on the adapters' dropout and decides what is
    /// dropped.
    fn hidden_for_loss(&self, ids: &Tensor, mask: &Tensor, from: i64, _dropout: Option<u64>) -> Hidden<'_> {
        Hidden::with_graph(self.hidden(ids, mask, from, true))
    }

    /// The logits of hidden states, `[.., d]` → `[.., vocabulary]`, f32.
    fn logits(&self, hidden: &Tensor) -> Tensor;

    /// The size of a hidden state, d.
    fn width(&self) -> usize;

    /// The trained tensors by name: leaves that require gradients, shared with the model. The order is always the same.
    fn trainable(&self) -> Vec<(String, Tensor)>;

    /// The token at which a reward is never read: it is read at a text's last token that is not this one, as
    /// transformers' `…ForSequenceClassification` does with the padding token. `None` reads it at the last token.
    fn score_pad(&self) -> Option<u32> {
        None
    }

    /// Whether a reward model's bias can be kept in the model, for a score head of transformers has none. It goes into
    /// the bias of the last norm; an RMS norm has none.
    fn keeps_score_bias(&self) -> bool {
        true
    }

    /// The device of the model's tensors.
    fn device(&self) -> Device;

    /// One completion for each prompt, sampled with adapters. `on_column` is called after every column, which is one
    /// token of each unfinished completion; if it returns false, the completions so far are returned.
    fn complete(
        &self,
        prompts: &[&[u32]],
        sampling: &AncestralSampling,
        on_column: &mut dyn FnMut() -> bool,
    ) -> Vec<SampledCompletion>;

    /// `each` completions for each prompt, those of one prompt in a row; otherwise as [`LanguageModel::complete`]. A
    /// model that can reads each prompt once.
    fn complete_each(
        &self,
        prompts: &[&[u32]],
        each: usize,
        sampling: &AncestralSampling,
        on_column: &mut dyn FnMut() -> bool,
    ) -> Vec<SampledCompletion> {
        let repeated: Vec<&[u32]> = prompts.iter().flat_map(|prompt| std::iter::repeat_n(*prompt, each)).collect();
        self.complete(&repeated, sampling, on_column)
    }
}

/// How completions are sampled: from the full distribution, with the logits divided by the temperature, because PPO
/// needs the policy's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct AncestralSampling {
    /// Divides the logits.
    pub temperature: f64,
    /// Number of tokens after which an unfinished completion is truncated.
    pub max_new_tokens: usize,
    /// The tokens that end a completion.
    pub stop: Vec<u32>,
    /// Seeds the sampling.
    pub seed: u64,
}

/// A sampled completion.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledCompletion {
    /// Its tokens, including the stop token.
    pub tokens: Vec<u32>,
    /// Whether a stop token ended it; false if it was truncated.
    pub stopped: bool,
}
