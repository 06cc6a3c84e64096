//! Compares the methods that learn from judged completions: methods × seeds on the built-in reviews, with the same
//! answers of a noisy simulated teacher for all methods of a seed. Answers, reward model and each method's run are made
//! in processes of their own, so that the memory of each can be told. A run's result is written as soon as it ends, so
//! that an interrupted benchmark resumes where it stopped.

mod methods;
mod one_run;

use crate::lab::LabError;
use crate::store::{append_result, make_folder, read_results};
pub use methods::TextAlgorithm;
pub use one_run::{BestOfPoint, TaughtRewardModel, run_text_algorithm, teach_reward_model};
use one_run::{SeedFolder, settings_of};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What to run.
#[derive(Clone, Debug)]
pub struct TextAlgorithmsPlan {
    /// The methods.
    pub algorithms: Vec<TextAlgorithm>,
    /// The first seed, and the number of seeds from it on.
    pub seeds: [u64; 2],
    /// Answers of the teacher.
    pub answers: usize,
    /// New prompts that a policy is measured on.
    pub prompts: usize,
    /// Settings of all methods that differ from their own, as `--set` takes them.
    pub set: String,
    /// Folder for results, and for the answers and reward models of each seed.
    pub output: PathBuf,
}

/// The result of one run, as it is saved.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TextAlgorithmRun {
    /// The method.
    pub algorithm: TextAlgorithm,
    /// See [`TextAlgorithmsPlan::set`].
    pub set: String,
    /// See [`TextAlgorithmsPlan::answers`].
    pub answers: usize,
    /// See [`TextAlgorithmsPlan::prompts`].
    pub prompts: usize,
    /// The seed of answers, training and prompts.
    pub seed: u64,
    /// Mean gold score of one completion of each prompt.
    pub gold: f64,
    /// The same of the supervised model.
    pub supervised_gold: f64,
    /// Share of the prompts on which it has a higher gold score than the supervised model; equal scores count half.
    pub win_rate: f64,
    /// KL to the supervised model, nats a completion: the mean over its completions at temperature 1 of the sum over
    /// tokens of the KL between the whole distributions.
    pub kl: f64,
    /// Whether `kl` is an upper bound instead, as for best of n.
    pub kl_is_bound: bool,
    /// Seconds of training, the reward model included; for best of n, of writing and scoring.
    pub seconds: f64,
    /// Seconds of these for the reward model.
    pub reward_model_seconds: f64,
    /// The most memory that the process held before it was measured, MiB. If there is a reward model, the larger of
    /// both processes.
    pub peak_mib: Option<f64>,
    /// For best of n, the curve over n.
    pub best_of: Vec<BestOfPoint>,
}

impl TextAlgorithmRun {
    /// Whether it is the run of this method and seed in this plan.
    fn is_of(&self, plan: &TextAlgorithmsPlan, algorithm: TextAlgorithm, seed: u64) -> bool {
        (self.algorithm, self.seed) == (algorithm, seed)
            && (self.answers, self.prompts, &self.set) == (plan.answers, plan.prompts, &plan.set)
    }
}

/// A mean over seeds and the standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanAndDeviation {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the seeds, with n − 1; 0 for one seed.
    pub deviation: f64,
}

impl MeanAndDeviation {
    fn of(numbers: impl Iterator<Item = f64>) -> MeanAndDeviation {
        let numbers: Vec<f64> = numbers.collect();
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n.max(1.0);
        let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
        MeanAndDeviation { mean, deviation: (squares / (n - 1.0).max(1.0)).sqrt() }
    }
}

