//! How many threads libtorch may use.

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
