//! The whole reward model, on made-up clips with a known true reward.

use super::*;
use flipside_core::settings::{RewardModelKind, RewardModelSettings, TeacherKind};
use flipside_core::{Array, Choice, Frames, Seed, Stream};
use flipside_learn::LearnError;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

const OBS: usize = 6;
const ACT: usize = 2;

/// A clip of a random walk around a random place. The true reward is quadratic in the observation and linear in the
/// action.
fn clip(steps: usize, stream: &mut Stream) -> Frames {
    let mut normal = || -> f32 { StandardNormal.sample(stream) };
    let place: [f32; OBS] = std::array::from_fn(|_| normal());
    let mut at = place;
    let mut frames = Frames { steps, obs_dim: OBS, act_dim: ACT, ..Frames::default() };
    for _ in 0..steps {
        let action: [f32; ACT] = std::array::from_fn(|_| (0.5 * normal()).clamp(-1.0, 1.0));
        let reward = at[0] - 0.5 * at[1] - 0.5 * (at[2] - 0.5).powi(2) + 0.3 * action[0];
        // The observations have very different scales and offsets, like a robot's.
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

/// Judgements of consecutive pairs of clips.
fn judge(clips: &[Frames], kind: TeacherKind) -> Vec<Comparison<'_>> {
    let mut teacher = SimulatedTeacher::new(kind, Seed(3).stream("teacher")).unwrap();
    let compare = |(i, pair): (usize, &'_ [Frames])| (i as u64, teacher.judge(&pair[0], &pair[1]));
    let choices: Vec<_> = clips.chunks_exact(2).enumerate().map(compare).collect();
    let pairs = clips.chunks_exact(2).zip(choices);
    pairs.filter_map(|(pair, (id, choice))| Comparison::new(id, &pair[0], &pair[1], choice)).collect()
}

/// An ensemble of networks with the default settings.
fn networks() -> RewardModelSettings {
    RewardModelSettings { kind: RewardModelKind::Networks, ..RewardModelSettings::default() }
}

fn model(seed: u64) -> RewardModel {
    RewardModel::new(OBS, ACT, networks(), Seed(seed))
}

fn fit(model: &mut RewardModel, comparisons: &[Comparison]) -> FitReport {
    model.fit(comparisons, &[], &mut || false).unwrap()
}

/// The share of consecutive pairs whose better side the model predicts.
fn accuracy(model: &RewardModel, clips: &[Frames]) -> f64 {
    let comparisons = judge(clips, TeacherKind::Oracle);
    let right = comparisons.iter().filter(|c| (model.predict(c.left, c.right) > 0.5) == (c.target > 0.5)).count();
    right as f64 / comparisons.len() as f64
}

#[test]
fn learns_a_reward_from_comparisons() {
    let fresh = clips(800, 40, 99);
    for (kind, least) in [(TeacherKind::Oracle, 0.9), (TeacherKind::Mistaken { rate: 0.1 }, 0.85)] {
        let clips = clips(400, 40, 1);
        let comparisons = judge(&clips, kind);
        let mut model = model(0);
        // As in a session: a fit to the early labels, then one to all.
        fit(&mut model, &comparisons[..50]);
        let report = fit(&mut model, &comparisons);
        let got = accuracy(&model, &fresh);
        assert!(got >= least, "{kind:?}: {got} of fresh pairs are right; {report:?}");
        // The reported agreement must be near the accuracy on fresh pairs, although it is the vote of one or two
        // members instead of three. A teacher that errs on 1 in 10 pairs agrees with a model of accuracy a on 0.9 a +
        // 0.1 (1 − a) of them. Three standard deviations of 150 votes are 0.1.
        let rate = if let TeacherKind::Mistaken { rate } = kind { rate } else { 0.0 };
        let claimed = report.held_out_agreement.unwrap();
        let expected = got * (1.0 - rate) + (1.0 - got) * rate;
        assert!((claimed - expected).abs() < 0.1, "claimed {claimed}, expected {expected}");
        // A comparison is held out from at least one of three members with probability 1 − (1 − 1/e)³ = 3/4.
        assert!((130..170).contains(&report.held_out), "{report:?}");
        assert!(report.held_out_loss.unwrap() > report.train_loss && report.train_loss > 0.05, "{report:?}");
    }
}

/// Training on windows of clips, and on pairs whose answer the model is sure of, must not make the reward much worse.
#[test]
fn windows_and_guesses_keep_the_reward() {
    let (clips, fresh) = (clips(160, 40, 21), clips(400, 40, 22));
    let comparisons = judge(&clips, TeacherKind::Oracle);
    let unjudged: Vec<Unjudged> = clips.iter().zip(clips.iter().skip(3)).map(|(a, b)| [a, b]).collect();
    let learnt = |settings: RewardModelSettings| {
        let mut model = RewardModel::new(OBS, ACT, settings, Seed(6));
        for _ in 0..3 {
            model.fit(&comparisons, &unjudged, &mut || false).unwrap();
        }
        model
    };
    let plain = learnt(networks());
    let least = accuracy(&plain, &fresh) - 0.05;
    let settings = RewardModelSettings { crop: 0.7, pseudo_label_threshold: 0.95, ..networks() };
    let model = learnt(settings);
    assert_ne!(model.to_arrays(), plain.to_arrays());
    let got = accuracy(&model, &fresh);
    assert!(least > 0.75 && got > least, "{got} of fresh pairs are right, {least} asked");
}

/// Numbers that are not inputs of the reward model change neither a fit nor its rewards.
#[test]
fn what_is_unseen_does_not_count() {
    let clips = clips(80, 40, 41);
    let mut changed = clips.clone();
    for clip in &mut changed {
        clip.obs.chunks_exact_mut(OBS).for_each(|obs| obs[1] = -7.0 * obs[1] + 3.0);
        clip.actions.iter_mut().for_each(|action| *action = 0.5 - *action);
    }
    let learnt = |settings: RewardModelSettings, clips: &[Frames]| {
        let mut model = RewardModel::new(OBS, ACT, settings, Seed(8));
        fit(&mut model, &judge(clips, TeacherKind::Oracle));
        model
    };
    let blind = RewardModelSettings { ignored_inputs: vec![1], sees_actions: false, ..networks() };
    let rewards = |model: &RewardModel, clip: &Frames| model.rewards(&clip.obs, &clip.actions, clip.steps);
    let model = learnt(blind.clone(), &clips);
    assert_eq!(model.to_arrays(), learnt(blind, &changed).to_arrays());
    assert_eq!(rewards(&model, &clips[0]), rewards(&model, &changed[0]));
    let seeing = learnt(networks(), &clips);
    assert_ne!(rewards(&seeing, &clips[0]), rewards(&seeing, &changed[0]));
}

/// A teacher reward that is a product (say pitch rate times height) is learnt better from few judgements by networks
/// with products among their inputs.
#[test]
fn products_are_learnt_from_few_judgements() {
    let made = |count: usize, seed: u64| {
        let mut made = clips(count, 40, seed);
        for clip in &mut made {
            let product = |obs: &[f32]| (obs[0] - 2.0) * (obs[3] - 2.0);
            clip.task_reward = clip.obs.chunks_exact(OBS).map(product).collect();
        }
        made
    };
    let (few, fresh) = (made(160, 31), made(600, 32));
    let comparisons = judge(&few, TeacherKind::Oracle);
    let learnt = |products: f64, seed: u64| {
        let settings = RewardModelSettings { products, ..networks() };
        let mut model = RewardModel::new(OBS, ACT, settings.clone(), Seed(seed));
        for _ in 0..3 {
            fit(&mut model, &comparisons);
        }
        // The saved arrays restore the same model.
        let mut back = RewardModel::new(OBS, ACT, settings, Seed(seed + 1));
        back.load_arrays(&model.to_arrays()).unwrap();
        let got = accuracy(&model, &fresh);
        assert_eq!(accuracy(&back, &fresh), got);
        got
    };
    let [without, with] = [0.0, 0.1].map(|scale| [0, 1].map(|seed| learnt(scale, seed)).iter().sum::<f64>() / 2.0);
    assert!(with > without && with > 0.75, "{with} of fresh pairs are right with products, {without} without");
}

#[test]
fn agreement_claims_nothing_where_there_is_nothing_to_learn() {
    // Answers from a coin: members may fit their own bags, but cannot predict held-out answers.
    let clips = clips(600, 25, 5);
    let mut coin = Seed(8).stream("coin");
    let mut comparisons = judge(&clips, TeacherKind::Oracle);
    comparisons.iter_mut().for_each(|c| c.target = f32::from(u8::from(coin.random_bool(0.5))));
    let mut model = model(3);
    let report = fit(&mut model, &comparisons);
    // ½ ± 3 standard deviations of 225 votes.
    assert!((report.held_out_agreement.unwrap() - 0.5).abs() < 0.1, "{report:?}");
    assert!(report.held_out_loss.unwrap() > 0.65, "{report:?}");
}

#[test]
fn ties_pull_rewards_together_and_skips_are_dropped() {
    let clips = clips(2, 40, 11);
    let [a, b] = &clips[..] else { unreachable!() };
    assert!(Comparison::new(0, a, b, Choice::Skip).is_none());
    let told = |choice| -> Vec<_> { (0..30).filter_map(|id| Comparison::new(id, a, b, choice)).collect() };
    let mut model = model(4);
    fit(&mut model, &told(Choice::Left));
    let before = model.predict(a, b);
    assert!(before > 0.9, "{before}");
    for _ in 0..3 {
        fit(&mut model, &told(Choice::Tie));
    }
    let after = model.predict(a, b);
    assert!((after - 0.5).abs() < 0.05, "{after} after 30 ties");
    let report = fit(&mut model, &told(Choice::Tie));
    assert_eq!((report.held_out_agreement, report.held_out), (None, 0), "ties decide nothing");
}

/// If two answers of three prefer the left clip, its return is ahead by ln 2. If all of them say “much better”, it is
/// ahead by the Δ at which the likelihood's slope is 0: with a margin of 1, 2 σ(1 − Δ) = σ(1 + Δ).
#[test]
fn much_better_is_further_ahead() {
    let clips = clips(2, 40, 12);
    let [a, b] = &clips[..] else { unreachable!() };
    let ahead = |left: Choice, right: Choice| {
        let choice = |id: u64| if id % 3 < 2 { left } else { right };
        let told: Vec<_> = (0..90).filter_map(|id| Comparison::new(id, a, b, choice(id))).collect();
        let settings = RewardModelSettings { error_rate: 0.0, l2: 1e-6, margin: 1.0, ..networks() };
        let mut model = RewardModel::new(OBS, ACT, settings, Seed(7));
        for _ in 0..4 {
            fit(&mut model, &told);
        }
        let left = model.predict(a, b);
        (left / (1.0 - left)).ln()
    };
    let root = (0..50).fold([0.0_f64, 4.0], |[low, high], _| {
        let (middle, sigma) = ((low + high) / 2.0, |x: f64| 1.0 / (1.0 + (-x).exp()));
        if 2.0 * sigma(1.0 - middle) > sigma(1.0 + middle) { [middle, high] } else { [low, middle] }
    })[0];
    for (found, expected) in
        [(ahead(Choice::Left, Choice::Right), 2.0_f64.ln()), (ahead(Choice::MuchLeft, Choice::MuchRight), root)]
    {
        assert!((found - expected).abs() < 0.25, "{found} instead of {expected}");
    }
}

#[test]
fn rewards_have_mean_0_and_deviation_1_and_are_the_mean_of_normalised_members() {
    let clips = clips(60, 40, 21);
    let mut model = model(5);
    fit(&mut model, &judge(&clips, TeacherKind::Oracle));
    let obs: Vec<f32> = clips.iter().flat_map(|c| c.obs.clone()).collect();
    let actions: Vec<f32> = clips.iter().flat_map(|c| c.actions.clone()).collect();
    let n = 60 * 40;
    let moments = |numbers: &[f32]| {
        let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / numbers.len() as f64;
        let var = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
        (mean, var.sqrt())
    };
    model.renormalise(&obs, &actions).unwrap();
    let together = model.rewards(&obs, &actions, n);
    let mut sum = vec![0.0; n];
    for m in 0..3 {
        // One member alone: the same model with all members' parameters replaced by this member's.
        let mut arrays = model.to_arrays();
        for (name, array) in &mut arrays {
            if name.starts_with("layer") || name == "output" {
                let width = array.shape[1..].iter().product::<usize>();
                *array = match array.as_f32() {
                    Some(all) => Array::f32(&array.shape, all[m * width..][..width].repeat(3)),
                    None => Array::f64(&array.shape, array.as_f64().unwrap()[m * width..][..width].repeat(3)),
                };
            }
        }
        let mut alone = self::model(0);
        alone.load_arrays(&arrays).unwrap();
        let rewards = alone.rewards(&obs, &actions, n);
        let (mean, deviation) = moments(&rewards);
        assert!(mean.abs() < 1e-4 && (deviation - 1.0).abs() < 1e-4, "member {m}: {mean} ± {deviation}");
        sum.iter_mut().zip(rewards).for_each(|(sum, reward)| *sum += reward);
    }
    for (together, sum) in together.iter().zip(sum) {
        assert!((together - sum / 3.0).abs() < 1e-4, "{together} {}", sum / 3.0);
    }
    // Rows are independent of each other: a part of a rollout gets the same rewards as within the whole.
    assert_eq!(model.rewards(&obs[..7 * OBS], &actions[..7 * ACT], 7), together[..7]);
}

#[test]
fn goes_on_bit_for_bit_from_saved_arrays() {
    let clips = clips(160, 30, 31);
    let comparisons = judge(&clips, TeacherKind::Oracle);
    let settings = RewardModelSettings { rounds: 3, ..networks() };
    let mut straight = RewardModel::new(OBS, ACT, settings.clone(), Seed(6));
    fit(&mut straight, &comparisons[..40]);
    straight.renormalise(&clips[0].obs, &clips[0].actions).unwrap();
    let mut resumed = RewardModel::new(OBS, ACT, settings.clone(), Seed(77));
    resumed.load_arrays(&straight.to_arrays()).unwrap();
    assert_eq!(fit(&mut straight, &comparisons), fit(&mut resumed, &comparisons));
    assert_eq!(straight.to_arrays(), resumed.to_arrays());
    // The same seed and calls give the same numbers; another seed gives others.
    let mut again = RewardModel::new(OBS, ACT, settings.clone(), Seed(6));
    fit(&mut again, &comparisons[..40]);
    again.renormalise(&clips[0].obs, &clips[0].actions).unwrap();
    fit(&mut again, &comparisons);
    assert_eq!(straight.to_arrays(), again.to_arrays());
    assert_ne!(RewardModel::new(OBS, ACT, settings.clone(), Seed(7)).to_arrays(), again.to_arrays());
    // Arrays that are missing or belong to another model are refused by name, and nothing changes.
    let before = again.to_arrays();
    let mut broken = before.clone();
    broken.remove("adam.0.m");
    assert!(again.load_arrays(&broken).unwrap_err().to_string().contains("adam.0.m"));
    let wider = RewardModel::new(OBS + 1, ACT, settings, Seed(6)).to_arrays();
    assert!(again.load_arrays(&wider).unwrap_err().to_string().contains("layer.0.weight"));
    assert_eq!(before, again.to_arrays());
}

#[test]
fn a_failed_fit_changes_nothing() {
    let mut clips = clips(60, 30, 41);
    let mut model = model(7);
    fit(&mut model, &judge(&clips, TeacherKind::Oracle));
    let before = model.to_arrays();
    let mut steps = 0;
    let mut soon = || {
        steps += 1;
        steps > 5
    };
    let cancelled = model.fit(&judge(&clips, TeacherKind::Oracle), &[], &mut soon);
    assert!(matches!(cancelled, Err(PreferenceError::Learn(LearnError::Cancelled))) && steps == 6);
    assert!(matches!(model.fit(&[], &[], &mut || false), Err(PreferenceError::NoComparisons)));
    let odd = Frames { obs_dim: OBS - 1, ..clips[0].clone() };
    let comparison = Comparison { id: 0, left: &odd, right: &clips[1], target: 1.0, much: false };
    assert!(matches!(
        model.fit(&[comparison], &[], &mut || false),
        Err(PreferenceError::Learn(LearnError::Size { .. }))
    ));
    clips[3].obs[5] = f32::NAN;
    let poisoned = model.fit(&judge(&clips, TeacherKind::Oracle), &[], &mut || false);
    assert!(matches!(poisoned, Err(PreferenceError::Learn(LearnError::NotFinite { .. }))), "{poisoned:?}");
    assert!(matches!(
        model.renormalise(&clips[3].obs, &clips[3].actions),
        Err(PreferenceError::Learn(LearnError::NotFinite { .. }))
    ));
    assert_eq!(before, model.to_arrays());
    // Weights that diverge during the fit are also refused.
    let settings = RewardModelSettings { learning_rate: 1e30, ..networks() };
    let mut wild = RewardModel::new(OBS, ACT, settings, Seed(7));
    let before = wild.to_arrays();
    clips.truncate(2);
    assert!(matches!(
        wild.fit(&judge(&clips, TeacherKind::Oracle), &[], &mut || false),
        Err(PreferenceError::Learn(LearnError::NotFinite { .. }))
    ));
    assert_eq!(before, wild.to_arrays());
}

#[test]
fn disagreement_is_high_where_members_differ_and_disputes_rank_the_wrong_answer_first() {
    let clips = clips(300, 40, 51);
    let mut comparisons = judge(&clips, TeacherKind::Oracle);
    let mut model = model(8);
    fit(&mut model, &comparisons);
    let same = (&clips[0], &clips[0]);
    let pairs: Vec<_> = std::iter::once(same).chain(comparisons.iter().map(|c| (c.left, c.right))).collect();
    let disagreement = model.disagreement(&pairs);
    assert!(model.disagreement(&[]).is_empty());
    assert_eq!(disagreement[0], 0.0, "no member prefers a clip to itself");
    assert!(disagreement[1..].iter().all(|&d| (0.0..=0.25).contains(&d)));
    // The pair on which the members' probabilities differ most ranks above those on which they are similar.
    let members = model.probabilities(&pairs, 40);
    let range = |i: usize| {
        let of = members.iter().map(|p| p[i]);
        of.clone().fold(f32::MIN, f32::max) - of.fold(f32::MAX, f32::min)
    };
    let widest = (0..pairs.len()).max_by(|&a, &b| range(a).total_cmp(&range(b))).unwrap();
    assert!(range(widest) > 0.2, "the members never differ");
    for i in (0..pairs.len()).filter(|&i| range(i) < 0.5 * range(widest)) {
        assert!(disagreement[widest] > disagreement[i]);
    }
    // Reverse the answer that the model is surest of. That is then the one that it disputes.
    let gap = |c: &Comparison| (c.left.task_return() - c.right.task_return()).abs();
    let sure = (0..comparisons.len()).max_by(|&a, &b| gap(&comparisons[a]).total_cmp(&gap(&comparisons[b]))).unwrap();
    comparisons[sure].target = 1.0 - comparisons[sure].target;
    let disputed = disputed(&model, &comparisons);
    assert!(disputed.len() == comparisons.len() && disputed.is_sorted_by(|a, b| a.surprise >= b.surprise));
    assert!(disputed[..3].iter().any(|d| d.index == sure), "{sure} not in {:?}", &disputed[..3]);
}

/// From the same judgements a Gaussian process learns a teacher reward better than networks do, and its reported
/// leave-one-out agreement is near its accuracy on fresh pairs.
#[test]
fn a_gaussian_process_learns_from_few_judgements() {
    let (few, fresh) = (clips(160, 40, 31), clips(600, 40, 32));
    let comparisons = judge(&few, TeacherKind::Oracle);
    let learnt = |kind: RewardModelKind| {
        let mut model = RewardModel::new(OBS, ACT, RewardModelSettings { kind, ..networks() }, Seed(1));
        let mut report = fit(&mut model, &comparisons);
        for _ in 0..2 {
            report = fit(&mut model, &comparisons);
        }
        (accuracy(&model, &fresh), report.held_out_agreement.unwrap())
    };
    let (ensemble, _) = learnt(RewardModelKind::Networks);
    let (process, claimed) = learnt(RewardModelKind::GaussianProcess);
    assert!(process > ensemble + 0.04 && process > 0.9, "{process} of fresh pairs, networks {ensemble}");
    assert!((process - claimed).abs() < 0.08, "claimed {claimed}, but {process} of fresh pairs are right");
}

/// The properties of the networks hold for a Gaussian process, too: numbers that are not inputs do not count, ties make
/// returns equal, “much better” puts them further apart, and a saved model continues bit for bit.
#[test]
fn a_gaussian_process_keeps_the_laws() {
    let made = clips(80, 30, 33);
    let comparisons = judge(&made, TeacherKind::Oracle);
    let settings =
        RewardModelSettings { ignored_inputs: vec![1], sees_actions: false, ..RewardModelSettings::default() };
    let make = |seed: u64| RewardModel::new(OBS, ACT, settings.clone(), Seed(seed));
    let all = |part: fn(&Frames) -> &Vec<f32>| made.iter().flat_map(part).copied().collect::<Vec<f32>>();
    let (obs, actions) = (all(|f| &f.obs), all(|f| &f.actions));
    let mut straight = make(1);
    fit(&mut straight, &comparisons[..20]);
    straight.renormalise(&obs, &actions).unwrap();
    let rewards = straight.rewards(&obs, &actions, 80 * 30);
    let mean = rewards.iter().map(|&x| f64::from(x)).sum::<f64>() / rewards.len() as f64;
    let square = rewards.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / rewards.len() as f64;
    assert!(mean.abs() < 1e-3 && (square - 1.0).abs() < 1e-2, "{mean} {square}");
    let blind: Vec<f32> = obs.iter().enumerate().map(|(i, x)| if i % OBS == 1 { 9.0 } else { *x }).collect();
    assert_eq!(straight.rewards(&blind, &vec![0.5; actions.len()], 80 * 30), rewards);
    assert!(straight.ensemble_std(&obs, &actions) > 0.01);

    let mut resumed = make(77);
    resumed.load_arrays(&straight.to_arrays()).unwrap();
    assert_eq!(fit(&mut straight, &comparisons), fit(&mut resumed, &comparisons));
    assert_eq!(straight.to_arrays(), resumed.to_arrays());
    let before = straight.to_arrays();
    assert!(matches!(
        straight.fit(&comparisons, &[], &mut || true),
        Err(PreferenceError::Learn(LearnError::Cancelled))
    ));
    assert_eq!(straight.to_arrays(), before);

    // The same pairs with only ties, or with every answer “much better”.
    let ties: Vec<Comparison> = comparisons.iter().map(|c| Comparison { target: 0.5, ..*c }).collect();
    let much: Vec<Comparison> = comparisons.iter().map(|c| Comparison { much: true, ..*c }).collect();
    let sure = |taught: &[Comparison]| {
        let mut model = make(1);
        fit(&mut model, taught);
        let chance = |c: &Comparison| (model.predict(c.left, c.right) - 0.5).abs();
        comparisons.iter().map(chance).sum::<f64>() / comparisons.len() as f64
    };
    let [tied, picked, far] = [&ties, &comparisons, &much].map(|taught| sure(taught));
    assert!(tied < 0.02 && picked > 0.2 && far > picked, "{tied} {picked} {far}");
}
