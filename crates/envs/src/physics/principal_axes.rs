//! Principal axes of inertia.

use glam::{DMat3, DQuat, DVec3};

/// Eigenvectors, as a rotation, and eigenvalues in descending order of a symmetric matrix: cyclic Jacobi rotations.
pub fn principal_axes(symmetric: DMat3) -> (DQuat, DVec3) {
    let mut a = symmetric.to_cols_array_2d();
    let mut v = DMat3::IDENTITY.to_cols_array_2d(); // v[k] is the k-th eigenvector
    // Convergence is quadratic: six sweeps are beyond double precision; the rest is for safety.
    for _ in 0..12 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q].abs() <= f64::EPSILON * 1e-3 * (a[p][p].abs() + a[q][q].abs()) {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
            let c = 1.0 / (t * t + 1.0).sqrt();
            let s = t * c;
            // A ← JᵀAJ and V ← VJ for the rotation J in the plane (p, q).
            for row in &mut a {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
            for k in 0..3 {
                (a[p][k], a[q][k]) = (c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]);
                (v[p][k], v[q][k]) = (c * v[p][k] - s * v[q][k], s * v[p][k] + c * v[q][k]);
            }
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    let [x, y, _] = order.map(|k| DVec3::from_array(v[k]));
    (DQuat::from_mat3(&DMat3::from_cols(x, y, x.cross(y))).normalize(), DVec3::from_array(order.map(|k| a[k][k])))
}
