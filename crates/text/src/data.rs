//! Training data for language models: JSON lines, one object a line, or a JSON array of objects, in the forms that TRL
//! and similar libraries read, and the published files of TL;DR.
//!
//! | keys | what it is |
//! |---|---|
//! | `text` | a whole text to train on |
//! | `messages`, or `conversations` (ShareGPT) | a conversation to train on |
//! | `prompt` | a prompt to answer |
//! | `prompt`, `completion` or `response` | a prompt and an answer to train on |
//! | `prompt`, `chosen`, `rejected` | two answers, the better one first; `margin`, a number, says how much better |
//! | `chosen`, `rejected` | two texts with a common beginning, which is the prompt |
//! | `prompt`, `completion`, `label` | an answer, and whether it is a good one: true or false, 1 or 0 |
//! | `question`, `response_j`, `response_k` | two answers, the better one first |
//! | `history`, `human_ref_A`, `human_ref_B`, `labels` | SHP: two answers, the first one better where `labels` is 1 |
//! | `info`, `summaries`, `choice` | TL;DR: a post and two summaries of it, `choice` the better one's index |
//! | `post`, `summary` | TL;DR: a post and its author's summary |
//!
//! The values of `prompt`, `completion`, `chosen` and `rejected` are texts or conversations. In place of `prompt` there
//! may be `question`, `instruction` with `input` (Alpaca), or `conversations`, and beside it `system`; these and their
//! answers become a conversation. `data/record.rs` has the rules. A text that would not be used is an error, unless it
//! is asked for. A line in none of these forms is reported with its number; the caller decides whether reading
//! continues.

#[path = "data/encode.rs"]
mod encode;
// The paths are given because the fuzz targets take this file by its path.
#[path = "data/record.rs"]
mod record;

use super::chat::{Message, TemplateError};
use super::tokenizer::{Tokenizer, TokenizerError};
use flipside_core::one_line;
use serde_json::{Value, json};
use std::fmt;

pub use encode::{Encoder, TldrRules, TokenizedExample};

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
        /// The probability that `chosen` is the better one, at least 0.5; 1 if the line does not say, 0.5 for a tie.
        target: f32,
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

/// A post of the TL;DR data set, or an article of CNN/DM in the same layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tldr {
    /// The post's or article's name in the data set, if the line says it.
    pub id: Option<String>,
    /// A post's subreddit, without `r/`, and its title; `None` for an article.
    pub heading: Option<[String; 2]>,
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

/// How data is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What to do about a line that cannot be read.
    pub on_bad: BadLines,
    /// Whether fields that carry text and are not used are passed over. Otherwise they make a line a bad one.
    pub ignore_fields: bool,
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{unit} {line}: {reason}")]
pub struct BadLine {
    /// What is counted: lines, or the entries of an array.
    pub unit: &'static str,
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
    /// The file begins like a JSON array and is none.
    #[error("the data begins with \"[\" and is no JSON array ({0}); correct it, or give one JSON object a line")]
    Array(String),
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

/// Reads JSON lines, or a JSON array. Empty lines and a byte-order mark at the start are skipped.
///
/// # Errors
///
/// The first bad line, unless `reading` skips it; a file without any good line; an array that is damaged.
pub fn read_lines(text: &str, reading: Reading) -> Result<Dataset, DataError> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('[') {
        let entries: Vec<Value> =
            serde_json::from_str(text).map_err(|error| DataError::Array(one_line(&error.to_string())))?;
        return read_records("entry", entries.into_iter().map(Ok).enumerate(), reading);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed = lines.map(|(number, line)| {
        (number, serde_json::from_str(line).map_err(|error| format!("it is not JSON ({error})")))
    });
    read_records("line", parsed, reading)
}

/// Reads records that come from somewhere else than a text, such as the rows of a Parquet file. They are numbered from
/// 0. `unit` is what one of them is called.
///
/// # Errors
///
/// As [`read_lines`].
pub fn read_records(
    unit: &'static str,
    records: impl Iterator<Item = (usize, Result<Value, String>)>,
    reading: Reading,
) -> Result<Dataset, DataError> {
    let mut dataset = Dataset::default();
    for (number, record) in records {
        match record.and_then(|record| record::read(&record, reading.ignore_fields)) {
            Ok(example) => dataset.examples.push(example),
            Err(reason) => {
                let bad = BadLine { unit, line: number + 1, reason: one_line(&reason) };
                match reading.on_bad {
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
        match &self.heading {
            Some([subreddit, title]) => {
                format!("SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:")
            }
            None => format!("Article:\n\n{post}\n\nTL;DR:"),
        }
    }

    /// The prompt: `SUBREDDIT: r/…`, `TITLE: …`, `POST: …`, `TL;DR:`, or `Article:`, the article and `TL;DR:`, with an
    /// empty line between and no space at the end. If it is longer than `most` tokens, the post is cut at its last
    /// newline, repeatedly, until it fits; a post without a newline loses its last character each time (the published
    /// rule).
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

    /// The line of a file in the published layout, with what is read of it.
    pub fn to_json(&self) -> Value {
        let Tldr { id, heading, post, summaries, split } = self;
        let mut line = match (heading, summaries) {
            (_, Summaries::Judged(two, choice)) => {
                let mut info = match heading {
                    Some([subreddit, title]) => json!({ "post": post, "title": title, "subreddit": subreddit }),
                    None => json!({ "article": post }),
                };
                info["id"] = json!(id);
                let two = two.each_ref().map(|text| json!({ "text": text }));
                json!({ "info": info, "summaries": two, "choice": choice })
            }
            (heading, Summaries::Own(summary)) => {
                let [subreddit, title] = heading.clone().unwrap_or_default();
                json!({ "id": id, "subreddit": subreddit, "title": title, "post": post, "summary": summary })
            }
        };
        if let Some(split) = split {
            line["split"] = json!(split);
        }
        line
    }

    /// A summary as a completion: trimmed, with one space before it.
    pub fn completion(summary: &str) -> String {
        format!(" {}", summary.trim())
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
