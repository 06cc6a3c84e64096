//! What can go wrong when a reward is learnt.

use flipside_learn::LearnError;

/// Why a reward model refused or stopped. After any of these the model is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum PreferenceError {
    /// The caller's cancel said so.
    #[error("the fit was cancelled")]
    Cancelled,
    /// Nothing to learn from.
    #[error("there are no comparisons to learn from")]
    NoComparisons,
    /// A number that must be finite is not; training on would spread it through the networks.
    #[error("{what} is not finite")]
    NotFinite {
        /// Which number, e.g. `the reward model's loss in round 3`.
        what: String,
    },
    /// Sizes that do not fit together.
    #[error("{what}: expected {expected}, got {got}")]
    Size {
        /// Which sizes.
        what: String,
        /// What would fit.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// Saved arrays that are not this model's.
    #[error(transparent)]
    Arrays(#[from] LearnError),
}
