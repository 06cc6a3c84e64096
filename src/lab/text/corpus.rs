//! The tokenised data of a run in text mode: documents, demonstrations, prompts and judged pairs, from files or from
//! the built-in grammar.

use crate::lab::LabError;
use crate::settings::TextRun;
use crate::store::{TrainingData, read_data};
use flipside_core::Seed;
use flipside_text::data::{
    BadLines, Dataset, Encoder, Example as Line, Reading, Summaries, TextOrMessages, Tldr, TokenizedExample,
    read_lines, read_records,
};
use flipside_text::grammar::posts;
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Episode, Example, TextComparison, grammar};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};

/// Documents that the grammar generates for the base model.
const DOCUMENTS: usize = 20_000;

/// Reviews that the grammar generates for the supervised model.
const REVIEWS: usize = 8_000;

/// The run's data.
pub(in crate::lab) struct Corpus {
    run: TextRun,
    seed: Seed,
    /// The prompts that the person chose, in place of the run's own.
    pub prompts: Option<Arc<Vec<String>>>,
    /// The prompts that are asked about, as text.
    listed: OnceLock<Arc<Vec<String>>>,
}

/// How texts are turned into tokens for one model.
pub(in crate::lab) struct Reader<'a> {
    pub tokenizer: &'a Tokenizer,
    /// The model's context length in positions.
    pub context: usize,
    /// The number of tokens that a prompt may have, so that a completion still fits.
    pub prompt: usize,
    pub reading: Reading,
}

/// A prompt to answer.
#[derive(Clone)]
pub(in crate::lab) struct Prompt {
    /// What it says.
    pub words: TextOrMessages,
    /// Its tokens. If it is too long, they lack its beginning.
    pub tokens: Vec<u32>,
    /// The answer that the data gives to it, if it gives one.
    pub reference: Option<String>,
}

/// The answer that a line of a data file gives to its prompt, as text; `None` if it gives none that is known to be
/// good.
fn reference_of(line: &Line) -> Option<String> {
    match line {
        // Of a tie, neither answer is the better one.
        Line::Preference { target, .. } if *target <= 0.5 => None,
        Line::Completion { prompt: _, completion: answer }
        | Line::Labelled { completion: answer, good: true, .. }
        | Line::Preference { chosen: answer, .. } => match answer {
            TextOrMessages::Text(text) => Some(text.clone()),
            TextOrMessages::Messages(messages) => messages.last().map(|message| message.content.clone()),
        },
        Line::Tldr(post) => Some(Tldr::completion(match &post.summaries {
            Summaries::Own(summary) => summary,
            Summaries::Judged(two, choice) => &two[*choice],
        })),
        _ => None,
    }
}

/// Places of `len`, evenly spread: `most` of them, or all if there are no more.
pub(in crate::lab) fn evenly_spread(len: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = len.min(most);
    (0..count).map(move |i| i * len / count)
}

/// How a run reads its data files.
pub(in crate::lab) fn reading_of(run: &TextRun) -> Reading {
    let on_bad = if run.skip_bad_lines { BadLines::Skip } else { BadLines::Stop };
    Reading { on_bad, ignore_fields: run.ignore_fields }
}

/// The examples of a data file.
pub(in crate::lab) fn read_examples(path: &Path, reading: Reading) -> Result<Dataset, LabError> {
    Ok(match read_data(path)? {
        TrainingData::Text(text) => read_lines(&text, reading)?,
        TrainingData::Rows(rows) => read_records("row", rows.into_iter().map(Ok).enumerate(), reading)?,
    })
}

