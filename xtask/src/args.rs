//! The command line of `cargo xtask`.

use crate::error::Error;

pub const HELP: &str = "\
Set up, build, run and test Flipside.

    cargo xtask run [--cuda] [--yes] [-- ARGS…]    build, then open the desk (or `flipside ARGS…`)
    cargo xtask test [--quick|--all] [-- ARGS…]    formatting, lints, docs and every test (or `cargo test ARGS…` alone)
    cargo xtask build [--cuda] [--yes]             stop at target/release/flipside
    cargo xtask weights [--cuda] [--yes]           train the built-in language models again, into assets/models
    cargo xtask setup [--cuda] [--yes]             stop after libtorch and the system packages; print the environment
                                                   that a plain `cargo build --release` needs

    --quick  formatting, lints and the tests inside the crates alone
    --all    the long verdicts too: twenty seeds, twenty kills
    --cuda   take libtorch with its CUDA libraries (2.5 GB to fetch) instead of the CPU build
    --yes    install missing system packages without asking (root does so anyway)

LIBTORCH or LIBTORCH_USE_PYTORCH, where set, decide which libtorch is used; nothing is fetched then.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Help,
    Setup,
    Build,
    Run,
    Test,
    Weights,
}

/// How much `cargo xtask test` runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// Formatting, lints, and the tests inside the crates.
    Quick,
    /// What must hold before a change is shared.
    #[default]
    Usual,
    /// The long verdicts too.
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub task: Task,
    pub depth: Depth,
    /// Take libtorch with its CUDA libraries instead of the CPU build.
    pub cuda: bool,
    /// Install missing system packages without asking.
    pub yes: bool,
    /// The arguments after `--`: for `flipside` or for `cargo test`.
    pub rest: Vec<String>,
}

/// Parses the arguments of `cargo xtask`. An unknown one is refused, never ignored.
pub fn parse(words: &[String]) -> Result<Invocation, Error> {
    let (ours, rest) = match words.iter().position(|word| word == "--") {
        Some(at) => (&words[..at], words[at + 1..].to_vec()),
        None => (words, Vec::new()),
    };
    let mut invocation = Invocation { task: Task::Help, depth: Depth::Usual, cuda: false, yes: false, rest };
    let mut named = None;
    for word in ours {
        let task = match word.as_str() {
            "--cuda" => {
                invocation.cuda = true;
                continue;
            }
            "--quick" | "--all" => {
                let depth = if word == "--quick" { Depth::Quick } else { Depth::All };
                if invocation.depth != Depth::Usual && invocation.depth != depth {
                    return Err(Error::Usage("`--quick` and `--all` exclude each other".to_owned()));
                }
                invocation.depth = depth;
                continue;
            }
            "--yes" | "-y" => {
                invocation.yes = true;
                continue;
            }
            "help" | "--help" | "-h" => Task::Help,
            "setup" => Task::Setup,
            "build" => Task::Build,
            "run" => Task::Run,
            "test" => Task::Test,
            "weights" => Task::Weights,
            other => {
                return Err(Error::Usage(match named {
                    Some(Task::Run | Task::Test) => format!("`{other}` is not for xtask: put it after `--`"),
                    _ => format!("`{other}` is not known"),
                }));
            }
        };
        if let Some(before) = named.replace(task)
            && before != task
        {
            return Err(Error::Usage(format!("one task at a time, and `{word}` is a second one")));
        }
    }
    invocation.task = named.unwrap_or(Task::Help);
    if !invocation.rest.is_empty() && !matches!(invocation.task, Task::Run | Task::Test) {
        return Err(Error::Usage("only `run` and `test` take arguments after `--`".to_owned()));
    }
    if invocation.depth != Depth::Usual && (invocation.task != Task::Test || !invocation.rest.is_empty()) {
        return Err(Error::Usage("`--quick` and `--all` are for `test` without arguments after `--`".to_owned()));
    }
    Ok(invocation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, expected: Result<(Task, bool, bool, &[&str]), &str>) {
        let words: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
        match (parse(&words), expected) {
            (Ok(got), Ok((task, cuda, yes, rest))) => {
                assert_eq!((got.task, got.cuda, got.yes), (task, cuda, yes), "{typed}");
                assert_eq!(got.rest, rest, "{typed}");
            }
            (Err(got), Err(part)) => assert!(got.to_string().contains(part), "{typed}: {got}"),
            (got, expected) => panic!("{typed}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn words_mean_what_they_say() {
        check("", Ok((Task::Help, false, false, &[])));
        check("--help", Ok((Task::Help, false, false, &[])));
        check("run", Ok((Task::Run, false, false, &[])));
        check("--yes build --cuda", Ok((Task::Build, true, true, &[])));
        check("weights", Ok((Task::Weights, false, false, &[])));
        check(
            "run -y -- train hopper --reward true",
            Ok((Task::Run, false, true, &["train", "hopper", "--reward", "true"])),
        );
        // Arguments after `--` are never xtask's own, even if they look like it.
        check("test -- --cuda setup", Ok((Task::Test, false, false, &["--cuda", "setup"])));
        check("test -- gae -- --nocapture", Ok((Task::Test, false, false, &["gae", "--", "--nocapture"])));
    }

    #[test]
    fn unknown_words_are_refused() {
        check("rnu", Err("`rnu` is not known"));
        check("run hopper", Err("put it after `--`"));
        check("run test", Err("one task at a time"));
        check("build -- hopper", Err("only `run` and `test`"));
        check("--cpu run", Err("`--cpu` is not known"));
        check("test --quick --all", Err("exclude each other"));
        check("build --all", Err("are for `test`"));
        check("test --quick -- gae", Err("are for `test`"));
    }
}
