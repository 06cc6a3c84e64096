//! The whole loop without a window: a simulated teacher answers, a robot learns, and a film, a learning curve and a
//! session remain.

use super::arguments::Demo;
use super::output::outln;
use super::run::{clip_of, open, report, watch};
use crate::lab::{self, SavedPolicy, Snapshot};
use crate::settings::folders::task_folders;
use anyhow::Context;
use flipside_view::{chart, film};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Episodes for each of the two returns that are compared.
const EPISODES: usize = 20;

/// Length of the film in simulated seconds.
const SECONDS: f32 = 5.0;

pub fn demo(arguments: &Demo) -> anyhow::Result<()> {
    let started = Instant::now();
    let settings = arguments.settings().map_err(anyhow::Error::msg)?;
    let labels = settings.labels;
    eprintln!("A simulated teacher answers {labels} pairs while the robot ({}) trains.", settings.task());
    let lab = open(settings, Arc::new(|| {}))?;
    let done = watch(&lab, "training")?;
    drop(lab);

    let saved = SavedPolicy::load(&done.folder, &task_folders())?;
    let untrained = saved.untrained.as_ref().context("the session kept no untrained policy to compare with")?;
    let backend = saved.settings.backend();
    let judge = |policy| lab::evaluate(&saved.task, policy, backend, EPISODES, 1000);
    let (before, after) = (judge(untrained)?, judge(&saved.policy)?);

    let scene = saved.task.model().scene();
    let run = |policy| lab::run_policy(&saved.task, policy, backend, SECONDS, 1000).map(|f| clip_of(&saved, f));
    let (clip_before, clip_after) = (run(untrained)?, run(&saved.policy)?);
    let gif = done.folder.join("before-after.gif");
    film::side_by_side(&gif, &scene, [("untrained", &clip_before), ("after", &clip_after)])
        .with_context(|| format!("could not film to {}", gif.display()))?;
    let png = done.folder.join("learning-curve.png");
    chart::curve_png(
        &png,
        &format!("{} from {} judgements", done.task(), done.labels),
        "env steps",
        "true return of training episodes",
        &curves(&done),
    )
    .with_context(|| format!("could not draw {}", png.display()))?;

    let seconds = started.elapsed().as_secs_f64();
    // A robot that stands still has a return of about 0, for which a ratio means nothing.
    let ratio = (before.mean_return > 1.0).then(|| after.mean_return / before.mean_return);
    report(
        arguments.json,
        json!({
            "task": done.task(), "labels": done.labels, "env_steps": done.env_steps, "seconds": seconds,
            "return_before": before.mean_return, "return_after": after.mean_return, "ratio": ratio,
            "film": gif, "curve": png, "session": done.folder,
        }),
        || {
            outln!(
                "The return that the teacher judges by went from {:.0} to {:.0}{} in {seconds:.0} s, from {} judgements.",
                before.mean_return,
                after.mean_return,
                ratio.map_or(String::new(), |ratio| format!(" ({ratio:.1} times)")),
                done.labels
            );
            outln!("film     {}", gif.display());
            outln!("curve    {}", png.display());
            outln!("session  {}", done.folder.display());
        },
    );
    Ok(())
}

/// The true return of training episodes, which the policy never sees.
fn curves(done: &Snapshot) -> Vec<chart::Series<'_>> {
    let drawn = done.curves.iter().filter(|curve| curve.name == "true_return");
    drawn.map(|curve| chart::Series { name: "true return", points: &curve.points }).collect()
}