impl Reader<'_> {
    /// Turns lines into tokens. A post of TL;DR is cut by its own rule so that a completion fits, not only to the
    /// published length.
    pub fn encoder(&self) -> Encoder<'_> {
        let mut encoder = Encoder::new(self.tokenizer);
        encoder.tldr.query = encoder.tldr.query.min(self.prompt);
        encoder.tldr.article_query = encoder.tldr.article_query.min(self.prompt);
        encoder
    }

    /// The lines of a data file, in order. Lines that cannot be read are logged.
    fn lines(&self, path: &Path) -> Result<Vec<Line>, LabError> {
        let read = read_examples(path, self.reading)?;
        for bad in &read.bad {
            log::warn!("{}: left out: {bad}", path.display());
        }
        Ok(read.examples)
    }

    /// The lines of a data file as tokens.
    pub fn file(&self, path: &Path) -> Result<Vec<TokenizedExample>, LabError> {
        let encoder = self.encoder();
        let mut all = Vec::new();
        for example in &self.lines(path)? {
            all.extend(encoder.encode(example)?);
        }
        Ok(all)
    }

    /// The prompts of a data file.
    pub fn prompts(&self, path: &Path) -> Result<Vec<Prompt>, LabError> {
        let encoder = self.encoder();
        let mut all = Vec::new();
        for example in &self.lines(path)? {
            let prompt = encoder.prompt_of(example)?.filter(|(_, tokens)| !tokens.is_empty());
            let reference = reference_of(example);
            all.extend(prompt.map(|(words, tokens)| Prompt { words, tokens, reference }));
        }
        match all.is_empty() {
            true => Err(LabError::Text(format!("{} holds no prompts; give a file with some.", path.display()))),
            false => Ok(all),
        }
    }

    /// The tokens of a line.
    pub fn encode(&self, line: &Line) -> Result<TokenizedExample, LabError> {
        // The encoder leaves out nothing but posts of TL;DR.
        Ok(self.encoder().encode(line)?.unwrap_or(TokenizedExample::Whole(Vec::new())))
    }

    /// A prompt that was typed. It may be too long.
    pub fn prompt_of(&self, prompt: &str) -> Result<Prompt, LabError> {
        let words = TextOrMessages::Text(prompt.to_owned());
        let tokens = self.encoder().prompt(&words)?;
        match tokens.is_empty() {
            true => Err(LabError::Text("A prompt needs at least one token; write something.".to_owned())),
            false => Ok(Prompt { words, tokens, reference: None }),
        }
    }

    /// Refuses a prompt that leaves no space for a completion.
    pub fn check_length(&self, prompt: &Prompt) -> Result<(), LabError> {
        let (length, context) = (prompt.tokens.len(), self.context);
        match length <= self.prompt {
            true => Ok(()),
            false => Err(LabError::Text(format!(
                "The model has {context} positions. A prompt of {length} tokens and the longest completion do not fit into \
                 them: lower max_new_tokens to {} or less, or shorten the prompt.",
                (context + 1).saturating_sub(length).max(1)
            ))),
        }
    }

    /// The prompts, each without its beginning if it is too long. How many were is logged.
    fn shortened(&self, mut prompts: Vec<Prompt>) -> Vec<Prompt> {
        let mut cut = 0;
        for Prompt { tokens, .. } in &mut prompts {
            let over = tokens.len().saturating_sub(self.prompt);
            tokens.drain(..over);
            cut += usize::from(over > 0);
        }
        if cut > 0 {
            log::warn!(
                "{cut} of {} prompts are longer than the {} tokens that leave space for a completion; their beginnings are left out",
                prompts.len(),
                self.prompt
            );
        }
        prompts
    }

    /// The examples for one line, cut to fit the model. A whole text that is too long is split into several examples.
    pub fn examples(&self, tokens: TokenizedExample) -> Vec<Example> {
        match tokens {
            TokenizedExample::Whole(tokens) => {
                let parts = tokens.chunks(self.context).filter(|part| part.len() > 1);
                parts.map(|part| Example { prompt: vec![], completion: part.to_vec() }).collect()
            }
            TokenizedExample::Completion { prompt, mut completion }
            | TokenizedExample::Labelled { prompt, mut completion, good: true } => {
                completion.truncate(self.context - 1);
                let room = self.context - completion.len();
                let prompt = prompt[prompt.len().saturating_sub(room)..].to_vec();
                vec![Example { prompt, completion }]
            }
            TokenizedExample::Preference { prompt, chosen, target, .. } if target > 0.5 => {
                self.examples(TokenizedExample::Completion { prompt, completion: chosen })
            }
            // A tie has no better answer to learn from.
            TokenizedExample::Prompt(_) | TokenizedExample::Labelled { .. } | TokenizedExample::Preference { .. } => {
                Vec::new()
            }
        }
    }
}

impl Corpus {
    pub fn new(run: &TextRun, seed: Seed) -> Corpus {
        Corpus { run: run.clone(), seed, prompts: None, listed: OnceLock::new() }
    }

    /// The texts that the base model learns from.
    pub fn documents(&self, reader: &Reader) -> Result<Vec<Example>, LabError> {
        if let Some(path) = &self.run.documents {
            return of_file(reader, path, "texts");
        }
        let mut stream = self.seed.stream("text.documents");
        let mut all = Vec::with_capacity(DOCUMENTS);
        for _ in 0..DOCUMENTS {
            let tokens = reader.encode(&Line::Whole(TextOrMessages::Text(grammar::document(&mut stream))))?;
            all.extend(reader.examples(tokens));
        }
        Ok(all)
    }

