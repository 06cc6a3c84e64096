//! Jinja2's filters that minijinja lacks or has otherwise. `minijinja` and `minijinja_contrib` have the rest. `random`
//! and `urlize` are left out, and of the functions `lipsum`: a prompt is not to be different each time, nor HTML.

use super::arguments::{by_name, flag, keywords, some, text, width, wrong};
use super::json::{printed, quoted, sorted};
use super::methods::{center, is_space, lines};
use super::percent;
use super::wrap::Wrap;
use minijinja::filters as builtin;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State, Value};

/// A filter, called with a value and its arguments.
type Filter = fn(&mut State, Value, &[Value]) -> Result<Value, Error>;

/// The filters by their names.
const FILTERS: [(&str, Filter); 28] = [
    ("abs", |_, value, args| {
        let [] = by_name(args, [])?;
        builtin::abs(if value.kind() == ValueKind::Bool { Value::from(i64::from(value.is_true())) } else { value })
    }),
    ("batch", |state, value, args| {
        let [count, fill] = by_name(args, ["linecount", "fill_with"])?;
        builtin::batch(state, value, usize::try_from(count.unwrap_or_default())?, some(fill))
    }),
    ("center", |_, value, args| {
        let [wide] = by_name(args, ["width"])?;
        Ok(center(&printed(&value), wide.map_or(Ok(80), |wide| width(&wide))?, " ").into())
    }),
    ("default", default),
    ("d", default),
    ("dictsort", |_, value, args| builtin::dictsort(&value, keywords(args, ["case_sensitive", "by", "reverse"])?)),
    ("e", |_, value, args| escape(value, args)),
    ("escape", |_, value, args| escape(value, args)),
    ("filesizeformat", |_, value, args| {
        let [binary] = by_name(args, ["binary"])?;
        let bytes = real(&value).ok_or_else(|| wrong("only a number is a size"))?;
        let base = if flag(binary.clone()) { 1024.0 } else { 1000.0 };
        let bytes = if bytes.abs() < base { bytes.trunc() } else { bytes };
        Ok(minijinja_contrib::filters::filesizeformat(bytes, Some(flag(binary))).into())
    }),
    ("float", |state, value, args| {
        let [default] = by_name(args, ["default"])?;
        builtin::float(state, &plain_number(value), default.or(Some(Value::from(0.0))), no_names())
    }),
    ("forceescape", |_, value, args| {
        let [] = by_name(args, [])?;
        Ok(Value::from_safe_string(escaped(&printed(&value))))
    }),
    ("format", |_, value, args| {
        let (positional, named): (&[Value], Kwargs) = from_args(args)?;
        let values = match named.args().next() {
            None => Value::from(minijinja::value::Tuple::from(positional.to_vec())),
            Some(_) if !positional.is_empty() => return Err(wrong("format takes either places or names")),
            Some(_) => args.last().cloned().unwrap_or_default(),
        };
        percent::format(&printed(&value), &values).map(Value::from)
    }),
    ("groupby", |_, value, args| {
        builtin::groupby(value, None, keywords(args, ["attribute", "default", "case_sensitive"])?)
    }),
    ("indent", indent),
    ("int", |state, value, args| {
        let [default, base] = by_name(args, ["default", "base"])?;
        let default = default.unwrap_or(Value::from(0));
        let value = plain_number(value);
        // No whole number is infinite.
        if value.as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(|x| !x.is_finite()) {
            return Ok(default);
        }
        let base = base.map(u32::try_from).transpose()?;
        builtin::int(state, &value, Some(default), base, no_names())
    }),
    ("join", |state, value, args| {
        let [between, attribute] = by_name(args, ["d", "attribute"])?;
        let between = between.map(|between| printed(&between)).unwrap_or_default();
        let value = match some(attribute) {
            None => value,
            Some(attribute) => {
                let named: Kwargs = [("attribute", attribute)].into_iter().collect();
                state.apply_filter("map", &[value, named.into()])?
            }
        };
        let parts: Vec<String> = value.try_iter()?.map(|part| printed(&part)).collect();
        Ok(parts.join(&between).into())
    }),
    ("map", map),
    ("max", |state, value, args| builtin::max(state, value, keywords(args, ["case_sensitive", "attribute"])?)),
    ("min", |state, value, args| builtin::min(state, value, keywords(args, ["case_sensitive", "attribute"])?)),
    ("pprint", |_, value, args| {
        let [] = by_name(args, [])?;
        match quoted(&sorted(&value)?) {
            line if line.chars().count() <= 80 => Ok(line.into()),
            _ => Err(wrong("pprint of more than a line of 80 characters is not supported")),
        }
    }),
    ("round", |_, value, args| {
        let [precision, method] = by_name(args, ["precision", "method"])?;
        let method = method.map(|method| text(Some(method))).transpose()?;
        // Python divides to round up or down, so that the result is no whole number.
        let directed = method.as_deref().is_some_and(|method| method != "common") && value.is_integer();
        let value = if directed { Value::from(f64::try_from(value)?) } else { value };
        builtin::round(value, precision.map(i32::try_from).transpose()?, method.as_deref(), no_names())
    }),
    ("slice", |state, value, args| {
        let [count, fill] = by_name(args, ["slices", "fill_with"])?;
        builtin::slice(state, value, usize::try_from(count.unwrap_or_default())?, some(fill))
    }),
    ("sort", |state, value, args| {
        builtin::sort(state, value, keywords(args, ["reverse", "case_sensitive", "attribute"])?)
    }),
    ("string", |_, value, args| {
        let [] = by_name(args, [])?;
        Ok(if value.as_str().is_some() { value } else { printed(&value).into() })
    }),
    ("truncate", truncate),
    ("unique", |state, value, args| builtin::unique(state, value, keywords(args, ["case_sensitive", "attribute"])?)),
    ("urlencode", urlencode),
    ("wordwrap", wordwrap),
];

