//! The errors of learning.

use flipside_core::first_line;

/// Why a learner refused or stopped. After any of these errors the learner is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The caller cancelled.
    #[error("the update was cancelled")]
    Cancelled,
    /// A number that must be finite is not. Continuing would spread it through the network.
    #[error("{what} is not finite")]
    NotFinite {
        /// Which number, e.g. `the policy's gradient in epoch 3`.
        what: String,
    },
    /// Sizes that do not match.
    #[error("{what}: expected {expected}, got {got}")]
    Size {
        /// Which sizes.
        what: String,
        /// The expected size.
        expected: usize,
        /// The actual size.
        got: usize,
    },
    /// Saved arrays that do not belong to this learner.
    #[error("the saved array `{name}` is {problem}")]
    Array {
        /// The array's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Settings that cannot work.
    #[error("{0}")]
    Settings(String),
    /// libtorch refused.
    #[error("libtorch: {}", first_line(&.0.to_string()))]
    Torch(#[from] tch::TchError),
}
