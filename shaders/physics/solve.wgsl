// The accelerations: qacc = argmin ½‖a − M⁻¹f‖²_M + ½ Σ D·min(0, J a − aref)², by Newton's method with an exact line
// search.
//
// The cost is strictly convex and piecewise quadratic, so a full Newton step inside one piece ends at the minimum. A
// world is done when its step did not leave the piece of any row.
#define_import_path physics::solve

#import physics::plan::{hold, plan, NV, NBODY, LIMITS, CHUNKS, DIRECTIONS, TEAM}
#import physics::spatial::{Spatial, axpy_spatial, dot_spatial}
#import physics::contact::{at_point, parted, in_world}
#import physics::factor::{chunk, factor, multiply, solve}
#import physics::team::{any_of, member, same, sync, total, zero}
#import physics::workspace::{group, lane, workspaces, Contact, QACC, DIRECTION, JACOBIANS, MA, MD}
#ifdef IS_TEAM
#import physics::bias::on_tree
#endif

// Newton steps at most. Two or three are usual.
const STEPS: u32 = #{NEWTON_STEPS}u;
// Line-search steps at most.
const SEARCHES: u32 = #{SEARCH_STEPS}u;
// Rows of a contact that have no tangent.
const ALONE: f32 = select(select(0.0, 2.0, DIRECTIONS == 2u), 4.0, DIRECTIONS == 1u);
// The decrement below which a step is rounding, relative to the energy of the accelerations: 64 roundings, squared.
const ROUNDING: f32 = 5.8207661e-11;

// How one contact's cost changes with its residuals e = (e_n, e_t…), for rows e_n ± μ e_t and those without a tangent.
struct Rows {
    // Force along each direction: minus the gradient.
    force: vec3f,
    // Curvature: normal–normal, normal–tangent and tangent–tangent, per tangent.
    normal: f32,
    mixed: vec2f,
    tangent: vec2f,
    // Which rows push, one bit each.
    pushing: u32,
}

fn rows(e: vec3f, friction: f32, stiffness: f32) -> Rows {
    var made = Rows();
    var push = 0.0;
    if DIRECTIONS > 1u {
        for (var k = 0u; k < DIRECTIONS - 1u; k++) {
            let along = select(e.z, e.y, k == 0u);
            let plus = e.x + friction * along;
            let minus = e.x - friction * along;
            let f = min(plus, 0.0);
            let g = min(minus, 0.0);
            let one = select(0.0, stiffness, plus < 0.0);
            let two = select(0.0, stiffness, minus < 0.0);
            push += f + g;
            let force = stiffness * friction * (g - f);
            let mixed = friction * (one - two);
            let tangent = friction * friction * (one + two);
            if k == 0u {
                made.force.y = force;
                made.mixed.x = mixed;
                made.tangent.x = tangent;
            } else {
                made.force.z = force;
                made.mixed.y = mixed;
                made.tangent.y = tangent;
            }
            made.normal += one + two;
            made.pushing |= (select(0u, 1u, plus < 0.0) | select(0u, 2u, minus < 0.0)) << (2u * k);
        }
    }
    if DIRECTIONS < 3u {
        push += ALONE * min(e.x, 0.0);
        made.normal += select(0.0, ALONE * stiffness, e.x < 0.0);
        made.pushing |= select(0u, 16u, e.x < 0.0);
    }
    made.force.x = -(stiffness * push);
    return made;
}

fn rows_of(c: u32, e: vec3f) -> Rows {
    let ws = &workspaces[group];
    return rows(e, ws.contact[c][lane].friction, ws.contact[c][lane].stiffness);
}

