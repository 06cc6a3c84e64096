//! Looking inside a language model: what it computes on the way, and what preference training changed in it.
//!
//! A [`Subject`] is a model with its adapters or without. [`Subject::trace`] is a forward pass that returns the
//! activations and makes the [`Edit`]s that were asked for. Activations have TransformerLens' names, shapes and meaning
//! ([`Site`](crate::model::Site)). Weights are read as they are: nothing is folded or centred.
//!
//! Everything here is for rows of one length without padding, so that positions mean the same in every row.

mod ablation;
mod attention;
mod attribution;
mod diff;
mod error;
mod lens;
mod metric;
mod patching;
mod probe;
mod steering;
mod swap;
mod trace;
mod tuned_lens;

pub use ablation::{Ablation, Replacement, ablate};
pub use attention::{HeadScores, head_scores, patterns};
pub use attribution::{Attribution, Direction, attribution};
pub use diff::{
    MovedToken, MovedTokens, StreamChanges, StreamRuns, WeightChange, moved_between, moved_tokens, stream_changes,
    weight_change, weight_changes, weight_names,
};
pub use error::InterpError;
pub use lens::{Lens, lens, lens_of, lens_sites};
pub use metric::Metric;
pub use patching::{Grid, PatchRuns, Patching, Run, attribution_patch, patch};
pub use probe::{Probe, ProbeSettings, probes};
pub use steering::{Steering, difference_of_means, generate_steered, last_streams, steered_hidden};
pub use swap::{SwapRuns, Swaps, swaps};
pub use trace::{Change, Edit, Start, Subject, Trace};
pub use tuned_lens::{LensErrors, TunedLens, TunedLensSettings};

#[cfg(test)]
mod induction;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod tests;
