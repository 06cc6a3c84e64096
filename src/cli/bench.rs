//! The verb that measures. Results go to stdout, together with the machine that they were measured on.

use super::algorithms::algorithms;
use super::arguments::{
    Bench, BenchDesk, BenchLearning, BenchMode, BenchPpo, BenchPreferences, BenchTask, BenchText, BenchTextPreferences,
    BenchTextSteps, DeskArguments, SettingsArguments,
};
use super::output::outln;
use super::run::{desk_options, report};
use crate::app::{self, ModeTab, ProbePlan};
use crate::lab::bench::{Plan, Speed, physics, physics_of_session, ppo, processor};
use crate::lab::{
    LabelEfficiencyPlan, LearningPlan, Precision, PreferencePlan, PreferenceRow, SHADER, TeacherKind, TextSpeedPlan,
    TextStepsMethod, TextStepsPlan, label_efficiency, learning, preferences, text_speed, text_steps,
};
use crate::settings::folders::task_folders;
use anyhow::{Context, anyhow, bail};
use flipside_core::cores;
use flipside_view::chart;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

pub fn bench(what: &Bench) -> anyhow::Result<()> {
    match what {
        Bench::Physics(arguments) => {
            let plan = plan(&arguments.task, arguments.precision);
            let ways = &arguments.threads_per_world;
            if !ways.is_empty() && plan.backend != SHADER {
                bail!("--threads-per-world is for a graphics device: add --backend {SHADER}");
            }
            let ways = if ways.is_empty() { vec![None] } else { ways.iter().copied().map(Some).collect() };
            let mut found = vec![];
            for threads_per_world in ways {
                let plan = Plan { threads_per_world, ..plan.clone() };
                found.push(match &arguments.session {
                    Some(folder) => physics_of_session(&plan, folder)?,
                    None => physics(&plan)?,
                });
            }
            speed("physics", &found, arguments.task.json);
        }
        Bench::Ppo(BenchPpo { task, more }) => {
            let overrides = overrides(more)?;
            speed("ppo", &[ppo(&Plan { overrides, ..plan(task, Precision::default()) })?], task.json);
        }
        Bench::Learning(arguments) => learning_table(arguments)?,
        Bench::Preferences(arguments) => preference_table(arguments)?,
        Bench::Desk(arguments) => desk(arguments)?,
        Bench::Text(arguments) => text(arguments)?,
        Bench::TextPreferences(arguments) => text_preferences(arguments)?,
        Bench::TextAlgorithms(arguments) => algorithms(arguments)?,
        Bench::TextSteps(arguments) => text_steps_table(arguments)?,
    }
    Ok(())
}

/// The settings that override the tasks' files.
fn overrides(settings: &SettingsArguments) -> anyhow::Result<toml::Table> {
    settings.asked([]).and_then(|asked| asked.only_overrides()).map_err(anyhow::Error::msg)
}

/// Prints a line to stderr for every finished seed, then the table.
fn learning_table(arguments: &BenchLearning) -> anyhow::Result<()> {
    let plan = LearningPlan {
        task: arguments.task.clone(),
        task_folders: task_folders(),
        backend: arguments.backend.clone(),
        seeds: arguments.seeds.max(1),
        env_steps: arguments.steps,
        overrides: overrides(&arguments.more)?,
        episodes: 100,
    };
    let rows = learning(&plan, &mut |task, run| {
        let reached = run.seconds_to_target.map_or("not reached".to_owned(), |s| format!("reached after {s:.1} s"));
        eprintln!(
            "{task} seed {}: {:.0} after {} env steps in {:.1} s; target {reached}",
            run.seed, run.mean_return, run.env_steps, run.seconds
        );
    })?;
    report(arguments.json, json!({ "learning": rows }), || {
        outln!("| task | target | within | reached after | seeds | return at the end | env steps | wall time |");
        outln!("|---|--:|--:|--:|--:|--:|--:|--:|");
        for row in &rows {
            let count = row.runs.iter().filter(|run| run.seconds_to_target.is_some()).count();
            let mean = |number: fn(&crate::lab::LearningRun) -> f64| {
                row.runs.iter().map(number).sum::<f64>() / row.runs.len() as f64
            };
            outln!(
                "| {} | {:.0} | {:.0} s | {} | {count} of {} | {:.0} ± {:.0} | {:.1} M | {:.1} s |",
                row.task,
                row.target_return,
                row.within_s,
                row.mean_seconds_to_target.map_or("–".to_owned(), |s| format!("{s:.1} s")),
                row.runs.len(),
                row.mean_return,
                row.std_return,
                mean(|run| run.env_steps as f64) / 1e6,
                mean(|run| run.seconds),
            );
        }
        if let Some(row) = rows.first() {
            outln!("\n{}", row.device);
        }
    });
    Ok(())
}

