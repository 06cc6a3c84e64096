//! Looking inside a language model on the command line.

use super::output::outln;
use super::run::report;
use crate::lab::{
    AblateWith, LookModels, LookPlan, LookReport, LookWhat, ProbeLabels, ProbeSettings, SteerPlan, TunedLensPlan,
    TunedLensSettings, look as look_inside,
};
use crate::settings::TextPrecision;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use std::path::PathBuf;

/// The verbs of looking inside.
#[derive(Debug, Subcommand)]
pub enum Look {
    /// Write activations by TransformerLens' names, and the logits.
    Cache(CacheArguments),
    /// Read every residual stream as if the model stopped there (logit lens, or a tuned lens).
    Lens(LensArguments),
    /// Train a tuned lens: a linear map for every residual stream, after which it predicts what the model does.
    TunedLens(TunedLensArguments),
    /// What each head, MLP and adapter adds to a logit difference (direct logit attribution).
    Attribution(LookArguments),
    /// Attention patterns, and which heads look at the first, the previous or an earlier copy's next token.
    Attention(AttentionArguments),
    /// Take one activation from another run and see how much of the difference it carries (activation patching).
    /// Between two prompts with --other, or between two models.
    Patch(PatchArguments),
    /// Swap blocks between two models, one by one and one after the other.
    Swap(LookArguments),
    /// What training changed: weights by matrix, predictions by layer and position, tokens that rose and fell.
    Diff(DiffArguments),
    /// Replace each head's output and see what it was worth.
    Ablate(AblateArguments),
    /// Add a difference of means to the residual stream while the model writes.
    Steer(SteerArguments),
    /// Fit linear probes to every residual stream.
    Probe(ProbeArguments),
    /// What each head, MLP and adapter adds to a reward; with --other, to the margin between two texts.
    Reward(LookArguments),
    /// What each head, MLP and adapter adds to the value that a session's critic gives a text; with --other, to the
    /// difference of two texts.
    Value(LookArguments),
}

/// What is looked into, and where the result goes.
#[derive(Args, Debug)]
pub struct LookArguments {
    /// Model folder in Hugging Face's format, or a GGUF file. Default: the built-in supervised model.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Adapter folder in PEFT's format: the tuned version is the model with it.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Folder of the tuned version.
    #[arg(long, value_name = "DIR", conflicts_with = "adapter")]
    pub against: Option<PathBuf>,
    /// Session instead: the model that its training started from, and the one that it came to.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "adapter", "against"])]
    pub session: Option<PathBuf>,
    /// Number type of the weights: f32 or bf16. Sums are in f32 either way.
    #[arg(long, default_value = "f32", conflicts_with = "session")]
    pub precision: TextPrecision,
    /// Prompt to look at. Some verbs take several.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Other prompt, to compare with. Some verbs take several.
    #[arg(long, value_name = "TEXT")]
    pub other: Vec<String>,
    /// Two tokens whose logits are compared, with their spaces. Default: those that training raised and lowered most,
    /// or the two likeliest.
    #[arg(long, value_name = "\" good, bad\"")]
    pub tokens: Option<String>,
    /// Continuation whose log-probability is explained instead of a logit difference.
    #[arg(long, value_name = "TEXT", conflicts_with = "tokens")]
    pub completion: Option<String>,
    /// Position of the token before those that are compared, or of the one that is steered, counted from 0. Default:
    /// the last one.
    #[arg(long, value_name = "N")]
    pub position: Option<usize>,
    /// File of arrays to write, .npz or .safetensors.
    #[arg(long, value_name = "OUT.npz")]
    pub output: Option<PathBuf>,
    /// Picture to write.
    #[arg(long, value_name = "OUT.png")]
    pub picture: Option<PathBuf>,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct CacheArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// Names of activations, such as hook_embed or blocks.3.attn.hook_z; * stands for any characters.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "*")]
    pub sites: Vec<String>,
}

