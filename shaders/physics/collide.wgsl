// Distances between pairs of shapes, as MuJoCo's primitive tests give them: signed distance, normal from the first
// shape to the second, and the point half-way between the two surfaces.
#define_import_path physics::collide

#import physics::plan::{hold, PLANE_SPHERE, PLANE_CAPSULE, SPHERE_SPHERE, SPHERE_CAPSULE, CAPSULE_CAPSULE, SPHERE_CYLINDER, CAPSULE_CYLINDER}
#import physics::spatial::normalized

// A shape's place in the world; `axis` is its z.
struct Shape {
    center: vec3f,
    axis: vec3f,
    radius: f32,
    half_length: f32,
}

// A point where two shapes are near each other, if they are.
struct Touch {
    near: bool,
    distance: f32,
    point: vec3f,
    normal: vec3f,
}

struct Touches {
    first: Touch,
    second: Touch,
}

// Tests two shapes: up to two touches nearer than `margin`. Tests that no pair of the model needs are left out.
fn collide(test: u32, a: Shape, b: Shape, margin: f32) -> Touches {
#ifdef HAS_PLANE_SPHERE
    if test == PLANE_SPHERE {
        return Touches(plane_sphere(a, b.center, b.radius, margin), Touch());
    }
#endif
#ifdef HAS_PLANE_CAPSULE
    if test == PLANE_CAPSULE {
        let reach = b.half_length * b.axis;
        return Touches(
            plane_sphere(a, b.center + reach, b.radius, margin),
            plane_sphere(a, b.center - reach, b.radius, margin),
        );
    }
#endif
#ifdef HAS_SPHERE_SPHERE
    if test == SPHERE_SPHERE {
        return Touches(spheres(a.center, a.radius, b.center, b.radius, margin), Touch());
    }
#endif
#ifdef HAS_SPHERE_CAPSULE
    if test == SPHERE_CAPSULE {
        let along = clamp(dot(a.center - b.center, b.axis), -b.half_length, b.half_length);
        return Touches(spheres(a.center, a.radius, b.center + along * b.axis, b.radius, margin), Touch());
    }
#endif
#ifdef HAS_CAPSULE_CAPSULE
    if test == CAPSULE_CAPSULE {
        return capsules(a, b, margin);
    }
#endif
#ifdef HAS_SPHERE_CYLINDER
    if test == SPHERE_CYLINDER {
        return Touches(capsule_cylinder(Shape(a.center, b.axis, a.radius, 0.0), b, margin), Touch());
    }
#endif
#ifdef HAS_CAPSULE_CYLINDER
    if test == CAPSULE_CYLINDER {
        return Touches(capsule_cylinder(a, b, margin), Touch());
    }
#endif
    return Touches();
}

fn plane_sphere(plane: Shape, center: vec3f, radius: f32, margin: f32) -> Touch {
    let distance = dot(center - plane.center, plane.axis) - radius;
    return Touch(distance < margin, distance, center - (radius + 0.5 * distance) * plane.axis, plane.axis);
}

fn spheres(a: vec3f, radius_a: f32, b: vec3f, radius_b: f32, margin: f32) -> Touch {
    let towards = normalized(b - a);
    let distance = towards.length - radius_a - radius_b;
    return Touch(distance < margin, distance, a + (radius_a + 0.5 * distance) * towards.unit, towards.unit);
}

#ifdef HAS_CAPSULE_CAPSULE
// Where two segments are closest, spheres are tested; where the segments are parallel, at up to two of their ends.
fn capsules(a: Shape, b: Shape, margin: f32) -> Touches {
    let p = a.half_length * a.axis;
    let q = b.half_length * b.axis;
    let apart = a.center - b.center;
    let ma = dot(p, p);
    let mb = -dot(p, q);
    let mc = dot(q, q);
    let u = -dot(p, apart);
    let v = dot(q, apart);
    let det = ma * mc - mb * mb;
    // The rounding of one operation, as in the Rust code.
    if abs(det) >= max(1.1920929e-7 * ma * mc, 1e-15) {
        let free_a = (mc * u - mb * v) / det;
        // Each end in turn is paired with the closest point of the other segment.
        var at_b = (ma * v - mb * u) / det;
        if free_a > 1.0 {
            at_b = (v - mb) / mc;
        } else if free_a < -1.0 {
            at_b = (v + mb) / mc;
        }
        var at_a = clip(free_a);
        if at_b > 1.0 {
            at_a = clip((u - mb) / ma);
        } else if at_b < -1.0 {
            at_a = clip((u + mb) / ma);
        }
        return Touches(spheres(a.center + at_a * p, a.radius, b.center + clip(at_b) * q, b.radius, margin), Touch());
    }
    var touches = Touches();
    for (var k = hold; k < 4u; k++) {
        let end = select(1.0, -1.0, (k & 1u) == 1u);
        let on_a = k < 2u;
        let at_a = select(clip((u - end * mb) / ma), end, on_a);
        let at_b = select(end, clip((v - end * mb) / mc), on_a);
        let found = spheres(a.center + at_a * p, a.radius, b.center + at_b * q, b.radius, margin);
        if found.near && !touches.first.near {
            touches.first = found;
        } else if found.near && !touches.second.near {
            touches.second = found;
        }
    }
    return touches;
}

// Inside ±1.
fn clip(x: f32) -> f32 {
    return clamp(x, -1.0, 1.0);
}
#endif

#ifdef HAS_CYLINDER
// The point of the capsule's segment where the cylinder's signed distance is least. That distance is convex along the
// segment, so its slope is bisected. As long as the segment itself stays outside the cylinder, this is the distance of
// the two shapes.
fn capsule_cylinder(capsule: Shape, cylinder: Shape, margin: f32) -> Touch {
    var low = -capsule.half_length;
    var high = capsule.half_length;
    for (var halving = hold; halving < 24u; halving++) {
        let middle = 0.5 * (low + high);
        let slope = outside(cylinder, capsule.center + middle * capsule.axis).away;
        if dot(slope, capsule.axis) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let center = capsule.center + 0.5 * (low + high) * capsule.axis;
    let there = outside(cylinder, center);
    let distance = there.depth - capsule.radius;
    // Half-way between the surfaces, on the line along the normal.
    let half_way = capsule.radius + 0.5 * distance;
    return Touch(distance < margin, distance, center - half_way * there.away, -there.away);
}

// A signed distance and its gradient.
struct Outside {
    depth: f32,
    away: vec3f,
}

// The signed distance of a point from a cylinder.
fn outside(cylinder: Shape, point: vec3f) -> Outside {
    let offset = point - cylinder.center;
    let along = dot(offset, cylinder.axis);
    let radial = normalized(offset - along * cylinder.axis);
    let up = select(cylinder.axis, -cylinder.axis, along < 0.0);
    let side = radial.length - cylinder.radius;
    let cap = abs(along) - cylinder.half_length;
    if side > 0.0 && cap > 0.0 {
        // Beyond the rim the rim is nearest.
        let edge = sqrt(side * side + cap * cap);
        return Outside(edge, (side * radial.unit + cap * up) * (1.0 / edge));
    }
    return Outside(max(side, cap), select(radial.unit, up, cap >= side));
}
#endif
