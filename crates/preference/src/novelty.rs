//! Exploration before the first judgement: the policy is rewarded for states that are far from recent ones, so that the
//! first pairs already differ.
//!
//! The reward is ln(1 + distance to the k-th nearest neighbour). It raises the entropy of the visited states, which can
//! be estimated from that distance (Lee et al. 2021, "PEBBLE", section 4.1, after Liu and Abbeel 2021). States are
//! observations, each number in units of its own standard deviation so far.

use super::PreferenceError;
use flipside_core::settings::ExploreSettings;
use flipside_core::{Array, Arrays, Stream};
use flipside_learn::{Reader, RunningNorm, neighbour_distances};
use rand::RngExt;

/// The novelty bonus: a memory of recent states, and the distance of a state from them.
#[derive(Clone, Debug)]
pub struct Novelty {
    neighbour: usize,
    memory: usize,
    width: usize,
    norm: RunningNorm,
    /// Stored states, not normalised, `[≤ memory, O]`; a ring buffer once it is full.
    seen: Vec<f32>,
    /// The next row of the ring buffer to be overwritten.
    next: usize,
    stream: Stream,
}

/// Number of rollouts that the memory reaches back. Each rollout fills this fraction of it.
const ROLLOUTS: usize = 16;

impl Novelty {
    /// An empty memory for observations of `obs_dim` numbers. `stream` draws which states are stored.
    pub fn new(obs_dim: usize, settings: &ExploreSettings, stream: Stream) -> Novelty {
        Novelty {
            neighbour: settings.neighbour.max(1),
            memory: settings.memory.max(ROLLOUTS),
            width: obs_dim,
            norm: RunningNorm::new(obs_dim),
            seen: Vec::new(),
            next: 0,
            stream,
        }
    }

    /// The reward of a rollout's states, `[n, O]` → `[n]`: ln(1 + d), with d the distance to the k-th nearest stored
    /// state. Some of the rollout's states are stored first, so that they already count here.
    pub fn rewards(&mut self, obs: &[f32]) -> Vec<f32> {
        self.norm.absorb(obs);
        self.keep(obs);
        let (states, seen) = (self.norm.normalise(obs), self.norm.normalise(&self.seen));
        neighbour_distances(&states, &seen, self.width, self.neighbour).into_iter().map(f32::ln_1p).collect()
    }

    /// The entropy of the stored states in nats, after normalisation; see [`state_entropy`].
    pub fn entropy(&self) -> f64 {
        state_entropy(&self.norm.normalise(&self.seen), self.width, self.neighbour)
    }

    fn keep(&mut self, obs: &[f32]) {
        let states = obs.len() / self.width.max(1);
        for _ in 0..(self.memory / ROLLOUTS).min(states) {
            let chosen = self.stream.random_range(0..states);
            let state = &obs[chosen * self.width..][..self.width];
            if self.seen.len() < self.memory * self.width {
                self.seen.extend_from_slice(state);
            } else {
                self.seen[self.next * self.width..][..self.width].copy_from_slice(state);
                self.next = (self.next + 1) % self.memory;
            }
        }
    }

    /// Everything that a resumed run needs to continue bit for bit.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        self.norm.to_arrays("norm", &mut arrays);
        arrays.insert("seen".into(), Array::f32(&[self.seen.len()], self.seen.clone()));
        arrays.insert("next".into(), Array::u64(vec![self.next as u64]));
        arrays.insert("stream".into(), Array::u64(self.stream.state().to_vec()));
        arrays
    }

    /// Loads what [`Novelty::to_arrays`] gave for the same sizes. After an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), PreferenceError> {
        let reader = Reader(arrays);
        let norm = RunningNorm::from_arrays("norm", self.width, reader)?;
        let length = arrays.get("seen").and_then(Array::as_f32).map_or(0, <[f32]>::len);
        let seen = reader.f32("seen", &[length])?.to_vec();
        let [next] = reader.words("next")?;
        let stream = reader.stream("stream")?;
        *self = Novelty { norm, seen, next: next as usize, stream, ..self.clone() };
        Ok(())
    }
}

/// The entropy in nats of the distribution that these samples, `[n, width]`, were drawn from (Kozachenko and Leonenko
/// 1987): ψ(n) − ψ(k) + ln V + width · mean ln d. V is the volume of the unit ball, and d each sample's distance to its
/// k-th nearest neighbour among the others.
pub fn state_entropy(samples: &[f32], width: usize, k: usize) -> f64 {
    let n = samples.len() / width.max(1);
    // Every sample is its own nearest neighbour, at distance 0.
    let logs = neighbour_distances(samples, samples, width, k + 1).into_iter().map(|d| f64::from(d).max(1e-12).ln());
    let half = width as f64 / 2.0;
    let log_volume = half * std::f64::consts::PI.ln() - ln_gamma(half + 1.0);
    digamma(n as f64) - digamma(k as f64) + log_volume + width as f64 * logs.sum::<f64>() / n as f64
}

