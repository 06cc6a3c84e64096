//! A trained policy as a plain value: for evaluation, film, the free view and export. It uses no tensors and does not
//! learn.

use super::network::layers_to_arrays;
use super::norm::Standard;
use super::{Dense, Layer, LearnError, Reader, RunningNorm};
use flipside_core::{Array, Arrays};

/// A Gaussian over actions. Its mean is a network of the normalised observation; its log σ is the same in every state.
///
/// Saved as `actor.N.weight` `[out, in]` and `actor.N.bias` `[out]` (f32, tanh after every layer but the last),
/// `log_std` `[A]` (f32) and `obs_mean`, `obs_var` `[O]` (f64). The network's input is (obs − mean)/√(var + 1e-8),
/// clipped to ±10.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    actor: Dense,
    log_std: Vec<f32>,
    obs_mean: Vec<f64>,
    obs_var: Vec<f64>,
    /// The last two in the form that acting uses.
    standard: Standard,
}

impl Policy {
    /// ε under the square root of the observations' normalisation.
    pub const OBS_EPSILON: f64 = super::norm::EPS;
    /// Normalised observations are clipped to ± this.
    pub const OBS_CLIP: f64 = super::norm::CLIP as f64;

    pub(super) fn new(actor: Dense, log_std: Vec<f32>, obs: &RunningNorm) -> Policy {
        Policy::of(actor, log_std, obs.mean().to_vec(), obs.var())
    }

    fn of(actor: Dense, log_std: Vec<f32>, obs_mean: Vec<f64>, obs_var: Vec<f64>) -> Policy {
        let standard = Standard::new(&obs_mean, &obs_var);
        Policy { actor, log_std, obs_mean, obs_var, standard }
    }

    /// Reads the policy from saved arrays and ignores other arrays, so a whole learner's checkpoint works too.
    pub fn from_arrays(arrays: &Arrays) -> Result<Policy, LearnError> {
        let reader = Reader(arrays);
        let mut layers: Vec<Layer> = Vec::new();
        while arrays.contains_key(&format!("actor.{}.weight", layers.len())) || layers.is_empty() {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("actor.{}.{part}", layers.len()));
            let shape = reader.shape(&weight)?;
            let (outputs, inputs) = match *shape {
                [outputs, inputs] if outputs * inputs > 0 => (outputs, inputs),
                _ => return Err(misshapen(&weight, format!("of shape {shape:?}, not [outputs, inputs]"))),
            };
            if layers.last().is_some_and(|before| before.outputs != inputs) {
                return Err(misshapen(
                    &weight,
                    format!("for {inputs} inputs, which is not what the layer before gives"),
                ));
            }
            let (weight, bias) = (reader.f32(&weight, shape)?.to_vec(), reader.f32(&bias, &[outputs])?.to_vec());
            layers.push(Layer { inputs, outputs, weight, bias });
        }
        let actor = Dense::new(&layers);
        let log_std = reader.f32("log_std", &[actor.outputs()])?.to_vec();
        let [mean, var] = ["obs_mean", "obs_var"].map(|name| reader.f64(name, &[actor.inputs()]));
        Ok(Policy::of(actor, log_std, mean?.to_vec(), var?.to_vec()))
    }

    /// The arrays that [`Policy::from_arrays`] reads.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        layers_to_arrays(&self.actor.layers(), "actor", &mut arrays);
        arrays.insert("log_std".to_owned(), Array::f32(&[self.act_dim()], self.log_std.clone()));
        arrays.insert("obs_mean".to_owned(), Array::f64(&[self.obs_dim()], self.obs_mean.clone()));
        arrays.insert("obs_var".to_owned(), Array::f64(&[self.obs_dim()], self.obs_var.clone()));
        arrays
    }

    /// Observation size, O.
    pub fn obs_dim(&self) -> usize {
        self.actor.inputs()
    }

    /// Action size, A.
    pub fn act_dim(&self) -> usize {
        self.actor.outputs()
    }

    /// log σ, `[A]`.
    pub fn log_std(&self) -> &[f32] {
        &self.log_std
    }

    /// The network's layers, first to last.
    pub(super) fn layers(&self) -> Vec<Layer> {
        self.actor.layers()
    }

    /// Mean and inverse standard deviation of each number of the observation.
    pub(super) fn standard(&self) -> &[[f32; 2]] {
        self.standard.columns()
    }

    /// The mean actions for raw observations, `[n, O]` → `[n, A]`, not clipped to the action space. This is the
    /// deterministic policy.
    pub fn act_mean(&self, obs: &[f32], n: usize) -> Vec<f32> {
        assert_eq!(obs.len(), n * self.obs_dim(), "obs must be [n, O]");
        let mut normalised = vec![0.0; obs.len()];
        self.normalise_into(obs, &mut normalised, self.obs_dim());
        self.actor.forward(&normalised, n)
    }

    /// Normalises `[n, O]` observations into rows that are `stride` apart.
    pub(super) fn normalise_into(&self, obs: &[f32], out: &mut [f32], stride: usize) {
        self.standard.apply(obs, out, stride);
    }

    /// The mean actions for normalised observations in rows that are `stride` apart, into `[n, A]`.
    pub(super) fn mean_of_normalised(&self, obs: &[f32], stride: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        self.actor.forward_into(obs, stride, out, scratch);
    }
}

fn misshapen(name: &str, problem: String) -> LearnError {
    LearnError::Array { name: name.to_owned(), problem }
}
