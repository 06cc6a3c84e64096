// Factorisation and solution of symmetric positive definite systems whose sparsity is that of the kinematic tree: H = Lᵀ D L with the
// last row eliminated first, so that no zero above a branch is filled (Featherstone 2005; mj_factorM).
//
// The columns of a row that may differ from zero are the bits of a word: a degree of freedom's ancestors, or, where a contact couples two
// branches, all before it.
#define_import_path physics::factor

#import physics::plan::{hold, plan, NV}
#import physics::workspace as ws

// Where an entry lies in the lower half of a symmetric matrix, j ≤ i.
fn entry(i: u32, j: u32) -> u32 {
    return i * (i + 1u) / 2u + j;
}

// Columns of row i left of the diagonal.
fn columns(i: u32, dense: bool) -> u32 {
    return select(plan.dofs[i].ancestors, (1u << i) - 1u, dense);
}

// Replaces the lower half of the Hessian by L below its diagonal; `inverse` takes 1/D.
fn factor(dense: bool) {
    for (var k = NV + hold; k > 0u; ) {
        k--;
        let row = entry(k, 0u);
        let d = 1.0 / ws::hessian[row + k];
        ws::inverse[k] = d;
        let all = columns(k, dense);
        var left = all;
        while left != 0u {
            let i = firstLeadingBit(left);
            left ^= 1u << i;
            let l = ws::hessian[row + i] * d;
            let other = entry(i, 0u);
            var rest = left | (1u << i);
            while rest != 0u {
                let j = firstTrailingBit(rest);
                rest &= rest - 1u;
                ws::hessian[other + j] -= l * ws::hessian[row + j];
            }
            ws::hessian[row + i] = l;
        }
    }
}

// Solves H x = b in place of b.
fn solve(dense: bool, x: ptr<private, array<f32, NV>>) {
    for (var k = NV + hold; k > 0u; ) {
        k--;
        let at = (*x)[k];
        var rest = columns(k, dense);
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            (*x)[j] -= ws::hessian[entry(k, j)] * at;
        }
    }
    for (var k = 0u; k < NV + hold; k++) {
        var at = (*x)[k] * ws::inverse[k];
        var rest = columns(k, dense);
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            at -= ws::hessian[entry(k, j)] * (*x)[j];
        }
        (*x)[k] = at;
    }
}

// y = M x.
fn multiply(x: ptr<private, array<f32, NV>>, y: ptr<private, array<f32, NV>>) {
    for (var i = 0u; i < NV + hold; i++) {
        let row = entry(i, 0u);
        var sum = ws::mass[row + i] * (*x)[i];
        var rest = plan.dofs[i].ancestors;
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            let m = ws::mass[row + j];
            sum += m * (*x)[j];
            (*y)[j] += m * (*x)[i];
        }
        (*y)[i] = sum;
    }
}
