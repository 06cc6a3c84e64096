//! The tokenised data of a run in text mode: documents, demonstrations, prompts and judged pairs, from files or from
//! the built-in grammar.

use crate::lab::LabError;
use crate::settings::TextRun;
use crate::store::read_text;
use flipside_core::Seed;
use flipside_text::data::{self, BadLines, Encoder, Example as Line, TextOrMessages, TokenizedExample};
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Example, TextComparison, grammar};
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
    pub skip_bad_lines: bool,
}

impl Reader<'_> {
    /// The lines of a data file as tokens, in order. Lines that cannot be read are logged.
    pub fn file(&self, path: &Path) -> Result<Vec<TokenizedExample>, LabError> {
        let on_bad = if self.skip_bad_lines { BadLines::Skip } else { BadLines::Stop };
        let read = data::read_lines(&read_text(path)?, on_bad)?;
        for bad in &read.bad {
            log::warn!("{}: left out: {bad}", path.display());
        }
        let encoder = Encoder { tokenizer: self.tokenizer, tldr: Default::default() };
        let mut all = Vec::with_capacity(read.examples.len());
        for example in &read.examples {
            all.extend(encoder.encode(example)?);
        }
        Ok(all)
    }

    fn encode(&self, line: &Line) -> Result<TokenizedExample, LabError> {
        let encoder = Encoder { tokenizer: self.tokenizer, tldr: Default::default() };
        // The encoder leaves out nothing but posts of TL;DR.
        Ok(encoder.encode(line)?.unwrap_or(TokenizedExample::Whole(Vec::new())))
    }

    /// A free prompt as tokens. If it is too long, its beginning is cut off.
    pub fn prompt_of(&self, prompt: &str) -> Result<Vec<u32>, LabError> {
        let tokens = self.encode(&Line::Prompt(TextOrMessages::Text(prompt.to_owned())))?;
        let tokens = self.shortened(tokens.prompt());
        match tokens.is_empty() {
            true => Err(LabError::Text("A prompt needs at least one token; write something.".to_owned())),
            false => Ok(tokens),
        }
    }

    /// The last tokens of a prompt, as many as leave space for a completion.
    fn shortened(&self, prompt: &[u32]) -> Vec<u32> {
        prompt[prompt.len().saturating_sub(self.prompt)..].to_vec()
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
            TokenizedExample::Preference { prompt, chosen, .. } => {
                self.examples(TokenizedExample::Completion { prompt, completion: chosen })
            }
            TokenizedExample::Prompt(_) | TokenizedExample::Labelled { .. } => Vec::new(),
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

    /// The prompts that are asked about, as tokens: those that the person chose, else those of a file of prompts,
    /// demonstrations or pairs, else the grammar's.
    pub fn prompts(&self, reader: &Reader) -> Result<Vec<Vec<u32>>, LabError> {
        let files =
            || [&self.run.prompts, &self.run.demonstrations, &self.run.comparisons].into_iter().flatten().next();
        if let (None, Some(path)) = (&self.prompts, files()) {
            let mut known = HashSet::new();
            let all: Vec<Vec<u32>> = (reader.file(path)?.iter())
                .map(|tokens| reader.shortened(tokens.prompt()))
                .filter(|prompt| !prompt.is_empty() && known.insert(prompt.clone()))
                .collect();
            let texts = all.iter().map(|prompt| reader.tokenizer.decode(prompt, true)).collect::<Result<_, _>>()?;
            let _ = self.listed.set(Arc::new(texts));
            return match all.is_empty() {
                true => Err(LabError::Text(format!("{} holds no prompts; give a file with some.", path.display()))),
                false => Ok(all),
            };
        }
        self.prompt_list().iter().map(|prompt| reader.prompt_of(prompt)).collect()
    }

    /// The judged pairs of a file.
    pub fn comparisons(&self, reader: &Reader) -> Result<Vec<TextComparison>, LabError> {
        let Some(path) = &self.run.comparisons else { return Ok(Vec::new()) };
        let all = pairs(&reader.file(path)?, reader);
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
        is_grammars(prompt).then(|| grammar::score(prompt.trim(), completion))
    }

    /// Whether every prompt is one of the grammar's, so that a simulated teacher can answer.
    pub fn has_gold(&self) -> bool {
        match &self.prompts {
            Some(own) => own.iter().all(|prompt| is_grammars(prompt)),
            None => self.listed.get().is_none_or(|all| all.iter().all(|prompt| is_grammars(prompt))),
        }
    }
}

/// Pairs as tokens, with the chosen completion on the left.
pub(in crate::lab) fn pairs(tokens: &[TokenizedExample], reader: &Reader) -> Vec<TextComparison> {
    let fit = |prompt: &[u32], completion: &[u32]| -> (Vec<u32>, Vec<u32>) {
        let cut = completion[..completion.len().min(reader.context - 1)].to_vec();
        let room = reader.context - cut.len();
        (prompt[prompt.len().saturating_sub(room)..].to_vec(), cut)
    };
    let of = |tokens: &TokenizedExample| match tokens {
        TokenizedExample::Preference { prompt, chosen, rejected, margin } => {
            let longer = if chosen.len() > rejected.len() { chosen } else { rejected };
            let prompt = fit(prompt, longer).0;
            let (left, right) = (fit(&prompt, chosen).1, fit(&prompt, rejected).1);
            Some(TextComparison { prompt, left, right, target: 1.0, margin: *margin })
        }
        _ => None,
    };
    tokens.iter().filter_map(of).collect()
}

fn of_file(reader: &Reader, path: &Path, what: &str) -> Result<Vec<Example>, LabError> {
    let all: Vec<Example> = reader.file(path)?.into_iter().flat_map(|tokens| reader.examples(tokens)).collect();
    match all.iter().all(|example| example.completion.is_empty()) {
        true => Err(LabError::Text(format!("{} holds no {what}; give a file with some.", path.display()))),
        false => Ok(all),
    }
}

fn is_grammars(prompt: &str) -> bool {
    static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| grammar::prompts().into_iter().collect());
    KNOWN.contains(prompt.trim())
}
