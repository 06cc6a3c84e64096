//! The running session: the only module that wires the others. The desk and the command line send it [`Command`]s and
//! receive [`Event`]s and [`Snapshot`]s. No tensor, GPU buffer or physics handle crosses that line.
//!
//! Two named threads run behind a [`Lab`]:
//!
//! - the **ledger** owns the session on disk and the pair on show. It saves a judgement and shows the next pair within
//!   milliseconds, whatever the worker is doing.
//! - the **worker** owns every tensor and every world. It steps the worlds, fits the reward model, improves the policy
//!   and proposes pairs. It checks for the ledger's request to quit between minibatches, and reads the other requests
//!   once a round. It waits for answers when the schedule says so.
//!
//! The `driver` decides the order of the work. It has no thread, file or clock of its own, so that benchmarks and
//! tests drive the same loop.

mod arrays;
mod asked_before;
pub mod bench;
mod driver;
mod error;
mod evaluate;
mod going_on;
mod inside;
mod interval;
mod learning;
mod ledger;
mod memory;
mod offline;
mod on_device;
mod opening;
mod policy_checkpoints;
mod preference_learner;
mod preferences;
mod priority;
mod questions;
mod shared_requests;
mod snapshot_publisher;
mod text;
mod trainer;
mod training_loop;
mod vocabulary;
mod worker;
mod worlds;

pub use error::LabError;
pub use evaluate::{Evaluation, LandedFlips, SavedPolicy, evaluate, run_policy};
pub use interval::Interval;
pub use learning::{Learning, LearningPlan, LearningRun, learning};
pub use offline::{TaskLine, export_labels, export_policy_of, libtorch_devices, replay, task, tasks};
pub use preferences::{FLIPS_LEARNT, PreferencePlan, PreferenceRow, PreferenceRun, preferences};
pub use text::{
    AblateWith, BestOfPlan, BestOfPoint, BestOfReport, BuiltInReport, ComparisonRow, EvaluationPlan, ExampleKind,
    ExamplesPlan, ExamplesReport, GeneratePlan, Generated, GptSize, KlRow, LabelEfficiencyPlan, LabelEfficiencyRow,
    LabelEfficiencyRun, LookModels, LookPlan, LookReport, LookWhat, MeanAndDeviation, MemoryPlan, MemoryReport,
    ProbeLabels, Recipe, RejectionPlan, RejectionRound, Scored, StartJob, SteerPlan, SummaryRow, TaughtRewardModel,
    TextAlgorithm, TextAlgorithmJob, TextAlgorithmRow, TextAlgorithmRun, TextAlgorithmsPlan, TextMeasure, TextModel,
    TextSpeed, TextSpeedPlan, TextSteps, TextStepsMethod, TextStepsPlan, TldrCounts, TldrEvaluation, TldrExamplesPlan,
    TldrExamplesReport, TldrPlan, TokenizerPlan, TokenizerReport, TunedLensPlan, Versus, best_of_text, check_text_run,
    copy_stage, evaluate_text, evaluate_tldr, export_text, generate_text, label_efficiency, look, measure_memory,
    measure_text, merge_text, prepare_tldr, rejection_sampling, run_text_algorithm, teach_reward_model,
    text_algorithms, text_speed, text_steps, train_tokenizer, write_built_in, write_examples, write_tldr_examples,
};
pub use vocabulary::*;

use crate::settings::{Mode, RewardSource, RunSettings};
use flipside_core::{Arrays, ItemId};
pub use flipside_envs::physics::{Precision, SHADER, ThreadsPerWorld};
pub use flipside_text::data::{BadLines, Reading};
pub use flipside_text::interp::{ProbeSettings, TunedLensSettings};
pub use flipside_text::teacher::Noise;
use ledger::{Ledger, Message};
pub use opening::is_session;
pub(crate) use opening::task_of;
use opening::{Opened, open_session};
use shared_requests::{SharedRequests, WorkerRequests};
use snapshot_publisher::SnapshotPublisher;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;
use text::TextTrainer;
use trainer::Trainer;
use training_loop::TrainingLoop;
use worker::Worker;

/// How many commands and messages of the worker may wait for the ledger. A person cannot fill this queue. A worker that
/// fills it waits for the disk.
const INBOX: usize = 64;

/// An open, running session. Dropping it saves and closes the session.
pub struct Lab {
    publisher: Arc<SnapshotPublisher>,
    inbox: SyncSender<Message>,
    threads: Vec<JoinHandle<()>>,
}

impl Lab {
    /// Opens the session in `settings.folder`, or creates one, and starts training.
    ///
    /// An existing session continues from its last checkpoint with the settings it was created with. `settings.asked`
    /// may change some of them. The lab's threads call `repaint` whenever there is something new to show.
    ///
    /// # Errors
    ///
    /// - The session's settings differ from those asked for.
    /// - The task or the backend is unknown, or the robot's or the task's file is wrong.
    /// - The session cannot be read, written or locked, or a newer version wrote it.
    pub fn open(settings: RunSettings, repaint: Arc<dyn Fn() + Send + Sync>) -> Result<Lab, LabError> {
        Lab::open_beside(settings, repaint, false)
    }

    /// [`Lab::open`] for a desk. Training gives way to the window where its pictures move.
    ///
    /// # Errors
    ///
    /// As [`Lab::open`].
    pub fn open_at_desk(settings: RunSettings, repaint: Arc<dyn Fn() + Send + Sync>) -> Result<Lab, LabError> {
        Lab::open_beside(settings, repaint, true)
    }

