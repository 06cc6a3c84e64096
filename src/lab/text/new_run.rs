//! Checks a new run before anything starts: what is wrong, at the setting that it is about.

use super::reward_functions::{folders_of, parse};
use crate::settings::TextRun;
use std::path::Path;

/// Settings that cannot work, by name, each with a sentence that says what to do. It reads no file: only whether the
/// files are there.
pub fn check_text_run(run: &TextRun) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut wrong = |name: &str, sentence: String| problems.push((name.to_owned(), sentence));
    let shown = |path: &Path| path.display().to_string();
    let folders = [
        ("text.model", &run.model, "config.json"),
        ("text.adapter", &run.adapter, "adapter_config.json"),
        ("text.reward_model", &run.reward_model, "config.json"),
    ];
    for (name, path, needed) in folders {
        let Some(path) = path else { continue };
        let is_reward_adapter = name == "text.reward_model" && path.join("adapter_config.json").is_file();
        if !path.exists() {
            wrong(name, format!("There is no {}; choose a folder that exists.", shown(path)));
        } else if path.is_dir() && !path.join(needed).is_file() && !is_reward_adapter {
            wrong(name, format!("{} has no {needed}; choose the folder that holds it.", shown(path)));
        }
    }
    let files = [
        ("text.documents", &run.documents),
        ("text.demonstrations", &run.demonstrations),
        ("text.prompts", &run.prompts),
        ("text.comparisons", &run.comparisons),
    ];
    for (name, path) in files {
        if let Some(path) = path.as_ref().filter(|path| !path.is_file()) {
            let what = if path.is_dir() { "is a folder" } else { "does not exist" };
            wrong(name, format!("{} {what}; choose a file of JSON lines.", shown(path)));
        }
    }
    match parse(&run.reward_functions) {
        Err(error) => wrong("text.reward_functions", error.to_string()),
        Ok(functions) => {
            if let Some(folder) = folders_of(&functions).find(|folder| !Path::new(folder).exists()) {
                wrong("text.reward_functions", format!("There is no {folder}; choose a folder that exists."));
            }
        }
    }
    if let Err(sentence) = run.check() {
        // The sentence begins with the setting's name, plain or quoted.
        let name = sentence.split_whitespace().find(|word| word.trim_matches('`').starts_with("text."));
        let name = name.map_or(String::new(), |name| name.trim_matches(['`', ',', ':']).to_owned());
        wrong(&name, sentence);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::LoraSettings;

    #[test]
    fn every_problem_stands_at_its_setting() {
        let root = tempfile::tempdir().unwrap();
        let (empty, file) = (root.path().join("empty"), root.path().join("data.jsonl"));
        std::fs::create_dir(&empty).unwrap();
        std::fs::write(&file, "{}").unwrap();
        let mut run = TextRun {
            model: Some(empty.clone()),
            adapter: Some(root.path().join("nowhere")),
            demonstrations: Some(empty.clone()),
            prompts: Some(file.clone()),
            ..TextRun::default()
        };
        run.ppo.temperature = 0.0;
        let problems = check_text_run(&run);
        let names: Vec<&str> = problems.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["text.model", "text.adapter", "text.demonstrations", "text.ppo.temperature"]);
        assert!(problems[0].1.contains("config.json") && problems[1].1.contains("nowhere"), "{problems:?}");
        assert!(check_text_run(&TextRun::default()).is_empty());
        for (function, words) in [("regexp:a", "is no reward function"), ("model:nowhere", "no nowhere")] {
            let problems =
                check_text_run(&TextRun { reward_functions: vec![function.to_owned()], ..TextRun::default() });
            assert!(problems[0].0 == "text.reward_functions" && problems[0].1.contains(words), "{problems:?}");
        }
        let lora = LoraSettings { dropout: 1.0, ..LoraSettings::default() };
        let problems = check_text_run(&TextRun { lora: Some(lora), ..TextRun::default() });
        assert_eq!(problems[0].0, "text.lora.dropout");
    }
}
