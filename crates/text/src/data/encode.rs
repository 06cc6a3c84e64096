//! Examples in tokens.

use super::super::chat::{self, TemplateError};
use super::super::tokenizer::Tokenizer;
use super::{DataError, Example, Message, Summaries, TextOrMessages, Tldr};
use std::ops::RangeInclusive;

/// The published length limits of TL;DR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TldrRules {
    /// The most tokens of a query with a post.
    pub query: usize,
    /// The most tokens of a post's summary, EOS included.
    pub completion: usize,
    /// The most tokens of a query with an article.
    pub article_query: usize,
    /// The most tokens of an article's summary, EOS included.
    pub article_completion: usize,
    /// The number of tokens, without EOS, that an author's summary must have to be trained on.
    pub summary: RangeInclusive<usize>,
}

impl Default for TldrRules {
    fn default() -> TldrRules {
        TldrRules { query: 512, completion: 53, article_query: 2047 - 128, article_completion: 128, summary: 24..=48 }
    }
}

/// An example in tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizedExample {
    /// A whole text to train on, with its end.
    Whole(Vec<u32>),
    /// A prompt to answer.
    Prompt(Vec<u32>),
    /// A prompt and an answer to train on, with its end.
    Completion {
        /// The prompt.
        prompt: Vec<u32>,
        /// The answer.
        completion: Vec<u32>,
    },
    /// Two answers to a prompt, each with its end.
    Preference {
        /// The prompt.
        prompt: Vec<u32>,
        /// The better one.
        chosen: Vec<u32>,
        /// The worse one.
        rejected: Vec<u32>,
        /// The probability that `chosen` is the better one, at least 0.5.
        target: f32,
        /// See [`Example::Preference`].
        margin: f32,
    },
    /// An answer with its end, and whether it is a good one.
    Labelled {
        /// The prompt.
        prompt: Vec<u32>,
        /// The answer.
        completion: Vec<u32>,
        /// Whether it is a good one.
        good: bool,
    },
}

impl TokenizedExample {
    /// The prompt; empty for a whole text.
    pub fn prompt(&self) -> &[u32] {
        match self {
            TokenizedExample::Whole(_) => &[],
            TokenizedExample::Prompt(prompt)
            | TokenizedExample::Completion { prompt, .. }
            | TokenizedExample::Preference { prompt, .. }
            | TokenizedExample::Labelled { prompt, .. } => prompt,
        }
    }
}

/// Turns examples into tokens.
///
/// The tokens are those of the whole text, prompt and completion together, cut at the border between the two. Where the
/// border falls inside a token, the token belongs to the completion. A text ends with EOS. A conversation ends as its
/// chat template ends it; nothing is added. Both are what TRL and transformers do.
#[derive(Clone, Debug)]
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The length limits of TL;DR's posts.
    pub tldr: TldrRules,
}

/// A text that ends with an answer.
struct Answered {
    text: String,
    /// The byte where the answer begins.
    border: usize,
    form: Form,
}

/// How a text becomes tokens.
#[derive(Clone, Copy)]
struct Form {
    /// Whether the tokenizer puts its special tokens before it. A chat template writes them itself.
    special: bool,
    /// Whether EOS follows it.
    ends: bool,
}

