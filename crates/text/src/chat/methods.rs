//! Methods of Python's texts, lists, mappings and numbers that templates call and `minijinja_contrib` lacks, or has
//! otherwise than Python. Methods that change a value are refused, as in transformers' sandbox.

use super::arguments::{by_name, flag, some, text, width, wrong};
use super::str_format::str_format;
use fancy_regex::Regex;
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;
use std::sync::LazyLock;

/// Methods of lists and mappings that the sandbox refuses.
const CHANGING: [&str; 11] =
    ["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update"];

/// Calls a method of a value.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => of_text(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq | ValueKind::Map if CHANGING.contains(&method) => {
            return Err(wrong(format!("{method} would change a value, which a chat template may not do")));
        }
        ValueKind::Seq => of_list(value, method, args)?,
        ValueKind::Map if method == "copy" => Some(value.clone()),
        ValueKind::Number => of_number(value, method),
        _ => None,
    };
    match found {
        Some(found) => Ok(found),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn of_list(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(match method {
        "copy" => Some(list.clone()),
        "index" => {
            let (wanted, from, to): (Value, Option<i64>, Option<i64>) = from_args(args)?;
            let items: Vec<Value> = list.try_iter()?.collect();
            let [from, to] = bounds(from, to, items.len());
            let place = items.iter().enumerate().position(|(i, item)| (from..to).contains(&i) && *item == wanted);
            let place = place.ok_or_else(|| wrong(format!("{wanted} is not in the list")))?;
            Some(place.into())
        }
        _ => None,
    })
}

fn of_number(number: &Value, method: &str) -> Option<Value> {
    match method {
        "is_integer" => Some(f64::try_from(number.clone()).is_ok_and(|x| x.fract() == 0.0).into()),
        "bit_length" if number.is_integer() => {
            let number = i128::try_from(number.clone()).ok()?;
            Some((u128::BITS - number.unsigned_abs().leading_zeros()).into())
        }
        _ => None,
    }
}

/// Characters by Unicode's categories, which Python's methods go by.
struct Categories {
    letters: Regex,
    letters_and_numbers: Regex,
    decimals: Regex,
    digits: Regex,
    identifier: Regex,
    not_printable: Regex,
}

static CATEGORIES: LazyLock<Option<Categories>> = LazyLock::new(|| {
    // Digits that are not decimals: superscripts, subscripts, in circles and the like.
    let digits = r"²³¹፩-፱᧚⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒\x{10A40}-\x{10A43}\x{1F100}-\x{1F10A}";
    let regex = |pattern: &str| Regex::new(pattern).ok();
    Some(Categories {
        letters: regex(r"^\p{L}+$")?,
        letters_and_numbers: regex(r"^[\p{L}\p{N}]+$")?,
        decimals: regex(r"^\p{Nd}+$")?,
        digits: regex(&format!(r"^[\p{{Nd}}{digits}]+$"))?,
        identifier: regex(r"^[\p{XID_Start}_]\p{XID_Continue}*$")?,
        not_printable: regex(r"[\p{C}\p{Z}--\x20]")?,
    })
});

fn matches(text: &str, which: fn(&Categories) -> &Regex) -> Value {
    CATEGORIES.as_ref().is_some_and(|all| which(all).is_match(text).unwrap_or(false)).into()
}

fn of_text(all: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let padding = |width: usize| width.saturating_sub(all.chars().count());
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            all.strip_prefix(prefix).unwrap_or(all).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            all.strip_suffix(suffix).unwrap_or(all).into()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(wrong("the separator is empty"));
            }
            let first = method == "partition";
            let parts = if first { all.split_once(separator) } else { all.rsplit_once(separator) };
            let parts = match parts {
                Some((before, after)) => [before, separator, after],
                None if first => [all, "", ""],
                None => ["", "", all],
            };
            Tuple::from(parts.map(Value::from).to_vec()).into()
        }
        "split" | "rsplit" => {
            let [separator, most] = by_name(args, ["sep", "maxsplit"])?;
            let separator = some(separator).map(|separator| text(Some(separator))).transpose()?;
            let most = most.map_or(Ok(-1), i64::try_from)?;
            let most = usize::try_from(most).unwrap_or(usize::MAX - 1).min(usize::MAX - 1);
            let mut parts: Vec<&str> = match (&separator, method) {
                (Some(separator), _) if separator.is_empty() => return Err(wrong("the separator is empty")),
                (Some(separator), "split") => all.splitn(most + 1, separator.as_str()).collect(),
                (Some(separator), _) => all.rsplitn(most + 1, separator.as_str()).collect(),
                (None, "split") => split_whitespace(all, most),
                (None, _) => rsplit_whitespace(all, most),
            };
            if method == "rsplit" {
                parts.reverse();
            }
            list(&parts)
        }
        "splitlines" => {
            let [with_ends] = by_name(args, ["keepends"])?;
            list(&lines(all, flag(with_ends)))
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
            let text = if method == "rstrip" { all } else { all.trim_start_matches(goes) };
            Value::from(if method == "lstrip" { text } else { text.trim_end_matches(goes) })
        }
        "join" => {
            let (parts,): (Value,) = from_args(args)?;
            let parts = parts.try_iter()?.map(|part| text(Some(part))).collect::<Result<Vec<String>, Error>>()?;
            parts.join(all).into()
        }
        "casefold" => all.chars().flat_map(char::to_lowercase).collect::<String>().replace('ß', "ss").into(),
        "swapcase" => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            all.chars().map(swap).collect::<String>().into()
        }
        "title" => title(all).into(),
        "istitle" => (all.chars().any(|c| c.is_lowercase() || c.is_uppercase()) && title(all) == all).into(),
        "isalpha" => matches(all, |all| &all.letters),
        "isalnum" => matches(all, |all| &all.letters_and_numbers),
        "isdecimal" => matches(all, |all| &all.decimals),
        "isdigit" => matches(all, |all| &all.digits),
        "isidentifier" => matches(all, |all| &all.identifier),
        "isprintable" => (!matches(all, |all| &all.not_printable).is_true()).into(),
        "isspace" => (!all.is_empty() && all.chars().all(is_space)).into(),
        "find" | "rfind" | "index" | "rindex" => {
            let (part, from, to): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let found = within(all, from, to).and_then(|(start, inside)| {
                let place = if method.starts_with('r') { inside.rfind(part) } else { inside.find(part) };
                place.map(|place| start + inside[..place].chars().count())
            });
            match found {
                Some(place) => place.into(),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(wrong(format!("{part:?} is not in the text"))),
            }
        }
        "count" => {
            let (part, from, to): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            within(all, from, to).map_or(0, |(_, inside)| inside.matches(part).count()).into()
        }
        "startswith" | "endswith" => {
            let (parts, from, to): (Value, Option<i64>, Option<i64>) = from_args(args)?;
            let parts: Vec<Value> = if parts.is_tuple() { parts.try_iter()?.collect() } else { vec![parts] };
            let parts = parts.into_iter().map(|part| text(Some(part))).collect::<Result<Vec<String>, Error>>()?;
            let has = |inside: &str, part: &String| match method {
                "startswith" => inside.starts_with(part.as_str()),
                _ => inside.ends_with(part.as_str()),
            };
            within(all, from, to).is_some_and(|(_, inside)| parts.iter().any(|part| has(inside, part))).into()
        }
        "replace" => {
            let [old, new, count] = by_name(args, ["old", "new", "count"])?;
            let (old, new) = (text(old)?, text(new)?);
            Value::from(match usize::try_from(count.map_or(Ok(-1), i64::try_from)?) {
                Ok(count) => all.replacen(&old, &new, count),
                Err(_) => all.replace(&old, &new),
            })
        }
        "expandtabs" => {
            let [size] = by_name(args, ["tabsize"])?;
            expanded(all, size.map_or(Ok(8), |size| width(&size))?).into()
        }
        "translate" => {
            let (table,): (Value,) = from_args(args)?;
            let mut out = String::new();
            for c in all.chars() {
                let to = table.get_item(&Value::from(c as u32))?;
                match (to.as_str(), to.kind()) {
                    (Some(text), _) => out.push_str(text),
                    (None, ValueKind::Number) => out.extend(u32::try_from(to.clone()).ok().and_then(char::from_u32)),
                    (None, ValueKind::None) => {}
                    _ => out.push(c),
                }
            }
            out.into()
        }
        "format" => str_format(all, args)?.into(),
        "format_map" => {
            let (values,): (Value,) = from_args(args)?;
            let mut named = Vec::new();
            for key in values.try_iter()? {
                named.push((text(Some(key.clone()))?, values.get_item(&key)?));
            }
            let named: Kwargs = named.into_iter().collect();
            str_format(all, &[named.into()])?.into()
        }
        "zfill" => {
            let (wide,): (Value,) = from_args(args)?;
            let (sign, digits) = all.split_at(usize::from(all.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", "0".repeat(padding(width(&wide)?))).into()
        }
        "ljust" | "rjust" | "center" => {
            let (wide, fill): (Value, Option<char>) = from_args(args)?;
            let fill = fill.unwrap_or(' ').to_string();
            let wide = width(&wide)?;
            let missing = fill.repeat(padding(wide));
            Value::from(match method {
                "ljust" => all.to_owned() + &missing,
                "rjust" => missing + all,
                _ => center(all, wide, &fill),
            })
        }
        "encode" => return Err(Error::from(ErrorKind::UnknownMethod)),
        _ => return Ok(None),
    }))
}

