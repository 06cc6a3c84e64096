//! The accelerations: qacc = argmin ½‖a − M⁻¹f‖²_M + ½ Σ D·min(0, J a − aref)², by Newton's method with an exact line
//! search.
//!
//! The cost is strictly convex and piecewise quadratic, so a full Newton step inside one piece ends at the minimum. A
//! lane is done when its step did not leave the piece of any row. It does not move from then on, whatever the other
//! lanes still need.

use super::factor::{factor, multiply, solve};
use super::plan::Plan;
use super::spatial::{clear, copy};
use super::workspace::Workspace;
use flipside_core::simd::{Lanes, Mask};

/// Newton steps at most. Two or three are usual.
const STEPS: usize = 30;
/// Line-search steps at most.
const SEARCHES: usize = 12;

/// Accelerations and constraint forces. Starts from what `qacc` holds.
#[inline(always)]
pub fn accelerations<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let mut limited = false;
    for row in &ws.limits {
        limited |= row.active.any();
    }
    if ws.contacts.count == 0 && !limited {
        unconstrained(plan, ws);
        return;
    }
    match ws.contacts.directions {
        1 => newton::<L, 1>(plan, ws),
        2 => newton::<L, 2>(plan, ws),
        _ => newton::<L, 3>(plan, ws),
    }
}

/// M⁻¹ of the smooth forces, into `qacc`.
#[inline(always)]
pub fn unconstrained<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let solver = &mut ws.solver;
    copy(&ws.mass, &mut solver.hessian);
    factor(&plan.tree, &mut solver.hessian, &mut solver.inverse);
    copy(&ws.smooth, &mut ws.qacc);
    solve(&plan.tree, &solver.hessian, &solver.inverse, &mut ws.qacc);
    clear(&mut ws.constraint);
}

/// How one contact's cost changes with its residuals e = (e_n, e_t…), for rows e_n ± μ e_t and those without a tangent.
struct Rows<L: Lanes, const K: usize> {
    /// Force along each direction: minus the gradient.
    force: [L; K],
    /// Curvature: normal–normal, normal–tangent and tangent–tangent, per tangent.
    normal: L,
    mixed: [L; K],
    tangent: [L; K],
    /// Which rows push: two a tangent, then the normal alone.
    pushing: [[L::Mask; 2]; K],
}

/// Rows that have no tangent.
#[inline(always)]
fn alone<L: Lanes, const K: usize>() -> L {
    L::of(4.0 - 2.0 * (K as f64 - 1.0))
}

#[inline(always)]
fn rows<L: Lanes, const K: usize>(e: &[L; K], friction: L, stiffness: L) -> Rows<L, K> {
    let zero = L::zero();
    let mut rows =
        Rows { force: [zero; K], normal: zero, mixed: [zero; K], tangent: [zero; K], pushing: [[L::Mask::NONE; 2]; K] };
    let mut push = zero;
    for k in 1..K {
        let (plus, minus) = (friction.mul_add(e[k], e[0]), friction.mul_add(-e[k], e[0]));
        let pushing = [plus.lt(zero), minus.lt(zero)];
        let (f, g) = (plus.min(zero), minus.min(zero));
        let (one, two) = (L::select(pushing[0], stiffness, zero), L::select(pushing[1], stiffness, zero));
        push += f + g;
        rows.force[k] = stiffness * friction * (g - f);
        rows.normal += one + two;
        rows.mixed[k] = friction * (one - two);
        rows.tangent[k] = friction * friction * (one + two);
        rows.pushing[k] = pushing;
    }
    if K < 3 {
        let pushing = e[0].lt(zero);
        push = alone::<L, K>().mul_add(e[0].min(zero), push);
        rows.normal += L::select(pushing, alone::<L, K>() * stiffness, zero);
        rows.pushing[0][0] = pushing;
    }
    rows.force[0] = -(stiffness * push);
    rows
}

#[inline(always)]
fn residual<L: Lanes, const K: usize>(all: &[L], c: usize) -> [L; K] {
    let mut e = [L::zero(); K];
    copy(&all[c * K..(c + 1) * K], &mut e);
    e
}

