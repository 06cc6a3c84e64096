//! `cargo xtask`: one command from a clone to a running desk, or to a tested tree.
//!
//! Flipside needs three things that cargo cannot fetch: libtorch (see [`libtorch`]), a few system libraries (see
//! [`system`]), and a display to open its window on (see [`display`]). This program provides or checks them, then hands
//! over to cargo and leaves cargo's output as it is. It uses the standard library alone, so it is built within seconds
//! of the first command. Downloading needs TLS, checksums and zip archives. A small Python script (`fetch.py`) does it,
//! because Python is needed for pip anyway.

mod args;
mod display;
mod error;
mod libtorch;
mod manifest;
mod pins;
mod steps;
mod system;

use std::process::ExitCode;

use args::{Invocation, Task};
use error::Error;
use libtorch::{Flavour, Libtorch};
use system::Purpose;

fn main() -> ExitCode {
    let typed: Vec<String> = std::env::args().skip(1).collect();
    match args::parse(&typed).and_then(|invocation| execute(&invocation)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(invocation: &Invocation) -> Result<ExitCode, Error> {
    match invocation.task {
        Task::Help => {
            println!("{}", args::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Task::Setup => {
            let libtorch = set_up(invocation, Purpose::Test)?;
            // The only line on stdout, for `eval "$(cargo xtask setup)"`. After that, cargo can be called directly.
            println!("{}", libtorch.shell_line());
            Ok(ExitCode::SUCCESS)
        }
        Task::Build => {
            let libtorch = set_up(invocation, Purpose::Build)?;
            steps::build(&libtorch)?;
            eprintln!("xtask: built {}", steps::binary()?.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Run => run(invocation),
        Task::Weights => {
            let libtorch = set_up(invocation, Purpose::Headless)?;
            steps::build(&libtorch)?;
            Err(steps::become_flipside(&steps::weights()))
        }
        Task::Test => {
            let libtorch = set_up(invocation, Purpose::Test)?;
            steps::test(&libtorch, invocation.depth, &invocation.rest)
        }
    }
}

/// Opens the desk. Without a display, it says so and runs the headless demo instead. Arguments after `--` go to
/// `flipside` unchanged. Then the arguments decide whether a window opens.
fn run(invocation: &Invocation) -> Result<ExitCode, Error> {
    let mut rest = invocation.rest.clone();
    let wants_window = rest.first().is_none_or(|first| first.starts_with('-'));
    let mut purpose = if wants_window { Purpose::Desk } else { Purpose::Headless };
    if rest.is_empty()
        && let Err(why) = display::reachable()
    {
        eprintln!(
            "xtask: {why}, so no window can open; `flipside demo` runs the same loop without one, with a simulated \
             teacher."
        );
        rest.push("demo".to_owned());
        purpose = Purpose::Headless;
    }
    let libtorch = set_up(invocation, purpose)?;
    steps::build(&libtorch)?;
    Err(steps::become_flipside(&rest))
}

/// System packages come first: checking them is quick, and the long download should not end in a question.
fn set_up(invocation: &Invocation, purpose: Purpose) -> Result<Libtorch, Error> {
    system::ensure(purpose, invocation.yes)?;
    let flavour = if invocation.cuda { Flavour::Cuda } else { Flavour::Cpu };
    libtorch::resolve(flavour)
}
