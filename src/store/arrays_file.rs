//! [`Arrays`] as a safetensors file in memory: a JSON header with names, shapes and metadata,
//! then the numbers, little-endian.
//!
//! The format has no checksum, so Flipside's own files carry one in their metadata: see [`encode`].

use flipside_core::{Array, ArrayData, Arrays, fnv1a, fnv1a_on, one_line};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, View, serialize};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;

/// The only metadata entry of Flipside's own files. There is only one, because the safetensors crate writes several in
/// random order, and equal content should give equal bytes.
const ENTRY: &str = "flipside";

/// What that entry holds, as JSON.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The caller's header, itself JSON.
    header: String,
    /// [`checksum`] of the header and the arrays, in hexadecimal.
    checksum: String,
}

/// The bytes of a file with these arrays, this header and a checksum that [`decode`] verifies.
pub(super) fn encode(header: &str, arrays: &Arrays) -> Result<Vec<u8>, String> {
    let sealed = Sealed { header: header.to_owned(), checksum: checksum(header, arrays) };
    let entry = serde_json::to_string(&sealed).map_err(|e| e.to_string())?;
    encode_plain(HashMap::from([(ENTRY.to_owned(), entry)]), arrays)
}

/// The header and the arrays, bit for bit as they were given to [`encode`], or what is wrong with the bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<(String, Arrays), String> {
    let (mut metadata, arrays) = decode_plain(bytes)?;
    let entry = metadata.remove(ENTRY).ok_or("it is a safetensors file of another program")?;
    let sealed: Sealed =
        serde_json::from_str(&entry).map_err(|e| one_line(&format!("its metadata cannot be read: {e}")))?;
    match checksum(&sealed.header, &arrays) == sealed.checksum {
        true => Ok((sealed.header, arrays)),
        false => Err("its numbers do not match its checksum".to_owned()),
    }
}

/// A safetensors file with these arrays and this metadata, without a checksum.
pub(super) fn encode_plain<'a, S: AsRef<str> + Ord + Display>(
    metadata: HashMap<String, String>,
    arrays: impl IntoIterator<Item = (S, &'a Array)>,
) -> Result<Vec<u8>, String> {
    serialize(arrays.into_iter().map(|(name, array)| (name, Viewed(array))), Some(metadata)).map_err(|e| e.to_string())
}

/// The bytes of [`encode_plain`] with the header's entries in order, so that equal content gives equal bytes even with
/// several metadata entries, which the safetensors crate writes in random order.
pub(super) fn in_order(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let [length @ .., _, _, _, _] = bytes.first_chunk::<12>().ok_or("it has no header")?;
    let end = 8 + u64::from_le_bytes(*length) as usize;
    let header = bytes.get(8..end).ok_or("its header is cut")?;
    let sorted: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_slice(header).map_err(|e| one_line(&e.to_string()))?;
    let mut sorted = serde_json::to_vec(&sorted).map_err(|e| e.to_string())?;
    // The crate pads the header with spaces.
    sorted.resize(end - 8, b' ');
    bytes[8..end].copy_from_slice(&sorted);
    Ok(bytes)
}

/// Reads any safetensors file. Arrays whose number type [`ArrayData`] lacks are left out, as transformers leaves out
/// masks and counters that a model does not name.
pub(super) fn decode_plain(bytes: &[u8]) -> Result<(HashMap<String, String>, Arrays), String> {
    decode_known(bytes).map(|(metadata, arrays, _)| (metadata, arrays))
}

/// The metadata of a file, its arrays, and the names of those that were left out.
type Decoded = (HashMap<String, String>, Arrays, BTreeSet<String>);

