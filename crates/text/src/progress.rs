//! How a trainer reports its progress within a call, and how it is cancelled.

use flipside_learn::LearnError;

/// How far a trainer has got in the present call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Completions are being generated, one column at a time.
    Generating {
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
pub type ProgressFn<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// Reports the progress; returns an error if the caller wants to stop.
pub(super) fn check_cancelled(on_progress: ProgressFn, progress: Progress) -> Result<(), LearnError> {
    if on_progress(progress) { Err(LearnError::Cancelled) } else { Ok(()) }
}
