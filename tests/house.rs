//! What neither cargo nor clippy can hold. Cargo's graph says which crate may know which, `clippy.toml` and
//! `crates/clippy.toml` say what may not be called, and the lints of the workspace say where `unwrap` may stand. The
//! rest is looked for in the text here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below these folders whose name ends so, as a path below the root, and its text.
fn files(folders: &[&str], ending: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        // Not every clone has every folder: `fuzz` and `examples` come and go.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true if name != "target" => walk(&path, ending, found),
                false if name.ends_with(ending) => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), ending, &mut found);
    }
    found.sort();
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        (name, fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(named).collect()
}

/// The file's text without the module `tests` at its end.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// Places, `FILE:LINE: text`, of lines that break a rule.
fn broken(files: &[(String, String)], breaks: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut places = Vec::new();
    for (file, text) in files {
        for (i, line) in without_tests(text).lines().enumerate() {
            if breaks(file, line) {
                places.push(format!("{file}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    places
}

fn refuse(places: Vec<String>, rule: &str) {
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn the_program_is_wired_by_the_lab_alone() {
    let mut program = files(&["src"], ".rs");
    program.retain(|(file, _)| !file.ends_with("tests.rs") && !file.contains("/tests/"));
    assert!(program.len() > 30, "only {} files below src", program.len());
    let crates = ["flipside_envs", "flipside_gpu", "flipside_learn", "flipside_preference", "flipside_text"];
    refuse(
        broken(&program, |file, line| {
            (file.starts_with("src/app/") || file.starts_with("src/cli/"))
                && !is_comment(line)
                && (line.contains("crate::store") || crates.iter().any(|name| line.contains(&format!("{name}::"))))
        }),
        "desk and command line reach the work through the lab",
    );
    refuse(
        broken(&program, |file, line| {
            !file.starts_with("src/store/")
                && !file.starts_with("src/settings/")
                && !is_comment(line)
                && (line.contains("std::fs") || line.contains("fs::") || line.contains("File::"))
        }),
        "only the store and the settings touch files",
    );
    refuse(
        broken(&program, |file, line| {
            let heavy =
                [("tch::", "src/lab/"), ("rusqlite", "src/store/"), ("egui", "src/app/"), ("clap::", "src/cli/")];
            !is_comment(line) && heavy.iter().any(|(name, home)| line.contains(name) && !file.starts_with(home))
        }),
        "a heavy crate has one home",
    );
}

/// Every word of `text` that follows `mark`.
fn words_after<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.split(mark).skip(1).map(move |rest| rest.split(|letter| !is_part(letter)).next().unwrap_or_default())
}

/// A file of the desk builds on another if it imports from it, or if it calls a method that only the other defines.
#[test]
fn the_desk_is_built_in_layers() {
    let mut desk = files(&["src/app"], ".rs");
    desk.retain(|(file, _)| file != "src/app/mod.rs");
    let mut modules: Vec<(&str, &str)> = desk
        .iter()
        .map(|(file, text)| (file.trim_start_matches("src/app/").trim_end_matches(".rs"), without_tests(text)))
        .collect();
    assert!(modules.len() > 20, "only {} files in src/app", modules.len());
    let mut found = Vec::new();
    for (module, text) in &modules {
        for other in words_after(text, "super::") {
            assert!(modules.iter().any(|(name, _)| *name == other), "{module} takes `{other}` from the top");
            found.push((*module, other));
        }
        for method in words_after(text, "self.") {
            let defines = |text: &str| text.contains(&format!("fn {method}("));
            let homes: Vec<&str> = modules.iter().filter(|(_, text)| defines(text)).map(|(name, _)| *name).collect();
            found.extend(homes.first().filter(|_| homes.len() == 1).map(|home| (*module, *home)));
        }
    }
    // Takes away, again and again, what builds on nothing that is left.
    loop {
        let left: Vec<&str> = modules.iter().map(|(name, _)| *name).collect();
        let waits = |name: &str| found.iter().any(|(from, to)| *from == name && *to != name && left.contains(to));
        modules.retain(|(name, _)| waits(name));
        if modules.len() == left.len() {
            assert!(left.is_empty(), "these files of the desk build on each other in a circle: {left:?}");
            return;
        }
    }
}

#[test]
fn shaders_lie_in_their_folder() {
    let sources = files(&["src", "crates"], ".rs");
    refuse(
        broken(&sources, |file, line| {
            !file.contains("tests") && ["@vertex", "@fragment", "@compute"].iter().any(|entry| line.contains(entry))
        }),
        "WGSL lies under shaders/, where a test validates it",
    );
}

#[test]
fn comments_keep_within_120_columns() {
    let mut sources = files(&["src", "crates", "tests", "benches", "xtask", "fuzz", "examples"], ".rs");
    sources.extend(files(&["shaders"], ".wgsl"));
    let wide = |line: &str| line.chars().count() > 120;
    let places = sources.iter().flat_map(|(file, text)| {
        let wide = text.lines().enumerate().filter(|(_, line)| is_comment(line) && wide(line));
        wide.map(move |(i, line)| format!("{file}:{}: {} columns", i + 1, line.chars().count()))
    });
    refuse(places.collect(), "comments keep within 120 columns");
}

/// Whatever stands in `backticks` or as a link in the papers and looks like a path of ours must be one.
#[test]
fn the_papers_name_what_is_there() {
    let mut papers = files(&["docs"], ".md");
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CODE_STYLE.md", "CHANGELOG.md"] {
        papers.push((name.to_owned(), fs::read_to_string(root().join(name)).unwrap()));
    }
    let tops = ["src/", "crates/", "tests/", "shaders/", "envs/", "xtask/", "assets/", "docs/", ".ci/"];
    let mut missing = Vec::new();
    for (file, text) in &papers {
        let beside = root().join(file).parent().unwrap().to_owned();
        for words in text.split('`').skip(1).step_by(2) {
            let path = words.split([':', '#', '{', '*']).next().unwrap_or_default();
            let looks = tops.iter().any(|top| path.starts_with(top)) && !path.contains([' ', '<', '\n']);
            if looks && (file == "ARCHITECTURE.md" || file == "CONTRIBUTING.md") && !root().join(path).exists() {
                missing.push(format!("{file}: `{path}`"));
            }
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !beside.join(path).exists() {
                missing.push(format!("{file}: ({link})"));
            }
        }
    }
    refuse(missing, "a paper names what is not there");
    assert!(fs::metadata(root().join("README.md")).unwrap().len() <= 8_000, "README.md is for newcomers: at most 8 kB");
}
