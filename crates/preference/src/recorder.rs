//! Cuts clips out of running worlds, one env step at a time.
//!
//! A clip never crosses an episode's boundary: the teacher sees one unbroken movement without a reset. Clips start at
//! random times, so that they cover all phases of an episode.

use super::Origin;
use flipside_core::{Frames, Pose, Stream};
use rand::RngExt;

/// One env step of one world, as [`Recorder::push`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct StepRecord<'a> {
    /// `[B]`: the pose of each body when the action was chosen. May be empty while [`Recorder::is_recording`] is false.
    pub poses: &'a [Pose],
    /// `[O]`: the raw observation for which the action was chosen.
    pub obs: &'a [f32],
    /// `[A]`: the action as the robot received it.
    pub action: &'a [f32],
    /// The step's reward for simulated teachers: the task's own reward, or the `[[teacher]]` terms of its file.
    pub task_reward: f32,
    /// Whether the episode ended with this step, terminated or truncated.
    pub done: bool,
}

/// A finished clip and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Which world and when.
    pub origin: Origin,
    /// The clip's frames, exactly [`Recorder::steps`] env steps.
    pub frames: Frames,
}

/// The state of one recorded world.
#[derive(Clone, Debug)]
struct Slot {
    world: usize,
    /// Env steps since the recorder was created.
    clock: u64,
    /// Env steps since the episode began.
    elapsed: usize,
    /// Env steps until the next clip begins; `None` if no whole clip fits into the rest of this episode.
    gap: Option<usize>,
    /// The clip so far.
    frames: Frames,
}

/// Cuts clips of a fixed length from a few worlds of a batch.
#[derive(Clone, Debug)]
pub struct Recorder {
    steps: usize,
    horizon: usize,
    stream: Stream,
    slots: Vec<Slot>,
}

impl Recorder {
    /// A recorder of `worlds` (indices in the batch), all at the start of an episode. Clips are `steps` env steps long,
    /// or `horizon` if episodes are shorter than that. `stream` draws where they begin.
    pub fn new(worlds: &[usize], steps: usize, horizon: usize, stream: Stream) -> Recorder {
        let slots = worlds
            .iter()
            .map(|&world| Slot { world, clock: 0, elapsed: 0, gap: None, frames: Frames::default() })
            .collect();
        let horizon = horizon.max(1);
        let mut recorder = Recorder { steps: steps.clamp(1, horizon), horizon, stream, slots };
        recorder.restart();
        recorder
    }

    /// Env steps of each clip.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The recorded worlds' indices in the batch, one per slot.
    pub fn worlds(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.slots.iter().map(|slot| slot.world)
    }

    /// Whether the next step of this slot will be part of a clip, so that its poses are needed.
    pub fn is_recording(&self, slot: usize) -> bool {
        self.slots[slot].gap == Some(0)
    }

    /// Records the next env step of a slot's world. Returns a clip if the step completes one.
    pub fn push(&mut self, slot: usize, step: StepRecord) -> Option<Cut> {
        let now = &mut self.slots[slot];
        let mut cut = None;
        if now.gap == Some(0) {
            let frames = &mut now.frames;
            frames.steps += 1;
            frames.bodies = step.poses.len();
            frames.obs_dim = step.obs.len();
            frames.act_dim = step.action.len();
            frames.poses.extend_from_slice(step.poses);
            frames.obs.extend_from_slice(step.obs);
            frames.actions.extend_from_slice(step.action);
            frames.task_reward.push(step.task_reward);
            if frames.steps == self.steps {
                let start = now.clock + 1 - self.steps as u64;
                let origin = Origin { world: now.world, start };
                cut = Some(Cut { origin, frames: std::mem::take(frames) });
            }
        } else {
            now.gap = now.gap.map(|gap| gap - 1);
        }
        now.clock += 1;
        now.elapsed += 1;
        if step.done {
            now.elapsed = 0;
            now.frames = Frames::default();
        }
        if step.done || cut.is_some() {
            self.draw_gap(slot);
        }
        cut
    }

    /// Drops every unfinished clip: all worlds begin a new episode with the next step. Every other slot begins a clip
    /// at once, so that the first query is ready soon.
    pub fn restart(&mut self) {
        for slot in 0..self.slots.len() {
            self.slots[slot].elapsed = 0;
            self.slots[slot].frames = Frames::default();
            self.draw_gap(slot);
            if slot % 2 == 0 {
                self.slots[slot].gap = Some(0);
            }
        }
    }

