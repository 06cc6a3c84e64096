//! Named arrays with metadata, shared with other programs: as safetensors, or, to be written only, as NumPy's `.npz`.

use super::npz::{self, Values};
use super::{StoreError, arrays_file, disk};
use flipside_core::{ArrayData, Arrays};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Writes arrays and metadata, completely or not at all. A path that ends in `.safetensors` becomes a safetensors file
/// with the metadata in its header. Any other becomes an `.npz` file with the metadata as JSON text in an array of
/// bytes, `metadata`. Equal content gives equal bytes.
///
/// # Errors
///
/// [`StoreError::Unsound`] for a number type that the file cannot hold; the disk refuses.
pub fn write_arrays(path: &Path, metadata: &BTreeMap<String, String>, arrays: &Arrays) -> Result<(), StoreError> {
    let unsound = |what: &str, reason: String| StoreError::Unsound { what: what.to_owned(), reason };
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors")) {
        let metadata = metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let bytes = arrays_file::encode_plain(metadata, arrays).and_then(arrays_file::in_order);
        return disk::write_whole(path, &bytes.map_err(|reason| unsound("the file of arrays", reason))?);
    }
    let text = serde_json::to_string(metadata).map_err(|error| unsound("the metadata", error.to_string()))?;
    let mut all: Vec<(&str, &[usize], Values)> = Vec::with_capacity(arrays.len() + 1);
    for (name, array) in arrays {
        let values = match &array.data {
            ArrayData::F32(v) => Values::F32(v),
            ArrayData::F64(v) => Values::F64(v),
            ArrayData::I64(v) => Values::I64(v),
            ArrayData::Bf16(_) | ArrayData::F16(_) | ArrayData::U64(_) => {
                return Err(unsound(
                    &format!("array {name}"),
                    "an .npz file is not written with its numbers".to_owned(),
                ));
            }
        };
        all.push((name, &array.shape, values));
    }
    let length = [text.len()];
    all.push(("metadata", &length, Values::Bytes(text.as_bytes())));
    npz::write(path, &all)
}

/// The metadata and the arrays of a safetensors file.
///
/// # Errors
///
/// [`StoreError::DamagedModel`] for anything else; the file cannot be read.
pub fn read_arrays(path: &Path) -> Result<(BTreeMap<String, String>, Arrays), StoreError> {
    let bytes = fs::read(path).map_err(|error| StoreError::io(path, error))?;
    let (metadata, arrays) = arrays_file::decode_plain(&bytes)
        .map_err(|reason| StoreError::DamagedModel { path: path.to_owned(), reason })?;
    Ok((metadata.into_iter().collect(), arrays))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::npz::Axis::Free;
    use flipside_core::Array;

    #[test]
    fn both_formats_hold_the_same_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let x: Vec<f32> = (0..6).map(|i| i as f32 / 7.0).collect();
        let arrays = Arrays::from([
            ("blocks.0.attn.hook_z".to_owned(), Array::f32(&[1, 2, 3], x.clone())),
            ("tokens".to_owned(), Array { shape: vec![1, 2], data: ArrayData::I64(vec![3, 4]) }),
        ]);
        let metadata =
            BTreeMap::from([("family".to_owned(), "GPT-2".to_owned()), ("eps".to_owned(), "1e-5".to_owned())]);
        let [npz, safetensors] = ["a.npz", "a.safetensors"].map(|name| folder.path().join(name));
        for path in [&npz, &safetensors] {
            write_arrays(path, &metadata, &arrays).unwrap();
        }
        let read = npz::read(&npz, &[("blocks.0.attn.hook_z", &[Free("B"), Free("T"), Free("d")])]).unwrap();
        assert_eq!(read[0].values, x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let bytes = fs::read(&safetensors).unwrap();
        assert_eq!(read_arrays(&safetensors).unwrap(), (metadata.clone(), arrays.clone()));
        assert!(matches!(read_arrays(&npz), Err(StoreError::DamagedModel { .. })));
        write_arrays(&safetensors, &metadata, &arrays).unwrap();
        assert_eq!(fs::read(&safetensors).unwrap(), bytes);
    }
}
