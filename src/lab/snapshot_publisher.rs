//! The latest snapshot of the run. The lab's threads write it, and the lab's user reads it. Only the latest value is
//! stored: a slow reader neither delays a writer nor accumulates a queue.

use super::{Event, Snapshot};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Capacity for events. They are rare (a person's answers, checkpoints, faults), so this is enough for hours even if
/// the window never reads them.
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

    /// Changes the snapshot and wakes the reader.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        {
            let mut guard = lock(&self.snapshot);
            let snapshot = Arc::make_mut(&mut guard);
            change(snapshot);
            snapshot.at = std::time::Instant::now();
        }
        (self.repaint)();
    }

    /// Publishes an event. Waits only if the reader has ignored thousands of events.
    pub fn say(&self, event: Event) {
        // The receiver lives as long as the publisher, so the channel cannot be closed.
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

/// A panic while the lock was held leaves a snapshot that is at worst stale, so it is still worth showing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
