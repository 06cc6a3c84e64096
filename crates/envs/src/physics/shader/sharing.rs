//! How a workgroup's threads share its worlds: one world per thread, or one world for the whole team.
//!
//! A thread with its own world waits for nobody. But its world's workspace lies in device memory, and that memory
//! traffic limits the speed. A team's workspace lies in workgroup memory, so only states move. Its members wait for
//! each other, and some idle if there is less parallel work than there are members.

use flipside_gpu::Checks;
use std::fmt;
use std::str::FromStr;

/// Threads of a workgroup.
pub const WORKGROUP: usize = 32;

/// The number of degrees of freedom from which a team steps a world. The solver takes most of the time and gives each
/// member one row. With fewer degrees of freedom than this, two of three members would idle there. The workspace of a
/// single thread, on the other hand, grows with their square. With this value Ant and the humanoids use teams, and the
/// planar robots and arms do not. It was chosen by counting operations and has not been measured on a GPU.
const TEAM_FROM: usize = 12;

/// Threads that step one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadsPerWorld {
    /// One thread per world; a workgroup has one world per thread.
    One,
    /// All threads of a workgroup.
    Team,
}

impl ThreadsPerWorld {
    /// The sharing for a robot with this many degrees of freedom: a team from `TEAM_FROM` on, unless the adapter is a
    /// software one. For a software adapter all memory is alike, and each barrier costs a pass over all members'
    /// registers: llvmpipe was measured and is slower with a team. Whether the adapter's workgroup memory holds a
    /// team's workspace is checked elsewhere.
    pub fn suited(nv: usize, software: bool) -> ThreadsPerWorld {
        if nv >= TEAM_FROM && !software { ThreadsPerWorld::Team } else { ThreadsPerWorld::One }
    }

    /// The number of threads.
    pub fn count(self) -> usize {
        match self {
            ThreadsPerWorld::One => 1,
            ThreadsPerWorld::Team => WORKGROUP,
        }
    }

    /// Worlds of a workgroup.
    pub fn worlds(self) -> usize {
        WORKGROUP / self.count()
    }
}

impl fmt::Display for ThreadsPerWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count())
    }
}

impl FromStr for ThreadsPerWorld {
    type Err = String;

    fn from_str(text: &str) -> Result<ThreadsPerWorld, String> {
        let all = [ThreadsPerWorld::One, ThreadsPerWorld::Team];
        let found = all.into_iter().find(|threads| threads.to_string() == text);
        found.ok_or_else(|| format!("\"{text}\" is neither 1 nor {WORKGROUP}"))
    }
}

/// Options for building a robot's shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Whether the shader checks its indices.
    pub checks: Checks,
    /// Threads that step one world; `None` chooses by robot and adapter.
    pub threads_per_world: Option<ThreadsPerWorld>,
}

impl From<Checks> for BuildOptions {
    fn from(checks: Checks) -> BuildOptions {
        BuildOptions { checks, threads_per_world: None }
    }
}
