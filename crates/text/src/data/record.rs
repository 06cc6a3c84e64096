//! One record of training data, in any of the forms that are read.
//!
//! The forms are tried from the most particular to the most general. A record keeps note of the fields that were used.
//! Fields that are left over and carry text make it a bad one, because a prompt that is dropped without a word spoils
//! everything that is learned.

use super::super::chat::Message;
use super::{Example, Summaries, TextOrMessages, Tldr};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Keys of an answer, in order of preference.
const ANSWERS: &[&str] = &["completion", "response", "output", "answer"];

/// Keys of a question, in order of preference.
const QUESTIONS: &[&str] = &["question", "instruction", "query", "input"];

/// Keys of further text that belongs to a question.
const INPUTS: &[&str] = &["input", "context"];

/// Keys of a system message.
const SYSTEMS: &[&str] = &["system", "system_prompt"];

/// Keys of a conversation.
const CONVERSATIONS: &[&str] = &["messages", "conversations", "conversation"];

/// Keys of notes about an example, which are no part of it. Keys that end in `_` and one of these are notes, too.
const NOTES: &[&str] = &[
    "id",
    "ids",
    "idx",
    "index",
    "source",
    "sources",
    "dataset",
    "subset",
    "origin",
    "split",
    "model",
    "models",
    "generator",
    "category",
    "categories",
    "topic",
    "topics",
    "domain",
    "language",
    "lang",
    "locale",
    "license",
    "url",
    "urls",
    "link",
    "date",
    "time",
    "timestamp",
    "created",
    "updated",
    "at",
    "metadata",
    "meta",
    "extra",
    "tag",
    "tags",
    "type",
    "task",
    "difficulty",
    "annotator",
    "annotators",
    "worker",
    "author",
    "name",
    "score",
    "scores",
    "rating",
    "ratings",
    "hash",
    "version",
];

/// The example of one record, or what is wrong with it.
pub(super) fn read(record: &Value, ignore_fields: bool) -> Result<Example, String> {
    let Value::Object(object) = record else { return Err("it is not a JSON object".to_owned()) };
    let record = Record { object, used: RefCell::default() };
    let mut example = record.example()?;
    if let Example::Preference { margin, .. } = &mut example {
        *margin = record.margin()?;
        if let Some(target) = record.target()? {
            example = with_target(example, target);
        }
    }
    // TL;DR's files have notes of many kinds beside what is read.
    if !ignore_fields && !matches!(example, Example::Tldr(_)) {
        record.check_unused(&example)?;
    }
    Ok(example)
}

