//! Converts a model's parameters to and from the named arrays of a model folder.

use super::config::ModelConfig;
use super::error::ModelError;
use super::model::{Precision, Tensors, Transformer};
use flipside_core::{Array, ArrayData, Arrays, one_line};
use tch::{Device, Kind, Tensor};

impl Transformer {
    /// A model with a folder's weights; see [`Transformer::from_tensors`]. Arrays with other names, such as a score
    /// head, are ignored.
    ///
    /// # Errors
    ///
    /// A parameter that is missing, has the wrong shape, or holds integers.
    pub fn from_arrays(
        config: &ModelConfig,
        arrays: &Arrays,
        precision: Precision,
        device: Device,
    ) -> Result<Transformer, ModelError> {
        let tensors = arrays.iter().filter_map(|(name, array)| Some((name.clone(), tensor(array)?))).collect();
        Transformer::from_tensors(config, tensors, precision, device)
    }

    /// The base model's parameters by Hugging Face's names, in f32 or bf16 as they are stored; a tied head is left out.
    pub fn to_arrays(&self) -> Arrays {
        arrays(&self.tensors())
    }
}

/// Numbers in each of the parts that a large tensor is taken in.
const AT_A_TIME: i64 = 1 << 20;

/// The tensor of an array of floats; `None` for integers, and for a shape that libtorch cannot have.
pub fn tensor(array: &Array) -> Option<Tensor> {
    // An empty array may claim any length along its other axes.
    let shape: Vec<i64> = array.shape.iter().map(|&n| i64::try_from(n).ok()).collect::<Option<_>>()?;
    match &array.data {
        ArrayData::F32(numbers) => Tensor::from_slice(numbers).f_reshape(shape),
        ArrayData::F64(numbers) => Tensor::from_slice(numbers).to_kind(Kind::Float).f_reshape(shape),
        ArrayData::Bf16(bits) => Tensor::f_from_data_size(bytemuck::cast_slice(bits), &shape, Kind::BFloat16),
        ArrayData::F16(bits) => Tensor::f_from_data_size(bytemuck::cast_slice(bits), &shape, Kind::Half),
        ArrayData::I64(_) | ArrayData::U64(_) => return None,
    }
    .ok()
}

/// Views of a tensor's rows, about a million numbers in each, in order.
pub fn parts(tensor: &Tensor) -> Vec<Tensor> {
    let Some(&rows) = tensor.size().first() else { return vec![tensor.shallow_clone()] };
    let numbers = (tensor.numel() as i64 / rows.max(1)).max(1);
    tensor.split((AT_A_TIME / numbers).max(1), 0)
}

/// Checks that all numbers are finite, which those of a model that can be used are.
///
/// # Errors
///
/// Infinity or NaN among them; the error has this name.
pub fn check_finite(name: &str, tensor: &Tensor) -> Result<(), ModelError> {
    // A sum of finite numbers in f64 is finite. It copies its numbers as f64, so they are taken part by part.
    match parts(tensor).iter().all(|part| part.sum(Kind::Double).double_value(&[]).is_finite()) {
        true => Ok(()),
        false => Err(ModelError::NotFinite(one_line(name))),
    }
}

/// Arrays of these tensors: bf16 stays bf16, everything else becomes f32.
pub fn arrays(tensors: &Tensors) -> Arrays {
    let array = |tensor: &Tensor| {
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        let (tensor, count) = (tensor.detach().to_device(Device::Cpu).contiguous(), tensor.numel());
        if tensor.kind() == Kind::BFloat16 {
            let mut bits = vec![0_u16; count];
            tensor.copy_data_u8(bytemuck::cast_slice_mut(&mut bits), count);
            return Array { shape, data: ArrayData::Bf16(bits) };
        }
        let mut numbers = vec![0.0_f32; count];
        tensor.to_kind(Kind::Float).copy_data(&mut numbers, count);
        Array::f32(&shape, numbers)
    };
    tensors.iter().map(|(name, tensor)| (name.clone(), array(tensor))).collect()
}
