//! Training data for language models: JSON lines, one object a line, in the formats that TRL and similar libraries
//! read, and TL;DR's published files.
//!
//! | keys | what it is |
//! |---|---|
//! | `text` | a whole text to train on |
//! | `messages` | a conversation to train on |
//! | `prompt` | a prompt to answer |
//! | `prompt`, `completion` | a prompt and an answer to train on |
//! | `prompt`, `chosen`, `rejected` | two answers, the better one first; `margin`, a number, says how much better |
//! | `chosen`, `rejected` | two texts with a common beginning, which is the prompt |
//! | `prompt`, `completion`, `label` | an answer, and whether it is a good one |
//! | `info`, `summaries`, `choice` | TL;DR: a post and two summaries of it, `choice` the better one's index |
//! | `post`, `summary` | TL;DR: a post and its author's summary |
//!
//! The values of `prompt`, `completion`, `chosen` and `rejected` are texts or conversations. A conversation is a list
//! of objects with `role` and `content`. Other keys are ignored. A line in none of these forms is reported with its
//! number; the caller decides whether reading continues.

use super::chat::{self, Message, TemplateError};
use super::tokenizer::{Tokenizer, TokenizerError};
use flipside_core::one_line;
use serde_json::{Map, Value};
use std::fmt;
use std::ops::RangeInclusive;

/// A prompt or a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOrMessages {
    /// Plain text.
    Text(String),
    /// A conversation, or its last messages.
    Messages(Vec<Message>),
}

/// The example that one line holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Example {
    /// A whole text or conversation to train on: `text` or `messages`.
    Whole(TextOrMessages),
    /// A prompt to answer.
    Prompt(TextOrMessages),
    /// A prompt and an answer to train on.
    Completion {
        /// The prompt.
        prompt: TextOrMessages,
        /// The answer.
        completion: TextOrMessages,
    },
    /// Two answers to a prompt.
    Preference {
        /// The prompt; if a line gives none, the common beginning of both texts.
        prompt: TextOrMessages,
        /// The better one, without the prompt.
        chosen: TextOrMessages,
        /// The worse one, without the prompt.
        rejected: TextOrMessages,
        /// How much further ahead the better one must be, in log-odds; 0 if the line does not say.
        margin: f32,
    },
    /// An answer, and whether it is a good one.
    Labelled {
        /// The prompt.
        prompt: TextOrMessages,
        /// The answer.
        completion: TextOrMessages,
        /// Whether it is a good one.
        good: bool,
    },
    /// TL;DR: a post with two summaries, or with its author's own.
    Tldr(Tldr),
}

/// A post of the TL;DR data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tldr {
    /// Its subreddit, without `r/`.
    pub subreddit: String,
    /// Its title.
    pub title: String,
    /// Its text.
    pub post: String,
    /// Two summaries and the better one's index, or the author's own summary.
    pub summaries: Summaries,
    /// `train`, `valid1`, …, if the line says so.
    pub split: Option<String>,
}

/// The summaries of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summaries {
    /// The author's own.
    Own(String),
    /// Two, and which of them was chosen: 0 or 1.
    Judged([String; 2], usize),
}

/// What to do about a line that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadLines {
    /// Stop at the first.
    #[default]
    Stop,
    /// Leave it out, report it and continue.
    Skip,
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Why data could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A line is in none of the known forms.
    #[error("{0}; correct that line, or skip it with --skip-bad-lines")]
    Bad(BadLine),
    /// There is no line, or none that could be read.
    #[error(
        "the data holds no example; give a file of JSON lines such as {{\"prompt\": \"…\", \"completion\": \"…\"}}"
    )]
    Empty,
    /// The examples have the wrong form for the task.
    #[error("{found} cannot be used here: {wanted} is needed; give a file of that form")]
    Unfit {
        /// The form of the line.
        found: &'static str,
        /// The form that the task takes.
        wanted: &'static str,
    },
    /// A post's title alone is too long.
    #[error("a post cannot be cut to {0} tokens because its title is longer; allow longer queries or drop it")]
    TooLong(usize),
    /// The model's chat template refuses a conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The examples of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// In the file's order.
    pub examples: Vec<Example>,
    /// Lines that were left out.
    pub bad: Vec<BadLine>,
}

