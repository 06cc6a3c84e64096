//! The running session: the only room that wires the others. The desk and the command line speak to it in [`Command`]s and hear from it in
//! [`Event`]s and [`Snapshot`]s; no tensor, GPU buffer or physics handle crosses that line.
//!
//! Two named threads run behind a [`Lab`]:
//!
//! - the **ledger** owns the session on disk and the pair on show. A pick is committed and answered with the next pair in milliseconds,
//!   whatever else is going on.
//! - the **worker** owns every tensor and every world. It steps, fits the reward, improves the policy, and offers pairs. It looks at the
//!   ledger's wishes between minibatches and never waits for a person.

mod arrays;
pub mod bench;
mod error;
mod evaluate;
mod interval;
mod learning;
mod ledger;
mod memory;
mod offline;
mod on_device;
mod policy_checkpoints;
mod preference_learner;
mod preferences;
mod priority;
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
pub use offline::{TaskLine, export_labels, export_policy_of, libtorch_devices, replay, tasks};
pub use preferences::{FLIPS_LEARNT, PreferencePlan, PreferenceRow, PreferenceRun, preferences};
pub use text::{
    ExampleKind, ExamplesPlan, ExamplesReport, GeneratePlan, Generated, Scored, TextMeasure, TextModel, TextSpeed,
    TextSpeedPlan, TokenizerPlan, TokenizerReport, copy_stage, evaluate_text, export_text, generate_text, measure_text,
    merge_text, text_speed, train_tokenizer, write_examples,
};
pub use vocabulary::*;

use crate::settings::folders::task_folders;
use crate::settings::{RewardSource, RunSettings, TextRun};
use crate::store::{Session, StoreError};
use flipside_core::{Arrays, ItemId, Scene};
use flipside_envs::gym::Task;
use flipside_envs::physics::{self, PhysicsError};
pub use flipside_envs::physics::{Precision, SHADER, ThreadsPerWorld};
pub use flipside_text::teacher::Noise;
use ledger::{Ledger, Message};
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

/// Commands and worker's messages that may wait for the ledger. A person cannot fill it; a worker that does waits for the disk.
const INBOX: usize = 64;

/// A session that is open and running. Dropping it saves and closes.
pub struct Lab {
    publisher: Arc<SnapshotPublisher>,
    inbox: SyncSender<Message>,
    threads: Vec<JoinHandle<()>>,
}

