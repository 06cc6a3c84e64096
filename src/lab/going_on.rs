//! Resuming a session. It keeps its settings. Every setting that a person asks for must equal the session's own, or be
//! one that a run may change.

use super::opening::{load_task, name_to_keep};
use super::{LabError, text};
use crate::settings::names::Belongs;
use crate::settings::{Asked, ControlRun, Mode, RunSettings, TeacherKind, TextRun, TextStage, find};
use flipside_core::Arrays;
use flipside_envs::tasks::Folders;
use serde_json::{Map, Value};

/// The settings in force: the `stored` ones, with those that `opener` asks for where they may change. `arrays` are
/// those of the latest checkpoint.
///
/// # Errors
/// A sentence that names every setting that differs, with both values.
pub(super) fn go_on(
    stored: &RunSettings,
    opener: &RunSettings,
    arrays: Option<&Arrays>,
) -> Result<RunSettings, LabError> {
    let folder = stored.folder.as_deref().unwrap_or("".as_ref()).display();
    let asked = opener.asked.all();
    if asked.iter().any(|(name, _)| !Belongs::of(name).fits(&stored.mode)) {
        return Err(LabError::Settings(match stored.mode {
            Mode::Control(_) => format!("The session in {folder} teaches a robot; name another folder for text."),
            Mode::Text(_) => format!(
                "The session in {folder} teaches a language model: go on with it at the desk or by `flipside text`, or name another folder."
            ),
        }));
    }
    let has = in_force(stored)?;
    let reached = arrays.filter(|_| stored.text().is_some()).map(text::reached).transpose()?;
    let (mut taken, mut differing) = (Asked::default(), Vec::new());
    for (name, value) in asked {
        let had = find(&has, &name).unwrap_or(&Value::Null);
        if same(&stored.task_folders, &name, had, value) {
            continue;
        }
        let may = match &stored.mode {
            Mode::Control(_) => may_change(&name, had, value),
            Mode::Text(run) => text_may_change(run, reached, &opener.asked, &name, had, value),
        };
        match may {
            true => taken.set(&name, value.clone()).map_err(LabError::Settings)?,
            false => differing.push(format!("`{name}` is {had} there, and {value} is asked for")),
        }
    }
    if !differing.is_empty() {
        return Err(LabError::Settings(format!(
            "The session in {folder} has other settings: {}. Leave them out to go on with what it has, or name another folder for a new one.",
            differing.join("; ")
        )));
    }
    let mut settings = stored.with(&taken).map_err(LabError::Settings)?;
    // If no teacher was asked for, the way of opening decides: a person answers if one sits at the desk; otherwise the
    // teacher must be one that needs nobody.
    let person = |settings: &RunSettings| settings.teacher == TeacherKind::Person;
    if opener.asked.get("teacher").is_none() && person(stored) != person(opener) {
        settings.teacher = opener.teacher;
    }
    if let Mode::Text(run) = &settings.mode {
        run.check().map_err(LabError::Settings)?;
    }
    settings.asked = Asked::default();
    Ok(settings)
}

/// All values of a run, including those of its task's file.
fn in_force(settings: &RunSettings) -> Result<Map<String, Value>, LabError> {
    let mut tree = settings.tree();
    if let Mode::Control(run) = &settings.mode {
        let task = load_task(&settings.task_folders, run)?;
        let spec = task.spec();
        let file = spec.table().map_err(flipside_envs::gym::TaskError::from)?;
        for (name, value) in file.iter().filter(|(name, _)| !tree.contains_key(*name)).collect::<Vec<_>>() {
            tree.insert(name.clone(), serde_json::to_value(value).unwrap_or_default());
        }
        let tables = [
            ("ppo", serde_json::to_value(spec.ppo())),
            ("labels", serde_json::to_value(&spec.labels)),
            ("explore", serde_json::to_value(&spec.explore)),
            ("reward_model", serde_json::to_value(spec.reward_model())),
            ("monitor", serde_json::to_value(&spec.monitor)),
        ];
        // Plain structs can always be written as JSON.
        tree.extend(tables.into_iter().map(|(name, table)| (name.to_owned(), table.unwrap_or_default())));
        tree.insert("terminate_when_unhealthy".to_owned(), spec.terminate_when_unhealthy.into());
    }
    Ok(tree)
}

/// Whether two values of a setting mean the same. Of a teacher, only the parts that were asked for are compared. A task
/// may be given by any of its names.
fn same(folders: &Folders, name: &str, had: &Value, asked: &Value) -> bool {
    match (name, had, asked) {
        ("teacher", Value::Object(had), Value::Object(asked)) => {
            asked.iter().all(|(part, value)| had.get(part) == Some(value))
        }
        ("task", Value::String(had), Value::String(asked)) => {
            had == asked
                || load_task(folders, &ControlRun::of(asked)).is_ok_and(|task| name_to_keep(asked, &task) == *had)
        }
        _ => had == asked,
    }
}

/// Whether a robot's run may change this setting to the asked value.
fn may_change(name: &str, had: &Value, asked: &Value) -> bool {
    match name {
        "teacher" | "answer_seconds" => true,
        "num_labels" | "env_steps" => asked.as_u64() > had.as_u64(),
        _ => false,
    }
}

/// Whether a run in text mode may change this setting to the asked value. Pipeline stages after `run.until` may have
/// any settings. `reached` is the stage of the latest checkpoint, and whether it has been finished.
fn text_may_change(
    run: &TextRun,
    reached: Option<(TextStage, bool)>,
    all: &Asked,
    name: &str,
    had: &Value,
    asked: &Value,
) -> bool {
    let until = all.get("text.until").and_then(|until| serde_json::from_value(until.clone()).ok()).unwrap_or(run.until);
    // On another way than the one so far, only what is finished can be built on.
    let finished = reached.is_some_and(|(_, done)| done);
    let later = until > run.until && (finished || until.path().contains(&run.until));
    let longer = asked.as_u64() > had.as_u64();
    match name {
        "teacher" | "text.skip_bad_lines" | "text.ignore_fields" | "text.gradient_checkpointing" => true,
        "num_labels" => longer && (later || !finished),
        "text.until" => later,
        "text.frozen_layers" => later && run.frozen_layers == 0,
        _ if name == "text.lora" || name.starts_with("text.lora.") => later && run.lora.is_none(),
        _ => match stage_of(name) {
            None => false,
            Some(stage) if stage > run.until => true,
            Some(stage) => {
                let steps = [
                    "text.base_steps",
                    "text.supervised_steps",
                    "text.reward_steps",
                    "text.updates",
                    "text.preference_steps",
                    "text.ilql_steps",
                    "text.online_dpo_steps",
                ];
                let goes_on = reached.is_none_or(|(at, done)| at <= stage && !done);
                steps[stage as usize] == name && longer && goes_on
            }
        },
    }
}

/// The pipeline stage that a setting belongs to.
fn stage_of(name: &str) -> Option<TextStage> {
    let mut parts = name.split('.').skip(1);
    match parts.next()? {
        "documents" | "base_steps" | "base" => Some(TextStage::Base),
        "demonstrations" | "supervised_steps" | "supervised" => Some(TextStage::Supervised),
        "comparisons" | "reward_steps" | "reward" => Some(TextStage::Reward),
        "prompts" | "updates" | "policy_checkpoints" | "ppo" | "reward_model" => Some(TextStage::Ppo),
        "preference_steps" | "preference" => Some(TextStage::Preference),
        "ilql_steps" | "ilql" => Some(TextStage::Ilql),
        "online_dpo_steps" | "online_dpo" => Some(TextStage::OnlineDpo),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
