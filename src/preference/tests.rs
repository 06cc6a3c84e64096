//! The reward model as a whole, on made-up clips whose true reward is known.

use super::*;
use crate::basics::{Frames, Seed, Stream};
use crate::settings::{RewardModelSettings, TeacherKind};
use rand_distr::{Distribution, StandardNormal};

const OBS: usize = 6;
const ACT: usize = 2;

/// A clip of a random walk around a random place; the true reward is quadratic in the observation and linear in the action.
fn clip(steps: usize, stream: &mut Stream) -> Frames {
    let mut normal = || -> f32 { StandardNormal.sample(stream) };
    let place: [f32; OBS] = std::array::from_fn(|_| normal());
    let mut at = place;
    let mut frames = Frames { steps, obs_dim: OBS, act_dim: ACT, ..Frames::default() };
    for _ in 0..steps {
        let action: [f32; ACT] = std::array::from_fn(|_| (0.5 * normal()).clamp(-1.0, 1.0));
        let reward = at[0] - 0.5 * at[1] - 0.5 * (at[2] - 0.5).powi(2) + 0.3 * action[0];
        // The observations have very different scales and offsets, as a robot's do.
        let scales = [1.0, 10.0, 0.1, 1.0, 1.0, 3.0];
        frames.obs.extend(at.iter().zip(scales).map(|(x, scale)| (x + 2.0) * scale));
        frames.actions.extend(action);
        frames.task_reward.push(reward);
        at.iter_mut().zip(place).for_each(|(x, place)| *x = place + 0.8 * (*x - place) + 0.2 * normal());
    }
    frames
}

fn clips(count: usize, steps: usize, seed: u64) -> Vec<Frames> {
    let mut stream = Seed(seed).stream("clips");
    (0..count).map(|_| clip(steps, &mut stream)).collect()
}

/// Judgements of the clips, two and two.
fn judge(clips: &[Frames], kind: TeacherKind) -> Vec<Comparison<'_>> {
    let mut teacher = SimulatedTeacher::new(kind, Seed(3).stream("teacher")).unwrap();
    let compare = |(i, pair): (usize, &'_ [Frames])| (i as u64, teacher.judge(&pair[0], &pair[1]));
    let choices: Vec<_> = clips.chunks_exact(2).enumerate().map(compare).collect();
    let pairs = clips.chunks_exact(2).zip(choices);
    pairs.filter_map(|(pair, (id, choice))| Comparison::new(id, &pair[0], &pair[1], choice)).collect()
}

fn model(seed: u64) -> RewardModel {
    RewardModel::new(OBS, ACT, RewardModelSettings::default(), Seed(seed))
}

fn fit(model: &mut RewardModel, comparisons: &[Comparison]) -> FitReport {
    model.fit(comparisons, &mut || false).unwrap()
}

/// The share of these pairs whose better side the model names.
fn accuracy(model: &RewardModel, clips: &[Frames]) -> f64 {
    let comparisons = judge(clips, TeacherKind::Oracle);
    let right = comparisons.iter().filter(|c| (model.predict(c.left, c.right) > 0.5) == (c.target > 0.5)).count();
    right as f64 / comparisons.len() as f64
}

#[test]
fn learns_a_reward_from_comparisons() {
    let fresh = clips(800, 40, 99);
    for (kind, least, agreement) in [(TeacherKind::Oracle, 0.9, 0.85), (TeacherKind::Mistaken { rate: 0.1 }, 0.85, 0.7)]
    {
        let clips = clips(300, 40, 1);
        let mut model = model(0);
        let comparisons = judge(&clips, kind);
        let report = fit(&mut model, &comparisons);
        let report2 = fit(&mut model, &comparisons);
        let got = accuracy(&model, &fresh);
        eprintln!("{kind:?}: {got} {report:?} {report2:?}");
        assert!(got >= least, "{kind:?}: {got} of fresh pairs are right; {report2:?}");
        // What the report claims without fresh labels must be near that: 3 in 4 comparisons are held out by some member.
        let claimed = report2.held_out_agreement.unwrap();
        assert!(claimed >= agreement && claimed <= got + 0.06, "claimed {claimed}, is {got}");
        assert!((90..135).contains(&report2.held_out), "{report2:?}");
    }
}