impl Lab {
    /// Opens the session in `settings.folder`, or makes one, and starts training.
    ///
    /// A folder that already holds a session goes on where its last checkpoint stands, with the settings it was made with. `repaint` is called
    /// from the lab's threads whenever there is something new to see.
    ///
    /// # Errors
    ///
    /// An unknown task or backend, a wrong robot or task file, a session that cannot be read, written or locked, or that a newer version wrote.
    pub fn open(settings: RunSettings, repaint: Arc<dyn Fn() + Send + Sync>) -> Result<Lab, LabError> {
        let (mut session, settings) = open_session(settings)?;
        let checkpoint = session.load_checkpoint()?;
        if let Some(warning) = checkpoint.as_ref().and_then(|loaded| loaded.warning.as_ref()) {
            log::warn!("{warning}");
        }
        let (next_item, folder) = (session.next_item_id()?, session.folder().to_owned());
        if settings.text.is_some() {
            memory::keep_what_is_freed();
        }
        let prompts = session.meta(PROMPTS)?.and_then(|json| serde_json::from_str(&json).ok());
        // Threads inherit the priority of the thread that starts them.
        let (training_loop, scene) = std::thread::scope(|scope| {
            let build = Builder::new().name("flipside-setup".to_owned()).spawn_scoped(scope, || {
                priority::yield_to_the_window();
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
        if checkpoint.is_some() {
            // What was measured after the checkpoint will be measured again.
            session.drop_metrics_after(training_loop.steps())?;
        }
        let mut first = first_snapshot(&settings, scene, session.folder());
        training_loop.publish(&mut first);
        (first.env_steps, first.labels_wanted, first.agreement) =
            (training_loop.steps(), training_loop.labels_wanted(), training_loop.agreement());
        let publisher = Arc::new(SnapshotPublisher::new(first, repaint));
        let control = Arc::new(SharedRequests::new(WorkerRequests {
            run: true,
            quit: false,
            save: false,
            show_policy: false,
            ask: None,
            prompts: None,
            teacher: settings.teacher,
            asks_in_time: settings.teacher == TeacherKind::Person,
            pairs_ready: 0,
            offers_done: 0,
            labels: Arc::default(),
            kept: Arc::default(),
            labels_version: 0,
            disk_fault: None,
        }));
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
                    // Without a ledger nothing can be kept, so the worker ends too.
                    control.change(|w| w.quit = true);
                }
            })?,
            spawn("flipside-worker", move || worker.run())?,
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
        // A full inbox empties while we wait; a closed one means that the ledger is gone already.
        let _ = self.inbox.send(Message::Command(Command::Quit));
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// The session that `settings` ask for, and the settings that hold: an existing session's own, but for who answers and how much is planned.
fn open_session(asked: RunSettings) -> Result<(Session, RunSettings), LabError> {
    let folder = match asked.folder.clone() {
        Some(folder) => folder,
        None => {
            // The names are checked before a folder is made for them.
            check_new(&asked)?;
            crate::settings::folders::new_session_folder(&asked.task)?
        }
    };
    match Session::open(&folder) {
        Ok(mut session) => {
            let stored = session.settings().clone();
            let settings = RunSettings {
                teacher: asked.teacher,
                answer_seconds: asked.answer_seconds,
                labels: asked.labels.max(stored.labels),
                env_steps: asked.env_steps.max(stored.env_steps),
                text: match (&stored.text, asked.text) {
                    (Some(stored), Some(asked)) => Some(gone_on(stored, asked)),
                    (None, None) => None,
                    (Some(stored), None) => Some(stored.clone()),
                    (None, Some(_)) => {
                        return Err(LabError::Text(format!(
                            "The session in {} teaches a robot; give another folder for text.",
                            folder.display()
                        )));
                    }
                },
                ..stored.clone()
            };
            if settings != stored {
                session.put_settings(&settings)?;
            }
            Ok((session, settings))
        }
        Err(StoreError::NotASession(_)) => {
            let task = check_new(&asked)?;
            let settings = RunSettings { task, folder: Some(folder.clone()), ..asked };
            Ok((Session::create(&folder, &settings)?, settings))
        }
        Err(error) => Err(error.into()),
    }
}

/// A run of text that is gone on with: what its stages come from stays, and what is asked for anew may go further.
fn gone_on(stored: &TextRun, asked: TextRun) -> TextRun {
    let later = asked.until > stored.until;
    TextRun {
        until: asked.until.max(stored.until),
        documents: stored.documents.clone().or(asked.documents.clone()),
        demonstrations: stored.demonstrations.clone().or(asked.demonstrations.clone()),
        comparisons: stored.comparisons.clone().or(asked.comparisons.clone()),
        prompts: stored.prompts.clone().or(asked.prompts.clone()),
        reward_model: stored.reward_model.clone().or(asked.reward_model.clone()),
        // A stage that has not begun takes what it is told now.
        supervised_steps: if later { asked.supervised_steps } else { stored.supervised_steps },
        reward_steps: if later { asked.reward_steps } else { stored.reward_steps },
        updates: if later { asked.updates } else { stored.updates },
        lora: stored.lora.clone().or(if later { asked.lora } else { None }),
        ..stored.clone()
    }
}

/// Refuses a new run that cannot be; the name of its task.
fn check_new(asked: &RunSettings) -> Result<String, LabError> {
    match &asked.text {
        Some(run) => run.check().map(|()| RunSettings::TEXT.to_owned()).map_err(LabError::Text),
        None => playable(asked).map(|task| task.name().to_owned()),
    }
}

/// The training loop of a run's mode, gone on with where there is a checkpoint, and what its robot looks like.
fn training_loop_of(
    settings: &RunSettings,
    folder: &Path,
    next_item: ItemId,
    prompts: Option<Vec<String>>,
    arrays: Option<&Arrays>,
) -> Result<(Box<dyn TrainingLoop>, Scene), LabError> {
    if settings.text.is_some() {
        let trainer = TextTrainer::new(settings, folder, next_item, prompts, arrays)?;
        return Ok((Box::new(trainer), Scene::default()));
    }
    let task = task_of(settings)?;
    let scene = task.model().scene();
    let mut trainer = Trainer::new(settings, task, next_item, None, None)?;
    if let Some(arrays) = arrays {
        trainer.load(arrays)?;
    }
    Ok((Box::new(trainer), scene))
}

/// The name under which a session keeps the prompts that the person chose, as JSON.
const PROMPTS: &str = "prompts";

/// The name under which a session keeps which disputed judgements the person lets stand, as JSON.
const KEPT: &str = "kept";

/// The task that a new run names, on a backend that holds its robot.
fn playable(asked: &RunSettings) -> Result<Task, LabError> {
    let task = Task::load_from(&task_folders(), &asked.task)?;
    match physics::backend(&asked.backend, Precision::default(), task.model().clone(), 1, Some(1)) {
        // The run goes on without a graphics device.
        Ok(_) | Err(PhysicsError::Device(_)) => Ok(task),
        Err(error) => Err(error.into()),
    }
}

/// The task as this run plays it: without termination and with a fixed horizon where judgement is the reward, because an episode's end
/// would tell the policy what the reward model has not.
pub(crate) fn task_of(settings: &RunSettings) -> Result<Arc<Task>, LabError> {
    let task = Task::load_from(&task_folders(), &settings.task)?;
    Ok(Arc::new(match settings.reward {
        RewardSource::True => task,
        RewardSource::Preferences => task.fixed_horizon(),
    }))
}

fn first_snapshot(settings: &RunSettings, scene: Scene, folder: &Path) -> Snapshot {
    Snapshot {
        task: settings.task.clone(),
        from_preferences: settings.reward == RewardSource::Preferences,
        scene: Arc::new(scene),
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
        policy_clip: None,
        text: None,
        folder: PathBuf::from(folder),
        at: Instant::now(),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LabError> {
    Builder::new().name(name.to_owned()).spawn(body).map_err(LabError::Thread)
}