    /// The examples that the supervised model learns from.
    pub fn demonstrations(&self, reader: &Reader) -> Result<Vec<Example>, LabError> {
        if let Some(path) = &self.run.demonstrations {
            return of_file(reader, path, "prompts with completions");
        }
        let mut stream = self.seed.stream("text.reviews");
        let mut all = Vec::with_capacity(REVIEWS);
        for _ in 0..REVIEWS {
            let review = grammar::review(&mut stream);
            let (prompt, completion) = (TextOrMessages::Text(review.prompt), TextOrMessages::Text(review.completion));
            all.extend(reader.examples(reader.encode(&Line::Completion { prompt, completion })?));
        }
        Ok(all)
    }

    /// Answers that the data gives: up to `most` of the demonstrations, or of the file of prompts, evenly spread.
    ///
    /// # Errors
    ///
    /// Files without any.
    pub fn references(&self, reader: &Reader, most: usize) -> Result<Vec<Example>, LabError> {
        let files = [&self.run.demonstrations, &self.run.prompts].into_iter().flatten();
        for path in files {
            let lines = reader.lines(path)?;
            let encoder = reader.encoder();
            let mut all = Vec::new();
            for place in evenly_spread(lines.len(), most) {
                if let Some(TokenizedExample::Completion { prompt, completion }) = encoder.encode(&lines[place])? {
                    all.extend(reader.examples(TokenizedExample::Completion { prompt, completion }));
                }
            }
            if !all.is_empty() {
                return Ok(all);
            }
        }
        Err(LabError::Text(
            "text.reward.normalise = references needs answers to compare with; set text.demonstrations to a file of \
             prompts with completions."
                .to_owned(),
        ))
    }

    /// The prompts that are asked about: those that the person chose, else those of a file of prompts,
    /// demonstrations or pairs, else the grammar's.
    pub fn prompts(&self, reader: &Reader) -> Result<Vec<Prompt>, LabError> {
        let files =
            || [&self.run.prompts, &self.run.demonstrations, &self.run.comparisons].into_iter().flatten().next();
        if let (None, Some(path)) = (&self.prompts, files()) {
            let mut known = HashSet::new();
            let mut all = reader.shortened(reader.prompts(path)?);
            all.retain(|prompt| known.insert(prompt.tokens.clone()));
            let text = |prompt: &Prompt| reader.tokenizer.decode(&prompt.tokens, true);
            let _ = self.listed.set(Arc::new(all.iter().map(text).collect::<Result<_, _>>()?));
            return Ok(all);
        }
        let listed: Result<_, LabError> = self.prompt_list().iter().map(|prompt| reader.prompt_of(prompt)).collect();
        Ok(reader.shortened(listed?))
    }

    /// The judged pairs of a file.
    pub fn comparisons(&self, reader: &Reader) -> Result<Vec<TextComparison>, LabError> {
        let Some(path) = &self.run.comparisons else { return Ok(Vec::new()) };
        let all = pairs(path, reader)?;
        match all.is_empty() {
            true => Err(LabError::Text(format!(
                "{} holds no pairs; the reward model learns from lines with \"chosen\" and \"rejected\".",
                path.display()
            ))),
            false => Ok(all),
        }
    }

    /// Prompt number `place` as text.
    pub fn prompt_text(&self, tokenizer: &Tokenizer, prompt: &[u32], place: usize) -> Result<String, LabError> {
        let listed = self.prompts.as_ref().or(self.listed.get());
        match listed.and_then(|all| all.get(place)) {
            Some(text) => Ok(text.clone()),
            None => Ok(tokenizer.decode(prompt, true)?),
        }
    }

    /// All prompts as text.
    pub fn prompt_list(&self) -> Arc<Vec<String>> {
        static GRAMMAR: LazyLock<Arc<Vec<String>>> = LazyLock::new(|| Arc::new(grammar::prompts()));
        match (&self.prompts, self.listed.get()) {
            (Some(own), _) => own.clone(),
            (None, Some(listed)) => listed.clone(),
            (None, None) => GRAMMAR.clone(),
        }
    }

    /// The gold score of a completion; `None` if the prompt is not one of the grammar's.
    pub fn gold(&self, prompt: &str, completion: &str) -> Option<f64> {
        match is_of_a_review(prompt) {
            true => Some(grammar::score(prompt.trim(), completion)),
            false => posts::score_of_prompt(prompt, completion),
        }
    }