#[inline(always)]
fn newton<L: Lanes, const K: usize>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let nv = plan.nv;
    let (zero, one) = (L::zero(), L::one());
    // The decrement below which a step is rounding: relative to the energy of the accelerations.
    let rounding = L::of((L::EPSILON * 64.0) * (L::EPSILON * 64.0));
    let pattern = if ws.contacts.couples { &plan.dense } else { &plan.tree };

    // A lane without active constraints starts at rest. One step from there is M⁻¹f to the last bit, whether or not
    // other lanes have active constraints.
    let mut pushed = L::Mask::NONE;
    for active in &ws.contacts.active[..ws.contacts.count] {
        pushed = pushed | *active;
    }
    for row in &ws.limits {
        pushed = pushed | row.active;
    }
    for qacc in &mut ws.qacc {
        *qacc = L::select(pushed, *qacc, zero);
    }

    multiply(&plan.tree, &ws.mass, &ws.qacc, &mut ws.solver.ma);
    along::<L, K>(nv, ws.contacts.count, &ws.contacts.jacobian, &ws.qacc, &mut ws.solver.residual);
    for i in 0..ws.contacts.count * K {
        ws.solver.residual[i] -= ws.contacts.aref[i];
    }

    let mut going = !L::Mask::NONE;
    for _ in 0..STEPS {
        forces::<L, K>(plan, ws);
        let Workspace { solver, contacts, limits, qacc, constraint, smooth, mass, .. } = &mut *ws;
        for dof in 0..nv {
            let gradient = solver.ma[dof] - smooth[dof] - constraint[dof];
            solver.gradient[dof] = gradient;
            solver.direction[dof] = -gradient;
        }
        curvature::<L, K>(nv, contacts, solver);
        hessian(nv, pattern, contacts.count * K, &contacts.jacobian, &solver.weighted, mass, &mut solver.hessian);
        for (limit, row) in plan.limits.iter().zip(&*limits) {
            if row.active.any() {
                let pushing = row.sign.mul_add(qacc[limit.dof], -row.aref).lt(zero);
                solver.hessian[limit.dof * nv + limit.dof] += L::select(pushing, row.stiffness, zero);
            }
        }
        factor(pattern, &mut solver.hessian, &mut solver.inverse);
        solve(pattern, &solver.hessian, &solver.inverse, &mut solver.direction);
        multiply(&plan.tree, mass, &solver.direction, &mut solver.md);
        along::<L, K>(nv, contacts.count, &contacts.jacobian, &solver.direction, &mut solver.slope);

        // How the cost falls along the step, and whether the step leaves a piece.
        let (mut start, mut first, mut second, mut energy) = (zero, zero, zero, zero);
        for dof in 0..nv {
            let d = solver.direction[dof];
            start = solver.gradient[dof].mul_add(d, start);
            first = (solver.ma[dof] - smooth[dof]).mul_add(d, first);
            second = solver.md[dof].mul_add(d, second);
            energy = solver.ma[dof].mul_add(qacc[dof], energy);
        }
        let mut left = L::Mask::NONE;
        for c in 0..contacts.count {
            let e = residual::<L, K>(&solver.residual, c);
            let mut f = residual::<L, K>(&solver.slope, c);
            for k in 0..K {
                f[k] = e[k] + f[k];
            }
            let (mu, d) = (contacts.friction[c], contacts.stiffness[c]);
            let (before, after) = (rows::<L, K>(&e, mu, d), rows::<L, K>(&f, mu, d));
            for (x, y) in before.pushing.iter().flatten().zip(after.pushing.iter().flatten()) {
                left = left | (*x & !*y) | (*y & !*x);
            }
        }
        for (limit, row) in plan.limits.iter().zip(&*limits) {
            if row.active.any() {
                let e = row.sign.mul_add(qacc[limit.dof], -row.aref);
                let f = row.sign.mul_add(solver.direction[limit.dof], e);
                let (x, y) = (e.lt(zero), f.lt(zero));
                left = left | (((x & !y) | (y & !x)) & row.active);
            }
        }
        let significant = (rounding * energy).lt(-start);
        left = left & going & significant;
        let mut alpha = one;
        if left.any() {
            // The slope along the step is increasing and piecewise linear: Newton from a full step, kept inside a
            // bracket.
            let (mut low, mut high) = (zero, L::of(1e30));
            let enough = start.abs() * L::of(1e-3);
            let mut searching = left;
            for _ in 0..SEARCHES {
                let (mut slope, mut curve) = (alpha.mul_add(second, first), second);
                for c in 0..contacts.count {
                    let (mut e, s) = (residual::<L, K>(&solver.residual, c), residual::<L, K>(&solver.slope, c));
                    for k in 0..K {
                        e[k] = alpha.mul_add(s[k], e[k]);
                    }
                    let rows = rows::<L, K>(&e, contacts.friction[c], contacts.stiffness[c]);
                    slope -= rows.force[0] * s[0];
                    curve = (rows.normal * s[0]).mul_add(s[0], curve);
                    for k in 1..K {
                        slope -= rows.force[k] * s[k];
                        curve += (L::of(2.0) * rows.mixed[k] * s[0] + rows.tangent[k] * s[k]) * s[k];
                    }
                }
                for (limit, row) in plan.limits.iter().zip(&*limits) {
                    if row.active.any() {
                        let s = row.sign * solver.direction[limit.dof];
                        let e = alpha.mul_add(s, row.sign.mul_add(qacc[limit.dof], -row.aref));
                        slope = (row.stiffness * e.min(zero)).mul_add(s, slope);
                        curve += L::select(e.lt(zero), row.stiffness * s * s, zero);
                    }
                }
                searching = searching & enough.lt(slope.abs());
                if !searching.any() {
                    break;
                }
                let falling = slope.lt(zero);
                low = L::select(falling, alpha, low);
                high = L::select(falling, high, alpha);
                let next = alpha - slope / curve;
                let inside = low.lt(next) & next.lt(high);
                let next = L::select(inside, next, (low + high) * L::of(0.5));
                alpha = L::select(searching, next, alpha);
            }
        }
        let step = L::select(going, alpha, zero);
        for (dof, qacc) in qacc.iter_mut().enumerate().take(nv) {
            *qacc = L::select(going, step.mul_add(solver.direction[dof], *qacc), *qacc);
            solver.ma[dof] = L::select(going, step.mul_add(solver.md[dof], solver.ma[dof]), solver.ma[dof]);
        }
        for i in 0..contacts.count * K {
            solver.residual[i] =
                L::select(going, step.mul_add(solver.slope[i], solver.residual[i]), solver.residual[i]);
        }
        going = going & left;
        if !going.any() {
            break;
        }
    }
    forces::<L, K>(plan, ws);
}

