//! Reuse of the memory that one step of a language model frees and the next one allocates.

/// Free memory at the end of the heap that is not returned to the system: the largest value that the call takes, 2 GiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = libc::c_int::MAX;

/// Makes the process keep the memory that it frees and share it between all threads started from now on. By default the
/// C library returns a tensor of several megabytes to the system and allocates it again, page by page, many times in
/// every step. On systems that are slow to provide pages, that is a large part of a GPT-2 step. This works on Linux
/// with glibc; elsewhere nothing changes.
pub(super) fn keep_what_is_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // Other arenas than the main one hold at most 64 MiB each and map larger blocks, so there is only one arena.
    for (dial, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: mallopt takes two integers and may be called at any time.
        if unsafe { libc::mallopt(dial, value) } == 0 {
            log::debug!("the C library refuses allocation setting {dial} = {value}");
        }
    }
}

/// The most physical memory that this process has had so far, bytes; `None` where the system does not say.
pub(super) fn peak_resident() -> Option<u64> {
    #[cfg(unix)]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is a valid place for what the call writes, and all zeros are a valid `rusage`.
        let usage = unsafe {
            if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
                return None;
            }
            usage.assume_init()
        };
        // Linux counts in KiB, macOS in bytes.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        u64::try_from(usage.ru_maxrss).ok().map(|size| size * unit)
    }
    #[cfg(not(unix))]
    None
}
