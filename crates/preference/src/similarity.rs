//! Similarity of clips. A pair of similar clips is hard to judge, and its label says next to nothing.

use super::ClipPool;
use flipside_learn::RunningNorm;

/// The mean of each column of `rows`, `[n, width]`, then the standard deviation of each.
pub(super) fn moments(rows: &[f32], width: usize) -> Vec<f32> {
    let mut statistics = RunningNorm::new(width);
    statistics.absorb(rows);
    let deviations = statistics.var().into_iter().map(f64::sqrt);
    statistics.mean().iter().copied().chain(deviations).map(|x| x as f32).collect()
}

/// The distance between the two clips of each pair of the pool: the root mean square difference of their features,
/// which are the mean and standard deviation over time of each number of the observation. Each feature is in units of
/// its standard deviation over the pool. 0 for clips with equal features.
///
/// This needs no reward model, so it works from the first query on. The features do not depend on when a movement
/// happens within the clip: a jump is similar to the same jump half a second later.
pub fn distances(pool: &ClipPool, pairs: &[[usize; 2]]) -> Vec<f32> {
    let features: Vec<Vec<f32>> =
        pool.iter().map(|entry| moments(&entry.clip.frames.obs, entry.clip.frames.obs_dim)).collect();
    let Some(width) = features.first().map(Vec::len) else { return vec![0.0; pairs.len()] };
    let mut spread = RunningNorm::new(width);
    features.iter().filter(|row| row.len() == width).for_each(|row| spread.absorb(row));
    let scale: Vec<f32> = spread.var().iter().map(|var| (1.0 / var.sqrt().max(1e-6)) as f32).collect();
    let distance = |&[a, b]: &[usize; 2]| {
        let square = |((x, y), scale): ((&f32, &f32), &f32)| ((x - y) * scale).powi(2);
        let sum: f32 = features[a].iter().zip(&features[b]).zip(&scale).map(square).sum();
        (sum / width as f32).sqrt()
    };
    pairs.iter().map(distance).collect()
}