/// J x in the contacts' directions.
#[inline(always)]
fn along<L: Lanes, const K: usize>(nv: usize, count: usize, jacobian: &[L], x: &[L], out: &mut [L]) {
    for (row, out) in jacobian.chunks_exact(nv).zip(out.iter_mut()).take(count * K) {
        let mut sum = L::zero();
        for (j, x) in row.iter().zip(x) {
            sum = j.mul_add(*x, sum);
        }
        *out = sum;
    }
}

/// Constraint forces in joint space at the present residuals.
#[inline(always)]
fn forces<L: Lanes, const K: usize>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    let nv = plan.nv;
    clear(&mut ws.constraint);
    for c in 0..ws.contacts.count {
        let e = residual::<L, K>(&ws.solver.residual, c);
        let rows = rows::<L, K>(&e, ws.contacts.friction[c], ws.contacts.stiffness[c]);
        for k in 0..K {
            let row = &ws.contacts.jacobian[(c * K + k) * nv..][..nv];
            for (out, j) in ws.constraint.iter_mut().zip(row) {
                *out = j.mul_add(rows.force[k], *out);
            }
        }
    }
    for (limit, row) in plan.limits.iter().zip(&ws.limits) {
        if row.active.any() {
            let e = row.sign.mul_add(ws.qacc[limit.dof], -row.aref);
            let push = -(row.stiffness * e.min(L::zero()));
            ws.constraint[limit.dof] = row.sign.mul_add(push, ws.constraint[limit.dof]);
        }
    }
}