/// Reads JSON lines. Empty lines and a byte-order mark at the start are skipped.
///
/// # Errors
///
/// The first bad line, unless `on_bad` skips it; a file without any good line.
pub fn read_lines(text: &str, on_bad: BadLines) -> Result<Dataset, DataError> {
    let mut dataset = Dataset::default();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match read_line(line) {
            Ok(example) => dataset.examples.push(example),
            Err(reason) => {
                let bad = BadLine { line: number + 1, reason: one_line(&reason) };
                match on_bad {
                    BadLines::Stop => return Err(DataError::Bad(bad)),
                    BadLines::Skip => dataset.bad.push(bad),
                }
            }
        }
    }
    match dataset.examples.is_empty() {
        true => Err(DataError::Empty),
        false => Ok(dataset),
    }
}

/// The example of one line, or what is wrong with the line.
fn read_line(line: &str) -> Result<Example, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("it is not JSON ({error})"))?;
    let Value::Object(object) = value else { return Err("it is not a JSON object".to_owned()) };
    let has = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
    if has("summaries") || has("info") {
        return tldr_judged(&object).map(Example::Tldr);
    }
    if has("post") && has("summary") {
        return tldr_own(&object).map(Example::Tldr);
    }
    if has("chosen") || has("rejected") {
        let (chosen, rejected) = (words(&object, "chosen")?, words(&object, "rejected")?);
        let (prompt, chosen, rejected) = match has("prompt") {
            true => (words(&object, "prompt")?, chosen, rejected),
            false => common_prompt(chosen, rejected)?,
        };
        check_same_kind(&[("prompt", &prompt), ("chosen", &chosen), ("rejected", &rejected)])?;
        return Ok(Example::Preference { prompt, chosen, rejected, margin: margin(&object)? });
    }
    if has("completion") {
        let (prompt, completion) = (words(&object, "prompt")?, words(&object, "completion")?);
        check_same_kind(&[("prompt", &prompt), ("completion", &completion)])?;
        return match object.get("label") {
            None | Some(Value::Null) => Ok(Example::Completion { prompt, completion }),
            Some(Value::Bool(good)) => Ok(Example::Labelled { prompt, completion, good: *good }),
            Some(label) => Err(format!("\"label\" is {label} where true or false is expected")),
        };
    }
    if has("prompt") {
        return words(&object, "prompt").map(Example::Prompt);
    }
    if has("messages") {
        return match words(&object, "messages")? {
            messages @ TextOrMessages::Messages(_) => Ok(Example::Whole(messages)),
            TextOrMessages::Text(_) => {
                Err("\"messages\" is a text where a list of {\"role\", \"content\"} is expected".to_owned())
            }
        };
    }
    if has("text") {
        return words(&object, "text").map(Example::Whole);
    }
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    Err(format!(
        "it has none of the keys text, messages, prompt, completion, chosen, rejected, summaries (it has: {})",
        keys.join(", ")
    ))
}

/// The text or conversation under this key.
fn words(object: &Map<String, Value>, key: &str) -> Result<TextOrMessages, String> {
    match object.get(key) {
        None | Some(Value::Null) => Err(format!("\"{key}\" is missing")),
        Some(Value::String(text)) => Ok(TextOrMessages::Text(text.clone())),
        Some(Value::Array(list)) if !list.is_empty() => {
            let message = |entry: &Value| -> Result<Message, String> {
                let field = |part: &str| {
                    let text = entry.get(part).and_then(Value::as_str);
                    text.map(str::to_owned)
                        .ok_or_else(|| format!("a message in \"{key}\" has no text under \"{part}\""))
                };
                Ok(Message { role: field("role")?, content: field("content")? })
            };
            list.iter().map(message).collect::<Result<_, _>>().map(TextOrMessages::Messages)
        }
        Some(other) => Err(format!(
            "\"{key}\" is {} where a text or a list of {{\"role\", \"content\"}} is expected",
            match other {
                Value::Array(_) => "an empty list",
                Value::Object(_) => "an object",
                Value::Number(_) => "a number",
                _ => "true or false",
            }
        )),
    }
}

