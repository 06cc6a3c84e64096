//! How many threads libtorch may use, and how they wait for each other.

#[cfg(target_os = "linux")]
use flipside_core::cores;
#[cfg(target_os = "linux")]
use std::ffi::{c_uint, c_void};
use std::sync::{Once, OnceLock};

/// While this value lives, libtorch computes on the calling thread alone. Dropping it restores the previous setting.
///
/// The matrices of a 64×64 network are too small to share: handing a piece to a second thread costs more than computing
/// it. The setting belongs to the calling thread, so every thread that computes creates one of these.
#[must_use]
pub struct OneThread {
    before: i32,
}

impl OneThread {
    /// Sets libtorch to one thread.
    #[allow(clippy::new_without_default, reason = "making one has an effect")]
    pub fn new() -> OneThread {
        all_threads_count();
        let before = tch::get_num_threads();
        tch::set_num_threads(1);
        OneThread { before }
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.before);
    }
}

/// Has libtorch compute with all of the process's threads when the calling thread asks it to. A thread that computes
/// calls this first: otherwise it gets the number that was set last on any other thread, so that a [`OneThread`] which
/// happens to live there would change how sums are split, and with it their last bits.
pub fn all_threads() {
    // libtorch hands a thread that number when it first asks or computes, over anything that it has set before. So it
    // asks here.
    tch::get_num_threads();
    tch::set_num_threads(all_threads_count());
}

/// The number that libtorch began with.
fn all_threads_count() -> i32 {
    static COUNT: OnceLock<i32> = OnceLock::new();
    *COUNT.get_or_init(tch::get_num_threads)
}

/// Makes libtorch's threads wait for each other asleep, after a few microseconds awake. Call it before libtorch
/// computes on several threads; only the first call does anything.
///
/// libtorch shares work by OpenMP. The library that does it on Linux, libgomp, lets a thread that has nothing to do
/// spin for milliseconds, which keeps the core from a thread that has: one of another program, or the very one it
/// waits for. If libgomp has started more threads than there are cores, it spins three hundred times shorter. So this
/// starts a team of one thread more than there are cores, which does nothing and sleeps from then on. The environment
/// variables `OMP_WAIT_POLICY` and `GOMP_SPINCOUNT` say the same to libgomp, but it reads them when the program is
/// loaded. Where they are set, they decide.
pub fn wait_asleep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_os = "linux")]
        start_idle_team();
    });
}

/// `GOMP_parallel` of libgomp: runs a function on a team of threads.
#[cfg(target_os = "linux")]
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

#[cfg(target_os = "linux")]
fn start_idle_team() {
    if ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    // The library is looked up, not linked: only libtorch knows which file it is, and another build may use another
    // library, which has no such function or does not need this.
    // SAFETY: dlsym reads a name that ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr()) };
    if found.is_null() {
        return;
    }
    // SAFETY: the symbol has had this signature since GCC 4.9.
    let parallel: Parallel = unsafe { std::mem::transmute::<*mut c_void, Parallel>(found) };
    extern "C" fn nothing(_: *mut c_void) {}
    let idle = std::thread::Builder::new().name("flipside-openmp".to_owned()).spawn(move || {
        // SAFETY: the function ignores its argument, and every thread of the team may call it.
        unsafe { parallel(nothing, std::ptr::null_mut(), cores() as c_uint + 1, 0) };
        // A team ends with the thread that started it.
        loop {
            std::thread::park();
        }
    });
    // Without the thread nothing is lost but speed on a busy machine.
    drop(idle);
}
