//! Three-dimensional vectors and matrices, and Featherstone's spatial vectors in MuJoCo's layout: a motion or a force
//! is six numbers, the rotational part first; an inertia is ten: xx yy zz xy xz yz of the rotational inertia, mass ·
//! centre of mass, mass. All are in the axes of the world, about an origin that the caller fixes.

use flipside_core::simd::Lanes;

/// A vector.
pub type V3<L> = [L; 3];
/// A matrix, row after row.
pub type M3<L> = [L; 9];
/// A spatial motion (angular, linear velocity) or force (torque, force).
pub type S6<L> = [L; 6];
/// A rigid body's inertia.
pub type I10<L> = [L; 10];

/// A constant vector in every lane.
#[inline(always)]
pub fn v3<L: Lanes>(v: &V3<L::Scalar>) -> V3<L> {
    [L::splat(v[0]), L::splat(v[1]), L::splat(v[2])]
}

/// Constants in every lane. (Not `map`: what it calls is compiled without the instructions of the caller.)
#[inline(always)]
pub fn spread<L: Lanes, const N: usize>(constants: &[L::Scalar; N]) -> [L; N] {
    let mut out = [L::zero(); N];
    for k in 0..N {
        out[k] = L::splat(constants[k]);
    }
    out
}

/// Zero in every lane of all.
#[inline(always)]
pub fn clear<L: Lanes>(numbers: &mut [L]) {
    for x in numbers {
        *x = L::zero();
    }
}