/// Gives the environment Jinja2's filters.
pub(super) fn add(environment: &mut Environment) {
    for (name, filter) in FILTERS {
        environment.add_filter(name, move |state: &mut State, value: Value, args: Rest<ValueOrKwargs>| {
            filter(state, value, &args.into_values())
        });
    }
    environment.add_filter("trim", |value: Value, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let [chars] = by_name(&args.into_values(), ["chars"])?;
        let value = printed(&value);
        Ok(match some(chars) {
            None => value.trim_matches(is_space).into(),
            Some(chars) => {
                let chars: Vec<char> = text(Some(chars))?.chars().collect();
                value.trim_matches(&chars[..]).into()
            }
        })
    });
    environment.add_filter("wordcount", |text: String| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
    });
    environment.add_filter("xmlattr", |value: Value, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let [space] = by_name(&args.into_values(), ["autospace"])?;
        let mut attributes = Vec::new();
        for key in value.try_iter()? {
            let (name, value) = (printed(&key), value.get_item(&key)?);
            if value.is_none() || value.is_undefined() {
                continue;
            }
            if name.contains(|c: char| is_space(c) || matches!(c, '/' | '>' | '=')) {
                return Err(wrong(format!("{name:?} is no name of an attribute")));
            }
            attributes.push(format!("{}=\"{}\"", escaped(&name), escaped(&printed(&value))));
        }
        let written = attributes.join(" ");
        let spaced = space.is_none_or(|space| space.is_true()) && !written.is_empty();
        Ok(if spaced { format!(" {written}") } else { written }.into())
    });
}

/// The text with HTML's escapes, as markupsafe writes them.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// No arguments by name.
fn no_names() -> Kwargs {
    std::iter::empty::<(&str, Value)>().collect()
}

fn escape(value: Value, args: &[Value]) -> Result<Value, Error> {
    let [] = by_name(args, [])?;
    Ok(if value.is_safe() { value } else { Value::from_safe_string(escaped(&printed(&value))) })
}

fn default(_: &mut State, value: Value, args: &[Value]) -> Result<Value, Error> {
    let [other, boolean] = by_name(args, ["default_value", "boolean"])?;
    let missing = value.is_undefined() || (flag(boolean) && !value.is_true());
    Ok(if missing { other.unwrap_or_else(|| Value::from("")) } else { value })
}

fn indent(_: &mut State, value: Value, args: &[Value]) -> Result<Value, Error> {
    let [by, first, blank] = by_name(args, ["width", "first", "blank"])?;
    let by = match &by {
        None => " ".repeat(4),
        Some(by) => match by.as_str() {
            Some(by) => by.to_owned(),
            None => " ".repeat(width(by)?),
        },
    };
    // Python ends the text with a newline so that an empty last line counts.
    let (text, blank) = (printed(&value) + "\n", flag(blank));
    let mut out = String::new();
    for (place, line) in lines(&text, false).into_iter().enumerate() {
        if place > 0 {
            out.push('\n');
        }
        // The first line has its own switch.
        let indented = if place == 0 { flag(first.clone()) } else { blank || !line.is_empty() };
        out.push_str(if indented { &by } else { "" });
        out.push_str(line);
    }
    Ok(out.into())
}

