//! Which pairs look alike. A person who cannot tell two clips apart answers with a sigh; a label on such a pair teaches
//! next to nothing.

use super::ClipPool;
use flipside_learn::RunningNorm;

/// What rows of numbers, `[n, width]`, look like: the mean of each column, then the standard deviation of each.
pub(super) fn look(rows: &[f32], width: usize) -> Vec<f32> {
    let mut statistics = RunningNorm::new(width);
    statistics.absorb(rows);
    let deviations = statistics.var().into_iter().map(f64::sqrt);
    statistics.mean().iter().copied().chain(deviations).map(|x| x as f32).collect()
}

/// How far the two clips of each pair of the pool look apart: the root mean square difference of the observations' means
/// and standard deviations over each clip, each in units of its spread over the pool. 0 for clips that look the same.
///
/// It needs no reward model, so that it holds from the first question on; and it looks at what clips have in common
/// whenever they begin, for one jump looks like the same jump half a second later.
pub fn apart(pool: &ClipPool, pairs: &[[usize; 2]]) -> Vec<f32> {
    let looks: Vec<Vec<f32>> =
        pool.iter().map(|entry| look(&entry.clip.frames.obs, entry.clip.frames.obs_dim)).collect();
    let Some(width) = looks.first().map(Vec::len) else { return vec![0.0; pairs.len()] };
    let mut spread = RunningNorm::new(width);
    looks.iter().filter(|look| look.len() == width).for_each(|look| spread.absorb(look));
    let scale: Vec<f32> = spread.var().iter().map(|var| (1.0 / var.sqrt().max(1e-6)) as f32).collect();
    let distance = |&[a, b]: &[usize; 2]| {
        let square = |((x, y), scale): ((&f32, &f32), &f32)| ((x - y) * scale).powi(2);
        let sum: f32 = looks[a].iter().zip(&looks[b]).zip(&scale).map(square).sum();
        (sum / width as f32).sqrt()
    };
    pairs.iter().map(distance).collect()
}
