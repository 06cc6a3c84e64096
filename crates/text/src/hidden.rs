//! Hidden states for a loss, and the gradients of the parameters behind them, with or without gradient checkpointing.
//!
//! With gradient checkpointing, the forward pass stores only the input of each block. Once the gradient of the loss
//! with respect to a block's output is known, the block is computed again, with everything that its gradients need,
//! differentiated and freed (Chen et al. 2016, "Training deep nets with sublinear memory cost"). The gradients are the
//! same; a pass costs a third more.

use flipside_learn::LearnError;
use tch::{Kind, Tensor};

/// Final hidden states of a batch, for a loss.
pub struct Hidden<'a> {
    /// `[B, T - from, d]`.
    states: Tensor,
    /// The checkpointed parts of the model that computed them, first to last; empty if autograd stored everything.
    segments: Vec<Segment<'a>>,
}

/// A checkpointed part of the model.
pub(super) struct Segment<'a> {
    /// Its input, which is the output of the part before; `None` for the first part, which starts from token ids.
    input: Option<Tensor>,
    compute: Box<Compute<'a>>,
}

/// Computes a part's output from its input; the first part has no input.
pub(super) type Compute<'a> = dyn Fn(Option<&Tensor>) -> Tensor + 'a;

impl<'a> Hidden<'a> {
    /// States with a complete autograd graph.
    pub fn with_graph(states: Tensor) -> Hidden<'a> {
        Hidden { states, segments: Vec::new() }
    }

    /// Runs these parts one after the other with gradient checkpointing: only their inputs are stored. Every part must
    /// have trainable parameters.
    pub(super) fn checkpointed(parts: impl Iterator<Item = Box<Compute<'a>>>) -> Hidden<'a> {
        let mut segments = Vec::new();
        let mut input: Option<Tensor> = None;
        for compute in parts {
            let output = tch::no_grad(|| compute(input.as_ref()));
            segments.push(Segment { input: input.replace(output), compute });
        }
        let states = input.unwrap_or_default();
        Hidden { states: states.detach().set_requires_grad(true), segments }
    }

    /// The states.
    pub fn states(&self) -> &Tensor {
        &self.states
    }

    /// Passes `add` the gradients of a loss of these states with respect to `parameters`, in their order. With
    /// checkpointing, `add` is called several times, and the gradient is the sum of all calls. An undefined tensor
    /// means that a parameter had no part in that call.
    pub fn gradients(
        &self,
        loss: &Tensor,
        parameters: &[Tensor],
        add: &mut dyn FnMut(Vec<Tensor>),
    ) -> Result<(), LearnError> {
        let back = |loss: &Tensor, input: Option<&Tensor>| {
            let leaves: Vec<&Tensor> = parameters.iter().chain(input).collect();
            Tensor::f_run_backward(&[loss], &leaves, false, false)
        };
        let is_checkpointed = !self.segments.is_empty();
        let mut gradients = back(loss, is_checkpointed.then_some(&self.states))?;
        let mut of_output = if is_checkpointed { gradients.pop() } else { None };
        add(gradients);
        for segment in self.segments.iter().rev() {
            let Some(gradient) = of_output.take().filter(Tensor::defined) else { break };
            let input = segment.input.as_ref().map(|input| input.detach().set_requires_grad(true));
            // The gradient of Σ output · g, with a constant g, is the vector-Jacobian product of the output with g.
            let product = ((segment.compute)(input.as_ref()) * gradient).sum(Kind::Float);
            let mut gradients = back(&product, input.as_ref())?;
            of_output = if input.is_some() { gradients.pop() } else { None };
            add(gradients);
        }
        Ok(())
    }
}
