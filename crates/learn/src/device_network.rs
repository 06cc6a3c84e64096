//! Small networks as shaders/learn/network.wgsl computes them.

use super::Layer;
use bytemuck::{Pod, Zeroable};
use flipside_gpu::Source;

/// The shader code that computes layers, imported by other shaders as `network`. The activation between layers is tanh;
/// if `RECTIFIES` is defined it is a leaky rectifier (slope 0.01 below 0), and if `UNDULATES` is defined it is cos 2πx.
pub const NETWORK: Source = ("shaders/learn/network.wgsl", include_str!("../../../shaders/learn/network.wgsl"));

/// Where a layer's numbers lie: the shader's struct `Layer`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DeviceLayer {
    inputs: u32,
    columns: u32,
    weight: u32,
    bias: u32,
}

/// The layers of one or more networks, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceLayers {
    /// One row per layer.
    pub rows: Vec<DeviceLayer>,
    /// For each layer: a row of outputs for each input, then the biases. Rows are padded with zeros to vectors of four.
    pub numbers: Vec<f32>,
}

impl DeviceLayers {
    /// These layers.
    pub fn new<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> DeviceLayers {
        let mut packed = DeviceLayers::default();
        layers.into_iter().for_each(|layer| packed.push(layer));
        packed
    }

    /// Appends a layer.
    fn push(&mut self, layer: &Layer) {
        let (columns, at) = (columns(layer.outputs), self.numbers.len() / 4);
        let bias = at + layer.inputs * columns;
        let [inputs, columns, weight, bias] = [layer.inputs, columns, at, bias].map(|n| n as u32);
        self.rows.push(DeviceLayer { inputs, columns, weight, bias });
        let mut row = |numbers: &mut dyn Iterator<Item = f32>| {
            self.numbers.extend(numbers);
            self.numbers.resize(self.numbers.len().next_multiple_of(4), 0.0);
        };
        for input in 0..layer.inputs {
            row(&mut (0..layer.outputs).map(|output| layer.weight[output * layer.inputs + input]));
        }
        row(&mut layer.bias.iter().copied());
    }
}

/// How many vectors of four hold so many numbers.
pub fn columns(numbers: usize) -> usize {
    numbers.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_gpu::{Definitions, compose, reflected};
    use std::mem::offset_of;

    #[test]
    fn a_layer_lies_as_the_shader_reads_it() {
        let module = compose(&[], NETWORK, &Definitions::default());
        let at = [
            ("inputs", offset_of!(DeviceLayer, inputs)),
            ("columns", offset_of!(DeviceLayer, columns)),
            ("weight", offset_of!(DeviceLayer, weight)),
            ("bias", offset_of!(DeviceLayer, bias)),
        ];
        let members = at.map(|(name, at)| (name.to_owned(), at)).to_vec();
        assert_eq!(reflected(&module, "Layer"), Some((members, size_of::<DeviceLayer>())));

        let layer = Layer { inputs: 2, outputs: 1, weight: vec![1.0, 2.0], bias: vec![3.0] };
        let packed = DeviceLayers::new([&layer, &layer]);
        let row = [1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0];
        assert_eq!(packed.numbers, [row, row].concat());
        assert_eq!(packed.rows[1], DeviceLayer { inputs: 2, columns: 1, weight: 3, bias: 5 });
    }
}
