//! The house rules as a test: which room may import what, which crate belongs where, who may touch files, where randomness comes from.
//! `ARCHITECTURE.md` gives the reasons. Each rule is looked for in the source as the compiler would see it (comments and strings taken
//! out, `use` groups spread, `super` followed), and fails with its own sentence.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

// --- The rules ---

/// Every room, with the rooms that it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("basics", &[]),
    ("settings", &["basics"]),
    ("compute", &[]),
    ("physics", &["basics", "settings", "compute"]),
    ("gym", &["basics", "settings", "compute", "physics"]),
    ("learn", &["basics", "settings", "compute"]),
    ("preference", &["basics", "settings", "compute", "learn"]),
    ("text", &["basics", "settings", "learn", "preference"]),
    ("store", &["basics", "settings"]),
    ("view", &["basics", "settings"]),
    ("lab", &["basics", "settings", "compute", "physics", "gym", "learn", "preference", "text", "store", "view"]),
    ("app", &["basics", "settings", "view", "lab"]),
    ("cli", &["basics", "settings", "view", "lab", "app"]),
];

/// Crates that would tie the program to them if they spread, with the rooms that may name them.
const CRATES: &[(&[&str], &[&str])] = &[
    (&["rapier3d", "parry3d", "mjcf_rs"], &["physics"]),
    (&["tch", "torch_sys"], &["learn", "preference", "text"]),
    (&["wgpu", "naga", "naga_oil"], &["compute", "view", WGPU_ADAPTER]),
    (&["egui", "eframe", "egui_wgpu", "egui_winit", "egui_plot", "winit"], &["app"]),
    (&["clap"], &["cli", "settings"]),
    (&["rusqlite", "safetensors", "npyz"], &["store"]),
    (&["tokenizers"], &["text"]),
    (&["anyhow"], &["lab", "app", "cli"]),
];

/// The one file of the desk that may name wgpu.
const WGPU_ADAPTER: &str = "app/viewport.rs";

/// Where files are read and written.
const TOUCH_FILES: &[&str] = &["store", "settings", "view/film.rs"];

const INNERMOST: &str = "`basics` imports none of ours; `settings` only `basics`";
const CRATE_HOME: &str = "a crate that others could stand in for is named in its own room alone";
const NO_LEARNING: &str = "`physics` and `gym` know nothing of learning; control and text never import each other";
const FILES: &str = "only `store`, `settings` and `view::film` touch files; the others take bytes and return values";
const WIRING: &str = "only `lab` wires rooms; `app` and `cli` reach the work through it alone";
const RANDOMNESS: &str = "randomness comes from `basics::Stream`, never from a library's generator";
const NO_UNWRAP: &str = "no unwrap or expect outside tests without a comment that proves it";
const SHADERS: &str = "WGSL lies under shaders/, where a test validates it, not in Rust strings";

/// A broken rule.
#[derive(Debug, PartialEq)]
struct Broken {
    rule: &'static str,
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.what, self.rule)
    }
}

