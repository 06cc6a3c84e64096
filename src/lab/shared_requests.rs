//! What the ledger wants of the worker, as one small shared value: the worker looks at it between minibatches and never waits for a queue.

use crate::settings::TeacherKind;
use flipside_core::{Choice, Item, JudgementId, PairId};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A standing judgement with what it is about.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub judgement: JudgementId,
    pub pair: PairId,
    pub items: [Item; 2],
    pub choice: Choice,
}

/// The wishes as they stand.
#[derive(Clone)]
pub(super) struct WorkerRequests {
    /// Train (true) or rest (false).
    pub run: bool,
    /// Save and end.
    pub quit: bool,
    /// Write a checkpoint at the next opportunity.
    pub save: bool,
    /// Show what the policy does at the next opportunity.
    pub show_policy: bool,
    /// Text mode: a free prompt to answer at the next opportunity.
    pub ask: Option<String>,
    /// Text mode: the prompts to ask about from the next opportunity on.
    pub prompts: Option<Vec<String>>,
    /// Who answers pairs.
    pub teacher: TeacherKind,
    /// Whether whoever answers takes time for it, so that pairs should wait ready while training goes on: a person, or a simulated teacher with
    /// the clock of one, until it has given what was planned.
    pub asks_in_time: bool,
    /// Pairs that wait behind the one on show.
    pub pairs_ready: usize,
    /// Offers of pairs that the ledger has dealt with, counted; a simulated teacher has answered them by then.
    pub offers_done: u64,
    /// Every standing judgement, skips included, oldest first.
    pub labels: Arc<Vec<Label>>,
    /// Judgements that stand whatever the reward model says of them.
    pub kept: Arc<Vec<JudgementId>>,
    /// Changes whenever `labels` does.
    pub labels_version: u64,
    /// Writing to the session failed; training must not outrun what can be kept.
    pub disk_fault: Option<String>,
}

/// [`WorkerRequests`] behind a lock, with a bell.
pub(super) struct SharedRequests {
    requests: Mutex<WorkerRequests>,
    changed: Condvar,
}

impl SharedRequests {
    pub fn new(requests: WorkerRequests) -> SharedRequests {
        SharedRequests { requests: Mutex::new(requests), changed: Condvar::new() }
    }

    pub fn change(&self, change: impl FnOnce(&mut WorkerRequests)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub fn look(&self) -> WorkerRequests {
        self.lock().clone()
    }

    pub fn quitting(&self) -> bool {
        self.lock().quit
    }

    /// Waits until `ready` holds, then returns the wishes.
    pub fn wait_until(&self, ready: impl Fn(&WorkerRequests) -> bool) -> WorkerRequests {
        let guard = self.changed.wait_while(self.lock(), |w| !ready(w)).unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// Takes a one-time wish: returns it as it stood, and clears it.
    pub fn take<T: Default>(&self, field: impl FnOnce(&mut WorkerRequests) -> &mut T) -> T {
        std::mem::take(field(&mut self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, WorkerRequests> {
        // Every change is a plain assignment, so a poisoned lock still holds a whole value.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