impl<'a> Encoder<'a> {
    /// An encoder with the published limits of TL;DR's posts.
    pub fn new(tokenizer: &'a Tokenizer) -> Encoder<'a> {
        Encoder { tokenizer, tldr: TldrRules::default() }
    }

    /// The example in tokens; `None` for a post that TL;DR's filter leaves out.
    ///
    /// # Errors
    ///
    /// A tokenizer or a chat template that fails.
    pub fn encode(&self, example: &Example) -> Result<Option<TokenizedExample>, DataError> {
        let tokens = match example {
            Example::Whole(words) => TokenizedExample::Whole(self.whole(words)?),
            Example::Prompt(prompt) => TokenizedExample::Prompt(self.prompt(prompt)?),
            Example::Completion { prompt, completion } => {
                let (prompt, [completion]) = self.answers(prompt, [completion])?;
                TokenizedExample::Completion { prompt, completion }
            }
            Example::Preference { prompt, chosen, rejected, target, margin } => {
                let (prompt, [chosen, rejected]) = self.answers(prompt, [chosen, rejected])?;
                TokenizedExample::Preference { prompt, chosen, rejected, target: *target, margin: *margin }
            }
            Example::Labelled { prompt, completion, good } => {
                let (prompt, [completion]) = self.answers(prompt, [completion])?;
                TokenizedExample::Labelled { prompt, completion, good: *good }
            }
            Example::Tldr(post) => return self.post(post),
        };
        Ok(Some(tokens))
    }

    /// The example's prompt, as words and in the tokens that an answer is written after; `None` if it has none.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    pub fn prompt_of(&self, example: &Example) -> Result<Option<(TextOrMessages, Vec<u32>)>, DataError> {
        let words = match example {
            Example::Prompt(prompt)
            | Example::Completion { prompt, .. }
            | Example::Preference { prompt, .. }
            | Example::Labelled { prompt, .. } => prompt.clone(),
            Example::Tldr(post) => TextOrMessages::Text(self.query(post)?),
            // The answer of a conversation is its last message.
            Example::Whole(TextOrMessages::Messages(messages)) => match messages.split_last() {
                Some((last, before)) if last.role == "assistant" && !before.is_empty() => {
                    TextOrMessages::Messages(before.to_vec())
                }
                _ => return Ok(None),
            },
            Example::Whole(TextOrMessages::Text(_)) => return Ok(None),
        };
        if matches!(&words, TextOrMessages::Text(text) if text.is_empty()) {
            return Ok(None);
        }
        let tokens = self.prompt(&words)?;
        Ok(Some((words, tokens)))
    }

