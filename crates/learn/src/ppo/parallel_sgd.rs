//! Epochs of gradient steps of one network, computed by any number of threads.
//!
//! A minibatch is cut into parts by its size alone. One thread leads: it shuffles, offers the parts of a minibatch, and
//! takes the step when all parts are done. Idle threads help with open parts. The parts' gradients are added in a fixed
//! order, so the bits do not depend on which thread computed which part.

use super::learner::Learner;
use crate::adam::{add, norm};
use crate::gradient::{Part, Tape};
use crate::loss::{Loss, Sums};
use crate::network::Network;
use crate::{Dense, LearnError};
use flipside_core::settings::PpoSettings;
use rand::seq::SliceRandom;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The fewest samples of a part, so that computing takes longer than handing over.
const PART: usize = 128;

/// The most parts of a minibatch. Each part has its own gradient, and all must be added in the end.
const PARTS: usize = 8;

/// One network's scratch memory: made once, used by every update, and not saved.
pub(super) struct GradientScratch {
    /// The network's copy for evaluation, updated at every step.
    packed: Dense,
    tapes: Vec<Mutex<Tape>>,
    /// A random order of the samples.
    order: Vec<u32>,
}

impl GradientScratch {
    pub fn new(network: &Network) -> GradientScratch {
        let tapes = (0..PARTS).map(|_| Mutex::new(Tape::new(network.layout()))).collect();
        GradientScratch { packed: network.dense(), tapes, order: Vec::new() }
    }
}

/// Means over the gradient steps taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Means {
    pub loss: f64,
    pub kl: f64,
    pub clipped: f64,
    /// The norm of the gradient before clipping.
    pub norm: f64,
    /// How many passes over the samples were finished.
    pub epochs: usize,
}

/// What an optimiser learns from, and how.
#[derive(Clone, Copy)]
pub(super) struct TrainingProblem<'a> {
    /// "policy" or "value", for errors.
    pub name: &'static str,
    pub objective: Loss<'a>,
    /// Normalised observations, `[samples, padded(O)]`.
    pub obs: &'a [f32],
    pub samples: usize,
    pub settings: &'a PpoSettings,
    pub learning_rate: f64,
}

/// The optimisation of one network.
pub(super) struct ParallelSgd<'a> {
    problem: TrainingProblem<'a>,
    tapes: &'a [Mutex<Tape>],
    /// The leader writes it between minibatches; all threads read it during one.
    model: RwLock<Model<'a>>,
    /// How many parts of the current minibatch nobody has taken yet.
    open: AtomicUsize,
    /// How many parts of the current minibatch are done.
    done: AtomicUsize,
    over: AtomicBool,
}

struct Model<'a> {
    learner: &'a mut Learner,
    packed: &'a mut Dense,
    order: &'a mut Vec<u32>,
    /// The range of `order` that is the current minibatch.
    minibatch: Range<usize>,
}

impl<'a> ParallelSgd<'a> {
    /// The most threads that one optimiser keeps busy.
    pub const HANDS: usize = PARTS;

    /// The initial state; nothing is done yet.
    pub fn new(
        problem: TrainingProblem<'a>,
        learner: &'a mut Learner,
        scratch: &'a mut GradientScratch,
    ) -> ParallelSgd<'a> {
        let GradientScratch { packed, tapes, order } = scratch;
        packed.follow(&learner.network);
        ParallelSgd {
            problem,
            tapes,
            model: RwLock::new(Model { learner, packed, order, minibatch: 0..0 }),
            open: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Runs all epochs, or stops when a minibatch's KL exceeds 1.5 times the target. `cancel` is checked before every
    /// minibatch. Refuses a loss, gradient or parameter that is not finite; the learner is then in an intermediate
    /// state.
    pub fn run(&self, cancel: &mut dyn FnMut() -> bool) -> Result<Means, LearnError> {
        let _over = Over(&self.over);
        let TrainingProblem { name, samples, settings, .. } = self.problem;
        let (mut means, mut steps) = (Means::default(), 0.0);
        let minibatches = ((samples as f64 / settings.minibatch_size as f64).round() as usize).max(1);
        let cut = |i: usize| i * samples / minibatches;
        'epochs: for epoch in 1..=settings.update_epochs {
            self.shuffle();
            for i in 0..minibatches {
                if cancel() {
                    return Err(LearnError::Cancelled);
                }
                let sums = self.differentiate(cut(i)..cut(i + 1));
                let each = 1.0 / (cut(i + 1) - cut(i)) as f64;
                let kl = sums.kl * each;
                let not_finite = |what: String| LearnError::NotFinite { what: format!("the {what} in epoch {epoch}") };
                if !kl.is_finite() {
                    return Err(not_finite(format!("{name}'s KL")));
                }
                if settings.target_kl > 0.0 && kl > 1.5 * settings.target_kl {
                    break 'epochs;
                }
                if !sums.loss.is_finite() {
                    return Err(not_finite(format!("{name} loss")));
                }
                let norm = self.step();
                if !norm.is_finite() {
                    return Err(not_finite(format!("{name} gradient")));
                }
                steps += 1.0;
                means.loss += sums.loss * each;
                means.kl += kl;
                means.clipped += sums.clipped * each;
                means.norm += norm;
            }
            means.epochs = epoch;
        }
        let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
        if !model.learner.network.numbers().iter().all(|x| x.is_finite()) {
            let what = format!("a parameter of the {name} network after the update");
            return Err(LearnError::NotFinite { what });
        }
        for sum in [&mut means.loss, &mut means.kl, &mut means.clipped, &mut means.norm] {
            *sum /= f64::max(steps, 1.0);
        }
        Ok(means)
    }

