//! What can go wrong before cargo takes over. Each error is one sentence that ends in what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub enum Error {
    /// The command line was not understood.
    Usage(String),
    /// System packages are missing, and neither root nor `--yes` allows xtask to install them.
    Packages { missing: Vec<String>, command: String },
    /// The package manager failed, or left something missing.
    Install { command: String, why: String },
    /// `LIBTORCH` or `LIBTORCH_USE_PYTORCH` points at something that cannot be used.
    Libtorch { variable: &'static str, why: String },
    /// No libtorch is pinned for this machine.
    Platform(String),
    /// A download or its unpacking failed.
    Fetch { what: String, why: String },
    /// A program could not be started at all.
    Program { program: String, why: io::Error },
    /// A file or folder could not be made, read or moved.
    File { doing: &'static str, path: PathBuf, why: io::Error },
    /// A step of the build failed; cargo has already said why.
    Step(&'static str),
}

impl Error {
    /// For `map_err`: an I/O error with what was being done, and where.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |why| Error::File { doing, path, why }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => write!(out, "{what}; `cargo xtask help` lists what there is"),
            Error::Packages { missing, command } => write!(
                out,
                "this machine lacks {}; this installs it:\n\n    {command}\n\nThen run `cargo xtask` again (or add \
                 `--yes` now, and that is run for you)",
                missing.join(", ")
            ),
            Error::Install { command, why } => write!(out, "`{command}` did not do it ({why}); run it by hand and see"),
            Error::Libtorch { variable, why } => write!(
                out,
                "{variable} is set, but {why}; set it to PyTorch or libtorch {}, or unset it and a matching libtorch \
                 is fetched",
                crate::pins::VERSION
            ),
            Error::Platform(machine) => write!(
                out,
                "no libtorch is pinned for {machine}; install PyTorch {version} with pip and set \
                 LIBTORCH_USE_PYTORCH=1, or set LIBTORCH to an unpacked libtorch {version}",
                version = crate::pins::VERSION
            ),
            Error::Fetch { what, why } => {
                write!(
                    out,
                    "{what} could not be fetched ({why}); what is whole was kept, so running this again goes on"
                )
            }
            Error::Program { program, why } => write!(out, "`{program}` could not be run ({why}); is it installed?"),
            Error::File { doing, path, why } => write!(out, "could not {doing} {}: {why}", path.display()),
            Error::Step(step) => write!(out, "{step} failed, for the reason above"),
        }
    }
}
