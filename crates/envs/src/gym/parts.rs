//! What a task is made of, once its file has met the robot: every name resolved to indices.

use super::flips::FlipRule;
use super::signal::{Element, State};
use crate::physics::Quantity;
use crate::tasks::{Noise, RewardKind};
use flipside_core::Stream;
use rand::RngExt;

/// A task's file with every name resolved.
#[derive(Debug)]
pub(super) struct Parts {
    pub observation: Vec<Element>,
    pub terms: Vec<Term>,
    /// What simulated teachers judge by; none where it is the reward.
    pub teacher_reward: Vec<Term>,
    pub health: Vec<Bound>,
    pub flips: Option<Flips>,
    pub qpos_noise: Option<Noise>,
    pub qvel_noise: Option<Noise>,
    pub places: Vec<Place>,
    /// Where quaternions begin in qpos.
    pub quaternions: Vec<usize>,
    /// What the backend must compute, each once.
    pub needs: Vec<Quantity>,
}

/// One term of the reward.
#[derive(Debug)]
pub(super) struct Term {
    pub name: String,
    pub kind: RewardKind,
    pub signal: Vec<Element>,
    /// Of `dot`, as long as `signal`.
    pub with: Vec<Element>,
    pub factors: Vec<Element>,
    pub when: Vec<Bound>,
    pub weight: f64,
    pub target: f64,
    pub low: f64,
    pub high: f64,
}

/// What every number of a signal must keep for the robot to be healthy. Absent bounds are infinite.
#[derive(Debug)]
pub(super) struct Bound {
    pub signal: Vec<Element>,
    pub above: f64,
    pub below: f64,
    pub at_least: f64,
    pub at_most: f64,
}

impl Term {
    /// What it adds to the reward of the env step of `dt` seconds that led to `state`; `before` is what was remembered
    /// of its signal.
    pub fn pay(&self, before: f64, state: &State, healthy: bool, dt: f64) -> f64 {
        if !self.when.iter().all(|bound| bound.hold(state)) {
            return 0.0;
        }
        let numbers = self.signal.iter().map(|element| element.read(state) - self.target);
        let made = match self.kind {
            RewardKind::Alive => f64::from(u8::from(healthy)),
            RewardKind::Velocity => (self.signal[0].read(state) - before) / dt - self.target,
            RewardKind::Value => numbers.sum(),
            RewardKind::SumSquares => numbers.map(|x| x * x).sum(),
            RewardKind::Norm => numbers.map(|x| x * x).sum::<f64>().sqrt(),
            RewardKind::Dot => numbers.zip(&self.with).map(|(x, with)| x * with.read(state)).sum(),
        };
        let factor: f64 = self.factors.iter().map(|element| element.read(state)).product();
        (self.weight * made * factor).clamp(self.low, self.high)
    }

    /// Everything that it reads of a state.
    pub fn reads(&self) -> impl Iterator<Item = &Element> {
        let bounds = self.when.iter().flat_map(|bound| &bound.signal);
        self.signal.iter().chain(&self.with).chain(&self.factors).chain(bounds)
    }
}

/// Where the flips of this robot show.
#[derive(Debug)]
pub(super) struct Flips {
    /// Places in qpos.
    pub pitch: usize,
    pub height: usize,
    pub rule: FlipRule,
}

/// Joints drawn from a box, at rest.
#[derive(Debug)]
pub(super) struct Place {
    pub qpos: Vec<usize>,
    pub qvel: Vec<usize>,
    pub low: Vec<f64>,
    pub high: Vec<f64>,
    pub center: Vec<f64>,
    pub nearer_than: f64,
    pub farther_than: f64,
}

impl Bound {
    /// Whether every number of its signal keeps it.
    pub fn hold(&self, state: &State) -> bool {
        self.signal.iter().all(|element| self.holds(element.read(state)))
    }

    fn holds(&self, x: f64) -> bool {
        x.is_finite() && x > self.above && x < self.below && x >= self.at_least && x <= self.at_most
    }
}

impl Place {
    /// How often a draw is tried. A task whose box misses its distances this often is refused when it is compiled.
    pub const TRIES: usize = 1000;

    /// Draws until the distance is right; says whether it came right.
    pub fn draw(&self, stream: &mut Stream, qpos: &mut [f64]) -> bool {
        for _ in 0..Place::TRIES {
            let mut squared = 0.0;
            for (k, &i) in self.qpos.iter().enumerate() {
                qpos[i] = self.low[k] + (self.high[k] - self.low[k]) * stream.random::<f64>();
                squared += (qpos[i] - self.center[k]).powi(2);
            }
            let distance = squared.sqrt();
            if distance < self.nearer_than && distance > self.farther_than {
                return true;
            }
        }
        false
    }
}
