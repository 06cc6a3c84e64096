// Where everything is: body frames from joint positions, centres of mass, and how each degree of freedom moves its body.
#define_import_path physics::kinematics

#import physics::plan::{hold, plan, NBODY, NJNT, FREE, SLIDE}
#import physics::spatial::{Spatial, rotation, about}
#import physics::workspace as ws

// Body frames, anchors and axes from qpos (mj_kinematics).
fn kinematics() {
    ws::xpos[0] = vec3f();
    ws::xmat[0] = mat3x3f(vec3f(1.0, 0.0, 0.0), vec3f(0.0, 1.0, 0.0), vec3f(0.0, 0.0, 1.0));
    ws::xipos[0] = vec3f();
    for (var index = 1u; index < NBODY + hold; index++) {
        let parent = plan.bodies[index].parent;
        let above = ws::xmat[parent];
        var pos = ws::xpos[parent] + above * plan.bodies[index].pos;
        var mat = above * mat3x3f(plan.bodies[index].mat_x, plan.bodies[index].mat_y, plan.bodies[index].mat_z);
        for (var j = plan.bodies[index].joints_begin; j < plan.bodies[index].joints_end; j++) {
            let q = plan.joints[j].qposadr;
#ifdef HAS_FREE
            if plan.joints[j].kind == FREE {
                pos = vec3f(ws::qpos[q], ws::qpos[q + 1u], ws::qpos[q + 2u]);
                mat = rotation(vec4f(ws::qpos[q + 3u], ws::qpos[q + 4u], ws::qpos[q + 5u], ws::qpos[q + 6u]));
                ws::anchor[j] = pos;
                ws::axis[j] = mat[2];
                continue;
            }
#endif
            let own = plan.joints[j].axis;
            let at = plan.joints[j].pos;
            let axis = mat * own;
            let anchor = pos + mat * at;
            let moved = ws::qpos[q] - plan.joints[j].reference;
            ws::anchor[j] = anchor;
            ws::axis[j] = axis;
            if plan.joints[j].kind == SLIDE {
                pos += moved * axis;
            } else {
                mat = mat * about(own, moved);
                pos = anchor - mat * at;
            }
        }
        ws::xipos[index] = pos + mat * plan.bodies[index].ipos;
        ws::xpos[index] = pos;
        ws::xmat[index] = mat;
    }
}

// Centres of mass of the trees, and each degree of freedom's motion about them (mj_comPos).
fn motions() {
    for (var index = 1u; index < NBODY + hold; index++) {
        let root = plan.bodies[index].root;
        let part = plan.bodies[index].mass * ws::xipos[index];
        ws::com[root] = select(ws::com[root] + part, part, root == index);
    }
    for (var index = 1u; index < NBODY + hold; index++) {
        if plan.bodies[index].root == index {
            ws::com[index] *= plan.bodies[index].inverse_tree_mass;
        }
    }
    for (var j = 0u; j < NJNT + hold; j++) {
        let dof = plan.joints[j].dofadr;
        let body = plan.joints[j].body;
        let offset = ws::com[plan.bodies[body].root] - ws::anchor[j];
#ifdef HAS_FREE
        if plan.joints[j].kind == FREE {
            ws::cdof[dof] = Spatial(vec3f(), vec3f(1.0, 0.0, 0.0));
            ws::cdof[dof + 1u] = Spatial(vec3f(), vec3f(0.0, 1.0, 0.0));
            ws::cdof[dof + 2u] = Spatial(vec3f(), vec3f(0.0, 0.0, 1.0));
            let mat = ws::xmat[body];
            ws::cdof[dof + 3u] = spin(mat[0], offset);
            ws::cdof[dof + 4u] = spin(mat[1], offset);
            ws::cdof[dof + 5u] = spin(mat[2], offset);
            continue;
        }
#endif
        if plan.joints[j].kind == SLIDE {
            ws::cdof[dof] = Spatial(vec3f(), ws::axis[j]);
        } else {
            ws::cdof[dof] = spin(ws::axis[j], offset);
        }
    }
}

// The motion of a rotation about an axis, as felt at the centre of mass, which lies `offset` from the axis.
fn spin(axis: vec3f, offset: vec3f) -> Spatial {
    return Spatial(axis, cross(axis, offset));
}
