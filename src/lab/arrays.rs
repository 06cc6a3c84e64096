//! Stores the named arrays of several learners in one checkpoint, each under its own prefix.

use super::LabError;
use flipside_core::{Array, Arrays};

/// The integers stored under a name.
pub(super) fn words<'a>(arrays: &'a Arrays, name: &str) -> Result<&'a [u64], LabError> {
    arrays.get(name).and_then(Array::as_u64).ok_or_else(|| LabError::Incomplete(name.to_owned()))
}

/// The arrays, with `prefix` added to every name.
pub(super) fn prefixed(arrays: Arrays, prefix: &str) -> Arrays {
    arrays.into_iter().map(|(name, array)| (format!("{prefix}{name}"), array)).collect()
}

/// The arrays whose names begin with `prefix`, with the prefix removed.
pub(super) fn unprefixed(arrays: &Arrays, prefix: &str) -> Arrays {
    arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()))).collect()
}
