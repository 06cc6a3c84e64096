//! The one clock of the two clips: what moment of them is on show, and how fast it goes.

/// The speed ladder: factor of real time, and how it is written. The digits 1 to 7 pick a rung.
pub const SPEEDS: [(f64, &str); 7] =
    [(0.125, "1/8"), (0.25, "1/4"), (1.0 / 3.0, "1/3"), (0.5, "1/2"), (1.0, "1"), (2.0, "2"), (4.0, "4")];

/// The rung that clips start on: a third of real time. A clip of a second and a half then takes as long as a person needs to answer.
pub const DEFAULT_SPEED: usize = 2;

/// How long the last frame stays before the loop begins again, in real seconds, so that the eye sees where it ended.
const HOLD: f64 = 0.35;

/// A looping clock over `[0, duration]` clip seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    time: f64,
    duration: f64,
    held: f64,
    /// Whether time goes on.
    pub playing: bool,
    /// Whether the end leads back to the beginning.
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
    /// A clock that runs at this rung of [`SPEEDS`].
    pub fn at_speed(speed: usize) -> Clock {
        Clock { speed: speed.min(SPEEDS.len() - 1), ..Clock::default() }
    }

    /// The moment on show, clip seconds.
    pub fn time(&self) -> f64 {
        self.time
    }

    /// The end, clip seconds.
    pub fn duration(&self) -> f64 {
        self.duration
    }

    /// Whether the next [`Clock::advance`] can change the moment on show.
    pub fn is_moving(&self) -> bool {
        self.playing && self.duration > 0.0
    }

    /// Starts over with clips that end at `duration` seconds.
    pub fn restart(&mut self, duration: f64) {
        *self = Clock { time: 0.0, held: 0.0, duration, ..self.clone() };
    }

    /// Shows the moment `time`, kept within the clip.
    pub fn seek(&mut self, time: f64) {
        self.time = time.clamp(0.0, self.duration);
        self.held = 0.0;
    }

    /// Plays or pauses; at the end of a clip that does not loop, plays it again.
    pub fn toggle(&mut self) {
        self.playing = !self.playing;
        if self.playing && !self.looping && self.time >= self.duration {
            self.seek(0.0);
        }
    }

    /// Lets `real` seconds pass.
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
        // The end is reached: what is left of the step goes into the pause before the loop, and then into the next round.
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
        // Real time is cut into uneven steps; only their sum may count.
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
