//! Errors of the reward model.

use flipside_learn::LearnError;

/// Why a reward model refused or stopped. After any of these errors the model is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum PreferenceError {
    /// There is nothing to learn from.
    #[error("there are no comparisons to learn from")]
    NoComparisons,
    /// As for every learner: cancelled, a number that is not finite, a wrong size, or arrays of another model.
    #[error(transparent)]
    Learn(#[from] LearnError),
}