/// [`decode_plain`], with the names of the arrays that were left out.
pub(super) fn decode_known(bytes: &[u8]) -> Result<Decoded, String> {
    // Names are whatever the file says.
    let refused = |e: SafeTensorError| one_line(&e.to_string());
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(refused)?;
    let file = SafeTensors::deserialize(bytes).map_err(refused)?;
    let (mut arrays, mut left_out) = (Arrays::new(), BTreeSet::new());
    for (name, tensor) in file.iter() {
        fn numbers<const N: usize, T>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks::<N>().0.iter().map(|&b| number(b)).collect()
        }
        let bytes = tensor.data();
        let data = match tensor.dtype() {
            Dtype::F32 => ArrayData::F32(numbers(bytes, f32::from_le_bytes)),
            Dtype::F64 => ArrayData::F64(numbers(bytes, f64::from_le_bytes)),
            Dtype::BF16 => ArrayData::Bf16(numbers(bytes, u16::from_le_bytes)),
            Dtype::F16 => ArrayData::F16(numbers(bytes, u16::from_le_bytes)),
            Dtype::I64 => ArrayData::I64(numbers(bytes, i64::from_le_bytes)),
            Dtype::U64 => ArrayData::U64(numbers(bytes, u64::from_le_bytes)),
            _ => {
                left_out.insert(name.to_owned());
                continue;
            }
        };
        arrays.insert(name.to_owned(), Array { shape: tensor.shape().to_vec(), data });
    }
    Ok((metadata.metadata().clone().unwrap_or_default(), arrays, left_out))
}

/// The numbers as the bytes that the file holds.
fn bytes(array: &Array) -> Vec<u8> {
    fn flat<const N: usize, T: Copy>(numbers: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
        numbers.iter().flat_map(|&x| bytes(x)).collect()
    }
    match &array.data {
        ArrayData::F32(v) => flat(v, f32::to_le_bytes),
        ArrayData::F64(v) => flat(v, f64::to_le_bytes),
        ArrayData::Bf16(v) | ArrayData::F16(v) => flat(v, u16::to_le_bytes),
        ArrayData::I64(v) => flat(v, i64::to_le_bytes),
        ArrayData::U64(v) => flat(v, u64::to_le_bytes),
    }
}

/// A hash over the header and every array's name, type, shape and numbers. Each part is hashed after its length, so
/// that different contents never hash the same bytes.
pub(super) fn checksum(header: &str, arrays: &Arrays) -> String {
    let sized = |hash: u64, bytes: &[u8]| fnv1a_on(fnv1a_on(hash, &(bytes.len() as u64).to_le_bytes()), bytes);
    let mut hash = sized(fnv1a(b""), header.as_bytes());
    for (name, array) in arrays {
        hash = sized(hash, name.as_bytes());
        hash = sized(hash, format!("{:?} {:?}", Viewed(array).dtype(), array.shape).as_bytes());
        hash = sized(hash, &bytes(array));
    }
    format!("{hash:016x}")
}

/// An array as safetensors views it.
struct Viewed<'a>(&'a Array);