/// The number under `margin`; 0 if there is none.
fn margin(object: &Map<String, Value>) -> Result<f32, String> {
    match object.get("margin") {
        None | Some(Value::Null) => Ok(0.0),
        Some(value) => {
            let margin = value.as_f64().map(|margin| margin as f32).filter(|margin| margin.is_finite());
            margin.ok_or_else(|| format!("\"margin\" is {value} where a number is expected"))
        }
    }
}

/// Checks that all parts are texts, or all are conversations.
fn check_same_kind(parts: &[(&str, &TextOrMessages)]) -> Result<(), String> {
    let is_text = |words: &TextOrMessages| matches!(words, TextOrMessages::Text(_));
    match parts.iter().find(|(_, words)| is_text(words) != is_text(parts[0].1)) {
        None => Ok(()),
        Some((name, _)) => {
            Err(format!("\"{}\" and \"{name}\" are not both texts or both lists of messages", parts[0].0))
        }
    }
}

/// Splits two texts, or two conversations, into their common beginning, which is the prompt, and the rest of each. If
/// the common text ends with a space, the space goes to the completions, because byte-level tokens begin with their
/// space.
fn common_prompt(
    chosen: TextOrMessages,
    rejected: TextOrMessages,
) -> Result<(TextOrMessages, TextOrMessages, TextOrMessages), String> {
    match (chosen, rejected) {
        (TextOrMessages::Text(a), TextOrMessages::Text(b)) => {
            let mut end: usize =
                a.chars().zip(b.chars()).take_while(|(left, right)| left == right).map(|(c, _)| c.len_utf8()).sum();
            if a[..end].ends_with(' ') {
                end -= 1;
            }
            let (chosen, rejected) = (a[end..].to_owned(), b[end..].to_owned());
            Ok((
                TextOrMessages::Text(a[..end].to_owned()),
                TextOrMessages::Text(chosen),
                TextOrMessages::Text(rejected),
            ))
        }
        (TextOrMessages::Messages(mut a), TextOrMessages::Messages(mut b)) => {
            let end = a.iter().zip(&b).take_while(|(left, right)| left == right).count();
            let (chosen, rejected) = (a.split_off(end), b.split_off(end));
            match end == 0 || chosen.is_empty() || rejected.is_empty() {
                true => {
                    Err("\"chosen\" and \"rejected\" are not two ends of one conversation; add a \"prompt\"".to_owned())
                }
                false => Ok((
                    TextOrMessages::Messages(a),
                    TextOrMessages::Messages(chosen),
                    TextOrMessages::Messages(rejected),
                )),
            }
        }
        _ => Err("\"chosen\" and \"rejected\" are not both texts or both lists of messages".to_owned()),
    }
}

/// The value as text; an error if it is not a text.
fn text_of(value: Option<&Value>, name: &str) -> Result<String, String> {
    value.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("\"{name}\" is not a text"))
}

/// Reads one of TL;DR's comparisons: `info{post, title, subreddit}`, `summaries[2]{text}`, `choice`, `split`.
fn tldr_judged(object: &Map<String, Value>) -> Result<Tldr, String> {
    let info = object.get("info").ok_or("\"info\" is missing")?;
    let summaries = object.get("summaries").and_then(Value::as_array).filter(|list| list.len() == 2);
    let summaries = summaries.ok_or("\"summaries\" is not a list of two")?;
    let choice = match object.get("choice").and_then(Value::as_u64) {
        Some(choice @ (0 | 1)) => choice as usize,
        _ => return Err("\"choice\" is neither 0 nor 1".to_owned()),
    };
    let text = |i: usize| text_of(summaries[i].get("text"), "summaries[].text");
    Ok(Tldr {
        subreddit: text_of(info.get("subreddit"), "info.subreddit")?,
        title: text_of(info.get("title"), "info.title")?,
        post: text_of(info.get("post"), "info.post")?,
        summaries: Summaries::Judged([text(0)?, text(1)?], choice),
        split: object.get("split").and_then(Value::as_str).map(str::to_owned),
    })
}

/// Reads one of TL;DR's filtered posts: `subreddit`, `title`, `post`, `summary`.
fn tldr_own(object: &Map<String, Value>) -> Result<Tldr, String> {
    Ok(Tldr {
        subreddit: text_of(object.get("subreddit"), "subreddit")?,
        title: text_of(object.get("title"), "title")?,
        post: text_of(object.get("post"), "post")?,
        summaries: Summaries::Own(text_of(object.get("summary"), "summary")?),
        split: object.get("split").and_then(Value::as_str).map(str::to_owned),
    })
}

