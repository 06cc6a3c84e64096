// Which geoms touch, and how the bodies move against each other there.
//
// A contact's Jacobian is not stored. Its rows follow from point, normal and tangent. The solver needs them as motions
// of points and as wrenches on bodies, which take a few operations each.
#define_import_path physics::contact

#import physics::plan::{hold, plan, PAIRS, SLOTS, DIRECTIONS, TEAM, PLANE_CAPSULE}
#import physics::spatial::{Spatial, normalized}
#import physics::collide::{Shape, Touch, Touches, collide}
#import physics::constraint::impedance
#import physics::team::{any_of, member, ranked, sync, zero}
#import physics::workspace::{group, lane, workspaces, Contact}

// Finds the contacts and their constraint parameters (mj_collision, mj_makeConstraint).
fn contacts() {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    // Each member tests one pair at a time. Found contacts are listed in the order of the pairs.
    var count = 0u;
    var couples = 0u;
    for (var base = zero(); base < PAIRS; base += TEAM) {
        let index = base + member;
        var touches = Touches();
        var hint = vec3f();
        if index < PAIRS {
            let a = shape(plan.pairs[index].geom_a);
            let b = shape(plan.pairs[index].geom_b);
            let near = plan.pairs[index].near;
            let apart = a.center - b.center;
            hint = b.axis;
            if near < 0.0 || dot(apart, apart) < near {
                touches = collide(plan.pairs[index].test, a, b, plan.pairs[index].margin);
            }
        }
        let place = ranked(count, select(0u, 1u, touches.first.near) + select(0u, 1u, touches.second.near));
        var at = place.x;
        for (var k = hold; k < 2u; k++) {
            var touch = touches.first;
            if k == 1u {
                touch = touches.second;
            }
            if touch.near && at < SLOTS {
                add(at, index, touch, hint);
                at++;
                couples |= plan.pairs[index].couples;
            }
        }
        count = min(place.y, SLOTS);
    }
    let coupled = any_of(couples != 0u);
    if member == 0u {
        ws.count[lane] = count;
        ws.couples[lane] = select(0u, 1u, coupled);
    }
    sync();
#else
    ws.count[lane] = 0u;
    ws.couples[lane] = 0u;
    for (var index = hold; index < PAIRS; index++) {
        let a = shape(plan.pairs[index].geom_a);
        let b = shape(plan.pairs[index].geom_b);
        let near = plan.pairs[index].near;
        let apart = a.center - b.center;
        if near >= 0.0 && dot(apart, apart) >= near {
            continue;
        }
        let touches = collide(plan.pairs[index].test, a, b, plan.pairs[index].margin);
        for (var k = hold; k < 2u; k++) {
            var touch = touches.first;
            if k == 1u {
                touch = touches.second;
            }
            if touch.near && ws.count[lane] < SLOTS {
                add(ws.count[lane], index, touch, b.axis);
                ws.count[lane]++;
                ws.couples[lane] |= plan.pairs[index].couples;
            }
        }
    }
#endif
}

fn shape(geom: u32) -> Shape {
    let ws = &workspaces[group];
    let body = plan.geoms[geom].body;
    let mat = ws.xmat[body][lane];
    return Shape(
        ws.xpos[body][lane] + mat * plan.geoms[geom].pos,
        mat * plan.geoms[geom].axis,
        plan.geoms[geom].radius,
        plan.geoms[geom].half_length,
    );
}

fn add(at: u32, index: u32, touch: Touch, hint: vec3f) {
    let ws = &workspaces[group];
    let tangent = first_tangent(plan.pairs[index].test, touch.normal, hint);
    var made: Contact;
    made.point = touch.point;
    made.pair = index;
    made.normal = touch.normal;
    made.tangent = tangent;
    made.friction = plan.pairs[index].friction;
    let softness = plan.pairs[index].softness;
    let depth = touch.distance - plan.pairs[index].margin;
    let asked = impedance(softness, abs(depth));
    made.stiffness = 1.0 / asked.regulariser;
    made.residual = -softness.damping * parted(made, motion_a(index, touch.point), motion_b(index, touch.point));
    made.residual.x -= softness.stiffness * asked.d * depth;
    ws.contact[at][lane] = made;
}

// The velocity of the first body's point that lies where the contact is.
fn motion_a(pair: u32, point: vec3f) -> vec3f {
    let ws = &workspaces[group];
    let body = plan.pairs[pair].body_a;
    return at_point(ws.cvel[body][lane], body, point);
}

fn motion_b(pair: u32, point: vec3f) -> vec3f {
    let ws = &workspaces[group];
    let body = plan.pairs[pair].body_b;
    return at_point(ws.cvel[body][lane], body, point);
}

// How a body that moves with `motion` about its tree's centre of mass moves a point.
fn at_point(motion: Spatial, body: u32, point: vec3f) -> vec3f {
    let ws = &workspaces[group];
    return motion.linear + cross(motion.angular, point - ws.com[plan.bodies[body].root][lane]);
}

// The relative motion of two bodies along the contact's directions.
fn parted(contact: Contact, a: vec3f, b: vec3f) -> vec3f {
    let u = b - a;
    var along = vec3f(dot(contact.normal, u), 0.0, 0.0);
    if DIRECTIONS > 1u {
        along.y = dot(contact.tangent, u);
    }
    if DIRECTIONS > 2u {
        along.z = dot(cross(contact.normal, contact.tangent), u);
    }
    return along;
}

// A vector along the contact's directions, in world axes.
fn in_world(contact: Contact, parts: vec3f) -> vec3f {
    var sum = parts.x * contact.normal;
    if DIRECTIONS > 1u {
        sum += parts.y * contact.tangent;
    }
    if DIRECTIONS > 2u {
        sum += parts.z * cross(contact.normal, contact.tangent);
    }
    return sum;
}

// The first of the contact's two tangents (mju_makeFrame). It is along the capsule if one lies on a plane; otherwise it
// is along y, or z if the normal is near y. If motion is planar, it is the one in the plane.
fn first_tangent(test: u32, normal: vec3f, hint: vec3f) -> vec3f {
#ifdef IS_PLANAR
    return cross(normal, plan.across);
#else
    var second = hint;
    if test != PLANE_CAPSULE {
        second = select(vec3f(0.0, 0.0, 1.0), vec3f(0.0, 1.0, 0.0), abs(normal.y) < 0.5);
    }
    return normalized(second - dot(normal, second) * normal).unit;
#endif
}
