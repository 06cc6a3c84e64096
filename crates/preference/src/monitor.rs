//! Whether the learnt reward can still be trusted. A policy that is paid by a model finds what the model gets wrong; before the robot looks
//! odd, one of three signs shows:
//!
//! - **fresh answers** contradict the model: what was predicted of a judgement before anything was learnt from it is no longer right;
//! - **held-out answers** contradict it: the members do not agree with labels that they never trained on;
//! - the **members part**: about what the policy does now they differ more than about what was judged.
//!
//! Any of them raises an [`Alarm`]. Nothing here changes the reward: it asks for labels.

use super::{Comparison, RewardModel};
use flipside_core::settings::MonitorSettings;
use flipside_core::{Array, Arrays};
use std::collections::VecDeque;

/// Why the reward should not be trusted, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alarm {
    /// This share of the latest fresh judgements was predicted.
    Fresh(f64),
    /// This share of held-out judgements is predicted.
    HeldOut(f64),
    /// The members' spread on what the policy does, over that on what was judged.
    Spread(f64),
}

impl Alarm {
    /// One sentence for the person who teaches, with what to do.
    pub fn sentence(self) -> String {
        match self {
            Alarm::Fresh(share) => format!(
                "The reward model foresaw only {:.0} % of the latest answers; the robot may be learning something else, so answer more pairs.",
                100.0 * share
            ),
            Alarm::HeldOut(share) => format!(
                "The reward model agrees with only {:.0} % of the answers that it has not learnt from; look at the disputed ones, or answer more pairs.",
                100.0 * share
            ),
            Alarm::Spread(times) => format!(
                "The robot does things that were never judged (the reward models differ {times:.1} times as much about them); answer more pairs.",
            ),
        }
    }
}

/// What was seen of the signs lately.
#[derive(Clone, Debug)]
pub struct Monitor {
    settings: MonitorSettings,
    /// Whether each of the latest decided judgements was predicted before it was learnt from.
    fresh: VecDeque<bool>,
    /// The newest comparison that was looked at; a pair that is asked again keeps its old name and is no news.
    newest: Option<u64>,
    held_out: Option<(f64, usize)>,
    /// Mean spread of the members on the clips that were judged.
    judged_spread: f64,
    /// The latest ratios of the policy's spread to it.
    ratios: VecDeque<f64>,
}

/// Fewest judgements that say anything.
const FEWEST: usize = 10;

/// Looks at the policy over which the spread is averaged, since a single rollout wavers.
const LOOKS: usize = 8;

impl Monitor {
    /// Nothing seen yet.
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

    /// Takes in what a fitted model says of the judgements that came since, before it learns from them. `comparisons` are all that stand, oldest
    /// first.
    pub fn foresee(&mut self, model: &RewardModel, comparisons: &[Comparison]) {
        let newest = self.newest;
        for comparison in comparisons.iter().filter(|c| newest.is_none_or(|newest| c.id > newest)) {
            if model.is_fitted() && comparison.target != 0.5 {
                let left = model.predict(comparison.left, comparison.right) > 0.5;
                self.fresh.push_back(left == (comparison.target > 0.5));
            }
        }
        while self.fresh.len() > self.settings.window.max(FEWEST) {
            self.fresh.pop_front();
        }
        self.newest = comparisons.iter().map(|c| c.id).max().max(newest);
    }

    /// Takes in how a fit went: the share of held-out judgements that are predicted, out of how many, and how far the members now differ about
    /// what was judged.
    pub fn fitted(&mut self, model: &RewardModel, comparisons: &[Comparison], held_out: Option<(f64, usize)>) {
        self.held_out = held_out;
        let rows = |c: &Comparison| [c.left, c.right].map(|clip| model.ensemble_std(&clip.obs, &clip.actions));
        let spreads: Vec<f64> = comparisons.iter().flat_map(rows).collect();
        self.judged_spread = spreads.iter().sum::<f64>() / spreads.len().max(1) as f64;
        self.ratios.clear();
    }