impl Example {
    /// All of its text, to train a tokenizer on.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Example::Whole(words) | Example::Prompt(words) => vec![words.to_string()],
            Example::Completion { prompt, completion } | Example::Labelled { prompt, completion, .. } => {
                vec![format!("{prompt}{completion}")]
            }
            Example::Preference { prompt, chosen, rejected, .. } => {
                vec![format!("{prompt}{chosen}"), format!("{prompt}{rejected}")]
            }
            Example::Tldr(post) => {
                let with = |summary: &str| format!("{}{}", post.text(&post.post), Tldr::completion(summary));
                match &post.summaries {
                    Summaries::Own(summary) => vec![with(summary)],
                    Summaries::Judged(two, _) => two.iter().map(|summary| with(summary)).collect(),
                }
            }
        }
    }
}

impl Tldr {
    /// The whole prompt, with this text as the post.
    fn text(&self, post: &str) -> String {
        format!("SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: {post}\n\nTL;DR:", self.subreddit, self.title)
    }

    /// The prompt: `SUBREDDIT: r/…`, `TITLE: …`, `POST: …`, `TL;DR:`, with an empty line between and no space at the
    /// end. If it is longer than `most` tokens, the post is cut at its last newline, repeatedly, until it fits; a post
    /// without a newline loses its last character each time (the published rule).
    ///
    /// # Errors
    ///
    /// A title that is too long by itself.
    pub fn query(&self, tokenizer: &Tokenizer, most: usize) -> Result<String, DataError> {
        let mut post = self.post.as_str();
        loop {
            let query = self.text(post);
            if tokenizer.encode(&query, false)?.len() <= most {
                return Ok(query);
            }
            let last = post.char_indices().next_back().ok_or(DataError::TooLong(most))?.0;
            post = &post[..post.rfind('\n').unwrap_or(last)];
        }
    }

    /// A summary as a completion: trimmed, with one space before it.
    pub fn completion(summary: &str) -> String {
        format!(" {}", summary.trim())
    }
}

/// The published length limits of TL;DR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TldrRules {
    /// The most tokens of a query.
    pub query: usize,
    /// The most tokens of a completion, EOS included.
    pub completion: usize,
    /// The number of tokens, without EOS, that an author's summary must have to be trained on.
    pub summary: RangeInclusive<usize>,
}

impl Default for TldrRules {
    fn default() -> TldrRules {
        TldrRules { query: 512, completion: 53, summary: 24..=48 }
    }
}

/// An example in tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizedExample {
    /// A whole text to train on, EOS included.
    Whole(Vec<u32>),
    /// A prompt to answer.
    Prompt(Vec<u32>),
    /// A prompt and an answer to train on, EOS included.
    Completion {
        /// The prompt.
        prompt: Vec<u32>,
        /// The answer.
        completion: Vec<u32>,
    },
    /// Two answers to a prompt, EOS included in each.
    Preference {
        /// The prompt.
        prompt: Vec<u32>,
        /// The better one.
        chosen: Vec<u32>,
        /// The worse one.
        rejected: Vec<u32>,
        /// See [`Example::Preference`].
        margin: f32,
    },
    /// An answer, EOS included, and whether it is a good one.
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
#[derive(Clone, Debug)]
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The length limits of TL;DR's posts.
    pub tldr: TldrRules,
}