/// One row of the table: the seeds of one method.
#[derive(Clone, Debug, Serialize)]
pub struct TextAlgorithmRow {
    /// The method.
    pub algorithm: TextAlgorithm,
    /// Each seed's gold score.
    pub gold: MeanAndDeviation,
    /// The gold score of the supervised model.
    pub supervised_gold: MeanAndDeviation,
    /// Share of prompts on which it beats the supervised model.
    pub win_rate: MeanAndDeviation,
    /// KL to the supervised model, nats a completion.
    pub kl: MeanAndDeviation,
    /// See [`TextAlgorithmRun::kl_is_bound`].
    pub kl_is_bound: bool,
    /// Seconds, the reward model included.
    pub seconds: MeanAndDeviation,
    /// The largest peak of memory, MiB.
    pub peak_mib: Option<f64>,
    /// `[KL, gold]` of each seed.
    pub points: Vec<[f64; 2]>,
    /// For best of n: the curve over n, the mean over seeds.
    pub best_of: Vec<BestOfPoint>,
}

impl TextAlgorithmRow {
    fn of(algorithm: TextAlgorithm, runs: &[&TextAlgorithmRun]) -> Option<TextAlgorithmRow> {
        let first = runs.first()?;
        let over = |number: fn(&TextAlgorithmRun) -> f64| MeanAndDeviation::of(runs.iter().map(|run| number(run)));
        let best_of = (0..first.best_of.len()).map(|i| {
            let golds = runs.iter().filter_map(|run| run.best_of.get(i)).map(|point| point.gold);
            BestOfPoint { gold: MeanAndDeviation::of(golds).mean, ..first.best_of[i] }
        });
        Some(TextAlgorithmRow {
            algorithm,
            gold: over(|run| run.gold),
            supervised_gold: over(|run| run.supervised_gold),
            win_rate: over(|run| run.win_rate),
            kl: over(|run| run.kl),
            kl_is_bound: first.kl_is_bound,
            seconds: over(|run| run.seconds),
            peak_mib: runs.iter().filter_map(|run| run.peak_mib).reduce(f64::max),
            points: runs.iter().map(|run| [run.kl, run.gold]).collect(),
            best_of: best_of.collect(),
        })
    }
}

/// What is to be made in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextAlgorithmJob {
    /// A seed's answers and its reward model: [`teach_reward_model`].
    RewardModel,
    /// A method's run: [`run_text_algorithm`].
    Run(TextAlgorithm),
}

/// Runs a job with a seed and returns what it printed: its result as one line of JSON.
pub type StartJob<'a> = &'a dyn Fn(TextAlgorithmJob, u64) -> Result<String, LabError>;

