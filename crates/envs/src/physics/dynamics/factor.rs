//! Factorisation and solution of symmetric positive definite systems whose sparsity is that of the kinematic tree: H =
//! Lᵀ D L with the last row eliminated first, so that no zero above a branch is filled (Featherstone 2005; mj_factorM).

use super::plan::Pattern;
use flipside_core::simd::Lanes;

/// Replaces the lower half of H, `[n, n]`, by L below its diagonal; `inverse` takes 1/D.
#[inline(always)]
pub fn factor<L: Lanes>(pattern: &Pattern, h: &mut [L], inverse: &mut [L]) {
    let n = inverse.len();
    for k in (0..n).rev() {
        let (above, row) = h.split_at_mut(k * n);
        let row = &mut row[..n];
        let d = L::one() / row[k];
        inverse[k] = d;
        let columns = &pattern.rows[k];
        let columns = &columns[..columns.len() - 1];
        for (position, i) in columns.iter().enumerate().rev() {
            let l = row[*i] * d;
            let other = &mut above[i * n..(i + 1) * n];
            for j in &columns[..=position] {
                other[*j] = (-l).mul_add(row[*j], other[*j]);
            }
            row[*i] = l;
        }
    }
}

/// Solves H x = b in place of b.
#[inline(always)]
pub fn solve<L: Lanes>(pattern: &Pattern, h: &[L], inverse: &[L], x: &mut [L]) {
    let n = inverse.len();
    for k in (0..n).rev() {
        let (columns, at) = (&pattern.rows[k], x[k]);
        for j in &columns[..columns.len() - 1] {
            x[*j] = (-h[k * n + j]).mul_add(at, x[*j]);
        }
    }
    for k in 0..n {
        let columns = &pattern.rows[k];
        let mut at = x[k] * inverse[k];
        for j in &columns[..columns.len() - 1] {
            at = (-h[k * n + j]).mul_add(x[*j], at);
        }
        x[k] = at;
    }
}

/// y = M x for the lower half of a symmetric M, `[n, n]`.
#[inline(always)]
pub fn multiply<L: Lanes>(pattern: &Pattern, m: &[L], x: &[L], y: &mut [L]) {
    let n = x.len();
    for (i, columns) in pattern.rows.iter().enumerate() {
        let mut sum = m[i * n + i] * x[i];
        for j in &columns[..columns.len() - 1] {
            let entry = m[i * n + j];
            sum = entry.mul_add(x[*j], sum);
            y[*j] = entry.mul_add(x[i], y[*j]);
        }
        y[i] = sum;
    }
}
