//! The possible values of an observation or an action.

use flipside_core::Stream;
use rand::RngExt;
use rand_distr::{Distribution, Exp1, StandardNormal};

/// The spaces of Gymnasium that robots need.
#[derive(Clone, Debug, PartialEq)]
pub enum Space {
    /// Real numbers between bounds, which may be infinite.
    Box {
        /// Lower bounds, row-major, inclusive.
        low: Vec<f32>,
        /// Upper bounds, inclusive.
        high: Vec<f32>,
        /// The shape; its product is the number of bounds.
        shape: Vec<usize>,
    },
    /// One of `0, 1, …, n − 1`, stored as one number.
    Discrete {
        /// How many values there are.
        n: usize,
    },
}

impl Space {
    /// How many numbers a value consists of.
    pub fn dim(&self) -> usize {
        match self {
            Space::Box { low, .. } => low.len(),
            Space::Discrete { .. } => 1,
        }
    }

    /// Whether a value belongs to the space. A value with a NaN belongs to none.
    pub fn contains(&self, value: &[f32]) -> bool {
        match self {
            Space::Box { low, high, .. } => {
                value.len() == low.len()
                    && value.iter().zip(low).zip(high).all(|((x, low), high)| low <= x && x <= high)
            }
            Space::Discrete { n } => match value {
                [x] => x.fract() == 0.0 && *x >= 0.0 && (*x as usize) < *n,
                _ => false,
            },
        }
    }

    /// Draws a value as Gymnasium does: uniform between two bounds, exponential with one bound, normal without bounds.
    pub fn sample(&self, stream: &mut Stream) -> Vec<f32> {
        match self {
            Space::Box { low, high, .. } => {
                let mut draw = |low: f32, high: f32| match (low.is_finite(), high.is_finite()) {
                    (true, true) => (low + (high - low) * stream.random::<f32>()).clamp(low, high),
                    (true, false) => low + Distribution::<f32>::sample(&Exp1, stream),
                    (false, true) => high - Distribution::<f32>::sample(&Exp1, stream),
                    (false, false) => StandardNormal.sample(stream),
                };
                low.iter().zip(high).map(|(&low, &high)| draw(low, high)).collect()
            }
            Space::Discrete { n } => vec![stream.random_range(0..*n) as f32],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;

    /// Every sample is inside, and the sample means match the distributions' (2/4, 1 + 1, −1 − 1, 0) within five
    /// standard errors.
    #[test]
    fn box_samples_as_gymnasium_documents() {
        let inf = f32::INFINITY;
        let space = Space::Box { low: vec![-1.0, 1.0, -inf, -inf], high: vec![2.0, inf, -1.0, inf], shape: vec![2, 2] };
        let mut stream = Seed(3).stream("space");
        let mut sums = [0.0_f64; 4];
        let n = 20_000;
        for _ in 0..n {
            let value = space.sample(&mut stream);
            assert!(space.contains(&value), "{value:?}");
            sums.iter_mut().zip(&value).for_each(|(sum, &x)| *sum += f64::from(x) / f64::from(n));
        }
        for (mean, expected) in sums.iter().zip([0.5, 2.0, -2.0, 0.0]) {
            assert!((mean - expected).abs() < 5.0 / f64::from(n).sqrt(), "mean {mean}, expected {expected}");
        }
    }

    #[test]
    fn refuses_what_lies_outside() {
        let unit = Space::Box { low: vec![-1.0; 2], high: vec![1.0; 2], shape: vec![2] };
        assert!(unit.contains(&[-1.0, 1.0]));
        for outside in [&[1.5, 0.0][..], &[f32::NAN, 0.0], &[0.0], &[0.0; 3]] {
            assert!(!unit.contains(outside), "{outside:?}");
        }
        let three = Space::Discrete { n: 3 };
        let mut stream = Seed(0).stream("space");
        let mut seen = [false; 3];
        for _ in 0..100 {
            let value = three.sample(&mut stream);
            assert!(three.contains(&value));
            seen[value[0] as usize] = true;
        }
        assert_eq!(seen, [true; 3]);
        for outside in [&[3.0][..], &[-1.0], &[0.5], &[f32::NAN], &[0.0, 1.0]] {
            assert!(!three.contains(outside), "{outside:?}");
        }
    }
}
