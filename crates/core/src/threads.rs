//! Threads that share work.

use std::sync::{Mutex, OnceLock, PoisonError};

/// How many cores this process may use. The system is queried only once, because the query reads files.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Threads that share work: the calling thread and its helpers.
pub enum Threads {
    /// The calling thread alone.
    Calling,
    /// The threads of rayon's global pool help.
    Global,
    /// The threads of a separate pool help.
    Own(rayon::ThreadPool),
}

impl Threads {
    /// This many threads, including the calling one. `None` means as many as there are [`cores`]. There are never more
    /// than there are parts to share. The helpers are called `name-0`, `name-1`, ….
    ///
    /// # Errors
    /// The system could not start the threads.
    pub fn new(
        name: &'static str,
        threads: Option<usize>,
        parts: usize,
    ) -> Result<Threads, rayon::ThreadPoolBuildError> {
        match threads.unwrap_or_else(cores).clamp(1, parts.max(1)) {
            1 => Ok(Threads::Calling),
            threads => {
                let name = move |index| format!("{name}-{index}");
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads - 1).thread_name(name).build()?;
                Ok(Threads::Own(pool))
            }
        }
    }

    /// How many threads there are, including the calling one.
    pub fn count(&self) -> usize {
        match self {
            Threads::Calling => 1,
            Threads::Global => rayon::current_num_threads(),
            Threads::Own(pool) => 1 + pool.current_num_threads(),
        }
    }

    /// Does each part on whichever thread is free. The job receives the index of its thread, from 0 up to
    /// [`Threads::count`].
    ///
    /// The calling thread starts at once, and the others join as they wake. Handing them all the work and waiting would
    /// cost two wake-ups, a tenth of a millisecond.
    pub fn share_out<P: Send>(&self, parts: impl Iterator<Item = P> + Send, job: impl Fn(usize, P) + Sync) {
        let helpers = self.count() - 1;
        if helpers == 0 {
            return parts.for_each(|part| job(0, part));
        }
        let parts = Mutex::new(parts);
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = |thread: usize| {
            while let Some(part) = next() {
                job(thread, part);
            }
        };
        match self {
            Threads::Own(pool) => pool.in_place_scope(|scope| on_all(scope, helpers, &work)),
            _ => rayon::in_place_scope(|scope| on_all(scope, helpers, &work)),
        }
    }
}

/// Works on this thread, index 0, and on this many helpers.
fn on_all<'scope>(scope: &rayon::Scope<'scope>, helpers: usize, work: &'scope (impl Fn(usize) + Sync)) {
    (1..=helpers).for_each(|thread| scope.spawn(move |_| work(thread)));
    work(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn every_part_is_done_once() {
        for threads in [Threads::Calling, Threads::Global, Threads::new("parts", Some(3), 100).unwrap()] {
            let (done, count) = (AtomicU64::new(0), threads.count());
            threads.share_out(0..64, |thread, part| {
                assert!(thread < count);
                assert_eq!(done.fetch_xor(1 << part, Ordering::Relaxed) >> part & 1, 0);
            });
            assert_eq!(done.into_inner(), u64::MAX);
        }
    }

    #[test]
    fn there_are_no_more_threads_than_parts() {
        let count = |threads, parts| Threads::new("parts", threads, parts).unwrap().count();
        assert_eq!([count(Some(4), 2), count(Some(4), 0), count(Some(0), 9), count(None, 1)], [2, 1, 1, 1]);
    }
}
