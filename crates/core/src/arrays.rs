//! Named arrays: weights, optimiser state, normalisers and random streams, in the form in which the code that computes
//! them hands them to the code that stores them. Neither depends on the other.

use std::collections::BTreeMap;

/// The numbers of one array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrayData {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// 16-bit brain floats (bfloat16) as bits: the upper half of an f32.
    Bf16(Vec<u16>),
    /// 16-bit IEEE floats as bits.
    F16(Vec<u16>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// 64-bit unsigned integers: counters and the words of a random stream.
    U64(Vec<u64>),
}

/// One array with its shape; the product of the shape is the number of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Row-major shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// The numbers.
    pub data: ArrayData,
}

/// Arrays by name, in the names' order.
pub type Arrays = BTreeMap<String, Array>;

impl ArrayData {
    /// How many numbers.
    pub fn len(&self) -> usize {
        match self {
            ArrayData::F32(v) => v.len(),
            ArrayData::F64(v) => v.len(),
            ArrayData::Bf16(v) | ArrayData::F16(v) => v.len(),
            ArrayData::I64(v) => v.len(),
            ArrayData::U64(v) => v.len(),
        }
    }

    /// How many bytes the numbers take.
    pub fn bytes(&self) -> usize {
        let width = match self {
            ArrayData::Bf16(_) | ArrayData::F16(_) => 2,
            ArrayData::F32(_) => 4,
            ArrayData::F64(_) | ArrayData::I64(_) | ArrayData::U64(_) => 8,
        };
        self.len() * width
    }

    /// Whether there are no numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Array {
    /// An f32 array. `data` must hold the product of `shape` numbers.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Array {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Array { shape: shape.to_vec(), data: ArrayData::F32(data) }
    }

    /// An f64 array. `data` must hold the product of `shape` numbers.
    pub fn f64(shape: &[usize], data: Vec<f64>) -> Array {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Array { shape: shape.to_vec(), data: ArrayData::F64(data) }
    }

    /// A list of u64 words.
    pub fn u64(data: Vec<u64>) -> Array {
        Array { shape: vec![data.len()], data: ArrayData::U64(data) }
    }

    /// How many bytes its numbers take.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// The numbers, where they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            ArrayData::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The numbers, where they are f64.
    pub fn as_f64(&self) -> Option<&[f64]> {
        match &self.data {
            ArrayData::F64(v) => Some(v),
            _ => None,
        }
    }

    /// The words, where they are u64.
    pub fn as_u64(&self) -> Option<&[u64]> {
        match &self.data {
            ArrayData::U64(v) => Some(v),
            _ => None,
        }
    }
}
