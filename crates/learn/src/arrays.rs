//! Reads saved arrays, with errors that name the array.

use super::LearnError;
use flipside_core::{Array, ArrayData, Arrays, Stream};

/// Looks arrays up by name and checks kind and shape.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a Arrays);

impl<'a> Reader<'a> {
    /// The f32 array of this name and shape.
    pub fn f32(self, name: &str, shape: &[usize]) -> Result<&'a [f32], LearnError> {
        let array = self.shaped(name, shape)?;
        array.as_f32().ok_or_else(|| wrong(name, format!("{}, not f32", kind(array))))
    }

    /// The f64 array of this name and shape.
    pub fn f64(self, name: &str, shape: &[usize]) -> Result<&'a [f64], LearnError> {
        let array = self.shaped(name, shape)?;
        array.as_f64().ok_or_else(|| wrong(name, format!("{}, not f64", kind(array))))
    }

    /// The u64 words of this name.
    pub fn words<const N: usize>(self, name: &str) -> Result<[u64; N], LearnError> {
        let array = self.shaped(name, &[N])?;
        let words = array.as_u64().ok_or_else(|| wrong(name, format!("{}, not u64", kind(array))))?;
        words.try_into().map_err(|_| wrong(name, format!("{} words long, not {N}", words.len())))
    }

    /// The random stream saved under this name.
    pub fn stream(self, name: &str) -> Result<Stream, LearnError> {
        self.words(name).map(Stream::from_state)
    }

    /// The shape of the array of this name.
    pub fn shape(self, name: &str) -> Result<&'a [usize], LearnError> {
        Ok(&self.get(name)?.shape)
    }

    fn get(self, name: &str) -> Result<&'a Array, LearnError> {
        self.0.get(name).ok_or_else(|| wrong(name, "missing".to_owned()))
    }

    fn shaped(self, name: &str, shape: &[usize]) -> Result<&'a Array, LearnError> {
        let array = self.get(name)?;
        let length = array.data.len();
        match array.shape == shape && length == shape.iter().product::<usize>() {
            true => Ok(array),
            false => Err(wrong(name, format!("of shape {:?} and {length} numbers, not {shape:?}", array.shape))),
        }
    }
}

fn wrong(name: &str, problem: String) -> LearnError {
    LearnError::Array { name: name.to_owned(), problem }
}

fn kind(array: &Array) -> &'static str {
    match array.data {
        ArrayData::F32(_) => "f32",
        ArrayData::F64(_) => "f64",
        ArrayData::Bf16(_) => "bf16",
        ArrayData::F16(_) => "f16",
        ArrayData::I64(_) => "i64",
        ArrayData::U64(_) => "u64",
    }
}
