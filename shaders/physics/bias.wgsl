// Velocities of the bodies (mj_comVel), and the forces that motion and gravity alone ask for: recursive Newton–Euler (mj_rne).
#define_import_path physics::bias

#import physics::plan::{hold, plan, NBODY, FREE}
#import physics::spatial::{Spatial, axpy_spatial, cross_force, cross_motion, dot_spatial, inertia_mul}
#import physics::workspace as ws

// Body velocities and how the joints' axes change.
fn velocities() {
    ws::cvel[0] = Spatial();
    for (var index = 1u; index < NBODY + hold; index++) {
        var velocity = ws::cvel[plan.bodies[index].parent];
        for (var j = plan.bodies[index].joints_begin; j < plan.bodies[index].joints_end; j++) {
            let first = plan.joints[j].dofadr;
#ifdef HAS_FREE
            if plan.joints[j].kind == FREE {
                // The translation is along axes that stand still, and comes first.
                for (var dof = first; dof < first + 3u; dof++) {
                    ws::cdof_dot[dof] = Spatial();
                    velocity = axpy_spatial(ws::qvel[dof], ws::cdof[dof], velocity);
                }
                let carried = velocity;
                for (var dof = first + 3u; dof < first + 6u; dof++) {
                    ws::cdof_dot[dof] = cross_motion(carried, ws::cdof[dof]);
                    velocity = axpy_spatial(ws::qvel[dof], ws::cdof[dof], velocity);
                }
                continue;
            }
#endif
            ws::cdof_dot[first] = cross_motion(velocity, ws::cdof[first]);
            velocity = axpy_spatial(ws::qvel[first], ws::cdof[first], velocity);
        }
        ws::cvel[index] = velocity;
    }
}

// Takes Coriolis, centrifugal and gravitational forces off the smooth forces.
fn bias() {
    // Gravity is a world that accelerates upwards.
    ws::cacc[0] = Spatial(vec3f(), -plan.gravity);
    for (var index = 1u; index < NBODY + hold; index++) {
        var acceleration = ws::cacc[plan.bodies[index].parent];
        for (var dof = plan.bodies[index].dofs_begin; dof < plan.bodies[index].dofs_end; dof++) {
            acceleration = axpy_spatial(ws::qvel[dof], ws::cdof_dot[dof], acceleration);
        }
        ws::cacc[index] = acceleration;
        let velocity = ws::cvel[index];
        let own = ws::cinert[index];
        let gyroscopic = cross_force(velocity, inertia_mul(own, velocity));
        ws::cfrc[index] = axpy_spatial(1.0, inertia_mul(own, acceleration), gyroscopic);
    }
    for (var index = NBODY - 1u + hold; index > 0u; index--) {
        let force = ws::cfrc[index];
        for (var dof = plan.bodies[index].dofs_begin; dof < plan.bodies[index].dofs_end; dof++) {
            ws::smooth_force[dof] -= dot_spatial(ws::cdof[dof], force);
        }
        let parent = plan.bodies[index].parent;
        if parent > 0u {
            ws::cfrc[parent] = axpy_spatial(1.0, force, ws::cfrc[parent]);
        }
    }
}
