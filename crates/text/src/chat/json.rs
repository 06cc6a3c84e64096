//! Values as Python writes them: by `json.dumps`, by `str` and by `repr`.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use std::fmt::Write as _;

/// How `json.dumps` writes.
struct Style {
    ascii: bool,
    /// What one level is indented by; `None` writes one line.
    indent: Option<String>,
    between_items: String,
    after_key: String,
    sorted: bool,
}

/// The filter `tojson` of transformers: `json.dumps(x, ensure_ascii=False, indent=None, separators=None,
/// sort_keys=False)`. Nothing is escaped for HTML.
pub(super) fn to_json(
    value: &Value,
    ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let argument = |given: Option<Value>, name: &str| -> Result<Option<Value>, Error> {
        let value = match given {
            Some(value) => Some(value),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let (ascii, indent) = (argument(ascii, "ensure_ascii")?, argument(indent, "indent")?);
    let (separators, sorted) = (argument(separators, "separators")?, argument(None, "sort_keys")?);
    named.assert_all_used()?;
    let indent = match indent {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(count) => Some(" ".repeat(usize::try_from(count)?)),
    };
    let [between_items, after_key] = match separators {
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
        Some(both) => {
            let part = |i: usize| both.get_item_by_index(i).map(|part| part.to_string());
            [part(0)?, part(1)?]
        }
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let style = Style { ascii: is_true(ascii), indent, between_items, after_key, sorted: is_true(sorted) };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, ["NaN", "Infinity", "-Infinity"])),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', ']', depth, items.len(), out, |i, out| self.write(&items[i], depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.list('{', '}', depth, keys.len(), out, |i, out| {
                    self.text(&keys[i].to_string(), out);
                    out.push_str(&self.after_key);
                    self.write(&value.get_item(&keys[i])?, depth + 1, out)
                })?;
            }
            kind => {
                let what = format!("a value of the kind {kind} has no form in JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        }
        Ok(())
    }

    fn list(
        &self,
        open: char,
        close: char,
        depth: usize,
        count: usize,
        out: &mut String,
        mut item: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let new_line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                (0..depth).for_each(|_| out.push_str(indent));
            }
        };
        out.push(open);
        for i in 0..count {
            if i > 0 {
                out.push_str(&self.between_items);
            }
            new_line(depth + 1, out);
            item(i, out)?;
        }
        if count > 0 {
            new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) || (self.ascii && c == '\u{7f}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a text cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A number as Python writes it.
fn number(value: &Value, [nan, infinite, minus_infinite]: [&str; 3]) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(x) if x.is_nan() => nan.to_owned(),
        Ok(f64::INFINITY) => infinite.to_owned(),
        Ok(f64::NEG_INFINITY) => minus_infinite.to_owned(),
        Ok(x) if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) => {
            // Python gives the exponent a sign and two digits.
            let text = format!("{x:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        Ok(x) => format!("{x:?}"),
        Err(_) => value.to_string(),
    }
}

/// A value as Python's `str` writes it.
pub(super) fn printed(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.to_string(),
        _ => quoted(value),
    }
}

/// A value as Python's `repr` writes it.
pub(super) fn quoted(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let items = || value.try_iter().map(Iterator::collect::<Vec<Value>>).unwrap_or_default();
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number => number(value, ["nan", "inf", "-inf"]),
        ValueKind::String => quoted_text(value.as_str().unwrap_or_default()),
        ValueKind::Seq if value.is_tuple() => match &items()[..] {
            [one] => format!("({},)", quoted(one)),
            several => format!("({})", list(several.iter().map(quoted).collect())),
        },
        ValueKind::Seq => format!("[{}]", list(items().iter().map(quoted).collect())),
        ValueKind::Map => {
            let entry = |key: &Value| {
                let of_key = value.get_item(key).map(|value| quoted(&value)).unwrap_or_default();
                format!("{}: {of_key}", quoted(key))
            };
            format!("{{{}}}", list(items().iter().map(entry).collect()))
        }
        _ => value.to_string(),
    }
}

/// The value with the keys of all its mappings in order, as Python's `pprint` has them.
pub(super) fn sorted(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            keys.sort();
            let pairs = keys.into_iter().map(|key| Ok((key.clone(), sorted(&value.get_item(&key)?)?)));
            Ok(Value::from_pairs(pairs.collect::<Result<Vec<(Value, Value)>, Error>>()?))
        }
        ValueKind::Seq if !value.is_tuple() => value.try_iter()?.map(|item| sorted(&item)).collect(),
        _ => Ok(value.clone()),
    }
}

fn quoted_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => {
                // Writing to a text cannot fail.
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