    /// The mean gold score of these completions; `None` if one has none.
    pub fn mean_gold(&self, tokenizer: &Tokenizer, episodes: &[Episode]) -> Result<Option<f64>, LabError> {
        let gold = |episode: &Episode| {
            let prompt = self.prompt_text(tokenizer, &episode.prompt, episode.prompt_index)?;
            Ok(self.gold(&prompt, &tokenizer.continuation(&episode.prompt, &episode.completion, true)?))
        };
        let golds: Vec<Option<f64>> = episodes.iter().map(gold).collect::<Result<_, LabError>>()?;
        Ok(golds.iter().copied().sum::<Option<f64>>().map(|sum| sum / golds.len() as f64))
    }

    /// Whether every prompt is one of the grammar's, so that a simulated teacher can answer.
    pub fn has_gold(&self) -> bool {
        match &self.prompts {
            Some(own) => own.iter().all(|prompt| is_grammars(prompt)),
            None => self.listed.get().is_none_or(|all| all.iter().all(|prompt| is_grammars(prompt))),
        }
    }
}

/// The pairs of a data file as tokens, with the chosen completion on the left, cut to fit the model. Pairs of equal
/// completions are left out. How many were, and how many were cut, is logged.
pub(in crate::lab) fn pairs(path: &Path, reader: &Reader) -> Result<Vec<TextComparison>, LabError> {
    let (mut all, mut alike, mut cut) = (Vec::new(), 0, 0);
    for tokens in reader.file(path)? {
        let TokenizedExample::Preference { mut prompt, chosen: mut left, rejected: mut right, target, margin } = tokens
        else {
            continue;
        };
        let longest = left.len().max(right.len());
        cut += usize::from(prompt.len() + longest > reader.context);
        left.truncate(reader.context - 1);
        right.truncate(reader.context - 1);
        let room = reader.context - left.len().max(right.len());
        prompt.drain(..prompt.len().saturating_sub(room));
        match left == right {
            true => alike += 1,
            false => all.push(TextComparison { prompt, left, right, target, margin }),
        }
    }
    let path = path.display();
    if cut > 0 {
        log::warn!("{path}: {cut} pairs are longer than the model's {} positions and are cut", reader.context);
    }
    if alike > 0 {
        log::warn!(
            "{path}: {alike} pairs are left out, because their two completions are the same{}",
            match cut {
                0 => "",
                _ => ", some of them only after they were cut",
            }
        );
    }
    Ok(all)
}

fn of_file(reader: &Reader, path: &Path, what: &str) -> Result<Vec<Example>, LabError> {
    let lines = reader.file(path)?;
    let cut = lines.iter().filter(|line| match line {
        TokenizedExample::Completion { prompt, completion }
        | TokenizedExample::Labelled { prompt, completion, good: true }
        | TokenizedExample::Preference { prompt, chosen: completion, .. } => {
            prompt.len() + completion.len() > reader.context
        }
        _ => false,
    });
    let cut = cut.count();
    if cut > 0 {
        let (path, context) = (path.display(), reader.context);
        log::warn!(
            "{path}: {cut} examples are longer than the model's {context} positions; the beginnings of their prompts are left out, \
             and completions that are too long by themselves are cut"
        );
    }
    let all: Vec<Example> = lines.into_iter().flat_map(|tokens| reader.examples(tokens)).collect();
    match all.iter().all(|example| example.completion.is_empty()) {
        true => Err(LabError::Text(format!("{} holds no {what}; give a file with some.", path.display()))),
        false => Ok(all),
    }
}

fn is_grammars(prompt: &str) -> bool {
    is_of_a_review(prompt) || posts::is_prompt(prompt)
}

fn is_of_a_review(prompt: &str) -> bool {
    static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| grammar::prompts().into_iter().collect());
    KNOWN.contains(prompt.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_places_are_taken_as_were_asked_for() {
        let places = |len, most| evenly_spread(len, most).collect::<Vec<_>>();
        assert_eq!(places(5, 3), [0, 1, 3]);
        assert_eq!(places(3, 5), [0, 1, 2]);
        assert_eq!((places(250, 200).len(), places(250, 200).last()), (200, Some(&248)));
        assert_eq!((places(4, 0), places(0, 4)), (vec![], vec![]));
    }

    #[test]
    fn the_answer_of_a_tie_is_not_known_to_be_good() {
        let reference = |target: f32| {
            let text = |text: &str| TextOrMessages::Text(text.to_owned());
            let (prompt, chosen, rejected) = (text("Q"), text("yes"), text("no"));
            reference_of(&Line::Preference { prompt, chosen, rejected, target, margin: 0.0 })
        };
        assert_eq!((reference(0.5), reference(0.6).as_deref()), (None, Some("yes")));
    }
}
