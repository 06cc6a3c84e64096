//! A clip: one or two seconds of a robot moving, as numbers. It is drawn from any camera and at any speed, so no pixels
//! are stored.

use super::{ItemId, Pose};
use serde::{Deserialize, Serialize};

/// Part of one world's trajectory, one row per env step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    /// Number of env steps, T.
    pub steps: usize,
    /// Number of bodies of the scene, B, including the world.
    pub bodies: usize,
    /// Observation size, O.
    pub obs_dim: usize,
    /// Action size, A.
    pub act_dim: usize,
    /// `[T, B]`: where each body is when the step's action is chosen.
    pub poses: Vec<Pose>,
    /// `[T, O]`: the raw observation that the action was chosen on, not normalised.
    pub obs: Vec<f32>,
    /// `[T, A]`: the action as the robot received it (clipped to the action space).
    pub actions: Vec<f32>,
    /// `[T]`: the task's own reward, or what the `[[teacher]]` terms of the task's file pay instead. Only simulated
    /// teachers use it. The policy and the reward model never see it.
    pub task_reward: Vec<f32>,
}

impl Frames {
    /// The poses of step `t`, `[B]`.
    pub fn poses_at(&self, t: usize) -> &[Pose] {
        &self.poses[t * self.bodies..(t + 1) * self.bodies]
    }

    /// The sum of [`Frames::task_reward`]: what a simulated teacher judges by.
    pub fn task_return(&self) -> f64 {
        self.task_reward.iter().map(|&r| f64::from(r)).sum()
    }

    /// Whether every vector has the length that the sizes imply, and every number is finite.
    pub fn is_sound(&self) -> bool {
        let t = self.steps;
        self.poses.len() == t * self.bodies
            && self.obs.len() == t * self.obs_dim
            && self.actions.len() == t * self.act_dim
            && self.task_reward.len() == t
            && self.poses.iter().all(|p| p.position.iter().chain(&p.rotation).all(|x| x.is_finite()))
            && [&self.obs, &self.actions, &self.task_reward].iter().all(|v| v.iter().all(|x| x.is_finite()))
    }
}

/// Frames with an id, a timestep and an age: what is shown, judged and stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clip {
    /// Unique within the session.
    pub id: ItemId,
    /// The task's name, e.g. `hopper`.
    pub task: String,
    /// Simulated seconds between two frames.
    pub dt: f32,
    /// Env steps of training done when it was recorded: its age.
    pub recorded_at: u64,
    /// What happened.
    pub frames: Frames,
}

impl Clip {
    /// Length in simulated seconds.
    pub fn duration(&self) -> f32 {
        self.frames.steps as f32 * self.dt
    }
}
