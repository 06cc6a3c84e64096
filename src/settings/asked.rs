//! The settings that a person asked for, by name: with `--set`, in a file for `--config`, or with an option that is
//! short for a setting.

use super::names::{self, Belongs, OWN};
use super::{ControlRun, Mode, RunSettings, TextRun};
use flipside_envs::tasks::overlay;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// Settings that were asked for, by name. Each of them exists and has a value of the right type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked(Map<String, Value>);

impl Asked {
    /// Parses the value of `--set`: `NAME=VALUE`, several of them separated by `;` or line ends. A value is TOML; a
    /// word needs no quotes.
    ///
    /// # Errors
    /// A sentence that names the setting, what was found and what is expected.
    pub fn assignments(text: &str) -> Result<Asked, String> {
        parts_of(text)?.into_iter().try_fold(Asked::default(), |asked, part| Ok(asked.and(Asked::of(part)?)))
    }

    /// Reads settings from a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read; text that is not TOML (with the line); and those of [`Asked::assignments`].
    pub fn read(file: &Path) -> Result<Asked, String> {
        let at = |why: String| format!("{}: {why}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| at(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("{}:{line}: {}", file.display(), error.message().trim().replace('\n', "; "))
        })?;
        Asked::of(table).map_err(at)
    }

    fn of(table: toml::Table) -> Result<Asked, String> {
        match names::check(&json("", toml::Value::Table(table))?)? {
            Value::Object(map) => Ok(Asked(map)),
            _ => Ok(Asked::default()),
        }
    }

    /// Adds this setting to those asked for.
    ///
    /// # Errors
    /// As [`Asked::assignments`].
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), String> {
        let nested = name.rsplit('.').fold(value.into(), |value, part| {
            let mut table = Map::new();
            table.insert(part.to_owned(), value);
            Value::Object(table)
        });
        if let Value::Object(more) = names::check(&nested)? {
            put_all(&mut self.0, more);
        }
        Ok(())
    }

    /// Both together. Where both have a value, that of `later` counts.
    #[must_use]
    pub fn and(mut self, later: Asked) -> Asked {
        put_all(&mut self.0, later.0);
        self
    }

    /// The value that was asked for, if any.
    pub fn get(&self, name: &str) -> Option<&Value> {
        find(&self.0, name)
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All settings that were asked for: each one's full name and value.
    pub fn all(&self) -> Vec<(String, &Value)> {
        fn leaves<'a>(path: &str, value: &'a Value, all: &mut Vec<(String, &'a Value)>) {
            match value {
                Value::Object(parts) if path != "teacher" => {
                    for (key, part) in parts {
                        leaves(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, part, all);
                    }
                }
                _ => all.push((path.to_owned(), value)),
            }
        }
        let mut all = Vec::new();
        self.0.iter().for_each(|(key, value)| leaves(key, value, &mut all));
        all
    }

    /// The first setting that both ask for with different values: its name, the value here and the value of `other`.
    pub fn contradicts(&self, other: &Asked) -> Option<(String, Value, Value)> {
        let all = self.all().into_iter();
        let mut both = all.filter_map(|(name, value)| Some((other.get(&name)?.clone(), name, value.clone())));
        both.find(|(theirs, _, ours)| theirs != ours).map(|(theirs, name, ours)| (name, ours, theirs))
    }

    /// Whether any of these settings exists in text mode only.
    pub fn is_of_text(&self) -> bool {
        self.0.keys().any(|name| Belongs::of(name) == Belongs::Text)
    }

    /// The overrides of a task's file in a `--set` of a benchmark. The text is parsed as by [`Asked::assignments`], but
    /// every name must be one of the task's file. A benchmark may change all of those.
    ///
    /// # Errors
    /// As [`Asked::assignments`]. A name that the task's file does not have is only found when the file is read.
    pub fn of_the_task(text: &str) -> Result<toml::Table, String> {
        let mut table = toml::Table::new();
        parts_of(text)?.into_iter().for_each(|part| overlay(&mut table, part));
        let (tables, rest): (toml::Table, toml::Table) =
            table.into_iter().partition(|(name, _)| !OWN.contains(&name.as_str()) && names::settings(name).is_ok());
        let mut overrides = rest;
        overlay(&mut overrides, Asked::of(tables)?.overrides()?);
        Ok(overrides)
    }

    /// The settings that override the task's file, if no other settings were asked for.
    ///
    /// # Errors
    /// A sentence that names the other setting.
    pub fn only_overrides(&self) -> Result<toml::Table, String> {
        match self.0.keys().find(|name| OWN.contains(&name.as_str())) {
            Some(name) => {
                Err(format!("a benchmark sets `{name}` itself; only what overrides the task's file can be set"))
            }
            None => self.overrides(),
        }
    }

    /// The settings that override the task's file.
    ///
    /// # Errors
    /// A number that TOML cannot express.
    pub fn overrides(&self) -> Result<toml::Table, String> {
        let of_the_file = self.0.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
        let each = of_the_file.map(|(name, value)| {
            let value = toml::Value::try_from(value).map_err(|error| format!("`{name}`: {error}"))?;
            Ok((name.clone(), value))
        });
        each.collect()
    }
}

