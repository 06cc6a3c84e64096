//! Counts landed flips, independently of any reward.
//!
//! A flip is −2π of unwrapped pitch with an airborne phase. After it the robot must stay upright for a while and touch
//! the ground during that time. A reward for spinning can be earned on the floor, and a reward for landing by a robot
//! that never jumped. This count checks both.

use std::f64::consts::TAU;

/// What counts as landed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlipRule {
    /// The robot is upright if its pitch is less than this away from whole turns, radians …
    pub upright_within: f64,
    /// … and its torso is higher than this, metres.
    pub upright_above: f64,
    /// Seconds for which it must stay upright without a break.
    pub for_seconds: f64,
}

impl FlipRule {
    /// Seconds off the ground, without a break, that count as an airborne phase. Shorter ones are the bounces of a
    /// tumble.
    pub const AIRBORNE_SECONDS: f64 = 0.1;
}

/// The torso's state after one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stance {
    /// Unwrapped pitch, radians. It falls when the robot turns backwards.
    pub pitch: f64,
    /// Height, metres.
    pub height: f64,
    /// Whether no part of the robot touches the ground.
    pub airborne: bool,
}

/// Counts the flips of one robot, step by step.
///
/// A landing counts as one flip, however many turns it took, because a person sees one jump. The turn is measured from
/// the most forward upright pose since the last landing. Rolling forwards and back again is therefore not a flip.
#[derive(Clone, Debug)]
pub struct FlipCounter {
    rule: FlipRule,
    dt: f64,
    /// The whole turn (pitch / 2π, rounded) that the next flip is measured from; `None` until the robot has been
    /// upright once.
    from: Option<i64>,
    /// Whether there has been an airborne phase since then.
    jumped: bool,
    /// Consecutive steps off the ground, and consecutive steps upright in the same turn, up to now.
    airborne: usize,
    upright: usize,
    /// The turn in which the robot is upright; `None` while it is not upright.
    turn: Option<i64>,
    /// Whether the robot touched the ground in those upright steps. A robot that bounces into its next jump has landed
    /// too.
    touched: bool,
    landed: usize,
}

impl FlipCounter {
    /// A counter for stances that are `dt` seconds apart.
    pub fn new(rule: FlipRule, dt: f64) -> FlipCounter {
        FlipCounter {
            rule,
            dt,
            from: None,
            jumped: false,
            airborne: 0,
            upright: 0,
            turn: None,
            touched: false,
            landed: 0,
        }
    }

    /// Takes in the next stance.
    pub fn see(&mut self, stance: Stance) {
        self.airborne = if stance.airborne { self.airborne + 1 } else { 0 };
        self.jumped |= self.lasts(self.airborne, FlipRule::AIRBORNE_SECONDS);

        let turn = (stance.pitch / TAU).round();
        let leaning = (stance.pitch - turn * TAU).abs();
        let upright = leaning < self.rule.upright_within;
        // The value is rounded, and no robot turns 2⁶³ times.
        let turn = upright.then_some(turn as i64);
        let stands = upright && stance.height > self.rule.upright_above;
        self.upright = match stands && (self.turn == turn || self.upright == 0) {
            true => self.upright + 1,
            false => usize::from(stands),
        };
        self.turn = turn;
        self.touched = stands && !stance.airborne || self.upright > 1 && self.touched;

        let Some(turn) = turn else { return };
        match self.from {
            Some(from) if turn < from => {
                if self.jumped && self.touched && self.lasts(self.upright, self.rule.for_seconds) {
                    self.landed += 1;
                    self.begin(turn);
                }
            }
            // The most forward pose counts. A jump before the robot stood there is not part of the turn.
            Some(from) if turn > from || !stance.airborne => self.begin(turn),
            Some(_) => {}
            None => self.begin(turn),
        }
    }

    /// Landed flips so far.
    pub fn landed(&self) -> usize {
        self.landed
    }

    fn begin(&mut self, turn: i64) {
        self.from = Some(turn);
        self.jumped = false;
    }

