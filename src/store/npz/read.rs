//! Reading `.npz` files. Nothing here knows of the rest of the store, so that the fuzz target reads by the same lines.

use flipside_core::one_line;
use npyz::npz::NpzArchive;
use npyz::{DType, NpyFile, Order};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
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
    read_from(BufReader::new(file), path, wanted)
}

/// [`read`] of anything that holds the bytes of a file; `path` is only for messages.
///
/// # Errors
/// As [`read`]. Memory stays within what so many bytes can hold, whatever they say of themselves.
pub fn read_from(
    mut file: impl Read + Seek,
    path: &Path,
    wanted: &[(&str, &[Axis])],
) -> Result<Vec<NpzArray>, NpzError> {
    let length = file.seek(SeekFrom::End(0)).and_then(|length| file.rewind().map(|()| length));
    let length = length.map_err(|source| NpzError::Io { path: path.to_owned(), source })?;
    let not_npz = |e: io::Error| NpzError::NotNpz { path: path.to_owned(), reason: one_line(&e.to_string()) };
    let mut archive = NpzArchive::new(file).map_err(not_npz)?;
    let mut bound = BTreeMap::new();
    let mut arrays = Vec::with_capacity(wanted.len());
    for (name, axes) in wanted {
        let most = length.saturating_mul(MOST_INFLATION);
        arrays.push(read_array(path, &mut archive, most, name, axes, &mut bound)?);
    }
    Ok(arrays)
}

/// Bytes that one byte of a deflated stream can become, at most.
const MOST_INFLATION: u64 = 1032;

/// Bytes of an array's header, at most: NumPy's own limit.
const MOST_HEADER: usize = 10_000;

/// Brackets within brackets in an array's header, at most. NumPy needs two, a structured type a few more.
const DEEPEST_HEADER: usize = 16;

/// The beginning of an array, up to its numbers, where it is one that can be parsed: the parser behind npyz calls
/// itself for every bracket, and multiplies the axes without looking.
fn header(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let refuse = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    let mut bytes = vec![0; 10];
    entry.read_exact(&mut bytes)?;
    // Six bytes of magic, two of version; the length has two bytes in version 1 and four since.
    let mut length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    if bytes[6] >= 2 {
        let mut upper = [0; 2];
        entry.read_exact(&mut upper)?;
        bytes.extend(upper);
        length |= usize::from(u16::from_le_bytes(upper)) << 16;
    }
    if length > MOST_HEADER {
        return refuse(&format!("its header has {length} bytes and NumPy's have {MOST_HEADER} at most"));
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    entry.read_exact(&mut bytes[start..])?;
    let text = String::from_utf8_lossy(&bytes[start..]);
    let mut depth = 0_usize;
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST_HEADER {
            return refuse("its header has brackets within brackets within brackets");
        }
    }
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    match numbers.try_fold(1_u64, |product, digits| product.checked_mul(digits.parse().ok()?)) {
        Some(_) => Ok(bytes),
        None => refuse("its shape has more numbers than can be counted"),
    }
}

/// The length that each free letter stands for, and the array that fixed it.
type Bound = BTreeMap<&'static str, (usize, String)>;

