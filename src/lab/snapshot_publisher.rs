//! The latest picture of the run, written by the lab's threads and read by whoever drives it. Latest value wins: a slow reader never
//! holds a writer up and never sees a queue.

use super::{Event, Snapshot};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Events are rare (a person's picks, checkpoints, faults), so this is hours of them for a window that never looks.
const EVENTS: usize = 4096;

/// The lab's side of what its user sees.
pub(super) struct SnapshotPublisher {
    snapshot: Mutex<Arc<Snapshot>>,
    events: SyncSender<Event>,
    outbox: Mutex<Receiver<Event>>,
    repaint: Arc<dyn Fn() + Send + Sync>,
}

impl SnapshotPublisher {
    pub fn new(first: Snapshot, repaint: Arc<dyn Fn() + Send + Sync>) -> SnapshotPublisher {
        let (events, outbox) = sync_channel(EVENTS);
        SnapshotPublisher { snapshot: Mutex::new(Arc::new(first)), events, outbox: Mutex::new(outbox), repaint }
    }

    /// Changes the picture and wakes the reader.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        {
            let mut guard = lock(&self.snapshot);
            let snapshot = Arc::make_mut(&mut guard);
            change(snapshot);
            snapshot.at = std::time::Instant::now();
        }
        (self.repaint)();
    }

    /// Says that something happened. Waits only if the reader has ignored thousands of events.
    pub fn say(&self, event: Event) {
        // The receiver lives as long as the board itself, so the channel cannot be closed.
        let _ = self.events.send(event);
        (self.repaint)();
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.snapshot).clone()
    }

    pub fn drain(&self) -> Vec<Event> {
        lock(&self.outbox).try_iter().collect()
    }
}

/// A panic while the lock was held leaves a picture that is at worst stale, so it is still worth showing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
