// Velocities of the bodies (mj_comVel), and the forces due to motion and gravity alone: recursive Newton–Euler
// (mj_rne).
#define_import_path physics::bias

#import physics::plan::{hold, plan, NBODY, NV, TEAM, FREE}
#import physics::spatial::{Spatial, axpy_spatial, cross_force, cross_motion, dot_spatial, inertia_mul}
#import physics::team::{member, sync}
#import physics::workspace::{group, lane, workspaces}

// Body velocities and how the joints' axes change.
fn velocities() {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    for (var dof = member + hold; dof < NV; dof += TEAM) {
        ws.cdof_dot[dof][lane] = cross_motion(moved_by(plan.dofs[dof].carriers), ws.cdof[dof][lane]);
    }
    for (var index = member + hold; index < NBODY; index += TEAM) {
        ws.cvel[index][lane] = moved_by(plan.bodies[index].moved_by);
    }
    sync();
#else
    ws.cvel[0][lane] = Spatial();
    for (var index = 1u + hold; index < NBODY; index++) {
        var velocity = ws.cvel[plan.bodies[index].parent][lane];
        for (var j = plan.bodies[index].joints_begin; j < plan.bodies[index].joints_end; j++) {
            let first = plan.joints[j].dofadr;
#ifdef HAS_FREE
            if plan.joints[j].kind == FREE {
                // The translation is along fixed axes and comes first.
                for (var dof = first; dof < first + 3u; dof++) {
                    ws.cdof_dot[dof][lane] = Spatial();
                    velocity = axpy_spatial(ws.qvel[dof][lane], ws.cdof[dof][lane], velocity);
                }
                let carried = velocity;
                for (var dof = first + 3u; dof < first + 6u; dof++) {
                    ws.cdof_dot[dof][lane] = cross_motion(carried, ws.cdof[dof][lane]);
                    velocity = axpy_spatial(ws.qvel[dof][lane], ws.cdof[dof][lane], velocity);
                }
                continue;
            }
#endif
            ws.cdof_dot[first][lane] = cross_motion(velocity, ws.cdof[first][lane]);
            velocity = axpy_spatial(ws.qvel[first][lane], ws.cdof[first][lane], velocity);
        }
        ws.cvel[index][lane] = velocity;
    }
#endif
}

#ifdef IS_TEAM
// The velocity due to a set of degrees of freedom.
fn moved_by(dofs: u32) -> Spatial {
    let ws = &workspaces[group];
    var velocity = Spatial();
    var rest = dofs;
    while rest != 0u {
        let dof = firstTrailingBit(rest);
        rest &= rest - 1u;
        velocity = axpy_spatial(ws.qvel[dof][lane], ws.cdof[dof][lane], velocity);
    }
    return velocity;
}

// The sum of cfrc over a body and its descendants.
fn on_tree(index: u32) -> Spatial {
    let ws = &workspaces[group];
    var force = ws.cfrc[index][lane];
    for (var part = index + 1u; part < plan.bodies[index].tree_end; part++) {
        force = axpy_spatial(1.0, ws.cfrc[part][lane], force);
    }
    return force;
}
#endif

// Subtracts Coriolis, centrifugal and gravitational forces from the smooth forces.
fn bias() {
    let ws = &workspaces[group];
    // Gravity is represented by a world that accelerates upwards.
#ifdef IS_TEAM
    for (var index = 1u + member + hold; index < NBODY; index += TEAM) {
        var acceleration = Spatial(vec3f(), -plan.gravity);
        var rest = plan.bodies[index].moved_by;
        while rest != 0u {
            let dof = firstTrailingBit(rest);
            rest &= rest - 1u;
            acceleration = axpy_spatial(ws.qvel[dof][lane], ws.cdof_dot[dof][lane], acceleration);
        }
        ws.cfrc[index][lane] = needed(index, acceleration);
    }
    sync();
    for (var dof = member + hold; dof < NV; dof += TEAM) {
        ws.smooth_force[dof][lane] -= dot_spatial(ws.cdof[dof][lane], on_tree(plan.dofs[dof].body));
    }
    sync();
#else
    ws.cacc[0][lane] = Spatial(vec3f(), -plan.gravity);
    for (var index = 1u + hold; index < NBODY; index++) {
        var acceleration = ws.cacc[plan.bodies[index].parent][lane];
        for (var dof = plan.bodies[index].dofs_begin; dof < plan.bodies[index].dofs_end; dof++) {
            acceleration = axpy_spatial(ws.qvel[dof][lane], ws.cdof_dot[dof][lane], acceleration);
        }
        ws.cacc[index][lane] = acceleration;
        ws.cfrc[index][lane] = needed(index, acceleration);
    }
    for (var index = NBODY - 1u + hold; index > 0u; index--) {
        let force = ws.cfrc[index][lane];
        for (var dof = plan.bodies[index].dofs_begin; dof < plan.bodies[index].dofs_end; dof++) {
            ws.smooth_force[dof][lane] -= dot_spatial(ws.cdof[dof][lane], force);
        }
        let parent = plan.bodies[index].parent;
        if parent > 0u {
            ws.cfrc[parent][lane] = axpy_spatial(1.0, force, ws.cfrc[parent][lane]);
        }
    }
#endif
}

// The force that gives a moving body this acceleration.
fn needed(index: u32, acceleration: Spatial) -> Spatial {
    let ws = &workspaces[group];
    let velocity = ws.cvel[index][lane];
    let own = ws.cinert[index][lane];
    let gyroscopic = cross_force(velocity, inertia_mul(own, velocity));
    return axpy_spatial(1.0, inertia_mul(own, acceleration), gyroscopic);
}
