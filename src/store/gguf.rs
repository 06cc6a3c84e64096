//! Reads GGUF files, llama.cpp's format: metadata by key, and tensors in whole numbers or in blocks of quantised ones.
//! Nothing here knows of the rest of the store, so that the fuzz target reads by the same lines.

// The path is given because the fuzz target takes this file by its path.
#[path = "gguf/blocks.rs"]
mod blocks;

use blocks::{Kind, LONGEST, widen};
use flipside_core::{Array, ArrayData, Arrays, one_line};
use serde_json::{Map, Number, Value};

/// What a GGUF file begins with.
pub const MAGIC: &[u8] = b"GGUF";

/// Lists within lists in the metadata, at most. llama.cpp writes none.
const DEEPEST: usize = 2;

/// The names of all number types, by their numbers.
const NAMES: [&str; 40] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
];

/// The metadata and the tensors of a file. Quantised tensors become f32, or bf16 with `half`; others stay as they are.
/// Memory stays within a small multiple of the file's size, whatever it says of itself.
///
/// # Errors
///
/// Bytes that are not a whole GGUF file of version 2 or 3, or a tensor of another number type; the error names it.
pub fn decode(bytes: &[u8], half: bool) -> Result<(Map<String, Value>, Arrays), String> {
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.take(4)? != MAGIC {
        return Err("it does not begin with GGUF".to_owned());
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("its version is {version}; expected 2 or 3"));
    }
    let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
    let mut metadata = Map::new();
    for _ in 0..entries {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, 0)?;
        metadata.insert(key, value);
    }
    let mut infos = vec![];
    for _ in 0..tensors {
        infos.push(cursor.info()?);
    }
    let alignment = metadata.get("general.alignment").map_or(Some(32), Value::as_u64);
    let alignment =
        alignment.filter(|&n| n > 0 && n <= 1 << 20).ok_or("its general.alignment is no number of bytes")?;
    let start = (cursor.at as u64).next_multiple_of(alignment);
    let data = usize::try_from(start).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    // Tensors that share their bytes could claim any amount of memory.
    let claimed = infos.iter().try_fold(0_u64, |sum, info| sum.checked_add(info.bytes));
    if claimed.is_none_or(|claimed| claimed > data.len() as u64) {
        return Err("its tensors take more bytes than it has; it was cut short".to_owned());
    }
    let mut arrays = Arrays::new();
    for info in infos {
        let end = info.offset.checked_add(info.bytes).filter(|&end| end <= data.len() as u64);
        let Some(end) = end else { return Err(format!("tensor {} lies beyond its end", one_line(&info.name))) };
        let part = &data[info.offset as usize..end as usize];
        arrays.insert(info.name, Array { shape: info.shape, data: numbers(info.kind, part, half) });
    }
    Ok((metadata, arrays))
}

/// Where a tensor lies.
struct Info {
    name: String,
    /// Row-major.
    shape: Vec<usize>,
    kind: Kind,
    offset: u64,
    bytes: u64,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let part = usize::try_from(count).ok().and_then(|count| self.bytes.get(self.at..)?.get(..count));
        let part = part.ok_or("it ends too early; it was cut short")?;
        self.at += part.len();
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let part = self.take(N as u64)?;
        part.try_into().map_err(|_| "it ends too early; it was cut short".to_owned())
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.u64()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// A value of the metadata, by the number of its type.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        let real = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            // The shortest decimal that is this f32: 1e-5 stays 1e-5.
            6 => real(f32::from_le_bytes(self.array()?).to_string().parse().unwrap_or(f64::NAN)),
            7 => (self.array::<1>()?[0] != 0).into(),
            8 => self.text()?.into(),
            9 if depth < DEEPEST => {
                let (kind, count) = (self.u32()?, self.u64()?);
                let mut list = vec![];
                for _ in 0..count {
                    list.push(self.value(kind, depth + 1)?);
                }
                list.into()
            }
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            12 => real(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("its metadata has a value of the unknown type {other}")),
        })
    }

    fn info(&mut self) -> Result<Info, String> {
        let name = self.text()?;
        let axes = self.u32()?;
        if axes > 8 {
            return Err(format!("tensor {} has {axes} axes", one_line(&name)));
        }
        let mut shape = vec![];
        for _ in 0..axes {
            shape.push(self.u64()?);
        }
        let (number, offset) = (self.u32()?, self.u64()?);
        let Some(kind) = Kind::of(number) else {
            let known = NAMES.get(number as usize).copied().map_or_else(|| format!("type {number}"), str::to_owned);
            return Err(format!(
                "tensor {} is in {known}; F32, F16, BF16, Q8_0, Q5_0, Q5_1, Q4_0, Q4_1 and Q2_K to Q6_K are read",
                one_line(&name)
            ));
        };
        let [numbers, size] = kind.block().map(|n| n as u64);
        let count = shape.iter().try_fold(1_u64, |product, &n| product.checked_mul(n));
        let bytes = count
            .filter(|&count| count > 0 && count.is_multiple_of(numbers))
            .and_then(|count| (count / numbers).checked_mul(size));
        let Some(bytes) = bytes else { return Err(format!("tensor {} has an impossible shape", one_line(&name))) };
        let shape = shape.iter().rev().map(|&n| usize::try_from(n)).collect::<Result<Vec<usize>, _>>();
        let shape = shape.map_err(|_| format!("tensor {} has an impossible shape", one_line(&name)))?;
        Ok(Info { name, shape, kind, offset, bytes })
    }
}

/// The numbers of a tensor whose bytes are these.
fn numbers(kind: Kind, bytes: &[u8], half: bool) -> ArrayData {
    match kind {
        Kind::F32 => return ArrayData::F32(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        Kind::F16 => return ArrayData::F16(bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect()),
        Kind::Bf16 => return ArrayData::Bf16(bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect()),
        _ => {}
    }
    let [count, size] = kind.block();
    let blocks = bytes.chunks_exact(size);
    let mut block = [0.0_f32; LONGEST];
    let block = &mut block[..count];
    if half {
        let mut all = Vec::with_capacity(blocks.len() * count);
        for bytes in blocks {
            widen(kind, bytes, block);
            all.extend(block.iter().map(|&number| bf16(number)));
        }
        ArrayData::Bf16(all)
    } else {
        let mut all = Vec::with_capacity(blocks.len() * count);
        for bytes in blocks {
            widen(kind, bytes, block);
            all.extend_from_slice(block);
        }
        ArrayData::F32(all)
    }
}

/// The bits of the nearest brain float, ties to even.
fn bf16(number: f32) -> u16 {
    let bits = number.to_bits();
    if number.is_nan() {
        return (bits >> 16) as u16 | 64;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}
