//! The arguments that several verbs of text mode have: which model, which data, and how the model is trained.

use crate::lab::{BadLines, Reading, TextModel};
use crate::settings::{LoraSettings, TextPrecision, TextPreset};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The presets by their names.
pub fn presets() -> impl TypedValueParser<Value = TextPreset> {
    PossibleValuesParser::new(TextPreset::ALL.map(TextPreset::name)).try_map(|name| name.parse::<TextPreset>())
}

/// A model's folder and how it is read.
#[derive(Args, Debug)]
pub struct ModelArguments {
    /// Model folder in Hugging Face's format (config.json, tokenizer.json, safetensors), or a GGUF file.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Adapter folder in PEFT's format.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Number type of weights and activations: f32 or bf16.
    #[arg(long, default_value = "f32")]
    pub precision: TextPrecision,
}

impl ModelArguments {
    /// The model that these arguments name.
    pub fn model(&self) -> TextModel {
        TextModel { folder: self.model.clone(), adapter: self.adapter.clone(), precision: self.precision }
    }
}

/// How a data file is read.
#[derive(Args, Debug)]
pub struct ReadingArguments {
    /// Report lines that cannot be read and continue without them.
    #[arg(long, requires = "data")]
    pub skip_bad_lines: bool,
    /// Pass over fields that carry text and are not used. Otherwise they are an error.
    #[arg(long, requires = "data")]
    pub ignore_fields: bool,
}

impl ReadingArguments {
    /// The same as the lab reads it.
    pub fn reading(&self) -> Reading {
        let on_bad = if self.skip_bad_lines { BadLines::Skip } else { BadLines::Stop };
        Reading { on_bad, ignore_fields: self.ignore_fields }
    }
}

/// Which weights of a model are trained, and in what memory.
#[derive(Args, Debug)]
pub struct AdaptingArguments {
    /// Train low-rank adapters instead of all weights: r=16,alpha=32,dropout=0.05,targets=all or targets=q_proj+v_proj.
    #[arg(long, value_name = "r=R,…")]
    pub lora: Option<LoraSettings>,
    /// Number of blocks, counted from the embedding, that are not trained. Default: 0.
    #[arg(long)]
    pub freeze: Option<usize>,
    /// Compute blocks again in the backward pass instead of keeping what the gradients need. Takes less memory and a
    /// third more time.
    #[arg(long)]
    pub gradient_checkpointing: bool,
}

/// How a model is trained, whatever it learns.
#[derive(Args, Debug)]
pub struct TuningArguments {
    #[command(flatten)]
    pub adapting: AdaptingArguments,
    /// Number type of weights and activations: f32, or bf16 with f32 master weights. Default: f32.
    #[arg(long)]
    pub precision: Option<TextPrecision>,
}

/// An option, the setting that it is short for, and its value if it was typed.
type Typed = (&'static str, &'static str, Option<Value>);

impl AdaptingArguments {
    /// The settings that these options are short for.
    pub fn typed(&self) -> [Typed; 3] {
        [
            ("--lora", "text.lora", self.lora.as_ref().map(|lora| json!(lora))),
            ("--freeze", "text.frozen_layers", self.freeze.map(Value::from)),
            (
                "--gradient-checkpointing",
                "text.gradient_checkpointing",
                self.gradient_checkpointing.then_some(json!(true)),
            ),
        ]
    }
}

impl TuningArguments {
    /// The settings that these options are short for.
    pub fn typed(&self) -> [Typed; 4] {
        let [lora, freeze, checkpointing] = self.adapting.typed();
        let precision = self.precision.map(|precision| json!(precision));
        [lora, freeze, checkpointing, ("--precision", "text.precision", precision)]
    }
}
