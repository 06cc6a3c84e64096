//! How a workgroup's threads share its worlds: a world each, or, as a team, one world together.
//!
//! A thread of its own has nobody to wait for, but its world's workspace lies in the device's memory, and what moves to and fro there bounds the
//! speed. A team's workspace lies in the memory that a workgroup shares, so that only states move; its members wait for each other, and idle where there
//! is less to do at once than there are of them.

use super::compose::WORKGROUP;
use flipside_gpu::Checks;
use std::fmt;
use std::str::FromStr;

/// Degrees of freedom from which on a team steps a world. The solver, where most of the time goes, has a row a member: with fewer than this, two
/// members of three would idle there. The workspace of one thread, on the other hand, grows with their square. That makes Ant and the humanoids teams,
/// and the planar robots and arms not. It was chosen by counting, and has met no GPU.
const TEAM_FROM: usize = 12;

/// Threads that step one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadsPerWorld {
    /// One, and a workgroup has a world a thread.
    One,
    /// A workgroup's.
    Team,
}

impl ThreadsPerWorld {
    /// What suits a robot with so many degrees of freedom: a team from `TEAM_FROM` on, on an adapter that is no processor in a GPU's place. To such a
    /// one all memory is alike, and meeting costs it a pass over all members' registers: llvmpipe was measured, and is slower with a team.
    /// Whether the adapter holds a team's workspace is asked where there is one.
    pub fn suited(nv: usize, software: bool) -> ThreadsPerWorld {
        if nv >= TEAM_FROM && !software { ThreadsPerWorld::Team } else { ThreadsPerWorld::One }
    }

    /// How many.
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

/// How a robot's shader is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Whether it checks its indices.
    pub checks: Checks,
    /// Threads that step one world; None for what suits robot and adapter.
    pub threads_per_world: Option<ThreadsPerWorld>,
}

impl From<Checks> for BuildOptions {
    fn from(checks: Checks) -> BuildOptions {
        BuildOptions { checks, threads_per_world: None }
    }
}
