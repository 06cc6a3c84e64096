//! From the text of an MJCF file to a [`Model`], in three passes: [`schema`] refuses whatever lies outside the
//! supported subset, with its line; the crate mjcf-rs resolves default classes, poses and units; [`compile`] computes
//! what MuJoCo's compiler computes, with [`assets`] for meshes and height fields.
//!
//! The first pass is needed because a robot that silently lost a joint's stiffness would still move, but wrongly.
//! mjcf-rs skips what it does not know, and some of what it skips belongs to the model (contact parameters, for
//! example). The first pass reads those attributes itself.

mod assets;
mod compile;
mod formats;
mod schema;

use super::Model;
use flipside_core::one_line;

/// Why a file could not be read as a robot.
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

/// A message and its line, before the file's name is added.
pub(super) type Complaint = (u32, String);

/// The bytes of a file at a path below the robot's own folder, or why they could not be read.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

impl Model {
    /// Reads a robot that is one file. `file_name` is only for error messages: no file is opened, and a text that
    /// refers to another file is refused.
    ///
    /// `docs/reference/mjcf-subset.md` lists the supported subset of MJCF. Anything else is an error that names its
    /// line and what was expected.
    pub fn from_mjcf(text: &str, file_name: &str) -> Result<Model, ModelError> {
        Model::from_mjcf_with(text, file_name, &|_| {
            Err("expected none: this robot is read without its folder".to_owned())
        })
    }

    /// Reads a robot whose meshes and height fields may be in files of their own, which `files` supplies.
    ///
    /// # Errors
    /// As [`Model::from_mjcf`]; a file that is missing or broken, with the line of the element that names it.
    pub fn from_mjcf_with(text: &str, file_name: &str, files: Files) -> Result<Model, ModelError> {
        read(text, files).map_err(|(line, message)| {
            // A message may quote the file, and the quoted text may contain line ends.
            ModelError { file: file_name.to_owned(), line, message: one_line(&message) }
        })
    }
}

fn read(text: &str, files: Files) -> Result<Model, Complaint> {
    check_depth(text)?;
    let document =
        roxmltree::Document::parse(text).map_err(|error| (error.pos().row, format!("not well-formed XML: {error}")))?;
    let source = schema::check(&document)?;
    let parsed = mjcf_rs::Model::from_str(text, "").map_err(|error| (source.root_line, error.to_string()))?;
    let (meshes, hfields) = assets::read(&source, files)?;
    compile::compile(&source, &parsed, meshes, hfields)
}

/// The largest nesting depth of elements. The parsers that run after this check recurse for each level, and a robot
/// needs a dozen.
const DEEPEST: usize = 200;

/// Refuses elements that are nested too deeply for a parser's stack. Text that is not XML is left to the parser.
fn check_depth(text: &str) -> Result<(), Complaint> {
    let (mut rest, mut depth) = (text, 0_usize);
    while let Some(start) = rest.find('<') {
        let tag = &rest[start..];
        let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">")];
        let end = if let Some((begin, end)) = skipped.iter().find(|(begin, _)| tag.starts_with(begin)) {
            tag[begin.len()..].find(end).map(|at| begin.len() + at + end.len())
        } else {
            // A tag ends at the first bracket outside of quotes.
            let mut quote = None;
            let end = tag.bytes().position(|byte| match (quote, byte) {
                (None, b'"' | b'\'') => {
                    quote = Some(byte);
                    false
                }
                (Some(open), _) => {
                    if byte == open {
                        quote = None;
                    }
                    false
                }
                (None, _) => byte == b'>',
            });
            match end {
                _ if tag.starts_with("</") => depth = depth.saturating_sub(1),
                Some(end) if tag[..end].ends_with('/') => {}
                _ => depth += 1,
            }
            end.map(|end| end + 1)
        };
        if depth > DEEPEST {
            let line = 1 + text[..text.len() - tag.len()].matches('\n').count();
            let message = format!("elements lie more than {DEEPEST} deep in each other; expected a flatter file");
            return Err((line as u32, message));
        }
        let Some(end) = end else { return Ok(()) };
        rest = &tag[end..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let files: Files = &|_| Err("there is none".to_owned());
        Model::from_mjcf_with(text, "robot.xml", files).unwrap_err().to_string()
    }

    #[test]
    fn a_deep_file_is_refused_before_the_stack_ends() {
        let nested = |depth: usize, inside: &str| {
            let (begin, end) = ("<body name='a/>'>".repeat(depth), "</body>".repeat(depth));
            format!("<mujoco>\n<worldbody>{begin}{inside}{end}</worldbody></mujoco>")
        };
        let error = refused(&nested(100_000, ""));
        assert!(error.starts_with("robot.xml:2: elements lie more than 200 deep"), "{error}");
        assert!(refused(&"<a>".repeat(100_000)).contains("200 deep"));
        // Text that only looks deeply nested is accepted.
        let flat = "<!-- <a><a> --><![CDATA[<a>]]><geom name=\"<\"/></geom>".repeat(300);
        check_depth(&flat).unwrap();
        check_depth(&nested(150, "<geom/>")).unwrap();
    }

    #[test]
    fn a_default_class_is_never_its_own_parent() {
        for classes in [
            "<default><default class='main'><geom size='1'/></default></default>",
            "<default><default class='a'><default class='a'/></default></default>",
            "<default><default class='a'><default class='b'><default class='a'/></default></default></default>",
        ] {
            let error = refused(&format!("<mujoco>{classes}<worldbody><geom type='sphere'/></worldbody></mujoco>"));
            assert!(error.contains("defined before"), "{error}");
        }
    }

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let error = refused("<mujoco\n>\n<a\n");
        assert!(error.contains("not well-formed XML") && !error.contains('\n'), "{error}");
        let error = refused("<mujoco><worldbody><geom type=\"&#10;x\"/></worldbody></mujoco>");
        assert!(error.contains("type=\"\\nx\"") && !error.contains('\n'), "{error}");
        let error = refused("<mujoco model=\"&#10;x\"/>");
        assert!(error.contains("model=\"\\nx\"; expected text without control characters"), "{error}");
    }

    #[test]
    fn a_whole_number_has_no_space_of_another_alphabet() {
        let error = refused(
            "<mujoco><asset><hfield name='h' nrow='\u{a0}3' ncol='3' size='1 1 1 1'/></asset><worldbody/></mujoco>",
        );
        assert!(error.contains("expected a whole number"), "{error}");
    }
}