    /// The tokens of a prompt that an answer is written after.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    pub fn prompt(&self, prompt: &TextOrMessages) -> Result<Vec<u32>, DataError> {
        let (text, form) = match prompt {
            TextOrMessages::Text(text) => (text.clone(), Form::TEXT),
            TextOrMessages::Messages(messages) => (self.before_answer(messages)?, self.form()),
        };
        Ok(self.tokenizer.encode_with_ends(&text, form.special)?.0)
    }

    /// The tokens of a prompt and of answers to it. The prompt's tokens are those that all of them share.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    pub fn answers<const N: usize>(
        &self,
        prompt: &TextOrMessages,
        answers: [&TextOrMessages; N],
    ) -> Result<(Vec<u32>, [Vec<u32>; N]), DataError> {
        let mut all: [(Vec<u32>, bool); N] = std::array::from_fn(|_| Default::default());
        let mut shared = usize::MAX;
        for (i, answer) in answers.into_iter().enumerate() {
            let Answered { text, border, form } = self.answered(prompt, answer)?;
            let (tokens, ends) = self.tokenizer.encode_with_ends(&text, form.special)?;
            shared = shared.min(ends.partition_point(|&end| end <= border));
            if i > 0 {
                shared = shared.min(all[0].0.iter().zip(&tokens).take_while(|(first, this)| first == this).count());
            }
            all[i] = (tokens, form.ends);
        }
        let prompt = all.first().map_or_else(Vec::new, |(tokens, _)| tokens[..shared.min(tokens.len())].to_vec());
        let mut cut: [Vec<u32>; N] = std::array::from_fn(|_| Vec::new());
        for (answer, (tokens, ends)) in cut.iter_mut().zip(all) {
            let tokens = tokens[prompt.len()..].to_vec();
            *answer = if ends { self.ended(tokens)? } else { tokens };
        }
        Ok((prompt, cut))
    }

    fn whole(&self, words: &TextOrMessages) -> Result<Vec<u32>, DataError> {
        let (text, form) = match words {
            TextOrMessages::Text(text) => (text.clone(), Form::TEXT),
            TextOrMessages::Messages(messages) => (chat::render(self.tokenizer, messages, false)?, self.form()),
        };
        let tokens = self.tokenizer.encode_with_ends(&text, form.special)?.0;
        if form.ends { self.ended(tokens) } else { Ok(tokens) }
    }

    fn query(&self, post: &Tldr) -> Result<String, DataError> {
        let most = if post.heading.is_some() { self.tldr.query } else { self.tldr.article_query };
        post.query(self.tokenizer, most)
    }

    fn post(&self, post: &Tldr) -> Result<Option<TokenizedExample>, DataError> {
        let prompt = TextOrMessages::Text(self.query(post)?);
        let most = if post.heading.is_some() { self.tldr.completion } else { self.tldr.article_completion };
        let words = |summary: &str| TextOrMessages::Text(Tldr::completion(summary));
        Ok(match &post.summaries {
            Summaries::Own(summary) => {
                let (prompt, [mut completion]) = self.answers(&prompt, [&words(summary)])?;
                let length = completion.len() - usize::from(self.tokenizer.eos().is_some());
                completion.truncate(most);
                let fits = self.tldr.summary.contains(&length);
                fits.then_some(TokenizedExample::Completion { prompt, completion })
            }
            Summaries::Judged(summaries, choice) => {
                let two = [&words(&summaries[*choice]), &words(&summaries[1 - choice])];
                let (prompt, [mut chosen, mut rejected]) = self.answers(&prompt, two)?;
                chosen.truncate(most);
                rejected.truncate(most);
                Some(TokenizedExample::Preference { prompt, chosen, rejected, target: 1.0, margin: 0.0 })
            }
        })
    }

    /// Prompt and answer as one text. If the template writes other text before an answer than it does when an answer is
    /// asked for (such as `<think>`), the prompt ends where the two part.
    fn answered(&self, prompt: &TextOrMessages, answer: &TextOrMessages) -> Result<Answered, DataError> {
        let joined = |before: String, answer: &str, form: Form| {
            let border = before.len();
            Answered { text: before + answer, border, form }
        };
        Ok(match (prompt, answer) {
            (TextOrMessages::Messages(prompt), TextOrMessages::Messages(answer)) => {
                let before = self.before_answer(prompt)?;
                let text = chat::render(self.tokenizer, &[prompt.as_slice(), answer].concat(), false)?;
                let same = before.chars().zip(text.chars()).take_while(|(before, whole)| before == whole);
                let border = same.map(|(c, _)| c.len_utf8()).sum();
                Answered { text, border, form: self.form() }
            }
            (TextOrMessages::Text(prompt), TextOrMessages::Text(answer)) => joined(prompt.clone(), answer, Form::TEXT),
            (TextOrMessages::Messages(prompt), TextOrMessages::Text(answer)) => {
                joined(self.before_answer(prompt)?, answer, Form { ends: true, ..self.form() })
            }
            (TextOrMessages::Text(prompt), TextOrMessages::Messages(answer)) => {
                joined(prompt.clone(), &chat::render(self.tokenizer, answer, false)?, Form::TEXT)
            }
        })
    }

    /// A conversation up to where an answer begins. If its last message is an assistant's, the answer continues it.
    fn before_answer(&self, messages: &[Message]) -> Result<String, TemplateError> {
        match messages.last() {
            Some(last) if last.role == "assistant" => chat::render_to_continue(self.tokenizer, messages),
            _ => chat::render(self.tokenizer, messages, true),
        }
    }

    /// The form of conversations. Without a template they are plain texts.
    fn form(&self) -> Form {
        let plain = self.tokenizer.chat_template().is_none();
        Form { special: plain, ends: plain }
    }

    /// The tokens with EOS at the end, unless the tokenizer has none or it is there already.
    fn ended(&self, mut tokens: Vec<u32>) -> Result<Vec<u32>, DataError> {
        if let Some(end) = self.tokenizer.eos()
            && tokens.last() != Some(&end)
        {
            tokens.push(end);
        }
        Ok(self.tokenizer.with_rows(tokens)?)
    }
}

impl Form {
    /// That of plain texts.
    const TEXT: Form = Form { special: true, ends: true };
}