/// Every rule that one file breaks. `file` is its path below `src`; `is_test` says that it is compiled for tests alone.
fn check(file: &str, text: &str, is_test: bool) -> Vec<Broken> {
    let source = Source::read(file, text, is_test);
    let home = file.split_once('/').map(|(room, _)| room);
    let lives_in = |places: &[&str]| places.iter().any(|&place| Some(place) == home || place == file);
    let mut broken = Vec::new();
    let mut breaks = |rule, line, what: String| broken.push(Broken { rule, file: file.to_owned(), line, what });

    for path in &source.paths {
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        let words = segments.join("::");
        if let (Some(home), Some(room)) = (home, &path.room)
            && home != room
        {
            let known = ROOMS.iter().find(|(name, _)| *name == home);
            let allowed = known.is_some_and(|(_, imports)| imports.contains(&room.as_str()));
            let rule = import_rule(home, room);
            // A test may borrow another room's values to try its own on.
            let borrows = path.in_test && rule == WIRING;
            if !allowed && !borrows && ROOMS.iter().any(|(name, _)| name == room) {
                breaks(rule, path.line, format!("{home} imports {room}"));
            }
        }
        for (crates, places) in CRATES {
            // wgpu also comes by way of the crates that carry it.
            let named = segments.iter().take(3).find(|&&s| crates.contains(&s) && (s == "wgpu" || s == segments[0]));
            if let Some(name) = named.filter(|_| path.room.is_none() && segments.len() > 1 && !lives_in(places)) {
                breaks(CRATE_HOME, path.line, format!("{name} is named outside {}", places.join(", ")));
            }
        }
        let file_type = ["File", "OpenOptions"].iter().any(|name| segments.contains(name));
        let fs = segments.windows(2).any(|pair| pair == ["std", "fs"]) || (segments[0] == "fs" && segments.len() > 1);
        if !path.in_test && !lives_in(TOUCH_FILES) && ((file_type && segments.len() > 1) || fs) {
            breaks(FILES, path.line, words.clone());
        }
        if is_random(&segments, path.in_test) {
            breaks(RANDOMNESS, path.line, words);
        }
    }
    for call in &source.calls {
        let name = call.name.as_str();
        let touches = matches!(name, "exists" | "try_exists" | "is_file" | "is_dir" | "read_dir" | "canonicalize");
        if touches && !call.in_test && !lives_in(TOUCH_FILES) {
            breaks(FILES, call.line, format!(".{name}()"));
        }
        // libtorch's in-place generators, and layers that draw from them.
        if matches!(
            name,
            "uniform_" | "normal_" | "random_" | "bernoulli_" | "exponential_" | "multinomial" | "dropout"
        ) {
            breaks(RANDOMNESS, call.line, format!(".{name}()"));
        }
        let proved = (call.line.saturating_sub(3)..=call.line).any(|line| source.comments.contains(&line));
        if matches!(name, "unwrap" | "expect") && !call.in_test && !proved {
            breaks(NO_UNWRAP, call.line, format!(".{name}()"));
        }
    }
    for (line, words) in text.lines().enumerate() {
        if ["@vertex", "@fragment", "@compute"].iter().any(|stage| words.contains(stage)) {
            breaks(SHADERS, line + 1, "an entry point of WGSL".to_owned());
        }
    }
    broken
}

/// Which rule an import that is not allowed breaks.
fn import_rule(home: &str, room: &str) -> &'static str {
    const CONTROL: [&str; 2] = ["physics", "gym"];
    match home {
        "basics" | "settings" => INNERMOST,
        _ if CONTROL.contains(&home) && ["learn", "preference", "text"].contains(&room) => NO_LEARNING,
        "text" if CONTROL.contains(&room) => NO_LEARNING,
        _ => WIRING,
    }
}

fn is_random(segments: &[&str], in_test: bool) -> bool {
    const ANYWHERE: &[&str] = &[
        "thread_rng",
        "manual_seed",
        "manual_seed_all",
        "from_os_rng",
        "try_from_os_rng",
        "from_entropy",
        "from_rng",
        "make_rng",
        "ThreadRng",
        "OsRng",
        "SysRng",
        "getrandom",
        "fastrand",
    ];
    // A test may hold our stream against a library's.
    const OUTSIDE_TESTS: &[&str] = &["SeedableRng", "StdRng", "SmallRng", "ChaCha8Rng", "Xoshiro256PlusPlus"];
    const OF_TENSORS: &[&str] = &["rand", "randn", "randint", "randperm", "rand_like", "randn_like", "bernoulli"];
    segments.iter().any(|s| ANYWHERE.contains(s) || (!in_test && OUTSIDE_TESTS.contains(s)))
        || segments.starts_with(&["rand", "rng"])
        || segments.starts_with(&["rand", "random"])
        || segments.windows(2).any(|pair| pair[0] == "Tensor" && OF_TENSORS.contains(&pair[1]))
}

// --- The source as the compiler sees it ---

/// What the rules ask of one file.
struct Source {
    /// Every path that is named, `use` groups spread: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
    paths: Vec<NamedPath>,
    /// Every method call.
    calls: Vec<Call>,
    /// Lines that have a comment.
    comments: BTreeSet<usize>,
}