/// Rows of D J at the present residuals.
#[inline(always)]
fn curvature<L: Lanes, const K: usize>(
    nv: usize,
    contacts: &super::workspace::Contacts<L>,
    solver: &mut super::workspace::Solver<L>,
) {
    for c in 0..contacts.count {
        let e = residual::<L, K>(&solver.residual, c);
        let rows = rows::<L, K>(&e, contacts.friction[c], contacts.stiffness[c]);
        let jacobian = &contacts.jacobian[c * K * nv..(c + 1) * K * nv];
        let weighted = &mut solver.weighted[c * K * nv..(c + 1) * K * nv];
        for dof in 0..nv {
            let normal = jacobian[dof];
            let mut sum = rows.normal * normal;
            for k in 1..K {
                let tangent = jacobian[k * nv + dof];
                sum = rows.mixed[k].mul_add(tangent, sum);
                weighted[k * nv + dof] = rows.mixed[k].mul_add(normal, rows.tangent[k] * tangent);
            }
            weighted[dof] = sum;
        }
    }
}

/// M + Jᵀ (D J), the lower half.
#[inline(always)]
fn hessian<L: Lanes>(
    nv: usize,
    pattern: &super::plan::Pattern,
    count: usize,
    jacobian: &[L],
    weighted: &[L],
    mass: &[L],
    out: &mut [L],
) {
    for (i, runs) in pattern.runs.iter().enumerate() {
        for run in runs {
            let mut j = run.start;
            while j + 4 <= run.end {
                let mut sums = [mass[i * nv + j], mass[i * nv + j + 1], mass[i * nv + j + 2], mass[i * nv + j + 3]];
                for r in 0..count {
                    let left = jacobian[r * nv + i];
                    let right = &weighted[r * nv + j..r * nv + j + 4];
                    for k in 0..4 {
                        sums[k] = left.mul_add(right[k], sums[k]);
                    }
                }
                copy(&sums, &mut out[i * nv + j..i * nv + j + 4]);
                j += 4;
            }
            while j < run.end {
                let mut sum = mass[i * nv + j];
                for r in 0..count {
                    sum = jacobian[r * nv + i].mul_add(weighted[r * nv + j], sum);
                }
                out[i * nv + j] = sum;
                j += 1;
            }
        }
    }
}

/// The force of a contact along its directions, newtons.
#[inline(always)]
pub fn contact_force<L: Lanes>(ws: &Workspace<L>, c: usize, out: &mut [L]) {
    let (mu, d) = (ws.contacts.friction[c], ws.contacts.stiffness[c]);
    let all = &ws.solver.residual;
    match out.len() {
        1 => out.copy_from_slice(&rows::<L, 1>(&residual(all, c), mu, d).force),
        2 => out.copy_from_slice(&rows::<L, 2>(&residual(all, c), mu, d).force),
        _ => out.copy_from_slice(&rows::<L, 3>(&residual(all, c), mu, d).force),
    }
}

/// ‖M a − f − Jᵀλ(a)‖ over 1 + ‖f‖ for the accelerations in `qacc`, at the state that was last evaluated; leaves their
/// constraint forces.
pub fn optimality(plan: &Plan<f64>, ws: &mut Workspace<f64>) -> f64 {
    let (nv, count, directions) = (plan.nv, ws.contacts.count, ws.contacts.directions);
    multiply(&plan.tree, &ws.mass, &ws.qacc, &mut ws.solver.ma);
    match directions {
        1 => along::<f64, 1>(nv, count, &ws.contacts.jacobian, &ws.qacc, &mut ws.solver.residual),
        2 => along::<f64, 2>(nv, count, &ws.contacts.jacobian, &ws.qacc, &mut ws.solver.residual),
        _ => along::<f64, 3>(nv, count, &ws.contacts.jacobian, &ws.qacc, &mut ws.solver.residual),
    }
    for i in 0..count * directions {
        ws.solver.residual[i] -= ws.contacts.aref[i];
    }
    match directions {
        1 => forces::<f64, 1>(plan, ws),
        2 => forces::<f64, 2>(plan, ws),
        _ => forces::<f64, 3>(plan, ws),
    }
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let gap = norm(&mut (0..nv).map(|i| ws.solver.ma[i] - ws.smooth[i] - ws.constraint[i]));
    gap / (1.0 + norm(&mut ws.smooth.iter().copied()))
}
