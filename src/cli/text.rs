//! Text mode's verbs.

use super::run::report;
use crate::lab::{ExampleKind, ExamplesPlan, Noise, TokenizerPlan, train_tokenizer, write_examples};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::path::PathBuf;

/// What to do in text mode.
#[derive(Debug, Subcommand)]
pub enum Text {
    /// Train a byte-level BPE tokenizer, on a data file or on the built-in grammar.
    Tokenizer(TokenizerArguments),
    /// Write the built-in grammar's data as JSON lines: no download needed.
    Examples(ExamplesArguments),
}

#[derive(Args, Debug)]
pub struct TokenizerArguments {
    /// JSON lines to train on; the built-in grammar if not given.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Report lines that cannot be read, and go on without them.
    #[arg(long)]
    pub skip_bad_lines: bool,
    /// Tokens in the vocabulary, at least 258.
    #[arg(long, default_value_t = 1024)]
    pub vocabulary: usize,
    /// Seed of the built-in grammar.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder to write tokenizer.json and tokenizer_config.json to.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

/// Which of the grammar's data sets.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// {"text"}, for a base model.
    Documents,
    /// {"prompt", "completion"}, for supervised learning.
    Reviews,
    /// {"prompt"}, to be answered.
    Prompts,
    /// {"prompt", "chosen", "rejected"}, judged by a simulated teacher.
    Pairs,
}

#[derive(Args, Debug)]
pub struct ExamplesArguments {
    /// Which data set.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Lines to write.
    #[arg(long, default_value_t = 1000)]
    pub count: usize,
    /// Seed of every random stream.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How far apart two gold scores must be for the better one to win with probability 0.73; 0: it always wins.
    #[arg(long, default_value_t = Noise::default().doubt)]
    pub doubt: f64,
    /// How often the teacher's answer is turned round, 0 to 1.
    #[arg(long, default_value_t = Noise::default().mistakes, value_parser = super::arguments::share)]
    pub mistake_rate: f64,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

/// Does it.
pub fn text(what: &Text) -> anyhow::Result<()> {
    match what {
        Text::Tokenizer(arguments) => tokenizer(arguments),
        Text::Examples(arguments) => examples(arguments),
    }
}

fn tokenizer(arguments: &TokenizerArguments) -> anyhow::Result<()> {
    let made = train_tokenizer(&TokenizerPlan {
        data: arguments.data.clone(),
        skip_bad_lines: arguments.skip_bad_lines,
        vocabulary: arguments.vocabulary,
        seed: arguments.seed,
        output: arguments.output.clone(),
    })?;
    for line in &made.bad_lines {
        eprintln!("left out: {line}");
    }
    report(arguments.json, json!(made), || {
        println!(
            "{}: {} tokens, {:.2} bytes a token over {} texts",
            made.folder.display(),
            made.vocabulary,
            made.bytes_per_token,
            made.examples
        );
    });
    Ok(())
}

fn examples(arguments: &ExamplesArguments) -> anyhow::Result<()> {
    let made = write_examples(&ExamplesPlan {
        kind: match arguments.kind {
            Kind::Documents => ExampleKind::Documents,
            Kind::Reviews => ExampleKind::Reviews,
            Kind::Prompts => ExampleKind::Prompts,
            Kind::Pairs => ExampleKind::Pairs,
        },
        count: arguments.count,
        seed: arguments.seed,
        noise: Noise { doubt: arguments.doubt, mistakes: arguments.mistake_rate },
        output: arguments.output.clone(),
    })?;
    report(arguments.json, json!(made), || {
        println!("{}: {} lines", made.file.display(), made.lines);
        if let (Some(agreement), Some(ceiling)) = (made.agreement, made.ceiling) {
            println!(
                "the teacher agrees with the gold score on {:.1} % of them; {:.1} % are to be expected",
                100.0 * agreement,
                100.0 * ceiling
            );
        }
    });
    Ok(())
}
