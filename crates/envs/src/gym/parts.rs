//! The parts of a task after its file was compiled against the robot: every name is resolved to indices.

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
    /// The terms that simulated teachers judge by; empty if they judge by the reward.
    pub teacher_reward: Vec<Term>,
    pub health: Vec<Bound>,
    pub flips: Option<Flips>,
    pub qpos_noise: Option<Noise>,
    pub qvel_noise: Option<Noise>,
    pub places: Vec<Place>,
    /// The indices in qpos at which quaternions begin.
    pub quaternions: Vec<usize>,
    /// The quantities that the backend must compute, each listed once.
    pub needs: Vec<Quantity>,
}

/// One term of the reward.
#[derive(Debug)]
pub(super) struct Term {
    pub name: String,
    pub kind: RewardKind,
    pub signal: Vec<Element>,
    /// For `dot`: the second factor, as long as `signal`.
    pub with: Vec<Element>,
    pub factors: Vec<Element>,
    pub when: Vec<Bound>,
    pub weight: f64,
    pub target: f64,
    pub low: f64,
    pub high: f64,
}

/// A bound that every number of a signal must keep for the robot to be healthy. Missing bounds are infinite.
#[derive(Debug)]
pub(super) struct Bound {
    pub signal: Vec<Element>,
    pub above: f64,
    pub below: f64,
    pub at_least: f64,
    pub at_most: f64,
}

impl Term {
    /// The term's contribution to the reward of the env step of `dt` seconds that led to `state`. `before` is the value
    /// of its signal that was remembered from the state before.
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

    /// Every number of the state that the term reads.
    pub fn reads(&self) -> impl Iterator<Item = &Element> {
        let bounds = self.when.iter().flat_map(|bound| &bound.signal);
        self.signal.iter().chain(&self.with).chain(&self.factors).chain(bounds)
    }
}

/// Which coordinates of this robot show its flips.
#[derive(Debug)]
pub(super) struct Flips {
    /// Indices in qpos.
    pub pitch: usize,
    pub height: usize,
    pub rule: FlipRule,
}

/// Joints that are drawn from a box and start at rest.
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
    /// Whether every number of the signal keeps the bound.
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

    /// Draws until the distance is right. Returns whether a draw succeeded.
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
