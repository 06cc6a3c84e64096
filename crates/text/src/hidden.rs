//! The hidden states that a loss is made of, and the gradients of what they were computed from.
//!
//! A model that is to take little memory computes its blocks without keeping what their gradients need. Only the input of each stays, and once
//! the gradient of the loss on a block's output is known, the block is computed once more, with what its gradients need, and let go (Chen
//! et al. 2016, "Training deep nets with sublinear memory cost"). The gradients are the same; a pass costs a third more.

use flipside_learn::LearnError;
use tch::{Kind, Tensor};

/// Final hidden states of a batch, for a loss.
pub struct Hidden<'a> {
    /// `[B, T - from, d]`.
    states: Tensor,
    /// What they were computed by, first to last; none where autograd has kept everything.
    pieces: Vec<Piece<'a>>,
}

/// A part of the model, from what the part before it gave.
pub(super) struct Piece<'a> {
    /// What it was given; `None` for the first, which begins from token ids.
    input: Option<Tensor>,
    compute: Box<Compute<'a>>,
}

/// Computes a piece's output from its input, which the first piece does without.
pub(super) type Compute<'a> = dyn Fn(Option<&Tensor>) -> Tensor + 'a;

impl<'a> Hidden<'a> {
    /// States that autograd knows the way back from.
    pub fn whole(states: Tensor) -> Hidden<'a> {
        Hidden { states, pieces: Vec::new() }
    }

    /// The states that these parts give one after the other, each of which can be trained. Nothing but their inputs is kept.
    pub(super) fn in_pieces(parts: impl Iterator<Item = Box<Compute<'a>>>) -> Hidden<'a> {
        let mut pieces = Vec::new();
        let mut input: Option<Tensor> = None;
        for compute in parts {
            let output = tch::no_grad(|| compute(input.as_ref()));
            pieces.push(Piece { input: input.replace(output), compute });
        }
        let states = input.unwrap_or_default();
        Hidden { states: states.detach().set_requires_grad(true), pieces }
    }

    /// The states.
    pub fn states(&self) -> &Tensor {
        &self.states
    }

    /// Hands `add` the gradients of a loss of these states on the parameters, in their order; several times where the states came in pieces,
    /// and then their sum counts. An undefined one had no part.
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
        let in_pieces = !self.pieces.is_empty();
        let mut gradients = back(loss, in_pieces.then_some(&self.states))?;
        let mut of_output = if in_pieces { gradients.pop() } else { None };
        add(gradients);
        for piece in self.pieces.iter().rev() {
            let Some(gradient) = of_output.take().filter(Tensor::defined) else { break };
            let input = piece.input.as_ref().map(|input| input.detach().set_requires_grad(true));
            // The gradient of Σ output · g with a constant g is g times that of the output.
            let product = ((piece.compute)(input.as_ref()) * gradient).sum(Kind::Float);
            let mut gradients = back(&product, input.as_ref())?;
            of_output = if input.is_some() { gradients.pop() } else { None };
            add(gradients);
        }
        Ok(())
    }
}
