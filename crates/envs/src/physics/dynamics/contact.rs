//! Which geoms touch, and how each degree of freedom moves them against each other there.
//!
//! Worlds of a lane group touch the ground with different geoms. A contact is therefore packed to the lowest index that
//! is free in its lane. The solver's work then grows with the largest number of contacts in any one world, not with the
//! union of the contacts.

use super::collide::{Shape, Touch, collide};
use super::constraint::impedance;
use super::plan::{Pair, Plan, Test};
use super::spatial::{V3, axpy, clear as clear_all, cross, dot, mul_v, normalized, scale, sub, v3};
use super::workspace::Workspace;
use flipside_core::simd::{Lanes, Mask};

/// Finds the contacts of every lane and their Jacobians (mj_collision, mj_makeConstraint).
#[inline(always)]
pub fn contacts<L: Lanes>(plan: &Plan<L::Scalar>, ws: &mut Workspace<L>) {
    ws.contacts.count = 0;
    ws.contacts.couples = false;
    let mut taken = L::zero();
    for (index, pair) in plan.pairs.iter().enumerate() {
        let (a, b) = (shape(plan, ws, pair.geoms[0]), shape(plan, ws, pair.geoms[1]));
        let margin = L::splat(pair.margin);
        let among = match pair.near {
            None => !L::Mask::NONE,
            Some(near) => {
                let apart = sub(a.center, b.center);
                let among = dot(apart, apart).lt(L::splat(near));
                if !among.any() {
                    continue;
                }
                among
            }
        };
        for touch in collide(pair.test, &a, &b, margin, among) {
            if touch.near.any() {
                add(plan, ws, index, pair, &touch, b.axis, &mut taken);
            }
        }
    }
}

#[inline(always)]
fn shape<L: Lanes>(plan: &Plan<L::Scalar>, ws: &Workspace<L>, geom: usize) -> Shape<L> {
    let geom = &plan.geoms[geom];
    let mat = &ws.xmat[geom.body];
    Shape {
        center: super::spatial::add(ws.xpos[geom.body], mul_v(mat, v3(&geom.pos))),
        axis: mul_v(mat, v3(&geom.axis)),
        radius: L::splat(geom.radius),
        half_length: L::splat(geom.half_length),
    }
}

/// Packs a contact into the lanes that have it. `taken` counts each lane's contacts so far.
#[inline(always)]
fn add<L: Lanes>(
    plan: &Plan<L::Scalar>,
    ws: &mut Workspace<L>,
    index: usize,
    pair: &Pair<L::Scalar>,
    touch: &Touch<L>,
    hint: V3<L>,
    taken: &mut L,
) {
    let (nv, directions) = (plan.nv, ws.contacts.directions);
    let frame = frame(plan, pair.test, touch.normal, hint);
    // A unit force along a direction, as a wrench about the centre of mass of either body's tree.
    let arms = [arm(plan, ws, touch, pair.bodies[0]), arm(plan, ws, touch, pair.bodies[1])];
    let (imp, regulariser) = impedance(&pair.softness, (touch.distance - L::splat(pair.margin)).abs());
    let depth = touch.distance - L::splat(pair.margin);
    let pull = L::splat(pair.softness.stiffness) * imp * depth;
    let damping = L::splat(pair.softness.damping);
    let mut left = touch.near;
    let mut c = 0;
    while left.any() {
        let at = L::of(c as f64);
        let here = left & (*taken - at).abs().lt(L::of(0.5));
        if here.any() {
            if c == ws.contacts.count {
                clear(ws, c, nv);
            }
            let contacts = &mut ws.contacts;
            contacts.active[c] = contacts.active[c] | here;
            contacts.couples |= pair.couples;
            put(here, &mut contacts.friction[c], L::splat(pair.friction));
            put(here, &mut contacts.stiffness[c], L::one() / regulariser);
            put(here, &mut contacts.distance[c], touch.distance);
            for k in 0..3 {
                put(here, &mut contacts.point[c][k], touch.point[k]);
                for (slot, axis) in contacts.frame[c].iter_mut().zip(&frame) {
                    put(here, &mut slot[k], axis[k]);
                }
            }
            for lane in 0..L::LANES {
                if here.get(lane) {
                    contacts.pair[c * L::LANES + lane] = index as u16;
                }
            }
            for (k, axis) in frame.iter().enumerate().take(directions) {
                let torques = [cross(arms[0], *axis), cross(arms[1], *axis)];
                let row = &mut contacts.jacobian[(c * directions + k) * nv..][..nv];
                let mut velocity = L::zero();
                for (dof, second) in &pair.chain {
                    let torque = torques[usize::from(*second)];
                    let m = &ws.cdof[*dof];
                    let moved = dot([m[0], m[1], m[2]], torque) + dot([m[3], m[4], m[5]], *axis);
                    let moved = if *second { moved } else { -moved };
                    velocity = moved.mul_add(ws.qvel[*dof], velocity);
                    row[*dof] = L::select(here, moved, row[*dof]);
                }
                let aref = -(damping * velocity) - if k == 0 { pull } else { L::zero() };
                let slot = &mut contacts.aref[c * directions + k];
                *slot = L::select(here, aref, *slot);
            }
            *taken = L::select(here, *taken + L::one(), *taken);
            left = left & !here;
        }
        c += 1;
    }
}

