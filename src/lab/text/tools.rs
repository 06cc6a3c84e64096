//! Text mode's commands that need no session: training a tokenizer, and writing the built-in grammar's data to files.

use super::corpus::read_examples;
use crate::lab::LabError;
use crate::store::{ModelFolder, write_text};
use flipside_core::{Choice, Seed, Stream};
use flipside_text::data::{self, BadLine, Reading};
use flipside_text::grammar;
use flipside_text::teacher::{GoldTeacher, Noise};
use flipside_text::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Documents that the built-in tokenizer is trained on.
const DOCUMENTS: usize = 20_000;

/// What to train a tokenizer on, and where to write it.
#[derive(Clone, Debug)]
pub struct TokenizerPlan {
    /// A file of JSON lines; `None` uses the built-in grammar.
    pub data: Option<PathBuf>,
    /// How the file is read.
    pub reading: Reading,
    /// Total number of tokens.
    pub vocabulary: usize,
    /// The seed for the grammar.
    pub seed: u64,
    /// The folder for `tokenizer.json` and `tokenizer_config.json`.
    pub output: PathBuf,
}

/// The result of training a tokenizer.
#[derive(Clone, Debug, Serialize)]
pub struct TokenizerReport {
    /// The folder.
    pub folder: PathBuf,
    /// Total number of tokens, including special ones. It is smaller than asked for if the text has nothing left to
    /// merge.
    pub vocabulary: usize,
    /// Number of examples that were read or generated.
    pub examples: usize,
    /// Bytes of text per token, over all texts.
    pub bytes_per_token: f64,
    /// Lines that were left out, each with its number and the reason.
    pub bad_lines: Vec<String>,
}

/// Trains a byte-level BPE and writes it. The same data and seed give the same files.
///
/// # Errors
///
/// Data that cannot be read, a vocabulary of fewer than 258 tokens, a folder that holds other files.
pub fn train_tokenizer(plan: &TokenizerPlan) -> Result<TokenizerReport, LabError> {
    let (texts, bad) = match &plan.data {
        Some(path) => texts_of(path, plan.reading)?,
        None => {
            let mut stream = Seed(plan.seed).stream("text.tokenizer");
            let mut texts: Vec<String> = (0..DOCUMENTS).map(|_| grammar::document(&mut stream)).collect();
            texts.extend((0..DOCUMENTS).map(|_| {
                let review = grammar::review(&mut stream);
                review.prompt + &review.completion
            }));
            (texts, Vec::new())
        }
    };
    let tokenizer = Tokenizer::train(texts.iter().map(String::as_str), plan.vocabulary)?;
    let folder = ModelFolder {
        texts: BTreeMap::from([
            ("tokenizer.json".to_owned(), tokenizer.to_json()?),
            ("tokenizer_config.json".to_owned(), tokenizer.config_json()),
        ]),
        ..ModelFolder::default()
    };
    folder.write(&plan.output, crate::store::SHARD)?;
    let (mut bytes, mut tokens) = (0, 0);
    for text in &texts {
        bytes += text.len();
        tokens += tokenizer.encode(text, false)?.len();
    }
    Ok(TokenizerReport {
        folder: plan.output.clone(),
        vocabulary: tokenizer.vocabulary(),
        examples: texts.len(),
        bytes_per_token: bytes as f64 / tokens.max(1) as f64,
        bad_lines: bad.iter().map(BadLine::to_string).collect(),
    })
}

/// The texts of a data file, and its bad lines.
fn texts_of(path: &Path, reading: Reading) -> Result<(Vec<String>, Vec<BadLine>), LabError> {
    let read = read_examples(path, reading)?;
    Ok((read.examples.iter().flat_map(data::Example::texts).collect(), read.bad))
}

/// The data sets that the grammar can generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExampleKind {
    /// `{"text"}`: for a base model.
    Documents,
    /// `{"prompt", "completion"}`: for supervised learning.
    Reviews,
    /// `{"prompt"}`: prompts to be answered.
    Prompts,
    /// `{"prompt", "chosen", "rejected"}`: answered by the noisy gold teacher.
    Pairs,
}