impl Encoder<'_> {
    /// The example in tokens; `None` for a post that TL;DR's filter leaves out. Texts and completions end with EOS.
    /// Prompt and completion are encoded separately, so that the prompt's tokens are the same whatever follows.
    ///
    /// # Errors
    ///
    /// A tokenizer or a chat template that fails.
    pub fn encode(&self, example: &Example) -> Result<Option<TokenizedExample>, DataError> {
        let tokens = match example {
            Example::Whole(words) => TokenizedExample::Whole(self.ended(self.opening(words, false)?)),
            Example::Prompt(prompt) => TokenizedExample::Prompt(self.opening(prompt, true)?),
            Example::Completion { prompt, completion } => TokenizedExample::Completion {
                prompt: self.opening(prompt, true)?,
                completion: self.answer(prompt, completion)?,
            },
            Example::Preference { prompt, chosen, rejected, margin } => TokenizedExample::Preference {
                prompt: self.opening(prompt, true)?,
                chosen: self.answer(prompt, chosen)?,
                rejected: self.answer(prompt, rejected)?,
                margin: *margin,
            },
            Example::Labelled { prompt, completion, good } => TokenizedExample::Labelled {
                prompt: self.opening(prompt, true)?,
                completion: self.answer(prompt, completion)?,
                good: *good,
            },
            Example::Tldr(post) => return self.post(post),
        };
        Ok(Some(tokens))
    }

    fn post(&self, post: &Tldr) -> Result<Option<TokenizedExample>, DataError> {
        let prompt = self.tokenizer.encode(&post.query(self.tokenizer, self.tldr.query)?, false)?;
        let answer = |text: &str| -> Result<Vec<u32>, DataError> {
            let mut tokens = self.ended(self.tokenizer.encode(&Tldr::completion(text), false)?);
            tokens.truncate(self.tldr.completion);
            Ok(tokens)
        };
        Ok(match &post.summaries {
            Summaries::Own(summary) => {
                let length = self.tokenizer.encode(&Tldr::completion(summary), false)?.len();
                match self.tldr.summary.contains(&length) {
                    true => Some(TokenizedExample::Completion { prompt, completion: answer(summary)? }),
                    false => None,
                }
            }
            Summaries::Judged(summaries, choice) => {
                let (chosen, rejected) = (answer(&summaries[*choice])?, answer(&summaries[1 - choice])?);
                Some(TokenizedExample::Preference { prompt, chosen, rejected, margin: 0.0 })
            }
        })
    }

    /// The tokens from the beginning of a text or conversation. With `add_generation_prompt`, an answer follows.
    fn opening(&self, words: &TextOrMessages, add_generation_prompt: bool) -> Result<Vec<u32>, DataError> {
        Ok(match words {
            // Special tokens that the tokenizer puts before a text belong here. An EOS that it puts after the text does
            // not, because an answer may follow.
            TextOrMessages::Text(text) => {
                let mut tokens = self.tokenizer.encode(text, true)?;
                if tokens.last().is_some_and(|&last| Some(last) == self.tokenizer.eos()) && !text.is_empty() {
                    let plain = self.tokenizer.encode(text, false)?;
                    if plain.last() != tokens.last() {
                        tokens.pop();
                    }
                }
                tokens
            }
            TextOrMessages::Messages(messages) => {
                self.tokenizer.encode(&self.conversation(messages, add_generation_prompt)?, false)?
            }
        })
    }

    /// The tokens of an answer, with EOS.
    fn answer(&self, prompt: &TextOrMessages, answer: &TextOrMessages) -> Result<Vec<u32>, DataError> {
        let text = match (prompt, answer) {
            (TextOrMessages::Messages(prompt), TextOrMessages::Messages(answer)) => {
                let before = self.conversation(prompt, true)?;
                let whole = self.conversation(&[prompt.as_slice(), answer].concat(), false)?;
                let rest = whole
                    .strip_prefix(&before)
                    .ok_or_else(|| TemplateError("the text before an answer changes with the answer".to_owned()))?;
                rest.to_owned()
            }
            (_, TextOrMessages::Text(text)) => text.clone(),
            (_, TextOrMessages::Messages(messages)) => self.conversation(messages, false)?,
        };
        Ok(self.ended(self.tokenizer.encode(&text, false)?))
    }

    /// The tokens with EOS at the end, unless the tokenizer has none or it is there already.
    fn ended(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        if let Some(end) = self.tokenizer.eos()
            && tokens.last() != Some(&end)
        {
            tokens.push(end);
        }
        tokens
    }

    fn conversation(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        chat::render(self.tokenizer, messages, add_generation_prompt)
    }
}

impl fmt::Display for TextOrMessages {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            TextOrMessages::Text(text) => f.write_str(text),
            TextOrMessages::Messages(messages) => {
                for (i, message) in messages.iter().enumerate() {
                    let gap = if i == 0 { "" } else { "\n" };
                    write!(f, "{gap}{}: {}", message.role, message.content)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