struct NamedPath {
    segments: Vec<String>,
    line: usize,
    in_test: bool,
    /// The room of ours that it leads to by `crate`, `flipside` or `super`.
    room: Option<String>,
}

struct Call {
    name: String,
    line: usize,
    in_test: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `::`
    Sep,
    Sign(char),
}

/// Words of the language that may stand before a path's leading `::`.
const BEFORE_A_PATH: &[&str] =
    &["as", "break", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use", "where"];

impl Source {
    fn read(file: &str, text: &str, is_test: bool) -> Source {
        let (tokens, comments) = tokens(text);
        let kinds: Vec<&Token> = tokens.iter().map(|(token, _)| token).collect();
        let tests = test_ranges(&kinds);
        let in_test = |at: usize| is_test || tests.iter().any(|range| range.contains(&at));
        let nesting = nesting(&kinds);
        let (mut paths, mut calls) = (Vec::new(), Vec::new());
        for (at, token) in kinds.iter().enumerate() {
            let Token::Word(word) = token else { continue };
            let before = |n: usize| at.checked_sub(n).map(|i| kinds[i]);
            if before(1) == Some(&Token::Sign('.')) {
                if kinds.get(at + 1) == Some(&&Token::Sign('(')) {
                    calls.push(Call { name: word.clone(), line: tokens[at].1, in_test: in_test(at) });
                }
                continue;
            }
            // The middle of a path was read with its beginning. `use ::tch` begins one; `tch::Tensor` and `Vec::<f32>::new` go on.
            let goes_on = match before(2) {
                Some(Token::Word(word)) => !BEFORE_A_PATH.contains(&word.as_str()),
                other => other == Some(&Token::Sign('>')),
            };
            if before(1) == Some(&Token::Sep) && goes_on {
                continue;
            }
            let mut spread = Vec::new();
            spread_tree(&kinds, at, Vec::new(), &mut spread);
            for segments in spread {
                let room = room(file, nesting[at], &segments);
                paths.push(NamedPath { segments, line: tokens[at].1, in_test: in_test(at), room });
            }
        }
        Source { paths, calls, comments }
    }
}

/// Words and signs with their lines, without comments, strings and characters; and the lines that have comments.
fn tokens(text: &str) -> (Vec<(Token, usize)>, BTreeSet<usize>) {
    let chars: Vec<char> = text.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut comments) = (Vec::new(), BTreeSet::new());
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match chars[i] {
            '/' if at(i + 1) == '/' => {
                comments.insert(line);
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                comments.insert(line);
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            '"' => i = after_string(&chars, i),
            // 'a' and '\n' are characters, 'a alone is a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && chars[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            c if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let hashes = chars[i..].iter().take_while(|&&c| c == '#').count();
                match word.as_str() {
                    "r" | "br" | "cr" if at(i + hashes) == '"' => {
                        // A raw string ends with a quote and as many hashes as it began with.
                        i += hashes + 1;
                        while i < chars.len() && !(chars[i] == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                            i += 1;
                        }
                        i += 1 + hashes;
                    }
                    "b" | "c" if at(i) == '"' => i = after_string(&chars, i),
                    "r" if hashes == 1 => i += 1,
                    _ => tokens.push((Token::Word(word), line)),
                }
            }
            ':' if at(i + 1) == ':' => {
                tokens.push((Token::Sep, line));
                i += 2;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push((Token::Sign(c), line));
                }
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|&&c| c == '\n').count();
    }
    (tokens, comments)
}