#[derive(Args, Debug)]
pub struct LensArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// Read between attention and MLP, too.
    #[arg(long)]
    pub mid: bool,
    /// How many of the likeliest tokens are kept.
    #[arg(long, default_value_t = 5)]
    pub top: usize,
    /// Tuned lens to read through, as `text look tuned-lens` writes it.
    #[arg(long, value_name = "FILE")]
    pub tuned_lens: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct TunedLensArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// Data file with texts. Default: reviews of the built-in grammar.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Number of reviews of the grammar.
    #[arg(long, default_value_t = 2000, conflicts_with = "data")]
    pub count: usize,
    /// Learn to read between attention and MLP, too.
    #[arg(long)]
    pub mid: bool,
    /// Number of steps.
    #[arg(long, default_value_t = TunedLensSettings::default().steps)]
    pub steps: usize,
    /// Tokens of a step. The published number is 262144.
    #[arg(long, default_value_t = 4096)]
    pub tokens_per_step: usize,
    /// Tokens of a row. Default: as many as the model has positions, at most 512.
    #[arg(long, value_name = "N")]
    pub length: Option<usize>,
    /// Learning rate of the first step; it falls to 0 linearly.
    #[arg(long, default_value_t = TunedLensSettings::default().learning_rate)]
    pub learning_rate: f64,
    /// Nesterov momentum.
    #[arg(long, default_value_t = TunedLensSettings::default().momentum)]
    pub momentum: f64,
    /// Weight decay.
    #[arg(long, default_value_t = TunedLensSettings::default().weight_decay)]
    pub weight_decay: f64,
    /// Share of the texts that is held out, to compare with the logit lens.
    #[arg(long, default_value_t = 0.1)]
    pub held_out: f64,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Args, Debug)]
pub struct AttentionArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// Block that the picture shows. Default: the one that changed most, or the last.
    #[arg(long, value_name = "N", requires = "picture")]
    pub block: Option<usize>,
}

#[derive(Args, Debug)]
pub struct PatchArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// What is patched: resid_pre, resid_mid, resid_post, attn_out or mlp_out by layer and position; z, pattern, q, k
    /// or v by layer and head; z_by_position.
    #[arg(long, value_name = "GRID", value_delimiter = ',', default_values = ["resid_pre", "attn_out", "mlp_out"])]
    pub grids: Vec<String>,
    /// Compute the gradient's guess instead (attribution patching): two passes and a backward one.
    #[arg(long)]
    pub guess: bool,
    /// Patch the other way: the other run is changed, and this one gives the activations.
    #[arg(long)]
    pub reverse: bool,
}

#[derive(Args, Debug)]
pub struct DiffArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// Compare residual streams between attention and MLP, too.
    #[arg(long)]
    pub mid: bool,
}

/// What a head's output becomes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum With {
    /// 0.
    Zero,
    /// Its mean over all positions of the other prompts.
    Mean,
    /// What it is in the other prompt, which has as many tokens.
    Other,
}

#[derive(Args, Debug)]
pub struct AblateArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// What a head's output becomes.
    #[arg(long, value_enum, default_value = "zero")]
    pub with: With,
}

#[derive(Args, Debug)]
pub struct SteerArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// Block after which the vector is added, counted from 0. Default: the middle one.
    #[arg(long, value_name = "N")]
    pub block: Option<usize>,
    /// What the vector is multiplied by.
    #[arg(
        long,
        value_name = "X",
        value_delimiter = ',',
        allow_hyphen_values = true,
        default_values = ["-2", "-1", "0", "1", "2"]
    )]
    pub strengths: Vec<f64>,
    /// Steer the tuned version rather than the base model.
    #[arg(long)]
    pub tuned: bool,
    /// Prompt to answer. May be given several times. Default: those of --prompt.
    #[arg(long, value_name = "TEXT")]
    pub write: Vec<String>,
    /// Completions of each prompt.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub each: usize,
    /// Maximum number of tokens in a completion.
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Temperature: the logits are divided by it. 0 always takes the likeliest token.
    #[arg(long, default_value_t = 1.0, value_parser = super::arguments::at_least_0)]
    pub temperature: f64,
    /// What scores the completions, as in `text best-of`. May be given several times; the scores are added up.
    #[arg(long, value_name = "FUNCTION", allow_hyphen_values = true)]
    pub reward_function: Vec<String>,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Args, Debug)]
