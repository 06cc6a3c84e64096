//! Detects when the learned reward can no longer be trusted. A policy that is optimised against a reward model finds
//! the model's errors. Before its behaviour looks wrong, one of three signs shows:
//!
//! - **Fresh answers** contradict the model: its predictions of judgements that it has not yet learnt from are wrong.
//! - **Held-out answers** contradict it: members do not agree with labels that they never trained on.
//! - The **members diverge**: their standard deviation is larger on the policy's present behaviour than on judged
//!   items.
//!
//! Each of them raises an [`Alarm`]. The monitor does not change the reward; it asks for labels.

use flipside_core::settings::MonitorSettings;
use flipside_core::{Array, Arrays};
use std::collections::VecDeque;

/// Why the reward should not be trusted, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alarm {
    /// This share of the most recent fresh judgements was predicted correctly.
    Fresh(f64),
    /// This share of the held-out judgements is predicted correctly.
    HeldOut(f64),
    /// The ensemble standard deviation on the policy's behaviour, divided by that on the judged items.
    Spread(f64),
}

impl Alarm {
    /// One sentence for the teacher that says what to do. `learner` is what learns, e.g. `robot`.
    pub fn sentence(self, learner: &str) -> String {
        match self {
            Alarm::Fresh(share) => format!(
                "The reward model predicted only {:.0} % of the latest answers; the {learner} may be learning something else, so answer more pairs.",
                100.0 * share
            ),
            Alarm::HeldOut(share) => format!(
                "Held-out agreement is only {:.0} %: the reward model gets many answers wrong that it has not learnt from. Look at the disputed ones, or answer more pairs.",
                100.0 * share
            ),
            Alarm::Spread(times) => format!(
                "The {learner} does things that were never judged (the reward models differ {times:.1} times as much about them); answer more pairs.",
            ),
        }
    }
}

/// The recent values of the three signs.
#[derive(Clone, Debug)]
pub struct Monitor {
    settings: MonitorSettings,
    /// Whether each of the most recent decided judgements was predicted correctly before it was learnt from.
    fresh: VecDeque<bool>,
    /// The highest comparison id seen. A pair that is asked again keeps its id and does not count as fresh.
    newest: Option<u64>,
    held_out: Option<(f64, usize)>,
    /// Mean ensemble standard deviation on the judged items.
    judged_spread: f64,
    /// The most recent ratios of the policy's ensemble standard deviation to it.
    ratios: VecDeque<f64>,
}

/// With fewer judgements than this, a share says nothing.
const FEWEST: usize = 10;

/// Rollouts over which the ratio of standard deviations is averaged, since that of a single rollout is noisy.
const RATIOS: usize = 8;

impl Monitor {
    /// A monitor that has seen nothing yet.
    pub fn new(settings: MonitorSettings) -> Monitor {
        Monitor {
            settings,
            fresh: VecDeque::new(),
            newest: None,
            held_out: None,
            judged_spread: 0.0,
            ratios: VecDeque::new(),
        }
    }

    /// Records whether the model predicts the judgements that came in since the last call. Call it before the model
    /// learns from them. `answers` are the pair and the target of all valid judgements, oldest first. `predict` gives
    /// the model's probability that left is preferred, by the judgement's place in `answers`; `None` while there is no
    /// model.
    pub fn record_predictions(
        &mut self,
        answers: impl Iterator<Item = (u64, f32)>,
        predict: &mut dyn FnMut(usize) -> Option<f64>,
    ) {
        let (before, mut newest) = (self.newest, self.newest);
        for (place, (id, target)) in answers.enumerate() {
            newest = newest.max(Some(id));
            if before.is_none_or(|before| id > before)
                && target != 0.5
                && let Some(left) = predict(place)
            {
                self.fresh.push_back((left > 0.5) == (target > 0.5));
            }
        }
        while self.fresh.len() > self.settings.window.max(FEWEST) {
            self.fresh.pop_front();
        }
        self.newest = newest;
    }

    /// Records the result of a fit. `judged_spread` is the mean ensemble standard deviation on the judged items.
    /// `held_out` is the share of held-out judgements that are predicted correctly, and their number.
    pub fn fitted(&mut self, judged_spread: f64, held_out: Option<(f64, usize)>) {
        (self.judged_spread, self.held_out) = (judged_spread, held_out);
        self.ratios.clear();
    }

