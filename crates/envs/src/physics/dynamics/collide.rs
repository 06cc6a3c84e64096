//! Distances between pairs of shapes, as MuJoCo's primitive tests give them: signed distance, normal from the first
//! shape to the second, and the point half-way between the two surfaces.

use super::plan::Test;
use super::spatial::{V3, add, axpy, dot, normalized, scale, sub};
use flipside_core::simd::{Lanes, Mask};

/// A shape's place in the world.
#[derive(Clone, Copy)]
pub struct Shape<L> {
    pub center: V3<L>,
    /// Its z axis.
    pub axis: V3<L>,
    pub radius: L,
    pub half_length: L,
}

/// A point where two shapes are near each other, in the lanes where they are.
#[derive(Clone, Copy)]
pub struct Touch<L: Lanes> {
    pub near: L::Mask,
    pub distance: L,
    pub point: V3<L>,
    pub normal: V3<L>,
}

impl<L: Lanes> Touch<L> {
    #[inline(always)]
    pub fn none() -> Touch<L> {
        let z = L::zero();
        Touch { near: L::Mask::NONE, distance: z, point: [z; 3], normal: [z; 3] }
    }
}

/// Tests two shapes in the lanes of `among`: up to two touches nearer than `margin`.
#[inline(always)]
pub fn collide<L: Lanes>(test: Test, a: &Shape<L>, b: &Shape<L>, margin: L, among: L::Mask) -> [Touch<L>; 2] {
    let none = Touch::none();
    let mut touches = match test {
        Test::PlaneSphere => [plane_sphere(a, b.center, b.radius, margin), none],
        Test::PlaneCapsule => {
            let reach = scale(b.half_length, b.axis);
            [
                plane_sphere(a, add(b.center, reach), b.radius, margin),
                plane_sphere(a, sub(b.center, reach), b.radius, margin),
            ]
        }
        Test::SphereSphere => [spheres(a.center, a.radius, b.center, b.radius, margin), none],
        Test::SphereCapsule => {
            let along = dot(sub(a.center, b.center), b.axis).max(-b.half_length).min(b.half_length);
            [spheres(a.center, a.radius, axpy(along, b.axis, b.center), b.radius, margin), none]
        }
        Test::CapsuleCapsule => capsules(a, b, margin),
        Test::SphereCylinder => {
            let point = Shape { half_length: L::zero(), axis: b.axis, ..*a };
            [capsule_cylinder(&point, b, margin), none]
        }
        Test::CapsuleCylinder => [capsule_cylinder(a, b, margin), none],
    };
    for touch in &mut touches {
        touch.near = touch.near & among;
    }
    touches
}

#[inline(always)]
fn plane_sphere<L: Lanes>(plane: &Shape<L>, center: V3<L>, radius: L, margin: L) -> Touch<L> {
    let distance = dot(sub(center, plane.center), plane.axis) - radius;
    let down = distance.mul_add(L::of(0.5), radius);
    Touch { near: distance.lt(margin), distance, point: axpy(-down, plane.axis, center), normal: plane.axis }
}

#[inline(always)]
fn spheres<L: Lanes>(a: V3<L>, radius_a: L, b: V3<L>, radius_b: L, margin: L) -> Touch<L> {
    let (normal, apart) = normalized(sub(b, a));
    let distance = apart - radius_a - radius_b;
    Touch {
        near: distance.lt(margin),
        distance,
        point: axpy(distance.mul_add(L::of(0.5), radius_a), normal, a),
        normal,
    }
}

