//! Errors of the reward model.

use flipside_learn::LearnError;

/// Why a reward model refused or stopped. After any of these errors the model is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum PreferenceError {
    /// The caller's `cancel` returned true.
    #[error("the fit was cancelled")]
    Cancelled,
    /// There is nothing to learn from.
    #[error("there are no comparisons to learn from")]
    NoComparisons,
    /// A number is NaN or infinite. Training on would spread it through the networks.
    #[error("{what} is not finite")]
    NotFinite {
        /// Which number, e.g. `the reward model's loss`.
        what: String,
    },
    /// A size is not the expected one.
    #[error("{what}: expected {expected}, got {got}")]
    Size {
        /// Which size.
        what: String,
        /// The expected size.
        expected: usize,
        /// The size found.
        got: usize,
    },
    /// The saved arrays do not belong to this model.
    #[error(transparent)]
    Arrays(#[from] LearnError),
}
