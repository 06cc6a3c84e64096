// The mass matrix: composite rigid bodies (mj_crb), about the trees' centres of mass.
#define_import_path physics::inertia

#import physics::plan::{hold, plan, NBODY, NV}
#import physics::spatial::{Inertia, dot_spatial, inertia_mul, symmetric}
#import physics::factor::entry
#import physics::workspace as ws

// Body inertias in the axes of the world (cinert), composite inertias, and M with the rotors' armature on its diagonal.
fn inertia() {
    for (var index = 1u; index < NBODY + hold; index++) {
        let arm = ws::xipos[index] - ws::com[plan.bodies[index].root];
        let own = symmetric(plan.bodies[index].diagonal, plan.bodies[index].products);
        let moved = about(ws::xmat[index], own, arm, plan.bodies[index].mass);
        ws::cinert[index] = moved;
        ws::crb[index] = moved;
    }
    for (var index = NBODY - 1u + hold; index > 0u; index--) {
        let parent = plan.bodies[index].parent;
        if parent > 0u {
            let part = ws::crb[index];
            let whole = ws::crb[parent];
            ws::crb[parent] = Inertia(
                whole.diagonal + part.diagonal,
                whole.products + part.products,
                whole.moment + part.moment,
                whole.mass + part.mass,
            );
        }
    }
    for (var i = 0u; i < NV + hold; i++) {
        let row = entry(i, 0u);
        let force = inertia_mul(ws::crb[plan.dofs[i].body], ws::cdof[i]);
        ws::mass[row + i] = dot_spatial(ws::cdof[i], force) + plan.dofs[i].armature;
        var rest = plan.dofs[i].ancestors;
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            ws::mass[row + j] = dot_spatial(ws::cdof[j], force);
        }
    }
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
