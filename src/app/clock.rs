//! The clock that both clips share: which moment they show, and how fast it runs.

/// The speeds: factor of real time, and its label. The digit keys 1 to 7 choose one.
pub const SPEEDS: [(f64, &str); 7] =
    [(0.125, "1/8"), (0.25, "1/4"), (1.0 / 3.0, "1/3"), (0.5, "1/2"), (1.0, "1"), (2.0, "2"), (4.0, "4")];

/// The speed that clips start at: a third of real time. A clip of 1.5 seconds then takes as long as a person needs to
/// answer.
pub const DEFAULT_SPEED: usize = 2;

/// How long the last frame stays before the loop begins again, in real seconds, so that the eye sees where it ended.
const HOLD: f64 = 0.35;

/// A looping clock over `[0, duration]` clip seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    time: f64,
    duration: f64,
    held: f64,
    /// Whether time runs.
    pub playing: bool,
    /// Whether it begins again at the end.
    pub looping: bool,
    /// Index into [`SPEEDS`].
    pub speed: usize,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { time: 0.0, duration: 0.0, held: 0.0, playing: true, looping: true, speed: DEFAULT_SPEED }
    }
}

impl Clock {
    /// A clock that runs at this index into [`SPEEDS`].
    pub fn at_speed(speed: usize) -> Clock {
        Clock { speed: speed.min(SPEEDS.len() - 1), ..Clock::default() }
    }

    /// The moment shown, clip seconds.
    pub fn time(&self) -> f64 {
        self.time
    }

    /// The end, clip seconds.
    pub fn duration(&self) -> f64 {
        self.duration
    }

    /// Whether the next [`Clock::advance`] can change the moment shown.
    pub fn is_moving(&self) -> bool {
        self.playing && self.duration > 0.0
    }

    /// Starts over with clips that end at `duration` seconds.
    pub fn restart(&mut self, duration: f64) {
        *self = Clock { time: 0.0, held: 0.0, duration, ..self.clone() };
    }

    /// Jumps to `time`, clamped to the clip.
    pub fn seek(&mut self, time: f64) {
        self.time = time.clamp(0.0, self.duration);
        self.held = 0.0;
    }

    /// Plays or pauses. At the end of a clip that does not loop, plays it again.
    pub fn toggle(&mut self) {
        self.playing = !self.playing;
        if self.playing && !self.looping && self.time >= self.duration {
            self.seek(0.0);
        }
    }

    /// Advances by `real` seconds of real time.
    pub fn advance(&mut self, real: f64) {
        if !self.is_moving() {
            return;
        }
        let speed = SPEEDS[self.speed].0;
        let left = (self.duration - self.time) / speed;
        if real < left {
            self.time += real * speed;
            return;
        }
        // The end is reached. The rest of the step goes into the pause before the loop, and then into the next round.
        self.time = self.duration;
        self.held += real - left;
        if !self.looping {
            self.playing = false;
            self.held = 0.0;
        } else if self.held >= HOLD {
            self.time = ((self.held - HOLD) * speed) % self.duration;
            self.held = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_with_a_pause_at_the_end() {
        let mut clock = Clock { speed: 4, ..Clock::default() };
        clock.restart(1.5);
        // Real time comes in uneven steps. Only their sum may matter.
        let mut real = 0.0;
        for step in [0.4, 0.9, 0.1, 0.2, 0.1, 0.05, 0.3] {
            clock.advance(step);
            real += step;
            let round = real % (1.5 + HOLD);
            assert!((clock.time() - round.min(1.5)).abs() < 1e-9, "after {real} s: {}", clock.time());
        }
    }

    #[test]
    fn stops_at_the_end_without_a_loop_and_plays_again() {
        let mut clock = Clock { looping: false, speed: 6, ..Clock::default() };
        clock.restart(2.0);
        clock.advance(0.25);
        assert_eq!(clock.time(), 1.0);
        clock.advance(9.0);
        assert!(!clock.playing && clock.time() == 2.0);
        clock.toggle();
        assert!(clock.playing && clock.time() == 0.0);
    }
}
