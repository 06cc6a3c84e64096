//! What the program says on stdout. If nobody reads on, as after `| head`, the verb that speaks is unwound, and the
//! program ends without a word. The signal SIGPIPE stays ignored: it would also end a run whose reward function is a
//! program that has stopped reading.

use std::fmt;
use std::io::{self, Write};
use std::panic::resume_unwind;

/// What a verb is unwound with if stdout takes no more.
pub(super) struct Unwritten(pub io::Error);

/// As `print!`.
macro_rules! out {
    ($($words:tt)*) => { $crate::cli::output::write(format_args!($($words)*)) };
}

/// As `println!`.
macro_rules! outln {
    () => { $crate::cli::output::write(format_args!("\n")) };
    ($($words:tt)*) => { $crate::cli::output::write(format_args!("{}\n", format_args!($($words)*))) };
}

pub(super) use {out, outln};

/// Writes to stdout.
pub(super) fn write(words: fmt::Arguments) {
    all_or_unwind(io::stdout().write_fmt(words));
}

/// Shows what was written of a line that has not ended.
pub(super) fn flush() {
    all_or_unwind(io::stdout().flush());
}

fn all_or_unwind(done: io::Result<()>) {
    if let Err(error) = done {
        // No panic: its hook stays silent, and everything that is open is closed on the way.
        resume_unwind(Box::new(Unwritten(error)));
    }
}
