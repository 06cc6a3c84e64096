//! Where a session stores its models, and reading and writing of model folders.

use crate::lab::LabError;
use crate::settings::{TextPrecision, TextStage};
use crate::store::{ModelFolder, SHARD};
use flipside_text::{Bundle, Parts};
use std::path::{Path, PathBuf};

/// The folder that contains a session's models.
pub(super) fn models(session: &Path) -> PathBuf {
    session.join("models")
}

/// The folder of the model that a pipeline stage produces: `models/base` and so on.
pub(in crate::lab) fn of_stage(session: &Path, stage: TextStage) -> PathBuf {
    models(session).join(stage.name())
}

/// The folder of the adapter alone, for pipeline stages that trained one.
pub(in crate::lab) fn adapter_of(session: &Path, stage: TextStage) -> PathBuf {
    models(session).join(format!("{}-adapter", stage.name()))
}

/// Reads a model from its folder.
pub(in crate::lab) fn read(folder: &Path, precision: TextPrecision) -> Result<Bundle, LabError> {
    let ModelFolder { texts, weights } = ModelFolder::read(folder)?;
    Ok(Bundle::from_parts(&(texts, weights), precision)?)
}

/// Reads a model and attaches the adapter in another folder.
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

/// Writes a new model folder.
pub(in crate::lab) fn write(folder: &Path, (texts, weights): Parts, shard: Option<usize>) -> Result<(), LabError> {
    Ok(ModelFolder { texts, weights }.write(folder, shard.unwrap_or(SHARD))?)
}

/// Writes a model folder inside the session and replaces the one that is there.
pub(super) fn replace(folder: &Path, (texts, weights): Parts) -> Result<(), LabError> {
    Ok(ModelFolder { texts, weights }.replace(folder, SHARD)?)
}
