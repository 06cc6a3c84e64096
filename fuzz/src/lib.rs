//! What the fuzz targets share. Each of them hands arbitrary bytes to a reader of the program. The reader must return a
//! value or an error of one sentence: no panic, no endless loop, no memory beyond what the bytes can stand for.

use std::fmt::Display;

/// Fails where an error is empty or has more than one line.
pub fn one_sentence(error: impl Display) {
    let text = error.to_string();
    assert!(!text.trim().is_empty(), "an error without words");
    assert!(!text.chars().any(|c| c == '\n' || c == '\r'), "an error of several lines: {text:?}");
}

/// The value; an error is held to [`one_sentence`].
pub fn checked<T, E: Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(one_sentence).ok()
}

/// What stands before the first zero byte, and what after it: one input that is a text and a file.
pub fn text_and_file(data: &[u8]) -> Option<(&str, &[u8])> {
    let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let text = std::str::from_utf8(&data[..end]).ok()?;
    Some((text, data.get(end + 1..).unwrap_or_default()))
}
