//! PPO's networks and losses as tensors in double precision, differentiated automatically. The kernels are tested
//! against them.

use super::gaussian::log_prob;
use super::loss::{ClippedPolicy, ClippedValue, Loss};
use super::{Network, clipped_objective, clipped_value_loss};
use tch::{Kind, Tensor};

/// A network's parameters in one tensor, a leaf for automatic differentiation, and views of its parts.
pub(super) struct TensorNetwork {
    pub parameters: Tensor,
    /// Weight `[out, in]` and bias `[out]`, first layer to last.
    layers: Vec<(Tensor, Tensor)>,
    pub free: Tensor,
}

impl TensorNetwork {
    pub fn new(network: &Network) -> TensorNetwork {
        let flat = network.layout().flat(network.numbers());
        let parameters = Tensor::from_slice(&flat).to_kind(Kind::Double).set_requires_grad(true);
        let mut at = 0;
        let mut take = |n: usize| {
            at += n as i64;
            parameters.narrow(0, at - n as i64, n as i64)
        };
        let layers = network.layers();
        let layers = layers
            .iter()
            .map(|l| (take(l.inputs * l.outputs).view([l.outputs as i64, l.inputs as i64]), take(l.outputs)))
            .collect();
        let free = take(network.free().len());
        TensorNetwork { parameters, layers, free }
    }

    /// Rows `[B, in]` → `[B, out]`.
    pub fn forward(&self, rows: &Tensor) -> Tensor {
        let mut x = rows.shallow_clone();
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            x = (if i > 0 { x.tanh() } else { x }).linear(weight, Some(bias));
        }
        x
    }
}

/// `[rows, numbers / rows]`.
pub(super) fn matrix(numbers: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(numbers).to_kind(Kind::Double).view([rows as i64, -1])
}

/// The loss of the samples in `order`, which index rows of `obs`, `[samples, O]`; and the log-ratios, empty for a
/// critic.
pub(super) fn loss(
    network: &TensorNetwork,
    objective: &Loss,
    obs: &[f32],
    order: &[u32],
    samples: usize,
) -> (Tensor, Tensor) {
    let order: Vec<i64> = order.iter().map(|&i| i64::from(i)).collect();
    let pick = |numbers: &[f32]| matrix(numbers, samples).index_select(0, &Tensor::from_slice(&order));
    let outputs = network.forward(&pick(obs));
    match objective {
        Loss::Policy(ClippedPolicy { actions, old_log_probs, advantages, clip }) => {
            let log_probs = log_prob(&outputs, &network.free, &pick(actions));
            let log_ratio = log_probs - pick(old_log_probs).squeeze_dim(-1);
            let loss = clipped_objective(&log_ratio, &pick(advantages).squeeze_dim(-1), f64::from(*clip));
            (loss.mean(Kind::Double), log_ratio)
        }
        Loss::Value(ClippedValue { old_values, returns, clip }) => {
            let loss = clipped_value_loss(&outputs, &pick(old_values), &pick(returns), f64::from(*clip));
            (loss.mean(Kind::Double), Tensor::from_slice::<f64>(&[]))
        }
    }
}