/// Where two segments are closest, spheres are tested; where the segments are parallel, at up to two of their ends.
#[inline(always)]
fn capsules<L: Lanes>(a: &Shape<L>, b: &Shape<L>, margin: L) -> [Touch<L>; 2] {
    let one = L::one();
    let (p, q) = (scale(a.half_length, a.axis), scale(b.half_length, b.axis));
    let apart = sub(a.center, b.center);
    let (ma, mb, mc) = (dot(p, p), -dot(p, q), dot(q, q));
    let (u, v) = (-dot(p, apart), dot(q, apart));
    let det = ma.mul_add(mc, -(mb * mb));
    let parallel = det.abs().lt((L::of(L::EPSILON) * ma * mc).max(L::of(1e-15)));
    let det = L::select(parallel, one, det);
    let mut x1 = mc.mul_add(u, -(mb * v)) / det;
    let mut x2 = ma.mul_add(v, -(mb * u)) / det;
    // Each end in turn is paired with the closest point of the other segment.
    let high = one.lt(x1);
    let low = x1.lt(-one);
    x2 = L::select(high, (v - mb) / mc, L::select(low, (v + mb) / mc, x2));
    x1 = clip(x1);
    let high = one.lt(x2);
    let low = x2.lt(-one);
    x1 = L::select(high, clip((u - mb) / ma), L::select(low, clip((u + mb) / ma), x1));
    x2 = clip(x2);
    let mut first = spheres(axpy(x1, p, a.center), a.radius, axpy(x2, q, b.center), b.radius, margin);
    let mut second = Touch::<L>::none();
    if parallel.any() {
        first.near = first.near & !parallel;
        for (x1, x2) in [
            (one, clip((v - mb) / mc)),
            (-one, clip((v + mb) / mc)),
            (clip((u - mb) / ma), one),
            (clip((u + mb) / ma), -one),
        ] {
            let found = spheres(axpy(x1, p, a.center), a.radius, axpy(x2, q, b.center), b.radius, margin);
            let hit = found.near & parallel;
            let to_first = hit & !first.near;
            let to_second = hit & first.near & !second.near;
            take(&mut second, &found, to_second);
            take(&mut first, &found, to_first);
        }
    }
    [first, second]
}

/// Inside ±1.
#[inline(always)]
fn clip<L: Lanes>(x: L) -> L {
    x.max(-L::one()).min(L::one())
}

#[inline(always)]
fn take<L: Lanes>(into: &mut Touch<L>, from: &Touch<L>, lanes: L::Mask) {
    into.near = into.near | lanes;
    into.distance = L::select(lanes, from.distance, into.distance);
    for k in 0..3 {
        into.point[k] = L::select(lanes, from.point[k], into.point[k]);
        into.normal[k] = L::select(lanes, from.normal[k], into.normal[k]);
    }
}

/// The point of the capsule's segment where the cylinder's signed distance is least. That distance is convex along the
/// segment, so its slope is bisected. As long as the segment itself stays outside the cylinder, this is the distance of
/// the two shapes.
#[inline(always)]
fn capsule_cylinder<L: Lanes>(capsule: &Shape<L>, cylinder: &Shape<L>, margin: L) -> Touch<L> {
    let mut low = -capsule.half_length;
    let mut high = capsule.half_length;
    let halvings = if L::EPSILON < 1e-10 { 52 } else { 24 };
    for _ in 0..halvings {
        let middle = (low + high) * L::of(0.5);
        let (_, slope) = outside(cylinder, axpy(middle, capsule.axis, capsule.center));
        let falling = dot(slope, capsule.axis).lt(L::zero());
        low = L::select(falling, middle, low);
        high = L::select(falling, high, middle);
    }
    let center = axpy((low + high) * L::of(0.5), capsule.axis, capsule.center);
    let (depth, away) = outside(cylinder, center);
    let distance = depth - capsule.radius;
    // Half-way between the surfaces, on the line along the normal.
    let half = distance.mul_add(L::of(0.5), capsule.radius);
    Touch { near: distance.lt(margin), distance, point: axpy(-half, away, center), normal: scale(-L::one(), away) }
}

/// The signed distance of a point from a cylinder and its gradient.
#[inline(always)]
fn outside<L: Lanes>(cylinder: &Shape<L>, point: V3<L>) -> (L, V3<L>) {
    let (zero, one) = (L::zero(), L::one());
    let from = sub(point, cylinder.center);
    let along = dot(from, cylinder.axis);
    let (radial, off) = normalized(axpy(-along, cylinder.axis, from));
    let up = scale(L::select(along.lt(zero), -one, one), cylinder.axis);
    let side = off - cylinder.radius;
    let cap = along.abs() - cylinder.half_length;
    let (beyond_side, beyond_cap) = (zero.lt(side), zero.lt(cap));
    let edge = side.mul_add(side, cap * cap).sqrt();
    let both = beyond_side & beyond_cap;
    let inverse = one / L::select(both, edge, one);
    // Beyond the rim the rim is nearest; else the nearer of mantle and cap.
    let to_side = L::select(both, side * inverse, L::select(cap.lt(side), one, zero));
    let to_cap = L::select(both, cap * inverse, L::select(cap.lt(side), zero, one));
    let distance = L::select(both, edge, side.max(cap));
    (distance, axpy(to_side, radial, scale(to_cap, up)))
}
