//! Measures the desk from inside: its frame rate, and how long a pick takes to bring the next pair to the screen.
//!
//! Both are measured where a person would notice them. A frame counts when it begins. A pick begins with the frame that
//! reads the key. It ends when the frame that first paints the next pair has been handed to the screen, which is when
//! the frame after it begins. Keys are pressed by adding key events to the window's own input, so that a measured pick
//! takes the same way as a real one.

use super::commands::DeskCommand;
use super::mode::ModeTab;
use flipside_core::PairId;
use std::time::{Duration, Instant};

/// What a measured desk does: it answers pairs by itself until both limits are reached, or until ten times its seconds
/// have passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbePlan {
    /// What is taught. With [`ModeTab::Text`] the probe waits for the robot's first pair, then chooses Text as a person
    /// would, and measures from there.
    pub mode: ModeTab,
    /// The least seconds to measure, once the first pair is on show.
    pub seconds: f64,
    /// The least number of picks.
    pub picks: usize,
    /// Seconds that each pair is shown before it is answered.
    pub pair_seconds: f64,
}

impl Default for ProbePlan {
    fn default() -> Self {
        ProbePlan { mode: ModeTab::Control, seconds: 20.0, picks: 40, pair_seconds: 0.4 }
    }
}

/// What the probe measured.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ProbeReport {
    /// From the window's first frame, or from the choice of Text, to the first painting of a pair, seconds.
    pub first_pair_s: f64,
    /// Frames measured.
    pub frames: usize,
    /// Median of the frames per second, with one value per frame.
    pub fps_median: f64,
    /// The 5 % quantile of the same: 95 of 100 frames exceed it.
    pub fps_p5: f64,
    /// Picks measured.
    pub picks: usize,
    /// From a pick to the next pair, median, milliseconds.
    pub click_p50_ms: f64,
    /// The 95 % quantile of the same: 95 of 100 picks do not exceed it.
    pub click_p95_ms: f64,
    /// The adapter that drew the frames.
    pub adapter: String,
    /// Size of the window's content, pixels.
    pub size: [u32; 2],
    /// Env steps per second that training made meanwhile, by the lab's own count.
    pub env_steps_per_s: f64,
}

/// A script that answers pairs, and its measurements.
pub(super) struct Probe {
    plan: ProbePlan,
    begun: Instant,
    /// When the mode that is measured was chosen.
    chosen: Option<Instant>,
    first_pair: Option<Instant>,
    /// The pair on show and since when.
    shown: Option<(PairId, Instant)>,
    /// The answered pair and the time of the frame that read the key, until the next pair has been painted.
    picked: Option<(PairId, Instant)>,
    /// The time of the pick whose next pair the present frame has painted.
    painted: Option<Instant>,
    last_frame: Option<Instant>,
    frame_s: Vec<f64>,
    click_s: Vec<f64>,
    steps: Option<(Instant, u64)>,
    steps_per_s: f64,
    size: [u32; 2],
}

impl Probe {
    pub fn new(plan: ProbePlan) -> Probe {
        let begun = Instant::now();
        Probe {
            plan,
            begun,
            chosen: (plan.mode == ModeTab::Control).then_some(begun),
            first_pair: None,
            shown: None,
            picked: None,
            painted: None,
            last_frame: None,
            frame_s: Vec::new(),
            click_s: Vec::new(),
            steps: None,
            steps_per_s: 0.0,
            size: [0; 2],
        }
    }

    /// A frame begins. Returns the command whose key is to be pressed in it, if there is one.
    pub fn frame(&mut self, now: Instant) -> Option<DeskCommand> {
        if let Some(picked) = self.painted.take() {
            self.click_s.push(now.duration_since(picked).as_secs_f64());
        }
        if let Some(last) = self.last_frame.replace(now)
            && self.first_pair.is_some()
        {
            self.frame_s.push(now.duration_since(last).as_secs_f64());
        }
        let (pair, since) = self.shown?;
        if self.chosen.is_none() {
            self.chosen = Some(now);
            self.shown = None;
            return Some(DeskCommand::Switch(self.plan.mode));
        }
        if self.picked.is_some() || now.duration_since(since).as_secs_f64() < self.plan.pair_seconds {
            return None;
        }
        self.picked = Some((pair, now));
        Some(if self.click_s.len().is_multiple_of(2) { DeskCommand::PickLeft } else { DeskCommand::PickRight })
    }

