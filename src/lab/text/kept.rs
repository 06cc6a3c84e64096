//! The built-in supervised model, kept between sessions: a person who opens a second one has the first pair at once.
//!
//! It is a saving of time and nothing else. The model of a seed is what the same program would make again, bit for bit; another build makes its
//! own, and whatever cannot be read is made anew.

use super::folders;
use crate::lab::LabError;
use crate::settings::folders::{build_mark, cache_folder};
use crate::settings::{TextRun, TextStage};
use flipside_core::{Seed, fnv1a};
use flipside_text::Bundle;
use std::path::PathBuf;

/// Where it is kept; `None` for a run that trains anything else up to there, or where there is no such place.
fn folder(run: &TextRun, seed: Seed) -> Option<PathBuf> {
    let plain = TextRun::default();
    // What comes after the supervised model may be as it likes.
    let like_it = TextRun {
        until: plain.until,
        reward_model: None,
        comparisons: None,
        prompts: None,
        skip_bad_lines: plain.skip_bad_lines,
        gradient_checkpointing: plain.gradient_checkpointing,
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

/// The model, where an earlier session has left it.
pub(super) fn find(run: &TextRun, seed: Seed) -> Option<Bundle> {
    folder(run, seed).and_then(|folder| folders::read(&folder, run.precision).ok())
}

/// Leaves the model for later sessions. One that cannot be kept is no failure: a later session trains it again.
pub(super) fn leave(run: &TextRun, seed: Seed, model: &Bundle) {
    let Some(folder) = folder(run, seed) else { return };
    let parts = model.to_parts().map_err(LabError::from);
    if let Err(error) = parts.and_then(|parts| folders::replace(&folder, parts)) {
        log::debug!("the built-in model is not kept for other sessions: {error}");
    }
}
