//! Writes the command line's help as a page of Markdown, from clap's definitions.

use super::arguments::Arguments;
use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write as _;

/// The page docs/reference/command-line.md.
pub(super) fn markdown() -> String {
    let mut command = Arguments::command();
    command.build();
    let mut page = String::from(
        "<!-- Written by `flipside markdown-help`; a test holds it current. -->\n\n\
         # Command line\n\n\
         What is set of a run by name, with `--set` and `--config`, is listed in [settings.md](settings.md).\n",
    );
    section(&command, "flipside", &mut page);
    page
}

fn section(command: &Command, name: &str, page: &mut String) {
    let _ = write!(page, "\n## `{name}`\n\n{}\n", plain(command.get_long_about().or(command.get_about())));
    let usage = command.clone().bin_name(name.to_owned()).render_usage().to_string();
    let _ = write!(page, "\n```text\n{}\n```\n", usage.trim().trim_start_matches("Usage: ").trim());
    let shown = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let of_all = |arg: &&Arg| arg.is_global_set() && name != "flipside";
    let arguments: Vec<&Arg> = command.get_arguments().filter(shown).filter(|arg| !of_all(arg)).collect();
    if !arguments.is_empty() {
        page.push_str("\n| argument | meaning |\n|---|---|\n");
    }
    for arg in arguments {
        let _ = writeln!(page, "| `{}` | {} |", called(arg), meaning(arg));
    }
    let verbs: Vec<&Command> =
        command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help").collect();
    if !verbs.is_empty() {
        page.push_str("\n| verb | what it does |\n|---|---|\n");
    }
    for verb in &verbs {
        let _ = writeln!(page, "| `{name} {}` | {} |", verb.get_name(), plain(verb.get_about()));
    }
    for verb in verbs {
        section(verb, &format!("{name} {}", verb.get_name()), page);
    }
}

/// How an argument is typed.
fn called(arg: &Arg) -> String {
    let values: Vec<String> = arg.get_value_names().into_iter().flatten().map(|name| format!("<{name}>")).collect();
    let values = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    let Some(long) = arg.get_long() else { return values };
    let short = arg.get_short().map_or(String::new(), |short| format!("-{short}, "));
    format!("{short}--{long} {values}").trim_end().to_owned()
}

fn meaning(arg: &Arg) -> String {
    let mut text = plain(arg.get_help());
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|value| {
            let help = value.get_help().map_or(String::new(), |help| format!(": {}", plain(Some(help))));
            format!("<br>`{}`{help}", value.get_name())
        })
        .collect();
    let defaults: Vec<String> = arg.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        let _ = write!(text, " Default: {}.", defaults.join(", "));
    }
    text + &words.concat()
}

/// A help text on one line, with a full stop at its end.
fn plain(text: Option<&StyledStr>) -> String {
    let text = text.map(StyledStr::to_string).unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    if text.is_empty() || text.ends_with('.') { text } else { text + "." }
}
