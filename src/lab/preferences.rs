//! How well judgements teach: tasks × teachers × numbers of labels × seeds, each a whole run with a simulated teacher and an evaluation that no
//! reward model has a say in. Runs go side by side, one a core, and each that ends is written down at once, so that a benchmark that is cut
//! off goes on where it was.

use super::evaluate::evaluate;
use super::interval::Interval;
use super::ledger::{return_stats, simulated};
use super::shared_requests::Label;
use super::trainer::Trainer;
use super::{LabError, TeacherKind};
use crate::settings::folders::task_folders;
use crate::settings::{RewardSource, RunSettings};
use crate::store::{append_result, read_results};
use flipside_core::{Item, ItemId, JudgementId, PairId, Seed};
use flipside_envs::gym::{Task, TaskError};
use flipside_learn::OneThread;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct PreferencePlan {
    /// Tasks' names.
    pub tasks: Vec<String>,
    /// Teachers, by what the table calls them; `None` for PPO on the task's own reward, without labels, to compare with.
    pub teachers: Vec<(String, Option<TeacherKind>)>,
    /// Numbers of labels.
    pub labels: Vec<usize>,
    /// What is tried beside the settings of the tasks' files, each as [`TaskSpec::with`](crate::settings::TaskSpec::with) takes it.
    pub sets: Vec<String>,
    /// Runs of each, with the seeds 0, 1, 2, …
    pub seeds: u64,
    /// Env steps a run; `None` for what the task's file says.
    pub env_steps: Option<u64>,
    /// Seconds that a teacher takes for an answer; 0 answers at once.
    pub answer_seconds: f64,
    /// The share of the env steps by which all labels are given, in place of the task's own: what follows is paid by a reward that learns no more.
    pub labels_by: Option<f64>,
    /// Where results are written down, a JSON object a line, and looked for first.
    pub results: PathBuf,
    /// Runs side by side.
    pub jobs: usize,
    /// The physics backend's name.
    pub backend: String,
}

/// One run, as it is written down.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PreferenceRun {
    /// What was run: a result counts for a plan with these very words.
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
    /// See `task`; empty where it is the file's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// Labels that were given.
    pub given: usize,
    /// Seconds of wall time, evaluations included.
    pub seconds: f64,
    /// The deterministic policy's mean true return at the end, over fixed-length episodes.
    pub mean_return: f64,
    /// Its landed flips in 10 s, mean over episodes; `None` where the task knows none.
    pub landed_flips_per_10s: Option<f64>,
    /// Seconds until an evaluation first had three landed flips in 10 s, or `None`.
    pub seconds_to_three_flips: Option<f64>,
    /// Held-out agreement of the reward model at the end.
    pub agreement: Option<f64>,
    /// `[env steps, mean true return]` of evaluations on the way.
    pub curve: Vec<[f64; 2]>,
    /// `[env steps, landed flips in 10 s]` of the same evaluations; empty where the task knows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flips: Vec<[f64; 2]>,
    /// Between which env steps there was an alarm about the reward.
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
    /// See `task`; empty where it is the file's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// How many runs.
    pub runs: usize,
    /// The return at the end.
    pub mean_return: Interval,
    /// Landed flips in 10 s.
    pub landed_flips_per_10s: Option<Interval>,
    /// Share of the runs with three landed flips in 10 s or more.
    pub three_flips: Option<f64>,
    /// What became of it after the last label, where the labels ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub afterwards: Option<Afterwards>,
    /// Mean wall time of a run, seconds.
    pub seconds: f64,
    /// `[env steps, interquartile mean of the true return]`.
    pub curve: Vec<[f64; 2]>,
}

/// Whether the true return was kept, and whether an alarm said so where it was not, in the time after the labels ended.
#[derive(Clone, Debug, Serialize)]
pub struct Afterwards {
    /// The return at the end over that at the end of the labels.
    pub kept: Interval,
    /// Share of the runs whose return at the end is at least [`KEPT`] of that, or had an alarm before it first fell below.
    pub kept_or_warned: f64,
    /// Share of the runs whose return never fell below that, and yet had an alarm.
    pub false_alarms: f64,
}

