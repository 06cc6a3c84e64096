//! What can go wrong while learning.

/// Why a learner refused or stopped. After any of these the learner is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The caller's cancel said so.
    #[error("the update was cancelled")]
    Cancelled,
    /// A number that must be finite is not; training on would spread it through the network.
    #[error("{what} is not finite")]
    NotFinite {
        /// Which number, e.g. `the policy's gradient in epoch 3`.
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
    /// Saved arrays that are not this learner's.
    #[error("the saved array `{name}` is {problem}")]
    Array {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Settings that cannot work.
    #[error("{0}")]
    Settings(String),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