/// The place behind the string whose opening quote is at `i`.
fn after_string(chars: &[char], mut i: usize) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Adds the paths of the tree that begins at `at`; returns the place behind it.
fn spread_tree(tokens: &[&Token], mut at: usize, mut prefix: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    loop {
        match tokens.get(at) {
            Some(Token::Word(word)) => {
                prefix.push(word.clone());
                at += 1;
                if tokens.get(at) != Some(&&Token::Sep) {
                    break;
                }
                at += 1;
            }
            Some(Token::Sign('{')) => {
                at += 1;
                while at < tokens.len() && tokens[at] != &Token::Sign('}') {
                    at = spread_tree(tokens, at, prefix.clone(), paths);
                    // Past `as name` and the comma.
                    while at < tokens.len() && !matches!(tokens[at], Token::Sign(',' | '}')) {
                        at += 1;
                    }
                    if tokens.get(at) == Some(&&Token::Sign(',')) {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some(Token::Sign('*')) => {
                prefix.push("*".to_owned());
                at += 1;
                break;
            }
            // `::<` and the like: what was named so far is the path.
            _ => break,
        }
    }
    paths.push(prefix);
    at
}

/// The tokens of every item under `#[cfg(test)]`.
fn test_ranges(tokens: &[&Token]) -> Vec<Range<usize>> {
    let is = |at: usize, word: &str| matches!(tokens.get(at), Some(Token::Word(w)) if w == word);
    let sign = |at: usize, c: char| tokens.get(at) == Some(&&Token::Sign(c));
    let mut ranges = Vec::new();
    for start in 0..tokens.len() {
        if !(sign(start, '#') && sign(start + 1, '[') && is(start + 2, "cfg") && sign(start + 3, '(')) {
            continue;
        }
        let close = closing(tokens, start + 1);
        let names: Vec<usize> = (start..close).filter(|&i| is(i, "test")).collect();
        if names.is_empty() || (start..close).any(|i| is(i, "not")) {
            continue;
        }
        let mut end = close + 1;
        while sign(end, '#') {
            end = closing(tokens, end + 1) + 1;
        }
        while end < tokens.len() && !sign(end, ';') && !sign(end, '{') {
            end = if sign(end, '(') || sign(end, '[') { closing(tokens, end) + 1 } else { end + 1 };
        }
        ranges.push(start..if sign(end, '{') { closing(tokens, end) + 1 } else { end + 1 });
    }
    ranges
}

/// The files, without `.rs`, that one file declares as modules for tests alone: `#[cfg(test)] mod samples;`.
fn test_modules(file: &str, text: &str) -> Vec<String> {
    let (tokens, _) = tokens(text);
    let kinds: Vec<&Token> = tokens.iter().map(|(token, _)| token).collect();
    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let named = test_ranges(&kinds).into_iter().filter_map(|range| match kinds[range] {
        [.., Token::Word(keyword), Token::Word(name), Token::Sign(';')] if keyword == "mod" => Some(name.clone()),
        _ => None,
    });
    named.map(|name| format!("{module}/{name}")).collect()
}

/// The place of the bracket that closes the one at `open`.
fn closing(tokens: &[&Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// For every token, how many `mod name { … }` of this file it lies in.
fn nesting(tokens: &[&Token]) -> Vec<usize> {
    let mut nesting = vec![0; tokens.len()];
    for at in 2..tokens.len() {
        let opens = tokens[at] == &Token::Sign('{') && matches!(tokens[at - 1], Token::Word(_));
        if opens && matches!(tokens[at - 2], Token::Word(word) if word == "mod") {
            for inside in &mut nesting[at..closing(tokens, at)] {
                *inside += 1;
            }
        }
    }
    nesting
}

/// The room that a path leads to, if it leads out of its own file's module by name.
fn room(file: &str, nesting: usize, path: &[String]) -> Option<String> {
    let supers = path.iter().take_while(|s| *s == "super").count();
    let root = match path[0].as_str() {
        "crate" | "flipside" => 1,
        "super" => {
            let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
            let depth = module.split('/').filter(|s| !matches!(*s, "lib" | "main")).count() + nesting;
            if supers < depth {
                return None;
            }
            supers
        }
        _ => return None,
    };
    path.get(root).cloned()
}

// --- The tests ---

#[test]
fn the_source_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 50, "only {} files were found below {}", files.len(), root.display());
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|path| {
            let file = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            (file, fs::read_to_string(path).unwrap())
        })
        .collect();
    let tests: Vec<String> = texts.iter().flat_map(|(file, text)| test_modules(file, text)).collect();
    let is_test = |file: &str| {
        tests
            .iter()
            .any(|module| file.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    let broken: Vec<String> = (texts.iter())
        .flat_map(|(file, text)| check(file, text, is_test(file)))
        .map(|broken| format!("src/{broken}"))
        .collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_maps_name_every_room_and_nothing_that_is_not_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root.join("src")).unwrap().map(Result::unwrap).filter(|e| e.path().is_dir()) {
        let room = entry.file_name().into_string().unwrap();
        assert!(ROOMS.iter().any(|(name, _)| *name == room), "src/{room} has no rule in tests/house.rs");
        assert!(lib.contains(&format!("pub mod {room};")), "src/lib.rs does not name {room}");
        assert!(map.contains(&format!("`src/{room}`")), "ARCHITECTURE.md does not name `src/{room}`");
    }
    // Whatever stands there in `backticks` and looks like a path of ours must be one.
    let tops = ["src/", "tests/", "shaders/", "envs/", "xtask/", "assets/", ".ci/"];
    let named: Vec<&str> =
        map.split('`').skip(1).step_by(2).filter(|words| tops.iter().any(|top| words.starts_with(top))).collect();
    assert!(named.len() > 10, "ARCHITECTURE.md names only {named:?}");
    for path in named {
        assert!(root.join(path).exists(), "ARCHITECTURE.md names {path}, which is not there");
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.append(&mut rust_files(&path)),
            false if path.extension().is_some_and(|e| e == "rs") => files.push(path),
            false => {}
        }
    }
    files.sort();
    files
}

/// The checker itself: each line is a file, a text, and the rule that it must break, or none.
#[test]
fn the_checker_sees_what_it_should() {
    let none: Option<&str> = None;
    for (file, text, expected) in [
        // Which room imports which.
        ("basics/clip.rs", "use crate::settings::RunSettings;", Some(INNERMOST)),
        ("settings/run.rs", "use crate::{basics::Seed, store::Session};", Some(INNERMOST)),
        ("settings/run.rs", "use flipside_core::{Seed, Stream};", none),
        ("physics/world.rs", "fn f(x: &flipside_learn::Ppo) {}", Some(NO_LEARNING)),
        ("gym/task.rs", "use super::super::preference::ClipPool;", Some(NO_LEARNING)),
        ("gym/task.rs", "use super::super::physics::Model;", none),
        ("gym/task.rs", "mod inner { use super::super::preference::ClipPool; }", none),
        ("gym/task.rs", "mod inner { use super::super::super::preference::ClipPool; }", Some(NO_LEARNING)),
        ("text/model.rs", "use flipside_envs::gym::Task;", Some(NO_LEARNING)),
        ("learn/ppo.rs", "use flipside_envs::gym::Task;", Some(WIRING)),
        ("store/session.rs", "use\n crate ::{\n basics, lab\n as l };", Some(WIRING)),
        ("app/desk.rs", "use crate::store::Session;", Some(WIRING)),
        ("app/desk.rs", "use crate::lab::Command;", none),
        ("cli/run.rs", "let x = flipside_envs::gym::Task::load();", Some(WIRING)),
        ("lab/mod.rs", "use crate::{gym, physics, store, learn, preference};", none),
        ("view/mod.rs", "use flipside_view::Camera; mod lab; use lab::X;", none),
        ("view/mod.rs", "#[cfg(test)] mod tests { use flipside_envs::physics::Model; }", none),
        ("physics/mod.rs", "#[cfg(test)] mod tests { use flipside_learn::Ppo; }", Some(NO_LEARNING)),
        ("basics/clip.rs", "// use crate::lab::Lab;\n/* crate::lab /* nested */ crate::lab */", none),
        (
            "basics/clip.rs",
            r####"const A: &str = r##"crate::lab "# "##; const B: char = '"'; use crate::lab;"####,
            Some(INNERMOST),
        ),
        ("basics/clip.rs", r#"fn f<'a>(x: &'a str) -> char { let _ = "\" crate::lab"; '\'' }"#, none),
        // Which crate is named where.
        ("gym/env.rs", "use tch::Tensor;", Some(CRATE_HOME)),
        ("gym/env.rs", "use ::rapier3d::prelude::*;", Some(CRATE_HOME)),
        ("physics/world.rs", "use rapier3d::prelude::*;", none),
        ("lab/mod.rs", "let db = rusqlite::Connection::open(p);", Some(CRATE_HOME)),
        ("app/desk.rs", "use eframe::wgpu;", Some(CRATE_HOME)),
        ("app/desk.rs", "use eframe::{egui, egui_wgpu::wgpu::Device};", Some(CRATE_HOME)),
        ("app/viewport.rs", "use eframe::{egui, wgpu::Device};", none),
        ("view/renderer.rs", "use wgpu::Device;", none),
        ("cli/run.rs", "use eframe::egui;", Some(CRATE_HOME)),
        ("lab/mod.rs", "#[derive(clap::Parser)] struct A;", Some(CRATE_HOME)),
        ("store/error.rs", "use anyhow::Context;", Some(CRATE_HOME)),
        // Who touches files.
        ("learn/ppo.rs", "std::fs::write(path, bytes);", Some(FILES)),
        ("learn/ppo.rs", "use std::fs::File;", Some(FILES)),
        ("lab/mod.rs", "use std::{fs, io};", Some(FILES)),
        ("lab/mod.rs", "if folder.exists() {}", Some(FILES)),
        ("view/renderer.rs", "File::create(path)?;", Some(FILES)),
        ("view/film.rs", "File::create(path)?;", none),
        ("store/disk.rs", "fs::rename(a, b)?;", none),
        ("lab/mod.rs", "#[cfg(test)]\n#[allow(unused)]\nmod tests { fn f() { std::fs::read(p).unwrap(); } }", none),
        ("lab/mod.rs", "#[cfg(test)] use std::fs; fn f() { fs::read(p); }", Some(FILES)),
        ("lab/mod.rs", "#[cfg(not(test))] fn f() { fs::read(p); }", Some(FILES)),
        // Where randomness comes from.
        ("gym/env.rs", "let x = rand::rng().random();", Some(RANDOMNESS)),
        ("gym/env.rs", "use rand::{Rng, thread_rng};", Some(RANDOMNESS)),
        ("gym/env.rs", "use rand::{Rng, RngExt};", none),
        ("learn/ppo.rs", "tch::manual_seed(3);", Some(RANDOMNESS)),
        ("learn/ppo.rs", "let x = Tensor::randn([3], kind);", Some(RANDOMNESS)),
        ("learn/ppo.rs", "weight.normal_(0.0, 1.0);", Some(RANDOMNESS)),
        ("basics/seed.rs", "use rand::SeedableRng;", Some(RANDOMNESS)),
        ("basics/seed.rs", "#[cfg(test)] mod tests { use rand::SeedableRng; }", none),
        // What may panic.
        ("gym/env.rs", "fn f() { x.unwrap(); }", Some(NO_UNWRAP)),
        (
            "gym/env.rs",
            "fn f() {\n // There is always one: new() refuses none.\n x\n  .first()\n  .expect(\"one\"); }",
            none,
        ),
        ("gym/env.rs", "fn f() { x.unwrap_or(0); }", none),
        ("gym/env.rs", "#[cfg(test)] fn f() { x.unwrap(); } fn g() {}", none),
        // Where shaders lie.
        ("app/viewport.rs", "const S: &str = \"@fragment fn main() {}\";", Some(SHADERS)),
    ] {
        let broken = check(file, text, false);
        let rules: BTreeSet<&str> = broken.iter().map(|b| b.rule).collect();
        assert_eq!(rules, expected.into_iter().collect(), "{file}: {text}");
    }
    let unwraps = "fn f() { x.unwrap(); }";
    assert_eq!((check("gym/env.rs", unwraps, true).len(), check("gym/env.rs", unwraps, false).len()), (0, 1));
    let parent = "mod a;\n#[cfg(test)]\nmod samples;\n#[cfg(test)]\nmod inline {}\n#[cfg(not(test))]\nmod b;";
    assert_eq!(test_modules("view/mod.rs", parent), ["view/samples"]);
    assert_eq!(test_modules("learn/ppo.rs", "#[cfg(test)] pub(crate) mod tests;"), ["learn/ppo/tests"]);
    let broken = check("basics/a.rs", "//! A.\n\nuse crate::lab::Lab;\n", false);
    assert_eq!(broken[0].to_string(), format!("basics/a.rs:3: basics imports lab: {INNERMOST}"));
}
