//! Computes trajectories from given states and controls, to compare one physics with another.

use super::signal::Senses;
use super::task::Task;
use super::vector::{EnvError, row, row_mut};
use crate::physics::Backend;

/// N trajectories of T env steps, in double precision. Row `[n, t]` holds the result of step t of trajectory n.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutOut {
    /// N.
    pub trajectories: usize,
    /// T.
    pub steps: usize,
    /// `[N, T, nq]`.
    pub qpos: Vec<f64>,
    /// `[N, T, nv]`.
    pub qvel: Vec<f64>,
    /// `[N, T, O]`.
    pub obs: Vec<f64>,
    /// `[N, T]`.
    pub reward: Vec<f64>,
    /// `[N, T]`: whether the state would have ended the episode; the trajectory goes on regardless.
    pub terminated: Vec<bool>,
}

/// Starts from N states (`qpos` `[N, nq]`, `qvel` `[N, nv]`) and applies `ctrl`, `[N, T, nu]`, one row per env step,
/// clipped to the actuators' ranges. Nothing is ever reset. Trajectories run `backend.worlds()` at a time.
///
/// # Errors
/// Array lengths that do not fit each other or the robot; a backend that has another robot or no world, or that does
/// not compute what the task reads.
pub fn rollout_from(
    task: &Task,
    backend: &mut dyn Backend,
    qpos: &[f64],
    qvel: &[f64],
    ctrl: &[f64],
) -> Result<RolloutOut, EnvError> {
    let model = task.model();
    if **model != *backend.model() || backend.worlds() == 0 {
        return Err(EnvError::OtherRobot { task: task.name().to_owned() });
    }
    let (nq, nv, nu, o) = (model.nq(), model.nv(), model.nu(), task.obs_dim());
    let length =
        |what, expected, got| if expected == got { Ok(()) } else { Err(EnvError::Length { what, expected, got }) };
    let n = qpos.len().checked_div(nq).unwrap_or(0);
    length("joint positions", n * nq, qpos.len())?;
    length("joint velocities", n * nv, qvel.len())?;
    let t = ctrl.len().checked_div(n * nu).unwrap_or(0);
    length("controls", n * t * nu, ctrl.len())?;

    backend.need(task.needs()).map_err(EnvError::physics)?;
    let mut out = RolloutOut {
        trajectories: n,
        steps: t,
        qpos: vec![0.0; n * t * nq],
        qvel: vec![0.0; n * t * nv],
        obs: vec![0.0; n * t * o],
        reward: vec![0.0; n * t],
        terminated: vec![false; n * t],
    };
    let worlds = backend.worlds();
    let k = task.term_names().len();
    let mut senses = Senses::new(task.needs(), model);
    let (mut before, mut terms) = (vec![0.0; worlds * k], vec![0.0; k]);
    let mut held = vec![0.0; worlds * nu];
    let no_action = vec![0.0; nu];

    for first in (0..n).step_by(worlds) {
        // Worlds beyond the last trajectory repeat it, and their results are dropped.
        let trajectory = |world: usize| (first + world).min(n - 1);
        for world in 0..worlds {
            let i = trajectory(world);
            backend.set_state(world, row(qpos, i, nq), row(qvel, i, nv));
            let state = senses.look(backend, world, &no_action);
            task.remember(&state, row_mut(&mut before, world, k));
        }
        for step in 0..t {
            for world in 0..worlds {
                let asked = row(ctrl, trajectory(world) * t + step, nu);
                for ((held, &x), &[low, high]) in
                    row_mut(&mut held, world, nu).iter_mut().zip(asked).zip(model.ctrl_range())
                {
                    *held = x.clamp(low, high);
                }
            }
            backend.step(&held, task.frame_skip()).map_err(EnvError::physics)?;
            for world in 0..worlds.min(n - first) {
                let at = (first + world) * t + step;
                let state = senses.look(backend, world, row(&held, world, nu));
                let before = row_mut(&mut before, world, k);
                let healthy = task.healthy(&state);
                out.reward[at] = task.reward(before, &state, healthy, &mut terms);
                out.terminated[at] = task.terminates() && !healthy;
                task.observe(&state, row_mut(&mut out.obs, at, o));
                task.remember(&state, before);
                row_mut(&mut out.qpos, at, nq).copy_from_slice(state.qpos);
                row_mut(&mut out.qvel, at, nv).copy_from_slice(state.qvel);
            }
        }
    }
    Ok(out)
}
