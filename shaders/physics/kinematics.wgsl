// Where everything is: body frames from joint positions, centres of mass, and how each degree of freedom moves its
// body.
#define_import_path physics::kinematics

#import physics::plan::{hold, plan, LEVELS, NBODY, NJNT, TEAM, FREE, SLIDE}
#import physics::spatial::{Spatial, rotation, about}
#import physics::team::{member, sync, zero}
#import physics::workspace::{group, lane, workspaces}

// Body frames, anchors and axes from qpos (mj_kinematics).
fn kinematics() {
    let ws = &workspaces[group];
    if member == 0u {
        ws.xpos[0][lane] = vec3f();
        ws.xmat[0][lane] = mat3x3f(vec3f(1.0, 0.0, 0.0), vec3f(0.0, 1.0, 0.0), vec3f(0.0, 0.0, 1.0));
        ws.xipos[0][lane] = vec3f();
    }
#ifdef IS_TEAM
    sync();
    for (var level = 1u + zero(); level < LEVELS; level++) {
        for (var index = 1u + member + hold; index < NBODY; index += TEAM) {
            if plan.bodies[index].level == level {
                place(index);
            }
        }
        sync();
    }
#else
    for (var index = 1u + hold; index < NBODY; index++) {
        place(index);
    }
#endif
}

// One body's, from its parent's.
fn place(index: u32) {
    let ws = &workspaces[group];
    let parent = plan.bodies[index].parent;
    let above = ws.xmat[parent][lane];
    var pos = ws.xpos[parent][lane] + above * plan.bodies[index].pos;
    var mat = above * mat3x3f(plan.bodies[index].mat_x, plan.bodies[index].mat_y, plan.bodies[index].mat_z);
    for (var j = plan.bodies[index].joints_begin; j < plan.bodies[index].joints_end; j++) {
        let q = plan.joints[j].qposadr;
#ifdef HAS_FREE
        if plan.joints[j].kind == FREE {
            pos = vec3f(ws.qpos[q][lane], ws.qpos[q + 1u][lane], ws.qpos[q + 2u][lane]);
            mat = rotation(vec4f(ws.qpos[q + 3u][lane], ws.qpos[q + 4u][lane], ws.qpos[q + 5u][lane], ws.qpos[q + 6u][lane]));
            ws.anchor[j][lane] = pos;
            ws.axis[j][lane] = mat[2];
            continue;
        }
#endif
        let own = plan.joints[j].axis;
        let at = plan.joints[j].pos;
        let axis = mat * own;
        let anchor = pos + mat * at;
        let moved = ws.qpos[q][lane] - plan.joints[j].reference;
        ws.anchor[j][lane] = anchor;
        ws.axis[j][lane] = axis;
        if plan.joints[j].kind == SLIDE {
            pos += moved * axis;
        } else {
            mat = mat * about(own, moved);
            pos = anchor - mat * at;
        }
    }
    ws.xipos[index][lane] = pos + mat * plan.bodies[index].ipos;
    ws.xpos[index][lane] = pos;
    ws.xmat[index][lane] = mat;
}

// Centres of mass of the trees, and each degree of freedom's motion about them (mj_comPos).
fn motions() {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    for (var root = 1u + member + hold; root < NBODY; root += TEAM) {
        if plan.bodies[root].root == root {
            var sum = vec3f();
            for (var index = root; index < plan.bodies[root].tree_end; index++) {
                sum += plan.bodies[index].mass * ws.xipos[index][lane];
            }
            ws.com[root][lane] = plan.bodies[root].inverse_tree_mass * sum;
        }
    }
    sync();
#else
    for (var index = 1u + hold; index < NBODY; index++) {
        let root = plan.bodies[index].root;
        let part = plan.bodies[index].mass * ws.xipos[index][lane];
        ws.com[root][lane] = select(ws.com[root][lane] + part, part, root == index);
    }
    for (var index = 1u + hold; index < NBODY; index++) {
        if plan.bodies[index].root == index {
            ws.com[index][lane] *= plan.bodies[index].inverse_tree_mass;
        }
    }
#endif
    for (var j = member + hold; j < NJNT; j += TEAM) {
        let dof = plan.joints[j].dofadr;
        let body = plan.joints[j].body;
        let offset = ws.com[plan.bodies[body].root][lane] - ws.anchor[j][lane];
#ifdef HAS_FREE
        if plan.joints[j].kind == FREE {
            ws.cdof[dof][lane] = Spatial(vec3f(), vec3f(1.0, 0.0, 0.0));
            ws.cdof[dof + 1u][lane] = Spatial(vec3f(), vec3f(0.0, 1.0, 0.0));
            ws.cdof[dof + 2u][lane] = Spatial(vec3f(), vec3f(0.0, 0.0, 1.0));
            let mat = ws.xmat[body][lane];
            ws.cdof[dof + 3u][lane] = spin(mat[0], offset);
            ws.cdof[dof + 4u][lane] = spin(mat[1], offset);
            ws.cdof[dof + 5u][lane] = spin(mat[2], offset);
            continue;
        }
#endif
        if plan.joints[j].kind == SLIDE {
            ws.cdof[dof][lane] = Spatial(vec3f(), ws.axis[j][lane]);
        } else {
            ws.cdof[dof][lane] = spin(ws.axis[j][lane], offset);
        }
    }
    sync();
}

// The motion of a rotation about an axis, as felt at the centre of mass, which lies `offset` from the axis.
fn spin(axis: vec3f, offset: vec3f) -> Spatial {
    return Spatial(axis, cross(axis, offset));
}