    /// The present frame paints this pair (or none), in a window of `size` pixels, after `env_steps` of training.
    pub fn painted(&mut self, pair: Option<PairId>, size: [u32; 2], env_steps: u64) {
        let now = Instant::now();
        self.size = size;
        let Some(pair) = pair else { return };
        if self.chosen.is_none() {
            self.shown = Some((pair, now));
            return;
        }
        self.first_pair.get_or_insert(now);
        let (since, before) = *self.steps.get_or_insert((now, env_steps));
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds > 0.0 {
            self.steps_per_s = env_steps.saturating_sub(before) as f64 / seconds;
        }
        if self.shown.is_none_or(|(shown, _)| shown != pair) {
            self.shown = Some((pair, now));
            if let Some((_, picked)) = self.picked.take_if(|(answered, _)| *answered != pair) {
                self.painted = Some(picked);
            }
        }
    }

    /// Whether the next frame must come at once, because it ends a measurement.
    pub fn is_waiting(&self) -> bool {
        self.painted.is_some()
    }

    /// The time until the script presses its next key.
    pub fn next_key(&self) -> Option<Duration> {
        let (_, since) = self.shown?;
        Some(Duration::from_secs_f64(self.plan.pair_seconds).saturating_sub(since.elapsed()))
    }

    /// Whether there is enough to report.
    pub fn is_done(&self) -> bool {
        let measured = self.first_pair.map_or(0.0, |first| first.elapsed().as_secs_f64());
        let enough = measured >= self.plan.seconds && self.click_s.len() >= self.plan.picks;
        enough || self.begun.elapsed().as_secs_f64() > 10.0 * self.plan.seconds
    }

    /// The findings.
    pub fn report(&self, adapter: &str) -> ProbeReport {
        let per_frame: Vec<f64> = self.frame_s.iter().map(|s| 1.0 / s.max(1e-6)).collect();
        let to_ms = |s: f64| 1e3 * s;
        ProbeReport {
            first_pair_s: (self.first_pair.zip(self.chosen))
                .map_or(f64::NAN, |(first, chosen)| first.duration_since(chosen).as_secs_f64()),
            frames: self.frame_s.len(),
            fps_median: quantile(&per_frame, 0.5),
            fps_p5: quantile(&per_frame, 0.05),
            picks: self.click_s.len(),
            click_p50_ms: to_ms(quantile(&self.click_s, 0.5)),
            click_p95_ms: to_ms(quantile(&self.click_s, 0.95)),
            adapter: adapter.to_owned(),
            size: self.size,
            env_steps_per_s: self.steps_per_s,
        }
    }
}

/// The `q` quantile by linear interpolation between order statistics (Hyndman and Fan 1996, type 7: numpy's default).
/// NaN if there are no values.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let below = at.floor() as usize;
    let above = sorted[(below + 1).min(last)];
    sorted[below] + (above - sorted[below]) * (at - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_agree_with_numpy() {
        // numpy.quantile([5, 1, 4, 2, 3, 9], [0.05, 0.5, 0.95])
        let values = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0];
        for (q, expected) in [(0.05, 1.25), (0.5, 3.5), (0.95, 8.0)] {
            assert!((quantile(&values, q) - expected).abs() < 1e-12);
        }
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_pick_is_timed_to_the_frame_after_the_next_pair() {
        let mut probe = Probe::new(ProbePlan { seconds: 0.0, picks: 1, pair_seconds: 0.0, ..ProbePlan::default() });
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(5_000 + ms);
        assert_eq!(probe.frame(at(0)), None);
        probe.painted(Some(PairId(7)), [1280, 800], 0);
        assert_eq!(probe.frame(at(10)), Some(DeskCommand::PickLeft));
        probe.painted(Some(PairId(7)), [1280, 800], 100);
        assert_eq!(probe.frame(at(20)), None);
        probe.painted(Some(PairId(8)), [1280, 800], 200);
        assert!(probe.is_waiting());
        probe.frame(at(45));
        let report = probe.report("llvmpipe");
        assert_eq!(report.picks, 1);
        assert!((report.click_p50_ms - 35.0).abs() < 1e-9);
        assert_eq!(report.frames, 3);
    }

    #[test]
    fn text_is_chosen_once_and_timed_from_there() {
        let plan = ProbePlan { mode: ModeTab::Text, seconds: 0.0, picks: 1, pair_seconds: 0.0 };
        let mut probe = Probe::new(plan);
        probe.painted(Some(PairId(3)), [1280, 800], 500);
        let chosen = Instant::now();
        assert_eq!(probe.frame(chosen), Some(DeskCommand::Switch(ModeTab::Text)));
        probe.painted(None, [1280, 800], 0);
        assert_eq!(probe.frame(chosen + Duration::from_millis(10)), None);
        assert!(probe.report("llvmpipe").first_pair_s.is_nan());
        std::thread::sleep(Duration::from_millis(20));
        probe.painted(Some(PairId(1)), [1280, 800], 0);
        let first = probe.report("llvmpipe").first_pair_s;
        assert!((0.02..=chosen.elapsed().as_secs_f64()).contains(&first), "{first}");
        assert_eq!(probe.frame(chosen + Duration::from_secs(9)), Some(DeskCommand::PickLeft));
    }
}