    /// Whether that many consecutive stances cover the given time. The tolerance allows for the rounding of `dt` in
    /// binary.
    fn lasts(&self, looks: usize, seconds: f64) -> bool {
        looks > 0 && looks as f64 * self.dt >= seconds - 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use rand::RngExt;

    const DT: f64 = 0.008;
    const RULE: FlipRule = FlipRule { upright_within: 0.5, upright_above: 0.8, for_seconds: 0.2 };

    /// A piece of a movement: its duration in seconds, the pitch at its end, the height, and whether the robot is in
    /// the air.
    type Piece = (f64, f64, f64, bool);

    const STAND: Piece = (0.3, 0.0, 1.2, false);

    /// The flips counted over these pieces, one after the other. Pitch changes linearly, and each pitch is relative to
    /// `start`.
    fn landed(start: f64, pieces: &[Piece]) -> usize {
        let (mut counter, mut pitch) = (FlipCounter::new(RULE, DT), start);
        for &(seconds, end, height, airborne) in pieces {
            let steps = (seconds / DT).round() as usize;
            let rate = (start + end - pitch) / steps.max(1) as f64;
            for _ in 0..steps {
                pitch += rate;
                counter.see(Stance { pitch, height, airborne });
            }
        }
        counter.landed()
    }

    #[test]
    fn a_flip_is_a_turn_in_the_air_and_a_landing() {
        let jump = (0.5, -TAU, 1.4, true);
        let after = |seconds: f64, lean: f64, height: f64| (seconds, -TAU + lean, height, false);
        let land = after(0.3, 0.0, 1.2);
        let cases: &[(&str, usize, &[Piece])] = &[
            ("standing", 0, &[STAND]),
            ("a flip and a landing", 1, &[STAND, jump, land]),
            ("a flip without a stand before it", 1, &[(0.016, 0.0, 1.2, false), jump, land]),
            ("down too soon", 0, &[STAND, jump, after(0.1, 0.0, 1.2), after(0.3, 1.5, 0.4)]),
            ("upright in the air alone", 0, &[STAND, jump, (0.3, -TAU, 1.4, true), after(0.3, 1.5, 0.4)]),
            (
                "touches the ground upright and jumps on",
                1,
                &[STAND, jump, after(0.05, 0.0, 1.2), (0.2, -TAU, 1.4, true)],
            ),
            (
                "touches the ground leaning, then upright in the air",
                0,
                &[STAND, jump, after(0.1, 0.8, 1.2), (0.5, -TAU, 1.4, true)],
            ),
            ("landed on its back", 0, &[STAND, jump, after(0.3, 0.9, 0.3)]),
            ("landed low", 0, &[STAND, jump, after(0.5, 0.0, 0.7)]),
            ("landed leaning by .45", 1, &[STAND, (0.5, -TAU + 0.45, 1.4, true), after(0.3, 0.45, 1.2)]),
            ("landed leaning by .55", 0, &[STAND, (0.5, -TAU + 0.55, 1.4, true), after(0.3, 0.55, 1.2)]),
            ("rolled on the floor and got up", 0, &[STAND, (0.8, -TAU, 0.3, false), land]),
            (
                "rolled with a bounce",
                0,
                &[STAND, (0.4, -3.0, 0.3, false), (0.05, -3.4, 0.4, true), (0.4, -TAU, 0.3, false), land],
            ),
            (
                "rolled with a jump",
                1,
                &[STAND, (0.4, -3.0, 0.3, false), (0.15, -4.4, 0.4, true), (0.3, -TAU, 0.3, false), land],
            ),
            (
                "jumped without a turn, then rolled",
                0,
                &[STAND, (0.3, 0.0, 1.4, true), STAND, (0.8, -TAU, 0.3, false), land],
            ),
            ("a turn forwards", 0, &[STAND, (0.5, TAU, 1.4, true), (0.3, TAU, 1.2, false)]),
            (
                "forwards in the air, back on the floor",
                0,
                &[STAND, (0.5, TAU, 1.4, true), (0.3, TAU, 1.2, false), (0.8, 0.0, 0.3, false), STAND],
            ),
            ("half a turn and back", 0, &[STAND, (0.3, -3.0, 1.4, true), (0.3, 0.0, 1.4, true), STAND]),
            ("two turns, one landing", 1, &[STAND, (0.9, -2.0 * TAU, 1.6, true), (0.3, -2.0 * TAU, 1.2, false)]),
            ("two flips", 2, &[STAND, jump, land, (0.5, -2.0 * TAU, 1.4, true), (0.3, -2.0 * TAU, 1.2, false)]),
            (
                "passes through upright between two turns",
                1,
                &[STAND, jump, after(0.1, 0.0, 1.2), (0.5, -2.0 * TAU, 1.4, true), (0.3, -2.0 * TAU, 1.2, false)],
            ),
        ];
        for (what, expected, pieces) in cases {
            for start in [0.0, 3.0 * TAU, -7.0 * TAU] {
                assert_eq!(landed(start, pieces), *expected, "{what}, from {start}");
            }
        }
    }

    /// For any movement: a landing needs a turn, an airborne phase and the time for both, and none is counted twice.
    #[test]
    fn no_movement_has_more_flips_than_turns_jumps_and_time() {
        let mut stream = Seed(6).stream("movement");
        let mut most = 0;
        for _ in 0..2_000 {
            let (mut counter, mut pitch, mut lowest, mut highest) =
                (FlipCounter::new(RULE, DT), 0.0_f64, 0.0_f64, 0.0_f64);
            let (mut jumps, mut steps) = (0, 0);
            let mut seen = 0;
            for _ in 0..stream.random_range(1..20) {
                let end =
                    [pitch, pitch - TAU, pitch - TAU * stream.random::<f64>(), pitch + 4.0 * stream.random::<f64>()];
                let end = end[stream.random_range(0..4)];
                let (length, airborne) = (stream.random_range(1..80), stream.random_bool(0.5));
                let height = stream.random_range(0.5..1.5);
                let rate = (end - pitch) / f64::from(length);
                jumps += usize::from(airborne);
                for _ in 0..length {
                    pitch += rate;
                    (lowest, highest) = (lowest.min(pitch), highest.max(pitch));
                    steps += 1;
                    counter.see(Stance { pitch, height, airborne });
                    assert!(counter.landed() - seen <= 1);
                    seen = counter.landed();
                }
            }
            let turns = ((highest - lowest + 2.0 * RULE.upright_within) / TAU).floor() as usize;
            assert!(seen <= turns && seen <= jumps, "{seen} flips of {turns} turns and {jumps} jumps");
            assert!(seen as f64 * RULE.for_seconds <= f64::from(steps) * DT);
            most = most.max(seen);
        }
        assert!(most >= 2, "the movements are too tame to test anything: {most}");
    }
}