// Accelerations and constraint forces. Starts from what `qacc` holds.
fn accelerations() {
    let ws = &workspaces[group];
    // A world without active constraints starts at rest. One step from there is M⁻¹f.
    var pushed = ws.count[lane] > 0u;
    for (var k = member + hold; k < LIMITS; k += TEAM) {
        pushed = pushed || ws.limit[k][lane].stiffness > 0.0;
    }
    if !any_of(pushed) {
        for (var i = member + hold; i < NV; i += TEAM) {
            ws.vectors[QACC][i][lane] = 0.0;
        }
    }
    sync();
    multiply(QACC, MA);
    bodies_moved(QACC);
    sync();
    for (var c = member + hold; c < ws.count[lane]; c += TEAM) {
        ws.contact[c][lane].residual = along(c) - ws.contact[c][lane].residual;
    }
    var going = true;
    for (var step = 0u; ; step++) {
        forces();
        if !going || step == STEPS {
            break;
        }
        for (var i = member + hold; i < NV; i += TEAM) {
            let gradient = ws.vectors[MA][i][lane] - ws.smooth_force[i][lane] - ws.constraint[i][lane];
            ws.gradient[i][lane] = gradient;
            ws.vectors[DIRECTION][i][lane] = -gradient;
        }
        hessian();
        let dense = ws.couples[lane] != 0u;
        factor(dense);
        solve(dense, DIRECTION);
        multiply(DIRECTION, MD);
        bodies_moved(DIRECTION);
        sync();
        for (var c = member + hold; c < ws.count[lane]; c += TEAM) {
            ws.contact[c][lane].slope = along(c);
        }

        // How the cost falls along the step, and whether the step leaves a piece.
        var start = 0.0;
        var first = 0.0;
        var second = 0.0;
        var energy = 0.0;
        for (var i = member + hold; i < NV; i += TEAM) {
            let d = ws.vectors[DIRECTION][i][lane];
            start += ws.gradient[i][lane] * d;
            first += (ws.vectors[MA][i][lane] - ws.smooth_force[i][lane]) * d;
            second += ws.vectors[MD][i][lane] * d;
            energy += ws.vectors[MA][i][lane] * ws.vectors[QACC][i][lane];
        }
        let sums = total(vec4f(start, first, second, energy));
        var left = false;
        for (var c = member + hold; c < ws.count[lane]; c += TEAM) {
            let e = ws.contact[c][lane].residual;
            let before = rows_of(c, e);
            let after = rows_of(c, e + ws.contact[c][lane].slope);
            left = left || before.pushing != after.pushing;
        }
        for (var k = member + hold; k < LIMITS; k += TEAM) {
            if ws.limit[k][lane].stiffness > 0.0 {
                let e = limit_residual(k);
                let f = e + ws.limit[k][lane].sign * ws.vectors[DIRECTION][plan.limits[k].dof][lane];
                left = left || (e < 0.0) != (f < 0.0);
            }
        }
        going = any_of(left && ROUNDING * sums.w < -sums.x);
        var alpha = 1.0;
        if going {
            alpha = search(sums.x, sums.y, sums.z);
        }
        for (var i = member + hold; i < NV; i += TEAM) {
            ws.vectors[QACC][i][lane] += alpha * ws.vectors[DIRECTION][i][lane];
            ws.vectors[MA][i][lane] += alpha * ws.vectors[MD][i][lane];
        }
        for (var c = member + hold; c < ws.count[lane]; c += TEAM) {
            ws.contact[c][lane].residual += alpha * ws.contact[c][lane].slope;
        }
    }
}

