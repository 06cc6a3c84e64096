//! The mass matrix: composite rigid bodies (mj_crb), about the trees' centres of mass.

use super::plan::Plan;
use super::spatial::{I10, M3, V3, dot, dot6, inertia_mul, spread, sub};
use super::workspace::Workspace;
use flipside_core::simd::Lanes;

/// Body inertias in the axes of the world (cinert), composite inertias, and M with the rotors' armature on its
/// diagonal.
#[inline(always)]
pub fn inertia<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    for (index, body) in plan.bodies.iter().enumerate().skip(1) {
        let own = spread(&body.inertia);
        let arm = sub(ws.xipos[index], ws.com[body.root]);
        let inertia = about(&ws.xmat[index], own, arm, L::splat(body.mass));
        ws.cinert[index] = inertia;
        ws.crb[index] = inertia;
    }
    for index in (1..plan.bodies.len()).rev() {
        let parent = plan.bodies[index].parent;
        if parent > 0 {
            let part = ws.crb[index];
            let whole = &mut ws.crb[parent];
            for k in 0..10 {
                whole[k] += part[k];
            }
        }
    }
    let nv = plan.nv;
    for (i, columns) in plan.tree.rows.iter().enumerate() {
        let dof = &plan.dofs[i];
        let force = inertia_mul(&ws.crb[dof.body], &ws.cdof[i]);
        let row = &mut ws.mass[i * nv..(i + 1) * nv];
        for j in columns {
            row[*j] = dot6(&ws.cdof[*j], &force);
        }
        row[i] += L::splat(dof.armature);
    }
}

/// Rotates an inertia (xx yy zz xy xz yz about the centre of mass) into the axes of the world and moves it by `arm`
/// (mju_inertCom).
#[inline(always)]
fn about<L: Lanes>(mat: &M3<L>, i: [L; 6], arm: V3<L>, mass: L) -> I10<L> {
    // T = R I, then R I Rᵀ.
    let mut t = [L::zero(); 9];
    for row in 0..3 {
        let r = [mat[3 * row], mat[3 * row + 1], mat[3 * row + 2]];
        t[3 * row] = r[2].mul_add(i[4], r[1].mul_add(i[3], r[0] * i[0]));
        t[3 * row + 1] = r[2].mul_add(i[5], r[1].mul_add(i[1], r[0] * i[3]));
        t[3 * row + 2] = r[2].mul_add(i[2], r[1].mul_add(i[5], r[0] * i[4]));
    }
    let [x, y, z] = arm;
    let (mx, my, mz) = (mass * x, mass * y, mass * z);
    [
        entry(&t, mat, 0, 0) + my.mul_add(y, mz * z),
        entry(&t, mat, 1, 1) + mx.mul_add(x, mz * z),
        entry(&t, mat, 2, 2) + mx.mul_add(x, my * y),
        entry(&t, mat, 0, 1) - mx * y,
        entry(&t, mat, 0, 2) - mx * z,
        entry(&t, mat, 1, 2) - my * z,
        mx,
        my,
        mz,
        mass,
    ]
}

/// An entry of T Rᵀ.
#[inline(always)]
fn entry<L: Lanes>(t: &M3<L>, r: &M3<L>, a: usize, b: usize) -> L {
    dot([t[3 * a], t[3 * a + 1], t[3 * a + 2]], [r[3 * b], r[3 * b + 1], r[3 * b + 2]])
}
