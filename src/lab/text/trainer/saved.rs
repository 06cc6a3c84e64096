//! Saves text mode's training loop to a checkpoint and restores it.

use super::{Stage, TextTrainer};
use crate::lab::LabError;
use crate::lab::arrays::{prefixed, unprefixed};
use crate::settings::TextStage;
use flipside_core::{Array, Arrays, Stream};

/// The name of `Teaching::recent_predictions` in a checkpoint. It is older than the field's.
const RECENT_PREDICTIONS: &str = "trainer/foreseen";

/// What is read from a checkpoint before its pipeline stage is entered.
pub(super) struct Saved {
    pub stage: TextStage,
    pub done: bool,
    pub steps: u64,
    pub window: [f64; 2],
    /// Whether the checkpoint holds a reward model. It does not if the reward model was given.
    pub taught: bool,
}

impl Saved {
    /// Reads it from what [`TextTrainer::save`] returned.
    pub fn read(arrays: &Arrays) -> Result<Saved, LabError> {
        let word = |name: &str| {
            let words = arrays.get(name).and_then(Array::as_u64);
            words.and_then(|words| words.first().copied()).ok_or_else(|| lacks(name))
        };
        let window = arrays.get("trainer/window").and_then(Array::as_f64).ok_or_else(|| lacks("trainer/window"))?;
        Ok(Saved {
            stage: *TextStage::ALL.get(word("trainer/stage")? as usize).ok_or_else(|| lacks("trainer/stage"))?,
            done: word("trainer/done")? == 1,
            steps: word("trainer/steps")?,
            window: window.try_into().map_err(|_| lacks("trainer/window"))?,
            taught: arrays.keys().any(|name| name.starts_with("reward/")),
        })
    }
}

/// The pipeline stage of a checkpoint in text mode, and whether that stage is finished.
pub(in crate::lab) fn reached(arrays: &Arrays) -> Result<(TextStage, bool), LabError> {
    Saved::read(arrays).map(|saved| (saved.stage, saved.done))
}

impl TextTrainer {
    /// Everything that a resumed run needs.
    pub(super) fn save(&self) -> Arrays {
        let mut arrays = match &self.stage {
            Stage::Learning(learning) => prefixed(learning.trainer.to_arrays(), "learning/"),
            Stage::Teaching(teaching) => {
                let mut arrays = prefixed(teaching.ppo.to_arrays(), "ppo/");
                if !teaching.given {
                    arrays.extend(prefixed(teaching.reward.to_arrays(), "reward/"));
                }
                let fit = vec![
                    u64::from(teaching.trusted),
                    teaching.fitted.0,
                    teaching.fitted.1,
                    teaching.fit_left,
                    u64::from(teaching.unscaled),
                ];
                arrays.extend(prefixed(teaching.asking.to_arrays(), "asking/"));
                arrays.insert("trainer/fit".to_owned(), Array::u64(fit));
                arrays.insert("trainer/draws".to_owned(), Array::u64(teaching.draws.state().to_vec()));
                let recent = Array::f64(&[teaching.recent_predictions.len()], teaching.recent_predictions.clone());
                arrays.insert(RECENT_PREDICTIONS.to_owned(), recent);
                arrays
            }
            Stage::Offline(offline) => {
                let mut arrays = prefixed(offline.to_arrays(), "offline/");
                arrays.extend(prefixed(offline.asking.to_arrays(), "asking/"));
                arrays.insert("trainer/draws".to_owned(), Array::u64(offline.draws.state().to_vec()));
                arrays
            }
            Stage::Online(online) => {
                let mut arrays = prefixed(online.learner.to_arrays(), "online/");
                arrays.extend(prefixed(online.asking.to_arrays(), "asking/"));
                arrays.insert("trainer/draws".to_owned(), Array::u64(online.draws.state().to_vec()));
                arrays
            }
            Stage::Done(_) => Arrays::new(),
        };
        let stage = self.stage.began();
        arrays.insert("trainer/stage".to_owned(), Array::u64(vec![stage as u64]));
        arrays.insert("trainer/done".to_owned(), Array::u64(vec![u64::from(matches!(self.stage, Stage::Done(_)))]));
        arrays.insert("trainer/steps".to_owned(), Array::u64(vec![self.steps]));
        arrays.insert("trainer/window".to_owned(), Array::f64(&[2], self.window.to_vec()));
        arrays
    }

    /// Restores what [`TextTrainer::save`] returned. The pipeline stage has been entered already.
    pub(super) fn load(&mut self, arrays: &Arrays, saved: &Saved) -> Result<(), LabError> {
        let words = |name: &str| arrays.get(name).and_then(Array::as_u64).ok_or_else(|| lacks(name));
        self.window = saved.window;
        match &mut self.stage {
            Stage::Learning(learning) => {
                learning.trainer.load_arrays(&unprefixed(arrays, "learning/"))?;
                // The plan may have become longer.
                learning.trainer.plan(self.run.steps_of(learning.stage));
            }
            Stage::Teaching(teaching) => {
                if !teaching.given {
                    teaching.reward.load_arrays(&unprefixed(arrays, "reward/"))?;
                }
                teaching.ppo.load_arrays(&unprefixed(arrays, "ppo/"))?;
                teaching.ppo.plan(self.run.updates);
                // Older checkpoints lack the fifth word: those versions scaled the rewards in the same turn as the last
                // step.
                let &[trusted, count, newest, left, ref unscaled @ ..] = words("trainer/fit")? else {
                    return Err(lacks("trainer/fit"));
                };
                (teaching.trusted, teaching.unscaled) = (trusted == 1, unscaled == [1]);
                (teaching.fitted, teaching.fit_left) = ((count, newest), left);
                teaching.asking.load_arrays(&unprefixed(arrays, "asking/"));
                let state: [u64; 4] = words("trainer/draws")?.try_into().map_err(|_| lacks("trainer/draws"))?;
                teaching.draws = Stream::from_state(state);
                teaching.recent_predictions = arrays
                    .get(RECENT_PREDICTIONS)
                    .and_then(Array::as_f64)
                    .ok_or_else(|| lacks(RECENT_PREDICTIONS))?
                    .to_vec();
            }
            Stage::Offline(offline) => {
                let planned = self.run.steps_of(offline.stage);
                offline.load_arrays(&unprefixed(arrays, "offline/"), planned)?;
                offline.asking.load_arrays(&unprefixed(arrays, "asking/"));
                let state: [u64; 4] = words("trainer/draws")?.try_into().map_err(|_| lacks("trainer/draws"))?;
                offline.draws = Stream::from_state(state);
            }
            Stage::Online(online) => {
                online.learner.load_arrays(&unprefixed(arrays, "online/"))?;
                online.learner.plan(self.run.online_dpo_steps);
                online.asking.load_arrays(&unprefixed(arrays, "asking/"));
                let state: [u64; 4] = words("trainer/draws")?.try_into().map_err(|_| lacks("trainer/draws"))?;
                online.draws = Stream::from_state(state);
            }
            Stage::Done(_) => {}
        }
        Ok(())
    }
}

fn lacks(name: &str) -> LabError {
    LabError::Incomplete(name.to_owned())
}