    /// The stream, for a checkpoint. Unfinished clips are not saved: a reopened run starts new episodes.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Continues from a saved stream. As after [`Recorder::restart`], every world begins a new episode with the next
    /// step.
    pub fn resume(&mut self, stream: Stream) {
        self.stream = stream;
        self.restart();
    }

    /// Draws how long a slot waits before its next clip: uniformly from 0 to one clip's length, but never so long that
    /// the clip would not fit into the rest of a full-length episode.
    fn draw_gap(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.gap = (slot.elapsed + self.steps <= self.horizon).then(|| {
            let longest = self.horizon - slot.elapsed - self.steps;
            self.stream.random_range(0..=longest.min(self.steps))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;

    /// Records `count` steps of every world. Episodes end at random, at the latest after `horizon` steps. Each
    /// observation is (world, episode, step in the episode), so that a clip shows where it came from.
    fn record(recorder: &mut Recorder, count: usize, horizon: usize, end_chance: f64, dones: &mut Stream) -> Vec<Cut> {
        let worlds: Vec<usize> = recorder.worlds().collect();
        let mut at = vec![(0_u32, 0_u32); worlds.len()];
        let mut cuts = Vec::new();
        for _ in 0..count {
            for (slot, (&world, (episode, step))) in worlds.iter().zip(&mut at).enumerate() {
                let done = *step as usize + 1 >= horizon || dones.random_bool(end_chance);
                let poses = [Pose::IDENTITY; 2];
                let record = StepRecord {
                    poses: if recorder.is_recording(slot) { &poses } else { &[] },
                    obs: &[world as f32, *episode as f32, *step as f32],
                    action: &[0.5],
                    task_reward: *step as f32,
                    done,
                };
                cuts.extend(recorder.push(slot, record));
                (*episode, *step) = if done { (*episode + 1, 0) } else { (*episode, *step + 1) };
            }
        }
        cuts
    }

    #[test]
    fn no_clip_crosses_an_episode_boundary() {
        for (seed, end_chance) in [0.0, 0.002, 0.02, 0.05].into_iter().enumerate() {
            let horizon = 130;
            let mut recorder = Recorder::new(&[3, 0, 7], 30, horizon, Seed(seed as u64).stream("clips"));
            let mut dones = Seed(seed as u64).stream("dones");
            let cuts = record(&mut recorder, 5_000, horizon, end_chance, &mut dones);
            assert!(cuts.len() > 20, "{} cuts at {end_chance}", cuts.len());
            for Cut { origin, frames } in &cuts {
                assert!(frames.is_sound() && frames.steps == 30 && frames.bodies == 2);
                let rows: Vec<&[f32]> = frames.obs.chunks(3).collect();
                for (t, row) in rows.iter().enumerate() {
                    assert_eq!(row[0], origin.world as f32);
                    assert_eq!(row[1], rows[0][1], "crossed into another episode");
                    assert_eq!(row[2], rows[0][2] + t as f32, "a step is missing");
                }
            }
            for (i, a) in cuts.iter().enumerate() {
                assert!(
                    cuts[i + 1..].iter().all(|b| !a.origin.overlaps(30, b.origin, 30)),
                    "clips of one world overlap"
                );
            }
        }
    }

    #[test]
    fn full_length_episodes_waste_no_clip_and_start_anywhere() {
        let mut recorder = Recorder::new(&[0], 30, 70, Seed(5).stream("clips"));
        let cuts = record(&mut recorder, 70 * 400, 70, 0.0, &mut Seed(5).stream("dones"));
        assert!(cuts.len() >= 400, "an episode of 70 steps holds at least one clip of 30, got {}", cuts.len());
        let mut seen = [false; 41];
        cuts.iter().for_each(|cut| seen[cut.frames.obs[2] as usize] = true);
        assert!(seen.iter().all(|&s| s), "some phase of the episode is never shown: {seen:?}");
        // If the episode is shorter than the requested clip, the clip is the whole episode.
        let mut recorder = Recorder::new(&[0], 30, 12, Seed(5).stream("clips"));
        let cuts = record(&mut recorder, 120, 12, 0.0, &mut Seed(5).stream("dones"));
        assert_eq!(cuts.iter().map(|cut| cut.frames.steps).collect::<Vec<_>>(), [12; 10]);
    }

    #[test]
    fn the_same_stream_cuts_the_same_clips() {
        let run = |seed| {
            let mut recorder = Recorder::new(&[1, 2], 25, 200, Seed(seed).stream("clips"));
            record(&mut recorder, 1_000, 200, 0.01, &mut Seed(9).stream("dones"))
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
