// From accelerations to the next state: semi-implicit Euler with implicit joint damping (mj_Euler), and the classical
// Runge–Kutta method of fourth order (mj_RungeKutta).
#define_import_path physics::integrate

#import physics::plan::{hold, plan, NQ, NV, NJNT, CHUNKS, TEAM, FREE}
#import physics::spatial::{normalized, quat_mul, sin_cos, unit}
#import physics::factor::{chunk, factor, solve}
#import physics::dynamics::evaluate
#import physics::team::{member, sync}
#import physics::workspace::{group, lane, workspaces, QACC, DIRECTION}

#ifdef HAS_RUNGE_KUTTA
const STAGES: u32 = 4u;
#else
const STAGES: u32 = 1u;
#endif

// Evaluates the forward dynamics once, and moves on to the state that is evaluated next. A timestep takes STAGES
// rounds.
fn advance(round: u32) {
    let stage = round % STAGES;
    begin(stage);
    // The one place that the evaluation is inlined into.
    evaluate();
    finish(stage);
}

// Stores the state in which a timestep begins.
fn begin(stage: u32) {
    let ws = &workspaces[group];
    if stage == 0u {
        for (var i = member + hold; i < NQ; i += TEAM) {
            ws.qpos_start[i][lane] = ws.qpos[i][lane];
        }
        for (var i = member + hold; i < NV; i += TEAM) {
            ws.qvel_start[i][lane] = ws.qvel[i][lane];
            ws.qvel_sum[i][lane] = 0.0;
            ws.qacc_sum[i][lane] = 0.0;
        }
    }
}

// From accelerations to the state that is evaluated next.
fn finish(stage: u32) {
#ifdef HAS_RUNGE_KUTTA
    runge_kutta(stage);
#else
    euler();
#endif
}

#ifndef HAS_RUNGE_KUTTA
// v ← v + h (M + h B)⁻¹ f, q ← q + h v, for joint damping B.
fn euler() {
    let ws = &workspaces[group];
    let h = plan.timestep;
    for (var k = member + hold; k < NV * CHUNKS; k += TEAM) {
        ws.hessian[k][lane] = ws.mass[k][lane];
    }
    sync();
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.hessian[chunk(i, i)][lane][i % 4u] += h * plan.dofs[i].damping;
        ws.vectors[DIRECTION][i][lane] = ws.smooth_force[i][lane] + ws.constraint[i][lane];
    }
    sync();
    factor(false);
    solve(false, DIRECTION);
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.qvel[i][lane] += h * ws.vectors[DIRECTION][i][lane];
        ws.rate[i][lane] = ws.qvel[i][lane];
    }
    sync();
    integrate(h);
}
#endif

#ifdef HAS_RUNGE_KUTTA
// Stages at 0, ½, ½, 1 with weights 1, 2, 2, 1: from the accelerations of one to the state of the next.
//
// A free joint's rotation is integrated in the Lie algebra (Munthe-Kaas 1998), as MuJoCo 4 does: the rotation since the
// step began is exp(u), and a stage's angular velocity ω, which is in the axes of the body as turned by u, counts as
// u's rate dexp⁻¹_{−u}(ω).
fn runge_kutta(stage: u32) {
    let ws = &workspaces[group];
    let h = plan.timestep;
    let outer = stage == 0u || stage == 3u;
    let weight = select(1.0 / 3.0, 1.0 / 6.0, outer);
    // The rate of this stage: qvel, except for rotations. `rate` holds the last stage's.
    let behind = h * select(0.5, 1.0, stage == 3u);
    for (var j = member + hold; j < NJNT; j += TEAM) {
        let v = plan.joints[j].dofadr;
#ifdef HAS_FREE
        if plan.joints[j].kind == FREE {
            var turned = vec3f();
            if stage > 0u {
                turned = behind * vec3f(ws.rate[v + 3u][lane], ws.rate[v + 4u][lane], ws.rate[v + 5u][lane]);
            }
            let rate = algebra_rate(turned, vec3f(ws.qvel[v + 3u][lane], ws.qvel[v + 4u][lane], ws.qvel[v + 5u][lane]));
            for (var k = 0u; k < 3u; k++) {
                ws.rate[v + k][lane] = ws.qvel[v + k][lane];
                ws.rate[v + 3u + k][lane] = rate[k];
            }
            continue;
        }
#endif
        ws.rate[v][lane] = ws.qvel[v][lane];
    }
    sync();
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.qvel_sum[i][lane] += weight * ws.rate[i][lane];
        ws.qacc_sum[i][lane] += weight * ws.vectors[QACC][i][lane];
    }
    let last = stage == 3u;
    let ahead = h * select(0.5, 1.0, stage >= 2u);
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.rate[i][lane] = select(ws.rate[i][lane], ws.qvel_sum[i][lane], last);
        ws.qvel[i][lane] = ws.qvel_start[i][lane] + ahead * select(ws.vectors[QACC][i][lane], ws.qacc_sum[i][lane], last);
    }
    sync();
    integrate(ahead);
}

#ifdef HAS_FREE
// dexp⁻¹_{−u}(ω) = ω + ½ u × ω + k u × (u × ω) with k = (1 − (t/2) cot(t/2)) / t² for t = |u|: how fast the rotation
// vector u changes while the body turns with ω in its own axes.
fn algebra_rate(u: vec3f, omega: vec3f) -> vec3f {
    let squared = dot(u, u);
    // 1/12 + t²/720 + t⁴/30240 + t⁶/1209600, within 1e-12 of k below t = 0.2.
    var k = ((8.2671957e-7 * squared + 3.3068783e-5) * squared + 1.3888889e-3) * squared + 8.3333333e-2;
    if squared >= 0.04 {
        let angle = 0.5 * sqrt(squared);
        let turn = sin_cos(angle);
        k = (1.0 - angle * turn.y / turn.x) / squared;
    }
    let once = cross(u, omega);
    return omega + 0.5 * once + k * cross(u, once);
}
#endif
#endif

// The positions at the start of the step, moved by `rate` for a time; a free joint's quaternion turns by the rotation
// vector (mj_integratePos).
fn integrate(time: f32) {
    let ws = &workspaces[group];
    for (var j = member + hold; j < NJNT; j += TEAM) {
        let q = plan.joints[j].qposadr;
        let v = plan.joints[j].dofadr;
#ifdef HAS_FREE
        if plan.joints[j].kind == FREE {
            for (var k = 0u; k < 3u; k++) {
                ws.qpos[q + k][lane] = ws.qpos_start[q + k][lane] + time * ws.rate[v + k][lane];
            }
            let spin = normalized(vec3f(ws.rate[v + 3u][lane], ws.rate[v + 4u][lane], ws.rate[v + 5u][lane]));
            let turn = sin_cos(0.5 * spin.length * time);
            let start = vec4f(
                ws.qpos_start[q + 3u][lane],
                ws.qpos_start[q + 4u][lane],
                ws.qpos_start[q + 5u][lane],
                ws.qpos_start[q + 6u][lane],
            );
            let turned = unit(quat_mul(start, vec4f(turn.y, turn.x * spin.unit)));
            for (var k = hold; k < 4u; k++) {
                ws.qpos[q + 3u + k][lane] = turned[k];
            }
            continue;
        }
#endif
        ws.qpos[q][lane] = ws.qpos_start[q][lane] + time * ws.rate[v][lane];
    }
    sync();
}