/// Parses assignments as TOML: as a whole if possible, so that tables and lists may span several lines, otherwise line
/// by line.
fn parts_of(text: &str) -> Result<Vec<toml::Table>, String> {
    let lines = text.replace(';', "\n");
    if let Ok(whole) = lines.parse() {
        return Ok(vec![whole]);
    }
    lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(assignment).collect()
}

/// Parses `NAME=VALUE`. A value that is not TOML is taken as a word.
fn assignment(line: &str) -> Result<toml::Table, String> {
    let error = match line.parse::<toml::Table>() {
        Ok(table) => return Ok(table),
        Err(error) => error,
    };
    let (name, value) = line.split_once('=').ok_or_else(|| format!("`{line}` is not NAME=VALUE"))?;
    let (name, value) = (name.trim(), value.trim());
    if value.is_empty() || value.starts_with(['"', '\'', '[', '{']) {
        return Err(format!("`{line}` is not NAME=VALUE with a value in TOML: {}", error.message().trim()));
    }
    let word = toml::Value::String(value.to_owned());
    format!("{name} = {word}").parse().map_err(|_| format!("`{line}` is not NAME=VALUE"))
}

fn json(path: &str, value: toml::Value) -> Result<Value, String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(whole) => whole.into(),
        toml::Value::Float(number) if number.is_finite() => number.into(),
        toml::Value::Float(number) => return Err(format!("`{path}` is {number}; expected a finite number")),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => {
            let item = |(i, item)| json(&format!("{path}[{i}]"), item);
            items.into_iter().enumerate().map(item).collect::<Result<Vec<_>, _>>()?.into()
        }
        toml::Value::Table(parts) => {
            let part = |(key, part): (String, toml::Value)| Ok((key.clone(), json(&below(&key), part)?));
            Value::Object(parts.into_iter().map(part).collect::<Result<Map<_, _>, String>>()?)
        }
    })
}

/// The value at a name with dots, if there is one.
pub fn find<'a>(tree: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut parts = name.split('.');
    let first = tree.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// Writes the values of `changes` over those of `tree`. If the kind of teacher changes, nothing of the previous teacher
/// remains.
fn put_all(tree: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (key, change) in changes {
        match (tree.get_mut(&key), change) {
            (Some(Value::Object(part)), Value::Object(changes)) => {
                if changes.get("kind").is_some_and(|kind| part.get("kind").is_some_and(|before| before != kind)) {
                    part.clear();
                }
                put_all(part, changes);
            }
            (_, change) => drop(tree.insert(key, change)),
        }
    }
}

impl RunSettings {
    /// The settings as a tree of names.
    pub fn tree(&self) -> Map<String, Value> {
        let mut tree = Map::new();
        let mut put = |name: &str, value: Result<Value, serde_json::Error>| {
            // Numbers, words and tables can always be written as JSON.
            tree.insert(name.to_owned(), value.unwrap_or_default());
        };
        put("teacher", serde_json::to_value(self.teacher));
        put("num_labels", Ok(self.labels.into()));
        put("seed", Ok(self.seed.into()));
        match &self.mode {
            Mode::Control(run) => {
                put("task", Ok(run.task.as_str().into()));
                put("reward", serde_json::to_value(run.reward));
                put("backend", Ok(run.backend.as_str().into()));
                put("answer_seconds", Ok(self.answer_seconds.into()));
                put("env_steps", Ok(self.env_steps.into()));
                for (name, value) in &run.overrides {
                    put(name, serde_json::to_value(value));
                }
            }
            Mode::Text(run) => put("text", serde_json::to_value(run)),
        }
        tree
    }

