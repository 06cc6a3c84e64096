//! Thread priorities for machines with few cores: a window with moving pictures and the ledger go before training.

/// The niceness of training threads. On Unix, 0 is the normal priority and 19 the lowest.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = 10;

/// Lowers the priority of the calling thread and of every thread that it starts from now on. This works only on Linux,
/// which has a priority per thread. An idle machine is not affected. On two busy cores, a click is answered before the
/// next minibatch. The price is paid beside other programs: they go before training too, and two of them on two cores
/// leave it a tenth of its speed. So only a run whose pictures move in a window pays it.
pub(super) fn yield_to_the_window() {
    #[cfg(target_os = "linux")]
    // SAFETY: setpriority takes three integers and touches no memory of ours; on Linux, 0 names the calling thread.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) } != 0;
    #[cfg(target_os = "linux")]
    if refused {
        log::debug!("the training thread keeps its priority: {}", std::io::Error::last_os_error());
    }
}
