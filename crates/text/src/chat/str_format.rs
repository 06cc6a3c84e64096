//! Python's `str.format`: `'{} {name!r:>8} {0.role} {:{width}}'`. minijinja's has no conversions (`!r`), no fields
//! within a format and no `%`. It writes the numbers.

use super::arguments::wrong;
use super::json::{printed, quoted};
use super::percent::ascii;
use minijinja::formatting::{FormatStyle, format as format_one};
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, Value};

/// A field's format may have fields, but these no more.
const DEEPEST: usize = 1;

/// The text with its fields replaced by the arguments.
pub(super) fn str_format(text: &str, args: &[Value]) -> Result<String, Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(args)?;
    Fields { positional, named, next: 0 }.write(text, 0)
}

/// The arguments, and how many of them were taken without being named.
struct Fields<'a> {
    positional: &'a [Value],
    named: Kwargs,
    next: usize,
}

impl Fields<'_> {
    fn write(&mut self, text: &str, depth: usize) -> Result<String, Error> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(place) = rest.find(['{', '}']) {
            out.push_str(&rest[..place]);
            let (brace, after) = rest[place..].split_at(1);
            if after.starts_with(brace) {
                out.push_str(brace);
                rest = &after[1..];
                continue;
            }
            if brace == "}" {
                return Err(wrong("Single '}' encountered in format string"));
            }
            let end = end_of_field(after).ok_or_else(|| wrong("expected '}' before end of string"))?;
            out.push_str(&self.field(&after[..end], depth)?);
            rest = &after[end + 1..];
        }
        Ok(out + rest)
    }

    /// What stands between two braces: a name, `!` with a conversion, `:` with a format.
    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        if depth > DEEPEST {
            return Err(wrong("Max string recursion exceeded"));
        }
        // A key in brackets may have any characters.
        let mut inside = false;
        let is_end = |c: char| {
            inside = (inside || c == '[') && c != ']';
            !inside && (c == '!' || c == ':')
        };
        let (name, rest) = field.split_at(field.find(is_end).unwrap_or(field.len()));
        let value = self.value(name)?;
        let (conversion, format) = match rest.strip_prefix('!') {
            None => (None, rest),
            Some(rest) => (rest.chars().next(), rest.char_indices().nth(1).map_or("", |(place, _)| &rest[place..])),
        };
        let value = match conversion {
            None => value,
            Some('s') => printed(&value).into(),
            Some('r') => quoted(&value).into(),
            Some('a') => ascii(&quoted(&value)).into(),
            Some(other) => return Err(wrong(format!("Unknown conversion specifier {other:?}"))),
        };
        let format = match format.strip_prefix(':') {
            Some(format) => self.write(format, depth + 1)?,
            None if format.is_empty() => String::new(),
            None => return Err(wrong("expected ':' after conversion specifier")),
        };
        formatted(&value, &format)
    }

    /// The argument of this name or number, or the next one, and what its path leads to: `0.role`, `x[key]`.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let (first, mut path) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
        let missing = |what: &str| wrong(format!("there is no argument {what} to format"));
        let mut value = match first.parse::<usize>() {
            _ if first.is_empty() => {
                self.next += 1;
                self.positional.get(self.next - 1).cloned().ok_or_else(|| missing(&(self.next - 1).to_string()))?
            }
            Ok(place) => self.positional.get(place).cloned().ok_or_else(|| missing(first))?,
            Err(_) if self.named.has(first) => self.named.get::<Value>(first)?,
            Err(_) => return Err(missing(first)),
        };
        while !path.is_empty() {
            let (key, rest) = match path.strip_prefix('[') {
                Some(inside) => inside.split_once(']').ok_or_else(|| wrong("Missing ']' in format string"))?,
                None => {
                    let attribute = path.trim_start_matches('.');
                    attribute.split_at(attribute.find(['.', '[']).unwrap_or(attribute.len()))
                }
            };
            value = match key.parse::<usize>() {
                Ok(place) if value.kind() != ValueKind::Map => value.get_item_by_index(place)?,
                _ => value.get_item(&Value::from(key))?,
            };
            path = rest;
        }
        Ok(value)
    }
}

/// Where the field that has begun ends.
fn end_of_field(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(place, c)| {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(place),
            '}' => depth -= 1,
            _ => {}
        }
        None
    })
}

/// The value in this format: fill, alignment, sign, width, grouping, precision and type.
fn formatted(value: &Value, format: &str) -> Result<String, Error> {
    if format.is_empty() {
        return Ok(printed(value));
    }
    // What is missing is written as nothing, but not padded.
    if !matches!(value.kind(), ValueKind::Number | ValueKind::Bool | ValueKind::String) {
        return Err(wrong(format!("a value of the kind {} has no format {format:?}", value.kind())));
    }
    let one = |format: &str, value: Value| format_one(FormatStyle::StrFormat, &format!("{{:{format}}}"), &[value]);
    let Some(format) = format.strip_suffix('%') else { return one(format, value.clone()) };
    // A percentage is a number with a sign behind it, which counts in the width.
    let number = 100.0 * f64::try_from(value.clone())?;
    let is_align = |c: &char| matches!(c, '<' | '>' | '=' | '^');
    let mut chars = format.chars();
    let aligned = match (chars.next(), chars.next()) {
        (Some(fill), Some(align)) if is_align(&align) => fill.len_utf8() + 1,
        (Some(align), _) if is_align(&align) => 1,
        _ => 0,
    };
    let (align, rest) = format.split_at(aligned);
    let (sign, rest) = rest.split_at(rest.find(|c| !matches!(c, '+' | '-' | ' ' | '#')).unwrap_or(rest.len()));
    let (width, precision) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let written = one(&format!("{sign}{precision}f"), Value::from(number))? + "%";
    match width.strip_prefix('0') {
        Some(width) if align.is_empty() => {
            let missing = width.parse::<usize>().unwrap_or(0).saturating_sub(written.chars().count());
            let (sign, digits) = written.split_at(usize::from(written.starts_with(['+', '-', ' '])));
            Ok(format!("{sign}{}{digits}", "0".repeat(missing)))
        }
        _ if width.is_empty() => Ok(written),
        _ => one(&format!("{}{width}", if align.is_empty() { ">" } else { align }), written.into()),
    }
}
