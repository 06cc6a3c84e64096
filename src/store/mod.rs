//! The session on disk. A session is a folder:
//!
//! ```text
//! hopper-2026-11-23-194501/
//!   session.db                      SQLite: settings, clips (or completions), pairs, the log of judgements, metrics
//!   session.lock                    locked by the process that writes the session; never by a dead one
//!   checkpoints/
//!     checkpoint-00000041.safetensors   weights, optimiser, normalisers, random streams; the newest two stay
//!     initial.safetensors               checkpoints with a name stay for ever
//! ```
//!
//! Language models have folders of their own, in Hugging Face's layout: [`ModelFolder`].
//!
//! Whatever happens to the process or the power:
//! - A judgement that [`Session::record_judgement`] returned is on disk. Undo appends a retraction; the log only grows.
//! - A checkpoint appears complete or not at all: it is written beside, synced and renamed.
//! - What cannot be read (newer, damaged, not a session) is refused in one sentence, and nothing in it is changed.
//!
//! The rest of the program passes values in and gets values back. No other module knows of these files.

mod arrays_file;
mod checkpoints;
mod clips;
mod completions;
mod data_file;
mod disk;
mod error;
mod export;
mod gguf;
mod judgements;
mod metrics;
mod model_folder;
mod named_arrays;
pub mod npz;
mod results;
mod schema;
mod session;
mod shader_cache;

pub use checkpoints::{Checkpoint, CheckpointHeader};
pub use data_file::{TrainingData, data_files_in, read_data};
pub use error::StoreError;
pub use export::{LabelFrames, PolicyMetadata, export_policy};
pub use metrics::Metric;
pub use model_folder::{
    ModelFolder, SHARD, is_empty_folder, make_folder, read_gguf, read_text, remove_folder, write_text,
};
pub use named_arrays::{read_arrays, write_arrays};
pub use results::{append_result, read_results};
pub use session::{Session, sessions_in};
pub use shader_cache::{read_shader_cache, write_shader_cache};
