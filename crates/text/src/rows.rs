//! The layout of training batches: prompts are padded on the left and completions on the right, so that all completions
//! start in the same column.
//!
//! ```text
//!  pad pad  p   p  | c   c   c  pad
//!  p   p    p   p  | c   c  pad pad
//! ```

use super::hidden::Hidden;
use super::language_model::LanguageModel;
use flipside_learn::{LearnError, numbers};
use tch::{Device, Kind, Tensor};

/// A prompt with a completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The given tokens. If there are none, the first token of the completion serves as the prompt and is not trained
    /// on.
    pub prompt: Vec<u32>,
    /// The tokens that are trained on or scored.
    pub completion: Vec<u32>,
}

impl Example {
    /// Prompt and completion. An empty prompt gets the first token of the completion, if there is one.
    pub(super) fn parts(&self) -> (&[u32], &[u32]) {
        match self.prompt.is_empty() && !self.completion.is_empty() {
            true => self.completion.split_at(1),
            false => (&self.prompt, &self.completion),
        }
    }
}

/// A padded batch of prompts and completions.
pub(super) struct Rows {
    /// `[B, P + C]`.
    ids: Tensor,
    /// `[B, P + C]`, 1 for a token.
    mask: Tensor,
    /// P: number of prompt columns, at least 1.
    prompt: i64,
    /// C: number of completion columns.
    completion: i64,
    /// `[B, C]` (i64): the completions' tokens, 0 for padding.
    pub tokens: Tensor,
    /// `[B, C]` (f32): 1 for a completion's token, 0 for padding.
    pub real: Tensor,
    /// `[B]`: the column of each row's last token, counted from the last prompt column.
    last: Tensor,
}

impl Rows {
    /// Lays out (prompt, completion) rows. Every prompt must have at least one token.
    pub fn new(rows: &[(&[u32], &[u32])], device: Device) -> Rows {
        let prompt = rows.iter().map(|(p, _)| p.len()).max().unwrap_or(0).max(1);
        let completion = rows.iter().map(|(_, c)| c.len()).max().unwrap_or(0);
        let width = prompt + completion;
        let (mut ids, mut mask) = (vec![0_i64; rows.len() * width], vec![0_i64; rows.len() * width]);
        let mut last = Vec::with_capacity(rows.len());
        for (row, (p, c)) in rows.iter().enumerate() {
            let start = row * width + prompt - p.len();
            for (i, &token) in p.iter().chain(*c).enumerate() {
                ids[start + i] = i64::from(token);
                mask[start + i] = 1;
            }
            last.push(c.len() as i64);
        }
        let tensor = |numbers: &[i64]| Tensor::from_slice(numbers).reshape([-1, width as i64]).to_device(device);
        let (ids, mask) = (tensor(&ids), tensor(&mask));
        let (prompt, completion) = (prompt as i64, completion as i64);
        Rows {
            tokens: ids.narrow(1, prompt, completion),
            real: mask.narrow(1, prompt, completion).to_kind(Kind::Float),
            ids,
            mask,
            prompt,
            completion,
            last: Tensor::from_slice(&last).to_device(device),
        }
    }

    /// The hidden states of the last prompt column and of all completion columns, `[B, 1 + C, d]`.
    pub fn hidden(&self, model: &impl LanguageModel, adapters: bool) -> Tensor {
        model.hidden(&self.ids, &self.mask, self.prompt - 1, adapters)
    }

    /// The same for a loss, with adapters. A seed turns on their dropout.
    pub fn hidden_for_loss<'m>(&self, model: &'m impl LanguageModel, dropout: Option<u64>) -> Hidden<'m> {
        model.hidden_for_loss(&self.ids, &self.mask, self.prompt - 1, dropout)
    }

    /// The hidden states that predict the completions' tokens, `[B, C, d]`, out of [`Rows::hidden`]'s: each is one
    /// column before its token.
    pub fn before_tokens(&self, hidden: &Tensor) -> Tensor {
        hidden.narrow(1, 0, self.completion)
    }

    /// The hidden state of each row's last token, `[B, d]`, out of [`Rows::hidden`]'s.
    pub fn at_last(&self, hidden: &Tensor) -> Tensor {
        let index = self.last.reshape([-1, 1, 1]).expand([-1, 1, hidden.size()[2]], false);
        hidden.gather(1, &index, false).squeeze_dim(1)
    }

    /// log softmax of logits divided by the temperature, `[B, C, vocabulary]`.
    pub fn log_softmax(&self, model: &impl LanguageModel, hidden: &Tensor, temperature: f64) -> Tensor {
        let logits = model.logits(hidden);
        let logits = if temperature == 1.0 { logits } else { logits / temperature };
        logits.log_softmax(-1, Kind::Float)
    }

    /// The log-probabilities of the completions' tokens, `[B, C]`, out of [`Rows::log_softmax`]'s.
    pub fn chosen(&self, log_softmax: &Tensor) -> Tensor {
        log_softmax.gather(-1, &self.tokens.unsqueeze(-1), false).squeeze_dim(-1)
    }
}

/// A row up to its last token that is not `pad`, which is where transformers reads the score of a text. It keeps one
/// token at least.
pub(super) fn up_to_last_token<'a>(
    (prompt, completion): (&'a [u32], &'a [u32]),
    pad: Option<u32>,
) -> (&'a [u32], &'a [u32]) {
    let length = |tokens: &[u32]| tokens.iter().rposition(|&token| Some(token) != pad).map_or(0, |last| last + 1);
    match (length(prompt), length(completion)) {
        (0, 0) if prompt.is_empty() => (prompt, &completion[..completion.len().min(1)]),
        (shorter, 0) => (&prompt[..shorter.max(1).min(prompt.len())], &completion[..0]),
        (_, shorter) => (prompt, &completion[..shorter]),
    }
}

/// Refuses data that is empty, or that has an empty prompt: the first token of its completion would have no likelihood.
pub(super) fn check_prompts<'a>(
    mut prompts: impl ExactSizeIterator<Item = &'a Vec<u32>>,
    what: &str,
) -> Result<(), LearnError> {
    if prompts.len() == 0 {
        return Err(LearnError::Settings(format!("there is no {what} to learn from")));
    }
    match prompts.any(Vec::is_empty) {
        true => Err(LearnError::Settings(format!(
            "every {what} needs a prompt of at least one token: add prompts, or begin them with a start token"
        ))),
        false => Ok(()),
    }
}

/// The numbers of a `[B, C]` tensor without padding, row by row.
pub(super) fn rows_of(tensor: &Tensor, lengths: impl Iterator<Item = usize>) -> Vec<Vec<f32>> {
    let width = tensor.size()[1] as usize;
    let flat = numbers(tensor);
    lengths.enumerate().map(|(row, length)| flat[row * width..row * width + length].to_vec()).collect()
}
