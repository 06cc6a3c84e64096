//! Reuse of the memory that one step of a language model frees and the next one allocates, and how much memory a
//! process has needed.

use crate::store::read_text;
use std::path::Path;

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

/// The most memory that this process has held at a time so far, bytes: Linux's `VmHWM`. `None` on other systems. The
/// peak of `getrusage` will not do, because a process that is started has that of the one that starts it.
pub(super) fn peak_resident() -> Option<u64> {
    let status = read_text(Path::new("/proc/self/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

/// [`peak_resident`] in MiB.
pub(super) fn peak_mib() -> Option<f64> {
    peak_resident().map(|bytes| bytes as f64 / f64::from(1 << 20))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_stays_when_memory_is_freed() {
        let before = peak_mib().unwrap();
        let room = std::hint::black_box(vec![1_u8; 300 << 20]);
        let filled = peak_mib().unwrap();
        drop(room);
        // Linux counts pages in each thread before it adds them up, so the number may be some of them too small.
        let after = peak_mib().unwrap();
        assert!(before > 1.0 && filled > 295.0 && after > filled - 5.0, "{before} {filled} {after}");
    }
}