    /// The same run with the settings that were asked for. The result remembers which these were, because an existing
    /// session must agree with them.
    ///
    /// # Errors
    /// A setting that runs of this mode do not have; settings that contradict each other.
    pub fn with(&self, asked: &Asked) -> Result<RunSettings, String> {
        if let Some(name) = asked.0.keys().find(|name| !Belongs::of(name).fits(&self.mode)) {
            let (has, is) = match self.mode {
                Mode::Control(_) => ("a language model", "a robot"),
                Mode::Text(_) => ("a robot", "a language model"),
            };
            return Err(format!("`{name}` is a setting of runs that teach {has}; this one teaches {is}"));
        }
        let mut tree = self.tree();
        put_all(&mut tree, asked.0.clone());
        names::check_teacher(&tree["teacher"])?;
        let mode = match &self.mode {
            Mode::Control(run) => {
                let mut overrides = run.overrides.clone();
                overlay(&mut overrides, asked.overrides()?);
                Mode::Control(ControlRun {
                    task: read(&tree, "task")?,
                    reward: read(&tree, "reward")?,
                    backend: read(&tree, "backend")?,
                    overrides,
                })
            }
            Mode::Text(_) => {
                let mut run: TextRun = read(&tree, "text")?;
                // A smaller batch lowers the minibatch size, too, unless a minibatch size was asked for.
                if asked.get("text.ppo.minibatch_size").is_none() {
                    run.ppo.minibatch_size = run.ppo.minibatch_size.min(run.ppo.batch_size);
                }
                Mode::Text(run)
            }
        };
        let control = matches!(mode, Mode::Control(_));
        Ok(RunSettings {
            teacher: read(&tree, "teacher")?,
            answer_seconds: if control { read(&tree, "answer_seconds")? } else { self.answer_seconds },
            labels: read(&tree, "num_labels")?,
            env_steps: match &mode {
                Mode::Control(_) => read(&tree, "env_steps")?,
                Mode::Text(run) => run.steps(),
            },
            seed: read(&tree, "seed")?,
            mode,
            folder: self.folder.clone(),
            asked: self.asked.clone().and(asked.clone()),
            task_folders: self.task_folders.clone(),
        })
    }
}

