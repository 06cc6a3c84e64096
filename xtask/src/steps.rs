//! The calls of cargo. The program is built with the profile `release`. Tests and lints use the profile `ci`. It is
//! optimised like `release`, because tests simulate and train, and it checks assertions and overflow.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::args::Depth;
use crate::error::Error;
use crate::libtorch::Libtorch;

/// The cargo that started this program, so that both use one toolchain.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The folder of the workspace, wherever xtask was called from.
fn root() -> &'static Path {
    // `xtask/` lies directly in it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts `flipside`. This program lies at `target/debug/xtask`, wherever `target` is.
pub fn binary() -> Result<PathBuf, Error> {
    binary_of("release")
}

fn binary_of(profile: &str) -> Result<PathBuf, Error> {
    let here = env::current_exe().map_err(Error::file("find", Path::new("xtask")))?;
    let target = here.parent().and_then(Path::parent).map_or_else(|| root().join("target"), Path::to_owned);
    Ok(target.join(profile).join("flipside"))
}

pub fn build(libtorch: &Libtorch) -> Result<(), Error> {
    if !binary()?.exists() {
        eprintln!("xtask: building for the first time, which takes some minutes (8 or so on 2 cores)");
    }
    let mut command = cargo_command(libtorch, &["build", "--release", "--bin", "flipside"]);
    let status = command.status().map_err(|why| Error::Program { program: "cargo".to_owned(), why })?;
    if status.success() { Ok(()) } else { Err(Error::Step("the build")) }
}

/// Replaces this process by `flipside`, which keeps its signals and exit status. Returns only if that fails.
pub fn become_flipside(words: &[String]) -> Error {
    match binary() {
        Ok(program) => {
            let why = clean(Command::new(&program).args(words)).exec();
            Error::Program { program: program.display().to_string(), why }
        }
        Err(error) => error,
    }
}

/// What `flipside` is told for `cargo xtask weights`. The next build embeds what it writes.
pub fn weights() -> [String; 4] {
    ["text", "weights", "--output", &root().join("assets/models").display().to_string()].map(str::to_owned)
}

/// Everything that must hold before a change is shared. All steps run even after one failed, so that one run shows
/// everything there is to do. With `words`, it is `cargo test` with these alone.
pub fn test(libtorch: &Libtorch, depth: Depth, words: &[String]) -> Result<ExitCode, Error> {
    let mut tests = cargo_command(libtorch, &["test", "--profile", "ci", "--workspace"]);
    tests.args(words);
    if !words.is_empty() {
        let status = tests.status().map_err(|why| Error::Program { program: "cargo".to_owned(), why })?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    tests.arg("--no-fail-fast");
    let mut docs = cargo_command(libtorch, &["doc", "--profile", "ci", "--workspace", "--no-deps"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    let lints = ["clippy", "--profile", "ci", "--workspace", "--all-targets", "--", "-D", "warnings"];
    // What someone who uses only the environments builds: neither a graphics device nor rapier.
    let bare = ["check", "--profile", "ci", "--package", "flipside-envs", "--no-default-features"];
    // The loader must find libtorch by the binary's run path alone, without help from the environment.
    let mut start = Command::new(binary_of("ci")?);
    start.arg("--version").env_clear();
    let mut steps = vec![
        ("formatting", cargo_command(libtorch, &["fmt", "--all", "--check"])),
        ("lints", cargo_command(libtorch, &lints)),
    ];
    match depth {
        Depth::Quick => {
            tests.args(["--lib", "--bins"]);
            steps.push(("tests", tests));
        }
        Depth::Usual | Depth::All => steps.extend([
            ("bare envs", cargo_command(libtorch, &bare)),
            ("documentation", docs),
            ("tests", tests),
            ("bare start", start),
        ]),
    }
    if depth == Depth::All {
        let long = ["test", "--profile", "ci", "--workspace", "--no-fail-fast", "--", "--ignored"];
        steps.push(("long verdicts", cargo_command(libtorch, &long)));
    }
    let mut report = Vec::new();
    for (name, mut command) in steps {
        eprintln!("\nxtask: {name}: {}", spelled(&command));
        let begun = Instant::now();
        let passed = match command.status() {
            Ok(status) => {
                // A program that ends with an exit code has said why. One that a signal ended (out of memory, say) has
                // not.
                if status.code().is_none() {
                    eprintln!("xtask: {name}: {status}");
                }
                status.success()
            }
            Err(why) => {
                eprintln!("xtask: {name}: could not be started: {why}");
                false
            }
        };
        report.push((name, passed, begun.elapsed()));
    }
    eprintln!("\n{}", summary(&report));
    Ok(if report.iter().all(|(_, passed, _)| *passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo_command(libtorch: &Libtorch, words: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command.args(words).current_dir(root());
    libtorch.apply(&mut command);
    command
}

/// Removes the library folders that `cargo run` added for this program, because they could hide a wrong run path.
fn clean(command: &mut Command) -> &mut Command {
    let Some(path) = env::var_os("LD_LIBRARY_PATH") else { return command };
    let target = binary().ok().and_then(|program| Some(program.parent()?.parent()?.to_owned()));
    // $CARGO is TOOLCHAIN/bin/cargo.
    let toolchain = env::var_os("CARGO").and_then(|cargo| Some(Path::new(&cargo).parent()?.parent()?.to_owned()));
    let theirs = |folder: &PathBuf| {
        target.as_ref().is_some_and(|target| folder.starts_with(target))
            || toolchain.as_ref().is_some_and(|toolchain| folder.starts_with(toolchain))
    };
    let kept: Vec<PathBuf> = env::split_paths(&path).filter(|folder| !theirs(folder)).collect();
    match env::join_paths(&kept) {
        Ok(joined) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", joined),
        _ => command.env_remove("LD_LIBRARY_PATH"),
    }
}

/// The command as a person would type it.
fn spelled(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

fn summary(report: &[(&str, bool, Duration)]) -> String {
    let failed: Vec<&str> = report.iter().filter(|(_, passed, _)| !passed).map(|(name, ..)| *name).collect();
    let total: Duration = report.iter().map(|(.., took)| *took).sum();
    let verdict = if failed.is_empty() { "all passed".to_owned() } else { format!("FAILED: {}", failed.join(", ")) };
    let mut text = format!("xtask: {verdict}, in {}", clock(total));
    for (name, passed, took) in report {
        text.push_str(&format!("\n    {name:<14}{:<8}{:>10}", if *passed { "passed" } else { "FAILED" }, clock(*took)));
    }
    text
}

/// `12 s`, `3 min 05 s`.
fn clock(took: Duration) -> String {
    match (took.as_secs_f64().round() as u64, 60) {
        (seconds, minute) if seconds < minute => format!("{seconds} s"),
        (seconds, minute) => format!("{} min {:02} s", seconds / minute, seconds % minute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_failed() {
        let seconds = Duration::from_secs;
        let passed = summary(&[("formatting", true, seconds(1)), ("tests", true, seconds(184))]);
        assert_eq!(
            passed,
            "xtask: all passed, in 3 min 05 s\n    formatting    passed         1 s\n    tests         passed  3 min 04 s"
        );
        let failed =
            summary(&[("lints", false, seconds(59)), ("tests", true, seconds(0)), ("docs", false, seconds(60))]);
        assert!(failed.starts_with("xtask: FAILED: lints, docs, in 1 min 59 s\n"), "{failed}");
    }

    #[test]
    fn a_step_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("/opt/rust/bin/cargo");
        command.args(["test", "--release"]);
        assert_eq!(spelled(&command), "cargo test --release");
    }
}
