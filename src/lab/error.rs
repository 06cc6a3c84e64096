//! Errors that can stop a lab from opening. Later faults are [`super::Event`]s.

use thiserror::Error;

/// Why a session could not be opened, run or evaluated.
#[derive(Debug, Error)]
pub enum LabError {
    /// The session's folder.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A file of arrays.
    #[error(transparent)]
    Npz(#[from] crate::store::npz::NpzError),
    /// Where sessions are stored.
    #[error(transparent)]
    Folders(#[from] crate::settings::folders::FolderError),
    /// The task or its robot.
    #[error(transparent)]
    Task(#[from] flipside_envs::gym::TaskError),
    /// Stepping the task.
    #[error(transparent)]
    Env(#[from] flipside_envs::gym::EnvError),
    /// The physics backend.
    #[error(transparent)]
    Physics(#[from] flipside_envs::physics::PhysicsError),
    /// The policy or its training.
    #[error(transparent)]
    Learn(#[from] flipside_learn::LearnError),
    /// The reward model or its training.
    #[error(transparent)]
    Preference(#[from] flipside_preference::PreferenceError),
    /// The tokenizer of a language model.
    #[error(transparent)]
    Tokenizer(#[from] flipside_text::tokenizer::TokenizerError),
    /// A file of texts.
    #[error(transparent)]
    Data(#[from] flipside_text::data::DataError),
    /// A language model's folder.
    #[error(transparent)]
    Bundle(#[from] flipside_text::BundleError),
    /// A language model.
    #[error(transparent)]
    Model(#[from] flipside_text::ModelError),
    /// Looking inside a language model.
    #[error(transparent)]
    Interp(#[from] flipside_text::interp::InterpError),
    /// The inputs of a run in text mode do not fit together; the sentence says what to do.
    #[error("{0}")]
    Text(String),
    /// Settings that do not fit together or do not fit the session; the sentence says which.
    #[error("{0}")]
    Settings(String),
    /// The session holds no policy yet.
    #[error("The session in {0} holds no checkpoint yet; train it for a while first.")]
    Untrained(String),
    /// A checkpoint that another task or version wrote.
    #[error("The checkpoint lacks `{0}`; it was written by another version, so begin a new session.")]
    Incomplete(String),
    /// A task without a benchmark.
    #[error("The file of the task `{0}` has no [benchmark]; add one with `env_steps`, `target_return` and `within_s`.")]
    NoBenchmark(String),
    /// Somebody asked to stop.
    #[error("The step was cancelled.")]
    Cancelled,
    /// The system could not start a thread.
    #[error("A thread could not be started ({0}); close other programs and try again.")]
    Thread(std::io::Error),
}

impl LabError {
    /// Whether somebody asked to stop, rather than something being wrong.
    pub fn is_cancelled(&self) -> bool {
        use flipside_learn::LearnError;
        use flipside_preference::PreferenceError;
        use flipside_text::interp::InterpError;
        matches!(
            self,
            LabError::Cancelled
                | LabError::Learn(LearnError::Cancelled)
                | LabError::Interp(InterpError::Cancelled)
                | LabError::Preference(PreferenceError::Learn(LearnError::Cancelled))
        )
    }
}
