// Factorisation and solution of symmetric positive definite systems whose sparsity is that of the kinematic tree: H =
// Lᵀ D L with the last row eliminated first, so that no zero above a branch is filled (Featherstone 2005; mj_factorM).
//
// The columns of a row that may differ from zero are the bits of a word: a degree of freedom's ancestors, or, where a
// contact couples two branches, all before it.
#define_import_path physics::factor

#import physics::plan::{hold, plan, CHUNKS, NV, TEAM}
#import physics::team::{member, sync, zero}
#import physics::workspace::{group, lane, workspaces}

// The index of the vector that holds entry (i, j), in its component j % 4: a matrix consists of rows of vectors of
// four. Only the lower half of a symmetric matrix is used; what is above the diagonal is not read.
fn chunk(i: u32, j: u32) -> u32 {
    return CHUNKS * i + j / 4u;
}

// Columns of row i left of the diagonal.
fn columns(i: u32, dense: bool) -> u32 {
    return select(plan.dofs[i].ancestors, (1u << i) - 1u, dense);
}

// Replaces the lower half of the Hessian by L below its diagonal; `inverse` takes 1/D.
fn factor(dense: bool) {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    // Each member handles a row that the last one changes. Until all are eliminated, a row is D L.
    for (var k = NV + zero(); k > 0u; ) {
        k--;
        let d = 1.0 / ws.hessian[chunk(k, k)][lane][k % 4u];
        let left = columns(k, dense);
        for (var i = member + hold; i < k; i += TEAM) {
            if (left >> i & 1u) == 1u {
                let l = ws.hessian[chunk(k, i)][lane][i % 4u] * d;
                for (var c = hold; c <= i / 4u; c++) {
                    ws.hessian[CHUNKS * i + c][lane] -= l * ws.hessian[CHUNKS * k + c][lane];
                }
            }
        }
        if member == 0u {
            ws.inverse[k][lane] = d;
        }
        sync();
    }
    for (var item = member + hold; item < NV * CHUNKS; item += TEAM) {
        ws.hessian[item][lane] *= ws.inverse[item / CHUNKS][lane];
    }
    sync();
#else
    for (var k = NV + hold; k > 0u; ) {
        k--;
        let d = 1.0 / ws.hessian[chunk(k, k)][lane][k % 4u];
        ws.inverse[k][lane] = d;
        var row: array<vec4f, CHUNKS>;
        for (var c = 0u; c < CHUNKS; c++) {
            row[c] = ws.hessian[CHUNKS * k + c][lane];
        }
        var left = columns(k, dense);
        while left != 0u {
            let i = firstLeadingBit(left);
            left ^= 1u << i;
            let l = ws.hessian[chunk(k, i)][lane][i % 4u] * d;
            for (var c = 0u; c < CHUNKS; c++) {
                ws.hessian[CHUNKS * i + c][lane] -= l * row[c];
            }
            ws.hessian[chunk(k, i)][lane][i % 4u] = l;
        }
    }
#endif
}

// Solves H x = b in place of b.
fn solve(dense: bool, x: u32) {
    let ws = &workspaces[group];
#ifdef IS_TEAM
    // Each known component of x is applied to all rows at once.
    for (var k = NV + zero(); k > 0u; ) {
        k--;
        let at = ws.vectors[x][k][lane];
        let left = columns(k, dense);
        for (var i = member + hold; i < k; i += TEAM) {
            if (left >> i & 1u) == 1u {
                ws.vectors[x][i][lane] -= ws.hessian[chunk(k, i)][lane][i % 4u] * at;
            }
        }
        sync();
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.vectors[x][i][lane] *= ws.inverse[i][lane];
    }
    sync();
    for (var k = zero(); k < NV; k++) {
        let at = ws.vectors[x][k][lane];
        for (var i = member + hold; i < NV; i += TEAM) {
            if i > k && (columns(i, dense) >> k & 1u) == 1u {
                ws.vectors[x][i][lane] -= ws.hessian[chunk(i, k)][lane][k % 4u] * at;
            }
        }
        sync();
    }
#else
    for (var k = NV + hold; k > 0u; ) {
        k--;
        let at = ws.vectors[x][k][lane];
        var rest = columns(k, dense);
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            ws.vectors[x][j][lane] -= ws.hessian[chunk(k, j)][lane][j % 4u] * at;
        }
    }
    for (var k = hold; k < NV; k++) {
        var at = ws.vectors[x][k][lane] * ws.inverse[k][lane];
        var rest = columns(k, dense);
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            at -= ws.hessian[chunk(k, j)][lane][j % 4u] * ws.vectors[x][j][lane];
        }
        ws.vectors[x][k][lane] = at;
    }
#endif
}

// y = M x.
fn multiply(x: u32, y: u32) {
    let ws = &workspaces[group];
    for (var i = member + hold; i < NV; i += TEAM) {
        var sum = ws.mass[chunk(i, i)][lane][i % 4u] * ws.vectors[x][i][lane];
        var rest = plan.dofs[i].ancestors;
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            let m = ws.mass[chunk(i, j)][lane][j % 4u];
            sum += m * ws.vectors[x][j][lane];
#ifndef IS_TEAM
            ws.vectors[y][j][lane] += m * ws.vectors[x][i][lane];
#endif
        }
#ifdef IS_TEAM
        rest = plan.dofs[i].descendants;
        while rest != 0u {
            let j = firstTrailingBit(rest);
            rest &= rest - 1u;
            sum += ws.mass[chunk(j, i)][lane][i % 4u] * ws.vectors[x][j][lane];
        }
#endif
        ws.vectors[y][i][lane] = sum;
    }
}
