// The mass matrix: composite rigid bodies (mj_crb), about the trees' centres of mass.
#define_import_path physics::inertia

#import physics::plan::{hold, plan, NBODY, NV, TEAM}
#import physics::spatial::{Inertia, dot_spatial, inertia_mul, symmetric}
#import physics::factor::chunk
#import physics::team::{member, sync}
#import physics::workspace::{group, lane, workspaces}

// Body inertias in the axes of the world (cinert), composite inertias, and M with the rotors' armature on its diagonal.
fn inertia() {
    let ws = &workspaces[group];
    for (var index = 1u + member + hold; index < NBODY; index += TEAM) {
        let arm = ws.xipos[index][lane] - ws.com[plan.bodies[index].root][lane];
        let own = symmetric(plan.bodies[index].diagonal, plan.bodies[index].products);
        let moved = about(ws.xmat[index][lane], own, arm, plan.bodies[index].mass);
        ws.cinert[index][lane] = moved;
#ifndef IS_TEAM
        ws.crb[index][lane] = moved;
#endif
    }
    sync();
#ifndef IS_TEAM
    for (var index = NBODY - 1u + hold; index > 0u; index--) {
        let parent = plan.bodies[index].parent;
        if parent > 0u {
            ws.crb[parent][lane] = together(ws.crb[parent][lane], ws.crb[index][lane]);
        }
    }
#endif
    for (var i = member + hold; i < NV; i += TEAM) {
        let force = inertia_mul(composite(plan.dofs[i].body), ws.cdof[i][lane]);
        ws.mass[chunk(i, i)][lane][i % 4u] = dot_spatial(ws.cdof[i][lane], force) + plan.dofs[i].armature;
        var rest = plan.dofs[i].ancestors;
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            ws.mass[chunk(i, j)][lane][j % 4u] = dot_spatial(ws.cdof[j][lane], force);
        }
    }
    sync();
}

// The inertia of a body and all that hangs from it.
fn composite(index: u32) -> Inertia {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    var whole = ws.cinert[index][lane];
    for (var part = index + 1u; part < plan.bodies[index].tree_end; part++) {
        whole = together(whole, ws.cinert[part][lane]);
    }
    return whole;
#else
    return ws.crb[index][lane];
#endif
}

fn together(a: Inertia, b: Inertia) -> Inertia {
    return Inertia(a.diagonal + b.diagonal, a.products + b.products, a.moment + b.moment, a.mass + b.mass);
}

// Rotates an inertia about the centre of mass into the axes of the world and moves it by `arm` (mju_inertCom).
fn about(mat: mat3x3f, own: mat3x3f, arm: vec3f, mass: f32) -> Inertia {
    let turned = mat * own * transpose(mat);
    let moment = mass * arm;
    let squares = moment * arm;
    return Inertia(
        vec3f(turned[0].x, turned[1].y, turned[2].z) + (squares.yxx + squares.zzy),
        vec3f(turned[1].x, turned[2].x, turned[2].y) - moment.xxy * arm.yzz,
        moment,
        mass,
    );
}
