//! Who goes first when cores are few: the window and the ledger, then training.

/// How nice a thread that trains is to the others, on Unix's scale from 0 to 19.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = 10;

/// Lowers the priority of the calling thread and of every thread that it starts from now on, where the system can (Linux keeps it a thread).
/// On an idle machine nothing changes; on two busy cores a click is answered before the next minibatch.
pub(super) fn yield_to_the_window() {
    #[cfg(target_os = "linux")]
    // SAFETY: setpriority takes three integers and touches no memory of ours; on Linux, 0 names the calling thread.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) } != 0;
    #[cfg(target_os = "linux")]
    if refused {
        log::debug!("the training thread keeps its priority: {}", std::io::Error::last_os_error());
    }
}
