// Forces without a command: springs, dampers, and the drag of a medium on the bodies' boxes of equal inertia
// (mj_passive).
#define_import_path physics::passive

#import physics::plan::{hold, plan, NBODY, NJNT, NV, TEAM, FREE}
#import physics::spatial::{Spatial, dot_spatial}
#import physics::team::{member, sync}
#import physics::workspace::{group, lane, workspaces}
#ifdef IS_TEAM
#import physics::bias::on_tree
#endif

// Begins the smooth forces with the passive ones.
fn passive() {
    let ws = &workspaces[group];
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.smooth_force[i][lane] = -(plan.dofs[i].damping * ws.qvel[i][lane]);
    }
    sync();
    for (var j = member + hold; j < NJNT; j += TEAM) {
        if plan.joints[j].kind != FREE {
            let stretch = ws.qpos[plan.joints[j].qposadr][lane] - plan.joints[j].springref;
            ws.smooth_force[plan.joints[j].dofadr][lane] -= plan.joints[j].stiffness * stretch;
        }
    }
    sync();
#ifdef HAS_MEDIUM
    drag();
#endif
}

#ifdef HAS_MEDIUM
// Per body, in its principal axes, with half-sizes r of the box and their mean r̄:
// force_i = −2ρ r_j r_k |v_i| v_i − 6πβ r̄ v_i and torque_i = −½ρ r_i (r_j⁴ + r_k⁴) |ω_i| ω_i − 8πβ r̄³ ω_i.
fn drag() {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    for (var index = 1u + member + hold; index < NBODY; index += TEAM) {
        ws.cfrc[index][lane] = Spatial();
        if plan.bodies[index].in_medium != 0u {
            ws.cfrc[index][lane] = dragged(index);
        }
    }
    sync();
    for (var dof = member + hold; dof < NV; dof += TEAM) {
        ws.smooth_force[dof][lane] += dot_spatial(ws.cdof[dof][lane], on_tree(plan.dofs[dof].body));
    }
    sync();
#else
    for (var index = 1u + hold; index < NBODY; index++) {
        if plan.bodies[index].in_medium == 0u {
            continue;
        }
        let wrench = dragged(index);
        var rest = plan.bodies[index].moved_by;
        while rest != 0u {
            let dof = firstTrailingBit(rest);
            rest &= rest - 1u;
            ws.smooth_force[dof][lane] += dot_spatial(ws.cdof[dof][lane], wrench);
        }
    }
#endif
}

fn dragged(index: u32) -> Spatial {
    let ws = &workspaces[group];
    let density = plan.density;
    let viscosity = plan.viscosity;
    let axes = ws.xmat[index][lane] * mat3x3f(plan.bodies[index].fluid_x, plan.bodies[index].fluid_y, plan.bodies[index].fluid_z);
    let arm = ws.xipos[index][lane] - ws.com[plan.bodies[index].root][lane];
    let velocity = ws.cvel[index][lane];
    // The velocity of the centre of mass.
    let here = velocity.linear + cross(velocity.angular, arm);
    let w = velocity.angular * axes;
    let u = here * axes;
    let r = plan.bodies[index].fluid_half;
    let mean = (r.x + r.y + r.z) * (1.0 / 3.0);
    let fourth = r * r * (r * r);
    let push = -2.0 * density * r.yzx * r.zxy * abs(u) * u - 18.849556 * viscosity * mean * u;
    let twist = -0.5 * density * r * (fourth.yzx + fourth.zxy) * abs(w) * w
        - 25.132741 * viscosity * (mean * mean * mean) * w;
    let force = axes * push;
    return Spatial(axes * twist + cross(arm, force), force);
}
#endif
