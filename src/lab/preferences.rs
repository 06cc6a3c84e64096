//! Measures how well a policy learns from judgements: tasks × teachers × numbers of labels × seeds. Each is a whole run
//! with a simulated teacher, followed by an evaluation by the true return, which no reward model enters. A run is a
//! session without its disk: both drive the same [loop](super::driver). Runs execute in parallel, one on each core. The
//! result of each run is written as soon as it ends, so that an interrupted benchmark resumes where it stopped.

use super::driver::{Driver, Step};
use super::evaluate::evaluate;
use super::interval::Interval;
use super::opening::{control_of, load_task};
use super::trainer::Trainer;
use super::{LabError, TeacherKind};
use crate::settings::{Asked, ControlRun, RewardSource, RunSettings};
use crate::store::{append_result, read_results};
use flipside_core::{ItemId, Seed};
use flipside_envs::gym::Task;
use flipside_envs::tasks::{Folders, overlay};
use flipside_learn::OneThread;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct PreferencePlan {
    /// The tasks' names.
    pub tasks: Vec<String>,
    /// The folders of a person's own tasks, which are searched before the bundled ones.
    pub task_folders: Folders,
    /// Teachers, with their names in the table. `None` is PPO on the task's own reward, without labels, for comparison.
    pub teachers: Vec<(String, Option<TeacherKind>)>,
    /// Numbers of labels.
    pub labels: Vec<usize>,
    /// Settings that replace those of the tasks' files in every run.
    pub overrides: toml::Table,
    /// Settings to compare with those of the tasks' files, each as [`TaskSpec::with`](crate::settings::TaskSpec::with)
    /// takes it.
    pub sets: Vec<String>,
    /// Runs of each combination, with the seeds 0, 1, 2, …
    pub seeds: u64,
    /// Env steps of a run; `None` uses the number in the task's file.
    pub env_steps: Option<u64>,
    /// Seconds that a teacher needs for an answer; 0 answers at once.
    pub answer_seconds: f64,
    /// The share of the env steps by which all labels are given; replaces the task's own. After that the reward model
    /// learns no more, and the policy is trained on it as it is.
    pub labels_by: Option<f64>,
    /// The file of results, one JSON object per line. Results found there are not computed again.
    pub results: PathBuf,
    /// Runs that execute in parallel.
    pub jobs: usize,
    /// The physics backend's name.
    pub backend: String,
}

/// The result of one run, as it is saved.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PreferenceRun {
    /// What was run. A result is used for a plan only if these values are identical.
    pub task: String,
    /// See `task`.
    pub teacher: String,
    /// See `task`.
    pub labels: usize,
    /// See `task`.
    pub seed: u64,
    /// See `task`.
    pub env_steps: u64,
    /// See `task`.
    pub answer_seconds: f64,
    /// See `task`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels_by: Option<f64>,
    /// See `task`; empty if the file's settings were used.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// Labels that were given.
    pub given: usize,
    /// Seconds of wall time, including evaluations and waiting for answers.
    pub seconds: f64,
    /// The deterministic policy's mean true return at the end, over fixed-length episodes.
    pub mean_return: f64,
    /// Its landed flips in 10 s, mean over episodes; `None` if the task does not define flips.
    pub landed_flips_per_10s: Option<f64>,
    /// Seconds until an evaluation first had three landed flips in 10 s, or `None`.
    pub seconds_to_three_flips: Option<f64>,
    /// Held-out agreement of the reward model at the end.
    pub agreement: Option<f64>,
    /// `[env steps, mean true return]` of evaluations during the run.
    pub curve: Vec<[f64; 2]>,
    /// `[env steps, landed flips in 10 s]` of the same evaluations; empty if the task does not define flips.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flips: Vec<[f64; 2]>,
    /// The intervals of env steps during which there was an alarm about the reward.
    #[serde(default)]
    pub alarms: Vec<[u64; 2]>,
}