fn list(texts: &[&str]) -> Value {
    texts.iter().map(|text| Value::from(*text)).collect()
}

/// Whether Python counts the character as white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// The text in the middle of a line. As in Python, the odd one goes to the left if the width is odd.
pub(super) fn center(text: &str, width: usize, fill: &str) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let left = missing / 2 + (missing & width & 1);
    fill.repeat(left) + text + &fill.repeat(missing - left)
}

/// Every word with a capital first. A word begins after anything that is no letter.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// A slice's bounds within `length` items, as Python reads negative and large ones.
fn bounds(from: Option<i64>, to: Option<i64>, length: usize) -> [usize; 2] {
    let place = |given: Option<i64>, usual: usize| match given {
        None => usual,
        Some(at) if at < 0 => length.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX)),
        Some(at) => usize::try_from(at).unwrap_or(usize::MAX).min(length),
    };
    [place(from, 0), place(to, length)]
}

/// The part of a text between two characters, and the number of characters before it; `None` if the part ends before it
/// begins.
fn within(text: &str, from: Option<i64>, to: Option<i64>) -> Option<(usize, &str)> {
    let count = text.chars().count();
    if from.is_some_and(|from| usize::try_from(from).is_ok_and(|from| from > count)) {
        return None;
    }
    let [from, to] = bounds(from, to, count);
    let byte = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(byte, _)| byte);
    Some((from, text.get(byte(from)..byte(to))?))
}

/// The text with spaces for tabs, up to the next column that is a multiple of `size`.
fn expanded(text: &str, size: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    out
}

/// The parts between white space. After `most` splits, what is left is one part.
fn split_whitespace(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

/// The parts between white space, the last one first. After `most` splits, what is left is one part.
fn rsplit_whitespace(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let start =
            rest.rfind(is_space).map_or(0, |place| place + rest[place..].chars().next().map_or(1, char::len_utf8));
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    parts
}

/// The lines as Python's `splitlines` cuts them.
pub(super) fn lines(text: &str, with_ends: bool) -> Vec<&str> {
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
