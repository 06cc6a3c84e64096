//! A completion: what a language model made of a prompt. In text mode it is what is shown, judged and kept, as a clip is elsewhere.

use super::ItemId;
use serde::{Deserialize, Serialize};

/// A prompt, the tokens that a model wrote behind it, and what is known of each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Unique within the session.
    pub id: ItemId,
    /// The prompt as a person reads it.
    pub prompt: String,
    /// The prompt's tokens.
    pub prompt_tokens: Vec<u32>,
    /// The tokens that were written, the one that ended it included.
    pub tokens: Vec<u32>,
    /// What each token adds to the text, `[tokens]`. A character that several tokens make up stands with the last of them; special tokens
    /// add nothing.
    pub pieces: Vec<String>,
    /// log π − log π_ref of each token, nats, `[tokens]`: how much likelier it became by teaching.
    pub log_ratios: Vec<f32>,
    /// Whether it came to an end, rather than being cut.
    pub stopped: bool,
    /// Steps of training done when it was written: how old it is.
    pub recorded_at: u64,
    /// Its score by the grammar that made the data, where that is known. For simulated teachers and evaluation alone.
    pub gold: Option<f64>,
}

impl Completion {
    /// The text that was written.
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
