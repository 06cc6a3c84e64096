//! Best of n and rejection sampling: which of several completions of a prompt are taken, and how far that leads from
//! the policy that wrote them.

/// The index of the completion with the highest score, the first of several; `None` if none has a score.
pub fn best_of(scores: &[Option<f32>]) -> Option<usize> {
    let known = scores.iter().enumerate().filter_map(|(i, score)| Some((i, (*score)?)));
    known
        .fold(None, |best: Option<(usize, f32)>, (i, score)| match best {
            Some((_, highest)) if highest >= score => best,
            _ => Some((i, score)),
        })
        .map(|(i, _)| i)
}

/// An upper bound of KL(best of n ‖ policy), nats: ln n − (n − 1)/n (Stiennon et al. 2020, appendix G.3). It is reached
/// where no two completions have the same score and each is unlikely (Beirami et al. 2024).
pub fn best_of_n_kl_bound(n: usize) -> f64 {
    let n = n.max(1) as f64;
    n.ln() - (n - 1.0) / n
}

/// The distribution of the best of n samples, from the probabilities of all outcomes and their scores: P(y) = F(y)ⁿ −
/// F(below y)ⁿ with F the mass of what scores no higher. Outcomes with the same score share theirs by their
/// probability.
pub fn best_of_n(probabilities: &[f64], scores: &[f64], n: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut best = vec![0.0; scores.len()];
    let mut below = 0.0_f64;
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let mass: f64 = tied.iter().map(|&i| probabilities[i]).sum();
        let gained = (below + mass).powi(n as i32) - below.powi(n as i32);
        tied.iter().filter(|_| mass > 0.0).for_each(|&i| best[i] = gained * probabilities[i] / mass);
        below += mass;
    }
    best
}

/// The probability of each of these samples to be the best of `n` that are drawn from them without replacement, by
/// score. Weighted with it, any number of the samples has as its mean an unbiased estimate of that number at the best
/// of n (Nakano et al. 2021, appendix I). Samples with the same score share theirs. All are 0 if there are fewer than
/// `n` samples or `n` is 0.
pub fn best_of_n_shares(scores: &[f32], n: usize) -> Vec<f64> {
    let mut shares = vec![0.0; scores.len()];
    if n == 0 || scores.len() < n {
        return shares;
    }
    // The share of all sets of n samples that lie within the k worst: C(k, n) / C(N, n).
    let within = |k: usize| -> f64 { (0..n).map(|j| k.saturating_sub(j) as f64 / (scores.len() - j) as f64).product() };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut below = 0;
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let share = (within(below + tied.len()) - within(below)) / tied.len() as f64;
        tied.iter().for_each(|&i| shares[i] = share);
        below += tied.len();
    }
    shares
}

