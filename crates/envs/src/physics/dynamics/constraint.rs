//! What constraints ask for: impedance, reference acceleration and regulariser of contacts and joint limits
//! (mj_makeImpedance).
//!
//! A contact with friction μ has four rows n ± μt, pushing with D·max(0, aref − a) each. In the contact's own
//! directions, row residuals are e_n ± μ e_t with e = J a − aref, so that a contact is kept as one normal and two
//! tangents. Where motion is planar, the tangent across it has a zero Jacobian: two of the four rows are then the
//! normal alone. Where there is no friction, all four are.

use super::plan::{Plan, Softness};
use super::workspace::{LimitRow, Workspace};
use flipside_core::simd::{Lanes, Mask};

/// The impedance d at a penetration (or distance inside the margin), and the regulariser R = scale · (1 − d)/d.
#[inline(always)]
pub fn impedance<L: Lanes>(softness: &Softness<L::Scalar>, depth: L) -> (L, L) {
    let (one, s) = (L::one(), softness);
    let x = (depth * L::splat(s.inverse_width)).min(one);
    let midpoint = L::splat(s.midpoint);
    let rising = L::splat(s.rising) * power(x, s.power);
    let falling = one - L::splat(s.falling) * power(one - x, s.power);
    let y = L::select(midpoint.lt(x), falling, rising);
    let d = y.mul_add(L::splat(s.d_max) - L::splat(s.d0), L::splat(s.d0));
    let d = L::select(x.lt(one), d, L::splat(s.d_max));
    let regulariser = (L::splat(s.regulariser) * ((one - d) / d)).max(L::of(1e-15));
    (d, regulariser)
}

#[inline(always)]
fn power<L: Lanes>(x: L, exponent: u32) -> L {
    let mut out = x;
    for _ in 1..exponent {
        out = out * x;
    }
    out
}

/// Joint limits: which end of which range is violated, and how it pushes back.
#[inline(always)]
pub fn limits<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    for (limit, row) in plan.limits.iter().zip(&mut ws.limits) {
        let q = ws.qpos[limit.qposadr];
        let margin = L::splat(limit.margin);
        let (below, above) = (q - L::splat(limit.low), L::splat(limit.high) - q);
        let lower = below.lt(above);
        let depth = L::select(lower, below, above) - margin;
        let active = depth.lt(L::zero());
        if !active.any() {
            row.active = L::Mask::NONE;
            continue;
        }
        let sign = L::select(lower, L::one(), -L::one());
        let (imp, regulariser) = impedance(&limit.softness, depth.abs());
        let velocity = sign * ws.qvel[limit.dof];
        let aref = -(L::splat(limit.softness.damping) * velocity) - L::splat(limit.softness.stiffness) * imp * depth;
        *row = LimitRow {
            active,
            sign,
            aref: L::select(active, aref, L::zero()),
            stiffness: L::select(active, L::one() / regulariser, L::zero()),
        };
    }
}
