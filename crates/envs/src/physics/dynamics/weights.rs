//! Inverse weights at the reference configuration (mj_setConst): how easily constraint forces move bodies and joints.
//! The softness of contacts and limits is scaled by them.

use super::factor::{factor, solve};
use super::plan::{LEAST, Plan, chain};
use super::workspace::Workspace;
use crate::physics::model::{Joint, JointKind, Model};
use glam::DVec3;

/// 1/kg and 1/(kg m²).
#[derive(Clone, Debug, PartialEq)]
pub struct InverseWeights {
    /// For each body's centre of mass against translation, `[nbody]`; 0 for fixed bodies.
    pub body: Vec<f64>,
    /// For each degree of freedom, `[nv]`.
    pub dof: Vec<f64>,
}

impl InverseWeights {
    /// The value before they are known.
    pub fn none(model: &Model) -> InverseWeights {
        InverseWeights { body: vec![0.0; model.nbody()], dof: vec![0.0; model.nv()] }
    }

    /// If a body only slides ([`slides`]), the body's and its degrees of freedom's weights are one over its mass,
    /// without armature. Otherwise a body's weight is the mean of the diagonal of J M⁻¹ Jᵀ for the translation of its
    /// centre of mass. A degree of freedom's weight is its entry of the diagonal of M⁻¹, averaged over a free joint's
    /// three translations and over its three rotations.
    pub fn at_reference(model: &Model, plan: &mut Plan<f64>) -> InverseWeights {
        let nv = plan.nv;
        let mut ws = Workspace::<f64>::new(plan);
        ws.qpos.copy_from_slice(model.qpos0());
        super::kinematics::kinematics(plan, &mut ws);
        super::kinematics::motions(plan, &mut ws);
        super::inertia::inertia(plan, &mut ws);
        let solver = &mut ws.solver;
        solver.hessian.copy_from_slice(&ws.mass);
        factor(&plan.tree, &mut solver.hessian, &mut solver.inverse);
        let quadratic = |row: &[f64]| {
            let mut x = row.to_vec();
            solve(&plan.tree, &solver.hessian, &solver.inverse, &mut x);
            row.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>()
        };
        let mut weights = InverseWeights::none(model);
        for (index, body) in model.bodies.iter().enumerate().skip(1) {
            let moved_by = chain(model, index);
            if moved_by.is_empty() {
                continue;
            }
            if slides(model, index) {
                weights.body[index] = 1.0 / body.mass;
                continue;
            }
            let com = ws.com[body.root];
            let arm = super::spatial::sub(ws.xipos[index], com);
            let mut sum = 0.0;
            for axis in 0..3 {
                let mut row = vec![0.0; nv];
                for dof in &moved_by {
                    let m = &ws.cdof[*dof];
                    let turned = super::spatial::cross([m[0], m[1], m[2]], arm);
                    row[*dof] = m[3 + axis] + turned[axis];
                }
                sum += quadratic(&row);
            }
            weights.body[index] = sum / 3.0;
        }
        let unit = |dof: usize| {
            let mut row = vec![0.0; nv];
            row[dof] = 1.0;
            row
        };
        for joint in &model.joints {
            if slides(model, joint.body) {
                weights.dof[joint.dofadr] = 1.0 / model.bodies[joint.body].mass;
                continue;
            }
            let dofs = joint.dofadr..joint.dofadr + joint.sizes().1;
            let diagonal: Vec<f64> = dofs.clone().map(|dof| quadratic(&unit(dof))).collect();
            match joint.kind {
                JointKind::Slide | JointKind::Hinge => weights.dof[joint.dofadr] = diagonal[0],
                JointKind::Free => {
                    for (k, dof) in dofs.enumerate() {
                        let three = &diagonal[k / 3 * 3..k / 3 * 3 + 3];
                        weights.dof[dof] = three.iter().sum::<f64>() / 3.0;
                    }
                }
            }
        }
        weights
    }
}

/// What MuJoCo calls a simple body with sliders only (`body_simple` 2): a leaf on a fixed body, whose principal axes
/// are its frame's and whose joints are slides along those axes.
fn slides(model: &Model, index: usize) -> bool {
    let body = &model.bodies[index];
    let aligned = |axis: DVec3| axis.to_array().iter().filter(|x| x.abs() > LEAST).count() == 1;
    let sliding = |joint: &Joint| joint.kind == JointKind::Slide && joint.pos.length() < LEAST && aligned(joint.axis);
    let joints = &model.joints[body.joints.clone()];
    !joints.is_empty()
        && joints.iter().all(sliding)
        && model.bodies[body.parent].weld == 0
        && model.bodies.iter().skip(1).all(|other| other.parent != index)
        && body.mass > LEAST
        && body.ipos.length() < LEAST
        && body.iquat.xyz().length() < LEAST
}
