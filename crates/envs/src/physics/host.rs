//! A batch of worlds on the host, whichever engine steps it.

use super::Model;
use glam::{DQuat, DVec3};
use std::sync::Arc;

/// Beyond this a coordinate or a velocity counts as diverged, as in MuJoCo (mjMAXVAL).
pub const LARGEST: f64 = 1e10;

/// Whether a coordinate, a velocity or an acceleration has not diverged; false for NaN.
#[inline]
pub fn is_sane(x: f64) -> bool {
    x.abs() < LARGEST
}

/// The states of a batch of worlds, in double precision between env steps, and the status of each world.
pub struct HostState {
    model: Arc<Model>,
    worlds: usize,
    /// `[worlds, nq]`.
    qpos: Vec<f64>,
    /// `[worlds, nv]`.
    qvel: Vec<f64>,
    outcomes: Vec<Outcome>,
}

/// The status of a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    stepped: bool,
    frozen: bool,
    diverged: u64,
}

impl Outcome {
    /// Whether the last event was a step, so that contacts and forces are meaningful.
    #[inline]
    pub fn stepped(self) -> bool {
        self.stepped
    }

    /// Whether it became non-finite. It then keeps its last good state until it is set.
    #[inline]
    pub fn frozen(self) -> bool {
        self.frozen
    }

    /// Records a step that ended in a state that is `sane`, or in one that is not and must not be kept.
    #[inline]
    pub fn step(&mut self, sane: bool) {
        self.stepped = sane;
        self.frozen = !sane;
        self.diverged += u64::from(!sane);
    }
}

/// Neighbouring worlds of a [`HostState`].
pub struct WorldsMut<'a> {
    /// `[worlds, nq]`.
    pub qpos: &'a mut [f64],
    /// `[worlds, nv]`.
    pub qvel: &'a mut [f64],
    /// `[worlds]`.
    pub outcomes: &'a mut [Outcome],
}

impl HostState {
    /// This many worlds at the reference configuration, at rest.
    pub fn new(model: Arc<Model>, worlds: usize) -> HostState {
        HostState {
            qpos: model.qpos0().repeat(worlds),
            qvel: vec![0.0; worlds * model.nv()],
            outcomes: vec![Outcome::default(); worlds],
            worlds,
            model,
        }
    }

    /// The model of which every world is a copy.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How many worlds.
    pub fn worlds(&self) -> usize {
        self.worlds
    }

    /// Joint positions of all worlds, `[worlds, nq]`.
    pub fn qpos(&self) -> &[f64] {
        &self.qpos
    }

    /// Joint velocities of all worlds, `[worlds, nv]`.
    pub fn qvel(&self) -> &[f64] {
        &self.qvel
    }

    /// Joint positions and velocities of one world, `[nq]` and `[nv]`.
    pub fn state(&self, world: usize) -> (&[f64], &[f64]) {
        let (nq, nv) = (self.model.nq(), self.model.nv());
        (&self.qpos[world * nq..][..nq], &self.qvel[world * nv..][..nv])
    }

    /// The status of a world.
    pub fn outcome(&self, world: usize) -> Outcome {
        self.outcomes[world]
    }

    /// How many times a world became non-finite since the batch was made.
    pub fn diverged(&self) -> u64 {
        self.outcomes.iter().map(|outcome| outcome.diverged).sum()
    }

    /// Puts one world into a state.
    pub fn set(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        let (nq, nv) = (self.model.nq(), self.model.nv());
        self.qpos[world * nq..][..nq].copy_from_slice(qpos);
        self.qvel[world * nv..][..nv].copy_from_slice(qvel);
        let outcome = &mut self.outcomes[world];
        (outcome.stepped, outcome.frozen) = (false, false);
    }

    /// All worlds in order, `count` at a time; the last may be fewer.
    pub fn chunks_mut(&mut self, count: usize) -> impl Iterator<Item = WorldsMut<'_>> + Send {
        let (nq, nv) = (self.model.nq(), self.model.nv());
        let states = rows_mut(&mut self.qpos, nq * count).zip(rows_mut(&mut self.qvel, nv * count));
        let chunks = self.outcomes.chunks_mut(count).zip(states);
        chunks.map(|(outcomes, (qpos, qvel))| WorldsMut { qpos, qvel, outcomes })
    }

    /// [`Quantity::Frames`](super::Quantity::Frames) of a world's state.
    pub fn frames(&self, world: usize, out: &mut [f64]) {
        for (slot, (pos, quat)) in out.chunks_exact_mut(7).zip(self.model.kinematics(self.state(world).0)) {
            write_frame(slot, pos, quat);
        }
    }
}

/// One body's row of [`Quantity::Frames`](super::Quantity::Frames).
pub fn write_frame(slot: &mut [f64], pos: DVec3, quat: DQuat) {
    slot.copy_from_slice(&[pos.x, pos.y, pos.z, quat.w, quat.x, quat.y, quat.z]);
}

/// Rows of `width` numbers, then the remainder, then empty rows without end. A batch needs as many rows as it has
/// worlds, even if a row has no numbers.
pub fn rows_mut<T: Send>(numbers: &mut [T], width: usize) -> impl Iterator<Item = &mut [T]> + Send {
    let mut rest = numbers;
    std::iter::from_fn(move || {
        let all = std::mem::take(&mut rest);
        let (row, after) = all.split_at_mut(width.min(all.len()));
        rest = after;
        Some(row)
    })
}
