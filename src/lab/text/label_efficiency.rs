//! Measures how much the answers teach a reward model of text: settings × numbers of answers × seeds. Each is a whole
//! run of the reward stage with a simulated teacher, and the same [loop](crate::lab::driver) as a session. The reward
//! model is then compared with the teacher on new completions. A run's result is written as soon as it ends, so that an
//! interrupted benchmark resumes where it stopped.

use super::corpus::Corpus;
use super::measure::{Writer, Written, agreement, completions, grammar_prompts};
use super::trainer::TextTrainer;
use super::{built_in, folders};
use crate::lab::driver::{Driver, Step};
use crate::lab::interval::Interval;
use crate::lab::{LabError, TeacherKind};
use crate::settings::{Asked, RunSettings, TextRun, TextStage};
use crate::store::{append_result, read_results};
use flipside_core::{ItemId, Seed};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct LabelEfficiencyPlan {
    /// Folder of the supervised model; `None` trains the built-in one first.
    pub model: Option<PathBuf>,
    /// Who answers.
    pub teacher: TeacherKind,
    /// Numbers of answers.
    pub labels: Vec<usize>,
    /// Settings to compare with the defaults, each as `--set` takes it.
    pub sets: Vec<String>,
    /// Runs of each combination, with the seeds 0, 1, 2, …
    pub seeds: u64,
    /// New pairs that a reward model is compared with the teacher on.
    pub held_out: usize,
    /// Folder for results, and for the models of the run that is under way.
    pub output: PathBuf,
}

/// The result of one run, as it is saved.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LabelEfficiencyRun {
    /// What was run; empty for the defaults.
    pub set: String,
    /// Number of answers.
    pub labels: usize,
    /// See `set`.
    pub seed: u64,
    /// Probability that an answer of the teacher to a new pair agrees with the reward model.
    pub agreement: f64,
    /// The same for the gold score. No reward model can do better.
    pub ceiling: f64,
    /// Seconds of wall time.
    pub seconds: f64,
}

/// One row of the table: the seeds of one setting and number of answers.
#[derive(Clone, Debug, Serialize)]
pub struct LabelEfficiencyRow {
    /// See [`LabelEfficiencyRun::set`].
    pub set: String,
    /// Number of answers.
    pub labels: usize,
    /// Held-out agreement.
    pub agreement: Interval,
    /// Each seed's held-out agreement.
    pub runs: Vec<f64>,
    /// The most that the teacher's noise allows.
    pub ceiling: f64,
}

/// Runs whatever is not in the results yet, calls `done` after every run, and returns the table.
///
/// # Errors
///
/// An unknown setting, training that fails, results that cannot be read or written. Results of runs that had ended are
/// saved.
pub fn label_efficiency(
    plan: &LabelEfficiencyPlan,
    done: &dyn Fn(&LabelEfficiencyRun),
) -> Result<Vec<LabelEfficiencyRow>, LabError> {
    let results = plan.output.join("runs.jsonl");
    let model = match &plan.model {
        Some(folder) => folder.clone(),
        None => built_in_model(&plan.output)?,
    };
    let held_out = HeldOut::write(&model, plan)?;
    let mut known: Vec<LabelEfficiencyRun> = read_results(&results)?;
    let sets: Vec<&str> = [""].into_iter().chain(plan.sets.iter().map(String::as_str)).collect();
    for seed in 0..plan.seeds {
        for (&labels, set) in plan.labels.iter().flat_map(|labels| sets.iter().map(move |set| (labels, *set))) {
            if known.iter().any(|run| (run.set.as_str(), run.labels, run.seed) == (set, labels, seed)) {
                continue;
            }
            let run = run(plan, &model, set, labels, seed, &held_out)?;
            append_result(&results, &run)?;
            done(&run);
            known.push(run);
        }
    }
    let mut rows = Vec::new();
    let mut stream = Seed(0).stream("bootstrap");
    for (&labels, set) in plan.labels.iter().flat_map(|labels| sets.iter().map(move |set| (labels, *set))) {
        let of = |run: &&LabelEfficiencyRun| (run.set.as_str(), run.labels) == (set, labels) && run.seed < plan.seeds;
        let runs: Vec<&LabelEfficiencyRun> = known.iter().filter(of).collect();
        let agreements: Vec<f64> = runs.iter().map(|run| run.agreement).collect();
        if let (Some(agreement), Some(first)) = (Interval::of(&agreements, &mut stream), runs.first()) {
            let ceiling = first.ceiling;
            rows.push(LabelEfficiencyRow { set: set.to_owned(), labels, agreement, runs: agreements, ceiling });
        }
    }
    Ok(rows)
}

/// New pairs of the supervised model's completions.
struct HeldOut {
    left: Vec<Written>,
    right: Vec<Written>,
}

impl HeldOut {
    fn write(model: &Path, plan: &LabelEfficiencyPlan) -> Result<HeldOut, LabError> {
        let run = TextRun::default();
        let bundle = folders::read(model, run.precision)?;
        let corpus = Corpus::new(&run, Seed(0));
        let mut stream = Seed(1_000).stream("text.label_efficiency");
        let prompts = grammar_prompts(&corpus, plan.held_out, &mut stream);
        let mut write = || completions(&Writer::of(&bundle), &corpus, &prompts, &run, &mut stream);
        Ok(HeldOut { left: write()?, right: write()? })
    }
}

/// The built-in supervised model, in the folder of results.
fn built_in_model(output: &Path) -> Result<PathBuf, LabError> {
    let session = output.join("model");
    built_in::copy(TextStage::Supervised, &session)?;
    Ok(folders::of_stage(&session, TextStage::Supervised))
}

/// Trains to the end. The models are in the folder then.
fn train(settings: &RunSettings, folder: &Path) -> Result<(), LabError> {
    let trainer = TextTrainer::new(settings, folder, ItemId(1), None, None)?;
    let mut driver = Driver::new(Box::new(trainer), settings);
    // The teacher answers at once, so the time does not matter.
    while let Step::Trained = driver.step(&|| Duration::ZERO, &mut || false)? {}
    Ok(())
}

fn run(
    plan: &LabelEfficiencyPlan,
    model: &Path,
    set: &str,
    labels: usize,
    seed: u64,
    held_out: &HeldOut,
) -> Result<LabelEfficiencyRun, LabError> {
    let began = Instant::now();
    let run = TextRun {
        model: Some(model.to_owned()),
        from: TextStage::Reward,
        until: TextStage::Reward,
        ..TextRun::default()
    };
    let settings = RunSettings { teacher: plan.teacher, labels, seed, ..RunSettings::of_text(run) };
    let settings = Asked::assignments(set).and_then(|asked| settings.with(&asked)).map_err(LabError::Settings)?;
    let folder = plan.output.join("run");
    train(&settings, &folder)?;
    let reward = folders::read(&folders::of_stage(&folder, TextStage::Reward), TextRun::default().precision)?;
    let (agreement, ceiling) = agreement(reward, &held_out.left, &held_out.right, plan.teacher)?;
    Ok(LabelEfficiencyRun {
        set: set.to_owned(),
        labels,
        seed,
        agreement,
        ceiling,
        seconds: began.elapsed().as_secs_f64(),
    })
}
