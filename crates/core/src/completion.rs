//! A completion: what a language model wrote for a prompt. Text mode shows, judges and stores completions; robot mode,
//! clips.

use super::ItemId;
use serde::{Deserialize, Serialize};

/// A prompt, the tokens that a model generated for it, and what is known of each token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Unique within the session.
    pub id: ItemId,
    /// The prompt as a person reads it.
    pub prompt: String,
    /// The prompt's tokens.
    pub prompt_tokens: Vec<u32>,
    /// The generated tokens, including the one that ended the text.
    pub tokens: Vec<u32>,
    /// The text that each token adds, `[tokens]`. A character made of several tokens is listed with the last of them.
    /// Special tokens add nothing.
    pub pieces: Vec<String>,
    /// log π − log π_ref of each token, nats, `[tokens]`: how much likelier training made it.
    pub log_ratios: Vec<f32>,
    /// Whether the model ended the text, rather than it being cut.
    pub stopped: bool,
    /// Steps of training done when it was generated: its age.
    pub recorded_at: u64,
    /// Its gold score: the score under the grammar that made the data, where that is known. Only simulated teachers and
    /// evaluation use it.
    pub gold: Option<f64>,
}

impl Completion {
    /// The generated text.
    pub fn text(&self) -> String {
        self.pieces.concat()
    }

    /// Whether the lists have a number for each token and the numbers are finite.
    pub fn is_sound(&self) -> bool {
        let n = self.tokens.len();
        self.pieces.len() == n
            && self.log_ratios.len() == n
            && self.log_ratios.iter().all(|x| x.is_finite())
            && self.gold.is_none_or(f64::is_finite)
    }
}