struct Record<'a> {
    object: &'a Map<String, Value>,
    used: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Record<'a> {
    /// The value of this key, unless it is missing or null. It counts as used.
    fn get(&self, key: &str) -> Option<&'a Value> {
        let (key, value) = self.object.get_key_value(key).filter(|(_, value)| !value.is_null())?;
        self.used.borrow_mut().insert(key);
        Some(value)
    }

    fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(|value| !value.is_null())
    }

    fn first(&self, keys: &[&'static str]) -> Option<&'static str> {
        keys.iter().copied().find(|key| self.has(key))
    }

    fn example(&self) -> Result<Example, String> {
        if self.has("summaries") || self.has("info") {
            return self.tldr_judged().map(Example::Tldr);
        }
        if self.has("post") && self.has("summary") {
            return self.tldr_own().map(Example::Tldr);
        }
        if self.has("human_ref_A") && self.has("human_ref_B") {
            return self.shp();
        }
        if self.has("response_j") && self.has("response_k") {
            let prompt = self.prompt()?.ok_or("it has no question for its two responses")?;
            return preference(Some(prompt), self.words("response_j")?, self.words("response_k")?);
        }
        if self.has("left") && self.has("right") && self.has("choice") {
            return self.judged();
        }
        if self.has("chosen") || self.has("rejected") {
            return self.preference();
        }
        if let Some(key) = self.first(CONVERSATIONS) {
            return self.conversation(key);
        }
        if self.has("text") && !self.has("prompt") && self.question().is_none() {
            return self.words("text").map(Example::Whole);
        }
        let answer = self.first(ANSWERS);
        match (self.prompt()?, answer) {
            (Some(prompt), None) => Ok(Example::Prompt(prompt)),
            (prompt, Some(key)) => {
                let prompt = prompt.ok_or_else(|| format!("\"{key}\" has no prompt: \"prompt\" is missing"))?;
                let answer = self.words(key)?;
                let (prompt, [completion]) = one_kind(prompt, [(key, answer)])?;
                Ok(match self.label()? {
                    None => Example::Completion { prompt, completion },
                    Some(good) => Example::Labelled { prompt, completion, good },
                })
            }
            (None, None) => {
                let keys: Vec<&str> = self.object.keys().map(String::as_str).collect();
                Err(format!(
                    "it has none of the keys text, messages, prompt, completion, chosen, rejected, summaries (it has: {})",
                    keys.join(", ")
                ))
            }
        }
    }

    /// The key of the question, if there is one.
    fn question(&self) -> Option<&'static str> {
        self.first(QUESTIONS)
    }

    /// The prompt: `prompt`, or a question, with a system message if there is one. A question is a user's message.
    fn prompt(&self) -> Result<Option<TextOrMessages>, String> {
        let system = self.system()?;
        if self.has("prompt") {
            let prompt = self.words("prompt")?;
            return Ok(Some(match (system, prompt) {
                (None, prompt) => prompt,
                (Some(system), TextOrMessages::Text(prompt)) => {
                    TextOrMessages::Messages(vec![system, Message::new("user", prompt)])
                }
                (Some(system), TextOrMessages::Messages(messages)) => {
                    TextOrMessages::Messages(with_system(Some(system), messages))
                }
            }));
        }
        let Some(key) = self.question() else { return Ok(None) };
        let mut text = self.text(key)?;
        for input in INPUTS.iter().filter(|input| **input != key && self.has(input)) {
            let input = self.text(input)?;
            if !input.trim().is_empty() {
                text = format!("{text}\n{input}");
            }
        }
        Ok(Some(TextOrMessages::Messages(with_system(system, vec![Message::new("user", text)]))))
    }

    fn system(&self) -> Result<Option<Message>, String> {
        let Some(key) = self.first(SYSTEMS) else { return Ok(None) };
        let text = self.text(key)?;
        Ok((!text.trim().is_empty()).then(|| Message::new("system", text)))
    }

    fn preference(&self) -> Result<Example, String> {
        let (chosen, rejected) = (self.words("chosen")?, self.words("rejected")?);
        let whole = |words: &TextOrMessages| matches!(words, TextOrMessages::Messages(list) if list.len() > 1);
        let as_text = self.object.get("prompt").is_some_and(Value::is_string) || !self.has("prompt");
        let prompt = match self.first(CONVERSATIONS) {
            // A prompt as a text beside whole conversations is in them. Whether it says more is checked with the unused
            // fields.
            _ if whole(&chosen) && whole(&rejected) && as_text => None,
            // A conversation, and the answers alone.
            Some(key) if !self.has("prompt") => {
                Some(TextOrMessages::Messages(with_system(self.system()?, self.messages(key)?)))
            }
            _ => self.prompt()?,
        };
        let system = if prompt.is_none() { self.system()? } else { None };
        match preference(prompt, chosen, rejected)? {
            Example::Preference { prompt: TextOrMessages::Messages(messages), chosen, rejected, target, margin } => {
                let prompt = TextOrMessages::Messages(with_system(system, messages));
                Ok(Example::Preference { prompt, chosen, rejected, target, margin })
            }
            Example::Preference { prompt: TextOrMessages::Text(_), .. } if system.is_some() => {
                Err("it has a system message and no prompt; add a \"prompt\"".to_owned())
            }
            other => Ok(other),
        }
    }

    /// A judgement as a session exports it: `prompt`, `left`, `right`, `choice`. A skip says nothing about its answers,
    /// so that its prompt remains.
    fn judged(&self) -> Result<Example, String> {
        let prompt = self.prompt()?.ok_or("it has no prompt for its two answers: \"prompt\" is missing")?;
        let (left, right) = (self.words("left")?, self.words("right")?);
        // They repeat the two answers, the better one first.
        for key in ["chosen", "rejected"] {
            self.get(key);
        }
        let probability = match self.get("choice").and_then(Value::as_str) {
            Some("left" | "much-left") => 1.0,
            Some("right" | "much-right") => 0.0,
            Some("tie") => 0.5,
            Some("skip") => return Ok(Example::Prompt(prompt)),
            _ => return Err("\"choice\" is none of left, right, much-left, much-right, tie and skip".to_owned()),
        };
        Ok(with_target(preference(Some(prompt), left, right)?, probability))
    }

    /// A conversation, which ends with an answer or is answered.
    fn conversation(&self, key: &'static str) -> Result<Example, String> {
        let messages = with_system(self.system()?, self.messages(key)?);
        match self.first(&["completion", "response"]) {
            Some(answer) if messages.last().is_some_and(|last| last.role != "assistant") => {
                let answer = (answer, self.words(answer)?);
                let (prompt, [completion]) = one_kind(TextOrMessages::Messages(messages), [answer])?;
                Ok(Example::Completion { prompt, completion })
            }
            _ => Ok(Example::Whole(TextOrMessages::Messages(messages))),
        }
    }

    /// The messages under this key.
    fn messages(&self, key: &str) -> Result<Vec<Message>, String> {
        match self.words(key)? {
            TextOrMessages::Messages(messages) => Ok(messages),
            TextOrMessages::Text(_) => {
                Err(format!("\"{key}\" is a text where a list of {{\"role\", \"content\"}} is expected"))
            }
        }
    }

    fn label(&self) -> Result<Option<bool>, String> {
        match self.get("label") {
            None => Ok(None),
            Some(Value::Bool(good)) => Ok(Some(*good)),
            Some(Value::Number(number)) if number.as_f64() == Some(1.0) => Ok(Some(true)),
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(Some(false)),
            Some(label) => Err(format!("\"label\" is {label} where true, false, 1 or 0 is expected")),
        }
    }

    /// The number under `margin`; 0 if there is none.
    fn margin(&self) -> Result<f32, String> {
        let Some(value) = self.get("margin") else { return Ok(0.0) };
        let margin = value.as_f64().map(|margin| margin as f32).filter(|margin| margin.is_finite());
        margin.ok_or_else(|| format!("\"margin\" is {value} where a number is expected"))
    }

    /// The number under `target` of a pair that has no `choice`: the probability that the chosen one is better. What
    /// is no number is a field of another kind.
    fn target(&self) -> Result<Option<f32>, String> {
        if self.has("choice") || !self.object.get("target").is_some_and(Value::is_number) {
            return Ok(None);
        }
        let probability = self.get("target").and_then(Value::as_f64).filter(|target| (0.0..=1.0).contains(target));
        match probability {
            Some(probability) => Ok(Some(probability as f32)),
            None => {
                Err("\"target\" is the probability that the chosen one is better: give a number from 0 to 1".to_owned())
            }
        }
    }

    /// SHP: a post and two comments on it.
    fn shp(&self) -> Result<Example, String> {
        let label = self.get("labels").or_else(|| self.get("label")).and_then(Value::as_f64);
        let first_is_better = match label {
            Some(1.0) => true,
            Some(0.0) => false,
            _ => return Err("\"labels\" is neither 0 nor 1".to_owned()),
        };
        let prompt = TextOrMessages::Messages(vec![Message::new("user", self.text("history")?)]);
        let (a, b) = (self.words("human_ref_A")?, self.words("human_ref_B")?);
        let (chosen, rejected) = if first_is_better { (a, b) } else { (b, a) };
        preference(Some(prompt), chosen, rejected)
    }

    /// One of TL;DR's comparisons: `info{post, title, subreddit}` or, of CNN/DM, `info{article}`, `summaries[2]{text}`,
    /// `choice`, `split`.
    fn tldr_judged(&self) -> Result<Tldr, String> {
        let info = self.get("info").ok_or("\"info\" is missing")?;
        let summaries = self.get("summaries").and_then(Value::as_array).filter(|list| list.len() == 2);
        let summaries = summaries.ok_or("\"summaries\" is not a list of two")?;
        let choice = match self.get("choice").and_then(Value::as_u64) {
            Some(choice @ (0 | 1)) => choice as usize,
            _ => return Err("\"choice\" is neither 0 nor 1".to_owned()),
        };
        let text = |i: usize| text_of(summaries[i].get("text"), "summaries[].text");
        let of_info = |key: &str| text_of(info.get(key), &format!("info.{key}"));
        let article =
            info.get("article").is_some_and(Value::is_string) && !info.get("post").is_some_and(Value::is_string);
        let (heading, post) = match article {
            true => (None, of_info("article")?),
            false => (Some([of_info("subreddit")?, of_info("title")?]), of_info("post")?),
        };
        Ok(Tldr {
            id: info.get("id").and_then(Value::as_str).map(str::to_owned),
            heading,
            post,
            summaries: Summaries::Judged([text(0)?, text(1)?], choice),
            split: self.split()?,
        })
    }

    /// One of TL;DR's filtered posts: `subreddit`, `title`, `post`, `summary`.
    fn tldr_own(&self) -> Result<Tldr, String> {
        Ok(Tldr {
            id: self.get("id").and_then(Value::as_str).map(str::to_owned),
            heading: Some([self.text("subreddit")?, self.text("title")?]),
            post: self.text("post")?,
            summaries: Summaries::Own(self.text("summary")?),
            split: self.get("split").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// The split of a comparison. Files get its name.
    fn split(&self) -> Result<Option<String>, String> {
        let Some(value) = self.get("split") else { return Ok(None) };
        let is_plain = |name: &&str| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
        };
        let name = value.as_str().filter(is_plain);
        let name = name.ok_or_else(|| {
            format!(
                "\"split\" is {value}, and a split's name has only letters, digits, \"-\" and \"_\", as in \"train\""
            )
        })?;
        Ok(Some(name.to_owned()))
    }

    fn text(&self, key: &str) -> Result<String, String> {
        text_of(self.get(key), key)
    }

    /// The text or conversation under this key.
    fn words(&self, key: &str) -> Result<TextOrMessages, String> {
        match self.get(key) {
            None => Err(format!("\"{key}\" is missing")),
            Some(Value::String(text)) => Ok(TextOrMessages::Text(text.clone())),
            Some(Value::Array(list)) if !list.is_empty() => {
                let messages = list.iter().map(|entry| message(entry, key));
                messages.collect::<Result<_, _>>().map(TextOrMessages::Messages)
            }
            // A single message.
            Some(entry @ Value::Object(_)) => Ok(TextOrMessages::Messages(vec![message(entry, key)?])),
            Some(other) => Err(format!(
                "\"{key}\" is {} where a text or a list of {{\"role\", \"content\"}} is expected",
                match other {
                    Value::Array(_) => "an empty list",
                    Value::Number(_) => "a number",
                    _ => "true or false",
                }
            )),
        }
    }

    /// Refuses fields that carry text and are not part of the example.
    fn check_unused(&self, example: &Example) -> Result<(), String> {
        let used = texts(example);
        let left: Vec<String> = self
            .object
            .iter()
            .filter(|(key, _)| !self.used.borrow().contains(key.as_str()) && !is_note(key))
            .filter(|(key, value)| says_something(key, value) && !repeats(value, &used))
            .map(|(key, _)| format!("\"{key}\""))
            .collect();
        match left.as_slice() {
            [] => Ok(()),
            [one] => Err(format!(
                "{one} carries text that is not used; give it a name that is read, or leave it out with --ignore-fields"
            )),
            several => Err(format!(
                "{} carry text that is not used; give them names that are read, or leave them out with --ignore-fields",
                several.join(" and ")
            )),
        }
    }
}

/// Whether the key is that of a note about the example.
fn is_note(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    NOTES.iter().any(|note| key == *note || key.strip_suffix(note).is_some_and(|rest| rest.ends_with(['_', '-'])))
}

/// Whether a value carries text: words, not the mark of something. Under a name that means a prompt, any text does.
fn says_something(key: &str, value: &Value) -> bool {
    let names_a_prompt =
        key == "prompt" || [QUESTIONS, INPUTS, SYSTEMS, ANSWERS].iter().any(|keys| keys.contains(&key));
    match value {
        Value::String(text) => text.split_whitespace().count() > usize::from(!names_a_prompt),
        Value::Array(list) => list.iter().any(|entry| says_something(key, entry)),
        Value::Object(entries) => entries.values().any(|entry| says_something(key, entry)),
        _ => false,
    }
}

/// Whether every text of a value is in one of the texts that are used, or has all of them in it.
fn repeats(value: &Value, used: &[&str]) -> bool {
    match value {
        Value::String(text) => {
            let text = text.trim();
            used.iter().any(|used| used.contains(text)) || used.iter().all(|used| text.contains(used.trim()))
        }
        Value::Array(list) => list.iter().all(|entry| repeats(entry, used)),
        Value::Object(entries) => {
            entries.iter().all(|(key, entry)| matches!(&key[..], "role" | "from") || repeats(entry, used))
        }
        _ => true,
    }
}

/// All texts of an example.
fn texts(example: &Example) -> Vec<&str> {
    fn of(words: &TextOrMessages) -> Vec<&str> {
        match words {
            TextOrMessages::Text(text) => vec![text],
            TextOrMessages::Messages(messages) => messages.iter().map(|message| message.content.as_str()).collect(),
        }
    }
    match example {
        Example::Whole(words) | Example::Prompt(words) => of(words),
        Example::Completion { prompt, completion } | Example::Labelled { prompt, completion, .. } => {
            [of(prompt), of(completion)].concat()
        }
        Example::Preference { prompt, chosen, rejected, .. } => [of(prompt), of(chosen), of(rejected)].concat(),
        Example::Tldr(_) => Vec::new(),
    }
}

/// The messages, after this system message if they have none.
fn with_system(system: Option<Message>, messages: Vec<Message>) -> Vec<Message> {
    match system.filter(|_| messages.first().is_none_or(|first| first.role != "system")) {
        Some(system) => [vec![system], messages].concat(),
        None => messages,
    }
}

/// Two answers to a prompt. Without a prompt it is their common beginning.
fn preference(
    prompt: Option<TextOrMessages>,
    chosen: TextOrMessages,
    rejected: TextOrMessages,
) -> Result<Example, String> {
    let (prompt, chosen, rejected) = match prompt {
        Some(prompt) => {
            let (prompt, [chosen, rejected]) = one_kind(prompt, [("chosen", chosen), ("rejected", rejected)])?;
            (prompt, chosen, rejected)
        }
        None => common_prompt(chosen, rejected)?,
    };
    Ok(Example::Preference { prompt, chosen, rejected, target: 1.0, margin: 0.0 })
}

/// A pair whose first answer is the better one with this probability. The likelier one becomes the chosen one.
fn with_target(pair: Example, probability: f32) -> Example {
    match pair {
        Example::Preference { prompt, chosen, rejected, margin, .. } if probability < 0.5 => {
            Example::Preference { prompt, chosen: rejected, rejected: chosen, target: 1.0 - probability, margin }
        }
        Example::Preference { prompt, chosen, rejected, margin, .. } => {
            Example::Preference { prompt, chosen, rejected, target: probability, margin }
        }
        other => other,
    }
}

/// Prompt and answers as texts, or all as conversations. A text beside conversations is a message: a prompt the user's,
/// an answer the assistant's. Answers that begin with the prompt's messages are cut there.
fn one_kind<const N: usize>(
    prompt: TextOrMessages,
    answers: [(&str, TextOrMessages); N],
) -> Result<(TextOrMessages, [TextOrMessages; N]), String> {
    let is_text = |words: &TextOrMessages| matches!(words, TextOrMessages::Text(_));
    if is_text(&prompt) && answers.iter().all(|(_, answer)| is_text(answer)) {
        return Ok((prompt, answers.map(|(_, answer)| answer)));
    }
    let prompt = match prompt {
        TextOrMessages::Messages(messages) => messages,
        TextOrMessages::Text(text) => {
            for (name, answer) in &answers {
                let fits =
                    matches!(answer, TextOrMessages::Messages(list) if list.iter().all(|one| one.role != "user"));
                if !fits {
                    return Err(format!("\"prompt\" and \"{name}\" are not both texts or both lists of messages"));
                }
            }
            vec![Message::new("user", text)]
        }
    };
    let answers = answers.map(|(_, answer)| match answer {
        TextOrMessages::Text(text) => vec![Message::new("assistant", text)],
        TextOrMessages::Messages(messages) => messages,
    });
    // A system message may have come from a field of its own.
    let own = &prompt[usize::from(prompt.len() > 1 && prompt[0].role == "system")..];
    let repeated = |answer: &[Message]| {
        let same =
            [prompt.as_slice(), own].into_iter().find(|same| answer.len() > same.len() && answer.starts_with(same));
        same.map_or(0, <[Message]>::len)
    };
    let answers = answers.map(|mut answer| TextOrMessages::Messages(answer.split_off(repeated(&answer))));
    Ok((TextOrMessages::Messages(prompt), answers))
}

/// Splits two texts, or two conversations, into their common beginning, which is the prompt, and the rest of each. A
/// word that is common only in part belongs to the completions, and so does the space before them, because byte-level
/// tokens begin with their space.
fn common_prompt(
    chosen: TextOrMessages,
    rejected: TextOrMessages,
) -> Result<(TextOrMessages, TextOrMessages, TextOrMessages), String> {
    match (chosen, rejected) {
        (TextOrMessages::Text(a), TextOrMessages::Text(b)) => {
            let end = word_border(&a, &b);
            let text = |part: &str| TextOrMessages::Text(part.to_owned());
            Ok((text(&a[..end]), text(&a[end..]), text(&b[end..])))
        }
        (TextOrMessages::Messages(mut a), TextOrMessages::Messages(mut b)) => {
            let end = a.iter().zip(&b).take_while(|(left, right)| left == right).count();
            // Two equal conversations are two equal answers.
            let end = if end == a.len() && end == b.len() { end - 1 } else { end };
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

/// The byte up to which two texts are the same, moved to the beginning of the word that it falls into.
fn word_border(a: &str, b: &str) -> usize {
    let same: usize =
        a.chars().zip(b.chars()).take_while(|(left, right)| left == right).map(|(c, _)| c.len_utf8()).sum();
    let before = || a[..same].chars().next_back();
    let inside = |rest: &str| match (before(), rest.chars().next()) {
        (Some(before), Some(next)) => joins(next) || (is_of_a_word(before) && is_of_a_word(next)),
        _ => false,
    };
    let word = |c: char| is_of_a_word(c) || joins(c);
    let mut end = same;
    if inside(&a[same..]) || inside(&b[same..]) {
        end = a[..same].trim_end_matches(word).len();
        if end == same {
            // A mark that belongs to the character before it, which is not of a word.
            end -= before().map_or(0, char::len_utf8);
        }
    }
    if a[..end].ends_with(' ') {
        end -= 1;
    }
    end
}

/// Whether a character is part of a word that is written with spaces around it.
fn is_of_a_word(c: char) -> bool {
    let without_spaces = matches!(u32::from(c),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x2E80..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF);
    c.is_alphanumeric() && !without_spaces
}

/// Whether a character belongs to the one before it: a combining mark, a skin colour, a joiner, a variation.
fn joins(c: char) -> bool {
    matches!(u32::from(c), 0x0300..=0x036F | 0x200D | 0x20D0..=0x20FF | 0xFE00..=0xFE0F | 0x1_F3FB..=0x1_F3FF)
}

/// A message: `role` and `content`, or ShareGPT's `from` and `value`. Some files mix the two.
fn message(entry: &Value, key: &str) -> Result<Message, String> {
    let Value::Object(fields) = entry else {
        return Err(format!("\"{key}\" holds something that is not a message; expected {{\"role\", \"content\"}}"));
    };
    let has = |key: &str| fields.contains_key(key);
    let role_key = if !has("role") && has("from") { "from" } else { "role" };
    let content_key = if !has("content") && has("value") { "value" } else { "content" };
    let missing = |part: &str| format!("a message in \"{key}\" has no text under \"{part}\"");
    let role = fields.get(role_key).and_then(Value::as_str).ok_or_else(|| missing(role_key))?;
    let lower = role.to_ascii_lowercase();
    let role = match lower.as_str() {
        _ if role_key == "role" => role,
        "human" | "prompter" => "user",
        "gpt" | "bot" | "chatgpt" | "model" => "assistant",
        "observation" | "function_response" => "tool",
        "user" | "assistant" | "system" => lower.as_str(),
        _ => role,
    };
    let content = match fields.get(content_key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) if !parts.is_empty() => {
            parts.iter().map(|part| text_part(part, key)).collect::<Result<Vec<_>, _>>()?.concat()
        }
        None | Some(Value::Null) if fields.get("tool_calls").is_some_and(|calls| !calls.is_null()) => String::new(),
        _ => return Err(missing(content_key)),
    };
    let mut message = Message::new(role, content);
    message.null_content = fields.get(content_key).is_some_and(Value::is_null);
    let more = fields.iter().filter(|(name, value)| *name != role_key && *name != content_key && !value.is_null());
    message.more = more.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(message)
}

/// The text of a part of a message's content.
fn text_part(part: &Value, key: &str) -> Result<String, String> {
    let text = part.as_str().or_else(|| part.get("text")?.as_str());
    text.map(str::to_owned).ok_or_else(|| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("unknown");
        format!("a message in \"{key}\" has a part of the type \"{kind}\"; only text can be read")
    })
}

/// The value as text; an error if it is not a text.
fn text_of(value: Option<&Value>, name: &str) -> Result<String, String> {
    match value {
        None => Err(format!("\"{name}\" is missing")),
        Some(value) => value.as_str().map(str::to_owned).ok_or_else(|| format!("\"{name}\" is not a text")),
    }
}
