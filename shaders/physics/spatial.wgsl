// Featherstone's spatial vectors in MuJoCo's layout: a motion or a force has a rotational part first; an inertia is its
// rotational part (diagonal xx yy zz, products xy xz yz), mass · centre of mass, and mass. All are in the axes of the
// world, about an origin that the caller fixes.
#define_import_path physics::spatial

// A motion (angular, linear velocity) or a force (torque, force).
struct Spatial {
    angular: vec3f,
    linear: vec3f,
}

// A rigid body's inertia.
struct Inertia {
    diagonal: vec3f,
    products: vec3f,
    moment: vec3f,
    mass: f32,
}

// A vector's direction and length.
struct Direction {
    unit: vec3f,
    length: f32,
}

// The unit vector along v and v's length; x where v is shorter than 1e-15 (as MuJoCo's mju_normalize3).
fn normalized(v: vec3f) -> Direction {
    let size = sqrt(dot(v, v));
    let tiny = size < 1e-15;
    let along = v * (1.0 / select(size, 1.0, tiny));
    return Direction(select(along, vec3f(1.0, 0.0, 0.0), tiny), size);
}

// A symmetric matrix from its diagonal xx yy zz and its products xy xz yz.
fn symmetric(diagonal: vec3f, products: vec3f) -> mat3x3f {
    return mat3x3f(
        vec3f(diagonal.x, products.x, products.y),
        vec3f(products.x, diagonal.y, products.z),
        vec3f(products.y, products.z, diagonal.z),
    );
}

// The rotation of a quaternion (w, x, y, z as x, y, z, w of the vector's parts), which need not be of unit length.
fn rotation(quaternion: vec4f) -> mat3x3f {
    let q = unit(quaternion);
    let w = q.x;
    let x = q.y;
    let y = q.z;
    let z = q.w;
    return mat3x3f(
        vec3f(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y)),
        vec3f(2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x)),
        vec3f(2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)),
    );
}

// The rotation about a unit axis by an angle: Rodrigues' formula.
fn about(axis: vec3f, angle: f32) -> mat3x3f {
    let turn = sin_cos(angle);
    let side = turn.x * axis;
    let along = (1.0 - turn.y) * axis;
    return mat3x3f(
        along.x * axis + vec3f(turn.y, side.z, -side.y),
        along.y * axis + vec3f(-side.z, turn.y, side.x),
        along.z * axis + vec3f(side.y, -side.x, turn.y),
    );
}

// A quaternion (w, x, y, z) of unit length; the identity where it is zero.
fn unit(q: vec4f) -> vec4f {
    let size = sqrt(dot(q, q));
    let tiny = size < 1e-15;
    return select(q * (1.0 / select(size, 1.0, tiny)), vec4f(1.0, 0.0, 0.0, 0.0), tiny);
}

// The product of two quaternions (w, x, y, z).
fn quat_mul(a: vec4f, b: vec4f) -> vec4f {
    let real = a.x * b.x - dot(a.yzw, b.yzw);
    return vec4f(real, a.x * b.yzw + b.x * a.yzw + cross(a.yzw, b.yzw));
}

// The scalar product of a motion and a force: power.
fn dot_spatial(a: Spatial, b: Spatial) -> f32 {
    return dot(a.angular, b.angular) + dot(a.linear, b.linear);
}

// I v: the momentum of a body that moves with v, or the force that accelerates it with v.
fn inertia_mul(i: Inertia, v: Spatial) -> Spatial {
    let turning = i.diagonal * v.angular + vec3f(
        i.products.x * v.angular.y + i.products.y * v.angular.z,
        i.products.x * v.angular.x + i.products.z * v.angular.z,
        i.products.y * v.angular.x + i.products.z * v.angular.y,
    );
    return Spatial(turning + cross(i.moment, v.linear), i.mass * v.linear - cross(i.moment, v.angular));
}

// How a motion m, carried along by v, changes: v × m.
fn cross_motion(v: Spatial, m: Spatial) -> Spatial {
    return Spatial(cross(v.angular, m.angular), cross(v.angular, m.linear) + cross(v.linear, m.angular));
}

// How a force f, carried along by v, changes: v ×* f.
fn cross_force(v: Spatial, f: Spatial) -> Spatial {
    return Spatial(cross(v.angular, f.angular) + cross(v.linear, f.linear), cross(v.angular, f.linear));
}

// s · a + b.
fn axpy_spatial(s: f32, a: Spatial, b: Spatial) -> Spatial {
    return Spatial(s * a.angular + b.angular, s * a.linear + b.linear);
}

// Sine and cosine, radians, to within 1e-7 for |x| up to some thousand. The device's own functions are only guaranteed
// to 5e-4. x is reduced to ±π/4 by multiples of π/2 in three parts (Cody and Waite), then the minimax polynomials of
// the Cephes library's sinf and cosf are applied.
fn sin_cos(x: f32) -> vec2f {
    let quarter_turns = round(x * 0.63661977);
    var r = fma(quarter_turns, -1.5703125, x);
    r = fma(quarter_turns, -4.837513e-4, r);
    r = fma(quarter_turns, -7.54979e-8, r);
    let z = r * r;
    let sine = ((-1.9515296e-4 * z + 8.332161e-3) * z - 1.6666655e-1) * z * r + r;
    let cosine = ((2.4433157e-5 * z - 1.3887316e-3) * z + 4.1666646e-2) * z * z + (1.0 - 0.5 * z);
    let quadrant = u32(i32(quarter_turns)) & 3u;
    let turned = select(vec2f(sine, cosine), vec2f(cosine, sine), (quadrant & 1u) == 1u);
    let negative = vec2<bool>(quadrant >= 2u, quadrant == 1u || quadrant == 2u);
    return select(turned, -turned, negative);
}
