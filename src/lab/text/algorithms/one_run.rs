//! One run of the comparison, meant for a process of its own, so that the peak of its memory is its own: a seed's
//! answers with the reward model that is fitted to them, or one method with this seed.

use super::super::best_of::{BestOfPlan, Group, RejectionPlan, all_of, rejection_sampling};
use super::super::corpus::Corpus;
use super::super::measure::{Writer, Written, completions, grammar_prompts, mean_gold, win_rate};
use super::super::trainer::TextTrainer;
use super::super::{built_in, folders};
use super::methods::{BEST_OF, EACH, PROMPTS, QUANTILES, ROUNDS, TextAlgorithm};
use super::{TextAlgorithmRun, TextAlgorithmsPlan};
use crate::lab::driver::{Driver, Step};
use crate::lab::memory::{keep_what_is_freed, peak_mib};
use crate::lab::questions::Questions;
use crate::lab::shared_requests::Label;
use crate::lab::{LabError, TeacherKind};
use crate::settings::{Asked, RunSettings, TextRun, TextStage};
use crate::store::{make_folder, read_results, read_text, remove_folder, write_text};
use flipside_core::{Choice, Completion, Item, ItemId, JudgementId, PairId, Seed, Stream, both_completions};
use flipside_text::data::Reading;
use flipside_text::reward_functions::best_of_n_kl_bound;
use flipside_text::teacher::Noise;
use flipside_text::{Bundle, Example, completion_kls};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Completions whose KL is computed at a time.
const ROWS: usize = 32;

/// A seed's answers and its reward model.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct TaughtRewardModel {
    /// Answers of the teacher.
    pub answers: usize,
    /// Seconds for writing the completions that were asked about.
    pub asking_seconds: f64,
    /// Seconds for fitting the reward model.
    pub fitting_seconds: f64,
    /// See [`TextAlgorithmRun::peak_mib`].
    pub peak_mib: Option<f64>,
}

/// An answer as it is stored.
#[derive(Deserialize, Serialize)]
struct Answered {
    judgement: u64,
    pair: u64,
    choice: Choice,
    left: Completion,
    right: Completion,
}

impl Answered {
    fn of(label: &Label) -> Option<Answered> {
        let [left, right] = both_completions(&label.items)?;
        Some(Answered {
            judgement: label.judgement.0,
            pair: label.pair.0,
            choice: label.choice,
            left: Completion::clone(left),
            right: Completion::clone(right),
        })
    }

    fn into_label(self) -> Label {
        Label {
            judgement: JudgementId(self.judgement),
            pair: PairId(self.pair),
            choice: self.choice,
            items: [self.left, self.right].map(|completion| Item::Completion(Arc::new(completion))),
        }
    }
}

/// The files of a seed.
pub(super) struct SeedFolder(PathBuf);

impl SeedFolder {
    pub fn new(plan: &TextAlgorithmsPlan, seed: u64) -> SeedFolder {
        SeedFolder(plan.output.join(format!("seed-{seed}-of-{}-answers", plan.answers)))
    }

    /// The folder that the reward model is trained in.
    fn teaching(&self) -> PathBuf {
        self.0.join("teaching")
    }

    fn answers(&self) -> PathBuf {
        self.0.join("answers.jsonl")
    }

    fn reward_model(&self) -> PathBuf {
        folders::of_stage(&self.teaching(), TextStage::Reward)
    }

    /// The folder that a method is trained in, which is removed in the end.
    fn scratch(&self, algorithm: TextAlgorithm) -> PathBuf {
        self.0.join(algorithm.name())
    }

    /// What was taught, if all of it is there.
    pub fn taught(&self) -> Option<TaughtRewardModel> {
        serde_json::from_str(&read_text(&self.0.join("taught.json")).ok()?).ok()
    }
}

