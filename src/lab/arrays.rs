//! Named arrays of several learners in one checkpoint, each learner's under a prefix.

use super::LabError;
use flipside_core::{Array, Arrays};

/// The whole numbers under a name.
pub(super) fn words<'a>(arrays: &'a Arrays, name: &str) -> Result<&'a [u64], LabError> {
    arrays.get(name).and_then(Array::as_u64).ok_or_else(|| LabError::Incomplete(name.to_owned()))
}

/// Every array under a name that begins with `prefix`.
pub(super) fn prefixed(arrays: Arrays, prefix: &str) -> Arrays {
    arrays.into_iter().map(|(name, array)| (format!("{prefix}{name}"), array)).collect()
}

/// The arrays whose names begin with `prefix`, without it.
pub(super) fn unprefixed(arrays: &Arrays, prefix: &str) -> Arrays {
    arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()))).collect()
}