fn read<T: DeserializeOwned>(tree: &Map<String, Value>, name: &str) -> Result<T, String> {
    let value = tree.get(name).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|error| format!("`{name}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::names;
    use serde_json::json;

    fn asked(text: &str) -> Asked {
        Asked::assignments(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    /// Sets each setting to another value. The run then has that value, and nothing else changes.
    #[test]
    fn what_is_set_is_what_the_run_has() {
        let runs = [RunSettings::default(), RunSettings::of_text(TextRun::default())];
        let mut seen = 0;
        for setting in names::settings("").unwrap() {
            let base = runs.iter().find(|run| Belongs::of(&setting.name).fits(&run.mode)).unwrap();
            let another = match (setting.choices.last(), &setting.default, setting.kind.as_str()) {
                _ if setting.name.starts_with("teacher.") || setting.name == "text.lora" => continue,
                (Some(choice), ..) => json!(choice.word),
                (_, Value::Bool(truth), _) => json!(!truth),
                (.., "list of texts") => json!(["one", "two"]),
                (_, Value::Array(_), _) => json!([3, 4]),
                (_, Value::Object(_), _) => json!({ "head": 0.25 }),
                (_, _, "text, or none" | "text") => json!("another"),
                (_, _, "number" | "number, or none") => json!(0.125),
                (_, _, kind) if kind.starts_with("whole number") => json!(7),
                (.., "true or false") => json!(false),
                (.., kind) => {
                    assert_eq!(kind, "table or list", "{}", setting.name);
                    continue;
                }
            };
            let mut one = Asked::default();
            one.set(&setting.name, another.clone()).unwrap_or_else(|why| panic!("{why}"));
            let run = base.with(&one).unwrap_or_else(|why| panic!("{why}"));
            if setting.name != "teacher" {
                assert_eq!(find(&run.tree(), &setting.name), Some(&another), "{}", setting.name);
            }
            let stored: RunSettings = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
            assert_eq!(stored, RunSettings { asked: Asked::default(), ..run.clone() }, "{}", setting.name);
            // Set it back to its first value.
            let mut back = Asked::default();
            let was = find(&base.tree(), &setting.name).cloned();
            if let Some(was) = was.filter(|was| !was.is_null()) {
                back.set(&setting.name, was).unwrap_or_else(|why| panic!("{why}"));
                let back = run.with(&back).unwrap();
                // A smaller batch has lowered the minibatch size, and a table keeps what was added to it.
                if setting.name != "text.ppo.batch_size" && !setting.default.is_object() {
                    assert_eq!(RunSettings { asked: Asked::default(), ..back }, *base, "{}", setting.name);
                }
            }
            seen += 1;
        }
        assert!(seen > 120, "{seen} settings were tried");
    }

    #[test]
    fn values_are_toml_and_words_need_no_quotes() {
        let many = asked(
            "teacher=hasty; text.precision = bf16; text.model=/models/small\ntext.ppo.kl = { target = 4, beta = 0.2 }",
        );
        assert_eq!(many.get("text.ppo.kl.target"), Some(&json!(4.0)));
        assert_eq!(many.get("text.model"), Some(&json!("/models/small")));
        assert_eq!(many.get("teacher.mistakes"), Some(&json!(0.1)));
        assert_eq!(asked("env_steps = 2e6").get("env_steps"), Some(&json!(2_000_000)));
        assert_eq!(asked("text.lora = none").get("text.lora"), Some(&Value::Null));
        assert_eq!(asked("reward = true").get("reward"), Some(&json!("true")));
        assert_eq!(asked("seed = 1").and(asked("seed = 2")).get("seed"), Some(&json!(2)));
        let run =
            RunSettings::of_text(TextRun::default()).with(&asked("text.lora.rank = 4; text.ppo.batch = 8")).unwrap();
        let run = run.text().unwrap();
        assert_eq!((run.lora.as_ref().unwrap().rank, run.ppo.minibatch_size), (4, 8));
        // A minibatch size that was asked for stays, so that one beyond the batch is refused.
        let asked_for = asked("text.ppo.minibatch = 12; text.ppo.batch_size = 8");
        let run = RunSettings::of_text(TextRun::default()).with(&asked_for);
        assert!(run.map_or(true, |run| run.text().unwrap().ppo.check().is_err()));
        let noisy = RunSettings::default().with(&asked("teacher = noisy; teacher.beta = 2")).unwrap();
        assert_eq!(find(&noisy.tree(), "teacher.beta"), Some(&json!(2.0)));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_name_and_what_was_expected() {
        let refusal = |text: &str| {
            let run = RunSettings::default();
            Asked::assignments(text).and_then(|asked| run.with(&asked)).map(|_| text.to_owned()).unwrap_err()
        };
        for (text, sentence) in [
            ("ppo.num_steps = four", "`ppo.num_steps` is \"four\"; expected a whole number"),
            ("ppo.num_steps = -4", "`ppo.num_steps` is -4; expected a whole number"),
            ("ppo.hidden = [64, 0.5]", "`ppo.hidden[1]` is 0.5; expected a whole number"),
            ("labels.max_lead = inf", "`labels.max_lead` is inf; expected a finite number"),
            ("labels.select_best_policy = 1", "`labels.select_best_policy` is 1; expected true or false"),
            (
                "labels.choice = random",
                "`labels.choice` is \"random\"; expected one of disagreement, entropy, coverage, disagreement-coverage",
            ),
            ("ppo = 3", "`ppo` is 3; expected a table"),
            (
                "ppo.gama = 0.9",
                "there is no setting `ppo.gama`; did you mean `ppo.gamma`, `teacher.gamma` or `text.ppo.gamma`?",
            ),
            ("num_label = 3", "there is no setting `num_label`; did you mean `num_labels`?"),
            ("kl.target = 3", "there is no setting `kl.target`; did you mean `text.ppo.kl.target`"),
            ("reward = false", "`reward` is false; expected one of true, preferences"),
            ("xyzzy = 3", "there is no setting `xyzzy`; `flipside settings` lists them all"),
            ("teacher.rate = 0.2", "`teacher.rate` goes with `teacher.kind` = mistaken, not with person"),
            ("teacher.kind = mistaken", "`teacher.kind` = mistaken needs `teacher.rate`"),
            ("text.updates = 3", "`text` is a setting of runs that teach a language model; this one teaches a robot"),
            ("seed", "`seed` is not NAME=VALUE"),
        ] {
            let said = refusal(text);
            assert!(said.starts_with(sentence), "{text}: {said}");
        }
    }

    /// An error names the line of the file, and what is typed wins over the file.
    #[test]
    fn a_file_of_settings_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, "seed = 4\n[ppo]\ngamma = 0.9\n").unwrap();
        let both = Asked::read(&file).unwrap().and(asked("ppo.gamma = 0.8"));
        assert_eq!((both.get("seed"), both.get("ppo.gamma")), (Some(&json!(4)), Some(&json!(0.8))));
        assert_eq!(both.contradicts(&asked("seed = 5")), Some(("seed".to_owned(), json!(4), json!(5))));
        std::fs::write(&file, "seed = 4\n[ppo\n").unwrap();
        assert!(Asked::read(&file).unwrap_err().starts_with(&format!("{}:2: ", file.display())));
    }
}
