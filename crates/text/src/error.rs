//! Errors in the files of a model or an adapter.

/// Why a model or an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The `config.json` cannot be read, or asks for something that is not supported.
    #[error("config.json: {0}.")]
    Config(String),
    /// A parameter that the configuration requires is missing.
    #[error(
        "The model's weights lack `{0}`, or hold it in numbers that are not read (f64, f32, f16 and bf16 are); take \
         weights that belong to its config.json."
    )]
    MissingTensor(String),
    /// A parameter has numbers that are not finite.
    #[error("`{0}` of the model's weights holds NaN or infinite numbers; take the weights of an earlier checkpoint.")]
    NotFinite(String),
    /// A parameter's shape is not the one that the configuration gives.
    #[error("The model's `{name}` has the shape {found:?}; by its config.json it is {expected:?}.")]
    Shape {
        /// The parameter's name.
        name: String,
        /// The shape that was found.
        found: Vec<i64>,
        /// The shape that the configuration gives.
        expected: Vec<i64>,
    },
    /// A GGUF file holds something else than what is supported.
    #[error("The GGUF file cannot be used: {0}.")]
    Gguf(String),
    /// The adapter does not fit the model, or its settings are invalid.
    #[error("The adapter cannot be used: {0}.")]
    Adapter(String),
}
