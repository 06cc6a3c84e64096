//! What language models are trained on: JSON lines, one object a line, in the forms that the known libraries read, and TL;DR's
//! published files.
//!
//! | keys | what it is |
//! |---|---|
//! | `text` | a text to learn from as it stands |
//! | `messages` | a conversation to learn from |
//! | `prompt` | something to answer |
//! | `prompt`, `completion` | an answer to learn from |
//! | `prompt`, `chosen`, `rejected` | two answers, the better one first |
//! | `chosen`, `rejected` | two texts that begin alike: the common part is the prompt |
//! | `prompt`, `completion`, `label` | an answer and whether it is a good one |
//! | `info`, `summaries`, `choice` | TL;DR: a post and two summaries of it, `choice` the better one's index |
//! | `post`, `summary` | TL;DR: a post and its author's summary |
//!
//! Prompts, completions and the like are texts, or conversations: lists of `{"role", "content"}`. Other keys are left alone. A line that
//! is none of these is reported with its number; whether the rest goes on is the caller's to say.

use super::tokenizer::{Tokenizer, TokenizerError};
use flipside_core::one_line;
use serde_json::{Map, Value};
use std::fmt;
use std::ops::RangeInclusive;

/// One thing said in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who says it: `system`, `user`, `assistant`, …
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A prompt or a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// Plain text.
    Text(String),
    /// A conversation, or its end.
    Messages(Vec<Message>),
}

/// What one line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Example {
    /// Something to learn from as a whole: `text` or `messages`.
    Whole(Words),
    /// Something to answer.
    Prompt(Words),
    /// An answer to learn from.
    Completion {
        /// What is answered.
        prompt: Words,
        /// The answer.
        completion: Words,
    },
    /// Two answers.
    Preference {
        /// What is answered; where a line gives none, what both begin with.
        prompt: Words,
        /// The better one, without the prompt.
        chosen: Words,
        /// The worse one, without the prompt.
        rejected: Words,
    },
    /// An answer and a verdict on it.
    Labelled {
        /// What is answered.
        prompt: Words,
        /// The answer.
        completion: Words,
        /// Whether it is a good one.
        good: bool,
    },
    /// TL;DR: a post and two summaries, or its author's one.
    Tldr(Tldr),
}

/// A post of TL;DR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tldr {
    /// Where it was posted, without `r/`.
    pub subreddit: String,
    /// Its title.
    pub title: String,
    /// Its text.
    pub post: String,
    /// Two summaries and the better one's index, or one summary, its author's.
    pub summaries: Summaries,
    /// `train`, `valid1`, … where the line says so.
    pub split: Option<String>,
}

/// What is said of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summaries {
    /// Its author's.
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
    /// Leave it out, report it, and go on.
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
    /// A line that is none of the forms.
    #[error("{0}; mend that line, or go on without it with --skip-bad-lines")]
    Bad(BadLine),
    /// No line at all, or none that could be read.
    #[error(
        "the data holds no example; give a file of JSON lines such as {{\"prompt\": \"…\", \"completion\": \"…\"}}"
    )]
    Empty,
    /// Examples that do not serve.
    #[error("{found} cannot be used here: {wanted} is needed; give a file of that form")]
    Unfit {
        /// What the line is.
        found: &'static str,
        /// What the task takes.
        wanted: &'static str,
    },
    /// A post whose title alone is too long.
    #[error("a post cannot be cut to {0} tokens because its title is longer; allow longer queries or drop it")]
    TooLong(usize),
    /// A conversation that the model's template refuses.
    #[error("the model's chat template refuses a conversation ({0}); change the conversation or the template")]
    Template(String),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The examples of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// In the file's order.
    pub examples: Vec<Example>,
    /// Lines that were left out.
    pub bad: Vec<BadLine>,
}

/// Reads JSON lines. Empty lines are skipped; a byte-order mark at the start is too.
///
/// # Errors
///
/// The first bad line, unless `on_bad` says to go on; a file without one good line.
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

