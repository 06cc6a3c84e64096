//! The arguments of filters and methods, by place or by the names that Python gives them.

use minijinja::value::{Kwargs, from_args};
use minijinja::{Error, ErrorKind, Value};

/// The arguments by their names; `None` for those that were not given.
pub(super) fn by_name<const N: usize>(args: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(args)?;
    if positional.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut found = [const { None }; N];
    for (place, name) in names.into_iter().enumerate() {
        found[place] = match positional.get(place) {
            Some(value) => Some(value.clone()),
            None if named.has(name) => Some(named.get::<Value>(name)?),
            None => None,
        };
    }
    named.assert_all_used()?;
    Ok(found)
}

/// Those of the arguments that were given, by name alone.
pub(super) fn keywords<const N: usize>(args: &[Value], names: [&str; N]) -> Result<Kwargs, Error> {
    let found = by_name(args, names)?;
    Ok(names.into_iter().zip(found).filter_map(|(name, value)| Some((name, value?))).collect())
}

/// The argument, if it was given and is not none.
pub(super) fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_none() && !value.is_undefined())
}

/// A text that has to be given.
pub(super) fn text(value: Option<Value>) -> Result<String, Error> {
    match &value {
        None => Err(Error::from(ErrorKind::MissingArgument)),
        Some(value) => match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(wrong(format!("expected a text and not a value of the kind {}", value.kind()))),
        },
    }
}

/// Whether the argument was given and counts as true.
pub(super) fn flag(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// A number of characters, which a template could make any amount of memory from.
pub(super) fn width(value: &Value) -> Result<usize, Error> {
    const WIDEST: i64 = 1 << 20;
    match i64::try_from(value.clone())? {
        // As in Python, less than nothing is nothing.
        width if width <= WIDEST => Ok(usize::try_from(width).unwrap_or(0)),
        width => Err(wrong(format!("a width of {width} is more than {WIDEST}"))),
    }
}

/// An error of an operation.
pub(super) fn wrong(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}
