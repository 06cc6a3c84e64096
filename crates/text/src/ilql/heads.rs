//! The heads of ILQL on a language model's hidden states: two Q functions, their slow copies, and V.

use flipside_core::{Array, Arrays, Stream};
use flipside_learn::{LearnError, Reader, numbers};
use rand::RngExt;
use tch::{Device, Kind, Tensor};

/// The heads, in f32 whatever the model's precision. Their arrays have the names of trlX's state dict.
#[derive(Debug)]
pub struct IlqlHeads {
    /// `[.., d]` → `[.., vocabulary]`: the return after each next token.
    q: [Head; 2],
    /// The copies, which follow slowly and have no gradients.
    slow: [Head; 2],
    /// `[.., d]` → `[.., 1]`: the return before the next token.
    v: Head,
}

/// Linear, ReLU, linear; the layer between is twice as wide as a hidden state.
#[derive(Debug)]
struct Head {
    /// `[2d, d]`, `[2d]`, `[out, 2d]`, `[out]`.
    tensors: [Tensor; 4],
}

/// The names of a head's tensors.
const PARTS: [&str; 4] = ["0.weight", "0.bias", "2.weight", "2.bias"];

/// The names of the heads, in the order of [`IlqlHeads::all`].
const NAMES: [&str; 5] = ["q_heads.0", "q_heads.1", "target_q_heads.0", "target_q_heads.1", "v_head"];

impl Head {
    /// Uniform numbers of ±1/√inputs, which is PyTorch's default for a linear layer.
    fn random(width: usize, out: usize, device: Device, stream: &mut Stream) -> Head {
        let mut uniform = |shape: &[usize], inputs: usize| {
            let bound = 1.0 / (inputs as f32).sqrt();
            let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| stream.random_range(-bound..bound)).collect();
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            Tensor::from_slice(&numbers).reshape(shape).to_device(device)
        };
        let between = 2 * width;
        Head {
            tensors: [
                uniform(&[between, width], width),
                uniform(&[between], width),
                uniform(&[out, between], between),
                uniform(&[out], between),
            ],
        }
    }

    fn of(tensors: [Tensor; 4], trained: bool) -> Head {
        Head { tensors: tensors.map(|tensor| tensor.set_requires_grad(trained)) }
    }

    fn copy(&self, trained: bool) -> Head {
        Head::of(self.tensors.each_ref().map(|tensor| tensor.detach().copy()), trained)
    }

    fn forward(&self, hidden: &Tensor) -> Tensor {
        let [up, up_bias, down, down_bias] = &self.tensors;
        hidden.to_kind(Kind::Float).linear(up, Some(up_bias)).relu().linear(down, Some(down_bias))
    }
}

impl IlqlHeads {
    /// Random heads for hidden states of this size. The slow copies equal the Q heads.
    pub fn random(width: usize, vocabulary: usize, device: Device, stream: &mut Stream) -> IlqlHeads {
        let mut head = |out: usize| {
            let Head { tensors } = Head::random(width, out, device, stream);
            Head::of(tensors, true)
        };
        let q = [head(vocabulary), head(vocabulary)];
        IlqlHeads { slow: q.each_ref().map(|head| head.copy(false)), q, v: head(1) }
    }

    fn all(&self) -> [&Head; 5] {
        [&self.q[0], &self.q[1], &self.slow[0], &self.slow[1], &self.v]
    }

    /// The trained tensors by name: all but the slow copies.
    pub(super) fn trainable(&self) -> impl Iterator<Item = (String, Tensor)> {
        let named = NAMES.into_iter().zip(self.all()).filter(|(name, _)| !name.starts_with("target"));
        named.flat_map(|(name, head)| {
            let tensors = PARTS.iter().zip(&head.tensors);
            tensors.map(move |(part, tensor)| (format!("ilql_heads.{name}.{part}"), tensor.shallow_clone()))
        })
    }

    /// Both Q functions, `[.., d]` → twice `[.., vocabulary]`.
    pub(super) fn q(&self, hidden: &Tensor) -> [Tensor; 2] {
        self.q.each_ref().map(|head| head.forward(hidden))
    }