/// A copy of all.
#[inline(always)]
pub fn copy<L: Lanes>(from: &[L], to: &mut [L]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// a + b.
#[inline(always)]
pub fn add<L: Lanes>(a: V3<L>, b: V3<L>) -> V3<L> {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// a − b.
#[inline(always)]
pub fn sub<L: Lanes>(a: V3<L>, b: V3<L>) -> V3<L> {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// s · a.
#[inline(always)]
pub fn scale<L: Lanes>(s: L, a: V3<L>) -> V3<L> {
    [s * a[0], s * a[1], s * a[2]]
}

/// s · a + b.
#[inline(always)]
pub fn axpy<L: Lanes>(s: L, a: V3<L>, b: V3<L>) -> V3<L> {
    [s.mul_add(a[0], b[0]), s.mul_add(a[1], b[1]), s.mul_add(a[2], b[2])]
}

/// a · b.
#[inline(always)]
pub fn dot<L: Lanes>(a: V3<L>, b: V3<L>) -> L {
    a[2].mul_add(b[2], a[1].mul_add(b[1], a[0] * b[0]))
}

/// a × b.
#[inline(always)]
pub fn cross<L: Lanes>(a: V3<L>, b: V3<L>) -> V3<L> {
    [a[1].mul_add(b[2], -(a[2] * b[1])), a[2].mul_add(b[0], -(a[0] * b[2])), a[0].mul_add(b[1], -(a[1] * b[0]))]
}

/// M v.
#[inline(always)]
pub fn mul_v<L: Lanes>(m: &M3<L>, v: V3<L>) -> V3<L> {
    [dot([m[0], m[1], m[2]], v), dot([m[3], m[4], m[5]], v), dot([m[6], m[7], m[8]], v)]
}

/// Mᵀ v.
#[inline(always)]
pub fn mul_tv<L: Lanes>(m: &M3<L>, v: V3<L>) -> V3<L> {
    [dot([m[0], m[3], m[6]], v), dot([m[1], m[4], m[7]], v), dot([m[2], m[5], m[8]], v)]
}

/// A constant matrix applied from the right: M C.
#[inline(always)]
pub fn mul_const<L: Lanes>(m: &M3<L>, c: &M3<L::Scalar>) -> M3<L> {
    let mut out = [L::zero(); 9];
    for row in 0..3 {
        for col in 0..3 {
            out[3 * row + col] = m[3 * row + 2].mul_add(
                L::splat(c[6 + col]),
                m[3 * row + 1].mul_add(L::splat(c[3 + col]), m[3 * row] * L::splat(c[col])),
            );
        }
    }
    out
}

/// A column of a matrix.
#[inline(always)]
pub fn column<L: Lanes>(m: &M3<L>, col: usize) -> V3<L> {
    [m[col], m[3 + col], m[6 + col]]
}

/// The unit vector along v and v's length; x where v is shorter than 1e-15 (as MuJoCo's mju_normalize3).
#[inline(always)]
pub fn normalized<L: Lanes>(v: V3<L>) -> (V3<L>, L) {
    let length = dot(v, v).sqrt();
    let tiny = length.lt(L::of(1e-15));
    let inverse = L::one() / L::select(tiny, L::one(), length);
    let unit = scale(inverse, v);
    let x = [L::one(), L::zero(), L::zero()];
    ([L::select(tiny, x[0], unit[0]), L::select(tiny, x[1], unit[1]), L::select(tiny, x[2], unit[2])], length)
}

/// The rotation of a quaternion (w, x, y, z), which need not be of unit length.
#[inline(always)]
pub fn rotation<L: Lanes>(q: [L; 4]) -> M3<L> {
    let q = unit(q);
    let [w, x, y, z] = q;
    let two = L::of(2.0);
    let one = L::one();
    [
        one - two * (y * y + z * z),
        two * (x * y - w * z),
        two * (x * z + w * y),
        two * (x * y + w * z),
        one - two * (x * x + z * z),
        two * (y * z - w * x),
        two * (x * z - w * y),
        two * (y * z + w * x),
        one - two * (x * x + y * y),
    ]
}

/// A quaternion of unit length; the identity where it is zero.
#[inline(always)]
pub fn unit<L: Lanes>(q: [L; 4]) -> [L; 4] {
    let length = (q[0] * q[0] + q[1] * q[1] + (q[2] * q[2] + q[3] * q[3])).sqrt();
    let tiny = length.lt(L::of(1e-15));
    let inverse = L::one() / L::select(tiny, L::one(), length);
    let w = L::select(tiny, L::one(), q[0] * inverse);
    [w, q[1] * inverse, q[2] * inverse, q[3] * inverse]
}

/// The product of two quaternions (w, x, y, z).
#[inline(always)]
pub fn quat_mul<L: Lanes>(a: [L; 4], b: [L; 4]) -> [L; 4] {
    [
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    ]
}

/// The scalar product of a motion and a force: power.
#[inline(always)]
pub fn dot6<L: Lanes>(a: &S6<L>, b: &S6<L>) -> L {
    let first = a[2].mul_add(b[2], a[1].mul_add(b[1], a[0] * b[0]));
    let second = a[5].mul_add(b[5], a[4].mul_add(b[4], a[3] * b[3]));
    first + second
}

/// I v: the momentum of a body that moves with v, or the force that accelerates it with v.
#[inline(always)]
pub fn inertia_mul<L: Lanes>(i: &I10<L>, v: &S6<L>) -> S6<L> {
    let moment = [i[6], i[7], i[8]];
    let (angular, linear) = ([v[0], v[1], v[2]], [v[3], v[4], v[5]]);
    let turning = [
        i[4].mul_add(v[2], i[3].mul_add(v[1], i[0] * v[0])),
        i[5].mul_add(v[2], i[1].mul_add(v[1], i[3] * v[0])),
        i[2].mul_add(v[2], i[5].mul_add(v[1], i[4] * v[0])),
    ];
    let torque = add(turning, cross(moment, linear));
    let force = sub(scale(i[9], linear), cross(moment, angular));
    [torque[0], torque[1], torque[2], force[0], force[1], force[2]]
}

/// How a motion m, carried along by v, changes: v × m.
#[inline(always)]
pub fn cross_motion<L: Lanes>(v: &S6<L>, m: &S6<L>) -> S6<L> {
    let (w, u) = ([v[0], v[1], v[2]], [v[3], v[4], v[5]]);
    let (a, b) = ([m[0], m[1], m[2]], [m[3], m[4], m[5]]);
    let angular = cross(w, a);
    let linear = add(cross(w, b), cross(u, a));
    [angular[0], angular[1], angular[2], linear[0], linear[1], linear[2]]
}

/// How a force f, carried along by v, changes: v ×* f.
#[inline(always)]
pub fn cross_force<L: Lanes>(v: &S6<L>, f: &S6<L>) -> S6<L> {
    let (w, u) = ([v[0], v[1], v[2]], [v[3], v[4], v[5]]);
    let (a, b) = ([f[0], f[1], f[2]], [f[3], f[4], f[5]]);
    let torque = add(cross(w, a), cross(u, b));
    let force = cross(w, b);
    [torque[0], torque[1], torque[2], force[0], force[1], force[2]]
}

/// s · a + b of six numbers.
#[inline(always)]
pub fn axpy6<L: Lanes>(s: L, a: &S6<L>, b: &S6<L>) -> S6<L> {
    let mut out = *b;
    for k in 0..6 {
        out[k] = s.mul_add(a[k], b[k]);
    }
    out
}
