//! The lab without a window: parses the command line, runs the verb, and reports the outcome as one sentence and an
//! exit code.
//!
//! Logs go to stderr. With `--json` the last line of stdout is one JSON object, and nothing else is printed there.

// A verb speaks through `output`, which knows what to do when nobody reads on.
#![warn(clippy::print_stdout)]

mod algorithms;
mod arguments;
mod bench;
mod best_of;
mod demo;
mod help;
mod look;
mod output;
mod run;
mod settings;
mod text;
mod tldr;

use arguments::{Arguments, Verb};
use clap::Parser;
use flipside_core::panic_reason;
use output::{Unwritten, out};
use std::io::{ErrorKind, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Runs the program: the verb that was typed, or the desk if there is none.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    env_logger::Builder::new()
        .filter_level(if arguments.verbose { log::LevelFilter::Debug } else { log::LevelFilter::Warn })
        // Messages of the graphics libraries are only shown if asked for.
        .parse_env("FLIPSIDE_LOG")
        .init();
    // A panic is reported below, or by the lab, in one sentence. What the system says of it, a trace, is only shown if
    // asked for.
    std::panic::set_hook(Box::new(|panic| log::debug!("{panic}")));
    let why = match catch_unwind(AssertUnwindSafe(|| perform(arguments))) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => match panic.downcast::<Unwritten>() {
            // Whoever reads has seen enough.
            Ok(unwritten) if unwritten.0.kind() == ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Ok(unwritten) => format!("stdout cannot be written to ({})", unwritten.0),
            Err(panic) => {
                let why = panic_reason(&*panic);
                format!("the program broke down ({why}); please report it, with what `--verbose` shows")
            }
        },
    };
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "flipside: {why}");
    ExitCode::FAILURE
}

fn perform(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.verb {
        None => run::desk(&arguments.desk),
        Some(Verb::Train(train)) => run::train(&train),
        Some(Verb::Eval(eval)) => run::eval(&eval),
        Some(Verb::Rollout(rollout)) => run::rollout(&rollout),
        Some(Verb::Film(film)) => run::film(&film),
        Some(Verb::Export(export)) => run::export(&export),
        Some(Verb::Bench(what)) => bench::bench(&what),
        Some(Verb::Demo(demo)) => demo::demo(&demo),
        Some(Verb::Text(what)) => text::text(&what),
        Some(Verb::Settings(what)) => settings::settings(&what),
        Some(Verb::MarkdownHelp) => {
            out!("{}", help::markdown());
            Ok(())
        }
        Some(Verb::Tasks { json }) => run::tasks(json),
        Some(Verb::Devices { json }) => run::devices(json),
    }
}