    /// The smaller one of the slow copies' values, `[.., d]` → `[.., vocabulary]`, without gradients.
    pub fn slow_q(&self, hidden: &Tensor) -> Tensor {
        tch::no_grad(|| self.slow[0].forward(hidden).minimum(&self.slow[1].forward(hidden)))
    }

    /// V, `[.., d]` → `[..]`.
    pub fn v(&self, hidden: &Tensor) -> Tensor {
        self.v.forward(hidden).squeeze_dim(-1)
    }

    /// Moves the slow copies towards the Q heads by this share.
    pub(super) fn follow(&mut self, share: f64) {
        tch::no_grad(|| {
            for (slow, q) in self.slow.iter_mut().zip(&self.q) {
                for (slow, q) in slow.tensors.iter_mut().zip(&q.tensors) {
                    let moved = &*slow * (1.0 - share) + q * share;
                    slow.copy_(&moved);
                }
            }
        });
    }

    /// A copy that shares no memory with this one.
    pub fn copy(&self) -> IlqlHeads {
        let copies = |heads: &[Head; 2], trained| heads.each_ref().map(|head| head.copy(trained));
        IlqlHeads { q: copies(&self.q, true), slow: copies(&self.slow, false), v: self.v.copy(true) }
    }

    /// All heads by the names of trlX, `ilql_heads.v_head.0.weight` and so on.
    pub fn to_arrays(&self) -> Arrays {
        self.named(|_| true)
    }

    /// The slow copies alone.
    pub(super) fn slow_to_arrays(&self) -> Arrays {
        self.named(|name| name.starts_with("target"))
    }

    fn named(&self, wanted: impl Fn(&str) -> bool) -> Arrays {
        let mut arrays = Arrays::new();
        for (name, head) in NAMES.into_iter().zip(self.all()).filter(|(name, _)| wanted(name)) {
            for (part, tensor) in PARTS.iter().zip(&head.tensors) {
                let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
                arrays.insert(format!("ilql_heads.{name}.{part}"), Array::f32(&shape, numbers(tensor)));
            }
        }
        arrays
    }

    /// The heads that [`IlqlHeads::to_arrays`] saved, for hidden states and a vocabulary of these sizes.
    pub fn from_arrays(
        width: usize,
        vocabulary: usize,
        device: Device,
        arrays: &Arrays,
    ) -> Result<IlqlHeads, LearnError> {
        let head = |name: &str, out: usize, trained: bool| read(name, width, out, device, trained, Reader(arrays));
        Ok(IlqlHeads {
            q: [head(NAMES[0], vocabulary, true)?, head(NAMES[1], vocabulary, true)?],
            slow: [head(NAMES[2], vocabulary, false)?, head(NAMES[3], vocabulary, false)?],
            v: head(NAMES[4], 1, true)?,
        })
    }

    /// The slow copies that [`IlqlHeads::slow_to_arrays`] saved, for [`IlqlHeads::set_slow`].
    pub(super) fn read_slow(&self, arrays: Reader) -> Result<SlowHeads, LearnError> {
        let shape = |at: usize, of: usize| self.q[0].tensors[at].size()[of] as usize;
        let (width, vocabulary, device) = (shape(0, 1), shape(2, 0), self.v.tensors[0].device());
        let head = |name: &str| read(name, width, vocabulary, device, false, arrays);
        Ok(SlowHeads([head(NAMES[2])?, head(NAMES[3])?]))
    }

    pub(super) fn set_slow(&mut self, slow: SlowHeads) {
        self.slow = slow.0;
    }
}

/// Slow copies that were read.
pub(super) struct SlowHeads([Head; 2]);

fn read(
    name: &str,
    width: usize,
    out: usize,
    device: Device,
    trained: bool,
    arrays: Reader,
) -> Result<Head, LearnError> {
    let between = 2 * width;
    let tensor = |part: &str, shape: &[usize]| -> Result<Tensor, LearnError> {
        let data = arrays.f32(&format!("ilql_heads.{name}.{part}"), shape)?;
        let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        Ok(Tensor::from_slice(data).reshape(shape).to_device(device))
    };
    let tensors = [
        tensor(PARTS[0], &[between, width])?,
        tensor(PARTS[1], &[between])?,
        tensor(PARTS[2], &[out, between])?,
        tensor(PARTS[3], &[out])?,
    ];
    Ok(Head::of(tensors, trained))
}
