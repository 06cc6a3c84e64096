//! NumPy's `.npz` files, for programs that use Flipside from outside.

mod read;

pub use read::{Axis, NpzArray, NpzError, read};

use super::{StoreError, disk};
use npyz::npz::NpzWriter;
use npyz::{AutoSerialize, Serialize, WriterBuilder};
use std::io::{self, Cursor};
use std::path::Path;

/// Numbers to be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// As float64.
    F64(&'a [f64]),
    /// As float32.
    F32(&'a [f32]),
    /// As int64.
    I64(&'a [i64]),
    /// As bool.
    Bool(&'a [bool]),
    /// As uint8: text.
    Bytes(&'a [u8]),
}

/// Writes named arrays with their shapes to `path`, row-major and compressed, completely or not at all, for
/// `numpy.load`.
///
/// # Errors
/// [`StoreError::Unsound`] if a shape does not fit its numbers; [`StoreError::DiskFull`] and the like.
pub fn write(path: &Path, arrays: &[(&str, &[usize], Values)]) -> Result<(), StoreError> {
    for (name, shape, values) in arrays {
        let there = match values {
            Values::F64(v) => v.len(),
            Values::F32(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::Bool(v) => v.len(),
            Values::Bytes(v) => v.len(),
        };
        if shape.iter().product::<usize>() != there {
            return Err(StoreError::Unsound {
                what: format!("array {name}"),
                reason: format!("it has {there} numbers for shape {shape:?}"),
            });
        }
    }
    // Packed in memory first, because the zip crate hides the system's error, and prints when it is dropped after one.
    let pack = || -> io::Result<Vec<u8>> {
        let mut npz = NpzWriter::new(Cursor::new(Vec::new()));
        for (name, shape, values) in arrays {
            match values {
                Values::F64(v) => write_array(&mut npz, name, shape, v)?,
                Values::F32(v) => write_array(&mut npz, name, shape, v)?,
                Values::I64(v) => write_array(&mut npz, name, shape, v)?,
                Values::Bool(v) => write_array(&mut npz, name, shape, v)?,
                Values::Bytes(v) => write_array(&mut npz, name, shape, v)?,
            }
        }
        Ok(npz.zip_writer().finish()?.into_inner())
    };
    let bytes = pack().map_err(|e| StoreError::Unsound { what: "the archive".to_owned(), reason: e.to_string() })?;
    disk::write_whole(path, &bytes)
}

fn write_array<T: AutoSerialize + Serialize + Copy>(
    npz: &mut NpzWriter<Cursor<Vec<u8>>>,
    name: &str,
    shape: &[usize],
    values: &[T],
) -> io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut array = npz.array::<T>(name, Default::default())?.default_dtype().shape(&shape).begin_nd()?;
    array.extend(values.iter().copied())?;
    array.finish()
}

#[cfg(test)]
mod tests {
    use super::Axis::{Exactly, Free};
    use super::*;
    use std::path::PathBuf;

    /// Written by numpy 2.4's `savez` and `savez_compressed`: qpos = (arange(6).reshape(2, 3) − 2.5) / 7 as float64,
    /// qvel = its double as float32 in column-major order, ctrl = arange(24).reshape(2, 4, 3) as big-endian float64,
    /// flags bool [1, 2], empty [0, 3], whole = arange(3) as int64.
    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    #[test]
    fn reads_what_numpy_writes() {
        let numbers: Vec<f64> = (0..6).map(|i| (f64::from(i) - 2.5) / 7.0).collect();
        for name in ["numpy.npz", "numpy_compressed.npz"] {
            let wanted: [(&str, &[Axis]); 4] = [
                ("qpos", &[Free("N"), Exactly("nq", 3)]),
                ("qvel", &[Free("N"), Exactly("nv", 3)]),
                ("ctrl", &[Free("N"), Free("T"), Exactly("nu", 3)]),
                ("empty", &[Free("K"), Free("J")]),
            ];
            let arrays = read(&golden(name), &wanted).unwrap();
            assert_eq!(arrays[0], NpzArray { shape: vec![2, 3], values: numbers.clone() });
            let doubled = numbers.iter().map(|&x| f64::from(x as f32 * 2.0)).collect();
            assert_eq!(arrays[1], NpzArray { shape: vec![2, 3], values: doubled });
            assert_eq!(arrays[2], NpzArray { shape: vec![2, 4, 3], values: (0..24).map(f64::from).collect() });
            assert_eq!(arrays[3], NpzArray { shape: vec![0, 3], values: vec![] });
        }
    }

    #[test]
    fn says_which_array_and_what_was_expected() {
        let check = |wanted: &[(&str, &[Axis])], words: &str| {
            let error = read(&golden("numpy.npz"), wanted).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(&[("qpos", &[Free("N"), Exactly("nq", 6)])], "has shape [2, 3]; it must be [N, nq] with nq = 6");
        check(&[("empty", &[Free("N"), Free("nq")]), ("qpos", &[Free("N"), Exactly("nq", 3)])], "array qpos in");
        check(
            &[("empty", &[Free("N"), Free("nq")]), ("qpos", &[Free("N"), Exactly("nq", 3)])],
            "it must be [N, nq] with N = 0 (as in empty), nq = 3",
        );
        check(&[("act", &[Free("N")])], "has no array act; add one of shape [N], float64 or float32 (there are: ");
        check(&[("whole", &[Free("N")])], "array whole in");
        check(&[("whole", &[Free("N")])], "has numbers of type '<i8'; save it as float64 or float32, of shape [N]");
    }

    #[test]
    fn damage_and_absence_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.npz");
        let wanted: [(&str, &[Axis]); 1] = [("qpos", &[Free("N"), Exactly("nq", 3)])];
        assert!(matches!(read(&path, &wanted), Err(NpzError::Io { .. })));
        let whole = std::fs::read(golden("numpy.npz")).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(read(&path, &wanted), Err(NpzError::NotNpz { .. })));
        // One flipped bit in the first array's numbers (its local header and .npy header take the first 190 bytes or
        // so).
        let mut flipped = whole.clone();
        flipped[200] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(matches!(read(&path, &wanted), Err(NpzError::NotNpz { .. })));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.npz");
        let values: Vec<f64> = (0..12).map(|i| f64::from(i).exp()).collect();
        let arrays: [(&str, &[usize], Values); 3] = [
            ("obs", &[3, 4], Values::F64(&values)),
            ("reward", &[2], Values::F32(&[0.1, -1e-45])),
            ("terminated", &[1, 3], Values::Bool(&[true, false, true])),
        ];
        write(&path, &arrays).unwrap();
        let there = read(&path, &[("obs", &[Free("N"), Free("O")]), ("reward", &[Free("M")])]).unwrap();
        assert_eq!(there[0], NpzArray { shape: vec![3, 4], values });
        assert_eq!(there[1].values, [f64::from(0.1_f32), f64::from(-1e-45_f32)]);
        let error = read(&path, &[("terminated", &[Free("N"), Free("T")])]).unwrap_err();
        assert!(matches!(&error, NpzError::Type { found, .. } if found == "'|b1'"), "{error}");
        assert!(matches!(write(&path, &[("obs", &[5], Values::F64(&[0.0]))]), Err(StoreError::Unsound { .. })));
    }
}