    /// Computes one open part; returns false if there is none.
    pub fn assist(&self) -> bool {
        let take = |open: usize| open.checked_sub(1);
        let Ok(open) = self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take) else { return false };
        let _done = Done(&self.done);
        let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
        let (start, rows) = (model.minibatch.start, model.minibatch.len());
        let (part, parts) = (open - 1, parts(rows));
        let samples = &model.order[start + part * rows / parts..start + (part + 1) * rows / parts];
        let part_of = Part { obs: self.problem.obs, samples, weight: 1.0 / rows as f32 };
        self.tape(part).take(&model.learner.network, model.packed, &self.problem.objective, part_of);
        true
    }

    /// Whether the leader has finished, successfully or not.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// A new random order of the samples.
    fn shuffle(&self) {
        let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
        let Model { order, learner, .. } = &mut *model;
        order.clear();
        // A rollout has fewer than 2³² samples because it lies in memory.
        order.extend(0..self.problem.samples as u32);
        order.shuffle(&mut learner.shuffle);
    }

    /// The sums of a minibatch. Its gradient stays in the parts' tapes.
    fn differentiate(&self, minibatch: Range<usize>) -> Sums {
        let parts = parts(minibatch.len());
        self.model.write().unwrap_or_else(PoisonError::into_inner).minibatch = minibatch;
        self.done.store(0, Ordering::Relaxed);
        self.open.store(parts, Ordering::Release);
        while self.assist() {}
        let mut backoff = Backoff::default();
        while self.done.load(Ordering::Acquire) < parts {
            backoff.wait();
        }
        let mut sums = Sums::default();
        (0..parts).for_each(|part| sums += self.tape(part).sums);
        sums
    }

    /// Takes one step down the current minibatch's gradient and returns the gradient's norm before clipping. If the
    /// norm is not finite, it takes no step.
    fn step(&self) -> f64 {
        let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
        let Model { learner: Learner { network, adam, .. }, packed, minibatch, .. } = &mut *model;
        let mut first = self.tape(0);
        let gradient = &mut first.gradient;
        (1..parts(minibatch.len())).for_each(|part| add(gradient, &self.tape(part).gradient));
        // The bonus is the entropy, Σ log σ + …, times its weight. It enters the minimised loss with a minus. The
        // critic has no σ.
        let free = network.layout().free();
        gradient[free..][..network.free().len()].iter_mut().for_each(|g| *g -= self.problem.settings.ent_coef as f32);
        let norm = norm(gradient);
        if norm.is_finite() {
            let max = self.problem.settings.max_grad_norm;
            let scale = if max > 0.0 && norm > max { max / norm } else { 1.0 };
            adam.step(network.numbers_mut(), gradient, scale, self.problem.learning_rate);
            let least = self.problem.settings.min_log_std as f32;
            let log_std = free..free + network.free().len();
            network.numbers_mut()[log_std].iter_mut().for_each(|log_std| *log_std = log_std.max(least));
            packed.follow(network);
        }
        norm
    }

    /// No two threads need the same tape at once; the lock proves it to the compiler.
    fn tape(&self, part: usize) -> MutexGuard<'_, Tape> {
        self.tapes[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many parts a minibatch is cut into.
fn parts(rows: usize) -> usize {
    (rows / PART).clamp(1, PARTS)
}

/// Counts a part as done even if it panicked, because the leader must not wait forever.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Marks an optimiser as over, however it ended.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// How long a thread sleeps when it has waited longer than it should.
const NAP: Duration = Duration::from_micros(50);

/// Waits for something that takes microseconds. It spins first, and sleeps if that takes longer, because the other
/// thread may then need this core.
#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub fn wait(&mut self) {
        match self.0 < 200 {
            true => (0..16).for_each(|_| std::hint::spin_loop()),
            false => std::thread::sleep(NAP),
        }
        self.0 = self.0.saturating_add(1);
    }
}