/// One row of the table: the seeds of one task, teacher and number of labels.
#[derive(Clone, Debug, Serialize)]
pub struct PreferenceRow {
    /// What was run.
    pub task: String,
    /// See `task`.
    pub teacher: String,
    /// See `task`.
    pub labels: usize,
    /// See `task`; empty if the file's settings were used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// Number of runs.
    pub runs: usize,
    /// The return at the end.
    pub mean_return: Interval,
    /// Landed flips in 10 s.
    pub landed_flips_per_10s: Option<Interval>,
    /// Share of the runs with three landed flips in 10 s or more.
    pub three_flips: Option<f64>,
    /// What happened after the last label, if the labels ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub afterwards: Option<Afterwards>,
    /// Mean wall time of a run, seconds.
    pub seconds: f64,
    /// `[env steps, interquartile mean of the true return]`.
    pub curve: Vec<[f64; 2]>,
}

/// Whether runs kept their true return after the labels ended, and whether an alarm warned of it if they did not.
#[derive(Clone, Debug, Serialize)]
pub struct Afterwards {
    /// The return at the end divided by the return when the labels ended.
    pub kept: Interval,
    /// Share of the runs whose final return is at least [`KEPT`] of the return when the labels ended, or that had an
    /// alarm before the return first fell below that level.
    pub kept_or_warned: f64,
    /// Share of the runs that had an alarm although their return never fell below that level.
    pub false_alarms: f64,
}

/// The share of its return that a run must keep.
const KEPT: f64 = 0.9;

/// The number of evaluations during a run, the episodes of each, and the episodes of the final evaluation.
const LOOKS: u64 = 20;
const LOOK_EPISODES: usize = 8;
const EPISODES: usize = 20;

/// Landed flips in 10 s from which a policy counts as having learned them.
pub const FLIPS_LEARNT: f64 = 3.0;

