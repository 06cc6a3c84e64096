//! Memory that a step of a language model frees and the next one wants again.

/// Free memory at the end of the heap that is not given back to the system: the most that the call takes, 2 GiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = libc::c_int::MAX;

/// Lets the process keep what it frees, for as long as it lives, and share it between the threads that are started from now on. By itself the C
/// library hands a tensor of some megabytes back to the system and takes it anew, page by page, again and again in every step; where the
/// system is slow to find pages, that is a good part of a step of GPT-2. Elsewhere than on Linux nothing changes.
pub(super) fn keep_what_is_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // An arena of a thread's own holds 64 MiB at most, and maps what is larger.
    for (dial, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: mallopt takes two integers and may be called at any time.
        if unsafe { libc::mallopt(dial, value) } == 0 {
            log::debug!("the C library refuses allocation setting {dial} = {value}");
        }
    }
}
