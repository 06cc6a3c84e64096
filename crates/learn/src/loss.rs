//! PPO's two losses with their explicit derivatives with respect to a network's output. `objective.rs` has the same
//! losses as tensors, and a test compares the two.

use super::gaussian::Spread;
use flipside_core::simd::{F32Lanes, exp, exp_excess, load, store};

/// How many samples a loss is differentiated for at a time.
pub(super) const TILE: usize = 48;

/// The loss that a network is trained on. Every slice covers a whole rollout.
#[derive(Clone, Copy)]
pub(super) enum Loss<'a> {
    /// The actor: the clipped surrogate −min(r Â, clip(r, 1 − ε, 1 + ε) Â).
    Policy(ClippedPolicy<'a>),
    /// The critic: half the squared error.
    Value(ClippedValue<'a>),
}

/// Sums over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    /// The loss.
    pub loss: f64,
    /// The KL estimate (r − 1) − log r, nats; only the actor has one.
    pub kl: f64,
    /// How many samples' ratios left the clip range; only the actor has them.
    pub clipped: f64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.loss += other.loss;
        self.kl += other.kl;
        self.clipped += other.clipped;
    }
}

/// The inputs of the actor's loss.
#[derive(Clone, Copy)]
pub(super) struct ClippedPolicy<'a> {
    /// `[samples, A]`.
    pub actions: &'a [f32],
    /// Log-densities of the actions under the policy that acted, `[samples]`.
    pub old_log_probs: &'a [f32],
    /// Standardised advantages Â, `[samples]`.
    pub advantages: &'a [f32],
    /// ε.
    pub clip: f32,
}

/// The inputs of the critic's loss.
#[derive(Clone, Copy)]
pub(super) struct ClippedValue<'a> {
    /// The critic's values when the policy acted, `[samples]`.
    pub old_values: &'a [f32],
    /// Targets, `[samples]`.
    pub returns: &'a [f32],
    /// How far a prediction may move from the old value before its loss becomes flat; 0 for any distance.
    pub clip: f32,
}

impl ClippedPolicy<'_> {
    /// For up to [`TILE`] samples with the network's means, in rows that are `stride` apart. The derivative of the loss
    /// times `weight` with respect to the means goes into `deltas` (which are 0 beyond the actions); with respect to
    /// log σ it is added to `by_log_std`. The returned sums are not weighted.
    #[inline(always)]
    pub fn derive<L: F32Lanes>(
        &self,
        samples: &[u32],
        [means, deltas]: [&mut [f32]; 2],
        stride: usize,
        weight: f32,
        spread: &Spread,
        by_log_std: &mut [f32],
    ) -> Sums {
        let dims = spread.inverse().len();
        let mut log_ratios = [0.0; TILE];
        let rows = means.chunks_exact(stride).zip(deltas.chunks_exact_mut(stride));
        for ((&sample, (mean, z)), log_ratio) in samples.iter().zip(rows).zip(&mut log_ratios) {
            let sample = sample as usize;
            let action = &self.actions[sample * dims..][..dims];
            *log_ratio = spread.log_prob(action, &mean[..dims], &mut z[..dims]) - self.old_log_probs[sample];
            z[dims..].fill(0.0);
        }

        let (mut ratios, mut excesses) = ([0.0; TILE], [0.0; TILE]);
        for at in (0..TILE).step_by(L::LANES) {
            let log_ratio: L = load(&log_ratios, at);
            let ratio = exp(log_ratio);
            store(ratio, &mut ratios, at);
            store(exp_excess(log_ratio, ratio), &mut excesses, at);
        }

        let mut sums = Sums::default();
        for (((&sample, z), &ratio), &excess) in
            samples.iter().zip(deltas.chunks_exact_mut(stride)).zip(&ratios).zip(&excesses)
        {
            let advantage = self.advantages[sample as usize];
            let free = ratio * advantage;
            let held = ratio.clamp(1.0 - self.clip, 1.0 + self.clip) * advantage;
            sums.loss -= f64::from(if free <= held { free } else { held });
            sums.kl += f64::from(excess);
            sums.clipped += f64::from(u8::from((ratio - 1.0).abs() > self.clip));
            // With respect to log π: dr/d log π = r. Where the clipped term is the smaller one, the derivative is 0.
            let slope = if free <= held { -free * weight } else { 0.0 };
            for ((z, inverse), by_log_std) in z.iter_mut().zip(spread.inverse()).zip(&mut *by_log_std) {
                // log π = Σ −½ z² − log σ with z = (a − μ)/σ.
                *by_log_std += slope * (*z * *z - 1.0);
                *z *= slope * inverse;
            }
        }
        sums
    }
}

impl ClippedValue<'_> {
    /// For some samples with the network's values, in rows that are `stride` apart. The derivative of the loss times
    /// `weight` with respect to the values goes into `deltas` (which are 0 beyond the first). The returned sums are not
    /// weighted.
    #[inline(always)]
    pub fn derive(&self, samples: &[u32], [values, deltas]: [&mut [f32]; 2], stride: usize, weight: f32) -> Sums {
        let mut sums = Sums::default();
        let rows = values.chunks_exact(stride).zip(deltas.chunks_exact_mut(stride));
        for (&sample, (value, delta)) in samples.iter().zip(rows) {
            let (value, sample) = (value[0], sample as usize);
            let (old, target) = (self.old_values[sample], self.returns[sample]);
            let (mut error, mut slope) = (value - target, value - target);
            if self.clip > 0.0 {
                let moved = value - old;
                let held = old + moved.clamp(-self.clip, self.clip) - target;
                if held * held > error * error {
                    (error, slope) = (held, if moved.abs() < self.clip { held } else { 0.0 });
                }
            }
            sums.loss += f64::from(0.5 * error * error);
            delta.fill(0.0);
            delta[0] = slope * weight;
        }
        sums
    }
}