    /// Records the ensemble standard deviation on the policy's present behaviour. Returns its ratio to that on the
    /// judged items.
    pub fn observe(&mut self, spread: f64) -> f64 {
        let ratio = if self.judged_spread > 0.0 { spread / self.judged_spread } else { 1.0 };
        self.ratios.push_back(ratio);
        if self.ratios.len() > RATIOS {
            self.ratios.pop_front();
        }
        ratio
    }

    /// The share of the most recent judgements that was predicted correctly before it was learnt from; `None` while
    /// there are too few.
    pub fn recent_agreement(&self) -> Option<f64> {
        let right = self.fresh.iter().filter(|&&right| right).count();
        (self.fresh.len() >= FEWEST).then(|| right as f64 / self.fresh.len() as f64)
    }

    /// Held-out agreement at the last fit: the share of held-out judgements that is predicted correctly. `None` before
    /// a fit that held some out.
    pub fn held_out_agreement(&self) -> Option<f64> {
        self.held_out.map(|(share, _)| share)
    }

    /// The whole state, for a checkpoint.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        arrays.insert("fresh".into(), Array::u64(self.fresh.iter().map(|&right| u64::from(right)).collect()));
        arrays.insert("newest".into(), Array::u64(self.newest.into_iter().collect()));
        let held_out: Vec<f64> = self.held_out.into_iter().flat_map(|(share, count)| [share, count as f64]).collect();
        arrays.insert("held_out".into(), Array::f64(&[held_out.len()], held_out));
        let ratios: Vec<f64> = self.ratios.iter().copied().collect();
        arrays.insert("ratios".into(), Array::f64(&[ratios.len()], ratios));
        arrays.insert("judged_spread".into(), Array::f64(&[1], vec![self.judged_spread]));
        arrays
    }

    /// Loads what [`Monitor::to_arrays`] gave. Arrays that are missing or have another shape count as not seen.
    pub fn load_arrays(&mut self, arrays: &Arrays) {
        let words = |name: &str| arrays.get(name).and_then(Array::as_u64).unwrap_or_default();
        let numbers = |name: &str| arrays.get(name).and_then(Array::as_f64).unwrap_or_default();
        self.fresh = words("fresh").iter().map(|&right| right != 0).collect();
        self.newest = words("newest").first().copied();
        self.held_out = match *numbers("held_out") {
            [share, count] => Some((share, count as usize)),
            _ => None,
        };
        self.ratios = numbers("ratios").iter().copied().collect();
        self.judged_spread = numbers("judged_spread").first().copied().unwrap_or_default();
    }

    /// The most serious alarm, if there is one.
    pub fn alarm(&self) -> Option<Alarm> {
        let ratio = self.ratios.iter().sum::<f64>() / self.ratios.len().max(1) as f64;
        let spread =
            (self.ratios.len() == RATIOS && ratio > self.settings.max_std_ratio).then_some(Alarm::Spread(ratio));
        let fresh =
            self.recent_agreement().filter(|&share| share < self.settings.min_recent_agreement).map(Alarm::Fresh);
        let held_out =
            self.held_out.filter(|&(share, count)| count >= FEWEST && share < self.settings.min_held_out_agreement);
        fresh.or(held_out.map(|(share, _)| Alarm::HeldOut(share))).or(spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Comparison, RewardModel};
    use flipside_core::settings::RewardModelSettings;
    use flipside_core::{Frames, Seed, Stream};
    use rand_distr::{Distribution, StandardNormal};

    /// A clip whose observations scatter around `place` in their first number. Every step's reward is `place`.
    fn clip(place: f32, stream: &mut Stream) -> Frames {
        let mut frames = Frames { steps: 25, obs_dim: 2, act_dim: 1, ..Frames::default() };
        for _ in 0..frames.steps {
            let numbers: [f32; 3] = std::array::from_fn(|_| StandardNormal.sample(stream));
            frames.obs.extend([place + 0.3 * numbers[0], numbers[1]]);
            frames.actions.push(numbers[2].clamp(-1.0, 1.0));
            frames.task_reward.push(place);
        }
        frames
    }

    fn compare(first: u64, clips: &[Frames], turned: bool) -> Vec<Comparison<'_>> {
        let target = |pair: &[Frames]| f32::from(u8::from((pair[0].task_reward[0] > pair[1].task_reward[0]) != turned));
        let of = |(i, pair): (usize, &'_ [Frames])| (first + i as u64, target(pair));
        let pairs = clips.chunks_exact(2).enumerate().map(of).collect::<Vec<_>>();
        pairs
            .into_iter()
            .zip(clips.chunks_exact(2))
            .map(|((id, target), pair)| Comparison { id, left: &pair[0], right: &pair[1], target, much: false })
            .collect()
    }

    /// Clips at random places within ± `range`.
    fn clips(count: usize, range: f32, stream: &mut Stream) -> Vec<Frames> {
        let mut place = || -> f32 { range * rand::RngExt::random_range(stream, -1.0_f32..1.0) };
        let places: Vec<f32> = (0..count).map(|_| place()).collect();
        places.into_iter().map(|place| clip(place, stream)).collect()
    }

    fn record(monitor: &mut Monitor, model: &RewardModel, comparisons: &[Comparison]) {
        let predict = |place: usize| {
            let c = &comparisons[place];
            model.is_fitted().then(|| model.predict(c.left, c.right))
        };
        monitor.record_predictions(comparisons.iter().map(|c| (c.id, c.target)), &mut { predict });
    }

    /// A well-fitted model raises no alarm, and each sign on its own raises its alarm.
    #[test]
    fn each_sign_raises_its_alarm_and_a_good_model_none() {
        let mut stream = Seed(2).stream("clips");
        let taught = clips(120, 1.0, &mut stream);
        let fresh = clips(40, 1.0, &mut stream);
        let lessons = compare(0, &taught, false);
        let mut model = RewardModel::new(2, 1, RewardModelSettings::default(), Seed(2));
        let mut monitor = Monitor::new(MonitorSettings::default());
        record(&mut monitor, &model, &lessons);
        let report = model.fit(&lessons, &[], &mut || false).unwrap();
        let all = |part: fn(&Frames) -> &Vec<f32>| taught.iter().flat_map(part).copied().collect::<Vec<f32>>();
        model.renormalise(&all(|f| &f.obs), &all(|f| &f.actions)).unwrap();
        monitor.fitted(model.judged_spread(&lessons), report.held_out_agreement.map(|share| (share, report.held_out)));
        assert_eq!(monitor.recent_agreement(), None, "a model that had learnt nothing predicted nothing");
        let observe = |monitor: &mut Monitor, place: f32, stream: &mut Stream| {
            for _ in 0..RATIOS {
                let now = clip(place, stream);
                monitor.observe(model.ensemble_std(&now.obs, &now.actions));
            }
        };
        observe(&mut monitor, 0.5, &mut stream);
        let good = |choices: &[Frames], turned: bool| {
            let mut monitor = monitor.clone();
            record(&mut monitor, &model, &compare(1_000, choices, turned));
            monitor.alarm()
        };
        assert_eq!(good(&fresh, false), None);
        // The teacher now wants the opposite.
        assert!(matches!(good(&fresh, true), Some(Alarm::Fresh(share)) if share < 0.3), "{:?}", good(&fresh, true));
        let mut wrong = monitor.clone();
        wrong.fitted(model.judged_spread(&lessons), Some((0.5, 30)));
        assert_eq!((wrong.alarm(), wrong.held_out_agreement()), (Some(Alarm::HeldOut(0.5)), Some(0.5)));
        assert!(Alarm::HeldOut(0.5).sentence("robot").starts_with("Held-out agreement is only 50 %"));
        let mut far = monitor.clone();
        observe(&mut far, 4.0, &mut stream);
        assert!(matches!(far.alarm(), Some(Alarm::Spread(_))), "{:?}, {:?}", far.alarm(), far.ratios);
        assert!(far.alarm().unwrap().sentence("robot").contains("never judged"));
        let mut again = Monitor::new(MonitorSettings::default());
        again.load_arrays(&far.to_arrays());
        assert_eq!((again.alarm(), again.newest, again.held_out), (far.alarm(), far.newest, far.held_out));
    }
}
