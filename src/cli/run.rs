//! The verbs that train, evaluate, film, export and list.

use super::arguments::{DeskArguments, Eval, Export, ExportWhat, Film, Rollout, Train};
use super::output::outln;
use crate::app::{DeskOptions, ProbePlan, TaskChoice};
use crate::lab::{self, Event, Lab, LabError, Link, Phase, SavedPolicy, Snapshot};
use crate::settings::folders::task_folders;
use crate::settings::{RewardSource, RunSettings, TeacherKind};
use anyhow::{Context, bail};
use flipside_core::Clip;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the progress bar is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// Opens the desk on the session that was named, or on a new one.
pub fn desk(arguments: &DeskArguments) -> anyhow::Result<()> {
    crate::app::run(desk_options(arguments, None)?)?;
    Ok(())
}

/// The options of the desk with the real lab. The desk gets the list of tasks and a function that opens runs; it does
/// not know the code behind them.
pub(super) fn desk_options(arguments: &DeskArguments, probe: Option<ProbePlan>) -> anyhow::Result<DeskOptions> {
    let tasks = lab::tasks(&task_folders()).into_iter().filter(|task| task.fault.is_none());
    Ok(DeskOptions {
        settings: arguments.settings().map_err(anyhow::Error::msg)?,
        make_lab: Arc::new(|settings, repaint| {
            let settings = RunSettings { task_folders: task_folders(), ..settings };
            Ok(Box::new(Lab::open_at_desk(settings, repaint)?))
        }),
        tasks: tasks
            .map(|task| TaskChoice { name: task.name, title: task.title, env_steps: task.desk_steps })
            .collect(),
        probe,
    })
}

/// Opens a run whose task may be one of the person's own. Only the command line looks for those on this machine.
pub(super) fn open(settings: RunSettings, repaint: Arc<dyn Fn() + Send + Sync>) -> Result<Lab, LabError> {
    Lab::open(RunSettings { task_folders: task_folders(), ..settings }, repaint)
}

/// Trains without a window until the plan is done.
pub fn train(arguments: &Train) -> anyhow::Result<()> {
    let settings = arguments.settings().map_err(anyhow::Error::msg)?;
    if settings.reward() == RewardSource::Preferences && settings.labels == 0 {
        bail!("learning from preferences needs labels: ask for some with --labels N, or use --reward true");
    }
    let started = Instant::now();
    let lab = open(settings, Arc::new(|| {}))?;
    let done = watch(&lab, "training")?;
    drop(lab);
    let seconds = started.elapsed().as_secs_f64();
    let saved = SavedPolicy::load(&done.folder, &task_folders())?;
    let evaluation = lab::evaluate(&saved.task, &saved.policy, saved.settings.backend(), 20, 1000)?;
    let last = |name: &str| done.curves.iter().find(|c| c.name == name).and_then(|c| c.points.last()).map(|p| p[1]);
    report(
        arguments.json,
        json!({
            "task": done.task(),
            "session": done.folder,
            "env_steps": done.env_steps,
            "labels": done.labels,
            "seconds": seconds,
            "env_steps_per_s": done.env_steps as f64 / seconds,
            "mean_return": evaluation.mean_return,
            "std_return": evaluation.std_return,
            "mean_length": evaluation.mean_length,
            "landed_flips_per_10s": evaluation.landed_flips_per_10s,
            "train_return": last("true_return"),
            "agreement": done.agreement,
            "consistency": done.consistency.map(|(share, _)| share),
        }),
        || {
            outln!(
                "{}: true return {:.0} ± {:.0} over 20 episodes, after {} env steps and {} labels in {seconds:.0} s",
                done.task(),
                evaluation.mean_return,
                evaluation.std_return,
                done.env_steps,
                done.labels
            );
            outln!("session  {}", done.folder.display());
        },
    );
    Ok(())
}

