//! NumPy's `.npz` files, for programs that use Flipside from outside.

use super::{StoreError, disk};
use npyz::npz::{NpzArchive, NpzWriter};
use npyz::{AutoSerialize, DType, NpyFile, Order, Serialize, WriterBuilder};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor};
use std::path::{Path, PathBuf};

/// One axis of an array's expected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Any length, but the same wherever this letter occurs: `Free("N")`.
    Free(&'static str),
    /// Exactly this length: `Exactly("nq", 6)`.
    Exactly(&'static str, usize),
}

/// An array as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct NpzArray {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers, row-major. float32 is widened to float64.
    pub values: Vec<f64>,
}

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
}

/// Why a file could not be read as expected; one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file cannot be opened or read.
    #[error("{} could not be read ({source}); check its name and the rights on it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is not an npz file, or not a complete one.
    #[error("{} is not a whole .npz file ({reason}); write it again with numpy.savez", path.display())]
    NotNpz {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// An array is missing.
    #[error(
        "{} has no array {name}; add one of shape {expected}, float64 or float32 (there are: {})",
        path.display(), there.join(", ")
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The array.
        name: String,
        /// Its shape, in words.
        expected: String,
        /// The arrays that the file has.
        there: Vec<String>,
    },
    /// An array has numbers of another type.
    #[error(
        "array {name} in {} has numbers of type {found}; save it as float64 or float32, of shape {expected}",
        path.display()
    )]
    Type {
        /// The file.
        path: PathBuf,
        /// The array.
        name: String,
        /// NumPy's name of the type that was found.
        found: String,
        /// The expected shape, in words.
        expected: String,
    },
    /// An array has another shape.
    #[error("array {name} in {} has shape {found:?}; it must be {expected}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The array.
        name: String,
        /// Its shape.
        found: Vec<u64>,
        /// The expected shape, in words.
        expected: String,
    },
}

/// Reads the named arrays, in this order. They may be float64 or float32, in either byte order and memory order,
/// compressed or not, as `numpy.savez` and `numpy.savez_compressed` write them. Other arrays are not read. The first
/// array with an [`Axis::Free`] letter fixes that letter's length.
pub fn read(path: &Path, wanted: &[(&str, &[Axis])]) -> Result<Vec<NpzArray>, NpzError> {
    let file = File::open(path).map_err(|source| NpzError::Io { path: path.to_owned(), source })?;
    let not_npz = |e: io::Error| NpzError::NotNpz { path: path.to_owned(), reason: e.to_string() };
    let mut archive = NpzArchive::new(BufReader::new(file)).map_err(not_npz)?;
    let mut bound = BTreeMap::new();
    let mut arrays = Vec::with_capacity(wanted.len());
    for (name, axes) in wanted {
        arrays.push(read_array(path, &mut archive, name, axes, &mut bound)?);
    }
    Ok(arrays)
}

/// The length that each free letter stands for, and the array that fixed it.
type Bound = BTreeMap<&'static str, (usize, String)>;

fn read_array(
    path: &Path,
    archive: &mut NpzArchive<BufReader<File>>,
    name: &str,
    axes: &[Axis],
    bound: &mut Bound,
) -> Result<NpzArray, NpzError> {
    let expected = Expected { axes, bound }.to_string();
    let (path, name) = (path.to_owned(), name.to_owned());
    let there: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let broken = |e: io::Error| NpzError::NotNpz { path: path.clone(), reason: format!("array {name}: {e}") };

    // The entry's own size is known before its numbers are read, so a false shape cannot make the program reserve
    // memory for it.
    let Ok(entry) = archive.zip_archive().by_name(&npyz::npz::file_name_from_array_name(&name)) else {
        return Err(NpzError::Missing { path, name, expected, there });
    };
    let size = entry.size();
    let mut entry = BufReader::new(entry);
    let npy = NpyFile::new(&mut entry).map_err(broken)?;
    let shape = npy.shape().to_vec();
    if !fits(&shape, axes, bound) {
        return Err(NpzError::Shape { path, name, found: shape, expected });
    }
    let width = match npy.dtype() {
        DType::Plain(t) if t.type_char().to_str() == "f" && matches!(t.size_field(), 4 | 8) => t.size_field(),
        other => return Err(NpzError::Type { path, name, found: other.descr(), expected }),
    };
    let bytes = shape.iter().try_fold(width, |bytes, &n| bytes.checked_mul(n));
    if bytes.is_none_or(|bytes| bytes > size) {
        return Err(broken(io::Error::other(format!("its shape is {shape:?} but it has only {size} bytes"))));
    }
    let fortran = npy.order() == Order::Fortran;
    let values: Vec<f64> = match width {
        4 => npy.into_vec::<f32>().map(|v| v.into_iter().map(f64::from).collect()),
        _ => npy.into_vec::<f64>(),
    }
    .map_err(broken)?;
    // The archive compares the entry's CRC only when it is read to the end.
    io::copy(&mut entry, &mut io::sink()).map_err(broken)?;

    for (axis, &n) in axes.iter().zip(&shape) {
        if let Axis::Free(letter) = axis {
            bound.entry(letter).or_insert((n as usize, name.clone()));
        }
    }
    let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
    let values = if fortran { to_row_major(&shape, &values) } else { values };
    Ok(NpzArray { shape, values })
}

fn fits(shape: &[u64], axes: &[Axis], bound: &Bound) -> bool {
    shape.len() == axes.len()
        && shape.iter().zip(axes).all(|(&n, axis)| match axis {
            Axis::Free(letter) => bound.get(letter).is_none_or(|(there, _)| *there as u64 == n),
            Axis::Exactly(_, exactly) => *exactly as u64 == n,
        })
}

/// The numbers of a column-major array in row-major order.
fn to_row_major(shape: &[usize], values: &[f64]) -> Vec<f64> {
    let at = |mut row_major: usize| {
        // The last axis varies fastest in the row-major index, the first axis in the column-major one.
        let mut index = vec![0; shape.len()];
        for (i, &n) in index.iter_mut().zip(shape).rev() {
            *i = row_major % n;
            row_major /= n;
        }
        index.iter().zip(shape).rev().fold(0, |column_major, (&i, &n)| column_major * n + i)
    };
    (0..values.len()).map(|i| values[at(i)]).collect()
}

/// A shape in words: `[N, nq] with N = 5 (as in qpos), nq = 6`.
struct Expected<'a> {
    axes: &'a [Axis],
    bound: &'a Bound,
}

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let letters: Vec<&str> = self
            .axes
            .iter()
            .map(|axis| match axis {
                Axis::Free(letter) | Axis::Exactly(letter, _) => *letter,
            })
            .collect();
        write!(f, "[{}]", letters.join(", "))?;
        let known: Vec<String> = (self.axes.iter())
            .filter_map(|axis| match axis {
                Axis::Exactly(letter, n) => Some(format!("{letter} = {n}")),
                Axis::Free(letter) => {
                    self.bound.get(letter).map(|(n, array)| format!("{letter} = {n} (as in {array})"))
                }
            })
            .collect();
        match known.is_empty() {
            true => Ok(()),
            false => write!(f, " with {}", known.join(", ")),
        }
    }
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
    fn column_major_arrays_of_three_axes_are_turned() {
        // numpy: arange(24).reshape(2, 3, 4).ravel("F")
        let column_major =
            [0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15, 7, 19, 11, 23].map(f64::from);
        assert_eq!(to_row_major(&[2, 3, 4], &column_major), (0..24).map(f64::from).collect::<Vec<_>>());
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
