//! Where a rollout's numbers lie in the one buffer that the kernels of several rooms write it into, and what acts in it.

use super::{Commands, DeviceError};
use std::ops::Range;

/// Who acts: lists what writes the actions of some worlds into the rollout and, clipped, into the controls.
pub trait ActsOnDevice {
    /// Lists the beginning of a rollout.
    ///
    /// # Errors
    /// Those of the device.
    fn rewind(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError>;

    /// Lists one step.
    ///
    /// # Errors
    /// Those of the device.
    fn act(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError>;
}

/// T steps of N worlds with O numbers an observation and A an action.
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
    /// Worlds whose states are kept, the first ones.
    pub trailed: usize,
    /// Truncated episodes a world whose last observation is kept.
    pub ends: usize,
}

/// First indices of the kinds of numbers, and how many there are in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutPlaces {
    /// `[T, N, O]`.
    pub obs: usize,
    /// `[T, N, A]`.
    pub actions: usize,
    /// `[T, N]`, and so are those after it.
    pub log_probs: usize,
    /// Rewards.
    pub rewards: usize,
    /// What simulated teachers judge by.
    pub teacher_rewards: usize,
    /// Sums of 1 for terminated, 2 for truncated, 4 for diverged, and 8 where the last observation is kept.
    pub flags: usize,
    /// `[ends, N, O]`: last observations.
    pub finals: usize,
    /// `[N, O]`: what is acted on next.
    pub now: usize,
    /// `[T + 1, trailed, states]`: states before the steps.
    pub trail: usize,
    /// Numbers in all.
    pub len: usize,
}

impl RolloutLayout {
    /// Where everything lies.
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