// Where along the step the cost is least. Its slope is increasing and piecewise linear: Newton from a full step, kept
// inside a bracket.
fn search(start: f32, first: f32, second: f32) -> f32 {
    let ws = &workspaces[group];
    let enough = abs(start) * 1e-3;
    var low = 0.0;
    var high = 1e30;
    var alpha = 1.0;
    for (var k = zero(); k < SEARCHES; k++) {
        // One member adds the smooth part of the cost.
        var slope = select(0.0, first + alpha * second, member == 0u);
        var curve = select(0.0, second, member == 0u);
        for (var c = member + hold; c < ws.count[lane]; c += TEAM) {
            let s = ws.contact[c][lane].slope;
            let here = rows_of(c, ws.contact[c][lane].residual + alpha * s);
            slope -= dot(here.force, s);
            curve += here.normal * s.x * s.x;
            curve += dot((2.0 * s.x) * here.mixed + here.tangent * s.yz, s.yz);
        }
        for (var l = member + hold; l < LIMITS; l += TEAM) {
            let stiffness = ws.limit[l][lane].stiffness;
            if stiffness > 0.0 {
                let s = ws.limit[l][lane].sign * ws.vectors[DIRECTION][plan.limits[l].dof][lane];
                let e = limit_residual(l) + alpha * s;
                slope += stiffness * min(e, 0.0) * s;
                curve += select(0.0, stiffness * s * s, e < 0.0);
            }
        }
        let sums = total(vec4f(slope, curve, 0.0, 0.0));
        if same(select(0u, 1u, abs(sums.x) > enough)) == 0u {
            break;
        }
        if sums.x < 0.0 {
            low = alpha;
        } else {
            high = alpha;
        }
        let next = alpha - sums.x / sums.y;
        alpha = select(0.5 * (low + high), next, low < next && next < high);
    }
    return alpha;
}

// J a − aref of a violated limit.
fn limit_residual(k: u32) -> f32 {
    let ws = &workspaces[group];
    return ws.limit[k][lane].sign * ws.vectors[QACC][plan.limits[k].dof][lane] - ws.limit[k][lane].aref;
}

// How joint motions x move the bodies.
fn bodies_moved(x: u32) {
    let ws = &workspaces[group];
    if ws.count[lane] == 0u {
        return;
    }
#ifdef IS_TEAM
    for (var index = member + hold; index < NBODY; index += TEAM) {
        var motion = Spatial();
        var rest = plan.bodies[index].moved_by;
        while rest != 0u {
            let dof = firstTrailingBit(rest);
            rest &= rest - 1u;
            motion = axpy_spatial(ws.vectors[x][dof][lane], ws.cdof[dof][lane], motion);
        }
        ws.cacc[index][lane] = motion;
    }
#else
    ws.cacc[0][lane] = Spatial();
    for (var index = 1u + hold; index < NBODY; index++) {
        var motion = ws.cacc[plan.bodies[index].parent][lane];
        for (var dof = plan.bodies[index].dofs_begin; dof < plan.bodies[index].dofs_end; dof++) {
            motion = axpy_spatial(ws.vectors[x][dof][lane], ws.cdof[dof][lane], motion);
        }
        ws.cacc[index][lane] = motion;
    }
#endif
}

// J x in the contact's directions, for the x that last moved the bodies.
fn along(c: u32) -> vec3f {
    let ws = &workspaces[group];
    let contact = ws.contact[c][lane];
    let a = plan.pairs[contact.pair].body_a;
    let b = plan.pairs[contact.pair].body_b;
    return parted(contact, at_point(ws.cacc[a][lane], a, contact.point), at_point(ws.cacc[b][lane], b, contact.point));
}

// Torque and force of all contacts on each body, about the centre of mass of its tree, at the present residuals. The
// world's row is left empty, as in MuJoCo.
fn wrenches() {
    let ws = &workspaces[group];
    for (var index = member + hold; index < NBODY; index += TEAM) {
        ws.cfrc[index][lane] = Spatial();
    }
#ifdef IS_TEAM
    for (var c = member + hold; c < ws.count[lane]; c += TEAM) {
        let contact = ws.contact[c][lane];
        ws.contact[c][lane].slope = in_world(contact, rows_of(c, contact.residual).force);
    }
    sync();
    // Each member handles a body and takes its part of all contacts.
    for (var index = 1u + member + hold; index < NBODY; index += TEAM) {
        for (var c = hold; c < ws.count[lane]; c++) {
            let pair = ws.contact[c][lane].pair;
            if plan.pairs[pair].body_a == index {
                pushed_by(index, ws.contact[c][lane].point, -ws.contact[c][lane].slope);
            }
            if plan.pairs[pair].body_b == index {
                pushed_by(index, ws.contact[c][lane].point, ws.contact[c][lane].slope);
            }
        }
    }
    sync();
#else
    for (var c = hold; c < ws.count[lane]; c++) {
        let contact = ws.contact[c][lane];
        let force = in_world(contact, rows_of(c, contact.residual).force);
        pushed_by(plan.pairs[contact.pair].body_a, contact.point, -force);
        pushed_by(plan.pairs[contact.pair].body_b, contact.point, force);
    }
#endif
}