/// Follows a lab until its plan is done, with a progress bar on stderr. A failure of the lab is an error; the session
/// stays as it was saved.
pub(super) fn watch(lab: &Lab, what: &str) -> anyhow::Result<Arc<Snapshot>> {
    let bar = ProgressBar::new(1).with_style(
        ProgressStyle::with_template("{prefix:>9} {bar:32} {percent:>3} %  {msg}  {eta} left")
            // The template above is constant and valid. The default style is only needed by the type.
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_prefix(what.to_owned());
    let result = loop {
        std::thread::sleep(TICK);
        let snapshot = lab.snapshot();
        bar.set_length(snapshot.env_steps_planned);
        bar.set_position(snapshot.env_steps);
        bar.set_message(progress(&snapshot));
        let mut end = None;
        for event in lab.events() {
            match event {
                Event::Finished => end = Some(Ok(())),
                Event::Faulted(why) => end = Some(Err(anyhow::anyhow!(why))),
                Event::Refused(why) | Event::Warned(why) => log::warn!("{why}"),
                Event::Closed => end = Some(Err(anyhow::anyhow!("the session closed before its plan was done"))),
                _ => {}
            }
        }
        if let Some(end) = end {
            break end.map(|()| lab.snapshot());
        }
        // A simulated teacher will answer; a person cannot answer here.
        if snapshot.phase == Phase::Waiting && snapshot.teacher == TeacherKind::Person {
            bail!("the run waits for a person's answers; open it in the desk, or name a simulated teacher");
        }
    };
    bar.finish_and_clear();
    result
}

fn progress(s: &Snapshot) -> String {
    let latest = |name: &str| s.curves.iter().find(|c| c.name == name).and_then(|c| c.points.last()).map(|p| p[1]);
    let mut words = vec![format!("{:.0} steps/s", s.env_steps_per_s)];
    if let Some(value) = latest("true_return") {
        words.push(format!("return {value:.0}"));
    }
    if s.from_preferences() {
        words.push(format!("{} labels", s.labels));
    }
    if let Some(agreement) = s.agreement {
        words.push(format!("agreement {:.0} %", 100.0 * agreement));
    }
    words.join("  ")
}

/// Evaluates the policy of a session.
pub fn eval(arguments: &Eval) -> anyhow::Result<()> {
    let saved = SavedPolicy::load(&arguments.session, &task_folders())?;
    let evaluation =
        lab::evaluate(&saved.task, &saved.policy, saved.settings.backend(), arguments.episodes, arguments.seed)?;
    report(
        arguments.json,
        json!({
            "task": saved.task.name(),
            "episodes": arguments.episodes,
            "mean_return": evaluation.mean_return,
            "std_return": evaluation.std_return,
            "mean_length": evaluation.mean_length,
            "returns": evaluation.returns,
            "landed_flips_per_10s": evaluation.landed_flips_per_10s,
            "env_steps": saved.env_steps,
            "terminates": saved.settings.reward() == RewardSource::True,
        }),
        || {
            outln!(
                "{}: true return {:.1} ± {:.1}, length {:.0}, over {} episodes",
                saved.task.name(),
                evaluation.mean_return,
                evaluation.std_return,
                evaluation.mean_length,
                arguments.episodes
            );
            if let Some(flips) = &evaluation.landed_flips_per_10s {
                outln!("landed flips in 10 s: {:.2}", flips.mean);
            }
        },
    );
    Ok(())
}

/// Films the policy of a session from a new initial state.
pub fn film(arguments: &Film) -> anyhow::Result<()> {
    let saved = SavedPolicy::load(&arguments.session, &task_folders())?;
    let frames =
        lab::run_policy(&saved.task, &saved.policy, saved.settings.backend(), arguments.seconds, arguments.seed)?;
    let clip = clip_of(&saved, frames);
    flipside_view::film::film(&arguments.output, &saved.task.model().scene(), &clip)
        .with_context(|| format!("could not film to {}", arguments.output.display()))?;
    outln!("{}", arguments.output.display());
    Ok(())
}

pub(super) fn clip_of(saved: &SavedPolicy, frames: flipside_core::Frames) -> Clip {
    Clip {
        id: flipside_core::ItemId(0),
        task: saved.task.name().to_owned(),
        dt: saved.task.dt() as f32,
        recorded_at: saved.env_steps,
        frames,
    }
}

/// Steps given states with given controls.
pub fn rollout(arguments: &Rollout) -> anyhow::Result<()> {
    let task = lab::task(&task_folders(), &arguments.task)?;
    lab::replay(&task, &arguments.backend, arguments.precision, &arguments.input, &arguments.output)?;
    outln!("{}", arguments.output.display());
    Ok(())
}

/// Writes labels or the policy in open formats.
pub fn export(arguments: &Export) -> anyhow::Result<()> {
    match arguments.what {
        ExportWhat::Labels => {
            let count = lab::export_labels(&arguments.session, &arguments.output)?;
            eprintln!("{count} labels");
        }
        ExportWhat::Policy => lab::export_policy_of(&arguments.session, &task_folders(), &arguments.output)?,
    }
    outln!("{}", arguments.output.display());
    Ok(())
}

/// Lists the tasks.
pub fn tasks(as_json: bool) -> anyhow::Result<()> {
    let tasks = lab::tasks(&task_folders());
    report(as_json, json!({ "tasks": tasks }), || {
        let ids = || tasks.iter().map(|task| task.gymnasium.as_deref().unwrap_or(""));
        let name_width = tasks.iter().map(|task| task.name.len()).max().unwrap_or(0);
        let id_width = ids().map(str::len).max().unwrap_or(0);
        for (task, id) in tasks.iter().zip(ids()) {
            match &task.fault {
                Some(fault) => outln!("{:name_width$}  cannot be used: {fault}", task.name),
                None => outln!("{:name_width$}  {id:id_width$}  {}", task.name, task.title),
            }
        }
    });
    Ok(())
}

/// Lists the devices for computing and drawing.
pub fn devices(as_json: bool) -> anyhow::Result<()> {
    let adapters = flipside_view::adapters();
    let (libtorch, cuda) = lab::libtorch_devices();
    let processor = lab::bench::processor();
    let instructions = lab::bench::instruction_sets();
    report(
        as_json,
        json!({
            "processor": processor, "instruction_sets": instructions, "libtorch": libtorch, "cuda_devices": cuda, "adapters": adapters,
        }),
        || {
            outln!("processor  {processor} ({})", instructions.join(", "));
            outln!("libtorch   {libtorch}");
            for adapter in &adapters {
                outln!("adapter    {} ({}, {}, {})", adapter.name, adapter.kind, adapter.api, adapter.driver);
                let physics = if adapter.computes { "--backend shader" } else { "no physics" };
                let times = if adapter.times { "timestamps" } else { "no timestamps" };
                let keeps = if adapter.keeps_shaders { "pipeline cache" } else { "no pipeline cache" };
                let buffer = adapter.largest_buffer >> 20;
                outln!("           draws; {physics}, buffers of {buffer} MiB, {times}, {keeps}");
            }
            if adapters.is_empty() {
                outln!(
                    "adapter    none: films and the desk need a Vulkan driver (Debian and Ubuntu: mesa-vulkan-drivers)"
                );
            }
        },
    );
    Ok(())
}

/// Prints one JSON object as the last line of stdout, or text for a person.
pub(super) fn report(as_json: bool, value: Value, words: impl FnOnce()) {
    if as_json {
        outln!("{value}");
    } else {
        words();
    }
}
