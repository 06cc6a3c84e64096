//! The number that an analysis explains.

use super::error::no_position;
use super::{InterpError, Subject};
use tch::{Kind, Tensor};

/// A number that a model computes for a row of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The logit of the token `better` minus that of `worse`, after the token at `position`.
    LogitDifference {
        /// The token whose logit counts.
        better: u32,
        /// The token whose logit is taken off.
        worse: u32,
        /// The position of the token before them.
        position: usize,
    },
    /// The log-probability of the tokens from `from` on, given those before, nats.
    LogProb {
        /// The first token that counts, at least 1.
        from: usize,
    },
}

impl Metric {
    /// The metric of each row, `[B]`, from the last norm's output `[B, T, d]` and the tokens `[B, T]`, as `reader`'s
    /// unembedding reads it.
    ///
    /// # Errors
    ///
    /// A token beyond the vocabulary, or a position beyond the tokens.
    pub fn read(&self, reader: &Subject, normed: &Tensor, tokens: &Tensor) -> Result<Tensor, InterpError> {
        let length = normed.size()[1] as usize;
        match *self {
            Metric::LogitDifference { better, worse, position } => {
                if position >= length {
                    return Err(no_position(position, length));
                }
                let logits = reader.logits_of(&normed.select(1, position as i64), &[better, worse])?;
                Ok(logits.select(-1, 0) - logits.select(-1, 1))
            }
            Metric::LogProb { from } => {
                if from == 0 || from >= length {
                    return Err(InterpError::Tokens(format!(
                        "A continuation has to begin after the first of {length} tokens and before their end; it begins at {from}."
                    )));
                }
                let (first, count) = (from as i64 - 1, (length - from) as i64);
                let log_probs = reader.unembed(&normed.narrow(1, first, count)).log_softmax(-1, Kind::Float);
                let next = tokens.narrow(1, first + 1, count).unsqueeze(-1).expand([normed.size()[0], -1, -1], false);
                let chosen = log_probs.gather(-1, &next, false).squeeze_dim(-1);
                Ok(chosen.sum_dim_intlist(1, false, Kind::Float))
            }
        }
    }

    /// The first position whose last norm it reads.
    pub(super) fn first_position(&self) -> usize {
        match *self {
            Metric::LogitDifference { position, .. } => position,
            Metric::LogProb { from } => from.saturating_sub(1),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Metric::LogitDifference { .. } => "logit difference",
            Metric::LogProb { .. } => "log-probability",
        }
    }
}
