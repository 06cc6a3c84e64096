//! The verb that lists settings.

use super::arguments::ListSettings;
use super::output::out;
use super::run::report;
use crate::settings::names::{self, Setting};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Width in columns to which meanings are wrapped on a terminal.
const COLUMNS: usize = 100;

/// Lists settings.
pub fn settings(arguments: &ListSettings) -> anyhow::Result<()> {
    if arguments.markdown {
        out!("{}", markdown());
        return Ok(());
    }
    let found = names::settings(arguments.path.as_deref().unwrap_or_default()).map_err(anyhow::Error::msg)?;
    report(arguments.json, json!({ "settings": found }), || {
        found.iter().for_each(|setting| out!("{}", words(setting)))
    });
    Ok(())
}

/// A setting as it is shown on a terminal.
fn words(setting: &Setting) -> String {
    let mut text = format!("{} = {}  ({})\n", setting.name, default(setting), setting.kind);
    text += &broken(&setting.meaning, 4);
    for choice in setting.choices.iter().filter(|choice| !choice.meaning.is_empty()) {
        text += &broken(&format!("{}: {}", choice.word, choice.meaning), 6);
    }
    text
}

/// A text wrapped to [`COLUMNS`], with every line indented.
fn broken(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(lines, "{:indent$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    if !line.is_empty() {
        let _ = writeln!(lines, "{:indent$}{line}", "");
    }
    lines
}

/// The default in words.
fn default(setting: &Setting) -> String {
    match &setting.default {
        Value::Null if names::is_of_the_task(&setting.name) => "what the task's file says".to_owned(),
        Value::Null => "none".to_owned(),
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}

/// The page docs/reference/settings.md.
pub(super) fn markdown() -> String {
    let all = names::settings("").unwrap_or_default();
    let mut page = String::from(
        "<!-- Written by `flipside settings --markdown`; a test holds it current. -->\n\n\
         # Settings\n\n\
         Every verb that runs something takes `--set NAME=VALUE` (several with `;` between them) and `--config RUN.toml`, a file of the same names: \
         `flipside train`, `demo`, the desk (`flipside` alone), `text base`, `text sft`, `text reward`, `text ppo`, `text preference`, `text ilql`, `text online-dpo`, `text rejection-sampling`, `text tldr run`, `bench ppo`, `bench learning` and \
         `bench preferences`. `bench text-preferences` and `bench text-algorithms` take `--set` alone. A value is TOML; a single word needs no quotes, and `none` stands for no value.\n\n\
         ```sh\n\
         flipside train hopper --set 'ppo.gamma=0.995; labels.choice=entropy'\n\
         flipside text ppo --set text.ppo.kl.target=4\n\
         flipside train --config run.toml --seed 3\n\
         ```\n\n\
         `--set` wins over the file. An option that is short for a setting, such as `--labels` for `num_labels`, wins over the file, too; one that \
         contradicts a `--set` is refused. What is set is stored with the session. A session that exists keeps what it has. \
         Opened with another value, it names what differs and refuses. A longer plan (`env_steps`, `num_labels`), another \
         teacher and the settings of text stages that have not begun may change.\n\n\
         The tables `ppo`, `labels`, `explore`, `reward_model` and `monitor` are those of a task's file, which may have other values than the \
         defaults here; what is set wins over the file.\n",
    );
    let table_of = |name: &str| name.rsplit_once('.').map_or("", |(table, _)| table).to_owned();
    let mut tables: Vec<String> = Vec::new();
    for setting in &all {
        let table = table_of(&setting.name);
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    for table in tables {
        let about = names::about(&table).unwrap_or_default();
        let title = if table.is_empty() { "The run".to_owned() } else { format!("`{table}`") };
        let _ = write!(page, "\n## {title}\n\n{about}{}", if about.is_empty() { "" } else { "\n\n" });
        page += "| setting | default | value | meaning |\n|---|---|---|---|\n";
        for setting in all.iter().filter(|setting| table_of(&setting.name) == table) {
            let choices = setting.choices.iter().filter(|choice| !choice.meaning.is_empty());
            let choices: String = choices.map(|choice| format!("<br>`{}`: {}", choice.word, choice.meaning)).collect();
            let row = format!(
                "| `{}` | {} | {} | {}{choices} |",
                setting.name,
                code(&default(setting), setting),
                setting.kind,
                setting.meaning
            );
            let _ = writeln!(page, "{row}");
        }
    }
    page
}

fn code(default: &str, setting: &Setting) -> String {
    if setting.default.is_null() { default.to_owned() } else { format!("`{default}`") }
}
