//! Files of training data: UTF-8, also compressed with gzip, and Parquet if the program was built with it. What a file
//! is, its first bytes say, whatever its name.

use super::StoreError;
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a file of training data holds.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainingData {
    /// Text: JSON lines, or a JSON array.
    Text(String),
    /// The rows of a table.
    Rows(Vec<Value>),
}

/// The files of training data in a folder, by name: those that end with `.json`, `.jsonl` or `.parquet`, or with one of
/// these and `.gz`.
///
/// # Errors
///
/// The folder cannot be read.
pub fn data_files_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error| StoreError::io(folder, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        if path.is_file() && [".json", ".jsonl", ".parquet"].iter().any(|end| name.ends_with(end)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Beginnings of files that cannot be read, and what they are.
const OTHERS: &[(&[u8], &str)] = &[
    (b"\x28\xb5\x2f\xfd", "it is compressed with Zstandard; unpack it, or compress it with gzip"),
    (b"PK\x03\x04", "it is a ZIP archive; unpack it"),
    (b"BZh", "it is compressed with bzip2; unpack it, or compress it with gzip"),
    (b"\xfd7zXZ\x00", "it is compressed with xz; unpack it, or compress it with gzip"),
    (b"ARROW1", "it is an Arrow file; save it as JSON lines"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file; fetch the file with `git lfs pull`"),
    (b"\xff\xfe\x00\x00", "it is UTF-32; save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "it is UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "it is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16; save it as UTF-8"),
];

/// Reads a file of training data.
///
/// # Errors
///
/// The file does not exist, or is in an encoding or a format that is not read, which the error names.
pub fn read_data(path: &Path) -> Result<TrainingData, StoreError> {
    let mut bytes = fs::read(path).map_err(|error| StoreError::io(path, error))?;
    let refused = |reason: String| StoreError::DataFile { path: path.to_owned(), reason };
    if bytes.starts_with(b"\x1f\x8b") {
        let mut unpacked = Vec::new();
        let read = MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked);
        read.map_err(|error| refused(format!("it is damaged: {error}; fetch it again")))?;
        bytes = unpacked;
    }
    if bytes.starts_with(b"PAR1") {
        return rows(path).map(TrainingData::Rows).map_err(refused);
    }
    if let Some((_, what)) = OTHERS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Err(refused((*what).to_owned()));
    }
    // JSON begins with a bracket or a space, of which UTF-16 makes a zero and another byte.
    if matches!(bytes.as_slice(), [0, 1..=255, ..] | [1..=255, 0, ..]) {
        return Err(refused("it is UTF-16; save it as UTF-8".to_owned()));
    }
    String::from_utf8(bytes).map(TrainingData::Text).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = 1 + bytes[..place].iter().filter(|&&byte| byte == b'\n').count();
        let byte = bytes[place];
        refused(format!(
            "line {line} is not UTF-8 (byte 0x{byte:02X}), it may be Latin-1 or Windows-1252; save it as UTF-8"
        ))
    })
}

#[cfg(feature = "parquet")]
fn rows(path: &Path) -> Result<Vec<Value>, String> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let damaged = |error: parquet::errors::ParquetError| format!("its table cannot be read ({error}); fetch it again");
    let file = fs::File::open(path).map_err(|error| format!("it cannot be opened ({error}); check the disk"))?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let rows = reader.get_row_iter(None).map_err(damaged)?;
    rows.map(|row| row.map(|row| row.to_json_value()).map_err(damaged)).collect()
}

#[cfg(not(feature = "parquet"))]
fn rows(_: &Path) -> Result<Vec<Value>, String> {
    Err("it is a Parquet file; build Flipside with `--features parquet`, or save it as JSON lines".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    #[test]
    fn a_file_is_read_or_named_by_its_bytes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data.jsonl");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_data(&path)
        };
        let text = "{\"text\": \"Größe\"}\n";
        let plain = TrainingData::Text(text.to_owned());
        assert_eq!(read(text.as_bytes()).unwrap(), plain);
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(text.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(read(&packed).unwrap(), plain);
        // Several parts in one file, as `cat a.gz b.gz` makes them.
        assert_eq!(read(&[packed.clone(), packed.clone()].concat()).unwrap(), TrainingData::Text(text.repeat(2)));
        let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for (bytes, words) in [
            (packed[..packed.len() - 9].to_vec(), "damaged"),
            (utf_16(&format!("\u{feff}{text}")), "UTF-16"),
            (utf_16(text), "UTF-16"),
            ("{\"text\": \"日本\"}".encode_utf16().flat_map(u16::to_be_bytes).collect(), "UTF-16"),
            ("\u{feff}{}".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(), "UTF-32"),
            (b"{\"text\": \"a\"}\n{\"text\": \"Gr\xf6\xdfe\"}".to_vec(), "line 2 is not UTF-8 (byte 0xF6)"),
            (b"PK\x03\x04 and more".to_vec(), "ZIP"),
            (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS"),
        ] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("data.jsonl"), "{error}");
        }
        if cfg!(not(feature = "parquet")) {
            assert!(read(b"PAR1...").unwrap_err().to_string().contains("--features parquet"));
        }
    }
    /// `tests/golden/text/make_parquet.py` writes the file with pyarrow.
    #[test]
    #[cfg(feature = "parquet")]
    fn a_parquet_file_has_the_rows_that_were_written() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/chats.parquet");
        let said = |role: &str, content: &str| serde_json::json!({ "role": role, "content": content });
        let expected = vec![
            serde_json::json!({ "messages": [said("user", "How far?"), said("assistant", "Größe 🫖")], "score": 0.5 }),
            serde_json::json!({ "messages": [said("user", "And why?"), said("assistant", "So.")], "score": null }),
        ];
        assert_eq!(read_data(&path).unwrap(), TrainingData::Rows(expected));
        let whole = fs::read(&path).unwrap();
        let root = tempfile::tempdir().unwrap();
        let cut = root.path().join("cut.parquet");
        fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
        let error = read_data(&cut).unwrap_err().to_string();
        assert!(error.contains("its table cannot be read"), "{error}");
    }
}
