//! A cache of the built-in supervised model, shared between sessions: a person who opens a second session sees the
//! first pair at once.
//!
//! The cache only saves time. For the same seed, the same build of the program would train the same model again, bit
//! for bit. Another build trains its own, and whatever cannot be read is trained again.

use super::folders;
use crate::lab::LabError;
use crate::settings::folders::{build_mark, cache_folder};
use crate::settings::{TextRun, TextStage};
use flipside_core::{Seed, fnv1a};
use flipside_text::Bundle;
use std::path::PathBuf;

/// The folder of the cached model; `None` if the run does not use the built-in base and supervised stages, or if there
/// is no cache folder.
fn folder(run: &TextRun, seed: Seed) -> Option<PathBuf> {
    let plain = TextRun::default();
    // Settings that only matter after the supervised model may have any value.
    let like_it = TextRun {
        until: plain.until,
        reward_model: None,
        comparisons: None,
        prompts: None,
        skip_bad_lines: plain.skip_bad_lines,
        gradient_checkpointing: plain.gradient_checkpointing,
        labels: plain.labels.clone(),
        monitor: plain.monitor.clone(),
        reward_steps: plain.reward_steps,
        updates: plain.updates,
        reward: plain.reward.clone(),
        ppo: plain.ppo.clone(),
        ..run.clone()
    };
    let built_in = run.until > TextStage::Supervised && like_it == plain;
    let mark = [seed.0.to_le_bytes(), build_mark()?.to_le_bytes()].concat();
    built_in.then_some(cache_folder()?.join("models").join(format!("built-in-{:016x}", fnv1a(&mark))))
}

/// The cached model, if an earlier session has saved it.
pub(super) fn read(run: &TextRun, seed: Seed) -> Option<Bundle> {
    folder(run, seed).and_then(|folder| folders::read(&folder, run.precision).ok())
}

/// Caches the model for later sessions. Failing to write it is no error: a later session trains it again.
pub(super) fn write(run: &TextRun, seed: Seed, model: &Bundle) {
    let Some(folder) = folder(run, seed) else { return };
    let parts = model.to_parts().map_err(LabError::from);
    if let Err(error) = parts.and_then(|parts| folders::replace(&folder, parts)) {
        log::debug!("the built-in model is not cached for other sessions: {error}");
    }
}
