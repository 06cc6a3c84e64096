//! The layout of a rollout in the one buffer that the kernels of several modules write to, and the interface of the
//! policy that acts in it.

use super::{Commands, DeviceError};
use std::ops::Range;

/// A policy on the device. It records the commands that write the actions of some worlds into the rollout and, clipped,
/// into the controls.
pub trait ActsOnDevice {
    /// Records the start of a rollout.
    ///
    /// # Errors
    /// The device's errors.
    fn rewind(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError>;

    /// Records one env step.
    ///
    /// # Errors
    /// The device's errors.
    fn act(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError>;
}

/// T steps of N worlds, with O numbers per observation and A per action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutLayout {
    /// T.
    pub steps: usize,
    /// N.
    pub worlds: usize,
    /// O.
    pub obs_dim: usize,
    /// A.
    pub act_dim: usize,
    /// Numbers of a world's state.
    pub state_dim: usize,
    /// Number of worlds whose states are recorded; these are the first ones.
    pub trailed: usize,
    /// Truncated episodes per world whose last observation can be recorded.
    pub ends: usize,
}

/// First index of each part of the buffer, and the total length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutPlaces {
    /// `[T, N, O]`.
    pub obs: usize,
    /// `[T, N, A]`.
    pub actions: usize,
    /// `[T, N]`, as are the next three.
    pub log_probs: usize,
    /// Rewards.
    pub rewards: usize,
    /// Teacher rewards, by which simulated teachers judge.
    pub teacher_rewards: usize,
    /// Sums of 1 for terminated, 2 for truncated, 4 for diverged, and 8 if the last observation was recorded.
    pub flags: usize,
    /// `[ends, N, O]`: last observations of truncated episodes.
    pub finals: usize,
    /// `[N, O]`: the present observations, for which the next actions are chosen.
    pub now: usize,
    /// `[T + 1, trailed, state_dim]`: states before each step, and after the last.
    pub trail: usize,
    /// Length of the buffer in numbers.
    pub len: usize,
}

impl RolloutLayout {
    /// The index of each part.
    pub fn places(&self) -> RolloutPlaces {
        let mut len = 0;
        let mut next = |numbers: usize| {
            let at = len;
            len += numbers;
            at
        };
        let samples = self.steps * self.worlds;
        let [obs, actions] = [self.obs_dim, self.act_dim].map(|width| next(samples * width));
        let [log_probs, rewards, teacher_rewards, flags] = [(); 4].map(|()| next(samples));
        let finals = next(self.ends * self.worlds * self.obs_dim);
        let now = next(self.worlds * self.obs_dim);
        let trail = next((self.steps + 1) * self.trailed * self.state_dim);
        RolloutPlaces { obs, actions, log_probs, rewards, teacher_rewards, flags, finals, now, trail, len }
    }
}