/// Runs whatever is not in the results yet, calls `done` after every run, and returns the table of everything that the
/// plan asks for.
///
/// # Errors
///
/// An unknown task or backend, training that fails, results that cannot be read or written. Results of runs that had
/// ended are saved.
pub fn preferences(
    plan: &PreferencePlan,
    done: &(dyn Fn(&PreferenceRun) + Sync),
) -> Result<Vec<PreferenceRow>, LabError> {
    let mut wanted = Vec::new();
    let sets: Vec<&str> = [""].into_iter().chain(plan.sets.iter().map(String::as_str)).collect();
    // The seeds are the outer loop, so that an interrupted benchmark has a few seeds of everything.
    for seed in 0..plan.seeds {
        for (task, set) in plan.tasks.iter().flat_map(|task| sets.iter().map(move |set| (task, *set))) {
            let mut overrides = plan.overrides.clone();
            overlay(&mut overrides, Asked::of_the_task(set).map_err(LabError::Settings)?);
            let run = ControlRun { overrides, ..ControlRun::of(task) };
            let task = load_task(&plan.task_folders, &run)?;
            // The name of the settings tells runs with the same results file apart.
            let set = [plan.overrides.to_string().trim().replace('\n', "; "), set.to_owned()];
            let set = set.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
            let env_steps = plan.env_steps.unwrap_or_else(|| task.spec().env_steps());
            for (name, teacher) in &plan.teachers {
                let budgets = if teacher.is_some() { plan.labels.clone() } else { vec![0] };
                wanted.extend(budgets.into_iter().map(|labels| Job {
                    name: name.clone(),
                    labels_by: plan.labels_by.filter(|_| teacher.is_some()),
                    set: set.clone(),
                    settings: RunSettings {
                        teacher: teacher.unwrap_or_default(),
                        answer_seconds: if teacher.is_some() { plan.answer_seconds } else { 0.0 },
                        labels,
                        env_steps,
                        seed,
                        task_folders: plan.task_folders.clone(),
                        ..RunSettings::of_control(ControlRun {
                            reward: if teacher.is_some() { RewardSource::Preferences } else { RewardSource::True },
                            backend: plan.backend.clone(),
                            task: task.name().to_owned(),
                            ..run.clone()
                        })
                    },
                }));
            }
        }
    }
    let known: Vec<PreferenceRun> = read_results(&plan.results)?;
    let queue: VecDeque<Job> = wanted.iter().filter(|job| !known.iter().any(|run| job.is(run))).cloned().collect();
    let state = Mutex::new((queue, known, None));
    // Every change leaves whole values, so a poisoned lock still holds whole values.
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let Some(job) = lock().0.pop_front() else { break };
            let ended = job.run().and_then(|run| {
                let mut state = lock();
                append_result(&plan.results, &run)?;
                state.1.push(run.clone());
                Ok(run)
            });
            match ended {
                Ok(run) => done(&run),
                Err(error) => {
                    let mut state = lock();
                    state.0.clear();
                    state.2.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..plan.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let (_, known, failed) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failed {
        Some(error) => Err(error),
        None => Ok(table(&wanted, &known)),
    }
}

#[derive(Clone)]
struct Job {
    /// The teacher's name in the table.
    name: String,
    labels_by: Option<f64>,
    /// Settings that replace those of the task's file.
    set: String,
    settings: RunSettings,
}

impl Job {
    /// Whether this is the run that the job asks for.
    fn is(&self, run: &PreferenceRun) -> bool {
        let s = &self.settings;
        (
            run.task.as_str(),
            run.teacher.as_str(),
            run.labels,
            run.seed,
            run.env_steps,
            run.answer_seconds,
            run.labels_by,
            run.set.as_str(),
        ) == (
            s.task(),
            self.name.as_str(),
            s.labels,
            s.seed,
            s.env_steps,
            s.answer_seconds,
            self.labels_by,
            self.set.as_str(),
        )
    }

    fn run(&self) -> Result<PreferenceRun, LabError> {
        self.train().map(|(run, _)| run)
    }

    /// The result of the run, and the driver with everything that it produced.
    fn train(&self) -> Result<(PreferenceRun, Driver<Trainer>), LabError> {
        // One thread, as in a session's worker: the number of threads that sum a tensor decides the last bits of the
        // sum.
        let _one_thread = OneThread::new();
        let (settings, mut time) = (&self.settings, RunTime::start());
        // A run on the task's own reward also uses this task, so that all runs are evaluated on the same one.
        let loaded = load_task(&settings.task_folders, control_of(settings)?)?;
        let mut spec = loaded.spec().clone();
        spec.labels.schedule_end = self.labels_by.unwrap_or(spec.labels.schedule_end);
        let task = Arc::new(Task::new(spec, loaded.model().clone())?.fixed_horizon());
        let trainer = Trainer::new(settings, task.clone(), ItemId(1), None, Some(1))?;
        let mut driver = Driver::new(Box::new(trainer), settings);
        let (mut curve, mut flips, mut seconds_to_three_flips) = (Vec::new(), Vec::new(), None);
        let (mut alarms, mut alarmed) = (Vec::<[u64; 2]>::new(), false);
        let mut next_look = settings.env_steps / LOOKS;
        let look = |trainer: &Trainer, episodes: usize, seed: u64| {
            evaluate(&task, &trainer.policy(), settings.backend(), episodes, seed)
        };
        loop {
            match driver.step(&|| time.of_training(), &mut || false)? {
                Step::Trained => {}
                Step::Waits(Some(at)) => {
                    time.wait_until(at);
                    continue;
                }
                // Nobody else could answer.
                Step::Waits(None) | Step::Finished => break,
            }
            let trainer = &driver.training.learner;
            let before = std::mem::replace(&mut alarmed, trainer.alarm().is_some());
            if alarmed && !before {
                alarms.push([trainer.env_steps(); 2]);
            }
            if let (true, Some(alarm)) = (alarmed, alarms.last_mut()) {
                alarm[1] = trainer.env_steps();
            }
            if trainer.env_steps() >= next_look {
                next_look += settings.env_steps / LOOKS;
                let began = Instant::now();
                let found = look(trainer, LOOK_EPISODES, 1_000)?;
                time.evaluated += began.elapsed();
                curve.push([trainer.env_steps() as f64, found.mean_return]);
                if let Some(landed) = found.landed_flips_per_10s {
                    flips.push([trainer.env_steps() as f64, landed.mean]);
                    if landed.mean >= FLIPS_LEARNT && seconds_to_three_flips.is_none() {
                        seconds_to_three_flips = Some(time.in_all().as_secs_f64());
                    }
                }
            }
        }
        let trainer = &driver.training.learner;
        let end = look(trainer, EPISODES, 2_000)?;
        let run = PreferenceRun {
            task: settings.task().to_owned(),
            teacher: self.name.clone(),
            labels: settings.labels,
            seed: settings.seed,
            env_steps: settings.env_steps,
            answer_seconds: settings.answer_seconds,
            labels_by: self.labels_by,
            set: self.set.clone(),
            given: driver.questions.labels().len(),
            seconds: time.in_all().as_secs_f64(),
            mean_return: end.mean_return,
            landed_flips_per_10s: end.landed_flips_per_10s.map(|flips| flips.mean),
            seconds_to_three_flips,
            agreement: trainer.agreement(),
            curve,
            flips,
            alarms,
        };
        Ok((run, driver))
    }
}

/// How long a run has lasted.
struct RunTime {
    started: Instant,
    /// Time that evaluations took.
    evaluated: Duration,
    /// Time that waiting for answers would have taken: the benchmark does not actually wait.
    waited: Duration,
}

impl RunTime {
    fn start() -> RunTime {
        RunTime { started: Instant::now(), evaluated: Duration::ZERO, waited: Duration::ZERO }
    }

    /// How long a session would have run to come this far. Evaluations do not count.
    fn of_training(&self) -> Duration {
        self.in_all() - self.evaluated
    }

    /// The time including evaluations.
    fn in_all(&self) -> Duration {
        self.started.elapsed() + self.waited
    }

    fn wait_until(&mut self, at: Duration) {
        self.waited += at.saturating_sub(self.of_training());
    }
}

/// A row for every task, teacher and number of labels, in the order of the plan.
fn table(wanted: &[Job], known: &[PreferenceRun]) -> Vec<PreferenceRow> {
    let mut rows: Vec<PreferenceRow> = Vec::new();
    for job in wanted.iter().filter(|job| job.settings.seed == 0) {
        let s = &job.settings;
        let same = |run: &&PreferenceRun| {
            wanted.iter().any(|other| {
                other.name == job.name
                    && other.set == job.set
                    && other.settings.task() == s.task()
                    && other.settings.labels == s.labels
                    && other.is(run)
            })
        };
        let runs: Vec<&PreferenceRun> = known.iter().filter(same).collect();
        // The intervals are the same, whatever else is in the table.
        let mut stream = Seed(0).stream("bootstrap");
        let mut interval = |numbers: Vec<f64>| Interval::of(&numbers, &mut stream);
        let Some(mean_return) = interval(runs.iter().map(|run| run.mean_return).collect()) else { continue };
        let flips: Vec<f64> = runs.iter().filter_map(|run| run.landed_flips_per_10s).collect();
        let learnt = flips.iter().filter(|&&flips| flips >= FLIPS_LEARNT).count();
        let looks = runs.iter().map(|run| run.curve.len()).min().unwrap_or(0);
        let point = |i: usize| {
            let [x, _] = runs[0].curve[i];
            [x, interval(runs.iter().map(|run| run.curve[i][1]).collect()).map_or(f64::NAN, |found| found.iqm)]
        };
        let curve = (0..looks).map(point).collect();
        let afterwards = job.labels_by.and_then(|by| Afterwards::of(&runs, by, &mut interval));
        rows.push(PreferenceRow {
            task: s.task().to_owned(),
            teacher: job.name.clone(),
            labels: s.labels,
            set: job.set.clone(),
            runs: runs.len(),
            mean_return,
            three_flips: (!flips.is_empty()).then(|| learnt as f64 / flips.len() as f64),
            afterwards,
            seconds: runs.iter().map(|run| run.seconds).sum::<f64>() / runs.len() as f64,
            curve,
            landed_flips_per_10s: interval(flips),
        });
    }
    rows
}

impl Afterwards {
    /// Evaluates runs whose labels ended at the share `by` of their env steps; `None` if a run was not evaluated before
    /// that.
    fn of(
        runs: &[&PreferenceRun],
        by: f64,
        interval: &mut impl FnMut(Vec<f64>) -> Option<Interval>,
    ) -> Option<Afterwards> {
        let (mut kept, mut good, mut wrong) = (Vec::new(), 0, 0);
        for run in runs {
            let end = by * run.env_steps as f64;
            let (before, after): (Vec<[f64; 2]>, Vec<[f64; 2]>) =
                run.curve.iter().partition(|[steps, _]| *steps <= end);
            let peak = before.last()?[1];
            // A negative return is kept if it does not fall further below 0 than this.
            let enough = |value: f64| value >= peak - (1.0 - KEPT) * peak.abs();
            let fell = after.iter().find(|[_, value]| !enough(*value)).map(|[steps, _]| *steps);
            let warned = |until: f64| {
                run.alarms.iter().any(|[raised, cleared]| *cleared as f64 > end && (*raised as f64) < until)
            };
            kept.push(run.mean_return / peak);
            good += usize::from(enough(run.mean_return) || fell.is_some_and(warned));
            wrong += usize::from(fell.is_none() && warned(f64::INFINITY));
        }
        let share = |count: usize| count as f64 / runs.len() as f64;
        Some(Afterwards { kept: interval(kept)?, kept_or_warned: share(good), false_alarms: share(wrong) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Event, Lab, Link, SavedPolicy};
    use crate::settings::TeacherNoise;
    use crate::store::Session;
    use flipside_core::{Choice, Item};

    /// Published figures are those of the program that a person runs.
    #[test]
    fn a_row_is_the_session_that_the_same_settings_and_seed_give_bit_for_bit() {
        let settings = RunSettings {
            teacher: TeacherKind::Fallible(TeacherNoise { mistakes: 0.2, skips: 0.1, ..TeacherNoise::GRADED }),
            labels: 30,
            env_steps: 60_000,
            seed: 3,
            ..RunSettings::of_control(ControlRun { task: "inverted_pendulum".to_owned(), ..ControlRun::default() })
        };
        let job = Job { name: "t".to_owned(), labels_by: None, set: String::new(), settings: settings.clone() };
        let (row, driver) = job.train().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        let lab = Lab::open(RunSettings { folder: Some(path.clone()), ..settings }, Arc::new(|| {})).unwrap();
        let began = Instant::now();
        while !lab.events().contains(&Event::Finished) {
            // Only a hang takes this long, even on a busy machine.
            let steps = lab.snapshot().env_steps;
            assert!(began.elapsed() < Duration::from_secs(600), "the session stays at {steps} env steps");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(lab);
        let mut session = Session::open_to_read(&path).unwrap();
        let checkpoint = session.load_checkpoint().unwrap().unwrap();
        let arrays = driver.training.learner.to_arrays();
        let differ: Vec<&String> =
            arrays.keys().filter(|name| checkpoint.arrays.get(*name) != arrays.get(*name)).collect();
        assert_eq!(arrays.len(), checkpoint.arrays.len());
        assert!(differ.is_empty(), "weights, moments, normalisers and streams agree bit for bit, but for {differ:?}");
        let labels = driver.questions.labels();
        let standing = session.standing().unwrap();
        assert_eq!((row.given, labels.len(), standing.len()), (30, 30, 30));
        assert!(standing.iter().any(|judgement| judgement.choice == Choice::Skip), "not every answer is the same");
        for (label, judgement) in labels.iter().zip(&standing) {
            assert_eq!((label.judgement, label.pair, label.choice), (judgement.id, judgement.pair, judgement.choice));
            let asked = session.pair(label.pair).unwrap().unwrap();
            assert_eq!(asked.items, label.items.each_ref().map(Item::id));
            for item in &label.items {
                assert!(*item == session.item(item.id()).unwrap(), "the same movements were judged");
            }
        }
        let saved = SavedPolicy::load(&path, &Folders::default()).unwrap();
        let found = evaluate(&saved.task, &saved.policy, saved.settings.backend(), EPISODES, 2_000).unwrap();
        assert_eq!(found.mean_return.to_bits(), row.mean_return.to_bits());
    }

    /// A run of 1,000 env steps whose labels ended at 500, with the given evaluations, alarms and final return.
    fn run(looks: [f64; 4], alarms: &[[u64; 2]], mean_return: f64) -> PreferenceRun {
        PreferenceRun {
            task: "t".to_owned(),
            teacher: "oracle".to_owned(),
            labels: 10,
            seed: 0,
            env_steps: 1_000,
            answer_seconds: 0.0,
            labels_by: Some(0.5),
            set: String::new(),
            given: 10,
            seconds: 1.0,
            mean_return,
            landed_flips_per_10s: None,
            seconds_to_three_flips: None,
            agreement: None,
            curve: looks.into_iter().enumerate().map(|(i, value)| [250.0 * (i + 1) as f64, value]).collect(),
            flips: vec![],
            alarms: alarms.to_vec(),
        }
    }

    /// The return at the last label is 100, or −100. Nine tenths of it must be kept, or an alarm must be active before
    /// it first falls below that.
    #[test]
    fn what_is_lost_after_the_last_label_must_be_warned_of() {
        let kept_or_warned_or_wrong = |run: &PreferenceRun| {
            let mut mean = |numbers: Vec<f64>| {
                let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
                Some(Interval { iqm: mean, low: mean, high: mean })
            };
            let found = Afterwards::of(&[run], 0.5, &mut mean).unwrap();
            (found.kept.iqm, found.kept_or_warned == 1.0, found.false_alarms == 1.0)
        };
        let kept = [50.0, 100.0, 95.0, 120.0];
        let lost = [50.0, 100.0, 95.0, 20.0];
        let cases = [
            ("kept", run(kept, &[], 120.0), (1.2, true, false)),
            ("kept, an alarm that was over before", run(kept, &[[100, 400]], 120.0), (1.2, true, false)),
            ("kept, a false alarm", run(kept, &[[600, 700]], 120.0), (1.2, true, true)),
            ("lost without an alarm", run(lost, &[], 20.0), (0.2, false, false)),
            ("lost after an alarm", run(lost, &[[800, 900]], 20.0), (0.2, true, false)),
            (
                "lost, and an alarm that stood since before the last label",
                run(lost, &[[100, 600]], 20.0),
                (0.2, true, false),
            ),
            ("lost before the alarm", run([50.0, 100.0, 20.0, 20.0], &[[800, 900]], 20.0), (0.2, false, false)),
            ("costs that hardly grew", run([-200.0, -100.0, -105.0, -105.0], &[], -105.0), (1.05, true, false)),
            ("costs that grew", run([-200.0, -100.0, -150.0, -150.0], &[], -150.0), (1.5, false, false)),
        ];
        for (what, run, expected) in cases {
            assert_eq!(kept_or_warned_or_wrong(&run), expected, "{what}");
        }
    }
}
