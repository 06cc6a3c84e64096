//! What can be wrong with a model that is read.

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A `config.json` that says nothing, or something that is not built here.
    #[error("config.json: {0}.")]
    Config(String),
    /// A parameter that the configuration asks for.
    #[error("The model's weights lack `{0}`; they do not belong to its config.json, or were cut short.")]
    MissingTensor(String),
    /// A parameter of another size.
    #[error("The model's `{name}` is {found:?}; its config.json makes it {expected:?}.")]
    Shape {
        /// The parameter.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// What the configuration makes it.
        expected: Vec<i64>,
    },
    /// An adapter that does not fit, or settings that make none.
    #[error("The adapter cannot be used: {0}.")]
    Adapter(String),
}