/// The filter `map`: minijinja's passes no arguments by name on.
fn map(state: &mut State, value: Value, given: &[Value]) -> Result<Value, Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(given)?;
    let [filter, rest @ ..] = positional else {
        let args = Rest(given.iter().cloned().map(ValueOrKwargs::from).collect());
        return builtin::map(state, value, args).map(Value::from);
    };
    let filter = text(Some(filter.clone()))?;
    let mut mapped = Vec::new();
    for item in value.try_iter()? {
        let mut args = vec![item];
        args.extend_from_slice(rest);
        // Those by name are one value, the last one.
        args.extend(given.last().filter(|_| named.args().next().is_some()).cloned());
        mapped.push(state.apply_filter(&filter, &args)?);
    }
    Ok(mapped.into())
}

fn truncate(_: &mut State, value: Value, args: &[Value]) -> Result<Value, Error> {
    let [length, whole, end, leeway] = by_name(args, ["length", "killwords", "end", "leeway"])?;
    let length = length.map_or(Ok(255), |length| width(&length))?;
    let leeway = some(leeway).map_or(Ok(5), |leeway| width(&leeway))?;
    let end = end.map_or_else(|| "...".to_owned(), |end| printed(&end));
    let value = printed(&value);
    let count = end.chars().count();
    if length < count {
        return Err(wrong(format!("a length of {length} is too short for {end:?}")));
    }
    if value.chars().count() <= length + leeway {
        return Ok(value.into());
    }
    let cut: String = value.chars().take(length - count).collect();
    let kept = if flag(whole) { &cut[..] } else { cut.rsplit_once(' ').map_or(&cut[..], |(kept, _)| kept) };
    Ok((kept.to_owned() + &end).into())
}

fn urlencode(_: &mut State, value: Value, args: &[Value]) -> Result<Value, Error> {
    let [] = by_name(args, [])?;
    let query = |value: &Value| url_quoted(&printed(value), "").replace("%20", "+");
    let pairs: Vec<[Value; 2]> = match value.kind() {
        ValueKind::Map => {
            value.try_iter()?.map(|key| Ok([key.clone(), value.get_item(&key)?])).collect::<Result<_, Error>>()?
        }
        ValueKind::Seq | ValueKind::Iterable => value
            .try_iter()?
            .map(|pair| Ok([pair.get_item_by_index(0)?, pair.get_item_by_index(1)?]))
            .collect::<Result<_, Error>>()?,
        _ => return Ok(url_quoted(&printed(&value), "/").into()),
    };
    let pairs: Vec<String> = pairs.iter().map(|[key, value]| format!("{}={}", query(key), query(value))).collect();
    Ok(pairs.join("&").into())
}

/// The text with `%20` and the like for all but letters, digits, `_.-~` and those of `safe`, as Python's `quote`.
fn url_quoted(text: &str, safe: &str) -> String {
    let quoted = |&byte: &u8| match char::from(byte) {
        c if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) => c.to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.as_bytes().iter().map(quoted).collect()
}

fn wordwrap(_: &mut State, value: Value, args: &[Value]) -> Result<Value, Error> {
    let [wide, long, between, hyphens] =
        by_name(args, ["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let wrap = Wrap {
        width: wide.map_or(Ok(79), |wide| width(&wide))?,
        break_long_words: long.is_none_or(|long| long.is_true()),
        break_on_hyphens: hyphens.is_none_or(|hyphens| hyphens.is_true()),
    };
    if wrap.width == 0 {
        return Err(wrong("lines are at least one character wide"));
    }
    let between = some(between).map_or_else(|| "\n".to_owned(), |between| printed(&between));
    Ok(wrap.lines(&printed(&value)).join(&between).into())
}

/// The value as a number, if it is one or says one.
fn real(value: &Value) -> Option<f64> {
    match plain_number(value.clone()).as_str() {
        Some(text) => text.parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    }
}

/// A text that says a number, without what Python lets stand in it: spaces around it, and a `_` between two digits.
fn plain_number(value: Value) -> Value {
    let Some(text) = value.as_str() else { return value };
    let text = text.trim_matches(is_space);
    let chars: Vec<char> = text.chars().collect();
    let digit =
        |place: Option<usize>| place.and_then(|place| chars.get(place)).is_some_and(char::is_ascii_alphanumeric);
    let kept = chars
        .iter()
        .enumerate()
        .filter(|&(place, &c)| c != '_' || !digit(place.checked_sub(1)) || !digit(Some(place + 1)));
    kept.map(|(_, &c)| c).collect::<String>().into()
}
