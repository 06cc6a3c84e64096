//! The built-in models: a base model and a supervised model of the grammar's reviews, which Flipside has trained and
//! brings along. Text mode starts with a question because of them, not with minutes of training.
//!
//! `cargo xtask weights` makes them again. They are stored in bf16 in `assets/models`, in Hugging Face's format. The
//! metadata of the weights says how they were made and has a checksum.

use super::folders;
use crate::lab::LabError;
use crate::settings::{TextPrecision, TextRun, TextStage};
use crate::store::{ModelFolder, SHARD, Session};
use flipside_text::Bundle;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The command that makes the built-in models.
const COMMAND: &str = "cargo xtask weights";

/// A model's files in the program.
struct Embedded {
    stage: TextStage,
    texts: [(&'static str, &'static str); 4],
    weights: &'static [u8],
}

macro_rules! embedded {
    ($stage:expr, $folder:literal) => {
        Embedded {
            stage: $stage,
            texts: [
                ("config.json", include_str!(concat!("../../../assets/models/", $folder, "/config.json"))),
                (
                    "generation_config.json",
                    include_str!(concat!("../../../assets/models/", $folder, "/generation_config.json")),
                ),
                ("tokenizer.json", include_str!(concat!("../../../assets/models/", $folder, "/tokenizer.json"))),
                (
                    "tokenizer_config.json",
                    include_str!(concat!("../../../assets/models/", $folder, "/tokenizer_config.json")),
                ),
            ],
            weights: include_bytes!(concat!("../../../assets/models/", $folder, "/model.safetensors")),
        }
    };
}

/// The built-in models, by the last stage that they have been through.
static MODELS: [Embedded; 2] = [embedded!(TextStage::Base, "base"), embedded!(TextStage::Supervised, "supervised")];

/// The built-in model that has been through this stage, and the metadata of its weights.
fn read(stage: TextStage) -> Result<(ModelFolder, HashMap<String, String>), LabError> {
    let model = MODELS.iter().find(|model| model.stage == stage);
    let model = model.ok_or_else(|| LabError::Text(format!("There is no built-in {} model.", stage.name())))?;
    let name = format!("the built-in {} model", stage.name());
    Ok(ModelFolder::shipped(&name, &model.texts, model.weights)?)
}

/// The built-in model that has been through this stage.
pub(super) fn bundle_of(stage: TextStage, precision: TextPrecision) -> Result<Bundle, LabError> {
    let (ModelFolder { texts, weights }, _) = read(stage)?;
    Ok(Bundle::from_parts(&(texts, weights), precision)?)
}

/// Copies the built-in model that has been through this stage into a session, where later stages look for it.
pub(super) fn copy(stage: TextStage, session: &Path) -> Result<(), LabError> {
    let (model, _) = read(stage)?;
    Ok(model.replace(&folders::of_stage(session, stage), SHARD)?)
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct BuiltInReport {
    /// The folders of the base and of the supervised model.
    pub folders: Vec<PathBuf>,
}

/// Writes the base and the supervised model of a finished session as the built-in models, in bf16.
///
/// # Errors
///
/// A session that was trained with other settings than the default ones, one without these models, or a folder that
/// cannot be written.
pub fn write_built_in(session: &Path, output: &Path) -> Result<BuiltInReport, LabError> {
    let settings = Session::open_to_read(session)?.settings().clone();
    let until = TextStage::Supervised;
    let usual = settings.text().is_some_and(|run| *run == TextRun { until, ..TextRun::default() });
    if !usual {
        let session = session.display();
        return Err(LabError::Text(format!(
            "{session} has settings of its own; train the built-in models in a new session."
        )));
    }
    let seed = settings.seed;
    let mut written = Vec::new();
    for Embedded { stage, .. } in &MODELS {
        let (texts, weights) = folders::read(&folders::of_stage(session, *stage), TextPrecision::Bf16)?.to_parts()?;
        let entries = [("command", COMMAND.to_owned()), ("seed", seed.to_string()), ("stage", stage.name().to_owned())];
        let folder = output.join(stage.name());
        ModelFolder { texts, weights }.ship(&folder, &entries)?;
        written.push(folder);
    }
    Ok(BuiltInReport { folders: written })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::text::corpus::{Corpus, Reader};
    use crate::settings::TextShape;
    use flipside_core::Seed;
    use flipside_text::log_probs;

    fn bundle(stage: TextStage) -> Bundle {
        let (ModelFolder { texts, weights }, metadata) = read(stage).unwrap();
        assert_eq!((metadata["command"].as_str(), metadata["stage"].as_str()), (COMMAND, stage.name()));
        assert!(metadata["seed"].parse::<u64>().is_ok() && metadata["format"] == "pt");
        Bundle::from_parts(&(texts, weights), TextPrecision::F32).unwrap()
    }

    /// The perplexity of reviews from a stream that no training has read, per completion token.
    #[test]
    fn the_built_in_models_know_the_grammar() {
        let corpus = Corpus::new(&TextRun::default(), Seed(2_000_000));
        let shape = TextShape::default();
        for (stage, most) in [(TextStage::Base, 1.78), (TextStage::Supervised, 1.74)] {
            let Bundle { model, tokenizer, score } = bundle(stage);
            let config = model.config();
            // The grammar has fewer words than the shape allows tokens.
            assert!(config.vocabulary == tokenizer.vocabulary() && config.vocabulary <= shape.vocabulary);
            assert_eq!((config.context, config.width, config.layers), (shape.context, shape.width, shape.layers));
            assert!(score.is_none());
            let context = config.context;
            let reader = Reader { tokenizer: &tokenizer, context, prompt: context - 64, reading: Default::default() };
            let mut reviews = corpus.demonstrations(&reader).unwrap();
            reviews.truncate(300);
            let found: Vec<f32> = log_probs(&model, &reviews, true, 1.0, 32, &mut |_| false).concat();
            let perplexity = (-found.iter().map(|&x| f64::from(x)).sum::<f64>() / found.len() as f64).exp();
            println!("{}: perplexity {perplexity:.4} over {} tokens", stage.name(), found.len());
            assert!(perplexity < most, "{}: {perplexity}", stage.name());
        }
    }
}