/// What the grammar should generate.
#[derive(Clone, Debug)]
pub struct ExamplesPlan {
    /// Which data set.
    pub kind: ExampleKind,
    /// Number of lines.
    pub count: usize,
    /// The seed; it determines the whole file.
    pub seed: u64,
    /// The noise of the teacher that answers pairs.
    pub noise: Noise,
    /// The file.
    pub output: PathBuf,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct ExamplesReport {
    /// The file.
    pub file: PathBuf,
    /// Lines in it.
    pub lines: usize,
    /// For pairs: the mean probability that an answer agrees with the order of the gold scores. No reward model can do
    /// better on these pairs.
    pub ceiling: Option<f64>,
    /// For pairs: the share of answers that do agree.
    pub agreement: Option<f64>,
}

/// Writes lines of the built-in grammar's data as JSON lines.
///
/// # Errors
///
/// A file that cannot be written.
pub fn write_examples(plan: &ExamplesPlan) -> Result<ExamplesReport, LabError> {
    let seed = Seed(plan.seed);
    let mut stream = seed.stream("text.examples");
    let mut teacher = GoldTeacher::new(plan.noise, seed.stream("text.teacher"));
    let (mut ceiling, mut agreed) = (0.0, 0);
    let mut lines = String::new();
    for _ in 0..plan.count {
        let line = match plan.kind {
            ExampleKind::Documents => json!({ "text": grammar::document(&mut stream) }),
            ExampleKind::Prompts => json!({ "prompt": grammar::prompt(&mut stream) }),
            ExampleKind::Reviews => {
                let review = grammar::review(&mut stream);
                json!({ "prompt": review.prompt, "completion": review.completion, "score": review.score })
            }
            ExampleKind::Pairs => {
                let (line, pair) = judged(&mut stream, &mut teacher);
                ceiling += plan.noise.ceiling(pair[0], pair[1]);
                agreed += usize::from(pair[0] >= pair[1]);
                line
            }
        };
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    write_text(&plan.output, &lines)?;
    let count = plan.count.max(1) as f64;
    let of_pairs = |number: f64| (plan.kind == ExampleKind::Pairs).then_some(number / count);
    Ok(ExamplesReport {
        file: plan.output.clone(),
        lines: plan.count,
        ceiling: of_pairs(ceiling),
        agreement: of_pairs(agreed as f64),
    })
}

/// A line with two reviews of different scores for the same prompt, and the gold scores of the chosen and the rejected
/// one.
fn judged(stream: &mut Stream, teacher: &mut GoldTeacher) -> (Value, [f64; 2]) {
    loop {
        let first = grammar::review(stream);
        let second = grammar::answer(&first.prompt, stream);
        let (chosen, rejected) = match teacher.judge(first.score, second.score) {
            Choice::Left | Choice::MuchLeft => (&first, &second),
            Choice::Right | Choice::MuchRight => (&second, &first),
            Choice::Tie | Choice::Skip => continue,
        };
        if chosen.score != rejected.score {
            let line = json!({
                "prompt": first.prompt, "chosen": chosen.completion, "rejected": rejected.completion,
                "chosen_score": chosen.score, "rejected_score": rejected.score,
            });
            return (line, [chosen.score, rejected.score]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::read_text;
    use flipside_text::data::BadLines;

    fn plan(kind: ExampleKind, output: &Path) -> ExamplesPlan {
        ExamplesPlan { kind, count: 2_000, seed: 3, noise: Noise::default(), output: output.to_owned() }
    }

    #[test]
    fn the_grammars_files_are_read_back_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [ExampleKind::Documents, ExampleKind::Reviews, ExampleKind::Prompts, ExampleKind::Pairs] {
            let file = folder.path().join(format!("{kind:?}.jsonl"));
            let report = write_examples(&plan(kind, &file)).unwrap();
            let read = read_examples(&file, Reading::default()).unwrap();
            assert_eq!(read.examples.len(), 2_000);
            for example in &read.examples {
                match (kind, example) {
                    (ExampleKind::Documents, data::Example::Whole(_))
                    | (ExampleKind::Prompts, data::Example::Prompt(_))
                    | (ExampleKind::Reviews, data::Example::Completion { .. }) => {}
                    (ExampleKind::Pairs, data::Example::Preference { prompt, chosen, rejected, .. }) => {
                        let [prompt, chosen, rejected] = [prompt, chosen, rejected].map(ToString::to_string);
                        assert_ne!(grammar::score(&prompt, &chosen), grammar::score(&prompt, &rejected));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(report.ceiling.is_some(), kind == ExampleKind::Pairs);
            if let (Some(ceiling), Some(agreement)) = (report.ceiling, report.agreement) {
                // Three standard deviations of a share of 2000.
                assert!((ceiling - agreement).abs() < 3.0 * (0.25_f64 / 2_000.0).sqrt(), "{ceiling} {agreement}");
                assert!((0.8..0.97).contains(&ceiling), "{ceiling}");
            }
            let again = folder.path().join("again.jsonl");
            write_examples(&plan(kind, &again)).unwrap();
            assert_eq!(read_text(&file).unwrap(), read_text(&again).unwrap());
        }
    }

    #[test]
    fn a_tokenizer_is_trained_on_data_or_on_the_grammar() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pairs.jsonl");
        write_examples(&plan(ExampleKind::Pairs, &file)).unwrap();
        std::fs::write(&file, read_text(&file).unwrap() + "{\"text\": 3}\n").unwrap();
        let plan = |data: Option<&Path>, on_bad: BadLines, name: &str| TokenizerPlan {
            data: data.map(Path::to_owned),
            reading: Reading { on_bad, ..Reading::default() },
            vocabulary: 600,
            seed: 0,
            output: folder.path().join(name),
        };
        let error = train_tokenizer(&plan(Some(&file), BadLines::Stop, "a")).unwrap_err().to_string();
        assert!(error.starts_with("line 2001: "), "{error}");
        let own = train_tokenizer(&plan(Some(&file), BadLines::Skip, "a")).unwrap();
        assert_eq!((own.bad_lines.len(), own.vocabulary), (1, 600));
        let built_in = train_tokenizer(&plan(None, BadLines::Stop, "b")).unwrap();
        for report in [&own, &built_in] {
            // The grammar has few words, and most of them are one token.
            assert!(report.bytes_per_token > 3.0, "{report:?}");
            let texts = ModelFolder::read_texts(&report.folder).unwrap();
            let read = Tokenizer::from_json(&texts["tokenizer.json"], Some(&texts["tokenizer_config.json"])).unwrap();
            assert_eq!((read.eos(), read.pad(), read.vocabulary()), (Some(0), Some(1), report.vocabulary));
        }
    }
}