fn read_array(
    path: &Path,
    archive: &mut NpzArchive<impl Read + Seek>,
    most: u64,
    name: &str,
    axes: &[Axis],
    bound: &mut Bound,
) -> Result<NpzArray, NpzError> {
    let expected = Expected { axes, bound }.to_string();
    let (path, name) = (path.to_owned(), name.to_owned());
    let there: Vec<String> = archive.array_names().map(one_line).collect();
    let broken =
        |e: io::Error| NpzError::NotNpz { path: path.clone(), reason: one_line(&format!("array {name}: {e}")) };

    // The entry's own size is known before its numbers are read, and what the file can hold at all before that, so a
    // false shape or size cannot make us reserve memory for it.
    let Ok(entry) = archive.zip_archive().by_name(&npyz::npz::file_name_from_array_name(&name)) else {
        return Err(NpzError::Missing { path, name, expected, there });
    };
    let size = entry.size().min(most);
    let mut entry = BufReader::new(entry);
    let header = header(&mut entry).map_err(broken)?;
    let npy = NpyFile::new(header.as_slice().chain(&mut entry)).map_err(|e| {
        // The parser's own words draw the place on several lines.
        let drawn = e.to_string().contains('\n');
        broken(if drawn { io::Error::other("its header is not the dictionary that NumPy writes") } else { e })
    })?;
    let shape = npy.shape().to_vec();
    if !fits(&shape, axes, bound) {
        return Err(NpzError::Shape { path, name, found: shape, expected });
    }
    let width = match npy.dtype() {
        DType::Plain(t) if t.type_char().to_str() == "f" && matches!(t.size_field(), 4 | 8) => t.size_field(),
        other => return Err(NpzError::Type { path, name, found: one_line(&other.descr()), expected }),
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

#[cfg(test)]
mod tests {
    use super::Axis::{Exactly, Free};
    use super::*;
    use std::io::Cursor;

    #[test]
    fn column_major_arrays_of_three_axes_are_turned() {
        // numpy: arange(24).reshape(2, 3, 4).ravel("F")
        let column_major =
            [0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15, 7, 19, 11, 23].map(f64::from);
        assert_eq!(to_row_major(&[2, 3, 4], &column_major), (0..24).map(f64::from).collect::<Vec<_>>());
    }

    /// An archive whose one entry, `qpos`, has this header and no numbers, and says of itself that it has so many
    /// bytes.
    fn archive(header: &str, claims: u32) -> Vec<u8> {
        let mut entry = b"\x93NUMPY\x01\0".to_vec();
        entry.extend((header.len() as u16).to_le_bytes());
        entry.extend(header.as_bytes());
        let (name, mut bytes) = ("qpos.npy", vec![]);
        // Local header, entry, central directory, its end; stored, with the sizes where the format has them.
        let sizes = |bytes: &mut Vec<u8>| {
            bytes.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend((entry.len() as u32).to_le_bytes());
            bytes.extend(claims.to_le_bytes());
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend([0, 0]);
        };
        bytes.extend(b"PK\x03\x04");
        sizes(&mut bytes);
        bytes.extend(name.as_bytes());
        bytes.extend(&entry);
        let directory = bytes.len();
        bytes.extend(b"PK\x01\x02\x14\0");
        sizes(&mut bytes);
        bytes.extend([0; 14]);
        bytes.extend(name.as_bytes());
        let length = bytes.len() - directory;
        bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        bytes.extend((length as u32).to_le_bytes());
        bytes.extend((directory as u32).to_le_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    #[test]
    fn a_header_that_lies_costs_neither_memory_nor_the_stack() {
        let reason = |header: &str, claims: u32| {
            let wanted: [(&str, &[Axis]); 1] = [("qpos", &[Free("N"), Exactly("nq", 2)])];
            let bytes = archive(header, claims);
            match read_from(Cursor::new(bytes), Path::new("in.npz"), &wanted) {
                Err(NpzError::NotNpz { reason, .. }) => reason,
                other => panic!("{other:?}"),
            }
        };
        let shape = |shape: &str| format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n");
        // The directory says that there are four gigabytes, which the file has no room for.
        let lies = reason(&shape("(200000000, 2)"), u32::MAX);
        assert!(lies.contains("its shape is [200000000, 2] but it has only"), "{lies}");
        let lies = reason(&shape("(9223372036854775807, 2, 2)"), 100);
        assert!(lies.contains("more numbers than can be counted"), "{lies}");
        let lies = reason(&"(".repeat(9_000), 100);
        assert!(lies.contains("brackets within brackets"), "{lies}");
        let lies = reason("{'descr': '<f8', 'fortran_order': False'fospche': (0, 3), }\n", 100);
        assert!(lies.ends_with("its header is not the dictionary that NumPy writes"), "{lies}");
        let lies = reason(&" ".repeat(20_000), 100);
        assert!(lies.contains("20000 bytes"), "{lies}");
    }
}