pub struct ProbeArguments {
    #[command(flatten)]
    pub look: LookArguments,
    /// JSON lines of labelled completions or judged pairs. Default: reviews of the built-in grammar, labelled by
    /// whether their gold score is above the median.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Number of reviews of the grammar.
    #[arg(long, default_value_t = 400, conflicts_with = "data")]
    pub count: usize,
    /// Weight of ½ ‖w‖² in the loss.
    #[arg(long, default_value_t = ProbeSettings::default().l2)]
    pub l2: f64,
    /// Share of examples that is held out.
    #[arg(long, default_value_t = ProbeSettings::default().held_out)]
    pub held_out: f64,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl Look {
    /// What all verbs have.
    fn arguments(&self) -> &LookArguments {
        match self {
            Look::Cache(a) => &a.look,
            Look::Lens(a) => &a.look,
            Look::TunedLens(a) => &a.look,
            Look::Attention(a) => &a.look,
            Look::Patch(a) => &a.look,
            Look::Diff(a) => &a.look,
            Look::Ablate(a) => &a.look,
            Look::Steer(a) => &a.look,
            Look::Probe(a) => &a.look,
            Look::Attribution(look) | Look::Swap(look) | Look::Reward(look) | Look::Value(look) => look,
        }
    }

    fn what(&self) -> LookWhat {
        match self {
            Look::Cache(a) => LookWhat::Cache(a.sites.clone()),
            Look::Lens(a) => LookWhat::Lens { mid: a.mid, top: a.top, tuned_lens: a.tuned_lens.clone() },
            Look::TunedLens(a) => LookWhat::TunedLens(TunedLensPlan {
                data: a.data.clone(),
                count: a.count,
                mid: a.mid,
                settings: TunedLensSettings {
                    steps: a.steps,
                    learning_rate: a.learning_rate,
                    momentum: a.momentum,
                    weight_decay: a.weight_decay,
                    ..TunedLensSettings::default()
                },
                tokens_per_step: a.tokens_per_step,
                length: a.length,
                held_out: a.held_out,
                seed: a.seed,
            }),
            Look::Attribution(_) => LookWhat::Attribution,
            Look::Attention(a) => LookWhat::Attention(a.block),
            Look::Patch(a) => LookWhat::Patch { grids: a.grids.clone(), guess: a.guess, reverse: a.reverse },
            Look::Swap(_) => LookWhat::Swap,
            Look::Diff(a) => LookWhat::Diff { mid: a.mid },
            Look::Ablate(a) => LookWhat::Ablate(match a.with {
                With::Zero => AblateWith::Zero,
                With::Mean => AblateWith::Mean,
                With::Other => AblateWith::Other,
            }),
            Look::Reward(_) => LookWhat::Reward,
            Look::Value(_) => LookWhat::Value,
            Look::Steer(a) => LookWhat::Steer(SteerPlan {
                block: a.block,
                strengths: a.strengths.clone(),
                tuned: a.tuned,
                write: a.write.clone(),
                each: a.each,
                max_new_tokens: a.max_new_tokens,
                temperature: a.temperature,
                reward_functions: a.reward_function.clone(),
                seed: a.seed,
            }),
            Look::Probe(a) => LookWhat::Probe(ProbeLabels {
                data: a.data.clone(),
                count: a.count,
                settings: ProbeSettings { l2: a.l2, held_out: a.held_out, seed: a.seed },
            }),
        }
    }
}

/// Looks inside.
pub fn look(what: &Look) -> anyhow::Result<()> {
    let arguments = what.arguments();
    let plan = LookPlan {
        models: LookModels {
            model: arguments.model.clone(),
            adapter: arguments.adapter.clone(),
            against: arguments.against.clone(),
            session: arguments.session.clone(),
            precision: arguments.precision,
        },
        what: what.what(),
        prompts: arguments.prompt.clone(),
        others: arguments.other.clone(),
        tokens: arguments.tokens.clone(),
        completion: arguments.completion.clone(),
        position: arguments.position,
        output: arguments.output.clone(),
        picture: arguments.picture.clone(),
    };
    let bar = ProgressBar::new(0);
    let LookReport { json, lines } = look_inside(&plan, &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        false
    })?;
    bar.finish_and_clear();
    report(arguments.json, json, || lines.iter().for_each(|line| outln!("{line}")));
    Ok(())
}