fn pushed_by(body: u32, point: vec3f, force: vec3f) {
    let ws = &workspaces[group];
    if body != 0u {
        let torque = cross(point - ws.com[plan.bodies[body].root][lane], force);
        ws.cfrc[body][lane] = axpy_spatial(1.0, Spatial(torque, force), ws.cfrc[body][lane]);
    }
}

// Constraint forces in joint space at the present residuals.
fn forces() {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    wrenches();
    for (var dof = member + hold; dof < NV; dof += TEAM) {
        ws.constraint[dof][lane] = dot_spatial(ws.cdof[dof][lane], on_tree(plan.dofs[dof].body));
    }
    sync();
#else
    for (var i = hold; i < NV; i++) {
        ws.constraint[i][lane] = 0.0;
    }
    if ws.count[lane] > 0u {
        wrenches();
        for (var index = NBODY - 1u + hold; index > 0u; index--) {
            let force = ws.cfrc[index][lane];
            for (var dof = plan.bodies[index].dofs_begin; dof < plan.bodies[index].dofs_end; dof++) {
                ws.constraint[dof][lane] = dot_spatial(ws.cdof[dof][lane], force);
            }
            let parent = plan.bodies[index].parent;
            ws.cfrc[parent][lane] = axpy_spatial(1.0, force, ws.cfrc[parent][lane]);
        }
    }
#endif
    for (var k = member + hold; k < LIMITS; k += TEAM) {
        let push = -(ws.limit[k][lane].stiffness * min(limit_residual(k), 0.0));
        ws.constraint[plan.limits[k].dof][lane] += ws.limit[k][lane].sign * push;
    }
    sync();
}