/// The share of its return that a run must keep.
const KEPT: f64 = 0.9;

/// Evaluations on the way, and their episodes; episodes of the one at the end.
const LOOKS: u64 = 20;
const LOOK_EPISODES: usize = 8;
const EPISODES: usize = 20;

/// How often training that waits for an answer looks for it.
const ANSWER_LOOK: Duration = Duration::from_millis(10);

/// Landed flips in 10 s that count as having learnt it.
pub const FLIPS_LEARNT: f64 = 3.0;

/// Runs what is not in the results yet, telling `done` of every run that ends, and returns the table of all that the plan asks for.
///
/// # Errors
///
/// An unknown task or backend, training that fails, results that cannot be read or written. Runs that had ended are kept.
pub fn preferences(
    plan: &PreferencePlan,
    done: &(dyn Fn(&PreferenceRun) + Sync),
) -> Result<Vec<PreferenceRow>, LabError> {
    let mut wanted = Vec::new();
    let sets: Vec<&str> = [""].into_iter().chain(plan.sets.iter().map(String::as_str)).collect();
    // Seeds outermost: what is cut off has a few seeds of everything.
    for seed in 0..plan.seeds {
        for (task, set) in plan.tasks.iter().flat_map(|task| sets.iter().map(move |set| (task, *set))) {
            let task = task_with(task, set)?;
            let env_steps = plan.env_steps.unwrap_or_else(|| task.spec().env_steps());
            for (name, teacher) in &plan.teachers {
                let budgets = if teacher.is_some() { plan.labels.clone() } else { vec![0] };
                wanted.extend(budgets.into_iter().map(|labels| Job {
                    name: name.clone(),
                    labels_by: plan.labels_by.filter(|_| teacher.is_some()),
                    set: set.to_owned(),
                    settings: RunSettings {
                        task: task.name().to_owned(),
                        reward: if teacher.is_some() { RewardSource::Preferences } else { RewardSource::True },
                        teacher: teacher.unwrap_or_default(),
                        answer_seconds: if teacher.is_some() { plan.answer_seconds } else { 0.0 },
                        labels,
                        env_steps,
                        seed,
                        backend: plan.backend.clone(),
                        ..RunSettings::default()
                    },
                }));
            }
        }
    }
    let known: Vec<PreferenceRun> = read_results(&plan.results)?;
    let queue: VecDeque<Job> = wanted.iter().filter(|job| !known.iter().any(|run| job.is(run))).cloned().collect();
    let state = Mutex::new((queue, known, None));
    // Each change is whole, so a poisoned lock holds whole values.
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let _one_thread = OneThread::new();
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
    /// What the table calls its teacher.
    name: String,
    labels_by: Option<f64>,
    /// What is set over the task's file.
    set: String,
    settings: RunSettings,
}

