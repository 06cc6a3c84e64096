// Velocities of the bodies (mj_comVel), and the forces that motion and gravity alone ask for: recursive Newton–Euler (mj_rne).
#define_import_path physics::bias

#import physics::plan::{hold, plan, NBODY, FREE}
#import physics::spatial::{Spatial, axpy_spatial, cross_force, cross_motion, dot_spatial, inertia_mul}
#import physics::workspace::{group, lane, workspaces}

// Body velocities and how the joints' axes change.
fn velocities() {
    let ws = &workspaces[group];
    ws.cvel[0][lane] = Spatial();
    for (var index = 1u + hold; index < NBODY; index++) {
        var velocity = ws.cvel[plan.bodies[index].parent][lane];
        for (var j = plan.bodies[index].joints_begin; j < plan.bodies[index].joints_end; j++) {
            let first = plan.joints[j].dofadr;
#ifdef HAS_FREE
            if plan.joints[j].kind == FREE {
                // The translation is along axes that stand still, and comes first.
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
}

// Takes Coriolis, centrifugal and gravitational forces off the smooth forces.
fn bias() {
    let ws = &workspaces[group];
    // Gravity is a world that accelerates upwards.
    ws.cacc[0][lane] = Spatial(vec3f(), -plan.gravity);
    for (var index = 1u + hold; index < NBODY; index++) {
        var acceleration = ws.cacc[plan.bodies[index].parent][lane];
        for (var dof = plan.bodies[index].dofs_begin; dof < plan.bodies[index].dofs_end; dof++) {
            acceleration = axpy_spatial(ws.qvel[dof][lane], ws.cdof_dot[dof][lane], acceleration);
        }
        ws.cacc[index][lane] = acceleration;
        let velocity = ws.cvel[index][lane];
        let own = ws.cinert[index][lane];
        let gyroscopic = cross_force(velocity, inertia_mul(own, velocity));
        ws.cfrc[index][lane] = axpy_spatial(1.0, inertia_mul(own, acceleration), gyroscopic);
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
}