/// The completions of a prompt that rejection sampling takes, by index: those whose score reaches this quantile of the
/// prompt's scores (from 0 to 1), except the lowest, each different one once (trlX's RFT). With equal scores, none is
/// taken.
pub fn accepted<T: PartialEq>(completions: &[T], scores: &[Option<f32>], quantile: f64) -> Vec<usize> {
    let mut sorted: Vec<f32> = scores.iter().flatten().copied().collect();
    sorted.sort_by(f32::total_cmp);
    let (Some(&lowest), Some(last)) = (sorted.first(), sorted.len().checked_sub(1)) else { return Vec::new() };
    // Linear between the two nearest scores, as NumPy's default.
    let place = quantile.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let threshold = f64::from(sorted[low]) + (place - low as f64) * f64::from(sorted[high] - sorted[low]);
    let mut taken: Vec<usize> = Vec::new();
    for (i, score) in scores.iter().enumerate() {
        let reaches = score.is_some_and(|score| f64::from(score) >= threshold && score > lowest);
        if reaches && taken.iter().all(|&other| completions[other] != completions[i]) {
            taken.push(i);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_winner_is_the_first_of_the_highest() {
        assert_eq!(best_of(&[None, Some(1.0), Some(3.0), Some(3.0), Some(-1.0)]), Some(2));
        assert_eq!((best_of(&[None, None]), best_of(&[])), (None, None));
    }

    #[test]
    fn rejection_takes_the_upper_quantile_without_duplicates_and_never_the_lowest() {
        let scores = [0.0, 1.0, 2.0, 3.0, 4.0, 4.0].map(Some);
        let words = ["a", "b", "c", "d", "e", "e"];
        // NumPy's quantile .7 of these is 3.5.
        assert_eq!(accepted(&words, &scores, 0.7), [4]);
        assert_eq!(accepted(&words, &scores, 0.5), [3, 4]);
        assert_eq!(accepted(&words, &scores, 0.0), [1, 2, 3, 4]);
        assert_eq!(accepted(&words[..2], &[Some(1.0), Some(1.0)], 0.5), [0; 0]);
        assert_eq!(accepted(&words[..3], &[None, Some(0.0), Some(2.0)], 1.0), [2]);
        assert_eq!(accepted(&words[..1], &[None], 1.0), [0; 0]);
    }

    #[test]
    fn shares_are_those_of_counting_all_sets() {
        let scores = [0.5_f32, -1.0, 2.0, 0.5, 3.0, 0.5, -2.0];
        for n in 1..=scores.len() {
            let (mut counted, mut sets) = (vec![0.0; scores.len()], 0.0);
            for set in 0_u32..1 << scores.len() {
                let members: Vec<usize> = (0..scores.len()).filter(|i| set >> i & 1 == 1).collect();
                if members.len() == n {
                    sets += 1.0;
                    let best = members.iter().map(|&i| scores[i]).fold(f32::MIN, f32::max);
                    let winners: Vec<usize> = members.into_iter().filter(|&i| scores[i] == best).collect();
                    winners.iter().for_each(|&i| counted[i] += 1.0 / winners.len() as f64);
                }
            }
            // Winners of a set share it; summed over all sets, all samples with that score have the same.
            let shares = best_of_n_shares(&scores, n);
            for (share, counted) in shares.iter().zip(&counted) {
                assert!((share - counted / sets).abs() < 1e-12, "{n}: {shares:?}");
            }
        }
        assert_eq!(best_of_n_shares(&scores[..2], 3), [0.0; 2]);
        assert_eq!(best_of_n_shares(&[], 0), [0.0; 0]);
    }

    #[test]
    fn the_distribution_sums_to_one_and_stays_below_the_bound() {
        let probabilities: Vec<f64> = (1..=50).map(|i| f64::from(i % 7 + 1)).collect();
        let total: f64 = probabilities.iter().sum();
        let probabilities: Vec<f64> = probabilities.into_iter().map(|p| p / total).collect();
        let scores: Vec<f64> = (0..50).map(|i| f64::from((i * 13) % 50 / 2)).collect();
        for n in [1, 2, 16] {
            let best = best_of_n(&probabilities, &scores, n);
            assert!((best.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let kl: f64 =
                best.iter().zip(&probabilities).filter(|(b, _)| **b > 0.0).map(|(b, p)| b * (b / p).ln()).sum();
            assert!(kl >= -1e-12 && kl <= best_of_n_kl_bound(n) + 1e-12, "{n}: {kl}");
        }
        // Three outcomes by hand, best of 2: .2² , .5² − .2², 1 − .5².
        let best = best_of_n(&[0.2, 0.5, 0.3], &[0.0, 2.0, 1.0], 2);
        assert!(best.iter().zip([0.04, 0.75, 0.21]).all(|(b, e)| (b - e).abs() < 1e-12), "{best:?}");
        assert!((best_of_n_kl_bound(16) - (16_f64.ln() - 0.9375)).abs() < 1e-12 && best_of_n_kl_bound(1) == 0.0);
    }
}
