//! The binary: it only returns the exit code of the command line. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    flipside::cli::main()
}