/// One line, or what is wrong with it.
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
        alike(&[("prompt", &prompt), ("chosen", &chosen), ("rejected", &rejected)])?;
        return Ok(Example::Preference { prompt, chosen, rejected });
    }
    if has("completion") {
        let (prompt, completion) = (words(&object, "prompt")?, words(&object, "completion")?);
        alike(&[("prompt", &prompt), ("completion", &completion)])?;
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
            messages @ Words::Messages(_) => Ok(Example::Whole(messages)),
            Words::Text(_) => {
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
fn words(object: &Map<String, Value>, key: &str) -> Result<Words, String> {
    match object.get(key) {
        None | Some(Value::Null) => Err(format!("\"{key}\" is missing")),
        Some(Value::String(text)) => Ok(Words::Text(text.clone())),
        Some(Value::Array(list)) if !list.is_empty() => {
            let message = |entry: &Value| -> Result<Message, String> {
                let said = |part: &str| {
                    let text = entry.get(part).and_then(Value::as_str);
                    text.map(str::to_owned)
                        .ok_or_else(|| format!("a message in \"{key}\" has no text under \"{part}\""))
                };
                Ok(Message { role: said("role")?, content: said("content")? })
            };
            list.iter().map(message).collect::<Result<_, _>>().map(Words::Messages)
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

/// All texts, or all conversations.
fn alike(parts: &[(&str, &Words)]) -> Result<(), String> {
    let is_text = |words: &Words| matches!(words, Words::Text(_));
    match parts.iter().find(|(_, words)| is_text(words) != is_text(parts[0].1)) {
        None => Ok(()),
        Some((name, _)) => {
            Err(format!("\"{}\" and \"{name}\" are not both texts or both lists of messages", parts[0].0))
        }
    }
}

/// What two texts, or two conversations, both begin with, and the rest of each. The prompt of texts ends before the last space that both
/// share, so that a leading space belongs to the completion, as byte-level tokens have it.
fn common_prompt(chosen: Words, rejected: Words) -> Result<(Words, Words, Words), String> {
    match (chosen, rejected) {
        (Words::Text(a), Words::Text(b)) => {
            let mut end: usize =
                a.chars().zip(b.chars()).take_while(|(left, right)| left == right).map(|(c, _)| c.len_utf8()).sum();
            if a[..end].ends_with(' ') {
                end -= 1;
            }
            let (chosen, rejected) = (a[end..].to_owned(), b[end..].to_owned());
            Ok((Words::Text(a[..end].to_owned()), Words::Text(chosen), Words::Text(rejected)))
        }
        (Words::Messages(mut a), Words::Messages(mut b)) => {
            let end = a.iter().zip(&b).take_while(|(left, right)| left == right).count();
            let (chosen, rejected) = (a.split_off(end), b.split_off(end));
            match end == 0 || chosen.is_empty() || rejected.is_empty() {
                true => {
                    Err("\"chosen\" and \"rejected\" are not two ends of one conversation; add a \"prompt\"".to_owned())
                }
                false => Ok((Words::Messages(a), Words::Messages(chosen), Words::Messages(rejected))),
            }
        }
        _ => Err("\"chosen\" and \"rejected\" are not both texts or both lists of messages".to_owned()),
    }
}

/// A text under this key of an object.
fn text_of(value: Option<&Value>, name: &str) -> Result<String, String> {
    value.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("\"{name}\" is not a text"))
}

/// The comparisons: `info{post, title, subreddit}`, `summaries[2]{text}`, `choice`, `split`.
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

/// The filtered posts: `subreddit`, `title`, `post`, `summary`.
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
    /// All of its text, for training a tokenizer on.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Example::Whole(words) | Example::Prompt(words) => vec![words.to_string()],
            Example::Completion { prompt, completion } | Example::Labelled { prompt, completion, .. } => {
                vec![format!("{prompt}{completion}")]
            }
            Example::Preference { prompt, chosen, rejected } => {
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
    /// The whole prompt, with this much of the post.
    fn text(&self, post: &str) -> String {
        format!("SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: {post}\n\nTL;DR:", self.subreddit, self.title)
    }

    /// The prompt: `SUBREDDIT: r/…`, `TITLE: …`, `POST: …`, `TL;DR:`, with an empty line between and no space at the end. A post that
    /// makes it longer than `most` tokens is cut at its last newline, and again, until it fits; one without a newline loses its last
    /// character (the published rule).
    ///
    /// # Errors
    ///
    /// A title that alone is too long.
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

    /// A summary as a completion: without spaces around it, and with one before.
    pub fn completion(summary: &str) -> String {
        format!(" {}", summary.trim())
    }
}

/// The published rules of TL;DR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TldrRules {
    /// Tokens that a query may have.
    pub query: usize,
    /// Tokens that a completion may have, the end among them.
    pub completion: usize,
    /// Tokens that an author's summary must have to be learnt from, without the end.
    pub summary: RangeInclusive<usize>,
}

impl Default for TldrRules {
    fn default() -> TldrRules {
        TldrRules { query: 512, completion: 53, summary: 24..=48 }
    }
}

/// An example in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// To be learnt as a whole, the end included.
    Whole(Vec<u32>),
    /// Something to answer.
    Prompt(Vec<u32>),
    /// An answer to learn from, the end included.
    Completion {
        /// What is answered.
        prompt: Vec<u32>,
        /// The answer.
        completion: Vec<u32>,
    },
    /// Two answers, the end included in each.
    Preference {
        /// What is answered.
        prompt: Vec<u32>,
        /// The better one.
        chosen: Vec<u32>,
        /// The worse one.
        rejected: Vec<u32>,
    },
    /// An answer, the end included, and a verdict.
    Labelled {
        /// What is answered.
        prompt: Vec<u32>,
        /// The answer.
        completion: Vec<u32>,
        /// Whether it is a good one.
        good: bool,
    },
}

impl Tokens {
    /// What is answered; empty for a whole text.
    pub fn prompt(&self) -> &[u32] {
        match self {
            Tokens::Whole(_) => &[],
            Tokens::Prompt(prompt)
            | Tokens::Completion { prompt, .. }
            | Tokens::Preference { prompt, .. }
            | Tokens::Labelled { prompt, .. } => prompt,
        }
    }
}

/// Turns examples into tokens.
#[derive(Clone, Debug)]
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What holds for TL;DR's posts.
    pub tldr: TldrRules,
}

impl Encoder<'_> {
    /// The example in tokens; `None` for a post that TL;DR's filter leaves out. Texts end with the tokenizer's end; a completion and its
    /// prompt are encoded apart, so that the prompt's tokens are the same whatever follows.
    ///
    /// # Errors
    ///
    /// A tokenizer or a chat template that refuses.
    pub fn encode(&self, example: &Example) -> Result<Option<Tokens>, DataError> {
        let tokens = match example {
            Example::Whole(words) => Tokens::Whole(self.ended(self.opening(words, false)?)),
            Example::Prompt(prompt) => Tokens::Prompt(self.opening(prompt, true)?),
            Example::Completion { prompt, completion } => {
                Tokens::Completion { prompt: self.opening(prompt, true)?, completion: self.answer(prompt, completion)? }
            }
            Example::Preference { prompt, chosen, rejected } => Tokens::Preference {
                prompt: self.opening(prompt, true)?,
                chosen: self.answer(prompt, chosen)?,
                rejected: self.answer(prompt, rejected)?,
            },
            Example::Labelled { prompt, completion, good } => Tokens::Labelled {
                prompt: self.opening(prompt, true)?,
                completion: self.answer(prompt, completion)?,
                good: *good,
            },
            Example::Tldr(post) => return self.post(post),
        };
        Ok(Some(tokens))
    }

    fn post(&self, post: &Tldr) -> Result<Option<Tokens>, DataError> {
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
                    true => Some(Tokens::Completion { prompt, completion: answer(summary)? }),
                    false => None,
                }
            }
            Summaries::Judged(summaries, choice) => {
                let (chosen, rejected) = (answer(&summaries[*choice])?, answer(&summaries[1 - choice])?);
                Some(Tokens::Preference { prompt, chosen, rejected })
            }
        })
    }

    /// The tokens of words that nothing stands before; `asks` says that an answer follows.
    fn opening(&self, words: &Words, asks: bool) -> Result<Vec<u32>, DataError> {
        Ok(match words {
            // What the tokenizer puts before a text belongs here, what it puts behind it does not: an answer may follow.
            Words::Text(text) => {
                let mut tokens = self.tokenizer.encode(text, true)?;
                if tokens.last().is_some_and(|&last| Some(last) == self.tokenizer.eos()) && !text.is_empty() {
                    let plain = self.tokenizer.encode(text, false)?;
                    if plain.last() != tokens.last() {
                        tokens.pop();
                    }
                }
                tokens
            }
            Words::Messages(messages) => self.tokenizer.encode(&self.conversation(messages, asks)?, false)?,
        })
    }

    /// The tokens of an answer, with its end.
    fn answer(&self, prompt: &Words, answer: &Words) -> Result<Vec<u32>, DataError> {
        let text = match (prompt, answer) {
            (Words::Messages(prompt), Words::Messages(answer)) => {
                let before = self.conversation(prompt, true)?;
                let whole = self.conversation(&[prompt.as_slice(), answer].concat(), false)?;
                let rest = whole.strip_prefix(&before).ok_or_else(|| {
                    DataError::Template("what it writes before an answer changes with the answer".to_owned())
                })?;
                rest.to_owned()
            }
            (_, Words::Text(text)) => text.clone(),
            (_, Words::Messages(messages)) => self.conversation(messages, false)?,
        };
        Ok(self.ended(self.tokenizer.encode(&text, false)?))
    }

    /// With the token that ends a text, if there is one and it is not there yet.
    fn ended(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        if let Some(end) = self.tokenizer.eos()
            && tokens.last() != Some(&end)
        {
            tokens.push(end);
        }
        tokens
    }

    fn conversation(&self, messages: &[Message], asks: bool) -> Result<String, DataError> {
        super::chat::render(self.tokenizer, messages, asks)
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Words::Text(text) => f.write_str(text),
            Words::Messages(messages) => {
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
