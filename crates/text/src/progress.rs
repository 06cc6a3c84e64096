//! How a trainer reports its progress within a call, and how it is cancelled.

use flipside_learn::LearnError;

/// How far a trainer has got in the present call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Completions are being generated, one column at a time.
    Writing {
        /// Columns generated.
        done: usize,
        /// The most columns that there can be.
        of: usize,
    },
    /// Completions are being scored.
    Scoring {
        /// Batches scored.
        done: usize,
        /// Batches in total.
        of: usize,
    },
    /// Gradients are being computed.
    Learning {
        /// Parts of minibatches done.
        done: usize,
        /// Parts in total.
        of: usize,
    },
}

/// Receives the progress and returns whether to stop.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// Reports the progress; returns an error if the caller wants to stop.
pub(super) fn look(watch: Watch, progress: Progress) -> Result<(), LearnError> {
    if watch(progress) { Err(LearnError::Cancelled) } else { Ok(()) }
}
