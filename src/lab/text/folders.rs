//! Where a session keeps its models, and models to and from their folders.

use crate::lab::LabError;
use crate::settings::{TextPrecision, TextStage};
use crate::store::{ModelFolder, SHARD};
use flipside_text::{Bundle, Parts};
use std::path::{Path, PathBuf};

/// The folder of a session's models.
pub(super) fn models(session: &Path) -> PathBuf {
    session.join("models")
}

/// The folder of the model that a stage leaves: `models/base` and the like.
pub(in crate::lab) fn of_stage(session: &Path, stage: TextStage) -> PathBuf {
    models(session).join(stage.name())
}

/// The folder of the adapter alone, where a stage trained one.
pub(in crate::lab) fn adapter_of(session: &Path, stage: TextStage) -> PathBuf {
    models(session).join(format!("{}-adapter", stage.name()))
}

/// A model from its folder.
pub(in crate::lab) fn read(folder: &Path, precision: TextPrecision) -> Result<Bundle, LabError> {
    let ModelFolder { texts, weights } = ModelFolder::read(folder)?;
    Ok(Bundle::from_parts(&(texts, weights), precision)?)
}

/// A model with the adapter of another folder.
pub(in crate::lab) fn read_with(
    folder: &Path,
    adapter: Option<&Path>,
    precision: TextPrecision,
) -> Result<Bundle, LabError> {
    let mut bundle = read(folder, precision)?;
    if let Some(adapter) = adapter {
        let ModelFolder { texts, weights } = ModelFolder::read(adapter)?;
        bundle.attach(&(texts, weights))?;
    }
    Ok(bundle)
}

/// Writes a new folder.
pub(in crate::lab) fn write(folder: &Path, (texts, weights): Parts, shard: Option<usize>) -> Result<(), LabError> {
    Ok(ModelFolder { texts, weights }.write(folder, shard.unwrap_or(SHARD))?)
}

/// Writes a folder of the session's own, in the place of what is there.
pub(super) fn replace(folder: &Path, (texts, weights): Parts) -> Result<(), LabError> {
    Ok(ModelFolder { texts, weights }.replace(folder, SHARD)?)
}