/// A task by name, with `set` over its file.
fn task_with(name: &str, set: &str) -> Result<Task, LabError> {
    let task = Task::load_from(&task_folders(), name)?;
    if set.is_empty() {
        return Ok(task);
    }
    Ok(Task::new(task.spec().with(set).map_err(TaskError::from)?, task.model().clone())?)
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
            s.task.as_str(),
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
        let settings = &self.settings;
        let started = Instant::now();
        // With the task's own reward, too, so that both are measured by the same.
        let loaded = task_with(&settings.task, &self.set)?;
        let mut spec = loaded.spec().clone();
        spec.labels.spent_by = self.labels_by.unwrap_or(spec.labels.spent_by);
        let task = Arc::new(Task::new(spec, loaded.model().clone())?.fixed_horizon());
        let mut trainer = Trainer::new(settings, task.clone(), ItemId(0), None, Some(1))?;
        let mut labels: Vec<Label> = Vec::new();
        let (mut curve, mut flips, mut seconds_to_three_flips) = (Vec::new(), Vec::new(), None);
        let (mut alarms, mut alarmed) = (Vec::<[u64; 2]>::new(), false);
        let mut next_look = settings.env_steps / LOOKS;
        let look = |trainer: &Trainer, episodes: usize, seed: u64| {
            evaluate(&task, &trainer.policy(), &settings.backend, episodes, seed)
        };
        while !trainer.finished() {
            while settings.answer_seconds > 0.0
                && trainer.runs_ahead(labels.len())
                && self.due(&trainer, labels.len(), started) == 0
            {
                std::thread::sleep(ANSWER_LOOK);
            }
            trainer.collect(&mut || false)?;
            let due = self.due(&trainer, labels.len(), started);
            for offered in trainer.propose(due) {
                labels.extend(self.answer(offered.items, &labels));
            }
            trainer.learn(&labels, &mut || false)?;
            let before = std::mem::replace(&mut alarmed, trainer.alarm().is_some());
            if alarmed && !before {
                alarms.push([trainer.env_steps(); 2]);
            }
            if let (true, Some(alarm)) = (alarmed, alarms.last_mut()) {
                alarm[1] = trainer.env_steps();
            }
            if trainer.env_steps() >= next_look {
                next_look += settings.env_steps / LOOKS;
                let found = look(&trainer, LOOK_EPISODES, 1_000)?;
                curve.push([trainer.env_steps() as f64, found.mean_return]);
                if let Some(landed) = found.landed_flips_per_10s {
                    flips.push([trainer.env_steps() as f64, landed.mean]);
                    if landed.mean >= FLIPS_LEARNT && seconds_to_three_flips.is_none() {
                        seconds_to_three_flips = Some(started.elapsed().as_secs_f64());
                    }
                }
            }
        }
        let end = look(&trainer, EPISODES, 2_000)?;
        Ok(PreferenceRun {
            task: settings.task.clone(),
            teacher: self.name.clone(),
            labels: settings.labels,
            seed: settings.seed,
            env_steps: settings.env_steps,
            answer_seconds: settings.answer_seconds,
            labels_by: self.labels_by,
            set: self.set.clone(),
            given: labels.len(),
            seconds: started.elapsed().as_secs_f64(),
            mean_return: end.mean_return,
            landed_flips_per_10s: end.landed_flips_per_10s.map(|flips| flips.mean),
            seconds_to_three_flips,
            agreement: trainer.agreement(),
            curve,
            flips,
            alarms,
        })
    }

    /// How many pairs to ask now, `given` labels standing: those that the schedule wants, or those that the teacher's time has come for.
    fn due(&self, trainer: &Trainer, given: usize, started: Instant) -> usize {
        let settings = &self.settings;
        if settings.reward == RewardSource::True {
            return 0;
        }
        if settings.answer_seconds <= 0.0 {
            return trainer.labels_due(given);
        }
        let answered = (started.elapsed().as_secs_f64() / settings.answer_seconds) as usize;
        if trainer.can_ask() { answered.min(settings.labels).saturating_sub(given) } else { 0 }
    }

    /// The label that the teacher's answer makes.
    fn answer(&self, items: [Item; 2], labels: &[Label]) -> Option<Label> {
        // As the ledger does: one stream a question.
        let id = labels.len() as u64 + 1;
        let stream = Seed(self.settings.seed).stream(&format!("teacher/{id}"));
        let (choice, _) = simulated(self.settings.teacher, stream, &items, return_stats(labels))?;
        Some(Label { judgement: JudgementId(id), pair: PairId(id), items, choice })
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
                    && other.settings.task == s.task
                    && other.settings.labels == s.labels
                    && other.is(run)
            })
        };
        let runs: Vec<&PreferenceRun> = known.iter().filter(same).collect();
        // The intervals are the same however the table is made.
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
            task: s.task.clone(),
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
    /// Of runs whose labels ended at the share `by` of their steps; `None` where they were not looked at before that.
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
            // A return below 0 that is kept must not be further below.
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

    /// A run of 1,000 env steps whose labels ended at 500, with these looks and alarms, and what it returned in the end.
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

    /// The return at the last label is 100, or −100: nine tenths of it must be kept, or an alarm stand before it first fell.
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
