//! Learning curves as the panel shows them: smoothed first, decimated second, and only when they change.
//!
//! Smoothing comes first because decimation keeps the spikes of a noisy curve, or hides them by chance, and a line
//! smoothed afterwards would follow them. Both steps are cached by the identity of the snapshot's shared curves, so a
//! frame only has to draw.

use crate::lab::Curve;
use egui_plot::PlotPoint;
use std::sync::Arc;

/// The most points that a drawn line has: about one per pixel of the panel.
const POINTS: usize = 280;

/// One curve ready to draw.
#[derive(Clone, Debug, Default)]
pub(super) struct Drawn {
    /// As measured, decimated.
    pub raw: Vec<PlotPoint>,
    /// Smoothed, then decimated.
    pub smooth: Vec<PlotPoint>,
    /// The latest smoothed value.
    pub latest: Option<f64>,
}

/// The curves of the latest snapshot, ready to draw, in the order of [`Curve::NAMES`].
#[derive(Default)]
pub(super) struct CurveCache {
    source: Option<Arc<Vec<Curve>>>,
    drawn: Vec<(&'static str, Drawn)>,
}

impl CurveCache {
    /// Prepares `curves`, unless they are already prepared.
    pub fn update(&mut self, curves: &Arc<Vec<Curve>>) {
        if self.source.as_ref().is_some_and(|s| Arc::ptr_eq(s, curves)) {
            return;
        }
        self.drawn = curves.iter().map(|curve| (curve.name, prepare(&curve.points))).collect();
        self.source = Some(curves.clone());
    }

    /// The curve of this name, if the lab has it.
    pub fn get(&self, name: &str) -> Option<&Drawn> {
        self.drawn.iter().find(|(n, _)| *n == name).map(|(_, drawn)| drawn)
    }
}

fn prepare(points: &[[f64; 2]]) -> Drawn {
    let finite: Vec<[f64; 2]> = points.iter().copied().filter(|p| p[0].is_finite() && p[1].is_finite()).collect();
    let smooth = smooth(&finite);
    let plot = |points: &[[f64; 2]]| decimate(points, POINTS).into_iter().map(PlotPoint::from).collect();
    Drawn { raw: plot(&finite), smooth: plot(&smooth), latest: smooth.last().map(|p| p[1]) }
}

/// An exponential moving average over about a fiftieth of the curve. The bias correction of Kingma and Ba (2015,
/// section 3) keeps its start from being pulled towards zero.
fn smooth(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let memory = (points.len() as f64 / 50.0).max(1.0);
    let keep = 1.0 - 1.0 / memory;
    let (mut sum, mut weight) = (0.0, 0.0);
    points
        .iter()
        .map(|&[x, y]| {
            sum = keep * sum + (1.0 - keep) * y;
            weight = keep * weight + (1.0 - keep);
            [x, sum / weight]
        })
        .collect()
}

/// Largest-triangle-three-buckets (Steinarsson 2013). Returns at most `most` of the points, both ends among them, so
/// that the line keeps its shape. Each bucket gives the point that spans the largest triangle with the last chosen
/// point and the mean of the next bucket.
fn decimate(points: &[[f64; 2]], most: usize) -> Vec<[f64; 2]> {
    if points.len() <= most || most < 3 {
        return points.to_vec();
    }
    let inner = points.len() - 2;
    let buckets = most - 2;
    let edge = |bucket: usize| 1 + bucket * inner / buckets;
    let mut chosen = vec![points[0]];
    for bucket in 0..buckets {
        let here = &points[edge(bucket)..edge(bucket + 1)];
        let next =
            if bucket + 1 < buckets { &points[edge(bucket + 1)..edge(bucket + 2)] } else { &points[inner + 1..] };
        let mean = |axis: usize| next.iter().map(|p| p[axis]).sum::<f64>() / next.len() as f64;
        let (last, ahead) = (chosen[chosen.len() - 1], [mean(0), mean(1)]);
        let area =
            |p: &[f64; 2]| ((last[0] - ahead[0]) * (p[1] - last[1]) - (last[0] - p[0]) * (ahead[1] - last[1])).abs();
        chosen.extend(here.iter().copied().max_by(|a, b| area(a).total_cmp(&area(b))));
    }
    chosen.push(points[points.len() - 1]);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_is_unbiased_at_the_start_and_follows_a_step() {
        let flat: Vec<_> = (0..500).map(|i| [f64::from(i), 3.0]).collect();
        assert!(smooth(&flat).iter().all(|p| (p[1] - 3.0).abs() < 1e-12));
        // Once the start is far behind, a step is answered by 1 − keepⁿ, the closed form of the average.
        let step: Vec<_> = (0..5000).map(|i| [f64::from(i), f64::from(u8::from(i >= 4000))]).collect();
        let smoothed = smooth(&step);
        for n in [1, 10, 100, 900] {
            let expected = 1.0 - 0.99_f64.powi(n);
            assert!((smoothed[4000 + n as usize - 1][1] - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn decimation_keeps_the_ends_the_order_and_a_lone_spike() {
        let mut points: Vec<_> = (0..10_000).map(|i| [f64::from(i), (f64::from(i) * 1e-3).sin()]).collect();
        points[6_543][1] = 40.0;
        let few = decimate(&points, POINTS);
        assert_eq!(few.len(), POINTS);
        assert_eq!((few[0], few[POINTS - 1]), (points[0], points[9_999]));
        assert!(few.windows(2).all(|w| w[0][0] < w[1][0]));
        assert!(few.contains(&points[6_543]));
    }
}