// M + Jᵀ D J, the lower half.
fn hessian() {
    let ws = &workspaces[group];
    for (var k = member + hold; k < NV * CHUNKS; k += TEAM) {
        ws.hessian[k][lane] = ws.mass[k][lane];
    }
    sync();
#ifdef IS_TEAM
    let count = same(ws.count[lane]);
    for (var base = zero(); base < count; base += JACOBIANS) {
        // Each member first computes four columns of one contact's Jacobian, then a row of the Hessian.
        for (var item = member + hold; item < JACOBIANS * CHUNKS; item += TEAM) {
            let slot = item / CHUNKS;
            let k = item % CHUNKS;
            if base + slot < count {
                let contact = ws.contact[base + slot][lane];
                let moves_a = plan.pairs[contact.pair].moved_a;
                let chain = moves_a | plan.pairs[contact.pair].moved_b;
                let arm_a = contact.point - ws.com[plan.bodies[plan.pairs[contact.pair].body_a].root][lane];
                let arm_b = contact.point - ws.com[plan.bodies[plan.pairs[contact.pair].body_b].root][lane];
                var four: array<vec4f, DIRECTIONS>;
                for (var j = hold; j < 4u; j++) {
                    let i = 4u * k + j;
                    if i < NV && (chain >> i & 1u) == 1u {
                        let moved = column(contact, i, select(arm_b, arm_a, (moves_a >> i & 1u) == 1u), (moves_a >> i & 1u) == 1u);
                        for (var d = 0u; d < DIRECTIONS; d++) {
                            four[d][j] = moved[d];
                        }
                    }
                }
                for (var d = 0u; d < DIRECTIONS; d++) {
                    ws.jacobian[slot][d][k][lane] = four[d];
                }
            }
        }
        sync();
        for (var i = member + hold; i < NV; i += TEAM) {
            for (var c = base; c < min(count, base + JACOBIANS); c++) {
                let pair = ws.contact[c][lane].pair;
                if ((plan.pairs[pair].moved_a | plan.pairs[pair].moved_b) >> i & 1u) == 1u {
                    let curvature = rows_of(c, ws.contact[c][lane].residual);
                    if curvature.pushing != 0u {
                        add_row(c - base, i, curvature);
                    }
                }
            }
        }
        sync();
    }
#else
    for (var c = hold; c < ws.count[lane]; c++) {
        let contact = ws.contact[c][lane];
        let curvature = rows_of(c, contact.residual);
        if curvature.pushing == 0u {
            continue;
        }
        let arm_a = contact.point - ws.com[plan.bodies[plan.pairs[contact.pair].body_a].root][lane];
        let arm_b = contact.point - ws.com[plan.bodies[plan.pairs[contact.pair].body_b].root][lane];
        for (var d = 0u; d < DIRECTIONS; d++) {
            for (var k = 0u; k < CHUNKS; k++) {
                ws.jacobian[0][d][k][lane] = vec4f();
            }
        }
        let moves_a = plan.pairs[contact.pair].moved_a;
        let chain = moves_a | plan.pairs[contact.pair].moved_b;
        var rest = chain;
        while rest != 0u {
            let i = firstTrailingBit(rest);
            rest &= rest - 1u;
            let of_a = (moves_a >> i & 1u) == 1u;
            let moved = column(contact, i, select(arm_b, arm_a, of_a), of_a);
            for (var d = 0u; d < DIRECTIONS; d++) {
                ws.jacobian[0][d][i / 4u][lane][i % 4u] = moved[d];
            }
        }
        rest = chain;
        while rest != 0u {
            let i = firstTrailingBit(rest);
            rest &= rest - 1u;
            add_row(0u, i, curvature);
        }
    }
#endif
    for (var k = member + hold; k < LIMITS; k += TEAM) {
        let dof = plan.limits[k].dof;
        ws.hessian[chunk(dof, dof)][lane][dof % 4u] += select(0.0, ws.limit[k][lane].stiffness, limit_residual(k) < 0.0);
    }
    sync();
}

// How degree of freedom i moves a contact's point, which lies `arm` from the centre of mass of its tree. This is a
// column of the contact's Jacobian.
fn column(contact: Contact, i: u32, arm: vec3f, of_a: bool) -> vec3f {
    let ws = &workspaces[group];
    let motion = ws.cdof[i][lane];
    let here = motion.linear + cross(motion.angular, arm);
    return parted(contact, vec3f(), select(here, -here, of_a));
}

// Adds the contribution of a contact, whose Jacobian is in `slot`, to row i of the Hessian.
fn add_row(slot: u32, i: u32, curvature: Rows) {
    let ws = &workspaces[group];
    var u = vec3f();
    for (var d = 0u; d < DIRECTIONS; d++) {
        u[d] = ws.jacobian[slot][d][i / 4u][lane][i % 4u];
    }
    // The force that meets this degree of freedom's motion.
    var met = vec3f(curvature.normal * u.x, 0.0, 0.0);
    if DIRECTIONS > 1u {
        met.x += dot(curvature.mixed, u.yz);
        met = vec3f(met.x, curvature.mixed * u.x + curvature.tangent * u.yz);
    }
#ifdef IS_TEAM
    // Entries above the diagonal are not read.
    let end = i / 4u + 1u;
#else
    let end = CHUNKS;
#endif
    for (var k = 0u; k < end; k++) {
        var sum = ws.hessian[CHUNKS * i + k][lane];
        for (var d = 0u; d < DIRECTIONS; d++) {
            sum += met[d] * ws.jacobian[slot][d][k][lane];
        }
        ws.hessian[CHUNKS * i + k][lane] = sum;
    }
}
