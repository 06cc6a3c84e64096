//! The features φ of the process: the inputs, their products and random waves, and the relevances and variances that
//! scale them.

use super::{GaussianProcess, Pairs};
#[cfg(feature = "gpu")]
use flipside_learn::{Layer, numbers};
use std::f64::consts::{FRAC_1_SQRT_2, TAU};
use tch::{Kind, Tensor};

/// Length scales of the waves, in standard deviations of an input whose relevance is 1.
pub(super) const WIDTHS: [f64; 3] = [1.0, 2.0, 4.0];
/// Waves of each width. A multiple of four, since shaders read them in vectors of four.
pub(super) const WAVES: usize = 128;
const _: () = assert!(WAVES.is_multiple_of(4));
/// Factor of an input's square and of the product of two inputs. Together their φ(x) · φ(y) is (x · y)²/4.
pub(super) const SQUARE: f64 = 0.5;
const PRODUCT: f64 = FRAC_1_SQRT_2;
/// With more inputs than this there are too many products of two: the features then hold the squares alone.
const MAX_MULTIPLIED: usize = 40;

impl GaussianProcess {
    /// The process as two linear layers, for code that evaluates networks.
    ///
    /// The first maps the normalised inputs to the phase of each wave, in turns; the caller takes the cosine. The
    /// second maps features to the value of each draw. Its inputs are the waves, then the inputs, then the products of
    /// input i with every input from i on, i ascending, or the squares alone.
    #[cfg(feature = "gpu")]
    pub fn layers(&self) -> [Layer; 2] {
        let (inputs, members, features) = (self.inputs, self.members, self.feature_count());
        let (frequencies, phases, weights) =
            (numbers(&self.frequencies), numbers(&self.phases), numbers(&self.weights));
        let count = phases.len();
        let relevance: Vec<f64> = self.scales[..inputs].iter().map(|scale| scale.exp()).collect();
        // Each feature's index in `map_features`, and the factor that it has there when the inputs come without their
        // relevance.
        let mut seen: Vec<(usize, f64)> = (features - count..features).map(|place| (place, amplitude())).collect();
        seen.extend(relevance.iter().copied().enumerate());
        let mut product = 2 * inputs;
        for i in 0..inputs {
            seen.push((inputs + i, SQUARE * relevance[i] * relevance[i]));
            let others = if self.has_products() { &relevance[i + 1..] } else { &[] };
            for other in others {
                seen.push((product, PRODUCT * relevance[i] * other));
                product += 1;
            }
        }
        let turns = |at: usize| {
            let (wave, input) = (at / inputs, at % inputs);
            (f64::from(frequencies[input * count + wave]) * relevance[input] / TAU) as f32
        };
        let weight = |member: usize| {
            let weights = &weights;
            seen.iter().map(move |(place, factor)| (f64::from(weights[place * members + member]) * factor) as f32)
        };
        let waves = Layer {
            inputs,
            outputs: count,
            weight: (0..count * inputs).map(turns).collect(),
            bias: phases.iter().map(|phase| (f64::from(*phase) / TAU) as f32).collect(),
        };
        let draws = Layer {
            inputs: features,
            outputs: members,
            weight: (0..members).flat_map(weight).collect(),
            bias: vec![0.0; members],
        };
        [waves, draws]
    }

    /// Sizes of the groups of features: inputs, products, and the waves of each width.
    fn group_sizes(&self) -> Vec<usize> {
        let products = if self.has_products() { self.inputs * (self.inputs + 1) / 2 } else { self.inputs };
        [self.inputs, products].into_iter().chain([WAVES; WIDTHS.len()]).collect()
    }

    /// Whether the features hold the products of every two inputs, not the squares alone.
    fn has_products(&self) -> bool {
        self.inputs <= MAX_MULTIPLIED
    }

    pub(super) fn feature_count(&self) -> usize {
        self.group_sizes().iter().sum()
    }

    /// φ of every row, `[N, inputs]` → `[N, features]`, with the inputs multiplied by `relevance`, `[inputs]`.
    pub(super) fn map_features(&self, rows: &Tensor, relevance: &Tensor) -> Tensor {
        let rows = rows * relevance;
        let waves = self.phases.addmm(&rows, &self.frequencies).cos() * amplitude();
        let mut parts = vec![rows.shallow_clone(), rows.square() * SQUARE];
        if self.has_products() {
            for i in 0..self.inputs as i64 - 1 {
                let others = rows.narrow(-1, i + 1, self.inputs as i64 - i - 1);
                parts.push(others * (rows.narrow(-1, i, 1) * PRODUCT));
            }
        }
        parts.push(waves);
        Tensor::cat(&parts, -1)
    }

    /// Splits [`GaussianProcess::scales`] into each input's relevance, `[inputs]`, f32, and each feature's prior
    /// variance, `[features]`, f64.
    pub(super) fn relevance_and_variances(&self, scales: &Tensor) -> (Tensor, Tensor) {
        let inputs = self.inputs as i64;
        let relevance = scales.narrow(0, 0, inputs).exp().to_kind(Kind::Float);
        let sizes: Vec<i64> = self.group_sizes().into_iter().map(|size| size as i64).collect();
        let groups = scales.narrow(0, inputs, sizes.len() as i64).exp();
        (relevance, groups.repeat_interleave_self_tensor(&Tensor::from_slice(&sizes), 0, None))
    }

    /// Σ φ(left) − Σ φ(right) of each pair, `[n, features]`, f64.
    pub(super) fn differences(&self, pairs: &Pairs, relevance: &Tensor) -> Tensor {
        pairs.contrast(&self.map_features(pairs.rows, relevance))
    }
}

/// Amplitude of each wave. The waves of one width then have variance 1 together.
fn amplitude() -> f64 {
    (2.0 / WAVES as f64).sqrt()
}