    fn open_beside(settings: RunSettings, repaint: Arc<dyn Fn() + Send + Sync>, window: bool) -> Result<Lab, LabError> {
        let Opened { mut session, settings, checkpoint } = open_session(settings)?;
        // Texts stand still, and a window that only shows them needs no priority.
        let gives_way = window && settings.control().is_some();
        if let Some(warning) = checkpoint.as_ref().and_then(|loaded| loaded.warning.as_ref()) {
            log::warn!("{warning}");
        }
        let (next_item, folder) = (session.next_item_id()?, session.folder().to_owned());
        let prompts = session.meta(PROMPTS)?.and_then(|json| serde_json::from_str(&json).ok());
        // Threads inherit the priority of the thread that starts them.
        let (training_loop, mode) = std::thread::scope(|scope| {
            let build = Builder::new().name("flipside-setup".to_owned()).spawn_scoped(scope, || {
                if gives_way {
                    priority::yield_to_the_window();
                }
                flipside_learn::all_threads();
                training_loop_of(
                    &settings,
                    &folder,
                    next_item,
                    prompts,
                    checkpoint.as_ref().map(|loaded| &loaded.arrays),
                )
            });
            build.map_err(LabError::Thread)?.join().unwrap_or_else(|panic| resume_unwind(panic))
        })?;
        // Whatever was measured after the checkpoint, or without one, will be measured again.
        session.drop_metrics_after(training_loop.steps())?;
        let mut first = first_snapshot(&settings, mode, session.folder());
        (first.env_steps, first.labels_wanted, first.agreement) =
            (training_loop.steps(), training_loop.labels_wanted(), training_loop.agreement());
        let publisher = Arc::new(SnapshotPublisher::new(first, repaint));
        let control = Arc::new(SharedRequests::new(WorkerRequests { run: true, ..WorkerRequests::default() }));
        let ledger = Ledger::new(session, publisher.clone(), control.clone(), &settings)?;
        let (inbox, letters) = sync_channel(INBOX);
        let worker = Worker::new(training_loop, publisher.clone(), control.clone(), inbox.clone());
        let threads = vec![
            spawn("flipside-ledger", {
                let (publisher, control) = (publisher.clone(), control.clone());
                move || {
                    if catch_unwind(AssertUnwindSafe(|| ledger.run(&letters))).is_err() {
                        publisher.say(Event::Faulted(
                            "Judging broke down; every answer that was counted is saved. Reopen the session to go on."
                                .to_owned(),
                        ));
                        publisher.say(Event::Closed);
                    }
                    // Without a ledger nothing can be saved, so the worker ends too.
                    control.change(|w| w.quit = true);
                }
            })?,
            spawn("flipside-worker", move || {
                if gives_way {
                    priority::yield_to_the_window();
                }
                worker.run();
            })?,
        ];
        Ok(Lab { publisher, inbox, threads })
    }
}

impl Link for Lab {
    fn send(&self, command: Command) -> bool {
        self.inbox.try_send(Message::Command(command)).is_ok()
    }

    fn events(&self) -> Vec<Event> {
        self.publisher.drain()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.publisher.snapshot()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A full inbox empties while this waits. A closed one means that the ledger has already ended.
        let _ = self.inbox.send(Message::Command(Command::Quit));
        for thread in self.threads.drain(..) {
            // A thread that panicked has already reported it.
            let _ = thread.join();
        }
    }
}

/// The training loop of a run's mode, resumed from the checkpoint if there is one, and its part of the first snapshot.
fn training_loop_of(
    settings: &RunSettings,
    folder: &Path,
    next_item: ItemId,
    prompts: Option<Vec<String>>,
    arrays: Option<&Arrays>,
) -> Result<(Box<dyn TrainingLoop>, ModeView), LabError> {
    match &settings.mode {
        Mode::Control(run) => {
            let task = task_of(settings)?;
            let view = ControlView {
                task: run.task.clone(),
                from_preferences: run.reward == RewardSource::Preferences,
                scene: Arc::new(task.model().scene()),
                policy_clip: None,
            };
            let mut trainer = Trainer::new(settings, task, next_item, None, None)?;
            if let Some(arrays) = arrays {
                trainer.load(arrays)?;
            }
            Ok((Box::new(trainer), ModeView::Control(view)))
        }
        Mode::Text(_) => {
            memory::keep_what_is_freed();
            let trainer = TextTrainer::new(settings, folder, next_item, prompts, arrays)?;
            let view = Arc::new(trainer.view());
            Ok((Box::new(trainer), ModeView::Text(view)))
        }
    }
}

/// The key under which a session stores the prompts that the person chose, as JSON.
const PROMPTS: &str = "prompts";

/// The key under which a session stores which disputed judgements the person has confirmed, as JSON.
const CONFIRMED: &str = "kept";

fn first_snapshot(settings: &RunSettings, mode: ModeView, folder: &Path) -> Snapshot {
    Snapshot {
        mode,
        phase: Phase::Starting,
        fault: None,
        teacher: settings.teacher,
        pair: None,
        pairs_ready: 0,
        taught: None,
        labels: 0,
        labels_planned: Some(settings.labels),
        labels_wanted: 0,
        labels_per_minute: 0.0,
        agreement: None,
        consistency: None,
        alarm: None,
        disputed: Arc::default(),
        env_steps: 0,
        env_steps_planned: settings.env_steps,
        env_steps_per_s: 0.0,
        seconds_left: None,
        curves: Arc::default(),
        folder: PathBuf::from(folder),
        at: Instant::now(),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LabError> {
    Builder::new().name(name.to_owned()).spawn(body).map_err(LabError::Thread)
}