    /// Takes in how far the members differ about what the policy does now, and returns that over the same of what was judged.
    pub fn look(&mut self, spread: f64) -> f64 {
        let ratio = if self.judged_spread > 0.0 { spread / self.judged_spread } else { 1.0 };
        self.ratios.push_back(ratio);
        if self.ratios.len() > LOOKS {
            self.ratios.pop_front();
        }
        ratio
    }

    /// The share of the latest judgements that was predicted before it was learnt from; `None` before there are enough.
    pub fn foreseen(&self) -> Option<f64> {
        let right = self.fresh.iter().filter(|&&right| right).count();
        (self.fresh.len() >= FEWEST).then(|| right as f64 / self.fresh.len() as f64)
    }

    /// All that was seen, for a checkpoint.
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

    /// Takes over what [`Monitor::to_arrays`] gave; what is missing or of another shape is as if not seen.
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

    /// The most serious sign, if there is one.
    pub fn alarm(&self) -> Option<Alarm> {
        let ratio = self.ratios.iter().sum::<f64>() / self.ratios.len().max(1) as f64;
        let spread = (self.ratios.len() == LOOKS && ratio > self.settings.spread).then_some(Alarm::Spread(ratio));
        let fresh = self.foreseen().filter(|&share| share < self.settings.foreseen).map(Alarm::Fresh);
        let held_out = self.held_out.filter(|&(share, count)| count >= FEWEST && share < self.settings.held_out);
        fresh.or(held_out.map(|(share, _)| Alarm::HeldOut(share))).or(spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::settings::RewardModelSettings;
    use flipside_core::{Frames, Seed, Stream};
    use rand_distr::{Distribution, StandardNormal};

    /// Steps around a place, whose reward is their first number.
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

    /// A model that was taught well raises none; then every sign is given by itself.
    #[test]
    fn each_sign_raises_its_alarm_and_a_good_model_none() {
        let mut stream = Seed(2).stream("clips");
        let taught = clips(120, 1.0, &mut stream);
        let fresh = clips(40, 1.0, &mut stream);
        let lessons = compare(0, &taught, false);
        let mut model = RewardModel::new(2, 1, RewardModelSettings::default(), Seed(2));
        let mut monitor = Monitor::new(MonitorSettings::default());
        monitor.foresee(&model, &lessons);
        let report = model.fit(&lessons, &[], &mut || false).unwrap();
        let all = |part: fn(&Frames) -> &Vec<f32>| taught.iter().flat_map(part).copied().collect::<Vec<f32>>();
        model.renormalise(&all(|f| &f.obs), &all(|f| &f.actions)).unwrap();
        monitor.fitted(&model, &lessons, report.held_out_agreement.map(|share| (share, report.held_out)));
        assert_eq!(monitor.foreseen(), None, "nothing was foreseen by a model that had learnt nothing");
        let look = |monitor: &mut Monitor, place: f32, stream: &mut Stream| {
            for _ in 0..LOOKS {
                let now = clip(place, stream);
                monitor.look(model.ensemble_std(&now.obs, &now.actions));
            }
        };
        look(&mut monitor, 0.5, &mut stream);
        let good = |choices: &[Frames], turned: bool| {
            let mut monitor = monitor.clone();
            monitor.foresee(&model, &compare(1_000, choices, turned));
            monitor.alarm()
        };
        assert_eq!(good(&fresh, false), None);
        // A teacher who now wants the opposite.
        assert!(matches!(good(&fresh, true), Some(Alarm::Fresh(share)) if share < 0.3), "{:?}", good(&fresh, true));
        let mut wrong = monitor.clone();
        wrong.fitted(&model, &lessons, Some((0.5, 30)));
        assert_eq!(wrong.alarm(), Some(Alarm::HeldOut(0.5)));
        let mut far = monitor.clone();
        look(&mut far, 4.0, &mut stream);
        assert!(matches!(far.alarm(), Some(Alarm::Spread(_))), "{:?}, {:?}", far.alarm(), far.ratios);
        assert!(far.alarm().unwrap().sentence().contains("never judged"));
        let mut again = Monitor::new(MonitorSettings::default());
        again.load_arrays(&far.to_arrays());
        assert_eq!((again.alarm(), again.newest, again.held_out), (far.alarm(), far.newest, far.held_out));
    }
}
