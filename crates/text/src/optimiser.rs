//! Gradient accumulation, clipping and Adam. Gradients are summed over the parts of a batch, clipped by their global
//! norm and handed to Adam with each parameter's own learning rate. The state can be saved, and a failed update undone.

use super::hidden::Hidden;
use flipside_core::settings::OptimiserSettings;
use flipside_core::{Array, Arrays};
use flipside_learn::{Adam, LearnError, Reader, global_norm, numbers};
use tch::{Kind, Tensor};

/// Adam for named leaves.
pub(super) struct Optimiser {
    settings: OptimiserSettings,
    names: Vec<String>,
    /// Shared with the model that owns them.
    parameters: Vec<Tensor>,
    /// Each parameter's multiplier of the learning rate.
    rates: Vec<f64>,
    adam: Adam,
    /// Sums of gradients since the last step; empty if there were none. An undefined tensor had no part in any loss.
    sums: Vec<Tensor>,
    /// Memory for the next [`Optimiser::save`]: allocating it takes longer than filling it.
    spare: Option<Saved>,
}

/// The state that [`Optimiser::restore`] restores.
pub(super) struct Saved {
    parameters: Vec<Tensor>,
    adam: Adam,
}

impl Optimiser {
    /// An optimiser of these leaves: at least one, all of which require gradients.
    pub fn new(leaves: Vec<(String, Tensor)>, settings: &OptimiserSettings) -> Result<Optimiser, LearnError> {
        if leaves.is_empty() {
            return Err(LearnError::Settings(
                "nothing is left to train: unfreeze a layer or attach adapters".to_owned(),
            ));
        }
        let (names, parameters): (Vec<String>, Vec<Tensor>) = leaves.into_iter().unzip();
        let adam = Adam::new(&parameters.iter().collect::<Vec<_>>(), settings.adam_eps);
        Ok(Optimiser {
            rates: names.iter().map(|name| settings.rate_of(name)).collect(),
            adam: if settings.tensorflow_eps { adam.with_tensorflow_eps() } else { adam },
            settings: settings.clone(),
            names,
            parameters,
            sums: Vec::new(),
            spare: None,
        })
    }

    /// Its settings.
    pub fn settings(&self) -> &OptimiserSettings {
        &self.settings
    }

    /// Adds the gradient of a loss that was computed from these hidden states.
    pub fn add(&mut self, loss: &Tensor, hidden: &Hidden) -> Result<(), LearnError> {
        let sums = &mut self.sums;
        hidden.gradients(loss, &self.parameters, &mut |gradients| {
            if sums.is_empty() {
                *sums = gradients;
                return;
            }
            tch::no_grad(|| {
                for (sum, gradient) in sums.iter_mut().zip(gradients).filter(|(_, gradient)| gradient.defined()) {
                    // Sums are f32, so that many small parts of a bf16 gradient are not lost.
                    *sum = if sum.defined() { sum.to_kind(Kind::Float) + gradient } else { gradient };
                }
            });
        })
    }

    /// The sums of the gradients since the last step.
    #[cfg(test)]
    pub fn gradients(&self) -> &[Tensor] {
        &self.sums
    }

    /// Discards the gradients since the last step.
    pub fn zero_grad(&mut self) {
        self.sums.clear();
    }

    /// Takes a step with the sum of the gradients; returns its norm before clipping. If the norm is not finite, it is
    /// an error and no step is taken.
    pub fn step(&mut self, learning_rate: f64) -> Result<f64, LearnError> {
        let norm = global_norm(&self.sums);
        if !norm.is_finite() {
            return Err(LearnError::NotFinite { what: format!("the gradient of {}", self.first_bad()) });
        }
        let max = self.settings.max_grad_norm;
        let scale = if max > 0.0 && norm > max { max / norm } else { 1.0 };
        let Optimiser { parameters, adam, sums, rates, .. } = self;
        // A multiplier of 0 leaves a parameter unchanged, its moments included.
        let unless_frozen = |(sum, rate): (Tensor, &f64)| if *rate > 0.0 { sum } else { Tensor::new() };
        let gradients: Vec<Tensor> = sums.drain(..).zip(rates.iter()).map(unless_frozen).collect();
        let mut parameters: Vec<&mut Tensor> = parameters.iter_mut().collect();
        adam.step_each(&mut parameters, &gradients, scale, |i| learning_rate * rates[i]);
        Ok(norm)
    }

    /// The name of the first parameter whose gradient is not finite.
    fn first_bad(&self) -> &str {
        let bad = self.sums.iter().position(|sum| sum.defined() && !global_norm(std::slice::from_ref(sum)).is_finite());
        bad.map_or("all parameters together", |i| &self.names[i])
    }

    /// Copies of the parameters and of Adam's state.
    pub fn save(&mut self) -> Saved {
        tch::no_grad(|| {
            let Some(mut saved) = self.spare.take() else {
                return Saved {
                    parameters: self.parameters.iter().map(|p| p.detach().copy()).collect(),
                    adam: self.adam.copy(),
                };
            };
            saved.parameters.iter_mut().zip(&self.parameters).for_each(|(saved, parameter)| saved.copy_(parameter));
            saved.adam.take_over(&self.adam);
            saved
        })
    }

    /// Takes a copy that is no longer needed, to reuse its memory.
    pub fn reuse(&mut self, saved: Saved) {
        self.spare = Some(saved);
    }

    /// Restores a saved state.
    pub fn restore(&mut self, saved: Saved) {
        self.sums.clear();
        self.adam = saved.adam;
        tch::no_grad(|| {
            self.parameters.iter_mut().zip(&saved.parameters).for_each(|(parameter, saved)| parameter.copy_(saved));
        });
    }

    /// Adds the parameters under `model.NAME` (f32, which holds bf16 numbers exactly) and Adam's state under `adam`.
    pub fn to_arrays(&self, arrays: &mut Arrays) {
        for (name, parameter) in self.names.iter().zip(&self.parameters) {
            arrays.insert(format!("model.{name}"), Array::f32(&shape(parameter), numbers(parameter)));
        }
        self.adam.to_arrays("adam", arrays);
    }

    /// Reads what [`Optimiser::to_arrays`] saved, for [`Optimiser::restore`].
    pub fn read(&self, arrays: Reader) -> Result<Saved, LearnError> {
        let parameters = self.names.iter().zip(&self.parameters).map(|(name, parameter)| {
            let data = arrays.f32(&format!("model.{name}"), &shape(parameter))?;
            Ok(Tensor::from_slice(data).reshape(parameter.size()))
        });
        Ok(Saved {
            parameters: parameters.collect::<Result<_, LearnError>>()?,
            adam: self.adam.restored("adam", arrays)?,
        })
    }
}

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&n| n as usize).collect()
}
