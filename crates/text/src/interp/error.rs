//! Errors of looking inside a model.

/// Why a model cannot be looked into in the way that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum InterpError {
    /// Attention and MLP lie side by side.
    #[error(
        "Blocks of {0} compute attention and MLP side by side, so there is no residual stream between them to look at; \
         take a model of another family."
    )]
    Parallel(&'static str),
    /// Norms lie between the heads and the residual stream, or the logits are capped.
    #[error(
        "Attribution needs parts that add up to the logits, and {0} puts norms after attention and MLP, or caps its \
         logits; use `patch`, `ablate` or `lens`, which need no sum."
    )]
    NotAdditive(&'static str),
    /// No activation has this name.
    #[error("No activation of this model is called `{name}`; {hint}.")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// An edit does not fit the activation.
    #[error("The edit of {at} does not fit: {reason}.")]
    Edit {
        /// The activation.
        at: String,
        /// What does not fit.
        reason: String,
    },
    /// An activation was not traced.
    #[error("The trace has no `{0}`; ask for it by name.")]
    NotTraced(String),
    /// The tokens cannot be read.
    #[error("{0}")]
    Tokens(String),
    /// Two models cannot be compared.
    #[error("The two models cannot be compared: {0}.")]
    Models(String),
    /// A quotient whose denominator is nearly 0.
    #[error("{0}")]
    Undefined(String),
    /// Data that does not suffice, or a setting out of range.
    #[error("{0}")]
    Data(String),
    /// Somebody asked to stop.
    #[error("The work was cancelled.")]
    Cancelled,
}

/// A position that a prompt does not have.
pub(super) fn no_position(position: usize, length: usize) -> InterpError {
    InterpError::Tokens(format!(
        "There is no position {position} in a prompt of {length} tokens; positions count from 0."
    ))
}
