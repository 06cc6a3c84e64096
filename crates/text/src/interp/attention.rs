//! Attention patterns, and what kind of head they show.

use super::trace::on_cpu;
use super::{InterpError, Start, Subject};
use crate::model::{HookPoint, Site};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// The attention patterns of all blocks, `[L, H, T, T]`, of one prompt `[1, T]`.
///
/// # Errors
///
/// Tokens that cannot be read.
pub fn patterns(subject: &Subject, tokens: &Tensor) -> Result<Tensor, InterpError> {
    let wanted: BTreeSet<HookPoint> = subject.in_every_block(Site::Pattern).collect();
    let trace = subject.trace(Start::Tokens(tokens), &wanted, &[])?;
    Ok(on_cpu(&Tensor::cat(&trace.activations().values().collect::<Vec<_>>(), 0)))
}

/// Mean attention weights of every head, `[L, H]` each.
#[derive(Debug)]
pub struct HeadScores {
    /// To the first token, from all others.
    pub first: Tensor,
    /// To the token before.
    pub previous: Tensor,
    /// From a token that came before to the place after its last occurrence (induction head, Olsson et al. 2022). 0 if
    /// no token repeats.
    pub induction: Tensor,
    /// From a token that came before to its last occurrence (duplicate-token head, Wang et al. 2022). 0 if no token
    /// repeats.
    pub duplicate: Tensor,
}

/// The scores of patterns `[L, H, T, T]` of these tokens.
pub fn head_scores(patterns: &Tensor, tokens: &[u32]) -> HeadScores {
    let mean = |pairs: &[(usize, usize)]| {
        let [queries, keys] = [
            pairs.iter().map(|&(query, _)| query as i64).collect::<Vec<_>>(),
            pairs.iter().map(|&(_, key)| key as i64).collect::<Vec<_>>(),
        ];
        let size = patterns.size();
        if pairs.is_empty() {
            return Tensor::zeros(&size[..2], (Kind::Float, patterns.device()));
        }
        let places = Tensor::from_slice(&queries) * size[3] + Tensor::from_slice(&keys);
        patterns.reshape([size[0], size[1], -1]).index_select(2, &places).mean_dim(2, false, Kind::Float)
    };
    let repeats: Vec<(usize, usize)> = (0..tokens.len())
        .filter_map(|at| Some((at, tokens[..at].iter().rposition(|token| *token == tokens[at])?)))
        .collect();
    let after: Vec<(usize, usize)> = repeats.iter().map(|&(query, key)| (query, key + 1)).collect();
    HeadScores {
        first: mean(&(1..tokens.len()).map(|query| (query, 0)).collect::<Vec<_>>()),
        previous: mean(&(1..tokens.len()).map(|query| (query, query - 1)).collect::<Vec<_>>()),
        induction: mean(&after),
        duplicate: mean(&repeats),
    }
}