/// Runs whatever is not in the results yet, each in a process that `start` starts, calls `done` after every run, and
/// returns the table.
///
/// # Errors
///
/// Settings that do not fit, a job that fails, results that cannot be read or written. Results of runs that had ended
/// are saved.
pub fn text_algorithms(
    plan: &TextAlgorithmsPlan,
    start: StartJob,
    done: &dyn Fn(&TextAlgorithmRun),
) -> Result<Vec<TextAlgorithmRow>, LabError> {
    plan.algorithms.iter().try_for_each(|&algorithm| settings_of(plan, algorithm, 0).map(drop))?;
    make_folder(&plan.output)?;
    let results = plan.output.join("runs.jsonl");
    let mut known: Vec<TextAlgorithmRun> = read_results(&results)?;
    let [first, count] = plan.seeds;
    for seed in first..first.saturating_add(count) {
        for &algorithm in &plan.algorithms {
            if known.iter().any(|run| run.is_of(plan, algorithm, seed)) {
                continue;
            }
            if SeedFolder::new(plan, seed).taught().is_none() {
                start(TextAlgorithmJob::RewardModel, seed)?;
            }
            let line = start(TextAlgorithmJob::Run(algorithm), seed)?;
            let run: TextAlgorithmRun = serde_json::from_str(&line).map_err(|error| {
                LabError::Text(format!("The run of {} printed no result ({error}).", algorithm.name()))
            })?;
            append_result(&results, &run)?;
            done(&run);
            known.push(run);
        }
    }
    let is_wanted = |run: &TextAlgorithmRun| (first..first.saturating_add(count)).contains(&run.seed);
    let row = |&algorithm: &TextAlgorithm| {
        let of = |run: &&TextAlgorithmRun| is_wanted(run) && run.is_of(plan, algorithm, run.seed);
        TextAlgorithmRow::of(algorithm, &known.iter().filter(of).collect::<Vec<_>>())
    };
    Ok(plan.algorithms.iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn run(algorithm: TextAlgorithm, seed: u64) -> TextAlgorithmRun {
        TextAlgorithmRun {
            algorithm,
            set: String::new(),
            answers: 48,
            prompts: 4,
            seed,
            gold: seed as f64,
            supervised_gold: 0.0,
            win_rate: 0.5,
            kl: 1.0,
            kl_is_bound: false,
            seconds: 2.0,
            reward_model_seconds: 1.0,
            peak_mib: Some(100.0 + seed as f64),
            best_of: Vec::new(),
        }
    }

    /// A benchmark that is stopped after each job makes every run once, and one with other settings makes its own.
    #[test]
    fn what_is_known_is_not_run_again() {
        let root = tempfile::tempdir().unwrap();
        let plan = TextAlgorithmsPlan {
            algorithms: vec![TextAlgorithm::Dpo, TextAlgorithm::Ilql],
            seeds: [3, 2],
            answers: 48,
            prompts: 4,
            set: String::new(),
            output: root.path().to_owned(),
        };
        let started: RefCell<Vec<(TextAlgorithmJob, u64)>> = RefCell::default();
        let attempt = |plan: &TextAlgorithmsPlan, most: usize| {
            let until = started.borrow().len() + most;
            text_algorithms(
                plan,
                &|job, seed| {
                    if started.borrow().len() == until {
                        return Err(LabError::Cancelled);
                    }
                    started.borrow_mut().push((job, seed));
                    let TextAlgorithmJob::Run(algorithm) = job else {
                        let folder = root.path().join(format!("seed-{seed}-of-48-answers"));
                        let taught = r#"{"answers":48,"asking_seconds":1.0,"fitting_seconds":1.0,"peak_mib":null}"#;
                        make_folder(&folder)?;
                        crate::store::write_text(&folder.join("taught.json"), taught)?;
                        return Ok(taught.to_owned());
                    };
                    let run = TextAlgorithmRun { set: plan.set.clone(), ..run(algorithm, seed) };
                    Ok(serde_json::to_string(&run).unwrap())
                },
                &|_| {},
            )
        };
        let rows = loop {
            if let Ok(rows) = attempt(&plan, 1) {
                break rows;
            }
        };
        let job = |algorithm| TextAlgorithmJob::Run(algorithm);
        let of_seed = |seed| {
            [TextAlgorithmJob::RewardModel, job(TextAlgorithm::Dpo), job(TextAlgorithm::Ilql)].map(|job| (job, seed))
        };
        assert_eq!(*started.borrow(), [of_seed(3), of_seed(4)].concat());
        assert_eq!(rows.len(), 2);
        let deviation = std::f64::consts::FRAC_1_SQRT_2;
        assert_eq!((rows[0].gold.mean, rows[0].peak_mib, rows[0].points.len()), (3.5, Some(104.0), 2));
        assert!((rows[0].gold.deviation - deviation).abs() < 1e-12);
        // Other settings are other runs, on the same answers.
        let other = TextAlgorithmsPlan { set: "text.ilql.beta=2".to_owned(), seeds: [4, 1], ..plan };
        assert_eq!(attempt(&other, 9).unwrap().len(), 2);
        assert_eq!(started.borrow()[6..], of_seed(4)[1..]);
        for (set, words) in [("text.reward_steps=3", "would change"), ("text.ilql.top_k=3", "top_k"), ("text.x=1", "x")]
        {
            let error = attempt(&TextAlgorithmsPlan { set: set.to_owned(), ..other.clone() }, 9).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(started.borrow().len(), 8);
    }
}