/// ψ(x) for x > 0, by its recurrence up to x = 10, where the asymptotic series is accurate to 1e-10.
fn digamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < 10.0 {
        below -= 1.0 / x;
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    below + x.ln() - 0.5 / x - inverse * (1.0 / 12.0 - inverse * (1.0 / 120.0 - inverse / 252.0))
}

/// ln Γ(x) for x > 0, by its recurrence and Stirling's series.
fn ln_gamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < 10.0 {
        below -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse / 1260.0)) / x;
    below + (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use rand_distr::{Distribution, StandardNormal};

    fn normals(n: usize, scales: &[f64], stream: &mut Stream) -> Vec<f32> {
        let mut draw = |scale: &f64| (scale * Distribution::<f64>::sample(&StandardNormal, stream)) as f32;
        (0..n).flat_map(|_| scales.iter().map(&mut draw).collect::<Vec<_>>()).collect()
    }

    /// The entropy of a normal distribution is ½ Σ ln(2πe σ²), that of a box the logarithm of its volume.
    #[test]
    fn the_estimate_is_the_closed_form() {
        let mut stream = Seed(5).stream("samples");
        for scales in [&[1.0][..], &[0.1, 3.0], &[1.0, 0.5, 2.0, 4.0]] {
            let exact: f64 =
                scales.iter().map(|s: &f64| 0.5 * (std::f64::consts::TAU * std::f64::consts::E * s * s).ln()).sum();
            let samples = normals(3_000, scales, &mut stream);
            let found = state_entropy(&samples, scales.len(), 5);
            assert!((found - exact).abs() < 0.12, "{scales:?}: {found}, not {exact}");
        }
        let boxed: Vec<f32> = (0..3_000).flat_map(|_| [stream.random::<f32>(), 4.0 * stream.random::<f32>()]).collect();
        let found = state_entropy(&boxed, 2, 3);
        assert!((found - 4.0_f64.ln()).abs() < 0.08, "a box of 4: {found}");
    }

    /// A new state pays more than one that is visited often, whatever the units, and less once it is known.
    #[test]
    fn the_unseen_pays_until_it_is_seen() {
        let settings = ExploreSettings::default();
        let mut stream = Seed(5).stream("states");
        let mut novelty = Novelty::new(2, &settings, Seed(5).stream("kept"));
        let mean = |rewards: &[f32]| rewards.iter().sum::<f32>() / rewards.len() as f32;
        for _ in 0..2 * ROLLOUTS {
            novelty.rewards(&normals(512, &[1.0, 1e-3], &mut stream));
        }
        let far = |stream: &mut Stream| -> Vec<f32> {
            normals(32, &[1.0, 1e-3], stream).chunks(2).flat_map(|x| [x[0], x[1] + 4e-3]).collect()
        };
        let usual = mean(&novelty.clone().rewards(&normals(32, &[1.0, 1e-3], &mut stream)));
        let first =
            mean(&novelty.rewards(&[normals(480, &[1.0, 1e-3], &mut stream), far(&mut stream)].concat())[480..]);
        assert!(first > 3.0 * usual, "{first} for four standard deviations away, {usual} for the usual");
        for _ in 0..ROLLOUTS {
            novelty.rewards(&[normals(256, &[1.0, 1e-3], &mut stream), far(&mut stream).repeat(8)].concat());
        }
        let again = mean(&novelty.rewards(&far(&mut stream)));
        assert!(again < 0.5 * first, "{again} after it was seen, {first} before");
    }

    #[test]
    fn it_goes_on_bit_for_bit() {
        let settings = ExploreSettings { memory: 64, ..ExploreSettings::default() };
        let mut stream = Seed(7).stream("states");
        let mut first = Novelty::new(3, &settings, Seed(7).stream("kept"));
        (0..40).for_each(|_| drop(first.rewards(&normals(50, &[1.0; 3], &mut stream))));
        let mut second = Novelty::new(3, &settings, Seed(8).stream("kept"));
        second.load_arrays(&first.to_arrays()).unwrap();
        let next = normals(50, &[1.0; 3], &mut stream);
        assert_eq!(first.rewards(&next), second.rewards(&next));
        assert!(Novelty::new(2, &settings, Seed(7).stream("kept")).load_arrays(&first.to_arrays()).is_err());
    }
}