#[inline(always)]
fn put<L: Lanes>(lanes: L::Mask, slot: &mut L, x: L) {
    *slot = L::select(lanes, x, *slot);
}

/// The vector from the centre of mass of a body's tree to the point of contact.
#[inline(always)]
fn arm<L: Lanes>(plan: &Plan<L::Scalar>, ws: &Workspace<L>, touch: &Touch<L>, body: usize) -> V3<L> {
    sub(touch.point, ws.com[plan.bodies[body].root])
}

/// Extends the arrays for the c-th contact.
#[inline(always)]
fn clear<L: Lanes>(ws: &mut Workspace<L>, c: usize, nv: usize) {
    let contacts = &mut ws.contacts;
    let directions = contacts.directions;
    let zero = L::zero();
    contacts.count = c + 1;
    contacts.active[c] = L::Mask::NONE;
    contacts.friction[c] = zero;
    contacts.stiffness[c] = zero;
    contacts.distance[c] = zero;
    contacts.point[c] = [zero; 3];
    contacts.frame[c] = [[zero; 3]; 3];
    clear_all(&mut contacts.aref[c * directions..(c + 1) * directions]);
    clear_all(&mut contacts.jacobian[c * directions * nv..(c + 1) * directions * nv]);
}

/// The contact's axes: the normal and two tangents (mju_makeFrame). The first tangent is along the capsule if one lies
/// on a plane; otherwise it is along y, or z if the normal is near y. If motion is planar, the first tangent is the one
/// in the plane.
#[inline(always)]
fn frame<L: Lanes>(plan: &Plan<L::Scalar>, test: Test, normal: V3<L>, hint: V3<L>) -> [V3<L>; 3] {
    if let Some(across) = &plan.across {
        let across = v3(across);
        return [normal, cross(normal, across), across];
    }
    let (zero, one) = (L::zero(), L::one());
    let second = if test == Test::PlaneCapsule {
        hint
    } else {
        let upright = normal[1].abs().lt(L::of(0.5));
        [zero, L::select(upright, one, zero), L::select(upright, zero, one)]
    };
    let (tangent, _) = normalized(axpy(-dot(normal, second), normal, second));
    [normal, tangent, cross(normal, tangent)]
}

/// A contact's force in world axes, from its components along the contact's own axes.
#[inline(always)]
pub fn in_world<L: Lanes>(frame: &[V3<L>; 3], parts: &[L]) -> V3<L> {
    let mut force = scale(parts[0], frame[0]);
    for (part, axis) in parts.iter().zip(frame).skip(1) {
        force = axpy(*part, *axis, force);
    }
    force
}