/// Prints a line to stderr for every finished run, then the table, and draws the learning curves of each task.
fn preference_table(arguments: &BenchPreferences) -> anyhow::Result<()> {
    let plan = PreferencePlan {
        tasks: arguments.tasks.clone(),
        teachers: arguments.teachers().map_err(|why| anyhow!("{why}"))?,
        labels: arguments.labels.clone(),
        overrides: overrides(&SettingsArguments { set: vec![], config: arguments.config.clone() })?,
        sets: arguments.set.clone(),
        seeds: arguments.seeds.max(1),
        env_steps: arguments.steps,
        answer_seconds: arguments.answer_seconds,
        labels_by: arguments.labels_by,
        results: arguments.output.join("runs.jsonl"),
        jobs: arguments.jobs.unwrap_or_else(cores),
        task_folders: task_folders(),
        backend: arguments.backend.clone(),
    };
    let rows = preferences(&plan, &|run| {
        let flips =
            run.landed_flips_per_10s.map_or(String::new(), |flips| format!(", {flips:.2} landed flips in 10 s"));
        eprintln!(
            "{}, {}, seed {}: {:.0}{flips} after {} env steps in {:.0} s",
            run.task,
            run_name(&run.teacher, run.given, &run.set),
            run.seed,
            run.mean_return,
            run.env_steps,
            run.seconds
        );
    })?;
    let mut pictures = Vec::new();
    for task in &rows.iter().map(|row| row.task.as_str()).collect::<BTreeSet<_>>() {
        let of_task: Vec<&PreferenceRow> = rows.iter().filter(|row| row.task == *task).collect();
        let names: Vec<String> = of_task.iter().map(|row| run_name(&row.teacher, row.labels, &row.set)).collect();
        let series = of_task.iter().zip(&names).map(|(row, name)| chart::Series { name, points: &row.curve });
        let picture = arguments.output.join(format!("{task}.png"));
        chart::curve_png(&picture, task, "env steps", "true return", &series.collect::<Vec<_>>())
            .with_context(|| format!("could not draw {}", picture.display()))?;
        pictures.push(picture);
    }
    let device = processor();
    report(arguments.json, json!({ "preferences": rows, "curves": pictures, "device": device }), || {
        outln!(
            "| task | teacher | labels | settings | runs | true return, IQM (95 %) | landed flips in 10 s | runs with three | wall time |"
        );
        outln!("|---|---|--:|---|--:|--:|--:|--:|--:|");
        for row in &rows {
            let r = row.mean_return;
            outln!(
                "| {} | {} | {} | {} | {} | {:.0} ({:.0}–{:.0}) | {} | {} | {:.0} s |",
                row.task,
                row.teacher,
                row.labels,
                if row.set.is_empty() { "the file's" } else { &row.set },
                row.runs,
                r.iqm,
                r.low,
                r.high,
                row.landed_flips_per_10s
                    .map_or("–".to_owned(), |f| format!("{:.1} ({:.1}–{:.1})", f.iqm, f.low, f.high)),
                row.three_flips.map_or("–".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
                row.seconds,
            );
        }
        for row in &rows {
            if let Some(after) = &row.afterwards {
                outln!(
                    "\n{}, {}: after the last label {:.2} ({:.2}–{:.2}) of the return is kept; kept or warned of: {:.0} %; \
                     warned of without need: {:.0} %",
                    row.task,
                    run_name(&row.teacher, row.labels, &row.set),
                    after.kept.iqm,
                    after.kept.low,
                    after.kept.high,
                    100.0 * after.kept_or_warned,
                    100.0 * after.false_alarms,
                );
            }
        }
        outln!("\n{device}");
    });
    Ok(())
}

/// What distinguishes a run from others of the same task.
fn run_name(teacher: &str, labels: usize, set: &str) -> String {
    let set = if set.is_empty() { String::new() } else { format!(", {set}") };
    format!("{teacher}, {labels} labels{set}")
}

fn plan(arguments: &BenchTask, precision: Precision) -> Plan {
    Plan {
        task: arguments.task.clone(),
        task_folders: task_folders(),
        backend: arguments.backend.clone(),
        precision,
        threads: arguments.threads,
        threads_per_world: None,
        overrides: toml::Table::new(),
        worlds: arguments.worlds,
        duration: Duration::from_secs_f64(arguments.seconds.max(0.1)),
    }
}

/// Reports one measurement, or several ways of doing the same.
fn speed(what: &str, found: &[Speed], as_json: bool) {
    let all = match found {
        [one] => json!(one),
        several => json!({ what: several }),
    };
    report(as_json, all, || found.iter().for_each(|speed| lines(what, speed)));
}

fn lines(what: &str, speed: &Speed) {
    outln!(
        "{what} {} on {}: {:.0} env steps/s (median of 5; {:.0} to {:.0}), {} worlds, {} threads, {}",
        speed.task,
        speed.backend,
        speed.env_steps_per_s,
        speed.range[0],
        speed.range[1],
        speed.worlds,
        speed.threads,
        speed.adapter.as_ref().unwrap_or(&speed.device)
    );
    if let (Some(_), Some(seconds)) = (&speed.adapter, speed.first_step_s) {
        outln!("first step after {seconds:.1} s, compilation included");
    }
    if let Some(rate) = speed.rollout_steps_per_s {
        outln!("whole rollouts on the device: {rate:.0} env steps/s");
    }
    let together = speed.kernel_worlds.unwrap_or(speed.worlds);
    for (kernel, seconds) in speed.kernel_s.iter().flatten() {
        outln!("  {kernel}: {:.2} ms an env step of {together} worlds", 1e3 * seconds);
    }
    for (stage, seconds) in speed.stages.iter().flatten() {
        outln!("    {stage}, as a kernel of its own: {:.2} ms", 1e3 * seconds);
    }
    if let (Some(threads), Some(room), Some([operations, bytes])) =
        (speed.threads_per_world, speed.workspace_bytes, speed.estimated_operations_and_bytes)
    {
        outln!(
            "threads per world: {threads}, whose workspace takes {room} bytes of {}; estimated for an env step: {operations:.0} operations, \
                 {bytes:.0} bytes of the device's memory",
            if threads == 1 { "the device's memory" } else { "what a workgroup shares" },
        );
    }
}

/// Reports tokens per second and the times behind them.
fn text(arguments: &BenchText) -> anyhow::Result<()> {
    let found = text_speed(&TextSpeedPlan {
        model: arguments.model.clone(),
        precision: arguments.precision,
        batch: arguments.batch.max(1),
        prompt: arguments.prompt.max(1),
        new_tokens: arguments.new.max(1),
        repeats: arguments.repeats.max(1),
    })?;
    report(arguments.json, json!(found), || {
        outln!(
            "writing   {:.0} completion tokens/s ({:.2} s for the prompts, {:.2} s for what follows)",
            found.generate_tokens_per_s,
            found.prompts_s,
            found.columns_s
        );
        outln!("PPO step  {:.0} tokens/s, prompts included ({:.2} s)", found.ppo_tokens_per_s, found.ppo_step_s);
        outln!("{:.0} M parameters, {}", found.parameters as f64 / 1e6, found.machine);
    });
    Ok(())
}

/// Reports the losses and times of gradient steps.
fn text_steps_table(arguments: &BenchTextSteps) -> anyhow::Result<()> {
    let method = match (arguments.preset, arguments.loss) {
        (Some(preset), _) => TextStepsMethod::Preset(preset),
        (None, loss) => TextStepsMethod::Loss(loss.unwrap_or_default()),
    };
    let found = text_steps(&TextStepsPlan {
        model: arguments.model.clone(),
        data: arguments.data.clone(),
        method,
        set: arguments.set.join("; "),
        steps: arguments.steps.max(1),
    })?;
    report(arguments.json, json!(found), || {
        for (i, ((loss, norm), seconds)) in found.losses.iter().zip(&found.grad_norms).zip(&found.seconds).enumerate() {
            outln!("step {}: loss {loss:.6}, gradient norm {norm:.4}, {seconds:.2} s", i + 1);
        }
    });
    Ok(())
}

/// Prints a line to stderr for every finished run, then the table.
fn text_preferences(arguments: &BenchTextPreferences) -> anyhow::Result<()> {
    let rate = arguments.mistake_rate;
    let plan = LabelEfficiencyPlan {
        model: arguments.model.clone(),
        teacher: if rate == 0.0 { TeacherKind::Oracle } else { TeacherKind::Mistaken { rate } },
        labels: arguments.labels.clone(),
        sets: arguments.set.clone(),
        seeds: arguments.seeds.max(1),
        held_out: arguments.held_out,
        output: arguments.output.clone(),
    };
    let set = |set: &str| if set.is_empty() { "the defaults".to_owned() } else { format!("`{set}`") };
    let rows = label_efficiency(&plan, &|run| {
        eprintln!(
            "{}, {} labels, seed {}: {:.1} % of {:.1} % in {:.0} s",
            set(&run.set),
            run.labels,
            run.seed,
            100.0 * run.agreement,
            100.0 * run.ceiling,
            run.seconds
        );
    })?;
    let device = processor();
    report(arguments.json, json!({ "text_preferences": rows, "device": device }), || {
        outln!("| labels | settings | runs | held-out agreement, IQM (95 %) | mean ± deviation | at most |");
        outln!("|--:|---|--:|--:|--:|--:|");
        for row in &rows {
            let (count, percent) = (row.runs.len() as f64, |share: f64| 100.0 * share);
            let mean = row.runs.iter().sum::<f64>() / count;
            let deviation = (row.runs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
            outln!(
                "| {} | {} | {} | {:.1} % ({:.1}–{:.1}) | {:.1} ± {:.1} % | {:.1} % |",
                row.labels,
                set(&row.set),
                row.runs.len(),
                percent(row.agreement.iqm),
                percent(row.agreement.low),
                percent(row.agreement.high),
                percent(mean),
                percent(deviation),
                percent(row.ceiling),
            );
        }
        outln!("\n{device}");
    });
    Ok(())
}

/// Opens the real desk, which answers by itself while training goes on, and reports frame rate and response times.
fn desk(arguments: &BenchDesk) -> anyhow::Result<()> {
    let desk = DeskArguments { task: Some(arguments.task.clone()), ..DeskArguments::default() };
    let (mode, what) = match arguments.mode {
        BenchMode::Control => (ModeTab::Control, arguments.task.as_str()),
        BenchMode::Text => (ModeTab::Text, "text"),
    };
    let plan = ProbePlan { mode, seconds: arguments.seconds, ..ProbePlan::default() };
    let found =
        app::run(desk_options(&desk, Some(plan))?)?.context("the desk was closed before it had measured anything")?;
    let device = processor();
    report(
        arguments.json,
        json!({
            "task": what, "device": device, "fps": found.fps_median, "desk": found,
        }),
        || {
            outln!(
                "desk {}: {:.0} frames/s (5 % of frames below {:.0}), click to next pair {:.0} ms median, {:.0} ms at p95, over {} picks; \
                 first pair after {:.1} s; {} at {}×{}; {device}",
                what,
                found.fps_median,
                found.fps_p5,
                found.click_p50_ms,
                found.click_p95_ms,
                found.picks,
                found.first_pair_s,
                found.adapter,
                found.size[0],
                found.size[1],
            );
        },
    );
    Ok(())
}