impl View for Viewed<'_> {
    fn dtype(&self) -> Dtype {
        match &self.0.data {
            ArrayData::F32(_) => Dtype::F32,
            ArrayData::F64(_) => Dtype::F64,
            ArrayData::Bf16(_) => Dtype::BF16,
            ArrayData::F16(_) => Dtype::F16,
            ArrayData::I64(_) => Dtype::I64,
            ArrayData::U64(_) => Dtype::U64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(bytes(self.0))
    }

    fn data_len(&self) -> usize {
        self.0.bytes()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// Every number type, a scalar, an empty array, and numbers that are easily lost.
    pub fn awkward() -> Arrays {
        Arrays::from([
            ("actor.0.weight".to_owned(), Array::f32(&[2, 3], vec![1.5, -0.0, f32::NAN, f32::INFINITY, 1e-45, -3.0])),
            ("norm.mean".to_owned(), Array::f64(&[2], vec![f64::MIN_POSITIVE, -1e300])),
            ("stream".to_owned(), Array::u64(vec![u64::MAX, 0, 0x8000_0000_0000_0001, 1])),
            ("step".to_owned(), Array { shape: vec![], data: ArrayData::I64(vec![i64::MIN]) }),
            ("brain".to_owned(), Array { shape: vec![2], data: ArrayData::Bf16(vec![0x7fc1, 0x8000]) }),
            ("half".to_owned(), Array { shape: vec![1, 1], data: ArrayData::F16(vec![0x7e01]) }),
            ("empty".to_owned(), Array::f32(&[0, 4], vec![])),
        ])
    }

    #[test]
    fn arrays_come_back_bit_for_bit() {
        let (header, arrays) = decode(&encode("{\"a\":1}", &awkward()).unwrap()).unwrap();
        assert_eq!(header, "{\"a\":1}");
        assert_eq!(arrays.keys().collect::<Vec<_>>(), awkward().keys().collect::<Vec<_>>());
        for (name, array) in awkward() {
            assert_eq!((&arrays[&name].shape, bytes(&arrays[&name])), (&array.shape, bytes(&array)), "{name}");
        }
        assert_eq!(encode("x", &awkward()).unwrap(), encode("x", &awkward()).unwrap(), "equal content, equal bytes");
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let whole = encode("{}", &awkward()).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            // Padding, such as at the header's end, may change without harm. Then the content must be the same.
            if let Ok((header, arrays)) = decode(&bytes) {
                assert_eq!(encode(&header, &arrays).unwrap(), whole, "byte {at}");
            }
            decode(&whole[..at]).unwrap_err();
        }
    }

    /// An array of any type, of up to three axes, with any bits.
    fn any_array() -> impl Strategy<Value = Array> {
        let bits = vec(0..4_usize, 0..4).prop_flat_map(|shape| {
            let count: usize = shape.iter().product();
            (Just(shape), vec(any::<u64>(), count), 0..6)
        });
        bits.prop_map(|(shape, bits, kind)| {
            let data = match kind {
                0 => ArrayData::F32(bits.iter().map(|&bits| f32::from_bits(bits as u32)).collect()),
                1 => ArrayData::F64(bits.iter().map(|&bits| f64::from_bits(bits)).collect()),
                2 => ArrayData::Bf16(bits.iter().map(|&bits| bits as u16).collect()),
                3 => ArrayData::F16(bits.iter().map(|&bits| bits as u16).collect()),
                4 => ArrayData::I64(bits.iter().map(|&bits| bits as i64).collect()),
                _ => ArrayData::U64(bits),
            };
            Array { shape, data }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 500,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_arrays_come_back_bit_for_bit(
            header in any::<String>(),
            given in btree_map("[a-zäß0-9._\"\\\\\n-]{0,12}", any_array(), 0..6),
        ) {
            let (read, arrays) = decode(&encode(&header, &given).unwrap()).unwrap();
            prop_assert_eq!(read, header);
            let parts = |arrays: &Arrays| -> Vec<_> {
                arrays.iter().map(|(name, array)| (name.clone(), array.shape.clone(), bytes(array))).collect()
            };
            prop_assert_eq!(parts(&arrays), parts(&given));
        }
    }

    /// `tests/golden/python.safetensors` was written by Python's safetensors 0.8 with numpy 2.4:
    /// `save_file({"f": arange(6, dtype=f4).reshape(2, 3) / 4, "d": array([1e-300, -0.5]),
    /// "u": array([2**64 - 1, 7], u8), "i": array(-5)}, path, {"made_by": "numpy"})`
    #[test]
    fn reads_what_pythons_safetensors_writes() {
        let (metadata, arrays) = decode_plain(include_bytes!("../../tests/golden/python.safetensors")).unwrap();
        assert_eq!(metadata["made_by"], "numpy");
        let expected = Arrays::from([
            ("f".to_owned(), Array::f32(&[2, 3], vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.25])),
            ("d".to_owned(), Array::f64(&[2], vec![1e-300, -0.5])),
            ("u".to_owned(), Array::u64(vec![u64::MAX, 7])),
            ("i".to_owned(), Array { shape: vec![], data: ArrayData::I64(vec![-5]) }),
        ]);
        assert_eq!(arrays, expected);
        assert!(
            decode(include_bytes!("../../tests/golden/python.safetensors")).unwrap_err().contains("another program")
        );
    }

    #[test]
    fn stray_arrays_of_other_types_are_left_out() {
        let header = r#"{"mask":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]},"n":{"dtype":"I32","shape":[],
            "data_offsets":[2,6]},"w":{"dtype":"F32","shape":[1],"data_offsets":[6,10]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([1, 0, 7, 0, 0, 0]);
        bytes.extend(0.5_f32.to_le_bytes());
        let (_, arrays, left_out) = decode_known(&bytes).unwrap();
        assert_eq!(arrays, Arrays::from([("w".to_owned(), Array::f32(&[1], vec![0.5]))]));
        assert_eq!(left_out.into_iter().collect::<Vec<_>>(), ["mask", "n"]);
    }
}
