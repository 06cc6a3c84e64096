//! What a reward model reads of a policy's completions. The same answer has the same tokens, whether it comes from a
//! file that the reward model learned from or was written by the policy.
//!
//! A prompt that is a text is followed by the completion's own tokens. A conversation is written anew with the answer
//! as its last message, because a template may write around an answer what a policy does not (a line break behind the
//! end, an empty `<think>` before the answer) or leave out what a policy wrote. If the reward model has another
//! tokenizer, everything is encoded anew.

use super::chat::{self, Message};
use super::data::{DataError, Encoder, TextOrMessages};
use super::rows::Example;
use super::tokenizer::Tokenizer;

/// Turns a policy's completions into what the reward model scores.
#[derive(Clone, Debug)]
pub struct ScoreEncoder {
    policy: Tokenizer,
    /// The reward model's tokenizer, if it is another one.
    other: Option<Tokenizer>,
    /// The tokens that end a completion of the policy.
    ends: Vec<u32>,
    /// The reward model's context length in positions.
    context: usize,
}

/// What stands in for an answer, to see what a template writes around it.
const ANSWER: &str = "Answer8f3e";

impl ScoreEncoder {
    /// An encoder for a policy and a reward model. `ends` are the tokens that end the policy's completions, and
    /// `context` is the reward model's context length.
    pub fn new(policy: &Tokenizer, reward: &Tokenizer, ends: Vec<u32>, context: usize) -> ScoreEncoder {
        let other = (!policy.encodes_like(reward)).then(|| reward.clone());
        ScoreEncoder { policy: policy.clone(), other, ends, context }
    }

    /// Whether the reward model has another tokenizer or chat template than the policy.
    pub fn encodes_anew(&self) -> bool {
        self.other.is_some()
    }

    /// The prompt's tokens for the reward model, before an answer.
    ///
    /// # Errors
    ///
    /// A text that the reward model's tokenizer or chat template refuses.
    pub fn prompt(&self, words: &TextOrMessages) -> Result<Vec<u32>, DataError> {
        Encoder::new(self.reward()).prompt(words)
    }

    /// What the reward model scores: `prompt` are the policy's tokens of the prompt `words`, `completion` what it
    /// wrote, with its end if it has one. If it is longer than the reward model's context, the beginning is left out.
    ///
    /// # Errors
    ///
    /// As [`ScoreEncoder::prompt`].
    pub fn example(&self, words: &TextOrMessages, prompt: &[u32], completion: &[u32]) -> Result<Example, DataError> {
        let example = match words {
            TextOrMessages::Text(_) if self.other.is_none() => {
                Example { prompt: prompt.to_vec(), completion: completion.to_vec() }
            }
            _ => self.anew(words, prompt, completion)?,
        };
        Ok(self.fitted(example))
    }

    fn reward(&self) -> &Tokenizer {
        self.other.as_ref().unwrap_or(&self.policy)
    }

    fn anew(&self, words: &TextOrMessages, prompt: &[u32], completion: &[u32]) -> Result<Example, DataError> {
        let ended = completion.last().is_some_and(|last| self.ends.contains(last));
        let answer = self.policy.continuation(prompt, &completion[..completion.len() - usize::from(ended)], false)?;
        let answer = match words {
            TextOrMessages::Text(_) => TextOrMessages::Text(answer),
            TextOrMessages::Messages(messages) => {
                let content = self.without_surroundings(messages, &answer)?;
                TextOrMessages::Messages(vec![Message::new("assistant", content)])
            }
        };
        let (prompt, [mut completion]) = Encoder::new(self.reward()).answers(words, [&answer])?;
        if !ended {
            // An answer that was cut has no end.
            let ends = self.reward().ends();
            let end = completion.iter().position(|token| ends.contains(token) || self.is_end(*token));
            completion.truncate(end.unwrap_or(completion.len()));
        }
        Ok(Example { prompt, completion })
    }

    fn is_end(&self, token: u32) -> bool {
        self.other.is_none() && self.ends.contains(&token)
    }

    /// The answer without what the policy's template writes around an answer, which it would write a second time.
    fn without_surroundings(&self, messages: &[Message], answer: &str) -> Result<String, DataError> {
        if messages.last().is_some_and(|last| last.role == "assistant") {
            return Ok(answer.to_owned());
        }
        let before = chat::render(&self.policy, messages, true)?;
        let with_answer = [messages, &[Message::new("assistant", ANSWER)]].concat();
        let whole = chat::render(&self.policy, &with_answer, false)?;
        let around = whole.rsplit_once(ANSWER).and_then(|(start, end)| Some((start.strip_prefix(&before)?, end)));
        let Some((lead, tail)) = around else { return Ok(answer.to_owned()) };
        // What the template writes before the end that the policy has written itself.
        let ends = self.ends.iter().filter_map(|&end| self.policy.name(end));
        let tail = ends.filter_map(|end| tail.find(&end)).min().map_or(tail, |place| &tail[..place]);
        let answer = answer.strip_prefix(lead).unwrap_or(answer);
        Ok(answer.strip_suffix(tail).unwrap_or(answer).to_owned())
    }

    /// The example, without its beginning if it is longer than the context.
    fn fitted(&self, Example { mut prompt, mut completion }: Example) -> Example {
        let over = (prompt.len() + completion.len()).saturating_sub(self.context);
        let of_prompt = over.min(prompt.len().saturating_sub(1));
        prompt.drain(..of_prompt);
        completion.drain(..(over - of_prompt).min(completion.len().saturating_sub(1)));
        Example { prompt, completion }
    }
}