/// Has the teacher answer, fits the reward model, and writes both to the seed's folder.
///
/// # Errors
///
/// Training that fails, or a folder that cannot be written.
pub fn teach_reward_model(plan: &TextAlgorithmsPlan, seed: u64) -> Result<TaughtRewardModel, LabError> {
    keep_what_is_freed();
    let folder = SeedFolder::new(plan, seed);
    remove_folder(&folder.0)?;
    make_folder(&folder.0)?;
    let run = TextRun { from: TextStage::Reward, until: TextStage::Reward, ..TextRun::default() };
    let settings = settings(plan, seed, run);
    let began = Instant::now();
    let mut driver = driver(&settings, &folder.teaching(), Vec::new())?;
    let (mut asked, mut answers) = (Duration::ZERO, 0);
    while let Step::Trained = driver.step(&|| Duration::ZERO, &mut || false)? {
        // The turn in which the last answers came was spent on writing what was asked about.
        if driver.questions.labels().len() > answers {
            (asked, answers) = (began.elapsed(), driver.questions.labels().len());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let lines = driver.questions.labels().iter().filter_map(Answered::of).map(|one| format!("{}\n", json!(one)));
    write_text(&folder.answers(), &lines.collect::<String>())?;
    let taught = TaughtRewardModel {
        answers: driver.questions.labels().len(),
        asking_seconds: asked.as_secs_f64(),
        fitting_seconds: seconds - asked.as_secs_f64(),
        peak_mib: peak_mib(),
    };
    // Last, so that a folder that has this file is whole.
    write_text(&folder.0.join("taught.json"), &format!("{}\n", json!(taught)))?;
    Ok(taught)
}

/// Trains by one method on a seed's answers, or on the reward model that was fitted to them, and measures the result.
///
/// # Errors
///
/// A seed without a reward model, training that fails, or a folder that cannot be written.
pub fn run_text_algorithm(
    plan: &TextAlgorithmsPlan,
    algorithm: TextAlgorithm,
    seed: u64,
) -> Result<TextAlgorithmRun, LabError> {
    keep_what_is_freed();
    let folder = SeedFolder::new(plan, seed);
    let taught = folder.taught().ok_or_else(|| {
        LabError::Text(format!("{} has no reward model yet; run the whole benchmark.", folder.0.display()))
    })?;
    let settings = settings_of(plan, algorithm, seed)?;
    let run = settings.text().cloned().unwrap_or_default();
    // It is measured as it writes by itself, at temperature 1.
    let mut measured = run.clone();
    measured.ppo.temperature = 1.0;

    // The same prompts, and the same completions of the supervised model, for all methods of a seed.
    let corpus = Corpus::new(&TextRun::default(), Seed(seed));
    let mut stream = Seed(seed).stream("text.algorithms");
    let prompts = grammar_prompts(&corpus, plan.prompts, &mut stream);
    let mut own = Seed(stream.next_u64()).stream("text.algorithms.policy");
    let supervised = built_in::bundle_of(TextStage::Supervised, run.precision)?;

    let began = Instant::now();
    let result = train(algorithm, &settings, &run, &folder, (&corpus, &prompts), &mut own)?;
    let seconds = began.elapsed().as_secs_f64();
    let own_peak = peak_mib();

    let theirs = completions(&Writer::of(&supervised), &corpus, &prompts, &measured, &mut stream)?;
    let (ours, kl, best_of) = match &result {
        Trained::Policy(model) => {
            let (ours, kl) = written_by(model, algorithm, &measured, &supervised, (&corpus, &prompts), &mut own)?;
            (ours, Some(kl), Vec::new())
        }
        Trained::Groups(groups) => {
            let ours = groups.iter().map(|group| (Example::default(), best_gold(group, &corpus))).collect();
            (ours, None, best_of_points(groups, &corpus))
        }
    };
    remove_folder(&folder.scratch(algorithm))?;
    let reward = algorithm.has_reward_model().then_some(taught);
    Ok(TextAlgorithmRun {
        algorithm,
        set: plan.set.clone(),
        answers: plan.answers,
        prompts: plan.prompts,
        seed,
        gold: mean_gold(&ours),
        supervised_gold: mean_gold(&theirs),
        win_rate: win_rate(&ours, &theirs),
        kl: kl.unwrap_or_else(|| best_of_n_kl_bound(BEST_OF)),
        kl_is_bound: kl.is_none(),
        seconds: seconds + reward.map_or(0.0, |taught| taught.fitting_seconds),
        reward_model_seconds: reward.map_or(0.0, |taught| taught.fitting_seconds),
        peak_mib: match (own_peak, reward.map(|taught| taught.peak_mib)) {
            (Some(own), Some(Some(reward))) => Some(own.max(reward)),
            (own, _) => own,
        },
        best_of,
    })
}

/// What a method leaves.
enum Trained {
    /// The folder of a policy.
    Policy(PathBuf),
    /// All completions of each prompt, with their scores.
    Groups(Vec<Group>),
}

/// Trains by a method, or writes and scores completions of the prompts that it is measured on.
fn train(
    algorithm: TextAlgorithm,
    settings: &RunSettings,
    run: &TextRun,
    folder: &SeedFolder,
    (corpus, prompts): (&Corpus, &[String]),
    stream: &mut Stream,
) -> Result<Trained, LabError> {
    let scratch = folder.scratch(algorithm);
    remove_folder(&scratch)?;
    make_folder(&scratch)?;
    let sampling = |prompts: Vec<String>, n: usize, seed: u64| BestOfPlan {
        model: None,
        precision: run.precision,
        prompts,
        data: None,
        reading: Reading::default(),
        n,
        reward_functions: vec![format!("model:{}", folder.reward_model().display())],
        max_new_tokens: run.ppo.max_new_tokens,
        temperature: 1.0,
        seed,
        output: scratch.clone(),
    };
    match algorithm.stage() {
        Some(stage) => {
            let labels = match algorithm.has_reward_model() {
                true => Vec::new(),
                false => read_results::<Answered>(&folder.answers())?.into_iter().map(Answered::into_label).collect(),
            };
            let mut driver = driver(settings, &scratch, labels)?;
            while let Step::Trained = driver.step(&|| Duration::ZERO, &mut || false)? {}
            Ok(Trained::Policy(folders::of_stage(&scratch, stage)))
        }
        None if algorithm == TextAlgorithm::BestOf => {
            let plan = sampling(prompts.to_vec(), BEST_OF, stream.next_u64());
            Ok(Trained::Groups(all_of(&plan, &mut |_, _| {})?))
        }
        None => {
            let sampling = sampling(grammar_prompts(corpus, PROMPTS, stream), EACH, stream.next_u64());
            let plan = RejectionPlan { sampling, rounds: ROUNDS, quantiles: QUANTILES, run: run.clone() };
            rejection_sampling(&plan, &mut |_, _| {}, &mut |_| {})?;
            Ok(Trained::Policy(scratch.join(format!("round-{ROUNDS}")).join("model")))
        }
    }
}

/// The beginnings of the names of settings that may be set for all methods. Others would change what is compared.
const SETTABLE: [&str; 6] =
    ["text.lora", "text.ppo.", "text.preference", "text.ilql", "text.supervised", "text.updates"];

/// The settings of a method's run.
///
/// # Errors
///
/// Settings that do not exist, that do not go together, or that would change what is compared.
pub(super) fn settings_of(
    plan: &TextAlgorithmsPlan,
    algorithm: TextAlgorithm,
    seed: u64,
) -> Result<RunSettings, LabError> {
    let set = Asked::assignments(&plan.set).map_err(LabError::Settings)?;
    if let Some((name, _)) = set.all().iter().find(|(name, _)| !SETTABLE.iter().any(|known| name.starts_with(known))) {
        return Err(LabError::Settings(format!(
            "`{name}` would change what is compared, and not how a method learns; leave it out."
        )));
    }
    let run = match algorithm.stage() {
        Some(stage) => TextRun { from: stage, until: stage, ..TextRun::default() },
        None => TextRun::default(),
    };
    let reward_model = (algorithm.stage() == Some(TextStage::Ppo)).then(|| SeedFolder::new(plan, seed).reward_model());
    let usual = settings(plan, seed, TextRun { reward_model, ..run });
    let asked = algorithm.asked().map_err(LabError::Settings)?;
    let settings = usual.with(&asked.and(set)).map_err(LabError::Settings)?;
    if let Some(run) = settings.text() {
        run.check().map_err(LabError::Settings)?;
        if run.ilql.top_k > 0 {
            return Err(LabError::Settings(
                "The KL is that of whole distributions, so `text.ilql.top_k` must be 0 here; leave it out.".to_owned(),
            ));
        }
    }
    Ok(settings)
}

/// The settings of a run on the seed's answers.
fn settings(plan: &TextAlgorithmsPlan, seed: u64, run: TextRun) -> RunSettings {
    let teacher = TeacherKind::Mistaken { rate: Noise::default().mistakes };
    RunSettings { teacher, labels: plan.answers, seed, ..RunSettings::of_text(run) }
}

/// The loop of a session, with answers that are there already.
fn driver(settings: &RunSettings, folder: &Path, labels: Vec<Label>) -> Result<Driver<TextTrainer>, LabError> {
    let next_pair = PairId(labels.iter().map(|label| label.pair.0).max().unwrap_or(0) + 1);
    let trainer = TextTrainer::new(settings, folder, ItemId(1), None, None)?;
    let mut driver = Driver::new(Box::new(trainer), settings);
    driver.questions = Questions::new(settings, next_pair).go_on_from(labels, Vec::new());
    Ok(driver)
}

/// New completions by a trained model, and their mean KL to the supervised model.
fn written_by(
    model: &Path,
    algorithm: TextAlgorithm,
    run: &TextRun,
    supervised: &Bundle,
    (corpus, prompts): (&Corpus, &[String]),
    stream: &mut Stream,
) -> Result<(Vec<Written>, f64), LabError> {
    let bundle = folders::read(model, run.precision)?;
    let heads = (algorithm == TextAlgorithm::Ilql).then(|| folders::ilql_heads(model, &bundle)).transpose()?;
    let writer = Writer { bundle: &bundle, values: heads.as_ref().map(|heads| (heads, run.ilql.beta)) };
    let written = completions(&writer, corpus, prompts, run, stream)?;
    let examples: Vec<Example> = written.iter().map(|(example, _)| example.clone()).collect();
    let kls = completion_kls(&bundle.model, writer.values, &supervised.model, &examples, ROWS);
    let kl = kls.iter().sum::<f64>() / kls.len().max(1) as f64;
    Ok((written, kl))
}

/// A point on the curve of best of n.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct BestOfPoint {
    /// Completions of each prompt.
    pub n: usize,
    /// Mean gold score of the best one.
    pub gold: f64,
    /// ln n − (n − 1)/n: an upper bound of the KL to the model, nats.
    pub kl_bound: f64,
}

/// Scores and gold scores of a group, the lowest score first.
fn sorted_golds(group: &Group, corpus: &Corpus) -> Vec<(f32, f64)> {
    let prompt = group.prompt.words.to_string();
    let gold = |text: &String| corpus.gold(&prompt, text).unwrap_or(0.0);
    let mut golds: Vec<(f32, f64)> =
        group.scores.iter().zip(&group.texts).filter_map(|(score, text)| Some(((*score)?, gold(text)))).collect();
    golds.sort_by(|a, b| a.0.total_cmp(&b.0));
    golds
}

fn best_gold(group: &Group, corpus: &Corpus) -> f64 {
    sorted_golds(group, corpus).last().map_or(0.0, |(_, gold)| *gold)
}

/// The curve of best of n for n = 1, 2, 4, … from the same completions; empty without any.
fn best_of_points(groups: &[Group], corpus: &Corpus) -> Vec<BestOfPoint> {
    let golds: Vec<Vec<f64>> =
        groups.iter().map(|group| sorted_golds(group, corpus).into_iter().map(|(_, gold)| gold).collect()).collect();
    let all = golds.iter().map(Vec::len).min().unwrap_or(0);
    let point = |n: usize| {
        let gold = golds.iter().map(|golds| expected_best(golds, n)).sum::<f64>() / golds.len() as f64;
        BestOfPoint { n, gold, kl_bound: best_of_n_kl_bound(n) }
    };
    std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n <= all).map(point).collect()
}

/// The mean value of the best one over all choices of `n` from these values, which are sorted by score, the best last
/// (Nakano et al. 2021, WebGPT, appendix I: without bias, and with less variance than one choice). The i-th of N values
/// is the best of C(i − 1, n − 1) of the C(N, n) choices.
fn expected_best(values: &[f64], n: usize) -> f64 {
    let all = values.len();
    let (mut weight, mut sum) = (n as f64 / all as f64, 0.0);
    for i in (n..=all).rev() {
        sum += weight * values[i - 1];
        weight *= (i - n) as f64 / (i - 1).max(1) as f64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_n_is_the_mean_over_all_choices() {
        let values = [0.3, -1.0, 2.0, 0.5, 0.0, 1.5, 1.0];
        let (mut sum, mut count) = ([0.0; 8], [0.0; 8]);
        for chosen in 1_u32..1 << values.len() {
            let last = values.len() - 1 - (chosen << (32 - values.len())).leading_zeros() as usize;
            sum[chosen.count_ones() as usize] += values[last];
            count[chosen.count_ones() as usize] += 1.0;
        }
        for n in 1..=values.len() {
            assert!((expected_best(&values, n) - sum[n] / count[n]).abs() < 1e-12, "{n}");
        }
    }
}
