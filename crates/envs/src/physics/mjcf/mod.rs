//! From the text of an MJCF file to a [`Model`], in three passes: [`schema`] refuses whatever lies outside the supported subset, with
//! its line; the crate mjcf-rs resolves default classes, poses and units; [`compile`] computes what MuJoCo's compiler computes, with
//! [`assets`] for meshes and height fields.
//!
//! The first pass exists because a robot that silently lost a joint's stiffness would still move, only wrongly: mjcf-rs skips what
//! it does not know, and some of what it skips (contact parameters, for one) belongs to the model. Those attributes the first
//! pass reads itself.

mod assets;
mod compile;
mod formats;
mod schema;

use super::Model;

/// Why a file is not a robot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ModelError {
    /// The file's name, as given.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// What is there and what was expected.
    pub message: String,
}

/// A message and its line, before the file's name is put to it.
pub(super) type Complaint = (u32, String);

/// The bytes of a file that lies at a path below the robot's own folder, or why there are none.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

impl Model {
    /// Reads a robot that is one file. `file_name` is only for error messages: no file is opened, and a text that asks for another file is
    /// refused.
    ///
    /// The supported subset of MJCF is listed in `envs/README.md`. Anything else is an error that names its line and what was expected.
    pub fn from_mjcf(text: &str, file_name: &str) -> Result<Model, ModelError> {
        Model::from_mjcf_with(text, file_name, &|_| {
            Err("expected none: this robot is read without its folder".to_owned())
        })
    }

    /// Reads a robot whose meshes and height fields may lie in files of their own, which `files` hands in.
    ///
    /// # Errors
    /// As [`Model::from_mjcf`]; a file that is not there or is broken, with the line of the element that names it.
    pub fn from_mjcf_with(text: &str, file_name: &str, files: Files) -> Result<Model, ModelError> {
        read(text, files).map_err(|(line, message)| ModelError { file: file_name.to_owned(), line, message })
    }
}

fn read(text: &str, files: Files) -> Result<Model, Complaint> {
    let document =
        roxmltree::Document::parse(text).map_err(|error| (error.pos().row, format!("not well-formed XML: {error}")))?;
    let source = schema::check(&document)?;
    let parsed = mjcf_rs::Model::from_str(text, "").map_err(|error| (source.root_line, error.to_string()))?;
    let (meshes, hfields) = assets::read(&source, files)?;
    compile::compile(&source, &parsed, meshes, hfields)
}
