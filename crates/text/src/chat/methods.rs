//! Methods of Python's texts that templates call and `minijinja_contrib` lacks, or has otherwise than Python.

use minijinja::value::from_args;
use minijinja::{Error, State, Value};
use minijinja_contrib::pycompat;

/// Calls a method of a value.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => match of_text(text, method, args)? {
            Some(found) => Ok(found),
            None => pycompat::unknown_method_callback(state, value, method, args),
        },
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let padded = |left: usize, right: usize, fill: &str| fill.repeat(left) + text + &fill.repeat(right);
    let missing = |width: usize| width.saturating_sub(text.chars().count());
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.split_once(separator).unwrap_or((text, ""));
            list(&[before, if text.contains(separator) { separator } else { "" }, after])
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.rsplit_once(separator).unwrap_or(("", text));
            list(&[before, if text.contains(separator) { separator } else { "" }, after])
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<usize>) = from_args(args)?;
            let most = most.unwrap_or(usize::MAX - 1);
            let mut parts: Vec<&str> = match separator {
                Some(separator) => text.rsplitn(most + 1, separator).collect(),
                None => rsplit_whitespace(text, most),
            };
            parts.reverse();
            list(&parts)
        }
        "splitlines" => {
            let (with_ends,): (Option<bool>,) = from_args(args)?;
            list(&lines(text, with_ends.unwrap_or(false)))
        }
        "casefold" => Value::from(text.to_lowercase()),
        "swapcase" => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            let place = text.find(part).ok_or_else(|| {
                Error::new(minijinja::ErrorKind::InvalidOperation, format!("{part:?} is not in the text"))
            })?;
            Value::from(text[..place].chars().count())
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            Value::from(format!("{sign}{}{digits}", "0".repeat(missing(width))))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let (missing, fill) = (missing(width), fill.unwrap_or(" "));
            // Python puts the odd one to the left if the width is odd.
            let left = missing / 2 + (missing & width & 1);
            Value::from(match method {
                "ljust" => padded(0, missing, fill),
                "rjust" => padded(missing, 0, fill),
                _ => padded(left, missing - left, fill),
            })
        }
        _ => return Ok(None),
    }))
}

fn list(texts: &[&str]) -> Value {
    texts.iter().map(|text| Value::from(*text)).collect()
}

/// The parts between white space, the last one first. After `most` splits, what is left is one part.
fn rsplit_whitespace(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let start = rest
            .rfind(char::is_whitespace)
            .map_or(0, |place| place + rest[place..].chars().next().map_or(1, char::len_utf8));
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end();
    }
    parts
}

/// The lines as Python's `splitlines` cuts them.
fn lines(text: &str, with_ends: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find(is_end) {
        let end = match rest[place..].starts_with("\r\n") {
            true => place + 2,
            false => place + rest[place..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if with_ends { end } else { place }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
